//! A client's way to a server: one that is free at once, or a place in the queue.
//!
//! Written by hand and not as an async function, since every client has room for one: it stays small, and waiting needs
//! no memory.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use super::seat::Answer;
use super::{FRESH, Pool, PoolError, Turn};
use crate::backend::server::Server;
use crate::backend::worker::{Timer, Worker};

/// Ready with a server, or with the reason why there is none.
pub struct Checkout<'a> {
    pool: &'a Arc<Pool>,
    worker: usize,
    asked: Instant,
    limit: Duration,
    step: Step<'a>,
}

enum Step<'a> {
    Ask,
    Waits {
        answer: Answer,
        timer: Timer,
        /// It is time for one of the reserve first.
        reserve: bool,
    },
    Proves(Pin<Box<dyn Future<Output = Option<Box<Server>>> + Send + 'a>>),
}

impl Pool {
    /// Borrows a server; waits in the order of arrival when none is free, for at most `limit`.
    pub fn checkout(self: &Arc<Self>, worker: &Worker, limit: Duration) -> Checkout<'_> {
        Checkout {
            pool: self,
            worker: worker.index,
            asked: Instant::now(),
            limit,
            step: Step::Ask,
        }
    }

    /// Whether a server that has rested for long is still there: a silent connection may lead nowhere.
    async fn prove(&self, mut server: Box<Server>) -> Option<Box<Server>> {
        let answer =
            tokio::time::timeout(self.settings.connect_timeout, server.run_hidden(b"")).await;
        matches!(answer, Ok(Ok(None))).then_some(server)
    }
}

impl Future for Checkout<'_> {
    type Output = Result<Box<Server>, PoolError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let lent = match &mut self.step {
                Step::Ask => self.ask()?,
                Step::Waits { .. } => match ready!(self.poll_wait(cx)) {
                    Ok(server) => {
                        self.asked = Instant::now();
                        self.lend(server, Duration::ZERO)
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                },
                Step::Proves(proof) => {
                    let proven = ready!(proof.as_mut().poll(cx));
                    self.step = Step::Ask;
                    proven
                }
            };
            if let Some(mut server) = lent {
                server.touch(self.asked);
                return Poll::Ready(Ok(server));
            }
        }
    }
}

impl Checkout<'_> {
    /// `None`: the next step is another one.
    fn ask(&mut self) -> Result<Option<Box<Server>>, PoolError> {
        match self.pool.take_or_queue(self.worker, self.asked) {
            Turn::Server(mut server) => {
                // Dropping a connection that is not silent takes the lock again, so it happens here.
                let rested = self.asked.saturating_duration_since(server.taken());
                if rested >= FRESH && !server.is_quiet(&mut Context::from_waker(Waker::noop())) {
                    return Ok(None);
                }
                Ok(self.lend(server, rested))
            }
            Turn::Closed => Err(PoolError::Closed),
            Turn::Wait(answer) => {
                self.pool.start_logins();
                let settings = &self.pool.settings;
                let reserve = settings.reserve_size > 0 && settings.reserve_timeout < self.limit;
                let limit = if reserve {
                    settings.reserve_timeout
                } else {
                    self.limit
                };
                self.step = Step::Waits {
                    answer,
                    timer: Timer::new(limit.saturating_sub(self.asked.elapsed())),
                    reserve,
                };
                Ok(None)
            }
        }
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Result<Box<Server>, PoolError>> {
        let Step::Waits {
            answer,
            timer,
            reserve,
        } = &mut self.step
        else {
            return Poll::Ready(Err(PoolError::Closed));
        };
        let mut answered = Pin::new(&mut *answer).poll(cx).map(Some);
        while answered.is_pending() && timer.poll(cx).is_ready() {
            if std::mem::take(reserve) {
                self.pool.start_logins();
                *timer = Timer::new(self.limit.saturating_sub(self.asked.elapsed()));
            } else {
                answered = Poll::Ready(None);
            }
        }
        let answered = ready!(answered);
        self.step = Step::Ask;
        let (pool, waited) = (self.pool, self.asked.elapsed());
        pool.metrics.wait_seconds.record(waited);
        Poll::Ready(match answered {
            Some(Some(outcome)) => outcome,
            Some(None) => Err(PoolError::Closed),
            None => {
                pool.metrics.wait_timeouts.increment(1);
                Err(PoolError::WaitedInVain {
                    shard: pool.login.shard.clone(),
                    cause: pool.scarcity(),
                    waited,
                })
            }
        })
    }

    /// On the runtime of its borrower, and proven to be there where it has rested for long.
    fn lend(&mut self, server: Box<Server>, rested: Duration) -> Option<Box<Server>> {
        self.step = Step::Ask;
        // A connection that cannot change its runtime is broken: the next one, then.
        let server = server.move_to(self.worker)?;
        if rested < self.pool.settings.check_after {
            return Some(server);
        }
        self.step = Step::Proves(Box::pin(self.pool.prove(server)));
        None
    }
}
