//! What holds a table to one value of its sharding key, and what does not.

use super::{ANY, AUTHORITATIVE, BY_1, BY_2, EVERY, S0, S1, S2, check};

#[test]
fn an_equality_with_a_constant_at_the_top_of_where_names_the_shard() {
    check(&[
        ("SELECT * FROM orders WHERE customer_id = 42", S2),
        ("SELECT * FROM orders WHERE 42 = customer_id", S2),
        ("SELECT * FROM orders WHERE (customer_id = 42)", S2),
        (
            "SELECT * FROM orders WHERE customer_id = 1 AND status = 'new'",
            S0,
        ),
        (
            "SELECT * FROM orders WHERE status = 'new' AND (total > 5 AND customer_id = 1)",
            S0,
        ),
        ("SELECT * FROM orders WHERE customer_id = -1", S1),
        ("SELECT * FROM orders WHERE orders.customer_id = 42", S2),
        (
            "SELECT * FROM orders WHERE public.orders.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM public.orders WHERE public.orders.customer_id = 42",
            S2,
        ),
        ("SELECT * FROM orders o WHERE o.customer_id = 42", S2),
        (
            "SELECT * FROM orders AS o WHERE \"o\".\"customer_id\" = 42",
            S2,
        ),
        ("SELECT * FROM ORDERS WHERE Customer_ID = 42", S2),
        ("SELECT * FROM orders WHERE customer_id = '42'", S2),
        ("SELECT * FROM orders WHERE customer_id = '042'", S2),
        ("SELECT * FROM orders WHERE customer_id = ' 42 '", S2),
        ("SELECT * FROM orders WHERE customer_id = +42", S2),
        ("SELECT * FROM orders WHERE customer_id = $$42$$", S2),
        ("SELECT * FROM orders WHERE customer_id = 42::bigint", S2),
        ("SELECT * FROM orders WHERE customer_id = 42::int4", S2),
        (
            "SELECT * FROM orders WHERE customer_id = CAST('42' AS smallint)",
            S2,
        ),
        ("SELECT * FROM orders WHERE customer_id = bigint '42'", S2),
        ("SELECT * FROM orders WHERE customer_id IN (42)", S2),
        (
            "SELECT * FROM orders WHERE customer_id = 42 AND customer_id = 42",
            S2,
        ),
        ("SELECT * FROM tickets WHERE customer_id = 42", S2),
        ("SELECT * FROM sales.leads WHERE customer_id = 42", S2),
        (
            "SELECT * FROM products WHERE sku = 'tenant-1'",
            "one shard s3, primary",
        ),
        ("TABLE orders", "PGH001"),
        ("SELECT count(*) FROM orders WHERE customer_id = 42", S2),
        (
            "SELECT * FROM orders WHERE customer_id = 42 ORDER BY total LIMIT 3",
            S2,
        ),
        (
            "SELECT now(), random(), order_count() FROM orders WHERE customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = 42 FOR UPDATE SKIP LOCKED",
            S2,
        ),
        ("(SELECT * FROM orders WHERE customer_id = 42)", S2),
        (
            "(SELECT * FROM orders WHERE customer_id = 42) ORDER BY 1",
            S2,
        ),
    ]);
}

