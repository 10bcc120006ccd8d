//! What is counted of the schemas of a sharded database.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use metrics::Gauge;

/// What came of a look at the schemas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    Unchanged,
    Changed,
    Failed,
}

#[derive(Debug)]
pub struct SchemaMetrics {
    database: String,
    /// By shard and kind; those that are mended stay, at zero.
    drift: Mutex<BTreeMap<(String, String), Gauge>>,
}

impl SchemaMetrics {
    #[must_use]
    pub fn new(database: &str) -> Self {
        Self {
            database: database.to_owned(),
            drift: Mutex::default(),
        }
    }

    /// How many catalogues there have been.
    pub fn version(&self, version: u64) {
        // Versions are far below 2^52, where a float stops counting.
        #[allow(clippy::cast_precision_loss)]
        metrics::gauge!("pgherd_catalog_version", "database" => self.database.clone())
            .set(version as f64);
    }

    pub fn looked(&self, looked: Looked) {
        let result = match looked {
            Looked::Unchanged => "unchanged",
            Looked::Changed => "changed",
            Looked::Failed => "failed",
        };
        metrics::counter!("pgherd_catalog_looks_total", "database" => self.database.clone(), "result" => result)
            .increment(1);
    }

    /// Shard and kind of every difference that there is now.
    pub fn drift<'d>(&self, found: impl Iterator<Item = (&'d str, &'d str)>) {
        let mut counts: BTreeMap<(String, String), u32> = BTreeMap::new();
        for (shard, kind) in found {
            *counts
                .entry((shard.to_owned(), kind.to_owned()))
                .or_default() += 1;
        }
        let mut gauges = self.drift.lock().unwrap_or_else(PoisonError::into_inner);
        for place in counts.keys() {
            let gauge = || {
                metrics::gauge!("pgherd_schema_drift", "database" => self.database.clone(),
                    "shard" => place.0.clone(), "kind" => place.1.clone())
            };
            gauges.entry(place.clone()).or_insert_with(gauge);
        }
        for (place, gauge) in gauges.iter() {
            gauge.set(f64::from(counts.get(place).copied().unwrap_or_default()));
        }
    }
}
