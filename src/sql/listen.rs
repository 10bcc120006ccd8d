//! Which channels a text may listen to, and which it surely stops to listen to.
//!
//! `LISTEN` counts wherever it stands, in the body of a DO too: what is found here is prepared for, and the server has
//! the last word on what came of it.

use super::scan::{self, Kind, Verb, verb};
use super::verb::{fold, unquote};

/// Channels of one text that are looked for.
const CHANNELS_MAX: usize = 64;

/// The names behind each LISTEN of a text, each once.
#[must_use]
pub fn channels(text: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    collect(text, true, &mut found);
    found
}

fn collect(text: &[u8], bodies: bool, found: &mut Vec<Vec<u8>>) {
    if !text
        .windows(6)
        .any(|word| word.eq_ignore_ascii_case(b"listen"))
    {
        return;
    }
    let mut after_listen = false;
    for token in scan::tokens(text, true) {
        let word = text.get(token.span).unwrap_or_default();
        let name = match token.kind {
            _ if found.len() >= CHANNELS_MAX => return,
            Kind::String | Kind::EscapeString | Kind::DollarString if bodies => {
                collect(body(word), false, found);
                None
            }
            Kind::Word if after_listen => Some(fold(word)),
            Kind::QuotedName if after_listen => unquote(word),
            _ => None,
        };
        if let Some(name) = name
            && !found.iter().any(|known| **known == *name)
        {
            found.push(name.into_owned());
        }
        after_listen = token.kind == Kind::Word && word.eq_ignore_ascii_case(b"listen");
    }
}

/// What stands between the quotes or dollars.
fn body(string: &[u8]) -> &[u8] {
    let Some(start) = memchr::memchr2(b'\'', b'$', string) else {
        return string;
    };
    let quote = if string.get(start) == Some(&b'$') {
        let rest = string.get(start + 1..).unwrap_or_default();
        memchr::memchr(b'$', rest).map_or(1, |at| at + 2)
    } else {
        1
    };
    let end = string.len().saturating_sub(quote);
    string.get(start + quote..end).unwrap_or_default()
}

/// What an UNLISTEN names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unlisten {
    All,
    Channel(Vec<u8>),
}

impl Unlisten {
    #[must_use]
    pub fn concerns(&self, channel: &[u8]) -> bool {
        match self {
            Unlisten::All => true,
            Unlisten::Channel(name) => name == channel,
        }
    }
}

/// What a text that is one UNLISTEN names.
#[must_use]
pub fn unlistened(text: &[u8]) -> Option<Unlisten> {
    if !scan::is_single(text, true) || verb(text) != Verb::Unlisten {
        return None;
    }
    let token = scan::tokens(text, true).nth(1)?;
    let word = text.get(token.span)?;
    Some(match token.kind {
        Kind::Symbol(b'*') => Unlisten::All,
        Kind::Word => Unlisten::Channel(fold(word).into_owned()),
        Kind::QuotedName => Unlisten::Channel(unquote(word)?.into_owned()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_wherever_they_stand_and_as_postgresql_stores_them() {
        let long = "é".repeat(40);
        for (text, names) in [
            ("LISTEN Herd;", vec!["herd"]),
            ("/* so */ listen\n\"He\"\"rd\" -- it", vec!["He\"rd"]),
            ("LISTEN a; LISTEN b; LISTEN a", vec!["a", "b"]),
            ("UNLISTEN a", vec![]),
            ("SELECT 'no listen at all'", vec!["at"]),
            ("DO $$BEGIN LISTEN \"A\"; LISTEN b; END$$", vec!["A", "b"]),
            ("DO $x$BEGIN LISTEN a;END$x$", vec!["a"]),
            ("DO 'BEGIN LISTEN a; END'", vec!["a"]),
            ("CREATE TABLE listen (a int)", vec![]),
            (&format!("LISTEN {long}"), vec![&long[..62]]),
        ] {
            let found = channels(text.as_bytes());
            let names: Vec<_> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
            assert_eq!(found, names, "{text}");
        }
        let many: String = (0..99).map(|n| format!("LISTEN c{n};")).collect();
        assert_eq!(channels(many.as_bytes()).len(), CHANNELS_MAX);
    }

    #[test]
    fn one_unlisten_is_understood() {
        let channel = |name: &str| Some(Unlisten::Channel(name.as_bytes().to_vec()));
        assert_eq!(unlistened(b"UNLISTEN *;"), Some(Unlisten::All));
        assert_eq!(unlistened(b"unlisten Herd"), channel("herd"));
        assert_eq!(unlistened(b"UNLISTEN \"Herd\""), channel("Herd"));
        assert_eq!(unlistened(b"UNLISTEN a; SELECT 1"), None);
        assert_eq!(unlistened(b"LISTEN a"), None);
    }
}