#[test]
fn a_parameter_names_the_shard_when_it_is_bound() {
    check(&[
        ("SELECT * FROM orders WHERE customer_id = $1", BY_1),
        (
            "SELECT * FROM orders WHERE order_id = $1 AND customer_id = $2",
            BY_2,
        ),
        ("SELECT * FROM orders WHERE customer_id = $1::bigint", BY_1),
        ("SELECT * FROM orders WHERE customer_id IN ($2)", BY_2),
        (
            "SELECT * FROM products WHERE sku = $1",
            "one shard by parameter $1 (text)",
        ),
        (
            "SELECT * FROM products WHERE sku = $1::varchar",
            "one shard by parameter $1 (text)",
        ),
        (
            "SELECT * FROM devices WHERE device_id = $1",
            "one shard by parameter $1 (uuid)",
        ),
        (
            "SELECT * FROM orders WHERE customer_id = $1::numeric",
            EVERY,
        ),
        ("SELECT * FROM orders WHERE customer_id = $1 + 1", EVERY),
        (
            "SELECT * FROM orders WHERE customer_id = ANY($1)",
            "one shard, or several concatenated, by $1",
        ),
        (
            "SELECT * FROM orders WHERE customer_id IN ($1, $2)",
            "one shard, or several concatenated, by $1, $2",
        ),
        ("SELECT * FROM products WHERE sku = $1::varchar(3)", EVERY),
        // $1 is a text here; its hash as a text is not the one as a number
        (
            "SELECT * FROM products p, orders o WHERE p.sku = $1::text AND o.customer_id = $1::int8",
            "one shard, by $1",
        ),
    ]);
}

#[test]
fn what_is_no_equality_of_the_keys_own_type_names_no_shard() {
    check(&[
        ("SELECT * FROM orders WHERE customer_id = 42.0", EVERY),
        ("SELECT * FROM orders WHERE customer_id = 42e0", EVERY),
        (
            "SELECT * FROM orders WHERE customer_id = 42::numeric",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = '42'::float8",
            EVERY,
        ),
        ("SELECT * FROM orders WHERE customer_id::text = '42'", EVERY),
        ("SELECT * FROM orders WHERE customer_id + 0 = 42", EVERY),
        ("SELECT * FROM orders WHERE -customer_id = 42", EVERY),
        ("SELECT * FROM orders WHERE abs(customer_id) = 42", EVERY),
        ("SELECT * FROM orders WHERE customer_id = - (42)", EVERY),
        (
            "SELECT * FROM orders WHERE customer_id >= 42 AND customer_id <= 42",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE customer_id BETWEEN 42 AND 42",
            EVERY,
        ),
        ("SELECT * FROM orders WHERE customer_id <> 42", EVERY),
        ("SELECT * FROM orders WHERE NOT customer_id = 42", EVERY),
        (
            "SELECT * FROM orders WHERE NOT (customer_id = 42 AND total > 1)",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = 42 OR total > 1",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE (customer_id = 42 OR total > 1) AND note IS NULL",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = 42 AND total > 1 OR note IS NULL",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE (customer_id = 42) IS NOT TRUE",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE (customer_id = 42) = false",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE CASE WHEN customer_id = 42 THEN total > 1 ELSE true END",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE coalesce(customer_id = 42, true)",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE customer_id IS NOT DISTINCT FROM 42",
            EVERY,
        ),
        ("SELECT * FROM orders WHERE customer_id NOT IN (42)", EVERY),
        (
            "SELECT * FROM orders WHERE customer_id IN (1, 42)",
            "shards s0, s2, concatenated",
        ),
        ("SELECT * FROM orders WHERE customer_id = NULL", ANY),
        ("SELECT * FROM orders WHERE customer_id IS NULL", S0),
        ("SELECT * FROM orders WHERE customer_id = order_id", EVERY),
        ("SELECT * FROM orders WHERE order_id = 42", EVERY),
        ("SELECT * FROM products WHERE sku = 42::text", EVERY),
        ("SELECT * FROM products WHERE sku = 'a'::char(3)", EVERY),
        (
            "SELECT * FROM products WHERE sku COLLATE \"C\" = 'a'",
            EVERY,
        ),
        ("SELECT * FROM products WHERE sku = E'a\\x62'", "PGH057"),
        ("SELECT * FROM products WHERE sku LIKE 'a'", EVERY),
        ("SELECT * FROM products WHERE lower(sku) = 'a'", EVERY),
        ("SELECT customer_id = 42 FROM orders", EVERY),
        (
            "SELECT count(*) FILTER (WHERE customer_id = 42) FROM orders",
            "PGH007",
        ),
        (
            "SELECT customer_id, count(*) FROM orders GROUP BY 1 HAVING customer_id = 42",
            "PGH008",
        ),
    ]);
}

