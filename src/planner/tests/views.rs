//! Views, which are looked into, and partitioned tables, whose partitions have their rule.

use super::properties::deep;
use super::{
    ANY, AUTHORITATIVE, BY_1, CATALOG, EVERY, PLACEMENT, RULES, S0, S1, S2, check, knowledge, rows,
    rules,
};
use crate::catalog::{Catalog, Facts, differences};
use crate::planner::survey::VIEWS_MAX;
use crate::planner::{Knowledge, Number, Route, plan};
use crate::sql::{STACK_BYTES, understand};

#[test]
fn a_view_needs_the_shard_that_its_query_needs() {
    check(&[
        ("SELECT * FROM customer_totals WHERE customer_id = 42", S2),
        (
            "SELECT name FROM customer_totals t WHERE t.customer_id = $1",
            BY_1,
        ),
        ("SELECT * FROM order_view WHERE cid = 1", S0),
        (
            "SELECT * FROM public.order_view WHERE public.order_view.cid = -1",
            S1,
        ),
        // by the view's own names, and by those that the statement gives
        ("SELECT * FROM active_customers WHERE id = 42", S2),
        ("SELECT * FROM active_customers AS v (k) WHERE k = 42", S2),
        (
            "SELECT count(*) FROM order_view WHERE cid = 42 GROUP BY status ORDER BY 1 LIMIT 1",
            S2,
        ),
        // views in views
        ("SELECT * FROM big_orders WHERE cid = 42", S2),
        // the view itself has the key
        ("SELECT * FROM orders_of_42", S2),
        (
            "SELECT * FROM orders_of_42 o, customers c WHERE c.customer_id = 42",
            S2,
        ),
        ("SELECT * FROM orders_of_42 WHERE status = $1", S2),
        // the preserved side holds the other one
        ("SELECT * FROM lonely_customers WHERE customer_id = 42", S2),
        (
            "SELECT * FROM orders o JOIN active_customers a ON a.id = o.customer_id WHERE a.id = 1",
            S0,
        ),
        ("SELECT * FROM european", ANY),
        ("SELECT * FROM themes", S1),
        ("SELECT * FROM table_names", AUTHORITATIVE),
        ("SELECT * FROM order_view WHERE cid = 42 FOR UPDATE", S2),
        ("SELECT * FROM counted WHERE customer_id = 42", S2),
    ]);
}

#[test]
fn what_a_subquery_may_not_do_a_view_may_not_either() {
    check(&[
        ("SELECT * FROM order_view", "PGH016"),
        ("SELECT * FROM order_view WHERE order_id = 42", "PGH016"),
        ("SELECT * FROM order_view WHERE customer_id = 42", "PGH016"),
        // LIMIT and windows look at the rows of all keys
        (
            "SELECT * FROM latest_orders WHERE customer_id = 42",
            "PGH016",
        ),
        (
            "SELECT * FROM ranked_orders WHERE customer_id = 42",
            "PGH016",
        ),
        ("SELECT * FROM orders_of_42, customers_of_43", "PGH018"),
        (
            "SELECT * FROM orders_of_42, customers WHERE customer_id = 1",
            "PGH018",
        ),
        ("SELECT * FROM stray_view", "PGH035"),
        ("SELECT * FROM order_view, themes WHERE cid = 42", "PGH037"),
        (
            "SELECT * FROM order_view, table_names WHERE cid = 42",
            "PGH039",
        ),
        ("SELECT * FROM european FOR SHARE", "PGH032"),
        // not understood, and written to
        (
            "SELECT * FROM joined_oddly WHERE customer_id = 42",
            "PGH040",
        ),
        ("DELETE FROM order_view WHERE cid = 42", "PGH040"),
        ("INSERT INTO active_customers VALUES (42, 'x')", "PGH040"),
        (
            "UPDATE active_customers SET name = 'x' WHERE id = 42",
            "PGH040",
        ),
    ]);
}

/// A common table expression of the statement is nothing to the view, and the view's literals are no slots of the text.
#[test]
fn a_view_keeps_to_itself() {
    check(&[
        (
            "WITH customers AS (SELECT 1 AS customer_id) SELECT * FROM active_customers WHERE id = 42",
            S2,
        ),
        (
            "WITH pg_class AS (SELECT 'x' AS relname) SELECT * FROM table_names",
            AUTHORITATIVE,
        ),
        (
            "WITH order_view AS (SELECT 42 AS cid) SELECT * FROM order_view WHERE cid = 42",
            ANY,
        ),
        (
            "SELECT 7, 'x', o.* FROM orders_of_42 o WHERE o.order_id = 1",
            S2,
        ),
        (
            "SELECT 42, 1 FROM orders_of_42 o, orders WHERE customer_id = 42 AND orders.order_id = 43",
            S2,
        ),
    ]);
}

