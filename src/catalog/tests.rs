//! Small schemas in rows, and what their names and constraints become.

use std::sync::Arc;

use super::*;
use crate::names::ShardId;
use crate::placement::KeyType;

type Answers = Vec<Vec<Vec<Option<String>>>>;

/// Answers in one text each, columns apart by blanks, `-` for NULL.
fn answers(texts: [&str; 9]) -> Answers {
    let value = |word: &str| (word != "-").then(|| word.replace('_', " "));
    let row = |line: &str| line.split_whitespace().map(value).collect();
    let answer = |text: &&str| {
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(row)
            .collect()
    };
    texts.iter().map(answer).collect()
}

/// Relations and columns; the rest is empty but for the settings.
fn schema(relations: &str, columns: &str) -> Answers {
    answers([
        relations,
        columns,
        "",
        "",
        "",
        "\"$user\",public f f",
        "",
        "",
        "",
    ])
}

fn rules(sharded: &[(&str, &str)]) -> Rules {
    let rule = |(name, key): &(&str, &str)| {
        (
            table(name),
            Rule::Sharded {
                key: (*key).to_owned(),
            },
        )
    };
    Rules {
        tables: sharded.iter().map(rule).collect(),
        default: None,
        ..Rules::default()
    }
}

fn table(name: &str) -> TableName {
    let (schema, name) = name
        .split_once('.')
        .map_or((None, name), |(schema, name)| (Some(schema.into()), name));
    TableName {
        schema,
        name: name.into(),
    }
}

const ORDERS: &str = "public orders r f f f f";
const ORDERS_COLUMNS: &str = "public orders k 20 pg-catalog int8 -1 t f f none t";

fn orders_columns(kind: &str) -> String {
    format!("public orders k 20 {kind} -1 t f f none t").replace(" k 20 ", " k 20 pgcat ")
}

/// `pg_catalog` cannot be written where `_` is a blank.
fn named(mut rows: Answers) -> Answers {
    for value in rows.iter_mut().flatten().flatten().flatten() {
        if value == "pgcat" || value == "pg-catalog" {
            *value = "pg_catalog".to_owned();
        }
    }
    rows
}

#[test]
fn a_rule_makes_a_table_sharded_by_its_key() {
    let rows = named(schema(ORDERS, ORDERS_COLUMNS));
    let catalog = Catalog::from_rows(&rows, rules(&[("orders", "k")])).unwrap();
    let Resolved::Relation(relation) = catalog.resolve(None, "orders") else {
        panic!("no orders");
    };
    let key = relation.key().unwrap();
    assert_eq!((key.column.as_str(), key.key_type), ("k", KeyType::Int8));
    assert_eq!(relation.full_name(), "public.orders");
    assert_eq!(catalog.placed_tables().count(), 1);
}

