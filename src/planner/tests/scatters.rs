//! What runs on every shard, and what would be wrong there.

use super::{ANY, CATALOG, EVERY, PLACEMENT, RULES, S2, check, rows, rules};
use crate::catalog::Catalog;
use crate::names::{ShardName, TableName};
use crate::planner::{Effect, Knowledge, explain, plan};
use crate::sql::understand;

#[test]
fn a_plain_projection_runs_on_every_shard() {
    check(&[
        ("SELECT * FROM orders", EVERY),
        (
            "SELECT customer_id, upper(status), total * 2 FROM orders WHERE total > 10 AND status LIKE 'n%'",
            EVERY,
        ),
        ("SELECT o.* FROM orders o WHERE o.status = $1", EVERY),
        ("SELECT o.*, 1, 'x', NULL FROM orders o", EVERY),
        (
            "SELECT coalesce(note, '-'), CASE WHEN total > 1 THEN 'a' ELSE 'b' END FROM orders",
            EVERY,
        ),
        ("SELECT cents(total) FROM orders", EVERY),
        (
            "SELECT total::text, '2024-01-01'::date, total::float8 FROM orders",
            EVERY,
        ),
        (
            "SELECT * FROM orders WHERE placed_on < '2024-02-01' AND status IN ('new', 'paid')",
            EVERY,
        ),
        (
            "SELECT * FROM customers c JOIN orders o ON o.customer_id = c.customer_id",
            EVERY,
        ),
        (
            "SELECT * FROM customers JOIN orders USING (customer_id) JOIN order_lines USING (customer_id, order_id)",
            EVERY,
        ),
        (
            "SELECT * FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id",
            EVERY,
        ),
        (
            "SELECT * FROM orders o RIGHT JOIN customers c ON o.customer_id = c.customer_id",
            EVERY,
        ),
        (
            "SELECT * FROM customers c JOIN countries k ON k.code = c.country_code",
            EVERY,
        ),
        (
            "SELECT * FROM customers c LEFT JOIN countries k ON k.code = c.country_code",
            EVERY,
        ),
        ("SELECT * FROM customers c, countries k", EVERY),
        ("SELECT * FROM orders WHERE false", EVERY),
        ("SELECT ALL total FROM orders", EVERY),
    ]);
}

#[test]
fn what_looks_at_rows_of_several_shards_together_does_not() {
    check(&[
        ("SELECT * FROM orders ORDER BY total", "PGH004"),
        ("SELECT * FROM orders LIMIT 5", "PGH005"),
        ("SELECT * FROM orders OFFSET 5", "PGH005"),
        ("SELECT * FROM orders FETCH FIRST 5 ROWS ONLY", "PGH005"),
        ("SELECT DISTINCT status FROM orders", "PGH006"),
        ("SELECT DISTINCT ON (status) * FROM orders", "PGH006"),
        ("SELECT count(*) FROM orders", "PGH007"),
        ("SELECT max(total) + 1 FROM orders", "PGH007"),
        (
            "SELECT string_agg(status, ',' ORDER BY total) FROM orders",
            "PGH007",
        ),
        ("SELECT pg_catalog.sum(total) FROM orders", "PGH007"),
        ("SELECT status FROM orders GROUP BY status", "PGH008"),
        ("SELECT 1 FROM orders HAVING true", "PGH008"),
        ("SELECT count(*) FROM orders GROUP BY ()", "PGH008"),
        ("SELECT row_number() OVER () FROM orders", "PGH009"),
        (
            "SELECT sum(total) OVER (PARTITION BY status) FROM orders",
            "PGH009",
        ),
        (
            "SELECT rank() OVER w FROM orders WINDOW w AS (ORDER BY total)",
            "PGH009",
        ),
        ("SELECT 1 FROM orders UNION SELECT 2 FROM orders", "PGH010"),
        ("SELECT * FROM orders FOR UPDATE", "PGH011"),
        ("SELECT * FROM orders FOR KEY SHARE NOWAIT", "PGH011"),
        ("SELECT generate_series(1, 3) FROM orders", "PGH012"),
        ("SELECT unnest(tags) FROM customers", "PGH012"),
        ("SELECT * FROM customers, unnest(tags) t", "PGH061"),
        ("SELECT * FROM orders, generate_series(1, 3)", "PGH061"),
        ("SELECT * FROM orders WHERE total > (SELECT 1)", "PGH016"),
        (
            "SELECT * FROM orders WHERE EXISTS (SELECT FROM countries)",
            "PGH016",
        ),
        ("SELECT * FROM (SELECT * FROM orders) x", "PGH016"),
        ("SELECT * FROM orders, (VALUES (1)) v", "PGH016"),
        ("WITH x AS (SELECT 1) SELECT * FROM orders", "PGH017"),
        ("SELECT * FROM orders TABLESAMPLE SYSTEM (10)", "PGH055"),
    ]);
}

