//! Live: LISTEN and NOTIFY in transaction mode. One connection listens for all clients of a database, and each client
//! hears what it would hear from a PostgreSQL session of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use pgherd::demo::Server;
use support::client::{Client, Frame, bind, execute, parse, query, sync};
use support::proxy::Proxy;
use support::{database, servers, servers_with, sql, until};

/// A database of its own on `server`, behind a pool of `size`.
fn started_on(server: &[Server], name: &str, size: usize) -> (Proxy, String) {
    let name = database(server, name, "CREATE TABLE t (id int)");
    let pool =
        format!("pool = {{ size = {size}, wait_timeout = \"5s\", connect_timeout = \"1s\" }}");
    let config = Proxy::config(&name, server, "").replace(
        &format!("[databases.{name}]\n"),
        &format!("[databases.{name}]\n{pool}\n"),
    );
    (Proxy::start(&config), name)
}

fn started(name: &str, size: usize) -> (Proxy, String) {
    started_on(&servers().all()[..1], name, size)
}

/// `channel=payload` of a notification, the SQLSTATE and severity of a notice.
fn told(frame: &Frame) -> String {
    match frame.tag {
        b'A' => {
            let mut words = frame.body[4..].split(|byte| *byte == 0);
            let mut word = || String::from_utf8_lossy(words.next().unwrap()).into_owned();
            format!("{}={}", word(), word())
        }
        b'N' => format!(
            "{} {}",
            frame.field(b'V').unwrap(),
            frame.field(b'C').unwrap()
        ),
        _ => frame.to_string(),
    }
}

fn heard(client: &mut Client) -> String {
    told(&client.frame())
}

/// Notifies each of the channels straight on the server, then a channel that `client` listens to: what came before
/// that.
fn hears(client: &mut Client, server: &Server, name: &str, channels: &[&str]) -> Vec<String> {
    for channel in channels {
        sql(server, name, &format!("NOTIFY {channel}, 'x'"));
    }
    sql(server, name, "NOTIFY the_end");
    let mut heard = Vec::new();
    loop {
        let word = self::heard(client);
        if word == "the_end=" {
            return heard;
        }
        heard.push(word);
    }
}

fn ask(client: &mut Client, text: &str, extended: bool) -> String {
    let reply = if extended {
        client.run(text, &[])
    } else {
        client.query(text)
    };
    let shown = reply.0.iter().filter(|frame| b"CEZ".contains(&frame.tag));
    let words: Vec<_> = shown.map(ToString::to_string).collect();
    words.join(" ")
}

/// What listens now, for everybody.
const LISTENERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
     AND application_name = 'pgherd listener'";

#[test]
fn a_client_that_listens_leaves_the_server_to_others_and_is_woken() {
    let (proxy, name) = started("shared", 1);
    let mut speaker = proxy.client(&name, "postgres", "");
    for extended in [false, true] {
        let mut listener = proxy.client(&name, "postgres", "");
        assert_eq!(
            ask(&mut listener, "LISTEN herd", extended),
            "C(LISTEN) Z(I)"
        );
        // The pool has one server: the listener has none, and it is clean.
        let own = speaker.query("SELECT count(*) FROM pg_listening_channels()");
        assert_eq!(own.lines(), ["0"]);
        let pid = speaker.query("SELECT pg_backend_pid(), pg_notify('herd', 'moo')");
        let pid = pid.rows()[0][0].clone().unwrap();
        let frame = listener.frame();
        assert_eq!(told(&frame), "herd=moo");
        let notifier = i32::from_be_bytes(frame.body[..4].try_into().unwrap());
        assert_eq!(notifier.to_string(), pid);
        // It hears itself, too, and goes on to use the server.
        assert_eq!(
            ask(&mut listener, "NOTIFY herd, 'self'", extended),
            "C(NOTIFY) Z(I)"
        );
        assert_eq!(heard(&mut listener), "herd=self");
        assert_eq!(listener.query("SELECT 1").lines(), ["1"]);
        assert_eq!(speaker.query(LISTENERS).lines(), ["1"]);
    }
}

