//! Live: lists of hosts, and which of them `target_session_attrs` and `load_balance_hosts` choose, with real standbys.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use pgherd::backend::connect::{ConnectError, Encryption, LoggedIn, Login, Place, connect};
use pgherd::backend::control::{Control, ControlLimits};
use pgherd::config::Dsn;
use pgherd::demo::Server;
use pgherd::error::Report;
use pgherd::wire::derived::Derived;
use pgherd::wire::helpers::Helpers;
use support::client::{message, query};
use support::proxy::{Proxy, free_port, pgherd};
use support::standby::{catch_up, follow, make_standbys, promote};
use support::{database, servers_with, sql, until};

const LIMIT: Duration = Duration::from_secs(10);

fn list(ports: &[u16], more: &str) -> String {
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    let hosts = vec!["127.0.0.1"; ports.len()].join(",");
    format!(
        "host={hosts} port={} user=postgres sslmode=disable {more}",
        ports.join(",")
    )
}

async fn log_in(text: &str) -> Result<LoggedIn, ConnectError> {
    let dsn = Dsn::parse(text, "postgres").unwrap();
    let encryption = Encryption::load(&dsn.tls, &Helpers::none())?;
    connect(Login {
        dsn: &dsn,
        encryption: &encryption,
        user: "postgres",
        secret: None,
        derived: &Derived::new(Helpers::none()),
        parameters: &[],
        timeout: LIMIT,
    })
    .await
}

fn port_of(server: &LoggedIn) -> u16 {
    match &server.address.place {
        Place::Tcp { address, .. } => address.port(),
        Place::Unix(path) => panic!("{}", path.display()),
    }
}

/// The port of the server that was chosen, or the error.
async fn chosen(text: &str) -> Result<u16, String> {
    let server = log_in(text).await;
    server
        .map(|server| port_of(&server))
        .map_err(|error| format!("{} {error}", error.sqlstate()))
}

/// The same, by the control plane.
async fn chosen_by_control(text: &str) -> Result<u16, String> {
    let dsn = Dsn::parse(text, "postgres").unwrap();
    let control = Control::new("s", &dsn, ControlLimits::default()).unwrap();
    let rows = control.rows("SELECT inet_server_port()").await;
    rows.map(|rows| rows[0][0].as_ref().unwrap().parse().unwrap())
        .map_err(|error| format!("{} {error}", error.sqlstate()))
}

#[tokio::test]
async fn each_value_takes_the_first_host_that_is_what_it_says() {
    let servers = servers_with("targets", 3);
    let all = servers.all();
    make_standbys(&all[0], &all[1..2]);
    // The third is a primary that was told to write nothing.
    let settings = "ALTER SYSTEM SET default_transaction_read_only = on";
    sql(&all[2], "postgres", settings);
    all[2].restart().unwrap();
    let [primary, standby, read_only] = [0, 1, 2].map(|index: usize| all[index].port());
    let dead = free_port();

    let none = |target: &str, answered: usize, tried: usize| {
        Err(format!(
            "57P03 {answered} of {tried} servers answered, but none is what target_session_attrs={target} asks for"
        ))
    };
    for (target, hosts, expected) in [
        ("any", vec![standby, primary], Ok(standby)),
        ("any", vec![dead, primary], Ok(primary)),
        ("read-write", vec![standby, read_only, primary], Ok(primary)),
        ("read-write", vec![primary, standby], Ok(primary)),
        (
            "read-write",
            vec![dead, standby, read_only],
            none("read-write", 2, 3),
        ),
        ("read-only", vec![primary, standby], Ok(standby)),
        ("read-only", vec![primary, read_only], Ok(read_only)),
        ("read-only", vec![primary], none("read-only", 1, 1)),
        ("primary", vec![standby, read_only, primary], Ok(read_only)),
        ("primary", vec![standby, primary], Ok(primary)),
        ("primary", vec![standby], none("primary", 1, 1)),
        ("standby", vec![primary, read_only, standby], Ok(standby)),
        ("standby", vec![primary, dead], none("standby", 1, 2)),
        ("prefer-standby", vec![primary, dead, standby], Ok(standby)),
        ("prefer-standby", vec![read_only, primary], Ok(read_only)),
        ("prefer-standby", vec![dead, primary], Ok(primary)),
    ] {
        let text = list(&hosts, &format!("target_session_attrs={target}"));
        assert_eq!(chosen(&text).await, expected, "{text}");
        let by_control = chosen_by_control(&text).await;
        match expected {
            // With several hosts and no wish, the control plane wants to write.
            _ if target == "any" => assert_eq!(by_control, Ok(primary), "{text}"),
            Ok(port) => assert_eq!(by_control, Ok(port), "{text}"),
            Err(_) => {
                let error = by_control.unwrap_err();
                let told = format!("none is what target_session_attrs={target} asks for");
                assert!(
                    error.starts_with("57P03") && error.contains(&told),
                    "{error}"
                );
            }
        }
    }
    // A check goes to the same host, and has nothing against a standby where one is asked for.
    let both = [standby, primary];
    assert_eq!(found_wrong(&both, "target_session_attrs=standby"), "");
    assert_eq!(found_wrong(&both, "target_session_attrs=primary"), "");
    let wrong = found_wrong(&both[..1], "");
    assert!(wrong.contains("this server is a replica"), "{wrong}");
}

