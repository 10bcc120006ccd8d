//! The connections to one server under one user: a cap over all workers, idle stacks per worker, and one queue of
//! waiting clients.
//!
//! A client that finds no idle connection always queues, and logins put their connection into the pool like everybody
//! else: whatever comes first, a login or a connection given back, serves the first in the queue. A connection leaves
//! the pool when it is dropped, in whatever state; only an idle one can be given back.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use super::connect::{self, ConnectError, Encryption};
use super::server::Server;
use super::settings::Settings;
use super::worker::Worker;
use crate::config::{Dsn, PoolSettings, Secret, SslMode};
use crate::error::{Blame, Report, SqlState};
use crate::names::{DatabaseName, ShardName};
use crate::telemetry::{PoolFigures, PoolMetrics};

/// First pause after a failed login; it doubles with every further one.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How often idle connections are looked over for age.
const LOOK_OVER: Duration = Duration::from_secs(1);
/// A connection that was given back less than this ago is lent again without a look at it.
const FRESH: Duration = Duration::from_millis(1);
/// Distinct sets of settings whose reported parameters are remembered.
const GREETINGS_MAX: usize = 256;

/// Why no server could be borrowed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PoolError {
    #[error("no server connection became free within {} ms", .waited.as_millis())]
    WaitedInVain {
        shard: ShardName,
        size: usize,
        waited: Duration,
    },
    #[error("no server of shard \"{shard}\" can be used: {error}")]
    Unreachable {
        shard: ShardName,
        error: Arc<ConnectError>,
    },
    #[error("{error}")]
    LoginRefused { error: Arc<ConnectError> },
    #[error("the pool is closed")]
    Closed,
}

impl Report for PoolError {
    fn sqlstate(&self) -> SqlState {
        match self {
            PoolError::WaitedInVain { .. } => SqlState::TOO_MANY_CONNECTIONS,
            PoolError::Unreachable { error, .. } => match **error {
                // A server that answers has its own reason.
                ConnectError::Refused { sqlstate, .. } => sqlstate,
                _ => SqlState::CANNOT_CONNECT_NOW,
            },
            PoolError::LoginRefused { error } => error.sqlstate(),
            PoolError::Closed => SqlState::ADMIN_SHUTDOWN,
        }
    }
    fn blame(&self) -> Blame {
        match self {
            PoolError::WaitedInVain { .. } | PoolError::Closed => Blame::Proxy,
            PoolError::Unreachable { .. } | PoolError::LoginRefused { .. } => Blame::Server,
        }
    }
    fn detail(&self) -> Option<String> {
        match self {
            PoolError::WaitedInVain { shard, size, .. } => Some(format!(
                "All {size} connections of the pool for shard \"{shard}\" are in use."
            )),
            PoolError::Unreachable { error, .. } | PoolError::LoginRefused { error } => {
                error.detail()
            }
            PoolError::Closed => None,
        }
    }
    fn advice(&self) -> Option<String> {
        match self {
            PoolError::WaitedInVain { .. } => Some(
                "Look for long transactions; raise size or wait_timeout in the section [pool]."
                    .into(),
            ),
            PoolError::Unreachable { .. } => {
                Some("pgherd tries again with the next statement.".into())
            }
            PoolError::LoginRefused { error } => error.advice(),
            PoolError::Closed => None,
        }
    }
}

/// Who logs in where.
#[derive(Clone)]
pub struct Login {
    pub database: DatabaseName,
    pub shard: ShardName,
    pub dsn: Arc<Dsn>,
    pub encryption: Encryption,
    pub user: String,
    pub secret: Option<Secret>,
    /// What its connections are for, as the metrics call it.
    pub purpose: &'static str,
}

pub struct Pool {
    login: Login,
    settings: PoolSettings,
    /// Where logins and the keeper run: not on a worker.
    background: Handle,
    pub metrics: PoolMetrics,
    state: Mutex<State>,
    /// Rings when an idle connection has something to say.
    alarm: Arc<Alarm>,
    greetings: Mutex<HashMap<Arc<Settings>, Arc<[(String, String)]>>>,
}

type Answer = oneshot::Receiver<Result<Box<Server>, PoolError>>;

/// What a client gets that asks for a server.
enum Turn {
    Server(Box<Server>),
    Wait(Answer),
    Closed,
}

#[derive(Debug, Default)]
struct State {
    /// One stack for each worker, the most recently used on top.
    #[allow(clippy::vec_box, reason = "a server is large and moves often")]
    idle: Vec<Vec<Box<Server>>>,
    /// All connections: idle, lent, and logins under way.
    total: usize,
    connecting: usize,
    waiting: VecDeque<oneshot::Sender<Result<Box<Server>, PoolError>>>,
    failures: u32,
    failing_since: Option<Instant>,
    /// A retry is scheduled; until then nobody else connects.
    backing_off: bool,
    closed: bool,
}

