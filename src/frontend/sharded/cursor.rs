//! Cursors of SQL: each belongs to the shard that its query is proven to need, and FETCH, MOVE and CLOSE find it there
//! until its transaction ends.
//!
//! What would surprise: a cursor is also a portal of its name, and some drivers ask for its columns by that. FETCH is
//! never kept as a prepared statement, since its columns would be those of the cursor that had the name before.

use super::extended::work;
use super::plans::Work;
use super::standing::Place;
use super::{Portal, Run};
use crate::backend::replies::{Alias, Expect};
use crate::frontend::session::{Held, Session};
use crate::frontend::statements::Prepared;
use crate::frontend::transaction::Step;
use crate::frontend::trouble::{SessionError, Trouble};
use crate::names::ShardId;
use crate::planner::{Effect, Number, Refusal, Target};
use crate::sql::scan::{Kind, Verb, tokens, verb};
use crate::wire::decode;
use crate::wire::encode;
use crate::wire::frame::Frame;

/// A statement about a cursor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cursor<'a> {
    Declare {
        name: Vec<u8>,
        holds: bool,
        query: &'a [u8],
    },
    /// FETCH or MOVE.
    Read(Vec<u8>),
    Close(Vec<u8>),
    CloseAll,
}

impl<'a> Cursor<'a> {
    /// `None` where it is another statement, or none that can be told for sure.
    pub fn of(statement: &'a [u8]) -> Option<Cursor<'a>> {
        match verb(statement) {
            Verb::Declare => declared(statement),
            Verb::Fetch | Verb::Move => last_name(statement).map(Cursor::Read),
            Verb::Close => {
                let words: Vec<&[u8]> = words(statement).map(|(_, word)| word).collect();
                match words.as_slice() {
                    [_, all] if all.eq_ignore_ascii_case(b"all") => Some(Cursor::CloseAll),
                    [_, name] => self::name(name).map(Cursor::Close),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// What its success changes in what is known of the transaction.
    fn step(self, shard: ShardId) -> Option<Step> {
        match self {
            Cursor::Declare { name, .. } => Some(Step::Cursor { name, shard }),
            Cursor::Close(name) => Some(Step::CloseCursor(Some(name))),
            Cursor::CloseAll => Some(Step::CloseCursor(None)),
            Cursor::Read(_) => None,
        }
    }
}

fn words(statement: &[u8]) -> impl Iterator<Item = (Kind, &[u8])> {
    tokens(statement, true).map(|token| {
        let word = statement.get(token.span).unwrap_or_default();
        (token.kind, word)
    })
}

/// `DECLARE name [options] CURSOR [WITH HOLD] FOR query`.
fn declared(statement: &[u8]) -> Option<Cursor<'_>> {
    let mut name = None;
    let mut holds = false;
    let mut without = false;
    for (index, token) in tokens(statement, true).enumerate().skip(1) {
        let word = statement.get(token.span.clone())?;
        let is = |other: &str| word.eq_ignore_ascii_case(other.as_bytes());
        if index == 1 {
            name = Some(self::name(word)?);
        } else if is("without") {
            without = true;
        } else if is("hold") {
            holds = !without;
        } else if is("for") {
            return Some(Cursor::Declare {
                name: name?,
                holds,
                query: statement.get(token.span.end..)?,
            });
        } else if !OPTIONS.iter().any(|option| is(option)) {
            return None;
        }
    }
    None
}

/// What stands between a cursor's name and FOR.
const OPTIONS: &[&str] = &[
    "binary",
    "asensitive",
    "insensitive",
    "no",
    "scroll",
    "cursor",
    "with",
];

/// The cursor is named at the end, behind any direction.
fn last_name(statement: &[u8]) -> Option<Vec<u8>> {
    let (_, last) = words(statement).skip(1).last()?;
    name(last)
}

/// A name as the server keeps it, read as that of a savepoint is.
fn name(word: &[u8]) -> Option<Vec<u8>> {
    match verb(&[b"SAVEPOINT ", word].concat()) {
        Verb::Savepoint { name } => Some(name.into_owned()),
        _ => None,
    }
}

impl Session {
    /// The shard of the cursor that a statement names: a server says that there is none.
    fn shard_of_cursor(&self, cursor: &Cursor<'_>) -> Result<ShardId, Trouble> {
        let known = match cursor {
            Cursor::Read(name) | Cursor::Close(name) => self.sharded.begun.cursor(name),
            Cursor::CloseAll if self.is_spread() => {
                let what = "CLOSE ALL in a transaction on several shards";
                return Err(Refusal::about(Number::Cursor, what).into());
            }
            Cursor::CloseAll | Cursor::Declare { .. } => None,
        };
        match known {
            Some(shard) => Ok(shard),
            None => match self.place(Target::Any, false, Effect::Read)? {
                Place::Shard(shard) => Ok(shard),
                Place::Several(_) => Err(SessionError::Internal("a cursor has one shard").into()),
            },
        }
    }

    /// A name that a cursor of another shard has is not free.
    pub(super) fn check_cursor(&self, statement: &[u8], shard: ShardId) -> Result<(), Trouble> {
        if let Some(Cursor::Declare { name, .. }) = Cursor::of(statement)
            && self
                .sharded
                .begun
                .cursor(&name)
                .is_some_and(|known| known != shard)
        {
            let name = String::from_utf8_lossy(&name).into_owned();
            return Err(SessionError::CursorExists(name).into());
        }
        Ok(())
    }

    /// DECLARE, FETCH, MOVE and CLOSE as a Query. `declares`: where it was planned to run.
    pub(super) async fn query_cursor(
        &mut self,
        message: &[u8],
        statement: &[u8],
        declares: Option<(ShardId, Effect)>,
    ) -> Result<(), Trouble> {
        let cursor = cursor(statement)?;
        let (shard, effect) = match declares {
            Some(place) => place,
            None => (self.shard_of_cursor(&cursor)?, Effect::Read),
        };
        self.check_cursor(statement, shard)?;
        if !self.stand_on(shard, effect).await? {
            return Ok(());
        }
        let Some(held) = &mut self.held else {
            return Ok(());
        };
        let server = &mut held.server;
        server.unnamed = None;
        let errors = server.replies.errors();
        server.send(message, Expect::Query, self.client.outbox());
        let Some(step) = cursor.step(shard).filter(|_| self.is_in_block()) else {
            return Ok(());
        };
        self.settle().await?;
        let unchanged = |held: &Held| held.server.replies.errors() == errors;
        if self.held.as_ref().is_some_and(unchanged) {
            self.sharded.begun.succeeds(step);
        }
        Ok(())
    }

    /// FETCH, MOVE and CLOSE as a Bind.
    pub(super) async fn bind_cursor(
        &mut self,
        prepared: &Prepared,
        names: &decode::BindNames<'_>,
    ) -> Result<Option<Run>, Trouble> {
        let cursor = cursor(super::command::only_statement(prepared.text()))?;
        let shard = self.shard_of_cursor(&cursor)?;
        if !self.stand_on(shard, Effect::Read).await? {
            return Ok(None);
        }
        self.parse_on_held(prepared);
        if let Some(held) = &mut self.held {
            let answers = self.client.outbox();
            encode::bind(held.server.outbox(), names.portal, b"", names.tail);
            let bound = Expect::Bind(Alias::new(names.statement));
            held.server.replies.expect(bound, answers);
        }
        Ok(Some(match cursor {
            Cursor::Read(_) => Run::On(shard),
            _ => Run::Counts(shard),
        }))
    }

    fn parse_on_held(&mut self, prepared: &Prepared) {
        if let Some(held) = &mut self.held {
            held.server.unnamed = None;
            encode::parse(held.server.outbox(), b"", &prepared.tail);
            let answers = self.client.outbox();
            held.server
                .replies
                .expect(Expect::HiddenParse(None), answers);
        }
    }

    /// Describe of a FETCH: its columns are those of its cursor.
    pub(super) async fn describe_cursor_statement(
        &mut self,
        prepared: &Prepared,
    ) -> Result<(), Trouble> {
        let cursor = cursor(super::command::only_statement(prepared.text()))?;
        let shard = self.shard_of_cursor(&cursor)?;
        if !self.stand_on(shard, Effect::Read).await? {
            return Ok(());
        }
        self.parse_on_held(prepared);
        if let Some(held) = &mut self.held {
            encode::describe_statement(held.server.outbox(), b"");
        }
        self.expect(Expect::Describe);
        Ok(())
    }

    /// The shard of a portal that its server describes: one of FETCH, or the cursor of this name itself.
    pub(super) fn describes_itself(&self, name: &[u8]) -> Option<ShardId> {
        match self.sharded.portals.get(name) {
            Some(Portal { prepared, run, .. }) => match (work(prepared), run) {
                (Ok(Work::Cursor), Run::On(shard) | Run::Counts(shard)) => Some(*shard),
                _ => None,
            },
            None => self.sharded.begun.cursor(name),
        }
    }

    /// A message about a portal, to the server that has it.
    pub(super) async fn pass_to_portal(
        &mut self,
        frame: Frame<'_>,
        shard: ShardId,
        expect: Expect,
    ) -> Result<(), Trouble> {
        if self.stand_on(shard, Effect::Read).await? {
            self.send_to_held(frame.whole, expect);
        }
        Ok(())
    }

    /// Execute of DECLARE or CLOSE.
    pub(super) async fn execute_counted(
        &mut self,
        frame: Frame<'_>,
        prepared: &Prepared,
        shard: ShardId,
    ) -> Result<(), Trouble> {
        let cursor = cursor(super::command::only_statement(prepared.text()))?;
        if !self.stand_on(shard, Effect::Read).await? {
            return Ok(());
        }
        self.send_to_held(frame.whole, Expect::CountedExecute);
        if let Some(step) = cursor.step(shard) {
            self.sharded.begun.is_sent(step);
        }
        Ok(())
    }
}

fn cursor(statement: &[u8]) -> Result<Cursor<'_>, Trouble> {
    Cursor::of(statement).ok_or_else(|| SessionError::Internal("a cursor was expected").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_found_by_their_names() {
        let declare = |name: &str, holds, query| {
            Some(Cursor::Declare {
                name: name.into(),
                holds,
                query,
            })
        };
        for (text, expected) in [
            (
                "DECLARE c CURSOR FOR SELECT 1",
                declare("c", false, &b" SELECT 1"[..]),
            ),
            (
                "declare \"A b\" binary no scroll cursor without hold for VALUES (1)",
                declare("A b", false, b" VALUES (1)"),
            ),
            (
                "DECLARE C SCROLL CURSOR WITH HOLD FOR TABLE x",
                declare("c", true, b" TABLE x"),
            ),
            ("DECLARE U&\"c\" CURSOR FOR SELECT 1", None),
            ("DECLARE c CURSOR SELECT 1", None),
            ("DECLARE c STRANGE CURSOR FOR SELECT 1", None),
            ("FETCH c", Some(Cursor::Read(b"c".to_vec()))),
            (
                "FETCH BACKWARD ALL IN \"C\"",
                Some(Cursor::Read(b"C".to_vec())),
            ),
            (
                "MOVE ABSOLUTE -1 FROM c /* x */",
                Some(Cursor::Read(b"c".to_vec())),
            ),
            ("FETCH", None),
            ("FETCH 1", None),
            ("CLOSE C", Some(Cursor::Close(b"c".to_vec()))),
            ("CLOSE \"all\"", Some(Cursor::Close(b"all".to_vec()))),
            ("CLOSE ALL", Some(Cursor::CloseAll)),
            ("CLOSE a b", None),
            ("SELECT 1", None),
        ] {
            assert_eq!(Cursor::of(text.as_bytes()), expected, "{text}");
        }
    }
}
