//! Expressions. Each conversion also says how tightly its outermost operator binds, and refuses a looser one below a
//! tighter one without parentheses: there PostgreSQL's grammar (`gram.y`, precedences) would have read another tree,
//! and `key = 1 AND … OR …` must never pass for a conjunction.

use sqlparser::ast::{
    AccessExpr, BinaryOperator, CeilFloorKind, DateTimeField, DuplicateTreatment, Expr as Parsed,
    Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList,
    FunctionArguments, Ident, InTarget, OrderByExpr, Query, Subscript, UnaryOperator,
    WindowFrameBound, WindowSpec, WindowType,
};

use super::names::{leading, name_of, names as names_of, relation};
use super::{Converter, Understood, names, unknown};
use crate::sql::statement::{Call, Expr, Literal};

/// How tightly an operator binds, loosest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Or,
    And,
    Not,
    Is,
    Compare,
    Like,
    Operator,
    Postfix,
}

/// Words that are function calls without parentheses.
const KEYWORD_CALLS: &[&str] = &[
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "localtime",
    "localtimestamp",
    "session_user",
    "system_user",
    "user",
];

impl Converter {
    pub(super) fn expr(&self, parsed: &Parsed) -> Understood<Expr> {
        self.levelled(parsed).map(|(expr, _)| expr)
    }

