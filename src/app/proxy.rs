//! A running proxy: started from a configuration, drained and stopped in order.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::http::{self, Told};
use super::listen::{self, Listener};
use super::memory;
use super::workers::Workers;
use crate::backend::addresses;
use crate::backend::connect::ConnectError;
use crate::backend::pools::{Commons, Pools};
use crate::config::{ANY, Config, Listen, Timeouts};
use crate::error::Report;
use crate::frontend::{self, Database, Databases, Gate, Memory, SWEEP};
use crate::registry::Registry;
use crate::snapshot::{self, SnapshotError, Watch};
use crate::telemetry::Exporter;
use crate::wire::authenticate::Authenticator;
use crate::wire::derived::Derived;
use crate::wire::helpers::Helpers;
use crate::wire::startup::Policy;
use crate::wire::tls::{Acceptor, TlsError};

/// How often the end of the last session is looked for.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// How long sessions that are cut off have for their last words.
const CUT_MAX: Duration = Duration::from_secs(1);

/// From one look at the schemas to the next, however many clients want one.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Why a proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {error}")]
    Listen { address: String, error: io::Error },
    #[error("cannot start a worker thread: {0}")]
    Worker(io::Error),
    #[error("the certificate for clients cannot be used: {0}")]
    ClientTls(TlsError),
    #[error("TLS towards the servers of database \"{database}\" cannot be set up: {error}")]
    ServerTls {
        database: String,
        error: ConnectError,
    },
    #[error("{0}")]
    Snapshot(#[from] SnapshotError),
}

impl StartError {
    /// What the operator can do about it.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        match self {
            StartError::Listen { error, .. } if error.kind() == io::ErrorKind::AddrInUse => {
                Some("stop what listens there, or name another address in the file".to_owned())
            }
            StartError::Snapshot(error) => error.advice(),
            _ => None,
        }
    }
}

pub struct Proxy {
    /// Where clients connect.
    pub addresses: Vec<String>,
    /// Where metrics are served.
    pub http: Option<SocketAddr>,
    gate: Arc<Gate>,
    workers: Arc<Workers>,
    draining: Arc<AtomicBool>,
    listeners: Vec<JoinHandle<()>>,
    duties: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// Checks the shards, binds all addresses and begins to serve. Runs its duties on the current runtime.
    pub async fn start(config: &Config, exporter: Option<Exporter>) -> Result<Self, StartError> {
        raise_open_files();
        let gate = Arc::new(open_gate(config).await?);
        let workers = Workers::start(config.proxy.workers, config.proxy.pin_workers, &gate)
            .map_err(StartError::Worker)?;
        let workers = Arc::new(workers);
        let draining = Arc::new(AtomicBool::new(false));
        let watch = memory::Watch::begin(Arc::clone(&gate));
        let mut duties = Vec::new();
        let mut http = None;
        if let Some(address) = config.proxy.http {
            let told = Told {
                exporter,
                gate: Arc::clone(&gate),
                meters: workers.meters(),
                draining: Arc::clone(&draining),
            };
            let served = http::serve(address, told).await;
            let (address, task) = served.map_err(|error| StartError::Listen {
                address: address.to_string(),
                error,
            })?;
            http = Some(address);
            duties.push(task);
        }
        let mut bound = Vec::new();
        for listen in &config.proxy.listen {
            let listeners = listen::bind(listen).await;
            bound.extend(listeners.map_err(|error| StartError::Listen {
                address: written(listen),
                error,
            })?);
        }
        if has_timeouts(config) {
            duties.push(tokio::spawn(Arc::clone(&gate.registry).watch()));
        }
        duties.push(tokio::spawn(keep_fresh(Arc::clone(&gate))));
        duties.push(tokio::spawn(watch.go_on()));
        duties.push(tokio::spawn(sweep(Arc::clone(&gate))));
        for database in gate.databases.all() {
            if let Some(watch) = Watch::new(&database.known)? {
                let interval = config.proxy.catalog_refresh;
                duties.push(tokio::spawn(watch_schemas(interval, watch, database)));
            }
        }
        if !config.proxy.dns_interval.is_zero() {
            duties.push(tokio::spawn(watch_addresses(
                config.proxy.dns_interval,
                Arc::clone(&gate),
            )));
        }
        let addresses = bound.iter().map(Listener::address).collect();
        let listeners = bound
            .into_iter()
            .map(|listener| listen::accept(listener, Arc::clone(&workers)))
            .collect();
        Ok(Self {
            addresses,
            http,
            gate,
            workers,
            draining,
            listeners,
            duties,
        })
    }

