//! The built `pgherd` as a child process: started with a config text, killed on drop, its log kept for failures.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pgherd::demo::Server;

use super::PATIENCE;
use super::client::Client;

/// Tries for a port that nobody else takes between our look and the proxy's.
const STARTS_MAX: u32 = 5;

pub struct Proxy {
    child: Child,
    /// Ends the child where the test process ends without dropping this, as it does with what it keeps to its end.
    janitor: Child,
    folder: PathBuf,
    pub port: u16,
    pub http: u16,
}

impl Proxy {
    /// Starts `pgherd run` and waits until it takes connections. In the text, `{listen}` and `{http}` stand for
    /// addresses that are free, and `{folder}` for a folder that holds the config and lives as long as the proxy.
    pub fn start(config: &str) -> Proxy {
        Proxy::start_with(config, |_, _| {})
    }

    /// The same; `prepare` sees the folder and the path of the config before the proxy starts (to write a users file,
    /// or to run `pgherd init`).
    pub fn start_with(config: &str, prepare: impl Fn(&Path, &Path)) -> Proxy {
        let mut log = String::new();
        for _ in 0..STARTS_MAX {
            let folder = new_folder();
            let (port, http) = (free_port(), free_port());
            let path = folder.join("sharding.toml");
            fs::write(&path, fill(config, &folder, port, http)).unwrap();
            prepare(&folder, &path);
            let stderr = File::create(folder.join("log")).unwrap();
            let child = Command::new(env!("CARGO_BIN_EXE_pgherd"))
                .args(["run", "--config"])
                .arg(&path)
                .stdin(Stdio::null())
                .stdout(stderr.try_clone().unwrap())
                .stderr(stderr)
                .spawn()
                .unwrap();
            let mut proxy = Proxy {
                janitor: janitor(child.id()),
                child,
                folder,
                port,
                http,
            };
            if proxy.is_ready() {
                return proxy;
            }
            log = proxy.log();
            if !log.to_lowercase().contains("in use") {
                break;
            }
        }
        panic!("pgherd did not start:\n{log}");
    }

    /// One-shard or sharded database `name`, logged in as the servers' superuser, clients trusted. More TOML may
    /// follow: `tables` goes below `[databases.<name>]`.
    pub fn config(name: &str, servers: &[Server], tables: &str) -> String {
        use std::fmt::Write;
        let mut text = format!(
            "[proxy]\nlisten = [\"{{listen}}\"]\nhttp = \"{{http}}\"\nworkers = 2\nadmin_users = [\"postgres\"]\n\n\
             [auth]\nmethod = \"trust\"\n\n[databases.{name}]\n"
        );
        for (number, server) in servers.iter().enumerate() {
            let dsn = server.dsn(name);
            write!(
                text,
                "\n[[databases.{name}.shards]]\nname = \"s{number}\"\nprimary = \"{dsn}\"\n"
            )
            .unwrap();
        }
        text + "\n" + tables
    }

    /// A DSN for libpq programs.
    pub fn dsn(&self, database: &str, user: &str) -> String {
        format!(
            "host=127.0.0.1 port={} dbname={database} user={user} connect_timeout=10",
            self.port
        )
    }

    /// A raw client, logged in.
    pub fn client(&self, database: &str, user: &str, password: &str) -> Client {
        let mut client = Client::connect(self.port);
        client.login(&[("user", user), ("database", database)], password);
        client
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// A page of the HTTP door, such as `/metrics`, with its head.
    pub fn page(&self, path: &str) -> String {
        let mut http = TcpStream::connect(("127.0.0.1", self.http)).unwrap();
        http.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
            .unwrap();
        let mut page = String::new();
        http.read_to_string(&mut page).unwrap();
        page
    }

    /// `kill -s <signal>`, such as `HUP`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("sh")
            .args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal, &pid])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "pgherd does not end:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_ready(&mut self) -> bool {
        let begun = Instant::now();
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "pgherd does not listen:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.janitor.kill();
        let _ = self.janitor.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- log of pgherd on port {} ---\n{}",
                self.port,
                self.log()
            );
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Runs `pgherd` with these arguments to its end.
pub fn pgherd(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pgherd"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Runs `pgherd init` on a config; it must succeed. Fits [`Proxy::start_with`].
pub fn init(_folder: &Path, config: &Path) {
    let output = pgherd(&["init", "--config", config.to_str().unwrap()]);
    assert!(
        output.status.success(),
        "pgherd init: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Waits for the end of its input, which is ours, and kills then.
fn janitor(pid: u32) -> Child {
    Command::new("sh")
        .args([
            "-c",
            "cat >/dev/null; kill -9 \"$1\"",
            "sh",
            &pid.to_string(),
        ])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn fill(config: &str, folder: &Path, port: u16, http: u16) -> String {
    config
        .replace("{listen}", &format!("127.0.0.1:{port}"))
        .replace("{http}", &format!("127.0.0.1:{http}"))
        .replace("{folder}", folder.to_str().unwrap())
}

fn new_folder() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("proxy-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The system may offer a port again as soon as it is let go of; here each is given once.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}
