//! Statement + knowledge → [`Plan`], or a numbered [`Refusal`]. Pure: a plan is made once per text and prepared
//! statement; [`Plan::target`] is what is left to do at each execution.
//!
//! A statement runs on one shard only if it is *proven* that no other shard's rows could change its answer; it runs on
//! all of them only in the shapes of [`scatter`]; everything else is refused. In doubt there is no proof.
//!
//! The proof ([`survey`], [`proof`]) is a graph: its nodes are the occurrences of sharded tables in the statement, and
//! an edge `a → b` says: if only rows of `a` with the key value v can matter, then only such rows of `b` can.

mod explain;
mod functions;
mod keys;
mod proof;
mod refusal;
mod route;
mod scatter;
mod scope;
mod survey;
mod target;
mod template;

#[cfg(test)]
mod tests;

pub use explain::explain;
pub use keys::Keys;
pub use refusal::{Entry, Number, Refusal};
pub use target::{Bound, Parameters, Target, accepts_parameter_type};
pub use template::Template;

use std::sync::Arc;

use crate::catalog::Catalog;
use crate::names::ShardId;
use crate::placement::{KeyType, Placement};
use crate::sql::Statement;
use crate::sql::slots::Stripped;

/// All that planning may look at.
#[derive(Debug, Clone, Copy)]
pub struct Knowledge<'a> {
    pub catalog: &'a Catalog,
    pub placement: &'a Placement,
}

impl Plan {
    /// Whether it is worth keeping: a client could write many thousand values.
    #[must_use]
    pub fn is_small(&self) -> bool {
        match &self.route {
            Route::Keys(keys) => keys.value_count() <= template::VALUES_MAX,
            _ => true,
        }
    }
}

/// What was decided about one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub route: Route,
    pub effect: Effect,
    /// The first word of the command's tag.
    pub command: Command,
    /// The statement names a relation that does not exist: PostgreSQL will raise 42P01. If it does not, the catalogue
    /// is out of date and the answer must not be used.
    pub must_fail: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Proven to need this shard, whatever the parameters.
    One(ShardId),
    /// The same answer on every shard (reference tables, statements without tables): whichever is at hand.
    Any,
    /// The authoritative shard only (system catalogues).
    Authoritative,
    /// One shard, named by the value of a parameter (`parameter` counts from 0).
    Key {
        parameter: u16,
        key_type: KeyType,
        /// Of the key of a new row.
        assigned: Option<Assigned>,
    },
    /// The shards that several values name, some of them parameters: one of them, or all.
    Keys(Arc<Keys>),
    /// These shards, two or more, rows concatenated: a plain projection.
    Some(Arc<[ShardId]>),
    /// All shards, likewise.
    Every,
}

/// Whether running it twice, or on one shard while another fails, could leave something half done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Read,
    Write,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Select,
    Insert,
    Update,
    Delete,
}

/// What storing a key does to its value beyond the type's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    /// A `varchar(n)` cuts blanks beyond n characters and refuses anything else there.
    pub characters_max: Option<u32>,
}

/// Decides where a statement runs.
///
/// Errors: a [`Refusal`] with its stable number; no statement is sent on a guess.
pub fn plan(statement: &Statement, knowledge: &Knowledge<'_>) -> Result<Plan, Refusal> {
    route::decide(statement, knowledge).map(|decision| decision.plan)
}

/// [`plan`], and for which other literals it holds; `literals` are those of the statement's text.
pub fn template(
    statement: &Statement,
    knowledge: &Knowledge<'_>,
    literals: &Stripped<'_>,
) -> Result<Template, Refusal> {
    route::template(statement, knowledge, literals)
}