/// What `pgherd check --connect` finds wrong with a database on these hosts.
fn found_wrong(ports: &[u16], more: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("hosts-{}.toml", std::process::id()));
    let text = format!(
        "[auth]\nmethod = \"trust\"\n[databases.postgres]\n[[databases.postgres.shards]]\nname = \"s0\"\n\
         primary = \"{}\"\n",
        list(ports, more)
    );
    std::fs::write(&path, text).unwrap();
    let output = pgherd(&["check", "--connect", "--config", path.to_str().unwrap()]);
    std::fs::remove_file(&path).unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors = told
        .lines()
        .filter(|line| line.starts_with("pgherd: error"));
    errors.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn hosts_are_taken_in_order_or_at_random() {
    let servers = servers_with("balanced", 2);
    let ports: Vec<u16> = servers.all().iter().map(Server::port).collect();
    let takes = async |more: &str| {
        let mut taken = BTreeSet::new();
        for _ in 0..24 {
            taken.insert(chosen(&list(&ports, more)).await.unwrap());
        }
        taken
    };
    assert_eq!(takes("").await, BTreeSet::from([ports[0]]));
    let both = BTreeSet::from([ports[0], ports[1]]);
    // Once in eight million times all 24 go to one host.
    assert_eq!(takes("load_balance_hosts=random").await, both);
    // Whoever is dead is passed over.
    let with_dead = list(&[ports[0], free_port()], "load_balance_hosts=random");
    for _ in 0..8 {
        assert_eq!(chosen(&with_dead).await, Ok(ports[0]));
    }
}

/// One connection of a server as old as PostgreSQL 13, which reports neither parameter: gives `answer` to any query.
fn old_server(answer: &'static str) -> (u16, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
        stream.read_exact(&mut rest).unwrap();
        let welcome = [
            message(b'R', &0_u32.to_be_bytes()),
            message(b'S', b"server_version\x0013.9\0"),
            message(b'K', b"\0\0\0\x07\0\0\0\x07"),
            message(b'Z', b"I"),
        ];
        stream.write_all(&welcome.concat()).unwrap();
        let mut head = [0; 5];
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        let mut question = vec![0; length - 4];
        stream.read_exact(&mut question).unwrap();
        let size = u32::try_from(answer.len()).unwrap().to_be_bytes();
        let row = [&[0, 1][..], &size, answer.as_bytes()].concat();
        let reply = [
            message(b'T', b"\0\x01x\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\0\0\0\0\0\0"),
            message(b'D', &row),
            message(b'C', b"SHOW\0"),
            message(b'Z', b"I"),
        ];
        stream.write_all(&reply.concat()).unwrap();
        let _ = stream.read(&mut [0; 16]);
        String::from_utf8(question).unwrap()
    });
    (port, serving)
}

#[tokio::test]
async fn a_server_that_reports_too_little_is_asked() {
    for (target, answer, fits) in [
        ("read-write", "off", true),
        ("read-write", "on", false),
        ("read-only", "on", true),
        ("primary", "f", true),
        ("primary", "t", false),
        ("standby", "t", true),
        ("standby", "f", false),
        ("prefer-standby", "f", true),
    ] {
        let (port, serving) = old_server(answer);
        let text = list(&[port], &format!("target_session_attrs={target}"));
        let found = chosen(&text).await;
        assert_eq!(found.is_ok(), fits, "{target} {answer}: {found:?}");
        let question = serving.join().unwrap();
        let expected = match target {
            "read-write" | "read-only" => "SHOW transaction_read_only\0",
            _ => "SELECT pg_catalog.pg_is_in_recovery()\0",
        };
        assert_eq!(question, expected, "{target}");
    }
}

