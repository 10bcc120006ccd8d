//! Session state that follows the client from server to server in transaction mode, and what cannot follow.
//!
//! A text that may have touched the state ([`sql::traces`](crate::sql::traces)) makes the session ask, once its
//! transaction has ended, what is in force: the server itself says which settings outlived the transaction, rolled back
//! or not, and what else is there. Settings are brought to the next server; anything else (temporary objects, locks,
//! prepared statements of SQL) pins the session to this server until it is gone. What would surprise: RESET means the
//! client's own start-up value, which no server knows, so it is set right behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::session::{Held, SESSION_MODE, Session};
use super::single::{ONLY, only_verb};
use super::trouble::{End, SessionError, Trouble};
use crate::backend::replies::Expect;
use crate::backend::rescue::Remains;
use crate::backend::server::Lost;
use crate::backend::settings::{Settings, changes_reading, literal};
use crate::config::OnSessionState;
use crate::error::{Severity, SqlState};
use crate::sql::scan;
use crate::sql::scan::{Discard, Verb, verb};
use crate::sql::traces::{Traces, traces, words_leave};
use crate::wire::decode::{self, Parameter};
use crate::wire::encode;
use crate::wire::frame::{Frame, FrameError, server_frames};

/// A statement that is there to be deallocated, and the Parse message that does it, behind its name.
const SCRAP: &[u8] = b"pgherd_scrap";
pub(super) const DEALLOCATE_SCRAP: &[u8] = b"DEALLOCATE pgherd_scrap\0\0\0";

/// Times that the server is asked, since a late cancel request may hit the question.
const TRIES_MAX: usize = 3;

/// Custom settings of one session that are followed; with more it keeps its server.
const CUSTOM_MAX: usize = 256;

/// A statement of PREPARE that would mean something else elsewhere.
const PREPARED: &str = "PREPARE";

/// Statements of PREPARE that are carried; with more the session keeps its server.
const PREPARED_MAX: usize = 100;

/// What holds a session to its server, as the question below names it.
const CAUSES: &[&str] = &[
    "a temporary object",
    "an advisory lock",
    "a cursor WITH HOLD",
    PREPARED,
];

/// Reads what the session has on its server: settings as `s`, statements of PREPARE as `p`, causes to stay as `c`,
/// channels it listens to as `l`. Nothing in it is looked for in the client's search_path, which could lead to functions
/// that hide something.
const QUESTION: &str = "\
SELECT 's', name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session' \
UNION ALL SELECT 's', 'role', pg_catalog.current_setting('role') WHERE pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) 'none' \
UNION ALL SELECT 's', 'session_authorization', session_user::pg_catalog.text WHERE session_user OPERATOR(pg_catalog.<>) \
 (SELECT usename FROM pg_catalog.pg_stat_activity WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()) \
UNION ALL SELECT 'c', 'a temporary object', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_class \
 WHERE relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) OR EXISTS (SELECT FROM pg_catalog.pg_proc \
 WHERE pronamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) OR EXISTS (SELECT FROM pg_catalog.pg_type \
 WHERE typnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) \
UNION ALL SELECT 'c', 'an advisory lock', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_locks \
 WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()) \
UNION ALL SELECT 'c', 'a cursor WITH HOLD', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) \
UNION ALL SELECT 'p', name, statement FROM pg_catalog.pg_prepared_statements WHERE from_sql \
UNION ALL SELECT 'l', channel, '' FROM pg_catalog.pg_listening_channels() AS channel";

