//! A few threads for what a worker must not do itself: handshakes of TLS and the derivation of keys take longer than the
//! transactions of other clients may be kept waiting. The system shares the cores among all threads by slices of time,
//! so however many logins come at once, a worker goes on.
//!
//! Does not know what the work is. What would surprise: work that was asked for by somebody who no longer waits is
//! dropped at its next rest, so logins that were given up do not pile up.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinError, JoinHandle};

use super::stream::Stream;

/// Cheap to clone; the threads end with the last of them.
#[derive(Debug, Clone)]
pub struct Helpers(Option<Arc<Threads>>);

#[derive(Debug)]
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        // What still runs there serves nobody any more, and nobody can wait here.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Work of somebody who waits for it; dropped with them.
struct Awaited<T>(JoinHandle<T>);

impl<T> Drop for Awaited<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Helpers {
    /// # Errors
    /// The system's, when it gives no more threads.
    pub fn start(threads: usize) -> io::Result<Helpers> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("helper")
            .enable_all()
            .build()?;
        Ok(Helpers(Some(Arc::new(Threads(Some(runtime))))))
    }

    /// No threads of their own: the work is a task of the runtime where it is asked for. For who is not on a worker.
    #[must_use]
    pub fn none() -> Helpers {
        Helpers(None)
    }

    /// Waits for work that is done elsewhere.
    ///
    /// # Errors
    /// It has panicked, or the threads are ending.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, JoinError> {
        let threads = self.0.as_ref().and_then(|threads| threads.0.as_ref());
        let spawned = match threads {
            Some(runtime) => runtime.spawn(work),
            None => tokio::spawn(work),
        };
        let mut awaited = Awaited(spawned);
        (&mut awaited.0).await
    }

    /// Lets `handshake` make a TLS connection of a plain one, and brings it to the runtime that calls.
    ///
    /// # Errors
    /// Those of the handshake; the system's, when a connection cannot be watched elsewhere.
    pub(super) async fn shake_hands<F>(
        &self,
        tcp: TcpStream,
        handshake: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) -> io::Result<Stream>
    where
        F: Future<Output = io::Result<Stream>> + Send,
    {
        if self.0.is_none() {
            return handshake(tcp).await;
        }
        let tcp = tcp.into_std()?;
        let made = self.run(async move { handshake(TcpStream::from_std(tcp)?).await?.detach() });
        made.await.map_err(io::Error::other)??.attach()
    }
}
