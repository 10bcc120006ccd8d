//! BEGIN, COMMIT, savepoints and what clears a session: answered here while no server knows of the transaction, by the
//! held server otherwise.

use crate::backend::replies::Expect;
use crate::error::{Severity, SqlState};
use crate::frontend::session::Session;
use crate::frontend::transaction::{Begun, Transaction};
use crate::frontend::trouble::{SessionError, Trouble};
use crate::planner::Effect;
use crate::sql::scan;
use crate::sql::scan::{Discard, Modes, Verb, verb};
use crate::sql::setting::{Change, change};
use crate::wire::encode;

use super::spread::Message;

/// Settings that change what a text means; the plan presumes those of the catalogue.
const MEANINGS: &[&str] = &[
    "array_nulls",
    "client_encoding",
    "names",
    "role",
    "search_path",
    "schema",
    "session authorization",
    "session_authorization",
    "standard_conforming_strings",
    "transform_null_equals",
];

/// Whether a setting changes what statements mean.
pub(in crate::frontend) fn changes_meaning(name: &str) -> bool {
    MEANINGS
        .iter()
        .any(|meaning| name.eq_ignore_ascii_case(meaning))
}

impl Session {
    /// Runs a command as far as it is ours. `Some` is the answer, up to its CommandComplete; `None`: a server must
    /// say it, the held one or else the authoritative one.
    pub(super) fn command(&mut self, text: &[u8]) -> Result<Option<Vec<u8>>, Trouble> {
        let text = only_statement(text);
        let verb = verb(text);
        match &verb {
            Verb::Discard(_) | Verb::Deallocate { .. } | Verb::Unlisten => {
                return self.clear(&verb, text);
            }
            _ => {}
        }
        if self.is_in_block() {
            return Ok(None);
        }
        Ok(match std::mem::take(&mut self.transaction) {
            Transaction::Begun(begun) => self.inside(begun, &verb, text),
            outside => {
                self.transaction = outside;
                self.outside(&verb, text)
            }
        })
    }

    /// Whether a server is asked of a command before it is run: see [`Session::command_asking`].
    pub(super) fn asks_before(&self, text: &[u8]) -> bool {
        let begun = matches!(self.transaction, Transaction::Begun(_));
        match verb(only_statement(text)) {
            Verb::SetSession { .. } | Verb::SetLocal { .. } | Verb::Reset { .. } => true,
            Verb::SetConstraints => begun,
            _ => false,
        }
    }

    /// [`Session::command`], where a server is asked before.
    pub(super) async fn command_asking(&mut self, text: &[u8]) -> Result<Option<Vec<u8>>, Trouble> {
        let text = only_statement(text);
        if let Some(change) = change(text) {
            return self.before_change(&change, text, true).await;
        }
        let local = Change {
            local: true,
            ..Change::default()
        };
        self.set_in_begun(&local, text).await
    }

    /// In a transaction that no server knows.
    fn inside(&mut self, mut begun: Begun, verb: &Verb<'_>, text: &[u8]) -> Option<Vec<u8>> {
        let (answer, goes_on) = match verb {
            // A warning, and yet its modes are set, or PostgreSQL says why not.
            Verb::Begin { modes, .. } if *modes != Modes::default() && begun.has_savepoints() => {
                (None, true)
            }
            Verb::Begin {
                modes,
                well_formed: true,
            } => {
                if *modes != Modes::default() {
                    begun.set_transaction(text);
                }
                let mut answer = warning(
                    SqlState::ACTIVE_SQL_TRANSACTION,
                    "there is already a transaction in progress",
                );
                encode::command_complete(&mut answer, begin_tag(text));
                (Some(answer), true)
            }
            // What stays is known once a server has run it all.
            Verb::Commit {
                well_formed: true, ..
            } if begun.leaves_settings() => (None, true),
            Verb::Commit {
                chain,
                well_formed: true,
            } => (Some(tag("COMMIT")), *chain),
            Verb::Rollback {
                chain,
                well_formed: true,
            } => (Some(tag("ROLLBACK")), *chain),
            Verb::Savepoint { name } => {
                begun.savepoint(name);
                (Some(tag("SAVEPOINT")), true)
            }
            Verb::Release { name } => (begun.release(name).then(|| tag("RELEASE")), true),
            Verb::RollbackTo { name } => (begun.roll_back_to(name).then(|| tag("ROLLBACK")), true),
            Verb::SetTransaction {
                well_formed: true, ..
            } if !begun.has_savepoints() => {
                begun.set_transaction(text);
                (Some(tag("SET")), true)
            }
            _ => (None, true),
        };
        if goes_on {
            if matches!(verb, Verb::Commit { .. } | Verb::Rollback { .. }) && answer.is_some() {
                begun.chain();
            }
            self.transaction = Transaction::Begun(begun);
        }
        answer
    }

    fn outside(&mut self, verb: &Verb<'_>, text: &[u8]) -> Option<Vec<u8>> {
        match verb {
            Verb::Begin {
                well_formed: true, ..
            } => {
                self.sharded.stays = None;
                self.transaction = Transaction::Begun(Begun::new(text));
                Some(tag(begin_tag(text)))
            }
            Verb::Commit {
                chain: false,
                well_formed: true,
            } => {
                let mut answer = no_transaction();
                encode::command_complete(&mut answer, "COMMIT");
                Some(answer)
            }
            Verb::Rollback {
                chain: false,
                well_formed: true,
            } => {
                let mut answer = no_transaction();
                encode::command_complete(&mut answer, "ROLLBACK");
                Some(answer)
            }
            // A warning without effect, or an error: PostgreSQL has the words.
            _ => None,
        }
    }