#[test]
fn a_partition_is_placed_like_its_table() {
    check(&[
        ("SELECT * FROM measurements WHERE customer_id = 42", S2),
        ("SELECT * FROM measurements", EVERY),
        ("SELECT * FROM measurements_2024 WHERE customer_id = 42", S2),
        (
            "SELECT * FROM measurements_last WHERE customer_id = $1",
            BY_1,
        ),
        ("SELECT count(*) FROM measurements", "PGH007"),
        (
            "INSERT INTO measurements VALUES (42, '2024-05-05', 1.5)",
            S2,
        ),
        // a partition may have its columns in another order
        (
            "INSERT INTO measurements_last VALUES (1, '2030-01-01', 42)",
            S2,
        ),
        ("DELETE FROM measurements_later WHERE customer_id = 42", S2),
        (
            "UPDATE measurements SET taken_on = '2030-01-01' WHERE customer_id = 42",
            S2,
        ),
        (
            "UPDATE measurements SET customer_id = 1 WHERE customer_id = 42",
            "PGH022",
        ),
        ("DELETE FROM measurements_2024", "PGH021"),
        // what a partition has acts on statements that name its table
        ("INSERT INTO watched VALUES (42, 'x')", "PGH045"),
        ("INSERT INTO watched_rest VALUES (42, 'x')", "PGH045"),
        ("SELECT * FROM watched WHERE customer_id = 42", S2),
        ("INSERT INTO readings VALUES (42, 'x')", "PGH054"),
        ("SELECT * FROM readings WHERE customer_id = 42", S2),
        // nobody vouches for foreign partitions, and for those with another rule
        ("SELECT * FROM overseas WHERE customer_id = 42", "PGH041"),
        (
            "SELECT * FROM overseas_2025 WHERE customer_id = 42",
            "PGH042",
        ),
        ("SELECT * FROM mixed WHERE customer_id = 42", "PGH041"),
        ("SELECT * FROM mixed_2025", "PGH042"),
    ]);
}

/// The catalogue of the tests, where a shard differs in these facts.
fn drifted(first: &[[&str; 5]], other: &[[&str; 5]]) -> Catalog {
    let facts = |rows: &[[&str; 5]]| {
        let row = |row: &[&str; 5]| row.map(|value| Some(value.to_owned())).to_vec();
        let rows: Vec<_> = rows.iter().map(row).collect();
        Facts::from_rows(rows.iter()).unwrap()
    };
    let mut catalog = Catalog::from_rows(&rows(CATALOG), rules(RULES)).unwrap();
    for difference in differences(&facts(first), &facts(other), "s0", &rules(RULES)) {
        catalog.note_difference("s1", &difference);
    }
    catalog
}

#[test]
fn a_relation_about_which_shards_differ_is_refused_until_it_is_mended() {
    let refused = |catalog: &Catalog, sql: &str| {
        let knowledge = Knowledge {
            catalog,
            placement: &PLACEMENT,
        };
        plan(&understand(sql).unwrap(), &knowledge)
            .err()
            .map(|refusal| refusal.number)
    };
    let table = |name| ["table", "public", name, "", "a table"];
    let view = |text| ["view", "public", "order_view", "", text];
    let orders = table("orders");
    let reads = ["reads", "public", "order_view", "public", "orders"];
    let there = ["table", "public", "order_view", "", "a view"];
    let one = [orders, there, reads, view("SELECT 1")];
    let differ = drifted(&one, &[orders, there, reads, view("SELECT 2")]);
    for sql in [
        "SELECT * FROM order_view WHERE cid = 42",
        "SELECT * FROM big_orders WHERE cid = 42",
    ] {
        assert_eq!(
            refused(&differ, sql),
            Some(Number::RelationDiffers),
            "{sql}"
        );
        assert_eq!(refused(&drifted(&one, &one), sql), None, "{sql}");
    }
    let by_key = "SELECT * FROM orders WHERE customer_id = 42";
    assert_eq!(refused(&differ, by_key), None);
    // a trigger, another order of columns, or no table at all
    let audit = ["trigger", "public", "orders", "audit", "x"];
    let order = |columns| ["columns", "public", "orders", "", columns];
    for (first, other) in [
        (vec![orders], vec![orders, audit]),
        (vec![orders, order("a, b")], vec![orders, order("b, a")]),
        (vec![orders], vec![]),
    ] {
        let differ = drifted(&first, &other);
        assert_eq!(refused(&differ, by_key), Some(Number::RelationDiffers));
        let write = "DELETE FROM orders WHERE customer_id = 42";
        assert_eq!(refused(&differ, write), Some(Number::RelationDiffers));
        assert_eq!(refused(&differ, "SELECT * FROM customers"), None);
    }
    // a column more at the end, as in the middle of a migration
    let grown = drifted(&[orders, order("a")], &[orders, order("a, b")]);
    assert_eq!(refused(&grown, by_key), None);
    // a partition that is a foreign table on one shard
    let part = [
        "part of",
        "public",
        "measurements_2024",
        "public",
        "measurements",
    ];
    let foreign = [
        "table",
        "public",
        "measurements_2024",
        "",
        "a foreign table",
    ];
    let first = [table("measurements"), table("measurements_2024"), part];
    let other = [table("measurements"), foreign, part];
    let measured = "SELECT * FROM measurements WHERE customer_id = 42";
    assert_eq!(
        refused(&drifted(&first, &other), measured),
        Some(Number::RelationDiffers)
    );
    // … or is missing there, which the server says itself
    let missing = [table("measurements")];
    assert_eq!(refused(&drifted(&first, &missing), measured), None);
}

