//! Tables: what each occurrence is, and whether anybody here can vouch for it.

use std::sync::Arc;

use super::{COLUMNS_MAX, ENTRIES_MAX, Survey, Surveyed};
use crate::catalog::{Kind, Relation, Resolved, Standing};
use crate::names::ShardId;
use crate::planner::functions::shows_server_state;
use crate::planner::proof::{NODES_MAX, Node};
use crate::planner::refusal::{Number, Refusal};
use crate::planner::scope::{Names, Outputs};
use crate::sql::statement::Table;

impl Survey<'_> {
    /// A table in FROM, or a common table expression.
    pub(super) fn table(&mut self, table: &Table) -> Surveyed<Names> {
        let (outputs, schema) = match self.cte(table) {
            Some(outputs) => (outputs, None),
            None => self.relation_outputs(table)?,
        };
        self.count(&outputs)?;
        Ok(Names::of(
            Some(&table.name),
            table.alias.as_ref(),
            outputs,
            schema,
        ))
    }

    fn cte(&self, table: &Table) -> Option<Outputs> {
        let found = |name: &str| self.ctes.iter().rev().find(|cte| cte.name == name);
        match table.schema {
            None => found(&table.name).map(|cte| cte.outputs.clone()),
            Some(_) => None,
        }
    }

    fn relation_outputs(&mut self, table: &Table) -> Surveyed<(Outputs, Option<Arc<str>>)> {
        let found = self.meaning(table);
        if let Resolved::Relation(relation) = &found
            && relation.kind == Kind::View
        {
            self.check_unbroken(relation)?;
            let outputs = self.view(relation)?;
            return Ok((outputs, Some(Arc::clone(&relation.schema))));
        }
        let Some(relation) = self.relation_of(found, table)? else {
            return Ok((Outputs::open(), None));
        };
        let node = self.occurrence(&relation)?;
        let mut outputs = Outputs::of_table(&relation, node);
        outputs.reference = matches!(relation.standing, Standing::Reference);
        Ok((outputs, Some(Arc::clone(&relation.schema))))
    }

    /// The relation that a name means; `None` for a system catalogue and for a name that means nothing.
    pub(super) fn resolve(&mut self, table: &Table) -> Surveyed<Option<Arc<Relation>>> {
        self.relation_of(self.meaning(table), table)
    }

    /// In a view, what has no schema is of `pg_catalog`, whatever the search path.
    fn meaning(&self, table: &Table) -> Resolved {
        let schema = table.schema.as_deref();
        let schema = schema.or((self.views > 0).then_some("pg_catalog"));
        self.knowledge.catalog.resolve(schema, &table.name)
    }

    /// Shards differ about a relation: what is planned for one may be wrong on another.
    fn check_unbroken(&self, relation: &Relation) -> Surveyed<()> {
        match self.knowledge.catalog.broken(relation) {
            None => Ok(()),
            Some(why) => {
                let about = format!("{}: {why}", relation.full_name());
                Err(Refusal::about(Number::RelationDiffers, about))
            }
        }
    }

    fn relation_of(&mut self, found: Resolved, table: &Table) -> Surveyed<Option<Arc<Relation>>> {
        match found {
            Resolved::Relation(relation) => {
                self.check_unbroken(&relation)?;
                check_kind(&relation)?;
                Ok(Some(relation))
            }
            Resolved::System if shows_server_state(&table.name) => {
                Err(Refusal::about(Number::ServerState, &table.name))
            }
            Resolved::System => {
                self.facts.system.get_or_insert_with(|| table.name.clone());
                Ok(None)
            }
            Resolved::Nothing => {
                self.facts.nothing = true;
                Ok(None)
            }
            Resolved::Missing(name) => Err(Refusal::about(Number::TableMissing, name.to_string())),
            Resolved::Ambiguous(schemas) => Err(Refusal::about(
                Number::NameAmbiguous,
                format!("{}, in the schemas {}", table.name, schemas.join(", ")),
            )),
        }
    }

    /// Notes one occurrence of a table; it is a node where it is sharded.
    pub(super) fn occurrence(&mut self, relation: &Arc<Relation>) -> Surveyed<Option<Node>> {
        let differ = self.knowledge.catalog.settings_differ();
        if let (Standing::Sharded(_) | Standing::Single(_), Some(why)) =
            (&relation.standing, differ)
        {
            return Err(Refusal::about(Number::SettingsDiffer, why));
        }
        match &relation.standing {
            Standing::Sharded(_) => self.node(relation).map(Some),
            Standing::Reference => {
                self.facts.reference = true;
                Ok(None)
            }
            Standing::Single(shard) => {
                self.single(*shard, relation)?;
                Ok(None)
            }
            Standing::Unnamed => Err(Refusal::about(Number::TableUnnamed, relation.full_name())),
        }
    }

    pub(super) fn node(&mut self, relation: &Arc<Relation>) -> Surveyed<Node> {
        if self.facts.proof.nodes.len() >= NODES_MAX {
            let limit = format!("more than {NODES_MAX} occurrences of sharded tables");
            return Err(Refusal::about(Number::TooManyTables, limit));
        }
        self.facts.nullable.push(false);
        Ok(self.facts.proof.add_node(Arc::clone(relation)))
    }

    fn single(&mut self, shard: ShardId, relation: &Relation) -> Surveyed<()> {
        match &self.facts.single {
            Some((other, name)) if *other != shard => Err(Refusal::about(
                Number::SinglesApart,
                format!("{name} and {}", relation.full_name()),
            )),
            Some(_) => Ok(()),
            None => {
                self.facts.single = Some((shard, relation.full_name()));
                Ok(())
            }
        }
    }

    /// Keeps the cost of a walk bounded.
    pub(super) fn count(&mut self, outputs: &Outputs) -> Surveyed<()> {
        self.entries += 1;
        self.columns += outputs.columns.len();
        if self.entries > ENTRIES_MAX {
            let limit = format!("more than {ENTRIES_MAX} tables in FROM");
            return Err(Refusal::about(Number::TooManyTables, limit));
        }
        if self.columns > COLUMNS_MAX {
            let limit = format!("its tables have more than {COLUMNS_MAX} columns");
            return Err(Refusal::about(Number::TooManyTables, limit));
        }
        Ok(())
    }
}

/// Refuses relations whose rows are not those of one ordinary table.
fn check_kind(relation: &Relation) -> Surveyed<()> {
    let number = match relation.kind {
        Kind::View => Number::View,
        Kind::Partitioned if relation.inherits => Number::Partitioned,
        Kind::Foreign => Number::ForeignTable,
        Kind::MaterializedView | Kind::Sequence | Kind::Other => Number::NoTable,
        Kind::Table if relation.inherits => Number::Inheritance,
        Kind::Table | Kind::Partitioned if relation.row_security => Number::RowSecurity,
        Kind::Table | Kind::Partitioned => return Ok(()),
    };
    Err(Refusal::about(number, relation.full_name()))
}
