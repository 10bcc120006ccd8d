//! Live: `pgherd run` from its ready line to its end, by signals.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use pgherd::demo::shop;
use support::client::Client;
use support::proxy::{Proxy, init, pgherd};
use support::{database, get, servers, sql, until};

fn start() -> (Proxy, String) {
    let server = &servers().all()[..1];
    let name = database(server, "running", "");
    let config = Proxy::config(&name, server, "")
        .replace("workers = 2\n", "workers = 2\nshutdown_timeout = \"15s\"\n")
        + "[log]\nformat = \"json\"\n";
    (Proxy::start(&config), name)
}

#[test]
fn it_says_when_it_is_ready_and_where() {
    let (proxy, _) = start();
    let (listen, http) = (proxy.port, proxy.http);
    until("it is ready", || proxy.log().contains("\"ready\""));
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("\"ready\"")).unwrap();
    for part in [
        format!("\"listen\":\"127.0.0.1:{listen}\""),
        format!("\"http\":\"127.0.0.1:{http}\""),
        "\"workers\":2".to_owned(),
        "\"databases\":1".to_owned(),
        format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(line.contains(&part), "{part}: {line}");
    }
    assert_eq!(get(http, "/healthz").1, "ok\n");
    assert_eq!(get(http, "/readyz").1, "ready\n");
    assert!(get(http, "/metrics").1.contains("pgherd_build_info{"));
}

#[test]
fn a_hangup_is_answered_in_the_log_and_serving_goes_on() {
    let (proxy, name) = start();
    let mut client = proxy.client(&name, "postgres", "");
    until("it is ready", || proxy.log().contains("\"ready\""));
    proxy.signal("HUP");
    until("the hangup is told of", || proxy.log().contains("SIGHUP"));
    assert_eq!(client.query("SELECT 7").lines(), ["7"]);
}

#[test]
fn at_the_first_signal_what_runs_is_finished_and_at_the_end_the_code_is_0() {
    for signal in ["TERM", "INT"] {
        let (mut proxy, name) = start();
        let server = &servers().all()[0];
        let mut busy = proxy.client(&name, "postgres", "");
        let mut idle = proxy.client(&name, "postgres", "");
        let locks = sql(server, &name, "CREATE TABLE gate (); SELECT 'made'");
        assert_eq!(locks, "made");
        // A direct connection holds what the client waits for, so the statement ends when we say so.
        let mut holder = support::client::Client::connect(server.port());
        holder.login(&[("user", "postgres"), ("database", &name)], "");
        holder.query("BEGIN; LOCK TABLE gate");
        busy.send(&support::client::query("SELECT count(*) FROM gate"));
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        until("the statement waits", || sql(server, &name, waiting) == "1");

        proxy.signal(signal);
        until("it drains", || get(proxy.http, "/readyz").0.contains("503"));
        assert_eq!(idle.until(b'E').sqlstate().as_deref(), Some("57P01"));
        until("it takes no clients", || {
            TcpStream::connect(("127.0.0.1", proxy.port)).is_err()
        });
        holder.query("COMMIT");
        assert_eq!(busy.reply().lines(), ["0"]);
        assert_eq!(proxy.wait().code(), Some(0), "{signal}");
        assert!(proxy.log().contains("\"stopped\""), "{}", proxy.log());
    }
}

/// One server connection for all, and this long to shut down.
fn start_small(shutdown_timeout: &str) -> (Proxy, String) {
    let server = &servers().all()[..1];
    let name = database(server, "small", "");
    let config = Proxy::config(&name, server, "")
        .replace(
            "workers = 2\n",
            &format!("workers = 2\nshutdown_timeout = \"{shutdown_timeout}\"\n"),
        )
        .replace(
            &format!("[databases.{name}]\n"),
            &format!("[databases.{name}]\npool = {{ size = 1 }}\n"),
        );
    (Proxy::start(&config), name)
}

/// The session ends with 57P01 and nothing behind it.
#[track_caller]
fn is_ended(client: &mut Client) {
    let last = client.until(b'E');
    let error = last.0.last().unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("57P01"), "{last}");
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"), "{last}");
    assert!(matches!(client.try_frame(), Err(error) if error.kind() == ErrorKind::UnexpectedEof));
}

#[test]
fn a_transaction_may_be_finished_and_who_waits_for_a_server_is_told() {
    let (mut proxy, name) = start_small("15s");
    let mut open = proxy.client(&name, "postgres", "");
    let mut waiting = proxy.client(&name, "postgres", "");
    open.query("CREATE TABLE kept (n int)").ok();
    open.query("BEGIN").ok();
    open.query("INSERT INTO kept VALUES (1)").ok();
    waiting.send(&support::client::query("SELECT 'never'"));
    // One that cannot even be greeted: nobody has asked for this setting before.
    let mut newcomer = Client::connect(proxy.port);
    let parameters = [("user", "postgres"), ("database", &name), ("geqo", "off")];
    newcomer.send(&support::client::startup(0x0003_0000, &parameters));
    let queue = format!("pgherd_pool_waiting{{database=\"{name}\"");
    until("two are in the queue", || {
        let metrics = get(proxy.http, "/metrics").1;
        metrics
            .lines()
            .any(|line| line.starts_with(&queue) && line.ends_with(" 2"))
    });

    proxy.signal("TERM");
    is_ended(&mut waiting);
    is_ended(&mut newcomer);
    open.query("INSERT INTO kept VALUES (2)").ok();
    assert_eq!(open.query("COMMIT").tags(), ["COMMIT"]);
    is_ended(&mut open);
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(!proxy.log().contains("cut off"), "{}", proxy.log());
    let count = sql(&servers().all()[0], &name, "SELECT count(*) FROM kept");
    assert_eq!(count, "2");
}

