//! Listening sockets, and accepting from them until told to stop.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, UnixListener, lookup_host};
use tokio::task::JoinHandle;

use super::workers::{Socket, Workers};
use crate::config::Listen;

const BACKLOG: u32 = 1024;
/// Pause after a failed accept: too many open files do not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a unix socket; removed when this is dropped.
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have tidied up before us.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Where it listens, as a person would write it.
    pub fn address(&self) -> String {
        match self {
            Listener::Tcp(tcp) => tcp
                .local_addr()
                .map_or_else(|_| "?".into(), |address| address.to_string()),
            Listener::Unix(_, file) => file.0.display().to_string(),
        }
    }
}

/// Binds all addresses of one `listen` entry.
pub(super) async fn bind(listen: &Listen) -> io::Result<Vec<Listener>> {
    match listen {
        Listen::Tcp { host, port } => {
            let host = if host == "*" { "0.0.0.0" } else { host };
            let mut listeners = Vec::new();
            for address in lookup_host((host, *port)).await? {
                let socket = if address.is_ipv4() {
                    TcpSocket::new_v4()?
                } else {
                    TcpSocket::new_v6()?
                };
                socket.set_reuseaddr(true)?;
                socket.bind(address)?;
                listeners.push(Listener::Tcp(socket.listen(BACKLOG)?));
            }
            Ok(listeners)
        }
        Listen::Unix { folder, port } => {
            Ok(vec![bind_unix(&folder.join(format!(".s.PGSQL.{port}")))?])
        }
    }
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    if path.exists() {
        // A file that nobody answers at is left over from a process that was killed.
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    Ok(Listener::Unix(listener, SocketFile(path.to_owned())))
}

/// Accepts until the task is aborted, which also closes the socket.
pub(super) fn accept(listener: Listener, workers: Arc<Workers>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let accepted = match &listener {
                Listener::Tcp(tcp) => tcp
                    .accept()
                    .await
                    .and_then(|(tcp, _)| tcp.into_std())
                    .map(Socket::Tcp),
                Listener::Unix(unix, _) => unix
                    .accept()
                    .await
                    .and_then(|(unix, _)| unix.into_std())
                    .map(Socket::Unix),
            };
            match accepted {
                Ok(socket) => workers.hand_over(socket),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}