    pub(super) fn exprs<'a>(
        &self,
        parsed: impl IntoIterator<Item = &'a Parsed>,
    ) -> Understood<Vec<Expr>> {
        parsed.into_iter().map(|each| self.expr(each)).collect()
    }

    fn boxed<'a>(
        &self,
        parsed: impl IntoIterator<Item = &'a Option<Box<Parsed>>>,
    ) -> Understood<Vec<Expr>> {
        self.exprs(parsed.into_iter().flatten().map(AsRef::as_ref))
    }

    fn operand(&self, parsed: &Parsed, loosest: Level) -> Understood<Expr> {
        match self.levelled(parsed)? {
            (expr, level) if level >= loosest => Ok(expr),
            _ => unknown("operators whose precedence is in doubt; put parentheses around them"),
        }
    }

    fn operation(&self, operands: &[&Parsed], loosest: Level) -> Understood<Expr> {
        operands
            .iter()
            .map(|operand| self.operand(operand, loosest))
            .collect::<Understood<_>>()
            .map(Expr::Operation)
    }

    /// The expression and the level of its outermost operator.
    fn levelled(&self, parsed: &Parsed) -> Understood<(Expr, Level)> {
        match parsed {
            Parsed::BinaryOp { left, op, right } => self.binary(left, op, right),
            Parsed::UnaryOp { op, expr } => self.unary(*op, expr),
            Parsed::Nested(inner) => Ok((self.expr(inner)?, Level::Postfix)),
            Parsed::IsFalse(inner)
            | Parsed::IsNotFalse(inner)
            | Parsed::IsTrue(inner)
            | Parsed::IsNotTrue(inner)
            | Parsed::IsNotNull(inner)
            | Parsed::IsUnknown(inner)
            | Parsed::IsNotUnknown(inner)
            | Parsed::IsJson {
                expr: inner,
                kind: _,
                unique_keys: _,
                negated: _,
            }
            | Parsed::IsNormalized {
                expr: inner,
                form: _,
                negated: _,
            } => Ok((self.operation(&[inner], Level::Compare)?, Level::Is)),
            Parsed::IsNull(inner) => {
                let inner = Box::new(self.operand(inner, Level::Compare)?);
                Ok((Expr::IsNull(inner), Level::Is))
            }
            Parsed::IsDistinctFrom(left, right) | Parsed::IsNotDistinctFrom(left, right) => {
                Ok((self.operation(&[left, right], Level::Compare)?, Level::Is))
            }
            Parsed::In {
                expr,
                target,
                negated,
                global,
            } => Ok((
                self.membership(expr, target, *negated, *global)?,
                Level::Like,
            )),
            Parsed::Between {
                expr,
                negated: _,
                low,
                high,
            } => Ok((
                self.operation(&[expr, low, high], Level::Operator)?,
                Level::Like,
            )),
            Parsed::Like {
                negated: _,
                any: false,
                expr,
                pattern,
                escape_char,
            }
            | Parsed::ILike {
                negated: _,
                any: false,
                expr,
                pattern,
                escape_char,
            }
            | Parsed::SimilarTo {
                negated: _,
                expr,
                pattern,
                escape_char,
            } => {
                let mut operands = vec![
                    self.operand(expr, Level::Operator)?,
                    self.operand(pattern, Level::Operator)?,
                ];
                operands.extend(self.boxed([escape_char])?);
                Ok((Expr::Operation(operands), Level::Like))
            }
            Parsed::AnyOp {
                left,
                compare_op: BinaryOperator::Eq,
                right,
                is_some: _,
            } => {
                let left = Box::new(self.operand(left, Level::Like)?);
                Ok((self.element_of(left, right)?, Level::Compare))
            }
            Parsed::AnyOp {
                left,
                compare_op,
                right,
                is_some: _,
            }
            | Parsed::AllOp {
                left,
                compare_op,
                right,
            } => {
                let level = operator_level(compare_op)?;
                let operands = vec![self.operand(left, Level::Like)?, self.expr(right)?];
                Ok((Expr::Operation(operands), level))
            }
            Parsed::Exists {
                subquery,
                negated: true,
            } => Ok((self.subquery(subquery)?, Level::Not)),
            other => Ok((self.atom(other)?, Level::Postfix)),
        }
    }

    /// Everything that has its own delimiters, or binds tighter than any operator.
    fn atom(&self, parsed: &Parsed) -> Understood<Expr> {
        match parsed {
            Parsed::Identifier(ident) => identifier(ident),
            Parsed::CompoundIdentifier(parts) => {
                if let Some(first) = parts.first() {
                    leading(first)?;
                }
                Ok(Expr::Column(parts.iter().map(name_of).collect()))
            }
            Parsed::Value(value) => self.value(value),
            Parsed::TypedString(typed) if !typed.uses_odbc_syntax => Ok(Expr::Cast {
                inner: Box::new(self.value(&typed.value)?),
                to: Self::type_of(&typed.data_type),
            }),
            Parsed::Cast {
                kind,
                expr,
                data_type,
                format: None,
            } => {
                use sqlparser::ast::CastKind::{Cast, DoubleColon};
                let inner = match kind {
                    Cast => self.expr(expr)?,
                    DoubleColon => self.operand(expr, Level::Postfix)?,
                    _ => return unknown("a cast of another dialect"),
                };
                Ok(Expr::Cast {
                    inner: Box::new(inner),
                    to: Self::type_of(data_type),
                })
            }
            Parsed::Collate { expr, collation } => {
                relation(collation)?;
                Ok(Expr::Operation(vec![self.operand(expr, Level::Postfix)?]))
            }
            Parsed::AtTimeZone {
                timestamp,
                time_zone,
            } => self.operation(&[timestamp, time_zone], Level::Operator),
            Parsed::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain),
            Parsed::Function(function) => self.function(function),
            Parsed::Subquery(query) => self.subquery(query),
            Parsed::Exists {
                subquery,
                negated: false,
            } => self.subquery(subquery),
            Parsed::Tuple(members) => Ok(Expr::Row(self.exprs(members)?)),
            Parsed::Array(array) => Ok(Expr::Operation(self.exprs(&array.elem)?)),
            Parsed::Case {
                case_token: _,
                end_token: _,
                operand,
                conditions,
                else_result,
            } => {
                let mut parts = self.boxed([operand, else_result])?;
                for when in conditions {
                    parts.push(self.expr(&when.condition)?);
                    parts.push(self.expr(&when.result)?);
                }
                Ok(Expr::Operation(parts))
            }
            // before anything but a string it is the name of a column
            Parsed::Interval(interval) if matches!(*interval.value, Parsed::Value(_)) => {
                Ok(Expr::Operation(vec![self.expr(&interval.value)?]))
            }
            Parsed::GroupingSets(sets) | Parsed::Cube(sets) | Parsed::Rollup(sets) => {
                Ok(Expr::Operation(self.exprs(sets.iter().flatten())?))
            }
            other => self.special_form(other),
        }
    }

    /// SQL's own spellings of some pg_catalog functions.
    fn special_form(&self, parsed: &Parsed) -> Understood<Expr> {
        let operands = match parsed {
            Parsed::Extract {
                field: _,
                syntax: _,
                expr,
            } => {
                // PostgreSQL calls this one `extract` or `date_part`; how stable it is depends on the argument's type
                return Ok(call(
                    Some("pg_catalog"),
                    "date_part",
                    vec![self.expr(expr)?],
                ));
            }
            // ordinary functions of PostgreSQL's, which a user's may stand before
            Parsed::Ceil {
                expr,
                field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime),
            } => return Ok(call(None, "ceil", vec![self.expr(expr)?])),
            Parsed::Floor {
                expr,
                field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime),
            } => return Ok(call(None, "floor", vec![self.expr(expr)?])),
            Parsed::Position { expr, r#in } => self.exprs([expr.as_ref(), r#in.as_ref()])?,
            Parsed::Substring {
                expr,
                substring_from,
                substring_for,
                special,
                shorthand,
            } => {
                let mut operands = vec![self.expr(expr)?];
                operands.extend(self.boxed([substring_from, substring_for])?);
                if *shorthand {
                    return Ok(call(None, "substr", operands));
                }
                // only the one with words inside is surely pg_catalog's
                if *special || operands.len() == 1 {
                    return Ok(call(None, "substring", operands));
                }
                operands
            }
            Parsed::Trim {
                trim_where: _,
                trim_what,
                expr,
                trim_characters,
            } => {
                let mut operands = vec![self.expr(expr)?];
                operands.extend(self.boxed([trim_what])?);
                operands.extend(self.exprs(trim_characters.iter().flatten())?);
                operands
            }
            Parsed::Overlay {
                expr,
                overlay_what,
                overlay_from,
                overlay_for,
            } => {
                let mut operands =
                    self.exprs([expr.as_ref(), overlay_what.as_ref(), overlay_from.as_ref()])?;
                operands.extend(self.boxed([overlay_for])?);
                operands
            }
            _ => return unknown("an expression of another dialect"),
        };
        Ok(Expr::Operation(operands))
    }

    fn binary(
        &self,
        left: &Parsed,
        op: &BinaryOperator,
        right: &Parsed,
    ) -> Understood<(Expr, Level)> {
        let level = operator_level(op)?;
        match level {
            Level::And | Level::Or => self.chain(left, op, right, level),
            Level::Compare if *op == BinaryOperator::Eq => {
                let sides = (
                    self.operand(left, Level::Like)?,
                    self.operand(right, Level::Like)?,
                );
                Ok((Expr::Equal(Box::new(sides.0), Box::new(sides.1)), level))
            }
            Level::Compare => Ok((self.operation(&[left, right], Level::Like)?, level)),
            _ => self.chain(left, op, right, Level::Operator),
        }
    }

    /// Operators in a row lean to the left: a tree as deep as the row is long, walked here without recursion.
    fn chain<'a>(
        &self,
        mut left: &'a Parsed,
        op: &BinaryOperator,
        right: &'a Parsed,
        level: Level,
    ) -> Understood<(Expr, Level)> {
        let mut backwards = vec![right];
        while let Parsed::BinaryOp {
            left: deeper,
            op: other,
            right,
        } = left
        {
            let same = if level == Level::Operator {
                operator_level(other)? == level
            } else {
                other == op
            };
            if !same {
                break;
            }
            backwards.push(right);
            left = deeper;
        }
        backwards.push(left);
        let mut operands = Vec::with_capacity(backwards.len());
        for parsed in backwards.into_iter().rev() {
            match (self.operand(parsed, level)?, level) {
                (Expr::All(members), Level::And) | (Expr::Any(members), Level::Or) => {
                    operands.extend(members);
                }
                (operand, _) => operands.push(operand),
            }
        }
        let expr = match level {
            Level::And => Expr::All(operands),
            Level::Or => Expr::Any(operands),
            _ => Expr::Operation(operands),
        };
        Ok((expr, level))
    }

    /// `left = ANY (right)`. The elements of ARRAY[…] are compared like the members of a list.
    fn element_of(&self, left: Box<Expr>, right: &Parsed) -> Understood<Expr> {
        let mut array = right;
        while let Parsed::Nested(inner) = array {
            array = inner;
        }
        match array {
            // with rows it is a comparison of records, where NULL equals NULL
            Parsed::Array(array) if !matches!(*left, Expr::Row(_)) => {
                Ok(Expr::OneOf(left, self.exprs(&array.elem)?))
            }
            _ if matches!(*left, Expr::Row(_)) => {
                Ok(Expr::Operation(vec![*left, self.expr(array)?]))
            }
            Parsed::Subquery(query) => Ok(Expr::Operation(vec![*left, self.subquery(query)?])),
            other => Ok(Expr::ElementOf(left, Box::new(self.expr(other)?))),
        }
    }

    fn unary(&self, op: UnaryOperator, inner: &Parsed) -> Understood<(Expr, Level)> {
        match op {
            UnaryOperator::Not => Ok((self.operation(&[inner], Level::Not)?, Level::Not)),
            UnaryOperator::Minus | UnaryOperator::Plus => {
                let signed = match self.operand(inner, Level::Operator)? {
                    // only digits as written: `- (-9)` and `- 7::int8` stay operations
                    Expr::Literal(Literal::Integer(value)) if matches!(inner, Parsed::Value(_)) => {
                        let value = if op == UnaryOperator::Minus {
                            value.negated()
                        } else {
                            Some(value)
                        };
                        Expr::Literal(value.map_or(Literal::Other, Literal::Integer))
                    }
                    other => Expr::Operation(vec![other]),
                };
                Ok((signed, Level::Operator))
            }
            _ => Ok((self.operation(&[inner], Level::Operator)?, Level::Operator)),
        }
    }

    fn membership(
        &self,
        expr: &Parsed,
        target: &InTarget,
        negated: bool,
        global: bool,
    ) -> Understood<Expr> {
        let left = self.operand(expr, Level::Operator)?;
        match target {
            _ if global => unknown("GLOBAL IN"),
            InTarget::List(list) if negated => {
                let mut operands = self.exprs(list)?;
                operands.push(left);
                Ok(Expr::Operation(operands))
            }
            InTarget::List(list) => Ok(Expr::OneOf(Box::new(left), self.exprs(list)?)),
            InTarget::Subquery(query) => Ok(Expr::Operation(vec![left, self.subquery(query)?])),
            InTarget::Unnest(_) | InTarget::Table { .. } => unknown("IN of another dialect"),
        }
    }

    fn subquery(&self, query: &Query) -> Understood<Expr> {
        Ok(Expr::Subquery(Box::new(self.query(query)?)))
    }

    fn access(&self, root: &Parsed, chain: &[AccessExpr]) -> Understood<Expr> {
        let mut expr = self.operand(root, Level::Postfix)?;
        for access in chain {
            expr = match access {
                AccessExpr::Dot(Parsed::Identifier(field)) => Expr::Field {
                    inner: Box::new(expr),
                    name: Some(name_of(field)),
                },
                AccessExpr::Dot(Parsed::Wildcard(_)) => Expr::Field {
                    inner: Box::new(expr),
                    name: None,
                },
                AccessExpr::Dot(_) => return unknown("a field that is no name"),
                AccessExpr::Subscript(Subscript::Index { index }) => {
                    Expr::Operation(vec![expr, self.expr(index)?])
                }
                AccessExpr::Subscript(Subscript::Slice {
                    lower_bound,
                    upper_bound,
                    stride: None,
                }) => {
                    let mut operands = vec![expr];
                    operands.extend(self.exprs(lower_bound.iter().chain(upper_bound))?);
                    Expr::Operation(operands)
                }
                AccessExpr::Subscript(Subscript::Slice { .. }) => {
                    return unknown("a slice with a stride");
                }
            };
        }
        Ok(expr)
    }

    pub(super) fn function(&self, function: &Function) -> Understood<Expr> {
        let Function {
            name,
            uses_odbc_syntax,
            parameters,
            args,
            within_group,
            filter,
            null_treatment: _,
            over,
        } = function;
        if *uses_odbc_syntax || !matches!(parameters, FunctionArguments::None) {
            return unknown("a function call of another dialect");
        }
        let (schema, name, quoted) = match args {
            FunctionArguments::None => names::qualified(name)?,
            _ => names::function(name)?,
        };
        let mut call = Call {
            schema,
            name,
            keyword: matches!(args, FunctionArguments::None),
            arguments: Vec::new(),
            aggregates: !within_group.is_empty() || filter.is_some(),
            window: over.is_some(),
        };
        if call.keyword
            && (quoted || call.schema.is_some() || !KEYWORD_CALLS.contains(&call.name.as_str()))
        {
            return unknown("a function call without parentheses");
        }
        match args {
            FunctionArguments::None => {}
            FunctionArguments::Subquery(query) => call.arguments.push(self.subquery(query)?),
            FunctionArguments::List(list) => self.arguments(list, &mut call)?,
        }
        call.arguments.extend(self.sort_keys(within_group)?);
        call.arguments.extend(self.boxed([filter])?);
        if let Some(WindowType::WindowSpec(window)) = over {
            call.arguments.extend(self.window(window)?);
        }
        Ok(Expr::Call(Box::new(call)))
    }

    fn arguments(&self, list: &FunctionArgumentList, call: &mut Call) -> Understood<()> {
        let FunctionArgumentList {
            duplicate_treatment,
            args,
            clauses,
        } = list;
        // ALL may stand before the arguments of any function
        call.aggregates |= matches!(duplicate_treatment, Some(DuplicateTreatment::Distinct));
        for argument in args {
            let argument = match argument {
                FunctionArg::Unnamed(argument)
                | FunctionArg::Named {
                    name: _,
                    arg: argument,
                    operator: _,
                } => argument,
                FunctionArg::ExprNamed { .. } => {
                    return unknown("an argument named by an expression");
                }
            };
            call.arguments.push(self.argument(argument)?);
        }
        for clause in clauses {
            let FunctionArgumentClause::OrderBy(keys) = clause else {
                return unknown("a clause inside a function call");
            };
            call.aggregates = true;
            call.arguments.extend(self.sort_keys(keys)?);
        }
        Ok(())
    }

    pub(super) fn argument(&self, argument: &FunctionArgExpr) -> Understood<Expr> {
        match argument {
            FunctionArgExpr::Expr(expr) => self.expr(expr),
            FunctionArgExpr::QualifiedWildcard(name) => Ok(Expr::Wildcard(names_of(name)?)),
            FunctionArgExpr::Wildcard => Ok(Expr::Wildcard(Vec::new())),
            FunctionArgExpr::WildcardWithOptions(_) => unknown("a wildcard with options"),
        }
    }

    /// The expressions of an ORDER BY list.
    pub(super) fn sort_keys(&self, keys: &[OrderByExpr]) -> Understood<Vec<Expr>> {
        keys.iter()
            .map(
                |OrderByExpr {
                     expr,
                     options: _,
                     with_fill,
                 }| match with_fill {
                    None => self.expr(expr),
                    Some(_) => unknown("WITH FILL"),
                },
            )
            .collect()
    }

    pub(super) fn window(&self, window: &WindowSpec) -> Understood<Vec<Expr>> {
        let WindowSpec {
            window_name: _,
            partition_by,
            order_by,
            window_frame,
        } = window;
        let mut exprs = self.exprs(partition_by)?;
        exprs.extend(self.sort_keys(order_by)?);
        if let Some(frame) = window_frame {
            for bound in [Some(&frame.start_bound), frame.end_bound.as_ref()]
                .into_iter()
                .flatten()
            {
                if let WindowFrameBound::Preceding(Some(expr))
                | WindowFrameBound::Following(Some(expr)) = bound
                {
                    exprs.push(self.expr(expr)?);
                }
            }
        }
        Ok(exprs)
    }
}

