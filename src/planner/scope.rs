//! What a name in an expression means, as PostgreSQL looks it up: level by level, from the innermost outwards.
//!
//! A level may be *open*: it has columns whose names nobody here knows (functions, system catalogues). A name that
//! such a level could have is of unknown meaning and is not looked for further out. What is ambiguous is unknown too.

use std::collections::HashMap;
use std::sync::Arc;

use super::proof::Node;
use crate::catalog::Relation;
use crate::sql::statement::{Alias, Expr, JoinKind};

/// Columns that every table has and no catalogue query lists.
const SYSTEM_COLUMNS: &[&str] = &["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];

/// A column whose value is the sharding key of an occurrence, or NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyOf {
    pub node: Node,
    /// Rows of the level with another value in this column may be taken away together with the occurrence's rows of
    /// that key, and nothing else of the level changes. Not so behind LIMIT, a window or a common table expression.
    pub inward: bool,
}

/// What a column of VALUES, or one that is a constant, can be: one of these expressions without columns, or NULL.
pub(super) type Values = Arc<[Expr]>;

/// One column of a table or subquery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    /// `None`: PostgreSQL gives it a name, but we do not know which.
    pub name: Option<String>,
    pub key: Option<KeyOf>,
    pub values: Option<Values>,
}

/// The columns of a table or subquery, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Outputs {
    pub columns: Vec<Output>,
    /// There are more, of unknown number.
    pub open: bool,
    /// A reference table is among what a row lock would reach.
    pub reference: bool,
}

impl Outputs {
    /// Nothing is known of the columns.
    pub fn open() -> Self {
        Self {
            columns: Vec::new(),
            open: true,
            reference: false,
        }
    }

    /// The columns of a table; `node` is its occurrence where it is sharded.
    pub fn of_table(relation: &Relation, node: Option<Node>) -> Self {
        let key = relation.key().map(|key| key.column.as_str());
        let columns = relation.columns.iter().map(|column| Output {
            name: Some(column.name.clone()),
            key: node
                .filter(|_| key == Some(column.name.as_str()))
                .map(|node| KeyOf { node, inward: true }),
            values: None,
        });
        Self {
            columns: columns.collect(),
            open: false,
            reference: false,
        }
    }

    /// New names for the first columns.
    pub fn renamed(mut self, names: &[String]) -> Self {
        for (index, name) in names.iter().enumerate() {
            match self.columns.get_mut(index) {
                Some(column) => column.name = Some(name.clone()),
                None if self.open => self.columns.push(Output {
                    name: Some(name.clone()),
                    key: None,
                    values: None,
                }),
                None => break,
            }
        }
        self
    }

    /// No proof of what is outside reaches the occurrences inside any more.
    pub fn outward_only(mut self) -> Self {
        for column in &mut self.columns {
            if let Some(key) = &mut column.key {
                key.inward = false;
            }
        }
        self
    }
}

/// What a name stands for, where it may be several things.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Slot {
    One(Option<KeyOf>, Option<Values>),
    Many,
}

/// What stands in FROM under one name.
#[derive(Debug, Clone, Default)]
struct Entry {
    columns: HashMap<String, Slot>,
    /// In the order of `*`; `None` where it is not known.
    order: Option<Vec<Output>>,
    open: bool,
    reference: bool,
    /// The schema, where the entry is a table without an alias.
    schema: Option<Arc<str>>,
    /// Two entries have this name.
    ambiguous: bool,
}

/// All names that one level's FROM offers.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    entries: HashMap<String, Entry>,
    columns: HashMap<String, Slot>,
    order: Option<Vec<Output>>,
    open: bool,
    /// A natural join with an open side: which columns it has is not known.
    unclear: bool,
    /// A reference table is among what a row lock would reach.
    pub reference: bool,
}

/// The keys of the two sides of a column in USING.
pub(super) type Pair = (Option<KeyOf>, Option<KeyOf>);

impl Names {
    /// A level without FROM.
    pub fn none() -> Self {
        Self {
            order: Some(Vec::new()),
            ..Self::default()
        }
    }

    /// One thing in FROM. `name` is `None` for a subquery without an alias.
    pub fn of(
        name: Option<&str>,
        alias: Option<&Alias>,
        outputs: Outputs,
        schema: Option<Arc<str>>,
    ) -> Self {
        let outputs = outputs.renamed(alias.map_or(&[], |alias| alias.columns.as_slice()));
        let mut columns = HashMap::with_capacity(outputs.columns.len());
        let mut open = outputs.open;
        for Output { name, key, values } in &outputs.columns {
            match name {
                Some(name) => add(&mut columns, name.clone(), Slot::One(*key, values.clone())),
                None => open = true,
            }
        }
        let order = (!outputs.open).then_some(outputs.columns);
        let mut names = Self {
            columns: columns.clone(),
            order: order.clone(),
            open,
            reference: outputs.reference,
            ..Self::default()
        };
        if let Some(name) = alias.map(|alias| alias.name.as_str()).or(name) {
            let entry = Entry {
                columns,
                order,
                open,
                reference: outputs.reference,
                schema: schema.filter(|_| alias.is_none()),
                ambiguous: false,
            };
            names.entries.insert(name.to_owned(), entry);
        }
        names
    }

    /// Lets only qualified names through, as for `excluded`.
    pub fn qualified_only(mut self) -> Self {
        self.columns = HashMap::new();
        self.open = false;
        self
    }

