//! A text without its literals, by which one plan serves `… WHERE id = 1` and `… WHERE id = 2`: a scan of bytes, no
//! parse. Each literal that may change leaves its class behind, so that texts which PostgreSQL would give other types
//! stay apart: its lexer makes an int4, an int8 or a numeric of a number by its size.
//!
//! What would surprise: strings with a prefix or in dollars, numbers that only newer versions read, and a string that goes on in the
//! next line are no slots; they stay in the text as they are.

use std::ops::Range;

use smallvec::SmallVec;

use super::scan::{Kind, tokens};

/// Stands in front of a class where a literal was; no UTF-8 text has this byte.
const MARK: u8 = 0xff;

/// Bytes of a text, and literals in it, up to which nothing is allocated.
const TEXT_BYTES_USUAL: usize = 512;
const LITERALS_USUAL: usize = 16;

/// What PostgreSQL's lexer makes of a literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    Text = b't',
    Int4 = b'4',
    Int8 = b'8',
    Numeric = b'n',
}

/// A text without its literals, and where they are.
#[derive(Debug)]
pub struct Stripped<'a> {
    text: &'a [u8],
    key: SmallVec<[u8; TEXT_BYTES_USUAL]>,
    literals: SmallVec<[Range<usize>; LITERALS_USUAL]>,
}

impl<'a> Stripped<'a> {
    /// Takes the literals out of a text. Blanks and comments count as one blank, and semicolons at the end as nothing.
    #[must_use]
    pub fn of(text: &'a str) -> Self {
        let text = text.as_bytes();
        let mut key = SmallVec::new();
        let mut literals = SmallVec::new();
        let mut end = None;
        let mut kept = 0;
        for token in tokens(text, true) {
            if end.is_some_and(|end| token.span.start > end) {
                key.push(b' ');
            }
            end = Some(token.span.end);
            let piece = text.get(token.span.clone()).unwrap_or_default();
            match class(token.kind, piece) {
                Some(class) => {
                    key.extend_from_slice(&[MARK, class as u8]);
                    literals.push(token.span);
                }
                None => key.extend_from_slice(piece),
            }
            if token.kind != Kind::Symbol(b';') {
                kept = key.len();
            }
        }
        key.truncate(kept);
        Stripped {
            text,
            key,
            literals,
        }
    }

    /// Equal for texts that differ in literals only.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The literal of this slot as it is written, with its quotes; slots count from 0.
    #[must_use]
    pub fn literal(&self, slot: u32) -> &'a [u8] {
        let index = usize::try_from(slot).unwrap_or(usize::MAX);
        let span = self.literals.get(index).cloned();
        span.and_then(|span| self.text.get(span))
            .unwrap_or_default()
    }
}

/// The class of a token that is a slot.
#[must_use]
pub fn class(kind: Kind, piece: &[u8]) -> Option<Class> {
    match kind {
        Kind::String => is_one_string(piece).then_some(Class::Text),
        Kind::Number => number_class(piece),
        _ => None,
    }
}

