//! One statement on several shards.

use std::sync::Arc;

use super::extended::{described_rows, shape};
use super::plans::Description;
use super::standing::Several;
use crate::backend::pool::Pool;
use crate::backend::replies::Expect;
use crate::backend::rescue::Remains;
use crate::backend::server::Server;
use crate::execute::{self, Broken, Part};
use crate::frontend::session::Session;
use crate::frontend::statements::Prepared;
use crate::frontend::trouble::{End, SessionError, Trouble};
use crate::names::ShardId;
use crate::wire::encode;

type Borrowed = (Arc<Pool>, Box<Server>);

impl Session {
    /// Runs a Query message on several shards; gives the number of rows that the client got.
    pub(super) async fn scatter_query(
        &mut self,
        shards: &Several,
        message: &[u8],
    ) -> Result<u64, Trouble> {
        // In a box, as below: many servers are at work, and every client has room for what is not in one.
        Box::pin(self.scatter(shards, None, |server, first| {
            server.unnamed = None;
            server.send(message, Expect::Part { first }, &mut Vec::new());
        }))
        .await
    }

    /// Runs a bound statement on several shards; `tail` is its Bind without the names.
    pub(super) async fn scatter_bound(
        &mut self,
        shards: &Several,
        prepared: &Prepared,
        tail: &[u8],
    ) -> Result<u64, Trouble> {
        let described = shape(prepared)?.description.get();
        let is_fresh = self.sharded.described == Some(prepared.id);
        let doubted = described.filter(|_| !is_fresh);
        Box::pin(self.scatter(
            shards,
            doubted.map(|description| (prepared, description)),
            |server, _| {
                let nowhere = &mut Vec::new();
                let statement = server.ensure(prepared.id, &prepared.tail, false, None, nowhere);
                encode::bind(server.outbox(), b"", &statement, tail);
                server.replies.expect(Expect::HiddenBind, nowhere);
                encode::execute(server.outbox(), b"", 0);
                server.replies.expect(Expect::PartExecute, nowhere);
                server.send(encode::SYNC, Expect::HiddenSync, nowhere);
            },
        ))
        .await
    }

    /// `doubted`: a table may have changed since this statement was described.
    async fn scatter(
        &mut self,
        shards: &Several,
        doubted: Option<(&Prepared, &Description)>,
        put: impl Fn(&mut Server, bool),
    ) -> Result<u64, Trouble> {
        let mut borrowed = self.borrow_several(shards).await?;
        if let Some((prepared, description)) = doubted
            && let Err(trouble) = self
                .all_describe_the_same(&mut borrowed, prepared, description)
                .await
        {
            cut_short(borrowed);
            return Err(trouble);
        }
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
                let is_cut = |(_, server): &Borrowed| server.replies.is_mid_message();
                let cut = borrowed.iter().any(is_cut);
                cut_short(borrowed);
                Err(match broken {
                    Broken::Server(lost) if cut => End::Cut(lost).into(),
                    Broken::Server(lost) => Trouble::Tell(Box::new(lost)),
                    Broken::Client(error) => End::Broken(error).into(),
                })
            }
        }
    }

    async fn all_describe_the_same(
        &mut self,
        borrowed: &mut [Borrowed],
        prepared: &Prepared,
        description: &Description,
    ) -> Result<(), Trouble> {
        for (_, server) in borrowed {
            if server.knows(prepared.id) {
                continue;
            }
            server.send_describe(prepared.id, &prepared.tail, encode::SYNC);
            let answer = self.ask_aside(server).await?;
            match described_rows(&answer)? {
                Ok(rows) if description.fits(&rows) => {}
                Ok(_) => {
                    // Not idle any more, so this server is closed: the statement is not to be taken for the one that
                    // the client knows.
                    server.unlearn(prepared.id);
                    self.database.forget_statements();
                    return Err(SessionError::ResultTypeChanged.into());
                }
                Err(error) => return Err(Trouble::Relay(error)),
            }
        }
        Ok(())
    }

    /// A server of each shard, always in the order of the shards: so no two sessions wait for each other.
    async fn borrow_several(&mut self, shards: &Several) -> Result<Vec<Borrowed>, Trouble> {
        let every = &self.database.config.shards;
        let shards: Vec<ShardId> = match shards {
            Several::Some(shards) => shards.to_vec(),
            Several::Every => every.iter().map(|shard| shard.id).collect(),
        };
        let mut borrowed = Vec::with_capacity(shards.len());
        for shard in shards {
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
            pool.rescue(server, Remains::Nothing);
        }
    }
}
