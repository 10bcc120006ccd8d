//! Queries and their levels.

use sqlparser::ast::{
    Cte as ParsedCte, Distinct, Fetch, GroupByExpr, GroupByWithModifier, LimitClause, LockClause,
    NamedWindowExpr, OrderBy, OrderByKind, Query as Parsed, Select as ParsedSelect, SelectFlavor,
    SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Table as ParsedTable, Values,
    WildcardAdditionalOptions,
};

use super::from::alias_of;
use super::names::{leading, name_of, names};
use super::{Converter, Understood, plain, unknown};
use crate::sql::statement::{Body, Cte, Expr, From, Item, Lock, Query, Select, Table};

impl Converter {
    pub(super) fn query(&self, parsed: &Parsed) -> Understood<Query> {
        let Parsed {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = parsed;
        if for_clause.is_some()
            || settings.is_some()
            || format_clause.is_some()
            || !pipe_operators.is_empty()
        {
            return unknown("a clause of another dialect");
        }
        let mut query = plain(self.body(body)?);
        if let Some(with) = with {
            query.recursive = with.recursive;
            query.with = with
                .cte_tables
                .iter()
                .map(|cte| self.cte(cte))
                .collect::<Understood<_>>()?;
        }
        query.order_by = order_by
            .as_ref()
            .map_or(Ok(Vec::new()), |order_by| self.order_by(order_by))?;
        query.limit = self.limit(limit_clause.as_ref(), fetch.as_ref())?;
        query.locks = locks.iter().map(lock).collect::<Understood<_>>()?;
        Ok(query)
    }

    fn cte(&self, parsed: &ParsedCte) -> Understood<Cte> {
        let ParsedCte {
            alias,
            query,
            from: None,
            materialized: _,
            closing_paren_token: _,
        } = parsed
        else {
            return unknown("a common table expression of another dialect");
        };
        let Some(alias) = alias_of(Some(alias))? else {
            return unknown("a common table expression without a name");
        };
        Ok(Cte {
            name: alias.name,
            columns: alias.columns,
            query: self.query(query)?,
        })
    }

    pub(super) fn body(&self, parsed: &SetExpr) -> Understood<Body> {
        match parsed {
            SetExpr::Select(select) => Ok(Body::Select(Box::new(self.select(select)?))),
            SetExpr::Query(query) => Ok(Body::Nested(Box::new(self.query(query)?))),
            SetExpr::SetOperation { .. } => self.set_operation(parsed),
            SetExpr::Values(Values {
                explicit_row: false,
                value_keyword: false,
                rows,
            }) => {
                let rows = rows
                    .iter()
                    .map(|row| self.exprs(&row.content))
                    .collect::<Understood<_>>()?;
                Ok(Body::Values(rows))
            }
            SetExpr::Values(_) => unknown("VALUES of another dialect"),
            SetExpr::Insert(statement)
            | SetExpr::Update(statement)
            | SetExpr::Delete(statement)
            | SetExpr::Merge(statement) => self.write(statement),
            SetExpr::Table(table) => whole_table(table),
        }
    }

    /// The branches in order; a row of them leans to the left and is walked without recursion.
    fn set_operation(&self, parsed: &SetExpr) -> Understood<Body> {
        let mut backwards = Vec::new();
        let mut at = parsed;
        while let SetExpr::SetOperation {
            left,
            op: _,
            set_quantifier: _,
            right,
        } = at
        {
            backwards.push(right.as_ref());
            at = left;
        }
        backwards.push(at);
        let branches = backwards
            .into_iter()
            .rev()
            .map(|branch| self.body(branch).map(plain));
        Ok(Body::SetOperation(branches.collect::<Understood<_>>()?))
    }

    fn select(&self, parsed: &ParsedSelect) -> Understood<Select> {
        let ParsedSelect {
            select_token: _,
            optimizer_hints: _,
            distinct,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = parsed;
        let foreign = select_modifiers.is_some()
            || top.is_some()
            || exclude.is_some()
            || !lateral_views.is_empty()
            || prewhere.is_some()
            || !connect_by.is_empty()
            || !cluster_by.is_empty()
            || !distribute_by.is_empty()
            || !sort_by.is_empty()
            || qualify.is_some()
            || value_table_mode.is_some()
            || *flavor != SelectFlavor::Standard;
        if foreign {
            return unknown("a clause of another dialect");
        }
        let mut windows = Vec::new();
        for definition in named_window {
            match &definition.1 {
                NamedWindowExpr::NamedWindow(_) => {}
                NamedWindowExpr::WindowSpec(spec) => windows.extend(self.window(spec)?),
            }
        }
        Ok(Select {
            distinct: matches!(distinct, Some(Distinct::Distinct | Distinct::On(_))),
            distinct_on: match distinct {
                Some(Distinct::On(exprs)) => self.exprs(exprs)?,
                Some(Distinct::All | Distinct::Distinct) | None => Vec::new(),
            },
            items: self.items(projection)?,
            into: into.is_some(),
            from: self.from(from)?,
            filter: selection
                .as_ref()
                .map(|filter| self.expr(filter))
                .transpose()?,
            group_by: self.group_by(group_by)?,
            having: having
                .as_ref()
                .map(|having| self.expr(having))
                .transpose()?,
            windows: (!named_window.is_empty()).then_some(windows),
        })
    }

    pub(super) fn items(&self, parsed: &[SelectItem]) -> Understood<Vec<Item>> {
        parsed.iter().map(|item| self.item(item)).collect()
    }

    fn item(&self, parsed: &SelectItem) -> Understood<Item> {
        let (expr, alias) = match parsed {
            SelectItem::UnnamedExpr(expr) => (self.expr(expr)?, None),
            SelectItem::ExprWithAlias { expr, alias } => (self.expr(expr)?, Some(name_of(alias))),
            SelectItem::ExprWithAliases { .. } => return unknown("several aliases for one column"),
            SelectItem::QualifiedWildcard(
                SelectItemQualifiedWildcardKind::ObjectName(name),
                options,
            ) => {
                plain_wildcard(options)?;
                (Expr::Wildcard(names(name)?), None)
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(expr), options) => {
                plain_wildcard(options)?;
                let inner = Box::new(self.expr(expr)?);
                (Expr::Field { inner, name: None }, None)
            }
            SelectItem::Wildcard(options) => {
                plain_wildcard(options)?;
                (Expr::Wildcard(Vec::new()), None)
            }
        };
        Ok(Item { expr, alias })
    }

    fn group_by(&self, parsed: &GroupByExpr) -> Understood<Option<Vec<Expr>>> {
        let GroupByExpr::Expressions(exprs, modifiers) = parsed else {
            return unknown("GROUP BY ALL");
        };
        let mut grouped = self.exprs(exprs)?;
        for modifier in modifiers {
            match modifier {
                GroupByWithModifier::GroupingSets(sets) => grouped.push(self.expr(sets)?),
                _ => return unknown("a modifier of GROUP BY of another dialect"),
            }
        }
        Ok((!grouped.is_empty() || !modifiers.is_empty()).then_some(grouped))
    }

    fn order_by(&self, parsed: &OrderBy) -> Understood<Vec<Expr>> {
        match parsed {
            OrderBy {
                kind: OrderByKind::Expressions(keys),
                interpolate: None,
            } => self.sort_keys(keys),
            _ => unknown("ORDER BY of another dialect"),
        }
    }

    fn limit(
        &self,
        clause: Option<&LimitClause>,
        fetch: Option<&Fetch>,
    ) -> Understood<Option<Vec<Expr>>> {
        let mut exprs = Vec::new();
        match clause {
            None => {}
            Some(LimitClause::LimitOffset {
                limit,
                offset,
                limit_by,
            }) if limit_by.is_empty() => {
                exprs.extend(
                    self.exprs(
                        limit
                            .iter()
                            .chain(offset.iter().map(|offset| &offset.value)),
                    )?,
                );
            }
            Some(LimitClause::LimitOffset { .. } | LimitClause::OffsetCommaLimit { .. }) => {
                return unknown("LIMIT of another dialect");
            }
        }
        if let Some(Fetch {
            with_ties: _,
            percent,
            quantity,
        }) = fetch
        {
            if *percent {
                return unknown("FETCH … PERCENT");
            }
            exprs.extend(self.exprs(quantity)?);
        }
        Ok((clause.is_some() || fetch.is_some()).then_some(exprs))
    }
}

fn plain_wildcard(options: &WildcardAdditionalOptions) -> Understood<()> {
    let WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike,
        opt_exclude,
        opt_except,
        opt_replace,
        opt_rename,
        opt_alias,
    } = options;
    let foreign = opt_ilike.is_some()
        || opt_exclude.is_some()
        || opt_except.is_some()
        || opt_replace.is_some()
        || opt_rename.is_some()
        || opt_alias.is_some();
    if foreign {
        unknown("a wildcard with options")
    } else {
        Ok(())
    }
}

fn lock(parsed: &LockClause) -> Understood<Lock> {
    let LockClause {
        lock_type: _,
        of,
        nonblock: _,
    } = parsed;
    Ok(Lock {
        of: of.as_ref().map_or(Ok(Vec::new()), names)?,
    })
}

/// `TABLE t` is `SELECT * FROM t`.
fn whole_table(parsed: &ParsedTable) -> Understood<Body> {
    let Some(name) = &parsed.table_name else {
        return unknown("TABLE without a name");
    };
    let table = Table {
        schema: parsed.schema_name.as_ref().map(leading).transpose()?,
        name: leading(name)?,
        alias: None,
        sample: None,
    };
    Ok(Body::Select(Box::new(Select {
        distinct: false,
        distinct_on: Vec::new(),
        items: vec![Item {
            expr: Expr::Wildcard(Vec::new()),
            alias: None,
        }],
        into: false,
        from: vec![From::Table(table)],
        filter: None,
        group_by: None,
        having: None,
        windows: None,
    })))
}
