//! What an error means to its three readers: the driver (SQLSTATE), the person (text, detail, hint) and the
//! operator's graphs (blame).
//!
//! A server's ErrorResponse is data and never becomes one of these: a `Report` always means that *we* failed or
//! refused. Every room has its own `thiserror` enum that implements [`Report`]; `wire` turns any of them into an
//! ErrorResponse.

use std::error::Error;
use std::fmt;

/// The SQLSTATEs that pgherd speaks in its own name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(pub [u8; 5]);

impl SqlState {
    pub const SUCCESSFUL: SqlState = SqlState(*b"00000");
    pub const WARNING: SqlState = SqlState(*b"01000");
    pub const CONNECTION_FAILURE: SqlState = SqlState(*b"08006");
    pub const TRANSACTION_RESOLUTION_UNKNOWN: SqlState = SqlState(*b"08007");
    pub const PROTOCOL_VIOLATION: SqlState = SqlState(*b"08P01");
    pub const FEATURE_NOT_SUPPORTED: SqlState = SqlState(*b"0A000");
    pub const INVALID_PARAMETER_VALUE: SqlState = SqlState(*b"22023");
    pub const NOT_NULL_VIOLATION: SqlState = SqlState(*b"23502");
    pub const ACTIVE_SQL_TRANSACTION: SqlState = SqlState(*b"25001");
    pub const READ_ONLY_SQL_TRANSACTION: SqlState = SqlState(*b"25006");
    pub const NO_ACTIVE_SQL_TRANSACTION: SqlState = SqlState(*b"25P01");
    pub const IN_FAILED_SQL_TRANSACTION: SqlState = SqlState(*b"25P02");
    pub const IDLE_IN_TRANSACTION_TIMEOUT: SqlState = SqlState(*b"25P03");
    pub const TRANSACTION_TIMEOUT: SqlState = SqlState(*b"25P04");
    pub const INVALID_SQL_STATEMENT_NAME: SqlState = SqlState(*b"26000");
    pub const INVALID_AUTHORIZATION: SqlState = SqlState(*b"28000");
    pub const INVALID_PASSWORD: SqlState = SqlState(*b"28P01");
    pub const INVALID_CURSOR_NAME: SqlState = SqlState(*b"34000");
    pub const INVALID_SAVEPOINT: SqlState = SqlState(*b"3B001");
    pub const INVALID_CATALOG_NAME: SqlState = SqlState(*b"3D000");
    pub const DEADLOCK_DETECTED: SqlState = SqlState(*b"40P01");
    pub const SYNTAX_ERROR: SqlState = SqlState(*b"42601");
    pub const DUPLICATE_CURSOR: SqlState = SqlState(*b"42P03");
    pub const DUPLICATE_PREPARED_STATEMENT: SqlState = SqlState(*b"42P05");
    pub const OUT_OF_MEMORY: SqlState = SqlState(*b"53200");
    pub const TOO_MANY_CONNECTIONS: SqlState = SqlState(*b"53300");
    pub const PROGRAM_LIMIT_EXCEEDED: SqlState = SqlState(*b"54000");
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: SqlState = SqlState(*b"55000");
    pub const QUERY_CANCELED: SqlState = SqlState(*b"57014");
    pub const ADMIN_SHUTDOWN: SqlState = SqlState(*b"57P01");
    pub const CANNOT_CONNECT_NOW: SqlState = SqlState(*b"57P03");
    pub const IDLE_SESSION_TIMEOUT: SqlState = SqlState(*b"57P05");
    pub const CONFIG_FILE_ERROR: SqlState = SqlState(*b"F0000");
    pub const INTERNAL_ERROR: SqlState = SqlState(*b"XX000");

    /// The five characters that drivers match on.
    #[must_use]
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// How bad it is for the session: an `Error` leaves it alive, a `Fatal` ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    Notice,
    Warning,
    Error,
    Fatal,
}

impl Severity {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Notice => "NOTICE",
            Severity::Warning => "WARNING",
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        }
    }
}

/// Who has to change something for the error to go away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    Client,
    Server,
    Proxy,
}

impl Blame {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Blame::Client => "client",
            Blame::Server => "server",
            Blame::Proxy => "proxy",
        }
    }
}

/// An error that can be told to a client. `Display` is the message; it is safe to show to anyone who may connect:
/// no address, no password, no file.
pub trait Report: Error {
    fn sqlstate(&self) -> SqlState;
    fn blame(&self) -> Blame;
    fn severity(&self) -> Severity {
        Severity::Error
    }
    /// More about what happened (the DETAIL of an ErrorResponse).
    fn detail(&self) -> Option<String> {
        None
    }
    /// What the reader can do now (the HINT of an ErrorResponse).
    fn advice(&self) -> Option<String> {
        None
    }
}