fn call(schema: Option<&str>, name: &str, arguments: Vec<Expr>) -> Expr {
    Expr::Call(Box::new(Call {
        schema: schema.map(str::to_owned),
        name: name.to_owned(),
        keyword: false,
        arguments,
        aggregates: false,
        window: false,
    }))
}

/// A lone name: a column, DEFAULT, or a function that is called without parentheses.
fn identifier(ident: &Ident) -> Understood<Expr> {
    let name = name_of(ident);
    if ident.quote_style.is_none() {
        if name == "default" {
            return Ok(Expr::Default);
        }
        if KEYWORD_CALLS.contains(&name.as_str()) {
            return Ok(Expr::Call(Box::new(Call {
                schema: None,
                name,
                keyword: true,
                arguments: Vec::new(),
                aggregates: false,
                window: false,
            })));
        }
    }
    Ok(Expr::Column(vec![leading(ident)?]))
}

/// Where PostgreSQL's grammar puts an operator.
fn operator_level(op: &BinaryOperator) -> Understood<Level> {
    use BinaryOperator as B;
    Ok(match op {
        B::Or => Level::Or,
        B::And => Level::And,
        B::Gt | B::Lt | B::GtEq | B::LtEq | B::Eq | B::NotEq => Level::Compare,
        B::Overlaps
        | B::Xor
        | B::DuckIntegerDivide
        | B::MyIntegerDivide
        | B::Match
        | B::Regexp
        | B::Glob
        | B::Assignment
        | B::Is
        | B::IsNot => return unknown("an operator of another dialect"),
        _ => Level::Operator,
    })
}
