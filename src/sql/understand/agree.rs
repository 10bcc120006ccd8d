//! Two lexers must see one text the same way: ours, written after PostgreSQL's, and the parser's.
//!
//! Compared are the words, names, strings, numbers and parameters in order, and the operators between them as bytes
//! that belong together (`a =@ b` and `a == b` are operators of somebody's own, not `=`). Where they differ nobody knows
//! what the statement says, and it is refused.

use sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::depth::Depth;
use super::{LINKS_MAX, Understood, unknown};
use crate::sql::error::Unparsed;
use crate::sql::scan::{self, Kind};
use crate::sql::slots;

/// What our scanner found in a text.
pub(super) struct Ours<'a> {
    tokens: Vec<Piece<'a>>,
    /// Whether an `E''` or `U&''` string has a backslash in it.
    pub escapes: bool,
    pub parameters: u16,
}

/// A token, or one byte of an operator.
#[derive(Clone, Copy)]
struct Piece<'a> {
    kind: Kind,
    text: &'a str,
    /// Of the same operator as the piece before it.
    goes_on: bool,
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
        let mut operators = Operators::default();
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
            operators.take(token.kind, start, &mut ours.tokens);
            ours.tokens.push(Piece {
                kind: token.kind,
                text: piece,
                goes_on: false,
            });
        }
        operators.end(&mut ours.tokens);
        Ok(ours)
    }

    /// Compares with the parser's tokens of the same text; says where each slot begins.
    pub fn agrees_with(&self, parsed: &[TokenWithSpan]) -> Understood<Vec<Location>> {
        let mut slots = Vec::new();
        let mut ours = self.tokens.iter().copied();
        for TokenWithSpan { token, span } in parsed {
            match token {
                Token::Whitespace(_) | Token::EOF => {}
                // an operator of somebody's own, which the parser takes for `=`
                Token::DoubleEq => return disagreement(),
                other if is_symbol(other) => {
                    // PostgreSQL's `!=` is its `<>`, to the parser too
                    let spellings: &[&str] = match other {
                        Token::Neq => &["<>", "!="],
                        other => &[&other.to_string()],
                    };
                    let length = spellings.first().map_or(0, |spelling| spelling.len());
                    let pieces: Vec<Piece> = ours.by_ref().take(length).collect();
                    if !spellings.iter().any(|spelling| is_spelt(&pieces, spelling)) {
                        return disagreement();
                    }
                }
                other => {
                    let Some(Piece { kind, text, .. }) = ours.next() else {
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

/// Whether these bytes are a whole operator, or a symbol that is part of none.
fn is_spelt(pieces: &[Piece], spelling: &str) -> bool {
    let mut before = None;
    pieces.len() == spelling.len()
        && pieces.iter().zip(spelling.bytes()).all(|(piece, byte)| {
            let goes_on = before.replace(byte).is_some_and(is_operator) && is_operator(byte);
            piece.kind == Kind::Symbol(byte) && piece.goes_on == goes_on
        })
}

/// Puts the bytes of operators together, as `scan.l` does.
#[derive(Default)]
struct Operators {
    /// The first piece of the row of symbols that is under way.
    begin: usize,
    /// Where the row would go on, in bytes of the text.
    end: Option<usize>,
}

impl Operators {
    /// One more token is about to join the pieces.
    fn take(&mut self, kind: Kind, start: usize, pieces: &mut [Piece]) {
        let symbol = matches!(kind, Kind::Symbol(symbol) if is_operator(symbol));
        if !symbol || self.end != Some(start) {
            self.end(pieces);
            self.begin = pieces.len();
        }
        self.end = symbol.then_some(start + 1);
    }

    /// An operator is as long as it can be, but ends with + or - only if it has one of the rarer symbols.
    fn end(&mut self, pieces: &mut [Piece]) {
        let Some(row) = pieces.get_mut(self.begin..) else {
            return;
        };
        let is_sign = |piece: &Piece| matches!(piece.kind, Kind::Symbol(b'+' | b'-'));
        let rare = row.iter().any(
            |piece| matches!(piece.kind, Kind::Symbol(symbol) if b"~!@#^&|`?%".contains(&symbol)),
        );
        let signs = row.iter().rev().take_while(|piece| is_sign(piece)).count();
        let joined = if rare { row.len() } else { row.len() - signs };
        for piece in row.iter_mut().take(joined).skip(1) {
            piece.goes_on = true;
        }
    }
}

fn is_operator(symbol: u8) -> bool {
    b"+-*/<>=~!@#%^&|`?".contains(&symbol)
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