#[test]
fn every_rule_that_cannot_be_kept_is_told_at_once() {
    for (kind, part) in [
        ("numeric", "of type pg_catalog.numeric"),
        ("numeric", "of type pg_catalog.numeric"),
    ] {
        let rows = named(schema(ORDERS, &orders_columns(kind)));
        let error = Catalog::from_rows(&rows, rules(&[("orders", "k")])).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    let rows = named(schema(
        "public a r f f f f\npublic b r f f f f",
        "public a k 25 pgcat text -1 t f f none f\npublic b x 25 pgcat text -1 t f f none t",
    ));
    let error = Catalog::from_rows(&rows, rules(&[("a", "k"), ("b", "k")])).unwrap_err();
    let CatalogError::Tables(problems) = &error else {
        panic!("{error}");
    };
    assert_eq!(problems.len(), 2);
    assert!(error.to_string().contains("nondeterministic"), "{error}");
    assert!(error.to_string().contains("no column k"), "{error}");
}

#[test]
fn a_name_means_what_every_client_would_find() {
    let relations = "public a r f f f f\nother a r f f f f\nother b r f f f f\nmia c r f f f f\npublic c r f f f f\npgcat pgclass r f f f f";
    let mut rows = named(schema(relations, ""));
    rows[6] = vec![vec![Some("mia".to_owned())]];
    let catalog = Catalog::from_rows(&rows, Rules::default()).unwrap();
    let found = |schema, name| match catalog.resolve(schema, name) {
        Resolved::Relation(relation) => relation.full_name(),
        other => format!("{other:?}"),
    };
    assert_eq!(found(None, "a"), "public.a");
    assert_eq!(found(Some("other"), "a"), "other.a");
    assert_eq!(found(None, "b"), "Nothing");
    assert_eq!(found(None, "c"), "Ambiguous([\"mia\", \"public\"])");
    assert_eq!(found(Some("mia"), "c"), "mia.c");
    assert_eq!(found(None, "pgclass"), "System");
    assert_eq!(found(Some("pg_catalog"), "pgclass"), "System");
    assert_eq!(found(Some("public"), "pgclass"), "Nothing");
}

#[test]
fn a_table_of_the_rules_that_the_schema_lacks_is_missing() {
    let rows = schema("", "");
    let catalog =
        Catalog::from_rows(&rows, rules(&[("orders", "k"), ("sales.leads", "k")])).unwrap();
    assert_eq!(
        catalog.resolve(None, "orders"),
        Resolved::Missing(table("orders"))
    );
    assert_eq!(catalog.resolve(None, "leads"), Resolved::Nothing);
    assert_eq!(
        catalog.resolve(Some("sales"), "leads"),
        Resolved::Missing(table("sales.leads"))
    );
    assert_eq!(catalog.missing_tables().count(), 2);
}

#[test]
fn unnamed_tables_live_where_the_default_says() {
    let rows = named(schema(ORDERS, ORDERS_COLUMNS));
    let standing = |default| {
        let rules = Rules {
            default,
            ..Rules::default()
        };
        match Catalog::from_rows(&rows, rules)
            .unwrap()
            .resolve(None, "orders")
        {
            Resolved::Relation(relation) => relation.standing.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(standing(None), Standing::Unnamed);
    assert_eq!(standing(Some(ShardId(2))), Standing::Single(ShardId(2)));
}

/// Two sharded tables with a foreign key from `child` to `parent`.
fn family(keys: &str, unique: &str, triggers: &str) -> (Arc<Relation>, Arc<Relation>) {
    let relations = format!("public parent r f f f f\npublic child r f f {triggers} f");
    let columns = "public parent k 20 pgcat int8 -1 t f f none t\npublic parent n 20 pgcat int8 -1 t f f none t\n\
        public child k 20 pgcat int8 -1 t f f none t\npublic child n 20 pgcat int8 -1 t f f none t";
    let rows = named(answers([
        &relations,
        columns,
        "",
        unique,
        keys,
        "public f f",
        "",
        "",
        "",
    ]));
    let catalog = Catalog::from_rows(&rows, rules(&[("parent", "k"), ("child", "k")])).unwrap();
    let find = |name| match catalog.resolve(None, name) {
        Resolved::Relation(relation) => relation,
        other => panic!("{other:?}"),
    };
    (find("parent"), find("child"))
}

#[test]
fn a_constraint_without_the_key_is_loose() {
    let loose = |relation: &Relation| relation.loose_constraints.len();
    let (parent, child) = family(
        "",
        "public parent u1 k\npublic parent u2 k\npublic parent u2 n\npublic child u3 n",
        "f",
    );
    assert_eq!((loose(&parent), loose(&child)), (0, 1));
    let (_, child) = family("", "public child u -", "f");
    assert!(child.loose_constraints[0].is_touched_by(["anything"].into_iter()));
}

#[test]
fn a_foreign_key_between_shards_is_loose_on_both_ends() {
    let (parent, child) = family("public child f k public parent k none", "", "f");
    assert!(parent.loose_constraints.is_empty() && child.loose_constraints.is_empty());
    let (parent, child) = family("public child f n public parent k none", "", "f");
    assert!(parent.loose_constraints[0].referenced);
    assert!(!child.loose_constraints[0].referenced);
    // the action would write into the sharding key
    let (parent, _) = family("public child f k public parent k set", "", "f");
    assert!(parent.loose_constraints[0].referenced);
}

#[test]
fn a_cascade_reaches_the_triggers_behind_it() {
    let cascades = |action, triggers| {
        let key = format!("public child f k public parent k {action}");
        family(&key, "", triggers).0.cascades
    };
    assert!(cascades("cascade", "t"));
    assert!(!cascades("none", "t"));
    assert!(!cascades("cascade", "f"));
}

#[test]
fn rows_that_are_not_those_of_the_queries_are_an_error() {
    for rows in [
        Vec::new(),
        schema("public orders", ""),
        schema("public orders r x f f f", ""),
        answers([""; 9]),
    ] {
        let error = Catalog::from_rows(&rows, Rules::default()).unwrap_err();
        assert!(matches!(error, CatalogError::Row { .. }), "{error}");
    }
    assert_eq!(QUERIES.len(), 9);
}

#[test]
fn a_table_whose_rule_cannot_be_kept_any_more_is_broken_alone() {
    let relations = "public orders r f f f f\npublic lines r f f f f";
    let columns = "public orders k 20 pgcat numeric -1 t f f none t\npublic lines k 20 pgcat int8 -1 t f f none t";
    let rows = named(schema(relations, columns));
    let both = rules(&[("orders", "k"), ("lines", "k")]);
    let catalog = Catalog::from_changed_rows(&rows, both.clone()).unwrap();
    assert!(Catalog::from_rows(&rows, both).is_err());
    let why = |name| match catalog.resolve(None, name) {
        Resolved::Relation(relation) => catalog.broken(&relation).map(str::to_owned),
        other => panic!("{other:?}"),
    };
    assert!(why("orders").unwrap().contains("numeric"));
    assert_eq!(why("lines"), None);
}

#[test]
fn where_search_paths_differ_a_name_of_two_tables_is_ambiguous() {
    let relations = "public a r f f f f\nother a r f f f f\npublic b r f f f f";
    let mut catalog = Catalog::from_rows(&named(schema(relations, "")), Rules::default()).unwrap();
    let found =
        |catalog: &Catalog, name| matches!(catalog.resolve(None, name), Resolved::Relation(_));
    assert!(found(&catalog, "a"));
    for difference in drift(
        &["setting - - search_path public"],
        &["setting - - search_path other"],
    ) {
        catalog.note_difference("s1", &difference);
    }
    assert!(!found(&catalog, "a"));
    assert!(found(&catalog, "b"));
}

// ── drift ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// Of two lists of facts, each `kind schema relation detail value`, `-` for an empty text and `_` for a blank.
fn drift(first: &[&str], other: &[&str]) -> Vec<Difference> {
    let facts = |lines: &[&str]| {
        let word = |word: &str| match word {
            "-" => Some(String::new()),
            "search_path" => Some(word.to_owned()),
            other => Some(other.replace('_', " ")),
        };
        let rows: Vec<Vec<_>> = lines
            .iter()
            .map(|line| line.split_whitespace().map(word).collect())
            .collect();
        Facts::from_rows(rows.iter()).unwrap()
    };
    let rules = rules(&[("orders", "k"), ("parts", "k")]);
    differences(&facts(first), &facts(other), "s0", &rules)
}

/// As people read them, with an exclamation mark where statements are refused.
fn told(first: &[&str], other: &[&str]) -> Vec<String> {
    let line = |each: Difference| {
        let mark = each.breaks.map_or("", |_| "!");
        format!("{mark}{}: {}", each.object, each.what)
    };
    drift(first, other).into_iter().map(line).collect()
}

const TABLE: &str = "table public orders - a_table";
const COLUMN: &str = "column public orders a int4";

#[test]
fn every_difference_has_its_line() {
    for (first, other, expected) in [
        (TABLE, "", "!table public.orders: it is missing; s0 has it"),
        ("", TABLE, "!table public.orders: s0 does not have it"),
        (
            TABLE,
            "table public orders - a_view",
            "!table public.orders: it is a view, on s0 it is a table",
        ),
        (
            "column public orders a int4",
            "column public orders a text",
            "!table public.orders, column a: it is text, on s0 it is int4",
        ),
        (
            "column public orders a int4",
            "",
            "table public.orders, column a: it is missing; s0 has it",
        ),
        (
            "columns public orders - a,_b",
            "columns public orders - b,_a",
            "!table public.orders, the order of its columns: it is b, a, on s0 it is a, b",
        ),
        (
            "nullability public orders a NULL",
            "nullability public orders a NOT_NULL",
            "table public.orders, whether column a may be NULL: it is NOT NULL, on s0 it is NULL",
        ),
        (
            "default public orders a 1",
            "",
            "table public.orders, the default of column a: it is missing; s0 has it",
        ),
        (
            "unique_key public orders UNIQUE_(a) there",
            "",
            "table public.orders, unique key UNIQUE (a): it is missing; s0 has it",
        ),
        (
            "",
            "foreign_key public orders F there",
            "table public.orders, foreign key F: s0 does not have it",
        ),
        (
            "trigger public orders t x",
            "trigger public orders t y",
            "!table public.orders, trigger t: it is y, on s0 it is x",
        ),
        (
            "",
            "rule public orders r x",
            "!table public.orders, rule r: s0 does not have it",
        ),
        (
            "",
            "row_security public orders - on",
            "!table public.orders, its row security: s0 does not have it",
        ),
        (
            "function public - f(int4) stable",
            "function public - f(int4) volatile",
            "function public.f(int4): it is volatile, on s0 it is stable",
        ),
        (
            "setting - - TimeZone UTC",
            "setting - - TimeZone CET",
            "setting TimeZone: it is CET, on s0 it is UTC",
        ),
        (
            "version - - - 15",
            "version - - - 16",
            "the version: it is 16, on s0 it is 15",
        ),
        (
            "collation - - - a",
            "collation - - - b",
            "the collation: it is b, on s0 it is a",
        ),
        (
            "extension - - citext 1",
            "extension - - citext 2",
            "extension citext: it is 2, on s0 it is 1",
        ),
    ] {
        // both have the table and its column, unless that is what differs
        let is = |kind| [first, other].iter().any(|line| line.starts_with(kind));
        let (is_table, is_column) = (is("table "), is("column "));
        let lines = |line| {
            let table = (!is_table).then_some(TABLE);
            let column = (!is_table && !is_column).then_some(COLUMN);
            let lines: Vec<&str> = table.into_iter().chain(column).chain([line]).collect();
            lines
                .into_iter()
                .filter(|line| !line.is_empty())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            told(&lines(first), &lines(other)),
            [expected],
            "{first} and {other}"
        );
        assert_eq!(told(&lines(first), &lines(first)), [""; 0]);
    }
}

#[test]
fn what_need_not_be_the_same_is_no_difference() {
    // not named, with all that belongs to it
    assert_eq!(
        told(
            &["table public notes - a_table", "column public notes a int4"],
            &[]
        ),
        [""; 0]
    );
    // a view of what is not named
    let view = [
        "table public v - a_view",
        "view public v - x",
        "reads public v public notes",
    ];
    assert_eq!(told(&view, &[]), [""; 0]);
    let orders = [TABLE, view[0], view[1], "reads public v public orders"];
    assert_eq!(
        told(&orders, &[TABLE]),
        ["!table public.v: it is missing; s0 has it"]
    );
    // a partition of what is named, and what reads it
    let parts = "table public parts - a_partitioned_table";
    let part = "table public old - a_table";
    let line = "!table public.old: it is missing; s0 has it";
    let there = [parts, part, "part_of public old public parts"];
    assert_eq!(told(&there, &[parts]), [line]);
    let read = [&there[..], &[view[0], view[1], "reads public v public old"]].concat();
    assert_eq!(
        told(&read, &there),
        ["!table public.v: it is missing; s0 has it"]
    );
    // what a missing table has is missing too, which is said once
    let full = [
        TABLE,
        "column public orders a int4",
        "columns public orders - a",
    ];
    assert_eq!(
        told(&full, &[]),
        ["!table public.orders: it is missing; s0 has it"]
    );
    // … as what a missing column has
    let more = [
        TABLE,
        COLUMN,
        "nullability public orders a NULL",
        "default public orders a 1",
    ];
    assert_eq!(
        told(&more, &[TABLE]),
        ["table public.orders, column a: it is missing; s0 has it"]
    );
    // columns at the end are told one by one
    let grown = [
        TABLE,
        "columns public orders - a,_b",
        "column public orders b int4",
    ];
    let before = [TABLE, "columns public orders - a"];
    assert_eq!(
        told(&grown, &before),
        ["table public.orders, column b: it is missing; s0 has it"]
    );
}

#[test]
fn a_table_that_a_name_may_mean_on_one_shard_only_is_a_difference() {
    let shadow = "table mia orders - a_table";
    assert_eq!(
        told(&[TABLE], &[TABLE, shadow]),
        ["!table mia.orders: it is only here, and public.orders is called like it"]
    );
    assert_eq!(
        drift(&[TABLE], &[TABLE, shadow])[0].breaks,
        Some(("public".to_owned(), "orders".to_owned()))
    );
    assert_eq!(told(&[TABLE, shadow], &[TABLE, shadow]), [""; 0]);
}

#[test]
fn a_replica_identity_has_the_key_or_not() {
    let identifies = |value: &str| {
        let row = ["replica identity", "public", "orders", "", value];
        let row = row.map(|value| Some(value.to_owned())).to_vec();
        let rows = [row];
        Facts::from_rows(rows.iter())
            .unwrap()
            .identifies("public", "orders", "k")
    };
    assert!(identifies("(a, k)") && identifies("(k)") && identifies("all columns"));
    assert!(!identifies("(a)") && !identifies("nothing") && !identifies("(kk)"));
    assert!(Facts::default().identifies("public", "orders", "k"));
}

#[test]
fn every_kind_of_difference_has_a_remedy_and_is_asked_for() {
    for kind in DRIFT_KINDS {
        let quoted = format!("'{}'", kind.name);
        assert!(
            FACTS.iter().any(|(_, text)| text.contains(&quoted)),
            "{}",
            kind.name
        );
        assert!(!kind.label().contains(' '));
    }
    let rows = [vec![Some("weather".to_owned()); 5]];
    assert!(Facts::from_rows(rows.iter()).is_err());
}
