//! What schema `pgherd` on one shard says, read into values. Judges nothing: whether shards agree is for `agreement`.

use std::collections::BTreeMap;
use std::fmt;

use super::SnapshotError;
use crate::backend::control::{Control, ControlError, ControlTransaction, Rows};
use crate::config::{Database, TableRule};
use crate::names::TableName;
use crate::placement::sql;

/// What one shard holds of the placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing: no schema, or one without a single row of ours.
    Absent,
    /// Some of it, which only hands or an old backup can have done.
    Damaged,
    Complete(Stored),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub cluster_id: String,
    /// Which of `shards` this shard is.
    pub shard_id: u16,
    pub shards: Vec<String>,
    pub epoch: u64,
    /// `map[bucket]` is an index into `shards`.
    pub map: Vec<u16>,
    pub rules: Rules,
}

impl Stored {
    pub fn shard_name(&self) -> &str {
        self.shards
            .get(usize::from(self.shard_id))
            .map_or("(unknown)", String::as_str)
    }
}

/// The rules by table, every name with its schema.
pub(super) type Rules = BTreeMap<TableName, Rule>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    /// `key_type` is as `format_type` writes it, once the table exists.
    Sharded {
        key: String,
        key_type: Option<String>,
    },
    Reference,
    Single {
        shard: String,
    },
}

impl Rule {
    /// Equal but for what is only known once the table exists.
    pub fn means_the_same_as(&self, other: &Rule) -> bool {
        match (self, other) {
            (Rule::Sharded { key, .. }, Rule::Sharded { key: other, .. }) => key == other,
            _ => self == other,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Sharded {
                key,
                key_type: None,
            } => write!(f, "sharded by {key}"),
            Rule::Sharded {
                key,
                key_type: Some(key_type),
            } => write!(f, "sharded by {key} ({key_type})"),
            Rule::Reference => f.write_str("reference"),
            Rule::Single { shard } => write!(f, "whole on {shard}"),
        }
    }
}

/// The rules of the file, in the same form.
pub(super) fn configured_rules(database: &Database) -> Result<Rules, SnapshotError> {
    let mut rules = Rules::new();
    for (table, rule) in &database.tables {
        let table = TableName {
            schema: Some(sql::schema_of(table).into()),
            name: table.name.clone(),
        };
        let rule = match rule {
            TableRule::Sharded { key } => {
                let [key] = key.as_slice() else {
                    return Err(SnapshotError::Key {
                        table,
                        problem: super::KeyProblem::Columns,
                    });
                };
                Rule::Sharded {
                    key: key.clone(),
                    key_type: None,
                }
            }
            TableRule::Reference => Rule::Reference,
            TableRule::Single(shard) => {
                let shard = database.shards.get(shard.index());
                Rule::Single {
                    shard: shard.map_or_else(String::new, |s| s.name.to_string()),
                }
            }
        };
        rules.insert(table, rule);
    }
    Ok(rules)
}

/// Both a pool and a transaction can be asked.
pub(super) trait Ask {
    fn ask(&mut self, text: &str) -> impl Future<Output = Result<Rows, ControlError>> + Send;
    fn server(&self) -> &str;
}

impl Ask for Control {
    async fn ask(&mut self, text: &str) -> Result<Rows, ControlError> {
        self.rows(text).await
    }
    fn server(&self) -> &str {
        Control::server(self)
    }
}

impl Ask for ControlTransaction {
    async fn ask(&mut self, text: &str) -> Result<Rows, ControlError> {
        self.rows(text).await
    }
    fn server(&self) -> &str {
        ControlTransaction::server(self)
    }
}

/// Reads all of it. Not one snapshot of the server when asked on a pool: the reader compares epochs over all shards
/// anyway, and whoever changes the map changes the epoch.
pub(super) async fn read(shard: &mut impl Ask) -> Result<State, SnapshotError> {
    let exists = shard.ask(sql::EXISTS).await?;
    match exists.first().map(Vec::as_slice) {
        Some([Some(schema), Some(_)]) if schema == "f" => return Ok(State::Absent),
        Some([_, Some(tables)]) if tables == "t" => {}
        _ => return damaged_or_absent(shard).await,
    }
    let identity = shard.ask(sql::READ_IDENTITY).await?;
    let shards = shard.ask(sql::READ_SHARDS).await?;
    let placement = shard.ask(sql::READ_PLACEMENT).await?;
    let rules = shard.ask(sql::READ_RULES).await?;
    if identity.is_empty() && shards.is_empty() && placement.is_empty() && rules.is_empty() {
        return Ok(State::Absent);
    }
    let ([identity], [placement]) = (identity.as_slice(), placement.as_slice()) else {
        return Ok(State::Damaged);
    };
    let parsed = parse(identity, &shards, placement, &rules);
    Ok(parsed.map_or(State::Damaged, State::Complete))
}

/// The schema is there, but not all of its tables.
async fn damaged_or_absent(shard: &mut impl Ask) -> Result<State, SnapshotError> {
    let tables = shard
        .ask(
            "SELECT 1 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
             WHERE n.nspname = 'pgherd' AND c.relname IN ('identity', 'shards', 'placement', 'rules')",
        )
        .await?;
    Ok(if tables.is_empty() {
        State::Absent
    } else {
        State::Damaged
    })
}

fn parse(
    identity: &[Option<String>],
    shards: &Rows,
    placement: &[Option<String>],
    rules: &Rows,
) -> Option<Stored> {
    let [Some(cluster_id), Some(shard_id)] = identity else {
        return None;
    };
    let [Some(epoch), Some(map)] = placement else {
        return None;
    };
    let mut names = Vec::with_capacity(shards.len());
    for (row, index) in shards.iter().zip(0u16..) {
        let [Some(id), Some(name)] = row.as_slice() else {
            return None;
        };
        // Without a gap: the ids are indexes.
        if id.parse() != Ok(index) {
            return None;
        }
        names.push(name.clone());
    }
    let shard_id: u16 = shard_id
        .parse()
        .ok()
        .filter(|id| usize::from(*id) < names.len())?;
    let map: Vec<u16> = map
        .split(',')
        .map(|shard| shard.parse().ok())
        .collect::<Option<_>>()?;
    let rules = rules
        .iter()
        .map(|row| parse_rule(row))
        .collect::<Option<_>>()?;
    Some(Stored {
        cluster_id: cluster_id.clone(),
        shard_id,
        shards: names,
        epoch: epoch.parse().ok()?,
        map,
        rules,
    })
}

fn parse_rule(row: &[Option<String>]) -> Option<(TableName, Rule)> {
    let [Some(schema), Some(table), Some(rule), key, key_type, shard] = row else {
        return None;
    };
    let rule = match rule.as_str() {
        "sharded" => Rule::Sharded {
            key: key.clone()?,
            key_type: key_type.clone(),
        },
        "reference" => Rule::Reference,
        "single" => Rule::Single {
            shard: shard.clone()?,
        },
        _ => return None,
    };
    Some((
        TableName {
            schema: Some(schema.as_str().into()),
            name: table.as_str().into(),
        },
        rule,
    ))
}
