//! Live: real drivers run the same ten checks on PostgreSQL itself (so that the checks can be believed), and through
//! the proxy on a database of one shard and on one of three. `make drivers` installs them below `target/`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pgherd::demo::{Server, shop};
use support::proxy::{Proxy, init};
use support::{SHOP, database, servers};

const DRIVERS: [&str; 4] = ["psycopg", "asyncpg", "node", "psql"];
const CHECKS: &str = "10 passed, 0 failed";

/// Each driver on its own thread; all of them are told of, not only the first that fails.
#[track_caller]
fn all_pass(dsn: &str, sharded: bool) {
    let failures: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = DRIVERS
            .map(|driver| (driver, scope.spawn(move || run(driver, dsn, sharded))))
            .into();
        let ended = running
            .into_iter()
            .map(|(driver, running)| (driver, running.join().unwrap()));
        ended
            .filter(|(_, said)| !said.contains(CHECKS))
            .map(|(driver, said)| format!("== {driver}\n{said}"))
            .collect()
    });
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// What the program printed; its exit code agrees with its last line.
fn run(driver: &str, dsn: &str, sharded: bool) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (installed, checks) = (installed(), root.join("tests/drivers"));
    let (program, script) = match driver {
        "psycopg" => (installed.join("venv/bin/python"), "checks.py"),
        "asyncpg" => (installed.join("venv/bin/python"), "checks_asyncpg.py"),
        "node" => (PathBuf::from("node"), "checks_node.js"),
        _ => (PathBuf::from("sh"), "checks_psql.sh"),
    };
    assert!(
        installed.join("ready").exists(),
        "the drivers are not installed: run `make drivers`"
    );
    let output = Command::new(program)
        .arg(checks.join(script))
        .env("PGHERD_DSN", dsn)
        .env("PGHERD_SHARDED", if sharded { "1" } else { "0" })
        .env("NODE_PATH", installed.join("node_modules"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        output.status.success(),
        said.contains(CHECKS),
        "{driver} contradicts itself:\n{said}"
    );
    said
}

/// `target/drivers`, where the Makefile puts them.
fn installed() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .unwrap()
        .join("drivers")
}

fn dsn(port: u16, database: &str) -> String {
    format!(
        "postgresql://{}:{}@127.0.0.1:{port}/{database}",
        SHOP.0,
        SHOP.1.replace(' ', "%20")
    )
}

/// A proxy whose clients log in by SCRAM, with the shop on these servers.
fn shop_on(servers: &[Server]) -> (Proxy, String) {
    let name = database(servers, "drivers", shop::SCHEMA);
    let rules = shop::RULES.replace("databases.shop.", &format!("databases.{name}."));
    let config = Proxy::config(&name, servers, if servers.len() > 1 { &rules } else { "" })
        .replace(
            "method = \"trust\"",
            "method = \"scram-sha-256\"\nusers_file = \"{folder}/userlist.txt\"",
        );
    let proxy = Proxy::start_with(&config, |folder, path| {
        std::fs::write(
            folder.join("userlist.txt"),
            format!("\"{}\" \"{}\"\n", SHOP.0, SHOP.1),
        )
        .unwrap();
        init(folder, path);
    });
    let dsn = dsn(proxy.port, &name);
    (proxy, dsn)
}

#[test]
fn every_check_passes_on_postgresql_itself() {
    let server = &servers().all()[..1];
    let name = database(server, "drivers", shop::SCHEMA);
    all_pass(&dsn(server[0].port(), &name), false);
}

#[test]
fn every_check_passes_through_the_proxy_on_one_shard() {
    let (_proxy, dsn) = shop_on(&servers().all()[..1]);
    all_pass(&dsn, false);
}

#[test]
fn every_check_passes_through_the_proxy_on_three_shards() {
    let (_proxy, dsn) = shop_on(servers().all());
    all_pass(&dsn, true);
}

#[test]
fn a_check_that_fails_is_told_of() {
    // Nobody refuses anything here, so the ninth check must fail, and only that one.
    let server = &servers().all()[1..2];
    let name = database(server, "drivers", shop::SCHEMA);
    for driver in DRIVERS {
        let said = run(driver, &dsn(server[0].port(), &name), true);
        assert!(said.contains("9 passed, 1 failed"), "{driver}:\n{said}");
    }
}
