//! Subqueries, common table expressions, set operations: whose names are whose, and what is proven where.

use super::{ANY, BY_1, EVERY, S1, S2, check};

#[test]
fn each_occurrence_must_be_held_also_in_subqueries() {
    check(&[
        (
            "SELECT * FROM orders WHERE customer_id = 42 AND total > (SELECT avg(total) FROM orders WHERE customer_id = 42)",
            S2,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = $1 AND order_id IN (SELECT order_id FROM order_lines WHERE customer_id = $1)",
            BY_1,
        ),
        (
            "SELECT (SELECT name FROM customers WHERE customer_id = 42), count(*) FROM orders WHERE customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = 42 AND total > (SELECT avg(total) FROM orders)",
            "PGH018",
        ),
        (
            "SELECT * FROM orders WHERE customer_id = 42 AND total > (SELECT avg(total) FROM orders WHERE customer_id = 1)",
            "PGH018",
        ),
        (
            "SELECT * FROM orders WHERE customer_id = (SELECT 42)",
            "PGH016",
        ),
        (
            "SELECT * FROM orders WHERE customer_id IN (SELECT customer_id FROM customers WHERE customer_id = 42)",
            "PGH018",
        ),
        (
            "SELECT (SELECT count(*) FROM orders WHERE customer_id = 42) FROM customers",
            "PGH018",
        ),
        (
            "SELECT (SELECT count(*) FROM orders WHERE customer_id = 42)",
            S2,
        ),
        (
            "SELECT EXISTS (SELECT FROM orders WHERE customer_id = 42)",
            S2,
        ),
        (
            "SELECT CASE WHEN true THEN (SELECT count(*) FROM orders WHERE customer_id = 42) END FROM countries",
            S2,
        ),
        ("SELECT 1 WHERE EXISTS (SELECT FROM orders)", "PGH016"),
        ("SELECT 1 ORDER BY (SELECT count(*) FROM orders)", "PGH016"),
        ("SELECT 1 LIMIT (SELECT count(*) FROM orders)", "PGH016"),
        (
            "SELECT ARRAY(SELECT order_id FROM orders WHERE customer_id = 42)",
            S2,
        ),
        ("SELECT ARRAY(SELECT order_id FROM orders)", "PGH016"),
        (
            "SELECT coalesce((SELECT max(total) FROM orders), 0)",
            "PGH016",
        ),
        (
            "SELECT sum(1) FILTER (WHERE EXISTS (SELECT FROM orders))",
            "PGH016",
        ),
        (
            "SELECT sum(1) OVER (ORDER BY (SELECT count(*) FROM orders))",
            "PGH016",
        ),
        ("SELECT 1 GROUP BY (SELECT count(*) FROM orders)", "PGH016"),
        (
            "SELECT 1 HAVING (SELECT count(*) FROM orders) > 1",
            "PGH016",
        ),
        (
            "SELECT DISTINCT ON ((SELECT count(*) FROM orders)) 1",
            "PGH016",
        ),
        ("VALUES ((SELECT count(*) FROM orders))", "PGH016"),
        (
            "SELECT * FROM generate_series(1, (SELECT count(*) FROM orders))",
            "PGH016",
        ),
    ]);
}

