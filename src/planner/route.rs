//! From what a walk found to the route. One rule after the other; the first that applies decides.

use super::proof::{Common, Constant, Pattern};
use super::refusal::{Number, Refusal};
use super::survey::{self, Facts};
use super::template::{Guard, LiteralKey, Template};
use super::{Command, Effect, Knowledge, Plan, Route, scatter};
use crate::sql::Statement;
use crate::sql::slots::Stripped;

/// The plan, the literal whose value names its shard, and what it was decided by.
pub(super) struct Decision {
    pub plan: Plan,
    key: Option<LiteralKey>,
    facts: Facts,
}

pub(super) fn decide(
    statement: &Statement,
    knowledge: &Knowledge<'_>,
) -> Result<Decision, Refusal> {
    let facts = survey::survey(statement, knowledge)?;
    let command = survey::command(&statement.query);
    let (route, key) = route(&facts, knowledge)?;
    let has_effect = facts.user_function.is_some() || facts.effect_function.is_some();
    let effect = match command {
        Command::Select if !facts.locks && !has_effect => Effect::Read,
        _ => Effect::Write,
    };
    let plan = Plan {
        assigned: facts
            .assigned
            .filter(|_| matches!(route, Route::Key { .. })),
        route,
        effect,
        command,
        must_fail: facts.nothing,
    };
    Ok(Decision { plan, key, facts })
}

pub(super) fn template(
    statement: &Statement,
    knowledge: &Knowledge<'_>,
    literals: &Stripped<'_>,
) -> Result<Template, Refusal> {
    let Decision { plan, key, facts } = decide(statement, knowledge)?;
    Ok(Template {
        guards: guards(statement, &facts, &plan, literals),
        plan,
        key,
    })
}

/// What the literals of another text must fulfil for the same decisions to be right.
fn guards(
    statement: &Statement,
    facts: &Facts,
    plan: &Plan,
    literals: &Stripped<'_>,
) -> Vec<Guard> {
    let is = |&slot: &u32| Guard::Is(slot, literals.literal(slot).into());
    let mut guards: Vec<Guard> = statement
        .hidden
        .iter()
        .chain(&facts.fixed)
        .map(is)
        .collect();
    if plan.route == Route::Every {
        guards.extend(facts.texts.iter().map(|&slot| Guard::NoMoment(slot)));
    }
    let alone = |common: &Common<'_>| !common.together;
    if !facts.proof.common_constant().as_ref().is_some_and(alone) {
        match facts.proof.pattern() {
            Pattern::Any => {}
            Pattern::Pairs(pairs) => {
                let pairs = pairs.into_iter();
                guards.extend(pairs.map(|(one, other, same)| Guard::Same(one, other, same)));
            }
            Pattern::Fixed(keys) => guards.extend(keys.iter().map(|key| is(&key.slot.index))),
        }
    }
    guards
}

fn route(facts: &Facts, knowledge: &Knowledge<'_>) -> Result<(Route, Option<LiteralKey>), Refusal> {
    if facts.nothing {
        return Ok((Route::Authoritative, None));
    }
    check_company(facts)?;
    if !facts.proof.nodes.is_empty() {
        return match facts.proof.common_constant() {
            Some(Common { given, .. }) => {
                let route = by_key(&given.constant, facts, knowledge)?;
                Ok((route, given.literal))
            }
            None => without_key(facts).map(|route| (route, None)),
        };
    }
    check_functions(facts)?;
    let route = match &facts.single {
        Some((shard, _)) => Route::One(*shard),
        None if facts.system.is_some() || facts.reads_server => Route::Authoritative,
        None => Route::Any,
    };
    Ok((route, None))
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

/// One shard, by the key that holds every occurrence.
fn by_key(constant: &Constant, facts: &Facts, knowledge: &Knowledge<'_>) -> Result<Route, Refusal> {
    match constant {
        Constant::Value(value) => Ok(Route::One(knowledge.placement.shard(value))),
        Constant::Invalid => Ok(Route::Authoritative),
        Constant::Parameter { index, key_type } => {
            let cut = facts
                .assigned
                .is_some_and(|assigned| assigned.characters_max.is_some());
            if cut && facts.proof.nodes.len() > 1 {
                // what is stored may be another key than what is compared
                return Err(Refusal::about(
                    Number::KeysDiffer,
                    "a varchar with a length",
                ));
            }
            Ok(Route::Key {
                parameter: *index,
                key_type: *key_type,
            })
        }
    }
}

/// Sharded tables that no key holds together: every shard, or a refusal.
fn without_key(facts: &Facts) -> Result<Route, Refusal> {
    let partly_held = facts.proof.has_constants() && facts.proof.nodes.len() > 1;
    let keys_differ = || {
        let names: Vec<String> = facts
            .proof
            .nodes
            .iter()
            .map(|node| node.full_name())
            .collect();
        Refusal::about(Number::KeysDiffer, names.join(", "))
    };
    if let Some(target) = &facts.target {
        return Err(if partly_held {
            keys_differ()
        } else {
            Refusal::about(Number::WriteWithoutKey, target.full_name())
        });
    }
    match scatter::check(facts) {
        Ok(()) => Ok(Route::Every),
        Err(_) if partly_held => Err(keys_differ()),
        Err(refusal) => Err(refusal),
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
