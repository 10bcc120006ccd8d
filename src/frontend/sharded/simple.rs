//! Query messages of one statement.

use super::command::only_statement;
use super::extended::{shape, work};
use super::plans::Work;
use super::spread::Message;
use super::standing::{Place, Several};
use super::{AUTHORITATIVE, drift};
use crate::backend::replies::Expect;
use crate::frontend::session::Session;
use crate::frontend::statements::Prepared;
use crate::frontend::transaction::Transaction;
use crate::frontend::trouble::{SessionError, Trouble};
use crate::names::ShardId;
use crate::planner::{Effect, Number, Plan, Refusal};
use crate::sql::scan;
use crate::wire::decode;
use crate::wire::encode;
use crate::wire::frame::Frame;

/// Behind the text in a Parse message without types: the zero and the count.
pub(super) const NO_TYPES: &[u8] = b"\0\0\0";

impl Session {
    pub(super) async fn query_sharded(&mut self, frame: Frame<'_>) -> Result<(), Trouble> {
        let text = decode::query(frame.body)?;
        // Alone it takes less room in the future than the frame, which is in there several times.
        let message = frame.whole;
        self.count_statement();
        self.statements.remove(b"");
        let unsynced = |session: &Self| {
            let held = session.held.as_ref();
            held.is_some_and(|held| held.server.replies.unsynced())
        };
        if !self.is_in_block() && unsynced(self) {
            self.leave_shard(Effect::Read).await?;
        }
        self.settle_earlier().await?;
        if self.is_skipping() {
            return Ok(());
        }
        if self.is_behind() {
            Box::pin(self.catch_up()).await?;
        }
        if let Transaction::Failed { .. } = self.transaction {
            return self.query_without_server(text);
        }
        if self.is_in_failed_block() {
            // What follows the end of the transaction would run unplanned.
            if !scan::is_single(text, true) {
                return Err(Refusal::new(Number::ManyStatements).into());
            }
            return Box::pin(self.command_inside(Message::Query(message), text)).await;
        }
        if let Some(answer) = drift::shown(text, &self.database) {
            self.client.outbox().extend_from_slice(&answer);
            self.ready();
            return Ok(());
        }
        if let Some(plan) = self.database.plan_like(text, self.path())? {
            return self.run_simple(message, &plan, false).await;
        }
        if !scan::is_single(text, true) {
            return Box::pin(self.query_many(message, text)).await;
        }
        Box::pin(self.query_prepared(message, text)).await
    }

    /// One of which no template is known.
    async fn query_prepared(&mut self, message: &[u8], text: &[u8]) -> Result<(), Trouble> {
        let tail = [text, NO_TYPES].concat();
        let prepared = self.database.plan(&tail, self.path())?;
        drop(tail);
        if prepared.text() != text {
            return Box::pin(self.query_rewritten(&prepared)).await;
        }
        match work(&prepared)? {
            Work::Empty => {
                self.client.outbox().extend_from_slice(encode::EMPTY_QUERY);
                self.ready();
                Ok(())
            }
            Work::Command if self.asks_before(text) => {
                Box::pin(self.query_asking(message, text)).await
            }
            Work::Command => match self.command(text)? {
                Some(answer) => {
                    self.client.outbox().extend_from_slice(&answer);
                    self.ready();
                    Ok(())
                }
                None if self.is_in_block() => {
                    self.command_inside(Message::Query(message), prepared.text())
                        .await
                }
                None => {
                    let shard = self.held.as_ref().map_or(AUTHORITATIVE, |held| held.shard);
                    self.forward_query(message, shard, Effect::Read).await
                }
            },
            Work::Plan(plan) if plan.must_fail => {
                self.describe(&prepared).await?;
                Err(SessionError::SchemaChanged.into())
            }
            Work::Plan(plan) if shape(&prepared)?.declares => {
                let target = plan.target(self.database.placement()?, &())?;
                let declares = match self.place(target, false, plan.effect)? {
                    Place::Shard(shard) => Some((shard, plan.effect)),
                    Place::Several(_) => return Err(Refusal::new(Number::Cursor).into()),
                };
                let statement = only_statement(prepared.text());
                self.note_uses(statement)?;
                Box::pin(self.query_cursor(message, statement, declares)).await
            }
            Work::Plan(plan) if shape(&prepared)?.is_special() => {
                Box::pin(self.query_special(message, plan, &prepared)).await
            }
            Work::Plan(plan) => {
                self.run_simple(message, plan, shape(&prepared)?.shows)
                    .await
            }
            Work::Cursor => {
                let statement = only_statement(prepared.text());
                Box::pin(self.query_cursor(message, statement, None)).await
            }
        }
    }

