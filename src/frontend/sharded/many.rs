//! Several statements in one query string. PostgreSQL runs them as one transaction, unless the string itself begins or
//! ends one.
//!
//! What is all for one shard goes there as it is. Otherwise the statements go one after the other, where nothing is
//! lost by it: outside of a transaction only if all of them read.

use super::plans::Work;
use super::simple::NO_TYPES;
use super::standing::Place;
use super::{AUTHORITATIVE, Block};
use crate::backend::replies::Expect;
use crate::backend::settings::changes_reading;
use crate::execute;
use crate::frontend::session::Session;
use crate::frontend::transaction::Begun;
use crate::frontend::trouble::{SessionError, Trouble};
use crate::names::ShardId;
use crate::planner::{Effect, Number, Plan, Refusal, Target};
use crate::sql::scan::{self, Verb, verb};
use crate::wire::encode;

use super::command::changes_meaning;
use super::extended::{shape, work};

/// One statement of a string.
enum Part<'a> {
    Statement {
        text: &'a [u8],
        target: Target,
        shows: bool,
        effect: Effect,
    },
    Begin(&'a [u8]),
    /// COMMIT or ROLLBACK.
    End,
    /// A savepoint, something that is set for the transaction, or a cursor.
    Step,
    Declare {
        target: Target,
        effect: Effect,
    },
}

impl Part<'_> {
    fn is_statement(&self) -> bool {
        matches!(self, Part::Statement { .. })
    }

    fn writes(&self) -> bool {
        let write = Effect::Write;
        matches!(self, Part::Statement { effect, .. } | Part::Declare { effect, .. } if *effect == write)
    }
}

impl Session {
    pub(super) async fn query_many(&mut self, message: &[u8], text: &[u8]) -> Result<(), Trouble> {
        let mut parts = Vec::new();
        for statement in scan::split(text, true) {
            parts.push(self.part(text.get(statement).unwrap_or_default()).await?);
        }
        let in_transaction = self.is_in_block() || !self.transaction.is_idle();
        if parts.iter().all(Part::is_statement) {
            return match self.only_shard(&parts) {
                Some(shard) => self.send_string(message, shard, &parts).await,
                None if in_transaction || !parts.iter().any(Part::writes) => {
                    self.run_one_by_one(&parts).await
                }
                None => Err(refusal("they write, and need several shards")),
            };
        }
        if !is_one_transaction(&parts, in_transaction) {
            return Err(refusal(
                "a transaction is begun or ended in the middle of the string",
            ));
        }
        let held = self.held.as_ref().map(|held| held.shard);
        match self.only_shard(&parts) {
            Some(_) if self.is_spread() => Err(refusal("the transaction is on several shards")),
            Some(shard) if self.is_in_block() && held != Some(shard) => {
                Err(refusal("the transaction is on another shard"))
            }
            Some(shard) => self.send_string(message, shard, &parts).await,
            None => Err(refusal("they need several shards")),
        }
    }

