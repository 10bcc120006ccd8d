//! Requests on a database of one shard: relayed without parsing. Only what would leave a trace in the server's session
//! is noticed, by the first word of a statement, and pins the session to its server.

use std::sync::Arc;

use bytes::Bytes;

use super::session::{Held, Session};
use super::sharded::rows_of;
use super::state::{DEALLOCATE_SCRAP, drops_statements};
use super::statements::Prepared;
use super::transaction::Transaction;
use super::trouble::{SessionError, Trouble};
use crate::backend::replies::{Alias, Description, Expect, description_in};
use crate::backend::server::{StatementName, statement_name};
use crate::config::{OnSessionState, PoolMode};
use crate::names::ShardId;
use crate::sql::explain;
use crate::sql::scan;
use crate::sql::scan::{Verb, verb};
use crate::sql::traces::{Traces, traces};
use crate::wire::decode::{self, Named};
use crate::wire::encode;
use crate::wire::frame::{Frame, FrameError, HEADER_BYTES, first_frame, server_header};

pub(super) const ONLY: ShardId = ShardId(0);

impl Session {
    pub(super) async fn take_single(&mut self, frame: Frame<'_>) -> Result<(), Trouble> {
        match frame.tag {
            // Even these wait for Sync when a pipeline has failed.
            b'Q' | b'F' if self.is_skipping() => Ok(()),
            b'Q' => match plan_asked(frame)? {
                Some(told) => Box::pin(self.query_single(framed(&told))).await,
                None => self.query_single(frame).await,
            },
            b'F' => {
                self.count_statement();
                if let Some(traces) = function_call_traces(frame.body) {
                    self.note(&traces);
                }
                let held = self.hold(ONLY).await?;
                held.server.pass_on(frame.whole);
                self.expect(Expect::Query);
                Ok(())
            }
            b'd' | b'c' | b'f' => {
                self.copy_message(frame);
                Ok(())
            }
            b'H' => {
                // The server says what it has so far; there is nothing to expect for the Flush itself.
                if let Some(held) = &mut self.held {
                    held.server.pass_on(frame.whole);
                }
                Ok(())
            }
            b'S' => {
                self.sync();
                Ok(())
            }
            _ if self.is_skipping() => Ok(()),
            b'P' => match plan_asked(frame)? {
                Some(told) => Box::pin(self.parse_single(framed(&told))).await,
                None => self.parse_single(frame).await,
            },
            b'B' => self.bind_single(frame).await,
            b'D' => self.describe_single(frame).await,
            b'C' => self.close(frame),
            _ => self.execute_single(frame),
        }
    }

    /// Refuses what the configuration does not allow on this pool.
    fn check_allowed(&self, text: &[u8]) -> Result<(), Trouble> {
        let settings = &self.pool_settings;
        if settings.mode == PoolMode::Statement && !scan::is_plain_query(text) {
            let begins = |range| {
                let statement = text.get(range).unwrap_or_default();
                matches!(verb(statement), Verb::Begin { .. })
            };
            if scan::split(text, true).into_iter().any(begins) {
                return Err(SessionError::NoTransactions.into());
            }
        }
        if settings.on_session_state == OnSessionState::Refuse
            && settings.mode != PoolMode::Session
            && let Some(what) = traces(text).and_then(|traces| traces.makes)
        {
            return Err(SessionError::NoSessionState(what).into());
        }
        Ok(())
    }

    /// The client was told of an error: extended messages are ignored until Sync, as the server does.
    pub(super) fn is_skipping(&self) -> bool {
        self.skipping
            || self
                .held
                .as_ref()
                .is_some_and(|held| held.server.replies.skipping())
    }

    pub(super) fn count_statement(&self) {
        self.database.metrics.statements.add(1);
    }

    /// Notes what the message just put into the outbox will be answered with.
    pub(super) fn expect(&mut self, expect: Expect) {
        match &mut self.held {
            Some(held) => held.server.replies.expect(expect, self.client.outbox()),
            None => {
                if let Expect::Answer(bytes) = expect {
                    self.client.outbox().extend_from_slice(&bytes);
                }
            }
        }
    }

    pub(super) fn answer_static(&mut self, bytes: &'static [u8]) {
        self.answer(Bytes::from_static(bytes));
    }

    /// An answer of our own, behind all that is still owed.
    pub(super) fn answer(&mut self, bytes: impl Into<Bytes>) {
        self.expect(Expect::Answer(bytes.into()));
    }

