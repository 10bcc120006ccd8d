//! Where the shards of one database differ: asks each of them, and compares its answers with the authoritative shard's.

use std::fmt;

use super::{SnapshotError, on_every};
use crate::backend::control::Control;
use crate::catalog::{Difference, FACTS, Facts, Rules, differences};
use crate::config::Database;
use crate::names::ShardName;

/// One difference, and the shard that has it. In the order in which they are told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Drift {
    pub shard: ShardName,
    pub difference: Difference,
}

/// One line: shard, object, what differs, what to do.
impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference {
            object,
            what,
            remedy,
            ..
        } = &self.difference;
        write!(f, "shard {}, {object}: {what}; {remedy}", self.shard)
    }
}

/// What every shard says; an error only says which one said nothing.
pub(super) async fn facts(
    controls: &[Control],
) -> Result<Vec<Result<Facts, SnapshotError>>, SnapshotError> {
    on_every(
        controls,
        |control| async move { Ok(facts_of(&control).await) },
    )
    .await
}

async fn facts_of(control: &Control) -> Result<Facts, SnapshotError> {
    let mut rows = Vec::new();
    for (_, text) in FACTS {
        rows.extend(control.rows(text).await?);
    }
    Ok(Facts::from_rows(rows.iter())?)
}

/// All differences; a shard of which nothing is known has none.
pub(super) fn compare<'f>(
    database: &Database,
    facts: impl IntoIterator<Item = Option<&'f Facts>>,
    rules: &Rules,
) -> Vec<Drift> {
    let mut shards = database.shards.iter().zip(facts);
    let Some((authoritative, Some(first))) = shards.next() else {
        return Vec::new();
    };
    let mut drift = Vec::new();
    for (shard, facts) in shards {
        let Some(facts) = facts else { continue };
        let found = differences(first, facts, authoritative.name.as_str(), rules);
        drift.extend(found.into_iter().map(|difference| Drift {
            shard: shard.name.clone(),
            difference,
        }));
    }
    drift
}
