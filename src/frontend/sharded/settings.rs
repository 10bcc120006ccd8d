//! SET, RESET and their kin. PostgreSQL takes them or refuses them; afterwards a server says what is in force, and that
//! is brought to every server that the session borrows, as on a database of one shard ([`state`](crate::frontend)).
//!
//! What would surprise: in a transaction that no server has yet, a server of the authoritative shard takes the statement
//! on trial, so that the client gets PostgreSQL's error in its place; the shard of the transaction gets it later.

use std::sync::Arc;

use super::command::{changes_meaning, tag};
use super::{AUTHORITATIVE, Block, Path};
use crate::backend::replies::Expect;
use crate::backend::server::{Lost, Server};
use crate::backend::settings::{changes_reading, literal};
use crate::catalog::Catalog;
use crate::config::OnSessionState;
use crate::execute;
use crate::frontend::session::{Held, Session};
use crate::frontend::statements::Prepared;
use crate::frontend::transaction::{Step, Transaction};
use crate::frontend::trouble::{End, SessionError, Trouble};
use crate::planner::{Number, Refusal};
use crate::sql::scan::{Verb, verb};
use crate::sql::setting::Change;
use crate::sql::traces::{Traces, traces};
use crate::wire::channel::Channel;
use crate::wire::decode;
use crate::wire::encode;
use crate::wire::frame::{Frame, server_frames};

use super::extended::{give_back_or_stop, shape};

/// What statements mean under it, and the search_path as it is written. Nothing in it is looked for in the client's
/// search_path.
const MEANING: &[u8] = b"SELECT pg_catalog.current_setting('client_encoding'), \
pg_catalog.current_setting('standard_conforming_strings'), pg_catalog.current_setting('transform_null_equals'), \
pg_catalog.current_setting('role'), session_user, current_user, pg_catalog.current_setting('search_path'), EXISTS (SELECT FROM pg_catalog.pg_namespace \
WHERE NOT pg_catalog.has_schema_privilege(oid, 'USAGE') AND pg_catalog.lower(pg_catalog.translate(nspname::text, '\" ', '')) \
OPERATOR(pg_catalog.=) ANY (pg_catalog.string_to_array(pg_catalog.lower(pg_catalog.translate(\
pg_catalog.current_setting('search_path'), '\" ', '')), ',')))";

/// Its columns before the search_path. Behind it: whether PostgreSQL passes over one of its schemas, for the user has no
/// right to look into it.
const MEANINGS: usize = 6;

/// What the search_path is in the middle of a transaction, as a Parse message behind the name.
const SHOW_PATH: &[u8] = b"SHOW search_path\0\0\0";

/// It does not say what it is, so it cannot be brought along.
const UNTOLD: &str = "seed";

const SEARCH_PATH: &str = "search_path";

impl Session {
    /// The `search_path` that the session has chosen.
    pub(super) fn path(&self) -> Option<&str> {
        match &self.sharded.path {
            Path::Session | Path::Changes => self.settings.get(SEARCH_PATH),
            Path::Block(path) => Some(path),
        }
    }

    /// What brings another server to the search_path that the transaction has set.
    pub(super) fn path_of_block(&self) -> Option<Vec<u8>> {
        let Path::Block(path) = &self.sharded.path else {
            return None;
        };
        let mut text = b"SELECT pg_catalog.set_config('search_path',".to_vec();
        literal(&mut text, path);
        text.extend_from_slice(b",true)");
        Some(text)
    }

    /// To be called before a statement that changes settings is sent. `Some` is all of its answer; `alone`: there may be
    /// one, for the statement is a message by itself.
    pub(super) async fn before_change(
        &mut self,
        change: &Change,
        text: &[u8],
        alone: bool,
    ) -> Result<Option<Vec<u8>>, Trouble> {
        let nothing_set = match &self.transaction {
            Transaction::Begun(begun) => begun.sets().next().is_none(),
            _ => !self.is_in_block(),
        };
        if change.names.is_empty() && alone && nothing_set && self.is_as_it_came() {
            return Ok(Some(tag("RESET")));
        }
        if self.is_in_failed_block() {
            return Ok(None);
        }
        self.check_allowed_change(change)?;
        if change.names.iter().any(|name| changes_meaning(name)) {
            self.check_meaning(change, text).await?;
        }
        let moves_path = change.names.iter().any(|name| name == SEARCH_PATH);
        if alone
            && !change.resets
            && !moves_path
            && let Transaction::Begun(_) = &self.transaction
            && let Some(answer) = self.set_in_begun(change, text).await?
        {
            return Ok(Some(answer));
        }
        if change.resets || verb(text) == Verb::Select {
            self.stays("RESET or set_config")?;
        }
        let has_path = self.path().is_some() || self.is_in_block();
        let changes_path = moves_path || (change.names.is_empty() && has_path);
        if changes_path && !matches!(self.sharded.path, Path::Block(_)) {
            self.sharded.path = Path::Changes;
        }
        self.note_change(text);
        Ok(None)
    }

