//! What the file says of the tables of a database.
//!
//! Knows the names of the shards and no server, so tables and columns may not exist. What would surprise: table and
//! column names are read as SQL identifiers, so `Orders` means `orders` and `'"Orders"'` keeps its capital.

use std::collections::{BTreeMap, BTreeSet};

use super::TableRule;
use super::check::Check;
use super::databases::NAME_BYTES_MAX;
use super::file::{self, OneOrMany};
use super::problems::join;
use crate::names::{ShardId, TableName};

/// What a rule may refer to.
pub(super) struct ShardNames<'a> {
    names: Vec<&'a str>,
    /// Some name was not readable, so an unknown one may be that.
    doubtful: bool,
}

impl<'a> ShardNames<'a> {
    pub fn of(check: &Check, path: &str, shards: &'a [file::Shard]) -> Self {
        Self {
            names: shards
                .iter()
                .filter_map(|shard| shard.name.as_deref())
                .collect(),
            doubtful: check.findings.is_spoiled(&join(path, "shards"))
                || shards.iter().any(|shard| shard.name.is_none()),
        }
    }

    /// `None` only after a report, here or where the names stand.
    pub fn find(&self, check: &mut Check, path: &str, name: &str, also: &str) -> Option<ShardId> {
        if let Some(index) = self.names.iter().position(|known| *known == name) {
            return u16::try_from(index).ok().map(ShardId);
        }
        if !self.doubtful {
            let known: Vec<String> = self.names.iter().map(|name| format!("{name:?}")).collect();
            let also = if also.is_empty() {
                String::new()
            } else {
                format!("{also} or ")
            };
            check.findings.report(
                path,
                format!("there is no shard {name:?} in this database"),
                format!("write {also}one of {}", known.join(", ")),
            );
        }
        None
    }
}

/// The rules of one database; `None` only after a report.
pub(super) fn check(
    check: &mut Check,
    path: &str,
    written: &BTreeMap<String, file::TableRule>,
    shards: &ShardNames,
) -> Option<BTreeMap<TableName, TableRule>> {
    let mut tables = Some(BTreeMap::new());
    for (text, written) in written {
        let path = join(path, text);
        let rule = rule(check, &path, written, shards);
        let Some(name) = table_name(text) else {
            check.findings.report(
                &path,
                "is not a table name",
                "write table or \"schema.table\"; a name with capitals or dots goes in double quotes: '\"Orders\"'",
            );
            tables = None;
            continue;
        };
        if tables
            .as_ref()
            .is_some_and(|tables| tables.contains_key(&name))
        {
            check.findings.report(&path, format!("the table {name} has another rule already"), "keep one of them (names are folded to lower case, and public is the default schema)");
        }
        tables = tables.zip(rule).map(|(mut tables, rule)| {
            tables.insert(name, rule);
            tables
        });
    }
    tables
}

/// The functions that the file vouches for; `None` only after a report.
pub(super) fn shard_safe(
    check: &mut Check,
    path: &str,
    written: &BTreeMap<String, file::Function>,
) -> Option<BTreeSet<TableName>> {
    let mut functions = Some(BTreeSet::new());
    for (text, written) in written {
        let Some(name) = table_name(text) else {
            check.findings.report(
                &join(path, text),
                "is not a function's name",
                "write function or \"schema.function\", without parentheses",
            );
            functions = None;
            continue;
        };
        if let (Some(functions), true) = (&mut functions, written.shard_safe) {
            functions.insert(name);
        }
    }
    functions
}

