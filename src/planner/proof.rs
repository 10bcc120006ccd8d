//! The graph of a proof: occurrences of sharded tables, key values, and what follows from what.
//!
//! `a → b` is sound where the rows of `b` with other keys than those of `a` can be taken away without changing the
//! statement's answer. For `WHERE` and inner joins an equality of keys gives both directions; for the condition of an
//! outer join only the one from the preserved side.
//!
//! What holds an occurrence is a *source*: a set of values, one of which its key has in every row that matters. Several
//! sources narrow it together. What comes of it is [`Keys`], where only the values are missing.

use std::sync::Arc;

use super::Assigned;
use super::keys::{Group, Keys};
use super::refusal::Refusal;
use super::template::LiteralKey;
use crate::catalog::{Key, Relation};
use crate::placement::{Decoded, KeyType, KeyValue, array};
use crate::sql::statement::{Expr, Literal, Type};

/// Occurrences of sharded tables in one statement.
pub(super) const NODES_MAX: usize = 256;

/// Sources that are kept, and values in all of them; what is beyond proves nothing.
const SOURCES_MAX: usize = 64;
pub(super) const VALUES_MAX: usize = 50_000;

/// An occurrence of a sharded table.
pub(super) type Node = usize;

/// One value, as far as the text says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Constant {
    Value(KeyValue),
    /// `$n`, counted from 0.
    Parameter {
        index: u16,
        key_type: KeyType,
        /// Of the key of a new row.
        assigned: Option<Assigned>,
    },
    /// The elements of the array `$n`.
    Elements {
        index: u16,
        key_type: KeyType,
    },
    /// No row has it: the column cannot hold it.
    Nothing,
    /// The type's input function will raise an error on any shard.
    Invalid,
}

/// A value, and the literal that it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub constant: Constant,
    pub literal: Option<LiteralKey>,
}

impl Given {
    pub fn is_fixed(&self) -> bool {
        matches!(
            self.constant,
            Constant::Value(_) | Constant::Nothing | Constant::Invalid
        )
    }
}

/// A condition on keys.
#[derive(Debug)]
struct Source {
    /// Without any, no row fulfils it.
    values: Vec<Given>,
    /// The occurrences whose key has one of the values.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
pub(super) struct Proof {
    pub nodes: Vec<Arc<Relation>>,
    /// `edges[a]` lists every `b` with `a → b`.
    edges: Vec<Vec<Node>>,
    sources: Vec<Source>,
    values: usize,
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

    /// What holds `from` to some keys holds `to` to the same ones. `false` where equal keys may hash apart.
    pub fn follows(&mut self, from: Node, to: Node) -> bool {
        let same_hash = match (self.key(from), self.key(to)) {
            (Some(from), Some(to)) => from.key_type.hashes_like(to.key_type),
            _ => false,
        };
        if let (true, Some(known)) = (same_hash && from != to, self.edges.get_mut(from))
            && !known.contains(&to)
        {
            known.push(to);
        }
        same_hash
    }

    /// Only rows of `node` with one of these key values matter.
    pub fn holds(&mut self, node: Node, values: Vec<Given>) {
        let is_full = self.sources.len() >= SOURCES_MAX || self.values + values.len() > VALUES_MAX;
        let mut sources = self.sources.iter_mut();
        match sources.find(|source| source.values == values) {
            Some(source) => source.nodes.push(node),
            None if is_full => {}
            None => {
                self.values += values.len();
                self.sources.push(Source {
                    values,
                    nodes: vec![node],
                });
            }
        }
    }

    pub fn has_sources(&self) -> bool {
        !self.sources.is_empty()
    }

    /// The sources that hold each occurrence.
    fn sources_of(&self) -> Vec<Vec<usize>> {
        let mut found = vec![Vec::new(); self.nodes.len()];
        for (index, source) in self.sources.iter().enumerate() {
            let reached = self.reached(&source.nodes);
            for (sources, _) in found.iter_mut().zip(reached).filter(|(_, seen)| *seen) {
                sources.push(index);
            }
        }
        found
    }

    /// Whether every occurrence is held by some source.
    pub fn holds_all(&self) -> bool {
        self.sources_of().iter().all(|sources| !sources.is_empty())
    }

    /// What is left to do when the values are known: occurrences that the same sources hold are one group. `root` is
    /// the occurrence on whose shards it runs where it runs on several; without one, the error says why it does not.
    pub fn keys(&self, root: Result<Node, Refusal>) -> Keys {
        if let Some(only) = self.only_value() {
            return Keys {
                sets: vec![vec![only.clone()]],
                groups: vec![Group { sets: vec![0] }],
                root: root.map(|_| 0),
            };
        }
        let by_node = self.sources_of();
        let mut groups: Vec<Group> = Vec::new();
        for sets in &by_node {
            if !groups.iter().any(|group| &group.sets == sets) {
                groups.push(Group { sets: sets.clone() });
            }
        }
        let root = root.map(|root| {
            let sets = by_node.get(root);
            let place = groups.iter().position(|group| Some(&group.sets) == sets);
            place.unwrap_or_default()
        });
        Keys {
            sets: self
                .sources
                .iter()
                .map(|source| source.values.clone())
                .collect(),
            groups,
            root,
        }
    }

