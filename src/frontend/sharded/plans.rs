//! The texts that clients sent to a sharded database, each planned once: two generations, so that what is used stays
//! and what was sent once is forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use crate::catalog::Catalog;
use crate::frontend::statements::{Interned, Prepared};
use crate::placement::Placement;
use crate::planner::{self, Effect, Knowledge, Number, Plan, Refusal, Route};
use crate::sql::scan;
use crate::sql::scan::{Verb, verb};
use crate::wire::decode;
use crate::wire::frame::HEADER_BYTES;

/// Entries of one generation.
const ENTRIES_MAX: usize = 2048;
/// Bytes of the texts of one generation.
const TEXT_BYTES_MAX: usize = 8 << 20;
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
    /// SHOW.
    pub shows: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Work {
    Plan(Plan),
    /// A command about the transaction or the session, told by its first words.
    Command,
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

#[derive(Default)]
struct Generations {
    young: HashMap<Arc<[u8]>, Arc<Prepared>>,
    young_bytes: usize,
    old: HashMap<Arc<[u8]>, Arc<Prepared>>,
}

/// The planned texts of one database.
#[derive(Default)]
pub struct Plans(Mutex<Generations>);

impl Plans {
    /// What is known of this Parse message's `tail`; plans it where it is new.
    pub fn get(
        &self,
        tail: &[u8],
        interned: &Interned,
        catalog: &Catalog,
        placement: &Placement,
    ) -> Arc<Prepared> {
        if let Some(known) = self.lock().find(tail) {
            return known;
        }
        // Planned outside of the lock; two sessions may do it twice, and the later one wins.
        let text = tail.split(|&byte| byte == 0).next().unwrap_or_default();
        let (server_tail, declared) = without_user_types(tail, text.len());
        let shape = Shape {
            work: work(text, &Knowledge { catalog, placement }),
            description: OnceLock::new(),
            declared,
            shows: matches!(verb(text), Verb::Show { .. }),
        };
        let prepared = Arc::new(Prepared::planned(
            interned.fresh_id(),
            server_tail.into(),
            shape,
        ));
        self.lock().keep(tail.into(), &prepared);
        prepared
    }

    /// All will be planned and described again.
    pub fn forget(&self) {
        *self.lock() = Generations::default();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        // What is kept here is whole between any two statements.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn find(&mut self, tail: &[u8]) -> Option<Arc<Prepared>> {
        if let Some(known) = self.young.get(tail) {
            return Some(Arc::clone(known));
        }
        let (tail, known) = self.old.remove_entry(tail)?;
        self.keep(tail, &known);
        Some(known)
    }

    fn keep(&mut self, tail: Arc<[u8]>, prepared: &Arc<Prepared>) {
        if self.young.len() >= ENTRIES_MAX || self.young_bytes + tail.len() > TEXT_BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += tail.len();
        self.young.insert(tail, Arc::clone(prepared));
    }
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

fn work(text: &[u8], knowledge: &Knowledge<'_>) -> Result<Work, Refusal> {
    let statements = scan::split(text, true);
    let statement = match statements.as_slice() {
        [] => return Ok(Work::Empty),
        [one] => text.get(one.clone()).unwrap_or_default(),
        _ => return Err(Refusal::new(Number::ManyStatements)),
    };
    let number = match verb(statement) {
        Verb::Empty => return Ok(Work::Empty),
        Verb::Select
        | Verb::Insert
        | Verb::Update
        | Verb::Delete
        | Verb::Merge
        | Verb::With
        | Verb::Values
        | Verb::Table
        | Verb::Other(_) => return plan(statement, knowledge).map(Work::Plan),
        Verb::Show { .. } => return Ok(Work::Plan(shown_by_the_authoritative())),
        Verb::Begin { .. }
        | Verb::Commit { .. }
        | Verb::Rollback { .. }
        | Verb::Savepoint { .. }
        | Verb::Release { .. }
        | Verb::RollbackTo { .. }
        | Verb::SetLocal { .. }
        | Verb::SetTransaction { .. }
        | Verb::SetConstraints
        | Verb::Reset { .. }
        | Verb::Discard(_)
        | Verb::Deallocate { .. }
        | Verb::Unlisten => return Ok(Work::Command),
        Verb::SetSession { .. } => Number::SessionSetting,
        Verb::PrepareTransaction | Verb::CommitPrepared | Verb::RollbackPrepared => {
            Number::TwoPhase
        }
        Verb::Prepare { .. } | Verb::Execute { .. } => Number::SqlPrepare,
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
    Err(Refusal::new(number))
}

fn plan(statement: &[u8], knowledge: &Knowledge<'_>) -> Result<Plan, Refusal> {
    let text = std::str::from_utf8(statement)
        .map_err(|_| Refusal::about(Number::NotParsed, "bytes that are not UTF-8"))?;
    planner::plan(&crate::sql::understand(text)?, knowledge)
}

/// SHOW reads a setting; those of the authoritative shard are the database's.
fn shown_by_the_authoritative() -> Plan {
    Plan {
        route: Route::Authoritative,
        effect: Effect::Read,
        command: planner::Command::Select,
        assigned: None,
        must_fail: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(text: &str) -> Vec<u8> {
        [text.as_bytes(), b"\0\0\0"].concat()
    }

    #[test]
    fn what_is_used_again_outlives_what_was_used_once() {
        let (plans, interned) = (Plans::default(), Interned::default());
        let (catalog, placement) = (
            Catalog::default(),
            Placement::new("c", 1, vec![crate::names::ShardId(0); 1024], 1).unwrap(),
        );
        let get = |text: &str| plans.get(&tail(text), &interned, &catalog, &placement);
        let kept = get("COMMIT").id;
        for number in 0..ENTRIES_MAX * 5 {
            get(&format!("SET LOCAL x = {number}"));
            if number % 1000 == 0 {
                assert_eq!(get("COMMIT").id, kept);
            }
        }
        let generations = plans.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * ENTRIES_MAX);
        assert!(
            !generations
                .young
                .contains_key(tail("SET LOCAL x = 0").as_slice())
        );
    }

    #[test]
    fn oids_of_users_types_are_told_to_no_server() {
        let tail = b"SELECT $1\0\0\x02\0\0\0\x17\0\0\x40\0";
        let (server, declared) = without_user_types(tail, 9);
        assert_eq!(server, b"SELECT $1\0\0\x02\0\0\0\x17\0\0\0\0");
        assert_eq!(declared, [(1, 16384)]);
    }
}
