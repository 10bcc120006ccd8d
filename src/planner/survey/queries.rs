//! Queries and their levels: WITH, bodies, locks, and what a subquery offers to the level around it.

use super::{Cte, Met, Narrowed, Survey, Surveyed};
use crate::planner::proof::is_constant;
use crate::planner::refusal::{Number, Refusal};
use crate::planner::scope::{KeyOf, Meaning, Names, Output, Outputs, Scope, Values};
use crate::sql::statement::{Body, Expr, Item, Literal, Lock, Query, Select};

impl Survey<'_> {
    /// The statement itself, which may be a write.
    pub(super) fn statement(&mut self, query: &Query) -> Surveyed<()> {
        match &query.body {
            Body::Insert(_) | Body::Update(_) | Body::Delete(_) | Body::Merge(_) => {
                let outer = self.ctes.len();
                self.with(query, None)?;
                self.write(&query.body)?;
                self.ctes.truncate(outer);
                Ok(())
            }
            _ => self.query(query, None).map(|_| ()),
        }
    }

    /// A query at any depth.
    pub(super) fn query(&mut self, query: &Query, outer: Option<&Scope<'_>>) -> Surveyed<Outputs> {
        let ctes = self.ctes.len();
        self.with(query, outer)?;
        if !query.order_by.is_empty() {
            self.facts.obstacle(Number::OrderByOverShards, "ORDER BY");
        }
        if let Some(limit) = &query.limit {
            self.facts.obstacle(Number::LimitOverShards, "LIMIT");
            self.exprs(limit, outer)?;
        }
        if !query.locks.is_empty() {
            self.facts.locks = true;
            self.facts.obstacle(Number::LockOverShards, "a row lock");
        }
        let mut outputs = self.body(query, outer)?;
        if query.limit.is_some() {
            outputs = outputs.outward_only();
        }
        self.ctes.truncate(ctes);
        Ok(outputs)
    }

    fn body(&mut self, query: &Query, outer: Option<&Scope<'_>>) -> Surveyed<Outputs> {
        match &query.body {
            Body::Select(select) => self.select(select, query, outer),
            Body::Nested(inner) => {
                self.exprs(&query.order_by, outer)?;
                let outputs = self.query(inner, outer)?;
                if outputs.reference && !query.locks.is_empty() {
                    return Err(Refusal::about(
                        Number::ReferenceLock,
                        "a query in parentheses",
                    ));
                }
                Ok(outputs)
            }
            Body::Values(rows) => {
                self.exprs(rows.iter().flatten(), outer)?;
                self.exprs(&query.order_by, outer)?;
                Ok(values_outputs(rows))
            }
            Body::SetOperation(branches) => {
                self.facts
                    .obstacle(Number::SetOperationOverShards, "a set operation");
                let mut reference = false;
                for branch in branches {
                    reference |= self.query(branch, outer)?.reference;
                }
                self.exprs(&query.order_by, outer)?;
                Ok(Outputs {
                    reference,
                    ..Outputs::open()
                })
            }
            Body::Insert(_) | Body::Update(_) | Body::Delete(_) | Body::Merge(_) => {
                Err(Refusal::new(Number::WritingCte))
            }
        }
    }

    /// Each sees the ones before it; in WITH RECURSIVE all see all.
    pub(super) fn with(&mut self, query: &Query, outer: Option<&Scope<'_>>) -> Surveyed<()> {
        let first = self.ctes.len();
        if let Some(cte) = query.with.first() {
            self.facts.obstacle(Number::CteOverShards, &cte.name);
        }
        if query.recursive {
            for cte in &query.with {
                let outputs = Outputs::open().renamed(&cte.columns);
                self.ctes.push(Cte {
                    name: cte.name.clone(),
                    outputs,
                });
            }
        }
        for (index, cte) in query.with.iter().enumerate() {
            let found = match &cte.query.body {
                body @ (Body::Insert(_) | Body::Update(_) | Body::Delete(_) | Body::Merge(_)) => {
                    let inner = self.ctes.len();
                    self.with(&cte.query, outer)?;
                    let found = self.write(body)?;
                    self.ctes.truncate(inner);
                    found
                }
                _ => self.query(&cte.query, outer)?,
            };
            // it may be read more than once, so what holds one reading proves nothing for its rows
            let mut outputs = found.outward_only().renamed(&cte.columns);
            // row locks do not reach into it
            outputs.reference = false;
            self.count(&outputs)?;
            let found = Cte {
                name: cte.name.clone(),
                outputs,
            };
            match self.ctes.get_mut(first + index) {
                Some(place) if query.recursive => *place = found,
                _ => self.ctes.push(found),
            }
        }
        Ok(())
    }

    fn select(
        &mut self,
        select: &Select,
        query: &Query,
        outer: Option<&Scope<'_>>,
    ) -> Surveyed<Outputs> {
        if select.into {
            return Err(Refusal::new(Number::SelectInto));
        }
        let names = self.relations(&select.from, Names::none(), outer)?;
        let scope = Scope {
            names: &names,
            outer,
        };
        if let Some(filter) = &select.filter {
            self.conditions(filter, &scope, &Narrowed::All);
            self.expr(filter, Some(&scope))?;
        }
        check_locks(&query.locks, &names)?;
        let before = self.met;
        self.items(&select.items, &scope)?;
        self.exprs(&query.order_by, Some(&scope))?;
        self.groups(select, &scope)?;
        Ok(self.outputs(select, &scope, before))
    }

    /// DISTINCT, GROUP BY, HAVING and WINDOW.
    fn groups(&mut self, select: &Select, scope: &Scope<'_>) -> Surveyed<()> {
        if select.distinct {
            self.facts.obstacle(Number::DistinctOverShards, "DISTINCT");
        }
        if select.group_by.is_some() || select.having.is_some() {
            self.facts.obstacle(Number::GroupByOverShards, "GROUP BY");
        }
        if select.windows.is_some() {
            self.facts.obstacle(Number::WindowOverShards, "WINDOW");
        }
        self.exprs(&select.distinct_on, Some(scope))?;
        let grouped = select.group_by.iter().flatten();
        let windows = select.windows.iter().flatten();
        self.exprs(grouped.chain(&select.having).chain(windows), Some(scope))
    }

    /// What a level offers to the one around it. A key passes a proof inwards only where each row of the level comes
    /// from rows with that key alone.
    fn outputs(&mut self, select: &Select, scope: &Scope<'_>, before: Met) -> Outputs {
        let mut outputs = item_outputs(&select.items, scope);
        let grouped = select.group_by.is_some()
            || select.having.is_some()
            || self.met.aggregates != before.aggregates;
        let mixed = !select.distinct_on.is_empty() || self.met.windows != before.windows;
        if mixed || (grouped && select.group_by.is_none()) {
            return outputs.outward_only();
        }
        if let Some(group_by) = &select.group_by {
            let kept = grouping_keys(group_by, select, scope, &mut self.facts.fixed);
            for key in outputs
                .columns
                .iter_mut()
                .filter_map(|output| output.key.as_mut())
            {
                key.inward &= kept.contains(&key.node);
            }
        }
        outputs
    }
}