#[test]
fn a_correlated_subquery_looks_at_the_rows_of_its_outer_key() {
    check(&[
        (
            "SELECT *, (SELECT count(*) FROM orders o WHERE o.customer_id = c.customer_id) FROM customers c WHERE c.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers c WHERE c.customer_id = 42 AND EXISTS (SELECT FROM orders o WHERE o.customer_id = c.customer_id)",
            S2,
        ),
        (
            "SELECT * FROM customers c WHERE customer_id = 42 AND NOT EXISTS (SELECT FROM orders o WHERE o.customer_id = c.customer_id)",
            S2,
        ),
        (
            "SELECT * FROM customers c, LATERAL (SELECT * FROM orders o WHERE o.customer_id = c.customer_id ORDER BY total LIMIT 1) l \
             WHERE c.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers c LEFT JOIN LATERAL (SELECT * FROM orders o WHERE o.customer_id = c.customer_id LIMIT 1) l \
             ON true WHERE c.customer_id = 42",
            S2,
        ),
        // the inner key does not hold the outer rows
        (
            "SELECT * FROM customers c WHERE EXISTS (SELECT FROM orders o WHERE o.customer_id = c.customer_id AND o.customer_id = 42)",
            "PGH016",
        ),
        (
            "SELECT * FROM customers c WHERE EXISTS (SELECT FROM orders o WHERE o.customer_id = 42 AND c.customer_id = 42)",
            "PGH018",
        ),
        (
            "SELECT * FROM customers c WHERE NOT EXISTS (SELECT FROM orders o WHERE o.customer_id = c.customer_id AND o.customer_id = 42)",
            "PGH016",
        ),
        (
            "SELECT * FROM customers c, LATERAL (SELECT * FROM orders o WHERE o.customer_id = c.customer_id AND o.customer_id = 42) l",
            "PGH016",
        ),
        // an unqualified name is the inner table's own
        (
            "SELECT * FROM customers c WHERE c.customer_id = 42 AND EXISTS (SELECT FROM orders o WHERE customer_id = o.customer_id)",
            "PGH018",
        ),
        (
            "SELECT * FROM customers WHERE customers.customer_id = 42 AND EXISTS (SELECT FROM orders WHERE orders.customer_id = customers.customer_id)",
            S2,
        ),
        // without LATERAL the name is not in sight
        (
            "SELECT * FROM customers c, (SELECT * FROM orders o WHERE o.customer_id = c.customer_id) l WHERE c.customer_id = 42",
            "PGH018",
        ),
    ]);
}

#[test]
fn an_alias_hides_what_it_renames() {
    check(&[
        (
            "SELECT * FROM orders o WHERE orders.customer_id = 42",
            "PGH019",
        ),
        (
            "SELECT * FROM orders AS customers WHERE customers.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM orders customers, customers orders WHERE customers.customer_id = 42",
            "PGH018",
        ),
        (
            "SELECT * FROM orders AS o (order_id, customer_id) WHERE customer_id = 42",
            EVERY,
        ),
        (
            "SELECT * FROM orders AS o (order_id, customer_id) WHERE o.order_id = 42",
            S2,
        ),
        ("SELECT * FROM orders AS o (a, b) WHERE a = 42", S2),
        (
            "SELECT * FROM orders AS o (a, b) WHERE customer_id = 42",
            "PGH019",
        ),
        (
            "SELECT order_id AS customer_id FROM orders WHERE customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM (SELECT order_id AS customer_id FROM orders) x WHERE customer_id = 42",
            "PGH016",
        ),
        (
            "SELECT * FROM (SELECT customer_id AS order_id, order_id AS customer_id FROM orders) x WHERE customer_id = 42",
            "PGH016",
        ),
        (
            "SELECT * FROM (SELECT customer_id AS order_id, order_id AS customer_id FROM orders) x WHERE order_id = 42",
            S2,
        ),
        (
            "SELECT * FROM countries AS orders WHERE orders.code = 'at'",
            ANY,
        ),
        (
            "SELECT * FROM orders, customers WHERE customer_id = 42",
            "PGH014",
        ),
        (
            "SELECT * FROM orders o, orders o WHERE o.customer_id = 42",
            "PGH014",
        ),
        (
            "SELECT customer_id FROM countries customer_id, orders WHERE customer_id.code = 'at' AND customer_id = 42",
            S2,
        ),
    ]);
}

