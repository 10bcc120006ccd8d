//! Writes whose key values are on one shard: several rows, rows of a query, assigned keys, MERGE, and writes inside WITH.

use super::{S2, check};

#[test]
fn the_key_may_be_written_where_the_row_stays_on_its_shard() {
    check(&[
        (
            "UPDATE orders SET customer_id = 42 WHERE customer_id = 42",
            S2,
        ),
        (
            "UPDATE orders SET customer_id = customer_id WHERE customer_id = 42",
            S2,
        ),
        (
            "UPDATE orders SET (customer_id, note) = (42, 'x') WHERE customer_id = 42",
            S2,
        ),
        (
            "UPDATE orders SET customer_id = 1 WHERE customer_id = 42",
            "PGH022",
        ),
        (
            "UPDATE orders SET customer_id = customer_id + 0 WHERE customer_id = 42",
            "PGH022",
        ),
        (
            "UPDATE orders SET customer_id = NULL WHERE customer_id = 42",
            "PGH022",
        ),
        (
            "UPDATE orders SET customer_id = DEFAULT WHERE customer_id = 42",
            "PGH022",
        ),
        (
            "UPDATE orders SET customer_id = order_id WHERE customer_id = 42",
            "PGH022",
        ),
        (
            "UPDATE orders SET (customer_id, note) = (SELECT 42, 'x') WHERE customer_id = 42",
            "PGH022",
        ),
        (
            "UPDATE orders o SET customer_id = c.customer_id FROM customers c WHERE o.customer_id = 42 AND c.customer_id = 42",
            "PGH022",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) VALUES (42, 1) ON CONFLICT (customer_id, order_id) \
             DO UPDATE SET customer_id = excluded.customer_id, note = 'x'",
            S2,
        ),
        (
            "INSERT INTO orders (customer_id, order_id) VALUES (42, 1) ON CONFLICT (customer_id, order_id) \
             DO UPDATE SET customer_id = 1",
            "PGH022",
        ),
        // the row is cut to the column's length before it is stored
        (
            "UPDATE accounts SET code = '1234567 ' WHERE code = '1234567 '",
            "one shard s3, primary",
        ),
    ]);
}

#[test]
fn several_new_rows_go_together_where_their_keys_are_on_one_shard() {
    check(&[
        (
            "INSERT INTO orders (customer_id, order_id) VALUES (42, 1), ('42', 2)",
            S2,
        ),
        (
            "INSERT INTO orders (customer_id, order_id) VALUES (42, 1), (1, 2)",
            "PGH024",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) VALUES (42, 1), (NULL, 2)",
            "PGH027",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) VALUES (42, 1), (DEFAULT, 2)",
            "PGH026",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) VALUES (42, 1), (40 + 2, 2)",
            "PGH028",
        ),
        (
            "INSERT INTO invoices (customer_id, invoice_id) VALUES (42, 1), (42, DEFAULT)",
            "PGH030",
        ),
    ]);
}

#[test]
fn rows_of_a_query_are_stored_on_the_shard_that_they_come_from() {
    check(&[
        (
            "INSERT INTO orders (customer_id, order_id) SELECT customer_id, 5 FROM customers WHERE customer_id = 42",
            S2,
        ),
        (
            "INSERT INTO orders (order_id, customer_id) SELECT t.ticket_no, t.customer_id FROM tickets t WHERE t.customer_id IN (42)",
            S2,
        ),
        (
            "INSERT INTO orders SELECT * FROM orders WHERE customer_id = 42 ORDER BY order_id LIMIT 3",
            S2,
        ),
        (
            "INSERT INTO orders (customer_id, order_id) SELECT 42, 7",
            S2,
        ),
        (
            "INSERT INTO orders (customer_id, order_id) SELECT 42, order_id FROM orders WHERE customer_id = 42",
            S2,
        ),
        (
            "INSERT INTO orders (customer_id, order_id) SELECT $1, order_id FROM orders WHERE customer_id = $1",
            "one shard, by $1",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) SELECT 1, order_id FROM orders WHERE customer_id = 42",
            "PGH025",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) SELECT customer_id, 5 FROM customers",
            "PGH025",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) SELECT order_id, 5 FROM orders WHERE customer_id = 42",
            "PGH025",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) SELECT customer_id + 0, 5 FROM orders WHERE customer_id = 42",
            "PGH025",
        ),
        (
            "INSERT INTO orders (order_id) SELECT 5 FROM orders WHERE customer_id = 42",
            "PGH026",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) SELECT customer_id, 1 FROM orders WHERE customer_id = 42 \
             UNION SELECT customer_id, 2 FROM orders WHERE customer_id = 42",
            "PGH025",
        ),
        (
            "INSERT INTO invoices (customer_id, amount) SELECT customer_id, 1 FROM orders WHERE customer_id = 42",
            "PGH030",
        ),
    ]);
}

