//! Live: what goes wrong, and what clients see of it. A lost server is one error and the session lives on; a client
//! that speaks nonsense, or says nothing, harms nobody else; more clients than servers only wait.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::thread;

use support::client::{
    Client, bind, cancel_request, copy_data, execute, message, parse, query, startup, sync,
};
use support::proxy::Proxy;
use support::{PATIENCE, database, servers, servers_with, sql, until};

const POOL: usize = 20;

fn one_shard(name: &str, more: &str) -> (Proxy, String) {
    let server = &servers().all()[..1];
    let name = database(server, name, "CREATE TABLE t (id int primary key, n int)");
    let config = Proxy::config(&name, server, "")
        .replace("[auth]", "login_timeout = \"2s\"\n\n[auth]")
        .replace(
            &format!("[databases.{name}]\n"),
            &format!("[databases.{name}]\n{more}"),
        );
    (Proxy::start(&config), name)
}

#[test]
fn kill_9_of_a_shard_in_mid_transaction_is_one_error_and_the_session_lives_on() {
    let servers = servers_with("killed", 1);
    let server = &servers.all()[..1];
    let name = database(
        server,
        "killed",
        "CREATE TABLE t (id int primary key, n int)",
    );
    let proxy = Proxy::start(&Proxy::config(&name, server, ""));
    for extended in [false, true] {
        let mut client = proxy.client(&name, "postgres", "");
        client.query("BEGIN").ok();
        client.query("INSERT INTO t VALUES (1, 1)").ok();
        server[0].kill9();
        let reply = if extended {
            client.run("SELECT n FROM t WHERE id = $1::int", &[Some("1")])
        } else {
            client.query("SELECT n FROM t WHERE id = 1")
        };
        // Exactly one error, and the transaction has failed.
        assert_eq!(reply.of(b'E').count(), 1, "{reply}");
        assert_eq!(reply.sqlstate().as_deref(), Some("08006"), "{reply}");
        assert!(reply.to_string().ends_with("Z(E)"), "{reply}");
        assert_eq!(
            client.query("SELECT 1").sqlstate().as_deref(),
            Some("25P02")
        );
        assert_eq!(client.query("ROLLBACK").to_string(), "C(ROLLBACK) Z(I)");
        server[0].restart().unwrap();
        // The same session, on the server that came back; nothing of the transaction is there.
        until("the server takes clients again", || {
            client.query("SELECT 1").lines() == ["1"]
        });
        assert_eq!(client.query("SELECT count(*) FROM t").lines(), ["0"]);
    }
}

#[test]
fn a_backend_that_dies_under_a_statement_is_one_error_for_each_answer_awaited() {
    let (proxy, name) = one_shard("backend", "");
    let mut client = proxy.client(&name, "postgres", "");
    client.send(&query("SELECT pg_sleep(60)"));
    let server = &servers().all()[0];
    let victim = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                  AND query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()";
    until("the statement runs", || sql(server, &name, victim) == "t");
    let reply = client.reply();
    assert_eq!(reply.of(b'E').count(), 1, "{reply}");
    let error = reply.of(b'E').next().unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("08006"));
    assert!(error.field(b'D').unwrap().contains("57P01"), "{reply}");
    assert!(reply.to_string().ends_with("Z(I)"), "{reply}");
    assert_eq!(client.query("SELECT 7").lines(), ["7"]);
}

#[test]
fn an_idle_server_that_goes_away_is_noticed_by_nobody() {
    let (proxy, name) = one_shard("idle", "");
    let mut client = proxy.client(&name, "postgres", "");
    for _ in 0..5 {
        assert_eq!(client.query("SELECT 1").lines(), ["1"]);
        terminate_all(&name);
    }
}

