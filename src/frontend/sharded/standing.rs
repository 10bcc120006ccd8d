//! Where the session stands between its statements: which shard a statement goes to, given the transaction and the
//! pipeline that it is in.

use std::sync::Arc;

use super::{AUTHORITATIVE, Block, Path};
use crate::backend::replies::Expect;
use crate::execute;
use crate::frontend::session::{Held, Session};
use crate::frontend::transaction::{Begun, Transaction};
use crate::frontend::trouble::{SessionError, Trouble};
use crate::names::ShardId;
use crate::planner::{Effect, Number, Refusal, Target};
use crate::wire::decode::Status;
use crate::wire::encode;

/// Where one execution goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Shard(ShardId),
    Several(Several),
}

/// The shards of a scatter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Several {
    Some(Arc<[ShardId]>),
    Every,
}

impl Session {
    /// The held server is in a transaction that the client began and did not end.
    pub(super) fn is_in_block(&self) -> bool {
        self.sharded.block == Block::Open
    }

    /// The held server's transaction has failed: it refuses everything but its end. Unknown, and so `false`, where
    /// something was sent since it said so: that may be the ROLLBACK TO that ends the failure.
    pub(super) fn is_in_failed_block(&self) -> bool {
        self.is_in_block()
            && self.held.as_ref().is_some_and(|held| {
                let replies = &held.server.replies;
                replies.status == Status::Failed && replies.settled() && !replies.unsynced()
            })
    }

    /// The held server is lost. Whether it had, or was to begin, a transaction of the client's.
    pub(in crate::frontend) fn loses_block(&mut self) -> bool {
        self.rescue_parked(self.remains());
        std::mem::take(&mut self.sharded).block == Block::Open
    }

    /// Everything sent was answered: what is known of the transaction now is what the server says.
    pub(in crate::frontend) fn stands(&mut self, status: Status) {
        self.sharded.wrote = false;
        self.sharded.block = match status {
            Status::Idle => Block::None,
            Status::InTransaction | Status::Failed => Block::Open,
        };
        if status == Status::Idle {
            self.sharded.portals.clear();
            self.sharded.writer = None;
            self.sharded.stays = None;
            if self.sharded.begun != Begun::default() {
                self.sharded.begun = Begun::default();
            }
            if let Path::Block(_) = self.sharded.path {
                self.sharded.path = Path::Changes;
            }
            // Whatever ended it: the others of the transaction have nothing that must be kept.
            self.rescue_parked(self.remains());
        }
    }

    /// The place of a statement, or why it has none in this transaction. One that `shows` a setting asks for those of
    /// its transaction.
    pub(super) fn place(
        &self,
        target: Target,
        shows: bool,
        effect: Effect,
    ) -> Result<Place, Refusal> {
        if let (true, Some(held)) = (self.is_in_block(), &self.held) {
            let place = match target {
                _ if shows => Place::Shard(held.shard),
                Target::One(shard) => Place::Shard(shard),
                Target::Any => Place::Shard(held.shard),
                Target::Authoritative => Place::Shard(AUTHORITATIVE),
                Target::Some(shards) => Place::Several(Several::Some(shards)),
                Target::Every => Place::Several(Several::Every),
            };
            return match self.sharded.writer {
                Some(writer) if effect == Effect::Write && place != Place::Shard(writer) => {
                    Err(self.second_writer(&place, writer))
                }
                _ => Ok(place),
            };
        }
        let begun = !self.transaction.is_idle();
        match target {
            Target::One(shard) => Ok(Place::Shard(shard)),
            Target::Authoritative => Ok(Place::Shard(AUTHORITATIVE)),
            Target::Any if begun => Ok(Place::Shard(AUTHORITATIVE)),
            // The shard at hand, or one after the other.
            Target::Any => Ok(Place::Shard(match &self.held {
                Some(held) => held.shard,
                None => self.database.next_shard(),
            })),
            Target::Some(shards) => Ok(Place::Several(Several::Some(shards))),
            Target::Every => Ok(Place::Several(Several::Every)),
        }
    }

