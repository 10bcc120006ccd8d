//! Which server process a connection leads to, and asking it to cancel what it runs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::connect::{self, Encryption, ServerAddress};

/// How long a cancel request may take to reach its server.
const CANCEL_TIME_MAX: Duration = Duration::from_secs(10);

/// Where a CancelRequest for a server must go.
pub struct Identity {
    address: ServerAddress,
    encryption: Encryption,
    pid: i32,
    key: Vec<u8>,
    /// Cancel requests under way; the server serves nobody else until they arrived.
    cancels: AtomicU32,
    /// One was sent, and may still hit what is run next.
    doubtful: AtomicBool,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("address", &self.address)
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

impl Identity {
    pub(super) fn new(
        address: ServerAddress,
        encryption: Encryption,
        pid: i32,
        key: Vec<u8>,
    ) -> Arc<Self> {
        Arc::new(Self {
            address,
            encryption,
            pid,
            key,
            cancels: AtomicU32::new(0),
            doubtful: AtomicBool::new(false),
        })
    }

    /// Marks a cancel request as under way. The borrower calls it while the server is surely its own.
    #[must_use]
    pub fn begin_cancel(self: &Arc<Self>) -> Cancel {
        self.doubtful.store(true, Ordering::Release);
        self.cancels.fetch_add(1, Ordering::AcqRel);
        Cancel(Arc::clone(self))
    }

    /// A cancel request was sent since the last call of [`Identity::is_sure_again`].
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::Acquire)
    }

    /// To be called when no request is under way, before a statement is run that it may hit.
    pub fn is_sure_again(&self) {
        self.doubtful.store(false, Ordering::Release);
    }

    #[must_use]
    pub fn is_being_cancelled(&self) -> bool {
        self.cancels.load(Ordering::Acquire) > 0
    }

    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

/// A cancel request that is under way until this is dropped.
#[derive(Debug)]
pub struct Cancel(Arc<Identity>);

impl Cancel {
    /// Sends the request; when it returns, the server process has been signalled or never will be.
    pub async fn send(self) {
        let server = &self.0;
        let sent = connect::cancel(
            &server.address,
            &server.encryption,
            server.pid,
            &server.key,
            CANCEL_TIME_MAX,
        )
        .await;
        if let Err(error) = sent {
            tracing::warn!(%error, pid = server.pid, "a cancel request did not reach the server");
        }
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.cancels.fetch_sub(1, Ordering::AcqRel);
    }
}
