//! Live: the local servers that the demo and all live tests stand on.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pgherd::demo::{Authentication, Options, Server, Servers};

fn options(label: &str) -> Options {
    Options {
        label: label.to_owned(),
        databases: vec!["shop".to_owned()],
        ..Options::default()
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn three_servers_start_together_and_nothing_of_them_is_left_after_drop() {
    let mut options = Options {
        count: 3,
        authentication: Authentication::ScramSha256,
        ..options("three")
    };
    options.statements = vec!["CREATE ROLE shop LOGIN PASSWORD 'it''s'".to_owned()];
    options.settings = vec![("work_mem".to_owned(), "5MB".to_owned())];
    let servers = Servers::start(&options).unwrap();
    let folder = servers.folder().to_path_buf();
    let mut pids = Vec::new();
    for server in servers.all() {
        let sql = "SELECT current_setting('max_prepared_transactions'), current_setting('wal_level'), current_setting('work_mem'), \
                   inet_server_port() IS NULL, rolname FROM pg_roles WHERE rolname = 'shop'";
        assert_eq!(server.psql("shop", sql).unwrap(), "100|logical|5MB|t|shop");
        pids.push(server.pid().unwrap());
    }
    assert_eq!(pids.len(), 3);
    drop(servers);
    assert!(!folder.exists(), "the folder is gone");
    for pid in pids {
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "server {pid} is gone"
        );
    }
}

#[test]
fn a_server_comes_back_on_its_port_with_its_data_whether_it_was_stopped_or_killed() {
    let servers = Servers::start(&options("comes-back")).unwrap();
    let server = &servers.all()[0];
    let port = server.port();
    server.psql("shop", "CREATE TABLE t (n int)").unwrap();
    for (number, end) in [Server::stop, Server::crash, Server::kill9]
        .into_iter()
        .enumerate()
    {
        server
            .psql("shop", &format!("INSERT INTO t VALUES ({number})"))
            .unwrap();
        end(server);
        assert!(!server.is_running());
        assert!(
            server.psql("shop", "SELECT 1").is_err(),
            "nobody answers after end {number}"
        );
        server.restart().unwrap();
        assert_eq!(server.port(), port);
        assert_eq!(
            server.psql("shop", "SELECT count(*) FROM t").unwrap(),
            (number + 1).to_string()
        );
    }
}

#[test]
fn a_frozen_server_answers_nothing_until_it_is_thawed() {
    let servers = Servers::start(&options("frozen")).unwrap();
    let server = &servers.all()[0];
    server.freeze();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| server.psql("shop", "SELECT 7"));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!asked.is_finished(), "a frozen server must not answer");
        server.thaw();
        assert_eq!(asked.join().unwrap().unwrap(), "7");
    });
    // Dropping a frozen group must neither hang nor leave anything.
    server.freeze();
    let (folder, begun) = (servers.folder().to_path_buf(), Instant::now());
    drop(servers);
    assert!(!folder.exists());
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "took {:?}",
        begun.elapsed()
    );
}

/// The other half of the next test: with this variable set, a run of this binary starts a server, says where, and waits.
const CHILD: &str = "PGHERD_TEST_SERVERS_CHILD";

#[test]
fn servers_do_not_outlive_a_parent_that_was_killed() {
    if std::env::var_os(CHILD).is_some() {
        let servers = Servers::start(&options("orphan")).unwrap();
        println!(
            "folder={} pid={}.",
            servers.folder().display(),
            servers.all()[0].pid().unwrap()
        );
        loop {
            std::thread::park();
        }
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "servers_do_not_outlive_a_parent_that_was_killed",
            "--exact",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let line = lines
        .by_ref()
        .map(Result::unwrap)
        .find(|line| line.contains("folder="))
        .unwrap();
    let (_, rest) = line.split_once("folder=").unwrap();
    let (folder, rest) = rest.split_once(" pid=").unwrap();
    let (pid, _) = rest.split_once('.').unwrap();
    assert!(Path::new(folder).exists());
    child.kill().unwrap();
    child.wait().unwrap();
    until("the janitor removes the folder", || {
        !Path::new(folder).exists()
    });
    until("the server ends", || {
        !Path::new(&format!("/proc/{pid}")).exists()
    });
}
