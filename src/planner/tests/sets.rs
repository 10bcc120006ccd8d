//! Several values of the sharding key: the shards that they are on, and no others.

use super::{ANY, AUTHORITATIVE, EVERY, S0, S2, check};

const S0_AND_S2: &str = "shards s0, s2, concatenated";

#[test]
fn a_choice_of_values_needs_the_shards_of_its_values() {
    check(&[
        (
            "SELECT * FROM orders WHERE customer_id IN (1, 42)",
            S0_AND_S2,
        ),
        (
            "SELECT * FROM orders WHERE customer_id IN (42, 1, 42, '1')",
            S0_AND_S2,
        ),
        (
            "SELECT * FROM orders WHERE customer_id IN (42, '42', 42::int8)",
            S2,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = 1 OR customer_id = 42",
            S0_AND_S2,
        ),
        (
            "SELECT * FROM orders WHERE (customer_id = 1 OR 42 = customer_id) AND total > 1",
            S0_AND_S2,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = 42 AND total > 1 OR customer_id IN (42)",
            S2,
        ),
        (
            "SELECT * FROM orders WHERE (customer_id = 1 AND total > 1) OR (customer_id = 42 AND note IS NULL)",
            S0_AND_S2,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = ANY (ARRAY[1, 42])",
            S0_AND_S2,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = SOME (ARRAY[42])",
            S2,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = ANY ('{1, 42}')",
            S0_AND_S2,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = ANY ('{{42},{42}}')",
            S2,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = ANY ('{42}'::bigint[])",
            S2,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = ANY (CAST('{1,42}' AS int[]))",
            S0_AND_S2,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = ANY ('{42}'::numeric[])",
            EVERY,
        ),
        (
            "SELECT * FROM products WHERE sku = ANY ('{\"tenant-1\"}')",
            "one shard s3, primary",
        ),
        (
            "SELECT * FROM orders WHERE (customer_id, order_id) = (42, 1)",
            S2,
        ),
        (
            "SELECT * FROM orders WHERE (order_id, customer_id) IN ((1, 1), (2, 42))",
            S0_AND_S2,
        ),
        (
            "SELECT * FROM orders WHERE (order_id, customer_id) IN ((1, 42), (2, 42))",
            S2,
        ),
        // what all branches of OR leave a choice of
        (
            "SELECT * FROM orders WHERE customer_id = 1 OR total > 1",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = 1 OR NOT customer_id = 42",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = 1 OR customer_id = order_id",
            EVERY,
        ),
        // not equality with a value
        ("SELECT * FROM orders WHERE customer_id IN (1, 42.5)", EVERY),
        (
            "SELECT * FROM orders WHERE customer_id IN (1, total)",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = ALL (ARRAY[1, 42])",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE customer_id <> ANY (ARRAY[1, 42])",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = ANY ('[1:1]={42}')",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = ANY (tags)",
            "PGH019",
        ),
        (
            "SELECT * FROM orders WHERE (customer_id, order_id) < (42, 1)",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE customer_id IN (1, 42) IS NOT TRUE",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE (customer_id IN (1, 42)) = (total > 1)",
            EVERY,
        ),
    ]);
}

#[test]
fn conditions_narrow_each_other() {
    check(&[
        (
            "SELECT * FROM orders WHERE customer_id IN (1, 42) AND customer_id IN (42, -1)",
            S2,
        ),
        (
            "SELECT * FROM orders WHERE customer_id IN (1, 42) AND customer_id = 42",
            S2,
        ),
        (
            "SELECT count(*) FROM orders WHERE customer_id IN (1, 42) AND customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = 1 AND customer_id = 42",
            S0,
        ),
        (
            "SELECT * FROM orders o JOIN customers c USING (customer_id) WHERE o.customer_id IN (1, 42) AND c.customer_id IN (1, -1)",
            S0,
        ),
        (
            "SELECT * FROM orders o JOIN customers c ON o.customer_id = c.customer_id WHERE o.customer_id IN (1, 42)",
            S0_AND_S2,
        ),
        (
            "SELECT * FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id AND o.customer_id = 1 \
             WHERE c.customer_id IN (1, 42)",
            S0_AND_S2,
        ),
        (
            "SELECT * FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id AND o.customer_id = 1",
            EVERY,
        ),
        // held to different keys, and yet not on one shard
        (
            "SELECT * FROM orders o, customers c WHERE o.customer_id = 1 AND c.customer_id = 42",
            "PGH018",
        ),
        (
            "SELECT * FROM orders o, customers c WHERE o.customer_id = 1 AND c.customer_id = 42 AND o.customer_id = 42",
            S2,
        ),
    ]);
}

