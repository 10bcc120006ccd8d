//! Query messages: one statement each.

use super::extended::{shape, work};
use super::plans::Work;
use super::standing::Place;
use super::{AUTHORITATIVE, drift};
use crate::backend::replies::Expect;
use crate::frontend::session::Session;
use crate::frontend::transaction::Transaction;
use crate::frontend::trouble::{SessionError, Trouble};
use crate::names::ShardId;
use crate::planner::{Effect, Number, Plan, Refusal};
use crate::sql::scan;
use crate::wire::decode;
use crate::wire::encode;
use crate::wire::frame::Frame;

/// Behind the text in a Parse message without types: the zero and the count.
const NO_TYPES: &[u8] = b"\0\0\0";

impl Session {
    pub(super) async fn query_sharded(&mut self, frame: Frame<'_>) -> Result<(), Trouble> {
        let text = decode::query(frame.body)?;
        self.count_statement();
        self.statements.remove(b"");
        let unsynced = |session: &Self| {
            let held = session.held.as_ref();
            held.is_some_and(|held| held.server.replies.unsynced())
        };
        if !self.is_in_block() && unsynced(self) {
            self.leave_shard(Effect::Read).await?;
        }
        self.settle().await?;
        if self.is_skipping() {
            return Ok(());
        }
        if let Transaction::Failed { .. } = self.transaction {
            return self.query_without_server(text);
        }
        if self.is_in_failed_block() {
            // What follows the end of the transaction would run unplanned.
            if !scan::is_single(text, true) {
                return Err(Refusal::new(Number::ManyStatements).into());
            }
            return self.forward_query(frame, AUTHORITATIVE, Effect::Read).await;
        }
        if let Some(answer) = drift::shown(text, &self.database) {
            self.client.outbox().extend_from_slice(&answer);
            self.ready();
            return Ok(());
        }
        if let Some(plan) = self.database.plan_like(text)? {
            return self.run_simple(frame, &plan, false).await;
        }
        let prepared = self.database.plan(&[text, NO_TYPES].concat())?;
        match work(&prepared)? {
            Work::Empty => {
                self.client.outbox().extend_from_slice(encode::EMPTY_QUERY);
                self.ready();
                Ok(())
            }
            Work::Command => match self.command(prepared.text())? {
                Some(answer) => {
                    self.client.outbox().extend_from_slice(&answer);
                    self.ready();
                    Ok(())
                }
                None => self.forward_query(frame, AUTHORITATIVE, Effect::Read).await,
            },
            Work::Plan(plan) if plan.must_fail => {
                self.describe(&prepared).await?;
                Err(SessionError::SchemaChanged.into())
            }
            Work::Plan(plan) => self.run_simple(frame, plan, shape(&prepared)?.shows).await,
        }
    }

    async fn run_simple(
        &mut self,
        frame: Frame<'_>,
        plan: &Plan,
        shows: bool,
    ) -> Result<(), Trouble> {
        let target = plan.target(self.database.placement()?, &())?;
        match self.place(target, shows)? {
            Place::Shard(shard) => self.forward_query(frame, shard, plan.effect).await,
            Place::Several(shards) => {
                let rows = self.scatter_query(&shards, frame.whole).await?;
                encode::command_complete(self.client.outbox(), &format!("SELECT {rows}"));
                self.ready();
                Ok(())
            }
        }
    }

    /// To the held server, whichever it is, or to this shard.
    async fn forward_query(
        &mut self,
        frame: Frame<'_>,
        shard: ShardId,
        effect: Effect,
    ) -> Result<(), Trouble> {
        let shard = self.held.as_ref().map_or(shard, |held| held.shard);
        if !self.stand_on(shard, effect).await? {
            return Ok(());
        }
        if let Some(held) = &mut self.held {
            held.server.unnamed = None;
            held.server.outbox().extend_from_slice(frame.whole);
        }
        self.expect(Expect::Query);
        Ok(())
    }

    /// ReadyForQuery, where no server says it.
    fn ready(&mut self) {
        let status = self.held.as_ref().map_or_else(
            || self.transaction.status(),
            |held| held.server.replies.status,
        );
        encode::ready_for_query(self.client.outbox(), status);
    }
}
