//! What can go wrong with a request, and what it means for the session.

use std::io;

use crate::backend::pool::PoolError;
use crate::backend::server::Lost;
use crate::error::{Blame, Report, Severity, SqlState};
use crate::execute::Broken;
use crate::planner::Refusal;
use crate::wire::frame::FrameError;

/// Why a request did not come to its end.
#[derive(Debug)]
pub enum Trouble {
    /// The client gets this error and the session goes on.
    Tell(Box<dyn Report + Send + Sync>),
    /// The same, for what is not supported.
    Refuse(Refusal),
    /// The same, in a server's own words: a whole ErrorResponse.
    Relay(Vec<u8>),
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
    #[error("portal \"{0}\" cannot be run")]
    PortalDone(String),
    #[error("bind message supplies parameters, but the prepared statement requires 0")]
    ParameterCount,
    #[error("cached plan must not change result type")]
    ResultTypeChanged,
    #[error("a table of this statement was made after pgherd read the schema")]
    SchemaChanged,
    #[error("terminating connection due to administrator command")]
    Ended,
    #[error("canceling statement due to user request")]
    Cancelled,
    #[error("no such database: {0}")]
    NoDatabase(String),
    #[error("too many databases are in use")]
    TooManyDatabases,
    #[error("no more connections allowed (clients_max)")]
    TooManyClients,
    /// A section of the file, such as `databases.shop`.
    #[error("client connections exceeded ({0}.clients_max)")]
    TooManyClientsOf(String),
    #[error("the login took longer than {0} s")]
    LoginTimeout(u64),
    #[error("replication connections are not supported yet")]
    Replication,
    #[error("the message needs more than is there: {0}")]
    Internal(&'static str),
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
            SessionError::PortalExists(_) => SqlState::DUPLICATE_CURSOR,
            SessionError::ParameterCount => SqlState::PROTOCOL_VIOLATION,
            SessionError::ResultTypeChanged => SqlState::FEATURE_NOT_SUPPORTED,
            SessionError::PortalDone(_) | SessionError::SchemaChanged => {
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
            }
            SessionError::Cancelled => SqlState::QUERY_CANCELED,
            SessionError::Ended => SqlState::ADMIN_SHUTDOWN,
            SessionError::NoDatabase(_) => SqlState::INVALID_CATALOG_NAME,
            SessionError::TooManyClients
            | SessionError::TooManyClientsOf(_)
            | SessionError::TooManyDatabases => SqlState::TOO_MANY_CONNECTIONS,
            SessionError::LoginTimeout(_) => SqlState::INVALID_AUTHORIZATION,
            SessionError::Replication => SqlState::FEATURE_NOT_SUPPORTED,
            SessionError::Internal(_) => SqlState::INTERNAL_ERROR,
        }
    }
    fn blame(&self) -> Blame {
        match self {
            SessionError::Ended
            | SessionError::TooManyClients
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
            | SessionError::Replication => Severity::Fatal,
            _ => Severity::Error,
        }
    }
    fn advice(&self) -> Option<String> {
        match self {
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
            SessionError::Replication => Some("Connect to the server itself.".into()),
            _ => None,
        }
    }
}
