//! What is expected of a server: one of these for each message that was sent to it.

use bytes::Bytes;

use super::{Alias, Description, StatementId};
use crate::wire::encode;

/// What one message to the server will be answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// A Query or FunctionCall of the client: anything up to ReadyForQuery.
    Query,
    /// A Query of one statement of the client's string: ReadyForQuery is not shown, since others follow or we say it.
    QueryInString,
    /// A Query of ours: the same, and none of it is shown.
    HiddenQuery,
    /// A Query of ours that completes the one or the Sync before it: their ReadyForQuery is not shown, this one is, and
    /// in front of it what parameters have become ([`Replies::mute_parameters`](super::Replies::mute_parameters)).
    Restore,
    /// Parse, Bind and Execute, three of these, of BEGIN or what follows it, sent late. Nothing is shown. After an error
    /// the server skips what was sent behind it, and the connection is given up.
    Prologue,
    /// A Query of ours that brings the settings of the client, in front of its own messages. Nothing is shown. After an
    /// error what follows ran under other settings, and the connection is given up.
    Settings,
    /// One shard's part of an answer to a Query, up to ReadyForQuery: its rows are shown, its description only where
    /// `first`; tag and error are kept for whoever puts the parts together.
    Part {
        first: bool,
    },
    /// The same of an Execute. Used where [`Replies::keep_errors`](super::Replies::keep_errors) holds.
    PartExecute,
    Sync,
    HiddenSync,
    Parse(Option<StatementId>),
    HiddenParse(Option<StatementId>),
    /// The client's name of the statement, for the server's errors.
    Bind(Alias),
    HiddenBind,
    Describe,
    /// Describe of a statement, whose answer holds from then on.
    DescribeStatement(StatementId),
    /// Describe of ours: the statement must be what a client was told.
    Promised(Description),
    Execute,
    /// Execute of a command that the session keeps account of, once it has succeeded.
    CountedExecute,
    Close,
    HiddenClose,
    /// Not sent at all: these bytes are the answer, once everything before was answered.
    Answer(Bytes),
    /// The client's CopyDone or CopyFail: no answer of its own. It marks which Syncs the server read during the COPY.
    CopyEnd,
    /// A Parse that is not sent either, since the server has the statement.
    KnownParse(StatementId),
    /// A Close that is not sent, since the server keeps the statement.
    KnownClose,
    /// A Query that was sent to fail: its error is replaced by this one.
    PoisonQuery(Box<[u8]>),
    /// The same with a Parse.
    PoisonParse(Box<[u8]>),
}

impl Expect {
    /// Ends the skipping of a failed pipeline.
    pub(super) fn is_sync(&self) -> bool {
        matches!(self, Expect::Sync | Expect::HiddenSync)
    }

    /// Takes its place in the order without being sent.
    pub(super) fn own_answer(&self) -> Option<&[u8]> {
        match self {
            Expect::Answer(bytes) => Some(bytes),
            Expect::KnownParse(_) => Some(encode::PARSE_COMPLETE),
            Expect::KnownClose => Some(encode::CLOSE_COMPLETE),
            Expect::CopyEnd => Some(b""),
            _ => None,
        }
    }

    pub(super) fn is_simple(&self) -> bool {
        matches!(
            self,
            Expect::Query
                | Expect::QueryInString
                | Expect::HiddenQuery
                | Expect::Settings
                | Expect::Restore
                | Expect::Part { .. }
                | Expect::PoisonQuery(_)
        )
    }
}
