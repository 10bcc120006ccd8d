//! The graph of a proof: occurrences of sharded tables, key constants, and what follows from what.
//!
//! `a → b` is sound where the rows of `b` with another key than v can be taken away without changing the statement's
//! answer, once that holds for `a`. For `WHERE` and inner joins an equality of keys gives both directions; for the
//! condition of an outer join only the one from the preserved side.

use std::sync::Arc;

use super::template::LiteralKey;
use crate::catalog::{Key, Relation};
use crate::placement::{Decoded, KeyType, KeyValue};
use crate::sql::statement::{Expr, Literal, Type};

/// Occurrences of sharded tables in one statement.
pub(super) const NODES_MAX: usize = 256;

/// An occurrence of a sharded table.
pub(super) type Node = usize;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Constant {
    Value(KeyValue),
    /// `$n`, counted from 0.
    Parameter {
        index: u16,
        key_type: KeyType,
    },
    /// The type's input function will raise an error on any shard.
    Invalid,
}

/// Where constants come from that are kept; what is beyond proves nothing.
const SOURCES_MAX: usize = 64;

/// Literals whose equality is looked at in pairs; of more, each has to keep its value.
const PAIRED_MAX: usize = 8;

/// A constant, and the literal that it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub constant: Constant,
    pub literal: Option<LiteralKey>,
}

/// One constant at one place of the text, or a parameter at all of its places.
#[derive(Debug)]
struct Source {
    given: Given,
    /// The occurrences that it holds to its value.
    nodes: Vec<Node>,
}

/// What holds every occurrence.
pub(super) struct Common<'a> {
    pub given: &'a Given,
    /// Several sources do it together, since their values are the same.
    pub together: bool,
}

/// What has to be so with literals for a decision to hold.
pub(super) enum Pattern {
    Any,
    /// These pairs are the same value, or not.
    Pairs(Vec<(LiteralKey, LiteralKey, bool)>),
    /// The values themselves.
    Fixed(Vec<LiteralKey>),
}

#[derive(Debug, Default)]
pub(super) struct Proof {
    pub nodes: Vec<Arc<Relation>>,
    /// `edges[a]` lists every `b` with `a → b`.
    edges: Vec<Vec<Node>>,
    sources: Vec<Source>,
}

impl Proof {
    pub fn add_node(&mut self, relation: Arc<Relation>) -> Node {
        self.nodes.push(relation);
        self.edges.push(Vec::new());
        self.nodes.len() - 1
    }

    pub fn key(&self, node: Node) -> Option<&Key> {
        self.nodes.get(node).and_then(|relation| relation.key())
    }

    /// What holds `from` to a key value holds `to` to the same one.
    pub fn follows(&mut self, from: Node, to: Node) {
        let same_hash = match (self.key(from), self.key(to)) {
            (Some(from), Some(to)) => hash_family(from.key_type) == hash_family(to.key_type),
            _ => false,
        };
        if let (true, Some(known)) = (same_hash && from != to, self.edges.get_mut(from))
            && !known.contains(&to)
        {
            known.push(to);
        }
    }

    /// Only rows of `node` with this key value matter.
    pub fn holds(&mut self, node: Node, given: Given) {
        let is_full = self.sources.len() >= SOURCES_MAX;
        let known = self.sources.iter_mut().find(|source| {
            source.given.literal == given.literal
                && is_same(&source.given.constant, &given.constant)
        });
        match known {
            Some(source) => source.nodes.push(node),
            None if is_full => {}
            None => self.sources.push(Source {
                given,
                nodes: vec![node],
            }),
        }
    }