#[test]
fn a_common_table_expression_hides_the_table_of_its_name() {
    check(&[
        (
            "WITH orders AS (SELECT 1 AS customer_id) SELECT * FROM orders",
            ANY,
        ),
        (
            "WITH orders AS (SELECT * FROM countries) SELECT * FROM orders",
            ANY,
        ),
        (
            "WITH orders AS (SELECT * FROM countries) SELECT * FROM public.orders",
            "PGH017",
        ),
        (
            "WITH orders AS (SELECT * FROM orders WHERE customer_id = 42) SELECT * FROM orders",
            S2,
        ),
        (
            "WITH orders AS (SELECT * FROM orders) SELECT * FROM orders WHERE customer_id = 42",
            "PGH017",
        ),
        (
            "WITH RECURSIVE orders AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM orders WHERE n < 5) SELECT * FROM orders",
            ANY,
        ),
        (
            "WITH x AS (SELECT * FROM orders WHERE customer_id = 42) SELECT * FROM x, (WITH x AS (SELECT 1) SELECT * FROM x) y",
            S2,
        ),
        (
            "SELECT * FROM (WITH orders AS (SELECT 1) SELECT * FROM orders) x, orders WHERE orders.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM orders, (WITH orders AS (SELECT 1) SELECT * FROM orders) x WHERE orders.customer_id = 42",
            S2,
        ),
        // a write goes to the table, whatever else has its name
        (
            "WITH orders AS (SELECT 1) DELETE FROM orders WHERE customer_id = 42",
            S2,
        ),
        (
            "WITH countries AS (SELECT 1) DELETE FROM countries",
            "PGH031",
        ),
        (
            "WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a",
            "must fail",
        ),
        (
            "WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a",
            ANY,
        ),
    ]);
}

#[test]
fn a_common_table_expression_proves_outwards_only() {
    check(&[
        (
            "WITH x AS (SELECT * FROM orders WHERE customer_id = 42) SELECT count(*) FROM x",
            S2,
        ),
        (
            "WITH x AS (SELECT * FROM orders WHERE customer_id = $1) SELECT * FROM x JOIN customers c ON c.customer_id = x.customer_id",
            BY_1,
        ),
        (
            "WITH x (k) AS (SELECT customer_id FROM orders WHERE customer_id = 42) SELECT * FROM x JOIN customers c ON c.customer_id = k",
            S2,
        ),
        (
            "WITH x AS (SELECT * FROM orders) SELECT * FROM x WHERE customer_id = 42",
            "PGH017",
        ),
        (
            "WITH x AS (SELECT * FROM orders) SELECT * FROM x JOIN customers c USING (customer_id) WHERE c.customer_id = 42",
            "PGH017",
        ),
        (
            "WITH x AS (SELECT * FROM orders) SELECT * FROM x a WHERE customer_id = 42 UNION ALL SELECT * FROM x",
            "PGH017",
        ),
        (
            "WITH x AS (SELECT 42 AS k) SELECT * FROM orders WHERE customer_id = 42",
            S2,
        ),
        (
            "WITH x AS (SELECT 42 AS k) SELECT * FROM orders, x WHERE customer_id = k",
            S2,
        ),
        (
            "WITH x AS (SELECT count(*) FROM orders) SELECT * FROM countries",
            "PGH017",
        ),
        (
            "WITH RECURSIVE t AS (SELECT * FROM orders WHERE customer_id = 42 UNION ALL \
             SELECT o.* FROM orders o JOIN t ON o.customer_id = t.customer_id) SELECT * FROM t",
            "PGH018",
        ),
        (
            "WITH RECURSIVE t AS (SELECT * FROM orders WHERE customer_id = 42 UNION ALL \
             SELECT o.* FROM orders o JOIN t ON o.order_id = t.order_id + 1 WHERE o.customer_id = 42) SELECT * FROM t",
            S2,
        ),
    ]);
}

