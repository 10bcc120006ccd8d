//! From the rows of the catalogue queries to a [`Catalog`], checked against the rules.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::constraints::{note_foreign_keys, note_unique};
use super::error::{CatalogError, TableProblem};
use super::family;
use super::queries::QUERIES;
use super::relation::{Column, ColumnDefault, Key, Kind, Relation, Rule, Rules, Standing, View};
use super::{Catalog, Function, SYSTEM_SCHEMAS, Volatility};
use crate::names::{ShardId, TableName};
use crate::placement::KeyType;

type Rows = [Vec<Option<String>>];
/// Schema and name.
pub(super) type Place = (Arc<str>, Arc<str>);

/// A column with what only the rules need to know.
struct Raw {
    column: Column,
    type_schema: String,
    type_name: String,
    modifier: i32,
    deterministic: bool,
}

/// The catalogue, and every rule that the schema contradicts; the tables of these have no standing.
pub(super) fn build(
    rows: &[Vec<Vec<Option<String>>>],
    rules: Rules,
) -> Result<(Catalog, Vec<TableProblem>), CatalogError> {
    let answers = Answers { rows };
    let mut catalog = Catalog::default();
    let mut columns = read_columns(&answers.of(1)?)?;
    let mut problems = Vec::new();
    let partitions = family::read(&answers.of(7)?)?;
    let mut views = read_views(&answers.of(8)?)?;
    let mut found: BTreeMap<Place, Relation> = BTreeMap::new();
    for row in answers.of(0)?.rows() {
        let (schema, name): Place = (row.text(0)?.into(), row.text(1)?.into());
        if SYSTEM_SCHEMAS.contains(&&*schema) {
            catalog.system.entry(name).or_default().insert(schema);
            continue;
        }
        let raw = columns
            .remove(&(Arc::clone(&schema), Arc::clone(&name)))
            .unwrap_or_default();
        let place = (schema, name);
        let rule = family::rule_of(&place, &partitions, &rules);
        let mut relation = read_relation(&row, &raw, rule, rules.default, &mut problems)?;
        relation.view = views.remove(&place).map(View::new);
        found.insert(place, relation);
    }
    family::join(&partitions, &rules, &mut found);
    note_unique(&answers.of(3)?, &mut found)?;
    note_foreign_keys(&answers.of(4)?, &mut found)?;
    family::share_constraints(&partitions, &mut found);
    for ((schema, name), relation) in found {
        catalog
            .relations
            .entry(name)
            .or_default()
            .insert(schema, Arc::new(relation));
    }
    catalog.functions = read_functions(&answers.of(2)?)?;
    read_settings(&answers.of(5)?, &mut catalog)?;
    for row in answers.of(6)?.rows() {
        catalog.role_schemas.insert(row.text(0)?.to_owned());
    }
    catalog.rules = rules;
    catalog.version = 1;
    Ok((catalog, problems))
}

fn read_views(answer: &Answer<'_>) -> Result<HashMap<Place, String>, CatalogError> {
    let mut views = HashMap::new();
    for row in answer.rows() {
        let place = (row.text(0)?.into(), row.text(1)?.into());
        views.insert(place, row.text(2)?.to_owned());
    }
    Ok(views)
}

fn read_columns(answer: &Answer<'_>) -> Result<HashMap<Place, Vec<Raw>>, CatalogError> {
    let mut columns: HashMap<Place, Vec<Raw>> = HashMap::new();
    for row in answer.rows() {
        let column = Column {
            name: row.text(2)?.to_owned(),
            type_oid: row.number(3)?,
            not_null: row.truth(7)?,
            generated: row.truth(8)?,
            identity: row.truth(9)?,
            default: match row.text(10)? {
                _ if row.truth(9)? => ColumnDefault::Sequence,
                "sequence" => ColumnDefault::Sequence,
                "none" => ColumnDefault::None,
                _ => ColumnDefault::Other,
            },
        };
        let raw = Raw {
            column,
            type_schema: row.text(4)?.to_owned(),
            type_name: row.text(5)?.to_owned(),
            modifier: row.number(6)?,
            deterministic: row.truth(11)?,
        };
        columns
            .entry((row.text(0)?.into(), row.text(1)?.into()))
            .or_default()
            .push(raw);
    }
    Ok(columns)
}