/// Wakes the keeper of the idle connections; the waker of each of them.
#[derive(Debug, Default)]
struct Alarm {
    notify: Notify,
    rung: AtomicBool,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.notify.notify_one();
        }
    }
}

/// What clients with equal settings are told at login. They share the settings, so that a server that goes from one to
/// the other need not compare them.
#[derive(Debug, Clone)]
pub struct Greeting {
    pub settings: Arc<Settings>,
    pub reported: Arc<[(String, String)]>,
}

/// A place in the pool; it is free again when this is dropped.
#[derive(Debug)]
pub struct Lease(Weak<Pool>);

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.state().total -= 1;
            pool.start_logins();
        }
    }
}

impl Pool {
    /// A pool without connections. Its keeper runs in the background until the pool is dropped.
    #[must_use]
    pub fn start(
        login: Login,
        settings: PoolSettings,
        workers: usize,
        background: Handle,
    ) -> Arc<Self> {
        let metrics = PoolMetrics::new(
            login.database.as_str(),
            login.shard.as_str(),
            &login.user,
            login.purpose,
        );
        let idle = (0..workers.max(1)).map(|_| Vec::new()).collect();
        let pool = Arc::new(Self {
            login,
            settings,
            background,
            metrics,
            state: Mutex::new(State {
                idle,
                ..State::default()
            }),
            alarm: Arc::default(),
            greetings: Mutex::default(),
        });
        pool.background
            .spawn(keep(Arc::downgrade(&pool), Arc::clone(&pool.alarm)));
        pool
    }

    #[must_use]
    pub fn shard(&self) -> &ShardName {
        &self.login.shard
    }

