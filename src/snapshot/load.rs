//! Fills a [`Snapshot`](super::Snapshot): asks every shard of every sharded database what it knows, and refuses when
//! they do not agree. Start and reload run the same function.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::stored::{Rule, Rules, State, configured_rules};
use super::tables::Tables;
use super::{
    DatabaseSnapshot, Snapshot, SnapshotError, agreement, controls, drift, on_every, stored, tables,
};
use crate::backend::control::{Control, ControlLimits};
use crate::catalog::{self, Catalog, Facts};
use crate::config::{Config, Database, DefaultTable, TableRule};

/// Loads every database of the configuration.
///
/// # Errors
/// The first database whose shards cannot be reached or do not agree; [`Report::advice`](crate::error::Report::advice)
/// names the command to run.
pub async fn load(config: &Config) -> Result<Snapshot, SnapshotError> {
    let mut databases = BTreeMap::new();
    for (name, database) in &config.databases {
        databases.insert(name.clone(), Arc::new(load_database(database).await?));
    }
    Ok(Snapshot { databases })
}

/// Loads one database. One of a single shard is not touched.
///
/// # Errors
/// As [`load`].
pub async fn load_database(database: &Arc<Database>) -> Result<DatabaseSnapshot, SnapshotError> {
    let config = Arc::clone(database);
    if !database.is_sharded() {
        return Ok(DatabaseSnapshot {
            config,
            placement: None,
            catalog: None,
            drift: Vec::new(),
        });
    }
    let rules = Arc::new(configured_rules(database)?);
    let controls = controls(database, ControlLimits::default())?;
    let answers = on_every(&controls, |control| ask(control, Arc::clone(&rules))).await?;

    let states: Vec<State> = answers.iter().map(|answer| answer.state.clone()).collect();
    let stored = agreement::of_all(database, &states)?;
    agreement::on_rules(&rules, &stored.rules)?;
    have_equal_surroundings(database, &answers)?;
    let columns: Vec<Tables> = answers.iter().map(|answer| answer.tables.clone()).collect();
    tables::are_equal(database, &rules, &columns)?;
    keys_are_as_stored(&stored.rules, &columns)?;

    let placement = agreement::placement(database, stored)?;
    let mut catalog = load_catalog(database, &controls).await?;
    let facts: Vec<Facts> = drift::facts(&controls)
        .await?
        .into_iter()
        .collect::<Result<_, _>>()?;
    let drift = drift::compare(database, facts.iter().map(Some), &catalog_rules(database));
    if let Some(catalog) = &mut catalog {
        for found in &drift {
            catalog.note_difference(found.shard.as_str(), &found.difference);
        }
    }
    Ok(DatabaseSnapshot {
        config,
        placement: Some(Arc::new(placement)),
        catalog: catalog.map(Arc::new),
        drift,
    })
}

/// What one shard was asked.
struct Answer {
    state: State,
    tables: Tables,
    /// What must be equal on all shards, by what it is called.
    surroundings: Vec<(&'static str, String)>,
}

async fn ask(mut control: Control, rules: Arc<Rules>) -> Result<Answer, SnapshotError> {
    let state = stored::read(&mut control).await?;
    let tables = tables::read(&mut control, &rules).await?;
    let surroundings = read_surroundings(&control).await?;
    Ok(Answer {
        state,
        tables,
        surroundings,
    })
}

/// Which column of [`SURROUNDINGS`] is what.
const SURROUNDING_NAMES: [&str; 6] = [
    "server_encoding",
    "the locale provider",
    "the collation",
    "the character type",
    "the ICU locale",
    "the version of the collation",
];

/// By way of JSON, for these columns came and changed their names over the versions of PostgreSQL.
const SURROUNDINGS: &str = "SELECT pg_catalog.current_setting('server_encoding'), \
    coalesce(d.j ->> 'datlocprovider', 'c'), d.j ->> 'datcollate', d.j ->> 'datctype', \
    coalesce(d.j ->> 'datlocale', d.j ->> 'daticulocale', 'none'), coalesce(d.j ->> 'datcollversion', 'none') \
    FROM (SELECT pg_catalog.to_jsonb(b) AS j FROM pg_catalog.pg_database AS b \
          WHERE b.datname = pg_catalog.current_database()) AS d";

async fn read_surroundings(
    control: &Control,
) -> Result<Vec<(&'static str, String)>, SnapshotError> {
    let rows = control.rows(SURROUNDINGS).await?;
    let Some(row) = rows.into_iter().next() else {
        return Err(SnapshotError::Unreadable {
            server: control.server().to_owned(),
            what: "encoding and collation",
        });
    };
    Ok(SURROUNDING_NAMES
        .into_iter()
        .zip(row.into_iter().map(Option::unwrap_or_default))
        .collect())
}

fn have_equal_surroundings(database: &Database, answers: &[Answer]) -> Result<(), SnapshotError> {
    let Some(first) = answers.first() else {
        return Ok(());
    };
    for (shard, answer) in database.shards.iter().zip(answers) {
        for ((what, found), (_, expected)) in answer.surroundings.iter().zip(&first.surroundings) {
            // The hash of a text is that of its bytes, so there is one encoding for all.
            let expected = if *what == "server_encoding" {
                "UTF8"
            } else {
                expected
            };
            if found != expected {
                return Err(SnapshotError::Environment {
                    shard: shard.name.clone(),
                    what,
                    found: found.clone(),
                    expected: expected.to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// That the keys still have types that hash as they did when the rows were placed.
fn keys_are_as_stored(rules: &Rules, columns: &[Tables]) -> Result<(), SnapshotError> {
    for (table, rule) in rules {
        let Rule::Sharded { key, key_type } = rule else {
            continue;
        };
        let Some((_, found)) = tables::key_column(table, key, columns)? else {
            continue;
        };
        if let Some(stored) = key_type
            && !agreement::key_types_hash_alike(stored, &found)
        {
            return Err(SnapshotError::RuleChanged {
                table: table.clone(),
                configured: format!("{key} is of type {found} now"),
                stored: rule.to_string(),
            });
        }
    }
    Ok(())
}

/// The catalogue as the authoritative shard has it: `catalog` owns the questions and reads the answers.
async fn load_catalog(
    database: &Database,
    controls: &[Control],
) -> Result<Option<Catalog>, SnapshotError> {
    let Some(authoritative) = controls.first() else {
        return Ok(None);
    };
    let rows = catalog_rows(authoritative).await?;
    Ok(Some(Catalog::from_rows(&rows, catalog_rules(database))?))
}

pub(super) async fn catalog_rows(
    authoritative: &Control,
) -> Result<Vec<Vec<Vec<Option<String>>>>, SnapshotError> {
    let mut answers = Vec::with_capacity(catalog::QUERIES.len());
    for (_, text) in catalog::QUERIES {
        answers.push(authoritative.rows(text).await?);
    }
    Ok(answers)
}

pub(super) fn catalog_rules(database: &Database) -> catalog::Rules {
    let rule = |rule: &TableRule| match rule {
        TableRule::Sharded { key } => catalog::Rule::Sharded {
            // One column: others were refused before.
            key: key.first().cloned().unwrap_or_default(),
        },
        TableRule::Reference => catalog::Rule::Reference,
        TableRule::Single(shard) => catalog::Rule::Single(*shard),
    };
    catalog::Rules {
        tables: database
            .tables
            .iter()
            .map(|(table, of)| (table.clone(), rule(of)))
            .collect(),
        default: match database.default_table {
            DefaultTable::Refuse => None,
            DefaultTable::Shard(shard) => Some(shard),
        },
        shard_safe: database.shard_safe.clone(),
    }
}
