//! Live: a proxy that is short of memory takes no new work, finishes what has begun, and takes work again; a connection
//! that stalls in either direction costs next to none.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgherd::demo::{Servers, shop};
use support::client::{Client, Reply, copy_data, copy_done, query};
use support::proxy::{Proxy, init};
use support::{database, get, servers, servers_with, signal, sql, until};

const LIMIT_MIB: u64 = 128;
const LIMIT: u64 = LIMIT_MIB << 20;

/// The names of a database of one shard and of one of three, in this order.
fn start(memory_max: &str) -> (Proxy, String, String) {
    let servers = servers().all();
    let name = database(servers, "memory", shop::SCHEMA);
    let rules = shop::RULES.replace("databases.shop.", &format!("databases.{name}."));
    let single = format!("{name}_single");
    let config = Proxy::config(&name, servers, &rules).replace(
        "workers = 2\n",
        &format!("workers = 2\nmemory_max = \"{memory_max}\"\n"),
    ) + &format!(
        "[databases.{single}]\n[[databases.{single}.shards]]\nname = \"s0\"\nprimary = \"{}\"\n",
        servers[0].dsn(&name)
    );
    (Proxy::start_with(&config, init), single, name)
}

/// A client whose one message is never whole: the proxy must keep what it has of it.
fn hog(proxy: &Proxy, name: &str, bytes: u64) -> Client {
    let mut client = proxy.client(name, "postgres", "");
    client.send(b"Q");
    client.send(&u32::try_from(bytes * 2).unwrap().to_be_bytes());
    let piece = vec![b' '; 1 << 20];
    for _ in 0..bytes >> 20 {
        client.send(&piece);
    }
    client
}

#[track_caller]
fn refused(reply: &Reply, severity: &str) {
    let errors: Vec<_> = reply.of(b'E').collect();
    assert_eq!(errors.len(), 1, "{reply}");
    let field = |code| errors[0].field(code).unwrap_or_default();
    assert_eq!(field(b'C'), "53200", "{reply}");
    assert_eq!(field(b'S'), severity, "{reply}");
    assert!(
        field(b'D').contains(&format!("memory_max is {LIMIT_MIB} MiB")),
        "{}",
        field(b'D')
    );
    assert!(field(b'H').contains("memory_max"), "{}", field(b'H'));
}

#[test]
fn without_memory_nothing_new_is_begun_until_there_is_some_again() {
    let (proxy, single, sharded) = start(&format!("{LIMIT_MIB}MiB"));
    let client = |name: &str| proxy.client(name, "postgres", "");
    let try_login = |name: &str| {
        let parameters = [("user", "postgres"), ("database", name)];
        Client::connect(proxy.port).try_login(&parameters, "")
    };
    let (mut idle, mut open) = (client(&single), client(&single));
    let (mut idle_sharded, mut open_sharded) = (client(&sharded), client(&sharded));
    let mut begun = client(&sharded);
    begun.query("BEGIN").ok();
    let one = "SELECT name FROM customers WHERE id = 1";
    for client in [&mut open, &mut open_sharded] {
        client.query("BEGIN").ok();
        client.query(one).ok();
    }
    let hog = hog(&proxy, &single, 2 * LIMIT);
    until("it is short of memory", || {
        proxy.log().contains("short of memory")
    });

    for name in [&single, &sharded] {
        refused(&try_login(name), "FATAL");
        let replication = [
            ("user", "postgres"),
            ("database", name.as_str()),
            ("replication", "database"),
        ];
        let reply = Client::connect(proxy.port).try_login(&replication, "");
        assert_eq!(reply.sqlstate().as_deref(), Some("53200"), "{reply}");
    }
    for client in [&mut idle, &mut idle_sharded] {
        // On several shards the second goes to all of them.
        for text in [one, "SELECT id, name FROM customers"] {
            refused(&client.query(text), "ERROR");
            let reply = client.run(text, &[]);
            refused(&reply, "ERROR");
            assert_eq!(reply.0.last().unwrap().to_string(), "Z(I)");
        }
    }
    // BEGIN was only remembered: this is where the transaction would begin.
    refused(&begun.query(one), "ERROR");
    assert_eq!(begun.query("ROLLBACK").tags(), ["ROLLBACK"]);
    for client in [&mut open, &mut open_sharded] {
        client.query(one).ok();
        client.run(one, &[]).ok();
        client.query("COMMIT").ok();
        refused(&client.query(one), "ERROR");
    }
    let figures = get(proxy.http, "/metrics").1;
    let value = |name: &str| -> u64 {
        let line = figures.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name}: {figures}"))
            .trim()
            .parse()
            .unwrap()
    };
    let resident = value("pgherd_resident_bytes ");
    assert!(resident > LIMIT, "{resident}");
    for (name, work, count) in [
        (&single, "client", 2),
        (&sharded, "client", 2),
        (&single, "transaction", 5),
        (&sharded, "transaction", 6),
    ] {
        let metric =
            format!("pgherd_memory_refusals_total{{database=\"{name}\",work=\"{work}\"}} ");
        assert_eq!(value(&metric), count, "{metric}{figures}");
    }

    drop(hog);
    until("there is memory again", || {
        proxy.log().contains("there is memory again")
    });
    for (client, name) in [(&mut idle, &single), (&mut idle_sharded, &sharded)] {
        client.query(one).ok();
        client.query("SELECT id, name FROM customers").ok();
        assert!(try_login(name).sqlstate().is_none());
    }
}

