//! Listening sockets, and accepting from them until told to stop.

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, lookup_host};
use tokio::task::JoinHandle;

use super::workers::Workers;
use crate::config::Listen;
use crate::wire::socket;
use crate::wire::stream::Stream;

const BACKLOG: u32 = 1024;
/// Pause after a failed accept: too many open files do not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Not watched by anybody yet.
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
                // Before the first connection can inherit from it.
                socket::tune(&SockRef::from(&socket))?;
                listeners.push(Listener::Tcp(socket.listen(BACKLOG)?.into_std()?));
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
        if UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    let file = SocketFile(path.to_owned());
    Ok(Listener::Unix(listener, file))
}

/// A listener that a worker watches.
enum Watched {
    Tcp(tokio::net::TcpListener),
    Unix {
        unix: tokio::net::UnixListener,
        _file: SocketFile,
    },
}

impl Watched {
    fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(tcp) => Watched::Tcp(tokio::net::TcpListener::from_std(tcp)?),
            Listener::Unix(unix, file) => Watched::Unix {
                unix: tokio::net::UnixListener::from_std(unix)?,
                _file: file,
            },
        })
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Watched::Tcp(tcp) => Stream::accepted(tcp.accept().await?.0),
            Watched::Unix { unix, .. } => Ok(Stream::Unix(unix.accept().await?.0)),
        }
    }
}

/// Accepts until the task is aborted, which also closes the socket. The first worker does it: what it keeps for itself,
/// and with one worker that is all, needs no other thread and no second registration.
pub(super) fn accept(listener: Listener, workers: Arc<Workers>) -> JoinHandle<()> {
    let first = workers.first();
    first.spawn(async move {
        let listener = match Watched::new(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "a listening socket cannot be watched");
                return;
            }
        };
        loop {
            match listener.accept().await {
                Ok(stream) => workers.hand_over(stream),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}
