//! The pools of one database: one for each shard and user, made when first needed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::connect::{self, ConnectError, Encryption};
use super::identity::Identity;
use super::listener::Hub;
use super::pool::{Login, Pool, Quota, Quotas, Shared};
use crate::config::{Config, Database, Dsn, Endpoint, Secret, Users};
use crate::names::{ShardId, UserName};
use crate::wire::derived::Derived;
use crate::wire::helpers::Helpers;
use crate::wire::stream::Stream;

/// Connections that only parse and describe statements, for each user; see [`Pools::describing`].
const DESCRIBING_CONNECTIONS: u32 = 2;

/// Ordinary statements, or parsing and describing on the authoritative shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Purpose {
    Statements,
    Describing,
    Listening,
}

/// What the pools of all databases share.
pub struct Commons {
    users: Arc<Users>,
    helpers: Helpers,
    derived: Arc<Derived>,
    server_logins_max: usize,
    /// Logins to these hosts: one that does not answer holds up nobody else.
    logins: Mutex<HashMap<Vec<Endpoint>, Arc<Semaphore>>>,
    user_quotas: BTreeMap<UserName, Arc<Quota>>,
    host_connections_max: Option<usize>,
    host_quotas: Mutex<HashMap<Endpoint, Arc<Quota>>>,
}

impl Commons {
    #[must_use]
    pub fn new(config: &Config, helpers: Helpers, derived: Arc<Derived>) -> Self {
        let user_quotas = config.users.iter().filter_map(|(user, caps)| {
            let max = caps.connections_max?.get() as usize;
            let name = format!("connections_max in [users.{user}]");
            Some((user.clone(), Quota::new(name, max)))
        });
        let host_connections_max = config.proxy.host_connections_max;
        Self {
            users: Arc::clone(&config.auth.users),
            helpers,
            derived,
            server_logins_max: config.proxy.server_logins_max.get() as usize,
            logins: Mutex::default(),
            user_quotas: user_quotas.collect(),
            host_connections_max: host_connections_max.map(|max| max.get() as usize),
            host_quotas: Mutex::default(),
        }
    }

    fn logins(&self, hosts: &[Endpoint]) -> Arc<Semaphore> {
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        let made = logins.entry(hosts.to_vec());
        Arc::clone(made.or_insert_with(|| Arc::new(Semaphore::new(self.server_logins_max))))
    }

    /// The caps of these hosts. Which of several a connection will lead to is not known before, so it counts for each.
    fn hosts(&self, hosts: &[Endpoint]) -> Vec<Arc<Quota>> {
        let Some(max) = self.host_connections_max else {
            return Vec::new();
        };
        let mut quotas = self
            .host_quotas
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let quota = |host: &Endpoint| {
            let made = quotas
                .entry(host.clone())
                .or_insert_with(|| Quota::new("host_connections_max in [proxy]".to_owned(), max));
            Arc::clone(made)
        };
        hosts.iter().map(quota).collect()
    }
}

impl Purpose {
    /// As the metrics call it.
    fn name(self) -> &'static str {
        match self {
            Purpose::Statements => "statements",
            Purpose::Describing => "describing",
            Purpose::Listening => "listening",
        }
    }
}

