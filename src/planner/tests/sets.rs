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
