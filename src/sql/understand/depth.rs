//! How deep the parser's tree of a text would be, seen from its tokens, before anybody builds it.
//!
//! The parser descends by function calls whose frames are large, and so does the walk over its tree: a text that is
//! too deep must be refused here, or it would end the process. Measured (release build): about 50 KiB of stack for a
//! subquery, 25 KiB for another pair of brackets, 10 KiB for an operator that nests without brackets; four times as
//! much without optimisation.

use super::{Understood, Unparsed};
use crate::sql::scan::Kind;

/// Brackets in brackets, CASE included.
const BRACKETS_MAX: usize = 64;

/// Subqueries in subqueries.
const QUERIES_MAX: usize = 24;

/// Operators that nest without brackets, such as NOT, `IS NULL` or a cast, in one another.
const LINKS_MAX: usize = 100;

/// Symbols side by side of which no operator is made.
const SYMBOLS_MAX: usize = 3;

/// Stack for a thread that calls [`understand`](super::understand) on any text, in bytes; a sum of the limits above.
pub const STACK_BYTES: usize = 32 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Opened {
    Bracket,
    Query,
    Case,
}

/// One pair of brackets, or what is outside of all.
#[derive(Clone, Copy)]
struct Level {
    opened: Opened,
    /// Links that still nest at this place.
    links: usize,
    /// Of these, the ones that AND does not end, for it belongs to them.
    ranges: usize,
}

/// Counts while the tokens pass by.
pub(super) struct Depth {
    levels: Vec<Level>,
    queries: usize,
    links: usize,
    after_bracket: bool,
    symbols: usize,
    symbols_end: usize,
}

/// Words that begin an operand of their own: what stood before does not nest with what follows.
const ENDS: &[&str] = &[
    "cross",
    "else",
    "except",
    "fetch",
    "from",
    "group",
    "having",
    "intersect",
    "limit",
    "natural",
    "offset",
    "on",
    "order",
    "returning",
    "select",
    "set",
    "then",
    "union",
    "using",
    "values",
    "when",
    "where",
    "window",
];

/// Words whose operator becomes one more level of the tree.
const LINKS: &[&str] = &[
    "at", "between", "collate", "ilike", "in", "interval", "is", "isnull", "join", "like", "not",
    "notnull", "operator", "overlaps", "similar",
];

impl Depth {
    pub fn new() -> Self {
        let outside = Level {
            opened: Opened::Bracket,
            links: 0,
            ranges: 0,
        };
        Self {
            levels: vec![outside],
            queries: 0,
            links: 0,
            after_bracket: false,
            symbols: 0,
            symbols_end: usize::MAX,
        }
    }

    /// One more token, which begins at this byte of the text.
    ///
    /// Errors: the tree would be too deep.
    pub fn take(&mut self, kind: Kind, piece: &str, start: usize) -> Understood<()> {
        let after_bracket = std::mem::take(&mut self.after_bracket);
        match kind {
            Kind::Symbol(symbol) => self.symbol(symbol, start),
            Kind::Word => self.word(&piece.to_ascii_lowercase(), after_bracket),
            _ => {}
        }
        let is_deep = self.levels.len() > BRACKETS_MAX
            || self.queries > QUERIES_MAX
            || self.links > LINKS_MAX;
        if is_deep {
            Err(Unparsed::TooDeep)
        } else {
            Ok(())
        }
    }

    fn symbol(&mut self, symbol: u8, start: usize) {
        match symbol {
            b'(' | b'[' => {
                self.open(Opened::Bracket);
                self.after_bracket = symbol == b'(';
            }
            b')' | b']' => self.close(),
            b',' | b';' => self.end_operand(0),
            b'.' => {}
            b'=' | b'<' | b'>' | b':' => self.link(),
            _ => {
                let goes_on = start == self.symbols_end;
                self.symbols = if goes_on { self.symbols + 1 } else { 1 };
                // an operator behind another one, with a blank between them, is a prefix of what follows
                let is_prefix = self.symbols_end != usize::MAX && !goes_on;
                if is_prefix || self.symbols > SYMBOLS_MAX {
                    self.link();
                }
                self.symbols_end = start + 1;
                return;
            }
        }
        self.symbols_end = usize::MAX;
    }

    fn word(&mut self, word: &str, after_bracket: bool) {
        self.symbols_end = usize::MAX;
        if after_bracket && matches!(word, "select" | "with" | "values" | "table") {
            self.open_query();
        }
        match word {
            "case" => self.open(Opened::Case),
            "end"
                if self
                    .levels
                    .last()
                    .is_some_and(|level| level.opened == Opened::Case) =>
            {
                self.close();
            }
            "and" | "or" => {
                let ranges = self.levels.last().map_or(0, |level| level.ranges);
                self.end_operand(ranges);
            }
            "between" => {
                self.link();
                if let Some(level) = self.levels.last_mut() {
                    level.ranges += 1;
                }
            }
            word if ENDS.contains(&word) => self.end_operand(0),
            word if LINKS.contains(&word) => self.link(),
            _ => {}
        }
    }

    fn open(&mut self, opened: Opened) {
        self.levels.push(Level {
            opened,
            links: 0,
            ranges: 0,
        });
    }

    /// The bracket just opened holds a query.
    fn open_query(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.opened = Opened::Query;
            self.queries += 1;
        }
    }

    fn close(&mut self) {
        // a CASE without its END ends with the bracket around it
        if self.levels.len() > 1
            && let Some(level) = self.levels.pop()
        {
            self.links -= level.links;
            self.queries -= usize::from(level.opened == Opened::Query);
        }
    }

    fn link(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.links += 1;
            self.links += 1;
        }
    }

    fn end_operand(&mut self, kept: usize) {
        if let Some(level) = self.levels.last_mut() {
            self.links = self.links - level.links + kept;
            level.links = kept;
            level.ranges = kept;
        }
    }
}
