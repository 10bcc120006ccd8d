//! What a statement names, found by walking the whole of its tree: every relation that is no common table expression,
//! every function, and whether it writes or locks. Each variant is named here, so that a new one has to be thought of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use pgherd::sql::Statement;
use pgherd::sql::statement::{
    Assignment, Body, Expr, From, Item, Join, JoinKind, Literal, MergeAction, MergeClause, On,
    OnConflict, Query, Select, Source, Table,
};

#[derive(Debug, Default)]
pub struct Named {
    pub relations: BTreeSet<String>,
    pub functions: BTreeSet<String>,
    pub writes: bool,
    pub locks: bool,
    /// How many there are of what a plan hangs on, at all levels; the page of the oracle explains the letters.
    pub shape: BTreeMap<char, usize>,
    /// Those in sight, innermost last.
    ctes: Vec<String>,
}

impl Named {
    pub fn by(statement: &Statement) -> Self {
        let mut named = Self::default();
        named.query(&statement.query);
        assert!(named.ctes.is_empty(), "a level was not left");
        named
    }

    fn query(&mut self, query: &Query) {
        let outer = self.ctes.len();
        // Each sees the ones before it; in WITH RECURSIVE all see all.
        if query.recursive {
            self.ctes
                .extend(query.with.iter().map(|cte| cte.name.clone()));
        }
        for cte in &query.with {
            self.query(&cte.query);
            self.ctes.push(cte.name.clone());
        }
        self.body(&query.body);
        self.count('o', usize::from(!query.order_by.is_empty()));
        self.exprs(&query.order_by);
        let limit = query.limit.as_deref();
        // LIMIT NULL is LIMIT ALL; FETCH FIRST ROW says no number.
        let all = |expr: &Expr| matches!(expr, Expr::Literal(Literal::Null));
        let limits = limit.is_some_and(|exprs| exprs.is_empty() || !exprs.iter().all(all));
        self.count('l', usize::from(limits));
        self.exprs(limit.unwrap_or_default());
        self.locks |= !query.locks.is_empty();
        self.ctes.truncate(outer);
    }

    fn body(&mut self, body: &Body) {
        match body {
            Body::Select(select) => self.select(select),
            Body::Values(rows) => self.exprs(rows.iter().flatten()),
            Body::SetOperation(branches) => {
                self.count('s', branches.len() - 1);
                for branch in branches {
                    self.query(branch);
                }
            }
            Body::Nested(query) => self.query(query),
            Body::Insert(insert) => {
                self.target(&insert.table);
                match &insert.source {
                    Source::DefaultValues => {}
                    Source::Rows(rows) => self.exprs(rows.iter().flatten()),
                    Source::Query(query) => self.query(query),
                }
                if let Some(conflict) = &insert.on_conflict {
                    let OnConflict {
                        target,
                        assignments,
                        filter,
                    } = conflict;
                    for target in target {
                        self.condition(target);
                    }
                    self.assignments(assignments);
                    self.filter(filter.as_ref());
                }
                self.items(&insert.returning);
            }
            Body::Update(update) => {
                self.target(&update.table);
                self.assignments(&update.assignments);
                self.from(&update.from);
                self.filter(update.filter.as_ref());
                self.items(&update.returning);
            }
            Body::Delete(delete) => {
                self.target(&delete.table);
                self.from(&delete.using);
                self.filter(delete.filter.as_ref());
                self.items(&delete.returning);
            }
            Body::Merge(merge) => {
                self.target(&merge.table);
                self.one_of_from(&merge.source);
                self.condition(&merge.on);
                for MergeClause {
                    by_source: _,
                    filter,
                    action,
                } in &merge.clauses
                {
                    self.filter(filter.as_ref());
                    match action {
                        MergeAction::Nothing | MergeAction::Delete => {}
                        MergeAction::Update(assignments) => self.assignments(assignments),
                        MergeAction::Insert { columns: _, row } => self.exprs(row),
                    }
                }
            }
        }
    }

    fn select(&mut self, select: &Select) {
        let Select {
            distinct,
            distinct_on,
            items,
            into,
            from,
            filter,
            group_by,
            having,
            windows,
        } = select;
        self.writes |= into;
        self.count('d', usize::from(*distinct));
        self.count('g', usize::from(group_by.is_some()));
        self.count('w', usize::from(windows.is_some()));
        self.exprs(distinct_on);
        self.items(items);
        self.from(from);
        self.filter(filter.as_ref());
        self.exprs(group_by.iter().flatten());
        self.filter(having.as_ref());
        self.exprs(windows.iter().flatten());
    }