/// The columns that a list of output expressions makes.
pub(super) fn item_outputs(items: &[Item], scope: &Scope<'_>) -> Outputs {
    let mut outputs = Outputs {
        reference: scope.names.reference,
        ..Outputs::default()
    };
    for item in items {
        match &item.expr {
            Expr::Wildcard(parts) => match scope.names.star(entry_of(parts)) {
                Some(columns) if parts.len() < 2 => outputs.columns.extend_from_slice(columns),
                _ => outputs.open = true,
            },
            Expr::Field { name: None, .. } => outputs.open = true,
            expr => outputs.columns.push(Output {
                name: output_name(item),
                key: own_key(expr, scope),
                values: values_of(expr, scope),
            }),
        }
    }
    if outputs.open {
        // the places of the columns are not known, so they must not be renamed
        outputs.columns.clear();
    }
    outputs
}

/// Values of VALUES that are remembered.
const VALUES_MAX: usize = 10_000;

/// The columns of VALUES.
fn values_outputs(rows: &[Vec<Expr>]) -> Outputs {
    let width = rows.first().map_or(0, Vec::len);
    let known = rows.iter().all(|row| row.len() == width) && width * rows.len() <= VALUES_MAX;
    let columns = (0..width).map(|column| {
        let values = rows
            .iter()
            .map(|row| row.get(column).filter(|value| is_constant(value)));
        let values = values.collect::<Option<Vec<&Expr>>>();
        Output {
            name: Some(format!("column{}", column + 1)),
            key: None,
            values: values
                .filter(|_| known)
                .map(|values| values.into_iter().cloned().collect()),
        }
    });
    Outputs {
        columns: columns.collect(),
        ..Outputs::default()
    }
}

