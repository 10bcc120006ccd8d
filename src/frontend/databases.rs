//! All databases that clients can ask for: those of the file, and those made on demand after `[databases."*"]`.
//!
//! A database of the file is found without a lock. Another one is made when a client asks for it that has proven who it
//! is, and only once a server has let that client in: a name that no server knows leaves nothing behind, neither here nor
//! in the metrics. It goes again when it has had neither clients nor server connections for two looks in a row.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::database::Database;
use super::trouble::SessionError;
use crate::backend::pools::Pools;
use crate::config;
use crate::error::Report;
use crate::names::{DatabaseName, UserName};
use crate::snapshot::DatabaseSnapshot;
use crate::telemetry::PoolFigures;

/// Databases made on demand at once. More is a mistake, or an attack by somebody who may create databases.
const MADE_MAX: usize = 10_000;
/// How often unused ones are looked for.
pub const SWEEP: Duration = Duration::from_secs(5);

type Missing = Box<dyn Report + Send + Sync>;

pub struct Databases {
    of_file: BTreeMap<DatabaseName, Arc<Database>>,
    on_demand: Option<OnDemand>,
}

struct OnDemand {
    template: Arc<config::Database>,
    /// Lends nothing; it has what the pools of all have in common.
    pools: Pools,
    /// Logins that only find out whether a database exists.
    knocks: Semaphore,
    made: Mutex<HashMap<DatabaseName, Made>>,
}

struct Made {
    database: Arc<Database>,
    /// At the last look it had neither clients nor server connections.
    unused: bool,
}

impl Databases {
    /// `template` is the section `[databases."*"]`, with pools of its own.
    #[must_use]
    pub fn new(
        of_file: BTreeMap<DatabaseName, Arc<Database>>,
        template: Option<(Arc<config::Database>, Pools)>,
    ) -> Self {
        let on_demand = template.map(|(template, pools)| OnDemand {
            knocks: Semaphore::new(template.pool.connect_parallelism.get() as usize),
            template,
            pools,
            made: Mutex::default(),
        });
        Self { of_file, on_demand }
    }

    /// One that the file names.
    #[must_use]
    pub fn of_file(&self, name: &str) -> Option<&Arc<Database>> {
        self.of_file.get(name)
    }

    /// The only database of one shard that there can be, if there is no other.
    #[must_use]
    pub fn only_single(&self) -> Option<Arc<Database>> {
        let mut single = self.of_file.values().filter(|it| !it.config.is_sharded());
        let only = single.next().filter(|_| self.on_demand.is_none())?;
        single.next().is_none().then(|| Arc::clone(only))
    }

    /// What a client gets that asks for this name. It has authenticated itself: nobody else learns what exists.
    ///
    /// # Errors
    /// There is no such database, or its server does not let this user in.
    pub async fn find(&self, name: &str, user: &UserName) -> Result<Arc<Database>, Missing> {
        if let Some(database) = self.of_file.get(name) {
            return Ok(Arc::clone(database));
        }
        match &self.on_demand {
            Some(on_demand) if config::may_be_asked_for(name) => on_demand.find(name, user).await,
            _ => Err(Box::new(SessionError::NoDatabase(name.to_owned()))),
        }
    }

    /// All that there are at the moment.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Database>> {
        let mut all: Vec<_> = self.of_file.values().cloned().collect();
        if let Some(on_demand) = &self.on_demand {
            all.extend(
                on_demand
                    .lock()
                    .values()
                    .map(|made| Arc::clone(&made.database)),
            );
        }
        all
    }

    /// Removes what was made on demand and was not used at the last look either.
    pub fn sweep(&self) {
        if let Some(on_demand) = &self.on_demand {
            on_demand.sweep();
        }
    }
}

impl OnDemand {
    fn lock(&self) -> MutexGuard<'_, HashMap<DatabaseName, Made>> {
        // The map is whole between any two statements that could panic.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, name: &str) -> Result<Option<Arc<Database>>, SessionError> {
        let made = self.lock();
        match made.get(name) {
            Some(made) => Ok(Some(Arc::clone(&made.database))),
            None if made.len() >= MADE_MAX => Err(SessionError::TooManyDatabases),
            None => Ok(None),
        }
    }

    async fn find(&self, name: &str, user: &UserName) -> Result<Arc<Database>, Missing> {
        if let Some(database) = self.known(name).map_err(boxed)? {
            return Ok(database);
        }
        let config = Arc::new(self.template.of_template(name));
        let pools = self.pools.like(Arc::clone(&config));
        let turn = self.knocks.acquire().await;
        // Who waited before us may have made it.
        if let Some(database) = self.known(name).map_err(boxed)? {
            return Ok(database);
        }
        pools.knock(user).await.map_err(boxed)?;
        let name = config.name.clone();
        let made = self
            .lock()
            .entry(name)
            .or_insert_with(|| {
                tracing::info!(database = %config.name, "a database was made on demand");
                let known = DatabaseSnapshot {
                    config,
                    placement: None,
                    catalog: None,
                    drift: Vec::new(),
                };
                Made {
                    database: Arc::new(Database::new(Arc::new(known), pools)),
                    unused: false,
                }
            })
            .database
            .clone();
        drop(turn);
        Ok(made)
    }

    fn sweep(&self) {
        self.lock().retain(|name, made| {
            // Every session holds its database, and nobody gets it but under this lock.
            let used = Arc::strong_count(&made.database) > 1 || has_servers(&made.database);
            if used || !made.unused {
                made.unused = !used;
                return true;
            }
            made.database.metrics.publish();
            for pool in made.database.pools.all() {
                pool.close();
                pool.metrics.publish(PoolFigures::default());
            }
            tracing::info!(database = %name, "a database made on demand was unused and is gone");
            false
        });
    }
}

fn boxed(error: impl Report + Send + Sync + 'static) -> Missing {
    Box::new(error)
}

fn has_servers(database: &Database) -> bool {
    database.pools.all().iter().any(|pool| {
        let figures = pool.figures();
        figures.idle + figures.active + figures.connecting + figures.waiting > 0
    })
}
