//! `pgherd explain`: how a statement would be run, in words, without running it.

use std::sync::Arc;

use crate::config::{Config, Database};
use crate::demo::Explained;
use crate::error::{Blame, Report, SqlState};
use crate::names::{DatabaseName, ShardId, ShardName};
use crate::planner::{self, Knowledge, Plan, Refusal, Route};
use crate::snapshot::{self, DatabaseSnapshot, SnapshotError};
use crate::sql::understand;

/// Why there is no plan to show.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// None of that name, or none named where there are several.
    #[error("{problem}")]
    Database { problem: String, names: String },
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A database of several shards without placement or catalogue: our mistake.
    #[error("database {0}: nothing is known of its shards")]
    Unknown(DatabaseName),
}

impl Report for ExplainError {
    fn sqlstate(&self) -> SqlState {
        match self {
            ExplainError::Database { .. } => SqlState::INVALID_CATALOG_NAME,
            ExplainError::Snapshot(error) => error.sqlstate(),
            ExplainError::Refused(refusal) => refusal.sqlstate(),
            ExplainError::Unknown(_) => SqlState::INTERNAL_ERROR,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            ExplainError::Database { .. } => Blame::Client,
            ExplainError::Snapshot(error) => error.blame(),
            ExplainError::Refused(refusal) => refusal.blame(),
            ExplainError::Unknown(_) => Blame::Proxy,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            ExplainError::Snapshot(error) => error.detail(),
            ExplainError::Refused(refusal) => refusal.detail(),
            _ => None,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            ExplainError::Database { names, .. } => Some(format!("the file has: {names}")),
            ExplainError::Snapshot(error) => error.advice(),
            ExplainError::Refused(refusal) => refusal.advice(),
            ExplainError::Unknown(_) => None,
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
    let names: Vec<ShardName> = known
        .config
        .shards
        .iter()
        .map(|shard| shard.name.clone())
        .collect();
    if let [only] = names.as_slice() {
        return Ok(Explained {
            text: format!("one shard {only}, as it is"),
            shards: vec![only.to_string()],
        });
    }
    let (Some(catalog), Some(placement)) = (&known.catalog, &known.placement) else {
        return Err(ExplainError::Unknown(known.config.name.clone()));
    };
    let knowledge = Knowledge { catalog, placement };
    let statement = understand(sql).map_err(Refusal::from)?;
    let plan = planner::plan(&statement, &knowledge)?;
    Ok(Explained {
        text: planner::explain(&plan, &names),
        shards: asked(&plan, &names),
    })
}

/// The shards that may be asked: of `Any` and of a parameter's key it is one of them.
fn asked(plan: &Plan, names: &[ShardName]) -> Vec<String> {
    let one = |shard: ShardId| names.get(shard.index()).map(ToString::to_string);
    match &plan.route {
        Route::One(shard) => one(*shard).into_iter().collect(),
        Route::Authoritative => one(ShardId(0)).into_iter().collect(),
        Route::Some(shards) => shards.iter().filter_map(|&shard| one(shard)).collect(),
        Route::Any | Route::Key { .. } | Route::Keys(_) | Route::Every => {
            names.iter().map(ToString::to_string).collect()
        }
    }
}
