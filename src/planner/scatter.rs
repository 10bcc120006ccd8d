//! The one shape that runs on every shard: a plain projection, whose rows are those of the shards one after the other.
//!
//! It is right where there is a *root*: an occurrence of which each row of the answer has exactly one row (no outer
//! join puts NULLs in its place), and from which all other sharded occurrences follow by key. Then every row of the
//! answer is made on the shard of its root row, there only, and from that shard's rows alone.

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

/// Whether every shard may run it.
///
/// Errors: the most telling of the obstacles.
pub(super) fn check(facts: &Facts) -> Result<(), Refusal> {
    none_of(LEVELS, facts)?;
    check_root(facts)?;
    check_functions(facts)?;
    none_of(MORE, facts)?;
    // a number that neither list names still stands in the way
    facts
        .obstacles
        .first()
        .map_or(Ok(()), |refusal| Err(refusal.clone()))
}

fn none_of(numbers: &[Number], facts: &Facts) -> Result<(), Refusal> {
    let obstacle = |number: &Number| facts.obstacles.iter().find(|each| each.number == *number);
    match numbers.iter().find_map(obstacle) {
        Some(refusal) => Err(refusal.clone()),
        None => Ok(()),
    }
}

fn check_root(facts: &Facts) -> Result<(), Refusal> {
    let proof = &facts.proof;
    let reaching: Vec<_> = (0..proof.nodes.len())
        .filter(|&node| proof.reaches_all(&[node]))
        .collect();
    if reaching
        .iter()
        .any(|&node| facts.nullable.get(node) == Some(&false))
    {
        return Ok(());
    }
    let names: Vec<String> = proof.nodes.iter().map(|node| node.full_name()).collect();
    let number = if facts.outer_join {
        Number::OuterJoinOverShards
    } else {
        Number::JoinOverShards
    };
    Err(Refusal::about(number, names.join(", ")))
}
