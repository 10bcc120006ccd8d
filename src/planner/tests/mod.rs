//! Tables of examples: statement → the line of `explain`, or the number of the refusal.
//!
//! The schema is that of `tests/data/schema.sql`, of which `tests/data/catalog.txt` has the catalogue's rows. The keys
//! 1, 42 and -1 are in buckets of the shards s0, s2 and s1, by hashes that PostgreSQL computed.

mod catalogues;
mod data;
mod keys;
mod levels;
mod properties;
mod refusals;
mod scatters;
mod set_writes;
mod sets;
mod targets;
mod templates;
mod views;
mod writes;

use std::sync::{Arc, LazyLock};

use super::{Knowledge, Plan, Refusal, explain, plan};
use crate::catalog::{Catalog, Rule, Rules};
use crate::names::{ShardId, ShardName, TableName};
use crate::placement::Placement;
use crate::sql::understand;

const CATALOG: &str = include_str!("../../../tests/data/catalog.txt");
const RULES: &str = include_str!("../../../tests/data/rules.txt");

const S0: &str = "one shard s0, primary";
const S1: &str = "one shard s1, primary";
const S2: &str = "one shard s2, primary";
const ANY: &str = "any one shard";
const AUTHORITATIVE: &str = "authoritative shard s0";
const EVERY: &str = "every shard, concatenated";
const BY_1: &str = "one shard by parameter $1 (int8)";
const BY_2: &str = "one shard by parameter $2 (int8)";

static CATALOGUE: LazyLock<Catalog> =
    LazyLock::new(|| Catalog::from_rows(&rows(CATALOG), rules(RULES)).unwrap());

static PLACEMENT: LazyLock<Placement> = LazyLock::new(|| {
    let map = (0..4096u16).map(|bucket| ShardId(bucket % 4)).collect();
    Placement::new("c", 1, map, 4).unwrap()
});

/// The answers in a text of `== query` lines, each before its rows.
fn rows(text: &str) -> Vec<Vec<Vec<Option<String>>>> {
    let mut answers = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with("# ")) {
        if line.starts_with("== ") {
            answers.push(Vec::new());
            continue;
        }
        let values = line
            .split('\t')
            .map(|value| (value != "\\N").then(|| value.replace("\\n", "\n")));
        answers.last_mut().unwrap().push(values.collect());
    }
    answers
}

/// Lines of `name kind key`.
fn rules(text: &str) -> Rules {
    let mut rules = Rules::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let (schema, name) = match words[0].split_once('.') {
            Some((schema, name)) => (Some(Arc::from(schema)), name),
            None => (None, words[0]),
        };
        let rule = match words[1..] {
            ["sharded", key] => Rule::Sharded {
                key: key.to_owned(),
            },
            ["reference"] => Rule::Reference,
            ["single", shard] => Rule::Single(ShardId(shard[1..].parse().unwrap())),
            _ => panic!("{line}"),
        };
        let name = name.into();
        rules.tables.insert(TableName { schema, name }, rule);
    }
    rules
}

fn knowledge() -> Knowledge<'static> {
    Knowledge {
        catalog: &CATALOGUE,
        placement: &PLACEMENT,
    }
}

fn planned(sql: &str) -> Result<Plan, Refusal> {
    plan(&understand(sql)?, &knowledge())
}

fn said(sql: &str) -> String {
    match planned(sql) {
        Ok(plan) if plan.must_fail => "must fail".to_owned(),
        Ok(plan) => {
            let names: Vec<ShardName> = ["s0", "s1", "s2", "s3"].map(ShardName::from).into();
            explain(&plan, &names)
        }
        Err(refusal) => refusal.number.to_string(),
    }
}

/// Every statement of the table gets its line; all that do not are shown.
fn check(table: &[(&str, &str)]) {
    let wrong: Vec<String> = table
        .iter()
        .filter_map(|(sql, expected)| {
            templates::holds_for_other_literals(sql);
            let said = said(sql);
            let detail = || planned(sql).err().map(|refusal| format!("{refusal:?}"));
            (said != *expected).then(|| {
                format!(
                    "{sql}\n   is {said}\n  not {expected}  {}",
                    detail().unwrap_or_default()
                )
            })
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