#[test]
fn a_subquery_in_from_passes_a_proof_inwards_where_rows_keep_their_key() {
    check(&[
        (
            "SELECT * FROM (SELECT * FROM orders WHERE customer_id = 42) x",
            S2,
        ),
        (
            "SELECT * FROM (SELECT * FROM orders) x WHERE customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM (SELECT o.* FROM orders o) x WHERE x.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM (SELECT customer_id k, total FROM orders) x WHERE k = 42",
            S2,
        ),
        (
            "SELECT * FROM (SELECT customer_id, total FROM orders) x (k) WHERE k = 42",
            S2,
        ),
        (
            "SELECT * FROM (SELECT DISTINCT customer_id FROM orders) x WHERE customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM (SELECT customer_id, sum(total) FROM orders GROUP BY customer_id) x WHERE customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM (SELECT customer_id, sum(total) FROM orders GROUP BY 1) x WHERE customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers c JOIN (SELECT customer_id, sum(total) FROM orders GROUP BY customer_id) x \
             ON x.customer_id = c.customer_id WHERE c.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM (SELECT * FROM (SELECT * FROM orders) a) b WHERE customer_id = 42",
            S2,
        ),
        // rows depend on rows with other keys
        (
            "SELECT * FROM (SELECT * FROM orders LIMIT 5) x WHERE customer_id = 42",
            "PGH016",
        ),
        (
            "SELECT * FROM (SELECT * FROM orders OFFSET 5) x WHERE customer_id = 42",
            "PGH016",
        ),
        (
            "SELECT * FROM ((SELECT * FROM orders) LIMIT 5) x WHERE customer_id = 42",
            "PGH016",
        ),
        (
            "SELECT * FROM (SELECT DISTINCT ON (status) * FROM orders) x WHERE customer_id = 42",
            "PGH016",
        ),
        (
            "SELECT * FROM (SELECT *, row_number() OVER (ORDER BY total) FROM orders) x WHERE customer_id = 42",
            "PGH016",
        ),
        (
            "SELECT * FROM (SELECT * FROM orders ORDER BY rank() OVER (ORDER BY total)) x WHERE customer_id = 42",
            "PGH016",
        ),
        (
            "SELECT * FROM (SELECT status, max(customer_id) AS customer_id FROM orders GROUP BY 1) x WHERE customer_id = 42",
            "PGH016",
        ),
        (
            "SELECT * FROM (SELECT status, customer_id, count(*) FROM orders GROUP BY ROLLUP (1, 2)) x WHERE customer_id = 42",
            "PGH016",
        ),
        (
            "SELECT * FROM (SELECT customer_id FROM orders GROUP BY GROUPING SETS ((customer_id), ())) x WHERE customer_id = 42",
            "PGH016",
        ),
        (
            "SELECT * FROM (SELECT * FROM orders UNION ALL SELECT * FROM orders) x WHERE customer_id = 42",
            "PGH010",
        ),
        (
            "SELECT * FROM (SELECT customer_id + 0 AS customer_id FROM orders) x WHERE customer_id = 42",
            "PGH016",
        ),
        (
            "SELECT * FROM (SELECT *, 1 FROM orders) x WHERE customer_id = 42 ",
            S2,
        ),
        (
            "SELECT * FROM (SELECT * FROM orders a JOIN orders b USING (order_id)) x (k) WHERE k = 42",
            "PGH016",
        ),
        (
            "SELECT * FROM customers c LEFT JOIN (SELECT * FROM orders) x ON x.customer_id = c.customer_id \
             WHERE x.customer_id = 42",
            "PGH016",
        ),
    ]);
}

#[test]
fn each_branch_of_a_set_operation_has_its_own_key() {
    check(&[
        (
            "SELECT order_id FROM orders WHERE customer_id = 42 UNION SELECT order_id FROM order_lines WHERE customer_id = 42",
            S2,
        ),
        (
            "SELECT 1 UNION ALL SELECT order_id FROM orders WHERE customer_id = -1 ORDER BY 1 LIMIT 2",
            S1,
        ),
        (
            "(SELECT 1 EXCEPT SELECT 2) UNION SELECT order_id FROM orders WHERE customer_id = 42",
            S2,
        ),
        (
            "SELECT order_id FROM orders WHERE customer_id = 42 UNION SELECT order_id FROM orders",
            "PGH018",
        ),
        (
            "SELECT order_id FROM orders UNION ALL SELECT order_id FROM orders",
            "PGH010",
        ),
        (
            "SELECT order_id FROM orders WHERE customer_id = 42 UNION SELECT order_id FROM orders WHERE customer_id = 1",
            "PGH018",
        ),
        (
            "SELECT order_id FROM orders EXCEPT SELECT order_id FROM orders WHERE customer_id = 42",
            "PGH018",
        ),
        (
            "SELECT code FROM countries UNION SELECT code FROM currencies",
            ANY,
        ),
    ]);
}
