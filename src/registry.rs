//! Who is here: the logged-in clients with their cancel keys, the servers that each of them has at the moment, and a
//! bell by which a session can be told to end.

mod activity;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use self::activity::Activity;
pub use self::activity::{LOOK, Overdue, Phase};
use crate::backend::identity::Identity;
use crate::config::Timeouts;
use crate::names::{DatabaseName, UserName};

/// Length of a cancel key under protocol 3.0, and from 3.2 on.
const KEY_BYTES: usize = 4;
const LONG_KEY_BYTES: usize = 32;

#[derive(Debug, Default)]
pub struct Registry {
    clients: Mutex<Clients>,
    last_pid: AtomicI32,
    ending: AtomicBool,
    /// Milliseconds; see [`Registry::watch`].
    clock: Arc<AtomicU64>,
    cutting: AtomicBool,
}

/// All clients, and how many there are of each kind that may have a cap.
#[derive(Debug, Default)]
struct Clients {
    by_pid: HashMap<i32, Arc<Client>>,
    of_database: HashMap<DatabaseName, u32>,
    of_user: HashMap<UserName, u32>,
}

/// How many clients there may be at once; `None`: any number.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClientCaps {
    pub all: Option<usize>,
    pub database: Option<NonZeroU32>,
    pub user: Option<NonZeroU32>,
}

/// The cap that leaves no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    All,
    Database,
    User,
}

impl Clients {
    fn has_room(&self, database: &str, user: &str, caps: ClientCaps) -> Result<(), Full> {
        let reached = |count: Option<&u32>, cap: Option<NonZeroU32>| {
            cap.is_some_and(|cap| count.is_some_and(|count| *count >= cap.get()))
        };
        if reached(self.of_database.get(database), caps.database) {
            Err(Full::Database)
        } else if reached(self.of_user.get(user), caps.user) {
            Err(Full::User)
        } else if caps.all.is_some_and(|cap| self.by_pid.len() >= cap) {
            Err(Full::All)
        } else {
            Ok(())
        }
    }

    fn add(&mut self, client: Arc<Client>) {
        *self.of_database.entry(client.database.clone()).or_default() += 1;
        *self.of_user.entry(client.user.clone()).or_default() += 1;
        self.by_pid.insert(client.pid, client);
    }

    fn remove(&mut self, client: &Client) {
        if self.by_pid.remove(&client.pid).is_some() {
            count_off(&mut self.of_database, &client.database);
            count_off(&mut self.of_user, &client.user);
        }
    }
}

/// Names are not kept when they are not counted: clients bring them.
fn count_off<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
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
    ///
    /// # Errors
    /// There are as many as there may be. Who is refused was never counted.
    pub fn enter(
        self: &Arc<Self>,
        database: DatabaseName,
        user: UserName,
        timeouts: Timeouts,
        long_key: bool,
        caps: ClientCaps,
    ) -> Result<Registered, Full> {
        let key: [u8; LONG_KEY_BYTES] = rand::random();
        let key = key
            .get(..if long_key { LONG_KEY_BYTES } else { KEY_BYTES })
            .unwrap_or_default()
            .to_vec();
        let mut clients = lock(&self.clients);
        clients.has_room(database.as_str(), user.as_str(), caps)?;
        let pid = loop {
            // Positive and not in use: the counter may come round on a proxy that runs for years.
            let pid = self
                .last_pid
                .fetch_add(1, Ordering::Relaxed)
                .wrapping_add(1)
                & i32::MAX;
            if pid != 0 && !clients.by_pid.contains_key(&pid) {
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
        clients.add(Arc::clone(&client));
        Ok(Registered {
            registry: Arc::clone(self),
            client,
        })
    }

    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.clients).by_pid.len()
    }

    /// Cancels what the client with this process id and key runs at the moment, if anything. Whoever asked learns
    /// nothing of it.
    pub async fn cancel(&self, pid: i32, key: &[u8]) {
        let Some(client) = lock(&self.clients).by_pid.get(&pid).cloned() else {
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
        lock(&self.clients).by_pid.values().cloned().collect()
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
        lock(&self.registry.clients).remove(&self.client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_distinct_ids_and_keys_of_their_protocol() {
        let registry = Arc::new(Registry::default());
        let enter = |long| enter(&registry, "shop", "ann", long, ClientCaps::default()).unwrap();
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
        let enter = || enter(&registry, "shop", "ann", false, ClientCaps::default()).unwrap();
        let before = enter();
        registry.end_all();
        assert!(before.is_asked_to_end());
        assert!(enter().is_asked_to_end());
    }

    #[test]
    fn one_more_than_a_cap_is_refused_and_was_never_counted() {
        let registry = Arc::new(Registry::default());
        let caps = ClientCaps {
            all: Some(4),
            database: NonZeroU32::new(2),
            user: NonZeroU32::new(3),
        };
        let enter = |database, user| enter(&registry, database, user, false, caps);
        let mut here = vec![enter("a", "ann").unwrap(), enter("a", "bob").unwrap()];
        assert_eq!(enter("a", "cid").unwrap_err(), Full::Database);
        here.push(enter("b", "ann").unwrap());
        here.push(enter("b", "ann").unwrap());
        assert_eq!(enter("c", "ann").unwrap_err(), Full::User);
        assert_eq!(enter("c", "cid").unwrap_err(), Full::All);
        assert_eq!(registry.count(), 4);
        // The first one leaves: of its database and user there is one less, and one less of all.
        drop(here.remove(0));
        here.push(enter("a", "ann").unwrap());
        assert_eq!(enter("a", "ann").unwrap_err(), Full::Database);
        drop(here);
        let clients = lock(&registry.clients);
        assert!(clients.by_pid.is_empty());
        assert!(clients.of_database.is_empty() && clients.of_user.is_empty());
    }

    #[test]
    fn clients_that_come_and_go_at_once_are_never_more_than_the_cap_and_the_cap_is_never_lost() {
        let registry = Arc::new(Registry::default());
        let caps = ClientCaps {
            database: NonZeroU32::new(3),
            ..ClientCaps::default()
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let entered = enter(&registry, "shop", "ann", false, caps);
                        assert!(registry.count() <= 3);
                        drop(entered);
                    }
                });
            }
        });
        let all: Vec<_> = (0..3)
            .map(|_| enter(&registry, "shop", "ann", false, caps).unwrap())
            .collect();
        assert!(enter(&registry, "shop", "ann", false, caps).is_err());
        drop(all);
    }

    fn enter(
        registry: &Arc<Registry>,
        database: &str,
        user: &str,
        long_key: bool,
        caps: ClientCaps,
    ) -> Result<Registered, Full> {
        let timeouts = Timeouts::default();
        registry.enter(database.into(), user.into(), timeouts, long_key, caps)
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
        let client = enter(&registry, "shop", "ann", false, ClientCaps::default()).unwrap();
        client.listen(&Waker::from(Arc::clone(&woken)));
        registry.end_all();
        assert!(client.is_asked_to_end() && !client.is_cut_off());
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        registry.cut_all();
        assert!(client.is_cut_off());
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
        let late = enter(&registry, "shop", "ann", false, ClientCaps::default()).unwrap();
        assert!(late.is_asked_to_end() && late.is_cut_off());
    }

    #[test]
    fn keys_are_equal_only_when_all_bytes_are() {
        assert!(same_bytes(b"abcd", b"abcd"));
        assert!(!same_bytes(b"abcd", b"abce"));
        assert!(!same_bytes(b"abcd", b"abc"));
    }
}
