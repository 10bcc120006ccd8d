//! INSERT, UPDATE and DELETE: the table that changes, the key that is stored, and what one shard alone cannot keep.

use std::sync::Arc;

use super::{Narrowed, Survey, Surveyed};
use crate::catalog::{ColumnDefault, Key, Relation, Resolved, Standing};
use crate::planner::Assigned;
use crate::planner::proof::{self, Constant, Given, Node};
use crate::planner::refusal::{Number, Refusal};
use crate::planner::scope::{Names, Outputs, Scope};
use crate::planner::target::stored;
use crate::planner::template::LiteralKey;
use crate::sql::statement::{
    Assignment, Body, Delete, Expr, Insert, Literal, OnConflict, Overriding, Source, Table, Update,
};

/// The table that a statement changes.
struct Target {
    relation: Arc<Relation>,
    /// Where it is sharded.
    node: Option<Node>,
}

impl Survey<'_> {
    pub(super) fn write(&mut self, body: &Body) -> Surveyed<()> {
        match body {
            Body::Insert(insert) => self.insert(insert),
            Body::Update(update) => self.update(update),
            Body::Delete(delete) => self.delete(delete),
            _ => Ok(()),
        }
    }

    /// The table and its names; `None` where there is no such table.
    fn target(&mut self, table: &Table) -> Surveyed<(Names, Option<Target>)> {
        let catalog = self.knowledge.catalog;
        if catalog.resolve(table.schema.as_deref(), &table.name) == Resolved::System {
            return Err(Refusal::about(Number::CatalogWrite, &table.name));
        }
        let alias = table.alias.as_ref();
        let Some(relation) = self.resolve(table)? else {
            let names = Names::of(Some(&table.name), alias, Outputs::open(), None);
            return Ok((names, None));
        };
        check_writable(&relation)?;
        let node = self.occurrence(&relation)?;
        if node.is_some() {
            self.facts.target = Some(Arc::clone(&relation));
        }
        let outputs = Outputs::of_table(&relation, node);
        self.count(&outputs)?;
        let schema = Some(Arc::clone(&relation.schema));
        let names = Names::of(Some(&table.name), alias, outputs, schema);
        Ok((names, Some(Target { relation, node })))
    }

    fn update(&mut self, update: &Update) -> Surveyed<()> {
        let (names, target) = self.target(&update.table)?;
        if let Some(target) = &target {
            check_cascades(&target.relation)?;
            check_assignments(&target.relation, &update.assignments)?;
        }
        let names = self.relations(&update.from, names, None)?;
        let scope = Scope {
            names: &names,
            outer: None,
        };
        self.filter(update.filter.as_ref(), &scope)?;
        let values = update
            .assignments
            .iter()
            .map(|assignment| &assignment.value);
        self.exprs(values, Some(&scope))?;
        self.items(&update.returning, &scope)
    }

    fn delete(&mut self, delete: &Delete) -> Surveyed<()> {
        let (names, target) = self.target(&delete.table)?;
        if let Some(target) = &target {
            check_cascades(&target.relation)?;
            check_loose(&target.relation, |constraint| constraint.referenced)?;
        }
        let names = self.relations(&delete.using, names, None)?;
        let scope = Scope {
            names: &names,
            outer: None,
        };
        self.filter(delete.filter.as_ref(), &scope)?;
        self.items(&delete.returning, &scope)
    }

    fn filter(&mut self, filter: Option<&Expr>, scope: &Scope<'_>) -> Surveyed<()> {
        if let Some(filter) = filter {
            self.conditions(filter, scope, &Narrowed::All);
            self.expr(filter, Some(scope))?;
        }
        Ok(())
    }

    fn insert(&mut self, insert: &Insert) -> Surveyed<()> {
        let (names, target) = self.target(&insert.table)?;
        if let Some(target) = &target {
            self.insert_into(insert, target)?;
        }
        match &insert.source {
            Source::DefaultValues => {}
            Source::Rows(rows) => self.exprs(rows.iter().flatten(), None)?,
            Source::Query(query) => {
                self.query(query, None)?;
            }
        }
        let scope = Scope {
            names: &names,
            outer: None,
        };
        self.items(&insert.returning, &scope)?;
        match &insert.on_conflict {
            Some(conflict) => self.on_conflict(conflict, target.as_ref(), &names),
            None => Ok(()),
        }
    }

    fn insert_into(&mut self, insert: &Insert, target: &Target) -> Surveyed<()> {
        check_loose(&target.relation, |constraint| !constraint.referenced)?;
        let (Some(node), Some(key)) = (target.node, target.relation.key()) else {
            return Ok(());
        };
        let row = only_row(insert)?;
        let value = key_value(insert, &target.relation, key, row)?;
        check_sequences(insert, &target.relation, row)?;
        self.facts.proof.holds(node, value);
        self.facts.assigned = Some(Assigned {
            characters_max: key.characters_max,
        });
        Ok(())
    }

    fn on_conflict(
        &mut self,
        conflict: &OnConflict,
        target: Option<&Target>,
        names: &Names,
    ) -> Surveyed<()> {
        let excluded = match target {
            Some(target) => Outputs::of_table(&target.relation, target.node),
            None => Outputs::open(),
        };
        if let (Some(target), false) = (target, conflict.assignments.is_empty()) {
            check_cascades(&target.relation)?;
            check_assignments(&target.relation, &conflict.assignments)?;
        }
        let excluded = Names::of(Some("excluded"), None, excluded, None).qualified_only();
        let names = names.clone().beside(excluded);
        let scope = Scope {
            names: &names,
            outer: None,
        };
        let values = conflict.assignments.iter().map(|each| &each.value);
        let conditions = conflict.target.iter().chain(&conflict.filter);
        self.exprs(values.chain(conditions), Some(&scope))
    }
}