#[test]
fn a_write_inside_with_needs_the_same_shard() {
    check(&[
        (
            "WITH gone AS (DELETE FROM order_lines WHERE customer_id = 42 RETURNING *) SELECT * FROM gone",
            S2,
        ),
        (
            "WITH gone AS (DELETE FROM order_lines WHERE customer_id = 42 RETURNING customer_id, order_id) \
             INSERT INTO tickets (customer_id, ticket_no) SELECT customer_id, order_id FROM gone",
            S2,
        ),
        (
            "WITH made AS (INSERT INTO orders (customer_id, order_id) VALUES (42, 1) RETURNING *) \
             UPDATE customers SET name = 'x' WHERE customer_id = 42",
            S2,
        ),
        (
            "WITH made AS (INSERT INTO orders (customer_id, order_id) VALUES (1, 1) RETURNING *) \
             UPDATE customers SET name = 'x' WHERE customer_id = 42",
            "PGH018",
        ),
        (
            "WITH gone AS (DELETE FROM order_lines RETURNING *) SELECT * FROM gone",
            "PGH021",
        ),
        (
            "WITH gone AS (DELETE FROM order_lines WHERE customer_id IN (1, 42) RETURNING *) SELECT * FROM gone",
            "PGH080",
        ),
        (
            "WITH set AS (UPDATE countries SET name = 'x') SELECT * FROM orders WHERE customer_id = 42",
            "PGH031",
        ),
    ]);
}

#[test]
fn merge_runs_where_its_source_and_its_rows_are() {
    const INTO: &str = "MERGE INTO orders o USING";
    let table = [
        (
            "(SELECT * FROM tickets WHERE customer_id = 42) t ON o.customer_id = t.customer_id AND o.order_id = t.ticket_no \
             WHEN MATCHED THEN UPDATE SET note = t.subject \
             WHEN NOT MATCHED THEN INSERT (customer_id, order_id) VALUES (t.customer_id, t.ticket_no)",
            S2,
        ),
        (
            "countries k ON o.customer_id = 42 AND o.note = k.code WHEN MATCHED THEN DELETE",
            S2,
        ),
        (
            "countries k ON o.customer_id = $1 AND o.note = k.code WHEN NOT MATCHED AND k.name > 'a' THEN \
             INSERT (customer_id, order_id, note) VALUES ($1, 1, k.code)",
            "one shard, by $1",
        ),
        // a row of the source that matches nothing counts
        (
            "tickets t ON o.customer_id = t.customer_id AND t.customer_id = 42 WHEN MATCHED THEN DELETE",
            "PGH023",
        ),
        (
            "tickets t ON o.customer_id = t.customer_id WHEN MATCHED THEN DELETE",
            "PGH023",
        ),
        (
            "(SELECT * FROM tickets WHERE customer_id = 42) t ON o.order_id = t.ticket_no WHEN MATCHED THEN DELETE",
            "PGH023",
        ),
        (
            "(SELECT * FROM tickets WHERE customer_id = 42) t ON o.customer_id = t.customer_id \
             WHEN NOT MATCHED THEN INSERT (customer_id, order_id) VALUES (1, 1)",
            "PGH023",
        ),
        (
            "(SELECT * FROM tickets WHERE customer_id = 42) t ON o.customer_id = t.customer_id \
             WHEN NOT MATCHED THEN INSERT (customer_id, order_id) VALUES (t.ticket_no, 1)",
            "PGH028",
        ),
        (
            "(SELECT * FROM tickets WHERE customer_id = 42) t ON o.customer_id = t.customer_id \
             WHEN NOT MATCHED BY SOURCE THEN DELETE",
            "PGH023",
        ),
        (
            "(SELECT * FROM tickets WHERE customer_id = 42) t ON o.customer_id = t.customer_id \
             WHEN MATCHED THEN UPDATE SET customer_id = 1",
            "PGH022",
        ),
        (
            "(SELECT * FROM tickets WHERE customer_id = 42) t ON o.customer_id = t.customer_id \
             WHEN NOT MATCHED THEN INSERT (order_id) VALUES (1)",
            "PGH026",
        ),
    ]
    .map(|(rest, said)| (format!("{INTO} {rest}"), said));
    let table: Vec<(&str, &str)> = table
        .iter()
        .map(|(sql, said)| (sql.as_str(), *said))
        .collect();
    check(&table);
    check(&[(
        "MERGE INTO countries k USING currencies c ON c.country_code = k.code WHEN MATCHED THEN DELETE",
        "PGH031",
    )]);
}

