//! Why a schema and the rules of its tables cannot be used together.

use thiserror::Error;

use crate::error::{Blame, Report, SqlState};

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CatalogError {
    /// The rows are not those of the queries: our bug, or a server that is no PostgreSQL.
    #[error("the catalogue query {query} answered an unexpected row: {reason}")]
    Row {
        query: &'static str,
        reason: &'static str,
    },
    /// Every table whose rule cannot be kept.
    #[error("{}", join(.0))]
    Tables(Vec<TableProblem>),
}

/// One table whose rule cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableProblem {
    pub table: String,
    pub problem: String,
}

fn join(problems: &[TableProblem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|each| format!("table {}: {}", each.table, each.problem))
        .collect();
    lines.join("; ")
}

impl Report for CatalogError {
    fn sqlstate(&self) -> SqlState {
        match self {
            CatalogError::Row { .. } => SqlState::INTERNAL_ERROR,
            CatalogError::Tables(_) => SqlState::CONFIG_FILE_ERROR,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            CatalogError::Row { .. } => Blame::Proxy,
            CatalogError::Tables(_) => Blame::Client,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            CatalogError::Row { .. } => None,
            CatalogError::Tables(_) => {
                Some("Change the table's rule in the configuration file, or the table.".to_owned())
            }
        }
    }
}
