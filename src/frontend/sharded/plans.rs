//! The texts that clients sent to a sharded database, each planned once. Texts that differ in literals only share a
//! template, so a simple query costs a scan of its bytes and a look-up, not a parse.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;

use super::cache::Cache;
use super::cursor::Cursor;
use super::explain::{self, Explained};
use crate::catalog::Catalog;
use crate::frontend::statements::{Interned, Prepared};
use crate::names::ShardName;
use crate::placement::Placement;
use crate::planner::{self, Effect, Knowledge, Number, Plan, Refusal, Route, Template};
use crate::sql::scan::{self, Verb, verb};
use crate::sql::setting::{Change, change};
use crate::sql::slots::Stripped;
use crate::sql::utility;
use crate::sql::{TEXT_BYTES_MAX, understand};
use crate::telemetry::DatabaseMetrics;
use crate::wire::decode;
use crate::wire::frame::HEADER_BYTES;

/// Templates that one text without its literals may have; where values matter, there are several.
const VARIANTS_MAX: usize = 8;
/// OIDs below this are the same on every server.
const FIRST_USER_OID: u32 = 16384;

/// What a text is, and what the servers say of it.
#[derive(Debug)]
pub struct Shape {
    pub work: Result<Work, Refusal>,
    /// As the authoritative shard describes it; asked for when a client prepares it.
    pub description: OnceLock<Description>,
    /// Parameter types that the client declared and no server is told, since their OIDs are the authoritative shard's:
    /// index and OID. What the server finds on its own must be the same.
    pub declared: Vec<(usize, u32)>,
    /// It is about settings, those of its transaction: SHOW or `set_config`.
    pub shows: bool,
    /// DECLARE of a cursor.
    pub declares: bool,
    /// What it sets.
    pub change: Option<Box<Change>>,
    /// PREPARE.
    pub prepares: bool,
    /// EXPLAIN, whose answer begins with our own plan where it is text.
    pub explained: Option<bool>,
    /// EXPLAIN (PLAN): the text is the answer, told as a query.
    pub told: bool,
    /// The `search_path` that it was planned under, where it is not the database's.
    pub path: Option<Box<str>>,
    /// Of the latest catalogue after which it was planned like this.
    version: AtomicU64,
}

impl Shape {
    /// More is to be done than to send it where its rows are.
    pub fn is_special(&self) -> bool {
        self.explained.is_some() || self.change.is_some() || self.prepares
    }

    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// It was planned again after a later catalogue. Where that made the same of it, it need not be done once more.
    pub fn again(&self, again: &Shape) {
        if again.work == self.work {
            self.version.store(again.version(), Ordering::Relaxed);
        }
    }

    /// Whether it takes about as much room as its text.
    fn is_small(&self) -> bool {
        match &self.work {
            Ok(Work::Plan(plan)) => plan.is_small(),
            _ => true,
        }
    }

    /// Whether a look at the schemas may make another plan of it: it names something that is not known, or that shards
    /// differ about.
    pub fn may_be_outdated(&self) -> bool {
        match &self.work {
            Ok(Work::Plan(plan)) => plan.must_fail,
            Ok(Work::Command | Work::Cursor | Work::Empty) => false,
            Err(refusal) => matches!(
                refusal.number,
                Number::TableMissing | Number::RelationDiffers | Number::SettingsDiffer
            ),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Work {
    Plan(Plan),
    /// A command about the transaction or the session, told by its first words.
    Command,
    /// FETCH, MOVE or CLOSE of a cursor; DECLARE has the plan of its query.
    Cursor,
    Empty,
}

/// ParameterDescription and RowDescription or NoData, as the client is to see them.
#[derive(Debug)]
pub struct Description {
    pub parameter_types: Vec<u32>,
    /// Both messages.
    pub statement: Bytes,
    /// The second message alone.
    pub rows: Bytes,
}

impl Description {
    /// Whether a server's RowDescription or NoData means the same columns.
    pub fn fits(&self, rows: &[u8]) -> bool {
        match (columns(&self.rows), columns(rows)) {
            (Some(known), Some(found)) => known == found,
            _ => false,
        }
    }
}

/// Name and type of each column; types of users have other OIDs on other servers.
fn columns(rows: &[u8]) -> Option<Vec<(&[u8], u32, &[u8])>> {
    let mut columns = Vec::new();
    if rows.first() == Some(&b'n') {
        return Some(columns);
    }
    let body = rows.get(HEADER_BYTES..)?;
    let mut begin = 2;
    decode::row_description(body, |at| {
        let fields = body.get(at..at + 18).unwrap_or_default();
        let oid = fields
            .get(6..10)
            .and_then(|oid| oid.try_into().ok())
            .map_or(0, u32::from_be_bytes);
        let name = body.get(begin..at).unwrap_or_default();
        begin = at + 18;
        columns.push((
            name,
            oid.min(FIRST_USER_OID),
            fields.get(12..16).unwrap_or_default(),
        ));
    })
    .ok()?;
    Some(columns)
}

/// The planned texts of one database.
pub struct Plans {
    own: Kept,
    /// Those of sessions with another `search_path`: by that, a zero, and the key.
    elsewhere: Kept,
    shards: Box<[ShardName]>,
    /// Of the catalogue that is in force.
    version: AtomicU64,
}

#[derive(Default)]
struct Kept {
    /// By the tail of a Parse message.
    texts: Mutex<Cache<Arc<Prepared>>>,
    /// By the text without its literals; the latest first.
    templates: Mutex<Cache<Arc<[Template]>>>,
}

/// The key of a text under a `search_path`.
fn keyed<'k>(path: Option<&str>, key: &'k [u8]) -> Cow<'k, [u8]> {
    match path {
        None => Cow::Borrowed(key),
        Some(path) => Cow::Owned([path.as_bytes(), b"\0", key].concat()),
    }
}

impl Plans {
    pub fn new(shards: impl Iterator<Item = ShardName>) -> Self {
        Self {
            own: Kept::default(),
            elsewhere: Kept::default(),
            shards: shards.collect(),
            version: AtomicU64::default(),
        }
    }