/// What a client runs, each one transaction at most, and what it hears afterwards of `a`, `b` and `Cap`.
const SCRIPTS: &[(&[&str], &[&str])] = &[
    (&["LISTEN a"], &["a=x"]),
    (&["LISTEN A", "LISTEN a"], &["a=x"]),
    (&["LISTEN \"Cap\"", "LISTEN Cap"], &["Cap=x"]),
    (&["BEGIN", "LISTEN a", "COMMIT"], &["a=x"]),
    (&["BEGIN", "LISTEN a", "ROLLBACK"], &[]),
    (&["BEGIN", "LISTEN a", "SELECT 1/0", "COMMIT"], &[]),
    (
        &[
            "BEGIN",
            "LISTEN a",
            "SAVEPOINT s",
            "LISTEN b",
            "ROLLBACK TO s",
            "COMMIT",
        ],
        &["a=x"],
    ),
    (&["LISTEN a", "LISTEN b", "UNLISTEN a"], &["b=x"]),
    (
        &["LISTEN a", "LISTEN \"Cap\"", "UNLISTEN \"Cap\""],
        &["a=x"],
    ),
    (&["LISTEN a", "UNLISTEN *"], &[]),
    (&["LISTEN a", "BEGIN", "UNLISTEN *", "COMMIT"], &[]),
    (&["LISTEN a", "BEGIN", "UNLISTEN *", "ROLLBACK"], &["a=x"]),
    (
        &["LISTEN a", "BEGIN", "UNLISTEN a", "SELECT 1/0", "COMMIT"],
        &["a=x"],
    ),
    (
        &[
            "LISTEN a",
            "LISTEN b",
            "BEGIN",
            "SAVEPOINT s",
            "UNLISTEN a",
            "ROLLBACK TO s",
            "UNLISTEN b",
            "COMMIT",
        ],
        &["a=x"],
    ),
    (
        &["LISTEN a", "BEGIN", "UNLISTEN a", "LISTEN a", "COMMIT"],
        &["a=x"],
    ),
    (&["BEGIN", "LISTEN a", "UNLISTEN a", "COMMIT"], &[]),
    (&["LISTEN a", "BEGIN", "SELECT 1", "COMMIT"], &["a=x"]),
    (
        &[
            "LISTEN a",
            "BEGIN",
            "SELECT 1",
            "UNLISTEN *",
            "LISTEN b",
            "COMMIT",
        ],
        &["b=x"],
    ),
    (&["LISTEN a", "DISCARD ALL", "LISTEN b"], &["b=x"]),
    (&["LISTEN a", "DISCARD ALL"], &[]),
    (&["LISTEN a; LISTEN b"], &["a=x", "b=x"]),
    (&["LISTEN a; SELECT 1/0"], &[]),
    (&["LISTEN a", "SELECT 1; UNLISTEN *; RESET ALL"], &[]),
    (&["LISTEN a", "UNLISTEN *; SELECT 1/0"], &["a=x"]),
    (&["BEGIN; LISTEN a; COMMIT; SELECT 1"], &["a=x"]),
    (&["LISTEN a", "BEGIN; UNLISTEN a; ROLLBACK"], &["a=x"]),
    (
        &["DO $$BEGIN LISTEN a; LISTEN \"Cap\"; END$$"],
        &["a=x", "Cap=x"],
    ),
    (&["LISTEN a", "DO $$BEGIN EXECUTE 'UNLISTEN a'; END$$"], &[]),
    (
        &["LISTEN a", "SET work_mem = '7MB'", "RESET work_mem"],
        &["a=x"],
    ),
    (&["LISTEN"], &[]),
    (&["LISTEN a", "UNLISTEN b", "UNLISTEN"], &["a=x"]),
];