    /// To be called before a statement with more to do is bound.
    pub(super) async fn before_special(&mut self, prepared: &Prepared) -> Result<(), Trouble> {
        let shape = shape(prepared)?;
        if let Some(change) = &shape.change {
            self.before_change(change, prepared.text(), false).await?;
        }
        if shape.prepares {
            self.stays("PREPARE")?;
            self.note_change(prepared.text());
        }
        Ok(())
    }

    /// What is done now is on one server, and no other one could be told of it: the transaction stays there.
    pub(super) fn stays(&mut self, what: &'static str) -> Result<(), Refusal> {
        if self.is_spread() {
            return Err(Refusal::about(Number::StepsUntold, what));
        }
        if self.is_in_block() || !self.transaction.is_idle() {
            self.sharded.stays = Some(what);
        }
        Ok(())
    }

    fn check_allowed_change(&self, change: &Change) -> Result<(), Trouble> {
        if change.names.iter().any(|name| name == UNTOLD) {
            return Err(Refusal::about(Number::SessionSetting, UNTOLD).into());
        }
        if change.local {
            return Ok(());
        }
        match self.pool_settings.on_session_state {
            OnSessionState::Track => {}
            OnSessionState::Refuse => return Err(SessionError::NoSessionState("SET").into()),
            OnSessionState::Pin => {
                let what = "on_session_state = \"pin\" is for one shard";
                return Err(Refusal::about(Number::SessionSetting, what).into());
            }
        }
        if change.names.iter().any(|name| name.contains('.')) && self.is_full_of_custom_settings() {
            let what = "more custom settings than are brought along";
            return Err(Refusal::about(Number::SessionSetting, what).into());
        }
        Ok(())
    }

    /// Refuses what would change what statements mean. A search_path may change, for they are planned by it.
    async fn check_meaning(&mut self, change: &Change, text: &[u8]) -> Result<(), Trouble> {
        let before = match &self.transaction {
            Transaction::Begun(begun) => begun.prologue(),
            _ => Some(vec![b"BEGIN".to_vec()]),
        };
        let before = before.ok_or_else(|| Refusal::new(Number::StepsUntold))?;
        let (shown, _) = self.on_trial(&before, &[MEANING, text, MEANING]).await?;
        let mut rows = Vec::new();
        for frame in server_frames(&shown) {
            let Frame { tag, body, .. } = frame?;
            if tag == b'D' {
                rows.push(decode::data_row(body)?);
            }
        }
        let (Some(old), Some(new)) = (rows.first(), rows.last()) else {
            return Err(SessionError::Internal("a server does not say its settings").into());
        };
        let of = |row: &[Option<&[u8]>]| -> Vec<Option<Vec<u8>>> {
            row.iter().map(|value| value.map(<[u8]>::to_vec)).collect()
        };
        let (old, new) = (of(old), of(new));
        let readable = is_path_readable(&new);
        let moves = change.names.iter().any(|name| name == SEARCH_PATH);
        if old.get(..MEANINGS) != new.get(..MEANINGS) || (moves && !readable) {
            return Err(Refusal::about(Number::SessionSetting, change.names.join(", ")).into());
        }
        Ok(())
    }

    /// Takes it into the transaction that no server has, if PostgreSQL takes it. `None`: it changes what servers report
    /// to clients, so a server must have it now.
    pub(super) async fn set_in_begun(
        &mut self,
        change: &Change,
        text: &[u8],
    ) -> Result<Option<Vec<u8>>, Trouble> {
        let Transaction::Begun(begun) = &self.transaction else {
            return Ok(None);
        };
        let before = begun.prologue();
        let before = before.ok_or_else(|| Refusal::new(Number::StepsUntold))?;
        let (shown, reports) = self.on_trial(&before, &[text]).await?;
        if reports {
            return Ok(None);
        }
        if let Transaction::Begun(begun) = &mut self.transaction {
            let rereads = change.names.iter().any(|it| changes_reading(it.as_bytes()));
            let text = text.to_vec();
            begun.succeeds(if change.local {
                Step::Local { text, rereads }
            } else {
                Step::Set { text, rereads }
            });
        }
        Ok(Some(shown))
    }

