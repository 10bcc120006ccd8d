//! Live: replication connections through pgherd, with PostgreSQL's own programs and with raw messages.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/certificates.rs"]
mod certificates;
mod support;

use std::fs;
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use certificates::{Certificates, Kind};
use pgherd::demo::{Options, Server, Servers};
use support::client::{Client, Frame, Reply, cancel_request, message, query};
use support::proxy::Proxy;
use support::{PATIENCE, database, program, sql, until};

/// Two servers that take replication connections; `plain` may log in and not replicate.
fn servers() -> &'static Servers {
    static SHARED: OnceLock<Servers> = OnceLock::new();
    SHARED.get_or_init(|| {
        let hba = "local all all trust\nhost all postgres 127.0.0.1/32 trust\n\
                   host all all 127.0.0.1/32 scram-sha-256\n\
                   local replication all trust\nhost replication postgres 127.0.0.1/32 trust\n\
                   host replication all 127.0.0.1/32 scram-sha-256\n";
        let options = Options {
            count: 2,
            label: "replication".to_owned(),
            statements: vec![
                "CREATE ROLE shop LOGIN PASSWORD 'shop secret'".to_owned(),
                "CREATE ROLE plain LOGIN PASSWORD 'plain secret'".to_owned(),
                "CREATE ROLE copier LOGIN REPLICATION PASSWORD 'copier secret'".to_owned(),
            ],
            settings: vec![
                // No client of ours answers to keepalives.
                ("wal_sender_timeout".to_owned(), "0".to_owned()),
                ("wal_retrieve_retry_interval".to_owned(), "100ms".to_owned()),
            ],
            hba: Some(hba.to_owned()),
            ..Options::default()
        };
        Servers::start(&options).unwrap_or_else(|error| panic!("cannot start PostgreSQL: {error}"))
    })
}

fn server() -> &'static Server {
    &servers().all()[0]
}

/// One database of one shard; everybody is trusted and logged in as the superuser.
fn started(name: &str) -> (Proxy, String) {
    let servers = &servers().all()[..1];
    let name = database(servers, name, "");
    let proxy = Proxy::start(&Proxy::config(&name, servers, ""));
    (proxy, name)
}

/// The clients' own users, who prove themselves to pgherd and to the server.
fn with_passwords(name: &str) -> (Proxy, String) {
    let server = server();
    let name = database(std::slice::from_ref(server), name, "");
    let config = format!(
        "[proxy]\nlisten = [\"{{listen}}\"]\nworkers = 1\n[auth]\nusers_file = \"users\"\n\
         [databases.{name}]\n[[databases.{name}.shards]]\nname = \"s0\"\n\
         primary = \"host=127.0.0.1 port={} dbname={name} options='-c work_mem=5MB'\"\n",
        server.port()
    );
    let users = "\"plain\" \"plain secret\"\n\"copier\" \"copier secret\"\n";
    let proxy = Proxy::start_with(&config, |folder, _| {
        fs::write(folder.join("users"), users).unwrap();
    });
    (proxy, name)
}

/// A raw client, logged in for logical replication.
fn logical(proxy: &Proxy, name: &str) -> Client {
    let mut client = Client::connect(proxy.port);
    client.login(
        &[
            ("user", "postgres"),
            ("database", name),
            ("replication", "database"),
        ],
        "",
    );
    client
}

fn has_lines(proxy: &Proxy, text: &str, count: usize) {
    until(text, || proxy.log().matches(text).count() == count);
}

/// A program that runs on; ended by force if the test ends before it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn folder(proxy: &Proxy, name: &str) -> PathBuf {
    let folder = proxy.folder().join(name);
    fs::create_dir(&folder).unwrap();
    folder
}

#[test]
fn pg_basebackup_copies_a_server_and_the_log_beside_it() {
    let (proxy, name) = started("backup");
    sql(
        server(),
        &name,
        "CREATE TABLE kept AS SELECT generate_series(1, 10000) AS n",
    );
    let file = sql(server(), &name, "SELECT pg_relation_filepath('kept')");
    let folder = folder(&proxy, "copy");
    let output = program(server(), "pg_basebackup")
        .args([
            "-X",
            "stream",
            "-c",
            "fast",
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-p",
        ])
        .arg(proxy.port.to_string())
        .arg("-D")
        .arg(&folder)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    // One connection for the files and one for the log.
    has_lines(&proxy, "a replication connection began", 2);
    has_lines(&proxy, "a replication connection ended", 2);
    // Every file against its checksum, and the log between start and end of the backup.
    let verified = program(server(), "pg_verifybackup")
        .arg(&folder)
        .output()
        .unwrap();
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
    assert!(fs::metadata(folder.join(file)).unwrap().len() > 100_000);
}