    async fn query_single(&mut self, frame: Frame<'_>) -> Result<(), Trouble> {
        let text = decode::query(frame.body)?;
        self.check_allowed(text)?;
        self.count_statement();
        self.overtakes();
        self.statements.drop_unnamed();
        if !self.transaction.is_idle() {
            return self.query_without_server(text);
        }
        if drops_statements(text) || (self.listening.is_some() && !scan::is_plain_query(text)) {
            // Only on a sound transaction.
            match self.settle().await {
                Err(Trouble::Lost(lost)) => self.server_lost(lost)?,
                settled => settled?,
            }
            if self.is_skipping() {
                return Ok(());
            }
            if !self.transaction.is_idle() {
                return self.query_without_server(text);
            }
        }
        let version = self.database.leavers.version();
        if self.notice_text(text) {
            let mut answer = Vec::new();
            let tag = match only_verb(text) {
                Verb::Discard(_) => "DISCARD ALL",
                Verb::Deallocate { name: None } => "DEALLOCATE ALL",
                _ => "DEALLOCATE",
            };
            encode::command_complete(&mut answer, tag);
            let status = self
                .held
                .as_ref()
                .map_or(decode::Status::Idle, |held| held.server.replies.status);
            encode::ready_for_query(&mut answer, status);
            self.answer(answer);
            return Ok(());
        }
        self.check_sequences()?;
        if self.may_listen() {
            Box::pin(self.listen_ahead(text)).await?;
        }
        self.hold(ONLY).await?;
        self.judge_again(text, version);
        let rereads = std::mem::take(&mut self.rereads);
        if let Some(held) = &mut self.held {
            if rereads {
                held.server.forgets_all();
            }
            held.server.unnamed = None;
        }
        self.forget_foreign_sequences();
        self.mute_parameters();
        if let Some(held) = &mut self.held {
            held.server.pass_on(frame.whole);
        }
        self.expect(Expect::Query);
        self.restore_startup();
        Ok(())
    }

    /// A Query while the transaction has no server: only its end is possible.
    pub(super) fn query_without_server(&mut self, text: &[u8]) -> Result<(), Trouble> {
        let tag = self.end_failed(text)?;
        encode::command_complete(self.client.outbox(), tag);
        let status = self.transaction.status();
        encode::ready_for_query(self.client.outbox(), status);
        Ok(())
    }

