//! One logged-in connection to a PostgreSQL server: its stream, what it still owes, which statements it knows, and the
//! lease that ties it to its pool.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::addresses::{Addresses, Mark};
use super::connect::{Encryption, LoggedIn, reported_fits};
use super::identity::Identity;
use super::pool::Lease;
use super::replies::{Description, Expect, Replies, StatementId, Walked};
use super::settings::Settings;
use super::worker::with_scratch;
use crate::config::TargetSession;
use crate::error::{Blame, Report, SqlState};
use crate::wire::channel::Channel;
use crate::wire::decode::{self, Status};
use crate::wire::encode;
use crate::wire::frame::{FrameError, HEADER_BYTES};

/// Prepared statements that one server keeps; one that was not used for long is closed for a new one.
const PREPARED_MAX: usize = 500;

/// Why a server connection is gone.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error("the server closed the connection unexpectedly")]
    Closed {
        /// What the server said before, such as `FATAL 57P01: terminating connection …`.
        last_words: Option<String>,
    },
    #[error("the server refused what comes before the statement: its transaction or its settings")]
    Refused {
        /// What it said, such as `ERROR 0A000: cannot use serializable mode in a hot standby`.
        last_words: Option<String>,
    },
    #[error("cached plan must not change result type")]
    Outdated,
    #[error("the connection to the server failed: {}", .0.kind())]
    Io(#[from] io::Error),
    #[error("the server does not follow the protocol: {0}")]
    Protocol(#[from] FrameError),
}

impl Report for Lost {
    fn sqlstate(&self) -> SqlState {
        match self {
            // PostgreSQL's code and words, for which drivers prepare the statement anew.
            Lost::Outdated => SqlState::FEATURE_NOT_SUPPORTED,
            _ => SqlState::CONNECTION_FAILURE,
        }
    }
    fn blame(&self) -> Blame {
        Blame::Server
    }
    fn detail(&self) -> Option<String> {
        match self {
            Lost::Closed { last_words } | Lost::Refused { last_words } => last_words
                .as_ref()
                .map(|words| format!("The server said: {words}")),
            _ => None,
        }
    }
    fn advice(&self) -> Option<String> {
        if let Lost::Refused { .. } = self {
            return Some("Begin the transaction as the server allows it.".into());
        }
        Some("Whether a statement in flight took effect is unknown; pgherd connects anew for the next one.".into())
    }
}

pub struct Server {
    channel: Channel,
    pub replies: Replies,
    /// The first bytes of a message that is not complete.
    held_back: Vec<u8>,
    identity: Arc<Identity>,
    /// What the server reported of its parameters, by name.
    reported: Vec<(String, String)>,
    /// What it was taken for.
    target: TargetSession,
    /// The session settings that are in force on it.
    pub settings: Arc<Settings>,
    prepared: VecDeque<StatementId>,
    /// It may have statements besides those, under names that we would give.
    has_others: bool,
    /// Statements that the server refused to parse, for the session that sent them.
    failed_parses: Vec<StatementId>,
    /// The client that had it last, and whether it may know values of sequences that others asked for.
    session: i32,
    foreign_sequences: bool,
    /// Whose text the unnamed statement is.
    pub unnamed: Option<StatementId>,
    /// When it is too old to be lent again; `None`: never.
    expires: Option<Instant>,
    /// Whether its address is still that of its host.
    mark: Arc<Mark>,
    taken: Instant,
    /// The worker on whose runtime the stream is registered; none for a new one.
    pub(super) home: usize,
    /// The place in the pool, free again when this is dropped.
    _lease: Lease,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("identity", &self.identity)
            .field("replies", &self.replies)
            .finish_non_exhaustive()
    }
}

