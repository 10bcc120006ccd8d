//! Whether a server that let us in is the one that the connection string asks for (`target_session_attrs`).
//!
//! Since PostgreSQL 14 a server reports at login what has to be known; an older one is asked, by libpq's questions.

use super::ConnectError;
use super::conversation::Conversation;
use crate::config::TargetSession;

type Reported = [(String, String)];

/// Whether what a server reports of itself is what was asked for; `None` when it reports too little.
pub(in crate::backend) fn reported_fits(
    target: TargetSession,
    reported: &Reported,
) -> Option<bool> {
    let is_on = |name: &str| {
        let found = reported.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value == "on")
    };
    let standby = is_on("in_hot_standby");
    let read_only = || Some(standby? || is_on("default_transaction_read_only")?);
    match target {
        TargetSession::Any => Some(true),
        TargetSession::ReadWrite => read_only().map(|read_only| !read_only),
        TargetSession::ReadOnly => read_only(),
        TargetSession::Primary => standby.map(|standby| !standby),
        TargetSession::Standby | TargetSession::PreferStandby => standby,
    }
}

/// The same, by a question where the reports do not say it.
pub(super) async fn fits(
    target: TargetSession,
    reported: &Reported,
    conversation: &mut Conversation,
) -> Result<bool, ConnectError> {
    if let Some(fits) = reported_fits(target, reported) {
        return Ok(fits);
    }
    const READ_ONLY: &str = "SHOW transaction_read_only";
    const STANDBY: &str = "SELECT pg_catalog.pg_is_in_recovery()";
    let (question, wanted): (_, &[u8]) = match target {
        TargetSession::Any => return Ok(true),
        TargetSession::ReadWrite => (READ_ONLY, b"off"),
        TargetSession::ReadOnly => (READ_ONLY, b"on"),
        TargetSession::Primary => (STANDBY, b"f"),
        TargetSession::Standby | TargetSession::PreferStandby => (STANDBY, b"t"),
    };
    Ok(conversation.ask(question).await? == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_reports_decides_for_each_value_and_too_little_decides_nothing() {
        use TargetSession::{Any, PreferStandby, Primary, ReadOnly, ReadWrite, Standby};
        let reports = |standby: &str, read_only: &str| {
            [
                ("in_hot_standby", standby),
                ("default_transaction_read_only", read_only),
            ]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect::<Vec<_>>()
        };
        for (standby, read_only, fitting, unknown) in [
            ("off", "off", vec![Any, ReadWrite, Primary], vec![]),
            ("off", "on", vec![Any, ReadOnly, Primary], vec![]),
            (
                "on",
                "off",
                vec![Any, ReadOnly, Standby, PreferStandby],
                vec![],
            ),
            (
                "on",
                "on",
                vec![Any, ReadOnly, Standby, PreferStandby],
                vec![],
            ),
            (
                "",
                "",
                vec![Any],
                vec![ReadWrite, ReadOnly, Primary, Standby, PreferStandby],
            ),
            ("off", "", vec![Any, Primary], vec![ReadWrite, ReadOnly]),
        ] {
            let reports = reports(standby, read_only);
            for target in [Any, ReadWrite, ReadOnly, Primary, Standby, PreferStandby] {
                let expected = (!unknown.contains(&target)).then(|| fitting.contains(&target));
                let found = reported_fits(target, &reports);
                assert_eq!(found, expected, "{target:?} {standby} {read_only}");
            }
        }
    }
}