#[test]
fn a_function_about_which_shards_differ_runs_on_one_of_them_only() {
    let function = |volatility| {
        [
            "function",
            "public",
            "",
            "cents(amount numeric)",
            volatility,
        ]
    };
    let catalog = drifted(&[function("immutable, a")], &[function("immutable, b")]);
    let knowledge = Knowledge {
        catalog: &catalog,
        placement: &PLACEMENT,
    };
    check(&[("SELECT cents(total) FROM orders", EVERY)]);
    let refused = |sql: &str| {
        let planned = plan(&understand(sql).unwrap(), &knowledge);
        planned.err().map(|refusal| refusal.number)
    };
    let over_all = refused("SELECT cents(total) FROM orders");
    assert_eq!(over_all, Some(Number::UserFunction));
    let by_key = refused("SELECT cents(total) FROM orders WHERE customer_id = 42");
    assert_eq!(by_key, None);
}

#[test]
fn where_settings_differ_no_shard_but_the_authoritative_one_is_read() {
    let setting = |name, value| ["setting", "", "", name, value];
    for (first, other) in [
        (
            vec![setting("TimeZone", "UTC")],
            vec![setting("TimeZone", "CET")],
        ),
        (
            vec![],
            vec![["role setting", "", "", "app.datestyle", "German"]],
        ),
    ] {
        let catalog = drifted(&first, &other);
        let knowledge = Knowledge {
            catalog: &catalog,
            placement: &PLACEMENT,
        };
        let planned = |sql: &str| {
            let planned = plan(&understand(sql).unwrap(), &knowledge);
            planned
                .map(|plan| plan.route)
                .map_err(|refusal| refusal.number)
        };
        for sql in [
            "SELECT * FROM orders WHERE customer_id = 42",
            "SELECT * FROM orders",
            "SELECT * FROM app_settings",
            "DELETE FROM orders WHERE customer_id = 42",
        ] {
            assert_eq!(planned(sql), Err(Number::SettingsDiffer), "{sql}");
        }
        for sql in ["SELECT now()", "SELECT * FROM countries"] {
            assert_eq!(planned(sql), Ok(Route::Authoritative), "{sql}");
        }
    }
    // which table a name means is all that it changes
    let catalog = drifted(
        &[setting("search_path", "a")],
        &[setting("search_path", "b")],
    );
    assert_eq!(catalog.settings_differ(), None);
}

/// A view is surveyed inside of the survey of what reads it, and parsed there at the first time: half of the stack is
/// left for the parser.
#[test]
fn as_many_views_as_are_looked_into_fit_the_stack() {
    let on_stack_of = |bytes: usize, work: Box<dyn FnOnce() + Send>| {
        let thread = std::thread::Builder::new().stack_size(bytes);
        thread.spawn(work).unwrap().join().unwrap();
    };
    let (sender, parsed) = std::sync::mpsc::channel();
    let understand_all = move || {
        for n in [20, 24, 62] {
            for (name, sql) in deep(n) {
                if let Ok(statement) = understand(&sql) {
                    sender.send((name, statement)).unwrap();
                }
            }
        }
    };
    on_stack_of(STACK_BYTES, Box::new(understand_all));
    let statements: Vec<_> = parsed.into_iter().collect();
    assert!(statements.len() > 20, "{}", statements.len());
    let plan_all = move || {
        for (_, statement) in &statements {
            let _ = plan(statement, &knowledge());
        }
    };
    on_stack_of(STACK_BYTES / 2 / VIEWS_MAX, Box::new(plan_all));
}