impl Server {
    pub(super) fn new(
        login: LoggedIn,
        encryption: Encryption,
        lease: Lease,
        lifetime: Duration,
    ) -> Self {
        let now = Instant::now();
        let expires = (!lifetime.is_zero()).then(|| now + lifetime);
        Self {
            channel: Channel::new(login.stream),
            replies: Replies::default(),
            held_back: Vec::new(),
            mark: Addresses::of_process().mark(&login.address.place),
            identity: Identity::new(login.address, encryption, login.pid, login.key),
            reported: login.parameters,
            target: login.target,
            settings: Arc::default(),
            prepared: VecDeque::new(),
            has_others: false,
            failed_parses: Vec::new(),
            session: 0,
            foreign_sequences: false,
            unnamed: None,
            expires,
            taken: now,
            home: usize::MAX,
            _lease: lease,
        }
    }

    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    #[must_use]
    pub fn reported(&self) -> &[(String, String)] {
        &self.reported
    }

    /// Past its lifetime, or at an address that is no longer its host's.
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.mark.has_vanished() || self.expires.is_some_and(|expires| now > expires)
    }

    /// When the current borrower got it, or it was given back last.
    #[must_use]
    pub fn taken(&self) -> Instant {
        self.taken
    }

    pub(super) fn touch(&mut self, now: Instant) {
        self.taken = now;
    }

    /// May serve somebody else: nothing owed, nothing half-sent, no transaction.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.replies.idle() && !self.channel.has_unsent() && self.held_back.is_empty()
    }

    /// It has a transaction, or owes its client something.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        let (answers, unsynced) = self.replies.owed();
        answers > 0 || unsynced || self.replies.status != Status::Idle
    }

    /// Messages for the server are appended here; each needs its [`Replies::expect`].
    pub fn outbox(&mut self) -> &mut Vec<u8> {
        self.channel.outbox()
    }

    /// The same for a message of about so many bytes that may be large.
    pub fn outbox_for(&mut self, bytes: usize) -> &mut Vec<u8> {
        self.channel.outbox_for(bytes)
    }

    /// Appends a message as it came.
    pub fn pass_on(&mut self, message: &[u8]) {
        self.outbox_for(message.len()).extend_from_slice(message);
    }

    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        self.channel.unsent_bytes()
    }

    /// Something is to be flushed.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.channel.has_unsent()
    }

    /// A client of this process id has borrowed it.
    pub fn is_lent_to(&mut self, session: i32) {
        let before = std::mem::replace(&mut self.session, session);
        self.foreign_sequences |= before != session && before != 0;
    }

    #[must_use]
    pub fn has_foreign_sequences(&self) -> bool {
        self.foreign_sequences
    }

    /// Makes it forget the values that sequences gave.
    pub fn forget_sequences(&mut self) {
        self.foreign_sequences = false;
        self.send_hidden_query(b"DISCARD SEQUENCES");
    }

    /// Appends a whole message and what it will be answered with.
    pub fn send(&mut self, message: &[u8], expect: Expect, answers: &mut Vec<u8>) {
        self.channel.outbox().extend_from_slice(message);
        self.replies.expect(expect, answers);
    }

    /// A Query of ours whose replies nobody sees.
    pub fn send_hidden_query(&mut self, text: &[u8]) {
        self.send_query(text, Expect::HiddenQuery, &mut Vec::new());
    }

    /// See [`Replies::mute_parameters`].
    pub fn mute_parameters(&mut self) {
        self.replies.mute_parameters(&self.reported);
    }

    /// One command of a transaction's beginning. As extended messages without a Sync: when it fails, the server skips
    /// what is sent behind it, which would run outside of the transaction.
    pub fn send_prologue(&mut self, text: &[u8], answers: &mut Vec<u8>) {
        self.unnamed = None;
        let out = self.channel.outbox();
        encode::parse(out, b"", &[text, b"\0\0\0"].concat());
        encode::bind(out, b"", b"", &[0; 6]);
        encode::execute(out, b"", 0);
        for _ in 0..3 {
            self.replies.expect(Expect::Prologue, answers);
        }
    }

    /// A Query message, which also drops the unnamed statement.
    pub fn send_query(&mut self, text: &[u8], expect: Expect, answers: &mut Vec<u8>) {
        self.unnamed = None;
        encode::query(self.channel.outbox(), text);
        self.replies.expect(expect, answers);
    }

    /// Whether the server has this statement under its name.
    #[must_use]
    pub fn knows(&self, id: StatementId) -> bool {
        self.prepared.contains(&id)
    }

    /// The same, of one that is about to be executed: where there are many, those that are not used are closed first.
    fn uses(&mut self, id: StatementId) -> bool {
        let Some(at) = self.prepared.iter().position(|known| *known == id) else {
            return false;
        };
        if self.prepared.len() > PREPARED_MAX / 2 && at < self.prepared.len() / 2 {
            self.prepared.remove(at);
            self.prepared.push_back(id);
        }
        true
    }

    /// Notes that a Parse for this statement is on its way; closes the oldest when there are too many.
    pub fn learns(&mut self, id: StatementId) {
        if self.prepared.len() >= PREPARED_MAX
            && let Some(oldest) = self.prepared.pop_front()
        {
            encode::close_statement(self.channel.outbox(), &statement_name(oldest));
            self.replies.expect(Expect::HiddenClose, &mut Vec::new());
        }
        if self.has_others {
            encode::close_statement(self.channel.outbox(), &statement_name(id));
            self.replies.expect(Expect::HiddenClose, &mut Vec::new());
        }
        self.prepared.push_back(id);
    }

    /// Makes sure that the server has a statement, with a hidden Parse if it must; gives the name to bind. One that the
    /// client did not name takes no place among those that are kept. What a client was told of it must still hold.
    pub fn ensure(
        &mut self,
        id: StatementId,
        tail: &[u8],
        unnamed: bool,
        promised: Option<Description>,
        answers: &mut Vec<u8>,
    ) -> StatementName {
        if self.uses(id) {
            return statement_name(id);
        }
        if unnamed && self.unnamed == Some(id) {
            return StatementName::UNNAMED;
        }
        let name = if unnamed {
            self.unnamed = Some(id);
            StatementName::UNNAMED
        } else {
            self.learns(id);
            statement_name(id)
        };
        encode::parse(self.outbox(), &name, tail);
        self.replies.expect(Expect::HiddenParse(Some(id)), answers);
        if let Some(promised) = promised {
            encode::describe_statement(self.outbox(), &name);
            self.replies.expect(Expect::Promised(promised), answers);
        }
        name
    }

    /// Prepares a statement and asks what it is; the answers to Parse and Describe are shown. `end` is a Sync or, in a
    /// pipeline, a Flush.
    pub fn send_describe(&mut self, id: StatementId, tail: &[u8], end: &[u8]) {
        let nowhere = &mut Vec::new();
        let name = self.ensure(id, tail, false, None, nowhere);
        encode::describe_statement(self.outbox(), &name);
        self.replies.expect(Expect::Describe, nowhere);
        self.outbox().extend_from_slice(end);
        if end == encode::SYNC {
            self.replies.expect(Expect::HiddenSync, nowhere);
        }
    }

    /// Takes a statement from the server again.
    pub fn unlearn(&mut self, id: StatementId) {
        self.prepared.retain(|known| *known != id);
        encode::close_statement(self.channel.outbox(), &statement_name(id));
        self.replies.expect(Expect::HiddenClose, &mut Vec::new());
    }

    /// The statements that the server refused to parse since the last call.
    #[must_use]
    pub fn take_failed_parses(&mut self) -> Vec<StatementId> {
        std::mem::take(&mut self.failed_parses)
    }

    /// Counts on no statement that was prepared so far: they may be dropped, or were read under other settings.
    pub fn forgets_all(&mut self) {
        self.prepared.clear();
        self.unnamed = None;
        self.has_others = true;
    }

    /// Everything that was prepared is dropped (DISCARD ALL, DEALLOCATE ALL).
    pub fn has_no_statements(&mut self) {
        self.prepared.clear();
        self.unnamed = None;
        self.has_others = false;
    }

    /// These very settings are in force, and nothing is prepared that they would mislead.
    #[must_use]
    pub fn has_adopted(&self, settings: &Arc<Settings>) -> bool {
        !self.has_others && Arc::ptr_eq(&self.settings, settings)
    }

    /// Puts these settings in force in front of whatever is sent next, where that cannot fail, and nothing else is to be
    /// done for them. `false`: see [`Server::adopt`].
    pub fn adopt_at_once(&mut self, settings: &Arc<Settings>) -> bool {
        if self.has_adopted(settings) {
            return true;
        }
        let carries = settings.prepared() != self.settings.prepared();
        if carries || self.misleads(settings) || !settings.is_surely_taken_after(&self.settings) {
            return false;
        }
        let change = settings.change_from(&self.settings);
        if settings.recodes(&self.settings) && !change.is_ascii() {
            return false;
        }
        if !change.is_empty() {
            self.send_query(&change, Expect::Settings, &mut Vec::new());
        }
        self.settings = Arc::clone(settings);
        true
    }

    /// Puts these settings in force, and waits for it: behind a change that failed, a statement would run as somebody
    /// else. Gives what is in force then: a statement that cannot be prepared any more is left out. `Err` within: the
    /// server's ErrorResponse; some of the settings may be in force now, so nobody else may get this server.
    pub async fn adopt(
        &mut self,
        settings: &Arc<Settings>,
    ) -> Result<Result<Arc<Settings>, Vec<u8>>, Lost> {
        if self.has_adopted(settings) {
            return Ok(Ok(Arc::clone(settings)));
        }
        let mut change = settings.change_from(&self.settings);
        let deallocations = settings.deallocations(&self.settings);
        let recodes = settings.recodes(&self.settings);
        if recodes && !change.is_ascii() {
            // A Query is read in the encoding that is in force before it.
            let change = settings.encoding().change_from(&self.settings.encoding());
            if let Some(error) = self.run_hidden(&change).await? {
                return Ok(Err(error));
            }
        }
        if self.misleads(settings) || (recodes && !deallocations.is_ascii()) {
            change.extend_from_slice(b"DEALLOCATE ALL");
            self.has_no_statements();
            let values = Settings::clone(&self.settings).with_prepared(BTreeMap::new());
            self.settings = Arc::new(values);
        } else {
            change.extend_from_slice(&deallocations);
        }
        if !change.is_empty()
            && let Some(error) = self.run_hidden(&change).await?
        {
            return Ok(Err(error));
        }
        let there = std::mem::replace(&mut self.settings, Arc::clone(settings));
        let mut refused = Vec::new();
        for (name, text) in settings.preparations(&there) {
            match self.run_hidden(text.as_bytes()).await? {
                Some(error) if is_of_the_moment(&error) => return Ok(Err(error)),
                Some(_) => refused.push(name),
                None => {}
            }
        }
        if !refused.is_empty() {
            let mut prepared = settings.prepared().clone();
            prepared.retain(|name, _| !refused.contains(&name));
            self.settings = Arc::new(Settings::clone(settings).with_prepared(prepared));
        }
        Ok(Ok(Arc::clone(&self.settings)))
    }

    /// Whether statements must be dropped before a client with these settings has the server: constants such as
    /// `'1/2/2024'::date` were read once and for all when the statement was prepared.
    fn misleads(&self, settings: &Settings) -> bool {
        let prepared = !self.prepared.is_empty() || self.unnamed.is_some();
        self.has_others || (prepared && !self.settings.reads_as(settings))
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        match self.channel.poll_flush(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            // The reason is often still to be read: the reader reports the loss.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }

    /// Reads once and walks. The bytes of `scratch` in [`Walked::run`] go to the client behind what was appended to
    /// `out`.
    pub fn poll_replies(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Poll<Result<Walked, Lost>> {
        let held = self.held_back.len();
        let Some((front, room)) = scratch.split_at_mut_checked(held) else {
            return Poll::Ready(Err(Lost::Io(io::ErrorKind::OutOfMemory.into())));
        };
        let count = match ready!(self.channel.stream.poll_receive(cx, room)) {
            Ok(0) => return Poll::Ready(Err(self.closed())),
            Ok(count) => count,
            Err(error) if self.replies.last_words.is_none() => {
                return Poll::Ready(Err(Lost::Io(error)));
            }
            Err(_) => return Poll::Ready(Err(self.closed())),
        };
        front.copy_from_slice(&self.held_back);
        let chunk = scratch.get(..held + count).unwrap_or_default();
        let walked = match self.replies.walk(chunk, out) {
            Ok(walked) => walked,
            Err(_) if self.replies.last_words.is_some() => {
                let last_words = self.last_words();
                return Poll::Ready(Err(Lost::Refused { last_words }));
            }
            Err(_) if self.replies.descriptions.broken => {
                return Poll::Ready(Err(Lost::Outdated));
            }
            Err(error) => return Poll::Ready(Err(error.into())),
        };
        self.held_back.clear();
        self.held_back
            .extend_from_slice(chunk.get(walked.consumed..).unwrap_or_default());
        let replies = &self.replies;
        if !(replies.parameters.is_empty()
            && replies.unparsed.is_empty()
            && replies.unanswered.is_empty())
        {
            self.learn_from_replies();
        }
        Poll::Ready(Ok(walked))
    }

    fn learn_from_replies(&mut self) {
        for (name, value) in std::mem::take(&mut self.replies.parameters) {
            let name = String::from_utf8_lossy(&name).into_owned();
            let value = String::from_utf8_lossy(&value).into_owned();
            match self.reported.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => self.reported.push((name.clone(), value)),
            }
            // A standby was promoted under us. What else is reported may be a client's own setting.
            if name == "in_hot_standby"
                && self.target != TargetSession::PreferStandby
                && reported_fits(self.target, &self.reported) == Some(false)
            {
                self.expires = Some(self.taken);
            }
        }
        for id in std::mem::take(&mut self.replies.unparsed) {
            self.prepared.retain(|known| *known != id);
            if self.unnamed == Some(id) {
                self.unnamed = None;
            }
            self.failed_parses.push(id);
        }
        self.failed_parses.append(&mut self.replies.unanswered);
    }

    fn closed(&mut self) -> Lost {
        Lost::Closed {
            last_words: self.last_words(),
        }
    }

    fn last_words(&mut self) -> Option<String> {
        let words = self.replies.last_words.take();
        words.and_then(|frame| {
            let fields = decode::fields(b'E', frame.get(HEADER_BYTES..)?).ok()?;
            let text = |code| {
                fields
                    .field(code)
                    .map(String::from_utf8_lossy)
                    .unwrap_or_default()
            };
            Some(format!("{} {}: {}", text(b'S'), text(b'C'), text(b'M')))
        })
    }

    /// Runs a Query of ours to its end; the replies are read and dropped. `Ok(Some(error))` is the server's
    /// ErrorResponse.
    pub async fn run_hidden(&mut self, text: &[u8]) -> Result<Option<Vec<u8>>, Lost> {
        self.replies.hidden_error = None;
        self.send_hidden_query(text);
        let mut nothing = Vec::new();
        std::future::poll_fn(|cx| {
            loop {
                let _ = self.poll_flush(cx)?;
                if self.replies.settled() {
                    return Poll::Ready(Ok::<_, Lost>(()));
                }
                ready!(with_scratch(|scratch| self.poll_replies(
                    cx,
                    scratch,
                    &mut nothing
                )))?;
            }
        })
        .await?;
        Ok(self.replies.hidden_error.take())
    }

    /// Sends what is in the outbox and gives everything that would be shown to a client, up to the last reply.
    pub async fn ask(&mut self) -> Result<Vec<u8>, Lost> {
        let mut shown = Vec::new();
        std::future::poll_fn(|cx| {
            loop {
                let _ = self.poll_flush(cx)?;
                if self.replies.settled() {
                    return Poll::Ready(Ok::<_, Lost>(()));
                }
                let read = with_scratch(|scratch| {
                    let walked = ready!(self.poll_replies(cx, scratch, &mut shown))?;
                    shown.extend_from_slice(scratch.get(walked.run).unwrap_or_default());
                    Poll::Ready(Ok::<_, Lost>(()))
                });
                ready!(read)?;
            }
        })
        .await?;
        Ok(shown)
    }

    /// Nothing has arrived on a connection that should be silent; `cx` is woken when that changes.
    pub(super) fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        // The runtime may still believe in bytes that were read already: the socket itself has the last word.
        self.channel.stream.poll_read_ready(cx).is_pending() || self.channel.stream.is_quiet()
    }

    /// Registered with the runtime of this worker.
    pub(super) fn is_at_home(&self, worker: usize) -> bool {
        self.home == worker
    }

    /// Re-registers the stream with the runtime of this worker; `None` when the connection did not survive it.
    pub(super) fn move_to(mut self: Box<Self>, worker: usize) -> Option<Box<Self>> {
        if self.home != worker {
            self.channel.stream = self.channel.stream.detach().ok()?.attach().ok()?;
            self.home = worker;
        }
        Some(self)
    }

    /// Tells the server that we leave, best effort; an idle connection is closed with it.
    pub(super) fn say_goodbye(&mut self) {
        self.channel.outbox().extend_from_slice(encode::TERMINATE);
        let _ = self
            .channel
            .poll_flush(&mut Context::from_waker(std::task::Waker::noop()));
    }
}