    /// Runs these texts on the authoritative shard behind those `before`, and undoes it all. What they were answered, and
    /// whether parameters were reported. The first error of all is ours.
    async fn on_trial(
        &mut self,
        before: &[Vec<u8>],
        texts: &[&[u8]],
    ) -> Result<(Vec<u8>, bool), Trouble> {
        let (pool, mut server) = self.borrow_aside().await?;
        let nowhere = &mut Vec::new();
        server.replies.hidden_error = None;
        for text in before {
            server.send_query(text, Expect::HiddenQuery, nowhere);
        }
        for text in texts {
            server.send_query(text, Expect::Query, nowhere);
        }
        server.send_query(b"ROLLBACK", Expect::HiddenQuery, nowhere);
        let asked = self.ask_aside(&mut server).await;
        let hidden = server.replies.hidden_error.take();
        give_back_or_stop(&pool, server);
        let answer = asked?;
        if let Some(error) = hidden {
            return Err(Trouble::Relay(error));
        }
        let (mut shown, mut reports) = (Vec::new(), false);
        for frame in server_frames(&answer) {
            let Frame { tag, whole, .. } = frame?;
            match tag {
                // What comes before it is the client's where the text is.
                b'E' if texts.len() == 1 => {
                    shown.extend_from_slice(whole);
                    return Err(Trouble::Relay(shown));
                }
                b'E' => return Err(Trouble::Relay(whole.to_vec())),
                b'S' => reports = true,
                b'Z' => {}
                _ => shown.extend_from_slice(whole),
            }
        }
        Ok((shown, reports))
    }

    /// A server is about to get this text: it is asked what is in force once its transaction has ended.
    pub(super) fn note_change(&mut self, text: &[u8]) {
        if let Some(mut traces) = traces(text) {
            // Words in a value call nothing.
            traces.untold = None;
            self.note_on_shards(*traces);
        }
    }

    /// The same, of a statement whose functions may leave something.
    pub(super) fn note_uses(&mut self, text: &[u8]) -> Result<(), Refusal> {
        if let Some(traces) = self.uses(text) {
            if leaves_something(&traces) {
                self.stays("a function that may change settings")?;
            }
            self.note_on_shards(traces);
        }
        Ok(())
    }

    /// Refuses a statement for several shards whose functions may leave something: servers are not asked one by one.
    pub(super) fn check_leaves_nothing(&self, text: &[u8]) -> Result<(), Refusal> {
        match self.uses(text) {
            Some(traces) if leaves_something(&traces) => {
                let what = "a function that may change settings, over several shards";
                Err(Refusal::about(Number::SessionSetting, what))
            }
            _ => Ok(()),
        }
    }

    fn uses(&self, text: &[u8]) -> Option<Traces> {
        let leavers = &self.database.leavers;
        leavers.has_any().then(|| leavers.traces(text)).flatten()
    }

    fn note_on_shards(&mut self, mut traces: Traces) {
        traces.sequences = false;
        traces.named_by.clear();
        traces.listens.clear();
        self.note(&traces);
    }

    /// The transaction that no server had is about to begin on the server at hand.
    pub(super) fn note_begun(&mut self) {
        let Transaction::Begun(begun) = &self.transaction else {
            return;
        };
        let texts: Vec<Vec<u8>> = begun.sets().map(<[u8]>::to_vec).collect();
        for text in texts {
            self.note_change(&text);
        }
    }

    /// To be called with the server held, before a statement that was noted is sent.
    pub(super) fn before_noted(&mut self) {
        if std::mem::take(&mut self.rereads)
            && let Some(held) = &mut self.held
        {
            held.server.forgets_all();
        }
        self.mute_parameters();
    }

    /// Learns what the statements before have left, before another server is borrowed.
    pub(super) async fn read_due(&mut self) -> Result<(), Trouble> {
        match self.read_state().await {
            // The client was told that they were done.
            Err(Trouble::Lost(lost)) => Err(End::Bereft(lost).into()),
            read => read,
        }
    }

    /// What was set before decides how the next statement is planned, or described.
    pub(super) fn is_behind(&self) -> bool {
        let in_block = self.sharded.block == Block::Open;
        (self.is_to_ask() && !in_block) || !matches!(self.sharded.path, Path::Session)
    }

    /// Learns what is in force, where a statement is about to be planned.
    pub(super) async fn catch_up(&mut self) -> Result<(), Trouble> {
        let unsynced = |held: &Held| held.server.replies.unsynced();
        let in_block = self.sharded.block == Block::Open;
        if !in_block && self.held.as_ref().is_some_and(unsynced) {
            if !matches!(self.sharded.path, Path::Session) {
                let what = "search_path, and a statement behind it in the same pipeline";
                return Err(Refusal::about(Number::SessionSetting, what).into());
            }
            return Ok(());
        }
        self.settle().await?;
        if self.is_skipping() {
            return Err(Trouble::Skipped);
        }
        if self.must_ask() {
            self.read_due().await?;
        }
        if self.is_in_failed_block() {
            return Ok(());
        }
        self.sharded.path = match &mut self.held {
            // A savepoint may have undone what was set: who knows is asked each time.
            Some(held) if self.sharded.block == Block::Open => {
                Path::Block(path_in_block(&mut self.client, held).await?)
            }
            _ => Path::Session,
        };
        Ok(())
    }

