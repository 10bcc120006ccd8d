//! What a server still owes: one expectation for each message sent to it, in order, and the walk over its replies that
//! settles them.
//!
//! The walk forwards chunks as they came. It takes out the replies to messages that pgherd sent on its own (hidden),
//! and puts in, at their place in the order, the answers that no server has to give. A reply that was not expected
//! means that we no longer know whose reply it is: an error, and the connection is closed.

mod alias;
mod expect;
mod muted;
mod promise;

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use crate::error::SqlState;
use crate::wire::decode::{self, Status};
use crate::wire::encode;
use crate::wire::frame::{FrameError, HEADER_BYTES, server_header};

pub use alias::Alias;
pub use expect::Expect;
use muted::Muted;
use promise::Descriptions;
pub use promise::{Description, description_in};

/// The longest message that is held back until it is complete; longer ones are judged by their header.
const WHOLE_BYTES_MAX: usize = 16 * 1024;

/// Identifies the text and parameter types of a prepared statement in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(pub u64);

/// What came of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walked {
    /// The part of the chunk to forward behind what was appended to `out`.
    pub run: Range<usize>,
    /// How much of the chunk is done with; the rest must come again, at the front of the next chunk.
    pub consumed: usize,
}

/// The expectations of one server connection and the state of its reply stream.
#[derive(Debug)]
pub struct Replies {
    expected: VecDeque<Expect>,
    /// Bytes of the current message that are still to come.
    pass: usize,
    pass_hidden: bool,
    /// An extended message failed and no Sync was sent yet: the server ignores all until then, and so do we.
    skipping: bool,
    /// Extended messages were sent and no Sync yet: an implicit transaction may be open.
    unsynced: bool,
    /// The server waits for CopyData; it ignores Sync and Flush meanwhile.
    copying_in: bool,
    pub status: Status,
    /// A FATAL of the server, whole: its last words.
    pub last_words: Option<Vec<u8>>,
    /// The error of a hidden message or of a part.
    pub hidden_error: Option<Vec<u8>>,
    /// Every error goes to [`Replies::hidden_error`]: the server answers a part of something.
    pub keep_errors: bool,
    /// Rows that a part's CommandComplete counted.
    pub part_rows: u64,
    /// How many of [`Expect::CountedExecute`] have succeeded.
    pub counted: usize,
    /// Statements whose Parse failed or was skipped: the server does not have them.
    pub unparsed: Vec<StatementId>,
    /// Statements that the server has but whose Parse was skipped: the client does not have them.
    pub unanswered: Vec<StatementId>,
    /// The client has the error of the answer that it waits for.
    told_error: bool,
    /// Close messages of statements that were skipped.
    pub unclosed: usize,
    /// The server reported another value of a parameter.
    pub parameters: Vec<(Box<[u8]>, Box<[u8]>)>,
    muted: Option<Muted>,
    /// A statement was prepared before a table of it changed, and can never be executed again.
    pub outdated_plan: bool,
    /// ErrorResponses that the server sent, hidden ones too.
    errors: u64,
    pub descriptions: Descriptions,
    /// What the server has said to the end, so that a long pipeline can be told from a long statement.
    progress: u64,
    /// The statement was cancelled for taking too long: this error stands for the server's.
    pub overdue: Option<Box<[u8]>>,
    /// Notifications on these channels reach the client in another way.
    pub quiet_channels: BTreeSet<Vec<u8>>,
}

enum Verdict<'a> {
    Forward,
    Hide,
    Replace(Cow<'a, [u8]>),
}

impl Default for Replies {
    fn default() -> Self {
        Self {
            expected: VecDeque::new(),
            pass: 0,
            pass_hidden: false,
            skipping: false,
            unsynced: false,
            copying_in: false,
            status: Status::Idle,
            last_words: None,
            hidden_error: None,
            keep_errors: false,
            part_rows: 0,
            counted: 0,
            unparsed: Vec::new(),
            unanswered: Vec::new(),
            told_error: false,
            unclosed: 0,
            parameters: Vec::new(),
            muted: None,
            outdated_plan: false,
            errors: 0,
            descriptions: Descriptions::default(),
            progress: 0,
            overdue: None,
            quiet_channels: BTreeSet::new(),
        }
    }
}

