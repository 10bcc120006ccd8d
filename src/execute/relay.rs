//! Bytes from one server to one client, as they come: one read, one walk, one write. A client that does not take its
//! bytes stops the reading, so memory stays bounded by one read.

use std::io;
use std::task::{Context, Poll, ready};

use crate::backend::server::{Lost, Server};
use crate::backend::worker::with_scratch;
use crate::wire::channel::Channel;

/// Reads from one server before other clients are looked at.
const READS_MAX: usize = 16;

/// Requests that are received while another one is at work.
const AHEAD_BYTES_MAX: usize = 256 * 1024;

/// Which end of a relay broke.
#[derive(Debug)]
pub enum Broken {
    Client(io::Error),
    Server(Lost),
}

impl From<Lost> for Broken {
    fn from(lost: Lost) -> Self {
        Broken::Server(lost)
    }
}

/// Sends what waits for the server and passes its replies on. Ready as soon as nothing more is owed, or the rest was
/// reported as broken; pending while the server is silent or the client does not read.
pub fn poll_replies(
    cx: &mut Context<'_>,
    client: &mut Channel,
    server: &mut Server,
) -> Poll<Result<(), Broken>> {
    for _ in 0..READS_MAX {
        if server.has_unsent() {
            // Pending only means that the rest goes later; replies may come meanwhile.
            let _ = server.poll_flush(cx)?;
        }
        // Behind a Sync the server is sure to speak soon: what was answered before goes in one write with it.
        if client.has_unsent() && !(server.replies.syncing() && client.can_wait()) {
            ready!(client.poll_flush(cx)).map_err(Broken::Client)?;
        }
        let passed = with_scratch(|scratch| {
            let walked = ready!(server.poll_replies(cx, scratch, client.outbox()))?;
            let run = scratch.get(walked.run).unwrap_or_default();
            client.write_through(cx, run).map_err(Broken::Client)?;
            Poll::Ready(Ok::<_, Broken>(()))
        });
        ready!(passed)?;
        if server.replies.settled() {
            return Poll::Ready(Ok(()));
        }
    }
    // The others of this worker want their turn, too.
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Relays until the server owes nothing.
pub async fn settle(client: &mut Channel, server: &mut Server) -> Result<(), Broken> {
    std::future::poll_fn(|cx| {
        loop {
            if server.replies.settled() && !server.has_unsent() {
                return Poll::Ready(Ok(()));
            }
            if server.replies.settled() {
                ready!(server.poll_flush(cx))?;
            } else {
                ready!(poll_replies(cx, client, server))?;
            }
        }
    })
    .await
}

/// The same, and notices that the client has left; what it sends meanwhile is received.
pub async fn settle_watching(client: &mut Channel, server: &mut Server) -> Result<(), Broken> {
    std::future::poll_fn(|cx| {
        loop {
            if server.replies.settled() {
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(relayed) = poll_replies(cx, client, server) {
                relayed?;
            } else {
                ready!(poll_presence(cx, client)).map_err(Broken::Client)?;
            }
        }
    })
    .await
}

/// Sends what is in the server's outbox and gives all that it answers (see [`Server::ask`]); notices that the client
/// has left.
pub async fn ask_watching(client: &mut Channel, server: &mut Server) -> Result<Vec<u8>, Broken> {
    let mut ask = std::pin::pin!(server.ask());
    std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(answer) = ask.as_mut().poll(cx) {
                return Poll::Ready(answer.map_err(Broken::Server));
            }
            ready!(poll_presence(cx, client)).map_err(Broken::Client)?;
        }
    })
    .await
}

/// Ready with an error where the client is gone; ready without where it has sent something.
pub fn poll_presence(cx: &mut Context<'_>, client: &mut Channel) -> Poll<io::Result<()>> {
    if client.received().len() > AHEAD_BYTES_MAX {
        return Poll::Pending;
    }
    match ready!(with_scratch(|scratch| client.poll_receive(cx, scratch)))? {
        0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
        _ => Poll::Ready(Ok(())),
    }
}
