//! What all sessions share: the gate with its databases, and of each database what is known and held.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use crate::backend::pools::Pools;
use crate::config::{self, Caps, PoolSettings};
use crate::names::{ShardId, UserName};
use crate::placement::Placement;
use crate::planner::{Knowledge, Plan};
use crate::registry::{ClientCaps, Full, Registered, Registry};
use crate::snapshot::{DatabaseSnapshot, Look, News, SnapshotError};
use crate::telemetry::{DatabaseMetrics, Looked};
use crate::wire::authenticate::Authenticator;
use crate::wire::startup::Policy;
use crate::wire::tls::Acceptor;

use super::catalogue::Catalogue;
use super::databases::Databases;
use super::leavers::Leavers;
use super::memory::Memory;
use super::sharded::{Plans, Shape};
use super::statements::{Interned, Prepared};
use super::trouble::SessionError;

/// Behind the text in a Parse message without types: the zero and the count.
const NO_TYPES: &[u8] = b"\0\0\0";

/// One database, as clients see it.
pub struct Database {
    pub config: Arc<config::Database>,
    /// As it was when pgherd started; of the catalogue, `catalogue` knows the latest.
    pub known: Arc<DatabaseSnapshot>,
    pub(super) catalogue: Catalogue,
    pub pools: Pools,
    pub metrics: DatabaseMetrics,
    /// The texts of prepared statements, each with its number.
    pub(super) interned: Interned,
    /// Planned texts, of a database with several shards.
    plans: Plans,
    /// Counts the statements that any shard can answer.
    turns: AtomicU16,
    pub(super) leavers: Leavers,
    /// Some client has asked for the last value of a sequence.
    sequences: AtomicBool,
    pool_settings: Arc<PoolSettings>,
    user_pool_settings: BTreeMap<UserName, Arc<PoolSettings>>,
}

impl Database {
    #[must_use]
    pub fn new(known: Arc<DatabaseSnapshot>, pools: Pools) -> Self {
        let config = Arc::clone(&known.config);
        let metrics = DatabaseMetrics::new(config.name.as_str());
        let pool_settings = Arc::new(config.pool.clone());
        let users = config.user_pools.iter();
        let users = users.map(|(user, settings)| (user.clone(), Arc::new(settings.clone())));
        let user_pool_settings = users.collect();
        let plans = Plans::new(config.shards.iter().map(|shard| shard.name.clone()));
        plans.renew(
            known
                .catalog
                .as_ref()
                .map_or(0, |catalog| catalog.version()),
        );
        Self {
            config,
            catalogue: Catalogue::new(&known),
            known,
            pools,
            metrics,
            interned: Interned::default(),
            plans,
            turns: AtomicU16::new(0),
            leavers: Leavers::default(),
            sequences: AtomicBool::new(false),
            pool_settings,
            user_pool_settings,
        }
    }

    /// A client asks for the last value of a sequence.
    pub(super) fn asks_for_sequences(&self) {
        self.sequences.store(true, Ordering::Release);
    }

    pub(super) fn uses_sequences(&self) -> bool {
        self.sequences.load(Ordering::Relaxed)
    }

    /// Looks again for the functions that leave session state.
    pub async fn refresh(&self) {
        if let Some(pool) = self.pools.busiest() {
            self.leavers.refresh(&pool).await;
        }
    }

    /// The settings of the pools for this user.
    pub(super) fn settings_of(&self, user: &UserName) -> Arc<PoolSettings> {
        let own = self.user_pool_settings.get(user);
        Arc::clone(own.unwrap_or(&self.pool_settings))
    }

    /// What a Parse message's tail means on this database, under this `search_path` of the session.
    pub(super) fn plan(
        &self,
        tail: &[u8],
        path: Option<&str>,
    ) -> Result<Arc<Prepared>, SessionError> {
        let catalog = self.catalogue.current();
        let catalog = catalog.ok_or(SessionError::Internal("no catalogue"))?;
        let knowledge = Knowledge {
            catalog: &catalog,
            placement: self.placement()?,
        };
        let prepared = self
            .plans
            .get(tail, path, &self.interned, &knowledge, &self.metrics);
        if prepared.shape().is_some_and(Shape::may_be_outdated) {
            self.catalogue.is_outdated();
        }
        Ok(prepared)
    }

