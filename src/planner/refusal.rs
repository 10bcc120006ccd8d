//! Every refusal, with its stable number: this table is the only place where a number is given out, and
//! `docs/refusals.md` is checked against it in both directions. A number never changes its meaning; one that is no
//! longer needed is not given out again.
//!
//! PGH001–PGH099 are about statements; PGH100–PGH129 about sessions and transactions, and are spoken by the session.

use std::fmt;

use crate::error::{Blame, Report, SqlState};
use crate::sql::Unparsed;

/// Something that pgherd does not do, said so that the reader can act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub number: Number,
    /// What in this statement it is about, such as a table's name.
    about: Option<String>,
}

impl Refusal {
    pub fn new(number: Number) -> Self {
        Self {
            number,
            about: None,
        }
    }

    /// With what it is about: a table, a function, a clause.
    pub fn about(number: Number, what: impl Into<String>) -> Self {
        Self {
            number,
            about: Some(what.into()),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: pgherd does not support {}",
            self.number,
            self.number.entry().title
        )
    }
}

impl std::error::Error for Refusal {}

impl Report for Refusal {
    fn sqlstate(&self) -> SqlState {
        self.number.entry().sqlstate
    }

    fn blame(&self) -> Blame {
        Blame::Client
    }

    fn detail(&self) -> Option<String> {
        let why = sentence(self.number.entry().why);
        Some(match &self.about {
            Some(what) => format!("{} (in this statement: {what})", why.trim_end_matches('.')),
            None => why,
        })
    }

    fn advice(&self) -> Option<String> {
        Some(self.number.entry().remedy.to_owned())
    }
}

impl From<Unparsed> for Refusal {
    fn from(unparsed: Unparsed) -> Self {
        match unparsed {
            Unparsed::Syntax(reason) => Refusal::about(Number::NotParsed, reason),
            Unparsed::Unknown(part) => Refusal::about(Number::UnknownPart, part),
            Unparsed::TooLong { .. } | Unparsed::TooDeep => {
                Refusal::about(Number::TooLarge, unparsed.to_string())
            }
            Unparsed::Utility(word) => Refusal::about(Number::Utility, word),
            Unparsed::NotOne => Refusal::new(Number::ManyStatements),
        }
    }
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), characters.as_str()),
        None => String::new(),
    }
}

/// One line of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub sqlstate: SqlState,
    /// Completes "pgherd does not support …".
    pub title: &'static str,
    pub why: &'static str,
    pub remedy: &'static str,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PGH{:03}", self.value())
    }
}

macro_rules! numbers {
    ($($value:literal $name:ident $sqlstate:ident $title:literal $why:literal $remedy:literal;)+) => {
        /// The number of a refusal; it prints as `PGHnnn`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Number {
            $(#[doc = $title] $name,)+
        }

        impl Number {
            /// All of them, by value.
            pub const ALL: &'static [Number] = &[$(Number::$name,)+];

            pub fn value(self) -> u16 {
                match self {
                    $(Number::$name => $value,)+
                }
            }

            pub fn entry(self) -> Entry {
                match self {
                    $(Number::$name => Entry {
                        sqlstate: SqlState::$sqlstate,
                        title: $title,
                        why: $why,
                        remedy: $remedy,
                    },)+
                }
            }
        }
    };
}

