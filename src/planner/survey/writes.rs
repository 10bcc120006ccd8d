//! INSERT, UPDATE and DELETE: the table that changes, the key that is stored, and what one shard alone cannot keep.

use std::sync::Arc;

use super::queries::{item_outputs, own_key, values_of};
use super::{Narrowed, Survey, Surveyed};
use crate::catalog::{ColumnDefault, Key, Relation, Resolved, Standing};
use crate::planner::Assigned;
use crate::planner::proof::{self, Constant, Given, Node};
use crate::planner::refusal::{Number, Refusal};
use crate::planner::scope::{Names, Outputs, Scope};
use crate::planner::target::stored;
use crate::sql::statement::{
    Assignment, Body, Delete, Expr, Insert, Item, Merge, MergeAction, OnConflict, Overriding,
    Query, Source, Table, Update,
};

/// The table that a statement changes.
struct Target {
    relation: Arc<Relation>,
    /// Where it is sharded.
    node: Option<Node>,
}

impl Survey<'_> {
    /// A statement that changes rows; gives what it returns.
    pub(super) fn write(&mut self, body: &Body) -> Surveyed<Outputs> {
        self.facts.writes = true;
        match body {
            Body::Insert(insert) => self.insert(insert),
            Body::Update(update) => self.update(update),
            Body::Delete(delete) => self.delete(delete),
            Body::Merge(merge) => self.merge(merge),
            _ => Ok(Outputs::open()),
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

    fn update(&mut self, update: &Update) -> Surveyed<Outputs> {
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
        if let Some(target) = &target {
            self.assigned_key(target, &update.assignments, &scope)?;
        }
        self.filter(update.filter.as_ref(), &scope)?;
        let values = update
            .assignments
            .iter()
            .map(|assignment| &assignment.value);
        self.exprs(values, Some(&scope))?;
        self.returning(&update.returning, &scope)
    }

    fn delete(&mut self, delete: &Delete) -> Surveyed<Outputs> {
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
        self.returning(&delete.returning, &scope)
    }

    fn returning(&mut self, items: &[Item], scope: &Scope<'_>) -> Surveyed<Outputs> {
        self.items(items, scope)?;
        Ok(item_outputs(items, scope).outward_only())
    }

    /// A key that is assigned has the row's new version on the shard of its new value: that one must be the shard of
    /// the statement, or the row would be stranded.
    fn assigned_key(
        &mut self,
        target: &Target,
        assignments: &[Assignment],
        scope: &Scope<'_>,
    ) -> Surveyed<()> {
        let (Some(node), Some(key)) = (target.node, target.relation.key()) else {
            return Ok(());
        };
        let names_key = |column: &[String]| column.contains(&key.column);
        for assignment in assignments {
            if !assignment.columns.iter().any(|column| names_key(column)) {
                continue;
            }
            let refusal = || Refusal::about(Number::KeyAssigned, &key.column);
            let value = match (assignment.columns.as_slice(), &assignment.value) {
                ([_], value) => value,
                (columns, Expr::Row(values)) if columns.len() == values.len() => columns
                    .iter()
                    .zip(values)
                    .find_map(|(column, value)| names_key(column).then_some(value))
                    .ok_or_else(refusal)?,
                _ => return Err(refusal()),
            };
            if own_key(value, scope).is_some_and(|value| value.node == node) {
                continue;
            }
            let values = written_values(value, scope, target, key).map_err(|_| refusal())?;
            let written = self.node(&target.relation)?;
            self.facts.proof.holds(written, values);
            self.facts.apart.get_or_insert_with(refusal);
        }
        Ok(())
    }

    /// Rows of the source that match nothing count, so ON narrows the target only; and not even that where rows of the
    /// target that match nothing count.
    fn merge(&mut self, merge: &Merge) -> Surveyed<Outputs> {
        let (names, target) = self.target(&merge.table)?;
        let nodes = match target.as_ref().and_then(|target| target.node) {
            Some(node) if !merge.clauses.iter().any(|clause| clause.by_source) => node..node + 1,
            _ => 0..0,
        };
        let names = self.relations(std::slice::from_ref(&merge.source), names, None)?;
        let scope = Scope {
            names: &names,
            outer: None,
        };
        self.conditions(&merge.on, &scope, &Narrowed::Only(nodes));
        self.expr(&merge.on, Some(&scope))?;
        for clause in &merge.clauses {
            self.exprs(&clause.filter, Some(&scope))?;
            match &clause.action {
                MergeAction::Nothing => {}
                MergeAction::Delete => {
                    if let Some(target) = &target {
                        check_cascades(&target.relation)?;
                        check_loose(&target.relation, |constraint| constraint.referenced)?;
                    }
                }
                MergeAction::Update(assignments) => {
                    if let Some(target) = &target {
                        check_cascades(&target.relation)?;
                        check_assignments(&target.relation, assignments)?;
                        self.assigned_key(target, assignments, &scope)?;
                    }
                    self.exprs(assignments.iter().map(|each| &each.value), Some(&scope))?;
                }
                MergeAction::Insert { columns, row } => {
                    if let Some(target) = &target {
                        self.merge_insert(target, columns, row, &scope)?;
                    }
                    self.exprs(row, Some(&scope))?;
                }
            }
        }
        self.facts
            .apart
            .get_or_insert_with(|| Refusal::about(Number::Merge, &merge.table.name));
        Ok(Outputs::open())
    }

    fn merge_insert(
        &mut self,
        target: &Target,
        columns: &[String],
        row: &[Expr],
        scope: &Scope<'_>,
    ) -> Surveyed<()> {
        check_loose(&target.relation, |constraint| !constraint.referenced)?;
        let Some(key) = target.relation.key() else {
            return Ok(());
        };
        if key.generated {
            return Err(Refusal::about(Number::KeyGenerated, &key.column));
        }
        check_sequences(&target.relation, columns, Some(row))?;
        let Some(value) = given(columns, &target.relation, &key.column, row) else {
            return Err(Refusal::about(Number::KeyMissing, &key.column));
        };
        let written = self.node(&target.relation)?;
        if let Some(from) = own_key(value, scope) {
            let stored = self.stores_key_of(from.node, target, written);
            return stored.ok_or_else(|| Refusal::about(Number::KeyNotConstant, &key.column));
        }
        let values = written_values(value, scope, target, key)?;
        self.facts.proof.holds(written, values);
        Ok(())
    }

    /// Rows that are written have the key of a row of `from`. `None` where that need not be so.
    fn stores_key_of(&mut self, from: Node, target: &Target, written: Node) -> Option<()> {
        let key = target.relation.key()?;
        // where an outer join may leave it NULL, the column has to refuse that
        let column = target.relation.column(&key.column)?;
        let is_there = self.facts.nullable.get(from) == Some(&false);
        let same = (column.not_null || is_there) && key.characters_max.is_none();
        (same && self.facts.proof.follows(from, written)).then_some(())
    }

    fn filter(&mut self, filter: Option<&Expr>, scope: &Scope<'_>) -> Surveyed<()> {
        if let Some(filter) = filter {
            self.conditions(filter, scope, &Narrowed::All);
            self.expr(filter, Some(scope))?;
        }
        Ok(())
    }

    fn insert(&mut self, insert: &Insert) -> Surveyed<Outputs> {
        let (names, target) = self.target(&insert.table)?;
        let queried = match &insert.source {
            Source::DefaultValues => None,
            Source::Rows(rows) => {
                self.exprs(rows.iter().flatten(), None)?;
                None
            }
            Source::Query(query) => Some((query.as_ref(), self.query(query, None)?)),
        };
        if let Some(target) = &target {
            self.insert_into(insert, target, queried)?;
        }
        let scope = Scope {
            names: &names,
            outer: None,
        };
        if let Some(conflict) = &insert.on_conflict {
            self.on_conflict(conflict, target.as_ref(), &names)?;
        }
        self.returning(&insert.returning, &scope)
    }

    fn insert_into(
        &mut self,
        insert: &Insert,
        target: &Target,
        queried: Option<(&Query, Outputs)>,
    ) -> Surveyed<()> {
        check_loose(&target.relation, |constraint| !constraint.referenced)?;
        let (Some(node), Some(key)) = (target.node, target.relation.key()) else {
            return Ok(());
        };
        if key.generated {
            return Err(Refusal::about(Number::KeyGenerated, &key.column));
        }
        check_overriding(insert, &target.relation)?;
        match (&insert.source, queried) {
            (Source::Rows(rows), _) => {
                let mut values = Vec::with_capacity(rows.len());
                for row in rows {
                    let Some(value) = given(&insert.columns, &target.relation, &key.column, row)
                    else {
                        return Err(Refusal::about(Number::KeyMissing, &key.column));
                    };
                    values.extend(stored_values(value, key)?);
                    check_sequences(&target.relation, &insert.columns, Some(row))?;
                }
                if rows.len() > 1 {
                    let rows = format!("{} rows", rows.len());
                    self.facts.apart = Some(Refusal::about(Number::ManyRows, rows));
                }
                self.facts.proof.holds(node, values);
                Ok(())
            }
            (Source::Query(_), Some((query, outputs))) => {
                check_sequences(&target.relation, &insert.columns, None)?;
                let refusal = Refusal::about(Number::InsertSelect, &insert.table.name);
                let place = place_of(&insert.columns, &target.relation, &key.column);
                let place = place.ok_or_else(|| Refusal::about(Number::KeyMissing, &key.column))?;
                self.insert_selected(target, query, &outputs, place)
                    .ok_or_else(|| refusal.clone())?;
                self.facts.apart = Some(refusal);
                Ok(())
            }
            _ => Err(Refusal::about(Number::KeyMissing, "DEFAULT VALUES")),
        }
    }

    /// INSERT … SELECT: the new rows have the key of a row that they are made of, or a constant. `None` where it is not
    /// known.
    fn insert_selected(
        &mut self,
        target: &Target,
        query: &Query,
        outputs: &Outputs,
        place: usize,
    ) -> Option<()> {
        let (node, key) = (target.node?, target.relation.key()?);
        let output = outputs.columns.get(place)?;
        if let Some(values) = &output.values {
            let values = one_of(values, selected(query, place), target, key).ok()?;
            self.facts.proof.holds(node, values);
            return Some(());
        }
        let from = output.key?;
        self.stores_key_of(from.node, target, node)
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
        let excluded = Names::of(Some("excluded"), None, excluded, None).qualified_only();
        let names = names.clone().beside(excluded);
        let scope = Scope {
            names: &names,
            outer: None,
        };
        if let (Some(target), false) = (target, conflict.assignments.is_empty()) {
            check_cascades(&target.relation)?;
            check_assignments(&target.relation, &conflict.assignments)?;
            self.assigned_key(target, &conflict.assignments, &scope)?;
        }
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

/// SET, of UPDATE and of ON CONFLICT: neither what another shard must see, nor a sequence's next value.
fn check_assignments(relation: &Relation, assignments: &[Assignment]) -> Surveyed<()> {
    let parts = || {
        assignments
            .iter()
            .flat_map(|each| each.columns.iter().flatten())
    };
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
        Expr::Row(members) => members.iter().any(|member| matches!(member, Expr::Default)),
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

/// Whether a query's output column is written as a constant, so that it is never anything else.
fn selected(query: &Query, place: usize) -> bool {
    let Body::Select(select) = &query.body else {
        return false;
    };
    let listed = select.items.get(..=place).unwrap_or_default();
    let is_plain = |item: &Item| {
        !matches!(
            item.expr,
            Expr::Wildcard(_) | Expr::Field { name: None, .. }
        )
    };
    listed.iter().all(is_plain)
        && listed
            .last()
            .is_some_and(|item| proof::is_constant(&item.expr))
}

/// Where INSERT, with these columns in its list, takes a column's value from; `None` where it gives none.
fn place_of(columns: &[String], relation: &Relation, column: &str) -> Option<usize> {
    if columns.is_empty() {
        relation.columns.iter().position(|each| each.name == column)
    } else {
        columns.iter().position(|each| each == column)
    }
}

/// The value that the row gives a column; `None` where it gives none.
fn given<'e>(
    columns: &[String],
    relation: &Relation,
    column: &str,
    row: &'e [Expr],
) -> Option<&'e Expr> {
    row.get(place_of(columns, relation, column)?)
        .filter(|value| !matches!(value, Expr::Default))
}

/// The values that a new key can have, where they are constants.
fn written_values(
    value: &Expr,
    scope: &Scope<'_>,
    target: &Target,
    key: &Key,
) -> Surveyed<Vec<Given>> {
    match values_of(value, scope) {
        Some(values) => one_of(&values, proof::is_constant(value), target, key),
        None => stored_values(value, key),
    }
}

/// `always`: it is one of these; an outer join may leave it NULL otherwise, which the column has to refuse then.
fn one_of(values: &[Expr], always: bool, target: &Target, key: &Key) -> Surveyed<Vec<Given>> {
    let column = target.relation.column(&key.column);
    if !always && !column.is_some_and(|column| column.not_null) {
        return Err(Refusal::about(Number::KeyNotConstant, &key.column));
    }
    let values = values.iter().map(|value| stored_values(value, key));
    Ok(values.collect::<Surveyed<Vec<_>>>()?.concat())
}

/// The value of a new row's key.
fn stored_values(value: &Expr, key: &Key) -> Surveyed<Vec<Given>> {
    let assigned = Assigned {
        characters_max: key.characters_max,
    };
    let Some(mut values) = proof::constant(value, key.key_type) else {
        return Err(Refusal::about(Number::KeyNotConstant, &key.column));
    };
    if values.is_empty() {
        return Err(Refusal::about(Number::KeyNull, &key.column));
    }
    for given in &mut values {
        match &mut given.constant {
            Constant::Value(value) => {
                given.constant =
                    stored(value.clone(), assigned).map_or(Constant::Invalid, Constant::Value);
            }
            Constant::Parameter { assigned: of, .. } => *of = Some(assigned),
            Constant::Elements { .. } | Constant::Invalid => {}
        }
        if let Some(literal) = &mut given.literal {
            literal.assigned = Some(assigned);
        }
    }
    Ok(values)
}

/// Columns that a sequence would fill: each shard counts for itself.
fn check_sequences(relation: &Relation, columns: &[String], row: Option<&[Expr]>) -> Surveyed<()> {
    let counted = |column: &&crate::catalog::Column| {
        let is_given = match row {
            Some(row) => given(columns, relation, &column.name, row).is_some(),
            None => place_of(columns, relation, &column.name).is_some(),
        };
        column.default == ColumnDefault::Sequence && !is_given
    };
    match relation.columns.iter().find(counted) {
        Some(column) => Err(Refusal::about(Number::SequenceDefault, &column.name)),
        None => Ok(()),
    }
}

fn check_overriding(insert: &Insert, relation: &Relation) -> Surveyed<()> {
    match relation.columns.iter().find(|column| column.identity) {
        Some(column) if insert.overriding == Some(Overriding::User) => {
            Err(Refusal::about(Number::OverridingUser, &column.name))
        }
        _ => Ok(()),
    }
}
