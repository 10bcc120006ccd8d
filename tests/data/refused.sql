-- Statements that pgherd refuses, over schema.sql: the number, a tab, the statement.
PGH001	TABLE orders
PGH001	INSERT INTO orders (VALUES (42, 1) LIMIT 1)
PGH001	INSERT INTO orders TABLE orders
PGH001	SELEC 1
PGH001	SELECT FROM WHERE
PGH001	SELECT * FROM orders WHERE
PGH001	SELECT * FROM ROWS FROM (generate_series(1, 3), generate_series(1, 2)) x
PGH003	SELECT * FROM orders PIVOT (sum(total) FOR status IN ('a'))
PGH003	SELECT U&"d\0061t" FROM orders
PGH003	SELECT $0
PGH003	SELECT * FROM orders WHERE total > 1 = (customer_id = 42)
PGH003	SELECT * FROM orders WHERE customer_id = 42 = true
PGH004	SELECT * FROM orders ORDER BY total
PGH004	SELECT name FROM customers ORDER BY customer_id DESC NULLS LAST
PGH004	SELECT c.name FROM customers c JOIN orders o ON o.customer_id = c.customer_id ORDER BY o.total
PGH005	SELECT * FROM orders LIMIT 5
PGH005	SELECT * FROM orders OFFSET 5
PGH005	SELECT * FROM orders FETCH FIRST 5 ROWS ONLY
PGH005	SELECT name FROM customers LIMIT 10 OFFSET 20
PGH005	SELECT name FROM customers LIMIT $1
PGH006	SELECT DISTINCT status FROM orders
PGH006	SELECT DISTINCT ON (status) * FROM orders
PGH006	SELECT DISTINCT c.name, o.status FROM customers c JOIN orders o USING (customer_id)
PGH007	SELECT count(*) FILTER (WHERE customer_id = 42) FROM orders
PGH007	SELECT count(*) FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id AND c.customer_id = 42
PGH007	SELECT count(*) FROM orders
PGH007	SELECT max(total) + 1 FROM orders
PGH007	SELECT string_agg(status, ',' ORDER BY total) FROM orders
PGH007	SELECT pg_catalog.sum(total) FROM orders
PGH007	SELECT avg(total), stddev(total) FROM orders
PGH007	SELECT count(DISTINCT customer_id) FROM orders WHERE status = 'new'
PGH007	SELECT array_agg(name) FROM customers
PGH007	SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY total) FROM orders
PGH008	SELECT customer_id, count(*) FROM orders GROUP BY 1 HAVING customer_id = 42
PGH008	SELECT status FROM orders GROUP BY status
PGH008	SELECT 1 FROM orders HAVING true
PGH008	SELECT count(*) FROM orders GROUP BY ()
PGH008	SELECT customer_id, sum(total) FROM orders GROUP BY customer_id
PGH008	SELECT status, count(*) FROM orders GROUP BY CUBE (status)
PGH009	SELECT row_number() OVER () FROM orders
PGH009	SELECT sum(total) OVER (PARTITION BY status) FROM orders
PGH009	SELECT rank() OVER w FROM orders WINDOW w AS (ORDER BY total)
PGH009	SELECT name, lag(balance) OVER (ORDER BY name) FROM customers
PGH010	SELECT * FROM (SELECT * FROM orders UNION ALL SELECT * FROM orders) x WHERE customer_id = 42
PGH010	SELECT order_id FROM orders UNION ALL SELECT order_id FROM orders
PGH010	SELECT 1 FROM orders UNION SELECT 2 FROM orders
PGH010	SELECT name FROM customers EXCEPT SELECT name FROM countries
PGH011	SELECT * FROM orders FOR UPDATE
PGH011	SELECT * FROM orders FOR KEY SHARE NOWAIT
PGH011	SELECT name FROM customers FOR SHARE SKIP LOCKED
PGH011	SELECT name FROM customers WHERE customer_id IN (2, 4) FOR NO KEY UPDATE
PGH012	SELECT generate_series(1, 3) FROM orders
PGH012	SELECT unnest(tags) FROM customers
PGH012	SELECT jsonb_object_keys(attributes) FROM devices
PGH013	SELECT now() FROM orders
PGH013	SELECT random() FROM orders
PGH013	SELECT gen_random_uuid() FROM orders
PGH013	SELECT CURRENT_DATE FROM orders
PGH013	SELECT current_user FROM orders
PGH013	SELECT * FROM orders WHERE placed_on > CURRENT_DATE
PGH013	SELECT to_char(placed_on, 'YYYY') FROM orders
PGH013	SELECT current_setting('TimeZone') FROM orders
PGH013	SELECT version() FROM orders
PGH013	SELECT row_to_json(o) FROM orders o
PGH013	SELECT name FROM customers WHERE created_at > now() - interval '1 day'
PGH013	SELECT name FROM customers WHERE created_at > CURRENT_TIMESTAMP
PGH013	SELECT concat(name, balance) FROM customers
PGH013	SELECT age(created_at) FROM customers
PGH014	SELECT * FROM orders, customers WHERE customer_id = 42
PGH014	SELECT * FROM orders o, orders o WHERE o.customer_id = 42
PGH014	SELECT * FROM customers c JOIN orders o ON o.order_id = c.customer_id
PGH014	SELECT * FROM customers c, orders o
PGH014	SELECT * FROM orders a JOIN orders b USING (order_id)
PGH014	SELECT * FROM products p JOIN order_lines l ON l.sku = p.sku
PGH014	SELECT * FROM customers c JOIN orders o ON o.customer_id = c.customer_id, tickets t
PGH014	SELECT * FROM orders o JOIN order_lines l ON l.order_id = o.order_id
PGH014	SELECT * FROM devices d JOIN customers c ON c.name = d.label
PGH015	SELECT * FROM customers c FULL JOIN orders o USING (customer_id) WHERE customer_id = 42
PGH015	SELECT * FROM customers c FULL JOIN orders o ON o.customer_id = 42 AND c.customer_id = 42
PGH015	SELECT * FROM countries k LEFT JOIN customers c ON c.country_code = k.code
PGH015	SELECT * FROM customers c RIGHT JOIN countries k ON c.country_code = k.code
PGH015	SELECT * FROM customers c FULL JOIN orders o ON o.customer_id = c.customer_id
PGH015	SELECT * FROM customers c FULL JOIN countries k ON c.country_code = k.code
PGH015	SELECT * FROM customers c LEFT JOIN orders o ON o.order_id = c.customer_id
PGH015	SELECT * FROM countries k LEFT JOIN (customers c JOIN orders o ON o.customer_id = c.customer_id) ON true
PGH015	SELECT * FROM currencies y LEFT JOIN countries k ON k.code = y.country_code LEFT JOIN customers c ON c.country_code = k.code
PGH016	SELECT * FROM orders JOIN (SELECT 42.0 AS customer_id) x USING (customer_id) WHERE customer_id = 42
PGH016	SELECT * FROM orders WHERE customer_id = (SELECT 42)
PGH016	SELECT 1 WHERE EXISTS (SELECT FROM orders)
PGH016	SELECT 1 ORDER BY (SELECT count(*) FROM orders)
PGH016	SELECT 1 LIMIT (SELECT count(*) FROM orders)
PGH016	SELECT ARRAY(SELECT order_id FROM orders)
PGH016	SELECT coalesce((SELECT max(total) FROM orders), 0)
PGH016	SELECT sum(1) FILTER (WHERE EXISTS (SELECT FROM orders))
PGH016	SELECT sum(1) OVER (ORDER BY (SELECT count(*) FROM orders))
PGH016	SELECT 1 GROUP BY (SELECT count(*) FROM orders)
PGH016	SELECT 1 HAVING (SELECT count(*) FROM orders) > 1
PGH016	SELECT DISTINCT ON ((SELECT count(*) FROM orders)) 1
PGH016	VALUES ((SELECT count(*) FROM orders))
PGH016	SELECT * FROM generate_series(1, (SELECT count(*) FROM orders))
PGH016	SELECT * FROM (SELECT order_id AS customer_id FROM orders) x WHERE customer_id = 42
PGH016	SELECT * FROM (SELECT customer_id AS order_id, order_id AS customer_id FROM orders) x WHERE customer_id = 42
PGH016	SELECT * FROM (SELECT * FROM orders LIMIT 5) x WHERE customer_id = 42
PGH016	SELECT * FROM (SELECT * FROM orders OFFSET 5) x WHERE customer_id = 42
PGH016	SELECT * FROM ((SELECT * FROM orders) LIMIT 5) x WHERE customer_id = 42
PGH016	SELECT * FROM (SELECT DISTINCT ON (status) * FROM orders) x WHERE customer_id = 42
PGH016	SELECT * FROM (SELECT *, row_number() OVER (ORDER BY total) FROM orders) x WHERE customer_id = 42
PGH016	SELECT * FROM (SELECT * FROM orders ORDER BY rank() OVER (ORDER BY total)) x WHERE customer_id = 42
PGH016	SELECT * FROM (SELECT status, max(customer_id) AS customer_id FROM orders GROUP BY 1) x WHERE customer_id = 42
PGH016	SELECT * FROM (SELECT status, customer_id, count(*) FROM orders GROUP BY ROLLUP (1, 2)) x WHERE customer_id = 42
PGH016	SELECT * FROM (SELECT customer_id FROM orders GROUP BY GROUPING SETS ((customer_id), ())) x WHERE customer_id = 42
PGH016	SELECT * FROM (SELECT customer_id + 0 AS customer_id FROM orders) x WHERE customer_id = 42
PGH016	SELECT * FROM (SELECT * FROM orders a JOIN orders b USING (order_id)) x (k) WHERE k = 42
PGH016	SELECT * FROM orders WHERE total > (SELECT 1)
PGH016	SELECT * FROM orders WHERE EXISTS (SELECT FROM countries)
PGH016	SELECT * FROM (SELECT * FROM orders) x
PGH016	SELECT * FROM orders, (VALUES (1)) v
PGH016	SELECT name FROM customers WHERE country_code IN (SELECT code FROM countries)
PGH016	SELECT name, (SELECT count(*) FROM orders o WHERE o.customer_id = c.customer_id) FROM customers c
PGH017	WITH orders AS (SELECT * FROM countries) SELECT * FROM public.orders
PGH017	WITH orders AS (SELECT * FROM orders) SELECT * FROM orders WHERE customer_id = 42
PGH017	WITH x AS (SELECT * FROM orders) SELECT * FROM x WHERE customer_id = 42
PGH017	WITH x AS (SELECT * FROM orders) SELECT * FROM x a WHERE customer_id = 42 UNION ALL SELECT * FROM x
PGH017	WITH x AS (SELECT count(*) FROM orders) SELECT * FROM countries
PGH017	WITH x AS (SELECT 1) SELECT * FROM orders
PGH017	WITH big AS (SELECT * FROM orders WHERE total > 100) SELECT * FROM big
PGH018	SELECT * FROM customers c JOIN orders o ON o.order_id = c.customer_id WHERE c.customer_id = 42
PGH018	SELECT * FROM customers c JOIN orders o ON o.customer_id >= c.customer_id WHERE c.customer_id = 42
PGH018	SELECT * FROM customers c JOIN orders o ON o.customer_id = c.customer_id OR true WHERE c.customer_id = 42
PGH018	SELECT * FROM customers c JOIN orders o ON o.customer_id + 0 = c.customer_id WHERE c.customer_id = 42
PGH018	SELECT * FROM customers c CROSS JOIN orders o WHERE c.customer_id = 42
PGH018	SELECT * FROM customers c, orders o WHERE o.customer_id = 4 AND c.customer_id = 42
PGH018	SELECT * FROM orders a, orders b WHERE a.customer_id = 42
PGH018	SELECT * FROM orders a JOIN orders b USING (order_id) WHERE a.customer_id = 42
PGH018	SELECT * FROM products p JOIN order_lines l ON l.sku = p.sku WHERE p.sku = 'a'
PGH018	SELECT * FROM products p JOIN order_lines l ON l.sku = p.sku WHERE l.customer_id = 42
PGH007	SELECT count(*) FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id AND o.customer_id = 42
PGH007	SELECT count(*) FROM orders o RIGHT JOIN customers c ON o.customer_id = c.customer_id AND o.customer_id = 42
PGH018	SELECT * FROM customers c FULL JOIN orders o ON o.customer_id = c.customer_id WHERE c.customer_id = 42
PGH018	SELECT * FROM orders WHERE customer_id = 42 AND total > (SELECT avg(total) FROM orders)
PGH018	SELECT * FROM orders WHERE customer_id = 42 AND total > (SELECT avg(total) FROM orders WHERE customer_id = 4)
PGH018	SELECT * FROM orders WHERE customer_id IN (SELECT customer_id FROM customers WHERE customer_id = 42)
PGH018	SELECT (SELECT count(*) FROM orders WHERE customer_id = 42) FROM customers
PGH016	SELECT * FROM customers c WHERE EXISTS (SELECT FROM orders o WHERE o.customer_id = c.customer_id AND o.customer_id = 42)
PGH018	SELECT * FROM customers c WHERE EXISTS (SELECT FROM orders o WHERE o.customer_id = 42 AND c.customer_id = 42)
PGH016	SELECT * FROM customers c WHERE NOT EXISTS (SELECT FROM orders o WHERE o.customer_id = c.customer_id AND o.customer_id = 42)
PGH016	SELECT * FROM customers c, LATERAL (SELECT * FROM orders o WHERE o.customer_id = c.customer_id AND o.customer_id = 42) l
PGH018	SELECT * FROM customers c WHERE c.customer_id = 42 AND EXISTS (SELECT FROM orders o WHERE customer_id = o.customer_id)
PGH018	SELECT * FROM customers c, (SELECT * FROM orders o WHERE o.customer_id = c.customer_id) l WHERE c.customer_id = 42
PGH018	SELECT * FROM orders customers, customers orders WHERE customers.customer_id = 42
PGH017	WITH x AS (SELECT * FROM orders) SELECT * FROM x JOIN customers c USING (customer_id) WHERE c.customer_id = 42
PGH018	WITH RECURSIVE t AS (SELECT * FROM orders WHERE customer_id = 42 UNION ALL SELECT o.* FROM orders o JOIN t ON o.customer_id = t.customer_id) SELECT * FROM t
PGH016	SELECT * FROM customers c LEFT JOIN (SELECT * FROM orders) x ON x.customer_id = c.customer_id WHERE x.customer_id = 42
PGH018	SELECT order_id FROM orders WHERE customer_id = 42 UNION SELECT order_id FROM orders
PGH018	SELECT order_id FROM orders WHERE customer_id = 42 UNION SELECT order_id FROM orders WHERE customer_id = 4
PGH018	SELECT order_id FROM orders EXCEPT SELECT order_id FROM orders WHERE customer_id = 42
PGH018	INSERT INTO orders (customer_id, order_id, total) VALUES (42, 1, (SELECT sum(price) FROM order_lines))
PGH018	INSERT INTO orders (customer_id, order_id) VALUES (42, 1) RETURNING (SELECT count(*) FROM orders)
PGH018	INSERT INTO orders VALUES (42, 1) ON CONFLICT (customer_id, order_id) DO UPDATE SET total = (SELECT max(total) FROM orders)
PGH018	DELETE FROM orders USING customers c WHERE c.customer_id = 42
PGH018	UPDATE orders o SET total = 1 FROM customers c WHERE o.customer_id = 42
PGH018	UPDATE orders o SET total = 1 FROM orders p WHERE p.customer_id = 42 AND o.order_id = p.order_id
PGH018	UPDATE orders SET total = (SELECT avg(total) FROM orders) WHERE customer_id = 42
PGH018	UPDATE orders SET total = 1 WHERE customer_id = 42 RETURNING (SELECT count(*) FROM customers)
PGH018	SELECT * FROM customers WHERE customer_id = 1 AND EXISTS (SELECT FROM orders)
PGH018	SELECT * FROM products p, customers c WHERE p.sku = 'a' AND c.customer_id = 1
PGH019	SELECT * FROM orders o WHERE orders.customer_id = 42
PGH019	SELECT * FROM orders AS o (a, b) WHERE customer_id = 42
PGH019	SELECT o.nothing FROM orders o
PGH019	SELECT nothing FROM orders
PGH020	SELECT ctid FROM orders
PGH020	SELECT o.xmin FROM orders o
PGH020	SELECT o.tableoid FROM orders o
PGH020	SELECT o FROM orders o
PGH020	SELECT c.ctid, c.name FROM customers c
PGH021	UPDATE orders SET total = 1
PGH021	UPDATE orders SET total = 1 WHERE order_id = 42
PGH080	UPDATE orders SET total = 1 WHERE customer_id IN (4, 42)
PGH021	UPDATE orders SET total = 1 WHERE customer_id = 42 OR order_id = 1
PGH021	UPDATE orders SET total = 1 WHERE customer_id = 42.0
PGH021	DELETE FROM orders
PGH021	DELETE FROM orders WHERE customer_id::text = '42'
PGH021	DELETE FROM orders WHERE customer_id IN (SELECT 42)
PGH021	UPDATE customers SET active = false WHERE active
PGH021	DELETE FROM order_lines WHERE order_id = 1 AND line_no = 1
PGH022	INSERT INTO orders VALUES (42, 1) ON CONFLICT (customer_id, order_id) DO UPDATE SET customer_id = 4
PGH022	UPDATE orders SET customer_id = 4 WHERE customer_id = 42
PGH022	UPDATE orders SET (total, customer_id) = (SELECT 1, 42) WHERE customer_id = 42
PGH022	UPDATE orders SET "customer_id" = DEFAULT WHERE customer_id = 42
PGH023	MERGE INTO orders o USING customers c ON o.customer_id = c.customer_id WHEN MATCHED THEN DELETE
PGH025	INSERT INTO products (sku, title) SELECT code, name FROM countries
PGH026	INSERT INTO orders (order_id) VALUES (1)
PGH026	INSERT INTO orders (customer_id, order_id) VALUES (DEFAULT, 1)
PGH026	INSERT INTO orders DEFAULT VALUES
PGH026	INSERT INTO devices (label) VALUES ('x')
PGH027	INSERT INTO orders (customer_id, order_id) VALUES (NULL, 1)
PGH027	INSERT INTO products (sku, title) VALUES (NULL, 'A')
PGH028	INSERT INTO orders (customer_id, order_id) VALUES (40 + 2, 1)
PGH028	INSERT INTO orders (customer_id, order_id) VALUES (42.4, 1)
PGH028	INSERT INTO orders (customer_id, order_id) VALUES ((SELECT 42), 1)
PGH028	INSERT INTO orders (customer_id, order_id) VALUES (abs(-42), 1)
PGH028	INSERT INTO products (sku, title) VALUES (42, 'x')
PGH028	INSERT INTO accounts (code, owner) VALUES ('abc'::varchar(2), 'x')
PGH048	INSERT INTO orders (customer_id, order_id) VALUES (nextval('ticket_numbers'), 1)
PGH028	INSERT INTO products (sku, title) VALUES (lower('A'), 'A')
PGH028	INSERT INTO devices (device_id, label) VALUES (gen_random_uuid(), 'x')
PGH029	INSERT INTO doubled (base) VALUES (21)
PGH030	INSERT INTO invoices (customer_id, amount) VALUES (42, 1.5)
PGH030	INSERT INTO invoices (customer_id, invoice_id) VALUES (42, DEFAULT)
PGH030	INSERT INTO invoices VALUES (42)
PGH030	INSERT INTO receipts (customer_id, amount) VALUES (42, 1)
PGH030	INSERT INTO invoices VALUES (42, 1) ON CONFLICT (customer_id, invoice_id) DO UPDATE SET invoice_id = DEFAULT
PGH030	UPDATE invoices SET invoice_id = DEFAULT WHERE customer_id = 42
PGH030	INSERT INTO invoices (customer_id) VALUES (1)
PGH031	WITH countries AS (SELECT 1) DELETE FROM countries
PGH031	INSERT INTO countries VALUES ('xx', 'X', 'Y')
PGH031	UPDATE countries SET name = 'x' WHERE code = 'at'
PGH031	DELETE FROM countries
PGH031	INSERT INTO currencies (code, country_code, digits) VALUES ('CHF', 'de', 2)
PGH032	SELECT * FROM countries FOR UPDATE
PGH032	SELECT * FROM customers, countries WHERE customer_id = 42 FOR UPDATE
PGH032	SELECT * FROM customers c, countries k WHERE customer_id = 42 FOR UPDATE OF c, k
PGH032	SELECT * FROM customers c, (SELECT * FROM countries) k WHERE customer_id = 42 FOR SHARE
PGH032	SELECT * FROM customers c, (SELECT * FROM countries FOR SHARE) k WHERE customer_id = 42
PGH032	(SELECT * FROM countries) FOR UPDATE
PGH032	SELECT * FROM countries FOR SHARE
PGH037	WITH x AS (UPDATE app_settings SET value = 'x' RETURNING *) DELETE FROM orders WHERE customer_id = 42
PGH034	SELECT * INTO x FROM orders WHERE customer_id = 42
PGH034	SELECT * INTO copy_of_countries FROM countries
PGH035	SELECT * FROM stray
PGH035	SELECT * FROM orders WHERE customer_id = 42 AND order_id IN (SELECT id FROM stray)
PGH035	INSERT INTO stray VALUES (1, 1)
PGH037	INSERT INTO app_settings SELECT name, status FROM customers, orders
PGH037	UPDATE orders SET total = s.version FROM app_settings s WHERE customer_id = 42
PGH037	SELECT * FROM orders, app_settings WHERE customer_id = 42
PGH037	SELECT * FROM orders WHERE customer_id = 42 AND note IN (SELECT value FROM app_settings)
PGH037	SELECT * FROM customers c JOIN app_settings s ON s.key = c.name WHERE c.customer_id = 1
PGH038	UPDATE app_settings SET value = a.body FROM archive a
PGH038	SELECT * FROM app_settings, archive
PGH038	SELECT * FROM app_settings UNION SELECT 1, body, 2 FROM archive
PGH038	INSERT INTO archive SELECT 1, value FROM app_settings
PGH039	SELECT * FROM orders, pg_class WHERE customer_id = 42
PGH039	SELECT * FROM app_settings, pg_class
PGH039	SELECT * FROM customers, information_schema.tables WHERE customer_id = 1
PGH016	SELECT * FROM customer_totals
PGH016	SELECT * FROM active_customers
PGH016	SELECT name FROM active_customers WHERE name = 'x'
PGH016	SELECT * FROM customers WHERE name IN (SELECT name FROM active_customers)
PGH016	SELECT * FROM latest_orders WHERE customer_id = 42
PGH016	SELECT * FROM ranked_orders WHERE customer_id = 42
PGH010	SELECT * FROM names_of_all WHERE customer_id = 42
PGH035	SELECT * FROM stray_view
PGH040	SELECT * FROM joined_oddly WHERE customer_id = 42
PGH040	UPDATE order_view SET status = 'x' WHERE cid = 42
PGH040	DELETE FROM order_view WHERE cid = 42
PGH040	INSERT INTO order_view (cid, order_id) VALUES (42, 77)
PGH037	SELECT * FROM order_view, themes WHERE cid = 42
PGH041	SELECT * FROM overseas WHERE customer_id = 42
PGH041	INSERT INTO mixed VALUES (42, 2025)
PGH042	SELECT * FROM overseas_2025 WHERE customer_id = 42
PGH043	SELECT * FROM overseas_2024
PGH042	SELECT * FROM mixed_2025
PGH045	INSERT INTO watched VALUES (42, 'x')
PGH045	INSERT INTO watched_rest VALUES (42, 'x')
PGH054	INSERT INTO readings VALUES (42, 'x')
PGH054	INSERT INTO readings_all VALUES (42, 'x')
PGH026	INSERT INTO measurements (taken_on, value) VALUES ('2024-05-05', 1.5)
PGH022	UPDATE measurements_2024 SET customer_id = 4 WHERE customer_id = 42
PGH021	DELETE FROM measurements
PGH042	SELECT * FROM people WHERE person_id = 42
PGH042	SELECT * FROM ONLY people WHERE person_id = 42
PGH042	SELECT * FROM employees
PGH042	INSERT INTO employees VALUES (1, 'x', 2)
PGH043	SELECT * FROM far_away
PGH044	INSERT INTO ruled VALUES (42, 'x')
PGH044	DELETE FROM ruled WHERE customer_id = 42
PGH045	INSERT INTO audited VALUES (42, 'x')
PGH045	UPDATE audited SET body = 'x' WHERE customer_id = 42
PGH045	DELETE FROM audit_parents WHERE customer_id = 42
PGH045	DELETE FROM audited WHERE customer_id = 1
PGH046	SELECT * FROM secrets WHERE customer_id = 42
PGH046	SELECT count(*) FROM secrets
PGH047	SELECT * FROM country_names
PGH047	SELECT last_value FROM ticket_numbers
PGH047	SELECT nextval FROM ticket_numbers
PGH048	SELECT nextval('ticket_numbers') FROM orders
PGH048	SELECT pg_backend_pid() FROM orders
PGH048	INSERT INTO orders (customer_id, order_id) VALUES (42, nextval('ticket_numbers'))
PGH048	SELECT pg_backend_pid()
PGH048	SELECT nextval('ticket_numbers')
PGH048	SELECT currval('ticket_numbers')
PGH048	SELECT pg_advisory_lock(1)
PGH048	SELECT pg_try_advisory_xact_lock(1)
PGH048	SELECT pg_notify('a', 'b')
PGH048	SELECT txid_current()
PGH048	SELECT inet_server_addr()
PGH048	SELECT lo_create(0)
PGH048	SELECT pg_stat_reset()
PGH048	SELECT * FROM orders WHERE customer_id = 42 AND pg_advisory_lock(1) IS NULL
PGH048	SELECT setval('ticket_numbers', 5)
PGH048	SELECT pg_advisory_xact_lock(customer_id) FROM customers WHERE customer_id = 1
PGH048	SELECT pg_sleep(0), pg_cancel_backend(1)
PGH049	SELECT order_count() FROM orders
PGH049	SELECT touch() FROM orders
PGH049	SELECT c.order_sum FROM customers c
PGH049	SELECT order_sum(c) FROM customers c
PGH049	SELECT unheard_of(total) FROM orders
PGH049	UPDATE app_settings SET value = touch()
PGH049	SELECT order_count() FROM app_settings
PGH049	SELECT order_count() FROM countries
PGH049	SELECT order_count()
PGH049	SELECT touch()
PGH049	SELECT unheard_of(1)
PGH049	SELECT name FROM customers WHERE order_count() > 1
PGH050	SELECT pg_collation_actual_version(100)
PGH051	SELECT query_to_xml('SELECT * FROM orders', true, true, '')
PGH051	SELECT table_to_xml('orders', true, true, '') FROM orders WHERE customer_id = 42
PGH052	INSERT INTO pg_catalog.pg_class (relname) VALUES ('x')
PGH052	DELETE FROM pg_class
PGH052	UPDATE pg_class SET relname = 'x'
PGH054	INSERT INTO members (member_id, email) VALUES (42, 'a@b')
PGH054	INSERT INTO referrals (customer_id, friend_id) VALUES (42, 42)
PGH054	UPDATE members SET email = 'x' WHERE member_id = 42
PGH054	DELETE FROM customers WHERE customer_id = 42
PGH054	INSERT INTO members VALUES (1, 'a@example.net', 'A')
PGH055	SELECT * FROM orders TABLESAMPLE SYSTEM (10)
PGH055	SELECT * FROM customers TABLESAMPLE BERNOULLI (50)
PGH056	SELECT 'orders'::regclass FROM orders
PGH056	SELECT feeling::mood FROM customers
PGH057	SELECT * FROM orders WHERE placed_on = 'today'
PGH057	SELECT * FROM orders WHERE placed_on < date ' Tomorrow'
PGH057	SELECT 'now'::timestamp FROM orders
PGH058	INSERT INTO receipts (customer_id, receipt_id) OVERRIDING USER VALUE VALUES (42, 7)
PGH060	SELECT * FROM pg_stat_activity
PGH060	SELECT * FROM pg_locks
PGH060	SELECT * FROM pg_catalog.pg_stat_user_tables
PGH060	SELECT * FROM pg_prepared_xacts
PGH060	SELECT count(*) FROM pg_stat_activity
PGH061	SELECT * FROM customers, unnest(tags) t
PGH061	SELECT * FROM orders, generate_series(1, 3)
PGH118	VACUUM
PGH118	LOCK TABLE customers
