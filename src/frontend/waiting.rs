//! A client that waits for a server, or for what it was to listen to: what may end the waiting, and what it is told
//! meanwhile.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::trouble::{End, SessionError, Trouble};
use crate::backend::pool::PoolError;
use crate::backend::worker::Timer;
use crate::error::{Severity, SqlState};
use crate::execute;
use crate::registry::{Phase, Registered};
use crate::wire::channel::Channel;
use crate::wire::encode;

/// How a client waits.
pub(super) struct Patience {
    /// Nothing has begun that could be finished, so our own end ends the waiting, too.
    pub may_end: bool,
    /// Who waits for so long is told that it does.
    pub notice_after: Option<Duration>,
}

/// A cancel request of the client ends the waiting, and so does its leaving.
pub(super) async fn watching<T>(
    entry: &Registered,
    client: &mut Channel,
    patience: Patience,
    mut work: impl Future<Output = Result<T, PoolError>> + Unpin,
) -> Result<T, Trouble> {
    let mut waits = false;
    let mut notice = None;
    let done = std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(done) = Pin::new(&mut work).poll(cx) {
                return Poll::Ready(done.map_err(Trouble::from));
            }
            if !waits {
                waits = true;
                entry.waits(true);
                entry.does(Phase::Waiting);
                notice = patience.notice_after.map(Timer::new);
            }
            if entry.is_cancelled() {
                return Poll::Ready(Err(SessionError::Cancelled.into()));
            }
            if patience.may_end && entry.is_asked_to_end() {
                return Poll::Ready(Err(End::Asked.into()));
            }
            if let Some(due) = &mut notice
                && due.poll(cx).is_ready()
            {
                notice = None;
                tell_that_it_waits(cx, client);
            }
            if let Err(error) = ready!(execute::poll_presence(cx, client)) {
                return Poll::Ready(Err(End::Broken(error).into()));
            }
        }
    })
    .await;
    if waits {
        entry.waits(false);
        if patience.may_end {
            // No server has begun a transaction: its time begins now.
            entry.does(Phase::Idle);
        }
        entry.does(Phase::Query);
    }
    done
}

fn tell_that_it_waits(cx: &mut Context<'_>, client: &mut Channel) {
    let text = "waiting for a server connection: all of them are in use";
    encode::notice(
        client.outbox(),
        Severity::Notice,
        SqlState::SUCCESSFUL,
        text,
    );
    // What cannot be sent now goes with the answer.
    let _ = client.poll_flush(cx);
}
