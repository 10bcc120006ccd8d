//! INSERT, UPDATE, DELETE: the shard of the row that changes.

use super::{ANY, AUTHORITATIVE, BY_1, BY_2, S0, S1, S2, check, planned};
use crate::planner::{Assigned, Command, Effect, Route};

#[test]
fn an_insert_of_one_row_goes_to_the_shard_of_its_key() {
    check(&[
        (
            "INSERT INTO orders (customer_id, order_id) VALUES (42, 1)",
            S2,
        ),
        (
            "INSERT INTO orders (order_id, customer_id) VALUES (1, 42)",
            S2,
        ),
        ("INSERT INTO orders VALUES (42, 1, 'new')", S2),
        ("INSERT INTO orders VALUES ('42', 1)", S2),
        ("INSERT INTO orders AS o VALUES (42, 1) RETURNING o.*", S2),
        (
            "INSERT INTO orders (customer_id, order_id) VALUES ($1, $2) RETURNING order_id",
            BY_1,
        ),
        (
            "INSERT INTO orders (order_id, customer_id) VALUES ($1, $2::int8)",
            BY_2,
        ),
        (
            "INSERT INTO orders (customer_id, order_id, placed_on) VALUES (42, 1, DEFAULT)",
            S2,
        ),
        (
            "INSERT INTO orders (customer_id, order_id, placed_on) VALUES (42, 1, now())",
            S2,
        ),
        (
            "INSERT INTO orders VALUES (42, 1) ON CONFLICT DO NOTHING",
            S2,
        ),
        (
            "INSERT INTO orders (customer_id, order_id, total) VALUES (42, 1, 5) ON CONFLICT (customer_id, order_id) \
             DO UPDATE SET total = orders.total + excluded.total WHERE orders.status = 'new' RETURNING *",
            S2,
        ),
        (
            "INSERT INTO orders (customer_id, order_id, total) VALUES (42, 1, (SELECT sum(price) FROM order_lines WHERE customer_id = 42))",
            S2,
        ),
        (
            "INSERT INTO receipts (customer_id, receipt_id) VALUES (42, 7)",
            S2,
        ),
        (
            "INSERT INTO receipts (customer_id, receipt_id) OVERRIDING SYSTEM VALUE VALUES (42, 7)",
            S2,
        ),
        ("INSERT INTO invoices VALUES (42, 7, 1.5)", S2),
        (
            "WITH k AS (SELECT name FROM countries) INSERT INTO orders (customer_id, order_id, note) VALUES (42, 1, (SELECT name FROM k LIMIT 1))",
            S2,
        ),
        ("INSERT INTO app_settings VALUES ('a', 'b'), ('c', 'd')", S1),
        (
            "INSERT INTO app_settings SELECT code, name FROM countries",
            S1,
        ),
        ("INSERT INTO app_log (key, message) VALUES ('a', 'b')", S1),
        ("INSERT INTO app_settings DEFAULT VALUES", S1),
    ]);
}

