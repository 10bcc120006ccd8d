//! One plan for all texts that differ in their literals only.
//!
//! What makes it sound: the proof of a key stands on *where* a literal is, never on its value, so the same place in
//! another text proves the same for another shard. Where a decision did hang on values it leaves a [`Guard`], and a
//! text that does not pass is planned anew. Refusals are no templates: other values might have a plan.

use super::proof::Constant;
use super::survey::names_a_moment;
use super::target::stored;
use super::{Assigned, Plan, Route};
use crate::placement::{Decoded, KeyType, KeyValue, Placement};
use crate::sql::slots::{Stripped, integer_value, text_value};
use crate::sql::statement::Slot;

/// Guards of a template that is kept, and bytes of the literals in them.
const GUARDS_MAX: usize = 64;
const GUARD_BYTES_MAX: usize = 1024;

/// A plan that holds for other literals too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub(super) plan: Plan,
    /// The literal whose value names the shard.
    pub(super) key: Option<LiteralKey>,
    pub(super) guards: Vec<Guard>,
}

/// What literals must fulfil for a template to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Guard {
    /// It is written like this.
    Is(u32, Box<[u8]>),
    /// No word in it reads the clock.
    NoMoment(u32),
    /// Two key values are the same, or are not.
    Same(LiteralKey, LiteralKey, bool),
}

/// How a literal is read as a key value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LiteralKey {
    pub slot: Slot,
    pub read_as: KeyType,
    /// Of the key of a new row.
    pub assigned: Option<Assigned>,
}

impl LiteralKey {
    /// The key value that this literal is in another text.
    pub fn constant(&self, literals: &Stripped<'_>) -> Constant {
        let piece = literals.literal(self.slot.index);
        let value = if piece.starts_with(b"'") {
            match text_value(piece).map(|text| self.read_as.from_text(&text)) {
                Some(Decoded::Value(value)) => Some(value),
                Some(Decoded::Invalid) | None => None,
            }
        } else {
            let value = integer_value(piece);
            let value = value.map(|value| if self.slot.negated { -value } else { value });
            value.map(KeyValue::Int)
        };
        let value = match self.assigned {
            Some(assigned) => value.and_then(|value| stored(value, assigned)),
            None => value,
        };
        value.map_or(Constant::Invalid, Constant::Value)
    }
}

impl Guard {
    fn passes(&self, literals: &Stripped<'_>) -> bool {
        match self {
            Guard::Is(slot, written) => literals.literal(*slot) == &**written,
            Guard::NoMoment(slot) => {
                std::str::from_utf8(literals.literal(*slot)).is_ok_and(|text| !names_a_moment(text))
            }
            Guard::Same(one, other, same) => {
                (one.constant(literals) == other.constant(literals)) == *same
            }
        }
    }
}

impl Template {
    /// The plan of a text with the same [`Stripped::key`]; `None` where it has to be planned anew.
    #[must_use]
    pub fn plan(&self, literals: &Stripped<'_>, placement: &Placement) -> Option<Plan> {
        if !self.guards.iter().all(|guard| guard.passes(literals)) {
            return None;
        }
        let route = match self.key.map(|key| key.constant(literals)) {
            None => self.plan.route,
            Some(Constant::Value(value)) => Route::One(placement.shard(&value)),
            Some(Constant::Invalid) => Route::Authoritative,
            Some(Constant::Parameter { .. }) => return None,
        };
        Some(Plan { route, ..self.plan })
    }

    /// Whether it is small enough to be kept: a client could write a guard of a megabyte.
    #[must_use]
    pub fn is_small(&self) -> bool {
        let written = |guard: &Guard| match guard {
            Guard::Is(_, written) => written.len(),
            Guard::NoMoment(_) | Guard::Same(..) => 0,
        };
        self.guards.len() <= GUARDS_MAX
            && self.guards.iter().map(written).sum::<usize>() <= GUARD_BYTES_MAX
    }

    /// The plan of the text that it was made of.
    #[must_use]
    pub fn written(&self) -> &Plan {
        &self.plan
    }
}
