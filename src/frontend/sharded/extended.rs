//! Extended protocol: Parse plans and describes, Bind routes, and each server gets the Parse it needs, unseen.

use std::sync::Arc;

use bytes::Bytes;

use super::command::only_statement;
use super::plans::{Description, Shape, Work};
use super::standing::{Place, Several};
use super::{Portal, Run};
use crate::backend::pool::Pool;
use crate::backend::replies::{Alias, Expect, StatementId};
use crate::backend::rescue::Remains;
use crate::backend::server::Server;
use crate::execute::{self, Broken};
use crate::frontend::session::{Held, Session};
use crate::frontend::single::lossy;
use crate::frontend::statements::Prepared;
use crate::frontend::transaction::Transaction;
use crate::frontend::trouble::{End, SessionError, Trouble};
use crate::names::ShardId;
use crate::planner::{Bound, Effect, Number, Parameters, Plan, Refusal, Target};
use crate::wire::decode::{self, Named, Parameter};
use crate::wire::encode;
use crate::wire::frame::{Frame, HEADER_BYTES, server_frames};

/// What the planner sees of a Bind.
struct BoundParameters<'a> {
    values: decode::Parameters<'a>,
    types: &'a [u32],
}

impl Parameters for BoundParameters<'_> {
    fn bound(&self, index: u16) -> Option<Bound<'_>> {
        let index = usize::from(index);
        let (bytes, binary) = match self.values.get(index)? {
            Parameter::Null => (None, false),
            Parameter::Text(bytes) => (Some(bytes), false),
            Parameter::Binary(bytes) => (Some(bytes), true),
        };
        Some(Bound {
            bytes,
            binary,
            type_oid: *self.types.get(index)?,
        })
    }
}

/// The shape of a statement; all of a sharded database have one.
pub(super) fn shape(prepared: &Prepared) -> Result<&Shape, Trouble> {
    prepared
        .shape()
        .ok_or_else(|| SessionError::Internal("a statement was not planned").into())
}

pub(super) fn work(prepared: &Prepared) -> Result<&Work, Trouble> {
    shape(prepared)?
        .work
        .as_ref()
        .map_err(|refusal| refusal.clone().into())
}

/// One that was borrowed aside.
pub(super) fn give_back_or_stop(pool: &Arc<Pool>, server: Box<Server>) {
    if server.is_idle() {
        pool.give_back(server);
    } else {
        pool.rescue(server, Remains::Nothing);
    }
}

impl Session {
    pub(super) async fn parse_sharded(&mut self, frame: Frame<'_>) -> Result<(), Trouble> {
        let parse = decode::parse(frame.body)?;
        self.resolve_doubt(parse.name).await?;
        if !parse.name.is_empty() && self.statements.named(parse.name).is_some() {
            return Err(SessionError::StatementExists(lossy(parse.name)).into());
        }
        if self.is_behind() {
            Box::pin(self.catch_up()).await?;
        }
        self.statements.remove(parse.name);
        let prepared = self.database.plan(parse.tail, self.path())?;
        if let Transaction::Failed { .. } = self.transaction {
            self.refuses_without_server(parse.text)?;
        } else if let Work::Plan(plan) = work(&prepared)? {
            self.describe(&prepared).await?;
            if plan.must_fail {
                return Err(SessionError::SchemaChanged.into());
            }
        }
        let id = prepared.id;
        self.statements.add(parse.name, prepared);
        self.expect_known_parse(id);
        Ok(())
    }

    /// A server of the authoritative shard that answers questions about statements and keeps nothing of them.
    pub(super) async fn borrow_aside(&mut self) -> Result<(Arc<Pool>, Box<Server>), Trouble> {
        let pool = self.database.pools.describing(&self.user);
        let pool = pool.ok_or(SessionError::Internal("no shard describes"))?;
        let server = self.borrow(&pool).await?;
        Ok((pool, server))
    }