#[test]
fn the_server_decides_what_a_client_listens_to() {
    let (proxy, name) = started("scripts", 1);
    let server = &servers().all()[0];
    let mut stranger = proxy.client(&name, "postgres", "");
    for (script, expected) in SCRIPTS {
        for extended in [false, true] {
            let mut through = proxy.client(&name, "postgres", "");
            let mut straight = Client::connect(server.port());
            straight.login(&[("user", "postgres"), ("database", &name)], "");
            for text in *script {
                let extended = extended && !text.contains("; ");
                let answer = ask(&mut through, text, extended);
                assert_eq!(
                    answer,
                    ask(&mut straight, text, extended),
                    "{text} of {script:?}"
                );
            }
            let free = stranger.query("SELECT count(*) FROM pg_listening_channels()");
            assert_eq!(free.lines(), ["0"], "{script:?}");
            for client in [&mut through, &mut straight] {
                client.query("LISTEN the_end").ok();
                let heard = hears(client, server, &name, &["a", "b", "\"Cap\""]);
                assert_eq!(heard, *expected, "{script:?}, extended: {extended}");
            }
        }
    }
}

#[test]
fn a_pipeline_listens_and_stops_to_listen_as_a_whole() {
    let (proxy, name) = started("pipeline", 1);
    let server = &servers().all()[0];
    let one = |text: &str| [parse("", text, &[]), bind("", "", &[]), execute("", 0)].concat();
    let pipeline = |texts: &[&str]| {
        let messages: Vec<_> = texts.iter().map(|text| one(text)).collect();
        [messages.concat(), sync()].concat()
    };
    let scripts: &[(&[&[&str]], &[&str])] = &[
        (&[&["SELECT 1", "LISTEN a"]], &["a=x"]),
        (&[&["LISTEN a", "SELECT 1/0"]], &[]),
        (&[&["LISTEN a"], &["SELECT 1", "UNLISTEN a"]], &[]),
        (
            &[&["LISTEN a"], &["SELECT 1", "UNLISTEN *", "SELECT 1/0"]],
            &["a=x"],
        ),
        (&[&["LISTEN a"], &["UNLISTEN a"]], &[]),
        (
            &[&["LISTEN a"], &["BEGIN", "UNLISTEN a", "ROLLBACK"]],
            &["a=x"],
        ),
    ];
    for (script, expected) in scripts {
        for at_once in [true, false] {
            let mut client = proxy.client(&name, "postgres", "");
            for texts in *script {
                client.send(&pipeline(texts));
                if !at_once {
                    client.reply();
                }
            }
            for _ in script.iter().filter(|_| at_once) {
                client.reply();
            }
            client.query("LISTEN the_end").ok();
            let heard = hears(&mut client, server, &name, &["a"]);
            assert_eq!(heard, *expected, "{script:?}, at once: {at_once}");
        }
    }
    // A statement that was prepared under a name, by two clients, on whichever server.
    let mut clients = [
        proxy.client(&name, "postgres", ""),
        proxy.client(&name, "postgres", ""),
    ];
    for client in &mut clients {
        client.send(
            &[
                parse("l", "LISTEN a", &[]),
                bind("", "l", &[]),
                execute("", 0),
                sync(),
            ]
            .concat(),
        );
        client.reply().ok();
        client.send(&[bind("", "l", &[]), execute("", 0), sync()].concat());
        client.reply().ok();
    }
    sql(server, &name, "NOTIFY a, 'x'");
    for client in &mut clients {
        assert_eq!(heard(client), "a=x");
    }
}

#[test]
fn many_clients_hear_one_word_in_order() {
    let (proxy, name) = started("many", 2);
    let mut clients: Vec<_> = (0..50)
        .map(|_| proxy.client(&name, "postgres", ""))
        .collect();
    for client in &mut clients {
        client.query("LISTEN herd").ok();
    }
    let mut speaker = proxy.client(&name, "postgres", "");
    speaker
        .query("DO $$BEGIN FOR i IN 1..20 LOOP PERFORM pg_notify('herd', i::text); END LOOP; END$$")
        .ok();
    for client in &mut clients {
        for number in 1..=20 {
            assert_eq!(heard(client), format!("herd={number}"));
        }
    }
    assert_eq!(speaker.query(LISTENERS).lines(), ["1"]);
    let metrics = scrape(&proxy);
    assert!(
        metrics.contains(&format!("pgherd_subscriptions{{database=\"{name}\"}} 50")),
        "{metrics}"
    );
    assert!(
        metrics.contains(&format!(
            "pgherd_notifications_total{{database=\"{name}\"}} 1000"
        )),
        "{metrics}"
    );
    drop(clients);
    until("nobody is subscribed", || {
        scrape(&proxy).contains(&format!("pgherd_subscriptions{{database=\"{name}\"}} 0"))
    });
    // The connection that listens was told, and the pool's servers never listened for long.
    let last = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgherd listener'";
    until("UNLISTEN was said", || {
        speaker.query(last).lines() == ["UNLISTEN \"herd\""]
    });
}

