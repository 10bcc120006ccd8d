//! Two lexers must see one text the same way: ours, written after PostgreSQL's, and the parser's.
//!
//! Compared are the words, names, strings, numbers and parameters in order, and the symbols between them as bytes
//! (which pairs of symbols make one operator is left to each). Where they differ nobody knows what the statement
//! says, and it is refused.

use sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::depth::Depth;
use super::{LINKS_MAX, Understood, unknown};
use crate::sql::error::Unparsed;
use crate::sql::scan::{self, Kind};
use crate::sql::slots;

/// What our scanner found in a text.
pub(super) struct Ours<'a> {
    tokens: Vec<(Kind, &'a str)>,
    /// Whether an `E''` or `U&''` string has a backslash in it.
    pub escapes: bool,
    pub parameters: u16,
}

impl<'a> Ours<'a> {
    pub fn of(text: &'a str) -> Understood<Self> {
        let mut ours = Ours {
            tokens: Vec::new(),
            escapes: false,
            parameters: 0,
        };
        let mut links = 0;
        let mut depth = Depth::new();
        for token in scan::tokens(text.as_bytes(), true) {
            let start = token.span.start;
            let Some(piece) = text.get(token.span) else {
                return unknown("a character cut in two");
            };
            depth.take(token.kind, piece, start)?;
            links += usize::from(is_link(token.kind, piece));
            if links > LINKS_MAX {
                return Err(Unparsed::TooDeep);
            }
            match token.kind {
                Kind::EscapeString | Kind::UnicodeString => ours.escapes |= piece.contains('\\'),
                Kind::UnicodeName => return unknown("a name written as U&\"…\""),
                Kind::Parameter => ours.parameters = ours.parameters.max(parameter(piece)?),
                _ => {}
            }
            ours.tokens.push((token.kind, piece));
        }
        Ok(ours)
    }

    /// Compares with the parser's tokens of the same text; says where each slot begins.
    pub fn agrees_with(&self, parsed: &[TokenWithSpan]) -> Understood<Vec<Location>> {
        let mut slots = Vec::new();
        let mut ours = self.tokens.iter().copied();
        for TokenWithSpan { token, span } in parsed {
            match token {
                Token::Whitespace(_) | Token::EOF => {}
                // PostgreSQL's `!=` is its `<>`, to the parser too
                Token::Neq => {
                    let pair = (
                        ours.next().map(|token| token.0),
                        ours.next().map(|token| token.0),
                    );
                    let spelt = |first, second| {
                        pair == (Some(Kind::Symbol(first)), Some(Kind::Symbol(second)))
                    };
                    if !spelt(b'<', b'>') && !spelt(b'!', b'=') {
                        return disagreement();
                    }
                }
                other if is_symbol(other) => {
                    for byte in other.to_string().bytes() {
                        if !matches!(ours.next(), Some((Kind::Symbol(symbol), _)) if symbol == byte)
                        {
                            return disagreement();
                        }
                    }
                }
                other => {
                    let Some((kind, text)) = ours.next() else {
                        return disagreement();
                    };
                    if !is_same(other, kind, text) {
                        return disagreement();
                    }
                    if slots::class(kind, text.as_bytes()).is_some() {
                        slots.push(span.start);
                    }
                }
            }
        }
        if ours.next().is_some() {
            disagreement()
        } else {
            Ok(slots)
        }
    }
}

fn disagreement<T>() -> Understood<T> {
    unknown("a token that can be read in two ways")
}

/// The number of `$n`: PostgreSQL takes 1 to 65535.
fn parameter(piece: &str) -> Understood<u16> {
    match piece.get(1..).unwrap_or_default().parse::<u16>() {
        Ok(number) if number > 0 => Ok(number),
        _ => unknown("a parameter number out of range"),
    }
}

/// Whether a token can make the parser's tree one level deeper without opening a parenthesis.
fn is_link(kind: Kind, piece: &str) -> bool {
    const WORDS: &[&str] = &[
        "and",
        "or",
        "not",
        "is",
        "isnull",
        "notnull",
        "in",
        "like",
        "ilike",
        "similar",
        "between",
        "collate",
        "at",
        "operator",
        "overlaps",
        "union",
        "intersect",
        "except",
        "join",
    ];
    match kind {
        Kind::Symbol(symbol) => !matches!(symbol, b',' | b'(' | b')' | b'.' | b';'),
        Kind::Word => WORDS.iter().any(|word| piece.eq_ignore_ascii_case(word)),
        _ => false,
    }
}

fn is_symbol(token: &Token) -> bool {
    !matches!(
        token,
        Token::Word(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::Placeholder(_)
            | Token::CopyData { .. }
    )
}

fn is_same(theirs: &Token, kind: Kind, text: &str) -> bool {
    match theirs {
        Token::Word(word) => match word.quote_style {
            None => kind == Kind::Word && word.value == text,
            Some('"') => {
                kind == Kind::QuotedName
                    && text == format!("\"{}\"", word.value.replace('"', "\"\""))
            }
            Some(_) => false,
        },
        Token::Number(digits, long) => kind == Kind::Number && !long && digits == text,
        Token::SingleQuotedString(value) => {
            kind == Kind::String && text == format!("'{}'", value.replace('\'', "''"))
        }
        Token::DollarQuotedString(quoted) => {
            let tag = quoted.tag.as_deref().unwrap_or_default();
            kind == Kind::DollarString && text == format!("${tag}${}${tag}$", quoted.value)
        }
        // one token on one line, or one without anything to decode; what it decodes to is not trusted where there is a
        // backslash
        Token::EscapedStringLiteral(value) => {
            let is_plain = || {
                let quoted = format!("'{}'", value.replace('\'', "''"));
                !text.contains('\\') && text.get(1..) == Some(quoted.as_str())
            };
            kind == Kind::EscapeString && (!text.contains('\n') || is_plain())
        }
        Token::UnicodeStringLiteral(_) => kind == Kind::UnicodeString && !text.contains('\n'),
        Token::HexStringLiteral(_) => kind == Kind::BitString,
        Token::Placeholder(number) => kind == Kind::Parameter && number == text,
        _ => false,
    }
}