    /// Commands that drop state of the session: settings, and prepared statements.
    fn clear(&mut self, verb: &Verb<'_>, text: &[u8]) -> Result<Option<Vec<u8>>, Trouble> {
        let in_transaction = self.is_in_block() || !self.transaction.is_idle();
        Ok(Some(tag(match verb {
            Verb::Deallocate { name: Some(name) } => {
                if !self.statements.remove(name) {
                    if self.may_have_prepared(name) {
                        self.stays("DEALLOCATE")?;
                        self.note_change(text);
                        return Ok(None);
                    }
                    let name = String::from_utf8_lossy(name).into_owned();
                    return Err(SessionError::NoStatement(name).into());
                }
                "DEALLOCATE"
            }
            Verb::Deallocate { name: None } => {
                let asks = self.may_have_prepared(b"");
                if asks {
                    self.stays("DEALLOCATE")?;
                }
                self.statements.clear();
                if asks {
                    self.note_change(text);
                    self.rereads = true;
                    return Ok(None);
                }
                "DEALLOCATE ALL"
            }
            Verb::Unlisten => "UNLISTEN",
            Verb::Discard(Discard::Plans) => "DISCARD PLANS",
            Verb::Discard(Discard::Sequences) => "DISCARD SEQUENCES",
            Verb::Discard(Discard::All) if !in_transaction => return Ok(self.discards_all(text)),
            Verb::Discard(Discard::Temp) => "DISCARD TEMP",
            // An error, in PostgreSQL's words.
            _ => return Ok(None),
        })))
    }

    /// A command as an extended message: by the held server, with its own words, or by us.
    pub(super) async fn execute_command(&mut self, text: &[u8]) -> Result<(), Trouble> {
        let owed = self
            .held
            .as_ref()
            .is_some_and(|held| !held.server.replies.settled());
        if owed && !(self.is_in_block() && is_passed_on(text)) {
            // What the session itself does cannot be skipped any more when something before it fails.
            self.settle_earlier().await?;
            if self.is_skipping() {
                return Ok(());
            }
        }
        if self.held.is_some() && !self.is_in_block() && is_of_transactions(text) {
            // What came before in the pipeline would belong to the transaction that this begins or ends.
            if !Box::pin(self.leave_shard(Effect::Read)).await? {
                return Ok(());
            }
        }
        let answer = if self.asks_before(text) {
            Box::pin(self.command_asking(text)).await?
        } else {
            self.command(text)?
        };
        if let Some(answer) = answer {
            self.answer(answer);
            return Ok(());
        }
        if self.is_in_block() && self.held.is_some() {
            self.before_noted();
            return self.command_inside(Message::Execute, text).await;
        }
        let shard = self.shard_at_hand();
        if !self.stand_on(shard, Effect::Read).await? {
            return Ok(());
        }
        self.put_command(text, Expect::Execute);
        Ok(())
    }

    /// A command of the client to the held server, as extended messages; its Parse and Bind were answered by us.
    pub(super) fn put_command(&mut self, text: &[u8], expect: Expect) {
        let (Some(held), answers) = (&mut self.held, self.client.outbox()) else {
            return;
        };
        held.server.unnamed = None;
        encode::parse(held.server.outbox(), b"", &[text, b"\0\0\0"].concat());
        held.server
            .replies
            .expect(Expect::HiddenParse(None), answers);
        encode::bind(held.server.outbox(), b"", b"", b"\0\0\0\0\0\0");
        held.server.replies.expect(Expect::HiddenBind, answers);
        encode::execute(held.server.outbox(), b"", 0);
        held.server.replies.expect(expect, answers);
    }
}

/// The first statement of a text, without its semicolon.
pub(super) fn only_statement(text: &[u8]) -> &[u8] {
    let first = scan::split(text, true).into_iter().next();
    first
        .and_then(|statement| text.get(statement))
        .unwrap_or_default()
}

/// Whether the server of an open transaction runs the command, not the session.
fn is_passed_on(text: &[u8]) -> bool {
    !matches!(
        verb(text),
        Verb::Reset { .. } | Verb::Discard(_) | Verb::Deallocate { .. } | Verb::Unlisten
    )
}

/// BEGIN, COMMIT or ROLLBACK.
fn is_of_transactions(text: &[u8]) -> bool {
    matches!(
        verb(only_statement(text)),
        Verb::Begin { .. } | Verb::Commit { .. } | Verb::Rollback { .. }
    )
}

pub(super) fn tag(tag: &str) -> Vec<u8> {
    let mut answer = Vec::new();
    encode::command_complete(&mut answer, tag);
    answer
}

fn no_transaction() -> Vec<u8> {
    warning(
        SqlState::NO_ACTIVE_SQL_TRANSACTION,
        "there is no transaction in progress",
    )
}

fn warning(state: SqlState, text: &str) -> Vec<u8> {
    let mut answer = Vec::new();
    encode::notice(&mut answer, Severity::Warning, state, text);
    answer
}

/// BEGIN and START TRANSACTION have tags of their own.
fn begin_tag(text: &[u8]) -> &'static str {
    let start = scan::tokens(text, true).next().is_some_and(|first| {
        text.get(first.span)
            .is_some_and(|word| word.eq_ignore_ascii_case(b"start"))
    });
    if start { "START TRANSACTION" } else { "BEGIN" }
}
