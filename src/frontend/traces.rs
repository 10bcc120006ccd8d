//! What a statement on one shard would leave behind in its server's session, told by its first words: it pins the
//! session to that server. What only names prepared statements is answered here, where the client's names are known.

use super::session::Session;
use super::single::{ONLY, only_verb};
use super::trouble::Trouble;
use crate::backend::replies::Expect;
use crate::backend::settings::changes_reading;
use crate::sql::scan;
use crate::sql::scan::{Discard, Verb, verb};
use crate::wire::decode::Status;
use crate::wire::encode;

/// A statement that is there to be deallocated, and the Parse message that does it, behind its name.
const SCRAP: &[u8] = b"pgherd_scrap";
pub(super) const DEALLOCATE_SCRAP: &[u8] = b"DEALLOCATE pgherd_scrap\0\0\0";

impl Session {
    /// Looks for what would outlive the transaction in the server's session. `true`: the session answers it alone.
    pub(super) fn notice_text(&mut self, text: &[u8]) -> bool {
        if scan::is_plain_query(text) {
            return false;
        }
        if !scan::is_single(text, true) {
            for range in scan::split(text, true) {
                self.notice(text.get(range).unwrap_or_default(), false);
            }
            return false;
        }
        !self.is_in_failed_transaction() && self.notice(text, true)
    }

    /// The server refuses all but the end of its transaction: nothing else leaves a trace.
    pub(super) fn is_in_failed_transaction(&self) -> bool {
        self.held.as_ref().is_some_and(|held| {
            let replies = &held.server.replies;
            replies.status == Status::Failed && replies.settled()
        })
    }

    pub(super) fn notice(&mut self, statement: &[u8], alone: bool) -> bool {
        let cause = match verb(statement) {
            Verb::Deallocate { name: Some(name) } if alone => return self.statements.remove(&name),
            Verb::Deallocate { name: None } | Verb::Discard(Discard::All) => {
                self.statements.clear();
                // Without a pin there is nothing else to drop. In a transaction DISCARD is an error.
                let deallocates = matches!(verb(statement), Verb::Deallocate { .. });
                if alone && self.pinned.is_none() && (deallocates || self.held.is_none()) {
                    return true;
                }
                self.rereads = true;
                "DISCARD or DEALLOCATE"
            }
            Verb::SetLocal { name } => {
                self.rereads |= changes_reading(&name);
                return false;
            }
            Verb::SetSession { name } => {
                self.rereads |= changes_reading(&name);
                "SET"
            }
            Verb::Reset { name } => {
                self.rereads |= name.is_none_or(|name| changes_reading(&name));
                "RESET"
            }
            Verb::Listen => "LISTEN",
            Verb::Prepare { .. } | Verb::Execute { .. } | Verb::Deallocate { .. } => "PREPARE",
            Verb::Create { temp: true } => "temporary object",
            Verb::Load => "LOAD",
            Verb::Discard(_) => "DISCARD",
            Verb::Declare if has_word(statement, b"hold") => "cursor WITH HOLD",
            _ => return false,
        };
        self.pin(cause);
        false
    }

    fn pin(&mut self, cause: &'static str) {
        if self.pinned.is_none() {
            self.pinned = Some(cause);
            tracing::info!(
                database = %self.database.config.name, client = self.entry.pid, cause,
                "the session keeps its server from now on"
            );
        }
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
        self.hold(ONLY).await?;
        let (Some(held), answers) = (&mut self.held, self.client.outbox()) else {
            return Ok(false);
        };
        // One that was never deallocated may be there.
        encode::close_statement(held.server.outbox(), SCRAP);
        held.server.replies.expect(Expect::HiddenClose, answers);
        encode::parse(held.server.outbox(), SCRAP, b"SELECT 1\0\0\0");
        held.server
            .replies
            .expect(Expect::HiddenParse(None), answers);
        Ok(true)
    }
}

pub(super) fn drops_statements(text: &[u8]) -> bool {
    !scan::is_plain_query(text)
        && matches!(
            only_verb(text),
            Verb::Deallocate { .. } | Verb::Discard(Discard::All)
        )
}

fn has_word(statement: &[u8], word: &[u8]) -> bool {
    statement
        .windows(word.len())
        .any(|window| window.eq_ignore_ascii_case(word))
}
