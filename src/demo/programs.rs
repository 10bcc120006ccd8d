//! Where PostgreSQL's programs are, as whom they run, and how one of them is run to its end.
//!
//! What would surprise: PostgreSQL refuses to run as root, so under root its programs run as `postgres` or, where
//! that user does not exist, as `nobody`.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::DemoError;

/// The folder of `initdb`, `postgres` and `psql`, and the identity they need.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    bin: PathBuf,
    /// `None`: as whoever we are.
    user: Option<User>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct User {
    pub uid: u32,
    pub gid: u32,
}

impl Programs {
    /// Looks in `PGHERD_PG_BIN`, then `PATH`, then where Debian and Red Hat put the newest version.
    pub fn find() -> Result<Programs, DemoError> {
        let bin = bin_folder().ok_or(DemoError::ProgramsMissing)?;
        let user = match whoami()? {
            0 => Some(
                user("postgres")
                    .or_else(|| user("nobody"))
                    .ok_or(DemoError::NoUnprivilegedUser)?,
            ),
            _ => None,
        };
        Ok(Programs { bin, user })
    }

    /// As whom the servers run, when it is not as ourselves.
    pub fn user(&self) -> Option<User> {
        self.user
    }

    /// A PostgreSQL program as the right user, in a process group of its own so that a Ctrl-C at the terminal is
    /// ours alone to handle.
    pub fn command(&self, program: &str) -> Command {
        self.as_user(self.bin.join(program))
    }

    /// Any other program as the user of the servers.
    pub fn as_user(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.process_group(0).current_dir("/");
        for (name, _) in env::vars_os() {
            // PGHOST, PGOPTIONS and the like belong to the person's own servers.
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }
}

/// Runs to the end and gives back what was printed on stdout; a failure carries both outputs.
pub(super) fn run(mut command: Command) -> Result<String, DemoError> {
    let program = command.get_program().to_string_lossy().into_owned();
    // Its input is nothing, unless the caller has set one.
    let output = command.output().map_err(|source| DemoError::CannotRun {
        program: program.clone(),
        source,
    })?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(DemoError::ProgramFailed {
        program,
        status: output.status.to_string(),
        output: format!("{}{}", stdout.trim(), stderr.trim()),
    })
}

/// Sends a signal by name. It goes through the shell's own `kill`, as `kill(2)` would need unsafe code. Processes
/// that are gone already are no failure: that is what a signal is mostly sent for.
pub(super) fn signal(name: &str, pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "signal=$1; shift; for pid in \"$@\"; do kill -s \"$signal\" \"$pid\"; done",
        "sh",
        name,
    ]);
    command.args(pids.iter().map(u32::to_string));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _ = command.status();
}

/// Our effective user id.
pub(super) fn whoami() -> Result<u32, DemoError> {
    let mut command = Command::new("id");
    command.arg("-u");
    let text = run(command)?;
    text.trim().parse().map_err(|_| DemoError::ProgramFailed {
        program: "id -u".to_owned(),
        status: "unexpected output".to_owned(),
        output: text,
    })
}

fn user(name: &str) -> Option<User> {
    let number = |flag: &str| {
        let mut command = Command::new("id");
        command.args([flag, name]);
        run(command).ok()?.trim().parse().ok()
    };
    Some(User {
        uid: number("-u")?,
        gid: number("-g")?,
    })
}

fn bin_folder() -> Option<PathBuf> {
    if let Some(folder) = env::var_os("PGHERD_PG_BIN").filter(|folder| !folder.is_empty()) {
        // Whoever names a folder means that one and no other.
        return Some(PathBuf::from(folder)).filter(|folder| has_programs(folder));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        // A link in the path leads to the folder where all programs of that version are.
        .filter_map(|folder| {
            fs::canonicalize(folder.join("postgres"))
                .ok()?
                .parent()
                .map(Path::to_path_buf)
        })
        .find(|folder| has_programs(folder))
        .or_else(|| newest(Path::new("/usr/lib/postgresql")))
        .or_else(|| newest(Path::new("/usr")))
}

/// The `bin` of the highest numbered folder in `parent` (`15`, or `pgsql-15`).
fn newest(parent: &Path) -> Option<PathBuf> {
    fs::read_dir(parent)
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let version: u32 = name.trim_start_matches("pgsql-").parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, bin)| has_programs(bin))
        .max()
        .map(|(_, bin)| bin)
}

fn has_programs(folder: &Path) -> bool {
    ["initdb", "postgres"]
        .iter()
        .all(|program| folder.join(program).is_file())
}
