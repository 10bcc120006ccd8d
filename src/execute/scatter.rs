//! One statement on several shards, rows concatenated in the order of the shards.
//!
//! Every shard works at the same time; their rows wait in the sockets until it is their turn. The first error in the
//! order of the shards ends it: what the others still say is not waited for: the caller ends them.

use super::{Broken, settle_watching};
use crate::backend::server::Server;
use crate::wire::channel::Channel;

/// What came of it.
#[derive(Debug)]
pub enum Part {
    /// All rows were sent; their number.
    Rows(u64),
    /// A shard's ErrorResponse, whole.
    Failed(Vec<u8>),
}

/// Runs what was put into the outboxes, each with an [`Expect::Part`](crate::backend::replies::Expect::Part) or an
/// [`Expect::PartExecute`](crate::backend::replies::Expect::PartExecute).
pub async fn scatter(client: &mut Channel, servers: &mut [&mut Server]) -> Result<Part, Broken> {
    std::future::poll_fn(|cx| {
        for server in servers.iter_mut() {
            server.replies.hidden_error = None;
            server.replies.part_rows = 0;
            server.replies.keep_errors = true;
            // What is not sent now goes when it is the server's turn.
            let _ = server.poll_flush(cx)?;
        }
        std::task::Poll::Ready(Ok::<_, Broken>(()))
    })
    .await?;
    let mut rows = 0;
    for server in servers.iter_mut() {
        settle_watching(client, server).await?;
        server.replies.keep_errors = false;
        if let Some(error) = server.replies.hidden_error.take() {
            return Ok(Part::Failed(error));
        }
        rows += server.replies.part_rows;
    }
    Ok(Part::Rows(rows))
}
