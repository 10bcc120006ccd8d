//! The one shape that runs on every shard: a plain projection, whose rows are those of the shards one after the other.
//!
//! It is right where there is a *root*: an occurrence of which each row of the answer has exactly one row (no outer
//! join puts NULLs in its place), and from which all other sharded occurrences follow by key. Then every row of the
//! answer is made on the shard of its root row, there only, and from that shard's rows alone.

use super::proof::Node;
use super::refusal::{Number, Refusal};
use super::route::check_functions;
use super::survey::Facts;

/// What makes it more than one level. The most telling first, where several stand in the way.
const LEVELS: &[Number] = &[
    Number::CteOverShards,
    Number::SetOperationOverShards,
    Number::SubqueryOverShards,
    Number::TableFunction,
];

/// What makes it more than a projection.
const MORE: &[Number] = &[
    Number::LockOverShards,
    Number::GroupByOverShards,
    Number::WindowOverShards,
    Number::AggregateOverShards,
    Number::DistinctOverShards,
    Number::SetReturningOverShards,
    Number::FunctionOverShards,
    Number::OrderByOverShards,
    Number::LimitOverShards,
    Number::SampleOverShards,
    Number::RowOverShards,
    Number::TypeOverShards,
    Number::MomentOverShards,
    Number::ExpressionOverShards,
    Number::ColumnUnclear,
];

/// The root, where every shard may run it.
///
/// Errors: the most telling of the obstacles.
pub(super) fn check(facts: &Facts) -> Result<Node, Refusal> {
    none_of(LEVELS, facts)?;
    let root = root(facts).ok_or_else(|| no_root(facts))?;
    check_functions(facts)?;
    none_of(MORE, facts)?;
    // a number that neither list names still stands in the way
    match facts.obstacles.first() {
        None => Ok(root),
        Some(refusal) => Err(refusal.clone()),
    }
}

pub(super) fn has_root(facts: &Facts) -> bool {
    root(facts).is_some()
}

fn root(facts: &Facts) -> Option<Node> {
    let nodes = 0..facts.proof.nodes.len();
    let mut roots = nodes.filter(|&node| facts.proof.is_root(node));
    roots.find(|&node| facts.nullable.get(node) == Some(&false))
}

fn none_of(numbers: &[Number], facts: &Facts) -> Result<(), Refusal> {
    let obstacle = |number: &Number| facts.obstacles.iter().find(|each| each.number == *number);
    match numbers.iter().find_map(obstacle) {
        Some(refusal) => Err(refusal.clone()),
        None => Ok(()),
    }
}

fn no_root(facts: &Facts) -> Refusal {
    let nodes = &facts.proof.nodes;
    let names: Vec<String> = nodes.iter().map(|node| node.full_name()).collect();
    let number = if facts.outer_join {
        Number::OuterJoinOverShards
    } else {
        Number::JoinOverShards
    };
    Refusal::about(number, names.join(", "))
}