    /// Ends a failed transaction where `text` does; any other text is refused. Gives the tag.
    fn end_failed(&mut self, text: &[u8]) -> Result<&'static str, Trouble> {
        let verb = only_verb(text);
        if let Transaction::Failed { untold } = &mut self.transaction
            && !matches!(verb, Verb::Rollback { .. })
            && let Some(lost) = untold.take()
        {
            if matches!(verb, Verb::Commit { .. }) {
                self.transaction = Transaction::Idle;
            }
            return Err(Trouble::Tell(Box::new(lost)));
        }
        match verb {
            verb if ends_transaction(&verb) => {
                self.transaction = Transaction::Idle;
                Ok("ROLLBACK")
            }
            _ => Err(SessionError::InFailedTransaction.into()),
        }
    }

    pub(super) fn copy_message(&mut self, frame: Frame<'_>) {
        // Outside of a COPY the server would ignore them too.
        let Some(held) = &mut self.held else { return };
        held.server.pass_on(frame.whole);
        if frame.tag != b'd' {
            held.server.replies.copy_ended();
        }
    }

    pub(super) fn sync(&mut self) {
        if self.skipping || self.held.is_none() {
            self.skipping = false;
            let status = self.transaction.status();
            encode::ready_for_query(self.client.outbox(), status);
            return;
        }
        if let Some(held) = &mut self.held {
            held.server
                .send(encode::SYNC, Expect::Sync, self.client.outbox());
        }
        self.restore_startup();
    }

    async fn parse_single(&mut self, frame: Frame<'_>) -> Result<(), Trouble> {
        let parse = decode::parse(frame.body)?;
        self.check_allowed(parse.text)?;
        let mut tail = parse.tail;
        if self.refuses_without_server(parse.text)? {
            return Ok(());
        }
        if let Transaction::Failed { .. } = self.transaction {
            // Kept for its Bind: it can only be the end of the transaction.
        } else if scan::is_single(parse.text, true)
            && !self.is_in_failed_transaction()
            && self.deallocates_protocol_statement(parse.text).await?
        {
            tail = DEALLOCATE_SCRAP;
        }
        if self.listening.is_some() {
            Box::pin(self.parse_ahead(parse.text)).await?;
        }
        if std::mem::take(&mut self.rereads) {
            self.hold(ONLY).await?.server.forgets_all();
        }
        if parse.name.is_empty() {
            let id = self.database.interned.fresh_id();
            self.statements.set_unnamed(tail, id, traces(parse.text));
            if !self.transaction.is_idle() {
                self.answer_static(encode::PARSE_COMPLETE);
                return Ok(());
            }
            let held = self.hold_for_statement(b"").await?;
            held.server.unnamed = Some(id);
            encode::parse(held.server.outbox(), b"", tail);
            self.expect(Expect::Parse(Some(id)));
            return Ok(());
        }
        self.resolve_doubt(parse.name).await?;
        if self.statements.named(parse.name).is_some() {
            Box::pin(self.parse_in_vain(tail)).await?;
            return Err(SessionError::StatementExists(lossy(parse.name)).into());
        }
        let prepared = self.database.interned.get(tail);
        self.statements.add(parse.name, Arc::clone(&prepared));
        if !self.transaction.is_idle() || (self.held.is_none() && prepared.is_proven()) {
            self.answer_static(encode::PARSE_COMPLETE);
            return Ok(());
        }
        let held = self.hold_for_statement(parse.name).await?;
        if held.server.knows(prepared.id) {
            self.expect(Expect::KnownParse(prepared.id));
        } else {
            held.server.learns(prepared.id);
            encode::parse(held.server.outbox(), &statement_name(prepared.id), tail);
            self.expect(Expect::Parse(Some(prepared.id)));
        }
        Ok(())
    }

    /// Holds a server on which this statement of the client may be prepared: its Bind comes when the server is the
    /// session's already.
    async fn hold_for_statement(&mut self, name: &[u8]) -> Result<&mut Held, Trouble> {
        if let Some(traces) = self.statements.traces(name)
            && traces.sequences
        {
            let traces = traces.clone();
            self.note_sequences(&traces);
        }
        self.hold(ONLY).await?;
        self.forget_foreign_sequences();
        self.hold(ONLY).await
    }

    /// In a failed transaction without a server, every Parse is refused that does not end it.
    pub(super) fn refuses_without_server(&mut self, text: &[u8]) -> Result<bool, Trouble> {
        let Transaction::Failed { untold } = &mut self.transaction else {
            return Ok(false);
        };
        if let Some(lost) = untold.take() {
            return Err(Trouble::Tell(Box::new(lost)));
        }
        match only_verb(text) {
            verb if ends_transaction(&verb) => Ok(false),
            _ => Err(SessionError::InFailedTransaction.into()),
        }
    }

    /// A statement whose Parse or Close was not answered yet, and is behind a Sync: its failure would not skip what comes
    /// now, so it must be known before its name is used.
    pub(super) async fn resolve_doubt(&mut self, name: &[u8]) -> Result<(), Trouble> {
        let syncing = |held: &Held| held.server.replies.syncing();
        if self.statements.is_unconfirmed(name) && self.held.as_ref().is_some_and(syncing) {
            self.settle_or_skip().await?;
        }
        Ok(())
    }

    /// Waits for all answers. What comes behind an error is ignored up to the next Sync, and so is the message at hand.
    async fn settle_or_skip(&mut self) -> Result<(), Trouble> {
        self.settle_earlier().await?;
        if self.is_skipping() {
            return Err(Trouble::Skipped);
        }
        self.check_not_failed()
    }

    /// Makes sure that the server has this statement of the client, and gives its name there.
    async fn ensure_statement(&mut self, name: &[u8]) -> Result<StatementName, Trouble> {
        self.resolve_doubt(name).await?;
        self.hold(ONLY).await?;
        let held = self
            .held
            .as_mut()
            .ok_or(SessionError::Internal("no server is held"))?;
        let answers = self.client.outbox();
        if name.is_empty() {
            let (id, tail) = self
                .statements
                .unnamed()
                .ok_or(SessionError::NoUnnamedStatement)?;
            let promised = self.statements.unnamed_description();
            return Ok(held.server.ensure(id, tail, true, promised, answers));
        }
        let prepared = self
            .statements
            .named(name)
            .ok_or_else(|| SessionError::NoStatement(lossy(name)))?;
        let promised = self
            .statements
            .description(prepared, &self.settings, self.state.reread);
        if let Some(told) = promised
            && self.pinned.is_some()
            && !held.server.knows(prepared.id)
        {
            let prepared = Arc::clone(prepared);
            return Box::pin(self.prepare_as_told(&prepared, told)).await;
        }
        Ok(held
            .server
            .ensure(prepared.id, &prepared.tail, false, promised, answers))
    }

    /// Prepares a statement anew on a server that the session must not lose, and waits for what it is: it has to be what
    /// the client was told.
    async fn prepare_as_told(
        &mut self,
        prepared: &Prepared,
        told: Description,
    ) -> Result<StatementName, Trouble> {
        self.settle_or_skip().await?;
        let Held { server, .. } = self.hold(ONLY).await?;
        let end = if server.replies.unsynced() {
            encode::FLUSH
        } else {
            encode::SYNC
        };
        server.send_describe(prepared.id, &prepared.tail, end);
        let answer = server.ask().await?;
        if let Some(frame) = first_frame(&answer, server_header)?.filter(|it| it.tag == b'E') {
            // It cannot be prepared any more, for its table is gone.
            return Err(Trouble::Relay(frame.whole.to_vec()));
        }
        if description_in(&answer)? == Some(told) {
            return Ok(statement_name(prepared.id));
        }
        if server.knows(prepared.id) {
            server.unlearn(prepared.id);
        }
        Err(SessionError::ResultTypeChanged.into())
    }

    /// A statement that can only be the end of a failed transaction is answered here, message by message.
    fn text_without_server(&self, name: &[u8]) -> Option<Vec<u8>> {
        if self.transaction.is_idle() {
            return None;
        }
        self.statements.text(name).map(<[u8]>::to_vec)
    }

    async fn bind_single(&mut self, frame: Frame<'_>) -> Result<(), Trouble> {
        let names = decode::bind_names(frame.body)?;
        if let Some(text) = self.text_without_server(names.statement) {
            self.refuses_without_server(&text)?;
            self.answer_static(encode::BIND_COMPLETE);
            return Ok(());
        }
        self.overtakes();
        let mut dropped = None;
        let version = self.database.leavers.version();
        let own = self.statements.traces(names.statement);
        let touches = own.is_some() || self.database.leavers.has_any();
        if touches {
            let own = own.cloned().map(Box::new);
            let text = self.statements.text(names.statement).unwrap_or_default();
            if let Some(mut traces) = self.traces_of(text, own) {
                Self::name_settings(&mut traces, names.tail)?;
                self.note(&traces);
                if traces.drops && !self.is_in_failed_transaction() {
                    dropped = self.statements.text(names.statement).map(<[u8]>::to_vec);
                }
            }
        }
        if self.may_listen() {
            let text = self.statements.text(names.statement).map(<[u8]>::to_vec);
            Box::pin(self.listen_ahead(&text.unwrap_or_default())).await?;
        }
        self.check_sequences()?;
        self.hold(ONLY).await?;
        if self.database.leavers.version() != version {
            let text = self.statements.text(names.statement).map(<[u8]>::to_vec);
            self.judge_again(&text.unwrap_or_default(), version);
        }
        if touches {
            self.forget_foreign_sequences();
            self.mute_parameters();
        }
        let server_name = self.ensure_statement(names.statement).await?;
        let rereads = std::mem::take(&mut self.rereads);
        if let Some(held) = &mut self.held {
            if rereads {
                held.server.forgets_all();
            }
            if server_name.is_empty() {
                held.server.pass_on(frame.whole);
            } else {
                let out = held.server.outbox_for(frame.whole.len());
                encode::bind(out, names.portal, &server_name, names.tail);
            }
        }
        self.expect(Expect::Bind(Alias::new(names.statement)));
        if let Some(dropped) = dropped {
            self.drop_statements_by(&dropped);
        }
        Ok(())
    }

    async fn describe_single(&mut self, frame: Frame<'_>) -> Result<(), Trouble> {
        match decode::named(b'D', frame.body)? {
            _ if !self.transaction.is_idle() => self.answer_static(encode::NO_DATA),
            Named::Statement(name) => {
                self.hold(ONLY).await?;
                let server_name = self.ensure_statement(name).await?;
                if let Some(held) = &mut self.held {
                    encode::describe_statement(held.server.outbox(), &server_name);
                }
                self.expect(match self.statements.id(name) {
                    Some(id) => Expect::DescribeStatement(id),
                    None => Expect::Describe,
                });
            }
            Named::Portal(_) => {
                let held = self.hold(ONLY).await?;
                held.server.pass_on(frame.whole);
                self.expect(Expect::Describe);
            }
        }
        Ok(())
    }

    pub(super) fn close(&mut self, frame: Frame<'_>) -> Result<(), Trouble> {
        match decode::named(b'C', frame.body)? {
            Named::Statement(b"") => {
                self.statements.drop_unnamed();
                self.answer_static(encode::CLOSE_COMPLETE);
            }
            Named::Statement(name) => {
                // The server keeps it for whoever prepares the same text.
                if self.held.is_some() {
                    self.statements.close(name);
                    self.expect(Expect::KnownClose);
                } else {
                    self.statements.remove(name);
                    self.answer_static(encode::CLOSE_COMPLETE);
                }
            }
            Named::Portal(_) => match &mut self.held {
                Some(held) => {
                    held.server.pass_on(frame.whole);
                    self.expect(Expect::Close);
                }
                // Portals end with their transaction, and there is none.
                None => self.answer_static(encode::CLOSE_COMPLETE),
            },
        }
        Ok(())
    }

    fn execute_single(&mut self, frame: Frame<'_>) -> Result<(), Trouble> {
        let execute = decode::execute(frame.body)?;
        self.count_statement();
        if !self.transaction.is_idle() {
            self.transaction = Transaction::Idle;
            let mut answer = Vec::new();
            encode::command_complete(&mut answer, "ROLLBACK");
            self.answer(answer);
            return Ok(());
        }
        let Some(Held { server, .. }) = &mut self.held else {
            return Err(SessionError::NoPortal(lossy(execute.portal)).into());
        };
        server.pass_on(frame.whole);
        self.expect(Expect::Execute);
        Ok(())
    }
}