    /// Two lists side by side.
    pub fn beside(mut self, right: Names) -> Self {
        for (name, entry) in right.entries {
            match self.entries.get_mut(&name) {
                Some(known) => known.ambiguous = true,
                None => {
                    self.entries.insert(name, entry);
                }
            }
        }
        for (name, slot) in right.columns {
            add(&mut self.columns, name, slot);
        }
        self.order = match (self.order, right.order) {
            (Some(mut own), Some(theirs)) => {
                own.extend(theirs);
                Some(own)
            }
            _ => None,
        };
        self.open |= right.open;
        self.unclear |= right.unclear;
        self.reference |= right.reference;
        self
    }

    /// A join whose listed columns become one, with the keys that the join equates.
    pub fn merged(
        mut self,
        mut right: Names,
        using: &[String],
        kind: JoinKind,
    ) -> (Self, Vec<Pair>) {
        let mut pairs = Vec::with_capacity(using.len());
        let mut merged = Vec::with_capacity(using.len());
        for column in using {
            let own = only_key(self.columns.remove(column).as_ref());
            let theirs = only_key(right.columns.remove(column).as_ref());
            pairs.push((own, theirs));
            // where only one side is a key, the column may be of another type than that key
            let key = match (own, theirs, kind) {
                (Some(own), Some(_), JoinKind::Inner | JoinKind::Left) => Some(own),
                (Some(_), Some(theirs), JoinKind::Right) => Some(theirs),
                _ => None,
            };
            merged.push((column.clone(), key));
        }
        let mut names = self.beside(right);
        for (column, key) in merged {
            add(&mut names.columns, column, Slot::One(key, None));
        }
        names.order = None;
        (names, pairs)
    }

    /// The columns that a natural join equates; `None` where that is not known.
    pub fn common_columns(&self, right: &Names) -> Option<Vec<String>> {
        if self.open || right.open || self.unclear || right.unclear {
            return None;
        }
        let common = self
            .columns
            .keys()
            .filter(|name| right.columns.contains_key(*name));
        Some(common.cloned().collect())
    }

    /// After a natural join of which the columns are not known.
    pub fn made_unclear(mut self) -> Self {
        self.unclear = true;
        self.order = None;
        self
    }

    /// The columns of `*`, or of `entry.*`.
    pub fn star(&self, entry: Option<&str>) -> Option<&[Output]> {
        let order = match entry {
            None => &self.order,
            Some(name) => match self.entries.get(name) {
                Some(entry) if !entry.ambiguous => &entry.order,
                _ => return None,
            },
        };
        order.as_deref()
    }

    /// Whether a row lock on this entry reaches a reference table.
    pub fn locks_reference(&self, entry: &str) -> bool {
        self.entries.get(entry).is_some_and(|entry| entry.reference)
    }
}

fn add(columns: &mut HashMap<String, Slot>, name: String, slot: Slot) {
    columns
        .entry(name)
        .and_modify(|known| *known = Slot::Many)
        .or_insert(slot);
}

fn only_key(slot: Option<&Slot>) -> Option<KeyOf> {
    match slot {
        Some(Slot::One(key, _)) => *key,
        Some(Slot::Many) | None => None,
    }
}

/// The levels that an expression sees.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'s> {
    pub names: &'s Names,
    pub outer: Option<&'s Scope<'s>>,
}

/// What a column reference turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A sharding key; of this level, or of one further out.
    Key { key: KeyOf, own_level: bool },
    /// A choice of constants, or NULL.
    Values(Values),
    /// Another column.
    Column,
    /// A whole row.
    Row,
    /// `ctid` and its kin.
    System,
    /// It cannot be told.
    Unknown,
}

impl Scope<'_> {
    pub fn meaning(&self, parts: &[String]) -> Meaning {
        match parts {
            [name] => self.unqualified(name),
            [entry, name] => self.qualified(None, entry, name),
            [schema, entry, name] => self.qualified(Some(schema), entry, name),
            _ => Meaning::Unknown,
        }
    }

    fn levels(&self) -> impl Iterator<Item = (bool, &Names)> {
        let mut next = Some(self);
        let mut own_level = true;
        std::iter::from_fn(move || {
            let scope = next?;
            next = scope.outer;
            Some((std::mem::replace(&mut own_level, false), scope.names))
        })
    }

    fn unqualified(&self, name: &str) -> Meaning {
        for (own_level, names) in self.levels() {
            match names.columns.get(name) {
                _ if names.unclear => return Meaning::Unknown,
                Some(slot) => return meaning_of(slot, own_level),
                None if names.open => return Meaning::Unknown,
                None if SYSTEM_COLUMNS.contains(&name) && !names.entries.is_empty() => {
                    return Meaning::System;
                }
                None => {}
            }
        }
        if self
            .levels()
            .any(|(_, names)| names.entries.contains_key(name))
        {
            return Meaning::Row;
        }
        Meaning::Unknown
    }

    fn qualified(&self, schema: Option<&str>, entry: &str, name: &str) -> Meaning {
        for (own_level, names) in self.levels() {
            let Some(entry) = names.entries.get(entry) else {
                continue;
            };
            if entry.ambiguous || (schema.is_some() && schema != entry.schema.as_deref()) {
                return Meaning::Unknown;
            }
            return match entry.columns.get(name) {
                Some(slot) => meaning_of(slot, own_level),
                None if entry.open => Meaning::Unknown,
                None if SYSTEM_COLUMNS.contains(&name) => Meaning::System,
                None => Meaning::Unknown,
            };
        }
        Meaning::Unknown
    }
}

fn meaning_of(slot: &Slot, own_level: bool) -> Meaning {
    match slot {
        Slot::One(Some(key), _) => Meaning::Key {
            key: *key,
            own_level,
        },
        Slot::One(None, Some(values)) => Meaning::Values(Arc::clone(values)),
        Slot::One(None, None) => Meaning::Column,
        Slot::Many => Meaning::Unknown,
    }
}