#[test]
fn an_insert_whose_shard_is_not_known_is_refused() {
    check(&[
        (
            "INSERT INTO orders (customer_id, order_id) VALUES (42, 1), (42, 2)",
            S2,
        ),
        (
            "INSERT INTO orders SELECT * FROM orders WHERE customer_id = 42",
            S2,
        ),
        ("INSERT INTO orders SELECT 42, 1", S2),
        ("INSERT INTO orders (VALUES (42, 1) LIMIT 1)", "PGH001"),
        ("INSERT INTO orders TABLE orders", "PGH001"),
        ("INSERT INTO orders (order_id) VALUES (1)", "PGH026"),
        (
            "INSERT INTO orders (customer_id, order_id) VALUES (DEFAULT, 1)",
            "PGH026",
        ),
        ("INSERT INTO orders DEFAULT VALUES", "PGH026"),
        (
            "INSERT INTO orders (customer_id, order_id) VALUES (NULL, 1)",
            "PGH027",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) VALUES (40 + 2, 1)",
            "PGH028",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) VALUES (42.4, 1)",
            "PGH028",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) VALUES ((SELECT 42), 1)",
            "PGH028",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) VALUES (abs(-42), 1)",
            "PGH028",
        ),
        (
            "INSERT INTO products (sku, title) VALUES (42, 'x')",
            "PGH028",
        ),
        (
            "INSERT INTO accounts (code, owner) VALUES ('abc'::varchar(2), 'x')",
            "PGH028",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) VALUES (nextval('ticket_numbers'), 1)",
            "PGH048",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) VALUES (42, nextval('ticket_numbers'))",
            "PGH048",
        ),
        ("INSERT INTO doubled (base) VALUES (21)", "PGH029"),
        (
            "INSERT INTO invoices (customer_id, amount) VALUES (42, 1.5)",
            "PGH030",
        ),
        (
            "INSERT INTO invoices (customer_id, invoice_id) VALUES (42, DEFAULT)",
            "PGH030",
        ),
        ("INSERT INTO invoices VALUES (42)", "PGH030"),
        (
            "INSERT INTO receipts (customer_id, amount) VALUES (42, 1)",
            "PGH030",
        ),
        (
            "INSERT INTO receipts (customer_id, receipt_id) OVERRIDING USER VALUE VALUES (42, 7)",
            "PGH058",
        ),
        (
            "INSERT INTO members (member_id, email) VALUES (42, 'a@b')",
            "PGH054",
        ),
        (
            "INSERT INTO referrals (customer_id, friend_id) VALUES (42, 42)",
            "PGH054",
        ),
        ("INSERT INTO countries VALUES ('xx', 'X', 'Y')", "PGH031"),
        ("INSERT INTO audited VALUES (42, 'x')", "PGH045"),
        ("INSERT INTO ruled VALUES (42, 'x')", "PGH044"),
        (
            "INSERT INTO pg_catalog.pg_class (relname) VALUES ('x')",
            "PGH052",
        ),
        (
            "INSERT INTO orders (customer_id, order_id, total) VALUES (42, 1, (SELECT sum(price) FROM order_lines))",
            "PGH018",
        ),
        (
            "INSERT INTO orders (customer_id, order_id) VALUES (42, 1) RETURNING (SELECT count(*) FROM orders)",
            "PGH018",
        ),
        (
            "INSERT INTO orders VALUES (42, 1) ON CONFLICT (customer_id, order_id) DO UPDATE SET customer_id = 1",
            "PGH022",
        ),
        (
            "INSERT INTO orders VALUES (42, 1) ON CONFLICT (customer_id, order_id) DO UPDATE SET (total, customer_id) = (1, 42)",
            S2,
        ),
        (
            "INSERT INTO orders VALUES (42, 1) ON CONFLICT (customer_id, order_id) DO UPDATE SET total = (SELECT max(total) FROM orders)",
            "PGH018",
        ),
        (
            "INSERT INTO invoices VALUES (42, 1) ON CONFLICT (customer_id, invoice_id) DO UPDATE SET invoice_id = DEFAULT",
            "PGH030",
        ),
        (
            "INSERT INTO app_settings SELECT name, status FROM customers, orders",
            "PGH037",
        ),
        (
            "INSERT INTO accounts (code, owner) VALUES ($1, (SELECT owner FROM accounts WHERE code = $1))",
            "one shard, by $1",
        ),
    ]);
}