/// What the session remembers of its own state.
#[derive(Default)]
pub(super) struct SessionState {
    /// What the client asked for when it came: its defaults.
    startup: Arc<Settings>,
    /// Custom settings that its texts named: the server does not list them.
    custom: BTreeSet<String>,
    /// Why it keeps its server whatever the server says.
    untold: Option<&'static str>,
    /// The server must be asked once the transaction has ended.
    asks: bool,
    /// Something was defined that other statements may run: see [`Leavers`](super::leavers::Leavers).
    defines: bool,
    /// Further statements were taken since.
    overtaken: bool,
    /// Settings that were reset and have a start-up value; set behind the next Query or Sync.
    restore: Vec<u8>,
    /// The transaction at hand has changed by name how statements are read, if only for itself.
    pub(super) reread: bool,
    /// A statement of PREPARE was read under other settings than those in force.
    misread: bool,
    /// The client was told that its session keeps its server.
    told: bool,
    /// The client asks for the last value of a sequence: a server that may know others' forgets them before.
    foreign_sequences: bool,
    /// It does so in the middle of something, and the server at hand cannot forget.
    in_doubt: bool,
    /// Channels that the next text may listen to.
    pub(super) wanted: Vec<Vec<u8>>,
    /// Channels for which its own server listens.
    pub(super) own_channels: BTreeSet<Vec<u8>>,
}

impl SessionState {
    pub(super) fn new(startup: Arc<Settings>) -> Self {
        Self {
            startup,
            ..Self::default()
        }
    }
}

impl Session {
    /// Looks for what a Query touches. `true`: the session answers it alone.
    pub(super) fn notice_text(&mut self, text: &[u8]) -> bool {
        let Some(traces) = self.traces_of(text, traces(text)) else {
            return false;
        };
        if !scan::is_single(text, true) {
            for range in scan::split(text, true) {
                self.drop_statements_by(text.get(range).unwrap_or_default());
            }
        } else if self.is_in_failed_transaction() {
            // The server refuses all but the end of it: nothing else leaves a trace.
            return false;
        } else if self.answers_alone(text) {
            return true;
        } else if self.is_known_execute(text) {
            return false;
        } else {
            self.drop_statements_by(text);
        }
        self.note(&traces);
        false
    }

    /// The traces of a text by itself, and those of what it uses.
    pub(super) fn traces_of(&self, text: &[u8], own: Option<Box<Traces>>) -> Option<Box<Traces>> {
        let Some(used) = self.database.leavers.traces(text) else {
            return own;
        };
        let mut all = own.unwrap_or_default();
        all.add(&used);
        all.runs_later(text);
        Some(all)
    }

    /// Parameters that name settings, which are known once there are values.
    pub(super) fn name_settings(traces: &mut Traces, bind: &[u8]) -> Result<(), FrameError> {
        if traces.named_by.is_empty() {
            return Ok(());
        }
        let parameters = decode::bind_parameters(bind)?;
        for number in std::mem::take(&mut traces.named_by) {
            let value = number.checked_sub(1).and_then(|at| parameters.get(at));
            match value {
                // A text has the same bytes in both formats.
                Some(Parameter::Text(name) | Parameter::Binary(name)) => {
                    traces.setting(&String::from_utf8_lossy(name).to_lowercase());
                }
                // The server raises the error.
                Some(Parameter::Null) | None => {}
            }
        }
        Ok(())
    }

    /// The server refuses all but the end of its transaction.
    pub(super) fn is_in_failed_transaction(&self) -> bool {
        let fails = |held: &Held| held.server.replies.fails_surely();
        self.held.as_ref().is_some_and(fails)
    }

    /// DEALLOCATE, and DISCARD ALL where there is nothing else to drop.
    fn answers_alone(&mut self, text: &[u8]) -> bool {
        match verb(text) {
            Verb::Deallocate { name: Some(name) } => self.statements.remove(&name),
            Verb::Deallocate { name: None } => {
                self.statements.clear();
                self.pinned.is_none() && self.settings.prepared().is_empty()
            }
            Verb::Discard(Discard::All) => {
                if self.may_discard() {
                    self.statements.clear();
                }
                // In a transaction it is an error.
                self.pinned.is_none()
                    && self.held.is_none()
                    && self.listening.is_none()
                    && *self.settings == *self.state.startup
            }
            _ => false,
        }
    }

    /// EXECUTE of a statement that leaves nothing, by its own text.
    fn is_known_execute(&self, text: &[u8]) -> bool {
        let Verb::Execute { name } = verb(text) else {
            return false;
        };
        let name = String::from_utf8_lossy(&name);
        let prepared = self.settings.prepared().get(&*name);
        let leaves =
            |text: &[u8]| words_leave(text) || self.database.leavers.traces(text).is_some();
        prepared.is_some_and(|prepared| !leaves(prepared.as_bytes())) && !leaves(text)
    }

