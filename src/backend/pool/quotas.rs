//! Caps on server connections that several pools share: of a database, of a user, of a host.
//!
//! A pool takes a place under each of its caps before it logs in, and the connection gives them back when it is closed.
//! Where there is no place, the pool queues under the cap in the order of arrival, and an unused connection of another
//! pool is closed for it. What surprises: a connection is lent again within its own pool before others get its place, for
//! a login costs more than a transaction; only when somebody in another pool has waited for much longer is it closed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::Pool;

/// A client of another pool that has waited for so much longer than ours gets the place.
const FAIR_AFTER: Duration = Duration::from_millis(100);

/// One cap.
pub struct Quota {
    /// The key of the configuration file that sets it.
    pub name: String,
    max: usize,
    state: Mutex<State>,
    /// Some pool waits. Read at each return of a connection, so that the lock is not.
    contended: AtomicBool,
}

#[derive(Default)]
struct State {
    used: usize,
    /// Pools that need a connection and got no place, in the order of arrival.
    waiting: VecDeque<Weak<Pool>>,
    members: Vec<Weak<Pool>>,
}

impl Quota {
    #[must_use]
    pub fn new(name: String, max: usize) -> Arc<Self> {
        Arc::new(Self {
            name,
            max,
            state: Mutex::default(),
            contended: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole between any two statements that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.state().used >= self.max
    }

    pub(super) fn join(&self, pool: &Arc<Pool>) {
        self.state().members.push(Arc::downgrade(pool));
    }

    fn take(&self) -> bool {
        let mut state = self.state();
        let free = state.used < self.max;
        state.used += usize::from(free);
        free
    }

    /// A place is free again: the pools in the queue are asked one after the other, until one has taken it. Some may not
    /// need it any more.
    fn free(&self) {
        self.state().used -= 1;
        while let Some(pool) = self.next() {
            pool.start_logins();
        }
    }

    /// The pool that is first in the queue, where there is a place for it; it queues again if it needs another cap.
    fn next(&self) -> Option<Arc<Pool>> {
        let mut state = self.state();
        let mut next = None;
        while next.is_none() && state.used < self.max && !state.waiting.is_empty() {
            next = state.waiting.pop_front().and_then(|pool| pool.upgrade());
        }
        self.contended
            .store(!state.waiting.is_empty(), Ordering::Release);
        next
    }

    /// Queues this pool, and gives the others that may have an unused connection.
    fn queue(&self, pool: &Arc<Pool>) -> Vec<Arc<Pool>> {
        let mut state = self.state();
        let this = Arc::downgrade(pool);
        if !state.waiting.iter().any(|known| known.ptr_eq(&this)) {
            state.waiting.push_back(this.clone());
        }
        self.contended.store(true, Ordering::Release);
        state.members.retain(|member| member.strong_count() > 0);
        let others = state.members.iter().filter(|member| !member.ptr_eq(&this));
        others.filter_map(Weak::upgrade).collect()
    }

    /// The pools that wait for a place.
    fn waiting(&self) -> Vec<Arc<Pool>> {
        self.state()
            .waiting
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }
}

/// The caps of one pool.
#[derive(Clone, Default)]
pub struct Quotas(pub Vec<Arc<Quota>>);

/// A place under each of them, free again when this is dropped.
pub struct Places(Vec<Arc<Quota>>);

impl Drop for Places {
    fn drop(&mut self) {
        for quota in self.0.drain(..) {
            quota.free();
        }
    }
}

impl Quotas {
    /// A place under every cap, or the cap that has none.
    pub(super) fn take(&self) -> Result<Places, &Arc<Quota>> {
        let mut places = Places(Vec::with_capacity(self.0.len()));
        for quota in &self.0 {
            if !quota.take() {
                return Err(quota);
            }
            places.0.push(Arc::clone(quota));
        }
        Ok(places)
    }

    /// The pool waits for a place under this cap. The connection that has been unused for longest in another pool is
    /// closed for it.
    pub(super) fn wait(quota: &Quota, pool: &Arc<Pool>) {
        let others = quota.queue(pool);
        let resting = others
            .iter()
            .filter_map(|other| Some((other.resting_since()?, other)));
        if let Some((_, other)) = resting.min_by_key(|(since, _)| *since) {
            other.close_one_idle();
        }
    }

    /// Whether a connection of this pool, whose own first client has waited since `ours`, is better closed for a client
    /// of another one.
    pub(super) fn owe(&self, pool: &Arc<Pool>, ours: Option<Instant>) -> bool {
        let contended = self
            .0
            .iter()
            .filter(|quota| quota.contended.load(Ordering::Acquire));
        contended.into_iter().any(|quota| {
            let waiting = quota.waiting();
            let others = waiting.iter().filter(|other| !Arc::ptr_eq(other, pool));
            let first = others.filter_map(|other| other.waiting_since()).min();
            match (first, ours) {
                (Some(theirs), Some(ours)) => theirs + FAIR_AFTER < ours,
                (first, None) => first.is_some(),
                (None, _) => false,
            }
        })
    }
}