    #[must_use]
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Waits until the last session has ended.
    async fn is_empty_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.gate.registry.count() > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(DRAIN_LOOK).await;
        }
        true
    }

    /// Takes no more clients and lets each session end where it is at rest; ends the rest after `limit`.
    pub async fn drain(mut self, limit: Duration) {
        self.draining.store(true, Ordering::Release);
        let listeners = std::mem::take(&mut self.listeners);
        listeners.iter().for_each(JoinHandle::abort);
        for listener in listeners {
            // Aborted or ended: in both cases its socket is closed. A worker that is busy for long closes it later.
            let _ = tokio::time::timeout(CUT_MAX, listener).await;
        }
        self.gate.registry.end_all();
        if !self.is_empty_within(limit).await {
            let left = self.gate.registry.count();
            tracing::warn!(clients = left, "sessions are cut off at the deadline");
            self.gate.registry.cut_all();
            self.is_empty_within(CUT_MAX).await;
        }
        for database in self.gate.databases.all() {
            database.pools.close();
        }
        self.duties.iter().for_each(JoinHandle::abort);
        if let Ok(workers) = Arc::try_unwrap(self.workers) {
            // The threads wait for nobody, but joining them blocks.
            let stopped = tokio::task::spawn_blocking(move || workers.stop()).await;
            if let Err(error) = stopped {
                tracing::error!(%error, "the workers did not stop in order");
            }
        }
    }
}

fn has_timeouts(config: &Config) -> bool {
    let pools = config
        .databases
        .values()
        .flat_map(|database| std::iter::once(&database.pool).chain(database.user_pools.values()));
    let mut timeouts = pools.map(|pool| pool.timeouts);
    timeouts.any(|timeouts| timeouts != Timeouts::default())
}

fn written(listen: &Listen) -> String {
    match listen {
        Listen::Tcp { host, port } => format!("{host}:{port}"),
        Listen::Unix { folder, port } => format!("{}/.s.PGSQL.{port}", folder.display()),
    }
}

async fn open_gate(config: &Config) -> Result<Gate, StartError> {
    let snapshot = snapshot::load(config).await?;
    let helpers = Helpers::start(config.proxy.workers / 2).map_err(StartError::Worker)?;
    let derived = Derived::new(helpers.clone());
    let commons = Commons::new(config, helpers.clone(), Arc::clone(&derived));
    let commons = Arc::new(commons);
    let mut databases = BTreeMap::new();
    let mut template = None;
    for (name, known) in snapshot.databases {
        let pools = Pools::new(
            Arc::clone(&known.config),
            Arc::clone(&commons),
            config.proxy.workers,
            Handle::current(),
        )
        .map_err(|error| StartError::ServerTls {
            database: name.to_string(),
            error,
        })?;
        if name.as_str() == ANY {
            template = Some((Arc::clone(&known.config), pools));
        } else {
            pools.warm_up();
            databases.insert(name, Arc::new(Database::new(known, pools)));
        }
    }
    let tls = config.tls.as_ref();
    let acceptor = tls
        .map(|tls| Acceptor::load(&tls.cert_file, &tls.key_file, &helpers))
        .transpose();
    Ok(Gate {
        databases: Databases::new(databases, template),
        registry: Arc::new(Registry::default()),
        auth: config.auth.clone(),
        authenticator: Authenticator::new(derived),
        tls: acceptor.map_err(StartError::ClientTls)?,
        policy: Policy {
            tls_required: tls.is_some_and(|tls| tls.required),
        },
        memory: Memory::new(memory::limit(config.proxy.memory_max)),
        ignored_parameters: config.proxy.ignore_startup_parameters.clone(),
        clients_max: config.proxy.clients_max as usize,
        user_caps: config.users.clone(),
        login_timeout: config.proxy.login_timeout,
        message_bytes_max: config.proxy.message_bytes_max,
    })
}

/// Every client and every server is an open file.
pub(super) fn raise_open_files() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
    }
}

/// What is known of the functions of a database grows old.
async fn keep_fresh(gate: Arc<Gate>) {
    loop {
        tokio::time::sleep(frontend::RELOAD).await;
        for database in gate.databases.all() {
            // Each on its own: a server that does not answer holds nobody up.
            tokio::spawn(async move { database.refresh().await });
        }
    }
}

/// Puts away what was made on demand and is not used any more: databases, and pools of users.
async fn sweep(gate: Arc<Gate>) {
    let mut tick = tokio::time::interval(SWEEP);
    loop {
        tick.tick().await;
        gate.databases.sweep();
        for database in gate.databases.all() {
            database.pools.sweep();
        }
    }
}

/// Looks at the schemas of a database's shards: from time to time, and soon when a statement names what is not known.
async fn watch_schemas(interval: Duration, mut watch: Watch, database: Arc<Database>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval), if !interval.is_zero() => {}
            () = database.wants_a_look() => {}
        }
        database.learn(watch.look().await);
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

async fn watch_addresses(interval: Duration, gate: Arc<Gate>) {
    let pools = || {
        let databases = gate.databases.all();
        databases
            .iter()
            .flat_map(|database| database.pools.all())
            .collect()
    };
    addresses::watch(interval, addresses::look_up, pools).await;
}