#[test]
fn an_update_or_delete_goes_to_the_shard_of_its_condition() {
    check(&[
        (
            "UPDATE orders SET total = total + 1 WHERE customer_id = 42",
            S2,
        ),
        (
            "UPDATE orders o SET total = 1 WHERE o.customer_id = $1 AND order_id = $2 RETURNING *",
            BY_1,
        ),
        (
            "UPDATE orders SET (total, status) = (1, 'x') WHERE customer_id = 42",
            S2,
        ),
        (
            "UPDATE orders SET placed_on = DEFAULT WHERE customer_id = 42",
            S2,
        ),
        (
            "UPDATE orders o SET total = c.balance FROM customers c WHERE c.customer_id = o.customer_id AND o.customer_id = 42",
            S2,
        ),
        (
            "UPDATE orders o SET total = c.balance FROM customers c WHERE c.customer_id = o.customer_id AND c.customer_id = 42",
            S2,
        ),
        (
            "UPDATE customers c SET name = k.name FROM countries k WHERE k.code = c.country_code AND c.customer_id = 1",
            S0,
        ),
        (
            "UPDATE customers SET balance = (SELECT sum(total) FROM orders o WHERE o.customer_id = customers.customer_id) \
             WHERE customer_id = 42",
            S2,
        ),
        ("DELETE FROM orders WHERE customer_id = 42", S2),
        (
            "DELETE FROM orders USING customers c WHERE c.customer_id = orders.customer_id AND c.customer_id = 42",
            S2,
        ),
        (
            "DELETE FROM orders o WHERE o.customer_id = 42 AND NOT EXISTS (SELECT FROM order_lines l WHERE l.customer_id = o.customer_id AND l.order_id = o.order_id)",
            S2,
        ),
        (
            "WITH x AS (SELECT order_id FROM orders WHERE customer_id = 42) DELETE FROM order_lines WHERE customer_id = 42 AND order_id IN (SELECT order_id FROM x)",
            S2,
        ),
        ("UPDATE app_settings SET value = 'x'", S1),
        ("DELETE FROM app_settings", S1),
        ("DELETE FROM archive", S2),
        (
            "UPDATE orders SET total = 1 WHERE customer_id = 'x'",
            AUTHORITATIVE,
        ),
    ]);
}

#[test]
fn an_update_or_delete_that_may_reach_several_shards_is_refused() {
    check(&[
        ("UPDATE orders SET total = 1", "PGH021"),
        ("UPDATE orders SET total = 1 WHERE order_id = 42", "PGH021"),
        (
            "UPDATE orders SET total = 1 WHERE customer_id IN (1, 42)",
            "PGH080",
        ),
        (
            "UPDATE orders SET total = 1 WHERE customer_id = 42 OR order_id = 1",
            "PGH021",
        ),
        (
            "UPDATE orders SET total = 1 WHERE customer_id = 42.0",
            "PGH021",
        ),
        ("UPDATE orders SET total = 1 WHERE customer_id = NULL", ANY),
        ("DELETE FROM orders", "PGH021"),
        (
            "DELETE FROM orders WHERE customer_id::text = '42'",
            "PGH021",
        ),
        (
            "DELETE FROM orders WHERE customer_id IN (SELECT 42)",
            "PGH021",
        ),
        (
            "DELETE FROM orders USING customers c WHERE c.customer_id = 42",
            "PGH018",
        ),
        (
            "UPDATE orders o SET total = 1 FROM customers c WHERE o.customer_id = 42",
            "PGH018",
        ),
        (
            "UPDATE orders o SET total = 1 FROM orders p WHERE p.customer_id = 42 AND o.order_id = p.order_id",
            "PGH018",
        ),
        (
            "UPDATE orders SET total = (SELECT avg(total) FROM orders) WHERE customer_id = 42",
            "PGH018",
        ),
        (
            "UPDATE orders SET total = 1 WHERE customer_id = 42 RETURNING (SELECT count(*) FROM customers)",
            "PGH018",
        ),
        (
            "UPDATE orders SET customer_id = 1 WHERE customer_id = 42",
            "PGH022",
        ),
        (
            "UPDATE orders SET customer_id = customer_id WHERE customer_id = 42",
            S2,
        ),
        (
            "UPDATE orders SET total = 1, CUSTOMER_ID = 42 WHERE customer_id = 42",
            S2,
        ),
        (
            "UPDATE orders SET (total, customer_id) = (SELECT 1, 42) WHERE customer_id = 42",
            "PGH022",
        ),
        (
            "UPDATE orders SET \"customer_id\" = DEFAULT WHERE customer_id = 42",
            "PGH022",
        ),
        (
            "UPDATE invoices SET invoice_id = DEFAULT WHERE customer_id = 42",
            "PGH030",
        ),
        (
            "UPDATE countries SET name = 'x' WHERE code = 'at'",
            "PGH031",
        ),
        ("DELETE FROM countries", "PGH031"),
        (
            "UPDATE members SET email = 'x' WHERE member_id = 42",
            "PGH054",
        ),
        ("UPDATE members SET name = 'x' WHERE member_id = 42", S2),
        ("DELETE FROM members WHERE member_id = 42", S2),
        ("DELETE FROM customers WHERE customer_id = 42", "PGH054"),
        ("UPDATE customers SET name = 'x' WHERE customer_id = 42", S2),
        ("DELETE FROM referrals WHERE customer_id = 42", S2),
        (
            "INSERT INTO customers (customer_id, name) VALUES (42, 'x')",
            S2,
        ),
        (
            "UPDATE audited SET body = 'x' WHERE customer_id = 42",
            "PGH045",
        ),
        ("DELETE FROM ruled WHERE customer_id = 42", "PGH044"),
        ("DELETE FROM audit_parents WHERE customer_id = 42", "PGH045"),
        ("INSERT INTO audit_parents VALUES (42, 'x')", S2),
        (
            "UPDATE orders SET total = s.version FROM app_settings s WHERE customer_id = 42",
            "PGH037",
        ),
        (
            "UPDATE app_settings SET value = a.body FROM archive a",
            "PGH038",
        ),
        ("UPDATE app_settings SET value = touch()", "PGH049"),
        ("DELETE FROM pg_class", "PGH052"),
        (
            "MERGE INTO orders o USING customers c ON o.customer_id = c.customer_id WHEN MATCHED THEN DELETE",
            "PGH023",
        ),
        (
            "WITH x AS (DELETE FROM orders WHERE customer_id = 42 RETURNING *) SELECT * FROM x",
            S2,
        ),
        (
            "WITH x AS (INSERT INTO orders VALUES (42, 1) RETURNING *) SELECT * FROM orders WHERE customer_id = 42",
            S2,
        ),
        (
            "WITH x AS (UPDATE app_settings SET value = 'x' RETURNING *) DELETE FROM orders WHERE customer_id = 42",
            "PGH037",
        ),
    ]);
}

