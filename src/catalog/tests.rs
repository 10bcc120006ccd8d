//! Small schemas in rows, and what their names and constraints become.

use std::sync::Arc;

use super::*;
use crate::names::ShardId;
use crate::placement::KeyType;

type Answers = Vec<Vec<Vec<Option<String>>>>;

/// Answers in one text each, columns apart by blanks, `-` for NULL.
fn answers(texts: [&str; 7]) -> Answers {
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
    answers([relations, columns, "", "", "", "\"$user\",public f f", ""])
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
        answers(["", "", "", "", "", "", ""]),
    ] {
        let error = Catalog::from_rows(&rows, Rules::default()).unwrap_err();
        assert!(matches!(error, CatalogError::Row { .. }), "{error}");
    }
    assert_eq!(QUERIES.len(), 7);
}
