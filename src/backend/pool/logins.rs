//! Logins of a pool: as many as clients wait for, within its size, the caps that it stands under, and what the server
//! can take at once. While logins fail, one at a time finds out whether that is over, after pauses that grow.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::quotas::Places;
use super::{Pool, PoolError, Quotas};
use crate::backend::connect::{self, ConnectError};
use crate::backend::server::Server;
use crate::error::SqlState;

/// First pause after a failed login; it doubles with every further one.
pub(in crate::backend) const BACKOFF_MIN: Duration = Duration::from_millis(50);
pub(in crate::backend) const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// A place in the pool and under its caps; free again when this is dropped.
pub struct Lease {
    pool: Weak<Pool>,
    /// Dropped last, so that the pool queues for it behind those who already do.
    _places: Places,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.state().total -= 1;
            pool.start_logins();
        }
    }
}

/// How many logins are to be begun.
struct Claim {
    count: usize,
    /// Clients wait for them.
    urgent: bool,
}

impl Pool {
    /// Begins as many logins as there are clients without one, within the caps.
    pub(super) fn start_logins(self: &Arc<Self>) {
        let claim = self.claim_logins();
        for begun in 0..claim.count {
            match self.shared.quotas.take() {
                Ok(places) => {
                    let lease = Lease {
                        pool: Arc::downgrade(self),
                        _places: places,
                    };
                    self.background.spawn(Arc::clone(self).log_in(lease));
                }
                Err(quota) => {
                    let left = claim.count - begun;
                    {
                        let mut state = self.state();
                        state.total -= left;
                        state.connecting -= left;
                    }
                    if claim.urgent {
                        Quotas::wait(quota, self);
                    }
                    return;
                }
            }
        }
    }

    /// Counts the logins that are to begin now.
    fn claim_logins(&self) -> Claim {
        let mut state = self.state();
        // Of a full pool nobody gets more, and every client that queues asks: that must not cost a look at all others.
        let reserve = self.settings.reserve_size as usize;
        if state.total >= self.size() + reserve {
            return Claim {
                count: 0,
                urgent: false,
            };
        }
        let longest = state.live().front().map(|waiter| waiter.since.elapsed());
        let wanted = state.waiting.len().saturating_sub(state.connecting);
        let kept = (self.settings.size_min as usize).saturating_sub(state.total);
        let mut size = self.size();
        if longest.is_some_and(|waited| waited >= self.settings.reserve_timeout) {
            size += reserve;
        }
        let room = size.saturating_sub(state.total);
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
            wanted.max(kept).min(room).min(parallel)
        };
        state.total += count;
        state.connecting += count;
        Claim {
            count,
            urgent: wanted > 0,
        }
    }

    /// The lease counts the connection from the first moment; dropped on failure, also when this task is.
    async fn log_in(self: Arc<Self>, lease: Lease) {
        let connecting = Connecting(Arc::clone(&self));
        // Closed by nobody.
        let _permit = self.shared.logins.acquire().await;
        match self.connect(lease).await {
            Ok(server) => {
                self.metrics.logins_ok.increment(1);
                {
                    let mut state = self.state();
                    state.failures = 0;
                    state.failing_since = None;
                    state.was_used = true;
                }
                drop(connecting);
                self.offer(server);
                self.start_logins();
            }
            Err((error, lease)) => {
                self.metrics.logins_failed.increment(1);
                drop(connecting);
                self.login_failed(error);
                drop(lease);
            }
        }
    }

    /// A connection on which the connect query was run.
    async fn connect(&self, lease: Lease) -> Result<Box<Server>, (ConnectError, Option<Lease>)> {
        let login = &self.login;
        let attempt = connect::connect(login.with(&[], self.settings.connect_timeout));
        let logged_in = match attempt.await {
            Ok(logged_in) => logged_in,
            Err(error) => return Err((error, Some(lease))),
        };
        let server = Server::new(
            logged_in,
            login.encryption.clone(),
            lease,
            jittered_lifetime(self.settings.lifetime),
        );
        let mut server = Box::new(server);
        if let Some(query) = &self.settings.connect_query {
            let limit = self.settings.connect_timeout;
            let settings = tokio::time::timeout(limit, server.prepare_for_all(query)).await;
            let settings = settings.unwrap_or_else(|_| {
                let error = std::io::Error::from(std::io::ErrorKind::TimedOut);
                Err(ConnectError::Lost(error))
            });
            match settings {
                Ok(settings) => self.baseline.set(settings).unwrap_or_default(),
                Err(error) => return Err((error, None)),
            }
        }
        Ok(server)
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
            // A waiter that gave up needs no answer.
            let answer = PoolError::of_login(&self.login.shard, Arc::clone(error));
            let _ = waiter.answer.send(Err(answer));
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
pub(in crate::backend) fn is_final(error: &ConnectError) -> bool {
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

/// Connections that were made together shall not end together.
fn jittered_lifetime(lifetime: Duration) -> Duration {
    lifetime.mul_f64(rand::random_range(0.9..=1.0))
}

pub(in crate::backend) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..1.0))
}

async fn retry(pool: Weak<Pool>, pause: Duration) {
    tokio::time::sleep(pause).await;
    if let Some(pool) = pool.upgrade() {
        pool.state().backing_off = false;
        pool.start_logins();
    }
}