fn rule(
    check: &mut Check,
    path: &str,
    written: &file::TableRule,
    shards: &ShardNames,
) -> Option<TableRule> {
    let reference = written.reference == Some(true);
    match (&written.key, reference, &written.shard) {
        (Some(key), false, None) => key_rule(check, &join(path, "key"), key),
        (None, true, None) => Some(TableRule::Reference),
        (None, false, Some(shard)) => shards
            .find(check, &join(path, "shard"), shard, "")
            .map(TableRule::Single),
        (None, false, None) => {
            // Silent when one was written and could not be read: that is reported already.
            if !["key", "reference", "shard"]
                .iter()
                .any(|key| check.findings.is_spoiled(&join(path, key)))
            {
                check.findings.report(
                    path,
                    "does not say where the rows of the table are",
                    "write one of key = \"column\", reference = true or shard = \"s0\"",
                );
            }
            None
        }
        _ => {
            check.findings.report(
                path,
                "has more than one rule",
                "keep exactly one of key, reference and shard",
            );
            None
        }
    }
}

fn key_rule(check: &mut Check, path: &str, key: &OneOrMany) -> Option<TableRule> {
    let column = match key {
        OneOrMany::One(column) => column,
        OneOrMany::Many(columns) => {
            if let [column] = columns.as_slice() {
                column
            } else {
                check.findings.report(
                path,
                "a sharding key is exactly one column for now",
                "write key = \"column\" with the column that most statements compare with a value",
            );
                return None;
            }
        }
    };
    if let Some([column]) = identifiers(column).as_deref() {
        Some(TableRule::Sharded {
            key: vec![column.clone()],
        })
    } else {
        check.findings.report(
            path,
            format!("{column:?} is not a column name"),
            "write the column alone; a name with capitals goes in double quotes: '\"Id\"'",
        );
        None
    }
}

/// `table`, `schema.table`, or either with quoted parts; `public` is left out.
fn table_name(text: &str) -> Option<TableName> {
    match identifiers(text)?.as_slice() {
        [name] => Some(TableName {
            schema: None,
            name: name.as_str().into(),
        }),
        [schema, name] => Some(TableName {
            schema: (schema != "public").then(|| schema.as_str().into()),
            name: name.as_str().into(),
        }),
        _ => None,
    }
}

/// SQL identifiers with dots in between, folded as PostgreSQL folds them (ASCII letters) unless quoted.
fn identifiers(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted_identifier(quoted)?
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            let (part, after) = rest.split_at_checked(end)?;
            (part.to_ascii_lowercase(), after)
        };
        let plain = rest.starts_with('"') || plain_identifier(&part);
        if part.is_empty() || part.len() > NAME_BYTES_MAX || part.contains('\0') || !plain {
            return None;
        }
        parts.push(part);
        match after.strip_prefix('.') {
            Some(after) => rest = after,
            None if after.is_empty() => return Some(parts),
            None => return None,
        }
    }
}

/// The identifier up to its closing quote, doubled quotes undone, and what follows.
fn quoted_identifier(text: &str) -> Option<(String, &str)> {
    let mut part = String::new();
    let mut rest = text;
    loop {
        let (piece, after) = rest.split_once('"')?;
        part.push_str(piece);
        match after.strip_prefix('"') {
            Some(after) => {
                part.push('"');
                rest = after;
            }
            None => return Some((part, after)),
        }
    }
}

fn plain_identifier(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
    text.starts_with(first)
        && text
            .chars()
            .all(|c| first(c) || c.is_ascii_digit() || c == '$')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_sql_reads_them() {
        for (text, expected) in [
            ("orders", Some(vec!["orders"])),
            ("Orders", Some(vec!["orders"])),
            ("ÖRDERS", Some(vec!["Örders"])),
            ("\"Orders\"", Some(vec!["Orders"])),
            ("sales.Orders", Some(vec!["sales", "orders"])),
            ("\"a.b\".\"c\"\"d\"", Some(vec!["a.b", "c\"d"])),
            ("a.b.c", Some(vec!["a", "b", "c"])),
            ("_x1$", Some(vec!["_x1$"])),
            ("1x", None),
            ("a b", None),
            ("a-b", None),
            ("", None),
            ("a.", None),
            (".a", None),
            ("\"\"", None),
            ("\"a", None),
            ("\"a\"b", None),
        ] {
            let expected =
                expected.map(|parts| parts.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(identifiers(text), expected, "{text}");
        }
    }
}
