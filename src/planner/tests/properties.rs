//! Any text gets an answer, and in time.

use proptest::prelude::*;

use super::{planned, said};
use crate::planner::Route;
use crate::sql::STACK_BYTES;

const WORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "AND",
    "OR",
    "NOT",
    "JOIN",
    "LEFT",
    "RIGHT",
    "FULL",
    "ON",
    "USING",
    "NATURAL",
    "LATERAL",
    "WITH",
    "RECURSIVE",
    "AS",
    "UNION",
    "EXCEPT",
    "ORDER BY",
    "GROUP BY",
    "LIMIT",
    "HAVING",
    "DISTINCT",
    "INSERT INTO",
    "VALUES",
    "UPDATE",
    "SET",
    "DELETE FROM",
    "RETURNING",
    "ON CONFLICT DO UPDATE SET",
    "FOR UPDATE",
    "CASE WHEN",
    "THEN",
    "ELSE",
    "END",
    "IN",
    "IS NULL",
    "BETWEEN",
    "LIKE",
    "ARRAY",
    "ROW",
    "EXISTS",
    "DEFAULT",
    "NULL",
    "CAST",
    "orders",
    "customers",
    "countries",
    "app_settings",
    "pg_class",
    "o",
    "c",
    "customer_id",
    "order_id",
    "total",
    "*",
    "o.customer_id",
    "c.customer_id",
    "count(*)",
    "now()",
    "(",
    "(",
    ")",
    ")",
    ",",
    ",",
    "=",
    "=",
    "<",
    "+",
    "-",
    "||",
    "::int8",
    "::text",
    "::regclass",
    "42",
    "'42'",
    "4.2",
    "$1",
    "$2",
    ".",
    ";",
    "--",
    "/*",
    "*/",
    "'",
    "\"",
    "E'\\'",
    "$$",
    "[",
    "]",
    "1",
    "\u{e9}",
    "\0",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_words_in_any_order_get_a_plan_or_a_number(words in prop::collection::vec(prop::sample::select(WORDS), 0..40)) {
        let text = words.join(" ");
        prop_assert!(!said(&text).is_empty());
    }

    #[test]
    fn any_text_gets_a_plan_or_a_number(text in "\\PC{0,80}") {
        prop_assert!(!said(&text).is_empty());
    }

    /// Whatever else a filter says, the key decides alone where it is a conjunct, and never inside OR or NOT.
    #[test]
    fn only_a_conjunct_names_a_shard(tree in condition(), key in 0i64..1000) {
        let one = said(&format!("SELECT * FROM orders WHERE customer_id = {key}"));
        let of = |filter: String| said(&format!("SELECT * FROM orders WHERE {filter}"));
        prop_assert_eq!(of(format!("({tree}) AND customer_id = {key}")), one.clone());
        prop_assert_eq!(of(format!("customer_id = {key} AND ({tree})")), one);
        prop_assert_eq!(of(format!("({tree}) OR customer_id = {key}")), "every shard, concatenated");
        prop_assert_eq!(of(format!("NOT (({tree}) AND customer_id = {key})")), "every shard, concatenated");
    }
}

/// Conditions that prove nothing.
fn condition() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "total > 1",
        "status = 'new'",
        "customer_id > 7",
        "customer_id = 7.0",
        "order_id = 7",
        "customer_id <> 7",
        "note IS NULL",
        "customer_id NOT IN (7, 8)",
        "customer_id + 1 = 7",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 16, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            inner.prop_map(|a| format!("NOT {a}")),
        ]
    })
}

#[test]
fn the_largest_texts_are_planned_in_bounded_time() {
    let begun = std::time::Instant::now();
    let conjuncts: Vec<String> = (0..600).map(|n| format!("customer_id = {n}")).collect();
    let filtered = format!("SELECT * FROM orders WHERE {}", conjuncts.join(" AND "));
    assert!(matches!(planned(&filtered).unwrap().route, Route::One(_)));
    let joins: Vec<String> = (1..256)
        .map(|n| {
            format!(
                "JOIN orders o{n} ON o{n}.customer_id = o{}.customer_id",
                n - 1
            )
        })
        .collect();
    let joined = format!(
        "SELECT * FROM orders o0 {} WHERE o255.customer_id = 42",
        joins.join(" ")
    );
    assert_eq!(said(&joined), "one shard s2, primary");
    let nested = format!("{}SELECT 1{}", "SELECT * FROM (".repeat(6), ") x".repeat(6));
    assert_eq!(said(&nested), "any one shard");
    let columns = vec!["o0.customer_id"; 60_000].join(", ");
    assert_eq!(
        said(&format!("SELECT {columns} FROM orders o0")),
        "every shard, concatenated"
    );
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}

