//! Expressions: what their names, calls and casts mean for a plan, and what their conjuncts prove.

use super::{Narrowed, Survey, Surveyed};
use crate::planner::functions::{self, Class};
use crate::planner::proof;
use crate::planner::refusal::{Number, Refusal};
use crate::planner::scope::{KeyOf, Meaning, Scope};
use crate::sql::statement::{Call, Expr, Item, Literal, Type};

/// Words in which a date is read off the clock.
const MOMENTS: &[&str] = &["now", "today", "tomorrow", "yesterday"];

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
            Expr::OneOf(left, members) => {
                self.operator();
                self.expr(left, scope)?;
                self.exprs(members, scope)
            }
            Expr::All(members) => self.exprs(members, scope),
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
            Meaning::Key { .. } | Meaning::Column => {}
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
            Expr::Equal(left, right) => self.equality(left, right, scope, narrowed),
            Expr::OneOf(left, members) => {
                if let [only] = members.as_slice() {
                    self.equality(left, only, scope, narrowed);
                }
            }
            _ => {}
        }
    }

    fn equality(&mut self, left: &Expr, right: &Expr, scope: &Scope<'_>, narrowed: &Narrowed) {
        match (key_of(left, scope), key_of(right, scope)) {
            (Some(left), Some(right)) => self.equate(left, right, narrowed),
            (Some(key), None) => self.hold(key, right, narrowed),
            (None, Some(key)) => self.hold(key, left, narrowed),
            (None, None) => {}
        }
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

    fn hold(&mut self, (key, own_level): (KeyOf, bool), value: &Expr, narrowed: &Narrowed) {
        if !own_level || !key.inward || !narrowed.takes(key.node) {
            return;
        }
        let key_type = self.facts.proof.key(key.node).map(|key| key.key_type);
        if let Some(constant) = key_type.and_then(|key_type| proof::constant(value, key_type)) {
            self.facts.proof.holds(key.node, constant);
        }
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
