//! Why a text was not understood. The planner gives each cause its number; a server is never asked to guess.

use thiserror::Error;

use crate::error::{Blame, Report, SqlState};

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unparsed {
    /// The parser does not know the text. PostgreSQL may.
    #[error("the statement could not be parsed: {0}")]
    Syntax(String),
    /// Parsed, but with a part that nobody here has thought about.
    #[error("the statement has a part that pgherd does not know: {0}")]
    Unknown(String),
    #[error("the statement is longer than {max} bytes")]
    TooLong { max: usize },
    #[error("the statement is nested or chained too deeply")]
    TooDeep,
    /// VACUUM, LOCK, CREATE and other commands that are no query: the first word.
    #[error("{0} is not a query")]
    Utility(String),
    /// More than one statement, or none.
    #[error("one statement is expected")]
    NotOne,
}

impl Report for Unparsed {
    fn sqlstate(&self) -> SqlState {
        match self {
            Unparsed::TooLong { .. } | Unparsed::TooDeep => SqlState::PROGRAM_LIMIT_EXCEEDED,
            _ => SqlState::FEATURE_NOT_SUPPORTED,
        }
    }

    fn blame(&self) -> Blame {
        Blame::Client
    }
}