    /// What the session defined was read.
    fn ends_defining(&mut self) {
        if std::mem::take(&mut self.state.defines) {
            self.database.leavers.end_to_define();
        }
    }

    /// What the session may have defined is read by whoever comes next.
    pub(super) fn leaves_definitions(&mut self) {
        if self.state.defines {
            self.database.leavers.set_stale();
            self.ends_defining();
        }
    }

    /// To be called when a server is held at last: what a text uses may be known since it was judged.
    pub(super) fn judge_again(&mut self, text: &[u8], version: u64) {
        if self.database.leavers.version() == version {
            return;
        }
        // Also of what it uses by another name, such as EXECUTE.
        self.state.asks = true;
        if let Some(used) = self.database.leavers.traces(text) {
            self.note(&used);
        }
    }

    /// What drops the statements of the session on its server drops the client's.
    pub(super) fn drop_statements_by(&mut self, statement: &[u8]) {
        let drops = match verb(statement) {
            Verb::Deallocate { name: None } => true,
            Verb::Discard(Discard::All) => self.may_discard(),
            _ => return,
        };
        if drops {
            self.statements.clear();
        }
        self.rereads = true;
    }

    /// In a transaction DISCARD ALL is an error, and drops nothing.
    fn may_discard(&self) -> bool {
        let idle = |held: &Held| held.server.replies.status == decode::Status::Idle;
        self.held.as_ref().is_none_or(idle)
    }

    /// A text with these traces is about to run.
    pub(super) fn note(&mut self, traces: &Traces) {
        let state = &mut self.state;
        state.asks |= traces.asks;
        if traces.defines && self.pinned == Some(SESSION_MODE) {
            // It is not asked afterwards: others read it.
            self.database.leavers.set_stale();
        } else if traces.defines && !std::mem::replace(&mut state.defines, true) {
            self.database.leavers.begin_to_define();
        }
        state.custom.extend(traces.custom.iter().cloned());
        if self.pinned != Some(SESSION_MODE) {
            state.wanted.clone_from(&traces.listens);
        }
        for name in &traces.resets {
            state
                .restore
                .extend_from_slice(&state.startup.restored(name));
        }
        let changes = |name: &String| changes_reading(name.as_bytes());
        self.state.reread |= traces.rereads.iter().any(changes);
        self.rereads |= traces.rereads.iter().any(|it| it.is_empty() || changes(it));
        self.note_sequences(traces);
        let computed = (!traces.named_by.is_empty()).then_some("set_config of a computed name");
        if let Some(cause) = traces.untold.or(computed) {
            self.state.untold = Some(cause);
            self.pin(cause);
        }
        if self.state.custom.len() > CUSTOM_MAX {
            // Kept where they are, they need not be asked for.
            self.state.custom.clear();
            self.state.untold = Some("its many custom settings");
            self.pin("its many custom settings");
        }
    }

    /// To be called before a server is held for a text with these traces.
    pub(super) fn note_sequences(&mut self, traces: &Traces) {
        if !traces.sequences {
            return;
        }
        self.database.asks_for_sequences();
        // From now on every server forgets before it is lent; the one at hand may be from before.
        self.state.foreign_sequences = true;
        let remembers =
            |held: &Held| held.server.has_foreign_sequences() && held.server.is_at_work();
        self.state.in_doubt |= self.held.as_ref().is_some_and(remembers);
    }

    /// Refuses to ask a server for the last value of a sequence that may be another client's.
    pub(super) fn check_sequences(&mut self) -> Result<(), Trouble> {
        if std::mem::take(&mut self.state.in_doubt) {
            return Err(SessionError::ForeignSequences.into());
        }
        Ok(())
    }

    /// To be called with the server held, before a message that may ask for the last value of a sequence.
    pub(super) fn forget_foreign_sequences(&mut self) {
        if self.state.foreign_sequences
            && let Some(held) = &mut self.held
            && !held.server.is_at_work()
        {
            self.state.foreign_sequences = false;
            if held.server.has_foreign_sequences() {
                held.server.forget_sequences();
            }
        }
    }