    fn kept(&self, path: Option<&str>) -> &Kept {
        match path {
            None => &self.own,
            Some(_) => &self.elsewhere,
        }
    }

    /// The plan of a text of which one with other literals was planned before.
    pub fn like(
        &self,
        text: &[u8],
        path: Option<&str>,
        placement: &Placement,
        metrics: &DatabaseMetrics,
    ) -> Option<Plan> {
        // What no parser would be asked has no plan either.
        let text = (text.len() <= TEXT_BYTES_MAX).then_some(text)?;
        let literals = Stripped::of(std::str::from_utf8(text).ok()?);
        let plan = self.instance(&literals, path, placement)?;
        metrics.plan_hits.add(1);
        Some(plan)
    }

    /// What is known of this Parse message's `tail`; plans it where it is new.
    pub fn get(
        &self,
        tail: &[u8],
        path: Option<&str>,
        interned: &Interned,
        knowledge: &Knowledge<'_>,
        metrics: &DatabaseMetrics,
    ) -> Arc<Prepared> {
        let key = keyed(path, tail);
        let texts = &self.kept(path).texts;
        if let Some(known) = lock(texts).find(&key) {
            metrics.plan_hits.add(1);
            return known;
        }
        // What cannot be told was refused when the session set it.
        let catalog: Option<Catalog> = path.and_then(|path| knowledge.catalog.under_path(path));
        let knowledge = &Knowledge {
            catalog: catalog.as_ref().unwrap_or(knowledge.catalog),
            placement: knowledge.placement,
        };
        // Planned outside of the lock; two sessions may do it twice, and the later one wins.
        let text = tail.split(|&byte| byte == 0).next().unwrap_or_default();
        let (mut server_tail, declared) = without_user_types(tail, text.len());
        let change = change(text).filter(|_| matches!(verb(text), Verb::Select));
        let explained = explain::read(text);
        let work = match &explained {
            Some(Explained::Plan(statement)) => {
                let plan = self.work(statement, path, knowledge, metrics);
                server_tail = explain::told(&plan, &self.shards);
                Ok(Work::Plan(with_route(Route::Any)))
            }
            Some(Explained::Run {
                statement, analyze, ..
            }) => {
                if verb(statement).is_query() {
                    let plan = self.plan(statement, path, knowledge, metrics);
                    plan.map(|plan| Work::Plan(explain::without_effect(plan, *analyze)))
                } else {
                    Err(Refusal::new(Number::Utility))
                }
            }
            None => self.work(text, path, knowledge, metrics),
        };
        let shape = Shape {
            work,
            description: OnceLock::new(),
            declared,
            shows: matches!(verb(text), Verb::Show { .. }) || change.is_some(),
            version: AtomicU64::new(knowledge.catalog.version()),
            told: matches!(explained, Some(Explained::Plan(_))),
            declares: matches!(verb(text), Verb::Declare),
            change: change.map(Box::new),
            prepares: matches!(verb(text), Verb::Prepare { .. }),
            explained: match explained {
                Some(Explained::Run { text, .. }) => Some(text),
                _ => None,
            },
            path: path.map(Into::into),
        };
        let prepared = Arc::new(Prepared::planned(
            interned.fresh_id(),
            server_tail.into(),
            shape,
        ));
        let version = knowledge.catalog.version();
        if prepared.shape().is_some_and(Shape::is_small) {
            self.keep(texts, &key, Arc::clone(&prepared), version, metrics);
        }
        prepared
    }

