//! Live: servers that cannot be logged in to. Each refusal is one clear error, at once where waiting does not help, and
//! otherwise once `connect_timeout` has passed; whoever waits is served when the server is well again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pgherd::demo::{Options, Server, Servers};
use support::client::{Client, Reply, message, query};
use support::proxy::Proxy;
use support::{SHOP, database, servers, servers_with, sql, until};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

fn proxy(name: &str, primary: &str, pool: &str) -> Proxy {
    Proxy::start(&format!(
        "[proxy]\nlisten = [\"{{listen}}\"]\nhttp = \"{{http}}\"\nworkers = 2\n\n[auth]\nmethod = \"trust\"\n\n\
         [pool]\nconnect_timeout = \"2s\"\n{pool}\n\n[databases.{name}]\n[[databases.{name}.shards]]\nname = \"s0\"\n\
         primary = \"sslmode=disable dbname={name} {primary}\"\n"
    ))
}

fn at(port: u16, user: &str) -> String {
    format!("host=127.0.0.1 port={port} {user}")
}

fn try_login(proxy: &Proxy, database: &str) -> (Reply, Duration) {
    let begun = Instant::now();
    let mut client = Client::connect(proxy.port);
    let reply = client.try_login(&[("user", "postgres"), ("database", database)], "");
    (reply, begun.elapsed())
}

/// SQLSTATE and text of the only error.
fn told(reply: &Reply) -> String {
    assert_eq!(reply.of(b'E').count(), 1, "{reply}");
    let error = reply.of(b'E').next().unwrap();
    let field = |code| error.field(code).unwrap();
    assert_eq!(field(b'S'), "FATAL", "{reply}");
    format!("{} {}", field(b'C'), field(b'M'))
}

/// What a [`Front`] does with one connection.
#[derive(Clone, Copy)]
enum Act {
    /// Says an error of this SQLSTATE once the start-up message is there.
    Refuse(&'static str),
    /// Says this instead.
    Say(&'static [u8]),
    Hang,
    /// Hangs up at once.
    Close,
}

/// A stand-in in front of a server: does these acts, one for each connection, and then passes everything on.
struct Front {
    port: u16,
    left: Arc<Mutex<VecDeque<Act>>>,
}

impl Front {
    fn of(server: u16, acts: &[Act]) -> Front {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let left = Arc::new(Mutex::new(VecDeque::from(acts.to_vec())));
        let acts = Arc::clone(&left);
        // Ends with the test.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let act = acts.lock().unwrap().pop_front();
                thread::spawn(move || serve(stream.unwrap(), act, server));
            }
        });
        Front { port, left }
    }

    fn acts_left(&self) -> usize {
        self.left.lock().unwrap().len()
    }
}

fn serve(mut stream: TcpStream, act: Option<Act>, server: u16) {
    let read_startup = |stream: &mut TcpStream| {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
        stream.read_exact(&mut rest).unwrap();
    };
    match act {
        Some(Act::Refuse(sqlstate)) => {
            read_startup(&mut stream);
            let fields = format!("SFATAL\0VFATAL\0C{sqlstate}\0Mnot now\0\0");
            let _ = stream.write_all(&message(b'E', fields.as_bytes()));
        }
        Some(Act::Say(bytes)) => {
            read_startup(&mut stream);
            let _ = stream.write_all(bytes);
        }
        Some(Act::Hang) => {
            let _ = io::copy(&mut stream, &mut io::sink());
        }
        Some(Act::Close) => {}
        None => {
            let there = TcpStream::connect(("127.0.0.1", server)).unwrap();
            let pass = |mut from: TcpStream, mut to: TcpStream| {
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                })
            };
            pass(there.try_clone().unwrap(), stream.try_clone().unwrap());
            let _ = pass(stream, there).join();
        }
    }
}

