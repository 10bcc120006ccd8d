//! Whether the shards agree with each other and with the file. Pure: values in, a verdict out.

use super::SnapshotError;
use super::stored::{Rules, State, Stored};
use crate::config::{Database, Shard};
use crate::names::{ShardId, ShardName};
use crate::placement::{KeyType, Placement};

/// The one placement that all shards hold.
pub(super) fn of_all<'a>(
    database: &Database,
    states: &'a [State],
) -> Result<&'a Stored, SnapshotError> {
    let without: Vec<ShardName> = shards_with(database, states)
        .filter(|(_, state)| !matches!(state, State::Complete(_)))
        .map(|(shard, _)| shard.name.clone())
        .collect();
    let damaged = states.iter().any(|state| matches!(state, State::Damaged));
    if without.len() == states.len() && !damaged {
        return Err(SnapshotError::NotInitialised {
            database: database.name.clone(),
        });
    }
    if !without.is_empty() {
        return Err(SnapshotError::HalfInitialised {
            database: database.name.clone(),
            without,
        });
    }
    let first = of_those_with_one(database, states)?;
    let mut all = complete(database, states);
    let lead = all.next();
    for ((shard, stored), (lead, _)) in all.zip(lead.into_iter().cycle()) {
        if stored.rules != first.rules {
            let detail = first_difference(&first.rules, &stored.rules);
            return Err(disagreement(
                database,
                "the rules of the tables",
                &lead.name,
                &shard.name,
                detail,
            ));
        }
    }
    Ok(first)
}

/// The placement of those shards that hold one: the same cluster, shards, epoch and map, and each is who the file says.
/// Their rules may differ. An error when none holds one.
pub(super) fn of_those_with_one<'a>(
    database: &Database,
    states: &'a [State],
) -> Result<&'a Stored, SnapshotError> {
    let mut all = complete(database, states);
    let Some((lead, first)) = all.next() else {
        return Err(SnapshotError::NotInitialised {
            database: database.name.clone(),
        });
    };
    is_the_configured_shard(database, lead, first)?;
    for (shard, stored) in all {
        if stored.cluster_id != first.cluster_id {
            return Err(SnapshotError::OtherCluster {
                database: database.name.clone(),
                first: lead.name.clone(),
                other: shard.name.clone(),
            });
        }
        is_the_configured_shard(database, shard, stored)?;
        let differs = |what, detail| {
            Err(disagreement(
                database,
                what,
                &lead.name,
                &shard.name,
                detail,
            ))
        };
        if stored.shards != first.shards {
            return differs(
                "the shards",
                format!(
                    "{} and {}",
                    first.shards.join(", "),
                    stored.shards.join(", ")
                ),
            );
        }
        if stored.epoch != first.epoch {
            return differs(
                "the epoch of the placement",
                format!("{} and {}", first.epoch, stored.epoch),
            );
        }
        if stored.map != first.map {
            let buckets = first
                .map
                .iter()
                .zip(&stored.map)
                .filter(|(a, b)| a != b)
                .count();
            let lengths = (first.map.len(), stored.map.len());
            return differs(
                "the map",
                format!(
                    "{buckets} buckets differ; {} and {} buckets",
                    lengths.0, lengths.1
                ),
            );
        }
    }
    are_the_configured_shards(database, first)?;
    Ok(first)
}

/// The file's rules against the shards'.
pub(super) fn on_rules(configured: &Rules, stored: &Rules) -> Result<(), SnapshotError> {
    for (table, rule) in configured {
        match stored.get(table) {
            None => {
                return Err(SnapshotError::NewRule {
                    table: table.clone(),
                    configured: rule.to_string(),
                });
            }
            Some(known) if !known.means_the_same_as(rule) => {
                return Err(SnapshotError::RuleChanged {
                    table: table.clone(),
                    configured: rule.to_string(),
                    stored: known.to_string(),
                });
            }
            Some(_) => {}
        }
    }
    // A rule that the file lost would let the default rule misroute the table.
    match stored
        .iter()
        .find(|(table, _)| !configured.contains_key(table))
    {
        None => Ok(()),
        Some((table, known)) => Err(SnapshotError::RuleChanged {
            table: table.clone(),
            configured: "nothing".to_owned(),
            stored: known.to_string(),
        }),
    }
}