#[test]
fn a_client_that_breaks_the_protocol_is_told_and_harms_nobody_else() {
    let (proxy, name) = one_shard("malformed", "");
    let mut good = proxy.client(&name, "postgres", "");
    good.query("BEGIN").ok();
    good.query("INSERT INTO t VALUES (1, 1)").ok();
    let nonsense: Vec<Vec<u8>> = vec![
        vec![0; 64],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![b'Q', 0xff, 0xff, 0xff, 0xff],
        vec![b'Q', 0, 0, 0, 3],
        vec![b'Q', 0x7f, 0xff, 0xff, 0xff, b'x'],
        message(b'Q', b"SELECT 1"),
        message(b'P', b"a"),
        message(b'D', b"Xname\0"),
        message(b'S', b"more"),
        message(b'z', b""),
        message(b'p', b"password\0"),
    ];
    for bytes in &nonsense {
        let mut client = proxy.client(&name, "postgres", "");
        client.send(bytes);
        let mut last = None;
        while let Ok(frame) = client.try_frame() {
            last = Some(frame);
        }
        let last = last.unwrap_or_else(|| panic!("{bytes:?}: nothing was said"));
        assert_eq!(last.tag, b'E', "{bytes:?}");
        assert_eq!(last.field(b'S').as_deref(), Some("FATAL"), "{bytes:?}");
        assert!(
            ["08P01", "54000"].contains(&last.field(b'C').unwrap().as_str()),
            "{bytes:?}"
        );
    }
    // What only a server can judge is an ordinary error.
    let mut client = proxy.client(&name, "postgres", "");
    client.send(&parse("", "SELECT $1::int", &[]));
    client.send(&message(b'B', b"\0\0\xff\xff"));
    client.send(&sync());
    assert_eq!(client.reply().sqlstate().as_deref(), Some("08P01"));
    assert_eq!(client.query("SELECT 1").lines(), ["1"]);
    // Before the login too.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 8], &[0xff; 200]] {
        let mut client = Client::connect(proxy.port);
        // It may have been closed while we still write.
        let _ = client.try_send(bytes);
        assert!(client.is_closed(), "{bytes:?}");
    }
    // A cut in the middle of everything.
    let whole = [
        startup(196_608, &[("user", "postgres"), ("database", &name)]),
        query("SELECT 1"),
    ]
    .concat();
    for length in 0..whole.len() {
        let mut client = Client::connect(proxy.port);
        let _ = client.try_send(&whole[..length]);
    }
    assert_eq!(good.query("SELECT n FROM t WHERE id = 1").lines(), ["1"]);
    assert_eq!(good.query("COMMIT").to_string(), "C(COMMIT) Z(I)");
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
}

#[test]
fn copy_data_out_of_place_is_ignored_as_postgresql_does() {
    let (proxy, name) = one_shard("copydata", "");
    let mut client = proxy.client(&name, "postgres", "");
    client.send(&copy_data(b"1\t2\n"));
    client.send(&query("SELECT 5"));
    assert_eq!(
        client.reply().to_string(),
        "T(?column?) D(5) C(SELECT 1) Z(I)"
    );
}

#[test]
fn a_client_that_leaves_in_mid_transaction_leaves_no_lock() {
    let (proxy, name) = one_shard("leaves", "");
    for _ in 0..3 {
        let mut client = proxy.client(&name, "postgres", "");
        client.query("BEGIN").ok();
        client.query("INSERT INTO t VALUES (1, 1)").ok();
        drop(client);
    }
    let mut client = proxy.client(&name, "postgres", "");
    client.query("SET statement_timeout = '10s'").ok();
    client.query("INSERT INTO t VALUES (1, 1)").ok();
    assert_eq!(client.query("SELECT count(*) FROM t").lines(), ["1"]);
}

#[test]
fn a_thousand_clients_share_twenty_servers_and_all_finish() {
    let (proxy, name) = one_shard("thousand", &format!("pool = {{ size = {POOL} }}\n"));
    let clients = 1000;
    let together = Barrier::new(clients);
    let (proxy, name, together) = (&proxy, &name, &together);
    thread::scope(|scope| {
        let running: Vec<_> = (0..clients)
            .map(|number| {
                let run = move || {
                    let mut client = proxy.client(name, "postgres", "");
                    together.wait();
                    client.query("BEGIN").ok();
                    client
                        .query(&format!(
                            "INSERT INTO t VALUES ({number}, pg_backend_pid())"
                        ))
                        .ok();
                    client.query("COMMIT").ok();
                    let found = client.run(
                        "SELECT id FROM t WHERE id = $1::int",
                        &[Some(&number.to_string())],
                    );
                    assert_eq!(found.lines(), [number.to_string()]);
                };
                thread::Builder::new()
                    .stack_size(256 * 1024)
                    .spawn_scoped(scope, run)
                    .unwrap()
            })
            .collect();
        for client in running {
            client.join().unwrap();
        }
    });
    let mut client = proxy.client(name, "postgres", "");
    assert_eq!(client.query("SELECT count(*) FROM t").lines(), ["1000"]);
    let used: usize = client.query("SELECT count(DISTINCT n) FROM t").lines()[0]
        .parse()
        .unwrap();
    assert!((1..=POOL).contains(&used), "{used} servers were used");
}

