//! FROM: tables, subqueries, functions and joins.

use sqlparser::ast::{
    FunctionArg, Ident, Join as ParsedJoin, JoinConstraint, JoinOperator, TableAlias,
    TableAliasColumnDef, TableFactor, TableSample, TableSampleKind, TableSampleModifier,
    TableWithJoins,
};

use super::names::{function, leading, name_of, qualified, relation};
use super::{Converter, Understood, unknown};
use crate::sql::statement::{Alias, Call, Expr, From, Join, JoinKind, On, Table};

impl Converter {
    pub(super) fn from(&self, parsed: &[TableWithJoins]) -> Understood<Vec<From>> {
        parsed.iter().map(|each| self.joined(each)).collect()
    }

    fn joined(&self, parsed: &TableWithJoins) -> Understood<From> {
        let first = self.factor(&parsed.relation)?;
        if parsed.joins.is_empty() {
            return Ok(first);
        }
        let joins = parsed
            .joins
            .iter()
            .map(|join| self.join(join))
            .collect::<Understood<_>>()?;
        Ok(From::Joined {
            first: Box::new(first),
            joins,
        })
    }

    fn join(&self, parsed: &ParsedJoin) -> Understood<Join> {
        let ParsedJoin {
            relation,
            global: false,
            join_operator,
        } = parsed
        else {
            return unknown("GLOBAL JOIN");
        };
        let (kind, constraint) = match join_operator {
            JoinOperator::Join(on) | JoinOperator::Inner(on) | JoinOperator::CrossJoin(on) => {
                (JoinKind::Inner, on)
            }
            JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => (JoinKind::Left, on),
            JoinOperator::Right(on) | JoinOperator::RightOuter(on) => (JoinKind::Right, on),
            JoinOperator::FullOuter(on) => (JoinKind::Full, on),
            _ => return unknown("a join of another dialect"),
        };
        let on = match constraint {
            JoinConstraint::On(condition) => On::Condition(self.expr(condition)?),
            JoinConstraint::Using(columns) => {
                let columns = columns
                    .iter()
                    .map(|column| qualified(column).map(|(_, name, _)| name));
                On::Using(columns.collect::<Understood<_>>()?)
            }
            JoinConstraint::UsingAlias(..) => return unknown("USING with an alias"),
            JoinConstraint::Natural => On::Natural,
            JoinConstraint::None => On::Nothing,
        };
        Ok(Join {
            kind,
            right: self.factor(relation)?,
            on,
        })
    }

    pub(super) fn factor(&self, parsed: &TableFactor) -> Understood<From> {
        match parsed {
            TableFactor::Table { .. } => self.table_or_function(parsed),
            TableFactor::Derived {
                lateral,
                subquery,
                alias,
                sample: None,
            } => Ok(From::Derived {
                query: Box::new(self.query(subquery)?),
                alias: alias_of(alias.as_ref())?,
                lateral: *lateral,
            }),
            TableFactor::Function {
                lateral: _,
                name,
                args,
                with_ordinality: _,
                alias,
            } => {
                let (schema, name, _) = function(name)?;
                self.function_table(schema, name, args, alias.as_ref())
            }
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset: false,
                with_offset_alias: None,
                with_ordinality: _,
            } => {
                let call = call(None, "unnest".to_owned(), self.exprs(array_exprs)?);
                Ok(From::Function {
                    calls: vec![call],
                    alias: alias_of(alias.as_ref())?,
                })
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias: None,
            } => self.joined(table_with_joins),
            _ => unknown("a table expression of another dialect, or an alias on a join"),
        }
    }

    fn table_or_function(&self, parsed: &TableFactor) -> Understood<From> {
        let TableFactor::Table {
            name,
            alias,
            args,
            with_hints,
            version: None,
            with_ordinality: _,
            partitions,
            json_path: None,
            sample,
            index_directives,
            inheritance: _,
        } = parsed
        else {
            return unknown("a table with a version or a path");
        };
        if !(with_hints.is_empty() && partitions.is_empty() && index_directives.is_empty()) {
            return unknown("a table with hints");
        }
        if let Some(args) = args {
            let (schema, name, _) = function(name)?;
            if args.settings.is_some() || sample.is_some() {
                return unknown("a function with settings");
            }
            return self.function_table(schema, name, &args.args, alias.as_ref());
        }
        let (schema, name) = relation(name)?;
        let sample = sample
            .as_ref()
            .map(|sample| self.sample(sample))
            .transpose()?;
        Ok(From::Table(Table {
            schema,
            name,
            alias: alias_of(alias.as_ref())?,
            sample,
        }))
    }

    fn function_table(
        &self,
        schema: Option<String>,
        name: String,
        args: &[FunctionArg],
        alias: Option<&TableAlias>,
    ) -> Understood<From> {
        let mut arguments = Vec::with_capacity(args.len());
        for arg in args {
            match arg {
                FunctionArg::Unnamed(argument) | FunctionArg::Named { arg: argument, .. } => {
                    arguments.push(self.argument(argument)?);
                }
                FunctionArg::ExprNamed { .. } => {
                    return unknown("an argument named by an expression");
                }
            }
        }
        Ok(From::Function {
            calls: vec![call(schema, name, arguments)],
            alias: alias_of(alias)?,
        })
    }

    fn sample(&self, parsed: &TableSampleKind) -> Understood<Vec<Expr>> {
        let (TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample)) =
            parsed;
        let TableSample {
            modifier,
            name: _,
            quantity,
            seed: _,
            bucket: None,
            offset: None,
        } = sample.as_ref()
        else {
            return unknown("a sample of another dialect");
        };
        if *modifier != TableSampleModifier::TableSample {
            return unknown("SAMPLE");
        }
        self.exprs(quantity.iter().map(|quantity| &quantity.value))
    }

    /// The one table that an UPDATE, DELETE or MERGE writes to.
    pub(super) fn target(&self, parsed: &TableFactor) -> Understood<Table> {
        match self.factor(parsed)? {
            From::Table(table) if table.sample.is_none() => Ok(table),
            _ => unknown("a target that is no table"),
        }
    }
}

fn call(schema: Option<String>, name: String, arguments: Vec<Expr>) -> Expr {
    Expr::Call(Box::new(Call {
        schema,
        name,
        keyword: false,
        arguments,
        aggregates: false,
        window: false,
    }))
}

pub(super) fn alias_of(parsed: Option<&TableAlias>) -> Understood<Option<Alias>> {
    let Some(TableAlias {
        explicit: _,
        name,
        columns,
        at: None,
    }) = parsed
    else {
        return if parsed.is_some() {
            unknown("AT in an alias")
        } else {
            Ok(None)
        };
    };
    let columns = columns
        .iter()
        .map(|TableAliasColumnDef { name, data_type: _ }| name_of(name))
        .collect();
    Ok(Some(Alias {
        name: alias_name(name)?,
        columns,
    }))
}

/// A word that PostgreSQL reserves is no alias there: the text means something else.
pub(super) fn alias_name(ident: &Ident) -> Understood<String> {
    leading(ident)
}
