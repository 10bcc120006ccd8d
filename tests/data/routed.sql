-- Statements that pgherd runs, over schema.sql and rows.sql: one a line, to be run in this order on a sharded database and
-- on one PostgreSQL. Rows and tags must be the same; only rows of a plain projection over all shards may be in any order.

-- one table, by its key
SELECT * FROM customers WHERE customer_id = 1
SELECT * FROM customers WHERE customer_id = 42
SELECT name, email FROM customers WHERE customer_id = '42'
SELECT name FROM customers WHERE customer_id = ' 0042 '
SELECT name FROM customers WHERE 42 = customer_id
SELECT name FROM customers WHERE customer_id = -1
SELECT name FROM customers WHERE customer_id = +7
SELECT name FROM customers WHERE customer_id = 9223372036854775807
SELECT name FROM customers WHERE customer_id = '-9223372036854775808'
SELECT name FROM customers WHERE customer_id = 9999999999
SELECT name FROM customers WHERE customer_id IN (42)
SELECT name FROM customers WHERE customer_id = 42::int
SELECT name FROM customers WHERE customer_id = CAST('42' AS bigint)
SELECT name FROM customers WHERE customer_id = 42 AND customer_id = 1
SELECT count(*) FROM customers WHERE customer_id = 42 AND customer_id = 1
SELECT name FROM customers WHERE customer_id = 77777
SELECT count(*), min(name), sum(balance) FROM customers WHERE customer_id = 77777
SELECT c.name AS n, c.balance * 2 AS twice FROM customers AS c WHERE c.customer_id = 3
SELECT "c"."name" FROM public.customers "c" WHERE "c"."customer_id" = 4
SELECT public.customers.name FROM public.customers WHERE public.customers.customer_id = 5
SELECT tags, feeling, feeling = 'happy' FROM customers WHERE customer_id = 6
SELECT tags[1], array_length(tags, 1), 'vip' = ANY (tags) FROM customers WHERE customer_id = 6
SELECT unnest(tags) FROM customers WHERE customer_id = 6 ORDER BY 1
SELECT customer_id, order_id, status, total FROM orders WHERE customer_id = 42 ORDER BY order_id
SELECT order_id FROM orders WHERE customer_id = 4 ORDER BY total DESC, order_id LIMIT 2
SELECT order_id FROM orders WHERE customer_id = 4 ORDER BY order_id OFFSET 1
SELECT order_id FROM orders WHERE customer_id = 4 ORDER BY order_id FETCH FIRST 1 ROW ONLY
SELECT DISTINCT status FROM orders WHERE customer_id = 4 ORDER BY status
SELECT DISTINCT ON (status) status, order_id FROM orders WHERE customer_id = 8 ORDER BY status, order_id
SELECT * FROM orders WHERE customer_id = 8 AND (status = 'new' OR status = 'paid') ORDER BY order_id
SELECT order_id, CASE WHEN total > 300 THEN 'large' ELSE 'small' END FROM orders WHERE customer_id = 8 ORDER BY order_id
SELECT coalesce(note, '-') FROM orders WHERE customer_id = 8 ORDER BY order_id
SELECT order_id FROM orders WHERE customer_id = 8 AND note IS NOT NULL ORDER BY order_id
SELECT order_id FROM orders WHERE customer_id = 8 AND placed_on BETWEEN '2024-01-01' AND '2024-12-31' ORDER BY order_id
SELECT order_id FROM orders WHERE customer_id = 8 AND order_id IN (1, 3) ORDER BY order_id
SELECT to_char(placed_on, 'YYYY-MM') FROM orders WHERE customer_id = 8 ORDER BY order_id
SELECT extract(month FROM placed_on), date_trunc('month', placed_on::timestamp) FROM orders WHERE customer_id = 8 ORDER BY order_id
SELECT * FROM products WHERE sku = 'tenant-1'
SELECT * FROM products WHERE sku = ''
SELECT * FROM products WHERE sku = 'Äpfel'
SELECT * FROM products WHERE sku = 'o''clock'
SELECT * FROM products WHERE sku = $$x y$$
SELECT * FROM products WHERE sku = 'b-1'::text
SELECT * FROM products WHERE sku = 'B-1'
SELECT * FROM products WHERE sku = 'b-1 '
SELECT * FROM accounts WHERE code = '12345678'
SELECT * FROM accounts WHERE code = 'ab'::varchar
SELECT * FROM accounts WHERE code = 'ä'
SELECT * FROM devices WHERE device_id = '00eebc99-9c0b-4ef8-bb6d-6bb9bd380a10'
SELECT label FROM devices WHERE device_id = '{10EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}'
SELECT label FROM devices WHERE device_id = uuid '20eebc999c0b4ef8bb6d6bb9bd380a12'
SELECT attributes ->> 'n', (attributes -> 'on')::text FROM devices WHERE device_id = '30eebc99-9c0b-4ef8-bb6d-6bb9bd380a13'
SELECT * FROM sales.leads WHERE customer_id = 42
SELECT subject FROM tickets WHERE customer_id = 42 ORDER BY ticket_no
SELECT cents(total), order_count() > 0 FROM orders WHERE customer_id = 8 ORDER BY order_id
SELECT * FROM audited WHERE customer_id = 1
SELECT * FROM ruled WHERE customer_id = 1
SELECT * FROM orders WHERE customer_id = 8 ORDER BY order_id FOR UPDATE
SELECT name FROM customers WHERE customer_id = 8 FOR NO KEY UPDATE
SELECT name FROM customers WHERE customer_id = 8 FOR KEY SHARE