    /// A statement that was planned after an older catalogue, planned after this one; `None` where it is the latest.
    pub(super) fn planned_again(
        &self,
        prepared: &Prepared,
    ) -> Result<Option<Arc<Prepared>>, SessionError> {
        match prepared.shape() {
            Some(shape) if shape.version() != self.plans.version() && !shape.told => {
                let tail = [prepared.text(), NO_TYPES].concat();
                let again = self.plan(&tail, shape.path.as_deref())?;
                if let Some(planned) = again.shape() {
                    shape.again(planned);
                }
                Ok(Some(again))
            }
            _ => Ok(None),
        }
    }

    /// Waits until a statement names what the catalogue does not know, or shards differ about.
    pub async fn wants_a_look(&self) {
        self.catalogue.is_wanted().await;
    }

    /// What a look at the schemas has found: sessions see it with their next statement.
    pub fn learn(&self, look: Result<Look, SnapshotError>) {
        let metrics = &self.catalogue.metrics;
        let look = match look {
            Ok(look) => look,
            Err(error) => {
                metrics.looked(Looked::Failed);
                let all = [("", &error)];
                return self.catalogue.learn_losses(&self.config.name, &all);
            }
        };
        let lost = look.lost.iter();
        let lost: Vec<_> = lost.map(|(shard, error)| (shard.as_str(), error)).collect();
        self.catalogue.learn_losses(&self.config.name, &lost);
        let changed = look.news.is_some_and(|News { catalog, drift }| {
            self.catalogue.learn_drift(&self.config.name, drift);
            let version = self.catalogue.replace(catalog);
            if let Some(version) = version {
                self.plans.renew(version);
                self.interned.forget();
                metrics.version(version);
                tracing::info!(database = %self.config.name, version, "the schema has changed");
            }
            version.is_some()
        });
        metrics.looked(if changed {
            Looked::Changed
        } else {
            Looked::Unchanged
        });
    }

    /// The plan of a simple query, where one that differs in literals only was planned before.
    pub(super) fn plan_like(
        &self,
        text: &[u8],
        path: Option<&str>,
    ) -> Result<Option<Plan>, SessionError> {
        let placement = self.placement()?;
        Ok(self.plans.like(text, path, placement, &self.metrics))
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
    pub databases: Databases,
    pub registry: Arc<Registry>,
    pub auth: config::Auth,
    pub authenticator: Authenticator,
    pub tls: Option<Acceptor>,
    pub policy: Policy,
    pub memory: Memory,
    /// Start-up parameters that are dropped, in lower case.
    pub ignored_parameters: BTreeSet<String>,
    pub clients_max: usize,
    /// Caps of single users, over all databases.
    pub user_caps: BTreeMap<UserName, Caps>,
    pub login_timeout: Duration,
    pub message_bytes_max: u32,
}

impl Gate {
    /// Registers a client whose login has come so far, unless a cap is reached.
    pub(super) fn enter(
        &self,
        database: &Database,
        user: &UserName,
        long_key: bool,
    ) -> Result<Registered, SessionError> {
        let name = &database.config.name;
        let caps = ClientCaps {
            all: Some(self.clients_max),
            database: database.config.caps.clients_max,
            user: self.user_caps.get(user).and_then(|caps| caps.clients_max),
        };
        let timeouts = database.config.pool_of(user).timeouts;
        let entered = self
            .registry
            .enter(name.clone(), user.clone(), timeouts, long_key, caps);
        entered.map_err(|full| match full {
            Full::All => SessionError::TooManyClients,
            // One that was made on demand has the cap of the template.
            Full::Database if self.databases.of_file(name.as_str()).is_none() => {
                SessionError::TooManyClientsOf(format!("databases.\"{}\"", config::ANY))
            }
            Full::Database => SessionError::TooManyClientsOf(format!("databases.{name}")),
            Full::User => SessionError::TooManyClientsOf(format!("users.{user}")),
        })
    }
}