    /// Asks a server that the session does not hold: a cancel request reaches it, and a client that leaves is noticed.
    pub(super) async fn ask_aside(&mut self, server: &mut Server) -> Result<Vec<u8>, Trouble> {
        self.entry.borrowed(server.identity());
        let asked = execute::ask_watching(&mut self.client, server).await;
        self.entry.gave_back_one(server.identity());
        asked.map_err(|broken| match broken {
            // An error like others: the session has lost nothing.
            Broken::Server(lost) => Trouble::Tell(Box::new(lost)),
            Broken::Client(error) => End::Broken(error).into(),
        })
    }

    /// How the authoritative shard describes a statement. An error of PostgreSQL is the answer to the Parse.
    pub(super) async fn describe<'p>(
        &mut self,
        prepared: &'p Prepared,
    ) -> Result<&'p Description, Trouble> {
        match shape(prepared)?.description.get() {
            Some(known) => Ok(known),
            None => Box::pin(self.describe_anew(prepared)).await,
        }
    }

    async fn describe_anew<'p>(
        &mut self,
        prepared: &'p Prepared,
    ) -> Result<&'p Description, Trouble> {
        let shape = shape(prepared)?;
        let (pool, mut server) = self.borrow_aside().await?;
        let nowhere = &mut Vec::new();
        server.unnamed = None;
        let in_block = self.path_of_block();
        if let Some(path) = &in_block {
            server.send_hidden_query(b"BEGIN");
            server.send_hidden_query(path);
        }
        encode::parse(server.outbox(), b"", &prepared.tail);
        server.replies.expect(Expect::Parse(None), nowhere);
        encode::describe_statement(server.outbox(), b"");
        server.replies.expect(Expect::Describe, nowhere);
        server.send(encode::SYNC, Expect::Sync, nowhere);
        if in_block.is_some() {
            server.send_hidden_query(b"ROLLBACK");
        }
        let asked = self.ask_aside(&mut server).await;
        give_back_or_stop(&pool, server);
        let answer = asked?;
        let description = description(&answer)?;
        for &(index, oid) in &shape.declared {
            if description.parameter_types.get(index) != Some(&oid) {
                let what = format!("parameter ${} of type {oid}", index + 1);
                return Err(Refusal::about(Number::ParameterType, what).into());
            }
        }
        self.sharded.described = Some(prepared.id);
        Ok(shape.description.get_or_init(|| description))
    }

    fn expect_known_parse(&mut self, id: StatementId) {
        match &mut self.held {
            Some(held) => {
                let answers = self.client.outbox();
                held.server.replies.expect(Expect::KnownParse(id), answers);
            }
            None => self
                .client
                .outbox()
                .extend_from_slice(encode::PARSE_COMPLETE),
        }
    }

    fn prepared(&self, name: &[u8]) -> Result<Arc<Prepared>, Trouble> {
        match self.statements.named(name) {
            Some(prepared) => Ok(Arc::clone(prepared)),
            None if name.is_empty() => Err(SessionError::NoUnnamedStatement.into()),
            None => Err(SessionError::NoStatement(lossy(name)).into()),
        }
    }

    pub(super) async fn bind_sharded(&mut self, frame: Frame<'_>) -> Result<(), Trouble> {
        let names = decode::bind_names(frame.body)?;
        self.resolve_doubt(names.statement).await?;
        if self.is_behind() {
            Box::pin(self.catch_up()).await?;
        }
        let mut prepared = self.prepared(names.statement)?;
        if self.is_from_elsewhere(&prepared)? {
            prepared = Box::pin(self.planned_anew(prepared)).await?;
        }
        if let Transaction::Failed { .. } = self.transaction {
            self.refuses_without_server(prepared.text())?;
        }
        // One that is on the server is the server's to refuse.
        let held = self.held.as_ref().map(|held| held.shard);
        let ours = |portal: &Portal| !portal.run.is_on(held);
        if !names.portal.is_empty() && self.sharded.portals.get(names.portal).is_some_and(ours) {
            return Err(SessionError::PortalExists(lossy(names.portal)).into());
        }
        let parameters = decode::bind_parameters(names.tail)?;
        let again = self.database.planned_again(&prepared)?;
        let run = match work(again.as_ref().unwrap_or(&prepared))? {
            Work::Plan(plan) if plan.must_fail && again.is_some() => {
                return Err(SessionError::SchemaChanged.into());
            }
            Work::Plan(plan) => match self.bind_plan(&prepared, plan, &names, parameters).await? {
                Some(run) => run,
                None => return Ok(()),
            },
            Work::Cursor => match Box::pin(self.bind_cursor(&prepared, &names)).await? {
                Some(run) => run,
                None => return Ok(()),
            },
            command_or_empty => {
                if !parameters.is_empty() {
                    return Err(SessionError::ParameterCount.into());
                }
                self.answer_static(encode::BIND_COMPLETE);
                match command_or_empty {
                    Work::Command => Run::Command,
                    _ => Run::Empty,
                }
            }
        };
        let portal = Portal {
            prepared,
            formats: self.sharded.portals.formats(parameters.result_formats),
            run,
        };
        self.sharded.portals.insert(names.portal, portal);
        Ok(())
    }

    /// Where a Bind goes with these values.
    fn place_of_bind(
        &self,
        prepared: &Prepared,
        plan: &Plan,
        names: &decode::BindNames<'_>,
        (values, description): (decode::Parameters<'_>, &Description),
    ) -> Result<Place, Trouble> {
        let types = &description.parameter_types;
        let target = if values.len() == types.len() {
            plan.target(
                self.database.placement()?,
                &BoundParameters { values, types },
            )?
        } else {
            // PostgreSQL has the words for it.
            Target::Authoritative
        };
        // A failed transaction takes nothing but its end, and says so itself.
        let place = match &self.held {
            Some(held) if self.is_in_failed_block() => Place::Shard(held.shard),
            _ => self.place(target, shape(prepared)?.shows, plan.effect)?,
        };
        let on = |portal: &Portal| matches!(portal.run, Run::On(on) | Run::Counts(on) if place != Place::Shard(on));
        if !names.portal.is_empty() && self.sharded.portals.get(names.portal).is_some_and(on) {
            return Err(SessionError::PortalExists(lossy(names.portal)).into());
        }
        Ok(place)
    }

    async fn bind_scatter(
        &mut self,
        plan: &Plan,
        shards: Several,
        names: &decode::BindNames<'_>,
    ) -> Result<Option<Run>, Trouble> {
        if !self.is_in_block() && !self.leave_shard(plan.effect).await? {
            return Ok(None);
        }
        self.answer_static(encode::BIND_COMPLETE);
        Ok(Some(Run::Scatter(shards, names.tail.to_vec())))
    }

    /// `None`: the client was told of an error that came first.
    async fn bind_plan(
        &mut self,
        prepared: &Prepared,
        plan: &Plan,
        names: &decode::BindNames<'_>,
        values: decode::Parameters<'_>,
    ) -> Result<Option<Run>, Trouble> {
        if shape(prepared)?.is_special() {
            Box::pin(self.before_special(prepared)).await?;
        }
        let description = match shape(prepared)?.description.get() {
            Some(known) => known,
            None => self.describe(prepared).await?,
        };
        let place = self.place_of_bind(prepared, plan, names, (values, description))?;
        match place {
            Place::Several(shards) => {
                self.check_leaves_nothing(prepared.text())?;
                Box::pin(self.bind_scatter(plan, shards, names)).await
            }
            Place::Shard(shard) => {
                let declares = shape(prepared)?.declares;
                if declares {
                    self.check_cursor(only_statement(prepared.text()), shard)?;
                }
                self.note_uses(prepared.text())?;
                // A failed transaction refuses it, so nothing is written.
                let effect = if self.is_in_failed_block() {
                    Effect::Read
                } else {
                    plan.effect
                };
                if !self.stand_on(shard, effect).await? {
                    return Ok(None);
                }
                let knows = |held: &Held| held.server.knows(prepared.id);
                let is_fresh = self.sharded.described == Some(prepared.id);
                let doubtful = !is_fresh && !self.held.as_ref().is_some_and(knows);
                if doubtful
                    && !Box::pin(self.describes_the_same(shard, prepared, description)).await?
                {
                    return Ok(None);
                }
                // Settled in between, it would count as one that has not written.
                self.writes(shard, effect)?;
                let unnamed = names.statement.is_empty() && is_fresh;
                self.bind_on_held(prepared, names, unnamed);
                Ok(Some(if declares {
                    Run::Counts(shard)
                } else if shape(prepared)?.explained == Some(true) {
                    Run::Explained(shard)
                } else {
                    Run::On(shard)
                }))
            }
        }
    }

    /// A table may have changed since a statement was described, and this server has not parsed it yet. `false`: the
    /// client was told of the server's error.
    async fn describes_the_same(
        &mut self,
        shard: ShardId,
        prepared: &Prepared,
        description: &Description,
    ) -> Result<bool, Trouble> {
        // An idle one has nothing to say, and the portals of the pipeline would be taken for ended.
        if !self.held.as_ref().is_some_and(|held| held.server.is_idle()) {
            self.settle_earlier().await?;
            if self.is_skipping() {
                return Ok(false);
            }
            self.check_not_failed()?;
        }
        // Settled, it may have been given back.
        self.hold(shard).await?;
        let Some(Held { server, .. }) = &mut self.held else {
            return Ok(false);
        };
        server.send_describe(prepared.id, &prepared.tail, encode::FLUSH);
        let answer = execute::ask_watching(&mut self.client, server).await?;
        match described_rows(&answer)? {
            Ok(rows) if description.fits(&rows) => Ok(true),
            Ok(_) => {
                server.unlearn(prepared.id);
                self.database.forget_statements();
                Err(SessionError::ResultTypeChanged.into())
            }
            Err(error) => {
                self.client.outbox().extend_from_slice(&error);
                Ok(false)
            }
        }
    }

    /// `unnamed`: what was described a moment ago and may never come again takes no place among the statements that
    /// the server keeps.
    fn bind_on_held(&mut self, prepared: &Prepared, names: &decode::BindNames<'_>, unnamed: bool) {
        let Some(held) = &mut self.held else { return };
        let answers = self.client.outbox();
        let statement = held
            .server
            .ensure(prepared.id, &prepared.tail, unnamed, None, answers);
        let out = held.server.outbox_for(names.tail.len());
        encode::bind(out, names.portal, &statement, names.tail);
        held.server
            .replies
            .expect(Expect::Bind(Alias::new(names.statement)), answers);
    }

    /// Describe of a statement.
    pub(super) async fn describe_sharded(&mut self, frame: Frame<'_>) -> Result<(), Trouble> {
        let name = match decode::named(b'D', frame.body)? {
            Named::Statement(name) => name,
            Named::Portal(name) => {
                let shard = self.describes_itself(name);
                let shard = shard.ok_or_else(|| SessionError::NoPortal(lossy(name)))?;
                return Box::pin(self.pass_to_portal(frame, shard, Expect::Describe)).await;
            }
        };
        self.resolve_doubt(name).await?;
        let prepared = self.prepared(name)?;
        let answer = match work(&prepared)? {
            Work::Plan(_) => self.describe(&prepared).await?.statement.clone(),
            Work::Cursor => return Box::pin(self.describe_cursor_statement(&prepared)).await,
            _ => Bytes::from_static(NOTHING),
        };
        self.answer(answer);
        Ok(())
    }

    /// Describe of a portal; `None` where it is of a statement, or a server must say it.
    pub(super) fn describe_portal(&mut self, frame: Frame<'_>) -> Option<Result<(), Trouble>> {
        let name = match decode::named(b'D', frame.body) {
            Ok(Named::Portal(name)) => name,
            Ok(Named::Statement(_)) => return None,
            Err(error) => return Some(Err(error.into())),
        };
        if self.describes_itself(name).is_some() {
            return None;
        }
        Some(self.portal_description(name).map(|it| self.answer(it)))
    }

    fn portal_description(&self, name: &[u8]) -> Result<Bytes, Trouble> {
        let portal = self.portal(name)?;
        match work(&portal.prepared)? {
            Work::Plan(_) => {
                let known = shape(&portal.prepared)?.description.get();
                let known = known.ok_or(SessionError::Internal("bound without description"))?;
                with_formats(&known.rows, &portal.formats)
            }
            _ => Ok(Bytes::from_static(encode::NO_DATA)),
        }
    }

    fn portal(&self, name: &[u8]) -> Result<&Portal, Trouble> {
        let portal = self.sharded.portals.get(name);
        portal.ok_or_else(|| SessionError::NoPortal(lossy(name)).into())
    }

    pub(super) fn close_sharded(&mut self, frame: Frame<'_>) -> Result<(), Trouble> {
        if let Named::Portal(name) = decode::named(b'C', frame.body)? {
            let held = self.held.as_ref().map(|held| held.shard);
            let shard = match self.sharded.portals.remove(name).map(|portal| portal.run) {
                Some(Run::On(shard) | Run::Counts(shard) | Run::Explained(shard)) => Some(shard),
                Some(_) => None,
                None => self.sharded.begun.cursor(name),
            };
            match shard {
                Some(shard) if held == Some(shard) => {}
                shard => {
                    if let Some(shard) = shard {
                        self.send_to_parked(shard, frame.whole, Expect::HiddenClose);
                    }
                    self.answer_static(encode::CLOSE_COMPLETE);
                    return Ok(());
                }
            }
        }
        self.close(frame)
    }

    /// Execute of a portal that is on the held server; `None` for all others.
    pub(super) fn execute_held(&mut self, frame: Frame<'_>) -> Option<Result<(), Trouble>> {
        let execute = decode::execute(frame.body).ok()?;
        let portal = self.sharded.portals.get(execute.portal)?;
        match portal.run {
            Run::On(shard) if self.held.as_ref().is_none_or(|held| held.shard == shard) => {}
            _ => return None,
        }
        self.count_statement();
        self.send_to_held(frame.whole, Expect::Execute);
        Some(Ok(()))
    }

    pub(super) fn send_to_held(&mut self, message: &[u8], expect: Expect) {
        if let Some(held) = &mut self.held {
            held.server.outbox().extend_from_slice(message);
        }
        self.expect(expect);
    }

    /// Execute of a portal that no server has yet, or another server of the transaction than the held one.
    pub(super) async fn execute_sharded(&mut self, frame: Frame<'_>) -> Result<(), Trouble> {
        let execute = decode::execute(frame.body)?;
        self.count_statement();
        let name = || lossy(execute.portal);
        let portal = self.sharded.portals.get_mut(execute.portal);
        if let (None, Some(shard)) = (&portal, self.sharded.begun.cursor(execute.portal)) {
            return Box::pin(self.pass_to_portal(frame, shard, Expect::Execute)).await;
        }
        let portal = portal.ok_or_else(|| SessionError::NoPortal(name()))?;
        let prepared = Arc::clone(&portal.prepared);
        if execute.rows_max > 0 && matches!(portal.run, Run::Scatter(..)) {
            return Err(Refusal::new(Number::PortalOverShards).into());
        }
        let after = match portal.run {
            Run::On(shard) | Run::Explained(shard) => Run::On(shard),
            Run::Counts(shard) => Run::Counts(shard),
            Run::Scatter(..) | Run::Drained => Run::Drained,
            Run::Command | Run::Done => Run::Done,
            Run::Empty => Run::Empty,
        };
        match std::mem::replace(&mut portal.run, after) {
            Run::Done => Err(SessionError::PortalDone(name()).into()),
            Run::Drained => {
                let mut answer = Vec::new();
                encode::command_complete(&mut answer, "SELECT 0");
                self.answer(answer);
                Ok(())
            }
            Run::On(shard) => Box::pin(self.pass_to_portal(frame, shard, Expect::Execute)).await,
            Run::Counts(shard) => Box::pin(self.execute_counted(frame, &prepared, shard)).await,
            Run::Explained(shard) => match work(&prepared)? {
                Work::Plan(plan) if self.shard_at_hand() == shard => {
                    Box::pin(self.explain_portal(frame.whole, plan)).await
                }
                _ => Box::pin(self.pass_to_portal(frame, shard, Expect::Execute)).await,
            },
            Run::Scatter(shards, _) if shape(&prepared)?.explained.is_some() => {
                Box::pin(self.explain_several(&shards, &prepared)).await?;
                encode::command_complete(self.client.outbox(), "EXPLAIN");
                Ok(())
            }
            Run::Scatter(shards, bind) => {
                // Statements between Bind and Execute may have moved the session.
                if !self.is_in_block() && !self.leave_shard(Effect::Read).await? {
                    return Ok(());
                }
                let rows = self.scatter_bound(&shards, &prepared, &bind).await?;
                encode::command_complete(self.client.outbox(), &format!("SELECT {rows}"));
                Ok(())
            }
            Run::Command => {
                if let Transaction::Failed { .. } = self.transaction {
                    self.transaction = Transaction::Idle;
                    let mut answer = Vec::new();
                    encode::command_complete(&mut answer, "ROLLBACK");
                    self.answer(answer);
                    return Ok(());
                }
                self.execute_command(prepared.text()).await
            }
            Run::Empty => {
                self.answer_static(encode::EMPTY_QUERY);
                Ok(())
            }
        }
    }
}

