//! `pgherd check --rows`: asks every shard, by SQL, for rows that are not where the map has them.
//!
//! The servers compute the buckets themselves, so this finds our mistakes as well as rows that somebody wrote to a
//! shard directly. It reads whole tables.

use std::sync::Arc;
use std::time::Duration;

use super::stored::{Rule, Rules, State, configured_rules};
use super::{SnapshotError, agreement, controls, on_every, stored, tables};
use crate::backend::control::{Control, ControlLimits, Rows};
use crate::config::Database;
use crate::names::{ShardName, TableName};
use crate::placement::sql;

/// A large table is read as a whole.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(6 * 3600);

/// Rows of one table on one shard that belong on other shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MisplacedRows {
    pub table: TableName,
    pub shard: ShardName,
    pub rows: u64,
    /// The smallest of their keys, as text.
    pub example: Option<String>,
}

/// Every sharded table on every shard; empty when all rows are where they belong, or the database has one shard.
///
/// # Errors
/// As [`load_database`](super::load_database): rows can only be judged by a placement that all shards agree on.
pub async fn check_rows(database: &Database) -> Result<Vec<MisplacedRows>, SnapshotError> {
    if !database.is_sharded() {
        return Ok(Vec::new());
    }
    let rules = Arc::new(configured_rules(database)?);
    let limits = ControlLimits {
        statement_timeout: STATEMENT_TIMEOUT,
        ..ControlLimits::default()
    };
    let controls = controls(database, limits)?;
    let states: Vec<State> = on_every(&controls, |mut control| async move {
        stored::read(&mut control).await
    })
    .await?;
    let agreed = agreement::of_all(database, &states)?;
    agreement::on_rules(&rules, &agreed.rules)?;
    let buckets = agreed.map.len();
    let found = on_every(&controls, |control| {
        misplaced_on(control, Arc::clone(&rules), buckets)
    })
    .await?;
    let by_shard = database.shards.iter().zip(found);
    Ok(by_shard
        .flat_map(|(shard, found)| {
            found
                .into_iter()
                .map(|(table, rows, example)| MisplacedRows {
                    table,
                    shard: shard.name.clone(),
                    rows,
                    example,
                })
        })
        .collect())
}

async fn misplaced_on(
    mut control: Control,
    rules: Arc<Rules>,
    buckets: usize,
) -> Result<Vec<(TableName, u64, Option<String>)>, SnapshotError> {
    let columns = tables::read(&mut control, &rules).await?;
    let mut found = Vec::new();
    for (table, rule) in rules.iter() {
        let Rule::Sharded { key, .. } = rule else {
            continue;
        };
        let Some((key_type, _)) = tables::key_column(table, key, [&columns])? else {
            continue;
        };
        let answer = control
            .rows(&sql::count_misplaced(table, key, key_type, buckets))
            .await?;
        let rows = count(&answer);
        if rows > 0 {
            let example = answer
                .into_iter()
                .next()
                .and_then(|row| row.into_iter().nth(1).flatten());
            found.push((table.clone(), rows, example));
        }
    }
    Ok(found)
}

/// The number in the first column. One that cannot be read counts as misplaced, not as none.
pub(super) fn count(rows: &Rows) -> u64 {
    rows.first()
        .and_then(|row| row.first()?.as_ref()?.parse().ok())
        .unwrap_or(u64::MAX)
}