/// Refuses tables of which a write does more than its statement says, or must reach every shard.
fn check_writable(relation: &Relation) -> Surveyed<()> {
    let number = match relation.standing {
        Standing::Reference => Number::ReferenceWrite,
        _ if relation.has_rules => Number::TableRules,
        _ if relation.has_triggers => Number::Triggers,
        _ => return Ok(()),
    };
    Err(Refusal::about(number, relation.full_name()))
}

/// Refuses changes of rows that reach rules or triggers of other tables through foreign keys.
fn check_cascades(relation: &Relation) -> Surveyed<()> {
    if relation.cascades {
        Err(Refusal::about(Number::Triggers, relation.full_name()))
    } else {
        Ok(())
    }
}

fn check_loose(
    relation: &Relation,
    is_touched: impl Fn(&crate::catalog::Constraint) -> bool,
) -> Surveyed<()> {
    match relation
        .loose_constraints
        .iter()
        .find(|each| is_touched(each))
    {
        Some(constraint) => Err(Refusal::about(
            Number::ConstraintLoose,
            format!("{} of {}", constraint.name, relation.full_name()),
        )),
        None => Ok(()),
    }
}

/// SET, of UPDATE and of ON CONFLICT: neither the key, nor what another shard must see, nor a sequence's next value.
fn check_assignments(relation: &Relation, assignments: &[Assignment]) -> Surveyed<()> {
    let parts = || {
        assignments
            .iter()
            .flat_map(|each| each.columns.iter().flatten())
    };
    if let Some(key) = relation.key()
        && parts().any(|part| *part == key.column)
    {
        return Err(Refusal::about(Number::KeyAssigned, &key.column));
    }
    check_loose(relation, |constraint| {
        constraint.is_touched_by(parts().map(String::as_str))
    })?;
    for assignment in assignments.iter().filter(|each| has_default(&each.value)) {
        let mut columns = assignment.columns.iter().flatten();
        if let Some(column) = columns.find(|column| is_counted(relation, column)) {
            return Err(Refusal::about(Number::SequenceDefault, column));
        }
    }
    Ok(())
}

fn has_default(value: &Expr) -> bool {
    match value {
        Expr::Default => true,
        Expr::Operation(members) => members.iter().any(|member| matches!(member, Expr::Default)),
        // ROW (…, DEFAULT)
        Expr::Call(call) => call
            .arguments
            .iter()
            .any(|each| matches!(each, Expr::Default)),
        _ => false,
    }
}

/// Whether the column of a sharded table counts by a sequence.
fn is_counted(relation: &Relation, column: &str) -> bool {
    let default = relation.column(column).map(|column| column.default);
    relation.key().is_some() && default == Some(ColumnDefault::Sequence)
}

/// The one row of an INSERT into a sharded table.
fn only_row(insert: &Insert) -> Surveyed<&[Expr]> {
    match &insert.source {
        Source::DefaultValues => Err(Refusal::about(Number::KeyMissing, "DEFAULT VALUES")),
        Source::Query(_) => Err(Refusal::about(Number::InsertSelect, &insert.table.name)),
        Source::Rows(rows) => match rows.as_slice() {
            [row] => Ok(row),
            rows => Err(Refusal::about(
                Number::ManyRows,
                format!("{} rows", rows.len()),
            )),
        },
    }
}

/// The value that the row gives a column; `None` where it gives none.
fn given<'e>(
    insert: &Insert,
    relation: &Relation,
    column: &str,
    row: &'e [Expr],
) -> Option<&'e Expr> {
    let place = if insert.columns.is_empty() {
        relation.columns.iter().position(|each| each.name == column)
    } else {
        insert.columns.iter().position(|each| each == column)
    };
    row.get(place?)
        .filter(|value| !matches!(value, Expr::Default))
}

fn key_value(insert: &Insert, relation: &Relation, key: &Key, row: &[Expr]) -> Surveyed<Given> {
    if key.generated {
        return Err(Refusal::about(Number::KeyGenerated, &key.column));
    }
    let Some(value) = given(insert, relation, &key.column, row) else {
        return Err(Refusal::about(Number::KeyMissing, &key.column));
    };
    if matches!(value, Expr::Literal(Literal::Null)) {
        return Err(Refusal::about(Number::KeyNull, &key.column));
    }
    let assigned = Assigned {
        characters_max: key.characters_max,
    };
    let Some(given) = proof::constant(value, key.key_type) else {
        return Err(Refusal::about(Number::KeyNotConstant, &key.column));
    };
    let constant = match given.constant {
        Constant::Value(value) => {
            stored(value, assigned).map_or(Constant::Invalid, Constant::Value)
        }
        other => other,
    };
    let literal = given.literal.map(|literal| LiteralKey {
        assigned: Some(assigned),
        ..literal
    });
    Ok(Given { constant, literal })
}

/// Columns that a sequence would fill: each shard counts for itself.
fn check_sequences(insert: &Insert, relation: &Relation, row: &[Expr]) -> Surveyed<()> {
    if insert.overriding == Some(Overriding::User)
        && let Some(column) = relation.columns.iter().find(|column| column.identity)
    {
        return Err(Refusal::about(Number::OverridingUser, &column.name));
    }
    let counted = |column: &&crate::catalog::Column| {
        column.default == ColumnDefault::Sequence
            && given(insert, relation, &column.name, row).is_none()
    };
    match relation.columns.iter().find(counted) {
        Some(column) => Err(Refusal::about(Number::SequenceDefault, &column.name)),
        None => Ok(()),
    }
}