/// What an expression can be, where only constants are possible.
pub(super) fn values_of(expr: &Expr, scope: &Scope<'_>) -> Option<Values> {
    match expr {
        _ if is_constant(expr) => Some([expr.clone()].into()),
        Expr::Column(parts) => match scope.meaning(parts) {
            Meaning::Values(values) => Some(values),
            _ => None,
        },
        Expr::Cast { inner, to } => {
            let cast = |value: &Expr| Expr::Cast {
                inner: Box::new(value.clone()),
                to: to.clone(),
            };
            Some(values_of(inner, scope)?.iter().map(cast).collect())
        }
        _ => None,
    }
}

/// FOR UPDATE and its kin on a copy that is on every shard.
fn check_locks(locks: &[Lock], names: &Names) -> Surveyed<()> {
    for lock in locks {
        let of_all = lock.of.is_empty() && names.reference;
        if of_all || lock.of.iter().any(|entry| names.locks_reference(entry)) {
            return Err(Refusal::about(Number::ReferenceLock, lock.of.join(", ")));
        }
    }
    Ok(())
}

/// The occurrences whose key is among the grouping columns. Grouping sets keep none.
fn grouping_keys(
    group_by: &[Expr],
    select: &Select,
    scope: &Scope<'_>,
    fixed: &mut Vec<u32>,
) -> Vec<usize> {
    if group_by
        .iter()
        .any(|expr| matches!(expr, Expr::Operation(_) | Expr::Row(_)))
    {
        return Vec::new();
    }
    // a `*` stands for several columns
    let counts = !select
        .items
        .iter()
        .any(|item| matches!(item.expr, Expr::Wildcard(_)));
    let keys = group_by.iter().filter_map(|expr| match expr {
        Expr::Literal(Literal::Integer(ordinal)) if counts => {
            let ordinal = *ordinal.fix(fixed);
            let index = usize::try_from(ordinal).ok()?.checked_sub(1)?;
            own_key(&select.items.get(index)?.expr, scope)
        }
        expr => own_key(expr, scope),
    });
    keys.map(|key| key.node).collect()
}

pub(super) fn own_key(expr: &Expr, scope: &Scope<'_>) -> Option<KeyOf> {
    let Expr::Column(parts) = expr else {
        return None;
    };
    match scope.meaning(parts) {
        Meaning::Key {
            key,
            own_level: true,
        } => Some(key),
        _ => None,
    }
}

fn entry_of(parts: &[String]) -> Option<&str> {
    parts.last().map(String::as_str)
}

fn output_name(item: &Item) -> Option<String> {
    match (&item.alias, &item.expr) {
        (Some(alias), _) => Some(alias.clone()),
        (None, Expr::Column(parts)) => parts.last().cloned(),
        _ => None,
    }
}
