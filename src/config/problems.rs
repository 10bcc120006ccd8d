//! What is wrong with a configuration, gathered until the end so that one run shows all of it.
//!
//! Knows no key and no rule. What would surprise: once a value was refused for its form, later complaints about the
//! same path are dropped, because a value that could not be read is not also missing.

use std::collections::HashSet;
use std::fmt;

use crate::error::{Blame, Report, SqlState};

/// One thing that is wrong with the file: where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// A TOML path such as `databases.shop.shards[1].primary`; for a syntax error `line 3, column 7`.
    pub path: String,
    pub problem: String,
    pub remedy: String,
}

/// Every problem found; never empty when returned as an error. `Display` gives one paragraph each. No secret is ever
/// part of it, but paths and file names are: show it to operators, not to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    {}", self.path, self.problem, self.remedy)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Report for Problems {
    fn sqlstate(&self) -> SqlState {
        SqlState::CONFIG_FILE_ERROR
    }
    fn blame(&self) -> Blame {
        Blame::Proxy
    }
}

/// What is wrong with one value, by a reader that does not know where the value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub problem: String,
    pub remedy: String,
}

impl Fault {
    pub fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}

/// The problems so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    problems: Vec<Problem>,
    spoiled: HashSet<String>,
}

impl Findings {
    pub fn report(&mut self, path: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        if self.spoiled.contains(path) {
            return;
        }
        let problem = Problem {
            path: path.to_owned(),
            problem: problem.into(),
            remedy: remedy.into(),
        };
        // The section of a user is read once for each database.
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    pub fn fault(&mut self, path: &str, fault: Fault) {
        self.report(path, fault.problem, fault.remedy);
    }

    /// The value, or a report of why there is none.
    pub fn keep<T>(&mut self, path: &str, value: Result<T, Fault>) -> Option<T> {
        value.map_err(|fault| self.fault(path, fault)).ok()
    }

    /// Drops whatever would be said about `path` from now on.
    pub fn spoil(&mut self, path: &str) {
        self.spoiled.insert(path.to_owned());
    }

    pub fn is_spoiled(&self, path: &str) -> bool {
        self.spoiled.contains(path)
    }

    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}

/// `path.key`, with the key in quotes where TOML needs them.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let key = if bare {
        key.to_owned()
    } else {
        format!("{key:?}")
    };
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}
