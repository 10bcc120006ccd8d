//! Live: databases that the file does not name, made on demand after `[databases."*"]`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::sync::Barrier;
use std::thread;

use pgherd::demo::Server;
use support::client::{Client, Reply};
use support::proxy::{Proxy, pgherd};
use support::{database, servers, until};

fn server() -> &'static Server {
    &servers().all()[0]
}

/// Whatever is asked for, on the first of the shared servers; `more` goes below `[databases."*"]`.
fn config(more: &str, dsn: &str) -> String {
    format!(
        "[proxy]\nlisten = [\"{{listen}}\"]\nhttp = \"{{http}}\"\nworkers = 2\nlogin_timeout = \"10s\"\n\n\
         [auth]\nmethod = \"trust\"\n\n[databases.\"*\"]\n{more}\n[[databases.\"*\".shards]]\nname = \"s0\"\n\
         primary = \"host=127.0.0.1 port={} sslmode=disable {dsn}\"\n",
        server().port()
    )
}

fn try_login(proxy: &Proxy, database: &str) -> Reply {
    let mut client = Client::connect(proxy.port);
    client.try_login(&[("user", "postgres"), ("database", database)], "")
}

fn made(proxy: &Proxy) -> usize {
    let log = proxy.log();
    log.matches("a database was made on demand").count()
}

#[test]
fn a_client_gets_the_database_that_it_asks_for_from_the_server_of_the_template() {
    let (one, two) = (
        database(&[], "unused", ""),
        database(&servers().all()[..1], "two", ""),
    );
    // A database of the file wins, wherever it leads.
    let more = format!(
        "\n[[databases.{one}.shards]]\nname = \"s0\"\nprimary = \"{}\"\n",
        server().dsn("postgres")
    );
    let proxy = Proxy::start(&(config("", "") + &more));
    let here = |client: &mut Client| client.query("SELECT current_database()").lines();
    assert_eq!(here(&mut proxy.client(&one, "postgres", "")), ["postgres"]);
    assert_eq!(made(&proxy), 0);
    for _ in 0..2 {
        assert_eq!(
            here(&mut proxy.client(&two, "postgres", "")),
            [two.as_str()]
        );
    }
    assert_eq!(
        here(&mut proxy.client("postgres", "postgres", "")),
        ["postgres"]
    );
    assert_eq!(made(&proxy), 2);
    let metrics = proxy.page("/metrics");
    for part in [
        format!("pgherd_client_logins_total{{database=\"{two}\",result=\"ok\"}} 2"),
        format!("pgherd_server_connections{{database=\"{two}\",shard=\"s0\",user=\"postgres\""),
    ] {
        assert!(metrics.contains(&part), "{part}\n{metrics}");
    }
}

#[test]
fn a_connection_string_that_names_a_database_leads_everybody_there() {
    let proxy = Proxy::start(&config("", "dbname=postgres"));
    let mut client = proxy.client("anything", "postgres", "");
    assert_eq!(
        client.query("SELECT current_database()").lines(),
        ["postgres"]
    );
}

#[test]
fn what_does_not_exist_is_refused_and_leaves_nothing_behind() {
    let proxy = Proxy::start(&config("", ""));
    let before = proxy.page("/metrics").lines().count();
    let told = |reply: &Reply| {
        let error = reply.of(b'E').next().unwrap();
        let field = |code| error.field(code).unwrap();
        format!("{} {} {}", field(b'S'), field(b'C'), field(b'M'))
    };
    for number in 0..50 {
        let reply = try_login(&proxy, &format!("nowhere_{number}"));
        assert_eq!(
            told(&reply),
            format!("FATAL 3D000 database \"nowhere_{number}\" does not exist")
        );
    }
    let long = "x".repeat(64);
    for name in ["pgherd", "pgbouncer", &long] {
        let reply = try_login(&proxy, name);
        assert_eq!(
            told(&reply),
            format!("FATAL 3D000 no such database: {name}")
        );
    }
    // The template itself is no database.
    assert_eq!(
        told(&try_login(&proxy, "*")),
        "FATAL 3D000 database \"*\" does not exist"
    );
    let page = proxy.page("/metrics");
    assert_eq!(page.lines().count(), before, "{page}");
    assert!(!page.contains("nowhere_"), "{page}");
    assert_eq!(made(&proxy), 0);
}

#[test]
fn who_does_not_authenticate_learns_nothing_and_makes_nothing() {
    let text = config("", "").replace(
        "method = \"trust\"",
        "method = \"scram-sha-256\"\nusers_file = \"users\"",
    );
    let proxy = Proxy::start_with(&text, |folder, _| {
        std::fs::write(folder.join("users"), "\"postgres\" \"right\"\n").unwrap();
    });
    for name in ["postgres", "nowhere", "pgherd"] {
        let mut client = Client::connect(proxy.port);
        let reply = client.try_login(&[("user", "postgres"), ("database", name)], "wrong");
        assert_eq!(
            reply.sqlstate().as_deref(),
            Some("28P01"),
            "{name}: {reply}"
        );
    }
    assert_eq!(made(&proxy), 0);
    proxy
        .client("postgres", "postgres", "right")
        .query("SELECT 1")
        .ok();
    assert_eq!(made(&proxy), 1);
}

#[test]
fn many_clients_at_once_make_a_database_once_and_it_goes_when_nobody_needs_it() {
    const CLIENTS: usize = 30;
    let name = database(&servers().all()[..1], "comes_and_goes", "");
    let proxy = Proxy::start(&config("pool = { idle_timeout = \"100ms\" }\n", ""));
    let together = Barrier::new(CLIENTS);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                together.wait();
                let mut client = proxy.client(&name, "postgres", "");
                client.query("SELECT 1").ok();
            });
        }
    });
    assert_eq!(made(&proxy), 1);
    let gone = || {
        let log = proxy.log();
        log.matches("was unused and is gone").count()
    };
    // A client keeps it, whether it has a server or not.
    let mut client = proxy.client(&name, "postgres", "");
    until("the servers are closed", || {
        let idle = |line: &str| {
            line.starts_with("pgherd_server_connections")
                && line.contains("idle")
                && line.ends_with(" 0")
        };
        proxy.page("/metrics").lines().any(idle)
    });
    thread::sleep(pgherd::frontend::SWEEP * 2);
    assert_eq!(gone(), 0);
    client.query("SELECT 1").ok();
    drop(client);
    until("it is gone", || gone() == 1);
    // And comes back when it is asked for.
    proxy.client(&name, "postgres", "").query("SELECT 1").ok();
    assert_eq!(made(&proxy), 2);
}

#[test]
fn check_connect_looks_at_the_server_of_the_template() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("template-{}.toml", std::process::id()));
    let text = config("", "user=postgres")
        .replace("{listen}", "127.0.0.1:6432")
        .replace("{http}", "off");
    std::fs::write(&path, text).unwrap();
    let output = pgherd(&["check", "--connect", "--config", path.to_str().unwrap()]);
    std::fs::remove_file(&path).unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(!told.contains("error"), "{told}");
}
