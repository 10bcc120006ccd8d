//! The graph of a proof: occurrences of sharded tables, key constants, and what follows from what.
//!
//! `a → b` is sound where the rows of `b` with another key than v can be taken away without changing the statement's
//! answer, once that holds for `a`. For `WHERE` and inner joins an equality of keys gives both directions; for the
//! condition of an outer join only the one from the preserved side.

use std::sync::Arc;

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

/// Different constants that are kept; what is beyond proves nothing.
const CONSTANTS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Proof {
    pub nodes: Vec<Arc<Relation>>,
    /// `edges[a]` lists every `b` with `a → b`.
    edges: Vec<Vec<Node>>,
    constants: Vec<(Constant, Vec<Node>)>,
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
    pub fn holds(&mut self, node: Node, constant: Constant) {
        let is_full = self.constants.len() >= CONSTANTS_MAX;
        let known = self
            .constants
            .iter_mut()
            .find(|(known, _)| is_same(known, &constant));
        match known {
            Some((_, nodes)) => nodes.push(node),
            None if is_full => {}
            None => self.constants.push((constant, vec![node])),
        }
    }

    /// A constant that holds every occurrence, if there is one.
    pub fn common_constant(&self) -> Option<&Constant> {
        let found = self
            .constants
            .iter()
            .find(|(_, held)| self.reaches_all(held));
        found.map(|(constant, _)| constant)
    }

    pub fn has_constants(&self) -> bool {
        !self.constants.is_empty()
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
pub(super) fn constant(expr: &Expr, key_type: KeyType) -> Option<Constant> {
    match expr {
        Expr::Literal(literal) => literal_constant(literal, key_type, key_type),
        Expr::Parameter(number) => Some(Constant::Parameter {
            index: number.checked_sub(1)?,
            key_type,
        }),
        Expr::Cast { inner, to } => {
            let cast = cast_type(to, key_type)?;
            match inner.as_ref() {
                Expr::Parameter(number) => Some(Constant::Parameter {
                    index: number.checked_sub(1)?,
                    key_type,
                }),
                Expr::Literal(literal) => literal_constant(literal, cast, key_type),
                _ => None,
            }
        }
        _ => None,
    }
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

fn literal_constant(literal: &Literal, read_as: KeyType, key_type: KeyType) -> Option<Constant> {
    match literal {
        Literal::Text(text) => Some(match read_as.from_text(text.as_bytes()) {
            Decoded::Value(value) => Constant::Value(value),
            Decoded::Invalid => Constant::Invalid,
        }),
        // digits are an int4 or int8 of their own: only with an integer key is the comparison one of integers
        Literal::Integer(value) if hash_family(key_type) == 0 => {
            Some(Constant::Value(KeyValue::Int(*value)))
        }
        Literal::Integer(_) | Literal::Null | Literal::Other => None,
    }
}
