//! `pgherd init`: writes the placement to all shards of a database, or adds to it what the file has gained.
//!
//! One transaction on each shard, all open until everything is decided and checked, then committed one after another.
//! A crash between two commits leaves a half-made placement, which load refuses and `--repair` mends by copying.
//!
//! What would surprise: the shards are locked in the order of their names, not of the file, so that two files that
//! list them differently cannot wait for each other. And a rule for a table that already has rows is only written
//! when every row is where the rule wants it.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::stored::{Ask, Rule, Rules, State, Stored, configured_rules};
use super::tables::{self, Tables};
use super::{SnapshotError, agreement, controls, stored};
use crate::backend::control::{ControlLimits, ControlTransaction};
use crate::config::{Database, Shard};
use crate::names::{DatabaseName, ShardName, TableName};
use crate::placement::{self, KeyType, sql};

/// Checking the rows of a large table takes its time.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long another `init` is waited for.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '10s'";

/// What `init` found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitReport {
    pub database: DatabaseName,
    pub outcome: Outcome,
    /// Tables whose rules the shards did not know, or knew differently.
    pub rules_written: Vec<TableName>,
    /// Tables whose rules were forgotten, because the file does not name them and they have no rows.
    pub rules_removed: Vec<TableName>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// One shard: there is nothing to place.
    NotSharded,
    Created {
        cluster_id: String,
        epoch: u64,
        buckets: usize,
    },
    AlreadyInitialised {
        epoch: u64,
    },
    Repaired {
        epoch: u64,
        shards: Vec<ShardName>,
    },
}

impl fmt::Display for InitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "database {}: ", self.database)?;
        match &self.outcome {
            Outcome::NotSharded => f.write_str("one shard, nothing to place")?,
            Outcome::Created {
                cluster_id,
                epoch,
                buckets,
            } => {
                write!(
                    f,
                    "initialised, epoch {epoch}, {buckets} buckets, cluster {cluster_id}"
                )?;
            }
            Outcome::AlreadyInitialised { epoch } => {
                write!(f, "already initialised, epoch {epoch}")?;
            }
            Outcome::Repaired { epoch, shards } => {
                let names: Vec<&str> = shards.iter().map(ShardName::as_str).collect();
                write!(f, "repaired {}, epoch {epoch}", names.join(", "))?;
            }
        }
        for (what, list) in [
            ("rules written", &self.rules_written),
            ("rules removed", &self.rules_removed),
        ] {
            if !list.is_empty() {
                let names: Vec<String> = list.iter().map(ToString::to_string).collect();
                write!(f, "; {what}: {}", names.join(", "))?;
            }
        }
        Ok(())
    }
}

/// Writes identity, map and rules to every shard. Run again, it only adds the rules of new tables. With `repair` it
/// also mends shards that hold nothing or only part of it, from those that hold all and agree.
///
/// # Errors
/// A shard that cannot be reached, shards that do not agree, a half-made placement without `repair`, or a rule that
/// the rows of a table do not allow. Nothing is written then.
pub async fn init(database: &Database, repair: bool) -> Result<InitReport, SnapshotError> {
    let configured = configured_rules(database)?;
    if !database.is_sharded() {
        return Ok(report(database, Outcome::NotSharded));
    }
    let mut shards = lock_all(database).await?;
    let mut states = Vec::new();
    let mut columns: Vec<Tables> = Vec::new();
    for shard in &mut shards {
        states.push(stored::read(shard).await?);
    }
    let asked_about: Rules = states
        .iter()
        .filter_map(rules_of)
        .flatten()
        .chain(&configured)
        .map(own)
        .collect();
    for shard in &mut shards {
        columns.push(tables::read(shard, &asked_about).await?);
    }

    let plan = decide(database, &states, repair)?;
    let rules = with_key_types(&configured, &columns)?;
    let changes = Changes::between(&rules, &states);
    changed_tables_have_no_rows(&mut shards, &columns, &changes).await?;
    write(database, &mut shards, &plan, &states, &rules, &changes).await?;
    rows_are_in_their_buckets(database, &mut shards, &columns, &rules, &changes, &plan).await?;
    for shard in shards {
        shard.commit().await?;
    }
    let mut report = report(database, plan.outcome);
    report.rules_written = changes.new.into_iter().chain(changes.changed).collect();
    report.rules_removed = changes.removed.into_iter().collect();
    Ok(report)
}