    async fn query_asking(&mut self, message: &[u8], text: &[u8]) -> Result<(), Trouble> {
        match self.command_asking(text).await? {
            Some(answer) => {
                self.client.outbox().extend_from_slice(&answer);
                self.ready();
                Ok(())
            }
            None if self.is_in_block() => {
                self.before_noted();
                self.command_inside(Message::Query(message), text).await?;
                self.restore_startup();
                Ok(())
            }
            None => {
                let shard = self.shard_at_hand();
                self.forward_query(message, shard, Effect::Read).await
            }
        }
    }

    /// EXPLAIN, and what leaves something in the session.
    async fn query_special(
        &mut self,
        message: &[u8],
        plan: &Plan,
        prepared: &Prepared,
    ) -> Result<(), Trouble> {
        let shape = shape(prepared)?;
        if shape.explained.is_some() {
            return self.query_explained(message, plan, prepared).await;
        }
        if let Some(change) = &shape.change
            && let Some(answer) = self.before_change(change, prepared.text(), true).await?
        {
            self.client.outbox().extend_from_slice(&answer);
            self.ready();
            return Ok(());
        }
        if shape.prepares {
            self.stays("PREPARE")?;
            self.note_change(prepared.text());
        }
        self.run_simple(message, plan, shape.shows).await
    }

    /// One that is not sent as the client wrote it.
    async fn query_rewritten(&mut self, prepared: &Prepared) -> Result<(), Trouble> {
        let mut whole = Vec::new();
        encode::query(&mut whole, prepared.text());
        match work(prepared)? {
            Work::Plan(plan) => self.run_simple(&whole, plan, false).await,
            _ => Err(SessionError::Internal("only a plan is told").into()),
        }
    }

    async fn query_explained(
        &mut self,
        message: &[u8],
        plan: &Plan,
        prepared: &Prepared,
    ) -> Result<(), Trouble> {
        let target = plan.target(self.database.placement()?, &())?;
        // It runs where it is analyzed.
        self.note_uses(prepared.text())?;
        match self.place(target, false, plan.effect)? {
            Place::Shard(shard) if shape(prepared)?.explained == Some(true) => {
                if !self.stand_on(shard, plan.effect).await? {
                    return Ok(());
                }
                self.explain_simple(message, plan).await
            }
            Place::Shard(shard) => self.forward_query(message, shard, plan.effect).await,
            Place::Several(shards) => {
                self.describe(prepared).await?;
                encode::text_column(self.client.outbox(), "QUERY PLAN");
                self.explain_several(&shards, prepared).await?;
                encode::command_complete(self.client.outbox(), "EXPLAIN");
                self.ready();
                Ok(())
            }
        }
    }

    async fn run_simple(
        &mut self,
        message: &[u8],
        plan: &Plan,
        shows: bool,
    ) -> Result<(), Trouble> {
        match self.place_of(plan, shows)? {
            Place::Shard(shard) => {
                self.note_uses(message)?;
                self.forward_query(message, shard, plan.effect).await
            }
            Place::Several(shards) => Box::pin(self.run_scatter(message, shards)).await,
        }
    }

    fn place_of(&self, plan: &Plan, shows: bool) -> Result<Place, Trouble> {
        let target = plan.target(self.database.placement()?, &())?;
        Ok(self.place(target, shows, plan.effect)?)
    }

    async fn run_scatter(&mut self, message: &[u8], shards: Several) -> Result<(), Trouble> {
        self.check_leaves_nothing(message)?;
        let rows = self.scatter_query(&shards, message).await?;
        encode::command_complete(self.client.outbox(), &format!("SELECT {rows}"));
        self.ready();
        Ok(())
    }

    async fn forward_query(
        &mut self,
        message: &[u8],
        shard: ShardId,
        effect: Effect,
    ) -> Result<(), Trouble> {
        if !self.stand_on(shard, effect).await? {
            return Ok(());
        }
        if let Some(held) = &mut self.held {
            held.server.unnamed = None;
            held.server.outbox().extend_from_slice(message);
        }
        self.expect(Expect::Query);
        self.restore_startup();
        Ok(())
    }

    /// ReadyForQuery, where no server says it.
    pub(super) fn ready(&mut self) {
        let status = self.held.as_ref().map_or_else(
            || self.transaction.status(),
            |held| held.server.replies.status,
        );
        encode::ready_for_query(self.client.outbox(), status);
    }
}
