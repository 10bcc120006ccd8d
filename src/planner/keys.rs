//! From key values to shards: what is left to do at each execution of a statement whose occurrences are all held.
//!
//! A statement runs on one shard where every row that matters is there, whatever their keys are. Where they are on
//! several, it runs on those of its root, if it has the shape for that, or it is refused.

use std::sync::Arc;

use smallvec::SmallVec;

use super::proof::{Constant, Given};
use super::refusal::Refusal;
use super::target::{self, Found, Parameters, Target};
use crate::names::ShardId;
use crate::placement::{KeyValue, Placement};
use crate::sql::slots::Stripped;

/// Shards, in order and each once.
type Shards = SmallVec<[ShardId; 4]>;

/// What decides about one statement, by value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Each a choice of values.
    pub(super) sets: Vec<Vec<Given>>,
    /// The occurrences, by what holds them: a row that matters has a key out of each of these sets.
    pub(super) groups: Vec<Group>,
    /// The group whose shards have the rows of the answer, or why it cannot run on several shards.
    pub(super) root: Result<usize, Refusal>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// At least one.
    pub sets: Vec<usize>,
}

impl Keys {
    /// Values in all.
    pub(super) fn value_count(&self) -> usize {
        self.sets.iter().map(Vec::len).sum()
    }

    /// No parameter is among the values.
    pub(super) fn are_fixed(&self) -> bool {
        self.sets.iter().flatten().all(Given::is_fixed)
    }

    /// The one value that everything hangs on.
    pub(super) fn only(&self) -> Option<&Given> {
        match (self.sets.as_slice(), self.groups.as_slice()) {
            ([set], [_]) => match set.as_slice() {
                [only] => Some(only),
                _ => None,
            },
            _ => None,
        }
    }

    /// Parameters, in order and each once, from 0.
    pub(super) fn parameters(&self) -> Vec<u16> {
        let indexes = self
            .sets
            .iter()
            .flatten()
            .filter_map(|given| match given.constant {
                Constant::Parameter { index, .. } | Constant::Elements { index, .. } => Some(index),
                Constant::Value(_) | Constant::Nothing | Constant::Invalid => None,
            });
        let mut indexes: Vec<u16> = indexes.collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes
    }

    /// With the values of another text's literals.
    pub(super) fn with(&self, literals: &Stripped<'_>) -> Self {
        let mut other = self.clone();
        for given in other.sets.iter_mut().flatten() {
            if let Some(literal) = given.literal {
                given.constant = literal.constant(literals);
            }
        }
        other
    }

    /// Where it runs with these values.
    ///
    /// Errors: it would need several shards, a parameter whose type does not hash like the key, or NULL as the key of a
    /// new row.
    pub(super) fn target(
        &self,
        placement: &Placement,
        parameters: &dyn Parameters,
    ) -> Result<Target, Refusal> {
        let resolve = |given: &Given, add: &mut dyn FnMut(&KeyValue)| {
            target::resolve(&given.constant, parameters, add)
        };
        self.evaluate(placement, resolve)
    }

    /// The same with the literals of another text, where no value is a parameter.
    pub(super) fn target_with(
        &self,
        placement: &Placement,
        literals: &Stripped<'_>,
    ) -> Result<Target, Refusal> {
        let resolve = |given: &Given, add: &mut dyn FnMut(&KeyValue)| match given.literal {
            Some(literal) => target::resolve(&literal.constant(literals), &(), add),
            None => target::resolve(&given.constant, &(), add),
        };
        self.evaluate(placement, resolve)
    }

    fn evaluate(
        &self,
        placement: &Placement,
        mut resolve: impl FnMut(&Given, &mut dyn FnMut(&KeyValue)) -> Result<Found, Refusal>,
    ) -> Result<Target, Refusal> {
        let mut sets: SmallVec<[Shards; 2]> = SmallVec::new();
        for set in &self.sets {
            let mut shards = Shards::new();
            let mut add = |value: &KeyValue| insert(&mut shards, placement.shard(value));
            for given in set {
                if resolve(given, &mut add)? == Found::Invalid {
                    // Whichever server reads it raises the error.
                    return Ok(Target::Authoritative);
                }
            }
            sets.push(shards);
        }
        let mut all = Shards::new();
        for group in &self.groups {
            for shard in common(group, &sets) {
                insert(&mut all, shard);
            }
        }
        Ok(match all.as_slice() {
            // No row of any shard matters: it is asked for the shape of the answer.
            [] => Target::Any,
            [one] => Target::One(*one),
            _ => {
                let root = self.root.as_ref().map_err(Refusal::clone)?;
                let group = self.groups.get(*root);
                let shards = group.map_or(all, |group| common(group, &sets));
                several(&shards)
            }
        })
    }
}

fn several(shards: &[ShardId]) -> Target {
    match shards {
        [] => Target::Any,
        [one] => Target::One(*one),
        several => Target::Some(Arc::from(several)),
    }
}

/// The shards that are in every set of the group.
fn common(group: &Group, sets: &[Shards]) -> Shards {
    let mut sets = group.sets.iter().filter_map(|&set| sets.get(set));
    let mut common = sets.next().cloned().unwrap_or_default();
    for other in sets {
        common.retain(|shard| other.binary_search(shard).is_ok());
    }
    common
}

fn insert(shards: &mut Shards, shard: ShardId) {
    if let Err(at) = shards.binary_search(&shard) {
        shards.insert(at, shard);
    }
}