#[test]
fn null_and_no_value_need_no_shard() {
    check(&[
        ("SELECT * FROM orders WHERE customer_id = NULL", ANY),
        ("SELECT * FROM orders WHERE customer_id = NULL::int8", ANY),
        ("SELECT * FROM orders WHERE customer_id IN (NULL, 42)", S2),
        ("SELECT * FROM orders WHERE customer_id = ANY ('{}')", ANY),
        (
            "SELECT * FROM orders WHERE customer_id = ANY ('{NULL,42}')",
            S2,
        ),
        ("SELECT count(*) FROM orders WHERE customer_id = NULL", ANY),
        ("UPDATE orders SET note = 'x' WHERE customer_id = NULL", ANY),
        // the bucket of rows without a key
        ("SELECT * FROM orders WHERE customer_id IS NULL", S0),
        (
            "SELECT * FROM orders WHERE customer_id IS NULL OR customer_id = 42",
            S0_AND_S2,
        ),
        ("SELECT * FROM orders WHERE customer_id IS NOT NULL", EVERY),
        // an error of PostgreSQL's
        (
            "SELECT * FROM orders WHERE customer_id IN (42, 'x')",
            AUTHORITATIVE,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = ANY ('{42,x}')",
            AUTHORITATIVE,
        ),
    ]);
}

#[test]
fn what_several_shards_cannot_do_together_runs_where_the_values_are_on_one() {
    check(&[
        (
            "SELECT count(*) FROM orders WHERE customer_id IN (1, 42)",
            "PGH007",
        ),
        (
            "SELECT count(*) FROM orders WHERE customer_id IN (42, 42)",
            S2,
        ),
        (
            "SELECT * FROM orders WHERE customer_id IN (1, 42) ORDER BY total",
            "PGH004",
        ),
        (
            "SELECT * FROM orders WHERE customer_id IN (1, 42) FOR UPDATE",
            "PGH011",
        ),
        (
            "SELECT * FROM orders WHERE customer_id IN (1, 42) AND placed_on < 'now'",
            "PGH057",
        ),
        (
            "SELECT * FROM orders WHERE customer_id IN (42, '42') AND placed_on < 'now'",
            S2,
        ),
        (
            "UPDATE orders SET note = 'x' WHERE customer_id IN (42, 42)",
            S2,
        ),
        (
            "UPDATE orders SET note = 'x' WHERE customer_id IN (1, 42)",
            "PGH080",
        ),
        (
            "DELETE FROM order_lines WHERE customer_id = 1 OR customer_id = 42",
            "PGH080",
        ),
        ("DELETE FROM order_lines", "PGH021"),
    ]);
}

#[test]
fn parameters_are_values_too() {
    let one = |by| format!("one shard, by {by}");
    let several = |by| format!("one shard, or several concatenated, by {by}");
    let table = [
        (
            "SELECT * FROM orders WHERE customer_id = ANY ($1)",
            several("$1"),
        ),
        (
            "SELECT * FROM orders WHERE customer_id = ANY ($1::int[])",
            several("$1"),
        ),
        (
            "SELECT * FROM orders WHERE customer_id IN ($1, $2)",
            several("$1, $2"),
        ),
        (
            "SELECT * FROM orders WHERE customer_id IN ($2, 42)",
            several("$2"),
        ),
        (
            "SELECT * FROM orders WHERE customer_id = $1 OR customer_id = $3",
            several("$1, $3"),
        ),
        (
            "SELECT count(*) FROM orders WHERE customer_id = ANY ($1)",
            one("$1"),
        ),
        (
            "UPDATE orders SET note = $3 WHERE customer_id IN ($1, $2)",
            one("$1, $2"),
        ),
        (
            "UPDATE orders SET customer_id = $1 WHERE customer_id = $2",
            one("$1, $2"),
        ),
        (
            "INSERT INTO orders (customer_id, order_id) VALUES ($1, 1), ($2, 2)",
            one("$1, $2"),
        ),
        (
            "SELECT * FROM orders o, customers c WHERE o.customer_id = $1 AND c.customer_id = $2",
            one("$1, $2"),
        ),
    ];
    let table: Vec<(&str, &str)> = table
        .iter()
        .map(|(sql, said)| (*sql, said.as_str()))
        .collect();
    check(&table);
}

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

