//! What can go wrong with a request, and what it means for the session.

use std::io;

use crate::backend::pool::PoolError;
use crate::backend::server::Lost;
use crate::error::{Blame, Report, Severity, SqlState};
use crate::execute::Broken;
use crate::planner::Refusal;
use crate::registry::Overdue;
use crate::wire::frame::FrameError;

const MIB: u64 = 1024 * 1024;

/// Why a request did not come to its end.
#[derive(Debug)]
pub enum Trouble {
    /// The client gets this error and the session goes on.
    Tell(Box<dyn Report + Send + Sync>),
    /// The same, for what is not supported.
    Refuse(Refusal),
    /// The same, in a server's own words: a whole ErrorResponse.
    Relay(Vec<u8>),
    /// What came before it in its pipeline has failed: it is ignored.
    Skipped,
    /// The server that the session had is gone.
    Lost(Lost),
    End(End),
}

/// Why a session ends.
#[derive(Debug)]
pub enum End {
    /// Terminate, or the end of the stream between two requests.
    Left,
    /// The connection broke.
    Broken(io::Error),
    /// The client's bytes make no sense.
    Malformed(FrameError),
    /// We were asked to end it.
    Asked,
    /// The client took too long.
    Overdue(Overdue),
    /// We were asked to end it and it did not come to rest in time.
    OutOfTime,
    /// The server that had the session's state is gone.
    Bereft(Lost),
    /// The server is gone in the middle of a message of which the client has the beginning: nothing can be said any more.
    Cut(Lost),
}

impl From<Broken> for Trouble {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Client(error) => Trouble::End(End::Broken(error)),
            Broken::Server(lost) => Trouble::Lost(lost),
        }
    }
}

impl From<Lost> for Trouble {
    fn from(lost: Lost) -> Self {
        Trouble::Lost(lost)
    }
}

impl From<FrameError> for Trouble {
    fn from(error: FrameError) -> Self {
        Trouble::End(End::Malformed(error))
    }
}

impl From<End> for Trouble {
    fn from(end: End) -> Self {
        Trouble::End(end)
    }
}

impl From<PoolError> for Trouble {
    fn from(error: PoolError) -> Self {
        Trouble::Tell(Box::new(error))
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Trouble::Refuse(refusal)
    }
}

impl From<SessionError> for Trouble {
    fn from(error: SessionError) -> Self {
        Trouble::Tell(Box::new(error))
    }
}

/// Errors that the session itself finds; texts and codes are PostgreSQL's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error("current transaction is aborted, commands ignored until end of transaction block")]
    InFailedTransaction,
    #[error("prepared statement \"{0}\" does not exist")]
    NoStatement(String),
    #[error("unnamed prepared statement does not exist")]
    NoUnnamedStatement,
    #[error("prepared statement \"{0}\" already exists")]
    StatementExists(String),
    #[error("portal \"{0}\" does not exist")]
    NoPortal(String),
    #[error("portal \"{0}\" already exists")]
    PortalExists(String),
    #[error("cursor \"{0}\" already exists")]
    CursorExists(String),
    #[error("portal \"{0}\" cannot be run")]
    PortalDone(String),
    #[error("bind message supplies parameters, but the prepared statement requires 0")]
    ParameterCount,
    #[error("cached plan must not change result type")]
    ResultTypeChanged,
    #[error("a table of this statement was made after pgherd read the schema")]
    SchemaChanged,
    #[error("the last values of sequences may be those of another client")]
    ForeignSequences,
    #[error("transaction blocks not allowed in statement pooling mode")]
    NoTransactions,
    #[error("session state is not allowed here: {0}")]
    NoSessionState(&'static str),
    #[error("terminating connection due to administrator command")]
    Ended,
    #[error("canceling statement due to user request")]
    Cancelled,
    #[error("{}", overdue_text(*.0))]
    Overdue(Overdue),
    #[error("no such database: {0}")]
    NoDatabase(String),
    #[error("too many databases are in use")]
    TooManyDatabases,
    #[error("no more connections allowed (clients_max)")]
    TooManyClients,
    #[error("pgherd is short of memory and takes no new work")]
    OutOfMemory { resident: u64, limit: u64 },
    /// A section of the file, such as `databases.shop`.
    #[error("client connections exceeded ({0}.clients_max)")]
    TooManyClientsOf(String),
    #[error("the login took longer than {0} s")]
    LoginTimeout(u64),
    #[error("it is not clear which server is to be replicated")]
    WhichServer,
    #[error("the message needs more than is there: {0}")]
    Internal(&'static str),
}

/// PostgreSQL's words for its own time-outs.
fn overdue_text(overdue: Overdue) -> &'static str {
    match overdue {
        Overdue::Query => "canceling statement due to statement timeout",
        Overdue::Cancel => {
            "terminating connection: the server does not cancel a statement that took too long"
        }
        Overdue::Transaction => "terminating connection due to transaction timeout",
        Overdue::IdleInTransaction => "terminating connection due to idle-in-transaction timeout",
        Overdue::Idle => "terminating connection due to idle-session timeout",
    }
}