#[test]
fn a_value_that_is_none_of_the_type_raises_postgresqls_error() {
    check(&[
        (
            "SELECT * FROM orders WHERE customer_id = 'abc'",
            AUTHORITATIVE,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = '42.0'",
            AUTHORITATIVE,
        ),
        ("SELECT * FROM orders WHERE customer_id = ''", AUTHORITATIVE),
        ("SELECT * FROM devices WHERE device_id = 'x'", AUTHORITATIVE),
        (
            "INSERT INTO accounts (code, owner) VALUES ('123456789', 'x')",
            AUTHORITATIVE,
        ),
    ]);
}

#[test]
fn two_values_that_contradict_each_other_give_one_of_their_shards() {
    check(&[
        (
            "SELECT * FROM orders WHERE customer_id = 42 AND customer_id = 1",
            S2,
        ),
        (
            "SELECT * FROM orders WHERE customer_id = 42 AND customer_id = $1",
            S2,
        ),
    ]);
}

#[test]
fn spellings_of_one_key_value_have_one_shard() {
    let of = |sql: &str| super::said(sql);
    let uuid = of("SELECT * FROM devices WHERE device_id = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'");
    assert!(uuid.starts_with("one shard s"), "{uuid}");
    for spelling in [
        "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
        "'{a0eebc999c0b4ef8bb6d6bb9bd380a11}'",
        "'a0eebc999c0b4ef8bb6d6bb9bd380a11'::uuid",
        "uuid 'a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11'",
    ] {
        assert_eq!(
            of(&format!(
                "SELECT * FROM devices WHERE device_id = {spelling}"
            )),
            uuid
        );
    }
    let stored = of("INSERT INTO accounts (code, owner) VALUES ('12345678', 'x')");
    assert!(stored.starts_with("one shard s"), "{stored}");
    assert_eq!(
        of("INSERT INTO accounts (code, owner) VALUES ('12345678  ', 'x')"),
        stored
    );
}

#[test]
fn tables_that_are_joined_by_the_key_need_one_constant() {
    check(&[
        (
            "SELECT * FROM customers c JOIN orders o ON o.customer_id = c.customer_id WHERE c.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers c JOIN orders o ON o.customer_id = c.customer_id WHERE o.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers c, orders o WHERE o.customer_id = c.customer_id AND c.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers c, orders o WHERE o.customer_id = 42 AND c.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers c, orders o WHERE o.customer_id = $1 AND c.customer_id = $1",
            BY_1,
        ),
        (
            "SELECT * FROM customers c JOIN tickets t ON t.customer_id = c.customer_id AND t.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers JOIN orders USING (customer_id) WHERE customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers JOIN orders USING (customer_id) WHERE orders.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM orders NATURAL JOIN order_lines WHERE customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers NATURAL JOIN orders WHERE customers.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers c JOIN orders o USING (customer_id) JOIN order_lines l USING (customer_id, order_id) \
             WHERE c.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers c JOIN (orders o JOIN order_lines l ON l.customer_id = o.customer_id) \
             ON o.customer_id = c.customer_id WHERE c.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers c JOIN countries k ON k.code = c.country_code WHERE c.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM countries k LEFT JOIN customers c ON c.country_code = k.code AND c.customer_id = 42",
            S2,
        ),
        // another column, another operator, one of two values
        (
            "SELECT * FROM customers c JOIN orders o ON o.order_id = c.customer_id WHERE c.customer_id = 42",
            "PGH018",
        ),
        (
            "SELECT * FROM customers c JOIN orders o ON o.customer_id >= c.customer_id WHERE c.customer_id = 42",
            "PGH018",
        ),
        (
            "SELECT * FROM customers c JOIN orders o ON o.customer_id = c.customer_id OR true WHERE c.customer_id = 42",
            "PGH018",
        ),
        (
            "SELECT * FROM customers c JOIN orders o ON o.customer_id + 0 = c.customer_id WHERE c.customer_id = 42",
            "PGH018",
        ),
        (
            "SELECT * FROM customers c CROSS JOIN orders o WHERE c.customer_id = 42",
            "PGH018",
        ),
        (
            "SELECT * FROM customers c, orders o WHERE o.customer_id = 1 AND c.customer_id = 42",
            "PGH018",
        ),
        (
            "SELECT * FROM customers c, orders o WHERE o.customer_id = $1 AND c.customer_id = $2",
            "one shard, by $1, $2",
        ),
        (
            "SELECT * FROM customers c, orders o WHERE o.customer_id = $1 AND c.customer_id = 42",
            "one shard, by $1",
        ),
        (
            "SELECT * FROM orders a, orders b WHERE a.customer_id = 42",
            "PGH018",
        ),
        (
            "SELECT * FROM orders a JOIN orders b USING (order_id) WHERE a.customer_id = 42",
            "PGH018",
        ),
        (
            "SELECT * FROM products p JOIN order_lines l ON l.sku = p.sku WHERE p.sku = 'a'",
            "PGH018",
        ),
        (
            "SELECT * FROM products p JOIN order_lines l ON l.sku = p.sku WHERE l.customer_id = 42",
            "PGH018",
        ),
    ]);
}