/// Whether every quote inside is doubled: the string ends, and does not go on in the next line.
fn is_one_string(piece: &[u8]) -> bool {
    let Some(mut rest) = inside(piece) else {
        return false;
    };
    while let Some(at) = memchr::memchr(b'\'', rest) {
        if rest.get(at + 1) != Some(&b'\'') {
            return false;
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    true
}

/// What stands between the quotes of a string.
pub(super) fn inside(piece: &[u8]) -> Option<&[u8]> {
    piece.strip_prefix(b"'")?.strip_suffix(b"'")
}

/// The value of a slot with class [`Class::Text`]: without the quotes, and each doubled one once.
#[must_use]
pub fn text_value(piece: &[u8]) -> Option<std::borrow::Cow<'_, [u8]>> {
    let inside = inside(piece)?;
    if memchr::memchr(b'\'', inside).is_none() {
        return Some(inside.into());
    }
    let mut value = Vec::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = memchr::memchr(b'\'', rest) {
        let (before, behind) = rest.split_at_checked(at + 1)?;
        value.extend_from_slice(before);
        rest = behind.get(1..)?;
    }
    value.extend_from_slice(rest);
    Some(value.into())
}

/// The value of a slot with class [`Class::Int4`] or [`Class::Int8`].
#[must_use]
pub fn integer_value(piece: &[u8]) -> Option<i64> {
    let mut value: i64 = 0;
    for byte in piece {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
        value = value.checked_mul(10)?.checked_add(digit)?;
    }
    (!piece.is_empty()).then_some(value)
}

fn number_class(piece: &[u8]) -> Option<Class> {
    if piece.iter().all(u8::is_ascii_digit) {
        return Some(match integer_value(piece) {
            Some(value) if i32::try_from(value).is_ok() => Class::Int4,
            Some(_) => Class::Int8,
            None => Class::Numeric,
        });
    }
    let digits = |from: usize| {
        let rest = piece.iter().skip(from);
        rest.take_while(|byte| byte.is_ascii_digit()).count()
    };
    let whole = digits(0);
    let mut at = whole;
    let mut fraction = 0;
    if piece.get(at) == Some(&b'.') {
        fraction = digits(at + 1);
        at += 1 + fraction;
    }
    if matches!(piece.get(at), Some(b'e' | b'E')) {
        at += 1 + usize::from(matches!(piece.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at);
        if exponent == 0 {
            return None;
        }
        at += exponent;
    }
    (at == piece.len() && whole + fraction > 0).then_some(Class::Numeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key with `?` and the class for each literal, and the literals.
    fn strip(text: &str) -> (String, Vec<String>) {
        let stripped = Stripped::of(text);
        let mut readable = String::new();
        for &byte in stripped.key() {
            readable.push(if byte == MARK { '?' } else { byte.into() });
        }
        let literals = 0..u32::try_from(stripped.literals.len()).unwrap();
        let literals = literals.map(|slot| String::from_utf8_lossy(stripped.literal(slot)).into());
        (readable, literals.collect())
    }

    #[test]
    fn literals_leave_their_class_behind() {
        let table: &[(&str, &str, &[&str])] = &[
            ("SELECT 1", "SELECT ?4", &["1"]),
            ("SELECT 2147483647", "SELECT ?4", &["2147483647"]),
            ("SELECT 2147483648", "SELECT ?8", &["2147483648"]),
            (
                "SELECT 9223372036854775808",
                "SELECT ?n",
                &["9223372036854775808"],
            ),
            (
                "SELECT 1.5, .5, 1., 1e3, 1.5E-7",
                "SELECT ?n, ?n, ?n, ?n, ?n",
                &["1.5", ".5", "1.", "1e3", "1.5E-7"],
            ),
            ("a=-5 AND b='x'", "a=-?4 AND b=?t", &["5", "'x'"]),
            ("'it''s', ''", "?t, ?t", &["'it''s'", "''"]),
            // what is no slot
            (
                "0x1F, 1_000, 12ab, 1.2.3, 1e, 1e+",
                "0x1F, 1_000, 12ab, 1.2.3, 1e, 1e+",
                &[],
            ),
            (
                "E'a', U&'b', $$c$$, $1, \"1\", B'0'",
                "E'a', U&'b', $$c$$, $1, \"1\", B'0'",
                &[],
            ),
            ("'a'\n 'b'", "'a'\n 'b'", &[]),
            ("'unfinished", "'unfinished", &[]),
            ("'", "'", &[]),
            ("'a' 'b'", "?t ?t", &["'a'", "'b'"]),
            // names with digits
            ("t1.c2, a1b", "t1.c2, a1b", &[]),
            // blanks and comments
            (" SELECT\n\t1 -- one\n; /* two */ ;", "SELECT ?4", &["1"]),
            ("SELECT 1; SELECT 2;", "SELECT ?4; SELECT ?4", &["1", "2"]),
            ("SELECT 1--;", "SELECT ?4", &["1"]),
            ("a/**/b", "a b", &[]),
        ];
        for (text, key, literals) in table {
            assert_eq!(strip(text).0, *key, "{text}");
            assert_eq!(strip(text).1, *literals, "{text}");
        }
    }

    #[test]
    fn values_are_those_of_the_literals() {
        let text = |piece: &'static str| text_value(piece.as_bytes()).unwrap().into_owned();
        assert_eq!(text("'a'"), b"a");
        assert_eq!(text("''"), b"");
        assert_eq!(text("'it''s'"), b"it's");
        assert_eq!(text("''''''"), b"''");
        assert_eq!(integer_value(b"007"), Some(7));
        assert_eq!(integer_value(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(integer_value(b"9223372036854775808"), None);
        assert_eq!(integer_value(b""), None);
    }
}
