//! A server whose client is gone, or has run out of time, and that may still be at work for it: the work is cancelled,
//! what is still said is drained, the transaction rolled back, and the server given back to its pool. Where any of this
//! does not succeed in time, the connection is closed.

use std::io;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use super::pool::Pool;
use super::replies::Expect;
use super::server::{Lost, Server};
use super::worker::with_scratch;
use crate::config::PoolSettings;
use crate::wire::encode;

/// A server that needs longer is not worth waiting for: a new connection costs less.
const RESCUE_TIME_MAX: Duration = Duration::from_secs(10);

/// A late cancel request may still hit the first ROLLBACK.
const ROLLBACKS_MAX: usize = 2;

/// What the client may have left in the server's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// Nothing but its transaction.
    Nothing,
    /// Settings, temporary tables, locks: all is discarded.
    State,
    /// It had the server to itself: the reset query is run.
    Session,
}

impl Pool {
    /// Takes a server back in whatever state. Runs in the background, on this runtime.
    pub fn rescue(self: &Arc<Self>, server: Box<Server>, remains: Remains) {
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            let mut server = server;
            let cleaned = clean(&mut server, remains, pool.settings());
            if matches!(
                tokio::time::timeout(RESCUE_TIME_MAX, cleaned).await,
                Ok(true)
            ) {
                pool.give_back(server);
            }
        });
    }
}

impl Pool {
    /// Takes a server back whose transaction has only read, and is to be committed. Runs in the background: whatever
    /// comes of it, nothing is lost.
    pub fn commit_and_take_back(self: &Arc<Self>, mut server: Box<Server>) {
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            let committed = async {
                drain(&mut server).await?;
                server.replies.forget_client();
                server.run_hidden(b"COMMIT").await
            };
            if let Ok(Ok(_)) = tokio::time::timeout(RESCUE_TIME_MAX, committed).await {
                pool.give_back(server);
            }
        });
    }
}

/// Cancels what a server is at work on, and drains what it still says. Its transaction is open as before, or failed.
///
/// # Errors
/// It is gone, or does not come to an end.
pub async fn interrupt(server: &mut Server) -> Result<(), Lost> {
    if !server.replies.settled() || server.has_unsent() {
        let cancel = server.identity().begin_cancel();
        let drained = async { tokio::join!(drain(server), cancel.send()).0 };
        match tokio::time::timeout(RESCUE_TIME_MAX, drained).await {
            Ok(drained) => drained?,
            Err(_) => return Err(Lost::Io(io::ErrorKind::TimedOut.into())),
        }
    }
    server.replies.forget_client();
    Ok(())
}

async fn clean(server: &mut Server, remains: Remains, settings: &PoolSettings) -> bool {
    if !server.replies.settled() {
        let cancel = server.identity().begin_cancel();
        // By the time the request has been delivered the statement is over, one way or the other.
        let (drained, ()) = tokio::join!(drain(server), cancel.send());
        if drained.is_err() {
            return false;
        }
    } else if drain(server).await.is_err() {
        return false;
    }
    server.replies.forget_client();
    for _ in 0..ROLLBACKS_MAX {
        if server.is_idle() {
            break;
        }
        if server.run_hidden(b"ROLLBACK").await.is_err() {
            return false;
        }
    }
    server.is_idle()
        && match remains {
            Remains::Nothing => true,
            Remains::State => server.discard_all().await,
            Remains::Session => server.reset(settings).await,
        }
}

/// Ends what was begun (COPY, a pipeline without its Sync), and reads until nothing is owed.
async fn drain(server: &mut Server) -> Result<(), Lost> {
    let nowhere = &mut Vec::new();
    std::future::poll_fn(|cx| {
        loop {
            if server.replies.copying_in() {
                encode::copy_fail(server.outbox(), "the client has left");
                server.replies.copy_ended();
            }
            if server.replies.unsynced() && !server.replies.copying_in() {
                server.send(encode::SYNC, Expect::HiddenSync, nowhere);
            }
            let sent = server.poll_flush(cx)?;
            if server.replies.settled() {
                ready!(sent);
                return Poll::Ready(Ok(()));
            }
            ready!(with_scratch(
                |scratch| server.poll_replies(cx, scratch, nowhere)
            ))?;
            nowhere.clear();
        }
    })
    .await
}