    /// All will be planned and described again.
    pub fn forget(&self) {
        for kept in [&self.own, &self.elsewhere] {
            *lock(&kept.texts) = Cache::default();
            *lock(&kept.templates) = Cache::default();
        }
    }

    /// The version of the catalogue that is in force.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// There is another catalogue: everything is forgotten, and what is being planned after the old one is not kept.
    pub fn renew(&self, version: u64) {
        self.version.store(version, Ordering::Release);
        self.forget();
    }

    /// Keeps it, unless the catalogue of this version has been replaced: who replaces it forgets all under this lock,
    /// behind the change of the version.
    fn keep<V: Clone>(
        &self,
        cache: &Mutex<Cache<V>>,
        key: &[u8],
        value: V,
        version: u64,
        metrics: &DatabaseMetrics,
    ) {
        let mut cache = lock(cache);
        if self.version() == version {
            cache.keep(key.into(), value);
            metrics.plan_evictions.add(cache.take_evicted() as u64);
        }
    }

    fn instance(
        &self,
        literals: &Stripped<'_>,
        path: Option<&str>,
        placement: &Placement,
    ) -> Option<Plan> {
        let key = keyed(path, literals.key());
        let variants = lock(&self.kept(path).templates).find(&key)?;
        variants
            .iter()
            .find_map(|template| template.plan(literals, placement))
    }

    fn work(
        &self,
        text: &[u8],
        path: Option<&str>,
        knowledge: &Knowledge<'_>,
        metrics: &DatabaseMetrics,
    ) -> Result<Work, Refusal> {
        let statements = scan::split(text, true);
        match statements.as_slice() {
            [] => Ok(Work::Empty),
            [one] => {
                let statement = text.get(one.clone()).unwrap_or_default();
                if let Some(cursor) = Cursor::of(statement) {
                    return self.cursor(&cursor, path, knowledge, metrics);
                }
                if let Some(plan) = self.prepares(statement, path, knowledge, metrics) {
                    return Ok(Work::Plan(plan));
                }
                unplanned(statement).unwrap_or_else(|| {
                    let plan = self.plan(statement, path, knowledge, metrics);
                    plan.map(Work::Plan)
                })
            }
            _ => Err(Refusal::new(Number::ManyStatements)),
        }
    }

    /// A cursor is on the shard that its query needs.
    fn cursor(
        &self,
        cursor: &Cursor<'_>,
        path: Option<&str>,
        knowledge: &Knowledge<'_>,
        metrics: &DatabaseMetrics,
    ) -> Result<Work, Refusal> {
        let Cursor::Declare { holds, query, .. } = cursor else {
            return Ok(Work::Cursor);
        };
        if *holds {
            return Err(Refusal::about(Number::Cursor, "WITH HOLD"));
        }
        let plan = self.plan(query, path, knowledge, metrics)?;
        match plan.route {
            Route::One(_) | Route::Any | Route::Authoritative | Route::Key { .. } => {
                Ok(Work::Plan(plan))
            }
            Route::Keys(_) | Route::Some(_) | Route::Every => {
                Err(Refusal::about(Number::Cursor, "rows of several shards"))
            }
        }
    }

    /// PREPARE of a statement about the catalogue, which only servers of one shard are to run.
    fn prepares(
        &self,
        statement: &[u8],
        path: Option<&str>,
        knowledge: &Knowledge<'_>,
        metrics: &DatabaseMetrics,
    ) -> Option<Plan> {
        let Verb::Prepare { .. } = verb(statement) else {
            return None;
        };
        let inner = statement.get(utility::prepared(statement)?)?;
        if !verb(inner).is_query() {
            return None;
        }
        let plan = self.plan(inner, path, knowledge, metrics).ok()?;
        let harmless = plan.route == Route::Authoritative && plan.effect == Effect::Read;
        (harmless && !plan.must_fail).then_some(plan)
    }

