//! Looks again and again at the schemas of a database that is served: a fingerprint of each shard, and all of it only
//! where that has changed.
//!
//! What would surprise: a fingerprint is taken before what it stands for is read. A change in between is read at once or
//! found at the next look, never missed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::drift::{self, Drift};
use super::load::{catalog_rows, catalog_rules};
use super::{DatabaseSnapshot, SnapshotError, controls, on_every};
use crate::backend::control::{Control, ControlLimits};
use crate::catalog::{self, Catalog, Facts};
use crate::config::Database;
use crate::names::ShardName;
use crate::placement::KeyType;

type Rows = Vec<Vec<Vec<Option<String>>>>;

pub struct Watch {
    database: Arc<Database>,
    controls: Vec<Control>,
    /// What is known of each shard.
    seen: Vec<Seen>,
    rows: Option<Rows>,
    /// The types by which rows were placed.
    keys: BTreeMap<String, KeyType>,
}

#[derive(Default)]
struct Seen {
    fingerprint: Option<String>,
    facts: Option<Facts>,
}

/// What one look found.
#[derive(Debug, Default)]
pub struct Look {
    /// `None`: nothing has changed since the last look.
    pub news: Option<News>,
    /// Shards that could not be asked; what was known of them still counts.
    pub lost: Vec<(ShardName, SnapshotError)>,
}

#[derive(Debug)]
pub struct News {
    pub catalog: Catalog,
    pub drift: Vec<Drift>,
}

impl Watch {
    /// `None` for a database of one shard.
    ///
    /// # Errors
    /// Connection strings that cannot be used.
    pub fn new(known: &DatabaseSnapshot) -> Result<Option<Self>, SnapshotError> {
        let Some(catalog) = &known.catalog else {
            return Ok(None);
        };
        let controls = controls(&known.config, ControlLimits::default())?;
        let mut watch = Self {
            database: Arc::clone(&known.config),
            seen: controls.iter().map(|_| Seen::default()).collect(),
            controls,
            rows: None,
            keys: BTreeMap::new(),
        };
        watch.note_keys(catalog);
        Ok(Some(watch))
    }

    /// Asks every shard whether something has changed, and reads it where it has.
    ///
    /// # Errors
    /// Answers that cannot be read, or an authoritative shard that does not answer.
    pub async fn look(&mut self) -> Result<Look, SnapshotError> {
        let mut look = Look::default();
        let changed = self.changed(&mut look).await?;
        if changed.is_empty() {
            return Ok(look);
        }
        // A connection keeps the settings of databases and roles with which it began.
        self.controls = controls(&self.database, ControlLimits::default())?;
        let controls: Vec<Control> = changed
            .iter()
            .filter_map(|(index, _)| self.controls.get(*index).cloned())
            .collect();
        if let (Some((0, _)), Some(authoritative)) = (changed.first(), self.controls.first()) {
            self.rows = Some(catalog_rows(authoritative).await?);
        }
        let answers = drift::facts(&controls).await?;
        for ((index, fingerprint), answer) in changed.into_iter().zip(answers) {
            match answer {
                Ok(facts) => {
                    if let Some(seen) = self.seen.get_mut(index) {
                        seen.fingerprint = Some(fingerprint);
                        seen.facts = Some(facts);
                    }
                }
                Err(error) => self.lose(index, error, &mut look)?,
            }
        }
        look.news = self.news()?;
        Ok(look)
    }

    /// The shards with another fingerprint than at the last look.
    async fn changed(&self, look: &mut Look) -> Result<Vec<(usize, String)>, SnapshotError> {
        let answers = on_every(&self.controls, |control| async move {
            Ok(fingerprint(&control).await)
        });
        let mut changed = Vec::new();
        for (index, answer) in answers.await?.into_iter().enumerate() {
            match answer {
                Ok(fingerprint) => {
                    let last = self
                        .seen
                        .get(index)
                        .and_then(|seen| seen.fingerprint.as_ref());
                    if last != Some(&fingerprint) {
                        changed.push((index, fingerprint));
                    }
                }
                Err(error) => self.lose(index, error, look)?,
            }
        }
        Ok(changed)
    }

    fn lose(
        &self,
        index: usize,
        error: SnapshotError,
        look: &mut Look,
    ) -> Result<(), SnapshotError> {
        match self.database.shards.get(index) {
            Some(shard) if index > 0 => {
                look.lost.push((shard.name.clone(), error));
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn news(&mut self) -> Result<Option<News>, SnapshotError> {
        let Some(rows) = &self.rows else {
            return Ok(None);
        };
        let rules = catalog_rules(&self.database);
        let facts = self.seen.iter().map(|seen| seen.facts.as_ref());
        let drift = drift::compare(&self.database, facts, &rules);
        let mut catalog = Catalog::from_changed_rows(rows, rules)?;
        self.break_changed_keys(&mut catalog);
        for Drift { shard, difference } in &drift {
            catalog.note_difference(shard.as_str(), difference);
        }
        self.note_keys(&catalog);
        Ok(Some(News { catalog, drift }))
    }

    fn note_keys(&mut self, catalog: &Catalog) {
        for relation in catalog.placed_tables() {
            if let Some(key) = relation.key() {
                self.keys
                    .entry(relation.full_name())
                    .or_insert(key.key_type);
            }
        }
    }

    /// Rows that were placed by a key of another type are not where this one's hash says.
    fn break_changed_keys(&self, catalog: &mut Catalog) {
        let mut changed = Vec::new();
        for relation in catalog.placed_tables() {
            let before = self.keys.get(&relation.full_name());
            if let (Some(key), Some(before)) = (relation.key(), before)
                && !key.key_type.hashes_like(*before)
            {
                changed.push((relation.schema.clone(), relation.name.clone()));
            }
        }
        for (schema, name) in changed {
            let why = "its sharding key has a type now by which its rows were not placed";
            catalog.break_relation(&schema, &name, why.to_owned());
        }
    }
}

async fn fingerprint(control: &Control) -> Result<String, SnapshotError> {
    let rows = control.rows(catalog::FINGERPRINT).await?;
    let text = rows
        .into_iter()
        .next()
        .and_then(|row| row.into_iter().next());
    text.flatten().ok_or_else(|| SnapshotError::Unreadable {
        server: control.server().to_owned(),
        what: "fingerprint of the schema",
    })
}
