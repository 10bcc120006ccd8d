//! What all sessions share: the gate with its databases, and of each database what is known and held.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::pools::Pools;
use crate::config;
use crate::names::DatabaseName;
use crate::registry::Registry;
use crate::snapshot::DatabaseSnapshot;
use crate::telemetry::DatabaseMetrics;
use crate::wire::authenticate::Authenticator;
use crate::wire::startup::Policy;
use crate::wire::tls::Acceptor;

use super::statements::Interned;

/// One database, as clients see it.
pub struct Database {
    pub config: Arc<config::Database>,
    /// Placement and catalogue, of a database with several shards.
    pub known: Arc<DatabaseSnapshot>,
    pub pools: Pools,
    pub metrics: DatabaseMetrics,
    /// The texts of prepared statements, each with its number.
    pub(super) interned: Interned,
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
        }
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
    pub clients_max: usize,
    pub login_timeout: Duration,
    pub message_bytes_max: u32,
}
