//! Why the demo or its servers could not be started or shown, and what the person at the keyboard can do about it.
//!
//! Nothing here reaches a client of the proxy, so these messages may name files and ports.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::error::{Blame, Report, SqlState};

/// Whatever the proxy has to say.
pub type Trouble = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Error)]
pub enum DemoError {
    #[error("PostgreSQL's server programs (initdb, postgres) were not found")]
    ProgramsMissing,
    #[error(
        "PostgreSQL refuses to run as root, and there is neither a user `postgres` nor a user `nobody`"
    )]
    NoUnprivilegedUser,
    #[error("{what} {}: {source}", path.display())]
    Folder {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot run {program}: {source}")]
    CannotRun { program: String, source: io::Error },
    #[error("{program} failed ({status}): {output}")]
    ProgramFailed {
        program: String,
        status: String,
        output: String,
    },
    #[error("PostgreSQL on port {port} ended while starting: {log}")]
    ServerEnded { port: u16, log: String },
    #[error("PostgreSQL on port {port} was not ready after {}: {log}", humantime::format_duration(*waited))]
    ServerSlow {
        port: u16,
        waited: Duration,
        log: String,
    },
    #[error("no free port was found between {first} and {last}")]
    NoFreePort { first: u16, last: u16 },
    #[error("port {port} is taken")]
    PortTaken { port: u16 },
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    #[error("{0}")]
    Proxy(Trouble),
    #[error("{}", tell(.0))]
    Client(tokio_postgres::Error),
    #[error("this should have been refused: {sql}")]
    NotRefused { sql: String },
    #[error("a wrong answer ({found} rows, while the shards have {expected}): {sql}")]
    WrongAnswer {
        sql: String,
        found: usize,
        expected: usize,
    },
    #[error("the server on port {port} is not running")]
    NotRunning { port: u16 },
}

impl Report for DemoError {
    fn sqlstate(&self) -> SqlState {
        match self {
            DemoError::NotRunning { .. } => SqlState::CANNOT_CONNECT_NOW,
            _ => SqlState::INTERNAL_ERROR,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            DemoError::Proxy(_) | DemoError::NotRefused { .. } | DemoError::WrongAnswer { .. } => {
                Blame::Proxy
            }
            _ => Blame::Server,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            DemoError::ProgramsMissing => Some(
                "install PostgreSQL's server (Debian: apt-get install postgresql; or `make demo`), or set PGHERD_PG_BIN \
                 to the folder of initdb"
                    .to_owned(),
            ),
            DemoError::NoUnprivilegedUser => Some("run it as an ordinary user, or create the user `postgres`".to_owned()),
            DemoError::PortTaken { .. } => Some("leave the port out, and a free one is found".to_owned()),
            DemoError::Folder { .. } => Some("set TMPDIR to a folder that can be written to".to_owned()),
            _ => None,
        }
    }
}

/// tokio-postgres says only "db error" of what the server said.
fn tell(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(
        || error.to_string(),
        |error| format!("{}: {}", error.code().code(), error.message()),
    )
}