    /// A constant that holds every occurrence, if there is one: by itself, whatever the others are, or together with
    /// its equals.
    pub fn common_constant(&self) -> Option<Common<'_>> {
        let alone = self
            .sources
            .iter()
            .find(|source| self.reaches_all(&source.nodes));
        if let Some(source) = alone {
            return Some(Common {
                given: &source.given,
                together: false,
            });
        }
        let together = self.sources.iter().find(|source| {
            let equals = self
                .sources
                .iter()
                .filter(|other| is_same(&other.given.constant, &source.given.constant));
            let nodes: Vec<Node> = equals.flat_map(|other| &other.nodes).copied().collect();
            self.reaches_all(&nodes)
        });
        together.map(|source| Common {
            given: &source.given,
            together: true,
        })
    }

    pub fn has_constants(&self) -> bool {
        !self.sources.is_empty()
    }

    /// What has to be so with the literals for [`Proof::common_constant`] to have the same answer, where none holds
    /// everything alone.
    pub fn pattern(&self) -> Pattern {
        let literals = self
            .sources
            .iter()
            .filter_map(|source| source.given.literal);
        let literals: Vec<LiteralKey> = literals.collect();
        match (literals.len(), self.sources.len()) {
            (0, _) | (1, 1) => return Pattern::Any,
            (literal, all) if literal < all || literal > PAIRED_MAX => {
                return Pattern::Fixed(literals);
            }
            _ => {}
        }
        let mut pairs = Vec::new();
        let mut rest = self.sources.as_slice();
        while let Some((one, others)) = rest.split_first() {
            for other in others {
                let (Some(left), Some(right)) = (one.given.literal, other.given.literal) else {
                    continue;
                };
                let same = is_same(&one.given.constant, &other.given.constant);
                pairs.push((left, right, same));
            }
            rest = others;
        }
        Pattern::Pairs(pairs)
    }

    /// Whether everything follows from these occurrences.
    pub fn reaches_all(&self, from: &[Node]) -> bool {
        let mut reached = vec![false; self.nodes.len()];
        let mut pending = from.to_vec();
        while let Some(node) = pending.pop() {
            match reached.get_mut(node) {
                Some(seen) if !*seen => *seen = true,
                _ => continue,
            }
            pending.extend(self.edges.get(node).into_iter().flatten());
        }
        reached.iter().all(|&seen| seen)
    }
}

fn is_same(one: &Constant, other: &Constant) -> bool {
    match (one, other) {
        // `$1::text` and `$1::int8` may stand in one statement, and hash apart
        (
            Constant::Parameter { index, key_type },
            Constant::Parameter {
                index: other_index,
                key_type: other_type,
            },
        ) => index == other_index && hash_family(*key_type) == hash_family(*other_type),
        _ => one == other,
    }
}

/// Types whose equal values have equal hashes.
fn hash_family(key_type: KeyType) -> u8 {
    match key_type {
        KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => 0,
        KeyType::Text => 1,
        KeyType::Uuid => 2,
    }
}

/// The constant that `key = expr` compares with; `None` where the comparison may not be the key type's own.
pub(super) fn constant(expr: &Expr, key_type: KeyType) -> Option<Given> {
    match expr {
        Expr::Literal(literal) => literal_constant(literal, key_type, key_type),
        Expr::Parameter(number) => parameter_constant(*number, key_type),
        Expr::Cast { inner, to } => {
            let cast = cast_type(to, key_type)?;
            match inner.as_ref() {
                Expr::Parameter(number) => parameter_constant(*number, key_type),
                Expr::Literal(literal) => literal_constant(literal, cast, key_type),
                _ => None,
            }
        }
        _ => None,
    }
}

fn parameter_constant(number: u16, key_type: KeyType) -> Option<Given> {
    let index = number.checked_sub(1)?;
    Some(Given {
        constant: Constant::Parameter { index, key_type },
        literal: None,
    })
}

/// The key type that a cast makes of a value, where it hashes like the key.
fn cast_type(to: &Type, key_type: KeyType) -> Option<KeyType> {
    let cast = match to {
        Type::Int2 => KeyType::Int2,
        Type::Int4 => KeyType::Int4,
        Type::Int8 => KeyType::Int8,
        Type::Text => KeyType::Text,
        Type::Uuid => KeyType::Uuid,
        Type::Plain(_) | Type::Other(_) => return None,
    };
    (hash_family(cast) == hash_family(key_type)).then_some(cast)
}

fn literal_constant(literal: &Literal, read_as: KeyType, key_type: KeyType) -> Option<Given> {
    let (constant, slot) = match literal {
        Literal::Text(text) => {
            let (text, slot) = text.parts();
            let constant = match read_as.from_text(text.as_bytes()) {
                Decoded::Value(value) => Constant::Value(value),
                Decoded::Invalid => Constant::Invalid,
            };
            (constant, slot)
        }
        // digits are an int4 or int8 of their own: only with an integer key is the comparison one of integers
        Literal::Integer(value) if hash_family(key_type) == 0 => {
            let (value, slot) = value.parts();
            (Constant::Value(KeyValue::Int(*value)), slot)
        }
        Literal::Integer(_) | Literal::Null | Literal::Escaped | Literal::Other => return None,
    };
    let literal = slot.map(|slot| LiteralKey {
        slot,
        read_as,
        assigned: None,
    });
    Some(Given { constant, literal })
}
