//! What the schema of a database says, as far as a plan depends on it: relations and their columns, the rule of each
//! table, functions by name. Pure: this room owns the texts of its queries ([`QUERIES`]) and reads their rows
//! ([`Catalog::from_rows`]); somebody else runs them, on the authoritative shard.
//!
//! What surprises: an unqualified name is resolved only where every client would resolve it alike. If a schema of the
//! same name as a role, or a search path set for a role, could make it mean another relation, it is ambiguous.

mod build;
mod constraints;
mod drift;
mod error;
mod family;
mod path;
mod queries;
mod relation;

#[cfg(test)]
mod tests;

pub use drift::{DRIFT_KINDS, Difference, DriftKind, FACTS, FINGERPRINT, Facts, differences};
pub use error::{CatalogError, TableProblem};
pub use queries::QUERIES;
pub use relation::{
    Column, ColumnDefault, Constraint, Key, Kind, Relation, Rule, Rules, Standing, View,
};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::names::TableName;

/// The schemas that PostgreSQL itself fills.
const SYSTEM_SCHEMAS: [&str; 2] = ["pg_catalog", "information_schema"];

/// One schema at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    /// User relations: name → schema → relation.
    relations: HashMap<Arc<str>, BTreeMap<Arc<str>, Arc<Relation>>>,
    /// Names in `pg_catalog` and `information_schema`.
    system: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    functions: HashMap<Arc<str>, Vec<Function>>,
    /// As `search_path` lists it; `$user` stands for itself.
    search_path: Vec<String>,
    /// Schemas that `$user` may mean.
    role_schemas: BTreeSet<String>,
    /// A role has a search path of its own.
    role_paths: bool,
    unusual_operators: bool,
    rules: Rules,
    /// Counts the catalogues of a database that followed each other, from 1.
    version: u64,
    /// Relations on which no statement is planned, and why: shards differ about them, or the schema about their rule.
    broken: BTreeMap<(Arc<str>, Arc<str>), String>,
    /// The search path is not the same on every shard.
    paths_differ: bool,
    settings_differ: Option<String>,
}

/// All functions of one name in one schema, taken together at their worst.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    pub schema: String,
    pub volatility: Volatility,
    pub aggregate: bool,
    pub window: bool,
    pub returns_set: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volatility {
    Immutable,
    Stable,
    Volatile,
}

/// What a name in FROM turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    Relation(Arc<Relation>),
    /// A relation of `pg_catalog` or `information_schema`.
    System,
    /// No such relation: PostgreSQL would say so too.
    Nothing,
    /// The configuration names it, but the schema has none.
    Missing(TableName),
    /// It depends on who asks: the schemas that have one.
    Ambiguous(Vec<String>),
}

impl Catalog {
    /// Reads the answers to [`QUERIES`], in their order, each a list of rows of text values.
    ///
    /// Errors: a column that is not there, a value that is no such value, and every rule that the schema contradicts.
    pub fn from_rows(
        rows: &[Vec<Vec<Option<String>>>],
        rules: Rules,
    ) -> Result<Self, CatalogError> {
        match build::build(rows, rules)? {
            (catalog, problems) if problems.is_empty() => Ok(catalog),
            (_, problems) => Err(CatalogError::Tables(problems)),
        }
    }

    /// The same for a database that is served already: a table whose rule cannot be kept any more is
    /// [broken](Catalog::broken), and the others go on.
    ///
    /// # Errors
    /// Rows that are not those of the queries.
    pub fn from_changed_rows(
        rows: &[Vec<Vec<Option<String>>>],
        rules: Rules,
    ) -> Result<Self, CatalogError> {
        let (mut catalog, problems) = build::build(rows, rules)?;
        for TableProblem { table, problem } in problems {
            if let Some((schema, name)) = table.split_once('.') {
                catalog.break_relation(schema, name, problem);
            }
        }
        Ok(catalog)
    }

    /// Which one it is of those that followed each other, from 1.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// As the one that comes after `before`; `None` where it says the same.
    #[must_use]
    pub fn following(mut self, before: &Catalog) -> Option<Catalog> {
        self.version = before.version;
        if self == *before {
            return None;
        }
        self.version += 1;
        Some(self)
    }

    /// No statement is planned on this relation from now on. The first reason is kept.
    pub fn break_relation(&mut self, schema: &str, name: &str, why: String) {
        let place = (schema.into(), name.into());
        self.broken.entry(place).or_insert(why);
    }

    /// Why no statement may be planned on this relation, if so.
    pub fn broken(&self, relation: &Relation) -> Option<&str> {
        if self.broken.is_empty() {
            return None;
        }
        let place = (Arc::clone(&relation.schema), Arc::clone(&relation.name));
        self.broken.get(&place).map(String::as_str)
    }

    /// Which setting makes shards write or read values in different ways, if one does.
    pub fn settings_differ(&self) -> Option<&str> {
        self.settings_differ.as_deref()
    }