fn report(database: &Database, outcome: Outcome) -> InitReport {
    InitReport {
        database: database.name.clone(),
        outcome,
        rules_written: Vec::new(),
        rules_removed: Vec::new(),
    }
}

fn own((table, rule): (&TableName, &Rule)) -> (TableName, Rule) {
    (table.clone(), rule.clone())
}

fn rules_of(state: &State) -> Option<&Rules> {
    match state {
        State::Complete(stored) => Some(&stored.rules),
        State::Absent | State::Damaged => None,
    }
}

/// A transaction on each shard, in the file's order, each holding the lock of schema `pgherd`.
async fn lock_all(database: &Database) -> Result<Vec<ControlTransaction>, SnapshotError> {
    let limits = ControlLimits {
        statement_timeout: STATEMENT_TIMEOUT,
        ..ControlLimits::default()
    };
    let controls = controls(database, limits)?;
    let mut order: Vec<(&Shard, _)> = database.shards.iter().zip(&controls).collect();
    order.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));

    let mut places: Vec<(Vec<Option<String>>, &Shard)> = Vec::new();
    let mut locked = Vec::new();
    for (shard, control) in order {
        let mut transaction = control.begin().await?;
        // Before the lock: two shards that are one database would wait for each other.
        let place = transaction
            .rows(PLACE)
            .await?
            .into_iter()
            .next()
            .unwrap_or_default();
        if let Some((_, first)) = places.iter().find(|(other, _)| *other == place) {
            return Err(SnapshotError::SameDatabase {
                database: database.name.clone(),
                first: first.name.clone(),
                second: shard.name.clone(),
            });
        }
        places.push((place, shard));
        transaction.execute(LOCK_TIMEOUT).await?;
        transaction.execute(sql::LOCK).await.map_err(|error| {
            if error.is_server("55P03") {
                SnapshotError::Locked {
                    shard: shard.name.clone(),
                }
            } else {
                error.into()
            }
        })?;
        locked.push((shard.id, transaction));
    }
    locked.sort_by_key(|(id, _)| *id);
    Ok(locked
        .into_iter()
        .map(|(_, transaction)| transaction)
        .collect())
}

/// Tells two databases apart without any privilege: no two servers start in the same microsecond with equal ids.
const PLACE: &str = "SELECT pg_catalog.pg_postmaster_start_time()::text, d.oid \
    FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()";

/// What to write beside the rules.
struct Plan {
    outcome: Outcome,
    /// What the shards in `onto` shall hold.
    placement: Stored,
    /// Indexes of shards that get identity, shards, map and rules anew.
    onto: Vec<usize>,
}

fn decide(database: &Database, states: &[State], repair: bool) -> Result<Plan, SnapshotError> {
    if states.iter().all(|state| *state == State::Absent) {
        return first_placement(database);
    }
    let onto: Vec<usize> = (0..)
        .zip(states)
        .filter(|(_, state)| !matches!(state, State::Complete(_)))
        .map(|(index, _)| index)
        .collect();
    let names = onto
        .iter()
        .filter_map(|index| database.shards.get(*index))
        .map(|shard| shard.name.clone())
        .collect();
    if onto.len() == states.len() || !(onto.is_empty() || repair) {
        // Damaged everywhere: there is nothing to copy from.
        return Err(SnapshotError::HalfInitialised {
            database: database.name.clone(),
            without: names,
        });
    }
    let placement = agreement::of_those_with_one(database, states)?.clone();
    let epoch = placement.epoch;
    let outcome = if onto.is_empty() {
        Outcome::AlreadyInitialised { epoch }
    } else {
        Outcome::Repaired {
            epoch,
            shards: names,
        }
    };
    Ok(Plan {
        outcome,
        placement,
        onto,
    })
}