/// Texts as deep as they say.
pub(super) fn deep(n: usize) -> Vec<(&'static str, String)> {
    vec![
        (
            "derived",
            format!("{}SELECT 1{}", "SELECT * FROM (".repeat(n), ") x".repeat(n)),
        ),
        (
            "scalar",
            format!("{}SELECT 1{}", "SELECT (".repeat(n), ")".repeat(n)),
        ),
        (
            "parens",
            format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n)),
        ),
        (
            "fn",
            format!("SELECT {}1{}", "abs(".repeat(n), ")".repeat(n)),
        ),
        (
            "case",
            format!(
                "SELECT {}1{}",
                "CASE WHEN true THEN ".repeat(n),
                " END".repeat(n)
            ),
        ),
        (
            "join",
            format!(
                "SELECT * FROM {}countries{}",
                "(countries k JOIN ".repeat(n),
                " ON true)".repeat(n)
            ),
        ),
        (
            "cte",
            format!(
                "{}SELECT 1{}",
                "WITH a AS (".repeat(n),
                ") SELECT * FROM a".repeat(n)
            ),
        ),
        ("cast", format!("SELECT 1{}", "::int".repeat(10 * n))),
        (
            "and",
            format!("SELECT {}", vec!["true"; 10 * n].join(" AND ")),
        ),
        (
            "andor",
            format!("SELECT true{}", " AND true OR true".repeat(10 * n)),
        ),
        ("plus", format!("SELECT {}", vec!["1"; 10 * n].join(" + "))),
        ("mixed", format!("SELECT {}1", "1 + 1 * ".repeat(10 * n))),
        ("not", format!("SELECT {} true", "NOT ".repeat(10 * n))),
        ("minus", format!("SELECT {} 1", "- ".repeat(10 * n))),
        (
            "union",
            format!("SELECT 1{}", " UNION SELECT 1".repeat(10 * n)),
        ),
        (
            "eqchain",
            format!("SELECT {}", vec!["true"; 10 * n].join(" IS TRUE AND ")),
        ),
        (
            "setparen",
            format!("{}SELECT 1{}", "(".repeat(n), ")".repeat(n)),
        ),
        (
            "array",
            format!("SELECT {}1{}", "ARRAY[".repeat(n), "]".repeat(n)),
        ),
        ("sub", format!("SELECT x{}", "[1]".repeat(10 * n))),
        ("is", format!("SELECT true{}", " IS TRUE".repeat(10 * n))),
        (
            "collate",
            format!("SELECT 'a'{}", " COLLATE \"C\"".repeat(10 * n)),
        ),
        (
            "between",
            format!("SELECT 1{}", " BETWEEN 1 AND 1".repeat(10 * n)),
        ),
        (
            "exists",
            format!(
                "{}SELECT 1{}",
                "SELECT 1 WHERE EXISTS (".repeat(n),
                ")".repeat(n)
            ),
        ),
        (
            "lateral",
            format!(
                "{}SELECT 1{}",
                "SELECT * FROM countries k, LATERAL (".repeat(n),
                ") x".repeat(n)
            ),
        ),
    ]
}

#[test]
fn a_text_of_any_depth_is_planned_or_refused_and_never_ends_the_process() {
    let all = || {
        for n in [1, 5, 10, 20, 24, 25, 32, 62, 64, 99, 150] {
            for (name, sql) in deep(n) {
                let said = said(&sql);
                assert!(n > 5 || said != "PGH002", "{name} {n}: {said}");
                assert!(
                    n < 99 || said == "PGH002" || FLAT.contains(&name),
                    "{name} {n}: {said}"
                );
            }
        }
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    thread.spawn(all).unwrap().join().unwrap();
}

/// Shapes that are long rather than deep.
const FLAT: &[&str] = &[
    "and", "andor", "plus", "mixed", "union", "eqchain", "sub", "join",
];
