//! The addresses of servers whose host was given by name. A name is asked for again on a timer; connections to an
//! address that is no longer in the answer are closed when they are next unused.
//!
//! Knows connections only as [`Mark`]s: one for each address of each name, which its connections share, so that asking
//! one costs nothing. An answer that still has the address changes nothing, whatever else it says, and neither does a
//! question that fails. What would surprise: there is one list for the process, as there is one DNS.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::task::JoinSet;

use super::connect::Place;
use super::pool::Pool;

/// How long one question may take; the next round asks again.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(5);

/// Whether an address is still one of its name.
#[derive(Debug, Default)]
pub struct Mark(AtomicBool);

impl Mark {
    #[must_use]
    pub fn has_vanished(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The addresses, by their names, to which there are connections.
#[derive(Debug, Default)]
pub struct Addresses(Mutex<HashMap<String, HashMap<IpAddr, Weak<Mark>>>>);

impl Addresses {
    /// Those of all servers of this process.
    #[must_use]
    pub fn of_process() -> &'static Addresses {
        static ALL: LazyLock<Addresses> = LazyLock::new(Addresses::default);
        &ALL
    }

    /// What a connection to this place looks at. One that no name led to has a mark that nobody changes.
    #[must_use]
    pub fn mark(&self, place: &Place) -> Arc<Mark> {
        let Place::Tcp { address, host } = place else {
            return Arc::default();
        };
        if host.parse::<IpAddr>().is_ok() {
            return Arc::default();
        }
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.entry(host.clone()).or_default();
        let known = known.entry(address.ip().to_canonical()).or_default();
        if let Some(mark) = known.upgrade() {
            // Somebody has just found it by its name.
            mark.0.store(false, Ordering::Release);
            return mark;
        }
        let mark = Arc::default();
        *known = Arc::downgrade(&mark);
        mark
    }

    /// The names to which there are connections.
    fn names(&self) -> Vec<String> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.retain(|_, marks| {
            marks.retain(|_, mark| mark.strong_count() > 0);
            !marks.is_empty()
        });
        names.keys().cloned().collect()
    }

    /// Takes one answer; how many addresses have vanished with it.
    fn learn(&self, name: &str, answer: &[IpAddr]) -> usize {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // No address at all is no answer.
        let Some(marks) = names.get(name).filter(|_| !answer.is_empty()) else {
            return 0;
        };
        let answer: HashSet<_> = answer.iter().map(IpAddr::to_canonical).collect();
        let mut vanished = 0;
        for (address, mark) in marks {
            let Some(mark) = mark.upgrade() else { continue };
            let gone = !answer.contains(address);
            if !mark.0.swap(gone, Ordering::AcqRel) && gone {
                tracing::info!(host = name, %address, "the address is no longer that of this host");
                vanished += 1;
            }
        }
        vanished
    }

    /// Asks for every name, all at once; how many addresses have vanished.
    pub async fn ask<A>(&self, resolve: impl Fn(String) -> A) -> usize
    where
        A: Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
    {
        let mut asked = JoinSet::new();
        for name in self.names() {
            let answer = tokio::time::timeout(LOOKUP_TIME_MAX, resolve(name.clone()));
            asked.spawn(async move { (name, answer.await) });
        }
        let mut vanished = 0;
        while let Some(answered) = asked.join_next().await {
            match answered {
                Ok((name, Ok(Ok(answer)))) => vanished += self.learn(&name, &answer),
                Ok((name, Ok(Err(error)))) => {
                    tracing::debug!(host = name, %error, "the host was not found");
                }
                Ok((name, Err(_))) => {
                    tracing::debug!(host = name, "looking for the host took too long");
                }
                Err(error) => tracing::error!(%error, "looking for a host ended"),
            }
        }
        vanished
    }
}

/// Asks the operating system.
pub async fn look_up(name: String) -> io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((name, 0)).await?;
    Ok(found.map(|address| address.ip()).collect())
}

/// Asks at every interval, for ever; closes what is unused and leads to an address that has vanished.
pub async fn watch<A>(
    interval: Duration,
    resolve: impl Fn(String) -> A,
    pools: impl Fn() -> Vec<Arc<Pool>>,
) where
    A: Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
{
    loop {
        tokio::time::sleep(interval).await;
        if Addresses::of_process().ask(&resolve).await > 0 {
            for pool in pools() {
                pool.look_over();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::path::PathBuf;

    fn place(host: &str, address: &str) -> Place {
        Place::Tcp {
            address: SocketAddr::new(address.parse().unwrap(), 5432),
            host: host.to_owned(),
        }
    }

    /// Asks a name service that has these answers and knows no other name.
    async fn ask(addresses: &Addresses, answers: &[(&str, &[&str])]) -> usize {
        let resolve = |name: String| {
            let found = answers.iter().find(|(known, _)| *known == name);
            let found = found.map(|(_, all)| all.iter().map(|one| one.parse().unwrap()).collect());
            async move { found.ok_or_else(|| io::ErrorKind::NotFound.into()) }
        };
        addresses.ask(resolve).await
    }

    #[tokio::test]
    async fn an_address_vanishes_only_by_an_answer_without_it() {
        let addresses = Addresses::default();
        let first = addresses.mark(&place("db", "10.0.0.1"));
        let second = addresses.mark(&place("db", "10.0.0.2"));
        let other = addresses.mark(&place("other", "10.0.0.1"));
        let gone = || [&first, &second, &other].map(|mark| mark.has_vanished());
        for (answers, vanished, expected) in [
            (&[("db", &["10.0.0.1", "10.0.0.2"][..])][..], 0, [false; 3]),
            // A weighted answer that has more, in another order.
            (
                &[("db", &["10.0.0.9", "10.0.0.2", "10.0.0.1"])],
                0,
                [false; 3],
            ),
            (&[], 0, [false; 3]),
            (&[("db", &[])], 0, [false; 3]),
            (&[("db", &["10.0.0.2"])], 1, [true, false, false]),
            // What is gone is gone while nobody knows better.
            (&[], 0, [true, false, false]),
            (&[("db", &["10.0.0.2"])], 0, [true, false, false]),
            // It came back before its connection was closed.
            (&[("db", &["::ffff:10.0.0.1"])], 1, [false, true, false]),
            (
                &[("db", &["fe80::1"]), ("other", &["10.0.0.7"])],
                2,
                [true; 3],
            ),
        ] {
            assert_eq!(ask(&addresses, answers).await, vanished, "{answers:?}");
            assert_eq!(gone(), expected, "{answers:?}");
        }
        // Whoever connects there by name has just had another answer.
        let again = addresses.mark(&place("db", "10.0.0.1"));
        assert!(Arc::ptr_eq(&again, &first) && !again.has_vanished());
    }

    #[tokio::test]
    async fn only_names_with_connections_are_asked_for_and_others_are_forgotten() {
        let addresses = Addresses::default();
        let by_address = addresses.mark(&place("10.0.0.1", "10.0.0.1"));
        let local = addresses.mark(&Place::Unix(PathBuf::from("/run/.s.PGSQL.5432")));
        let name = addresses.mark(&place("db", "10.0.0.1"));
        assert_eq!(addresses.names(), ["db"]);
        drop(name);
        assert!(addresses.names().is_empty());
        assert!(addresses.0.lock().unwrap().is_empty());
        assert!(!by_address.has_vanished() && !local.has_vanished());
    }
}
