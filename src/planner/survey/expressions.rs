//! Expressions: what their names, calls and casts mean for a plan, and what their conjuncts prove.

use super::queries::values_of;
use super::{Narrowed, Survey, Surveyed};
use crate::placement::KeyValue;
use crate::planner::functions::{self, Class};
use crate::planner::proof::{self, Constant, Given};
use crate::planner::refusal::{Number, Refusal};
use crate::planner::scope::{KeyOf, Meaning, Scope};
use crate::sql::statement::{Call, Expr, Item, Literal, Type};

/// Words in which a date is read off the clock.
const MOMENTS: &[&str] = &["now", "today", "tomorrow", "yesterday"];

/// A key, whether it is of the condition's own level, and the values that it may have.
type Choice = ((KeyOf, bool), Vec<Given>);

impl Survey<'_> {
    pub(super) fn exprs<'e>(
        &mut self,
        exprs: impl IntoIterator<Item = &'e Expr>,
        scope: Option<&Scope<'_>>,
    ) -> Surveyed<()> {
        exprs
            .into_iter()
            .try_for_each(|expr| self.expr(expr, scope))
    }

    /// Output expressions; a `*` among them is no whole row.
    pub(super) fn items(&mut self, items: &[Item], scope: &Scope<'_>) -> Surveyed<()> {
        let exprs = items.iter().map(|item| &item.expr);
        self.exprs(
            exprs.filter(|expr| !matches!(expr, Expr::Wildcard(_))),
            Some(scope),
        )
    }

    pub(super) fn expr(&mut self, expr: &Expr, scope: Option<&Scope<'_>>) -> Surveyed<()> {
        match expr {
            Expr::Column(parts) => {
                self.column(parts, scope);
                Ok(())
            }
            Expr::Wildcard(parts) => {
                if !parts.is_empty() {
                    self.facts.obstacle(Number::RowOverShards, parts.join("."));
                }
                Ok(())
            }
            Expr::Literal(Literal::Text(text)) => {
                let (text, slot) = text.parts();
                if names_a_moment(text) {
                    self.facts.obstacle(Number::MomentOverShards, text);
                }
                self.facts.texts.extend(slot.map(|slot| slot.index));
                Ok(())
            }
            Expr::Literal(Literal::Escaped) => {
                self.facts
                    .obstacle(Number::MomentOverShards, "a string with escapes");
                Ok(())
            }
            Expr::Default | Expr::Literal(_) | Expr::Parameter(_) => Ok(()),
            Expr::Cast { inner, to } => {
                if let Type::Other(name) = to {
                    self.facts.reads_server = true;
                    self.facts.obstacle(Number::TypeOverShards, name);
                }
                self.expr(inner, scope)
            }
            Expr::Equal(left, right) => {
                self.operator();
                self.expr(left, scope)?;
                self.expr(right, scope)
            }
            Expr::ElementOf(left, array) => {
                self.operator();
                self.expr(left, scope)?;
                self.expr(array, scope)
            }
            Expr::OneOf(left, members) => {
                self.operator();
                self.expr(left, scope)?;
                self.exprs(members, scope)
            }
            Expr::All(members) | Expr::Any(members) | Expr::Row(members) => {
                self.exprs(members, scope)
            }
            Expr::IsNull(inner) => self.expr(inner, scope),
            Expr::Operation(operands) => {
                self.operator();
                self.exprs(operands, scope)
            }
            Expr::Field { inner, name } => {
                let name = name.as_deref().unwrap_or("*");
                self.facts.obstacle(Number::ColumnUnclear, name);
                self.maybe_function(name);
                self.expr(inner, scope)
            }
            Expr::Call(call) => self.call(call, scope),
            Expr::Subquery(query) => {
                self.facts
                    .obstacle(Number::SubqueryOverShards, "a subquery in an expression");
                self.query(query, scope).map(|_| ())
            }
        }
    }

    fn operator(&mut self) {
        if self.knowledge.catalog.has_unusual_operators() {
            self.facts
                .obstacle(Number::ExpressionOverShards, "an operator");
        }
    }

    fn column(&mut self, parts: &[String], scope: Option<&Scope<'_>>) {
        match scope.map_or(Meaning::Unknown, |scope| scope.meaning(parts)) {
            Meaning::Key { .. } | Meaning::Values(_) | Meaning::Column => {}
            Meaning::Row | Meaning::System => {
                self.facts.reads_server = true;
                self.facts.obstacle(Number::RowOverShards, parts.join("."));
            }
            Meaning::Unknown => {
                self.facts.obstacle(Number::ColumnUnclear, parts.join("."));
                if let [_, .., name] = parts {
                    self.maybe_function(name);
                }
            }
        }
    }

    /// `x.name` and `(x).name` may call the function `name` with the row `x`.
    fn maybe_function(&mut self, name: &str) {
        if functions::is_users(self.knowledge.catalog, name) {
            self.facts
                .user_function
                .get_or_insert_with(|| name.to_owned());
        }
    }

    fn call(&mut self, call: &Call, scope: Option<&Scope<'_>>) -> Surveyed<()> {
        let nature = functions::classify(self.knowledge.catalog, call);
        let facts = &mut self.facts;
        facts.writes |= nature.writes;
        match nature.class {
            Class::Immutable | Class::Anywhere => {}
            Class::Reads => facts.reads_server = true,
            Class::Effects => {
                facts
                    .effect_function
                    .get_or_insert_with(|| call.name.clone());
            }
            Class::User => {
                facts.user_function.get_or_insert_with(|| call.name.clone());
            }
            Class::Query => return Err(Refusal::about(Number::QueryFunction, &call.name)),
            Class::Server => return Err(Refusal::about(Number::ServerFunction, &call.name)),
        }
        if nature.class > Class::Immutable {
            facts.obstacle(Number::FunctionOverShards, &call.name);
        }
        if nature.aggregate {
            self.met.aggregates += 1;
            facts.obstacle(Number::AggregateOverShards, &call.name);
        }
        if nature.window {
            self.met.windows += 1;
            facts.obstacle(Number::WindowOverShards, &call.name);
        }
        if nature.returns_set {
            facts.obstacle(Number::SetReturningOverShards, &call.name);
        }
        self.exprs(&call.arguments, scope)
    }

    /// What a condition proves that every row of its level fulfils.
    pub(super) fn conditions(&mut self, condition: &Expr, scope: &Scope<'_>, narrowed: &Narrowed) {
        match condition {
            Expr::All(members) => {
                for member in members {
                    self.conditions(member, scope, narrowed);
                }
            }
            other => {
                if let Expr::Equal(left, right) = other {
                    for (left, right) in pairs(left, right) {
                        if let (Some(left), Some(right)) =
                            (key_of(left, scope), key_of(right, scope))
                        {
                            self.equate(left, right, narrowed);
                        }
                    }
                }
                for (key, values) in self.choices(other, scope) {
                    self.hold(key, values, narrowed);
                }
            }
        }
    }

    /// The keys of which a condition, where it is true, leaves a choice of values.
    fn choices(&mut self, condition: &Expr, scope: &Scope<'_>) -> Vec<Choice> {
        let of = |key: Option<(KeyOf, bool)>, values: Option<Vec<Given>>| {
            key.zip(values).into_iter().collect()
        };
        match condition {
            Expr::All(members) => members
                .iter()
                .flat_map(|member| self.choices(member, scope))
                .collect(),
            Expr::Any(branches) => self.any_of(branches, scope),
            Expr::Equal(left, right) => pairs(left, right)
                .into_iter()
                .filter_map(|(left, right)| self.compared(left, right, scope))
                .collect(),
            Expr::OneOf(left, members) => {
                if let Expr::Row(columns) = left.as_ref() {
                    return self.rows(columns, members, scope);
                }
                let key = key_of(left, scope);
                of(key, key.and_then(|(key, _)| self.constants(key, members)))
            }
            Expr::ElementOf(left, array) => {
                let key = key_of(left, scope);
                of(key, key.and_then(|(key, _)| self.elements(key, array)))
            }
            Expr::IsNull(inner) => {
                let null = Given {
                    constant: Constant::Value(KeyValue::Null),
                    literal: None,
                };
                of(key_of(inner, scope), Some(vec![null]))
            }
            _ => Vec::new(),
        }
    }

    /// A key beside its values.
    fn compared(&self, left: &Expr, right: &Expr, scope: &Scope<'_>) -> Option<Choice> {
        let (key, value) = match (key_of(left, scope), key_of(right, scope)) {
            (Some(key), None) => (key, right),
            (None, Some(key)) => (key, left),
            (Some(_), Some(_)) | (None, None) => return None,
        };
        match values_of(value, scope) {
            Some(values) => Some((key, self.constants(key.0, &values)?)),
            None => Some((key, self.constant(key.0, value)?)),
        }
    }

    /// A key that every branch leaves a choice of has one of all these values.
    fn any_of(&mut self, branches: &[Expr], scope: &Scope<'_>) -> Vec<Choice> {
        let mut branches = branches.iter();
        let Some(first) = branches.next() else {
            return Vec::new();
        };
        let mut found = self.choices(first, scope);
        for branch in branches {
            if found.is_empty() {
                break;
            }
            let other = self.choices(branch, scope);
            found.retain_mut(|(key, values)| {
                let same = other.iter().find(|(other, _)| other == key);
                values.extend(same.iter().flat_map(|(_, more)| more).cloned());
                same.is_some()
            });
        }
        found
    }

    /// `(a, b) IN ((1, 2), (3, 4))`: the key among the columns has one of the values at its place.
    fn rows(&mut self, columns: &[Expr], rows: &[Expr], scope: &Scope<'_>) -> Vec<Choice> {
        let mut found = Vec::new();
        for (place, column) in columns.iter().enumerate() {
            let Some(key) = key_of(column, scope) else {
                continue;
            };
            let values = rows.iter().map(|row| match row {
                Expr::Row(values) if values.len() == columns.len() => {
                    self.constant(key.0, values.get(place)?)
                }
                _ => None,
            });
            let values: Option<Vec<Vec<Given>>> = values.collect();
            found.extend(values.map(|values| (key, values.concat())));
        }
        found
    }

    fn constants(&self, key: KeyOf, members: &[Expr]) -> Option<Vec<Given>> {
        let values = members.iter().map(|member| self.constant(key, member));
        values.collect::<Option<Vec<_>>>().map(|each| each.concat())
    }

    fn constant(&self, key: KeyOf, value: &Expr) -> Option<Vec<Given>> {
        proof::constant(value, self.facts.proof.key(key.node)?.key_type)
    }

    fn elements(&mut self, key: KeyOf, array: &Expr) -> Option<Vec<Given>> {
        let key_type = self.facts.proof.key(key.node)?.key_type;
        proof::elements(array, key_type, &mut self.facts.fixed)
    }

    /// Two keys are equal in all rows that count. With each: whether it is of the condition's own level.
    pub(super) fn equate(
        &mut self,
        left: (KeyOf, bool),
        right: (KeyOf, bool),
        narrowed: &Narrowed,
    ) {
        for ((from, _), (to, own_level)) in [(left, right), (right, left)] {
            if own_level && to.inward && narrowed.takes(to.node) {
                self.facts.proof.follows(from.node, to.node);
            }
        }
    }

    fn hold(&mut self, (key, own_level): (KeyOf, bool), values: Vec<Given>, narrowed: &Narrowed) {
        if own_level && key.inward && narrowed.takes(key.node) {
            self.facts.proof.holds(key.node, values);
        }
    }
}

/// What is compared with what: rows member by member.
fn pairs<'e>(left: &'e Expr, right: &'e Expr) -> Vec<(&'e Expr, &'e Expr)> {
    match (left, right) {
        (Expr::Row(left), Expr::Row(right)) if left.len() == right.len() => {
            left.iter().zip(right).collect()
        }
        _ => vec![(left, right)],
    }
}

fn key_of(expr: &Expr, scope: &Scope<'_>) -> Option<(KeyOf, bool)> {
    let Expr::Column(parts) = expr else {
        return None;
    };
    match scope.meaning(parts) {
        Meaning::Key { key, own_level } => Some((key, own_level)),
        _ => None,
    }
}

/// Whether PostgreSQL may read the clock when it reads this text as a date or time.
pub(in crate::planner) fn names_a_moment(text: &str) -> bool {
    let mut words = text.split(|character: char| !character.is_ascii_alphabetic());
    words.any(|word| {
        MOMENTS
            .iter()
            .any(|moment| word.eq_ignore_ascii_case(moment))
    })
}