    /// Plans a statement, and keeps what others may use of it.
    fn plan(
        &self,
        statement: &[u8],
        path: Option<&str>,
        knowledge: &Knowledge<'_>,
        metrics: &DatabaseMetrics,
    ) -> Result<Plan, Refusal> {
        let not_utf8 = || Refusal::about(Number::NotParsed, "bytes that are not UTF-8");
        let statement = std::str::from_utf8(statement).map_err(|_| not_utf8())?;
        let literals = Stripped::of(statement);
        if let Some(plan) = self.instance(&literals, path, knowledge.placement) {
            metrics.plan_hits.add(1);
            return Ok(plan);
        }
        metrics.plan_misses.add(1);
        let template = planner::template(&understand(statement)?, knowledge, &literals)?;
        let plan = template.written().clone();
        if !plan.must_fail && template.is_small() {
            let templates = &self.kept(path).templates;
            let key = keyed(path, literals.key());
            let known = lock(templates).find(&key);
            let known = known.iter().flat_map(|known| known.iter().cloned());
            let variants = std::iter::once(template).chain(known).take(VARIANTS_MAX);
            let version = knowledge.catalog.version();
            self.keep(templates, &key, variants.collect(), version, metrics);
        }
        Ok(plan)
    }
}

fn lock<V>(cache: &Mutex<Cache<V>>) -> MutexGuard<'_, Cache<V>> {
    // What is kept here is whole between any two statements.
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the types with OIDs of users out of a Parse message's tail.
fn without_user_types(tail: &[u8], text_bytes: usize) -> (Vec<u8>, Vec<(usize, u32)>) {
    let mut tail = tail.to_vec();
    let mut declared = Vec::new();
    // Behind the text: its zero and the count.
    let types = tail.get_mut(text_bytes + 3..).unwrap_or_default();
    for (index, bytes) in types.chunks_exact_mut(4).enumerate() {
        let oid = <[u8; 4]>::try_from(&*bytes).map_or(0, u32::from_be_bytes);
        if oid >= FIRST_USER_OID {
            declared.push((index, oid));
            bytes.fill(0);
        }
    }
    (tail, declared)
}

/// What is said of a statement by its first words; `None` where it has to be planned.
fn unplanned(statement: &[u8]) -> Option<Result<Work, Refusal>> {
    let number = match verb(statement) {
        Verb::Empty => return Some(Ok(Work::Empty)),
        Verb::Select if change(statement).is_some() => {
            return Some(Ok(Work::Plan(with_route(Route::Authoritative))));
        }
        Verb::Select
        | Verb::Insert
        | Verb::Update
        | Verb::Delete
        | Verb::Merge
        | Verb::With
        | Verb::Values
        | Verb::Table
        | Verb::Other(_) => return None,
        Verb::Show { .. } => return Some(Ok(Work::Plan(with_route(Route::Authoritative)))),
        Verb::Begin { .. }
        | Verb::Commit { .. }
        | Verb::Rollback { .. }
        | Verb::Savepoint { .. }
        | Verb::Release { .. }
        | Verb::RollbackTo { .. }
        | Verb::SetLocal { .. }
        | Verb::SetSession { .. }
        | Verb::SetTransaction { .. }
        | Verb::SetConstraints
        | Verb::Reset { .. }
        | Verb::Discard(_)
        | Verb::Deallocate { .. }
        | Verb::Unlisten => return Some(Ok(Work::Command)),
        Verb::PrepareTransaction | Verb::CommitPrepared | Verb::RollbackPrepared => {
            Number::TwoPhase
        }
        // Nothing else can have been prepared.
        Verb::Execute { .. } if utility::executes_constants(statement) => {
            return Some(Ok(Work::Plan(with_route(Route::Authoritative))));
        }
        Verb::Prepare { .. } | Verb::Execute { .. } => Number::SqlPrepare,
        // Changes of the schema ask that shard first.
        Verb::Lock if utility::locks_access_share(statement) => {
            return Some(Ok(Work::Plan(with_route(Route::Authoritative))));
        }
        Verb::Listen | Verb::Notify => Number::Notifications,
        Verb::Copy => Number::CopySharded,
        Verb::Declare | Verb::Fetch | Verb::Move | Verb::Close => Number::Cursor,
        Verb::Create { temp: true } => Number::Temporary,
        Verb::Create { temp: false }
        | Verb::Alter
        | Verb::Drop
        | Verb::Truncate
        | Verb::Comment
        | Verb::Grant
        | Verb::Revoke
        | Verb::Refresh => Number::Ddl,
        Verb::Lock
        | Verb::Explain
        | Verb::Do
        | Verb::Call
        | Verb::Load
        | Verb::Vacuum
        | Verb::Analyze
        | Verb::Cluster
        | Verb::Checkpoint
        | Verb::Reindex => Number::Utility,
    };
    Some(Err(Refusal::new(number)))
}

/// One that reads. Settings are those of the authoritative shard.
fn with_route(route: Route) -> Plan {
    Plan {
        route,
        effect: Effect::Read,
        command: planner::Command::Select,
        must_fail: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oids_of_users_types_are_told_to_no_server() {
        let tail = b"SELECT $1\0\0\x02\0\0\0\x17\0\0\x40\0";
        let (server, declared) = without_user_types(tail, 9);
        assert_eq!(server, b"SELECT $1\0\0\x02\0\0\0\x17\0\0\0\0");
        assert_eq!(declared, [(1, 16384)]);
    }
}
