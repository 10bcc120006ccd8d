//! Commands of which it matters what is inside: PREPARE, EXECUTE, LOCK.

use std::ops::Range;

use super::scan::{Kind, Token, tokens};

/// Where the statement is that PREPARE prepares.
#[must_use]
pub fn prepared(text: &[u8]) -> Option<Range<usize>> {
    let mut tokens = tokens(text, true);
    let mut depth = 0_usize;
    // PREPARE and the name, which may be any word.
    tokens.next()?;
    tokens.next()?;
    loop {
        let token = tokens.next()?;
        match token.kind {
            Kind::Symbol(b'(') => depth += 1,
            Kind::Symbol(b')') => depth = depth.checked_sub(1)?,
            Kind::Word if depth == 0 => {
                is(text, &token, b"as").then_some(())?;
                let first = tokens.next()?;
                let end = tokens.last().map_or(first.span.end, |last| last.span.end);
                return Some(first.span.start..end);
            }
            _ if depth == 0 => return None,
            _ => {}
        }
    }
}

/// EXECUTE with constants for all parameters.
#[must_use]
pub fn executes_constants(text: &[u8]) -> bool {
    let mut tokens = tokens(text, true);
    let (Some(_), Some(name)) = (tokens.next(), tokens.next()) else {
        return false;
    };
    let constant = |token: Token| match token.kind {
        Kind::String | Kind::Number | Kind::Symbol(b',' | b'(' | b')' | b'-') => true,
        Kind::Word => {
            let words: &[&[u8]] = &[b"null", b"true", b"false"];
            words.iter().any(|word| is(text, &token, word))
        }
        _ => false,
    };
    matches!(name.kind, Kind::Word | Kind::QuotedName) && tokens.all(constant)
}

/// LOCK that only keeps the tables from being changed or dropped.
#[must_use]
pub fn locks_access_share(text: &[u8]) -> bool {
    let tokens: Vec<Token> = tokens(text, true).collect();
    let nowait = tokens.last().is_some_and(|last| is(text, last, b"nowait"));
    let end = tokens.len() - usize::from(nowait);
    let mode: [&[u8]; 4] = [b"in", b"access", b"share", b"mode"];
    let found = end
        .checked_sub(mode.len())
        .and_then(|begin| tokens.get(begin..end))
        .unwrap_or_default();
    found.len() == mode.len()
        && found
            .iter()
            .zip(mode)
            .all(|(token, word)| is(text, token, word))
}

fn is(text: &[u8], token: &Token, word: &[u8]) -> bool {
    token.kind == Kind::Word
        && text
            .get(token.span.clone())
            .is_some_and(|piece| piece.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_of_prepare_is_found() {
        let check = |text: &str, expected: Option<&str>| {
            let found = prepared(text.as_bytes());
            assert_eq!(found.map(|range| &text[range]), expected, "{text}");
        };
        check("PREPARE p AS SELECT 1 AS x", Some("SELECT 1 AS x"));
        check(
            "prepare as (numeric(1, 2), int[]) as\nSELECT $1 -- x",
            Some("SELECT $1"),
        );
        check("PREPARE p (int)", None);
        check("PREPARE p SELECT 1", None);
        check("PREPARE p AS", None);
        check("PREPARE TRANSACTION 'x'", None);
    }

    #[test]
    fn only_constants_are_executed() {
        for text in [
            "EXECUTE p",
            "execute p(1, 'x', -2, NULL, TRUE)",
            "EXECUTE \"p\" ()",
        ] {
            assert!(executes_constants(text.as_bytes()), "{text}");
        }
        for text in [
            "EXECUTE p(f(1))",
            "EXECUTE p($1)",
            "EXECUTE p('1'::int)",
            "EXECUTE",
            "EXECUTE p(a)",
        ] {
            assert!(!executes_constants(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn the_weakest_lock_is_told() {
        assert!(locks_access_share(
            b"LOCK TABLE a, b.c IN ACCESS SHARE MODE"
        ));
        assert!(locks_access_share(
            b"lock only a in access share mode nowait"
        ));
        for text in [
            "LOCK a",
            "LOCK a IN SHARE MODE",
            "LOCK a IN ACCESS EXCLUSIVE MODE",
            "LOCK",
            "nowait",
        ] {
            assert!(!locks_access_share(text.as_bytes()), "{text}");
        }
    }
}