/// An error that says nothing of the statement: a cancel request, a time-out, a lock, a lack of resources.
fn is_of_the_moment(error: &[u8]) -> bool {
    let body = error.get(HEADER_BYTES..).unwrap_or_default();
    let code = decode::fields(b'E', body).map(|fields| fields.field(b'C').map(<[u8]>::to_vec));
    matches!(code, Ok(Some(code)) if [b"40", b"53", b"55", b"57"].iter().any(|class| code.starts_with(*class)))
}

/// The name of a statement on every server; empty for the unnamed one. Made at each Bind, so it needs no memory.
#[derive(Debug, Clone, Copy)]
pub struct StatementName {
    bytes: [u8; STATEMENT_NAME_BYTES_MAX],
    length: usize,
}

/// The prefix, and the digits of the largest number.
const STATEMENT_NAME_BYTES_MAX: usize = 7 + 20;

impl StatementName {
    const UNNAMED: StatementName = StatementName {
        bytes: [0; STATEMENT_NAME_BYTES_MAX],
        length: 0,
    };
}

impl std::ops::Deref for StatementName {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

#[must_use]
pub fn statement_name(id: StatementId) -> StatementName {
    let mut name = StatementName::UNNAMED;
    let mut digits = itoa::Buffer::new();
    for part in ["pgherd_", digits.format(id.0)] {
        // It fits: see STATEMENT_NAME_BYTES_MAX.
        if let Some(place) = name.bytes.get_mut(name.length..name.length + part.len()) {
            place.copy_from_slice(part.as_bytes());
            name.length += part.len();
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_has_a_name_of_its_own() {
        assert_eq!(&*statement_name(StatementId(7)), b"pgherd_7");
        assert_eq!(
            &*statement_name(StatementId(u64::MAX)),
            b"pgherd_18446744073709551615"
        );
        assert_eq!(&*StatementName::UNNAMED, b"");
    }
}
