//! What can go wrong on a control connection, and what each reader is told of it.
//!
//! The texts show neither address nor password; which file of TLS is at fault is in the source of the error, for the
//! operator.

use std::time::Duration;

use crate::backend::connect::ConnectError;
use crate::error::{Blame, Report, SqlState};

/// What went wrong on a control connection. `server` is what the operator calls it, such as `shop/s0`.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("{server}: the control connection string names no user")]
    NoUser { server: String },
    #[error("{server}: the socket is not called .s.PGSQL.<port>")]
    SocketName { server: String },
    /// A file that the connection string names; the operator sees which in `cause`.
    #[error("{server}: TLS towards the server cannot be set up")]
    TlsFiles {
        server: String,
        #[source]
        cause: Box<ConnectError>,
    },
    #[error("{server}: no connection within {}", humantime::format_duration(*after))]
    ConnectTimeout { server: String, after: Duration },
    #[error("{server}: all control connections were busy for {}", humantime::format_duration(*after))]
    Busy { server: String, after: Duration },
    #[error("{server}: {cause}")]
    Unreachable { server: String, cause: String },
    /// The server's own error.
    #[error("{server}: {message}")]
    Server {
        server: String,
        sqlstate: SqlState,
        message: String,
        detail: Option<String>,
        hint: Option<String>,
    },
    #[error("{server}: no answer within {}", humantime::format_duration(*after))]
    StatementTimeout { server: String, after: Duration },
    #[error("{server}: the connection was lost: {cause}")]
    Lost { server: String, cause: String },
    #[error("{server}: the transaction has failed and cannot be committed")]
    TransactionFailed { server: String },
}

impl ControlError {
    /// Whether this is the server's error with that SQLSTATE.
    #[must_use]
    pub fn is_server(&self, code: &str) -> bool {
        matches!(self, ControlError::Server { sqlstate, .. } if sqlstate.code() == code)
    }
}

impl Report for ControlError {
    fn sqlstate(&self) -> SqlState {
        match self {
            ControlError::NoUser { .. }
            | ControlError::SocketName { .. }
            | ControlError::TlsFiles { .. } => SqlState::CONFIG_FILE_ERROR,
            ControlError::ConnectTimeout { .. } | ControlError::Unreachable { .. } => {
                SqlState::CANNOT_CONNECT_NOW
            }
            ControlError::Busy { .. } => SqlState::TOO_MANY_CONNECTIONS,
            ControlError::Server { sqlstate, .. } => *sqlstate,
            ControlError::StatementTimeout { .. } => SqlState::QUERY_CANCELED,
            ControlError::Lost { .. } => SqlState::CONNECTION_FAILURE,
            ControlError::TransactionFailed { .. } => SqlState::IN_FAILED_SQL_TRANSACTION,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            ControlError::NoUser { .. }
            | ControlError::SocketName { .. }
            | ControlError::TlsFiles { .. }
            | ControlError::Busy { .. }
            | ControlError::TransactionFailed { .. } => Blame::Proxy,
            _ => Blame::Server,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            ControlError::Server { detail, .. } => detail.clone(),
            _ => None,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            ControlError::NoUser { .. } => Some(
                "give the shard a `control` connection string with a user and its password"
                    .to_owned(),
            ),
            ControlError::ConnectTimeout { .. } | ControlError::Unreachable { .. } => {
                Some("check host and port, and that the server is running".to_owned())
            }
            ControlError::Server { hint, .. } => hint.clone(),
            _ => None,
        }
    }
}
