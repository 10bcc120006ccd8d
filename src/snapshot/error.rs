//! Why the knowledge about a database could not be loaded, or its placement not be written.
//!
//! Everything here is about shards that are reached but do not agree with the file or with each other. Serving such a
//! database would lose or misplace rows, so each of these keeps it from being served.

use crate::backend::control::ControlError;
use crate::catalog::CatalogError;
use crate::error::{Blame, Report, SqlState};
use crate::names::{DatabaseName, ShardName, TableName};
use crate::placement::PlacementError;

const RUN_INIT: &str = "run `pgherd init --config FILE` with this configuration file";
const RUN_REPAIR: &str = "run `pgherd init --repair --config FILE` with this configuration file";

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Placement(#[from] PlacementError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("database {database}: its shards hold no placement yet")]
    NotInitialised { database: DatabaseName },
    #[error("database {database}: the placement is only half there: shard {} has none", list(.without))]
    HalfInitialised {
        database: DatabaseName,
        without: Vec<ShardName>,
    },
    #[error(
        "database {database}: the connection string of shard {configured} leads to shard {found}"
    )]
    WrongShard {
        database: DatabaseName,
        configured: ShardName,
        found: String,
    },
    #[error("database {database}: shards {first} and {second} are the same database")]
    SameDatabase {
        database: DatabaseName,
        first: ShardName,
        second: ShardName,
    },
    #[error("database {database}: shard {other} belongs to another cluster than shard {first}")]
    OtherCluster {
        database: DatabaseName,
        first: ShardName,
        other: ShardName,
    },
    #[error(
        "database {database}: the file has the shards {configured}, the placement has {stored}"
    )]
    ShardsChanged {
        database: DatabaseName,
        configured: String,
        stored: String,
    },
    #[error("database {database}: shards {first} and {other} disagree about {what}")]
    Disagreement {
        database: DatabaseName,
        what: &'static str,
        first: ShardName,
        other: ShardName,
        detail: String,
    },
    #[error("table {table}: the shards do not know its rule yet ({configured})")]
    NewRule {
        table: TableName,
        configured: String,
    },
    #[error("table {table}: the file says {configured}, the shards say {stored}")]
    RuleChanged {
        table: TableName,
        configured: String,
        stored: String,
    },
    #[error("table {table}: {problem}")]
    Key {
        table: TableName,
        problem: KeyProblem,
    },
    #[error("table {table}: it is missing on shard {shard}")]
    MissingTable { table: TableName, shard: ShardName },
    #[error("shard {shard}: {what} is {found}, but must be {expected}")]
    Environment {
        shard: ShardName,
        what: &'static str,
        found: String,
        expected: String,
    },
    #[error("table {table}: {rows} rows on shard {shard} belong on other shards")]
    RowsMisplaced {
        table: TableName,
        shard: ShardName,
        rows: u64,
    },
    #[error("shard {shard}: another `pgherd init` is at work")]
    Locked { shard: ShardName },
    /// What a shard answered is not what our own question asks for.
    #[error("shard {server}: its {what} cannot be read")]
    Unreadable { server: String, what: &'static str },
    #[error("loading was interrupted")]
    Interrupted,
}

/// Why a column cannot be a sharding key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    #[error("there is no column {column} to shard by")]
    Missing { column: String },
    #[error("column {column} of type {type_name} cannot be a sharding key")]
    Type { column: String, type_name: String },
    #[error("column {column} has a nondeterministic collation and cannot be a sharding key")]
    Collation { column: String },
    #[error("a sharding key has exactly one column for now")]
    Columns,
}

impl Report for SnapshotError {
    fn sqlstate(&self) -> SqlState {
        match self {
            SnapshotError::Control(error) => error.sqlstate(),
            SnapshotError::Placement(error) => error.sqlstate(),
            SnapshotError::Catalog(error) => error.sqlstate(),
            SnapshotError::Unreadable { .. } | SnapshotError::Interrupted => {
                SqlState::INTERNAL_ERROR
            }
            _ => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            SnapshotError::Control(error) => error.blame(),
            SnapshotError::Catalog(error) => error.blame(),
            SnapshotError::RowsMisplaced { .. }
            | SnapshotError::Environment { .. }
            | SnapshotError::MissingTable { .. }
            | SnapshotError::Unreadable { .. } => Blame::Server,
            _ => Blame::Proxy,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            SnapshotError::Control(error) => error.detail(),
            SnapshotError::Disagreement { detail, .. } => Some(detail.clone()),
            _ => None,
        }
    }

    fn advice(&self) -> Option<String> {
        let advice = match self {
            SnapshotError::Control(error) => return error.advice(),
            SnapshotError::Catalog(error) => return error.advice(),
            SnapshotError::NotInitialised { .. } | SnapshotError::NewRule { .. } => RUN_INIT,
            SnapshotError::HalfInitialised { .. } => RUN_REPAIR,
            SnapshotError::WrongShard { .. } => {
                "correct the `primary` or `control` connection strings: they seem to be swapped"
            }
            SnapshotError::SameDatabase { .. } => "give each shard a database of its own",
            SnapshotError::OtherCluster { .. } => {
                "correct the shard's connection string; if the shard is meant to join, drop its schema pgherd and run \
                 `pgherd init --repair --config FILE`"
            }
            SnapshotError::ShardsChanged { .. } => {
                "put the shards of the file back as they were: buckets cannot be moved yet"
            }
            SnapshotError::Disagreement {
                what: "the rules of the tables",
                ..
            } => RUN_INIT,
            SnapshotError::Disagreement { .. } => {
                "find out which shard is right (docs/placement.md), drop schema pgherd on the other and run \
                 `pgherd init --repair --config FILE`"
            }
            SnapshotError::RuleChanged { .. } => {
                "put the rule in the file back; or empty the table and run `pgherd init --config FILE`"
            }
            SnapshotError::Key { .. } => {
                "name another `key` for the table: an integer, text, varchar or uuid column"
            }
            SnapshotError::MissingTable { .. } => {
                "create the table on that shard, as it is on the others"
            }
            SnapshotError::Environment { .. } => {
                "create the shards' databases with the same encoding and locale"
            }
            SnapshotError::RowsMisplaced { .. } => {
                "load the table through pgherd, or empty it first; `pgherd check --rows` counts such rows"
            }
            SnapshotError::Locked { .. } => "wait for it to end, then try again",
            SnapshotError::Placement(_)
            | SnapshotError::Unreadable { .. }
            | SnapshotError::Interrupted => return None,
        };
        Some(advice.to_owned())
    }
}

fn list(names: &[ShardName]) -> String {
    let names: Vec<&str> = names.iter().map(ShardName::as_str).collect();
    names.join(", ")
}
