//! One PostgreSQL server as a child of this process: start, stop, and the ways in which servers fail.
//!
//! What would surprise: `stop` keeps port and data, so `restart` gives back the same server.

use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::error::DemoError;
use super::programs::{Programs, run, signal};

/// Below the range from which Linux takes the ports of outgoing connections, so that a server that is down for a
/// moment finds its port free again.
const PORT_FIRST: u16 = 20_000;
const PORT_LAST: u16 = 31_999;
const PORT_TRIES_MAX: u32 = 20;
const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
const LOG_LINES_SHOWN: usize = 5;

/// A running (or stopped) server. It is stopped when its [`Servers`](super::Servers) is dropped.
#[derive(Debug)]
pub struct Server {
    programs: Programs,
    folder: PathBuf,
    port: u16,
    superuser: String,
    password: String,
    child: Mutex<Option<Child>>,
}

impl Server {
    /// Starts a server on a free port in `folder`, which holds its `data`.
    pub(super) fn start(
        programs: Programs,
        folder: PathBuf,
        superuser: &str,
        password: &str,
    ) -> Result<Server, DemoError> {
        let mut server = Server {
            programs,
            folder,
            port: 0,
            superuser: superuser.to_owned(),
            password: password.to_owned(),
            child: Mutex::new(None),
        };
        let mut tries = 0;
        loop {
            server.port = free_port()?;
            match server.restart() {
                // Between our look and PostgreSQL's, somebody else took the port.
                Err(DemoError::ServerEnded { log, .. })
                    if log.contains("Address already in use") && tries < PORT_TRIES_MAX =>
                {
                    tries += 1;
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(server),
            }
        }
    }

    /// Listens on 127.0.0.1 and, under the same number, on the unix socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of `.s.PGSQL.<port>`.
    pub fn socket_dir(&self) -> &Path {
        &self.folder
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A libpq string for the superuser over TCP.
    pub fn dsn(&self, database: &str) -> String {
        self.dsn_of(database, &self.superuser, &self.password)
    }

    /// A libpq string for any user over TCP; an empty password is left out.
    pub fn dsn_of(&self, database: &str, user: &str, password: &str) -> String {
        let secret = if password.is_empty() {
            String::new()
        } else {
            format!(" password={password}")
        };
        format!(
            "host=127.0.0.1 port={} dbname={database} user={user}{secret}",
            self.port
        )
    }

    /// All that the server has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Runs SQL as the superuser with `psql`, over the socket: unaligned rows, fields split by `|`, no header.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String, DemoError> {
        let mut command = self.programs.command("psql");
        command.args([
            "-X",
            "-A",
            "-t",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            database,
            "-c",
            sql,
        ]);
        command.arg("-h").arg(&self.folder).args([
            "-p",
            &self.port.to_string(),
            "-U",
            &self.superuser,
        ]);
        command.env("PGPASSWORD", &self.password);
        run(command).map(|rows| rows.trim_end().to_owned())
    }

    /// Starts it again on the same port and waits until it takes connections.
    pub fn restart(&self) -> Result<(), DemoError> {
        self.stop();
        let mut child = self.spawn()?;
        let waited = self.wait_until_ready(&mut child);
        if waited.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        } else {
            *self.child() = Some(child);
        }
        waited
    }

    /// A fast shutdown: clients are cut off, the data is written. Immediate when that takes too long.
    pub fn stop(&self) {
        self.end("INT");
    }

    /// An immediate shutdown: clients are cut off with 57P01, the next start recovers from the log.
    pub fn crash(&self) {
        self.end("QUIT");
    }

    /// SIGKILL to the postmaster and to all its children: clients see a closed connection and no message.
    pub fn kill9(&self) {
        let Some(mut child) = self.child().take() else {
            return;
        };
        let mut pids = vec![child.id()];
        pids.extend(children(child.id()));
        signal("KILL", &pids);
        let _ = child.wait();
        // A child that is still there would hold the shared memory and stop the next start.
        wait_until(STOP_MAX, || pids.iter().all(|pid| !is_alive(*pid)));
    }

    /// Stops the clock of the server: connections stay open and nothing answers.
    pub fn freeze(&self) {
        self.signal_all("STOP");
    }

    /// Undoes `freeze`.
    pub fn thaw(&self) {
        self.signal_all("CONT");
    }