fn first_placement(database: &Database) -> Result<Plan, SnapshotError> {
    let map = placement::propose(database.shards.len(), placement::BUCKETS_DEFAULT)?;
    let cluster_id = random_uuid();
    let epoch = 1;
    Ok(Plan {
        outcome: Outcome::Created {
            cluster_id: cluster_id.clone(),
            epoch,
            buckets: map.len(),
        },
        placement: Stored {
            cluster_id,
            shard_id: 0,
            shards: database
                .shards
                .iter()
                .map(|shard| shard.name.to_string())
                .collect(),
            epoch,
            map: map.into_iter().map(|shard| shard.0).collect(),
            rules: Rules::new(),
        },
        onto: (0..database.shards.len()).collect(),
    })
}

fn random_uuid() -> String {
    // A version 4 uuid, so that it reads as what it is.
    let bits: u128 = rand::random();
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    let groups = [
        hex.get(..8),
        hex.get(8..12),
        hex.get(12..16),
        hex.get(16..20),
        hex.get(20..),
    ];
    groups.into_iter().flatten().collect::<Vec<_>>().join("-")
}

fn with_key_types(configured: &Rules, columns: &[Tables]) -> Result<Rules, SnapshotError> {
    let mut rules = configured.clone();
    for (table, rule) in &mut rules {
        if let Rule::Sharded { key, key_type } = rule {
            *key_type = tables::key_column(table, key, columns)?.map(|(_, name)| name);
        }
    }
    Ok(rules)
}

/// How the file's rules differ from those of the shards that have any.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    /// No shard knows a rule.
    new: BTreeSet<TableName>,
    /// Some shard knows another rule, or a key of a type that hashes differently.
    changed: BTreeSet<TableName>,
    /// Some shard knows a rule, the file does not.
    removed: BTreeSet<TableName>,
    /// Some shard does not know the rule or its key's type yet; what is known is the same.
    completed: BTreeSet<TableName>,
}

impl Changes {
    fn between(rules: &Rules, states: &[State]) -> Self {
        let known: Vec<&Rules> = states.iter().filter_map(rules_of).collect();
        let mut changes = Self::default();
        for (table, rule) in rules {
            let stored: Vec<&Rule> = known.iter().filter_map(|rules| rules.get(table)).collect();
            let list = if stored.is_empty() {
                &mut changes.new
            } else if stored.iter().any(|stored| !is_kept(stored, rule)) {
                &mut changes.changed
            } else if stored.len() < known.len()
                || stored.iter().any(|stored| has_more(rule, stored))
            {
                &mut changes.completed
            } else {
                continue;
            };
            list.insert(table.clone());
        }
        let all_known = known.iter().flat_map(|rules| rules.keys());
        changes.removed = all_known
            .filter(|table| !rules.contains_key(*table))
            .cloned()
            .collect();
        changes
    }

    fn written(&self) -> impl Iterator<Item = &TableName> {
        self.new.iter().chain(&self.changed).chain(&self.completed)
    }
}

fn is_kept(stored: &Rule, rule: &Rule) -> bool {
    let types_agree = match (key_type(stored), key_type(rule)) {
        (Some(stored), Some(now)) => agreement::key_types_hash_alike(stored, now),
        _ => true,
    };
    stored.means_the_same_as(rule) && types_agree
}

fn has_more(rule: &Rule, stored: &Rule) -> bool {
    key_type(rule).is_some() && key_type(rule) != key_type(stored)
}

fn key_type(rule: &Rule) -> Option<&str> {
    match rule {
        Rule::Sharded { key_type, .. } => key_type.as_deref(),
        Rule::Reference | Rule::Single { .. } => None,
    }
}

/// A rule may only be changed or forgotten while it has nothing to say about any row.
async fn changed_tables_have_no_rows(
    shards: &mut [ControlTransaction],
    columns: &[Tables],
    changes: &Changes,
) -> Result<(), SnapshotError> {
    for (shard, tables) in shards.iter_mut().zip(columns) {
        for table in changes
            .changed
            .iter()
            .chain(&changes.removed)
            .filter(|table| tables.contains_key(*table))
        {
            let question = format!("SELECT EXISTS (SELECT FROM {})", sql::qualified(table));
            let answer = shard.ask(&question).await?;
            if answer.first().and_then(|row| row.first()?.as_deref()) != Some("f") {
                let configured = if changes.removed.contains(table) {
                    "nothing"
                } else {
                    "another rule"
                };
                return Err(SnapshotError::RuleChanged {
                    table: table.clone(),
                    configured: configured.to_owned(),
                    stored: format!(
                        "it is spread already and has rows on {}",
                        Ask::server(shard)
                    ),
                });
            }
        }
    }
    Ok(())
}

