//! The connections to one server under one user: a cap over all workers, idle stacks per worker, and one queue of
//! waiting clients.
//!
//! A client that finds no idle connection always queues, and logins put their connection into the pool like everybody
//! else: whatever comes first, a login or a connection given back, serves the first in the queue. A connection leaves
//! the pool when it is dropped, in whatever state; only an idle one can be given back.

mod checkout;
mod error;
mod logins;
mod quotas;
mod seat;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};

use super::connect::{self, Encryption};
use super::server::Server;
use super::settings::Settings;
use super::worker::Worker;
use crate::config::{Dsn, PoolSettings, Reset, Reuse, Secret};
use crate::names::{DatabaseName, ShardName};
use crate::telemetry::{PoolFigures, PoolMetrics};
use crate::wire::derived::Derived;

pub use error::{PoolError, Scarcity};
pub use logins::Lease;
pub(super) use logins::{BACKOFF_MAX, BACKOFF_MIN, is_final, jittered};
pub use quotas::{Quota, Quotas};
use seat::{Answer, Ticket, seat};

/// How often idle connections are looked over for age.
const LOOK_OVER: Duration = Duration::from_secs(1);
/// A connection that was given back less than this ago is lent again without a look at it.
const FRESH: Duration = Duration::from_millis(1);
/// Who came so shortly behind the first in the queue counts as having come together with it.
const TOGETHER: Duration = Duration::from_millis(1);
/// Clients of a queue that are looked at when one is chosen.
const LOOKED_AT_MAX: usize = 64;
/// Distinct sets of settings whose reported parameters are remembered.
const GREETINGS_MAX: usize = 256;

/// Who logs in where.
#[derive(Clone)]
pub struct Login {
    pub database: DatabaseName,
    pub shard: ShardName,
    pub dsn: Arc<Dsn>,
    pub encryption: Encryption,
    pub user: String,
    pub secret: Option<Secret>,
    /// What is already derived of passwords.
    pub derived: Arc<Derived>,
    /// What its connections are for, as the metrics call it.
    pub purpose: &'static str,
}

impl Login {
    /// One login, with these start-up parameters.
    pub(super) fn with<'a>(
        &'a self,
        parameters: &'a [(&'a str, &'a str)],
        timeout: Duration,
    ) -> connect::Login<'a> {
        connect::Login {
            dsn: &self.dsn,
            encryption: &self.encryption,
            user: &self.user,
            secret: self.secret.as_ref(),
            derived: &self.derived,
            parameters,
            timeout,
        }
    }
}

/// What pools share with others.
#[derive(Clone)]
pub struct Shared {
    /// The caps that this pool stands under.
    pub quotas: Quotas,
    /// Logins to these hosts that may be under way, of all pools.
    pub logins: Arc<Semaphore>,
}

pub struct Pool {
    login: Login,
    settings: PoolSettings,
    shared: Shared,
    /// Where logins and the keeper run: not on a worker. Who borrows a connection takes it to its own.
    background: Handle,
    pub metrics: PoolMetrics,
    state: Mutex<State>,
    /// Rings when an idle connection has something to say.
    alarm: Arc<Alarm>,
    greetings: Mutex<HashMap<Settings, Greeting>>,
    /// What the connect query sets on every server.
    baseline: OnceLock<Settings>,
}

/// What a client gets that asks for a server.
enum Turn {
    Server(Box<Server>),
    Wait(Answer),
    Closed,
}

#[derive(Debug, Default)]
struct State {
    /// One queue for each worker, the most recently used at the back.
    idle: Vec<VecDeque<Box<Server>>>,
    /// All connections: idle, lent, and logins under way.
    total: usize,
    connecting: usize,
    waiting: VecDeque<Waiter>,
    failures: u32,
    failing_since: Option<Instant>,
    /// A retry is scheduled; until then nobody else connects.
    backing_off: bool,
    closed: bool,
    /// A server has let its user in once.
    was_used: bool,
}

/// A client in the queue.
#[derive(Debug)]
struct Waiter {
    answer: Ticket,
    since: Instant,
    /// The worker of the client.
    worker: usize,
}

impl State {
    /// Forgets those who gave up.
    fn live(&mut self) -> &mut VecDeque<Waiter> {
        self.waiting.retain(|waiter| !waiter.answer.is_closed());
        &mut self.waiting
    }

    /// Who is next for a server of this worker: the first in the queue, or a client of the same worker that came
    /// together with it. Then neither the connection nor a wake-up must go to another thread.
    fn next_waiter(&mut self, home: usize) -> Option<Waiter> {
        let first = self.waiting.front()?.since;
        let together = |waiter: &&Waiter| waiter.since.saturating_duration_since(first) < TOGETHER;
        let waiting = self.waiting.iter().take(LOOKED_AT_MAX);
        let mut candidates = waiting.take_while(together);
        let at = candidates.position(|waiter| waiter.worker == home);
        self.waiting.remove(at.unwrap_or(0))
    }