fn scrape(proxy: &Proxy) -> String {
    let mut http = TcpStream::connect(("127.0.0.1", proxy.http)).unwrap();
    http.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    http.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_transaction_is_not_disturbed_and_what_it_listens_to_begins_with_its_end() {
    let (proxy, name) = started("held", 2);
    let server = &servers().all()[0];
    let mut client = proxy.client(&name, "postgres", "");
    client.query("LISTEN a").ok();
    client.query("BEGIN").ok();
    client.query("LISTEN b").ok();
    for text in ["NOTIFY a, '1'", "NOTIFY b, 'early'"] {
        sql(server, &name, text);
    }
    // The first of them surely came: a second client has heard it.
    let mut other = proxy.client(&name, "postgres", "");
    other.query("LISTEN b").ok();
    sql(server, &name, "NOTIFY b, 'early, too'");
    assert_eq!(heard(&mut other), "b=early, too");
    assert_eq!(
        client.query("SELECT 1").to_string(),
        "T(?column?) D(1) C(SELECT 1) Z(T)"
    );
    assert_eq!(client.query("COMMIT").to_string(), "C(COMMIT) Z(I)");
    sql(server, &name, "NOTIFY b, 'late'");
    assert_eq!(heard(&mut client), "a=1");
    assert_eq!(heard(&mut client), "b=late");
}

#[test]
fn a_session_that_keeps_its_server_hears_everything_once() {
    let (proxy, name) = started("kept", 2);
    let server = &servers().all()[0];
    let mut client = proxy.client(&name, "postgres", "");
    client.query("LISTEN the_end").ok();
    client.query("LISTEN a").ok();
    // Its text does not show what it listens to.
    let hidden = "DO $$BEGIN EXECUTE 'LIS' || 'TEN b'; END$$";
    client.query(hidden).ok();
    assert_eq!(heard(&mut client), "NOTICE 00000");
    let all = ["a", "b", "c"];
    assert_eq!(hears(&mut client, server, &name, &all), ["a=x", "b=x"]);
    client.query("LISTEN b").ok();
    client.query("LISTEN c").ok();
    assert_eq!(
        hears(&mut client, server, &name, &all),
        ["a=x", "b=x", "c=x"]
    );
    client.query("BEGIN; UNLISTEN a; UNLISTEN b; ROLLBACK").ok();
    assert_eq!(
        hears(&mut client, server, &name, &all),
        ["a=x", "b=x", "c=x"]
    );
    client.query("UNLISTEN a").ok();
    assert_eq!(hears(&mut client, server, &name, &all), ["b=x", "c=x"]);
    client.query("UNLISTEN b").ok();
    assert_eq!(hears(&mut client, server, &name, &all), ["c=x"]);
    // Kept for another reason, and let go.
    client.query("CREATE TEMP TABLE mine (a int)").ok();
    client.query("LISTEN a").ok();
    assert_eq!(hears(&mut client, server, &name, &all), ["a=x", "c=x"]);
    client.query("DROP TABLE mine").ok();
    assert_eq!(hears(&mut client, server, &name, &all), ["a=x", "c=x"]);
    // Whoever has the servers then hears what it listens to itself, from the first word on.
    let hidden = "DO $$BEGIN EXECUTE 'LIS' || 'TEN a'; NOTIFY a, 'self'; END$$";
    let mut strangers = Vec::new();
    for _ in 0..2 {
        let mut stranger = proxy.client(&name, "postgres", "");
        assert_eq!(stranger.query(hidden).to_string(), "C(DO) A Z(I)");
        assert_eq!(heard(&mut stranger), "NOTICE 00000");
        strangers.push(stranger);
    }
}

#[test]
fn who_was_subscribed_is_warned_when_the_listening_connection_was_lost() {
    let (proxy, name) = started("lost", 1);
    let server = &servers().all()[0];
    let mut client = proxy.client(&name, "postgres", "");
    client.query("LISTEN a").ok();
    client.query("LISTEN b").ok();
    let mut quiet = proxy.client(&name, "postgres", "");
    quiet.query("SET client_min_messages = error").ok();
    quiet.query("LISTEN a").ok();
    let kill = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity \
         WHERE datname = current_database() AND application_name = 'pgherd listener'";
    for _ in 0..2 {
        assert_eq!(sql(server, &name, kill).trim(), "1");
        assert_eq!(heard(&mut client), "WARNING 01000");
        for text in ["NOTIFY b, 'again'", "NOTIFY a, 'again'"] {
            sql(server, &name, text);
        }
        assert_eq!(heard(&mut client), "b=again");
        assert_eq!(heard(&mut client), "a=again");
        assert_eq!(heard(&mut quiet), "a=again");
    }
    assert_eq!(
        client.query("SELECT 1").to_string(),
        "T(?column?) D(1) C(SELECT 1) Z(I)"
    );
    let metrics = scrape(&proxy);
    assert!(
        metrics.contains(&format!(
            "pgherd_listener_reconnects_total{{database=\"{name}\"}} 2"
        )),
        "{metrics}"
    );
}

#[test]
fn a_client_that_takes_nothing_loses_notifications_and_is_told_so() {
    let (proxy, name) = started("slow", 2);
    let server = &servers().all()[0];
    let mut client = proxy.client(&name, "postgres", "");
    let mut other = proxy.client(&name, "postgres", "");
    for client in [&mut client, &mut other] {
        client.query("LISTEN a").ok();
    }
    client.query("BEGIN").ok();
    // Six megabytes while it is in its transaction.
    for from in [1, 201, 401, 601] {
        let to = from + 199;
        let notify = "PERFORM pg_notify('a', i || repeat('x', 7500))";
        sql(
            server,
            &name,
            &format!("DO $$BEGIN FOR i IN {from}..{to} LOOP {notify}; END LOOP; END$$"),
        );
        for number in from..=to {
            assert!(heard(&mut other).starts_with(&format!("a={number}x")));
        }
    }
    sql(server, &name, "NOTIFY a, 'last'");
    assert_eq!(heard(&mut other), "a=last");
    assert_eq!(client.query("COMMIT").to_string(), "C(COMMIT) Z(I)");
    assert_eq!(heard(&mut client), "WARNING 01000");
    let mut count = 0;
    while heard(&mut client) != "a=last" {
        count += 1;
    }
    assert!(count < 560, "{count}");
    let metrics = scrape(&proxy);
    let dropped = 800 - count;
    assert!(
        metrics.contains(&format!(
            "pgherd_notifications_dropped_total{{database=\"{name}\"}} {dropped}"
        )),
        "{dropped}: {metrics}"
    );
}

#[test]
fn a_client_that_takes_its_notifications_late_gets_all_of_them() {
    let (proxy, name) = started("late", 1);
    let server = &servers().all()[0];
    let mut client = proxy.client(&name, "postgres", "");
    client.query("LISTEN a").ok();
    let mut other = proxy.client(&name, "postgres", "");
    other.query("LISTEN the_end").ok();
    for from in [1, 241] {
        let to = from + 239;
        let notify = "PERFORM pg_notify('a', i || repeat('x', 7500))";
        let text = format!("DO $$BEGIN FOR i IN {from}..{to} LOOP {notify}; END LOOP; END$$");
        sql(server, &name, &text);
    }
    sql(server, &name, "NOTIFY the_end");
    // By now all of them were put into the box of the first.
    assert_eq!(heard(&mut other), "the_end=");
    for number in 1..=480 {
        assert!(heard(&mut client).starts_with(&format!("a={number}x")));
    }
}

#[test]
fn where_nobody_can_listen_the_client_is_told_and_lives_on() {
    let own = servers_with("unreachable", 1);
    let (proxy, name) = started_on(&own.all()[..1], "unreachable", 1);
    let server = &own.all()[0];
    // The pool has its server; no other connection can be made.
    let mut client = proxy.client(&name, "postgres", "");
    client.query("SELECT 1").ok();
    sql(
        server,
        "postgres",
        &format!("ALTER DATABASE {name} CONNECTION LIMIT 0"),
    );
    sql(
        server,
        "postgres",
        &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"),
    );
    let reply = client.query("LISTEN a");
    assert_eq!(reply.sqlstate().as_deref(), Some("55000"), "{reply}");
    assert_eq!(client.query("SELECT 1").lines(), ["1"]);
    client.query("BEGIN").ok();
    let reply = client.run("LISTEN a", &[]);
    assert_eq!(reply.sqlstate().as_deref(), Some("55000"), "{reply}");
    assert_eq!(ask(&mut client, "COMMIT", false), "C(ROLLBACK) Z(I)");
    sql(
        server,
        "postgres",
        &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"),
    );
    client.query("LISTEN a").ok();
    sql(server, &name, "NOTIFY a, 'x'");
    assert_eq!(heard(&mut client), "a=x");
}

#[test]
fn a_server_that_was_away_is_listened_to_again() {
    let own = servers_with("away", 1);
    let server = &own.all()[0];
    let (proxy, name) = started_on(&own.all()[..1], "away", 1);
    let mut client = proxy.client(&name, "postgres", "");
    client.query("LISTEN a").ok();
    // What came of it was read before this is answered.
    client.query("SELECT 1").ok();
    server.stop();
    for extended in [false, true] {
        let answer = ask(&mut client, "LISTEN b", extended);
        assert!(answer.starts_with("E(57P03"), "{answer}");
    }
    server.restart().unwrap();
    assert_eq!(heard(&mut client), "WARNING 01000");
    for text in ["NOTIFY b, 'x'", "NOTIFY a, 'x'"] {
        sql(server, &name, text);
    }
    assert_eq!(heard(&mut client), "a=x");
    client.query("LISTEN b").ok();
    sql(server, &name, "NOTIFY b, 'y'");
    assert_eq!(heard(&mut client), "b=y");
}

#[test]
fn each_client_hears_in_its_own_encoding() {
    let (proxy, name) = started("encoding", 1);
    let server = &servers().all()[0];
    let mut latin = Client::connect(proxy.port);
    latin.login(
        &[
            ("user", "postgres"),
            ("database", &name),
            ("client_encoding", "latin1"),
        ],
        "",
    );
    let mut utf8 = proxy.client(&name, "postgres", "");
    utf8.query("LISTEN \"kráva\"").ok();
    latin.send(
        &query("LISTEN \"kr?va\"")
            .iter()
            .map(|&byte| if byte == b'?' { 0xe1 } else { byte })
            .collect::<Vec<_>>(),
    );
    latin.reply().ok();
    sql(server, &name, "NOTIFY \"kráva\", 'bú'");
    assert_eq!(heard(&mut utf8), "kráva=bú");
    let frame = latin.frame();
    assert_eq!(frame.body[4..], *b"kr\xe1va\0b\xfa\0");
}

#[test]
fn in_session_mode_the_client_listens_itself() {
    let server = &servers().all()[..1];
    let name = database(server, "own", "");
    let config = Proxy::config(&name, server, "").replace(
        &format!("[databases.{name}]\n"),
        &format!("[databases.{name}]\npool = {{ size = 2, mode = \"session\" }}\n"),
    );
    let proxy = Proxy::start(&config);
    let mut client = proxy.client(&name, "postgres", "");
    client.query("LISTEN a").ok();
    assert_eq!(
        client.query("SELECT pg_listening_channels()").lines(),
        ["a"]
    );
    // As on PostgreSQL, a session that notifies itself hears it before it is ready again.
    assert_eq!(client.query("NOTIFY a").to_string(), "C(NOTIFY) A Z(I)");
    assert_eq!(client.query(LISTENERS).lines(), ["0"]);
}
