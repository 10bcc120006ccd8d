//! The pools of one database: one for each shard and user, made when first needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

use super::connect::{ConnectError, Encryption};
use super::listener::Hub;
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
    Listening,
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
    /// What listens, by user and encoding.
    hubs: Mutex<HashMap<(UserName, String), Arc<Hub>>>,
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
            hubs: Mutex::default(),
        })
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
        let login_user = self.login_user(shard, user)?;
        let key = (shard, login_user.clone(), purpose);
        let mut pools = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&key) {
            return Some(Arc::clone(pool));
        }
        let login = self.login(shard, &login_user, purpose)?;
        let pool = Pool::start(login, settings, self.workers, self.background.clone());
        pools.insert(key, Arc::clone(&pool));
        Some(pool)
    }

    /// What listens for this user's clients that read this encoding, on the first shard.
    #[must_use]
    pub fn hub(&self, user: &UserName, encoding: &str) -> Option<Arc<Hub>> {
        let shard = ShardId(0);
        let login_user = self.login_user(shard, user)?;
        let key = (login_user.clone(), encoding.to_owned());
        let mut hubs = self.hubs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hub) = hubs.get(&key) {
            return Some(Arc::clone(hub));
        }
        let hub = Arc::new(Hub::new(
            self.login(shard, &login_user, Purpose::Listening)?,
            encoding.to_owned(),
            self.database.pool.clone(),
            self.background.clone(),
        ));
        hubs.insert(key, Arc::clone(&hub));
        Some(hub)
    }

    /// Everybody logs in as the forced user, and shares its pool.
    fn login_user(&self, shard: ShardId, user: &UserName) -> Option<UserName> {
        let forced = &self.database.shards.get(shard.index())?.primary.user;
        Some(
            forced
                .as_deref()
                .map_or_else(|| user.clone(), UserName::from),
        )
    }

    fn login(&self, shard: ShardId, user: &UserName, purpose: Purpose) -> Option<Login> {
        let configured = self.database.shards.get(shard.index())?;
        let dsn = &configured.primary;
        let secret = match &dsn.password {
            Some(password) => Some(Secret::Plain(password.clone())),
            None => self.users.secret(user.as_str()).cloned(),
        };
        Some(Login {
            database: self.database.name.clone(),
            shard: configured.name.clone(),
            dsn: Arc::clone(dsn),
            encryption: self.encryption.get(shard.index())?.clone(),
            user: user.as_str().to_owned(),
            secret,
            purpose: match purpose {
                Purpose::Statements => "statements",
                Purpose::Describing => "describing",
                Purpose::Listening => "listening",
            },
        })
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
        let hubs = self.hubs.lock().unwrap_or_else(PoisonError::into_inner);
        for hub in hubs.values() {
            hub.close();
        }
    }
}
