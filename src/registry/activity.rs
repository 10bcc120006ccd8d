//! What each client is doing and since when, so that who takes too long is found out.
//!
//! One task looks at all clients a few times a second; sessions only note what they begin, with a clock that this task
//! sets, so a message costs neither a timer nor a look at the time. Where no time-out is configured nothing is noted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Client, Registry};
use crate::config::Timeouts;

/// How often the clients are looked at: time-outs are as exact as this.
pub const LOOK: Duration = Duration::from_millis(50);

/// A server that was asked to cancel a statement has so long to do it.
const CANCEL_MILLIS_MAX: u64 = 5_000;

/// What a client is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Nothing, outside of a transaction.
    Idle,
    /// It waits for an answer of its server.
    Query,
    /// It waits for a server.
    Waiting,
    /// Nothing, in a transaction.
    InTransaction,
    /// Its statement took too long, and the server was asked to cancel it.
    Cancelling,
}

/// What took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Overdue {
    Query = 1,
    /// The server does not even cancel it.
    Cancel,
    Transaction,
    IdleInTransaction,
    Idle,
}

#[derive(Debug)]
pub(super) struct Activity {
    timeouts: Timeouts,
    phase: AtomicU8,
    /// Milliseconds of the registry's clock.
    since: AtomicU64,
    /// When the transaction began; 0 outside of one.
    begun: AtomicU64,
    /// An [`Overdue`], or 0.
    overdue: AtomicU8,
}

impl Activity {
    pub fn new(timeouts: Timeouts) -> Self {
        Self {
            timeouts,
            phase: AtomicU8::new(Phase::Idle as u8),
            since: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            overdue: AtomicU8::new(0),
        }
    }

    /// What has become overdue by now, if anything.
    fn judge(&self, now: u64) -> Option<Overdue> {
        let phase = self.phase.load(Ordering::Acquire);
        let is = |wanted: Phase| phase == wanted as u8;
        let elapsed = now.saturating_sub(self.since.load(Ordering::Relaxed));
        let begun = self.begun.load(Ordering::Relaxed);
        let over = |limit: Duration, elapsed: u64| {
            !limit.is_zero() && u128::from(elapsed) >= limit.as_millis()
        };
        let timeouts = &self.timeouts;
        // Who waits for a server has the time of the queue.
        let waits = is(Phase::Waiting);
        if !waits && begun > 0 && over(timeouts.transaction, now.saturating_sub(begun)) {
            return Some(Overdue::Transaction);
        }
        if is(Phase::Query) && over(timeouts.query, elapsed) {
            Some(Overdue::Query)
        } else if is(Phase::Cancelling) && elapsed >= CANCEL_MILLIS_MAX {
            Some(Overdue::Cancel)
        } else if is(Phase::InTransaction) && over(timeouts.idle_in_transaction, elapsed) {
            Some(Overdue::IdleInTransaction)
        } else if is(Phase::Idle) && over(timeouts.client_idle, elapsed) {
            Some(Overdue::Idle)
        } else {
            None
        }
    }
}

impl Client {
    /// Some time-out holds for this client.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        self.activity.timeouts != Timeouts::default()
    }

    /// What the client does from now on; nothing changes where it does so already. A statement that is being cancelled
    /// stays one until the server has said something: see [`Client::goes_on`].
    pub fn does(&self, phase: Phase) {
        let before = self.activity.phase.load(Ordering::Relaxed);
        let cancelling = before == Phase::Cancelling as u8 && phase == Phase::Query;
        if before != phase as u8 && !cancelling {
            self.enter_phase(phase);
        }
    }

    /// The server has ended a statement, and another one follows: its time begins now.
    pub fn goes_on(&self) {
        self.enter_phase(Phase::Query);
    }

    pub(super) fn enter_phase(&self, phase: Phase) {
        let activity = &self.activity;
        let now = self.registry_clock.load(Ordering::Relaxed);
        activity.since.store(now, Ordering::Relaxed);
        match phase {
            Phase::Idle => activity.begun.store(0, Ordering::Relaxed),
            _ if activity.begun.load(Ordering::Relaxed) == 0 => {
                activity.begun.store(now, Ordering::Relaxed);
            }
            _ => {}
        }
        activity.phase.store(phase as u8, Ordering::Release);
        activity.overdue.store(0, Ordering::Release);
    }

    /// What has taken too long; the client's task was woken for it.
    #[must_use]
    pub fn overdue(&self) -> Option<Overdue> {
        match self.activity.overdue.load(Ordering::Acquire) {
            1 => Some(Overdue::Query),
            2 => Some(Overdue::Cancel),
            3 => Some(Overdue::Transaction),
            4 => Some(Overdue::IdleInTransaction),
            5 => Some(Overdue::Idle),
            _ => None,
        }
    }

    /// The first look wakes the session, which knows more. Where it has not acted by the next one, it is in the middle
    /// of something that only a cancel request ends.
    fn look(self: &Arc<Self>, now: u64) {
        let Some(overdue) = self.activity.judge(now) else {
            return;
        };
        let known = self.activity.overdue.swap(overdue as u8, Ordering::AcqRel);
        if known == 0 {
            self.wake();
        } else if overdue == Overdue::Query {
            self.cancel_overdue();
        }
    }

    /// Asks the server to cancel what has taken too long; nothing where it has ended in this very moment. Whether it did.
    pub fn cancel_overdue(self: &Arc<Self>) -> bool {
        let (query, cancelling) = (Phase::Query as u8, Phase::Cancelling as u8);
        let phase = &self.activity.phase;
        let swapped =
            phase.compare_exchange(query, cancelling, Ordering::AcqRel, Ordering::Acquire);
        if swapped.is_err() {
            return false;
        }
        let now = self.registry_clock.load(Ordering::Relaxed);
        self.activity.since.store(now, Ordering::Relaxed);
        self.activity.overdue.store(0, Ordering::Release);
        let client = Arc::clone(self);
        tokio::spawn(async move { client.cancel().await });
        true
    }
}

