//! Live: real drivers, fifty clients at a time with settings of their own, over a pool of two servers. Each script runs on
//! PostgreSQL itself first, so that it can be believed; through the proxy it must then make the same checks, and none may
//! fail. `make drivers` installs them below `target/`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "drivers/pooled_tokio.rs"]
mod pooled_tokio;
mod support;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use pgherd::demo::Server;
use support::proxy::Proxy;
use support::{SHOP, database, servers, sql};

const SCHEMA: &str = include_str!("drivers/pooled.sql");
const CLIENTS: usize = 50;
const POOL: usize = 2;

/// How often each client does everything.
const ROUNDS: usize = 1;

/// A script that takes longer hangs; it takes a few seconds.
const SCRIPT_MAX: Duration = Duration::from_secs(120);

/// The driver of Java, where its package puts it.
const JDBC: &str = "/usr/share/java/postgresql.jar";

/// Options of the Java machine: a time zone for it to tell the server, and a quick start.
const JAVA: [&str; 4] = [
    "-Duser.timezone=Asia/Kolkata",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xmx256m",
];

/// Fewer would say that a script ended early and called it success.
const CHECKS_MIN: usize = 100;

const DRIVERS: [&str; 6] = ["django", "sqlalchemy", "jdbc", "node", "asyncpg", "tokio"];

/// A server takes a hundred connections, so one script at a time has fifty.
static STRAIGHT: Mutex<()> = Mutex::new(());

fn server() -> &'static Server {
    static READY: OnceLock<()> = OnceLock::new();
    let server = &servers().all()[0];
    READY.get_or_init(|| {
        let role = format!(
            "CREATE ROLE pooled_keeper; GRANT pooled_keeper TO {}",
            SHOP.0
        );
        sql(server, "postgres", &role);
    });
    server
}

fn new_database() -> String {
    database(std::slice::from_ref(server()), "pooled", SCHEMA)
}

fn dsn(port: u16, database: &str) -> String {
    let password = SHOP.1.replace(' ', "%20");
    format!(
        "postgresql://{}:{password}@127.0.0.1:{port}/{database}",
        SHOP.0
    )
}

/// A proxy that logs each client in to the server as itself, with two servers for all of them.
fn proxy_to(name: &str) -> Proxy {
    let server = std::slice::from_ref(server());
    let own = format!("primary = \"{}\"", server[0].dsn(name));
    let port = server[0].port();
    let theirs = format!(
        "primary = \"host=127.0.0.1 port={port} dbname={name}\"\ncontrol = \"{}\"",
        server[0].dsn(name)
    );
    let config = Proxy::config(name, server, "")
        .replace(&own, &theirs)
        .replace(
            "method = \"trust\"",
            "method = \"scram-sha-256\"\nusers_file = \"{folder}/userlist.txt\"",
        )
        .replace(
            &format!("[databases.{name}]\n"),
            &format!("[databases.{name}]\npool = {{ size = {POOL} }}\n"),
        );
    Proxy::start_with(&config, |folder, _| {
        let users = format!("\"{}\" \"{}\"\n", SHOP.0, SHOP.1);
        std::fs::write(folder.join("userlist.txt"), users).unwrap();
    })
}

/// What a script said.
struct Said {
    all: String,
    clients: usize,
    checks: usize,
    failed: usize,
}

/// Each of `clients` does all once; with `breaks`, one of them breaks a setting of its own.
fn run(driver: &str, dsn: &str, clients: usize, breaks: bool) -> Said {
    let (all, succeeded) = if driver == "tokio" {
        let all = pooled_tokio::run(dsn, clients, ROUNDS, breaks);
        let succeeded = all.contains(" 0 failed");
        (all, succeeded)
    } else {
        run_script(driver, dsn, clients, breaks)
    };
    let [clients, checks, failed] =
        counts(driver, &all).unwrap_or_else(|| panic!("{driver} did not come to its end:\n{all}"));
    assert_eq!(
        succeeded,
        failed == 0 && checks > 0,
        "{driver} contradicts itself:\n{all}"
    );
    Said {
        all,
        clients,
        checks,
        failed,
    }
}