#[test]
fn a_column_of_constants_is_a_choice_of_values() {
    check(&[
        (
            "SELECT o.* FROM orders o JOIN (VALUES (42, 'a'), (42, 'b')) v (c, n) ON o.customer_id = v.c",
            S2,
        ),
        (
            "UPDATE orders o SET note = v.n FROM (VALUES (42, 1, 'a'), (42, 2, 'b')) v (c, o, n) \
             WHERE o.customer_id = v.c AND o.order_id = v.o",
            S2,
        ),
        (
            "UPDATE orders o SET note = v.n FROM (VALUES (42, 1, 'a'), (1, 2, 'b')) v (c, o, n) \
             WHERE o.customer_id = v.c AND o.order_id = v.o",
            "PGH080",
        ),
        (
            "SELECT * FROM orders o, (SELECT 42 AS c) x WHERE o.customer_id = x.c",
            S2,
        ),
        (
            "WITH v AS (SELECT 42 AS c) SELECT o.* FROM orders o JOIN v ON v.c = o.customer_id",
            S2,
        ),
        (
            "SELECT * FROM orders o, (VALUES (42), (NULL)) v WHERE o.customer_id = v.column1",
            S2,
        ),
        // as SQLAlchemy inserts many rows
        (
            "INSERT INTO orders (customer_id, order_id) SELECT p0::BIGINT, p1::BIGINT FROM \
             (VALUES (42::BIGINT, 1::BIGINT, 0), (42::BIGINT, 2::BIGINT, 1)) AS imp_sen (p0, p1, sen_counter) \
             ORDER BY sen_counter RETURNING orders.order_id",
            S2,
        ),
        (
            "INSERT INTO orders (customer_id, order_id) SELECT p0::BIGINT, p1::BIGINT FROM \
             (VALUES ($1::BIGINT, $2::BIGINT, 0), ($3::BIGINT, $4::BIGINT, 1)) AS imp_sen (p0, p1, sen_counter)",
            "one shard, by $1, $3",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) SELECT p0, p1 FROM (VALUES (42, 1), (1, 2)) v (p0, p1)",
            "PGH025",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) VALUES (42, 1) ON CONFLICT DO NOTHING RETURNING *",
            S2,
        ),
        (
            "MERGE INTO orders o USING (VALUES (42, 1, 'a')) v (c, n, t) ON o.customer_id = v.c AND o.order_id = v.n \
             WHEN MATCHED THEN UPDATE SET note = v.t \
             WHEN NOT MATCHED THEN INSERT (customer_id, order_id, note) VALUES (v.c, v.n, v.t)",
            S2,
        ),
        // not constants of the key's type
        (
            "SELECT o.* FROM orders o JOIN (VALUES (42), (42.5)) v (c) ON o.customer_id = v.c",
            "PGH016",
        ),
        (
            "SELECT o.* FROM orders o JOIN (VALUES (42), (random())) v (c) ON o.customer_id = v.c",
            "PGH016",
        ),
        (
            "SELECT o.* FROM orders o JOIN (VALUES (42) UNION VALUES (1)) v (c) ON o.customer_id = v.c",
            "PGH010",
        ),
        (
            "SELECT o.* FROM (VALUES (42)) v (c) LEFT JOIN orders o ON o.customer_id = v.c",
            S2,
        ),
        (
            "SELECT o.* FROM orders o LEFT JOIN (VALUES (42)) v (c) ON o.customer_id = v.c",
            "PGH016",
        ),
    ]);
}
