//! FROM: what each item offers, and which join conditions narrow what.

use super::{Narrowed, Survey, Surveyed};
use crate::planner::proof::Node;
use crate::planner::refusal::Number;
use crate::planner::scope::{Names, Outputs, Scope};
use crate::sql::statement::{Alias, Expr, From, Join, JoinKind, On};

/// What an item of FROM sees.
#[derive(Clone, Copy)]
struct Sight<'s> {
    /// What stands before it at its own level: for LATERAL and for functions.
    before: &'s Scope<'s>,
    outer: Option<&'s Scope<'s>>,
}

impl Survey<'_> {
    /// A comma list, beside what stands before it at the same level.
    pub(super) fn relations(
        &mut self,
        list: &[From],
        mut names: Names,
        outer: Option<&Scope<'_>>,
    ) -> Surveyed<Names> {
        for item in list {
            let found = {
                let before = Scope {
                    names: &names,
                    outer,
                };
                self.relation(
                    item,
                    Sight {
                        before: &before,
                        outer,
                    },
                )?
            };
            names = names.beside(found);
        }
        Ok(names)
    }

    fn relation(&mut self, item: &From, sight: Sight<'_>) -> Surveyed<Names> {
        match item {
            From::Table(table) => {
                if let Some(sample) = &table.sample {
                    self.facts.obstacle(Number::SampleOverShards, &table.name);
                    self.exprs(sample, Some(sight.before))?;
                }
                self.table(table)
            }
            From::Derived {
                query,
                alias,
                lateral,
            } => {
                let outer = if *lateral {
                    Some(sight.before)
                } else {
                    sight.outer
                };
                self.facts
                    .obstacle(Number::SubqueryOverShards, alias_name(alias.as_ref()));
                let outputs = self.query(query, outer)?;
                self.count(&outputs)?;
                Ok(Names::of(None, alias.as_ref(), outputs, None))
            }
            From::Function { calls, alias } => self.function(calls, alias.as_ref(), sight.before),
            From::Joined { first, joins } => self.joined(first, joins, sight),
        }
    }

    fn function(
        &mut self,
        calls: &[Expr],
        alias: Option<&Alias>,
        before: &Scope<'_>,
    ) -> Surveyed<Names> {
        let name = calls.iter().find_map(|call| match call {
            Expr::Call(call) => Some(call.name.as_str()),
            _ => None,
        });
        self.facts
            .obstacle(Number::TableFunction, name.unwrap_or_default());
        self.exprs(calls, Some(before))?;
        let outputs = Outputs::open();
        self.count(&outputs)?;
        Ok(Names::of(name, alias, outputs, None))
    }

    fn joined(&mut self, first: &From, joins: &[Join], sight: Sight<'_>) -> Surveyed<Names> {
        let start = self.facts.proof.nodes.len();
        let mut names = self.relation(first, sight)?;
        for join in joins {
            let middle = self.facts.proof.nodes.len();
            let right = {
                let before = Scope {
                    names: &names,
                    outer: Some(sight.before),
                };
                let outer = sight.outer;
                self.relation(
                    &join.right,
                    Sight {
                        before: &before,
                        outer,
                    },
                )?
            };
            let narrowed = self.narrowed_by(join.kind, start, middle);
            names = self.join(join, names, right, &narrowed, sight.outer)?;
        }
        Ok(names)
    }

    /// What the condition of a join may narrow; notes what an outer join may fill with NULLs.
    fn narrowed_by(&mut self, kind: JoinKind, start: Node, middle: Node) -> Narrowed {
        let end = self.facts.proof.nodes.len();
        let (nullable, narrowed) = match kind {
            JoinKind::Inner => (0..0, Narrowed::All),
            JoinKind::Left => (middle..end, Narrowed::Only(middle..end)),
            JoinKind::Right => (start..middle, Narrowed::Only(start..middle)),
            JoinKind::Full => (start..end, Narrowed::Nothing),
        };
        self.facts.outer_join |= kind != JoinKind::Inner;
        for nullable in self.facts.nullable.get_mut(nullable).unwrap_or_default() {
            *nullable = true;
        }
        narrowed
    }

    fn join(
        &mut self,
        join: &Join,
        left: Names,
        right: Names,
        narrowed: &Narrowed,
        outer: Option<&Scope<'_>>,
    ) -> Surveyed<Names> {
        let using = match &join.on {
            On::Nothing => return Ok(left.beside(right)),
            On::Condition(condition) => {
                let names = left.beside(right);
                let scope = Scope {
                    names: &names,
                    outer,
                };
                self.conditions(condition, &scope, narrowed);
                self.expr(condition, Some(&scope))?;
                return Ok(names);
            }
            On::Using(columns) => columns.clone(),
            On::Natural => match left.common_columns(&right) {
                Some(columns) => columns,
                None => return Ok(left.beside(right).made_unclear()),
            },
        };
        let (names, pairs) = left.merged(right, &using, join.kind);
        for (left, right) in pairs {
            if let (Some(left), Some(right)) = (left, right) {
                self.equate((left, true), (right, true), narrowed);
            }
        }
        Ok(names)
    }
}

fn alias_name(alias: Option<&Alias>) -> String {
    alias.map_or_else(
        || "a subquery in FROM".to_owned(),
        |alias| alias.name.clone(),
    )
}