    /// A value that holds everything by itself: whatever else is said could only take rows away. One of the text before
    /// one that is bound.
    fn only_value(&self) -> Option<&Given> {
        let alone = self
            .sources
            .iter()
            .filter_map(|source| match source.values.as_slice() {
                [only] if self.reached(&source.nodes).iter().all(|&seen| seen) => Some(only),
                _ => None,
            })
            .filter(|given| !matches!(given.constant, Constant::Elements { .. }));
        alone.min_by_key(|given| !given.is_fixed())
    }

    /// Whether everything follows from this occurrence.
    pub fn is_root(&self, node: Node) -> bool {
        self.reached(&[node]).iter().all(|&seen| seen)
    }

    fn reached(&self, from: &[Node]) -> Vec<bool> {
        let mut reached = vec![false; self.nodes.len()];
        let mut pending = from.to_vec();
        while let Some(node) = pending.pop() {
            match reached.get_mut(node) {
                Some(seen) if !*seen => *seen = true,
                _ => continue,
            }
            pending.extend(self.edges.get(node).into_iter().flatten());
        }
        reached
    }
}

/// The values that `key = expr` compares with: none where it is NULL. `None` where the comparison may not be the key
/// type's own.
pub(super) fn constant(expr: &Expr, key_type: KeyType) -> Option<Vec<Given>> {
    match expr {
        Expr::Literal(Literal::Null) => Some(Vec::new()),
        // a string among numbers is read as what they have in common, so it may be wider than the key
        Expr::Literal(literal) if key_type.hashes_like(KeyType::Int8) => {
            one(literal_constant(literal, KeyType::Int8, key_type))
        }
        Expr::Literal(literal) => one(literal_constant(literal, key_type, key_type)),
        Expr::Parameter(number) => one(parameter_constant(*number, key_type)),
        Expr::Cast { inner, to } => {
            let cast = cast_type(to, key_type)?;
            match inner.as_ref() {
                Expr::Literal(Literal::Null) => Some(Vec::new()),
                Expr::Parameter(number) => one(parameter_constant(*number, key_type)),
                Expr::Literal(literal) => one(literal_constant(literal, cast, key_type)),
                // the innermost cast reads the text; the others keep the value, or are an error
                cast @ Expr::Cast { .. } => constant(cast, key_type),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Without columns and calls.
pub(super) fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(_) | Expr::Parameter(_) => true,
        Expr::Cast { inner, .. } => is_constant(inner),
        _ => false,
    }
}

fn one(given: Option<Given>) -> Option<Vec<Given>> {
    given.map(|given| vec![given])
}

/// The values that `key = ANY (expr)` compares with. An array that is written out counts as it is written, which is
/// noted in `fixed`; one whose text is not understood proves nothing.
pub(super) fn elements(expr: &Expr, key_type: KeyType, fixed: &mut Vec<u32>) -> Option<Vec<Given>> {
    let (array, read_as) = match expr {
        Expr::Cast {
            inner,
            to: Type::Array(element),
        } => (inner.as_ref(), cast_type(element, key_type)?),
        other => (other, key_type),
    };
    match array {
        Expr::Parameter(number) => Some(vec![Given {
            constant: Constant::Elements {
                index: number.checked_sub(1)?,
                key_type,
            },
            literal: None,
        }]),
        Expr::Literal(Literal::Null) => Some(Vec::new()),
        Expr::Literal(Literal::Text(text)) => elements_of(text.fix(fixed), read_as),
        _ => None,
    }
}

fn elements_of(text: &str, key_type: KeyType) -> Option<Vec<Given>> {
    let elements = array::from_text(text.as_bytes())?;
    let value = |element: &std::borrow::Cow<'_, [u8]>| Given {
        constant: match key_type.from_text(element) {
            Decoded::Value(value) => Constant::Value(value),
            Decoded::Invalid => Constant::Invalid,
        },
        literal: None,
    };
    Some(elements.iter().flatten().map(value).collect())
}

fn parameter_constant(number: u16, key_type: KeyType) -> Option<Given> {
    let index = number.checked_sub(1)?;
    Some(Given {
        constant: Constant::Parameter {
            index,
            key_type,
            assigned: None,
        },
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
        Type::Array(_) | Type::Plain(_) | Type::Other(_) => return None,
    };
    cast.hashes_like(key_type).then_some(cast)
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
        Literal::Integer(value) if key_type.hashes_like(KeyType::Int8) => {
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