    /// Whether the postmaster lives (a frozen one does).
    pub fn is_running(&self) -> bool {
        self.child()
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The postmaster's process id.
    pub fn pid(&self) -> Result<u32, DemoError> {
        self.child()
            .as_ref()
            .map(Child::id)
            .ok_or(DemoError::NotRunning { port: self.port })
    }

    fn spawn(&self) -> Result<Child, DemoError> {
        let log_file = self.log_file();
        let log = File::create(&log_file).map_err(|source| DemoError::Folder {
            what: "cannot write",
            path: log_file,
            source,
        })?;
        let mut command = self.programs.command("postgres");
        command
            .arg("-D")
            .arg(self.data_dir())
            .arg("-k")
            .arg(&self.folder);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|source| DemoError::CannotRun {
                program: "postgres".to_owned(),
                source,
            })
    }

    /// PostgreSQL writes `ready` as the last line of its pid file, which is how `pg_ctl` knows too.
    fn wait_until_ready(&self, child: &mut Child) -> Result<(), DemoError> {
        let file = self.data_dir().join("postmaster.pid");
        let begun = Instant::now();
        loop {
            if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                return Err(DemoError::ServerEnded {
                    port: self.port,
                    log: self.log_end(),
                });
            }
            let text = fs::read_to_string(&file).unwrap_or_default();
            let ours = text.lines().next() == Some(child.id().to_string().as_str());
            if ours
                && text
                    .lines()
                    .nth(7)
                    .is_some_and(|status| status.trim() == "ready")
            {
                return Ok(());
            }
            if begun.elapsed() > START_MAX {
                return Err(DemoError::ServerSlow {
                    port: self.port,
                    waited: START_MAX,
                    log: self.log_end(),
                });
            }
            thread::sleep(POLL);
        }
    }

    fn end(&self, how: &str) {
        let Some(mut child) = self.child().take() else {
            return;
        };
        let mut pids = vec![child.id()];
        pids.extend(children(child.id()));
        signal(how, &[child.id()]);
        signal("CONT", &pids);
        let mut gone = || matches!(child.try_wait(), Ok(Some(_)) | Err(_));
        if !wait_until(STOP_MAX, &mut gone) {
            signal("QUIT", &pids);
            if !wait_until(STOP_MAX, gone) {
                signal("KILL", &pids);
                let _ = child.wait();
            }
        }
    }

    fn signal_all(&self, name: &str) {
        let Some(pid) = self.child().as_ref().map(Child::id) else {
            return;
        };
        // The postmaster first: it makes no more children once it is stopped.
        signal(name, &[pid]);
        signal(name, &children(pid));
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let (_, end) = lines.split_at(lines.len().saturating_sub(LOG_LINES_SHOWN));
        end.join("; ")
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    /// Nobody will read the data again, so the quickest way down will do.
    fn drop(&mut self) {
        self.crash();
    }
}

/// Makes `folder` and gives it to the user of the servers.
pub(super) fn prepare_folder(folder: &Path, programs: &Programs) -> Result<(), DemoError> {
    let made = || {
        fs::create_dir(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        programs
            .user()
            .map_or(Ok(()), |user| chown(folder, Some(user.uid), Some(user.gid)))
    };
    made().map_err(|source| DemoError::Folder {
        what: "cannot create",
        path: folder.to_path_buf(),
        source,
    })
}

/// A port on which nobody listens, taken at random so that two test runs rarely meet.
fn free_port() -> Result<u16, DemoError> {
    for _ in 0..PORT_TRIES_MAX * 10 {
        let port = rand::random_range(PORT_FIRST..=PORT_LAST);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(DemoError::NoFreePort {
        first: PORT_FIRST,
        last: PORT_LAST,
    })
}

/// All processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent))
        .collect()
}

/// A process that was killed and not yet collected by its parent counts as dead.
fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// State and parent from `/proc/<pid>/stat` (proc(5)); the name in it may hold blanks and parentheses.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let mut words = rest.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

fn wait_until(longest: Duration, mut done: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if done() {
            return true;
        }
        if begun.elapsed() > longest {
            return false;
        }
        thread::sleep(POLL);
    }
}

/// Runs a program that must succeed, for [`super::servers`].
pub(super) fn must(command: Command) -> Result<(), DemoError> {
    run(command).map(drop)
}
