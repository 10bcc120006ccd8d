//! Finds the tokens and the statement boundaries of a query text, in bytes, exactly where PostgreSQL's own lexer
//! (`src/backend/parser/scan.l`) finds them: quotes, `E''`, `U&''`, dollar quotes, nested comments, quoted names.
//!
//! Takes any bytes, never fails, never allocates but for the list of statements; an unfinished quote or comment lasts
//! to the end of the text. What surprises: `E'a'` continued on a new line by `'b\'c'` is one string in which the
//! backslash still escapes, and a semicolon in parentheses (CREATE RULE) or in BEGIN ATOMIC … END ends nothing.

use std::ops::Range;

pub use super::verb::{Discard, Isolation, Modes, Name, Verb, verb};

/// What a token is; its bytes are `text[token.span]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An identifier or keyword without quotes.
    Word,
    /// `"name"`.
    QuotedName,
    /// `U&"name"`.
    UnicodeName,
    /// `'…'` without a prefix, with its continuation lines.
    String,
    /// `E'…'`.
    EscapeString,
    /// `U&'…'`.
    UnicodeString,
    /// `B'…'` or `X'…'`.
    BitString,
    /// `$tag$…$tag$`.
    DollarString,
    Number,
    /// `$1`.
    Parameter,
    /// One byte of anything else.
    Symbol(u8),
}

/// One token and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub span: Range<usize>,
}

/// The tokens of a text, without blanks and comments.
#[derive(Debug, Clone)]
pub struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
    standard_conforming_strings: bool,
}

/// The statements of a simple query: their spans without the semicolons, empty ones left out.
pub fn split(text: &[u8], standard_conforming_strings: bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut boundary = Boundary::default();
    let mut begun: Option<usize> = None;
    let mut end = 0;
    for token in tokens(text, standard_conforming_strings) {
        let word = text.get(token.span.clone()).unwrap_or_default();
        if boundary.ends_at(token.kind, word) {
            found.extend(begun.take().map(|start| start..end));
            continue;
        }
        begun.get_or_insert(token.span.start);
        end = token.span.end;
    }
    found.extend(begun.map(|start| start..end));
    found
}

/// Whether the text holds at most one statement. Most texts have no semicolon and are answered by one search.
pub fn is_single(text: &[u8], standard_conforming_strings: bool) -> bool {
    let Some(first) = memchr::memchr(b';', text) else {
        return true;
    };
    let rest = text.get(first + 1..).unwrap_or_default();
    if rest.iter().all(|&byte| is_space(byte)) {
        return true;
    }
    split(text, standard_conforming_strings).len() <= 1
}

/// Whether the text is surely one SELECT, INSERT, UPDATE or DELETE: the quick answer for most texts, found by two
/// looks. `false` says nothing.
pub fn is_plain_query(text: &[u8]) -> bool {
    let Some((word, rest)) = text.split_at_checked(6) else {
        return false;
    };
    let is_one = [&b"select"[..], b"insert", b"update", b"delete"]
        .iter()
        .any(|verb| word.eq_ignore_ascii_case(verb));
    // Many texts end in a semicolon.
    let behind = memchr::memchr(b';', rest).and_then(|at| rest.get(at + 1..));
    is_one
        && rest.first().is_some_and(|&byte| is_space(byte))
        && behind.is_none_or(|behind| behind.iter().all(|&byte| is_space(byte)))
}

/// The tokens of `text` from its start.
pub fn tokens(text: &[u8], standard_conforming_strings: bool) -> Tokens<'_> {
    Tokens {
        text,
        at: 0,
        standard_conforming_strings,
    }
}

/// Decides which semicolons end a statement.
#[derive(Default)]
struct Boundary {
    parentheses: usize,
    /// Open `BEGIN ATOMIC` and `CASE` of a CREATE FUNCTION or CREATE PROCEDURE.
    bodies: usize,
    words: usize,
    creates: bool,
    routine: bool,
    after_begin: bool,
}

impl Boundary {
    /// Takes the next token; true where it is a semicolon that ends the statement.
    fn ends_at(&mut self, kind: Kind, word: &[u8]) -> bool {
        let after_begin = std::mem::take(&mut self.after_begin);
        match kind {
            Kind::Symbol(b'(') => self.parentheses += 1,
            Kind::Symbol(b')') => self.parentheses = self.parentheses.saturating_sub(1),
            Kind::Symbol(b';') if self.parentheses == 0 && self.bodies == 0 => {
                *self = Self::default();
                return true;
            }
            Kind::Word => self.word(word, after_begin),
            _ => {}
        }
        false
    }

    fn word(&mut self, word: &[u8], after_begin: bool) {
        self.words += 1;
        let is = |other: &str| word.eq_ignore_ascii_case(other.as_bytes());
        if self.words == 1 {
            self.creates = is("create");
        } else if self.creates && !self.routine && self.words <= 4 {
            self.routine = is("function") || is("procedure");
        } else if self.routine {
            if self.bodies == 0 {
                self.after_begin = is("begin");
                self.bodies = usize::from(after_begin && is("atomic"));
            } else if is("begin") || is("case") {
                self.bodies += 1;
            } else if is("end") {
                self.bodies -= 1;
            }
        }
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.skip_blanks();
        let start = self.at;
        let first = self.byte(0)?;
        let kind = match first {
            b'\'' => {
                let escapes = !self.standard_conforming_strings;
                self.string(0, escapes);
                Kind::String
            }
            b'"' => {
                self.quoted_name(0);
                Kind::QuotedName
            }
            b'$' => self.dollar(),
            b'0'..=b'9' => self.number(),
            b'.' if self.byte(1).is_some_and(|byte| byte.is_ascii_digit()) => self.number(),
            _ if starts_name(first) => self.word(first),
            other => {
                self.at += 1;
                Kind::Symbol(other)
            }
        };
        Some(Token {
            kind,
            span: start..self.at.min(self.text.len()),
        })
    }
}

