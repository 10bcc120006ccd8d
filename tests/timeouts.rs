//! Live: clients that take too long, and clients that leave in the middle of something. The server is free for others
//! soon, nothing of them is left on it, and it is the same connection wherever that is safe.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::time::{Duration, Instant};

use support::client::{Client, copy_data, execute, parse, query, sync};
use support::client::{bind, describe};
use support::proxy::Proxy;
use support::{database, servers, servers_with, signal, sql, until};

/// A database of one shard with a pool of one.
fn started(name: &str, more: &str) -> (Proxy, String) {
    let server = &servers().all()[..1];
    let name = database(server, name, "CREATE TABLE t (id int primary key)");
    let config = Proxy::config(&name, server, "").replace(
        &format!("[databases.{name}]\n"),
        &format!("[databases.{name}]\npool = {{ size = 1, {more} }}\n"),
    );
    (Proxy::start(&config), name)
}

/// The code, after which the connection is closed.
#[track_caller]
fn ends_with(client: &mut Client, code: &str) {
    let frame = client.frame();
    assert_eq!(
        (frame.tag, frame.field(b'C').as_deref()),
        (b'E', Some(code))
    );
    assert_eq!(frame.field(b'S').as_deref(), Some("FATAL"));
    assert!(client.is_closed());
}

#[test]
fn a_statement_that_takes_too_long_is_cancelled_and_the_session_lives_on() {
    let (proxy, name) = started("query", "query_timeout = \"300ms\"");
    let mut client = proxy.client(&name, "postgres", "");
    let server = client.server_pid();
    let begun = Instant::now();
    for extended in [false, true] {
        let reply = if extended {
            client.run("SELECT pg_sleep(60)", &[])
        } else {
            client.query("SELECT pg_sleep(60)")
        };
        assert_eq!(reply.of(b'E').count(), 1, "{reply}");
        let error = reply.of(b'E').next().unwrap();
        assert_eq!(error.field(b'C').as_deref(), Some("57014"));
        assert_eq!(
            error.field(b'M').as_deref(),
            Some("canceling statement due to statement timeout")
        );
        assert!(error.field(b'H').unwrap().contains("query_timeout"));
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(client.server_pid(), server);
    // In a transaction it fails like any other statement.
    client.query("BEGIN").ok();
    let reply = client.query("SELECT pg_sleep(60)");
    assert!(reply.to_string().ends_with("Z(E)"), "{reply}");
    client.query("ROLLBACK").ok();
    assert_eq!(client.server_pid(), server);
}

#[test]
fn many_short_statements_are_not_a_long_one() {
    let (proxy, name) = started("pipeline", "query_timeout = \"500ms\"");
    let mut client = proxy.client(&name, "postgres", "");
    let mut bytes = Vec::new();
    for _ in 0..8 {
        bytes.extend(parse("", "SELECT pg_sleep(0.2)", &[]));
        bytes.extend(bind("", "", &[]));
        bytes.extend(describe(b'P', ""));
        bytes.extend(execute("", 0));
        bytes.extend(sync());
    }
    client.send(&bytes);
    for _ in 0..8 {
        client.reply().ok();
    }
    client.send(&query("SELECT pg_sleep(0.2)").repeat(8));
    for _ in 0..8 {
        client.reply().ok();
    }
}

#[test]
fn who_waits_for_a_server_does_not_take_too_long() {
    let (proxy, name) = started("queue", "query_timeout = \"400ms\"");
    let mut busy = proxy.client(&name, "postgres", "");
    busy.query("BEGIN").ok();
    let mut waiting = proxy.client(&name, "postgres", "");
    waiting.send(&query("SELECT 7"));
    std::thread::sleep(Duration::from_millis(900));
    busy.query("COMMIT").ok();
    assert_eq!(waiting.reply().lines(), ["7"]);
}

#[test]
fn transactions_and_silence_have_their_limits() {
    for (limit, code, in_transaction) in [
        ("transaction_timeout", "25P04", true),
        ("idle_in_transaction_timeout", "25P03", true),
        ("client_idle_timeout", "57P05", false),
    ] {
        let (proxy, name) = started("limits", &format!("{limit} = \"400ms\""));
        let mut client = proxy.client(&name, "postgres", "");
        let server = client.server_pid();
        if in_transaction {
            client.query("BEGIN").ok();
            client.query("INSERT INTO t VALUES (1)").ok();
        }
        ends_with(&mut client, code);
        let mut other = proxy.client(&name, "postgres", "");
        assert_eq!(other.server_pid(), server, "{limit}");
        assert_eq!(other.query("TABLE t").lines(), Vec::<String>::new());
    }
}

#[test]
fn a_transaction_is_timed_from_its_beginning_whatever_happens_in_it() {
    let (proxy, name) = started("whole", "transaction_timeout = \"600ms\"");
    let mut client = proxy.client(&name, "postgres", "");
    // One after the other none takes too long.
    for _ in 0..5 {
        client.query("SELECT pg_sleep(0.2)").ok();
    }
    client.query("BEGIN").ok();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        if client.try_send(&query("SELECT pg_sleep(0.1)")).is_err() {
            break;
        }
        let Ok(frame) = client.try_frame() else { break };
        if frame.tag == b'E' {
            assert_eq!(frame.field(b'C').as_deref(), Some("25P04"));
            assert!(client.is_closed());
            return;
        }
        client.reply();
    }
    panic!("it was not ended");
}