#[test]
fn an_outer_join_proves_from_the_preserved_side_to_the_other() {
    check(&[
        (
            "SELECT * FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id WHERE c.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM orders o RIGHT JOIN customers c ON o.customer_id = c.customer_id WHERE c.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers c LEFT JOIN orders o USING (customer_id) WHERE customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM orders o RIGHT JOIN customers c USING (customer_id) WHERE customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers c LEFT JOIN orders o ON o.customer_id = 42 WHERE c.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers c LEFT JOIN (orders o JOIN order_lines l USING (customer_id, order_id)) \
             ON o.customer_id = c.customer_id WHERE c.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id \
             LEFT JOIN order_lines l ON l.customer_id = o.customer_id AND l.order_id = o.order_id WHERE c.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers c FULL JOIN orders o ON true WHERE c.customer_id = 42 AND o.customer_id = 42",
            S2,
        ),
        (
            "SELECT * FROM customers c FULL JOIN orders o ON true WHERE c.customer_id = 42 AND o.customer_id = c.customer_id",
            S2,
        ),
        // the condition on the nullable side holds its rows, not the preserved ones
        (
            "SELECT * FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id WHERE o.customer_id = 42",
            EVERY,
        ),
        (
            "SELECT count(*) FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id AND c.customer_id = 42",
            "PGH007",
        ),
        (
            "SELECT count(*) FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id AND o.customer_id = 42",
            "PGH007",
        ),
        (
            "SELECT count(*) FROM orders o RIGHT JOIN customers c ON o.customer_id = c.customer_id AND o.customer_id = 42",
            "PGH007",
        ),
        (
            "SELECT * FROM customers c FULL JOIN orders o ON o.customer_id = c.customer_id WHERE c.customer_id = 42",
            "PGH018",
        ),
        (
            "SELECT * FROM customers c FULL JOIN orders o USING (customer_id) WHERE customer_id = 42",
            "PGH015",
        ),
        (
            "SELECT * FROM customers c FULL JOIN orders o ON o.customer_id = 42 AND c.customer_id = 42",
            "PGH015",
        ),
        (
            "SELECT * FROM customers c LEFT JOIN orders o USING (customer_id) WHERE o.customer_id = 42",
            EVERY,
        ),
    ]);
}

#[test]
fn a_merged_column_is_not_the_key_where_its_type_may_be_another() {
    check(&[
        (
            "SELECT * FROM countries JOIN currencies USING (code) WHERE code = 'x'",
            ANY,
        ),
        (
            "SELECT * FROM orders JOIN (SELECT 42.0 AS customer_id) x USING (customer_id) WHERE customer_id = 42",
            "PGH016",
        ),
        (
            "SELECT * FROM orders o JOIN (SELECT 42.0 AS customer_id) x USING (customer_id) WHERE o.customer_id = 42",
            S2,
        ),
    ]);
}
