//! One walk over a statement: every occurrence of a table becomes a node of the [`Proof`] or a fact, every condition
//! that holds for all rows of its level becomes an edge or a constant, and everything that a scatter could not do
//! rightly becomes an obstacle. What no plan can do rightly ends the walk.
//!
//! Which conditions count: the conjuncts of WHERE; those of ON for an inner join; those of ON for an outer join only
//! where they narrow its nullable side, for the rows of the preserved one stay whatever the condition says. A column
//! of an outer level narrows the inner one (a correlated subquery looks at matching rows only), never the reverse.

mod expressions;
mod from;
mod queries;
mod tables;
mod views;
mod writes;

pub(super) use expressions::names_a_moment;
use std::ops::Range;
use std::sync::Arc;
#[cfg(test)]
pub(super) use views::VIEWS_MAX;

use super::proof::{Node, Proof};
use super::refusal::{Number, Refusal};
use super::scope::Outputs;
use super::{Command, Knowledge};
use crate::names::ShardId;
use crate::sql::Statement;
use crate::sql::statement::{Body, Query};

/// Tables, subqueries and functions in FROM, over a whole statement.
const ENTRIES_MAX: usize = 1024;

/// Columns of all of them together.
const COLUMNS_MAX: usize = 100_000;

type Surveyed<T> = Result<T, Refusal>;

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub proof: Proof,
    /// By node: an outer join may put NULLs in its place.
    pub nullable: Vec<bool>,
    pub outer_join: bool,
    pub reference: bool,
    pub single: Option<(ShardId, String)>,
    /// A relation of `pg_catalog` or `information_schema`.
    pub system: Option<String>,
    /// A name that is no relation.
    pub nothing: bool,
    /// Something that a server's own schema or state decides.
    pub reads_server: bool,
    /// The first call of a function that may read tables.
    pub user_function: Option<String>,
    /// The first call of a volatile function.
    pub effect_function: Option<String>,
    pub locks: bool,
    /// What stands in the way of running it on every shard; one of each number.
    pub obstacles: Vec<Refusal>,
    /// The table that a write changes, where it is sharded.
    pub target: Option<Arc<crate::catalog::Relation>>,
    /// Why the write cannot run on several shards, where its key values do not say it.
    pub apart: Option<Refusal>,
    /// It changes rows, at any depth.
    pub writes: bool,
    /// Slots whose literals decided something.
    pub fixed: Vec<u32>,
    /// Slots of strings that name no moment now.
    pub texts: Vec<u32>,
}

impl Facts {
    pub fn obstacle(&mut self, number: Number, about: impl Into<String>) {
        if self.obstacles.iter().all(|known| known.number != number) {
            self.obstacles.push(Refusal::about(number, about));
        }
    }
}

/// The common table expressions in sight, innermost last.
struct Cte {
    name: String,
    outputs: Outputs,
}

/// Calls met so far, to see whether a part of a statement has any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Met {
    aggregates: usize,
    windows: usize,
}

struct Survey<'a> {
    knowledge: &'a Knowledge<'a>,
    facts: Facts,
    ctes: Vec<Cte>,
    met: Met,
    entries: usize,
    columns: usize,
    /// Around what is looked at.
    views: usize,
}

/// Which occurrences a condition may narrow.
#[derive(Debug, Clone)]
enum Narrowed {
    /// Every one of its level.
    All,
    /// The nullable side of an outer join.
    Only(Range<Node>),
    Nothing,
}

impl Narrowed {
    fn takes(&self, node: Node) -> bool {
        match self {
            Narrowed::All => true,
            Narrowed::Only(nodes) => nodes.contains(&node),
            Narrowed::Nothing => false,
        }
    }
}

/// Walks a statement.
///
/// Errors: what no plan can do rightly, whatever its tables and keys.
pub(super) fn survey(statement: &Statement, knowledge: &Knowledge<'_>) -> Surveyed<Facts> {
    let mut survey = Survey {
        knowledge,
        facts: Facts {
            // A copy that is on every shard is read on one that always answers alike.
            reads_server: knowledge.catalog.settings_differ().is_some(),
            ..Facts::default()
        },
        ctes: Vec::new(),
        met: Met::default(),
        entries: 0,
        columns: 0,
        views: 0,
    };
    match survey.statement(&statement.query) {
        // whatever else it says, PostgreSQL looks for its tables first
        Err(_) if survey.facts.nothing => Ok(survey.facts),
        Err(refusal) => Err(refusal),
        Ok(()) => Ok(survey.facts),
    }
}

/// The first word of the command's tag.
pub(super) fn command(query: &Query) -> Command {
    match &query.body {
        Body::Insert(_) => Command::Insert,
        Body::Update(_) => Command::Update,
        Body::Delete(_) => Command::Delete,
        Body::Nested(inner) => command(inner),
        Body::Select(_) | Body::Values(_) | Body::SetOperation(_) | Body::Merge(_) => {
            Command::Select
        }
    }
}
