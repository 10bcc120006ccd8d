//! Who is here: the logged-in clients with their cancel keys, the servers that each of them has at the moment, and a
//! bell by which a session can be told to end.

mod activity;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use self::activity::Activity;
pub use self::activity::{LOOK, Overdue, Phase};
use crate::backend::server::Identity;
use crate::config::Timeouts;
use crate::names::{DatabaseName, UserName};

/// Length of a cancel key under protocol 3.0, and from 3.2 on.
const KEY_BYTES: usize = 4;
const LONG_KEY_BYTES: usize = 32;

#[derive(Debug, Default)]
pub struct Registry {
    clients: Mutex<HashMap<i32, Arc<Client>>>,
    last_pid: AtomicI32,
    ending: AtomicBool,
    /// Milliseconds; see [`Registry::watch`].
    clock: Arc<AtomicU64>,
    cutting: AtomicBool,
}

/// One logged-in client.
#[derive(Debug)]
pub struct Client {
    pub pid: i32,
    pub key: Vec<u8>,
    pub database: DatabaseName,
    pub user: UserName,
    servers: Mutex<Vec<Arc<Identity>>>,
    /// The session waits for a server.
    waiting: AtomicBool,
    /// A cancel request came meanwhile.
    cancelled: AtomicBool,
    asked_to_end: AtomicBool,
    cut_off: AtomicBool,
    waker: Mutex<Option<Waker>>,
    activity: Activity,
    registry_clock: Arc<AtomicU64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept here is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// Registers a client until the result is dropped. Process ids are our own and never those of a server.
    #[must_use]
    pub fn enter(
        self: &Arc<Self>,
        database: DatabaseName,
        user: UserName,
        timeouts: Timeouts,
        long_key: bool,
    ) -> Registered {
        let key: [u8; LONG_KEY_BYTES] = rand::random();
        let key = key
            .get(..if long_key { LONG_KEY_BYTES } else { KEY_BYTES })
            .unwrap_or_default()
            .to_vec();
        let mut clients = lock(&self.clients);
        let pid = loop {
            // Positive and not in use: the counter may come round on a proxy that runs for years.
            let pid = self
                .last_pid
                .fetch_add(1, Ordering::Relaxed)
                .wrapping_add(1)
                & i32::MAX;
            if pid != 0 && !clients.contains_key(&pid) {
                break pid;
            }
        };
        let client = Arc::new(Client {
            pid,
            key,
            database,
            user,
            servers: Mutex::default(),
            waiting: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            asked_to_end: AtomicBool::new(self.ending.load(Ordering::Acquire)),
            cut_off: AtomicBool::new(self.cutting.load(Ordering::Acquire)),
            waker: Mutex::default(),
            activity: Activity::new(timeouts),
            registry_clock: Arc::clone(&self.clock),
        });
        client.enter_phase(Phase::Idle);
        clients.insert(pid, Arc::clone(&client));
        Registered {
            registry: Arc::clone(self),
            client,
        }
    }

    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.clients).len()
    }

    /// Cancels what the client with this process id and key runs at the moment, if anything. Whoever asked learns
    /// nothing of it.
    pub async fn cancel(&self, pid: i32, key: &[u8]) {
        let Some(client) = lock(&self.clients).get(&pid).cloned() else {
            return;
        };
        if !same_bytes(&client.key, key) {
            return;
        }
        client.cancel().await;
    }

    /// Asks every session, and those to come, to end where nothing is lost.
    pub fn end_all(&self) {
        self.ending.store(true, Ordering::Release);
        for client in self.clients() {
            client.ask_to_end();
        }
    }

    fn clients(&self) -> Vec<Arc<Client>> {
        lock(&self.clients).values().cloned().collect()
    }

    /// Tells every session, and those to come, to end now, whatever they do.
    pub fn cut_all(&self) {
        self.cutting.store(true, Ordering::Release);
        for client in self.clients() {
            client.cut_off.store(true, Ordering::Release);
            client.wake();
        }
    }
}

/// Compares without telling by its time where the difference is.
fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

impl Client {
    /// The session has borrowed this server.
    pub fn borrowed(&self, server: &Arc<Identity>) {
        lock(&self.servers).push(Arc::clone(server));
    }

