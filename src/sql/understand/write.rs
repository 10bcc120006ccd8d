//! INSERT, UPDATE, DELETE and MERGE.

use sqlparser::ast::{
    Assignment as ParsedAssignment, AssignmentTarget, ConflictTarget, Delete as ParsedDelete,
    FromTable, Insert as ParsedInsert, InsertOverriding, Merge as ParsedMerge,
    MergeAction as ParsedMergeAction, MergeClause as ParsedMergeClause, MergeClauseKind,
    MergeInsertExpr, MergeInsertKind, MergeUpdateExpr, MergeUpdateKind, ObjectName,
    OnConflict as ParsedOnConflict, OnConflictAction, OnInsert, Query, SetExpr,
    Statement as Parsed, TableFactor, TableObject, TableWithJoins, Update as ParsedUpdate,
    UpdateTableFromKind, Values,
};

use super::from::alias_name;
use super::names::{leading, names, relation};
use super::{Converter, Understood, unknown};
use crate::sql::statement::{
    Alias, Assignment, Body, Delete, Insert, Merge, MergeAction, MergeClause, OnConflict,
    Overriding, Source, Table, Update,
};

impl Converter {
    pub(super) fn write(&self, parsed: &Parsed) -> Understood<Body> {
        match parsed {
            Parsed::Insert(insert) => Ok(Body::Insert(Box::new(self.insert(insert)?))),
            Parsed::Update(update) => Ok(Body::Update(Box::new(self.update(update)?))),
            Parsed::Delete(delete) => Ok(Body::Delete(Box::new(self.delete(delete)?))),
            Parsed::Merge(merge) => Ok(Body::Merge(Box::new(self.merge(merge)?))),
            _ => unknown("a command where a query is expected"),
        }
    }

    fn insert(&self, parsed: &ParsedInsert) -> Understood<Insert> {
        let ParsedInsert {
            insert_token: _,
            optimizer_hints: _,
            or: None,
            ignore: false,
            into: true,
            table: TableObject::TableName(name),
            table_alias,
            columns,
            by_name: false,
            overwrite: false,
            source,
            assignments,
            partitioned: None,
            after_columns,
            overriding,
            has_table_keyword: false,
            on,
            returning,
            output: None,
            replace_into: false,
            priority: None,
            insert_alias: None,
            settings: None,
            format_clause: None,
            multi_table_insert_type: None,
            multi_table_into_clauses,
            multi_table_when_clauses,
            multi_table_else_clause: None,
        } = parsed
        else {
            return unknown("an INSERT of another dialect");
        };
        let foreign = !assignments.is_empty()
            || !after_columns.is_empty()
            || !multi_table_into_clauses.is_empty()
            || !multi_table_when_clauses.is_empty();
        if foreign {
            return unknown("an INSERT of another dialect");
        }
        let (schema, name) = relation(name)?;
        let alias = match table_alias {
            Some(alias) => Some(Alias {
                name: alias_name(&alias.alias)?,
                columns: Vec::new(),
            }),
            None => None,
        };
        Ok(Insert {
            table: Table {
                schema,
                name,
                alias,
                sample: None,
            },
            columns: columns.iter().map(single).collect::<Understood<_>>()?,
            source: self.source(source.as_deref())?,
            overriding: overriding.map(|overriding| match overriding {
                InsertOverriding::System => Overriding::System,
                InsertOverriding::User => Overriding::User,
            }),
            on_conflict: on.as_ref().map(|on| self.on_conflict(on)).transpose()?,
            returning: self.items(returning.as_deref().unwrap_or_default())?,
        })
    }

    /// VALUES rows stay rows, so that a key can be found in them; anything around them makes it a query.
    fn source(&self, parsed: Option<&Query>) -> Understood<Source> {
        let Some(query) = parsed else {
            return Ok(Source::DefaultValues);
        };
        let bare = query.with.is_none()
            && query.order_by.is_none()
            && query.limit_clause.is_none()
            && query.fetch.is_none()
            && query.locks.is_empty();
        let converted = self.query(query)?;
        match converted.body {
            super::Body::Values(rows) if bare && matches!(*query.body, SetExpr::Values(_)) => {
                Ok(Source::Rows(rows))
            }
            _ => Ok(Source::Query(Box::new(converted))),
        }
    }

    fn on_conflict(&self, parsed: &OnInsert) -> Understood<OnConflict> {
        let OnInsert::OnConflict(ParsedOnConflict {
            conflict_target,
            action,
        }) = parsed
        else {
            return unknown("ON DUPLICATE KEY");
        };
        let target = match conflict_target {
            Some(ConflictTarget::Columns { columns, predicate }) => {
                for column in columns {
                    leading(column)?;
                }
                self.exprs(predicate)?
            }
            Some(ConflictTarget::OnConstraint(_)) | None => Vec::new(),
        };
        let (assignments, filter) = match action {
            OnConflictAction::DoNothing => (Vec::new(), None),
            OnConflictAction::DoUpdate(update) => (
                self.assignments(&update.assignments)?,
                update
                    .selection
                    .as_ref()
                    .map(|filter| self.expr(filter))
                    .transpose()?,
            ),
        };
        Ok(OnConflict {
            target,
            assignments,
            filter,
        })
    }

