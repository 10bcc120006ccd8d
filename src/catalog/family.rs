//! Partitioned tables: a partition takes the rule of its table, and what is to be known of one member of the family is
//! known of the others. Where a member is something else than a table under that rule, nobody vouches for any of them.

use std::collections::BTreeMap;

use super::build::{self, Answer, Place};
use super::error::CatalogError;
use super::relation::{Constraint, Kind, Relation, Rule, Rules, Standing};

/// Each partition with the table that it is part of.
pub(super) type Partitions = BTreeMap<Place, Place>;

pub(super) fn read(answer: &Answer<'_>) -> Result<Partitions, CatalogError> {
    let mut partitions = Partitions::new();
    for row in answer.rows() {
        let child = (row.text(0)?.into(), row.text(1)?.into());
        let parent = (row.text(2)?.into(), row.text(3)?.into());
        partitions.insert(child, parent);
    }
    Ok(partitions)
}

/// The table at the head of the family; itself, where it is in none.
fn root<'a>(place: &'a Place, partitions: &'a Partitions) -> &'a Place {
    let mut place = place;
    // as many steps as there are partitions: no circle is followed for ever
    for _ in 0..partitions.len() {
        match partitions.get(place) {
            Some(parent) => place = parent,
            None => break,
        }
    }
    place
}

/// The rule that holds for a relation: its own, or that of the table that it is part of.
pub(super) fn rule_of<'r>(
    place: &Place,
    partitions: &Partitions,
    rules: &'r Rules,
) -> Option<&'r Rule> {
    let (schema, name) = root(place, partitions);
    build::rule_of(rules, schema, name).or_else(|| build::rule_of(rules, &place.0, &place.1))
}

/// Gives each member what the family has: triggers, rules and policies of a partition act on statements that name its
/// table, and the other way round.
pub(super) fn join(partitions: &Partitions, rules: &Rules, found: &mut BTreeMap<Place, Relation>) {
    for members in families(partitions, found) {
        let of_family: Vec<&Relation> = members.iter().filter_map(|each| found.get(each)).collect();
        let has_triggers = of_family.iter().any(|each| each.has_triggers);
        let has_rules = of_family.iter().any(|each| each.has_rules);
        let row_security = of_family.iter().any(|each| each.row_security);
        let root_rule = members
            .iter()
            .find(|member| !partitions.contains_key(*member))
            .and_then(|root| build::rule_of(rules, &root.0, &root.1));
        let is_like_its_table = |member: &Place| {
            let own = build::rule_of(rules, &member.0, &member.1);
            own.is_none() || own == root_rule
        };
        let is_sound = of_family
            .iter()
            .all(|each| matches!(each.kind, Kind::Table | Kind::Partitioned))
            && members.iter().all(is_like_its_table)
            && have_one_standing(&of_family);
        for member in &members {
            if let Some(relation) = found.get_mut(member) {
                relation.has_triggers = has_triggers;
                relation.has_rules = has_rules;
                relation.row_security = row_security;
                relation.inherits = !is_sound;
            }
        }
    }
}

/// Of a key, the column and its type; a partition has both of its table.
fn have_one_standing(members: &[&Relation]) -> bool {
    let same = |one: &Relation, other: &Relation| match (&one.standing, &other.standing) {
        (Standing::Sharded(one), Standing::Sharded(other)) => {
            one.column == other.column && one.key_type == other.key_type
        }
        (one, other) => one == other,
    };
    members.windows(2).all(|pair| match pair {
        [one, other] => same(one, other),
        _ => true,
    })
}

/// A constraint of a partition can be broken by way of its table, too.
pub(super) fn share_constraints(partitions: &Partitions, found: &mut BTreeMap<Place, Relation>) {
    for members in families(partitions, found) {
        let mut all: Vec<Constraint> = Vec::new();
        let mut cascades = false;
        for relation in members.iter().filter_map(|each| found.get(each)) {
            cascades |= relation.cascades;
            for constraint in &relation.loose_constraints {
                // every partition has its own copy, by another name
                let is_known = |known: &Constraint| {
                    known.columns == constraint.columns && known.referenced == constraint.referenced
                };
                if !all.iter().any(is_known) {
                    all.push(constraint.clone());
                }
            }
        }
        for member in &members {
            if let Some(relation) = found.get_mut(member) {
                relation.loose_constraints.clone_from(&all);
                relation.cascades = cascades;
            }
        }
    }
}

/// The members of each family, the table itself among them.
fn families(partitions: &Partitions, found: &BTreeMap<Place, Relation>) -> Vec<Vec<Place>> {
    let mut families: BTreeMap<&Place, Vec<Place>> = BTreeMap::new();
    for (place, relation) in found {
        if relation.kind == Kind::Partitioned || partitions.contains_key(place) {
            let root = root(place, partitions);
            families.entry(root).or_default().push(place.clone());
        }
    }
    families.into_values().collect()
}
