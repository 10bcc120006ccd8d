//! Live: clients and their work are spread evenly over the workers, and each worker keeps to its core where it shall.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use support::client::Client;
use support::proxy::Proxy;
use support::{database, servers, until};

const CLIENTS: usize = 50;
const STATEMENTS: usize = 20;

fn started(name: &str, proxy: &str, pool: &str) -> (Proxy, String) {
    let server = &servers().all()[..1];
    let name = database(server, name, "");
    let config = Proxy::config(&name, server, "")
        .replace("workers = 2\n", proxy)
        .replace(
            &format!("[databases.{name}]\n"),
            &format!("[databases.{name}]\n{pool}\n"),
        );
    (Proxy::start_with(&config, |_, _| {}), name)
}

/// A metric of each worker, by its number.
fn by_worker(proxy: &Proxy, metric: &str) -> Vec<usize> {
    let text = proxy.page("/metrics");
    let begin = format!("{metric}{{worker=\"");
    let mut found: Vec<(usize, usize)> = text
        .lines()
        .filter_map(|line| {
            let (worker, value) = line.strip_prefix(&begin)?.split_once("\"} ")?;
            Some((worker.parse().ok()?, value.parse().ok()?))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, value)| value).collect()
}

/// Between 40 and 60 of a hundred, each.
fn assert_even(counts: &[usize]) {
    let all: usize = counts.iter().sum();
    assert_eq!(counts.len(), 2, "{counts:?}");
    for count in counts {
        assert!((40 * all..=60 * all).contains(&(100 * count)), "{counts:?}");
    }
}

/// All clients at once, each as fast as it can.
fn work(clients: &mut [Client]) {
    std::thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| {
                for _ in 0..STATEMENTS {
                    client.query("SELECT 1").ok();
                }
            });
        }
    });
}

#[test]
fn clients_and_transactions_are_spread_evenly_also_over_few_servers() {
    for (name, pool) in [
        ("even_many", "pool = { size = 20 }"),
        ("even_few", "pool = { size = 3 }"),
    ] {
        let (proxy, name) = started(name, "workers = 2\n", pool);
        let mut clients: Vec<Client> = (0..CLIENTS)
            .map(|_| proxy.client(&name, "postgres", ""))
            .collect();
        work(&mut clients);
        assert_eq!(by_worker(&proxy, "pgherd_worker_connections"), [25, 25]);
        let transactions = by_worker(&proxy, "pgherd_worker_transactions_total");
        assert!(transactions.iter().sum::<usize>() >= CLIENTS * STATEMENTS);
        assert_even(&transactions);
        // Those of one worker leave: who comes next goes there.
        let mut nth = 0;
        clients.retain(|_| {
            nth += 1;
            nth % 2 == 0
        });
        until("half of them have left", || {
            by_worker(&proxy, "pgherd_worker_connections")
                .iter()
                .sum::<usize>()
                == CLIENTS / 2
        });
        clients.extend((0..CLIENTS / 2).map(|_| proxy.client(&name, "postgres", "")));
        assert_eq!(by_worker(&proxy, "pgherd_worker_connections"), [25, 25]);
    }
}

/// The cores that each thread with a name like this may use, as the system writes them.
fn cores_of(pid: u32, thread: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut cores: Vec<String> = tasks
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).unwrap())
        .filter(|status| value(status, "Name:").starts_with(thread))
        .map(|status| value(&status, "Cpus_allowed_list:").to_owned())
        .collect();
    cores.sort();
    cores
}

fn value<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().trim()
}

/// Of this process, and so of those that it starts.
fn usable_cores() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

#[test]
fn a_pinned_worker_keeps_to_a_core_that_the_process_may_use() {
    let all = cores_of(std::process::id(), "").remove(0);
    let (proxy, _) = started("pinned", "workers = 1\npin_workers = true\n", "");
    let first = all.split([',', '-']).next().unwrap();
    are_soon(&proxy, "worker-", &[first]);
    are_soon(&proxy, "helper", &[&all]);

    let (proxy, _) = started("unpinned", "workers = 1\n", "");
    are_soon(&proxy, "worker-", &[&all]);

    let count = usable_cores() + 1;
    let many = format!("workers = {count}\npin_workers = true\n");
    let (proxy, _) = started("crowded", &many, "");
    are_soon(&proxy, "worker-", &vec![all.as_str(); count]);
    assert!(proxy.log().contains("workers are not pinned"));
}

/// Each thread gives itself its name, and the core, when it begins.
fn are_soon(proxy: &Proxy, thread: &str, expected: &[&str]) {
    until(&format!("{thread} on {expected:?}"), || {
        cores_of(proxy.pid(), thread) == expected
    });
}
