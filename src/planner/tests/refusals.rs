//! What is refused whatever its keys, and that the page of numbers is the table of numbers.

use super::{ANY, AUTHORITATIVE, CATALOG, PLACEMENT, RULES, S1, S2, check, planned, rows, rules};
use crate::catalog::{Catalog, Rule};
use crate::error::Report;
use crate::names::TableName;
use crate::planner::{Knowledge, Number, Refusal, plan};
use crate::sql::understand;

const PAGE: &str = include_str!("../../../docs/refusals.md");

#[test]
fn tables_whose_rows_are_not_their_own_are_refused() {
    check(&[
        ("SELECT * FROM people WHERE person_id = 42", "PGH042"),
        ("SELECT * FROM ONLY people WHERE person_id = 42", "PGH042"),
        ("SELECT * FROM employees", "PGH042"),
        ("SELECT * FROM far_away", "PGH043"),
        ("SELECT * FROM secrets WHERE customer_id = 42", "PGH046"),
        ("SELECT * FROM country_names", "PGH047"),
        ("SELECT last_value FROM ticket_numbers", "PGH047"),
        ("SELECT * FROM stray", "PGH035"),
        (
            "SELECT * FROM orders WHERE customer_id = 42 AND order_id IN (SELECT id FROM stray)",
            "PGH035",
        ),
        ("SELECT * FROM audited WHERE customer_id = 42", S2),
        ("SELECT * FROM ruled WHERE customer_id = 42", S2),
        ("SELECT * FROM nowhere_to_be_found", "must fail"),
        (
            "SELECT count(*) FROM orders, nowhere_to_be_found",
            "must fail",
        ),
        ("INSERT INTO nowhere_to_be_found VALUES (1)", "must fail"),
        ("SELECT * FROM sales.orders", "must fail"),
        ("SELECT * FROM leads WHERE customer_id = 42", "must fail"),
    ]);
}

#[test]
fn tables_that_no_shard_has_together_are_refused() {
    check(&[
        ("SELECT * FROM app_settings", S1),
        ("SELECT * FROM app_settings JOIN app_log USING (key)", S1),
        (
            "SELECT count(*) FROM app_settings, countries ORDER BY 1 LIMIT 1",
            S1,
        ),
        ("SELECT * FROM app_settings FOR UPDATE", S1),
        ("SELECT * FROM app_settings, archive", "PGH038"),
        (
            "SELECT * FROM app_settings UNION SELECT 1, body, 2 FROM archive",
            "PGH038",
        ),
        (
            "SELECT * FROM orders, app_settings WHERE customer_id = 42",
            "PGH037",
        ),
        (
            "SELECT * FROM orders WHERE customer_id = 42 AND note IN (SELECT value FROM app_settings)",
            "PGH037",
        ),
        (
            "SELECT * FROM orders, pg_class WHERE customer_id = 42",
            "PGH039",
        ),
        ("SELECT * FROM app_settings, pg_class", "PGH039"),
        ("SELECT * FROM countries, pg_class", AUTHORITATIVE),
        ("SELECT order_count() FROM app_settings", "PGH049"),
    ]);
}

#[test]
fn reference_tables_are_read_anywhere_and_locked_nowhere() {
    check(&[
        ("SELECT * FROM countries", ANY),
        (
            "SELECT count(*), max(now()) FROM countries c LEFT JOIN currencies USING (code) GROUP BY c.name ORDER BY 1 LIMIT 5",
            ANY,
        ),
        ("SELECT order_count() FROM countries", "PGH049"),
        ("SELECT ctid FROM countries", AUTHORITATIVE),
        ("SELECT * FROM countries FOR UPDATE", "PGH032"),
        (
            "SELECT * FROM customers, countries WHERE customer_id = 42 FOR UPDATE",
            "PGH032",
        ),
        (
            "SELECT * FROM customers c, countries WHERE customer_id = 42 FOR UPDATE OF c",
            S2,
        ),
        (
            "SELECT * FROM customers c, countries k WHERE customer_id = 42 FOR UPDATE OF c, k",
            "PGH032",
        ),
        (
            "SELECT * FROM customers c, (SELECT * FROM countries) k WHERE customer_id = 42 FOR SHARE",
            "PGH032",
        ),
        (
            "SELECT * FROM customers c, (SELECT * FROM countries FOR SHARE) k WHERE customer_id = 42",
            "PGH032",
        ),
        ("(SELECT * FROM countries) FOR UPDATE", "PGH032"),
        (
            "WITH k AS (SELECT * FROM countries) SELECT * FROM customers c, k WHERE customer_id = 42 FOR UPDATE",
            S2,
        ),
    ]);
}

