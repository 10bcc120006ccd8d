//! Prepared statements as the client knows them. A server knows each of them by a number that the whole process shares,
//! so clients that prepare the same text use one statement of a server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::sharded::Shape;
use crate::backend::replies::{Description, StatementId};
use crate::backend::settings::Settings;
use crate::sql::traces::{Traces, traces};

/// Entries of [`Interned`] after which the unused ones are thrown out.
const SWEEP_MIN: usize = 1024;

/// One text with its parameter types.
#[derive(Debug)]
pub struct Prepared {
    pub id: StatementId,
    /// All of the Parse message but the name: text, zero, count of types, types.
    pub tail: Arc<[u8]>,
    /// A server took it once. A later Parse of the same needs no server: where it fails after all, its Bind says so.
    proven: AtomicBool,
    /// What some client was told of its parameters and columns, and its settings then.
    description: OnceLock<(Arc<Settings>, Description)>,
    /// What it may leave behind on its server.
    traces: Option<Box<Traces>>,
    /// Of a sharded database: how it runs.
    shape: Option<Shape>,
}

impl Prepared {
    /// A statement of a sharded database.
    #[must_use]
    pub fn planned(id: StatementId, tail: Arc<[u8]>, shape: Shape) -> Self {
        Self {
            id,
            tail,
            proven: AtomicBool::new(false),
            description: OnceLock::new(),
            traces: None,
            shape: Some(shape),
        }
    }

    #[must_use]
    pub fn shape(&self) -> Option<&Shape> {
        self.shape.as_ref()
    }

    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.tail
            .split(|&byte| byte == 0)
            .next()
            .unwrap_or_default()
    }

    /// What clients were told that read it as one with these settings does.
    #[must_use]
    pub fn description(&self, settings: &Settings) -> Option<Description> {
        let (under, told) = self.description.get()?;
        under.reads_as(settings).then_some(*told)
    }

    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }
}

/// Prepared statements of all clients of a database, by what was prepared.
#[derive(Debug, Default)]
pub struct Interned {
    known: Mutex<HashMap<Arc<[u8]>, Weak<Prepared>>>,
    sweep_at: AtomicU64,
    last_id: AtomicU64,
}

