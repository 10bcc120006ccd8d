//! The threads that serve clients: one runtime each, one task for each client, nothing shared on the path of a message
//! but the pools.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

use crate::backend::worker::Worker;
use crate::frontend::{self, Gate};
use crate::wire::stream::Stream;

/// Accepted connections that one worker may be behind with.
const BACKLOG: usize = 4096;

/// A connection on its way to its worker.
pub(super) enum Socket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

struct Thread {
    sockets: mpsc::Sender<Socket>,
    /// Connections that this worker has.
    load: Arc<AtomicUsize>,
    running: JoinHandle<()>,
}

/// All workers of a proxy.
pub(super) struct Workers(Vec<Thread>);

impl Workers {
    pub fn start(count: usize, gate: &Arc<Gate>) -> io::Result<Self> {
        let threads = (0..count.max(1))
            .map(|index| start_one(index, Arc::clone(gate)))
            .collect::<io::Result<_>>()?;
        Ok(Self(threads))
    }

    /// Hands a connection to the worker with the fewest; drops it where that one is hopelessly behind.
    pub fn hand_over(&self, socket: Socket) {
        let Some(thread) = self
            .0
            .iter()
            .min_by_key(|thread| thread.load.load(Ordering::Relaxed))
        else {
            return;
        };
        thread.load.fetch_add(1, Ordering::Relaxed);
        if thread.sockets.try_send(socket).is_err() {
            thread.load.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!("a new connection was dropped: its worker is too far behind");
        }
    }

    /// Ends the threads, whatever their clients do; blocks for a moment.
    pub fn stop(self) {
        for Thread {
            sockets, running, ..
        } in self.0
        {
            drop(sockets);
            if running.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

fn start_one(index: usize, gate: Arc<Gate>) -> io::Result<Thread> {
    let (sockets, mut accepted) = mpsc::channel(BACKLOG);
    let load = Arc::new(AtomicUsize::new(0));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let worker = Arc::new(Worker::new(index));
    let counter = Arc::clone(&load);
    let serve = async move {
        while let Some(socket) = accepted.recv().await {
            let counted = Counted(Arc::clone(&counter));
            match register(socket) {
                Ok(stream) => {
                    let (gate, worker) = (Arc::clone(&gate), Arc::clone(&worker));
                    // Sessions pause on their own: counting every read and write for them costs more than it gives.
                    tokio::spawn(tokio::task::unconstrained(async move {
                        frontend::serve(stream, gate, worker).await;
                        drop(counted);
                    }));
                }
                Err(error) => tracing::debug!(%error, "a new connection was already broken"),
            }
        }
    };
    let running = std::thread::Builder::new()
        // A statement is parsed where its session runs.
        .stack_size(crate::sql::STACK_BYTES)
        .name(format!("worker-{index}"))
        .spawn(move || runtime.block_on(serve))?;
    Ok(Thread {
        sockets,
        load,
        running,
    })
}

/// A connection that counts towards its worker's load until this is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn register(socket: Socket) -> io::Result<Stream> {
    match socket {
        Socket::Tcp(tcp) => {
            tcp.set_nonblocking(true)?;
            Stream::from_tcp(TcpStream::from_std(tcp)?)
        }
        Socket::Unix(unix) => {
            unix.set_nonblocking(true)?;
            Ok(Stream::Unix(UnixStream::from_std(unix)?))
        }
    }
}
