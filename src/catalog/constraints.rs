//! Constraints that one shard alone cannot keep, and what a change of one row does to the rows that refer to it.

use std::collections::BTreeMap;

use super::build::{Answer, Place};
use super::error::CatalogError;
use super::relation::{Constraint, Relation, Standing};

/// Unique and exclusion constraints of sharded tables without the key among their columns: two shards may each hold a
/// row that one server would have refused.
pub(super) fn note_unique(
    answer: &Answer<'_>,
    found: &mut BTreeMap<Place, Relation>,
) -> Result<(), CatalogError> {
    let mut indexes: BTreeMap<(Place, String), Vec<String>> = BTreeMap::new();
    for row in answer.rows() {
        let place = (row.text(0)?.into(), row.text(1)?.into());
        let columns = indexes.entry((place, row.text(2)?.to_owned())).or_default();
        columns.push(row.optional(3)?.unwrap_or_default().to_owned());
    }
    for ((place, name), columns) in indexes {
        let Some(relation) = found.get_mut(&place) else {
            continue;
        };
        let Some(key) = relation.key() else { continue };
        if !columns.contains(&key.column) {
            relation.loose_constraints.push(Constraint {
                name,
                columns,
                referenced: false,
            });
        }
    }
    Ok(())
}

/// A foreign key with what depends on it.
#[derive(Default)]
struct ForeignKey {
    /// Its own column, and the one that it refers to.
    pairs: Vec<(String, String)>,
    /// A change of the referenced row changes or deletes the rows that refer to it.
    cascades: bool,
    /// … or writes NULL or a default into their columns.
    sets: bool,
}

/// Who refers, by which constraint, and to what.
type ForeignKeys = BTreeMap<(Place, String, Place), ForeignKey>;

/// Foreign keys between tables whose rows need not meet on one shard, and those whose actions do more than a statement
/// says.
pub(super) fn note_foreign_keys(
    answer: &Answer<'_>,
    found: &mut BTreeMap<Place, Relation>,
) -> Result<(), CatalogError> {
    let keys = read_foreign_keys(answer)?;
    note_cascades(&keys, found);
    for ((from, name, to), key) in keys {
        let (Some(holder), Some(target)) = (found.get(&from), found.get(&to)) else {
            continue;
        };
        if meet_on_one_shard(holder, target, &key.pairs) && !sets_the_key(holder, &key) {
            continue;
        }
        let (own, theirs) = key.pairs.into_iter().unzip();
        if let Some(target) = found.get_mut(&to) {
            target.loose_constraints.push(Constraint {
                name: name.clone(),
                columns: theirs,
                referenced: true,
            });
        }
        if let Some(holder) = found.get_mut(&from) {
            holder.loose_constraints.push(Constraint {
                name,
                columns: own,
                referenced: false,
            });
        }
    }
    Ok(())
}

fn read_foreign_keys(answer: &Answer<'_>) -> Result<ForeignKeys, CatalogError> {
    let mut keys = ForeignKeys::new();
    for row in answer.rows() {
        let from: Place = (row.text(0)?.into(), row.text(1)?.into());
        let to: Place = (row.text(4)?.into(), row.text(5)?.into());
        let key = keys.entry((from, row.text(2)?.to_owned(), to)).or_default();
        let pair = (row.text(3)?.to_owned(), row.text(6)?.to_owned());
        key.pairs.push(pair);
        let action = row.text(7)?;
        key.sets = action == "set";
        key.cascades = key.sets || action == "cascade";
    }
    Ok(keys)
}

/// Marks the tables of which a change reaches rules or triggers of others, over any number of steps.
fn note_cascades(keys: &ForeignKeys, found: &mut BTreeMap<Place, Relation>) {
    let mut changed = true;
    while changed {
        changed = false;
        for ((from, _, to), _) in keys.iter().filter(|(_, key)| key.cascades) {
            let does_more = found
                .get(from)
                .is_some_and(|holder| holder.has_triggers || holder.has_rules || holder.cascades);
            if let (true, Some(target)) = (does_more, found.get_mut(to)) {
                changed |= !target.cascades;
                target.cascades = true;
            }
        }
    }
}

/// An action that would write into the sharding key of the rows that refer.
fn sets_the_key(holder: &Relation, key: &ForeignKey) -> bool {
    let sharding_key = holder.key().map(|key| &key.column);
    key.sets && key.pairs.iter().any(|(own, _)| Some(own) == sharding_key)
}

fn meet_on_one_shard(holder: &Relation, target: &Relation, pairs: &[(String, String)]) -> bool {
    match (&holder.standing, &target.standing) {
        (Standing::Sharded(own), Standing::Sharded(theirs)) => pairs
            .iter()
            .any(|(from, to)| *from == own.column && *to == theirs.column),
        (_, Standing::Reference) => true,
        (Standing::Single(own), Standing::Single(theirs)) => own == theirs,
        (Standing::Unnamed, Standing::Unnamed) => true,
        _ => false,
    }
}