    #[must_use]
    pub fn dsn(&self) -> &Arc<Dsn> {
        &self.login.dsn
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn figures(&self) -> PoolFigures {
        let state = self.state();
        let idle = state.idle.iter().map(Vec::len).sum::<usize>();
        PoolFigures {
            size: self.size(),
            idle,
            active: state.total.saturating_sub(idle + state.connecting),
            connecting: state.connecting,
            waiting: state
                .waiting
                .iter()
                .filter(|waiter| !waiter.is_closed())
                .count(),
        }
    }

    fn size(&self) -> usize {
        self.settings.size.get() as usize
    }

    /// Borrows a server of this worker that was at work a moment ago, where nobody waits: the common case, which needs
    /// no future.
    pub fn checkout_at_once(&self, worker: &Worker) -> Option<Box<Server>> {
        let mut state = self.state();
        if state.closed || !state.waiting.is_empty() {
            return None;
        }
        let idle = state.idle.get_mut(worker.index)?;
        let asked = Instant::now();
        let mut server = idle
            .pop_if(|server| server.is_at_home(worker.index) && asked < server.taken() + FRESH)?;
        drop(state);
        server.touch(asked);
        Some(server)
    }

    /// Borrows a server; waits in the order of arrival when none is free.
    pub async fn checkout(self: &Arc<Self>, worker: &Worker) -> Result<Box<Server>, PoolError> {
        let mut asked = Instant::now();
        loop {
            let server = match self.take_or_queue(worker.index) {
                Turn::Server(mut server) => {
                    // Dropping a connection that is not silent takes the lock again, so it happens here.
                    let fresh = asked < server.taken() + FRESH;
                    if !fresh && !server.is_quiet(&mut Context::from_waker(Waker::noop())) {
                        continue;
                    }
                    server
                }
                Turn::Closed => return Err(PoolError::Closed),
                Turn::Wait(answer) => {
                    let server = self.wait(answer, asked).await?;
                    asked = Instant::now();
                    server
                }
            };
            // A connection that cannot change its runtime is broken: the next one, then.
            if let Some(mut server) = server.move_to(worker.index) {
                server.touch(asked);
                return Ok(server);
            }
        }
    }

    async fn wait(
        self: &Arc<Self>,
        answer: Answer,
        asked: Instant,
    ) -> Result<Box<Server>, PoolError> {
        self.start_logins();
        let left = self.settings.wait_timeout.saturating_sub(asked.elapsed());
        let answer = tokio::time::timeout(left, answer).await;
        self.metrics.wait_seconds.record(asked.elapsed());
        match answer {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(PoolError::Closed),
            Err(_) => {
                self.metrics.wait_timeouts.increment(1);
                let shard = self.login.shard.clone();
                Err(PoolError::WaitedInVain {
                    shard,
                    size: self.size(),
                    waited: asked.elapsed(),
                })
            }
        }
    }

    /// An idle connection, of this worker before those of others; a place in the queue while somebody waits.
    fn take_or_queue(&self, worker: usize) -> Turn {
        let mut state = self.state();
        if state.closed {
            return Turn::Closed;
        }
        while state
            .waiting
            .front()
            .is_some_and(oneshot::Sender::is_closed)
        {
            state.waiting.pop_front();
        }
        if state.waiting.is_empty() {
            let own = state.idle.get_mut(worker).and_then(Vec::pop);
            if let Some(server) = own.or_else(|| state.idle.iter_mut().find_map(Vec::pop)) {
                return Turn::Server(server);
            }
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push_back(sender);
        Turn::Wait(receiver)
    }

    /// Takes a server back. One that is not idle, too old, or about to be cancelled is closed instead.
    pub fn give_back(self: &Arc<Self>, mut server: Box<Server>) {
        let now = Instant::now();
        self.metrics.transactions.add(1);
        self.metrics
            .transaction_seconds
            .record(now - server.taken());
        if !server.is_idle() || server.is_expired(now) {
            return;
        }
        // They concern nobody but the last borrower.
        let _ = server.take_failed_parses();
        if server.identity().is_being_cancelled() {
            self.background
                .spawn(give_back_after_cancel(Arc::clone(self), server));
            return;
        }
        server.touch(now);
        self.offer(server);
    }

    /// Ends a server that works for nobody. Its place is free when it was told so.
    pub fn abandon(&self, server: Box<Server>) {
        let cancel = server.identity().begin_cancel();
        self.background.spawn(async move {
            cancel.send().await;
            drop(server);
        });
    }

    /// Gives a free server to the first in the queue, or parks it.
    fn offer(&self, server: Box<Server>) {
        let mut server = server;
        let mut state = self.state();
        while let Some(waiter) = state.waiting.pop_front() {
            // A waiter that gave up hands the server back through the error.
            match waiter.send(Ok(server)) {
                Ok(()) => return,
                Err(Ok(returned)) => server = returned,
                Err(Err(_)) => return,
            }
        }
        if state.closed {
            drop(state);
            drop(server);
            return;
        }
        // A connection that was just made has no home yet; any stack will do, its first borrower moves it.
        let stack = if server.home < state.idle.len() {
            server.home
        } else {
            0
        };
        if let Some(stack) = state.idle.get_mut(stack) {
            stack.push(server);
        }
    }

    /// Begins as many logins as there are clients without one, within the cap.
    fn start_logins(self: &Arc<Self>) {
        let count = {
            let mut state = self.state();
            state.waiting.retain(|waiter| !waiter.is_closed());
            let wanted = state.waiting.len().saturating_sub(state.connecting);
            let room = self.size().saturating_sub(state.total);
            let parallel =
                (self.settings.connect_parallelism.get() as usize).saturating_sub(state.connecting);
            // While logins fail, one at a time finds out whether that is over.
            let parallel = if state.failures > 0 {
                parallel.min(usize::from(state.connecting == 0))
            } else {
                parallel
            };
            let count = if state.backing_off || state.closed {
                0
            } else {
                wanted.min(room).min(parallel)
            };
            state.total += count;
            state.connecting += count;
            count
        };
        for _ in 0..count {
            self.login_runtime().spawn(Arc::clone(self).log_in());
        }
    }

    /// A TLS connection cannot leave the runtime where it was made, so it is made where it is wanted.
    fn login_runtime(&self) -> Handle {
        let plain = self.login.dsn.tls.mode == SslMode::Disable;
        if plain {
            self.background.clone()
        } else {
            Handle::try_current().unwrap_or(self.background.clone())
        }
    }

    async fn log_in(self: Arc<Self>) {
        // Counts the connection from the first moment; dropped on failure, also when this task is.
        let lease = Lease(Arc::downgrade(&self));
        let connecting = Connecting(Arc::clone(&self));
        let login = &self.login;
        let attempt = connect::connect(connect::Login {
            dsn: &login.dsn,
            encryption: &login.encryption,
            user: &login.user,
            secret: login.secret.as_ref(),
            parameters: &[],
            timeout: self.settings.connect_timeout,
        });
        match attempt.await {
            Ok(logged_in) => {
                self.metrics.logins_ok.increment(1);
                {
                    let mut state = self.state();
                    state.failures = 0;
                    state.failing_since = None;
                }
                drop(connecting);
                self.offer(Box::new(Server::new(
                    logged_in,
                    login.encryption.clone(),
                    lease,
                    self.settings.lifetime,
                )));
                self.start_logins();
            }
            Err(error) => {
                self.metrics.logins_failed.increment(1);
                drop(connecting);
                self.login_failed(error);
                drop(lease);
            }
        }
    }

    fn login_failed(self: &Arc<Self>, error: ConnectError) {
        let error = Arc::new(error);
        let (pause, give_up) = {
            let mut state = self.state();
            state.failures = state.failures.saturating_add(1);
            let since = *state.failing_since.get_or_insert_with(Instant::now);
            let others = state.total > state.connecting + 1;
            let pause = BACKOFF_MIN
                .saturating_mul(1 << state.failures.min(6))
                .min(BACKOFF_MAX);
            state.backing_off = true;
            (
                pause,
                is_final(&error) || (!others && since.elapsed() >= self.settings.connect_timeout),
            )
        };
        tracing::warn!(
            database = %self.login.database, shard = %self.login.shard, user = %self.login.user, %error,
            "login to the server failed"
        );
        if give_up {
            self.fail_waiting(&error);
        }
        self.background
            .spawn(retry(Arc::downgrade(self), jittered(pause)));
    }

    fn fail_waiting(&self, error: &Arc<ConnectError>) {
        let waiting = std::mem::take(&mut self.state().waiting);
        for waiter in waiting {
            let error = Arc::clone(error);
            let answer = if is_final(&error) {
                PoolError::LoginRefused { error }
            } else {
                PoolError::Unreachable {
                    shard: self.login.shard.clone(),
                    error,
                }
            };
            // A waiter that gave up needs no answer.
            let _ = waiter.send(Err(answer));
        }
    }

    /// Lends nothing more; connections end when they are given back, idle ones now.
    pub fn close(&self) {
        let (idle, waiting) = {
            let mut state = self.state();
            state.closed = true;
            let idle: Vec<Box<Server>> = state.idle.iter_mut().flat_map(std::mem::take).collect();
            (idle, std::mem::take(&mut state.waiting))
        };
        for mut server in idle {
            server.say_goodbye();
        }
        drop(waiting);
    }

    /// What a server reports to a client with these settings, if one was asked before.
    #[must_use]
    pub fn greeting(&self, settings: &Settings) -> Option<Greeting> {
        let greetings = self.greetings.lock();
        let greetings = greetings.unwrap_or_else(PoisonError::into_inner);
        let (settings, reported) = greetings.get_key_value(settings)?;
        Some(Greeting {
            settings: Arc::clone(settings),
            reported: Arc::clone(reported),
        })
    }

    pub fn learn_greeting(&self, greeting: &Greeting) {
        let greetings = self.greetings.lock();
        let mut greetings = greetings.unwrap_or_else(PoisonError::into_inner);
        if greetings.len() >= GREETINGS_MAX {
            greetings.clear();
        }
        greetings.insert(
            Arc::clone(&greeting.settings),
            Arc::clone(&greeting.reported),
        );
    }

    /// Closes what must not stay idle: connections with something to say, and those past their time.
    pub(super) fn look_over(&self) {
        let waker = Waker::from(Arc::clone(&self.alarm));
        let mut cx = Context::from_waker(&waker);
        let now = Instant::now();
        let mut closed = Vec::new();
        let mut state = self.state();
        for stack in &mut state.idle {
            closed.extend(stack.extract_if(.., |server| {
                let rested = now - server.taken();
                !server.is_quiet(&mut cx)
                    || server.is_expired(now)
                    || (!self.settings.idle_timeout.is_zero()
                        && rested > self.settings.idle_timeout)
            }));
        }
        drop(state);
        for mut server in closed {
            server.say_goodbye();
        }
    }
}

/// A login under way; counted off when it ends, however it ends.
struct Connecting(Arc<Pool>);

impl Drop for Connecting {
    fn drop(&mut self) {
        self.0.state().connecting -= 1;
    }
}

/// Waiting does not help: the server answered, and it was no.
pub(super) fn is_final(error: &ConnectError) -> bool {
    match error {
        ConnectError::Refused { sqlstate, .. } => !matches!(
            *sqlstate,
            SqlState::CANNOT_CONNECT_NOW | SqlState::TOO_MANY_CONNECTIONS
        ),
        ConnectError::Unreachable { .. }
        | ConnectError::TimedOut { .. }
        | ConnectError::NoneFits { .. }
        | ConnectError::Lost(_) => false,
        _ => true,
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..1.0))
}

async fn retry(pool: Weak<Pool>, pause: Duration) {
    tokio::time::sleep(pause).await;
    if let Some(pool) = pool.upgrade() {
        pool.state().backing_off = false;
        pool.start_logins();
    }
}

async fn give_back_after_cancel(pool: Arc<Pool>, server: Box<Server>) {
    // The canceller closes its connection when the signal was sent, and is bounded in time itself.
    while server.identity().is_being_cancelled() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    pool.offer(server);
}

/// Looks after the idle connections of a pool for as long as there is one.
async fn keep(pool: Weak<Pool>, alarm: Arc<Alarm>) {
    loop {
        let _ = tokio::time::timeout(LOOK_OVER, alarm.notify.notified()).await;
        alarm.rung.store(false, Ordering::Release);
        let Some(pool) = pool.upgrade() else { return };
        pool.look_over();
    }
}
