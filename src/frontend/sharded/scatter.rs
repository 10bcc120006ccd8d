//! One statement on every shard.

use std::sync::Arc;

use crate::backend::pool::Pool;
use crate::backend::replies::Expect;
use crate::backend::server::Server;
use crate::execute::{self, Broken, Part};
use crate::frontend::session::Session;
use crate::frontend::statements::Prepared;
use crate::frontend::trouble::{End, Trouble};
use crate::names::ShardId;
use crate::wire::encode;

type Borrowed = (Arc<Pool>, Box<Server>);

impl Session {
    /// Runs a Query message on every shard; gives the number of rows that the client got.
    pub(super) async fn scatter_query(&mut self, message: &[u8]) -> Result<u64, Trouble> {
        self.scatter(|server, first| {
            server.unnamed = None;
            server.send(message, Expect::Part { first }, &mut Vec::new());
        })
        .await
    }

    /// Runs a bound statement on every shard; `tail` is its Bind without the names.
    pub(super) async fn scatter_bound(
        &mut self,
        prepared: &Prepared,
        tail: &[u8],
    ) -> Result<u64, Trouble> {
        self.scatter(|server, _| {
            let nowhere = &mut Vec::new();
            let statement = server.ensure(prepared.id, &prepared.tail, false, nowhere);
            encode::bind(server.outbox(), b"", &statement, tail);
            server.replies.expect(Expect::HiddenBind, nowhere);
            encode::execute(server.outbox(), b"", 0);
            server.replies.expect(Expect::PartExecute, nowhere);
            server.send(encode::SYNC, Expect::HiddenSync, nowhere);
        })
        .await
    }

    async fn scatter(&mut self, put: impl Fn(&mut Server, bool)) -> Result<u64, Trouble> {
        let mut borrowed = self.borrow_every().await?;
        for (index, (_, server)) in borrowed.iter_mut().enumerate() {
            self.entry.borrowed(server.identity());
            put(server, index == 0);
        }
        let mut servers: Vec<&mut Server> = borrowed
            .iter_mut()
            .map(|(_, server)| &mut **server)
            .collect();
        let ended = execute::scatter(&mut self.client, &mut servers).await;
        self.entry.gave_back();
        for (_, server) in &mut borrowed {
            if std::mem::take(&mut server.replies.outdated_plan) {
                self.database.forget_statements();
            }
        }
        match ended {
            Ok(Part::Rows(rows)) => {
                give_back(borrowed);
                Ok(rows)
            }
            Ok(Part::Failed(error)) => {
                cut_short(borrowed);
                Err(Trouble::Relay(error))
            }
            Err(broken) => {
                cut_short(borrowed);
                Err(match broken {
                    Broken::Server(lost) => Trouble::Tell(Box::new(lost)),
                    Broken::Client(error) => End::Broken(error).into(),
                })
            }
        }
    }

    /// A server of each shard, always in the order of the shards: so no two sessions wait for each other.
    async fn borrow_every(&mut self) -> Result<Vec<Borrowed>, Trouble> {
        let mut borrowed = Vec::with_capacity(self.database.config.shards.len());
        for shard in self
            .database
            .config
            .shards
            .iter()
            .map(|shard| shard.id)
            .collect::<Vec<ShardId>>()
        {
            let pool = self.pool(shard)?;
            match self.borrow(&pool).await {
                Ok(server) => borrowed.push((pool, server)),
                Err(trouble) => {
                    give_back(borrowed);
                    return Err(trouble);
                }
            }
        }
        Ok(borrowed)
    }
}

/// The pool keeps those that are idle and closes the others.
fn give_back(borrowed: Vec<Borrowed>) {
    for (pool, server) in borrowed {
        pool.give_back(server);
    }
}

/// Nobody waits for the rest any more: servers that are still at work shall stop.
fn cut_short(borrowed: Vec<Borrowed>) {
    for (pool, server) in borrowed {
        if server.is_idle() {
            pool.give_back(server);
        } else {
            pool.abandon(server);
        }
    }
}