#[test]
fn without_a_limit_nothing_is_refused() {
    let (proxy, single, _) = start("off");
    let _hog = hog(&proxy, &single, 2 * LIMIT);
    until("it is measured all the same", || {
        let figures = get(proxy.http, "/metrics").1;
        let resident = figures
            .lines()
            .find_map(|line| line.strip_prefix("pgherd_resident_bytes "));
        resident.is_some_and(|text| text.parse::<u64>().unwrap() > LIMIT)
    });
    let reply = proxy.client(&single, "postgres", "").query("SELECT 7");
    assert_eq!(reply.lines(), ["7"]);
    assert!(!proxy.log().contains("short of memory"));
}

/// Nothing was taken for so long: nothing will be.
const STILL: Duration = Duration::from_millis(300);

/// What a stalled connection may cost: a read and what it was put behind, and what allocators keep.
const STALLED_KIB_MAX: u64 = 4 * 1024;

/// A proxy with one thread for clients, so that whoever holds it holds everybody.
fn one_worker(servers: &Servers) -> (Proxy, String) {
    let name = database(servers.all(), "stalled", "");
    let config = Proxy::config(&name, servers.all(), "");
    (
        Proxy::start(&config.replace("workers = 2", "workers = 1")),
        name,
    )
}

/// Others are served all the time until nothing moves any more, and the stalled connection costs next to nothing.
fn others_are_served_until(proxy: &Proxy, name: &str, stalled: impl Fn() -> bool) {
    let mut other = proxy.client(name, "postgres", "");
    other.query("SELECT 1").ok();
    let before = proxy.resident_kib();
    until("nothing moves any more", || {
        assert_eq!(other.query("SELECT 1").lines(), ["1"]);
        stalled()
    });
    for _ in 0..100 {
        assert_eq!(other.query("SELECT 1").lines(), ["1"]);
    }
    let grown = proxy.resident_kib().saturating_sub(before);
    assert!(grown < STALLED_KIB_MAX, "{grown} KiB");
}

#[test]
fn a_client_that_does_not_read_a_huge_result_holds_neither_memory_nor_others() {
    const ROWS: usize = 200_000;
    let servers = servers_with("unread", 1);
    let (proxy, name) = one_worker(&servers);
    let mut slow = proxy.client(&name, "postgres", "");
    slow.send(&query(&format!(
        "SELECT repeat('x', 1000) FROM generate_series(1, {ROWS})"
    )));
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'";
    others_are_served_until(&proxy, &name, || {
        sql(&servers.all()[0], &name, waits) == "1"
    });
    assert_eq!(slow.reply().of(b'D').count(), ROWS);
}

#[test]
fn a_client_that_sends_to_a_server_that_does_not_read_holds_neither_memory_nor_others() {
    const BYTES: usize = 64 << 20;
    let servers = servers_with("unwritten", 1);
    let (proxy, name) = one_worker(&servers);
    let server = &servers.all()[0];
    sql(server, &name, "CREATE TABLE t (v text)");
    let mut client = proxy.client(&name, "postgres", "");
    client.query("BEGIN").ok();
    let backend = client.server_pid();
    client.send(&query("COPY t FROM STDIN"));
    client.until(b'G');
    signal("STOP", &backend);
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let sender = std::thread::spawn(move || {
        let line = copy_data(&[vec![b'y'; 9_999], b"\n".to_vec()].concat());
        while counted.load(Ordering::Relaxed) < BYTES {
            client.send(&line);
            counted.fetch_add(line.len(), Ordering::Relaxed);
        }
        client.send(&copy_done());
        let copied = client.reply();
        client.query("COMMIT").ok();
        copied
    });
    let last = Cell::new((0, Instant::now()));
    others_are_served_until(&proxy, &name, || {
        let now = sent.load(Ordering::Relaxed);
        if now != last.get().0 {
            last.set((now, Instant::now()));
        }
        now > 0 && last.get().1.elapsed() > STILL
    });
    assert!(sent.load(Ordering::Relaxed) < BYTES);
    signal("CONT", &backend);
    let copied = sender.join().unwrap();
    let rows = BYTES.div_ceil(10_005);
    assert_eq!(copied.tags(), [format!("COPY {rows}")], "{copied}");
}
