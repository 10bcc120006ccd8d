//! Live: `pgherd run` from its ready line to its end, by signals.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{TcpListener, TcpStream};

use support::proxy::{Proxy, pgherd};
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