#[test]
fn a_plan_says_what_it_does() {
    let table = [
        ("SELECT * FROM orders", Command::Select, Effect::Read),
        (
            "SELECT * FROM orders WHERE customer_id = 1 FOR SHARE",
            Command::Select,
            Effect::Write,
        ),
        (
            "SELECT touch() FROM orders WHERE customer_id = 1",
            Command::Select,
            Effect::Write,
        ),
        ("VALUES (1)", Command::Select, Effect::Read),
        (
            "INSERT INTO orders VALUES (1, 2)",
            Command::Insert,
            Effect::Write,
        ),
        (
            "UPDATE app_settings SET value = 'x'",
            Command::Update,
            Effect::Write,
        ),
        (
            "WITH x AS (SELECT 1) DELETE FROM orders WHERE customer_id = 1",
            Command::Delete,
            Effect::Write,
        ),
    ];
    for (sql, command, effect) in table {
        let plan = planned(sql).unwrap();
        assert_eq!((plan.command, plan.effect), (command, effect), "{sql}");
    }
    let assigned = |sql: &str| match planned(sql).unwrap().route {
        Route::Key { assigned, .. } => assigned,
        _ => None,
    };
    let of_insert = |characters_max| Some(Assigned { characters_max });
    assert_eq!(
        assigned("INSERT INTO accounts (code, owner) VALUES ($1, 'x')"),
        of_insert(Some(8))
    );
    assert_eq!(
        assigned("INSERT INTO orders VALUES ($1, 2)"),
        of_insert(None)
    );
    assert_eq!(assigned("INSERT INTO orders VALUES (1, $1)"), None);
    assert_eq!(
        assigned("UPDATE orders SET total = 1 WHERE customer_id = $1"),
        None
    );
}