#[test]
fn who_waits_too_long_gets_53300_and_the_next_one_is_served() {
    let (proxy, name) = one_shard("full", "pool = { size = 1, wait_timeout = \"200ms\" }\n");
    let mut first = proxy.client(&name, "postgres", "");
    let mut second = proxy.client(&name, "postgres", "");
    first.query("BEGIN").ok();
    let reply = second.query("SELECT 1");
    assert_eq!(reply.sqlstate().as_deref(), Some("53300"), "{reply}");
    first.query("COMMIT").ok();
    assert_eq!(second.query("SELECT 2").lines(), ["2"]);
}

#[test]
fn a_client_that_does_not_read_keeps_nobody_from_being_served() {
    let (proxy, name) = one_shard("slow", "");
    let mut slow = proxy.client(&name, "postgres", "");
    slow.send(&query(
        "SELECT repeat('x', 1000) FROM generate_series(1, 200000)",
    ));
    let mut other = proxy.client(&name, "postgres", "");
    for _ in 0..100 {
        assert_eq!(other.query("SELECT 1").lines(), ["1"]);
    }
    // And it gets all of it when it does read.
    assert_eq!(slow.reply().of(b'D').count(), 200_000);
}

#[test]
fn an_error_in_a_pipeline_skips_to_its_sync_and_not_further() {
    let (proxy, name) = one_shard("pipeline", "");
    let mut client = proxy.client(&name, "postgres", "");
    let step = |text: &str| [parse("", text, &[]), bind("", "", &[]), execute("", 0)].concat();
    let bytes = [
        step("SELECT 1"),
        step("SELECT 1 / (SELECT 0)"),
        step("SELECT 2"),
        sync(),
        step("SELECT 3"),
        sync(),
    ]
    .concat();
    client.send(&bytes);
    assert_eq!(
        client.reply().to_string(),
        "1 2 D(1) C(SELECT 1) 1 2 E(22012 division by zero) Z(I)"
    );
    assert_eq!(client.reply().to_string(), "1 2 D(3) C(SELECT 1) Z(I)");
}

#[test]
fn a_login_that_is_never_finished_ends() {
    let (proxy, _) = one_shard("unfinished", "");
    let connection = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut client = Client::over(connection);
    assert!(client.is_closed());
}

/// One client waits for a server.
fn has_a_waiter(proxy: &Proxy) -> bool {
    let mut http = TcpStream::connect(("127.0.0.1", proxy.http)).unwrap();
    http.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut page = String::new();
    http.read_to_string(&mut page).unwrap();
    page.lines()
        .any(|line| line.starts_with("pgherd_pool_waiting{") && line.ends_with(" 1"))
}

#[test]
fn what_is_sent_while_a_client_waits_for_a_server_is_not_forgotten() {
    let (proxy, name) = one_shard("meanwhile", "pool = { size = 1 }\n");
    let mut holder = proxy.client(&name, "postgres", "");
    let mut waiter = proxy.client(&name, "postgres", "");
    for more in [
        vec![sync()],
        vec![execute("", 0), sync()],
        vec![sync(), query("SELECT 3")],
    ] {
        holder.query("BEGIN").ok();
        holder.query("SELECT 1").ok();
        let begins = [
            parse("", "SELECT 2", &[]),
            bind("", "", &[]),
            execute("", 0),
        ];
        waiter.send(&begins.concat());
        until("it waits", || has_a_waiter(&proxy));
        // Without it the server that the client gets would wait for it forever.
        waiter.send(&more.concat());
        holder.query("COMMIT").ok();
        assert_eq!(waiter.reply().lines()[0], "2");
        if more.len() > 1 && more[0] == sync() {
            assert_eq!(waiter.reply().lines(), ["3"]);
        }
    }
}