#[test]
fn who_the_server_does_not_want_is_told_so_at_once_in_its_words() {
    let server = &servers().all()[0];
    let name = database(&servers().all()[..1], "unwanted", "");
    let shop = SHOP.0;
    for (who, expected) in [
        (
            format!("user={shop} password=wrong"),
            format!("28P01 password authentication failed for user \"{shop}\""),
        ),
        (
            // In hba, but the server asks for a password and there is none.
            format!("user={shop}"),
            format!(
                "28P01 the server asks for a password of user \"{shop}\", and none is known that it can take"
            ),
        ),
        (
            "user=nobody_here password=x".to_owned(),
            "28P01 password authentication failed for user \"nobody_here\"".to_owned(),
        ),
    ] {
        let proxy = proxy(&name, &at(server.port(), &who), "");
        // The second time as well: nothing is remembered.
        for _ in 0..2 {
            let (reply, took) = try_login(&proxy, &name);
            assert_eq!(told(&reply), expected);
            assert!(took < CONNECT_TIMEOUT, "{took:?}");
        }
    }
    let proxy = proxy("not_there", &at(server.port(), "user=postgres"), "");
    let (reply, took) = try_login(&proxy, "not_there");
    assert_eq!(told(&reply), "3D000 database \"not_there\" does not exist");
    assert!(took < CONNECT_TIMEOUT, "{took:?}");
}

#[test]
fn a_login_that_is_refused_once_a_client_is_in_is_one_error_of_its_statement() {
    let server = &servers().all()[0];
    let name = database(&servers().all()[..1], "locked", "");
    sql(server, "postgres", "CREATE ROLE locked LOGIN PASSWORD 'x'");
    let primary = at(server.port(), "user=locked password=x");
    let proxy = proxy(&name, &primary, "");
    let mut client = proxy.client(&name, "postgres", "");
    client.query("SELECT 1").ok();
    let end = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE usename = 'locked'";
    sql(
        server,
        "postgres",
        &format!("ALTER ROLE locked NOLOGIN; {end}"),
    );
    let reply = client.query("SELECT 2");
    assert_eq!(
        reply.to_string(),
        "E(28000 role \"locked\" is not permitted to log in) Z(I)"
    );
    sql(server, "postgres", "ALTER ROLE locked LOGIN");
    until("it is let in again", || {
        client.query("SELECT 3").lines() == ["3"]
    });
}

/// A server that takes four clients that are not superusers, and those of them that are there already.
fn small_server(taken: usize) -> (Servers, String, Vec<Client>) {
    let servers = Servers::start(&Options {
        label: "small".to_owned(),
        statements: vec!["CREATE ROLE shop LOGIN".to_owned()],
        max_connections: 7,
        settings: vec![("superuser_reserved_connections".to_owned(), "3".to_owned())],
        ..Options::default()
    })
    .unwrap();
    let name = database(servers.all(), "small", "");
    let others = (0..taken)
        .map(|_| {
            let mut client = Client::connect(servers.all()[0].port());
            client.login(&[("user", "shop"), ("database", "postgres")], "");
            client
        })
        .collect();
    (servers, name, others)
}

fn leave(clients: Vec<Client>, server: &Server) {
    drop(clients);
    let there =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'postgres' AND usename = 'shop'";
    until("they have left", || sql(server, "postgres", there) == "0");
}

#[test]
fn where_the_server_has_no_connection_left_a_client_waits_for_one_of_its_pool() {
    let (servers, name, others) = small_server(3);
    let server = &servers.all()[0];
    let proxy = proxy(&name, &at(server.port(), "user=shop"), "");
    let mut holder = proxy.client(&name, "postgres", "");
    holder.query("BEGIN").ok();
    let pid = holder.query("SELECT pg_backend_pid()").lines();
    let mut waiter = proxy.client(&name, "postgres", "");
    waiter.send(&query("SELECT pg_backend_pid()"));
    let begun = Instant::now();
    // Longer than a login may fail where there is nobody to wait for.
    until("logins have failed for longer than connect_timeout", || {
        begun.elapsed() > 2 * CONNECT_TIMEOUT
            && proxy.log().matches("login to the server failed").count() > 4
    });
    holder.query("COMMIT").ok();
    assert_eq!(waiter.reply().lines(), pid);
    leave(others, server);
}

#[test]
fn where_the_server_has_no_connection_at_all_for_a_pool_the_client_is_told_after_a_while() {
    let (servers, name, others) = small_server(4);
    let server = &servers.all()[0];
    let proxy = proxy(&name, &at(server.port(), "user=shop"), "");
    let (reply, took) = try_login(&proxy, &name);
    let told = told(&reply);
    assert!(
        told.starts_with("53300 no server of shard \"s0\" can be used: "),
        "{told}"
    );
    assert!(took >= CONNECT_TIMEOUT, "{took:?}");
    leave(others, server);
    until("it is served", || {
        try_login(&proxy, &name).0.sqlstate().is_none()
    });
}

