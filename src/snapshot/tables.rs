//! What the shards say of the tables that the file names: columns, types, collations; and whether they say the same.
//!
//! Knows nothing of the catalogue that planning uses: this is the cheap comparison between shards, one question each.

use std::collections::BTreeMap;

use super::stored::{Ask, Rule, Rules};
use super::{KeyProblem, SnapshotError};
use crate::config::Database;
use crate::names::TableName;
use crate::placement::{KeyType, sql};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    /// As `format_type` writes it.
    pub type_name: String,
    pub collation: String,
    pub deterministic: bool,
}

/// Columns in their order, by table; a table that does not exist is not there.
pub(super) type Tables = BTreeMap<TableName, Vec<Column>>;

pub(super) async fn read(shard: &mut impl Ask, rules: &Rules) -> Result<Tables, SnapshotError> {
    if rules.is_empty() {
        return Ok(Tables::new());
    }
    let rows = shard.ask(&question(rules)).await?;
    let mut tables = Tables::new();
    for row in rows {
        let [
            Some(schema),
            Some(table),
            Some(name),
            Some(type_name),
            Some(collation),
            Some(deterministic),
        ] = row.as_slice()
        else {
            return Err(SnapshotError::Unreadable {
                server: shard.server().to_owned(),
                what: "columns",
            });
        };
        let table = TableName {
            schema: Some(schema.as_str().into()),
            name: table.as_str().into(),
        };
        tables.entry(table).or_default().push(Column {
            name: name.clone(),
            type_name: type_name.clone(),
            collation: collation.clone(),
            deterministic: deterministic == "t",
        });
    }
    Ok(tables)
}

fn question(rules: &Rules) -> String {
    let wanted: Vec<String> = rules
        .keys()
        .map(|table| {
            format!(
                "({}, {})",
                sql::literal(sql::schema_of(table)),
                sql::literal(&table.name)
            )
        })
        .collect();
    format!(
        "SELECT n.nspname, c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), \
           coalesce(l.collname, ''), coalesce(l.collisdeterministic, true) \
         FROM pg_catalog.pg_class AS c \
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = a.attcollation \
         WHERE c.relkind IN ('r', 'p') AND (n.nspname, c.relname) IN ({}) \
         ORDER BY n.nspname, c.relname, a.attnum",
        wanted.join(", ")
    )
}

/// That sharded and reference tables, where they exist at all, are the same on every shard.
pub(super) fn are_equal(
    database: &Database,
    rules: &Rules,
    answers: &[Tables],
) -> Result<(), SnapshotError> {
    let spread = rules
        .iter()
        .filter(|(_, rule)| !matches!(rule, Rule::Single { .. }));
    for (table, _) in spread {
        let found = || {
            database
                .shards
                .iter()
                .zip(answers)
                .map(|(shard, tables)| (shard, tables.get(table)))
        };
        let Some((lead, first)) = found().find_map(|(shard, columns)| Some((shard, columns?)))
        else {
            continue;
        };
        for (shard, columns) in found() {
            let Some(columns) = columns else {
                return Err(SnapshotError::MissingTable {
                    table: table.clone(),
                    shard: shard.name.clone(),
                });
            };
            if columns != first {
                return Err(SnapshotError::Disagreement {
                    database: database.name.clone(),
                    what: "the columns of a table",
                    first: lead.name.clone(),
                    other: shard.name.clone(),
                    detail: format!("table {table}: {}", difference(first, columns)),
                });
            }
        }
    }
    Ok(())
}

fn difference(one: &[Column], other: &[Column]) -> String {
    let text = |column: Option<&Column>| {
        column.map_or("no column".to_owned(), |c| {
            format!("{} {} {}", c.name, c.type_name, c.collation)
        })
    };
    let longest = one.len().max(other.len());
    (0..longest)
        .map(|i| (one.get(i), other.get(i)))
        .find(|(here, there)| here != there)
        .map(|(here, there)| format!("{} and {}", text(here).trim_end(), text(there).trim_end()))
        .unwrap_or_default()
}

/// The key's type, once the table exists on some shard.
pub(super) fn key_column<'a>(
    table: &TableName,
    key: &str,
    answers: impl IntoIterator<Item = &'a Tables>,
) -> Result<Option<(KeyType, String)>, SnapshotError> {
    let Some(columns) = answers.into_iter().find_map(|tables| tables.get(table)) else {
        return Ok(None);
    };
    let refuse = |problem| {
        Err(SnapshotError::Key {
            table: table.clone(),
            problem,
        })
    };
    let Some(column) = columns.iter().find(|column| column.name == key) else {
        return refuse(KeyProblem::Missing {
            column: key.to_owned(),
        });
    };
    let Some(key_type) = KeyType::from_type_name(&column.type_name) else {
        let type_name = column.type_name.clone();
        return refuse(KeyProblem::Type {
            column: key.to_owned(),
            type_name,
        });
    };
    if !column.deterministic {
        return refuse(KeyProblem::Collation {
            column: key.to_owned(),
        });
    }
    Ok(Some((key_type, column.type_name.clone())))
}
