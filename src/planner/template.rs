//! One plan for all texts that differ in their literals only.
//!
//! What makes it sound: the proof of a key stands on *where* a literal is, never on its value, so the same place in
//! another text proves the same for another shard. Where a decision did hang on values it leaves a [`Guard`], and a
//! text that does not pass is planned anew. Refusals are no templates: other values might have a plan.

use std::sync::Arc;

use super::keys::Keys;
use super::proof::Constant;
use super::route::route_to;
use super::survey::names_a_moment;
use super::target::stored;
use super::{Assigned, Plan, Route};
use crate::placement::{Decoded, KeyType, KeyValue, Placement};
use crate::sql::slots::{Stripped, integer_value, text_value};
use crate::sql::statement::Slot;

/// Guards of a template that is kept, and bytes of the literals in them.
const GUARDS_MAX: usize = 64;
const GUARD_BYTES_MAX: usize = 1024;

/// Key values of a template that is kept.
pub(super) const VALUES_MAX: usize = 256;

/// A plan that holds for other literals too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub(super) plan: Plan,
    /// The values that name its shards, where literals are among them.
    pub(super) keys: Option<Arc<Keys>>,
    pub(super) guards: Vec<Guard>,
}

/// What literals must fulfil for a template to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Guard {
    /// It is written like this.
    Is(u32, Box<[u8]>),
    /// No word in it reads the clock, where several shards would.
    NoMoment(u32),
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
        match (value, self.assigned) {
            (None, _) => Constant::Invalid,
            (Some(value), None) => Constant::Value(value),
            (Some(value), Some(assigned)) => {
                stored(value, assigned).map_or(Constant::Nothing, Constant::Value)
            }
        }
    }
}

impl Guard {
    fn passes(&self, literals: &Stripped<'_>) -> bool {
        match self {
            Guard::Is(slot, written) => literals.literal(*slot) == &**written,
            Guard::NoMoment(slot) => {
                std::str::from_utf8(literals.literal(*slot)).is_ok_and(|text| !names_a_moment(text))
            }
        }
    }
}

impl Template {
    /// The plan of a text with the same [`Stripped::key`]; `None` where it has to be planned anew.
    #[must_use]
    pub fn plan(&self, literals: &Stripped<'_>, placement: &Placement) -> Option<Plan> {
        let passes = |scatters: bool| {
            let needed = |guard: &&Guard| scatters || matches!(guard, Guard::Is(..));
            self.guards
                .iter()
                .filter(needed)
                .all(|guard| guard.passes(literals))
        };
        let route = match &self.keys {
            None => return passes(true).then(|| self.plan.clone()),
            // a refusal is found anew, with its words
            Some(keys) if keys.are_fixed() => route_to(keys.target_with(placement, literals).ok()?),
            Some(keys) => Route::Keys(Arc::new(keys.with(literals))),
        };
        let scatters = matches!(route, Route::Keys(_) | Route::Some(_) | Route::Every);
        passes(scatters).then_some(Plan {
            route,
            effect: self.plan.effect,
            command: self.plan.command,
            must_fail: self.plan.must_fail,
        })
    }

    /// Whether it is small enough to be kept: a client could write a guard of a megabyte.
    #[must_use]
    pub fn is_small(&self) -> bool {
        let written = |guard: &Guard| match guard {
            Guard::Is(_, written) => written.len(),
            Guard::NoMoment(_) => 0,
        };
        self.guards.len() <= GUARDS_MAX
            && self.keys.as_ref().map_or(0, |keys| keys.value_count()) <= VALUES_MAX
            && self.guards.iter().map(written).sum::<usize>() <= GUARD_BYTES_MAX
    }

    /// The plan of the text that it was made of.
    #[must_use]
    pub fn written(&self) -> &Plan {
        &self.plan
    }
}