    async fn part<'t>(&mut self, text: &'t [u8]) -> Result<Part<'t>, Trouble> {
        // Nobody would ask the server what they have set.
        self.check_leaves_nothing(text)?;
        let statement = |session: &Session, plan: &Plan, shows| {
            Ok(Part::Statement {
                text,
                target: plan.target(session.database.placement()?, &())?,
                shows,
                effect: plan.effect,
            })
        };
        if let Some(plan) = self.database.plan_like(text, self.path())? {
            return statement(self, &plan, false);
        }
        let prepared = self
            .database
            .plan(&[text, NO_TYPES].concat(), self.path())?;
        match work(&prepared)? {
            Work::Plan(plan) if plan.must_fail => {
                self.describe(&prepared).await?;
                Err(SessionError::SchemaChanged.into())
            }
            Work::Plan(_) if shape(&prepared)?.is_special() => {
                Err(refusal("a command that pgherd does itself"))
            }
            Work::Plan(plan) if shape(&prepared)?.declares => Ok(Part::Declare {
                target: plan.target(self.database.placement()?, &())?,
                effect: plan.effect,
            }),
            Work::Plan(_) if prepared.text() != text => {
                Err(refusal("a command that pgherd does itself"))
            }
            Work::Plan(plan) => statement(self, plan, shape(&prepared)?.shows),
            _ => part_of_command(text),
        }
    }

    /// The one shard that all of them can run on.
    fn only_shard(&self, parts: &[Part<'_>]) -> Option<ShardId> {
        let held = self.held.as_ref().map(|held| held.shard);
        let begins = matches!(parts.first(), Some(Part::Begin(_)));
        let mut only = None;
        for part in parts {
            let (target, shows) = match part {
                Part::Statement { target, shows, .. } => (target, *shows),
                Part::Declare { target, .. } => (target, false),
                _ => continue,
            };
            let shard = match target {
                Target::Any => continue,
                // A setting as it is in the transaction.
                _ if shows && (held.is_some() || begins) => continue,
                Target::One(shard) => *shard,
                Target::Authoritative => AUTHORITATIVE,
                Target::Some(_) | Target::Every => return None,
            };
            if *only.get_or_insert(shard) != shard {
                return None;
            }
        }
        Some(only.or(held).unwrap_or(AUTHORITATIVE))
    }

    /// All of it to this shard, byte for byte.
    async fn send_string(
        &mut self,
        message: &[u8],
        shard: ShardId,
        parts: &[Part<'_>],
    ) -> Result<(), Trouble> {
        let effect = if parts.iter().any(Part::writes) {
            Effect::Write
        } else {
            Effect::Read
        };
        self.place(Target::One(shard), false, effect)?;
        if !self.stand_on(shard, effect).await? {
            return Ok(());
        }
        if let Some(Part::Begin(begin)) = parts.first() {
            self.sharded.begun = Begun::new(begin);
        }
        // Which of these will have succeeded is not known where one fails.
        let is_step = |part: &Part<'_>| matches!(part, Part::Step | Part::Declare { .. });
        if parts.iter().any(is_step) {
            self.sharded.stays = Some("savepoints, settings or cursors in a string of statements");
        }
        if let Some(held) = &mut self.held {
            held.server.unnamed = None;
            held.server.outbox().extend_from_slice(message);
        }
        self.expect(Expect::Query);
        match (parts.first(), parts.last()) {
            (_, Some(Part::End)) => self.sharded.block = Block::Ended,
            (Some(Part::Begin(_)), _) => self.sharded.block = Block::Open,
            _ => {}
        }
        Ok(())
    }

    /// Each where it belongs, up to the first error.
    async fn run_one_by_one(&mut self, parts: &[Part<'_>]) -> Result<(), Trouble> {
        for part in parts {
            let Part::Statement {
                text,
                target,
                shows,
                effect,
            } = part
            else {
                continue;
            };
            let mut message = Vec::new();
            encode::query(&mut message, text);
            match self.place(target.clone(), *shows, *effect)? {
                Place::Several(shards) => {
                    let rows = self.scatter_query(&shards, &message).await?;
                    encode::command_complete(self.client.outbox(), &format!("SELECT {rows}"));
                }
                Place::Shard(shard) => {
                    if !self.stand_on(shard, *effect).await? {
                        return Ok(());
                    }
                    if self.fails(&message).await? {
                        break;
                    }
                }
            }
        }
        self.ready();
        Ok(())
    }

    /// Runs one statement of a string on the held server. Whether it failed.
    async fn fails(&mut self, message: &[u8]) -> Result<bool, Trouble> {
        let Some(held) = &mut self.held else {
            return Err(SessionError::Internal("no server is held").into());
        };
        let server = &mut held.server;
        server.unnamed = None;
        let errors = server.replies.errors();
        server.send(message, Expect::QueryInString, self.client.outbox());
        execute::settle(&mut self.client, server).await?;
        let failed = server.replies.errors() != errors;
        self.settle().await?;
        Ok(failed)
    }
}

/// The commands of a transaction that a server may run without the session.
fn part_of_command(text: &[u8]) -> Result<Part<'_>, Trouble> {
    match verb(text) {
        Verb::Begin {
            well_formed: true, ..
        } => Ok(Part::Begin(text)),
        Verb::Commit {
            chain: false,
            well_formed: true,
        }
        | Verb::Rollback {
            chain: false,
            well_formed: true,
        } => Ok(Part::End),
        Verb::SetLocal { name }
            if changes_meaning(&String::from_utf8_lossy(&name)) || changes_reading(&name) =>
        {
            Err(refusal("what it sets changes how statements are read"))
        }
        Verb::Savepoint { .. }
        | Verb::Release { .. }
        | Verb::RollbackTo { .. }
        | Verb::Fetch
        | Verb::Move
        | Verb::Close
        | Verb::SetLocal { .. }
        | Verb::SetConstraints
        | Verb::SetTransaction {
            well_formed: true, ..
        } => Ok(Part::Step),
        _ => Err(refusal("a command that pgherd does itself")),
    }
}

/// Begins only at the beginning and ends only at the end, and does nothing outside of a transaction.
fn is_one_transaction(parts: &[Part<'_>], in_transaction: bool) -> bool {
    let begins = matches!(parts.first(), Some(Part::Begin(_)));
    let inner = parts.get(1..).unwrap_or_default();
    let mut inner = inner.iter().rev();
    begins != in_transaction
        && inner
            .next()
            .is_some_and(|last| !matches!(last, Part::Begin(_)))
        && inner.all(|part| !matches!(part, Part::Begin(_) | Part::End))
        && !matches!(parts.first(), Some(Part::End))
}

fn refusal(why: &str) -> Trouble {
    Refusal::about(Number::ManyStatements, why).into()
}