#[test]
fn a_cancel_request_ends_the_waiting_for_a_server() {
    let (proxy, name) = one_shard("waiting", "pool = { size = 1, wait_timeout = \"1min\" }\n");
    let mut holder = proxy.client(&name, "postgres", "");
    holder.query("BEGIN").ok();
    holder.query("SELECT 1").ok();
    let mut waiter = Client::connect(proxy.port);
    let key = waiter.try_login(&[("user", "postgres"), ("database", &name)], "");
    let key = key.of(b'K').next().unwrap().body.clone();
    waiter.send(&query("SELECT 2"));
    until("it waits", || has_a_waiter(&proxy));
    Client::connect(proxy.port).send(&cancel_request(&key));
    assert_eq!(waiter.reply().sqlstate().as_deref(), Some("57014"));
    holder.query("COMMIT").ok();
    until("it is served", || waiter.query("SELECT 3").lines() == ["3"]);
}

/// Ends the backends of this database, but for the one that is asked.
fn terminate_all(name: &str) {
    sql(
        &servers().all()[0],
        name,
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
}

#[test]
fn a_session_whose_state_went_with_its_server_ends_as_on_postgresql() {
    let session = "pool = { mode = \"session\" }\n";
    for more in ["", session] {
        let (proxy, name) = one_shard("bereft", more);
        let mut client = proxy.client(&name, "postgres", "");
        client.query("CREATE TEMP TABLE mine (a int)").ok();
        if more.is_empty() {
            let notice = client.frame();
            assert!(notice.field(b'M').unwrap().contains("temporary object"));
        }
        terminate_all(&name);
        // PostgreSQL would say it at once, too, and hang up.
        let last = client.until(b'E');
        let error = last.of(b'E').next().unwrap();
        assert_eq!(error.field(b'S').as_deref(), Some("FATAL"), "{last}");
        assert!(error.field(b'D').unwrap().contains("57P01"), "{last}");
        assert!(client.is_closed());
    }
}

#[test]
fn nothing_behind_the_rollback_of_a_lost_transaction_is_passed_over() {
    let (proxy, name) = one_shard("behind", "");
    let mut client = proxy.client(&name, "postgres", "");
    client.query("BEGIN").ok();
    client.query("SELECT 1").ok();
    terminate_all(&name);
    let lost = client.query("SELECT 1");
    assert_eq!(lost.sqlstate().as_deref(), Some("08006"), "{lost}");
    let reply = client.query("ROLLBACK; INSERT INTO t VALUES (5, 5)");
    assert_eq!(reply.to_string().chars().next(), Some('E'), "{reply}");
    assert_eq!(client.query("ROLLBACK;").to_string(), "C(ROLLBACK) Z(I)");
    assert_eq!(client.query("SELECT 1").lines(), ["1"]);
}

#[test]
fn a_restart_under_a_hundred_clients_is_one_error_for_each_statement_in_flight_and_none_for_others()
{
    const CLIENTS: usize = 100;
    const BUSY: usize = 10;
    let servers = servers_with("restarted", 1);
    let server = &servers.all()[..1];
    let name = database(server, "restarted", "CREATE TABLE t (id int primary key)");
    for stops in ["fast", "immediate", "kill"] {
        let proxy = Proxy::start(&Proxy::config(&name, server, ""));
        let mut clients: Vec<Client> = (0..CLIENTS)
            .map(|_| proxy.client(&name, "postgres", ""))
            .collect();
        for client in &mut clients {
            client.query("SELECT 1").ok();
        }
        for client in &mut clients[..BUSY] {
            client.send(&query("SELECT pg_sleep(60)"));
        }
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'";
        until("they are busy", || {
            sql(&server[0], &name, busy) == BUSY.to_string()
        });
        match stops {
            "fast" => server[0].stop(),
            "immediate" => server[0].crash(),
            _ => server[0].kill9(),
        }
        // Asked for while nobody is there, and answered when the server is back.
        for client in &mut clients[BUSY..] {
            client.send(&query("SELECT 7"));
        }
        server[0].restart().unwrap();
        for client in &mut clients[BUSY..] {
            let reply = client.reply();
            assert_eq!(reply.lines(), ["7"], "{stops}: {reply}");
        }
        for client in &mut clients[..BUSY] {
            let reply = client.reply();
            assert_eq!(reply.of(b'E').count(), 1, "{stops}: {reply}");
            assert_eq!(
                reply.sqlstate().as_deref(),
                Some("08006"),
                "{stops}: {reply}"
            );
            assert_eq!(client.query("SELECT 8").lines(), ["8"]);
        }
    }
}

#[test]
fn an_answer_that_has_its_error_gets_no_second_one_when_its_server_is_lost() {
    let (proxy, name) = one_shard("second", "");
    let mut client = proxy.client(&name, "postgres", "");
    let fails = [
        parse("", "SELECT 1/0", &[]),
        bind("", "", &[]),
        execute("", 0),
    ];
    client.send(&[fails.concat(), support::client::flush()].concat());
    let first = client.until(b'E');
    assert_eq!(first.sqlstate().as_deref(), Some("22012"));
    terminate_all(&name);
    client.send(&sync());
    assert_eq!(client.reply().to_string(), "Z(I)");
    assert_eq!(client.query("SELECT 1").lines(), ["1"]);
}

/// Logs in and asks, reads the beginning of the answer, and gives what comes after `then`, to the end of the stream.
fn rest_of_a_cut_answer(port: u16, name: &str, text: &str, then: impl FnOnce()) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut client = Client::over(stream.try_clone().unwrap());
    client.login(&[("user", "postgres"), ("database", name)], "");
    client.send(&query(text));
    let mut beginning = vec![0; 1 << 16];
    stream.read_exact(&mut beginning).unwrap();
    then();
    let mut rest = Vec::new();
    // However it ends: nothing may have been said behind the half message.
    let _ = stream.read_to_end(&mut rest);
    rest
}