    fn second_writer(&self, place: &Place, writer: ShardId) -> Refusal {
        let needs = match place {
            Place::Shard(shard) => format!("shard {}", self.shard_name(*shard)),
            Place::Several(_) => "several shards".to_owned(),
        };
        let has = self.shard_name(writer);
        let what = format!("it would write on {needs}, the transaction has written on {has}");
        Refusal::about(Number::SecondShard, what)
    }

    pub(super) fn shard_name(&self, shard: ShardId) -> String {
        let shards = &self.database.config.shards;
        shards
            .get(shard.index())
            .map_or_else(|| shard.0.to_string(), |shard| shard.name.to_string())
    }

    /// Holds a server of this shard, in the transaction that the client began. Ends what was sent to another one,
    /// where nothing is lost by it.
    ///
    /// `Ok(false)`: that failed, the client was told, and the message at hand is ignored like all up to its Sync.
    pub(super) async fn stand_on(
        &mut self,
        shard: ShardId,
        effect: Effect,
    ) -> Result<bool, Trouble> {
        let joins = |held: &Held| held.shard != shard;
        if self.is_in_block() && self.held.as_ref().is_some_and(joins) {
            if !Box::pin(self.go_to(shard)).await? {
                return Ok(false);
            }
            self.writes(shard, effect)?;
            return Ok(true);
        }
        let begun = matches!(self.transaction, Transaction::Begun(_));
        if self
            .held
            .as_ref()
            .is_some_and(|held| held.shard != shard || begun)
            && !self.leave_shard(effect).await?
        {
            return Ok(false);
        }
        let fresh = self.held.is_none();
        self.hold(shard).await?;
        if fresh {
            self.note_begun();
        }
        self.before_noted();
        if fresh
            && let Transaction::Begun(begun) = &self.transaction
            && let Some(Held { server, .. }) = &mut self.held
        {
            let prologue = begun.prologue();
            let answers = self.client.outbox();
            for text in prologue.ok_or_else(|| Refusal::new(Number::StepsUntold))? {
                server.send_prologue(&text, answers);
            }
            if let Transaction::Begun(begun) = std::mem::take(&mut self.transaction) {
                self.sharded.begun = begun;
            }
            self.sharded.writer = None;
            self.sharded.block = Block::Open;
        }
        self.writes(shard, effect)?;
        Ok(true)
    }

    pub(super) fn writes(&mut self, shard: ShardId, effect: Effect) -> Result<(), Refusal> {
        if effect == Effect::Write {
            // Planned before, it cannot be another one; if it is, nothing must be committed on both.
            if let Some(writer) = self.sharded.writer
                && writer != shard
                && self.is_in_block()
            {
                return Err(self.second_writer(&Place::Shard(shard), writer));
            }
            self.sharded.wrote = true;
            self.sharded.writer = Some(shard);
        }
        Ok(())
    }

    /// Ends the held server's part of a pipeline, before another shard's begins. Statements that wrote must succeed or
    /// fail together, so there it is refused.
    pub(super) async fn leave_shard(&mut self, next: Effect) -> Result<bool, Trouble> {
        let wrote = self.sharded.wrote;
        if !self.settle_syncs().await? {
            return Ok(false);
        }
        self.check_not_failed()?;
        let Some(held) = &mut self.held else {
            return Ok(true);
        };
        if held.server.replies.unsynced() {
            if wrote || next == Effect::Write {
                return Err(Refusal::new(Number::PipelineOverShards).into());
            }
            let errors = held.server.replies.errors();
            held.server
                .send(encode::SYNC, Expect::HiddenSync, self.client.outbox());
            execute::settle(&mut self.client, &mut held.server).await?;
            if held.server.replies.errors() != errors {
                self.skipping = true;
            }
        }
        self.settle().await?;
        if self.is_in_failed_block() {
            // It was to end in a string of statements of which one has failed.
            return Err(SessionError::InFailedTransaction.into());
        }
        if self.must_ask() {
            Box::pin(self.read_due()).await?;
        }
        if self.held.is_some() {
            return Err(SessionError::Internal("the server cannot be given back").into());
        }
        Ok(!self.skipping)
    }
}