/// All pools of a database.
pub struct Pools {
    database: Arc<Database>,
    commons: Arc<Commons>,
    quota: Option<Arc<Quota>>,
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
        commons: Arc<Commons>,
        workers: usize,
        background: Handle,
    ) -> Result<Self, ConnectError> {
        let encryption = database
            .shards
            .iter()
            .map(|shard| Encryption::load(&shard.primary.tls, &commons.helpers))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            quota: database_quota(&database),
            database,
            commons,
            workers,
            background,
            encryption,
            made: Mutex::default(),
            hubs: Mutex::default(),
        })
    }

    /// For another database on the same servers: what was read from files is shared, and no pool is.
    #[must_use]
    pub fn like(&self, database: Arc<Database>) -> Self {
        Self {
            quota: database_quota(&database),
            database,
            commons: Arc::clone(&self.commons),
            workers: self.workers,
            background: self.background.clone(),
            encryption: self.encryption.clone(),
            made: Mutex::default(),
            hubs: Mutex::default(),
        }
    }

    /// How this user is logged in to a shard.
    pub(super) fn login(&self, shard: ShardId, user: &UserName) -> Option<Login> {
        let configured = self.database.shards.get(shard.index())?;
        let dsn = &configured.primary;
        let user = login_user(dsn, user);
        let secret = self.secret(dsn, &user);
        Some(Login {
            database: self.database.name.clone(),
            shard: configured.name.clone(),
            dsn: Arc::clone(dsn),
            encryption: self.encryption.get(shard.index())?.clone(),
            user: user.as_str().to_owned(),
            secret,
            derived: Arc::clone(&self.commons.derived),
            purpose: Purpose::Statements.name(),
        })
    }

    pub(super) fn connect_timeout(&self, user: &UserName) -> Duration {
        self.database.pool_of(user).connect_timeout
    }

    /// The pool that runs this user's statements on a shard; `None` for a shard that does not exist.
    #[must_use]
    pub fn pool(&self, shard: ShardId, user: &UserName) -> Option<Arc<Pool>> {
        self.find(shard, user, Purpose::Statements)
    }

    /// A small pool of its own on the authoritative shard, under no cap. Whoever holds a server may wait for one of
    /// these: they are only held for a moment, by somebody who waits for nothing else.
    #[must_use]
    pub fn describing(&self, user: &UserName) -> Option<Arc<Pool>> {
        self.find(ShardId(0), user, Purpose::Describing)
    }

    /// Makes the pools whose user is known, where they are to have connections before anybody needs them.
    pub fn warm_up(&self) {
        for shard in &self.database.shards {
            if let Some(user) = shard.primary.user.as_deref().map(UserName::from)
                && self.database.pool_of(&user).size_min > 0
            {
                let _ = self.pool(shard.id, &user);
            }
        }
    }

    fn find(&self, shard: ShardId, user: &UserName, purpose: Purpose) -> Option<Arc<Pool>> {
        let dsn = &self.database.shards.get(shard.index())?.primary;
        let login_user = login_user(dsn, user);
        let key = (shard, login_user.clone(), purpose);
        let mut pools = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&key) {
            return Some(Arc::clone(pool));
        }
        let login = Login {
            purpose: purpose.name(),
            ..self.login(shard, user)?
        };
        let mut settings = self.database.pool_of(&login_user).clone();
        let mut quotas = Vec::new();
        match purpose {
            Purpose::Statements => {
                quotas.extend(self.quota.clone());
                quotas.extend(self.commons.user_quotas.get(&login_user).cloned());
                quotas.extend(self.commons.hosts(&dsn.hosts));
            }
            Purpose::Describing | Purpose::Listening => {
                settings.size = DESCRIBING_CONNECTIONS.try_into().unwrap_or(settings.size);
                settings.size_min = 0;
            }
        }
        let shared = Shared {
            quotas: Quotas(quotas),
            logins: self.commons.logins(&dsn.hosts),
        };
        let workers = self.workers;
        let pool = Pool::start(login, settings, shared, workers, self.background.clone());
        pools.insert(key, Arc::clone(&pool));
        Some(pool)
    }

    /// What listens for this user's clients that read this encoding, on the first shard.
    #[must_use]
    pub fn hub(&self, user: &UserName, encoding: &str) -> Option<Arc<Hub>> {
        let shard = ShardId(0);
        let login_user = login_user(&self.database.shards.get(shard.index())?.primary, user);
        let key = (login_user.clone(), encoding.to_owned());
        let mut hubs = self.hubs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hub) = hubs.get(&key) {
            return Some(Arc::clone(hub));
        }
        let hub = Arc::new(Hub::new(
            Login {
                purpose: Purpose::Listening.name(),
                ..self.login(shard, user)?
            },
            encoding.to_owned(),
            self.database.pool_of(&login_user).clone(),
            self.background.clone(),
        ));
        hubs.insert(key, Arc::clone(&hub));
        Some(hub)
    }

    /// What proves this user to the server.
    fn secret(&self, dsn: &Dsn, login_user: &UserName) -> Option<Secret> {
        match &dsn.password {
            Some(password) => Some(Secret::Plain(password.clone())),
            None => self.commons.users.secret(login_user.as_str()).cloned(),
        }
    }

    /// Logs in for one client alone, as its pool would, with these start-up parameters. No pool counts or keeps it.
    pub async fn connect_apart(
        &self,
        shard: ShardId,
        user: &UserName,
        parameters: &[(&str, &str)],
    ) -> Result<Apart, ConnectError> {
        let Some(login) = self.login(shard, user) else {
            return Err(ConnectError::Unexpected("there is no such shard"));
        };
        let server = connect::connect(login.with(parameters, self.connect_timeout(user))).await?;
        Ok(Apart {
            stream: server.stream,
            reported: server.parameters,
            identity: Identity::new(server.address, login.encryption, server.pid, server.key),
        })
    }

    /// The pool that has run the most statements.
    #[must_use]
    pub fn busiest(&self) -> Option<Arc<Pool>> {
        let pools = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let pools = pools
            .iter()
            .filter(|((_, _, purpose), _)| *purpose == Purpose::Statements);
        let busiest = pools.max_by_key(|(_, pool)| pool.metrics.transactions.count());
        busiest.map(|(_, pool)| Arc::clone(pool))
    }

    /// Drops the pools that no session has and that have no connection: names of users come from clients.
    pub fn sweep(&self) {
        let mut pools = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|_, pool| {
            let used = Arc::strong_count(pool) > 1 || !pool.is_unused();
            if !used {
                pool.publish();
            }
            used
        });
    }

    /// All pools that there are.
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

/// A connection that belongs to one client; see [`Pools::connect_apart`].
pub struct Apart {
    pub stream: Stream,
    /// What the server reported of its parameters, by name.
    pub reported: Vec<(String, String)>,
    pub identity: Arc<Identity>,
}

fn database_quota(database: &Database) -> Option<Arc<Quota>> {
    let max = database.caps.connections_max?;
    let name = format!("connections_max in [databases.{}]", database.name);
    Some(Quota::new(name, max.get() as usize))
}

/// Everybody logs in as the forced user, and shares its pool.
fn login_user(dsn: &Dsn, user: &UserName) -> UserName {
    dsn.user
        .as_deref()
        .map_or_else(|| user.clone(), UserName::from)
}