fn read_relation(
    row: &Row<'_>,
    raw: &[Raw],
    rule: Option<&Rule>,
    default: Option<ShardId>,
    problems: &mut Vec<TableProblem>,
) -> Result<Relation, CatalogError> {
    let (schema, name) = (row.text(0)?, row.text(1)?);
    let standing = match rule {
        Some(Rule::Sharded { key }) => match read_key(key, raw) {
            Ok(key) => Standing::Sharded(key),
            Err(problem) => {
                problems.push(TableProblem {
                    table: format!("{schema}.{name}"),
                    problem,
                });
                Standing::Unnamed
            }
        },
        Some(Rule::Reference) => Standing::Reference,
        Some(Rule::Single(shard)) => Standing::Single(*shard),
        None => default.map_or(Standing::Unnamed, Standing::Single),
    };
    Ok(Relation {
        schema: schema.into(),
        name: name.into(),
        kind: match row.text(2)? {
            "r" => Kind::Table,
            "p" => Kind::Partitioned,
            "v" => Kind::View,
            "m" => Kind::MaterializedView,
            "f" => Kind::Foreign,
            "S" => Kind::Sequence,
            _ => Kind::Other,
        },
        standing,
        columns: raw.iter().map(|raw| raw.column.clone()).collect(),
        inherits: row.truth(3)?,
        view: None,
        has_rules: row.truth(4)?,
        has_triggers: row.truth(5)?,
        cascades: false,
        row_security: row.truth(6)?,
        loose_constraints: Vec::new(),
    })
}

pub(super) fn rule_of<'a>(rules: &'a Rules, schema: &str, name: &str) -> Option<&'a Rule> {
    let with_schema = |schema: Option<&str>| TableName {
        schema: schema.map(Into::into),
        name: name.into(),
    };
    let bare = || {
        if schema == "public" {
            rules.tables.get(&with_schema(None))
        } else {
            None
        }
    };
    rules.tables.get(&with_schema(Some(schema))).or_else(bare)
}

/// The key of a sharded table, or why its values cannot be placed.
fn read_key(name: &str, raw: &[Raw]) -> Result<Key, String> {
    let Some(raw) = raw.iter().find(|raw| raw.column.name == name) else {
        return Err(format!(
            "it has no column {name}, which is to be its sharding key"
        ));
    };
    let key_type = match (raw.type_schema.as_str(), raw.type_name.as_str()) {
        ("pg_catalog", "int2") => KeyType::Int2,
        ("pg_catalog", "int4") => KeyType::Int4,
        ("pg_catalog", "int8") => KeyType::Int8,
        ("pg_catalog", "text" | "varchar") => KeyType::Text,
        ("pg_catalog", "bpchar") => KeyType::Bpchar,
        ("pg_catalog", "uuid") => KeyType::Uuid,
        (schema, other) => {
            return Err(format!(
                "its sharding key {name} is of type {schema}.{other}; int2, int4, int8, text, varchar, char and uuid can be keys"
            ));
        }
    };
    if !raw.deterministic {
        return Err(format!(
            "its sharding key {name} has a nondeterministic collation: equal values would hash apart"
        ));
    }
    // a varchar(n) stores n + 4
    let characters_max = match u32::try_from(raw.modifier - 4) {
        Ok(length) if raw.type_name == "varchar" => Some(length),
        _ => None,
    };
    Ok(Key {
        column: name.to_owned(),
        key_type,
        characters_max,
        generated: raw.column.generated,
    })
}