#[test]
fn statements_without_tables_run_where_their_functions_may() {
    check(&[
        ("SELECT 1", ANY),
        (
            "SELECT 1 + $1, 'x', now(), random(), CURRENT_DATE, lower('X'), version()",
            ANY,
        ),
        ("VALUES (1, 2), (3, 4)", ANY),
        ("SELECT", ANY),
        (
            "SELECT * FROM generate_series(1, 10) g ORDER BY 1 DESC LIMIT 3",
            ANY,
        ),
        (
            "SELECT * FROM unnest(ARRAY[1, 2], ARRAY['a', 'b']) WITH ORDINALITY",
            ANY,
        ),
        ("SELECT cents(1.5)", ANY),
        ("SELECT pg_sleep(0)", ANY),
        ("SELECT current_setting('search_path')", AUTHORITATIVE),
        (
            "SELECT current_schema(), current_user, current_database()",
            AUTHORITATIVE,
        ),
        ("SELECT 'orders'::regclass", AUTHORITATIVE),
        ("SELECT 'happy'::mood", AUTHORITATIVE),
        ("SELECT order_count()", "PGH049"),
        ("SELECT pg_collation_actual_version(100)", "PGH050"),
        ("SELECT touch()", "PGH049"),
        ("SELECT unheard_of(1)", "PGH049"),
        ("SELECT pg_backend_pid()", "PGH048"),
        ("SELECT nextval('ticket_numbers')", "PGH048"),
        ("SELECT currval('ticket_numbers')", "PGH048"),
        ("SELECT set_config('search_path', 'x', false)", "PGH048"),
        (
            "SELECT pg_catalog.set_config('search_path', '', false)",
            "PGH048",
        ),
        ("SELECT pg_advisory_lock(1)", "PGH048"),
        ("SELECT pg_try_advisory_xact_lock(1)", "PGH048"),
        ("SELECT pg_notify('a', 'b')", "PGH048"),
        ("SELECT txid_current()", "PGH048"),
        ("SELECT inet_server_addr()", "PGH048"),
        ("SELECT lo_create(0)", "PGH048"),
        ("SELECT pg_relation_size('orders')", AUTHORITATIVE),
        ("SELECT pg_stat_reset()", "PGH048"),
        (
            "SELECT query_to_xml('SELECT * FROM orders', true, true, '')",
            "PGH051",
        ),
        (
            "SELECT * FROM orders WHERE customer_id = 42 AND pg_advisory_lock(1) IS NULL",
            "PGH048",
        ),
        (
            "SELECT table_to_xml('orders', true, true, '') FROM orders WHERE customer_id = 42",
            "PGH051",
        ),
        (
            "SELECT * INTO x FROM orders WHERE customer_id = 42",
            "PGH034",
        ),
    ]);
}