#[test]
fn nothing_is_said_behind_half_a_message_of_a_lost_server() {
    let (proxy, name) = one_shard("half", "");
    let text = "SELECT repeat('x', 100000000)";
    let rest = rest_of_a_cut_answer(proxy.port, &name, text, || terminate_all(&name));
    assert!(rest.len() < 100_000_000, "{}", rest.len());
    let other = rest.iter().position(|&byte| byte != b'x');
    assert_eq!(
        other,
        None,
        "{:?}",
        rest[other.unwrap_or(0)..].escape_ascii().to_string()
    );
    assert_eq!(
        proxy
            .client(&name, "postgres", "")
            .query("SELECT 1")
            .lines(),
        ["1"]
    );
}

#[test]
fn a_client_that_leaves_the_queue_gets_nothing_done() {
    let (proxy, name) = one_shard("queue", "pool = { size = 1 }\n");
    let mut holder = proxy.client(&name, "postgres", "");
    holder.query("BEGIN").ok();
    holder.query("SELECT 1").ok();
    let mut waiting = proxy.client(&name, "postgres", "");
    waiting.send(&query("INSERT INTO t VALUES (1, 1)"));
    let queue = || {
        let mut http = TcpStream::connect(("127.0.0.1", proxy.http)).unwrap();
        http.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut page = String::new();
        http.read_to_string(&mut page).unwrap();
        let line = page
            .lines()
            .find(|line| line.starts_with("pgherd_pool_waiting{"));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    until("it waits", || queue() == "1");
    drop(waiting);
    until("it does not wait any more", || queue() == "0");
    holder.query("COMMIT").ok();
    assert_eq!(holder.query("SELECT count(*) FROM t").lines(), ["0"]);
}

#[test]
fn a_name_that_is_taken_is_told_in_a_lost_transaction_and_changes_nothing() {
    let (proxy, name) = one_shard("taken", "");
    let mut client = proxy.client(&name, "postgres", "");
    client.send(&[parse("s", "SELECT 1", &[]), sync()].concat());
    client.reply().ok();
    client.query("BEGIN").ok();
    terminate_all(&name);
    let lost = client.query("SELECT 1");
    assert!(lost.to_string().ends_with("Z(E)"), "{lost}");
    client.send(&[parse("s", "ROLLBACK", &[]), sync()].concat());
    let reply = client.reply();
    assert_eq!(
        reply.to_string(),
        "E(42P05 prepared statement \"s\" already exists) Z(E)"
    );
    assert_eq!(client.query("ROLLBACK").to_string(), "C(ROLLBACK) Z(I)");
}
