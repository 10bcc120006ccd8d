//! The pools of one database: one for each shard and user, made when first needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::connect::{ConnectError, Encryption};
use super::pool::{Login, Pool};
use crate::config::{Database, PoolSettings, Secret, Users};
use crate::names::{ShardId, UserName};

/// Connections that only parse and describe statements, for each user; see [`Pools::describing`].
const DESCRIBING_CONNECTIONS: u32 = 2;

/// Ordinary statements, or parsing and describing on the authoritative shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Purpose {
    Statements,
    Describing,
}

impl Purpose {
    /// As the metrics call it.
    fn name(self) -> &'static str {
        match self {
            Purpose::Statements => "statements",
            Purpose::Describing => "describing",
        }
    }
}

/// All pools of a database.
pub struct Pools {
    database: Arc<Database>,
    users: Arc<Users>,
    workers: usize,
    background: Handle,
    /// How the primary of each shard wants TLS.
    encryption: Vec<Encryption>,
    made: Mutex<HashMap<(ShardId, UserName, Purpose), Arc<Pool>>>,
}

impl Pools {
    /// Reads the TLS files of the connection strings; connects to nobody yet.
    pub fn new(
        database: Arc<Database>,
        users: Arc<Users>,
        workers: usize,
        background: Handle,
    ) -> Result<Self, ConnectError> {
        let encryption = database
            .shards
            .iter()
            .map(|shard| Encryption::load(&shard.primary.tls))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            database,
            users,
            workers,
            background,
            encryption,
            made: Mutex::default(),
        })
    }

    /// For another database on the same servers: what was read from files is shared, and no pool is.
    #[must_use]
    pub fn like(&self, database: Arc<Database>) -> Self {
        Self {
            database,
            users: Arc::clone(&self.users),
            workers: self.workers,
            background: self.background.clone(),
            encryption: self.encryption.clone(),
            made: Mutex::default(),
        }
    }

    /// How this user is logged in to a shard.
    pub(super) fn login(&self, shard: ShardId, user: &UserName) -> Option<Login> {
        let configured = self.database.shards.get(shard.index())?;
        let dsn = &configured.primary;
        // Everybody logs in as the forced user, and shares its pool.
        let user = dsn.user.as_deref().unwrap_or(user.as_str());
        let secret = match &dsn.password {
            Some(password) => Some(Secret::Plain(password.clone())),
            None => self.users.secret(user).cloned(),
        };
        Some(Login {
            database: self.database.name.clone(),
            shard: configured.name.clone(),
            dsn: Arc::clone(dsn),
            encryption: self.encryption.get(shard.index())?.clone(),
            user: user.to_owned(),
            secret,
            purpose: Purpose::Statements.name(),
        })
    }

    pub(super) fn connect_timeout(&self, user: &UserName) -> Duration {
        self.database.pool_of(user).connect_timeout
    }

    /// The pool that runs this user's statements on a shard; `None` for a shard that does not exist.
    #[must_use]
    pub fn pool(&self, shard: ShardId, user: &UserName) -> Option<Arc<Pool>> {
        self.find(shard, user, Purpose::Statements, self.database.pool.clone())
    }

    /// A small pool of its own on the authoritative shard. Whoever holds a server may wait for one of these: they are
    /// only held for a moment, by somebody who waits for nothing else.
    #[must_use]
    pub fn describing(&self, user: &UserName) -> Option<Arc<Pool>> {
        let size = DESCRIBING_CONNECTIONS
            .try_into()
            .unwrap_or(self.database.pool.size);
        self.find(
            ShardId(0),
            user,
            Purpose::Describing,
            PoolSettings {
                size,
                ..self.database.pool.clone()
            },
        )
    }

    fn find(
        &self,
        shard: ShardId,
        user: &UserName,
        purpose: Purpose,
        settings: PoolSettings,
    ) -> Option<Arc<Pool>> {
        let dsn = &self.database.shards.get(shard.index())?.primary;
        let login_user = dsn
            .user
            .as_deref()
            .map_or_else(|| user.clone(), UserName::from);
        let key = (shard, login_user, purpose);
        let mut pools = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&key) {
            return Some(Arc::clone(pool));
        }
        let login = Login {
            purpose: purpose.name(),
            ..self.login(shard, user)?
        };
        let pool = Pool::start(login, settings, self.workers, self.background.clone());
        pools.insert(key, Arc::clone(&pool));
        Some(pool)
    }

    /// All pools that were made so far.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Pool>> {
        self.made
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub fn close(&self) {
        for pool in self.all() {
            pool.close();
        }
    }
}
