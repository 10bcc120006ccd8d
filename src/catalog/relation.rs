//! Relations, their columns and their rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use crate::names::{ShardId, TableName};
use crate::placement::KeyType;
use crate::sql::statement::Query;
use crate::sql::understand_fixed;

/// What the configuration says of tables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// A name without a schema means `public`.
    pub tables: BTreeMap<TableName, Rule>,
    /// Where tables live that are not named; `None` refuses them.
    pub default: Option<ShardId>,
    /// Functions that may run on any shard, with the rows that are there. A name without a schema means `public`.
    pub shard_safe: BTreeSet<TableName>,
}

/// What the configuration says of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    Sharded { key: String },
    Reference,
    Single(ShardId),
}

/// A relation that is not PostgreSQL's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    pub schema: Arc<str>,
    pub name: Arc<str>,
    pub kind: Kind,
    pub standing: Standing,
    /// In the order of the table; dropped ones are left out.
    pub columns: Vec<Column>,
    /// It is a child or a parent, or a partition or a partitioned table that nobody here can vouch for.
    pub inherits: bool,
    /// What it reads, where it is a view.
    pub view: Option<View>,
    pub has_rules: bool,
    /// Triggers that users made; those of foreign keys do not count.
    pub has_triggers: bool,
    /// A change of its rows reaches tables with rules or triggers, through foreign keys.
    pub cascades: bool,
    pub row_security: bool,
    /// Unique, exclusion and foreign-key constraints that one shard alone cannot keep.
    pub loose_constraints: Vec<Constraint>,
}

/// The query of a view, read when somebody first needs it.
#[derive(Debug, Clone)]
pub struct View {
    text: String,
    query: OnceLock<Option<Arc<Query>>>,
}

impl View {
    /// `text` names every relation with its schema but those of `pg_catalog`.
    #[must_use]
    pub fn new(text: String) -> Self {
        let query = OnceLock::new();
        Self { text, query }
    }

    /// `None` where it is not understood. Parses at the first call: on a thread with
    /// [`STACK_BYTES`](crate::sql::STACK_BYTES).
    #[must_use]
    pub fn query(&self) -> Option<&Arc<Query>> {
        let read = || {
            understand_fixed(&self.text)
                .ok()
                .map(|view| Arc::new(view.query))
        };
        self.query.get_or_init(read).as_ref()
    }
}

/// Whether it has been read yet makes no difference.
impl PartialEq for View {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for View {}

/// A constraint that holds on each shard but not over all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    pub name: String,
    /// An expression counts as the column "", which any assignment touches.
    pub columns: Vec<String>,
    /// Another table's foreign key that refers to this one: new rows cannot break it.
    pub referenced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Table,
    Partitioned,
    View,
    MaterializedView,
    Foreign,
    Sequence,
    Other,
}

/// Where a relation's rows are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Sharded(Key),
    Reference,
    Single(ShardId),
    /// The configuration does not name it, and unnamed tables are refused.
    Unnamed,
}

/// A sharding key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub column: String,
    pub key_type: KeyType,
    /// The length of a `varchar(n)`: an INSERT cuts blanks beyond it.
    pub characters_max: Option<u32>,
    /// GENERATED ALWAYS AS (…) STORED.
    pub generated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub type_oid: u32,
    pub not_null: bool,
    pub generated: bool,
    pub identity: bool,
    pub default: ColumnDefault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnDefault {
    None,
    /// From a sequence, identity columns included: each shard counts for itself.
    Sequence,
    Other,
}

impl Constraint {
    /// Whether an assignment to these columns could break it.
    pub fn is_touched_by<'a>(&self, mut columns: impl Iterator<Item = &'a str>) -> bool {
        columns.any(|column| {
            self.columns
                .iter()
                .any(|own| own.is_empty() || own == column)
        })
    }
}

impl Relation {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The sharding key, where the relation has one.
    pub fn key(&self) -> Option<&Key> {
        match &self.standing {
            Standing::Sharded(key) => Some(key),
            Standing::Reference | Standing::Single(_) | Standing::Unnamed => None,
        }
    }

    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}