    /// The queue whose first connection has rested longest.
    fn longest_rested(&mut self) -> Option<&mut VecDeque<Box<Server>>> {
        let idle = self.idle.iter_mut().filter(|idle| !idle.is_empty());
        idle.min_by_key(|idle| idle.front().map(|server| server.taken()))
    }
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
    /// ParameterStatus of all of them: every login sends it.
    pub told: Arc<[u8]>,
}

impl Pool {
    /// A pool without connections. Its keeper runs in the background until the pool is dropped.
    #[must_use]
    pub fn start(
        login: Login,
        settings: PoolSettings,
        shared: Shared,
        workers: usize,
        background: Handle,
    ) -> Arc<Self> {
        let metrics = PoolMetrics::new(
            login.database.as_str(),
            login.shard.as_str(),
            &login.user,
            login.purpose,
        );
        let idle = (0..workers.max(1)).map(|_| VecDeque::new()).collect();
        let pool = Arc::new(Self {
            login,
            settings,
            shared,
            background,
            metrics,
            state: Mutex::new(State {
                idle,
                ..State::default()
            }),
            alarm: Arc::default(),
            greetings: Mutex::default(),
            baseline: OnceLock::new(),
        });
        for quota in &pool.shared.quotas.0 {
            quota.join(&pool);
        }
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

    pub(super) fn settings(&self) -> &PoolSettings {
        &self.settings
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings what there is to be told of it to a scrape. Of a user whom no server knows nothing is told: a stranger
    /// chooses such a name.
    pub fn publish(&self) {
        if self.state().was_used {
            self.metrics.publish(self.figures());
        }
    }

    #[must_use]
    pub fn figures(&self) -> PoolFigures {
        let state = self.state();
        let idle = state.idle.iter().map(VecDeque::len).sum::<usize>();
        PoolFigures {
            size: self.size(),
            idle,
            active: state.total.saturating_sub(idle + state.connecting),
            connecting: state.connecting,
            waiting: state
                .waiting
                .iter()
                .filter(|waiter| !waiter.answer.is_closed())
                .count(),
        }
    }

    /// It has no connection, and none is on its way.
    pub(super) fn is_unused(&self) -> bool {
        let state = self.state();
        state.total == 0 && !state.backing_off && state.waiting.is_empty()
    }

    fn size(&self) -> usize {
        self.settings.size.get() as usize
    }

    /// Borrows a server of this worker that was at work a moment ago, where nobody waits: the common case, which needs
    /// no future.
    pub fn checkout_at_once(&self, worker: &Worker) -> Option<Box<Server>> {
        let mut state = self.state();
        let simple = self.settings.reuse == Reuse::Lifo && !self.settings.check_after.is_zero();
        if !simple || state.closed || !state.waiting.is_empty() {
            return None;
        }
        let idle = state.idle.get_mut(worker.index)?;
        let asked = Instant::now();
        let fresh =
            |server: &Server| server.is_at_home(worker.index) && asked < server.taken() + FRESH;
        if !idle.back().is_some_and(|server| fresh(server)) {
            return None;
        }
        let mut server = idle.pop_back()?;
        drop(state);
        server.touch(asked);
        Some(server)
    }

    /// Why there is no connection for a client.
    fn scarcity(&self) -> Scarcity {
        let (total, connecting) = {
            let state = self.state();
            (state.total, state.connecting)
        };
        let quotas = &self.shared.quotas.0;
        if total < self.size()
            && let Some(quota) = quotas.iter().find(|quota| quota.is_full())
        {
            return Scarcity::Cap(quota.name.clone());
        }
        if connecting > 0 {
            return Scarcity::Logins;
        }
        Scarcity::Pool(self.size())
    }

    /// An idle connection, of this worker before those of others; a place in the queue while somebody waits.
    fn take_or_queue(&self, worker: usize, asked: Instant) -> Turn {
        let mut state = self.state();
        if state.closed {
            return Turn::Closed;
        }
        while state
            .waiting
            .front()
            .is_some_and(|waiter| waiter.answer.is_closed())
        {
            state.waiting.pop_front();
        }
        if state.waiting.is_empty() {
            let found = match self.settings.reuse {
                Reuse::Lifo => {
                    let own = state.idle.get_mut(worker).and_then(VecDeque::pop_back);
                    own.or_else(|| state.idle.iter_mut().find_map(VecDeque::pop_back))
                }
                Reuse::RoundRobin => state.longest_rested().and_then(VecDeque::pop_front),
            };
            if let Some(server) = found {
                return Turn::Server(server);
            }
        }
        let (answer, receiver) = seat();
        state.waiting.push_back(Waiter {
            answer,
            since: asked,
            worker,
        });
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
        if self.settings.reset == Reset::Always {
            tokio::spawn(reset_and_take_back(Arc::clone(self), server));
        } else {
            self.take_back(server, now);
        }
    }

    fn take_back(self: &Arc<Self>, mut server: Box<Server>, now: Instant) {
        if server.identity().is_doubtful() {
            tokio::spawn(take_back_after_cancel(Arc::clone(self), server));
            return;
        }
        server.touch(now);
        if self.is_better_closed() {
            server.say_goodbye();
            return;
        }
        self.offer(server);
    }

    /// Nobody here waits, and the connection is one too many, or a client of another pool has waited for long.
    fn is_better_closed(self: &Arc<Self>) -> bool {
        if self.settings.reserve_size == 0 && self.shared.quotas.0.is_empty() {
            return false;
        }
        let since = self.waiting_since();
        let spare = since.is_none() && self.state().total > self.size();
        spare || self.shared.quotas.owe(self, since)
    }

    /// When the first in the queue came.
    fn waiting_since(&self) -> Option<Instant> {
        self.state().live().front().map(|waiter| waiter.since)
    }

    /// Since when the connection has been unused that will be closed first.
    fn resting_since(&self) -> Option<Instant> {
        let state = self.state();
        let oldest = state.idle.iter().filter_map(VecDeque::front);
        oldest.map(|server| server.taken()).min()
    }

    fn close_one_idle(&self) {
        let oldest = {
            let mut state = self.state();
            state.longest_rested().and_then(VecDeque::pop_front)
        };
        if let Some(mut server) = oldest {
            server.say_goodbye();
        }
    }

    /// Gives a free server to the first in the queue, or parks it.
    fn offer(&self, server: Box<Server>) {
        let mut server = server;
        let mut state = self.state();
        while let Some(waiter) = state.next_waiter(server.home) {
            // A waiter that gave up hands the server back through the error.
            match waiter.answer.send(Ok(server)) {
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
        // A connection that was just made has no home yet; any queue will do, its first borrower moves it.
        let stack = if server.home < state.idle.len() {
            server.home
        } else {
            0
        };
        if let Some(stack) = state.idle.get_mut(stack) {
            stack.push_back(server);
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

    /// What a server reports to a client that asks for these settings, if one was asked before.
    #[must_use]
    pub fn greeting(&self, wanted: &Settings) -> Option<Greeting> {
        let greetings = self.greetings.lock();
        let greetings = greetings.unwrap_or_else(PoisonError::into_inner);
        greetings.get(wanted).cloned()
    }

    /// What the connect query set on the first server.
    #[must_use]
    pub fn baseline(&self) -> Option<&Settings> {
        self.baseline.get()
    }

    pub fn learn_greeting(&self, wanted: Settings, greeting: Greeting) {
        let greetings = self.greetings.lock();
        let mut greetings = greetings.unwrap_or_else(PoisonError::into_inner);
        if greetings.len() >= GREETINGS_MAX {
            greetings.clear();
        }
        greetings.insert(wanted, greeting);
    }

    /// Closes what must not stay idle: connections with something to say, and those past their time.
    pub(super) fn look_over(&self) {
        let waker = Waker::from(Arc::clone(&self.alarm));
        let mut cx = Context::from_waker(&waker);
        let now = Instant::now();
        let mut closed = Vec::new();
        let mut state = self.state();
        // Those in front go with the next who asks; those behind somebody who waits for long would pile up.
        state.live();
        let mut spare = state.total.saturating_sub(self.settings.size_min as usize);
        let idle_timeout = self.settings.idle_timeout;
        for idle in &mut state.idle {
            for at in (0..idle.len()).rev() {
                let Some(server) = idle.get_mut(at) else {
                    break;
                };
                let unused = !idle_timeout.is_zero() && now - server.taken() > idle_timeout;
                let dead = !server.is_quiet(&mut cx) || server.is_expired(now);
                if dead || (unused && spare > 0) {
                    spare = spare.saturating_sub(1);
                    closed.extend(idle.remove(at));
                }
            }
        }
        drop(state);
        for mut server in closed {
            server.say_goodbye();
        }
    }
}

/// The server was signalled when the request has ended, but may not have looked at the signal yet: then it hits a
/// statement that does no harm.
async fn take_back_after_cancel(pool: Arc<Pool>, mut server: Box<Server>) {
    // The canceller closes its connection when the signal was sent, and is bounded in time itself.
    while server.identity().is_being_cancelled() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.identity().is_sure_again();
    let limit = pool.settings.connect_timeout;
    let absorbed = tokio::time::timeout(limit, server.run_hidden(b"SELECT 1")).await;
    if matches!(absorbed, Ok(Ok(_))) && server.is_idle() {
        pool.take_back(server, Instant::now());
    }
}

/// Looks after the idle connections of a pool for as long as there is one.
async fn keep(pool: Weak<Pool>, alarm: Arc<Alarm>) {
    loop {
        let _ = tokio::time::timeout(LOOK_OVER, alarm.notify.notified()).await;
        alarm.rung.store(false, Ordering::Release);
        let Some(pool) = pool.upgrade() else { return };
        pool.look_over();
        // Those that are to be kept, and what a client in the queue may have now.
        pool.start_logins();
    }
}

async fn reset_and_take_back(pool: Arc<Pool>, mut server: Box<Server>) {
    if server.reset(&pool.settings).await {
        pool.take_back(server, Instant::now());
    }
}