impl Registry {
    /// Looks after the clients for as long as there is a registry. To be run where any time-out is configured.
    pub async fn watch(self: Arc<Self>) {
        let begun = Instant::now();
        let mut tick = tokio::time::interval(LOOK);
        loop {
            tick.tick().await;
            // From 1 on: 0 stands for no time.
            let now = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX) + 1;
            self.clock.store(now, Ordering::Relaxed);
            for client in self.clients() {
                client.look(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ClientCaps;
    use super::*;

    fn enter(registry: &Arc<Registry>, timeouts: Timeouts) -> super::super::Registered {
        let caps = ClientCaps::default();
        let entered = registry.enter("shop".into(), "ann".into(), timeouts, false, caps);
        entered.unwrap()
    }

    fn client(timeouts: Timeouts) -> super::super::Registered {
        let registry = Arc::new(Registry::default());
        registry.clock.store(1, Ordering::Relaxed);
        enter(&registry, timeouts)
    }

    #[test]
    fn each_phase_has_its_own_limit() {
        let seconds = Duration::from_secs;
        let client = client(Timeouts {
            query: seconds(1),
            transaction: seconds(10),
            idle_in_transaction: seconds(2),
            client_idle: seconds(3),
        });
        let judge = |phase, now| {
            client.enter_phase(Phase::Idle);
            client.does(phase);
            client.activity.judge(now)
        };
        assert_eq!(judge(Phase::Idle, 3_000), None);
        assert_eq!(judge(Phase::Idle, 3_001), Some(Overdue::Idle));
        assert_eq!(judge(Phase::Query, 1_000), None);
        assert_eq!(judge(Phase::Query, 1_001), Some(Overdue::Query));
        assert_eq!(judge(Phase::Waiting, 9_000), None);
        assert_eq!(
            judge(Phase::InTransaction, 2_001),
            Some(Overdue::IdleInTransaction)
        );
        assert_eq!(judge(Phase::Waiting, 10_001), None);
        assert_eq!(
            judge(Phase::InTransaction, 10_001),
            Some(Overdue::Transaction)
        );
        assert_eq!(judge(Phase::Cancelling, 5_001), Some(Overdue::Cancel));
    }

    #[test]
    fn who_comes_late_has_not_been_idle_since_the_beginning() {
        let timeouts = Timeouts {
            client_idle: Duration::from_secs(1),
            ..Timeouts::default()
        };
        let registry = Arc::new(Registry::default());
        registry.clock.store(50_000, Ordering::Relaxed);
        let client = enter(&registry, timeouts);
        assert_eq!(client.activity.judge(50_999), None);
        assert_eq!(client.activity.judge(51_000), Some(Overdue::Idle));
    }

    #[tokio::test]
    async fn what_has_ended_in_the_same_moment_is_not_cancelled() {
        let client = client(Timeouts {
            query: Duration::from_secs(1),
            ..Timeouts::default()
        });
        client.does(Phase::Query);
        assert_eq!(client.activity.judge(1_001), Some(Overdue::Query));
        client.does(Phase::Idle);
        assert!(!client.cancel_overdue());
        assert_eq!(client.activity.judge(60_000), None);
        client.does(Phase::Query);
        assert!(client.cancel_overdue());
        assert_eq!(client.activity.judge(60_000), Some(Overdue::Cancel));
    }

    #[test]
    fn a_transaction_is_as_old_as_its_first_statement() {
        let client = client(Timeouts {
            transaction: Duration::from_secs(5),
            ..Timeouts::default()
        });
        client.does(Phase::Query);
        assert_eq!(client.activity.judge(5_000), None);
        client.registry_clock.store(4_000, Ordering::Relaxed);
        client.does(Phase::InTransaction);
        client.does(Phase::Query);
        assert_eq!(client.activity.judge(5_001), Some(Overdue::Transaction));
        client.does(Phase::Idle);
        assert_eq!(client.activity.judge(50_000), None);
    }
}