#[test]
fn pg_receivewal_gets_the_segments_as_they_are() {
    let (proxy, name) = started("segments");
    let folder = folder(&proxy, "wal");
    let child = program(server(), "pg_receivewal")
        .args(["--no-loop", "-h", "127.0.0.1", "-U", "postgres", "-p"])
        .arg(proxy.port.to_string())
        .arg("-D")
        .arg(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Running(child);
    let streams = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pg_receivewal' \
                   AND state = 'streaming'";
    until("it streams", || sql(server(), &name, streams) == "1");
    // Right behind a switch, which others cause too, the position would be that of the segment before.
    sql(server(), &name, "CREATE TABLE filler ()");
    let current = "SELECT pg_walfile_name(pg_current_wal_lsn())";
    let segment = sql(server(), &name, current);
    sql(server(), &name, "SELECT pg_switch_wal()");
    let received = folder.join(&segment);
    until("the segment is whole", || received.exists());
    let written = server().data_dir().join("pg_wal").join(&segment);
    assert!(fs::read(written).unwrap() == fs::read(received).unwrap());
    // It says goodbye in order.
    let pid = child.0.id().to_string();
    let signalled = std::process::Command::new("sh")
        .args(["-c", "kill -s INT \"$1\"", "sh", &pid])
        .status()
        .unwrap();
    assert!(signalled.success());
    assert!(child.0.wait().unwrap().success());
    until("the walsender has ended", || {
        sql(server(), &name, streams) == "0"
    });
}

#[test]
fn a_subscription_through_pgherd_gets_the_rows() {
    let (proxy, name) = started("published");
    let subscriber = &servers().all()[1];
    let own = database(
        std::slice::from_ref(subscriber),
        "subscribed",
        "CREATE TABLE t (id int PRIMARY KEY, v text)",
    );
    sql(
        server(),
        &name,
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'before'); \
         CREATE PUBLICATION p FOR TABLE t",
    );
    let subscribe = format!(
        "CREATE SUBSCRIPTION s CONNECTION '{}' PUBLICATION p WITH (slot_name = 's_{name}')",
        proxy.dsn(&name, "postgres")
    );
    sql(subscriber, &own, &subscribe);
    let rows = || {
        sql(
            subscriber,
            &own,
            "SELECT string_agg(id || v, ',' ORDER BY id) FROM t",
        )
    };
    until("the first copy", || rows() == "1before");
    sql(
        server(),
        &name,
        "INSERT INTO t VALUES (2, 'after'); UPDATE t SET v = 'changed' WHERE id = 1",
    );
    until("the changes", || rows() == "1changed,2after");
    // A large one: many reads of the relay.
    sql(
        server(),
        &name,
        "INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(10, 10009) n",
    );
    let count = || sql(subscriber, &own, "SELECT count(*), sum(length(v)) FROM t");
    until("many rows", || count() == "10002|10000012");
    // This ends the stream and drops the slot over another connection.
    sql(subscriber, &own, "DROP SUBSCRIPTION s");
    let slots = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 's_{name}'");
    assert_eq!(sql(server(), &name, &slots), "0");
}

#[test]
fn what_the_client_asks_for_at_its_start_reaches_the_server() {
    let (proxy, name) = with_passwords("parameters");
    let mut client = Client::connect(proxy.port);
    client.login(
        &[
            ("user", "copier"),
            ("database", &name),
            ("replication", "database"),
            ("application_name", "it's me"),
            ("DateStyle", "German"),
            ("options", "-c statement_timeout=7s --lock-timeout=3s"),
        ],
        "copier secret",
    );
    // As the server reports it.
    assert_eq!(client.parameters["application_name"], "it's me");
    assert_eq!(client.parameters["DateStyle"], "German, DMY");
    // And as it has it.
    for (setting, value) in [
        ("statement_timeout", "7s"),
        ("lock_timeout", "3s"),
        // Of the connection string's own options.
        ("work_mem", "5MB"),
    ] {
        let reply = client.query(&format!("SHOW {setting}"));
        assert_eq!(reply.lines(), [value], "{setting}: {reply}");
    }
    assert_eq!(client.query("SELECT session_user").lines(), ["copier"]);
    let system = client.query("IDENTIFY_SYSTEM").ok();
    assert_eq!(system.rows()[0][3].as_deref(), Some(name.as_str()));
    // An option that no server knows is the server's own error.
    let reply = Client::connect(proxy.port).try_login(
        &[
            ("user", "copier"),
            ("database", &name),
            ("replication", "database"),
            ("options", "-c replication=true"),
        ],
        "copier secret",
    );
    assert_eq!(reply.sqlstate().as_deref(), Some("42704"), "{reply}");
}