    fn items(&mut self, items: &[Item]) {
        self.exprs(items.iter().map(|item| &item.expr));
    }

    fn assignments(&mut self, assignments: &[Assignment]) {
        self.exprs(assignments.iter().map(|assignment| &assignment.value));
    }

    fn from(&mut self, from: &[From]) {
        for from in from {
            self.one_of_from(from);
        }
    }

    fn one_of_from(&mut self, from: &From) {
        match from {
            From::Table(table) => {
                let is_cte = table.schema.is_none() && self.ctes.contains(&table.name);
                if !is_cte {
                    self.relation(table);
                }
                self.exprs(table.sample.iter().flatten());
            }
            From::Derived { query, .. } => self.query(query),
            From::Function { calls, alias: _ } => self.exprs(calls),
            From::Joined { first, joins } => {
                self.one_of_from(first);
                for Join { kind, right, on } in joins {
                    let letter = match kind {
                        JoinKind::Inner => 'J',
                        JoinKind::Left => 'L',
                        JoinKind::Right => 'R',
                        JoinKind::Full => 'F',
                    };
                    self.count(letter, 1);
                    self.one_of_from(right);
                    match on {
                        On::Condition(condition) => self.condition(condition),
                        On::Nothing | On::Using(_) | On::Natural => {}
                    }
                }
            }
        }
    }

    /// What a write names is never a common table expression.
    fn target(&mut self, table: &Table) {
        self.writes = true;
        self.relation(table);
    }

    fn relation(&mut self, table: &Table) {
        self.relations
            .insert(qualified(table.schema.as_deref(), &table.name));
    }

    fn filter(&mut self, filter: Option<&Expr>) {
        if let Some(filter) = filter {
            self.condition(filter);
        }
    }

    fn condition(&mut self, condition: &Expr) {
        let joined = match condition {
            Expr::All(members) => members,
            one => std::slice::from_ref(one),
        };
        for member in joined {
            self.count('c', 1);
            self.count('e', usize::from(matches!(member, Expr::Equal(..))));
            self.count('i', usize::from(matches!(member, Expr::OneOf(..))));
        }
        self.exprs(joined);
    }

    fn count(&mut self, letter: char, more: usize) {
        if more > 0 {
            *self.shape.entry(letter).or_default() += more;
        }
    }

    fn exprs<'a>(&mut self, exprs: impl IntoIterator<Item = &'a Expr>) {
        exprs.into_iter().for_each(|expr| self.expr(expr));
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Column(_)
            | Expr::Wildcard(_)
            | Expr::Default
            | Expr::Literal(_)
            | Expr::Parameter(_) => {}
            Expr::All(parts) | Expr::Any(parts) | Expr::Row(parts) | Expr::Operation(parts) => {
                self.exprs(parts);
            }
            Expr::Cast { inner: part, to: _ }
            | Expr::Field {
                inner: part,
                name: _,
            } => self.expr(part),
            Expr::IsNull(part) => self.expr(part),
            Expr::Equal(left, right) | Expr::ElementOf(left, right) => {
                self.exprs([left.as_ref(), right.as_ref()]);
            }
            Expr::OneOf(left, members) => {
                self.expr(left);
                self.exprs(members);
            }
            Expr::Call(call) => {
                self.functions
                    .insert(qualified(call.schema.as_deref(), &call.name));
                self.count('a', usize::from(call.aggregates));
                self.count('v', usize::from(call.window));
                self.exprs(&call.arguments);
            }
            Expr::Subquery(query) => {
                self.count('q', 1);
                self.query(query);
            }
        }
    }
}

/// What a statement is, by what it does at its outermost level.
pub fn kind(body: &Body) -> &'static str {
    match body {
        Body::Nested(query) => kind(&query.body),
        Body::Select(_) | Body::Values(_) | Body::SetOperation(_) => "select",
        Body::Insert(_) => "insert",
        Body::Update(_) => "update",
        Body::Delete(_) => "delete",
        Body::Merge(_) => "merge",
    }
}

fn qualified(schema: Option<&str>, name: &str) -> String {
    let name = escaped(name);
    schema.map_or(name.clone(), |schema| format!("{}.{name}", escaped(schema)))
}

/// A name as the page of the oracle has it, in which no separator stands.
pub fn escaped(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        if "\\,. \t\r\n".contains(c) {
            let _ = write!(escaped, "\\x{:02x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}