/// Whether rows that were placed by a key of one type are found by a key of the other. Types are as `format_type`
/// writes them.
pub(super) fn key_types_hash_alike(one: &str, other: &str) -> bool {
    match (KeyType::from_type_name(one), KeyType::from_type_name(other)) {
        (Some(one), Some(other)) => one.hashes_like(other),
        _ => false,
    }
}

/// The stored map in terms of the file's shards, whose order may be another.
pub(super) fn placement(database: &Database, stored: &Stored) -> Result<Placement, SnapshotError> {
    let ids: Vec<Option<ShardId>> = stored
        .shards
        .iter()
        .map(|name| {
            database
                .shards
                .iter()
                .find(|shard| shard.name.as_str() == name)
                .map(|shard| shard.id)
        })
        .collect();
    let map: Option<Vec<ShardId>> = stored
        .map
        .iter()
        .map(|shard| ids.get(usize::from(*shard)).copied().flatten())
        .collect();
    let map = map.ok_or_else(|| shards_changed(database, stored))?;
    Ok(Placement::new(
        stored.cluster_id.clone(),
        stored.epoch,
        map,
        database.shards.len(),
    )?)
}

fn is_the_configured_shard(
    database: &Database,
    shard: &Shard,
    stored: &Stored,
) -> Result<(), SnapshotError> {
    if stored.shard_name() == shard.name.as_str() {
        return Ok(());
    }
    Err(SnapshotError::WrongShard {
        database: database.name.clone(),
        configured: shard.name.clone(),
        found: stored.shard_name().to_owned(),
    })
}

fn are_the_configured_shards(database: &Database, stored: &Stored) -> Result<(), SnapshotError> {
    let known = |shard: &Shard| stored.shards.iter().any(|name| name == shard.name.as_str());
    if stored.shards.len() == database.shards.len() && database.shards.iter().all(known) {
        Ok(())
    } else {
        Err(shards_changed(database, stored))
    }
}

fn shards_changed(database: &Database, stored: &Stored) -> SnapshotError {
    let configured: Vec<&str> = database
        .shards
        .iter()
        .map(|shard| shard.name.as_str())
        .collect();
    SnapshotError::ShardsChanged {
        database: database.name.clone(),
        configured: configured.join(", "),
        stored: stored.shards.join(", "),
    }
}

fn disagreement(
    database: &Database,
    what: &'static str,
    first: &ShardName,
    other: &ShardName,
    detail: String,
) -> SnapshotError {
    let (first, other) = (first.clone(), other.clone());
    SnapshotError::Disagreement {
        database: database.name.clone(),
        what,
        first,
        other,
        detail,
    }
}

fn first_difference(one: &Rules, other: &Rules) -> String {
    let tables = one.keys().chain(other.keys());
    for table in tables {
        let (here, there) = (one.get(table), other.get(table));
        if here != there {
            let text = |rule: Option<&super::stored::Rule>| {
                rule.map_or("unknown".to_owned(), ToString::to_string)
            };
            return format!("table {table} is {} and {}", text(here), text(there));
        }
    }
    String::new()
}

fn shards_with<'a>(
    database: &'a Database,
    states: &'a [State],
) -> impl Iterator<Item = (&'a Shard, &'a State)> {
    database.shards.iter().zip(states)
}

fn complete<'d, 's>(
    database: &'d Database,
    states: &'s [State],
) -> impl Iterator<Item = (&'d Shard, &'s Stored)> {
    database
        .shards
        .iter()
        .zip(states)
        .filter_map(|(shard, state)| match state {
            State::Complete(stored) => Some((shard, stored)),
            State::Absent | State::Damaged => None,
        })
}