impl Tokens<'_> {
    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        loop {
            match (self.byte(0), self.byte(1)) {
                (Some(space), _) if is_space(space) => self.at += 1,
                (Some(b'-'), Some(b'-')) => self.at = line_end(self.text, self.at),
                (Some(b'/'), Some(b'*')) => self.skip_comment(),
                _ => return,
            }
        }
    }

    /// A `/* … */`, which may hold others.
    fn skip_comment(&mut self) {
        let mut depth = 0usize;
        loop {
            match (self.byte(0), self.byte(1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                (Some(_), _) => self.at += 1,
                (None, _) => return,
            }
        }
    }

    /// A string whose opening quote is `prefix` bytes ahead, with all its continuation lines.
    fn string(&mut self, prefix: usize, escapes: bool) {
        self.at += prefix + 1;
        while let Some(byte) = self.byte(0) {
            self.at += 1;
            match byte {
                b'\\' if escapes => self.at += 1,
                b'\'' if self.byte(0) == Some(b'\'') => self.at += 1,
                b'\'' => match continuation(self.text, self.at) {
                    Some(after_quote) => self.at = after_quote,
                    None => return,
                },
                _ => {}
            }
        }
        self.at = self.text.len();
    }

    fn quoted_name(&mut self, prefix: usize) {
        self.at += prefix + 1;
        while let Some(byte) = self.byte(0) {
            self.at += 1;
            if byte == b'"' {
                if self.byte(0) != Some(b'"') {
                    return;
                }
                self.at += 1;
            }
        }
    }

    /// `$1`, `$tag$…$tag$`, or a lone dollar.
    fn dollar(&mut self) -> Kind {
        let digits = self
            .rest()
            .iter()
            .skip(1)
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if digits > 0 {
            self.at += 1 + digits;
            return Kind::Parameter;
        }
        let tag = match self.byte(1) {
            Some(first) if starts_name(first) => self
                .rest()
                .iter()
                .skip(1)
                .take_while(|&&byte| continues_name(byte) && byte != b'$')
                .count(),
            _ => 0,
        };
        if self.byte(1 + tag) != Some(b'$') {
            self.at += 1;
            return Kind::Symbol(b'$');
        }
        let length = tag + 2;
        let (delimiter, body) = self.rest().split_at_checked(length).unwrap_or_default();
        let close = (0..body.len()).find(|&at| {
            body.get(at..)
                .is_some_and(|rest| rest.starts_with(delimiter))
        });
        self.at = close.map_or(self.text.len(), |close| self.at + 2 * length + close);
        Kind::DollarString
    }

    /// Digits, a point, an exponent, and the letters that newer versions allow (`0x1F`, `1_000`).
    fn number(&mut self) -> Kind {
        while let Some(byte) = self.byte(0) {
            let exponent = matches!(byte, b'e' | b'E') && matches!(self.byte(1), Some(b'+' | b'-'));
            let range = byte == b'.' && self.byte(1) == Some(b'.');
            if exponent && self.byte(2).is_some_and(|digit| digit.is_ascii_digit()) {
                self.at += 2;
            } else if range || !(byte == b'.' || byte == b'_' || byte.is_ascii_alphanumeric()) {
                break;
            } else {
                self.at += 1;
            }
        }
        Kind::Number
    }

    fn word(&mut self, first: u8) -> Kind {
        match (first, self.byte(1), self.byte(2)) {
            (b'e' | b'E', Some(b'\''), _) => {
                self.string(1, true);
                return Kind::EscapeString;
            }
            (b'b' | b'B' | b'x' | b'X', Some(b'\''), _) => {
                self.string(1, false);
                return Kind::BitString;
            }
            (b'u' | b'U', Some(b'&'), Some(b'\'')) => {
                self.string(2, false);
                return Kind::UnicodeString;
            }
            (b'u' | b'U', Some(b'&'), Some(b'"')) => {
                self.quoted_name(2);
                return Kind::UnicodeName;
            }
            _ => {}
        }
        self.at += self
            .rest()
            .iter()
            .take_while(|&&byte| continues_name(byte))
            .count();
        Kind::Word
    }
}

/// Where the string goes on when its closing quote is followed by blanks with a line break and another quote: the
/// place after that quote.
fn continuation(text: &[u8], after_quote: usize) -> Option<usize> {
    let mut at = after_quote;
    let mut broken = false;
    loop {
        match (text.get(at), text.get(at + 1)) {
            (Some(b'\n' | b'\r'), _) => {
                broken = true;
                at += 1;
            }
            (Some(&space), _) if is_space(space) => at += 1,
            (Some(b'-'), Some(b'-')) => at = line_end(text, at),
            (Some(b'\''), _) if broken => return Some(at + 1),
            _ => return None,
        }
    }
}

fn line_end(text: &[u8], from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    rest.iter()
        .position(|&byte| byte == b'\n' || byte == b'\r')
        .map_or(text.len(), |length| from + length)
}

/// PostgreSQL's blanks. (The vertical tab became one in version 16 and is an error before.)
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn starts_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_name(byte: u8) -> bool {
    starts_name(byte) || byte.is_ascii_digit() || byte == b'$'
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
