//! What the program says to the person who started it: results on standard output, troubles on standard error, and an
//! exit code for scripts.
//!
//! Knows what an error says to an operator: its causes too, which a client never sees. No secret is part of them.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::config::Problems;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Done,
    /// Something failed at run time.
    Failed,
    /// Wrong usage, or a configuration that cannot be used.
    Usage,
}

impl Exit {
    /// The first of the two that is not `Done`.
    pub fn worse(self, other: Exit) -> Exit {
        if self == Exit::Done { other } else { self }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
        })
    }
}

/// A line on standard output. That nobody reads it (`pgherd explain … | head -1`) is no reason to fail.
pub(super) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A line on standard error.
pub(super) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "pgherd: {line}");
}

/// What went wrong on standard error, followed by what else is known of it: detail, advice.
pub(super) fn complain_of(error: &dyn Error, more: &[Option<String>]) {
    let mut text = with_causes(error);
    for more in more.iter().flatten() {
        text.push_str("\n    ");
        text.push_str(more);
    }
    complain(&text);
}

/// All problems of a configuration on standard error, and the exit code that goes with them.
pub(super) fn complain_of_config(path: &Path, problems: &Problems) -> Exit {
    let count = match problems.0.len() {
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    };
    complain(&format!("{} has {count}\n\n{problems}", path.display()));
    Exit::Usage
}

/// The error and its causes in one line; what a cause says that stands there already is left out.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}
