//! A client that wants to replicate: it gets a server connection of its own, and from then on bytes are relayed both
//! ways unread until one side ends.
//!
//! No pool has part in it: a walsender works for one client and speaks a protocol of its own. What would surprise:
//! programs for physical replication name no database, which libpq turns into the name `replication`.

use std::sync::Arc;
use std::time::Duration;

use super::database::{Database, Gate};
use super::greeting::Refusal;
use super::trouble::SessionError;
use tokio::io::AsyncWriteExt;

use crate::backend::identity::Identity;
use crate::error::{Report, Severity};
use crate::execute::{self, Joined, Way};
use crate::names::{ShardId, UserName};
use crate::planner;
use crate::registry::Registered;
use crate::wire::encode;
use crate::wire::startup::{Parameters, Replication};
use crate::wire::stream::Stream;

/// The database that libpq's programs ask for where they mean the whole server.
const WHOLE_SERVER: &str = "replication";

/// How long a request to a server may take to stop its work for a client that has left.
const CANCEL_MAX: Duration = Duration::from_secs(2);

/// A client with its server.
pub(super) struct Link {
    pub database: Arc<Database>,
    pub entry: Registered,
    server: Stream,
    /// Kept for cancel requests, which find it through the registry.
    _identity: Arc<Identity>,
}

/// The database that a client means: where nobody has called one `replication`, a program that asks for the whole
/// server means the only one there is.
pub(super) async fn find(
    gate: &Gate,
    name: &str,
    replication: Replication,
    user: &UserName,
) -> Result<Arc<Database>, Box<dyn Report + Send + Sync>> {
    let means_all = replication == Replication::Physical && name == WHOLE_SERVER;
    if !means_all || gate.databases.of_file(name).is_some() {
        return gate.databases.find(name, user).await;
    }
    match gate.databases.only_single() {
        Some(only) => Ok(only),
        None => Err(Box::new(SessionError::WhichServer)),
    }
}

/// Logs in to the server of a database of one shard; gives what the client is told besides.
pub(super) async fn open(
    database: &Arc<Database>,
    entry: Registered,
    parameters: &Parameters,
) -> Result<(Vec<u8>, Link), Refusal> {
    if database.config.is_sharded() {
        let refusal = planner::Refusal::new(planner::Number::Replication);
        return Err(Refusal::Report(Box::new(refusal)));
    }
    let asked: Vec<_> = parameters
        .others()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let apart = database
        .pools
        .connect_apart(ShardId(0), &entry.user, &asked)
        .await
        .map_err(|error| {
            tracing::warn!(
                database = %database.config.name, user = %entry.user, %error,
                "a server refused a replication connection"
            );
            Refusal::Report(Box::new(error))
        })?;
    let mut out = Vec::with_capacity(1024);
    for (name, value) in &apart.reported {
        encode::parameter_status(&mut out, name, value);
    }
    encode::backend_key_data(&mut out, entry.pid, &entry.key);
    entry.borrowed(&apart.identity);
    let link = Link {
        database: Arc::clone(database),
        entry,
        server: apart.stream,
        _identity: apart.identity,
    };
    Ok((out, link))
}

impl Link {
    /// Relays until one side ends; first what the client has sent behind its login.
    pub async fn run(mut self, mut client: Stream, early: Vec<u8>) {
        let (database, pid) = (&self.database, self.entry.pid);
        let name = &database.config.name;
        tracing::info!(database = %name, user = %self.entry.user, client = pid, "a replication connection began");
        std::future::poll_fn(|cx| {
            self.entry.listen(cx.waker());
            std::task::Poll::Ready(())
        })
        .await;
        if !early.is_empty() {
            // A server that is gone is noticed below.
            let _ = self.server.write_all(&early).await;
        }
        let mut last_words = Vec::new();
        encode::error_with_severity(&mut last_words, &SessionError::Ended, Severity::Fatal);
        let joined = execute::join(
            &mut client,
            &mut self.server,
            || self.entry.is_asked_to_end(),
            |way, bytes| {
                match way {
                    Way::Up => &database.metrics.received_bytes,
                    Way::Down => &database.metrics.sent_bytes,
                }
                .add(bytes as u64);
            },
            &last_words,
        )
        .await;
        let end = match &joined {
            Joined::Server => "the server ended it",
            Joined::Client => "the client left",
            Joined::Broken(_) => "the connection of the client broke",
            Joined::Asked => "asked to end",
        };
        tracing::info!(database = %name, client = pid, end, "a replication connection ended");
        if !matches!(joined, Joined::Server) {
            // Nobody waits for the answer any more: the server shall not work for it.
            let _ = tokio::time::timeout(CANCEL_MAX, self.entry.cancel()).await;
        }
    }
}
