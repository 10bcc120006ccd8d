//! Statements that change settings and do nothing else: SET, RESET, and SELECT of `set_config` calls with constants.

use super::scan::{Kind, Token, Verb, tokens, verb};
use super::slots::text_value;
use super::traces::ends_in_default;

/// What such a statement changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// The settings in lower case; none for all of them.
    pub names: Vec<String>,
    /// It ends with its transaction.
    pub local: bool,
    /// Some go back to their defaults.
    pub resets: bool,
}

/// What this statement changes; `None` where it is no such statement.
#[must_use]
pub fn change(statement: &[u8]) -> Option<Change> {
    let one = |name: &[u8], local| Change {
        names: vec![String::from_utf8_lossy(name).to_lowercase()],
        local,
        resets: ends_in_default(statement),
    };
    match verb(statement) {
        Verb::SetSession { name } => Some(one(&name, false)),
        Verb::SetLocal { name } => Some(one(&name, true)),
        Verb::Reset { name } => Some(Change {
            names: name
                .iter()
                .map(|name| String::from_utf8_lossy(name).to_lowercase())
                .collect(),
            local: false,
            resets: true,
        }),
        Verb::Select => set_config(statement),
        _ => None,
    }
}

/// `SELECT set_config('name', 'value', false), …` and nothing else, or one that sets what the server has.
fn set_config(statement: &[u8]) -> Option<Change> {
    let mut words = Words {
        text: statement,
        tokens: tokens(statement, true).peekable(),
    };
    if let Some(change) = words.clone().set_config_of_known() {
        return Some(change);
    }
    let mut change = Change {
        local: true,
        ..Change::default()
    };
    words.word(b"select")?;
    loop {
        if words.word(b"pg_catalog").is_some() {
            words.symbol(b'.')?;
        }
        words.word(b"set_config")?;
        words.symbol(b'(')?;
        change
            .names
            .push(String::from_utf8_lossy(&words.string()?).to_lowercase());
        words.symbol(b',')?;
        words.string()?;
        words.symbol(b',')?;
        change.local &= words.truth()?;
        words.symbol(b')')?;
        if words.word(b"as").is_some() {
            words.name()?;
        }
        if words.tokens.peek().is_none() {
            return Some(change);
        }
        words.symbol(b',')?;
    }
}

#[derive(Clone)]
struct Words<'a, I: Iterator<Item = Token>> {
    text: &'a [u8],
    tokens: std::iter::Peekable<I>,
}

impl<'a, I: Iterator<Item = Token>> Words<'a, I> {
    /// `SELECT set_config(name, 'value', false) FROM pg_settings WHERE name = '…'`, as `pg_dump` has it.
    fn set_config_of_known(mut self) -> Option<Change> {
        for word in [&b"select"[..], b"set_config"] {
            self.word(word)?;
        }
        self.symbol(b'(')?;
        self.word(b"name")?;
        self.symbol(b',')?;
        self.string()?;
        self.symbol(b',')?;
        let local = self.truth()?;
        self.symbol(b')')?;
        for word in [&b"from"[..], b"pg_settings", b"where", b"name"] {
            self.word(word)?;
        }
        self.symbol(b'=')?;
        let name = String::from_utf8_lossy(&self.string()?).to_lowercase();
        self.tokens.next().is_none().then(|| Change {
            names: vec![name],
            local,
            resets: false,
        })
    }

    fn next_if(&mut self, wanted: impl Fn(Kind, &[u8]) -> bool) -> Option<&'a [u8]> {
        let text = self.text;
        let piece = |token: &Token| text.get(token.span.clone()).unwrap_or_default();
        self.tokens
            .next_if(|token| wanted(token.kind, piece(token)))
            .map(|token| text.get(token.span).unwrap_or_default())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.next_if(|kind, piece| kind == Kind::Word && piece.eq_ignore_ascii_case(word))
            .map(drop)
    }

    fn symbol(&mut self, symbol: u8) -> Option<()> {
        self.next_if(|kind, _| kind == Kind::Symbol(symbol))
            .map(drop)
    }

    fn name(&mut self) -> Option<()> {
        self.next_if(|kind, _| matches!(kind, Kind::Word | Kind::QuotedName))
            .map(drop)
    }

    /// A constant without escapes and continuation lines.
    fn string(&mut self) -> Option<std::borrow::Cow<'a, [u8]>> {
        let piece = self.next_if(|kind, piece| kind == Kind::String && !piece.contains(&b'\n'))?;
        text_value(piece)
    }

    fn truth(&mut self) -> Option<bool> {
        if self.word(b"true").is_some() {
            return Some(true);
        }
        self.word(b"false").map(|()| false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_settings_and_nothing_else_is_taken() {
        let check = |text: &str, expected: Option<(&[&str], bool, bool)>| {
            let found = change(text.as_bytes());
            let found = found.as_ref().map(|it| {
                (
                    it.names.iter().map(String::as_str).collect(),
                    it.local,
                    it.resets,
                )
            });
            let expected = expected.map(|(names, local, resets)| (names.to_vec(), local, resets));
            assert_eq!(found, expected, "{text}");
        };
        check("SET Work_Mem = 5", Some((&["work_mem"], false, false)));
        check(
            "set session time zone 'UTC'",
            Some((&["timezone"], false, false)),
        );
        check("SET LOCAL x.y TO 1", Some((&["x.y"], true, false)));
        check("SET x TO DEFAULT", Some((&["x"], false, true)));
        check("RESET x", Some((&["x"], false, true)));
        check("RESET ALL", Some((&[], false, true)));
        check(
            "SELECT pg_catalog.set_config('search_path', '', false)",
            Some((&["search_path"], false, false)),
        );
        check(
            "select set_config('a.b', 'it''s', true) AS x, set_config('C', '', FALSE)",
            Some((&["a.b", "c"], false, false)),
        );
        check(
            "SELECT set_config(name, 'x, y', false) FROM pg_settings WHERE name = 'Abc'",
            Some((&["abc"], false, false)),
        );
        check(
            "select set_config('a.b', '1', true)",
            Some((&["a.b"], true, false)),
        );
        for other in [
            "SET TRANSACTION READ ONLY",
            "SET CONSTRAINTS ALL DEFERRED",
            "SELECT set_config('a', $1, false)",
            "SELECT set_config('a', 'b', false) FROM t",
            "SELECT set_config(name, 'x', false) FROM pg_settings",
            "SELECT set_config(name, 'x', false) FROM pg_settings WHERE name = 'a' OR true",
            "SELECT set_config('a', 'b' || 'c', false)",
            "SELECT x.set_config('a', 'b', false)",
            "SELECT 1, set_config('a', 'b', false)",
            "SELECT set_config('a', E'b', false)",
            "SELECT set_config('a', 'b', false),",
            "SELECT 1",
        ] {
            check(other, None);
        }
    }
}