    /// The next message resets settings that have a start-up value.
    pub(super) fn is_to_restore(&self) -> bool {
        !self.state.restore.is_empty()
    }

    /// A server is to be asked what is in force.
    pub(super) fn is_to_ask(&self) -> bool {
        self.state.asks
    }

    /// It has what it came with, and nothing else.
    pub(super) fn is_as_it_came(&self) -> bool {
        !self.state.asks && *self.settings == *self.state.startup
    }

    /// As many custom settings as are followed.
    pub(super) fn is_full_of_custom_settings(&self) -> bool {
        self.state.custom.len() >= CUSTOM_MAX
    }

    /// To be called before a message that may reset settings.
    pub(super) fn mute_parameters(&mut self) {
        if !self.state.restore.is_empty()
            && let Some(held) = &mut self.held
        {
            held.server.mute_parameters();
        }
    }

    /// To be called behind a Query or a Sync: what it reset has the client's start-up value again.
    pub(super) fn restore_startup(&mut self) {
        if self.state.restore.is_empty() {
            return;
        }
        let restore = std::mem::take(&mut self.state.restore);
        if let Some(held) = &mut self.held {
            held.server
                .send_query(&restore, Expect::Restore, self.client.outbox());
        }
    }

    /// By `client_min_messages`, as far as the session knows of it.
    pub(super) fn wants_notices(&self) -> bool {
        let level = self.settings.get("client_min_messages").unwrap_or_default();
        let quiet = ["warning", "error", "fatal", "panic"];
        !quiet.iter().any(|&quiet| level.eq_ignore_ascii_case(quiet))
    }

    fn pin(&mut self, cause: &'static str) {
        if self.database.config.is_sharded() {
            // See `keep`.
            return;
        }
        if self.pinned.replace(cause).is_some() {
            return;
        }
        self.database.metrics.pinned(cause);
        tracing::info!(
            database = %self.database.config.name, client = self.entry.pid, cause,
            "the session keeps its server from now on"
        );
        if std::mem::replace(&mut self.state.told, true) || !self.wants_notices() {
            return;
        }
        let mut notice = Vec::new();
        let text = format!("this session keeps its server connection for itself: it has {cause}");
        encode::notice(&mut notice, Severity::Notice, SqlState::SUCCESSFUL, &text);
        self.answer(notice);
    }

    /// The transaction has ended, and the server must be asked what it left.
    pub(super) fn must_ask(&self) -> bool {
        (self.state.asks || self.listens_through_server() || self.database.leavers.is_stale())
            && self.pinned != Some(SESSION_MODE)
            && self.held.as_ref().is_some_and(|held| held.server.is_idle())
    }

    /// What the session leaves behind on the server that it has.
    pub(super) fn remains(&self) -> Remains {
        match self.pinned {
            Some(SESSION_MODE) => Remains::Session,
            Some(_) => Remains::State,
            None if self.state.asks
                || !self.state.restore.is_empty()
                || self.listens_through_server() =>
            {
                Remains::State
            }
            None => Remains::Nothing,
        }
    }

    /// The server is lost. Whether it had state that the client was told of and that was not read yet. Where the
    /// statement that made it is `in_flight` itself, the client is told that it failed, so nothing is missing.
    pub(super) fn loses_unread_state(&mut self, in_flight: bool) -> bool {
        let overtaken = std::mem::take(&mut self.state.overtaken);
        self.leaves_definitions();
        self.forget_unsure_channels();
        std::mem::take(&mut self.state.asks) && (overtaken || !in_flight)
    }

    /// A statement is taken before the server was asked what those before it have left.
    pub(super) fn overtakes(&mut self) {
        self.state.overtaken |= self.state.asks;
    }

    /// The server has state that it was not asked for yet, besides that of the statement at hand.
    pub(super) fn is_overtaken(&self) -> bool {
        self.state.overtaken
    }