    /// What differs between the authoritative shard and this one.
    pub fn note_difference(&mut self, shard: &str, difference: &Difference) {
        if let Some((schema, name)) = &difference.breaks {
            let why = format!(
                "on shard {shard}, {}: {}",
                difference.object, difference.what
            );
            self.break_relation(schema, name, why);
        }
        if let Some((schema, name)) = &difference.function {
            let overloads = self.functions.get_mut(name.as_str()).into_iter().flatten();
            for function in overloads.filter(|function| function.schema == *schema) {
                // two bodies may give two answers for the same arguments
                function.volatility = Volatility::Volatile;
            }
        }
        match difference.setting.as_deref() {
            None => {}
            // It only changes which table a name means.
            Some("search_path") => self.paths_differ = true,
            Some(_) => {
                let why = format!(
                    "on shard {shard}, {}: {}",
                    difference.object, difference.what
                );
                self.settings_differ.get_or_insert(why);
            }
        }
    }

    /// What a relation's name means.
    pub fn resolve(&self, schema: Option<&str>, name: &str) -> Resolved {
        match schema {
            Some(schema) if SYSTEM_SCHEMAS.contains(&schema) => self.resolve_system(schema, name),
            Some(schema) => match self.relations.get(name).and_then(|found| found.get(schema)) {
                Some(relation) => Resolved::Relation(Arc::clone(relation)),
                None => self.absent(&[schema], name),
            },
            None => self.resolve_by_path(name),
        }
    }

    fn resolve_system(&self, schema: &str, name: &str) -> Resolved {
        match self.system.get(name) {
            Some(schemas) if schemas.contains(schema) => Resolved::System,
            _ => Resolved::Nothing,
        }
    }

    fn resolve_by_path(&self, name: &str) -> Resolved {
        let none = BTreeMap::new();
        let found = self.relations.get(name).unwrap_or(&none);
        let in_catalog = self
            .system
            .get(name)
            .is_some_and(|schemas| schemas.contains("pg_catalog"));
        let may_differ = found.keys().any(|schema| self.could_be_meant(schema));
        if found.len() + usize::from(in_catalog) > 1 && may_differ {
            return Resolved::Ambiguous(found.keys().map(ToString::to_string).collect());
        }
        for schema in self.path() {
            if schema == "pg_catalog" && in_catalog {
                return Resolved::System;
            }
            if let Some(relation) = found.get(schema) {
                return Resolved::Relation(Arc::clone(relation));
            }
        }
        match found.iter().next() {
            // another role's path may find it: PostgreSQL will know, and the plan holds either way
            Some((_, relation)) if may_differ => Resolved::Relation(Arc::clone(relation)),
            _ => self.absent(&self.path().collect::<Vec<_>>(), name),
        }
    }

    /// A name that the schema does not have: nobody's, or one that the configuration expects.
    fn absent(&self, schemas: &[&str], name: &str) -> Resolved {
        let expected = self.rules.tables.keys().find(|table| {
            let schema = table.schema.as_deref().unwrap_or("public");
            &*table.name == name && schemas.contains(&schema)
        });
        expected.map_or(Resolved::Nothing, |table| Resolved::Missing(table.clone()))
    }

    /// The search path as PostgreSQL walks it: `pg_catalog` first unless it is listed.
    fn path(&self) -> impl Iterator<Item = &str> {
        let listed = self.search_path.iter().map(String::as_str);
        let implied =
            (!self.search_path.iter().any(|schema| schema == "pg_catalog")).then_some("pg_catalog");
        implied.into_iter().chain(listed)
    }

    /// Whether a schema may come first for one client and not for another.
    fn could_be_meant(&self, schema: &str) -> bool {
        self.role_paths
            || self.paths_differ
            || (self.role_schemas.contains(schema)
                && self.search_path.iter().any(|listed| listed == "$user"))
    }

    /// The functions of that name that a call may mean: all of the schema, or of every schema where none is named.
    pub fn functions(&self, schema: Option<&str>, name: &str) -> impl Iterator<Item = &Function> {
        self.functions
            .get(name)
            .into_iter()
            .flatten()
            .filter(move |function| schema.is_none_or(|schema| function.schema == schema))
    }

    /// Whether the configuration says that this function may run on any shard.
    pub fn is_shard_safe(&self, function: &Function, name: &str) -> bool {
        let schema = (function.schema != "public").then(|| function.schema.as_str().into());
        let name = TableName {
            schema,
            name: name.into(),
        };
        self.rules.shard_safe.contains(&name)
    }

    /// Whether operators or casts outside `pg_catalog` exist that are not immutable.
    pub fn has_unusual_operators(&self) -> bool {
        self.unusual_operators
    }

    /// Tables that the configuration names and the schema has, with their rules.
    pub fn placed_tables(&self) -> impl Iterator<Item = &Relation> {
        let relations = self
            .relations
            .values()
            .flat_map(BTreeMap::values)
            .map(AsRef::as_ref);
        relations.filter(|relation| !matches!(relation.standing, Standing::Unnamed))
    }

    /// Whether the configuration names this very relation, and not only the table that it is part of.
    pub fn is_named(&self, relation: &Relation) -> bool {
        build::rule_of(&self.rules, &relation.schema, &relation.name).is_some()
    }

    /// Tables that the configuration names and the schema does not have.
    pub fn missing_tables(&self) -> impl Iterator<Item = &TableName> {
        self.rules.tables.keys().filter(|table| {
            let schema = table.schema.as_deref().unwrap_or("public");
            !self
                .relations
                .get(&*table.name)
                .is_some_and(|found| found.contains_key(schema))
        })
    }
}