fn proxy_to(name: &str, ports: &[u16], more: &str) -> Proxy {
    Proxy::start(&format!(
        "[proxy]\nlisten = [\"{{listen}}\"]\nhttp = \"{{http}}\"\nworkers = 2\n\n[auth]\nmethod = \"trust\"\n\n\
         [pool]\nconnect_timeout = \"2s\"\n\n[databases.{name}]\n[[databases.{name}.shards]]\nname = \"s0\"\n\
         primary = \"{}\"\n",
        list(ports, more)
    ))
}

const WHERE: &str = "SELECT inet_server_port()";

#[test]
fn after_a_failover_the_same_session_writes_to_the_new_primary() {
    let servers = servers_with("failover", 2);
    let [first, second] = [0, 1].map(|index: usize| &servers.all()[index]);
    let name = database(&servers.all()[..1], "failover", "CREATE TABLE t (n int)");
    make_standbys(first, &servers.all()[1..]);
    let ports = [first.port(), second.port()];
    let proxy = proxy_to(&name, &ports, "target_session_attrs=read-write");
    let mut client = proxy.client(&name, "postgres", "");
    client.query("INSERT INTO t VALUES (1)").ok();
    assert_eq!(client.query(WHERE).lines(), [ports[0].to_string()]);

    // Nobody is primary: a statement waits, and is answered when there is one again.
    catch_up(first, second);
    first.kill9();
    client.send(&query("INSERT INTO t VALUES (2)"));
    promote(second);
    client.reply().ok();
    assert_eq!(client.query(WHERE).lines(), [ports[1].to_string()]);

    // The old one comes back as a standby; although it is the first of the list, nobody is sent there.
    follow(first, second);
    first.restart().unwrap();
    sql(
        second,
        "postgres",
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE backend_type = 'client backend' \
         AND pid <> pg_backend_pid()",
    );
    until("the new connection writes", || {
        client
            .query("INSERT INTO t VALUES (3)")
            .sqlstate()
            .is_none()
    });
    assert_eq!(client.query(WHERE).lines(), [ports[1].to_string()]);
    assert_eq!(client.query("SELECT count(*) FROM t").lines(), ["3"]);
}

#[test]
fn where_no_host_is_what_was_asked_for_the_client_is_told_so_and_served_once_one_is() {
    let servers = servers_with("unfit", 2);
    let [primary, standby] = [0, 1].map(|index: usize| &servers.all()[index]);
    let name = database(&servers.all()[..1], "unfit", "");
    make_standbys(primary, &servers.all()[1..]);
    let dead = free_port();
    let proxy = proxy_to(
        &name,
        &[dead, standby.port()],
        "target_session_attrs=primary",
    );
    let begun = Instant::now();
    let mut client = support::client::Client::connect(proxy.port);
    let reply = client.try_login(&[("user", "postgres"), ("database", &name)], "");
    let error = reply.of(b'E').next().unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("57P03"), "{reply}");
    assert_eq!(
        error.field(b'M').as_deref(),
        Some(
            "no server of shard \"s0\" can be used: 1 of 2 servers answered, but none is what \
             target_session_attrs=primary asks for"
        )
    );
    // It was waited for.
    assert!(
        begun.elapsed() >= Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    primary.stop();
    promote(standby);
    until("there is a primary", || {
        let mut client = support::client::Client::connect(proxy.port);
        let reply = client.try_login(&[("user", "postgres"), ("database", &name)], "");
        reply.sqlstate().is_none()
    });
}

#[test]
fn a_connection_to_a_standby_that_was_promoted_is_not_used_again() {
    let servers = servers_with("promoted", 3);
    let [primary, first, second] = [0, 1, 2].map(|index: usize| &servers.all()[index]);
    let name = database(&servers.all()[..1], "promoted", "");
    make_standbys(primary, &servers.all()[1..]);
    let ports = [first.port(), second.port()];
    let proxy = proxy_to(&name, &ports, "target_session_attrs=standby");
    let mut client = proxy.client(&name, "postgres", "");
    assert_eq!(client.query(WHERE).lines(), [ports[0].to_string()]);
    promote(first);
    // The server says with its next answer, or already has, that it is no standby any more.
    client.query("SELECT 1").ok();
    assert_eq!(client.query(WHERE).lines(), [ports[1].to_string()]);
}