fn read_functions(answer: &Answer<'_>) -> Result<HashMap<Arc<str>, Vec<Function>>, CatalogError> {
    let mut functions: HashMap<Arc<str>, Vec<Function>> = HashMap::new();
    for row in answer.rows() {
        let function = Function {
            schema: row.text(0)?.to_owned(),
            volatility: match row.text(2)? {
                "i" => Volatility::Immutable,
                "s" => Volatility::Stable,
                _ => Volatility::Volatile,
            },
            aggregate: row.truth(3)?,
            window: row.truth(4)?,
            returns_set: row.truth(5)?,
        };
        functions
            .entry(row.text(1)?.into())
            .or_default()
            .push(function);
    }
    for overloads in functions.values_mut() {
        // In whichever order the server told of them: two catalogues that say the same are equal.
        overloads.sort_by(|one, other| one.schema.cmp(&other.schema));
    }
    Ok(functions)
}

fn read_settings(answer: &Answer<'_>, catalog: &mut Catalog) -> Result<(), CatalogError> {
    let Some(row) = answer.rows().next() else {
        return Err(answer.unexpected("there is none"));
    };
    catalog.search_path = path_entries(row.text(0)?);
    catalog.role_paths = row.truth(1)?;
    catalog.unusual_operators = row.truth(2)?;
    Ok(())
}

/// The schemas that a `search_path` lists: names, in quotes where they must be.
fn path_entries(path: &str) -> Vec<String> {
    let mut entries = Vec::new();
    let mut entry = String::new();
    let mut quoted = false;
    for character in path.chars() {
        match character {
            '"' => {
                quoted = !quoted;
            }
            ',' if !quoted => entries.push(std::mem::take(&mut entry)),
            ' ' if !quoted => {}
            other => entry.push(other),
        }
    }
    entries.push(entry);
    entries.retain(|entry| !entry.is_empty());
    entries
}

struct Answers<'a> {
    rows: &'a [Vec<Vec<Option<String>>>],
}

pub(super) struct Answer<'a> {
    query: &'static str,
    rows: &'a Rows,
}

pub(super) struct Row<'a> {
    query: &'static str,
    values: &'a [Option<String>],
}

impl<'a> Answers<'a> {
    fn of(&self, query: usize) -> Result<Answer<'a>, CatalogError> {
        let name = QUERIES.get(query).map_or("?", |(name, _)| name);
        match self.rows.get(query) {
            Some(rows) => Ok(Answer { query: name, rows }),
            None => Err(CatalogError::Row {
                query: name,
                reason: "it was not asked",
            }),
        }
    }
}

impl<'a> Answer<'a> {
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let query = self.query;
        self.rows.iter().map(move |values| Row { query, values })
    }

    fn unexpected(&self, reason: &'static str) -> CatalogError {
        CatalogError::Row {
            query: self.query,
            reason,
        }
    }
}

impl<'a> Row<'a> {
    pub(super) fn optional(&self, column: usize) -> Result<Option<&'a str>, CatalogError> {
        match self.values.get(column) {
            Some(value) => Ok(value.as_deref()),
            None => Err(CatalogError::Row {
                query: self.query,
                reason: "too few columns",
            }),
        }
    }

    pub(super) fn text(&self, column: usize) -> Result<&'a str, CatalogError> {
        self.optional(column)?.ok_or(CatalogError::Row {
            query: self.query,
            reason: "a NULL",
        })
    }

    pub(super) fn truth(&self, column: usize) -> Result<bool, CatalogError> {
        match self.text(column)? {
            "t" | "true" => Ok(true),
            "f" | "false" => Ok(false),
            _ => Err(CatalogError::Row {
                query: self.query,
                reason: "no truth value",
            }),
        }
    }

    pub(super) fn number<N: std::str::FromStr>(&self, column: usize) -> Result<N, CatalogError> {
        self.text(column)?.parse().map_err(|_| CatalogError::Row {
            query: self.query,
            reason: "no number",
        })
    }
}