impl Replies {
    /// Everything sent was answered, to the last byte; a Sync may still be missing.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.expected.is_empty() && self.pass == 0
    }

    /// Nothing is owed and no transaction is open: the server may serve somebody else.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.settled() && !self.unsynced && self.status == Status::Idle && self.last_words.is_none()
    }

    /// The transaction has failed, and nothing that was sent since can have ended it.
    #[must_use]
    pub fn fails_surely(&self) -> bool {
        let harmless = |expect: &Expect| {
            matches!(
                expect,
                Expect::Parse(_)
                    | Expect::HiddenParse(_)
                    | Expect::KnownParse(_)
                    | Expect::HiddenClose
                    | Expect::Bind(_)
                    | Expect::Describe
                    | Expect::DescribeStatement(_)
                    | Expect::Promised(_)
                    | Expect::Answer(_)
            )
        };
        self.status == Status::Failed && self.expected.iter().all(harmless)
    }

    /// The client has the beginning of a message whose rest is still to come.
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        self.pass > 0 && !self.pass_hidden
    }

    /// A Sync is still missing for what was sent.
    #[must_use]
    pub fn unsynced(&self) -> bool {
        self.unsynced
    }

    /// A Sync was sent and not answered.
    #[must_use]
    pub fn syncing(&self) -> bool {
        self.expected.iter().any(Expect::is_sync)
    }

    #[must_use]
    pub fn skipping(&self) -> bool {
        self.skipping
    }

    #[must_use]
    pub fn copying_in(&self) -> bool {
        self.copying_in
    }

    /// How many answers the client waits for, each with a ReadyForQuery of its own, and whether more was sent behind
    /// the last of them.
    #[must_use]
    pub fn owed(&self) -> (usize, bool) {
        let shown = |expect: &&Expect| {
            matches!(
                expect,
                Expect::Query | Expect::QueryInString | Expect::Sync | Expect::PoisonQuery(_)
            )
        };
        let restores = usize::from(self.expected.front() == Some(&Expect::Restore));
        let others = self.expected.iter().filter(shown).count();
        // A Sync of ours ends what the client has not synced itself.
        let hidden = self.expected.contains(&Expect::HiddenSync);
        (others + restores, self.unsynced || hidden)
    }

    /// Until [`Expect::Restore`] has its answer, the client is told of no change of these `reported` parameters.
    pub fn mute_parameters(&mut self, reported: &[(String, String)]) {
        self.muted.get_or_insert_with(|| Muted {
            before: reported.to_vec(),
            now: Vec::new(),
        });
    }

    /// The first of the answers that are owed already has its error, and no other may follow.
    #[must_use]
    pub fn told_error(&self) -> bool {
        self.told_error
    }

    /// What is kept for the client of before concerns nobody any more.
    pub fn forget_client(&mut self) {
        self.keep_errors = false;
        self.hidden_error = None;
        self.part_rows = 0;
        self.counted = 0;
        self.unclosed = 0;
        self.outdated_plan = false;
        self.descriptions = Descriptions::default();
        self.muted = None;
        self.overdue = None;
        self.quiet_channels.clear();
    }

    /// How many ErrorResponses the server sent.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Changes with each statement that the server has ended.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.progress
    }

    /// Notes what a message will be answered with; call it when the message is put in the outbox. An answer that is
    /// due at once is appended to `out`.
    pub fn expect(&mut self, expect: Expect, out: &mut Vec<u8>) {
        match expect {
            Expect::Sync | Expect::HiddenSync if self.copying_in => {}
            Expect::Sync | Expect::HiddenSync => {
                self.skipping = false;
                self.unsynced = false;
                self.expected.push_back(expect);
            }
            _ if self.skipping && !expect.is_simple() => {}
            _ if expect.own_answer().is_some() => {
                self.expected.push_back(expect);
                self.give_answers(out);
            }
            _ => {
                // A Query ends what extended messages began.
                self.unsynced = !expect.is_simple();
                self.expected.push_back(expect);
            }
        }
    }

    /// The client ended its COPY: from now on a Sync counts again.
    pub fn copy_ended(&mut self) {
        if self.copying_in {
            self.copying_in = false;
        } else if !self.expected.is_empty() {
            // Sent before the server said that it takes data, if it will.
            self.expected.push_back(Expect::CopyEnd);
        }
    }

    /// Walks over `chunk`, which starts where the last call left off. What must go to the client before
    /// [`Walked::run`] is appended to `out`.
    pub fn walk(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<Walked, FrameError> {
        let mut at = self.pass.min(chunk.len());
        let mut run = if self.pass_hidden { at } else { 0 };
        self.pass -= at;
        if self.pass == 0 && self.owes_answer() {
            // The message that came in pieces was what an answer of ours waited for.
            out.extend_from_slice(chunk.get(run..at).unwrap_or_default());
            run = at;
            self.give_answers(out);
        }
        while self.pass == 0 {
            let rest = chunk.get(at..).unwrap_or_default();
            let Some(header) = server_header(rest)? else {
                break;
            };
            let whole = rest.get(..header.frame_bytes);
            if header.tag == b'D'
                && whole.is_some()
                && matches!(self.expected.front(), Some(Expect::Query | Expect::Execute))
            {
                // A row for the client: by far the most common message, and nothing follows from it.
                at += header.frame_bytes;
                continue;
            }
            let must_be_whole = must_be_whole(header.tag)
                || self.describes(header.tag)
                || (header.tag == b'A' && !self.quiet_channels.is_empty());
            if whole.is_none() && must_be_whole && header.frame_bytes <= WHOLE_BYTES_MAX {
                break;
            }
            let end = at + whole.map_or(rest.len(), <[u8]>::len);
            let verdict = self.judge(header.tag, whole)?;
            if !matches!(verdict, Verdict::Forward) {
                out.extend_from_slice(chunk.get(run..at).unwrap_or_default());
                run = end;
            }
            if let Verdict::Replace(bytes) = &verdict {
                out.extend_from_slice(bytes);
            }
            if whole.is_none() {
                self.pass = header.frame_bytes - rest.len();
                self.pass_hidden = !matches!(verdict, Verdict::Forward);
                at = end;
                break;
            }
            self.pass_hidden = false;
            at = end;
            if self.owes_answer() {
                out.extend_from_slice(chunk.get(run..at).unwrap_or_default());
                run = at;
                self.give_answers(out);
            }
        }
        Ok(Walked {
            run: run..at,
            consumed: at,
        })
    }

    /// An answer of ours is next.
    fn owes_answer(&self) -> bool {
        let own = |front: &Expect| front.own_answer().is_some();
        self.expected.front().is_some_and(own)
    }

    fn give_answers(&mut self, out: &mut Vec<u8>) {
        while let Some(answer) = self.expected.front().and_then(Expect::own_answer) {
            out.extend_from_slice(answer);
            self.expected.pop_front();
        }
    }

    fn judge<'a>(&mut self, tag: u8, whole: Option<&'a [u8]>) -> Result<Verdict<'a>, FrameError> {
        let front = self.expected.front();
        let hidden = match front {
            Some(Expect::HiddenQuery | Expect::Restore | Expect::Prologue | Expect::Settings) => {
                true
            }
            Some(Expect::PartExecute) => tag != b'D',
            Some(Expect::Part { first }) => tag != b'D' && !(*first && matches!(tag, b'T' | b'N')),
            _ => false,
        };
        let shown = if hidden {
            Verdict::Hide
        } else {
            Verdict::Forward
        };
        if tag == b'C' && matches!(front, Some(Expect::Part { .. } | Expect::PartExecute)) {
            self.part_rows += rows_of_tag(whole)?;
        }
        match tag {
            b't' | b'T' | b'n' if self.describes(tag) => self.described(tag, whole),
            b'D' | b'd' | b'H' | b'W' | b'c' | b'V' | b't' | b'N' => Ok(shown),
            b'A' if self.is_quiet(whole)? => Ok(Verdict::Hide),
            b'A' => Ok(Verdict::Forward),
            b'1' => self.settle(tag, |front| match front {
                Expect::Parse(_) => Some(Verdict::Forward),
                Expect::HiddenParse(_) | Expect::Prologue => Some(Verdict::Hide),
                _ => None,
            }),
            b'2' => self.settle(tag, |front| match front {
                Expect::Bind(_) => Some(Verdict::Forward),
                Expect::HiddenBind | Expect::Prologue => Some(Verdict::Hide),
                _ => None,
            }),
            b'3' => self.settle(tag, |front| match front {
                Expect::Close => Some(Verdict::Forward),
                Expect::HiddenClose => Some(Verdict::Hide),
                _ => None,
            }),
            b'T' | b'n' => {
                self.settle_if(|front| matches!(front, Expect::Describe));
                Ok(shown)
            }
            b'C' | b'I' | b's' => {
                self.copying_in = false;
                self.progress += 1;
                let counts = self.expected.front() == Some(&Expect::CountedExecute);
                self.counted += usize::from(counts);
                self.settle_if(|front| {
                    matches!(
                        front,
                        Expect::Execute
                            | Expect::CountedExecute
                            | Expect::PartExecute
                            | Expect::Prologue
                    )
                });
                Ok(shown)
            }
            b'G' => {
                self.begin_copy_in();
                Ok(shown)
            }
            b'S' => {
                if let Some(body) = whole.and_then(|whole| whole.get(HEADER_BYTES..)) {
                    let (name, value) = decode::parameter_status(body)?;
                    self.parameters.push((name.into(), value.into()));
                    let adopts = self.expected.front() == Some(&Expect::Settings);
                    if let Some(muted) = &mut self.muted {
                        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                        if adopts {
                            muted.was(&text(name), &text(value));
                        } else {
                            muted.now.push((text(name), text(value)));
                        }
                        return Ok(Verdict::Hide);
                    }
                }
                Ok(shown)
            }
            b'E' => {
                let verdict = self.failed(whole)?;
                self.told_error |= !matches!(verdict, Verdict::Hide);
                Ok(verdict)
            }
            b'Z' => self.ready(whole),
            _ => Err(FrameError::Malformed {
                tag,
                what: "was not expected from a logged-in server",
            }),
        }
    }

    /// Such a message describes a statement, not a portal or a Query.
    fn describes(&self, tag: u8) -> bool {
        matches!(tag, b't' | b'T' | b'n')
            && matches!(
                self.expected.front(),
                Some(Expect::DescribeStatement(_) | Expect::Promised(_))
            )
    }

    fn described<'a>(
        &mut self,
        tag: u8,
        whole: Option<&'a [u8]>,
    ) -> Result<Verdict<'a>, FrameError> {
        let hidden = matches!(self.expected.front(), Some(Expect::Promised(_)));
        if tag == b't' {
            self.descriptions.parameters(whole);
        } else {
            let description = self.descriptions.columns(tag, whole)?;
            match (self.expected.pop_front(), description) {
                (Some(Expect::DescribeStatement(id)), Some(told)) => {
                    self.descriptions.told.push((id, told));
                }
                (Some(Expect::Promised(promised)), found) if found != Some(promised) => {
                    self.descriptions.broken = true;
                    return Err(FrameError::Malformed {
                        tag,
                        what: "is not what the client was told",
                    });
                }
                _ => {}
            }
        }
        Ok(if hidden {
            Verdict::Hide
        } else {
            Verdict::Forward
        })
    }

    fn is_quiet(&self, notification: Option<&[u8]>) -> Result<bool, FrameError> {
        let body = notification.and_then(|whole| whole.get(HEADER_BYTES..));
        let Some(body) = body.filter(|_| !self.quiet_channels.is_empty()) else {
            return Ok(false);
        };
        let channel = decode::notification(body)?.channel;
        Ok(self.quiet_channels.contains(channel))
    }

    /// The reply settles the first expectation, or nothing we know of.
    fn settle<'a>(
        &mut self,
        tag: u8,
        verdict: impl FnOnce(&Expect) -> Option<Verdict<'a>>,
    ) -> Result<Verdict<'a>, FrameError> {
        let verdict = self.expected.front().and_then(verdict);
        let verdict = verdict.ok_or(FrameError::Malformed {
            tag,
            what: "answers nothing that was asked",
        })?;
        self.expected.pop_front();
        Ok(verdict)
    }

    /// The reply may settle the first expectation; otherwise it is part of a larger one.
    fn settle_if(&mut self, settles: impl FnOnce(&Expect) -> bool) {
        if self.expected.front().is_some_and(settles) {
            self.expected.pop_front();
        }
    }

    /// The server drops every Sync that comes before the end of the client's data; some drivers send one right behind
    /// Execute.
    fn begin_copy_in(&mut self) {
        let mut at = 1;
        while let Some(next) = self.expected.get(at) {
            if *next == Expect::CopyEnd {
                break;
            }
            if next.is_sync() {
                self.expected.remove(at);
            } else {
                at += 1;
            }
        }
        self.copying_in = self.expected.remove(at).is_none();
        let ends = |expect: &Expect| expect.is_sync() || expect.is_simple();
        self.unsynced |= !self.expected.iter().any(ends);
    }

    fn failed<'a>(&mut self, whole: Option<&'a [u8]>) -> Result<Verdict<'a>, FrameError> {
        self.copying_in = false;
        let mut cancelled = false;
        if let Some(whole) = whole {
            let fields = decode::fields(b'E', whole.get(HEADER_BYTES..).unwrap_or_default())?;
            let severity = fields
                .field(b'V')
                .or(fields.field(b'S'))
                .unwrap_or_default();
            self.outdated_plan |= fields.field(b'R') == Some(b"RevalidateCachedQuery");
            if matches!(severity, b"FATAL" | b"PANIC") {
                self.last_words = Some(whole.to_vec());
                return Ok(Verdict::Hide);
            }
            cancelled = fields.field(b'C') == Some(&SqlState::QUERY_CANCELED.0);
        }
        self.errors += 1;
        let verdict = match self.expected.front_mut() {
            None => {
                return Err(FrameError::Malformed {
                    tag: b'E',
                    what: "answers nothing that was asked",
                });
            }
            Some(Expect::Query) => return Ok(self.in_other_words(cancelled)),
            Some(Expect::Prologue | Expect::Settings) => {
                self.last_words = whole.map(<[u8]>::to_vec);
                return Err(FrameError::Malformed {
                    tag: b'E',
                    what: "refuses what comes before the statement",
                });
            }
            Some(_) if self.keep_errors => Verdict::Hide,
            Some(
                Expect::HiddenQuery | Expect::Restore | Expect::Part { .. } | Expect::HiddenBind,
            ) => Verdict::Hide,
            Some(Expect::PoisonQuery(error)) => {
                return Ok(Verdict::Replace(Cow::Owned(error.to_vec())));
            }
            Some(Expect::PoisonParse(error)) => Verdict::Replace(Cow::Owned(error.to_vec())),
            Some(Expect::HiddenClose | Expect::HiddenSync) => Verdict::Hide,
            Some(Expect::Bind(alias)) => whole
                .and_then(|error| alias.put_into(error))
                .map_or(Verdict::Forward, |error| {
                    Verdict::Replace(Cow::Owned(error))
                }),
            Some(_) => self.in_other_words(cancelled),
        };
        if matches!(verdict, Verdict::Hide) {
            self.hidden_error = Some(whole.unwrap_or_default().to_vec());
        }
        if !self.expected.front().is_some_and(Expect::is_simple) {
            self.skip_to_sync();
        }
        Ok(verdict)
    }

    /// The server says that somebody wanted the statement to be cancelled; we know why.
    fn in_other_words<'a>(&mut self, cancelled: bool) -> Verdict<'a> {
        match self.overdue.take() {
            Some(error) if cancelled => Verdict::Replace(Cow::Owned(error.into())),
            _ => Verdict::Forward,
        }
    }

    /// A Query in a pipeline that failed is ignored like the rest, until Sync.
    fn skip_to_sync(&mut self) {
        while let Some(front) = self.expected.front() {
            if front.is_sync() {
                return;
            }
            match self.expected.pop_front() {
                Some(Expect::Parse(Some(id)) | Expect::HiddenParse(Some(id))) => {
                    self.unparsed.push(id);
                }
                Some(Expect::KnownParse(id)) => self.unanswered.push(id),
                Some(Expect::KnownClose) => self.unclosed += 1,
                _ => {}
            }
        }
        self.skipping = true;
        self.unsynced = true;
    }

    fn tell_muted<'a>(&mut self, ready: &'a [u8]) -> Verdict<'a> {
        let Some(muted) = self.muted.take() else {
            return Verdict::Forward;
        };
        let mut told = Vec::new();
        for (name, value) in muted.changes() {
            encode::parameter_status(&mut told, name, value);
        }
        told.extend_from_slice(ready);
        Verdict::Replace(Cow::Owned(told))
    }

    fn ready<'a>(&mut self, whole: Option<&'a [u8]>) -> Result<Verdict<'a>, FrameError> {
        self.copying_in = false;
        self.told_error = false;
        self.progress += 1;
        self.overdue = None;
        self.status = decode::ready_for_query(
            whole
                .and_then(|w| w.get(HEADER_BYTES..))
                .unwrap_or_default(),
        )?;
        if self.expected.get(1) == Some(&Expect::Restore) {
            self.expected.pop_front();
            return Ok(Verdict::Hide);
        }
        if self.expected.front() == Some(&Expect::Restore) {
            self.expected.pop_front();
            return Ok(self.tell_muted(whole.unwrap_or_default()));
        }
        self.settle(b'Z', |front| match front {
            Expect::Query | Expect::Sync | Expect::PoisonQuery(_) => Some(Verdict::Forward),
            Expect::QueryInString
            | Expect::HiddenQuery
            | Expect::Settings
            | Expect::Part { .. }
            | Expect::HiddenSync => Some(Verdict::Hide),
            _ => None,
        })
    }
}

fn must_be_whole(tag: u8) -> bool {
    matches!(tag, b'Z' | b'E' | b'S' | b'C')
}

/// The count at the end of a tag such as `SELECT 3`.
fn rows_of_tag(whole: Option<&[u8]>) -> Result<u64, FrameError> {
    let tag = decode::command_complete(
        whole
            .and_then(|whole| whole.get(HEADER_BYTES..))
            .unwrap_or_default(),
    )?;
    let count = tag
        .rsplit(|&byte| byte == b' ')
        .next()
        .and_then(|word| std::str::from_utf8(word).ok());
    Ok(count.and_then(|word| word.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests;
