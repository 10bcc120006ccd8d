//! One statement as pgherd's planner needs it: which tables at which level, joined how, filtered by what, with which
//! functions. Names are folded; nothing of the parser's own types shows.
//!
//! It keeps every name, function, literal and subquery, and drops only what no decision hangs on (operators, output
//! names of arithmetic, sort directions). Expressions are not evaluated here. Chains (`a AND b AND c`, `a + b + c`) are
//! lists, not trees, so that walking a statement never runs deep.

/// One statement; a data-modifying one may carry common table expressions like a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub query: Query,
    /// The highest `$n` of the text; 0 without parameters.
    pub parameters: u16,
    /// Slots ([`super::slots`]) that the tree does not show: the parser may have read anything out of their literals.
    pub hidden: Vec<u32>,
}

/// One query level with what surrounds its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub with: Vec<Cte>,
    pub recursive: bool,
    pub body: Body,
    pub order_by: Vec<Expr>,
    /// LIMIT, OFFSET or FETCH, with its expressions.
    pub limit: Option<Vec<Expr>>,
    pub locks: Vec<Lock>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cte {
    pub name: String,
    pub columns: Vec<String>,
    pub query: Query,
}

/// FOR UPDATE and its kin; `of` is empty where it means every table of the level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    pub of: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Select(Box<Select>),
    Values(Vec<Vec<Expr>>),
    /// The branches of UNION, INTERSECT and EXCEPT, in order.
    SetOperation(Vec<Query>),
    /// A query in parentheses.
    Nested(Box<Query>),
    Insert(Box<Insert>),
    Update(Box<Update>),
    Delete(Box<Delete>),
    Merge(Box<Merge>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select {
    pub distinct: bool,
    /// The expressions of DISTINCT ON.
    pub distinct_on: Vec<Expr>,
    pub items: Vec<Item>,
    /// SELECT INTO.
    pub into: bool,
    pub from: Vec<From>,
    pub filter: Option<Expr>,
    pub group_by: Option<Vec<Expr>>,
    pub having: Option<Expr>,
    /// The expressions of a WINDOW clause.
    pub windows: Option<Vec<Expr>>,
}

/// One output expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub expr: Expr,
    pub alias: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    Table(Table),
    Derived {
        query: Box<Query>,
        alias: Option<Alias>,
        lateral: bool,
    },
    /// A function in FROM: its calls and arguments.
    Function {
        calls: Vec<Expr>,
        alias: Option<Alias>,
    },
    Joined {
        first: Box<From>,
        joins: Vec<Join>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    pub kind: JoinKind,
    pub right: From,
    pub on: On,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// INNER and CROSS.
    Inner,
    Left,
    Right,
    Full,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum On {
    Nothing,
    Condition(Expr),
    Using(Vec<String>),
    Natural,
}

/// A relation as the text names it; it may yet turn out to be a common table expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub schema: Option<String>,
    pub name: String,
    pub alias: Option<Alias>,
    /// TABLESAMPLE, with its expressions.
    pub sample: Option<Vec<Expr>>,
}

impl Table {
    /// What columns are qualified with.
    pub fn known_as(&self) -> &str {
        self.alias.as_ref().map_or(&self.name, |alias| &alias.name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    pub name: String,
    /// New names for the first columns.
    pub columns: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    pub table: Table,
    /// Empty where the text names none: then the table's own order holds.
    pub columns: Vec<String>,
    pub source: Source,
    pub overriding: Option<Overriding>,
    pub on_conflict: Option<OnConflict>,
    pub returning: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    DefaultValues,
    Rows(Vec<Vec<Expr>>),
    Query(Box<Query>),
}

/// OVERRIDING SYSTEM VALUE or OVERRIDING USER VALUE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overriding {
    System,
    User,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnConflict {
    /// Predicates of the conflict target.
    pub target: Vec<Expr>,
    /// Empty for DO NOTHING.
    pub assignments: Vec<Assignment>,
    pub filter: Option<Expr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The columns on the left, each with all parts of its name.
    pub columns: Vec<Vec<String>>,
    pub value: Expr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    pub table: Table,
    pub assignments: Vec<Assignment>,
    pub from: Vec<From>,
    pub filter: Option<Expr>,
    pub returning: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    pub table: Table,
    pub using: Vec<From>,
    pub filter: Option<Expr>,
    pub returning: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    pub table: Table,
    pub source: From,
    pub on: Expr,
    pub clauses: Vec<MergeClause>,
}

/// One WHEN of a MERGE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeClause {
    /// NOT MATCHED BY SOURCE: it is about rows of the target that no row of the source matches.
    pub by_source: bool,
    pub filter: Option<Expr>,
    pub action: MergeAction,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeAction {
    Nothing,
    Delete,
    Update(Vec<Assignment>),
    Insert {
        /// Empty where the text names none.
        columns: Vec<String>,
        row: Vec<Expr>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// A column, or a whole row, by one to three names.
    Column(Vec<String>),
    /// `*` or `t.*`.
    Wildcard(Vec<String>),
    /// DEFAULT in VALUES or in SET.
    Default,
    Literal(Literal),
    /// `$n`, n from 1.
    Parameter(u16),
    Cast {
        inner: Box<Expr>,
        to: Type,
    },
    /// AND of two or more.
    All(Vec<Expr>),
    /// OR of two or more.
    Any(Vec<Expr>),
    /// `a = b`, pg_catalog's or a user's operator.
    Equal(Box<Expr>, Box<Expr>),
    /// `a IN (b, c)`, not negated; `a = ANY (ARRAY[b, c])`.
    OneOf(Box<Expr>, Vec<Expr>),
    /// `a = ANY (b)`, b an array that is written otherwise.
    ElementOf(Box<Expr>, Box<Expr>),
    /// `a IS NULL`.
    IsNull(Box<Expr>),
    /// `(a, b)`, `ROW (a, b)` not among them.
    Row(Vec<Expr>),
    Call(Box<Call>),
    /// `(a).b`: a field, or a function written like one; without a name for `(a).*`.
    Field {
        inner: Box<Expr>,
        name: Option<String>,
    },
    /// Any operator or special form: only its operands matter.
    Operation(Vec<Expr>),
    Subquery(Box<Query>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    /// Decimal digits that fit an int8, with a sign before them or none.
    Integer(Slotted<i64>),
    /// A quoted string whose value is known exactly.
    Text(Slotted<String>),
    Null,
    /// A string with escapes, which may say anything.
    Escaped,
    /// Any other number, a boolean, a bit string.
    Other,
}

/// A value, and the slot of the text that it comes from. A plan is used again with other literals in the slots, so
/// whoever decides by a value has to say that it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slotted<T> {
    value: T,
    slot: Option<Slot>,
}

/// A literal that may be another one when the plan is used again ([`super::slots`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Among the slots of the text, from 0.
    pub index: u32,
    /// A minus stands before the digits.
    pub negated: bool,
}

impl<T> Slotted<T> {
    pub(super) fn new(value: T, slot: Option<Slot>) -> Self {
        Self { value, slot }
    }

    /// The value for a decision that holds for this value only: the slot is noted in `fixed`.
    pub fn fix(&self, fixed: &mut Vec<u32>) -> &T {
        fixed.extend(self.slot.map(|slot| slot.index));
        &self.value
    }

    /// The value for who keeps the slot beside what is made of it.
    pub fn parts(&self) -> (&T, Option<Slot>) {
        (&self.value, self.slot)
    }
}

impl Slotted<i64> {
    /// With a minus before it; `None` where there is no such integer.
    pub(super) fn negated(&self) -> Option<Self> {
        let slot = self.slot.map(|slot| Slot {
            negated: !slot.negated,
            ..slot
        });
        Some(Self::new(self.value.checked_neg()?, slot))
    }
}

/// A type as a cast names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    Int2,
    Int4,
    Int8,
    /// text, and varchar without a length.
    Text,
    Uuid,
    /// An array of one of these.
    Array(Box<Type>),
    /// A built-in type that neither depends on the shard nor feeds a key: its name.
    Plain(&'static str),
    /// Anything else, such as regclass or a user's type.
    Other(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub schema: Option<String>,
    pub name: String,
    /// `CURRENT_DATE` and its kin, written without parentheses.
    pub keyword: bool,
    /// Arguments, and the expressions of FILTER, ORDER BY, PARTITION BY.
    pub arguments: Vec<Expr>,
    /// DISTINCT, FILTER, WITHIN GROUP or ORDER BY inside: only an aggregate takes these.
    pub aggregates: bool,
    /// OVER.
    pub window: bool,
}
