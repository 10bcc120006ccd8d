//! What the live tests share: servers, the proxy as a child process, a client that speaks raw protocol, and psql.
//!
//! Everything here fails by panic with the log of the proxy or of the server at hand. Nothing is shared between test
//! binaries; within one, [`servers`] is started once and ends with the process (its janitor sees to that).

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod client;
pub mod proxy;
pub mod shop;
pub mod standby;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pgherd::demo::{Options, Server, Servers};

/// How long anything may take that is expected to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Roles of the shared servers besides the superuser `postgres`, who is trusted over TCP and the socket.
pub const SHOP: (&str, &str) = ("shop", "shop secret");
pub const MD5: (&str, &str) = ("md5_user", "md5 secret");
pub const CLEARTEXT: (&str, &str) = ("cleartext_user", "cleartext secret");

/// Three servers, started at first use and shared by the tests of one binary. Use a database of your own on them
/// ([`database`]), and servers of your own ([`servers_with`]) for tests that stop or kill them.
pub fn servers() -> &'static Servers {
    static SHARED: OnceLock<Servers> = OnceLock::new();
    SHARED.get_or_init(|| servers_with("tests", 3))
}

/// The same, not shared, and gone when dropped.
pub fn servers_with(label: &str, count: usize) -> Servers {
    let role = |(name, password)| format!("CREATE ROLE {name} LOGIN PASSWORD '{password}'");
    let hba = "local all postgres trust\nhost all postgres 127.0.0.1/32 trust\n\
               local all md5_user md5\nhost all md5_user 127.0.0.1/32 md5\n\
               local all cleartext_user password\nhost all cleartext_user 127.0.0.1/32 password\n\
               local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n\
               local replication postgres trust\nhost replication postgres 127.0.0.1/32 trust\n";
    let options = Options {
        count,
        label: label.to_owned(),
        statements: vec![
            role(SHOP),
            role(CLEARTEXT),
            "SET password_encryption = 'md5'".to_owned(),
            role(MD5),
        ],
        hba: Some(hba.to_owned()),
        ..Options::default()
    };
    Servers::start(&options).unwrap_or_else(|error| panic!("cannot start PostgreSQL: {error}"))
}

/// A new database of this name (and a number) on each of the servers, with `schema` run in it. Owned by `shop`.
pub fn database(servers: &[Server], name: &str, schema: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("{name}_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    for server in servers {
        sql(
            server,
            "postgres",
            &format!("CREATE DATABASE {name} OWNER {}", SHOP.0),
        );
        if !schema.is_empty() {
            sql(server, &name, &format!("SET ROLE {}; {schema}", SHOP.0));
        }
    }
    name
}

/// Runs SQL as the superuser straight on a server: `a|b` lines.
pub fn sql(server: &Server, database: &str, text: &str) -> String {
    server
        .psql(database, text)
        .unwrap_or_else(|error| panic!("{text}\n{error}\nserver log:\n{}", server.log()))
}

/// What psql did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Psql {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs psql on any DSN (the proxy's, say): unaligned rows, `ON_ERROR_STOP`, errors with their SQLSTATE.
pub fn psql(dsn: &str, sql: &str) -> Psql {
    let program = std::env::var_os("PGHERD_PG_BIN").map_or_else(
        || "psql".into(),
        |folder| std::path::Path::new(&folder).join("psql"),
    );
    let output = Command::new(program)
        .args([
            "-X",
            "-A",
            "-t",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-v",
            "VERBOSITY=verbose",
        ])
        .args(["-d", dsn, "-c", sql])
        .output()
        .expect("psql must be installed");
    Psql {
        ok: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned(),
        stderr: String::from_utf8_lossy(&output.stderr)
            .trim_end()
            .to_owned(),
    }
}

/// Lets a server offer TLS with this certificate; it takes clients' certificates of this root.
pub fn encrypt(server: &Server, cert: &Path, key: &Path, root: &Path) {
    let data = server.data_dir();
    let owner = fs::metadata(&data).unwrap();
    for (from, name) in [
        (cert, "server.crt"),
        (key, "server.key"),
        (root, "root.crt"),
    ] {
        let to = data.join(name);
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, Permissions::from_mode(0o600)).unwrap();
        chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    for setting in ["ssl_ca_file = 'root.crt'", "ssl = on"] {
        sql(server, "postgres", &format!("ALTER SYSTEM SET {setting}"));
    }
    sql(server, "postgres", "SELECT pg_reload_conf()");
    until("ssl is on", || sql(server, "postgres", "SHOW ssl") == "on");
}

/// A PostgreSQL program of the very version that this server runs.
pub fn program(server: &Server, name: &str) -> Command {
    let exe = format!("/proc/{}/exe", server.pid().unwrap());
    let postgres = std::fs::read_link(exe).unwrap();
    Command::new(postgres.with_file_name(name))
}

/// Status line and body of an HTTP answer.
pub fn get(port: u16, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.lines().next().unwrap().to_owned();
    (status, body.to_owned())
}

/// To a server process, by the number that it tells of itself: `STOP` freezes it until `CONT`.
pub fn signal(name: &str, pid: &str) {
    let status = Command::new("kill").args(["-s", name, pid]).status();
    assert!(status.unwrap().success());
}

/// Polls until it is so; for things that happen without telling.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(
            begun.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