    fn assignments(&self, parsed: &[ParsedAssignment]) -> Understood<Vec<Assignment>> {
        parsed
            .iter()
            .map(|assignment| {
                let columns = match &assignment.target {
                    AssignmentTarget::ColumnName(name) => vec![names(name)?],
                    AssignmentTarget::Tuple(columns) => {
                        columns.iter().map(names).collect::<Understood<_>>()?
                    }
                };
                Ok(Assignment {
                    columns,
                    value: self.expr(&assignment.value)?,
                })
            })
            .collect()
    }

    fn update(&self, parsed: &ParsedUpdate) -> Understood<Update> {
        let ParsedUpdate {
            update_token: _,
            optimizer_hints: _,
            table,
            on_cluster: None,
            assignments,
            from,
            selection,
            returning,
            output: None,
            or: None,
            order_by,
            limit: None,
            settings: None,
        } = parsed
        else {
            return unknown("an UPDATE of another dialect");
        };
        let from = match from {
            None => Vec::new(),
            Some(UpdateTableFromKind::AfterSet(from)) => self.from(from)?,
            Some(UpdateTableFromKind::BeforeSet(_)) => return unknown("FROM before SET"),
        };
        if !order_by.is_empty() {
            return unknown("ORDER BY in UPDATE");
        }
        Ok(Update {
            table: self.target(lone(table)?)?,
            assignments: self.assignments(assignments)?,
            from,
            filter: selection
                .as_ref()
                .map(|filter| self.expr(filter))
                .transpose()?,
            returning: self.items(returning.as_deref().unwrap_or_default())?,
        })
    }

    fn delete(&self, parsed: &ParsedDelete) -> Understood<Delete> {
        let ParsedDelete {
            delete_token: _,
            optimizer_hints: _,
            tables,
            from: FromTable::WithFromKeyword(from),
            on_cluster: None,
            using,
            selection,
            returning,
            output: None,
            order_by,
            limit: None,
            settings: None,
        } = parsed
        else {
            return unknown("a DELETE of another dialect");
        };
        let ([target], true) = (from.as_slice(), tables.is_empty() && order_by.is_empty()) else {
            return unknown("a DELETE of another dialect");
        };
        Ok(Delete {
            table: self.target(lone(target)?)?,
            using: self.from(using.as_deref().unwrap_or_default())?,
            filter: selection
                .as_ref()
                .map(|filter| self.expr(filter))
                .transpose()?,
            returning: self.items(returning.as_deref().unwrap_or_default())?,
        })
    }
}

impl Converter {
    fn merge(&self, parsed: &ParsedMerge) -> Understood<Merge> {
        let ParsedMerge {
            merge_token: _,
            optimizer_hints: _,
            into: true,
            table,
            source,
            on,
            clauses,
            output: None,
        } = parsed
        else {
            return unknown("a MERGE of another dialect");
        };
        Ok(Merge {
            table: self.target(table)?,
            source: self.factor(source)?,
            on: self.expr(on)?,
            clauses: clauses
                .iter()
                .map(|clause| self.merge_clause(clause))
                .collect::<Understood<_>>()?,
        })
    }

    fn merge_clause(&self, parsed: &ParsedMergeClause) -> Understood<MergeClause> {
        let ParsedMergeClause {
            when_token: _,
            clause_kind,
            predicate,
            action,
        } = parsed;
        let action = match action {
            ParsedMergeAction::DoNothing { .. } => MergeAction::Nothing,
            ParsedMergeAction::Delete { .. } => MergeAction::Delete,
            ParsedMergeAction::Update(MergeUpdateExpr {
                update_token: _,
                kind: MergeUpdateKind::Set(assignments),
                update_predicate: None,
                delete_predicate: None,
            }) => MergeAction::Update(self.assignments(assignments)?),
            ParsedMergeAction::Insert(MergeInsertExpr {
                insert_token: _,
                columns,
                kind_token: _,
                kind:
                    MergeInsertKind::Values(Values {
                        explicit_row: false,
                        value_keyword: false,
                        rows,
                    }),
                insert_predicate: None,
            }) => {
                let [row] = rows.as_slice() else {
                    return unknown("a MERGE of another dialect");
                };
                MergeAction::Insert {
                    columns: columns.iter().map(single).collect::<Understood<_>>()?,
                    row: self.exprs(&row.content)?,
                }
            }
            _ => return unknown("a MERGE of another dialect"),
        };
        Ok(MergeClause {
            by_source: matches!(clause_kind, MergeClauseKind::NotMatchedBySource),
            filter: predicate
                .as_ref()
                .map(|filter| self.expr(filter))
                .transpose()?,
            action,
        })
    }
}

/// A column without a qualifier or a field.
fn single(name: &ObjectName) -> Understood<String> {
    match names(name)?.as_slice() {
        [one] => Ok(one.clone()),
        _ => unknown("a part of a column in INSERT"),
    }
}

fn lone(parsed: &TableWithJoins) -> Understood<&TableFactor> {
    if parsed.joins.is_empty() {
        Ok(&parsed.relation)
    } else {
        unknown("a join as the target of a write")
    }
}