/// The message that is sent in the place of `EXPLAIN (PLAN)`, which PostgreSQL does not know.
fn plan_asked(frame: Frame<'_>) -> Result<Option<Vec<u8>>, FrameError> {
    let (text, name) = if frame.tag == b'Q' {
        (decode::query(frame.body)?, None)
    } else {
        let parse = decode::parse(frame.body)?;
        (parse.text, Some(parse.name))
    };
    if !explain::asks_for_plan(text) || !scan::is_single(text, true) {
        return Ok(None);
    }
    let told = rows_of(&["one shard, passed unread".to_owned()]);
    let mut message = Vec::new();
    match name {
        None => encode::query(&mut message, &told),
        Some(name) => encode::parse(&mut message, name, &[&told[..], b"\0\0\0"].concat()),
    }
    Ok(Some(message))
}

fn framed(message: &[u8]) -> Frame<'_> {
    Frame {
        tag: message.first().copied().unwrap_or_default(),
        body: message.get(HEADER_BYTES..).unwrap_or_default(),
        whole: message,
    }
}

/// FunctionCall names its function by a number only. Those of large objects, which drivers call so, leave nothing.
fn function_call_traces(body: &[u8]) -> Option<Traces> {
    const LARGE_OBJECTS: &[u32] = &[
        715, 764, 765, 767, 952, 953, 954, 955, 956, 957, 958, 964, 1004, 3170, 3171, 3172,
    ];
    let number = body.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    let harmless = number.is_some_and(|number| LARGE_OBJECTS.contains(&number));
    (!harmless).then(|| Traces {
        asks: true,
        untold: Some("a function called by its number"),
        ..Traces::default()
    })
}

/// The verb of a text that is one statement. Of nearly every text it is found without memory.
pub(super) fn only_verb(text: &[u8]) -> Verb<'_> {
    if scan::is_plain_query(text) {
        return verb(text);
    }
    if let Some(statement) = plainly_one(text) {
        return verb(statement);
    }
    match scan::split(text, true).as_slice() {
        [] => Verb::Empty,
        [one] => verb(text.get(one.clone()).unwrap_or_default()),
        _ => Verb::Other(text),
    }
}

/// A text whose first semicolon surely ends it, without that.
fn plainly_one(text: &[u8]) -> Option<&[u8]> {
    let Some(end) = memchr::memchr(b';', text) else {
        return Some(text);
    };
    let (statement, rest) = text.split_at_checked(end)?;
    let is_one =
        rest.get(1..)?.is_empty() && memchr::memchr3(b'\'', b'"', b'$', statement).is_none();
    is_one.then_some(statement)
}

fn ends_transaction(verb: &Verb<'_>) -> bool {
    matches!(
        verb,
        Verb::Commit {
            chain: false,
            well_formed: true
        } | Verb::Rollback {
            chain: false,
            well_formed: true
        }
    )
}

pub(super) fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
