//! `SHOW pgherd.drift`: where the shards of the database differ, as rows. Simple queries only: no server knows the name,
//! so a driver that prepares it is told so by PostgreSQL.

use crate::frontend::database::Database;
use crate::sql::scan;
use crate::wire::encode;

const COLUMNS: [&str; 5] = ["database", "shard", "kind", "object", "difference"];

/// The answer up to its CommandComplete; `None` where the text asks for something else.
pub(super) fn shown(text: &[u8], database: &Database) -> Option<Vec<u8>> {
    // Every simple query passes here.
    if !text
        .first()
        .is_some_and(|first| first.eq_ignore_ascii_case(&b's'))
        || !asks(text)
    {
        return None;
    }
    let mut answer = Vec::new();
    encode::text_columns(&mut answer, &COLUMNS);
    let drift = database.catalogue.drift();
    for each in drift.iter() {
        let difference = &each.difference;
        let what = format!("{}; {}", difference.what, difference.remedy);
        let values = [
            database.config.name.as_str(),
            each.shard.as_str(),
            difference.kind,
            &difference.object,
            &what,
        ];
        encode::text_values(&mut answer, &values);
    }
    encode::command_complete(&mut answer, "SHOW");
    Some(answer)
}

fn asks(text: &[u8]) -> bool {
    let mut words = scan::tokens(text, true)
        .map(|token| text.get(token.span).unwrap_or_default())
        .filter(|word| *word != b";");
    let wanted: [&[u8]; 4] = [b"show", b"pgherd", b".", b"drift"];
    let is_next = |wanted: &[u8]| {
        words
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case(wanted))
    };
    wanted.into_iter().all(is_next) && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::asks;

    #[test]
    fn it_is_asked_for_by_this_name_only() {
        for text in [
            "SHOW pgherd.drift",
            "show PGHERD.Drift ;",
            "Show /* all */ pgherd . drift",
        ] {
            assert!(asks(text.as_bytes()), "{text}");
        }
        for text in [
            "SHOW pgherd.drifts",
            "SHOW pgherd",
            "SHOW drift",
            "SHOW pgherd.drift; SELECT 1",
            "S",
        ] {
            assert!(!asks(text.as_bytes()), "{text}");
        }
    }
}