#[test]
fn what_is_not_understood_is_refused() {
    check(&[
        ("SELEC 1", "PGH001"),
        ("SELECT FROM WHERE", "PGH001"),
        ("VACUUM", "PGH118"),
        ("CREATE TABLE x (a int)", "PGH118"),
        ("SELECT 1; SELECT 2", "PGH102"),
        ("", "PGH102"),
        (
            "SELECT * FROM orders PIVOT (sum(total) FOR status IN ('a'))",
            "PGH003",
        ),
        ("SELECT U&\"d\\0061t\" FROM orders", "PGH003"),
        ("SELECT $0", "PGH003"),
        (
            "SELECT * FROM (DELETE FROM orders WHERE customer_id = 42 RETURNING *) x",
            "PGH033",
        ),
        (
            "SELECT * FROM orders WHERE total > 1 = (customer_id = 42)",
            "PGH003",
        ),
    ]);
    let many = |count| {
        let tables = vec!["orders"; count];
        format!("SELECT * FROM {}", tables.join(" NATURAL JOIN "))
    };
    check(&[
        (&many(256), "every shard, concatenated"),
        (&many(257), "PGH063"),
    ]);
    let countries = vec!["countries"; 1025].join(", ");
    check(&[(&format!("SELECT * FROM {countries}"), "PGH063")]);
    check(&[(&format!("SELECT {}", vec!["1"; 3000].join(" + ")), "PGH002")]);
    check(&[(
        &format!("SELECT {}1{}", "(".repeat(500), ")".repeat(500)),
        "PGH002",
    )]);
}

#[test]
fn what_the_schema_leaves_in_doubt_is_refused() {
    let mut answers = rows(CATALOG);
    let text = |text: &str| Some(text.to_owned());
    // another table of the same name, a role with a search path of its own, operators that are not immutable
    let other = ["sales", "orders", "r", "f", "f", "f", "f"].map(text);
    answers[0].push(other.into());
    answers[5][0][1] = text("t");
    answers[5][0][2] = text("t");
    let mut rules = rules(RULES);
    let missing = TableName {
        schema: None,
        name: "unborn".into(),
    };
    rules.tables.insert(missing, Rule::Reference);
    let catalog = Catalog::from_rows(&answers, rules).unwrap();
    let knowledge = Knowledge {
        catalog: &catalog,
        placement: &PLACEMENT,
    };
    for (sql, number) in [
        ("SELECT * FROM orders WHERE customer_id = 42", "PGH059"),
        ("SELECT * FROM unborn", "PGH036"),
        ("SELECT customer_id + 1 FROM public.customers", "PGH062"),
    ] {
        let refusal = plan(&understand(sql).unwrap(), &knowledge).unwrap_err();
        assert_eq!(refusal.number.to_string(), number, "{sql}");
    }
    let keyed = "SELECT customer_id + 1 FROM public.customers WHERE customer_id = 42";
    assert!(plan(&understand(keyed).unwrap(), &knowledge).is_ok());
}

#[test]
fn a_refusal_says_what_why_and_what_instead() {
    let refusal = planned("UPDATE orders SET total = 1").unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "PGH021: pgherd does not support a write to a sharded table without its sharding key"
    );
    assert_eq!(refusal.sqlstate().code(), "0A000");
    assert_eq!(
        refusal.detail().unwrap(),
        "It might need several shards, and could then be half done (in this statement: public.orders)"
    );
    assert_eq!(
        refusal.advice().unwrap(),
        "Add a condition key = value on the sharding key."
    );
    assert_eq!(Refusal::new(Number::KeyNull).sqlstate().code(), "23502");
}

#[test]
fn the_page_of_refusals_is_the_table_of_refusals() {
    let lines: Vec<&str> = PAGE
        .lines()
        .filter(|line| line.starts_with("| PGH"))
        .collect();
    let expected: Vec<String> = Number::ALL.iter().copied().map(line).collect();
    assert_eq!(lines, expected);
}

/// One number as its line on the page.
fn line(number: Number) -> String {
    let entry = number.entry();
    let code = match entry.sqlstate.code() {
        "0A000" => String::new(),
        code => format!(" (`{code}`)"),
    };
    format!(
        "| {number} | {}{code} | {} | {} |",
        entry.title, entry.why, entry.remedy
    )
}