    /// The session does not have this server any more.
    pub fn gave_back_one(&self, server: &Arc<Identity>) {
        lock(&self.servers).retain(|known| !Arc::ptr_eq(known, server));
    }

    /// The session has no server any more; a cancel that is under way keeps it from the next borrower.
    pub fn gave_back(&self) {
        lock(&self.servers).clear();
    }

    /// The session begins or ends to wait for a server. A cancel request of before is forgotten.
    pub fn waits(&self, waiting: bool) {
        self.cancelled.store(false, Ordering::Release);
        self.waiting.store(waiting, Ordering::Release);
    }

    /// Whether a cancel request came while the session waited for a server; its task was woken.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Cancels on every server that the session has.
    pub async fn cancel(&self) {
        // Under the lock the servers are surely still this client's.
        let cancels: Vec<_> = lock(&self.servers)
            .iter()
            .map(Identity::begin_cancel)
            .collect();
        if self.waiting.load(Ordering::Acquire) {
            self.cancelled.store(true, Ordering::Release);
            self.wake();
        }
        for cancel in cancels {
            cancel.send().await;
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*lock(&self.waker) {
            waker.wake_by_ref();
        }
    }

    fn ask_to_end(&self) {
        self.asked_to_end.store(true, Ordering::Release);
        self.wake();
    }

    #[must_use]
    pub fn is_asked_to_end(&self) -> bool {
        self.asked_to_end.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Acquire)
    }

    /// Whether some server is the session's at the moment.
    #[must_use]
    pub fn has_servers(&self) -> bool {
        !lock(&self.servers).is_empty()
    }

    /// Who is to be woken; a task keeps its waker, so once is enough.
    pub fn listen(&self, waker: &Waker) {
        *lock(&self.waker) = Some(waker.clone());
        if self.is_asked_to_end() || self.is_cut_off() {
            waker.wake_by_ref();
        }
    }
}

/// Keeps a client registered.
#[derive(Debug)]
pub struct Registered {
    registry: Arc<Registry>,
    client: Arc<Client>,
}

impl std::ops::Deref for Registered {
    type Target = Arc<Client>;
    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.registry.clients).remove(&self.client.pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_distinct_ids_and_keys_of_their_protocol() {
        let registry = Arc::new(Registry::default());
        let enter = |long| registry.enter("shop".into(), "ann".into(), Timeouts::default(), long);
        let (a, b) = (enter(false), enter(true));
        assert_ne!(a.pid, b.pid);
        assert_eq!((a.key.len(), b.key.len()), (4, 32));
        assert_eq!(registry.count(), 2);
        drop(a);
        assert_eq!(registry.count(), 1);
    }

    #[test]
    fn who_comes_while_all_are_asked_to_end_is_asked_too() {
        let registry = Arc::new(Registry::default());
        let before = registry.enter("shop".into(), "ann".into(), Timeouts::default(), false);
        registry.end_all();
        assert!(before.is_asked_to_end());
        assert!(
            registry
                .enter("shop".into(), "ann".into(), Timeouts::default(), false)
                .is_asked_to_end()
        );
    }

    #[test]
    fn whoever_is_told_to_end_is_woken_each_time() {
        #[derive(Default)]
        struct Woken(AtomicI32);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (registry, woken) = (Arc::new(Registry::default()), Arc::new(Woken::default()));
        let client = registry.enter("shop".into(), "ann".into(), Timeouts::default(), false);
        client.listen(&Waker::from(Arc::clone(&woken)));
        registry.end_all();
        assert!(client.is_asked_to_end() && !client.is_cut_off());
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        registry.cut_all();
        assert!(client.is_cut_off());
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
        let late = registry.enter("shop".into(), "ann".into(), Timeouts::default(), false);
        assert!(late.is_asked_to_end() && late.is_cut_off());
    }

    #[test]
    fn keys_are_equal_only_when_all_bytes_are() {
        assert!(same_bytes(b"abcd", b"abcd"));
        assert!(!same_bytes(b"abcd", b"abce"));
        assert!(!same_bytes(b"abcd", b"abc"));
    }
}