#[test]
fn refusals_are_those_of_pgherd_before_the_login_and_those_of_the_server_behind_it() {
    let (proxy, name) = with_passwords("refused");
    let ask = |user: &str, password: &str, replication: &str, database: &str| {
        let parameters = [
            ("user", user),
            ("database", database),
            ("replication", replication),
        ];
        let reply = Client::connect(proxy.port).try_login(&parameters, password);
        let error = reply.of(b'E').next().cloned();
        error.map(|error| {
            let field = |code| error.field(code).unwrap_or_default();
            format!("{} {} {}", field(b'S'), field(b'C'), field(b'M'))
        })
    };
    for replication in ["database", "true", "on", "yes", "1"] {
        assert_eq!(ask("copier", "copier secret", replication, &name), None);
        let wrong = ask("copier", "wrong", replication, &name).unwrap();
        assert_eq!(
            wrong,
            "FATAL 28P01 password authentication failed for user \"copier\""
        );
        let refused = ask("plain", "plain secret", replication, &name).unwrap();
        assert_eq!(
            refused,
            "FATAL 42501 must be superuser or replication role to start walsender"
        );
    }
    let unknown = ask("copier", "copier secret", "database", "replication").unwrap();
    assert_eq!(unknown, "FATAL 3D000 no such database: replication");
    let value = ask("copier", "copier secret", "maybe", &name).unwrap();
    assert!(value.starts_with("FATAL 22023 "), "{value}");
    // None: an ordinary session, for which anybody will do.
    assert_eq!(ask("plain", "plain secret", "off", &name), None);
}

#[test]
fn who_asks_for_the_whole_server_is_told_when_it_is_not_clear_which() {
    let servers = &servers().all()[..1];
    let name = database(servers, "whole", "");
    let one = Proxy::config(&name, servers, "");
    let section = |of: &str| {
        format!(
            "[databases.{of}]\n[[databases.{of}.shards]]\nname = \"s0\"\nprimary = \"{}\"\n",
            servers[0].dsn(&name)
        )
    };
    let parameters = [
        ("user", "postgres"),
        ("database", "replication"),
        ("replication", "true"),
    ];
    let proxy = Proxy::start(&(one.clone() + &section("other")));
    let reply = Client::connect(proxy.port).try_login(&parameters, "");
    let error = reply.of(b'E').next().unwrap();
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    assert_eq!(error.field(b'C').as_deref(), Some("3D000"), "{reply}");
    assert!(
        error
            .field(b'H')
            .unwrap()
            .contains("[databases.replication]")
    );
    // As the hint says.
    let proxy = Proxy::start(&(one + &section("other") + &section("replication")));
    let mut client = Client::connect(proxy.port);
    client.login(&parameters, "");
    let system = client.query("IDENTIFY_SYSTEM").ok();
    assert_eq!(system.rows()[0].len(), 4);
}

#[test]
fn a_cancel_request_reaches_the_walsender() {
    let (proxy, name) = started("cancelled");
    let mut client = logical(&proxy, &name);
    let key = client.cancel_key.clone();
    client.send(&query("SELECT pg_sleep(60)"));
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' \
                  AND datname = current_database()";
    until("it sleeps", || sql(server(), &name, sleeps) == "1");
    Client::connect(proxy.port).send(&cancel_request(&key));
    let begun = Instant::now();
    assert_eq!(client.reply().sqlstate().as_deref(), Some("57014"));
    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(client.query("SELECT 7").lines(), ["7"]);
}

#[test]
fn a_client_that_leaves_leaves_nothing_at_work() {
    let (proxy, name) = started("left");
    let mut client = logical(&proxy, &name);
    client.send(&query("SELECT pg_sleep(60)"));
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' \
                  AND datname = current_database()";
    until("it sleeps", || sql(server(), &name, sleeps) == "1");
    drop(client);
    until("it is cancelled", || sql(server(), &name, sleeps) == "0");
    let clients = || support::get(proxy.http, "/metrics").1;
    until("it is counted off", || {
        clients().contains(&format!("pgherd_clients{{database=\"{name}\"}} 0"))
    });
}

