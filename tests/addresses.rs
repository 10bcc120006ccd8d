//! Live: connections to a server whose name gets another address.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/herd.rs"]
mod herd;
mod support;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgherd::backend::addresses::watch;
use pgherd::backend::pool::Pool;
use pgherd::backend::pools::{Commons, Pools};
use pgherd::backend::worker::Worker;
use pgherd::config::Dsn;
use pgherd::names::ShardId;
use pgherd::wire::derived::Derived;
use pgherd::wire::helpers::Helpers;
use support::proxy::Proxy;
use support::{PATIENCE, database, servers, until};
use tokio::runtime::Handle;

const INTERVAL: Duration = Duration::from_millis(20);

/// A pool to the first of the shared servers, by the name `localhost`.
fn pool_by_name(name: &str) -> (Arc<Pool>, Pools) {
    let port = servers().all()[0].port();
    let text = format!("host=localhost port={port} user=postgres sslmode=disable");
    let dsn = Dsn::parse(&text, "postgres").unwrap();
    let database = Arc::new(herd::database(name, vec![herd::shard(0, dsn)], &[]));
    let config = herd::config_of(&[Arc::clone(&database)]);
    let derived = Derived::new(Helpers::none());
    let commons = Commons::new(&config, Helpers::none(), derived);
    let pools = Pools::new(database, Arc::new(commons), 1, Handle::current()).unwrap();
    let pool = pools.pool(ShardId(0), &"postgres".into()).unwrap();
    (pool, pools)
}

/// Total and idle connections.
fn connections(pool: &Pool) -> (usize, usize) {
    let figures = pool.figures();
    (figures.idle + figures.active, figures.idle)
}

/// What the name service says of every name; counts how often it was asked.
type Answers = Arc<Mutex<(Result<Vec<IpAddr>, io::ErrorKind>, usize)>>;

/// Lets the name service say this, until it was asked for it twice: the first time may have been for the last answer.
async fn say(answers: &Answers, answer: Result<Vec<IpAddr>, io::ErrorKind>) {
    *answers.lock().unwrap() = (answer, 0);
    let asked = async {
        while answers.lock().unwrap().1 < 2 {
            tokio::time::sleep(INTERVAL).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_an_address_that_has_vanished_are_closed_when_they_are_unused() {
    let (pool, _pools) = pool_by_name("vanish");
    let worker = Worker::new(0);
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let elsewhere = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    let answers: Answers = Arc::new(Mutex::new((Ok(vec![here]), 0)));
    let duty = {
        let (answers, pool) = (Arc::clone(&answers), Arc::clone(&pool));
        let resolve = move |name: String| {
            let answers = Arc::clone(&answers);
            async move {
                assert_eq!(name, "localhost");
                let mut answers = answers.lock().unwrap();
                answers.1 += 1;
                answers.0.clone().map_err(io::Error::from)
            }
        };
        tokio::spawn(watch(INTERVAL, resolve, move || vec![Arc::clone(&pool)]))
    };

    let lent = pool.checkout(&worker, PATIENCE).await.unwrap();
    let rests = pool.checkout(&worker, PATIENCE).await.unwrap();
    let pid = rests.identity().pid();
    pool.give_back(rests);
    assert_eq!(connections(&pool), (2, 1));

    // Neither an answer that has more, nor one that failed, nor an empty one is a reason.
    for harmless in [
        Ok(vec![elsewhere, here]),
        Err(io::ErrorKind::NotFound),
        Ok(vec![]),
    ] {
        say(&answers, harmless).await;
        assert_eq!(connections(&pool), (2, 1));
    }
    let same = pool.checkout(&worker, PATIENCE).await.unwrap();
    assert_eq!(same.identity().pid(), pid);
    pool.give_back(same);

    // The unused one is closed at once, the other when it is given back.
    say(&answers, Ok(vec![elsewhere])).await;
    assert_eq!(connections(&pool), (1, 0));
    pool.give_back(lent);
    assert_eq!(connections(&pool), (0, 0));

    // Who connects there again has found it by its name. (Nobody asks for a name without connections.)
    answers.lock().unwrap().0 = Ok(vec![here]);
    let anew = pool.checkout(&worker, PATIENCE).await.unwrap();
    pool.give_back(anew);
    assert_eq!(connections(&pool), (1, 1));
    say(&answers, Ok(vec![here])).await;
    assert_eq!(connections(&pool), (1, 1));
    duty.abort();
}

#[test]
fn a_proxy_that_asks_often_keeps_its_connections() {
    let server = &servers().all()[..1];
    let name = database(server, "asks", "");
    let config = Proxy::config(&name, server, "")
        .replace("host=127.0.0.1", "host=localhost")
        .replace("workers = 2", "workers = 2\ndns_interval = \"10ms\"");
    let proxy = Proxy::start(&config);
    let mut client = proxy.client(&name, "postgres", "");
    let pid = client.query("SELECT pg_backend_pid()").lines();
    let begun = std::time::Instant::now();
    until("many intervals have passed", || {
        assert_eq!(client.query("SELECT pg_backend_pid()").lines(), pid);
        begun.elapsed() > Duration::from_millis(500)
    });
    assert!(
        !proxy.log().contains("no longer that of"),
        "{}",
        proxy.log()
    );
}