#[test]
fn rows_that_an_outer_join_fills_with_nulls_have_no_key() {
    check(&[
        (
            "SELECT k.* FROM countries k LEFT JOIN customers c ON c.country_code = k.code WHERE c.customer_id IS NULL",
            "PGH015",
        ),
        (
            "SELECT c.* FROM customers c LEFT JOIN orders o ON o.order_id = c.customer_id \
             WHERE c.customer_id = 42 AND o.customer_id IS NULL",
            "PGH018",
        ),
        (
            "SELECT 1 FROM countries k LEFT JOIN (SELECT customer_id, country_code FROM customers) c \
             ON c.country_code = k.code WHERE c.customer_id IS NULL OR c.customer_id = 42",
            "PGH016",
        ),
        (
            "SELECT count(*) FROM customers c FULL JOIN orders o ON c.customer_id = o.order_id \
             WHERE o.customer_id IS NULL AND c.customer_id = 42",
            "PGH018",
        ),
        (
            "UPDATE customers c SET name = 'x' FROM countries k LEFT JOIN orders o ON o.note = k.code \
             WHERE c.customer_id = 42 AND o.customer_id IS NULL",
            "PGH018",
        ),
        // the anti-join by the key, which one shard answers
        (
            "SELECT c.* FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id \
             WHERE c.customer_id = 42 AND o.customer_id IS NULL",
            S2,
        ),
        // before the join fills anything
        (
            "SELECT c.* FROM countries k LEFT JOIN (SELECT * FROM customers WHERE customer_id IS NULL) c ON c.name = k.name",
            "one shard s0, primary",
        ),
    ]);
}

#[test]
fn what_postgresql_reads_otherwise_is_not_misread() {
    check(&[
        // a string among numbers may be wider than the key: int4 here
        (
            "SELECT * FROM tickets WHERE customer_id IN (5000000000, '6000000000', 42)",
            S0_AND_S2,
        ),
        // records, of which NULL equals NULL
        (
            "SELECT * FROM orders WHERE (customer_id, order_id) = ANY (ARRAY[(42::int8, 1::int8)])",
            EVERY,
        ),
        // the sets that leave the key out have NULL there
        (
            "INSERT INTO orders (customer_id, order_id) SELECT customer_id, count(*) FROM orders WHERE customer_id = 42 \
             GROUP BY ROLLUP (customer_id)",
            "PGH025",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) SELECT customer_id, count(*) FROM orders WHERE customer_id = 42 \
             GROUP BY customer_id",
            S2,
        ),
        (
            "INSERT INTO orders (customer_id, order_id) SELECT v.k, count(*) FROM (VALUES (42)) v (k) GROUP BY CUBE (v.k)",
            "PGH025",
        ),
        // what the key is computed from may be among the columns
        (
            "UPDATE doubled SET base = 2 WHERE customer_id = 42",
            "PGH029",
        ),
        // too long for the column: an error only where there is a row
        (
            "INSERT INTO accounts (code, owner) SELECT '123456789', owner FROM accounts WHERE code = '1'",
            "one shard s1, primary",
        ),
        (
            "INSERT INTO accounts (code, owner) VALUES ('123456789', 'x')",
            ANY,
        ),
        (
            "UPDATE accounts SET code = '123456789' WHERE code = '1'",
            "one shard s1, primary",
        ),
    ]);
}

#[test]
fn a_text_makes_no_more_of_its_values_than_it_has() {
    let same = vec!["customer_id = 1"; 400].join(" AND ");
    let many: Vec<String> = (0..20_000).map(|key| key.to_string()).collect();
    let sql = format!(
        "SELECT * FROM orders WHERE ({same}) OR customer_id IN ({})",
        many.join(",")
    );
    let begun = std::time::Instant::now();
    check(&[(&sql, "shards s0, s1, s2, s3, concatenated")]);
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    let arrays = vec!["customer_id = ANY ($1)"; 900].join(" OR ");
    let statement =
        crate::sql::understand(&format!("SELECT * FROM orders WHERE {arrays}")).unwrap();
    match crate::planner::plan(&statement, &super::knowledge())
        .unwrap()
        .route
    {
        crate::planner::Route::Keys(keys) => assert_eq!(keys.value_count(), 1),
        other => panic!("{other:?}"),
    }
}