#[test]
fn a_client_that_does_not_read_costs_no_memory_and_gets_everything_in_the_end() {
    const LENGTH: usize = 100_000_000;
    let (proxy, name) = started("slow");
    let mut client = logical(&proxy, &name);
    let before = proxy.resident_kib();
    client.send(&query(&format!("SELECT repeat('x', {LENGTH})")));
    let stalled = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'WalSenderWriteData' \
                   OR wait_event = 'ClientWrite'";
    until("the server waits for its client", || {
        sql(server(), &name, stalled) != "0"
    });
    let grown = proxy.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB");
    let reply = client.reply();
    let row = &reply.rows()[0][0].clone().unwrap();
    assert!(row.len() == LENGTH && row.bytes().all(|byte| byte == b'x'));
    let sent = support::get(proxy.http, "/metrics").1;
    let sent = sent
        .lines()
        .find_map(|line| {
            line.strip_prefix(&format!("pgherd_sent_bytes_total{{database=\"{name}\"}} "))
        })
        .unwrap()
        .parse::<usize>()
        .unwrap();
    assert!(sent > LENGTH, "{sent}");
}

#[test]
fn a_client_that_sends_nothing_more_still_gets_its_answer() {
    let (proxy, name) = started("half");
    let stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut client = Client::over(stream.try_clone().unwrap());
    client.login(
        &[
            ("user", "postgres"),
            ("database", &name),
            ("replication", "database"),
        ],
        "",
    );
    client.send(&query("SELECT count(*) FROM (SELECT pg_sleep(0.5)) s"));
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.reply().lines(), ["1"]);
    assert!(client.is_closed());
    has_lines(&proxy, "a replication connection ended", 1);
}

/// CopyBoth has begun, and the stream of changes with it.
fn stream_changes(client: &mut Client, slot: &str) {
    let create = format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL test_decoding");
    client.query(&create).ok();
    client.send(&query(&format!(
        "START_REPLICATION SLOT {slot} LOGICAL 0/0"
    )));
    client.until(b'W');
}

fn is_change(frame: &Frame, text: &str) -> bool {
    frame.tag == b'd' && String::from_utf8_lossy(&frame.body).contains(text)
}

#[test]
fn a_stream_ends_with_a_word_when_pgherd_ends() {
    let (mut proxy, name) = started("stopped");
    sql(server(), &name, "CREATE TABLE t (v text)");
    let mut client = logical(&proxy, &name);
    stream_changes(&mut client, "stopped");
    sql(server(), &name, "INSERT INTO t VALUES ('hello')");
    while !is_change(&client.frame(), "hello") {}
    // An ordinary one beside it, and one that says nothing.
    let mut idle = logical(&proxy, &name);
    proxy.signal("TERM");
    let begun = Instant::now();
    for client in [&mut client, &mut idle] {
        let last: Reply = client.until(b'E');
        let error = last.0.last().unwrap();
        assert_eq!(error.field(b'C').as_deref(), Some("57P01"), "{last}");
        assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
        assert!(client.is_closed());
    }
    drop((client, idle));
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5));
    until("the slot is gone with its walsender", || {
        sql(
            server(),
            &name,
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'stopped'",
        ) == "0"
    });
}

#[test]
fn the_end_of_a_server_is_told_in_its_own_words() {
    let (proxy, name) = started("ended");
    let mut client = logical(&proxy, &name);
    stream_changes(&mut client, "ended");
    // Something of the client is always on its way.
    let status = [&b"r"[..], &[0; 8 * 4 + 1]].concat();
    client.send(&message(b'd', &status));
    sql(
        server(),
        &name,
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'ended'",
    );
    let last = client.until(b'E');
    assert_eq!(last.sqlstate().as_deref(), Some("57P01"), "{last}");
    // Not ours: a server names its source file.
    assert_ne!(
        last.0.last().unwrap().field(b'R').as_deref(),
        Some("pgherd")
    );
    assert!(client.is_closed());
    has_lines(&proxy, "the server ended it", 1);
}

#[test]
fn both_sides_may_be_encrypted() {
    let server = &servers().all()[1];
    let name = database(std::slice::from_ref(server), "encrypted", "");
    let certificates = Certificates::new();
    let pair = certificates.make("server", Kind::LOCALHOST);
    let root = certificates.root();
    support::encrypt(server, &pair.cert, &pair.key, &root);
    let config = Proxy::config(&name, std::slice::from_ref(server), "").replace(
        "user=postgres",
        &format!(
            "user=postgres sslmode=verify-ca sslrootcert={}",
            root.display()
        ),
    ) + &format!(
        "[tls]\ncert_file = \"{}\"\nkey_file = \"{}\"\n",
        pair.cert.display(),
        pair.key.display()
    );
    let proxy = Proxy::start(&config);
    let dsn = proxy.dsn(&name, "postgres") + " replication=database sslmode=require";
    let ask = |text: &str| {
        let output = support::psql(&dsn, text);
        assert!(output.ok, "{}", output.stderr);
        output.stdout
    };
    let server_side = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(ask(server_side), "t");
    // Many records of TLS on both sides.
    assert_eq!(ask("SELECT repeat('x', 20000000)").len(), 20_000_000);
}