    /// Asks the server what is in force, and keeps it only where it must.
    pub(super) async fn read_state(&mut self) -> Result<(), Trouble> {
        if self.state.defines {
            self.database.leavers.set_stale();
        }
        if self.database.leavers.is_stale()
            && let Some(held) = &mut self.held
        {
            let aside = self.database.leavers.load(&mut held.server).await?;
            self.client.outbox().extend_from_slice(&aside);
        }
        self.ends_defining();
        if !self.state.asks {
            if self.listens_through_server() {
                return self.stop_server_listening().await;
            }
            if self.pinned.is_none() {
                self.give_back();
            }
            return Ok(());
        }
        let question = self.question();
        for _ in 0..TRIES_MAX {
            let Some(held) = &mut self.held else {
                return Ok(());
            };
            held.server
                .send_query(question.as_bytes(), Expect::Query, &mut Vec::new());
            let answer = held.server.ask().await?;
            let mut others = Vec::new();
            let found = Found::read(&answer, &mut others);
            self.client.outbox().extend_from_slice(&others);
            match found {
                Ok(Some(found)) => return self.keep(found).await,
                Ok(None) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.state.asks = false;
        self.forget_unsure_channels();
        if self.database.config.is_sharded() {
            // Nobody could bring along what it has, and no session keeps a server.
            return Err(End::Bereft(Lost::Refused { last_words: None }).into());
        }
        self.state.untold = Some("a state that could not be read");
        self.pin("a state that could not be read");
        Ok(())
    }

    fn question(&self) -> String {
        let mut question = QUESTION.to_owned();
        let used = self.database.leavers.custom();
        let followed = self.settings.names().filter(|name| name.contains('.'));
        let custom: BTreeSet<&str> = followed
            .chain(self.state.custom.iter().map(String::as_str))
            .chain(used.iter().map(String::as_str))
            .collect();
        for name in custom {
            let mut quoted = Vec::new();
            literal(&mut quoted, name);
            let name = String::from_utf8_lossy(&quoted);
            let _ = write!(
                question,
                " UNION ALL SELECT 's', {name}, v FROM pg_catalog.current_setting({name}, true) AS v \
                 WHERE v IS NOT NULL"
            );
        }
        question
    }

    async fn keep(&mut self, found: Found) -> Result<(), Trouble> {
        self.state.asks = false;
        self.state.overtaken = false;
        let read = Settings::new(found.settings).with_prepared(found.prepared);
        let wanted = self.state.startup.under(&read);
        // Constants in them were read under the settings of their moment.
        let reread = std::mem::take(&mut self.state.reread) || !self.settings.reads_as(&wanted);
        self.state.misread = !wanted.prepared().is_empty() && (self.state.misread || reread);
        let cause = found.cause.or(self.cause_to_stay(&wanted));
        let Some(held) = &mut self.held else {
            return Ok(());
        };
        self.settings = if wanted == *self.state.startup {
            Arc::clone(&self.state.startup)
        } else {
            Arc::new(wanted)
        };
        if !held.server.settings.reads_as(&read) {
            // Whatever changed them, what was prepared before was read in another way.
            held.server.forgets_all();
        }
        held.server.settings = if read == *self.settings {
            Arc::clone(&self.settings)
        } else {
            Arc::new(read)
        };
        let before = held.server.reported().to_vec();
        // Not `adopt`: what is prepared may be the session's own.
        let change = self.settings.change_from(&held.server.settings);
        if !change.is_empty() {
            if held.server.run_hidden(&change).await?.is_some() {
                self.state.untold = Some("a start-up setting that it cannot have any more");
            }
            held.server.settings = Arc::clone(&self.settings);
        }
        for pair in held.server.reported() {
            if !before.contains(pair) {
                encode::parameter_status(self.client.outbox(), &pair.0, &pair.1);
            }
        }
        let cause = self.state.untold.or(cause);
        let cause = self.keep_channels(found.channels, cause).await;
        match cause {
            // No session keeps a server of several; this one is cleaned, so that nobody else meets what is on it.
            Some(_) if self.database.config.is_sharded() => {
                if let Some(held) = self.held.take() {
                    self.entry.gave_back();
                    held.pool.rescue(held.server, Remains::State);
                }
            }
            Some(cause) => self.pin(cause),
            None => {
                self.pinned = None;
                self.give_back();
            }
        }
        Ok(())
    }

    /// Whether the session must keep its server for what it has there, though that could be carried.
    fn cause_to_stay(&self, wanted: &Settings) -> Option<&'static str> {
        let prepared = wanted.prepared();
        let settings = *wanted != *self.state.startup;
        if settings && self.pool_settings.on_session_state != OnSessionState::Track {
            return Some("session state");
        }
        let is_one = |(name, text): (&String, &String)| {
            let of_name = |known: &[u8]| known == name.as_bytes();
            matches!(only_verb(text.as_bytes()), Verb::Prepare { name } if of_name(&name))
        };
        let carried = prepared.len() <= PREPARED_MAX && prepared.iter().all(is_one);
        (!carried || self.state.misread).then_some(PREPARED)
    }

    /// Lets the server read a text whose name is taken: its own errors come first.
    pub(super) async fn parse_in_vain(&mut self, tail: &[u8]) -> Result<(), Trouble> {
        if !self.transaction.is_idle() {
            return Ok(());
        }
        self.hold(ONLY).await?;
        if let (Some(held), answers) = (&mut self.held, self.client.outbox()) {
            encode::close_statement(held.server.outbox(), SCRAP);
            held.server.replies.expect(Expect::HiddenClose, answers);
            encode::parse(held.server.outbox(), SCRAP, tail);
            held.server
                .replies
                .expect(Expect::HiddenParse(None), answers);
        }
        Ok(())
    }

    /// DEALLOCATE of a statement that the client prepared with a Parse message. The server knows it by another name, and
    /// keeps it for others: so it gets a statement to deallocate instead, for it has the answer to say.
    pub(super) async fn deallocates_protocol_statement(
        &mut self,
        text: &[u8],
    ) -> Result<bool, Trouble> {
        let Verb::Deallocate { name: Some(name) } = only_verb(text) else {
            return Ok(false);
        };
        if !self.transaction.is_idle() || !self.statements.remove(&name) {
            return Ok(false);
        }
        // One that was never deallocated may be there.
        Box::pin(self.parse_in_vain(b"SELECT 1\0\0\0")).await?;
        Ok(true)
    }
}

/// What the server said.
#[derive(Default)]
struct Found {
    settings: Vec<(String, String)>,
    prepared: BTreeMap<String, String>,
    cause: Option<&'static str>,
    channels: BTreeSet<Vec<u8>>,
}

impl Found {
    /// `None`: the server answered with an error. What is for the client is appended to `others`.
    fn read(answer: &[u8], others: &mut Vec<u8>) -> Result<Option<Self>, FrameError> {
        let mut found = Self::default();
        let mut failed = false;
        for frame in server_frames(answer) {
            let Frame { tag, body, whole } = frame?;
            match tag {
                b'D' => found.row(body)?,
                b'A' => others.extend_from_slice(whole),
                b'E' => failed = true,
                _ => {}
            }
        }
        Ok((!failed).then_some(found))
    }

    fn row(&mut self, body: &[u8]) -> Result<(), FrameError> {
        let columns = decode::data_row(body)?;
        if let [Some(b"l"), Some(channel), _] = columns.as_slice() {
            self.channels.insert(channel.to_vec());
            return Ok(());
        }
        let text = |at: usize| {
            let value = columns.get(at).copied().flatten().unwrap_or_default();
            std::str::from_utf8(value).map(str::to_owned)
        };
        let (Ok(kind), Ok(name), Ok(value)) = (text(0), text(1), text(2)) else {
            self.cause = Some("a setting in another encoding");
            return Ok(());
        };
        match kind.as_str() {
            "s" => self.settings.push((name, value)),
            "p" => {
                self.prepared.insert(name, value);
            }
            _ => self.cause = CAUSES.iter().copied().find(|cause| *cause == name),
        }
        Ok(())
    }
}

pub(super) fn drops_statements(text: &[u8]) -> bool {
    !scan::is_plain_query(text)
        && matches!(
            only_verb(text),
            Verb::Deallocate { .. } | Verb::Discard(Discard::All)
        )
}