/// The key of the configuration file.
fn limit_of(overdue: Overdue) -> &'static str {
    match overdue {
        Overdue::Query | Overdue::Cancel => "query_timeout",
        Overdue::Transaction => "transaction_timeout",
        Overdue::IdleInTransaction => "idle_in_transaction_timeout",
        Overdue::Idle => "client_idle_timeout",
    }
}

impl Report for SessionError {
    fn sqlstate(&self) -> SqlState {
        match self {
            SessionError::InFailedTransaction => SqlState::IN_FAILED_SQL_TRANSACTION,
            SessionError::NoStatement(_) | SessionError::NoUnnamedStatement => {
                SqlState::INVALID_SQL_STATEMENT_NAME
            }
            SessionError::StatementExists(_) => SqlState::DUPLICATE_PREPARED_STATEMENT,
            SessionError::NoPortal(_) => SqlState::INVALID_CURSOR_NAME,
            SessionError::PortalExists(_) | SessionError::CursorExists(_) => {
                SqlState::DUPLICATE_CURSOR
            }
            SessionError::ParameterCount => SqlState::PROTOCOL_VIOLATION,
            SessionError::ResultTypeChanged
            | SessionError::NoTransactions
            | SessionError::NoSessionState(_) => SqlState::FEATURE_NOT_SUPPORTED,
            SessionError::PortalDone(_)
            | SessionError::SchemaChanged
            | SessionError::ForeignSequences => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            SessionError::Cancelled | SessionError::Overdue(Overdue::Query | Overdue::Cancel) => {
                SqlState::QUERY_CANCELED
            }
            SessionError::Overdue(Overdue::Transaction) => SqlState::TRANSACTION_TIMEOUT,
            SessionError::Overdue(Overdue::IdleInTransaction) => {
                SqlState::IDLE_IN_TRANSACTION_TIMEOUT
            }
            SessionError::Overdue(Overdue::Idle) => SqlState::IDLE_SESSION_TIMEOUT,
            SessionError::Ended => SqlState::ADMIN_SHUTDOWN,
            SessionError::NoDatabase(_) | SessionError::WhichServer => {
                SqlState::INVALID_CATALOG_NAME
            }
            SessionError::TooManyClients
            | SessionError::TooManyClientsOf(_)
            | SessionError::TooManyDatabases => SqlState::TOO_MANY_CONNECTIONS,
            SessionError::OutOfMemory { .. } => SqlState::OUT_OF_MEMORY,
            SessionError::LoginTimeout(_) => SqlState::INVALID_AUTHORIZATION,
            SessionError::Internal(_) => SqlState::INTERNAL_ERROR,
        }
    }
    fn blame(&self) -> Blame {
        match self {
            SessionError::Ended
            | SessionError::TooManyClients
            | SessionError::OutOfMemory { .. }
            | SessionError::TooManyClientsOf(_)
            | SessionError::TooManyDatabases
            | SessionError::Internal(_) => Blame::Proxy,
            _ => Blame::Client,
        }
    }
    fn severity(&self) -> Severity {
        match self {
            SessionError::Ended
            | SessionError::NoDatabase(_)
            | SessionError::TooManyClients
            | SessionError::TooManyClientsOf(_)
            | SessionError::TooManyDatabases
            | SessionError::LoginTimeout(_)
            | SessionError::WhichServer => Severity::Fatal,
            _ => Severity::Error,
        }
    }
    fn detail(&self) -> Option<String> {
        match self {
            SessionError::OutOfMemory { resident, limit } => Some(format!(
                "{} MiB are resident, and memory_max is {} MiB.",
                resident.div_ceil(MIB),
                limit / MIB
            )),
            _ => None,
        }
    }
    fn advice(&self) -> Option<String> {
        match self {
            SessionError::OutOfMemory { .. } => Some(
                "Try again in a moment. If it stays so, look for large statements, or raise memory_max in the section [proxy]."
                    .into(),
            ),
            SessionError::NoDatabase(_) => {
                Some("Databases are the sections [databases.NAME] of the file.".into())
            }
            SessionError::TooManyClients => {
                Some("Raise clients_max in the section [proxy].".into())
            }
            SessionError::TooManyClientsOf(section) => {
                Some(format!("Raise clients_max in the section [{section}]."))
            }
            SessionError::SchemaChanged => {
                Some("Restart pgherd, so that it reads the schema again.".into())
            }
            SessionError::ForeignSequences => Some(
                "Begin the transaction again: pgherd knows now that currval and lastval are used.".into(),
            ),
            SessionError::NoTransactions => Some(
                "Send single statements, or set mode = \"transaction\" in [pool] or in the section of the database or user."
                    .into(),
            ),
            SessionError::NoSessionState(_) => Some(
                "Use SET LOCAL in a transaction or settings at start-up, or allow it with on_session_state = \"track\"."
                    .into(),
            ),
            SessionError::Overdue(overdue) => Some(format!(
                "The limit is {}, in [pool] or in the section of the database or user.",
                limit_of(*overdue)
            )),
            SessionError::WhichServer => Some(
                "Give a database of one shard the section [databases.replication], which this program asks for.".into(),
            ),
            _ => None,
        }
    }
}
