//! What all sessions share: the gate with its databases, and of each database what is known and held.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::backend::pools::Pools;
use crate::config;
use crate::names::{DatabaseName, ShardId};
use crate::placement::Placement;
use crate::registry::Registry;
use crate::snapshot::DatabaseSnapshot;
use crate::telemetry::DatabaseMetrics;
use crate::wire::authenticate::Authenticator;
use crate::wire::startup::Policy;
use crate::wire::tls::Acceptor;

use super::memory::Memory;
use super::sharded::Plans;
use super::statements::{Interned, Prepared};
use super::trouble::SessionError;

/// One database, as clients see it.
pub struct Database {
    pub config: Arc<config::Database>,
    /// Placement and catalogue, of a database with several shards.
    pub known: Arc<DatabaseSnapshot>,
    pub pools: Pools,
    pub metrics: DatabaseMetrics,
    /// The texts of prepared statements, each with its number.
    pub(super) interned: Interned,
    /// Planned texts, of a database with several shards.
    plans: Plans,
    /// Counts the statements that any shard can answer.
    turns: AtomicU16,
}

impl Database {
    #[must_use]
    pub fn new(known: Arc<DatabaseSnapshot>, pools: Pools) -> Self {
        let config = Arc::clone(&known.config);
        let metrics = DatabaseMetrics::new(config.name.as_str());
        Self {
            config,
            known,
            pools,
            metrics,
            interned: Interned::default(),
            plans: Plans::default(),
            turns: AtomicU16::new(0),
        }
    }

    /// What a Parse message's tail means on this database.
    pub(super) fn plan(&self, tail: &[u8]) -> Result<Arc<Prepared>, SessionError> {
        let catalog = self.known.catalog.as_ref();
        let catalog = catalog.ok_or(SessionError::Internal("no catalogue"))?;
        Ok(self
            .plans
            .get(tail, &self.interned, catalog, self.placement()?))
    }

    /// A table changed under a prepared statement: who prepares it again shall not get the old one.
    pub(super) fn forget_statements(&self) {
        self.interned.forget();
        self.plans.forget();
    }

    /// Lets go of what is only kept in case that somebody needs it again.
    pub fn tidy_up(&self) {
        self.interned.sweep();
    }

    pub(super) fn placement(&self) -> Result<&Placement, SessionError> {
        let placement = self.known.placement.as_deref();
        placement.ok_or(SessionError::Internal("no placement"))
    }

    /// One shard after the other.
    pub(super) fn next_shard(&self) -> ShardId {
        let count = u16::try_from(self.config.shards.len()).unwrap_or(u16::MAX);
        ShardId(self.turns.fetch_add(1, Ordering::Relaxed) % count.max(1))
    }
}

/// All that a client can meet behind the gate.
pub struct Gate {
    pub databases: BTreeMap<DatabaseName, Arc<Database>>,
    pub registry: Arc<Registry>,
    pub auth: config::Auth,
    pub authenticator: Authenticator,
    pub tls: Option<Acceptor>,
    pub policy: Policy,
    pub memory: Memory,
    /// Start-up parameters that are dropped, in lower case.
    pub ignored_parameters: BTreeSet<String>,
    pub clients_max: usize,
    pub login_timeout: Duration,
    pub message_bytes_max: u32,
}