#[test]
fn a_frozen_server_does_not_hold_its_client_for_ever() {
    let servers = servers_with("frozen", 1);
    let server = &servers.all()[..1];
    let name = database(server, "frozen", "");
    let config = Proxy::config(&name, server, "").replace(
        &format!("[databases.{name}]\n"),
        &format!("[databases.{name}]\npool = {{ size = 2, query_timeout = \"200ms\" }}\n"),
    );
    let proxy = Proxy::start(&config);
    let mut client = proxy.client(&name, "postgres", "");
    let frozen = client.server_pid();
    signal("STOP", &frozen);
    client.send(&query("SELECT 1"));
    ends_with(&mut client, "57014");
    // Others get another one.
    let mut other = proxy.client(&name, "postgres", "");
    assert_ne!(other.server_pid(), frozen);
    signal("CONT", &frozen);
}

#[test]
fn whoever_leaves_in_the_middle_leaves_the_server_to_others() {
    let (proxy, name) = started("leaving", "wait_timeout = \"10s\"");
    let mut first = proxy.client(&name, "postgres", "");
    let server = first.server_pid();
    drop(first);
    type Leave = fn(&mut Client);
    let ways: [(&str, Leave); 8] = [
        ("a long statement", |client| {
            client.send(&query("SELECT pg_sleep(60)"));
        }),
        ("a transaction", |client| {
            client.query("BEGIN").ok();
            client.query("INSERT INTO t VALUES (1)").ok();
        }),
        ("a failed transaction", |client| {
            client.query("BEGIN; SELECT 1/0");
        }),
        ("COPY", |client| {
            client.send(&query("COPY t FROM STDIN"));
            client.until(b'G');
            client.send(&copy_data(b"1\n"));
        }),
        ("COPY that was not answered yet", |client| {
            client.send(&[query("COPY t FROM STDIN"), copy_data(b"1\n")].concat());
        }),
        ("COPY of the extended protocol", |client| {
            client.send(
                &[
                    parse("", "COPY t FROM STDIN", &[]),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                ]
                .concat(),
            );
            client.until(b'G');
        }),
        ("a pipeline without its Sync", |client| {
            client.send(
                &[
                    parse("", "INSERT INTO t VALUES (1)", &[]),
                    bind("", "", &[]),
                    execute("", 0),
                    parse("", "SELECT pg_sleep(60)", &[]),
                    bind("", "", &[]),
                    execute("", 0),
                ]
                .concat(),
            );
        }),
        ("a large result that is not read", |client| {
            client.send(&query(
                "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)",
            ));
            client.until(b'D');
        }),
    ];
    for (what, leave) in ways {
        let mut client = proxy.client(&name, "postgres", "");
        leave(&mut client);
        let begun = Instant::now();
        drop(client);
        let mut other = proxy.client(&name, "postgres", "");
        assert_eq!(other.server_pid(), server, "{what}");
        assert_eq!(
            other.query("SELECT count(*) FROM t").lines(),
            ["0"],
            "{what}"
        );
        assert!(begun.elapsed() < Duration::from_secs(8), "{what}");
    }
}

#[test]
fn nothing_of_a_session_that_was_cut_off_is_left_on_its_server() {
    let (proxy, name) = started("remains", "wait_timeout = \"10s\"");
    for what in [
        "SET work_mem = '9MB'; SELECT pg_sleep(60)",
        "SELECT pg_advisory_lock(7); SELECT pg_sleep(60)",
        "CREATE TEMP TABLE mine (a int); SELECT pg_sleep(60)",
    ] {
        let mut client = proxy.client(&name, "postgres", "");
        client.send(&query(what));
        until("it runs", || {
            let text = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND wait_event = 'PgSleep'"
            );
            sql(&servers().all()[0], "postgres", &text) == "1"
        });
        drop(client);
        let mut other = proxy.client(&name, "postgres", "");
        assert_eq!(other.query("SHOW work_mem").lines(), ["4MB"], "{what}");
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
        assert_eq!(other.query(locks).lines(), ["0"], "{what}");
        let tables = "SELECT count(*) FROM pg_class WHERE relname = 'mine'";
        assert_eq!(other.query(tables).lines(), ["0"], "{what}");
    }
}