    /// Whether a statement was planned under another search_path than is in force. PostgreSQL looks names up anew.
    pub(super) fn is_from_elsewhere(&self, prepared: &Prepared) -> Result<bool, Trouble> {
        Ok(shape(prepared)?.path.as_deref() != self.path())
    }

    pub(super) async fn planned_anew(
        &mut self,
        prepared: Arc<Prepared>,
    ) -> Result<Arc<Prepared>, Trouble> {
        let now = self.database.plan(&prepared.tail, self.path())?;
        let known = shape(&prepared)?.description.get();
        let Some(known) = known else {
            return Ok(now);
        };
        let found = self.describe(&now).await?;
        if known.parameter_types != found.parameter_types || !known.fits(&found.rows) {
            return Err(SessionError::ResultTypeChanged.into());
        }
        Ok(now)
    }

    /// Whether it may have a statement of PREPARE of this name, or any for none.
    pub(super) fn may_have_prepared(&self, name: &[u8]) -> bool {
        let mut names = self.settings.prepared().keys();
        self.is_to_ask() || names.any(|known| name.is_empty() || known.as_bytes() == name)
    }

    /// DISCARD ALL outside of a transaction.
    pub(super) fn discards_all(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        self.statements.clear();
        if self.is_as_it_came() {
            return Some(tag("DISCARD ALL"));
        }
        if self.path().is_some() {
            self.sharded.path = Path::Changes;
        }
        self.note_change(text);
        None
    }

    /// Where a command goes that no transaction holds to a shard.
    pub(super) fn shard_at_hand(&self) -> crate::names::ShardId {
        self.held.as_ref().map_or(AUTHORITATIVE, |held| held.shard)
    }
}

fn leaves_something(traces: &Traces) -> bool {
    traces.asks
        || traces.untold.is_some()
        || !(traces.custom.is_empty() && traces.resets.is_empty() && traces.rereads.is_empty())
}

/// Of the last columns of [`MEANING`].
fn is_path_readable(row: &[Option<Vec<u8>>]) -> bool {
    let [.., Some(path), Some(passed_over)] = row else {
        return false;
    };
    passed_over == b"f" && std::str::from_utf8(path).is_ok_and(Catalog::reads_path)
}

/// Whether statements can be planned under the search_path that is in force on this idle server.
pub(in crate::frontend) async fn has_readable_path(server: &mut Server) -> Result<bool, Lost> {
    server.send_query(MEANING, Expect::Query, &mut Vec::new());
    let answer = server.ask().await?;
    for frame in server_frames(&answer) {
        let Frame { tag, body, .. } = frame?;
        if tag == b'D' {
            let row = decode::data_row(body)?;
            let row: Vec<_> = row.iter().map(|value| value.map(<[u8]>::to_vec)).collect();
            return Ok(is_path_readable(&row));
        }
    }
    Ok(false)
}

/// The search_path in the middle of a transaction. In extended messages, for a Query would end a pipeline.
async fn path_in_block(client: &mut Channel, held: &mut Held) -> Result<Box<str>, Trouble> {
    let (server, nowhere) = (&mut held.server, &mut Vec::new());
    let in_pipeline = server.replies.unsynced();
    server.unnamed = None;
    let (portal, out) = (b"pgherd_path", server.outbox());
    encode::parse(out, b"", SHOW_PATH);
    encode::bind(out, portal, b"", &[0; 6]);
    encode::execute(out, portal, 0);
    encode::close_portal(out, portal);
    for expect in [
        Expect::HiddenParse(None),
        Expect::HiddenBind,
        Expect::Execute,
        Expect::HiddenClose,
    ] {
        server.replies.expect(expect, nowhere);
    }
    if in_pipeline {
        server.outbox().extend_from_slice(encode::FLUSH);
    } else {
        server.send(encode::SYNC, Expect::HiddenSync, nowhere);
    }
    let answer = execute::ask_watching(client, server).await?;
    for frame in server_frames(&answer) {
        let Frame { tag, body, .. } = frame?;
        if tag == b'D'
            && let Some(Some(path)) = decode::data_row(body)?.first()
        {
            let path = String::from_utf8_lossy(path);
            if Catalog::reads_path(&path) {
                return Ok(path.into());
            }
        }
    }
    Err(Refusal::about(Number::SessionSetting, SEARCH_PATH).into())
}