/// Runs a script to its end: what it printed, and whether it says that it succeeded.
fn run_script(driver: &str, dsn: &str, clients: usize, breaks: bool) -> (String, bool) {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers");
    let installed = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("drivers");
    assert!(
        installed.join("ready").exists(),
        "the drivers are not installed: run `make drivers`"
    );
    let python = installed.join("venv/bin/python");
    let (program, script) = match driver {
        "jdbc" => (PathBuf::from("java"), "PooledJdbc"),
        "node" => (PathBuf::from("node"), "pooled_node.js"),
        "django" => (python, "pooled_django.py"),
        "sqlalchemy" => (python, "pooled_sqlalchemy.py"),
        _ => (python, "pooled_asyncpg.py"),
    };
    let mut command = Command::new(program);
    if driver == "jdbc" {
        let classes = format!("{JDBC}:{}", compiled(&scripts).display());
        command.args(["-cp", &classes]).args(JAVA).arg(script);
    } else {
        command.arg(scripts.join(script));
    }
    let mut child = command
        .env("PGHERD_DSN", dsn)
        .env("PGHERD_CLIENTS", clients.to_string())
        .env("PGHERD_ROUNDS", ROUNDS.to_string())
        .env("PGHERD_BREAKS", if breaks { "1" } else { "0" })
        .env("NODE_PATH", installed.join("node_modules"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let status = std::thread::scope(|scope| {
        scope.spawn(|| stdout.read_to_end(&mut said).unwrap());
        scope.spawn(|| stderr.read_to_end(&mut complained).unwrap());
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if begun.elapsed() > SCRIPT_MAX {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let all = [said, complained].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let all = all.concat();
    let status = status.unwrap_or_else(|| panic!("{driver} hangs:\n{all}"));
    (all, status.success())
}

/// The script in Java, compiled once for all its runs.
fn compiled(scripts: &Path) -> &'static Path {
    static CLASSES: OnceLock<PathBuf> = OnceLock::new();
    CLASSES.get_or_init(|| {
        let classes = Path::new(env!("CARGO_TARGET_TMPDIR")).join("jdbc");
        let output = Command::new("javac")
            .args(["-encoding", "UTF-8", "-cp", JDBC, "-d"])
            .arg(&classes)
            .arg(scripts.join("PooledJdbc.java"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        classes
    })
}

/// Of a line `<driver>: 50 clients, 1234 checks, 0 failed`.
fn counts(driver: &str, said: &str) -> Option<[usize; 3]> {
    let start = format!("{driver}: ");
    let line = said.lines().find_map(|line| line.strip_prefix(&start))?;
    let numbers = line.split(", ").zip(["clients", "checks", "failed"]);
    let numbers: Vec<usize> = numbers
        .filter_map(|(part, word)| part.strip_suffix(word)?.trim_end().parse().ok())
        .collect();
    numbers.try_into().ok()
}

/// Straight first, then through the proxy.
fn same_through_the_proxy(driver: &str) {
    let name = new_database();
    let straight = {
        let _alone = STRAIGHT.lock().unwrap_or_else(PoisonError::into_inner);
        run(driver, &dsn(server().port(), &name), CLIENTS, false)
    };
    assert_eq!(
        straight.failed, 0,
        "on PostgreSQL itself:\n{}",
        straight.all
    );
    assert_eq!(straight.clients, CLIENTS, "{}", straight.all);
    assert!(straight.checks > CLIENTS * CHECKS_MIN, "{}", straight.all);
    let name = new_database();
    let proxy = proxy_to(&name);
    let through = run(driver, &dsn(proxy.port, &name), CLIENTS, false);
    assert_eq!(through.failed, 0, "through the proxy:\n{}", through.all);
    assert_eq!(through.clients, CLIENTS, "{}", through.all);
    assert_eq!(through.checks, straight.checks, "{}", through.all);
    // As many as were ever there: none is closed within the time of a test.
    let servers = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND usename = '{}'",
        SHOP.0
    );
    assert_eq!(sql(server(), "postgres", &servers), POOL.to_string());
    print!("{}", through.all);
}

#[test]
fn django() {
    same_through_the_proxy("django");
}

#[test]
fn sqlalchemy() {
    same_through_the_proxy("sqlalchemy");
}

#[test]
fn jdbc() {
    same_through_the_proxy("jdbc");
}

#[test]
fn node() {
    same_through_the_proxy("node");
}

#[test]
fn asyncpg() {
    same_through_the_proxy("asyncpg");
}

#[test]
fn tokio() {
    same_through_the_proxy("tokio");
}

#[test]
fn a_setting_that_is_broken_is_told_of() {
    // The first of three clients changes its tenant behind the back of its own checks.
    for driver in DRIVERS {
        let name = new_database();
        let _alone = STRAIGHT.lock().unwrap_or_else(PoisonError::into_inner);
        let said = run(driver, &dsn(server().port(), &name), 3, true);
        assert_eq!(said.clients, 3, "{driver}:\n{}", said.all);
        let wrong = ["client 0, ", "tenant-1", "instead of", "tenant-0"];
        let told = |line: &str| wrong.iter().all(|word| line.contains(word));
        assert!(said.all.lines().any(told), "{driver}:\n{}", said.all);
        // The others are right, and everything else is.
        assert!(!said.all.contains("client 1, "), "{driver}:\n{}", said.all);
        assert!(said.failed < said.checks / 5, "{driver}:\n{}", said.all);
    }
}