#[test]
fn a_server_that_starts_up_or_hangs_up_is_waited_for() {
    let server = servers().all()[0].port();
    let name = database(&servers().all()[..1], "starts", "");
    for act in [Act::Refuse("57P03"), Act::Close, Act::Refuse("53300")] {
        let front = Front::of(server, &[act; 3]);
        let proxy = proxy(&name, &at(front.port, "user=postgres"), "");
        let mut client = proxy.client(&name, "postgres", "");
        assert_eq!(client.query("SELECT 1").lines(), ["1"]);
        assert_eq!(front.acts_left(), 0);
    }
    // Not for ever.
    let front = Front::of(server, &[Act::Refuse("57P03"); 100]);
    let proxy = proxy(&name, &at(front.port, "user=postgres"), "");
    let (reply, took) = try_login(&proxy, &name);
    assert_eq!(
        told(&reply),
        "57P03 no server of shard \"s0\" can be used: not now"
    );
    assert!(took >= CONNECT_TIMEOUT, "{took:?}");
}

#[test]
fn what_is_no_postgresql_server_is_told_at_once() {
    let name = database(&servers().all()[..1], "alien", "");
    for nonsense in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"R\x7f\xff\xff\xff",
        b"Z\0\0\0\x05I",
    ] {
        let front = Front::of(0, &[Act::Say(nonsense); 2]);
        let proxy = proxy(&name, &at(front.port, "user=postgres"), "");
        let (reply, took) = try_login(&proxy, &name);
        let told = told(&reply);
        assert!(
            told.starts_with("08P01 the server broke the protocol"),
            "{told}"
        );
        assert!(took < CONNECT_TIMEOUT, "{took:?}");
    }
}

#[test]
fn the_first_host_of_a_list_may_be_dead_or_dumb_or_starting() {
    let server = servers().all()[0].port();
    let name = database(&servers().all()[..1], "list", "");
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = free.local_addr().unwrap().port();
    drop(free);
    let hangs = Front::of(server, &[Act::Hang; 100]);
    let starts = Front::of(server, &[Act::Refuse("57P03"); 100]);
    for (first, slow) in [(dead, false), (starts.port, false), (hangs.port, true)] {
        let primary = format!("host=127.0.0.1,127.0.0.1 port={first},{server} user=postgres");
        let proxy = proxy(&name, &primary, "");
        let (reply, took) = try_login(&proxy, &name);
        assert_eq!(reply.sqlstate(), None, "{reply}");
        // Only the one that says nothing costs its whole time.
        assert_eq!(took >= CONNECT_TIMEOUT, slow, "{took:?}");
    }
    // A refusal that is final is not asked for a second time elsewhere.
    let refuses = Front::of(server, &[Act::Refuse("28P01"); 100]);
    let primary = format!(
        "host=127.0.0.1,127.0.0.1 port={},{server} user=postgres",
        refuses.port
    );
    let (reply, _) = try_login(&proxy(&name, &primary, ""), &name);
    assert_eq!(told(&reply), "28P01 not now");
}

#[test]
fn a_frozen_server_is_told_of_to_who_logs_in_and_answers_everybody_when_it_is_thawed() {
    let servers = servers_with("frozen", 1);
    let server = &servers.all()[0];
    let name = database(servers.all(), "frozen", "");
    let proxy = proxy(&name, &at(server.port(), "user=postgres"), "size = 2");
    let mut inside = proxy.client(&name, "postgres", "");
    inside.query("SELECT 1").ok();
    let mut second = proxy.client(&name, "postgres", "");

    server.freeze();
    // Whoever has a connection waits for its answer.
    inside.send(&query("SELECT 'thawed'"));
    // Whoever needs a new one is told, for nobody can be logged in. (A pool with connections is waited for: so another.)
    second.send(&query("SELECT 'second'"));
    let fresh = self::proxy(&name, &at(server.port(), "user=postgres"), "");
    let (reply, took) = try_login(&fresh, &name);
    assert_eq!(
        told(&reply),
        "57P03 no server of shard \"s0\" can be used: no server answered within 2s"
    );
    assert!(took >= CONNECT_TIMEOUT, "{took:?}");
    server.thaw();
    assert_eq!(inside.reply().lines(), ["thawed"]);
    assert_eq!(second.reply().lines(), ["second"]);
    until("it lets in again", || {
        try_login(&fresh, &name).0.sqlstate().is_none()
    });
}