async fn write(
    database: &Database,
    shards: &mut [ControlTransaction],
    plan: &Plan,
    states: &[State],
    rules: &Rules,
    changes: &Changes,
) -> Result<(), SnapshotError> {
    let stored = &plan.placement;
    let everything: BTreeSet<&TableName> = rules.keys().collect();
    for (index, (transaction, shard)) in shards.iter_mut().zip(&database.shards).enumerate() {
        let anew = plan.onto.contains(&index);
        if anew {
            transaction
                .execute(&placement_text(stored, shard, states.get(index)))
                .await?;
        }
        let tables = if anew {
            everything.clone()
        } else {
            changes.written().collect()
        };
        let mut text: Vec<String> = changes.removed.iter().map(sql::delete_rule).collect();
        text.extend(
            tables
                .into_iter()
                .filter_map(|table| Some(rule_text(table, rules.get(table)?, &stored.shards))),
        );
        if !text.is_empty() {
            transaction.execute(&text.join("; ")).await?;
        }
    }
    Ok(())
}

fn placement_text(stored: &Stored, shard: &Shard, state: Option<&State>) -> String {
    let mut text = Vec::new();
    if state == Some(&State::Damaged) {
        // Only tables of ours; what else stands in the schema stays.
        let ours = ["identity", "shards", "placement", "rules"];
        text.extend(ours.map(|table| format!("DROP TABLE IF EXISTS pgherd.{table}")));
    }
    text.push(sql::CREATE.trim().trim_end_matches(';').to_owned());
    for (index, name) in (0u16..).zip(&stored.shards) {
        text.push(sql::write_shard(index, name));
        if name == shard.name.as_str() {
            text.push(sql::write_identity(&stored.cluster_id, index));
        }
    }
    text.push(sql::write_placement(stored.epoch, &stored.map));
    text.join("; ")
}

fn rule_text(table: &TableName, rule: &Rule, shards: &[String]) -> String {
    match rule {
        Rule::Sharded { key, key_type } => {
            sql::write_rule(table, "sharded", Some((key, key_type.as_deref())), None)
        }
        Rule::Reference => sql::write_rule(table, "reference", None, None),
        Rule::Single { shard } => {
            let index = (0u16..)
                .zip(shards)
                .find(|(_, name)| *name == shard)
                .map(|(index, _)| index);
            sql::write_rule(table, "single", None, index)
        }
    }
}

/// A table that had rows before it had a rule: are they where the rule has them? Asked by SQL, after the map was
/// written and before anything is committed.
async fn rows_are_in_their_buckets(
    database: &Database,
    shards: &mut [ControlTransaction],
    columns: &[Tables],
    rules: &Rules,
    changes: &Changes,
    plan: &Plan,
) -> Result<(), SnapshotError> {
    for table in &changes.new {
        let Some(Rule::Sharded {
            key,
            key_type: Some(type_name),
        }) = rules.get(table)
        else {
            continue;
        };
        let Some(key_type) = KeyType::from_type_name(type_name) else {
            continue;
        };
        let question = sql::count_misplaced(table, key, key_type, plan.placement.map.len());
        for ((transaction, shard), tables) in shards.iter_mut().zip(&database.shards).zip(columns) {
            if !tables.contains_key(table) {
                continue;
            }
            let rows = super::rows::count(&transaction.ask(&question).await?);
            if rows > 0 {
                return Err(SnapshotError::RowsMisplaced {
                    table: table.clone(),
                    shard: shard.name.clone(),
                    rows,
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_a_random_uuid() {
        let (one, two) = (random_uuid(), random_uuid());
        assert_ne!(one, two);
        assert!(
            matches!(
                KeyType::Uuid.from_text(one.as_bytes()),
                placement::Decoded::Value(_)
            ),
            "{one}"
        );
        assert_eq!(one.as_bytes()[14], b'4', "{one}");
    }
}
