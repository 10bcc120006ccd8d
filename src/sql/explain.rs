//! EXPLAIN as far as it matters where it runs: its options, and the statement that it is about.

use std::ops::Range;

use super::scan::{Kind, Token, tokens};

/// An EXPLAIN, told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explain {
    /// `EXPLAIN (PLAN)`: only pgherd's own plan is asked for.
    pub plan: bool,
    /// The statement is run.
    pub analyze: bool,
    /// The answer is lines of text.
    pub text: bool,
    /// Where the statement is.
    pub statement: Range<usize>,
}

/// `None` where it is no EXPLAIN, or one that PostgreSQL will refuse.
#[must_use]
pub fn explain(text: &[u8]) -> Option<Explain> {
    let mut tokens = tokens(text, true).peekable();
    let piece = |token: &Token| text.get(token.span.clone()).unwrap_or_default();
    let is = |token: &Token, word: &[u8]| {
        token.kind == Kind::Word && piece(token).eq_ignore_ascii_case(word)
    };
    tokens.next_if(|token| is(token, b"explain"))?;
    let mut found = Explain {
        plan: false,
        analyze: false,
        text: true,
        statement: 0..0,
    };
    let is_option = |token: &Token| {
        let begins: &[&[u8]] = &[b"select", b"with", b"values", b"table"];
        token.kind == Kind::Word && !begins.iter().any(|word| is(token, word))
    };
    let mut tail = tokens.clone();
    let opens = tail.next_if(|token| token.kind == Kind::Symbol(b'('));
    if opens.is_some() && tail.peek().is_some_and(is_option) {
        tokens = tail;
        loop {
            let name = tokens.next()?;
            let mut value: &[u8] = b"true";
            while let Some(token) =
                tokens.next_if(|token| !matches!(token.kind, Kind::Symbol(b',' | b')')))
            {
                value = piece(&token);
            }
            let value = value.strip_prefix(b"'").unwrap_or(value);
            let value = value.strip_suffix(b"'").unwrap_or(value);
            let off: &[&[u8]] = &[b"false", b"off", b"0"];
            let on = !off.iter().any(|word| value.eq_ignore_ascii_case(word));
            if is(&name, b"plan") {
                found.plan = on;
            } else if is(&name, b"analyze") || is(&name, b"analyse") {
                found.analyze = on;
            } else if is(&name, b"format") {
                found.text = value.eq_ignore_ascii_case(b"text");
            }
            if tokens.next()?.kind == Kind::Symbol(b')') {
                break;
            }
        }
    } else {
        let word = |token: &Token| is(token, b"analyze") || is(token, b"analyse");
        found.analyze = tokens.next_if(word).is_some();
        tokens.next_if(|token| is(token, b"verbose"));
    }
    let first = tokens.next()?;
    let end = tokens.last().map_or(first.span.end, |last| last.span.end);
    found.statement = first.span.start..end;
    Some(found)
}

/// Whether a text asks for pgherd's own plan. Nearly every other is told by its first letter.
#[must_use]
pub fn asks_for_plan(text: &[u8]) -> bool {
    let begin = text.iter().find(|byte| !byte.is_ascii_whitespace());
    if !matches!(begin, Some(b'e' | b'E' | b'/' | b'-')) {
        return false;
    }
    explain(text).is_some_and(|explain| explain.plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_statement_are_told_apart() {
        let check = |text: &str, expected: Option<(bool, bool, bool, &str)>| {
            let found = explain(text.as_bytes());
            let found = found.map(|it| (it.plan, it.analyze, it.text, &text[it.statement]));
            assert_eq!(found, expected, "{text}");
        };
        check("EXPLAIN SELECT 1", Some((false, false, true, "SELECT 1")));
        check(
            "explain analyze verbose SELECT 1 -- x",
            Some((false, true, true, "SELECT 1")),
        );
        check(
            "EXPLAIN (SELECT 1)",
            Some((false, false, true, "(SELECT 1)")),
        );
        check(
            "EXPLAIN ((SELECT 1))",
            Some((false, false, true, "((SELECT 1))")),
        );
        check(
            "EXPLAIN (ANALYZE off, FORMAT 'json', COSTS) (SELECT 1)",
            Some((false, false, false, "(SELECT 1)")),
        );
        check(
            "/* c */ EXPLAIN (analyze, Plan) DELETE FROM t",
            Some((true, true, true, "DELETE FROM t")),
        );
        check(
            "EXPLAIN (FORMAT TEXT) TABLE t",
            Some((false, false, true, "TABLE t")),
        );
        for text in [
            "SELECT 1",
            "EXPLAIN",
            "EXPLAIN (ANALYZE)",
            "EXPLAIN (ANALYZE",
            "EXPLAIN ANALYZE",
        ] {
            check(text, None);
        }
        assert!(asks_for_plan(b" explain (plan) select 1"));
        assert!(!asks_for_plan(b"explain (plan off) select 1"));
        assert!(!asks_for_plan(b"select 'explain (plan)'"));
    }
}