#[test]
fn at_the_deadline_sessions_are_cut_off_with_a_word_where_one_can_be_said() {
    const LENGTH: usize = 50_000_000;
    let server = &servers().all()[0];
    let name = database(std::slice::from_ref(server), "cut", "");
    let config = Proxy::config(&name, std::slice::from_ref(server), "")
        .replace("workers = 2\n", "workers = 2\nshutdown_timeout = \"1s\"\n");
    let mut proxy = Proxy::start(&config);
    let [mut idle, mut busy] = [(); 2].map(|()| proxy.client(&name, "postgres", ""));
    idle.query("BEGIN").ok();
    idle.query("SELECT 1").ok();
    busy.send(&support::client::query("SELECT pg_sleep(60)"));
    // One message, of which the client has the beginning.
    let long = format!("SELECT repeat('x', {LENGTH})");
    let mut unread = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
    let mut client = Client::over(unread.try_clone().unwrap());
    client.login(&[("user", "postgres"), ("database", &name)], "");
    client.send(&support::client::query(&long));
    let state = |event: &str| {
        let text = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND wait_event = '{event}'"
        );
        sql(server, "postgres", &text)
    };
    until("it sleeps", || state("PgSleep") == "1");
    until("it cannot go on", || state("ClientWrite") == "1");

    proxy.signal("TERM");
    let begun = Instant::now();
    is_ended(&mut idle);
    is_ended(&mut busy);
    assert!(begun.elapsed() > Duration::from_millis(900));
    // Its statement does not work for nobody.
    until("it is cancelled", || state("PgSleep") == "0");
    // No word of ours stands in the middle of a value.
    let mut rest = Vec::new();
    unread.read_to_end(&mut rest).unwrap();
    assert!(
        rest.len() < LENGTH && rest.ends_with(b"xxxxx"),
        "{}",
        rest.len()
    );
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8));
    assert!(proxy.log().contains("cut off at the deadline"));
}

#[test]
fn at_the_deadline_no_shard_works_on_for_nobody() {
    let servers = servers().all();
    let name = database(servers, "cut_shards", shop::SCHEMA);
    let rules = shop::RULES.replace("databases.shop.", &format!("databases.{name}."));
    let config = Proxy::config(&name, servers, &rules).replace(
        "workers = 2\n",
        "workers = 2\nshutdown_timeout = \"200ms\"\n",
    );
    let mut proxy = Proxy::start_with(&config, init);
    let [mut every, mut one] = [(); 2].map(|()| proxy.client(&name, "postgres", ""));
    one.query("BEGIN").ok();
    one.query("SELECT name FROM customers WHERE id = 1").ok();
    let mut holders: Vec<_> = servers
        .iter()
        .map(|server| {
            let mut holder = Client::connect(server.port());
            holder.login(&[("user", "postgres"), ("database", &name)], "");
            holder.query("BEGIN; LOCK TABLE orders").ok();
            holder
        })
        .collect();
    every.send(&support::client::query(
        "SELECT id, customer_id FROM orders",
    ));
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND wait_event_type = 'Lock'"
    );
    let wait = |count: &str| {
        until("every shard waits, or none", || {
            servers
                .iter()
                .all(|server| sql(server, "postgres", &waiting) == count)
        });
    };
    wait("1");
    proxy.signal("TERM");
    is_ended(&mut one);
    assert!(every.is_closed());
    wait("0");
    assert_eq!(proxy.wait().code(), Some(0));
    holders.clear();
}

#[test]
fn at_the_second_signal_it_ends_at_once_with_1() {
    let (mut proxy, name) = start();
    let mut client = proxy.client(&name, "postgres", "");
    client.query("BEGIN; SELECT 1");
    proxy.signal("TERM");
    until("it drains", || get(proxy.http, "/readyz").0.contains("503"));
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(1));
    assert!(proxy.log().contains("at once"), "{}", proxy.log());
}

#[test]
fn a_port_that_is_taken_is_named_and_the_code_is_1() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("taken-{}.toml", std::process::id()));
    let text = Proxy::config("any", &servers().all()[..1], "")
        .replace("{listen}", &address)
        .replace("http = \"{http}\"\n", "");
    std::fs::write(&path, text).unwrap();
    let output = pgherd(&["run", "--config", path.to_str().unwrap()]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(
        log.contains(&format!("cannot listen on {address}")),
        "{log}"
    );
    assert!(log.contains("another address"), "{log}");
}

#[test]
fn the_labels_of_every_metric_are_those_of_the_page() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md"));
    let page = page.unwrap();
    let told: BTreeMap<_, _> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `pgherd_")?.split_once("` | "))
        .map(|(name, rest)| (name, rest.split(" | ").nth(1).unwrap()))
        .collect();
    let (proxy, name) = start();
    proxy.client(&name, "postgres", "").query("SELECT 1");
    let mut seen = BTreeSet::new();
    for line in get(proxy.http, "/metrics").1.lines() {
        let Some((metric, rest)) = line
            .strip_prefix("pgherd_")
            .and_then(|line| line.split_once('{'))
        else {
            continue;
        };
        let metric = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| metric.strip_suffix(suffix))
            .unwrap_or(metric);
        let labels: Vec<_> = rest
            .split("=\"")
            .map(|part| part.rsplit(['{', ',', '"']).next().unwrap())
            .filter(|label| label.chars().all(|c| c.is_ascii_lowercase()) && *label != "le")
            .collect();
        assert_eq!(labels.join(", "), told[metric], "{line}");
        seen.insert(metric.to_owned());
    }
    assert!(seen.len() >= 14, "{seen:?}");
}
