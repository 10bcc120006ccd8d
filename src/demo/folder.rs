//! The folder that holds a group of servers, and its end.
//!
//! Its owner holds a lock on the file `lock`; a folder whose lock can be had has lost its owner and is swept by the
//! next one who comes. A janitor, a small shell that waits for the end of its input, does the same at once when the
//! owner ends in whatever way: its input is a pipe from us.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::error::DemoError;
use super::programs::whoami;

const PREFIX: &str = "pgherd-";
/// More folders of one process than this means that something else is wrong.
const FOLDERS_MAX: u32 = 1000;
/// Ends every server below the folder `$1`, then removes it. Backends that are stopped must be woken to die, so the
/// children of each postmaster get the signal too; a postmaster that was killed has left its file behind, and its
/// process number may by now be somebody else's, so the command line must name our folder.
const CLEAN: &str = r#"
for file in "$1"/*/data/postmaster.pid; do
    [ -f "$file" ] || continue
    read -r pid < "$file"
    tr '\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null | grep -qF "$1/" || continue
    children=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null)
    kill -s QUIT $pid $children
    kill -s CONT $pid $children
    tries=0
    while kill -s 0 "$pid" && [ $tries -lt 30 ]; do tries=$((tries + 1)); sleep 0.1; done
    kill -s KILL $pid $children
done
rm -rf "$1"
"#;
const WAIT: &str = "trap '' INT TERM HUP QUIT; read -r word";

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    janitor: Child,
    /// Held, not read: the lock says that the owner lives.
    _lock: File,
}

impl Folder {
    /// Sweeps what dead owners left in the temporary folder, then makes `pgherd-<label>-<pid>`. `shared` opens it to
    /// the other user as whom the servers run.
    pub fn create(label: &str, shared: bool) -> Result<Folder, DemoError> {
        let parent = std::env::temp_dir();
        // Leftovers are an annoyance, not a reason not to start.
        let _ = sweep(&parent);
        let (path, lock) = make(&parent, label, shared)?;
        let janitor = Command::new("sh")
            .args(["-c", &format!("{WAIT}\n{CLEAN}"), "pgherd-janitor"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .map_err(|source| DemoError::CannotRun {
                program: "sh".to_owned(),
                source,
            })?;
        Ok(Folder {
            path,
            janitor,
            _lock: lock,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    /// `Child::wait` closes the janitor's input, which sets it to work, and waits until all is gone.
    fn drop(&mut self) {
        let _ = self.janitor.wait();
    }
}

fn make(parent: &Path, label: &str, shared: bool) -> Result<(PathBuf, File), DemoError> {
    let mut path = parent.to_path_buf();
    for number in 0..FOLDERS_MAX {
        path = parent.join(format!("{PREFIX}{label}-{}-{number}", std::process::id()));
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(failed("cannot create", &path, source)),
            Ok(()) => {
                let lock =
                    lock(&path, shared).map_err(|source| failed("cannot lock", &path, source))?;
                return Ok((path, lock));
            }
        }
    }
    Err(failed(
        "cannot create",
        &path,
        io::ErrorKind::AlreadyExists.into(),
    ))
}

/// The lock is taken before the file gets its name: nobody can see it free in between.
fn lock(path: &Path, shared: bool) -> io::Result<File> {
    fs::set_permissions(
        path,
        Permissions::from_mode(if shared { 0o711 } else { 0o700 }),
    )?;
    let unnamed = path.join("lock.new");
    let file = File::create(&unnamed)?;
    file.try_lock()?;
    fs::rename(unnamed, path.join("lock"))?;
    Ok(file)
}

/// Removes our own folders whose owner is gone, servers included.
fn sweep(parent: &Path) -> Result<(), DemoError> {
    let uid = whoami()?;
    let entries = fs::read_dir(parent).map_err(|source| failed("cannot read", parent, source))?;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if is_abandoned(&path, uid) {
            let mut clean = Command::new("sh");
            clean
                .args(["-c", CLEAN, "pgherd-sweep"])
                .arg(&path)
                .stdin(Stdio::null())
                .stderr(Stdio::null());
            let _ = clean.status();
        }
    }
    Ok(())
}

fn is_abandoned(path: &Path, uid: u32) -> bool {
    let ours = path
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
        && fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid);
    ours && File::open(path.join("lock")).is_ok_and(|file| file.try_lock().is_ok())
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> DemoError {
    DemoError::Folder {
        what,
        path: path.to_path_buf(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_abandoned_only_once_its_owner_has_let_go_of_the_lock() {
        let parent = std::env::temp_dir();
        let (path, lock) = make(&parent, "sweep", false).unwrap();
        let uid = whoami().unwrap();
        assert!(!is_abandoned(&path, uid), "its owner still holds the lock");
        assert!(
            !is_abandoned(&path, uid + 1),
            "somebody else's folder is never touched"
        );
        drop(lock);
        assert!(is_abandoned(&path, uid), "its owner is gone");
        sweep(&parent).unwrap();
        assert!(!path.exists(), "the sweep removes it");
    }
}