/// ParameterDescription without parameters, and NoData.
const NOTHING: &[u8] = b"t\0\0\0\x06\0\0n\0\0\0\x04";

/// Reads the answers to Parse, Describe and Sync.
fn description(answer: &[u8]) -> Result<Description, Trouble> {
    let (mut parameter_types, mut statement, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for frame in server_frames(answer) {
        let Frame { tag, body, whole } = frame?;
        match tag {
            b'E' => return Err(Trouble::Relay(whole.to_vec())),
            b't' => {
                parameter_types = decode::parameter_description(body)?;
                statement.extend_from_slice(whole);
            }
            b'T' | b'n' => {
                rows = whole.to_vec();
                statement.extend_from_slice(whole);
            }
            _ => {}
        }
    }
    if rows.is_empty() {
        return Err(SessionError::Internal("a statement was not described").into());
    }
    Ok(Description {
        parameter_types,
        statement: statement.into(),
        rows: rows.into(),
    })
}

/// The RowDescription or NoData among the answers to Parse and Describe, or the ErrorResponse.
pub(super) fn described_rows(answer: &[u8]) -> Result<Result<Bytes, Vec<u8>>, Trouble> {
    match description(answer) {
        Ok(description) => Ok(Ok(description.rows)),
        Err(Trouble::Relay(error)) => Ok(Err(error)),
        Err(trouble) => Err(trouble),
    }
}

/// A RowDescription of a statement as one of its portals, with the formats of its Bind: none, one for all, or one for
/// each column.
fn with_formats(rows: &Bytes, formats: &[u8]) -> Result<Bytes, Trouble> {
    // As it was described, all is text.
    if rows.first() != Some(&b'T') || formats.iter().all(|&byte| byte == 0) {
        return Ok(rows.clone());
    }
    let mut rows = rows.to_vec();
    let mut columns = Vec::new();
    decode::row_description(rows.get(HEADER_BYTES..).unwrap_or_default(), |at| {
        columns.push(HEADER_BYTES + at + 16);
    })?;
    for (index, at) in columns.into_iter().enumerate() {
        let format = match formats.len() {
            0 => &[0, 0],
            2 => formats,
            _ => formats.get(index * 2..index * 2 + 2).unwrap_or(&[0, 0]),
        };
        if let Some(place) = rows.get_mut(at..at + 2) {
            place.copy_from_slice(format);
        }
    }
    Ok(rows.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two columns without names and zeros for all that is said of them.
    fn rows(formats: [u8; 2]) -> Vec<u8> {
        let column = |format| [&[0u8; 18][..], &[format]].concat();
        let body = [&[0, 2][..], &column(formats[0]), &column(formats[1])].concat();
        let length = u32::try_from(body.len() + 4).unwrap();
        [&b"T"[..], &length.to_be_bytes(), &body].concat()
    }

    #[test]
    fn a_portal_is_described_with_the_formats_of_its_bind() {
        for (formats, expected) in [
            (&b""[..], [0, 0]),
            (b"\0\x01", [1, 1]),
            (b"\0\0\0\x01", [0, 1]),
        ] {
            assert_eq!(
                with_formats(&rows([0, 0]).into(), formats).unwrap(),
                rows(expected)
            );
        }
        assert_eq!(
            with_formats(&Bytes::from_static(encode::NO_DATA), b"\0\x01").unwrap(),
            encode::NO_DATA
        );
    }
}