numbers! {
    1 NotParsed FEATURE_NOT_SUPPORTED
        "the statement is not understood"
        "pgherd's parser does not know it, and what is not understood is not sent to any shard"
        "Check the syntax; if PostgreSQL takes it, reword the statement, or run it on one shard over a direct connection.";
    2 TooLarge PROGRAM_LIMIT_EXCEEDED
        "the statement is too long or too deeply nested"
        "its tree could not be built safely"
        "Split the statement, or replace long chains of operators (x = 1 OR x = 2 …) by IN lists or arrays.";
    3 UnknownPart FEATURE_NOT_SUPPORTED
        "a part of the statement is not known"
        "every part of a statement must be understood before its shard can be proven"
        "Reword the part that DETAIL names.";
    4 OrderByOverShards FEATURE_NOT_SUPPORTED
        "ORDER BY over several shards"
        "rows of several shards are concatenated, not merged in order"
        "Add a condition on the sharding key, or sort in the application.";
    5 LimitOverShards FEATURE_NOT_SUPPORTED
        "LIMIT, OFFSET or FETCH over several shards"
        "each shard would apply it to its own rows"
        "Add a condition on the sharding key.";
    6 DistinctOverShards FEATURE_NOT_SUPPORTED
        "DISTINCT over several shards"
        "each shard would remove only its own duplicates"
        "Add a condition on the sharding key.";
    7 AggregateOverShards FEATURE_NOT_SUPPORTED
        "an aggregate over several shards"
        "each shard would aggregate only its own rows"
        "Add a condition on the sharding key, or aggregate per shard in the application.";
    8 GroupByOverShards FEATURE_NOT_SUPPORTED
        "GROUP BY or HAVING over several shards"
        "each shard would group only its own rows"
        "Add a condition on the sharding key.";
    9 WindowOverShards FEATURE_NOT_SUPPORTED
        "a window function over several shards"
        "each shard would see only its own rows in a window"
        "Add a condition on the sharding key.";
    10 SetOperationOverShards FEATURE_NOT_SUPPORTED
        "UNION, INTERSECT or EXCEPT over several shards"
        "each shard would combine only its own rows"
        "Add the same condition on the sharding key to every branch.";
    11 LockOverShards FEATURE_NOT_SUPPORTED
        "FOR UPDATE or FOR SHARE over several shards"
        "rows would be locked on several shards without an order between them"
        "Add a condition on the sharding key.";
    12 SetReturningOverShards FEATURE_NOT_SUPPORTED
        "a set-returning function over several shards"
        "it would run once on each shard"
        "Add a condition on the sharding key, or call it in a statement of its own.";
    13 FunctionOverShards FEATURE_NOT_SUPPORTED
        "a function that is not immutable, over several shards"
        "each shard has its own clock, settings and random numbers"
        "Add a condition on the sharding key, or compute the value in the application and pass it as a parameter.";
    14 JoinOverShards FEATURE_NOT_SUPPORTED
        "a join whose rows need not meet on one shard"
        "sharded tables must be joined on their sharding keys"
        "Add the equality of the sharding keys to the join, or a condition on the sharding key of every sharded table.";
    15 OuterJoinOverShards FEATURE_NOT_SUPPORTED
        "an outer join that keeps rows without a partner on the shard"
        "every shard would add such rows again"
        "Turn the join around so that the sharded table is the preserved side, or use an inner join.";
    16 SubqueryOverShards FEATURE_NOT_SUPPORTED
        "a subquery over several shards"
        "it would see only the rows of its shard"
        "Add a condition on the same sharding key inside and outside the subquery, or run it as a statement of its own.";
    17 CteOverShards FEATURE_NOT_SUPPORTED
        "WITH over several shards"
        "each shard would compute it from its own rows"
        "Add a condition on the same sharding key inside and outside of it.";
    18 KeysDiffer FEATURE_NOT_SUPPORTED
        "tables that are not proven to need the same shard"
        "every sharded table must be held to the same value of the sharding key"
        "Give every sharded table of the statement, in subqueries too, the same key value, or join it to one that has it by the key.";
    19 ColumnUnclear FEATURE_NOT_SUPPORTED
        "a column that cannot be told to belong to one table"
        "a name that pgherd cannot resolve may be a function in disguise"
        "Qualify the column with its table's alias, and check its spelling.";
    20 RowOverShards FEATURE_NOT_SUPPORTED
        "a whole row or a system column over several shards"
        "its type or value differs from shard to shard"
        "Name the columns that you need.";
    21 WriteWithoutKey FEATURE_NOT_SUPPORTED
        "a write to a sharded table without its sharding key"
        "it might need several shards, and could then be half done"
        "Add a condition key = value on the sharding key.";
    22 KeyAssigned FEATURE_NOT_SUPPORTED
        "an assignment to the sharding key"
        "the row would have to move to another shard"
        "DELETE the row and INSERT it with its new key.";
    23 Merge FEATURE_NOT_SUPPORTED
        "MERGE"
        "it may write rows of several shards"
        "Use INSERT … ON CONFLICT with the sharding key, or UPDATE and INSERT.";
    24 ManyRows FEATURE_NOT_SUPPORTED
        "INSERT of several rows into a sharded table"
        "the rows may belong to several shards"
        "Insert one row per statement; in one transaction if they belong together.";
    25 InsertSelect FEATURE_NOT_SUPPORTED
        "INSERT … SELECT"
        "its rows may belong to several shards"
        "SELECT the rows first and INSERT them one by one.";
    26 KeyMissing FEATURE_NOT_SUPPORTED
        "INSERT without a value for the sharding key"
        "the row's shard is not known before its default is computed"
        "Name the sharding key in the column list and give its value.";
    27 KeyNull NOT_NULL_VIOLATION
        "NULL as the sharding key"
        "a row without a sharding key has no shard"
        "Give the sharding key a value.";
    28 KeyNotConstant FEATURE_NOT_SUPPORTED
        "a sharding key that is neither a literal nor a parameter"
        "its value is not known before a shard computes it"
        "Compute the key in the application and pass it as a literal of the column's type or as a parameter.";
    29 KeyGenerated FEATURE_NOT_SUPPORTED
        "a sharding key that is a generated column"
        "its value is not known before a shard computes it"
        "Shard the table by an ordinary column.";
    30 SequenceDefault FEATURE_NOT_SUPPORTED
        "a value from a sequence in a sharded table"
        "each shard counts for itself, so the same number would be given twice"
        "Give the column a value (for instance a UUID), or use a sequence of the application.";
    31 ReferenceWrite FEATURE_NOT_SUPPORTED
        "a write to a reference table"
        "it would have to reach all shards at once"
        "Write to every shard over direct connections.";
    32 ReferenceLock FEATURE_NOT_SUPPORTED
        "a row lock on a reference table"
        "the row is on every shard, and only one copy would be locked"
        "Lock a row of a sharded table, or name the tables to lock in a statement without the reference table.";
    33 WritingCte FEATURE_NOT_SUPPORTED
        "INSERT, UPDATE, DELETE or MERGE inside WITH"
        "its shard is not proven"
        "Run it as a statement of its own.";
    34 SelectInto FEATURE_NOT_SUPPORTED
        "SELECT INTO"
        "a table made on one shard is missing on the others"
        "Create the table on every shard over direct connections.";
    35 TableUnnamed FEATURE_NOT_SUPPORTED
        "a table that the configuration does not name"
        "pgherd does not know on which shard its rows are"
        "Name the table in the configuration file as sharded, reference or single, or set default_table.";
    36 TableMissing FEATURE_NOT_SUPPORTED
        "a table of the configuration that does not exist"
        "the authoritative shard has no such table"
        "Create it on every shard; pgherd notices it by itself.";
    37 PlacesMixed FEATURE_NOT_SUPPORTED
        "sharded tables together with a table that is whole on one shard"
        "their rows are on different servers"
        "Make the other table a reference table, or run two statements.";
    38 SinglesApart FEATURE_NOT_SUPPORTED
        "tables that are whole on different shards"
        "their rows are on different servers"
        "Place the tables on the same shard, or run two statements.";
    39 CatalogMixed FEATURE_NOT_SUPPORTED
        "system catalogues together with tables of a shard"
        "catalogues are read on the authoritative shard only"
        "Run two statements.";
    40 View FEATURE_NOT_SUPPORTED
        "a write through a view, or a view that pgherd cannot look into"
        "a write through a view is another statement than it seems, and a query that is not understood proves nothing"
        "Name the table itself, or write the view's query out.";
    41 Partitioned FEATURE_NOT_SUPPORTED
        "a partitioned table whose partitions are not all tables under the same rule"
        "its rows are on other servers, or placed by other rules"
        "Detach foreign partitions, and give partitions no rule of their own in the configuration file.";
    42 Inheritance FEATURE_NOT_SUPPORTED
        "a table with parents or children"
        "its rows are those of several tables"
        "Use an ordinary table.";
    43 ForeignTable FEATURE_NOT_SUPPORTED
        "a foreign table"
        "its rows are on another server"
        "Read it over a direct connection.";
    44 TableRules FEATURE_NOT_SUPPORTED
        "a table with rewrite rules"
        "what a statement on it does is not visible in the statement"
        "Drop the rules.";
    45 Triggers FEATURE_NOT_SUPPORTED
        "a table with triggers"
        "a trigger sees only its shard and may change the sharding key"
        "Drop the triggers, or do their work in the application.";
    46 RowSecurity FEATURE_NOT_SUPPORTED
        "a table with row-level security"
        "its policies may read tables of other shards"
        "Disable row-level security on it.";
    47 NoTable FEATURE_NOT_SUPPORTED
        "a relation that is no table"
        "a sequence or materialized view is local to each shard"
        "Read it over a direct connection.";
    48 ServerFunction FEATURE_NOT_SUPPORTED
        "a function that depends on one server or session"
        "its answer or its effect would be that of one shard or of one pooled connection"
        "Call it over a direct connection to a shard.";
    49 UserFunction FEATURE_NOT_SUPPORTED
        "a function outside pg_catalog in a statement without a sharding key"
        "it would see the rows of one shard only"
        "Add a condition on the sharding key, or call it over a direct connection.";
    50 EffectFunction FEATURE_NOT_SUPPORTED
        "a function with effects in a statement without a sharding key"
        "its effect would be that of one shard only"
        "Call it over a direct connection to every shard that needs it.";
    51 QueryFunction FEATURE_NOT_SUPPORTED
        "a function that runs a query given as text"
        "pgherd does not look into the text"
        "Write the query out.";
    52 CatalogWrite FEATURE_NOT_SUPPORTED
        "a write to a system catalogue"
        "it would change one shard only"
        "Use DDL on every shard.";
    53 ParameterType FEATURE_NOT_SUPPORTED
        "a parameter whose type does not hash like the sharding key"
        "the same value may have another hash, or compare by other rules"
        "Declare the parameter with the type of the sharding key, or leave its type to PostgreSQL.";
    54 ConstraintLoose FEATURE_NOT_SUPPORTED
        "a constraint that one shard alone cannot keep"
        "a unique or foreign key without the sharding key holds on each shard only"
        "Add the sharding key to the constraint, or drop it.";
    55 SampleOverShards FEATURE_NOT_SUPPORTED
        "TABLESAMPLE over several shards"
        "each shard would sample for itself"
        "Add a condition on the sharding key.";
    56 TypeOverShards FEATURE_NOT_SUPPORTED
        "a cast to a type whose values differ from shard to shard"
        "OIDs and types of users are local to each shard"
        "Cast to a built-in type, or add a condition on the sharding key.";
    57 MomentOverShards FEATURE_NOT_SUPPORTED
        "'now', 'today' and their kin, or a string with escapes that may say so, over several shards"
        "each shard would read its own clock"
        "Pass the moment as a parameter.";
    58 OverridingUser FEATURE_NOT_SUPPORTED
        "OVERRIDING USER VALUE on a table with an identity column"
        "the value would come from a sequence of one shard"
        "Use OVERRIDING SYSTEM VALUE.";
    59 NameAmbiguous FEATURE_NOT_SUPPORTED
        "a table's name that means another table for another role"
        "search paths differ between roles, or a schema is called like a role"
        "Qualify the table with its schema.";
    60 ServerState FEATURE_NOT_SUPPORTED
        "a view of one server's state"
        "statistics, locks and sessions are those of one shard only"
        "Read it over a direct connection to the shard.";
    61 TableFunction FEATURE_NOT_SUPPORTED
        "a function in FROM over several shards"
        "it would run once on each shard"
        "Add a condition on the sharding key, or call it in a statement of its own.";
    62 ExpressionOverShards FEATURE_NOT_SUPPORTED
        "an operator over several shards, where some are not immutable"
        "an extension or a user added an operator or cast that may differ from shard to shard"
        "Add a condition on the sharding key.";
    63 TooManyTables PROGRAM_LIMIT_EXCEEDED
        "a statement over too many tables"
        "its proof would take too long"
        "Split the statement.";
    75 RelationDiffers FEATURE_NOT_SUPPORTED
        "a relation that is not the same on all shards, or no longer fits its rule"
        "what is planned after one shard's schema may be wrong on another"
        "Mend the difference (`pgherd check --connect` tells all of them); pgherd notices by itself.";
    76 SettingsDiffer FEATURE_NOT_SUPPORTED
        "a statement on shards whose settings differ"
        "each of them would write values, or read them, in another way"
        "Set them alike on all shards (`pgherd check --connect` tells which); pgherd notices by itself.";
    80 WriteOverShards FEATURE_NOT_SUPPORTED
        "a write whose key values belong to several shards"
        "several shards are not committed together yet, so it could be half done"
        "Write the rows of each key value in a statement of its own.";
    100 SecondShard FEATURE_NOT_SUPPORTED
        "a write on a second shard in one transaction"
        "the transaction has written on another shard, and two shards are not committed together yet"
        "Keep the writes of one transaction to one value of the sharding key, or use two transactions.";
    101 ScatterInTransaction FEATURE_NOT_SUPPORTED
        "a statement over several shards in a transaction that is REPEATABLE READ or SERIALIZABLE"
        "there is no moment that is the same on all shards"
        "Use READ COMMITTED, run it outside of the transaction, or add a condition on the sharding key.";
    102 ManyStatements FEATURE_NOT_SUPPORTED
        "several statements in one query string that write and need several shards, or are not one transaction"
        "they are done or undone together, and so must be all on one shard"
        "Send them one by one, between BEGIN and COMMIT if they belong together.";
    103 SessionSetting FEATURE_NOT_SUPPORTED
        "this setting on a sharded database"
        "statements are planned under the values of the database, or no server tells its value"
        "Leave it as it is, or set it for the database on every shard.";
    104 Notifications FEATURE_NOT_SUPPORTED
        "LISTEN, UNLISTEN or NOTIFY on a sharded database"
        "a channel belongs to one server"
        "Connect to one shard directly.";
    105 Temporary FEATURE_NOT_SUPPORTED
        "a temporary object on a sharded database"
        "it would exist on one shared server connection only"
        "Use an ordinary table, or connect to one shard directly.";
    106 CopySharded FEATURE_NOT_SUPPORTED
        "COPY on a sharded database"
        "its rows may belong to several shards"
        "Use INSERT with the sharding key, or COPY on each shard directly.";
    107 SqlPrepare FEATURE_NOT_SUPPORTED
        "PREPARE, EXECUTE or DEALLOCATE as SQL on a sharded database"
        "it names a statement of one server connection"
        "Use the prepared statements of your driver (extended query protocol).";
    108 Cursor FEATURE_NOT_SUPPORTED
        "a cursor WITH HOLD, over the rows of several shards, or not told for sure"
        "a cursor is on one shard, and lasts as long as its transaction"
        "Give its query a condition on the sharding key and leave WITH HOLD out, or read all rows.";
    109 Ddl FEATURE_NOT_SUPPORTED
        "a change of the schema on a sharded database"
        "every shard must change alike"
        "Run it on every shard over direct connections; pgherd notices it within `catalog_refresh`.";
    110 FunctionCall FEATURE_NOT_SUPPORTED
        "the FunctionCall message on a sharded database"
        "it names a function by the OID of one server"
        "Call the function with SELECT.";
    111 PipelineOverShards FEATURE_NOT_SUPPORTED
        "a pipeline that writes and needs several shards"
        "its statements are one transaction"
        "Send a Sync after each statement, or keep the pipeline to one value of the sharding key.";
    113 TwoPhase FEATURE_NOT_SUPPORTED
        "two-phase commit commands of a client on a sharded database"
        "prepared transactions belong to one shard"
        "Connect to one shard directly.";
    114 ClientEncoding FEATURE_NOT_SUPPORTED
        "a client_encoding other than UTF8 on a sharded database"
        "keys are hashed in the encoding of the server"
        "Set client_encoding to UTF8.";
    115 CatalogElsewhere FEATURE_NOT_SUPPORTED
        "the first shard, which has the catalogues, in a REPEATABLE READ or SERIALIZABLE transaction of another shard"
        "there is no moment that is the same on both shards"
        "Use READ COMMITTED, or read them outside of the transaction.";
    116 PortalOverShards FEATURE_NOT_SUPPORTED
        "a row limit of a portal over several shards"
        "a suspended portal belongs to one server"
        "Read all rows, or add a condition on the sharding key.";
    117 Replication FEATURE_NOT_SUPPORTED
        "a replication connection to a sharded database"
        "a replication stream belongs to one server"
        "Connect to the shard directly.";
    118 Utility FEATURE_NOT_SUPPORTED
        "this command on a sharded database"
        "it acts on one server, or what it touches cannot be seen"
        "Run it on every shard that needs it over direct connections.";
    119 ExplainOverShards FEATURE_NOT_SUPPORTED
        "EXPLAIN over several shards with parameters or in a format other than text"
        "the plans of the shards are shown one below the other"
        "Use EXPLAIN with constants in the format text, or add a condition on the sharding key.";
    125 ShardsOfSnapshot FEATURE_NOT_SUPPORTED
        "a second shard in a transaction that is REPEATABLE READ or SERIALIZABLE"
        "there is no moment that is the same on both shards"
        "Use READ COMMITTED, or keep the transaction to one value of the sharding key.";
    126 StepsUntold FEATURE_NOT_SUPPORTED
        "a second shard in a transaction of which pgherd does not know how it came to where it is"
        "it has more than 1000 savepoints and settings, or has done what only one server knows: RESET, set_config, PREPARE, DEALLOCATE, a function that may change settings, savepoints or settings in a string of statements"
        "Do these outside of the transaction, SET LOCAL instead of set_config, and SAVEPOINT and SET LOCAL one by one.";
}