#[test]
fn what_differs_from_shard_to_shard_does_not() {
    check(&[
        ("SELECT now() FROM orders", "PGH013"),
        ("SELECT random() FROM orders", "PGH013"),
        ("SELECT gen_random_uuid() FROM orders", "PGH013"),
        ("SELECT CURRENT_DATE FROM orders", "PGH013"),
        ("SELECT current_user FROM orders", "PGH013"),
        (
            "SELECT * FROM orders WHERE placed_on > CURRENT_DATE",
            "PGH013",
        ),
        ("SELECT to_char(placed_on, 'YYYY') FROM orders", "PGH013"),
        ("SELECT current_setting('TimeZone') FROM orders", "PGH013"),
        ("SELECT version() FROM orders", "PGH013"),
        ("SELECT order_count() FROM orders", "PGH049"),
        ("SELECT touch() FROM orders", "PGH049"),
        ("SELECT c.order_sum FROM customers c", "PGH049"),
        ("SELECT order_sum(c) FROM customers c", "PGH049"),
        ("SELECT unheard_of(total) FROM orders", "PGH049"),
        ("SELECT nextval('ticket_numbers') FROM orders", "PGH048"),
        ("SELECT pg_backend_pid() FROM orders", "PGH048"),
        ("SELECT ctid FROM orders", "PGH020"),
        ("SELECT o.xmin FROM orders o", "PGH020"),
        ("SELECT o.tableoid FROM orders o", "PGH020"),
        ("SELECT o FROM orders o", "PGH020"),
        ("SELECT row_to_json(o) FROM orders o", "PGH013"),
        ("SELECT o.nothing FROM orders o", "PGH019"),
        ("SELECT nothing FROM orders", "PGH019"),
        ("SELECT 'orders'::regclass FROM orders", "PGH056"),
        ("SELECT feeling::mood FROM customers", "PGH056"),
        ("SELECT * FROM orders WHERE placed_on = 'today'", "PGH057"),
        (
            "SELECT * FROM orders WHERE placed_on < date ' Tomorrow'",
            "PGH057",
        ),
        ("SELECT 'now'::timestamp FROM orders", "PGH057"),
        ("SELECT E'n\\x6fw'::timestamp FROM orders", "PGH057"),
    ]);
}

#[test]
fn joins_whose_rows_need_not_meet_do_not() {
    check(&[
        (
            "SELECT * FROM customers c JOIN orders o ON o.order_id = c.customer_id",
            "PGH014",
        ),
        ("SELECT * FROM customers c, orders o", "PGH014"),
        (
            "SELECT * FROM orders a JOIN orders b USING (order_id)",
            "PGH014",
        ),
        (
            "SELECT * FROM products p JOIN order_lines l ON l.sku = p.sku",
            "PGH014",
        ),
        (
            "SELECT * FROM products p JOIN accounts a ON a.code = p.sku",
            EVERY,
        ),
        (
            "SELECT * FROM customers c JOIN orders o ON o.customer_id = c.customer_id, tickets t",
            "PGH014",
        ),
        (
            "SELECT * FROM countries k LEFT JOIN customers c ON c.country_code = k.code",
            "PGH015",
        ),
        (
            "SELECT * FROM customers c RIGHT JOIN countries k ON c.country_code = k.code",
            "PGH015",
        ),
        (
            "SELECT * FROM customers c FULL JOIN orders o ON o.customer_id = c.customer_id",
            "PGH015",
        ),
        (
            "SELECT * FROM customers c FULL JOIN countries k ON c.country_code = k.code",
            "PGH015",
        ),
        (
            "SELECT * FROM customers c LEFT JOIN orders o ON o.order_id = c.customer_id",
            "PGH015",
        ),
        (
            "SELECT * FROM countries k LEFT JOIN (customers c JOIN orders o ON o.customer_id = c.customer_id) ON true",
            "PGH015",
        ),
        (
            "SELECT * FROM customers c LEFT JOIN orders o ON o.customer_id = c.customer_id JOIN tickets t \
             ON t.customer_id = o.customer_id",
            EVERY,
        ),
    ]);
}

#[test]
fn a_function_that_the_file_vouches_for_runs_on_any_shard() {
    let mut rules = rules(RULES);
    for name in ["order_count", "touch"] {
        rules.shard_safe.insert(TableName {
            schema: None,
            name: name.into(),
        });
    }
    let catalog = Catalog::from_rows(&rows(CATALOG), rules).unwrap();
    let knowledge = Knowledge {
        catalog: &catalog,
        placement: &PLACEMENT,
    };
    let shards = ["s0", "s1", "s2", "s3"].map(ShardName::from);
    for (sql, said, effect) in [
        ("SELECT order_count() FROM orders", EVERY, Effect::Read),
        ("SELECT order_count()", ANY, Effect::Read),
        // a volatile one may write
        ("SELECT touch()", ANY, Effect::Write),
        (
            "SELECT touch() FROM orders WHERE customer_id = 42",
            S2,
            Effect::Write,
        ),
        ("SELECT touch() FROM orders", "PGH013", Effect::Write),
        (
            "SELECT public.order_count() FROM orders",
            EVERY,
            Effect::Read,
        ),
    ] {
        match plan(&understand(sql).unwrap(), &knowledge) {
            Ok(plan) => {
                assert_eq!(
                    (explain(&plan, &shards).as_str(), plan.effect),
                    (said, effect),
                    "{sql}"
                );
            }
            Err(refusal) => assert_eq!(refusal.number.to_string(), said, "{sql}"),
        }
    }
}
