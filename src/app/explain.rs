//! `pgherd explain`: how a statement would be run, in words, without running it.

use std::sync::Arc;

use crate::config::{Config, Database};
use crate::demo::Explained;
use crate::error::{Blame, Report, SqlState};
use crate::names::DatabaseName;
use crate::snapshot::{self, DatabaseSnapshot, SnapshotError};

/// Why there is no plan to show.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// None of that name, or none named where there are several.
    #[error("{problem}")]
    Database { problem: String, names: String },
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Nothing is known that a plan could be made with.
    #[error("statements on a database of several shards cannot be explained yet")]
    NoPlanner,
}

impl Report for ExplainError {
    fn sqlstate(&self) -> SqlState {
        match self {
            ExplainError::Database { .. } => SqlState::INVALID_CATALOG_NAME,
            ExplainError::Snapshot(error) => error.sqlstate(),
            ExplainError::NoPlanner => SqlState::FEATURE_NOT_SUPPORTED,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            ExplainError::Database { .. } => Blame::Client,
            ExplainError::Snapshot(error) => error.blame(),
            ExplainError::NoPlanner => Blame::Proxy,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            ExplainError::Snapshot(error) => error.detail(),
            _ => None,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            ExplainError::Database { names, .. } => Some(format!("the file has: {names}")),
            ExplainError::Snapshot(error) => error.advice(),
            ExplainError::NoPlanner => None,
        }
    }
}

/// The database of that name, or the only one.
pub(super) fn find<'a>(
    config: &'a Config,
    name: Option<&str>,
) -> Result<&'a Arc<Database>, ExplainError> {
    let mut all = config.databases.values();
    let (found, problem) = match name {
        Some(name) => (
            config.databases.get(name),
            format!("there is no database {name}"),
        ),
        None => (
            all.next().filter(|_| all.next().is_none()),
            "there are several databases: name one with --database".to_owned(),
        ),
    };
    found.ok_or_else(|| {
        let names: Vec<&str> = config.databases.keys().map(DatabaseName::as_str).collect();
        ExplainError::Database {
            problem,
            names: names.join(", "),
        }
    })
}

/// Asks the shards for what a plan depends on, where there are several, and explains.
pub(super) async fn explain(
    database: &Arc<Database>,
    sql: &str,
) -> Result<Explained, ExplainError> {
    let known = snapshot::load_database(database).await?;
    explain_known(&known, sql)
}

/// Explains with what is known already.
pub(super) fn explain_known(
    known: &DatabaseSnapshot,
    sql: &str,
) -> Result<Explained, ExplainError> {
    let names: Vec<String> = known
        .config
        .shards
        .iter()
        .map(|shard| shard.name.to_string())
        .collect();
    if let [only] = names.as_slice() {
        return Ok(Explained {
            text: format!("one shard {only}, as it is"),
            shards: names,
        });
    }
    let _ = sql;
    Err(ExplainError::NoPlanner)
}
