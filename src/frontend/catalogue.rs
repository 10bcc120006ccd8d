//! What is known of the schema of a database while it is served: the catalogue that statements are planned after, its
//! version, and where shards differ.
//!
//! Whoever plans takes the catalogue of that moment; another one takes its place as a whole, and plans are forgotten with
//! the one that they were made after.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::Notify;

use crate::catalog::Catalog;
use crate::names::DatabaseName;
use crate::snapshot::{DatabaseSnapshot, Drift, SnapshotError};
use crate::telemetry::SchemaMetrics;

#[derive(Debug)]
pub struct Catalogue {
    catalog: RwLock<Option<Arc<Catalog>>>,
    drift: RwLock<Arc<[Drift]>>,
    /// Shards that could not be asked at the last look; with an empty name, all of them.
    lost: Mutex<BTreeSet<String>>,
    wanted: Notify,
    pub(super) metrics: SchemaMetrics,
}

impl Catalogue {
    pub fn new(known: &DatabaseSnapshot) -> Self {
        let database = &known.config.name;
        let metrics = SchemaMetrics::new(database.as_str());
        if known.catalog.is_some() {
            metrics.version(
                known
                    .catalog
                    .as_ref()
                    .map_or(0, |catalog| catalog.version()),
            );
            metrics.drift(labels(&known.drift));
            tell(database, &[], &known.drift);
        }
        Self {
            catalog: RwLock::new(known.catalog.clone()),
            drift: RwLock::new(known.drift.as_slice().into()),
            lost: Mutex::default(),
            wanted: Notify::new(),
            metrics,
        }
    }

    /// The one to plan after.
    pub fn current(&self) -> Option<Arc<Catalog>> {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        catalog.clone()
    }

    pub fn drift(&self) -> Arc<[Drift]> {
        let drift = self.drift.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&drift)
    }

    /// Puts another catalogue in its place, and gives its version. `None`: it says the same.
    pub fn replace(&self, catalog: Catalog) -> Option<u64> {
        let mut current = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        let before = current.as_ref()?;
        let catalog = catalog.following(before)?;
        let version = catalog.version();
        *current = Some(Arc::new(catalog));
        Some(version)
    }

    /// Says in the log what has appeared and what has gone.
    pub fn learn_drift(&self, database: &DatabaseName, found: Vec<Drift>) {
        let mut drift = self.drift.write().unwrap_or_else(PoisonError::into_inner);
        if **drift == *found {
            return;
        }
        tell(database, &drift, &found);
        self.metrics.drift(labels(&found));
        *drift = found.into();
    }

    /// Says in the log which shards cannot be asked any more: once, however often somebody looks.
    pub fn learn_losses(&self, database: &DatabaseName, lost: &[(&str, &SnapshotError)]) {
        let mut known = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        for (shard, error) in lost.iter().filter(|(shard, _)| !known.contains(*shard)) {
            tracing::warn!(%database, shard, %error, "the schemas could not be looked at");
        }
        *known = lost.iter().map(|(shard, _)| (*shard).to_owned()).collect();
    }

    /// A statement was planned after something that may be there by now, or mended.
    pub fn is_outdated(&self) {
        self.wanted.notify_one();
    }

    /// Waits until somebody wants the schemas to be looked at.
    pub async fn is_wanted(&self) {
        self.wanted.notified().await;
    }
}

fn labels(drift: &[Drift]) -> impl Iterator<Item = (&str, &str)> {
    drift
        .iter()
        .map(|each| (each.shard.as_str(), each.difference.label.as_str()))
}

fn tell(database: &DatabaseName, before: &[Drift], now: &[Drift]) {
    let (before, now): (BTreeSet<&Drift>, BTreeSet<&Drift>) =
        (before.iter().collect(), now.iter().collect());
    for drift in now.difference(&before) {
        let difference = &drift.difference;
        let refused = difference
            .breaks
            .as_ref()
            .map(|(schema, name)| format!("{schema}.{name}"));
        tracing::warn!(
            %database, shard = %drift.shard, object = difference.object, what = difference.what,
            advice = difference.remedy, refused,
            "a shard differs from the authoritative one"
        );
    }
    for drift in before.difference(&now) {
        tracing::info!(
            %database, shard = %drift.shard, object = drift.difference.object,
            "a difference between shards is gone"
        );
    }
}