-- aggregates, groups and windows, by a key
SELECT count(*), sum(total), avg(total), min(total), max(total) FROM orders WHERE customer_id = 8
SELECT status, count(*), sum(total) FROM orders WHERE customer_id = 8 GROUP BY status ORDER BY status
SELECT status, count(*) FROM orders WHERE customer_id = 8 GROUP BY 1 HAVING count(*) >= 1 ORDER BY 1
SELECT count(DISTINCT status), count(*) FILTER (WHERE total > 300) FROM orders WHERE customer_id = 8
SELECT string_agg(status, ',' ORDER BY order_id), array_agg(order_id ORDER BY order_id DESC) FROM orders WHERE customer_id = 8
SELECT status, grouping(status), count(*) FROM orders WHERE customer_id = 8 GROUP BY ROLLUP (status) ORDER BY 1, 2
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY total) FROM orders WHERE customer_id = 8
SELECT stddev(total), variance(total) FROM orders WHERE customer_id = 8
SELECT order_id, row_number() OVER (ORDER BY total DESC, order_id) FROM orders WHERE customer_id = 8 ORDER BY order_id
SELECT order_id, sum(total) OVER (PARTITION BY status ORDER BY order_id) FROM orders WHERE customer_id = 8 ORDER BY order_id
SELECT order_id, lag(total) OVER w, lead(total) OVER w FROM orders WHERE customer_id = 8 WINDOW w AS (ORDER BY order_id) ORDER BY order_id
SELECT order_id, sum(total) OVER (ORDER BY order_id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM orders WHERE customer_id = 8 ORDER BY order_id
SELECT jsonb_object_agg(status, total) IS NOT NULL FROM orders WHERE customer_id = 8
SELECT bool_and(total > 0), bool_or(note IS NULL) FROM orders WHERE customer_id = 8
SELECT sku, sum(quantity * price) FROM order_lines WHERE customer_id = 8 GROUP BY sku ORDER BY sku

-- joins on the key
SELECT c.name, o.order_id FROM customers c JOIN orders o ON o.customer_id = c.customer_id WHERE c.customer_id = 8 ORDER BY o.order_id
SELECT c.name, o.order_id FROM customers c JOIN orders o ON o.customer_id = c.customer_id WHERE o.customer_id = 8 ORDER BY o.order_id
SELECT c.name, o.order_id FROM customers c, orders o WHERE o.customer_id = c.customer_id AND c.customer_id = 8 ORDER BY 2
SELECT c.name, o.order_id FROM customers c, orders o WHERE o.customer_id = 8 AND c.customer_id = 8 ORDER BY 2
SELECT name, order_id FROM customers JOIN orders USING (customer_id) WHERE customer_id = 8 ORDER BY 2
SELECT name, order_id, line_no FROM customers JOIN orders USING (customer_id) JOIN order_lines USING (customer_id, order_id) WHERE customer_id = 8 ORDER BY 2, 3
SELECT order_id, count(line_no) FROM orders LEFT JOIN order_lines USING (customer_id, order_id) WHERE customer_id = 8 GROUP BY order_id ORDER BY 1
SELECT o.order_id, l.line_no FROM orders o LEFT JOIN order_lines l ON l.customer_id = o.customer_id AND l.order_id = o.order_id WHERE o.customer_id = 8 ORDER BY 1, 2
SELECT o.order_id, c.name FROM orders o RIGHT JOIN customers c ON c.customer_id = o.customer_id WHERE c.customer_id = 5 ORDER BY 1
SELECT c.name, t.subject FROM customers c JOIN tickets t ON t.customer_id = c.customer_id WHERE c.customer_id = 42 ORDER BY 2
SELECT c.name, l.source FROM customers c LEFT JOIN sales.leads l USING (customer_id) WHERE c.customer_id = 42
SELECT c.name, k.name FROM customers c JOIN countries k ON k.code = c.country_code WHERE c.customer_id = 3
SELECT k.code, c.name FROM countries k LEFT JOIN customers c ON c.country_code = k.code AND c.customer_id = 3 ORDER BY 1
SELECT c.name, k.name, y.code FROM customers c LEFT JOIN countries k ON k.code = c.country_code LEFT JOIN currencies y ON y.country_code = k.code WHERE c.customer_id = 3
SELECT p.title, r.stars FROM products p LEFT JOIN reviews r ON r.sku = p.sku WHERE p.sku = 'b-2' ORDER BY r.review_no
SELECT d.label, e.kind FROM devices d JOIN device_events e USING (device_id) WHERE d.device_id = '10eebc99-9c0b-4ef8-bb6d-6bb9bd380a11' ORDER BY e.event_no
SELECT a.order_id, b.order_id FROM orders a JOIN orders b ON a.customer_id = b.customer_id AND a.order_id < b.order_id WHERE a.customer_id = 8 ORDER BY 1, 2
SELECT count(*) FROM customers c FULL JOIN orders o ON c.customer_id = o.customer_id WHERE c.customer_id = 8 AND o.customer_id = 8
SELECT c.name, x.n FROM customers c CROSS JOIN LATERAL (SELECT count(*) AS n FROM orders o WHERE o.customer_id = c.customer_id) x WHERE c.customer_id = 8
SELECT c.name, x.order_id FROM customers c LEFT JOIN LATERAL (SELECT * FROM orders o WHERE o.customer_id = c.customer_id ORDER BY total DESC LIMIT 1) x ON true WHERE c.customer_id = 8
SELECT c.name, g FROM customers c, generate_series(1, 3) g WHERE c.customer_id = 8 ORDER BY g
SELECT c.name, t FROM customers c, unnest(c.tags) t WHERE c.customer_id = 6 ORDER BY t
SELECT c.name, v.x FROM customers c, (VALUES (1), (2)) v (x) WHERE c.customer_id = 8 ORDER BY 2

-- subqueries, common table expressions, set operations, with one key
SELECT name, (SELECT count(*) FROM orders WHERE customer_id = 8) FROM customers WHERE customer_id = 8
SELECT name, (SELECT count(*) FROM orders o WHERE o.customer_id = c.customer_id) FROM customers c WHERE c.customer_id = 8
SELECT order_id FROM orders WHERE customer_id = 8 AND total > (SELECT avg(total) FROM orders WHERE customer_id = 8) ORDER BY 1
SELECT order_id FROM orders o WHERE o.customer_id = 8 AND EXISTS (SELECT FROM order_lines l WHERE l.customer_id = o.customer_id AND l.order_id = o.order_id) ORDER BY 1
SELECT order_id FROM orders o WHERE o.customer_id = 8 AND NOT EXISTS (SELECT FROM order_lines l WHERE l.customer_id = o.customer_id AND l.order_id = o.order_id) ORDER BY 1
SELECT order_id FROM orders WHERE customer_id = 8 AND order_id IN (SELECT order_id FROM order_lines WHERE customer_id = 8) ORDER BY 1
SELECT order_id FROM orders WHERE customer_id = 8 AND order_id NOT IN (SELECT order_id FROM order_lines WHERE customer_id = 8) ORDER BY 1
SELECT ARRAY(SELECT order_id FROM orders WHERE customer_id = 8 ORDER BY 1)
SELECT (SELECT max(total) FROM orders WHERE customer_id = 8) - (SELECT min(total) FROM orders WHERE customer_id = 8)
SELECT EXISTS (SELECT FROM orders WHERE customer_id = 77777)
SELECT * FROM (SELECT order_id, total FROM orders WHERE customer_id = 8) x ORDER BY 1
SELECT * FROM (SELECT * FROM orders) x WHERE customer_id = 8 ORDER BY order_id
SELECT * FROM (SELECT customer_id, sum(total) AS s FROM orders GROUP BY customer_id) x WHERE customer_id = 8
SELECT c.name, x.s FROM customers c JOIN (SELECT customer_id, sum(total) AS s FROM orders GROUP BY 1) x ON x.customer_id = c.customer_id WHERE c.customer_id = 8
SELECT n FROM (SELECT DISTINCT customer_id, status AS n FROM orders) x WHERE customer_id = 8 ORDER BY 1
SELECT order_id AS customer_id FROM orders WHERE customer_id = 8 ORDER BY 1
SELECT * FROM orders AS o (k, n) WHERE o.k = 8 ORDER BY n
WITH x AS (SELECT * FROM orders WHERE customer_id = 8) SELECT count(*), sum(total) FROM x
WITH x AS (SELECT * FROM orders WHERE customer_id = 8) SELECT a.order_id FROM x a JOIN x b USING (order_id) ORDER BY 1
WITH x (k, n) AS (SELECT customer_id, count(*) FROM orders WHERE customer_id = 8 GROUP BY 1) SELECT c.name, x.n FROM x JOIN customers c ON c.customer_id = x.k
WITH x AS MATERIALIZED (SELECT order_id FROM orders WHERE customer_id = 8), y AS (SELECT max(order_id) AS m FROM x) SELECT m FROM y
WITH orders AS (SELECT 1 AS customer_id) SELECT * FROM orders
WITH orders AS (SELECT * FROM orders WHERE customer_id = 8) SELECT count(*) FROM orders
WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT n, (SELECT count(*) FROM orders WHERE customer_id = 8 AND order_id <= n) FROM t ORDER BY 1
WITH RECURSIVE t AS (SELECT order_id FROM orders WHERE customer_id = 8 AND order_id = 1 UNION ALL SELECT o.order_id FROM orders o JOIN t ON o.order_id = t.order_id + 1 WHERE o.customer_id = 8) SELECT * FROM t ORDER BY 1
SELECT order_id FROM orders WHERE customer_id = 8 UNION SELECT order_id FROM order_lines WHERE customer_id = 8 ORDER BY 1
SELECT order_id FROM orders WHERE customer_id = 8 UNION ALL SELECT 99 ORDER BY 1
SELECT order_id FROM orders WHERE customer_id = 8 EXCEPT SELECT order_id FROM order_lines WHERE customer_id = 8 ORDER BY 1
SELECT order_id FROM orders WHERE customer_id = 8 INTERSECT SELECT order_id FROM order_lines WHERE customer_id = 8 ORDER BY 1 LIMIT 1
(SELECT order_id FROM orders WHERE customer_id = 8 ORDER BY 1 LIMIT 1) UNION ALL (SELECT 0) ORDER BY 1

-- reference tables
SELECT * FROM countries ORDER BY code
SELECT continent, count(*) FROM countries GROUP BY continent ORDER BY 1
SELECT k.name, y.code FROM countries k JOIN currencies y ON y.country_code = k.code ORDER BY 1
SELECT k.name, y.code FROM countries k LEFT JOIN currencies y ON y.country_code = k.code ORDER BY 1, 2
SELECT name FROM countries WHERE code = 'at'
SELECT count(*) FROM countries a, countries b WHERE a.code < b.code
SELECT name FROM countries WHERE code IN (SELECT country_code FROM currencies WHERE digits = 2) ORDER BY 1
SELECT code FROM countries UNION SELECT lower(code) FROM currencies ORDER BY 1
SELECT name, rank() OVER (ORDER BY continent) FROM countries ORDER BY name
WITH e AS (SELECT * FROM countries WHERE continent = 'Europe') SELECT count(*) FROM e
SELECT * FROM (VALUES ('at'), ('de')) v (code) JOIN countries USING (code) ORDER BY 1

-- tables that are whole on one shard
SELECT * FROM app_settings ORDER BY key
SELECT count(*) FROM app_settings WHERE value IS NULL
SELECT s.key, l.message FROM app_settings s JOIN app_log l USING (key) ORDER BY l.id
SELECT max(version), count(*) FROM app_settings, countries
SELECT body FROM archive ORDER BY id DESC LIMIT 2
UPDATE app_settings SET value = 'light', version = version + 1 WHERE key = 'theme' RETURNING key, value, version
INSERT INTO app_settings (key, value) VALUES ('extra', '1'), ('more', '2')
INSERT INTO app_settings (key, value) VALUES ('extra', '9') ON CONFLICT (key) DO UPDATE SET value = excluded.value RETURNING *
INSERT INTO app_settings (key, value) SELECT code, name FROM countries WHERE continent = 'Asia'
DELETE FROM app_settings WHERE key IN (SELECT code FROM countries) RETURNING key
DELETE FROM app_settings WHERE key = 'more'
INSERT INTO app_log (key, message) VALUES ('theme', 'again') RETURNING id, message
UPDATE archive SET body = upper(body)
SELECT * FROM archive ORDER BY id
DELETE FROM archive WHERE id = 0 RETURNING *
SELECT value FROM app_settings WHERE key = 'extra' FOR UPDATE

-- statements without tables
SELECT 1
SELECT 1 + 1 AS two, 'a' || 'b', upper('x'), NULL
SELECT true AND NOT false, 1 = ANY (ARRAY[1, 2]), 3 BETWEEN 1 AND 5
VALUES (1, 'a'), (2, 'b')
SELECT * FROM (VALUES (1, 'a'), (2, 'b')) v (n, s) ORDER BY n DESC
SELECT generate_series(1, 3)
SELECT sum(n) FROM generate_series(1, 100) n
SELECT * FROM unnest(ARRAY[1, 2], ARRAY['a', 'b']) AS u (n, s) ORDER BY 1
SELECT n, n * n FROM generate_series(1, 5) WITH ORDINALITY AS g (n, o) ORDER BY o
WITH RECURSIVE f (a, b) AS (SELECT 0, 1 UNION ALL SELECT b, a + b FROM f WHERE b < 50) SELECT max(b) FROM f
SELECT CASE WHEN 1 > 2 THEN 'x' ELSE 'y' END, coalesce(NULL, 3), nullif(1, 1), greatest(1, 2), least(1, 2)
SELECT cents(12.34)
SELECT '2024-02-29'::date + 1, date '2024-01-31' + interval '1 month'
SELECT '{"a": [1, 2]}'::jsonb -> 'a' ->> 1, jsonb_build_object('x', 1)
SELECT regexp_replace('abc', 'b', 'x'), substring('hello' FROM 2 FOR 3), position('l' IN 'hello'), trim(both 'x' FROM 'xax')
SELECT 1 WHERE false
SELECT count(*)
SELECT 'caf' || chr(233), length('Äpfel'), E'tab\there'
SELECT 7 / 2, 7 % 2, 2 ^ 10, -(-3), 1.0 / 3, 1e3
SELECT array_agg(x ORDER BY x DESC) FROM unnest('{3,1,2}'::int[]) x

-- system catalogues
SELECT relname FROM pg_class WHERE relname = 'customers'
SELECT relname, relkind FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public' AND relkind = 'r' ORDER BY 1
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attnum > 0 ORDER BY attnum
SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'orders' AND table_schema = 'public' ORDER BY ordinal_position
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'order_lines'::regclass ORDER BY 1
SELECT has_table_privilege('customers', 'SELECT')
SELECT enumlabel FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid WHERE t.typname = 'mood' ORDER BY enumsortorder
SELECT proname, provolatile FROM pg_proc WHERE proname IN ('cents', 'touch') ORDER BY 1
SELECT 'customers'::regclass::text, to_regclass('nowhere') IS NULL
SELECT current_schema()
SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'VIEW' ORDER BY 1
SELECT k.name, c.relname FROM countries k, pg_class c WHERE c.relname = 'orders' AND k.code = 'at'

-- every shard
SELECT * FROM customers
SELECT customer_id, name FROM customers WHERE active
SELECT name, upper(name), length(name), balance * 2 FROM customers WHERE balance > 100
SELECT customer_id, order_id, status, total FROM orders WHERE status = 'new' AND total > 50
SELECT order_id FROM orders
SELECT total::text, coalesce(note, 'none') FROM orders WHERE total > 500 OR note IS NULL
SELECT customer_id FROM orders WHERE customer_id IN (1, 2, 42)
SELECT customer_id FROM orders WHERE customer_id = 42.0
SELECT customer_id FROM customers WHERE customer_id::text = '42'
SELECT customer_id FROM customers WHERE customer_id BETWEEN 1 AND 5
SELECT customer_id FROM customers WHERE customer_id = 1 OR customer_id = 42
SELECT customer_id FROM customers WHERE NOT customer_id = 1
SELECT customer_id FROM customers WHERE customer_id = NULL
SELECT customer_id FROM customers WHERE customer_id IS NULL
SELECT name FROM customers WHERE email LIKE '%a%' AND country_code IS NOT NULL
SELECT name FROM customers WHERE 'vip' = ANY (tags)
SELECT name, tags FROM customers WHERE feeling = 'happy'
SELECT CASE WHEN balance > 500 THEN 'rich' ELSE 'poor' END, name FROM customers
SELECT cents(total) FROM orders WHERE total < 400
SELECT * FROM products WHERE stock > 10
SELECT sku, price FROM products WHERE sku LIKE 'b%'
SELECT device_id, label FROM devices
SELECT label, attributes ->> 'n' FROM devices WHERE (attributes ->> 'n')::int > 3
SELECT c.name, o.order_id, o.total FROM customers c JOIN orders o ON o.customer_id = c.customer_id WHERE o.total > 200
SELECT c.name, o.order_id FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id
SELECT c.name, o.order_id FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id WHERE o.order_id IS NULL
SELECT name, order_id, line_no FROM customers JOIN orders USING (customer_id) JOIN order_lines USING (customer_id, order_id)
SELECT o.order_id, l.line_no, l.sku FROM orders o LEFT JOIN order_lines l ON l.customer_id = o.customer_id AND l.order_id = o.order_id
SELECT c.name, k.name FROM customers c JOIN countries k ON k.code = c.country_code
SELECT c.name, k.name FROM customers c LEFT JOIN countries k ON k.code = c.country_code
SELECT c.name, k.code FROM customers c, countries k WHERE k.continent = 'Asia' AND c.active
SELECT p.title, r.stars FROM products p LEFT JOIN reviews r ON r.sku = p.sku
SELECT p.title, a.owner FROM products p JOIN accounts a ON a.code = p.sku
SELECT c.name, t.subject FROM tickets t RIGHT JOIN customers c ON c.customer_id = t.customer_id
SELECT d.label, e.kind FROM devices d JOIN device_events e ON e.device_id = d.device_id
SELECT a.order_id, b.order_id FROM orders a JOIN orders b USING (customer_id) WHERE a.order_id < b.order_id
SELECT name FROM customers WHERE false
SELECT 1, 'x' FROM orders

-- writes
INSERT INTO customers (customer_id, name) VALUES (500, 'Uma')
INSERT INTO customers (customer_id, name, feeling) VALUES (501, 'Vito', 'happy') RETURNING customer_id, name, feeling, balance
INSERT INTO customers (name, customer_id) VALUES ('Wim', '502') RETURNING *
INSERT INTO orders VALUES (500, 1, 'new', 10)
INSERT INTO orders (customer_id, order_id, total) VALUES (500, 2, (SELECT sum(total) FROM orders WHERE customer_id = 500)) RETURNING total
INSERT INTO orders (customer_id, order_id) VALUES (500, 1) ON CONFLICT DO NOTHING
INSERT INTO orders (customer_id, order_id, total) VALUES (500, 1, 5) ON CONFLICT (customer_id, order_id) DO UPDATE SET total = orders.total + excluded.total RETURNING *
INSERT INTO order_lines (customer_id, order_id, line_no, sku, price) VALUES (500, 1, 1, 'b-1', 2.5)
INSERT INTO order_lines (customer_id, order_id, line_no, sku, price) VALUES (500, 1, 2, 'b-2', 3.5)
INSERT INTO orders (customer_id, order_id) VALUES (500, 1)
INSERT INTO orders (customer_id, order_id) VALUES (77777, 1)
INSERT INTO customers (customer_id, name, country_code) VALUES (503, 'Xia', 'zz')
INSERT INTO customers (customer_id, name) VALUES ('no number', 'Yan')
INSERT INTO products (sku, title, price) VALUES ('new', 'A new one', 1.5) RETURNING sku, stock
INSERT INTO accounts (code, owner) VALUES ('blanks    ', 'cut') RETURNING code, length(code)
INSERT INTO accounts (code, owner) VALUES ('much too long', 'refused')
INSERT INTO devices (device_id, label) VALUES ('{F0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A1F}', 'new') RETURNING device_id
INSERT INTO receipts (customer_id, receipt_id, amount) VALUES (500, 1, 7) RETURNING *
INSERT INTO invoices (customer_id, invoice_id, amount) VALUES (500, 1, 7) RETURNING *
INSERT INTO audit_parents VALUES (500, 'x')
UPDATE customers SET balance = balance + 1 WHERE customer_id = 500 RETURNING balance
UPDATE customers SET (name, active) = ('Uma U.', false) WHERE customer_id = 500
UPDATE customers SET name = 'nobody' WHERE customer_id = 77777
UPDATE orders SET status = 'paid' WHERE customer_id = 500
UPDATE orders SET status = 'sent', total = DEFAULT WHERE customer_id = 500 AND order_id = 2 RETURNING status, total
UPDATE orders o SET note = c.name FROM customers c WHERE c.customer_id = o.customer_id AND o.customer_id = 500 AND o.order_id = 1 RETURNING o.note
UPDATE customers c SET balance = (SELECT sum(total) FROM orders o WHERE o.customer_id = c.customer_id) WHERE c.customer_id = 500 RETURNING balance
UPDATE customers c SET country_code = k.code FROM countries k WHERE k.name = 'Japan' AND c.customer_id = 500 RETURNING c.country_code, k.name
WITH x AS (SELECT max(order_id) AS m FROM orders WHERE customer_id = 500) UPDATE orders SET note = 'last' FROM x WHERE customer_id = 500 AND order_id = x.m RETURNING order_id
UPDATE products SET stock = stock - 1 WHERE sku = 'new' AND stock >= 0 RETURNING stock
UPDATE devices SET attributes = attributes || '{"seen": true}' WHERE device_id = 'f0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1f' RETURNING attributes
DELETE FROM order_lines WHERE customer_id = 500 AND line_no = 2 RETURNING sku
DELETE FROM order_lines l USING orders o WHERE o.customer_id = l.customer_id AND o.order_id = l.order_id AND o.status = 'paid' AND l.customer_id = 500
DELETE FROM orders WHERE customer_id = 500
DELETE FROM orders WHERE customer_id = 500
DELETE FROM receipts WHERE customer_id = 500 RETURNING *
DELETE FROM products WHERE sku = 'new'
DELETE FROM devices WHERE device_id = 'f0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1f'
SELECT count(*) FROM orders WHERE customer_id = 500
SELECT * FROM customers WHERE customer_id = 500
SELECT customer_id, name, balance FROM customers

-- several values of the key, rows that are written together, and writes inside WITH
UPDATE orders SET total = 1 WHERE customer_id = NULL
UPDATE products SET stock = 0 WHERE sku IN ('b-1', 'b-1'::text)
INSERT INTO orders VALUES (42, 1) ON CONFLICT (customer_id, order_id) DO UPDATE SET (total, customer_id) = (1, 42)
UPDATE orders SET customer_id = customer_id WHERE customer_id = 42
UPDATE orders SET total = 1, CUSTOMER_ID = 42 WHERE customer_id = 42
UPDATE products SET sku = 'b-1' WHERE sku = 'b-1'
UPDATE devices SET device_id = '00eebc99-9c0b-4ef8-bb6d-6bb9bd380a10' WHERE device_id = '00eebc99-9c0b-4ef8-bb6d-6bb9bd380a10'
MERGE INTO app_settings s USING countries k ON s.key = k.code WHEN NOT MATCHED THEN INSERT VALUES (k.code, k.name)
INSERT INTO orders (customer_id, order_id) VALUES (42, 1), (42, 2)
INSERT INTO products (sku, title) VALUES ('b-9', 'A'), ('b-9', 'B') ON CONFLICT DO NOTHING
INSERT INTO orders SELECT * FROM orders WHERE customer_id = 42
INSERT INTO orders SELECT 42, 1
WITH x AS (DELETE FROM orders WHERE customer_id = 42 RETURNING *) SELECT * FROM x
WITH x AS (INSERT INTO orders VALUES (42, 1) RETURNING *) SELECT * FROM orders WHERE customer_id = 42
WITH gone AS (DELETE FROM order_lines WHERE customer_id = 1 RETURNING *) SELECT count(*) FROM gone
SELECT * FROM customers WHERE customer_id IN (1, 42, 7)
SELECT * FROM customers WHERE customer_id = ANY (ARRAY[1, 2]) OR customer_id = 42
SELECT * FROM customers WHERE customer_id = ANY ('{1,2,NULL}')
SELECT * FROM customers WHERE (customer_id, name) IN ((1, 'Ada'), (2, 'Nobody'))
SELECT count(*) FROM customers WHERE customer_id IN (42, '042')
SELECT * FROM customers WHERE customer_id IN (1, 2) AND customer_id IN (2, 3)
SELECT * FROM customers WHERE customer_id = NULL
SELECT count(*) FROM customers WHERE customer_id = NULL
SELECT * FROM customers WHERE customer_id IS NULL
SELECT * FROM customers WHERE customer_id IN (1, 'x')
SELECT c.name, o.order_id FROM customers c JOIN orders o USING (customer_id) WHERE customer_id IN (2, 3, 4)
SELECT c.name, o.order_id FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id AND o.order_id = 1 WHERE c.customer_id IN (1, 2, 42)
MERGE INTO orders o USING (SELECT * FROM tickets WHERE customer_id = 2) t ON o.customer_id = t.customer_id AND o.order_id = t.ticket_no WHEN MATCHED THEN UPDATE SET note = t.subject WHEN NOT MATCHED THEN INSERT (customer_id, order_id) VALUES (t.customer_id, t.ticket_no)
SELECT * FROM orders WHERE customer_id = 2 ORDER BY order_id
WITH x AS (SELECT 42 AS k) SELECT * FROM orders, x WHERE customer_id = k
UPDATE orders o SET note = v.n FROM (VALUES (42, 1, 'a'), (42, 2, 'b')) v (c, o, n) WHERE o.customer_id = v.c AND o.order_id = v.o
INSERT INTO orders (customer_id, order_id) SELECT p0::BIGINT, p1::BIGINT FROM (VALUES (42, 801, 0), (42, 802, 1)) AS imp_sen (p0, p1, sen_counter) ORDER BY sen_counter RETURNING orders.customer_id, orders.order_id

-- views
SELECT * FROM customer_totals WHERE customer_id = 42
SELECT t.name, t.total FROM customer_totals t WHERE t.customer_id = 1
SELECT cid, order_id, status FROM order_view WHERE cid = 42 ORDER BY order_id
SELECT count(*), max(total) FROM order_view WHERE cid = 42
SELECT id, name FROM active_customers WHERE id = -1
SELECT v.n FROM active_customers AS v (k, n) WHERE v.k = 42
SELECT * FROM big_orders WHERE cid = 42 ORDER BY order_id
SELECT * FROM orders_of_42 ORDER BY order_id
SELECT o.status, c.name FROM orders_of_42 o, customers c WHERE c.customer_id = 42 ORDER BY o.order_id
SELECT * FROM lonely_customers WHERE customer_id = 1 ORDER BY order_id
SELECT a.name, o.status FROM active_customers a JOIN orders o ON o.customer_id = a.id WHERE a.id = 42 ORDER BY o.order_id
SELECT * FROM european ORDER BY code
SELECT c.name, e.name FROM customers c JOIN european e ON e.code = c.country_code WHERE c.customer_id = 42
SELECT value FROM themes
WITH customers AS (SELECT 'nobody' AS name) SELECT a.name FROM active_customers a WHERE a.id = 42
SELECT name FROM customers c WHERE customer_id = 42 AND EXISTS (SELECT FROM order_view v WHERE v.cid = c.customer_id)
UPDATE customers SET balance = balance FROM order_view v WHERE v.cid = customers.customer_id AND customers.customer_id = 42
-- partitioned tables
INSERT INTO measurements VALUES (42, '2024-05-05', 1.5)
INSERT INTO measurements (customer_id, taken_on, value) VALUES (1, '2025-05-05', 2.5) RETURNING *
INSERT INTO measurements_2024 VALUES (-1, '2024-06-06', 3.5)
INSERT INTO measurements_last VALUES (4.5, '2030-01-01', 42)
SELECT * FROM measurements WHERE customer_id = 42
SELECT sum(value) FROM measurements WHERE customer_id = -1
SELECT * FROM measurements
SELECT * FROM measurements_last
SELECT * FROM measurements_2024 WHERE customer_id = -1
UPDATE measurements SET taken_on = '2024-07-07' WHERE customer_id = 1 RETURNING value
SELECT * FROM measurements_later WHERE customer_id = 1
DELETE FROM measurements_later WHERE customer_id = 42
SELECT m.value, c.name FROM measurements m JOIN customers c ON c.customer_id = m.customer_id WHERE c.customer_id = 42