impl Interned {
    /// A number for a statement that nobody else will know. No number is used twice.
    pub fn fresh_id(&self) -> StatementId {
        StatementId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Who prepares one of the texts again gets a statement that no server has yet; who has one keeps it.
    pub fn forget(&self) {
        self.lock().clear();
    }

    /// Lets go of the texts that nobody has prepared any more.
    pub fn sweep(&self) {
        let mut known = self.lock();
        known.retain(|_, prepared| prepared.strong_count() > 0);
        known.shrink_to_fit();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<[u8]>, Weak<Prepared>>> {
        // What is kept here is whole between any two statements.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, tail: &[u8]) -> Arc<Prepared> {
        if let Some(prepared) = self.lock().get(tail).and_then(Weak::upgrade) {
            return prepared;
        }
        // Outside of the lock, for a text may be long. Two sessions may do it twice; the first one's is taken.
        let traces = traces(tail.split(|&byte| byte == 0).next().unwrap_or_default());
        let mut known = self.lock();
        if let Some(prepared) = known.get(tail).and_then(Weak::upgrade) {
            return prepared;
        }
        let sweep_at = usize::try_from(self.sweep_at.load(Ordering::Relaxed))
            .unwrap_or(SWEEP_MIN)
            .max(SWEEP_MIN);
        if known.len() >= sweep_at {
            known.retain(|_, prepared| prepared.strong_count() > 0);
            self.sweep_at
                .store(known.len() as u64 * 2, Ordering::Relaxed);
        }
        let tail: Arc<[u8]> = tail.into();
        let prepared = Arc::new(Prepared {
            id: self.fresh_id(),
            tail: Arc::clone(&tail),
            proven: AtomicBool::new(false),
            description: OnceLock::new(),
            traces,
            shape: None,
        });
        known.insert(tail, Arc::downgrade(&prepared));
        prepared
    }
}

/// The statements of one session.
#[derive(Debug, Default)]
pub struct Statements {
    named: HashMap<Box<[u8]>, Arc<Prepared>, foldhash::fast::RandomState>,
    /// The unnamed statement changes too often to share: its tail in a buffer that is used again, and its number.
    unnamed_tail: Vec<u8>,
    unnamed: Option<StatementId>,
    unnamed_traces: Option<Box<Traces>>,
    unnamed_description: Option<Description>,
    /// What this client was told of statements that it named.
    told: HashMap<StatementId, Description>,
    /// Names whose Parse was not answered yet.
    unconfirmed: Vec<(Box<[u8]>, Arc<Prepared>)>,
    /// Names whose Close was not answered yet.
    closed: Vec<(Box<[u8]>, Arc<Prepared>)>,
}

impl Statements {
    #[must_use]
    pub fn named(&self, name: &[u8]) -> Option<&Arc<Prepared>> {
        self.named.get(name)
    }

    pub fn add(&mut self, name: &[u8], prepared: Arc<Prepared>) {
        self.unconfirmed.push((name.into(), Arc::clone(&prepared)));
        self.named.insert(name.into(), prepared);
    }

    pub fn remove(&mut self, name: &[u8]) -> bool {
        match self.named.remove(name) {
            Some(prepared) => {
                self.told.remove(&prepared.id);
                true
            }
            None => false,
        }
    }

    pub fn clear(&mut self) {
        self.named.clear();
        self.told.clear();
        self.unnamed = None;
    }

    /// Another unnamed statement, under a fresh number.
    pub fn set_unnamed(&mut self, tail: &[u8], id: StatementId, traces: Option<Box<Traces>>) {
        self.unnamed_traces = traces;
        self.unnamed_description = None;
        self.unnamed_tail.clear();
        self.unnamed_tail.extend_from_slice(tail);
        self.unnamed = Some(id);
    }

    /// A Query message or a failed Parse drops the unnamed statement.
    pub fn drop_unnamed(&mut self) {
        self.unnamed = None;
    }

    #[must_use]
    pub fn unnamed(&self) -> Option<(StatementId, &[u8])> {
        self.unnamed.map(|id| (id, self.unnamed_tail.as_slice()))
    }

    #[must_use]
    pub fn id(&self, name: &[u8]) -> Option<StatementId> {
        if name.is_empty() {
            self.unnamed
        } else {
            self.named(name).map(|prepared| prepared.id)
        }
    }

    #[must_use]
    pub fn text(&self, name: &[u8]) -> Option<&[u8]> {
        let tail = if name.is_empty() {
            self.unnamed()?.1
        } else {
            &self.named(name)?.tail
        };
        tail.split(|&byte| byte == 0).next()
    }

    /// What a statement may leave behind when it is executed.
    #[must_use]
    pub fn traces(&self, name: &[u8]) -> Option<&Traces> {
        if name.is_empty() {
            self.unnamed_traces.as_deref()
        } else {
            self.named.get(name)?.traces.as_deref()
        }
    }

    #[must_use]
    pub fn unnamed_description(&self) -> Option<Description> {
        self.unnamed_description
    }

    /// What holds of a named statement, for this client was told so. In doubt what others were told, for they may use the
    /// same server, unless the `transaction` reads statements in a way of its own.
    #[must_use]
    pub fn description(
        &self,
        prepared: &Prepared,
        settings: &Settings,
        transaction: bool,
    ) -> Option<Description> {
        let told = self.told.get(&prepared.id).copied();
        told.or_else(|| prepared.description(settings).filter(|_| !transaction))
    }

    /// The client was told what this statement is. `false`: another client that reads it in the same way was told
    /// something else of the same text.
    pub fn described(
        &mut self,
        id: StatementId,
        told: Description,
        settings: &Arc<Settings>,
        transaction: bool,
    ) -> bool {
        if self.unnamed == Some(id) {
            self.unnamed_description = Some(told);
            return true;
        }
        let Some(prepared) = self.named.values().find(|prepared| prepared.id == id) else {
            return true;
        };
        self.told.insert(id, told);
        if transaction {
            return true;
        }
        let described = prepared
            .description
            .get_or_init(|| (Arc::clone(settings), told));
        described.1 == told || !described.0.reads_as(settings)
    }

    /// The server refused to parse these.
    pub fn parse_failed(&mut self, failed: &[StatementId]) {
        for id in failed {
            // What failed or was skipped came last.
            let last = self.unconfirmed.iter().rposition(|(_, it)| it.id == *id);
            let Some(at) = last else { continue };
            let (name, prepared) = self.unconfirmed.remove(at);
            let known = self.named.get(&name);
            if known.is_some_and(|now| now.id == prepared.id) {
                self.named.remove(&name);
            }
        }
        if self.unnamed.is_some_and(|id| failed.contains(&id)) {
            self.unnamed = None;
        }
    }

    /// A Close that may be skipped: see [`Statements::reopen`].
    pub fn close(&mut self, name: &[u8]) {
        if let Some((name, prepared)) = self.named.remove_entry(name) {
            self.told.remove(&prepared.id);
            self.closed.push((name, prepared));
        }
    }

    /// The last of the Close messages were skipped.
    pub fn reopen(&mut self, count: usize) {
        for _ in 0..count {
            if let Some((name, prepared)) = self.closed.pop() {
                self.named.entry(name).or_insert(prepared);
            }
        }
    }

    /// A Parse or Close of this name was not answered yet.
    #[must_use]
    pub fn is_unconfirmed(&self, name: &[u8]) -> bool {
        let of_name = |(known, _): &(Box<[u8]>, Arc<Prepared>)| **known == *name;
        self.unconfirmed.iter().any(of_name) || self.closed.iter().any(of_name)
    }

    /// Everything sent was answered: what is here now is here to stay.
    pub fn confirm(&mut self) {
        self.closed.clear();
        for (_, prepared) in self.unconfirmed.drain(..) {
            prepared.proven.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_has_one_number_while_somebody_uses_it() {
        let interned = Interned::default();
        let (a, b) = (
            interned.get(b"SELECT 1\0\0\0"),
            interned.get(b"SELECT 1\0\0\0"),
        );
        assert_eq!(a.id, b.id);
        assert_ne!(a.id, interned.get(b"SELECT 2\0\0\0").id);
        let id = a.id;
        drop((a, b));
        assert_ne!(interned.get(b"SELECT 1\0\0\0").id, id);
    }

    #[test]
    fn unused_texts_are_thrown_out() {
        let interned = Interned::default();
        for number in 0..SWEEP_MIN * 3 {
            interned.get(format!("SELECT {number}\0\0\0").as_bytes());
        }
        assert!(interned.known.lock().unwrap().len() <= SWEEP_MIN);
        // And all of them where somebody asks for it.
        let used = interned.get(b"SELECT 'used'\0\0\0");
        interned.sweep();
        assert_eq!(interned.known.lock().unwrap().len(), 1);
        assert_eq!(interned.get(b"SELECT 'used'\0\0\0").id, used.id);
    }

    #[test]
    fn a_failed_parse_takes_its_name_back() {
        let interned = Interned::default();
        let mut statements = Statements::default();
        let good = interned.get(b"SELECT 1\0\0\0");
        statements.add(b"good", Arc::clone(&good));
        assert!(!good.is_proven());
        statements.confirm();
        let bad = interned.get(b"SELEC\0\0\0");
        statements.add(b"bad", Arc::clone(&bad));
        statements.parse_failed(&[bad.id, good.id]);
        assert!(statements.named(b"bad").is_none());
        assert!(statements.named(b"good").is_some());
        statements.confirm();
        assert!(good.is_proven() && !bad.is_proven());
    }
}
