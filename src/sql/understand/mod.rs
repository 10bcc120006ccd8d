//! Text → [`Statement`], through sqlparser, with four safeguards, since a misread statement would be a wrong answer:
//!
//! - the text is short and shallow enough for the parser's recursion ([`depth`]), on a thread with [`STACK_BYTES`];
//! - the parser's tokens are the ones that our own scanner, written after PostgreSQL's lexer, finds ([`agree`]);
//! - every part of the tree is either carried over or named as unknown, never passed over;
//! - operators bind as in PostgreSQL: a looser one below a tighter one without parentheses is refused ([`expression`]).
//!
//! It presumes `standard_conforming_strings = on`; the session sees to that.

mod agree;
mod depth;
mod expression;
mod from;
mod literal;
mod locks;
mod names;
mod operators;
mod query;
mod types;
mod write;

use std::cell::RefCell;
use std::collections::BTreeSet;

use sqlparser::ast::Statement as Parsed;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Location, Token, Tokenizer};

pub use depth::STACK_BYTES;

use super::error::Unparsed;
use super::scan::{Verb, verb};
use super::statement::{Body, Query, Slot, Statement};

/// The longest text that is parsed, in bytes. What is longer is refused on a sharded database.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// The parser's own count of nested calls: more than any text needs that [`depth`] lets through.
const NESTING_MAX: usize = 500;

/// Operators of one text. A chain of them becomes a tree as deep as it is long, which is dropped recursively.
pub(super) const LINKS_MAX: usize = 2000;

/// What every conversion returns.
type Understood<T> = Result<T, Unparsed>;

/// Parses one statement (without its semicolon; one at the end is taken).
pub fn understand(text: &str) -> Understood<Statement> {
    read(text, true)
}

/// The same for a text that is always used as it is, such as a view's: its literals have no slots.
pub fn understand_fixed(text: &str) -> Understood<Statement> {
    read(text, false)
}

fn read(text: &str, has_slots: bool) -> Understood<Statement> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Unparsed::TooLong {
            max: TEXT_BYTES_MAX,
        });
    }
    check_verb(text)?;
    let ours = agree::Ours::of(text)?;
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text)
        .tokenize_with_location()
        .map_err(|error| Unparsed::Syntax(error.to_string()))?;
    let slots = ours.agrees_with(&tokens)?;
    let mut parser = Parser::new(&PostgreSqlDialect {})
        .with_recursion_limit(NESTING_MAX)
        .with_tokens_with_locations(operators::simplify(locks::simplify(tokens)));
    let mut parsed = parser.parse_statements().map_err(syntax)?;
    // The parser stops at END, which it takes for that of a block.
    if parser.peek_token_ref().token != Token::EOF {
        return unknown("END behind a statement");
    }
    let (Some(statement), true) = (parsed.pop(), parsed.is_empty()) else {
        return Err(Unparsed::NotOne);
    };
    let converter = Converter {
        escapes: ours.escapes,
        slots: if has_slots { slots } else { Vec::new() },
        shown: RefCell::default(),
    };
    let query = statement_query(&converter, &statement)?;
    Ok(Statement {
        query,
        parameters: ours.parameters,
        hidden: converter.hidden(),
    })
}

/// Lets queries through only: the parser knows many other commands, some of which nest.
fn check_verb(text: &str) -> Understood<()> {
    match verb(text.as_bytes()) {
        query if query.is_query() => Ok(()),
        Verb::Empty => Err(Unparsed::NotOne),
        Verb::Other(word) => {
            let word = String::from_utf8_lossy(word);
            Err(Unparsed::Syntax(format!("no statement begins with {word}")))
        }
        _ => {
            let words = text.split_whitespace();
            let first = words.map(str::to_uppercase).next();
            Err(Unparsed::Utility(first.unwrap_or_default()))
        }
    }
}

fn syntax(error: sqlparser::parser::ParserError) -> Unparsed {
    match error {
        sqlparser::parser::ParserError::RecursionLimitExceeded => Unparsed::TooDeep,
        other => Unparsed::Syntax(other.to_string()),
    }
}

fn statement_query(converter: &Converter, statement: &Parsed) -> Understood<Query> {
    match statement {
        Parsed::Query(query) => converter.query(query),
        Parsed::Insert(_) | Parsed::Update(_) | Parsed::Delete(_) | Parsed::Merge(_) => {
            converter.write(statement).map(plain)
        }
        other => {
            let text = other.to_string();
            Err(Unparsed::Utility(
                text.split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_uppercase(),
            ))
        }
    }
}

/// A query that is its body only.
fn plain(body: Body) -> Query {
    Query {
        with: Vec::new(),
        recursive: false,
        body,
        order_by: Vec::new(),
        limit: None,
        locks: Vec::new(),
    }
}

fn unknown<T>(what: impl Into<String>) -> Understood<T> {
    Err(Unparsed::Unknown(what.into()))
}

/// Carries the parser's tree over into ours.
struct Converter {
    /// Whether a string of the text has backslash escapes: then the value of such strings is not trusted.
    escapes: bool,
    /// Where each slot of the text begins, in order.
    slots: Vec<Location>,
    /// Slots that have become literals of the tree.
    shown: RefCell<BTreeSet<u32>>,
}

impl Converter {
    /// The slot of the literal that begins here.
    fn slot(&self, begin: Location) -> Option<Slot> {
        let index = self.slots.binary_search(&begin).ok()?;
        let index = u32::try_from(index).ok()?;
        self.shown.borrow_mut().insert(index);
        Some(Slot {
            index,
            negated: false,
        })
    }

    fn hidden(&self) -> Vec<u32> {
        let shown = self.shown.borrow();
        let all = 0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        all.filter(|index| !shown.contains(index)).collect()
    }
}

#[cfg(test)]
mod tests;
