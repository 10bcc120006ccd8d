//! From what a walk found to the route. One rule after the other; the first that applies decides.

use std::sync::Arc;

use super::keys::Keys;
use super::proof::{Constant, Given, Node};
use super::refusal::{Number, Refusal};
use super::survey::{self, Facts};
use super::target::Target;
use super::template::{Guard, Template};
use super::{Command, Effect, Knowledge, Plan, Route, scatter};
use crate::placement::Placement;
use crate::sql::Statement;
use crate::sql::slots::Stripped;

/// The plan, the values that name its shards, and what it was decided by.
pub(super) struct Decision {
    pub plan: Plan,
    keys: Option<Arc<Keys>>,
    facts: Facts,
}

pub(super) fn decide(
    statement: &Statement,
    knowledge: &Knowledge<'_>,
) -> Result<Decision, Refusal> {
    let facts = survey::survey(statement, knowledge)?;
    let command = survey::command(&statement.query);
    let decided = decided(&facts)?;
    let (route, keys) = match decided {
        Decided::Route(route) => (route, None),
        Decided::Keys(keys) => {
            let keys = Arc::new(keys);
            (by_keys(&keys, knowledge.placement)?, Some(keys))
        }
    };
    let has_effect = facts.user_function.is_some() || facts.effect_function.is_some();
    let effect = match command {
        Command::Select if !facts.locks && !facts.writes && !has_effect => Effect::Read,
        _ => Effect::Write,
    };
    let plan = Plan {
        route,
        effect,
        command,
        must_fail: facts.nothing,
    };
    Ok(Decision { plan, keys, facts })
}

pub(super) fn template(
    statement: &Statement,
    knowledge: &Knowledge<'_>,
    literals: &Stripped<'_>,
) -> Result<Template, Refusal> {
    let Decision { plan, keys, facts } = decide(statement, knowledge)?;
    let is = |&slot: &u32| Guard::Is(slot, literals.literal(slot).into());
    let fixed = statement.hidden.iter().chain(&facts.fixed).map(is);
    // words that read the clock matter on several shards only
    let may_scatter = match &keys {
        Some(keys) => keys.root.is_ok(),
        None => plan.route == Route::Every,
    };
    let names_a_moment = |refusal: &Refusal| refusal.number == Number::MomentOverShards;
    let mut guards: Vec<Guard> = fixed.collect();
    if facts.obstacles.iter().any(names_a_moment) {
        guards.extend(facts.texts.iter().map(is));
    } else if may_scatter {
        guards.extend(facts.texts.iter().map(|&slot| Guard::NoMoment(slot)));
    }
    // a route by parameters alone is the same whatever the literals are
    let has_literals = |keys: &Arc<Keys>| {
        let mut values = keys.sets.iter().flatten();
        values.any(|given| given.literal.is_some())
    };
    Ok(Template {
        plan,
        keys: keys.filter(has_literals),
        guards,
    })
}

/// The route, or what has to be known for it.
enum Decided {
    Route(Route),
    Keys(Keys),
}

fn decided(facts: &Facts) -> Result<Decided, Refusal> {
    if facts.nothing {
        return Ok(Decided::Route(Route::Authoritative));
    }
    check_company(facts)?;
    if !facts.proof.nodes.is_empty() {
        return by_proof(facts);
    }
    check_functions(facts)?;
    let route = match &facts.single {
        Some((shard, _)) => Route::One(*shard),
        None if facts.system.is_some() || facts.reads_server => Route::Authoritative,
        None => Route::Any,
    };
    Ok(Decided::Route(route))
}

/// Refuses tables that no one shard has together.
fn check_company(facts: &Facts) -> Result<(), Refusal> {
    let sharded = facts
        .proof
        .nodes
        .first()
        .map(|relation| relation.full_name());
    let single = facts.single.as_ref().map(|(_, name)| name.clone());
    let (number, names) = match (sharded, single, facts.system.clone()) {
        (Some(sharded), Some(single), _) => (Number::PlacesMixed, [sharded, single]),
        (Some(table), None, Some(system)) | (None, Some(table), Some(system)) => {
            (Number::CatalogMixed, [table, system])
        }
        _ => return Ok(()),
    };
    Err(Refusal::about(number, names.join(" and ")))
}

/// Sharded tables: by the values of their keys, or on every shard.
fn by_proof(facts: &Facts) -> Result<Decided, Refusal> {
    let root = match &facts.target {
        Some(target) => Err(write_apart(facts, &target.full_name())),
        None => read_root(facts),
    };
    if facts.proof.holds_all() {
        return Ok(Decided::Keys(facts.proof.keys(root)));
    }
    root.map(|_| Decided::Route(Route::Every))
}

/// Why a write does not run on several shards.
fn write_apart(facts: &Facts, target: &str) -> Refusal {
    if let Some(apart) = &facts.apart {
        apart.clone()
    } else if !facts.proof.has_sources() {
        Refusal::about(Number::WriteWithoutKey, target)
    } else if facts.proof.nodes.len() > 1 {
        keys_differ(facts)
    } else {
        Refusal::about(Number::WriteOverShards, target)
    }
}

fn read_root(facts: &Facts) -> Result<Node, Refusal> {
    scatter::check(facts).map_err(|refusal| {
        let partly_held = facts.proof.has_sources() && facts.proof.nodes.len() > 1;
        if partly_held && !scatter::has_root(facts) {
            keys_differ(facts)
        } else {
            refusal
        }
    })
}

fn keys_differ(facts: &Facts) -> Refusal {
    let names: Vec<String> = facts
        .proof
        .nodes
        .iter()
        .map(|node| node.full_name())
        .collect();
    Refusal::about(Number::KeysDiffer, names.join(", "))
}

/// The route as far as the text names the values.
fn by_keys(keys: &Arc<Keys>, placement: &Placement) -> Result<Route, Refusal> {
    if keys.are_fixed() {
        return keys.target(placement, &()).map(route_to);
    }
    match keys.only() {
        Some(Given {
            constant:
                Constant::Parameter {
                    index,
                    key_type,
                    assigned,
                },
            ..
        }) => Ok(Route::Key {
            parameter: *index,
            key_type: *key_type,
            assigned: *assigned,
        }),
        _ => Ok(Route::Keys(Arc::clone(keys))),
    }
}

/// The route whose target is always this one.
pub(super) fn route_to(target: Target) -> Route {
    match target {
        Target::One(shard) => Route::One(shard),
        Target::Any => Route::Any,
        Target::Authoritative => Route::Authoritative,
        Target::Some(shards) => Route::Some(shards),
        Target::Every => Route::Every,
    }
}

/// Functions that see or change the rows of one shard, where nothing says which shard.
pub(super) fn check_functions(facts: &Facts) -> Result<(), Refusal> {
    if let Some(name) = &facts.user_function {
        return Err(Refusal::about(Number::UserFunction, name));
    }
    if let Some(name) = &facts.effect_function {
        return Err(Refusal::about(Number::EffectFunction, name));
    }
    Ok(())
}
