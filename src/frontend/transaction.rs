//! What the session itself knows of the client's transaction: all of it for as long as no server knows it, and
//! afterwards what another server has to be told to join.

use crate::backend::server::Lost;
use crate::names::ShardId;
use crate::wire::decode::Status;

/// Where the client stands while the session holds no server.
#[derive(Debug, Default)]
pub enum Transaction {
    #[default]
    Idle,
    /// BEGIN was answered and not sent: the first statement says where to.
    Begun(Begun),
    /// An error ended it; everything but ROLLBACK and COMMIT is refused.
    Failed {
        /// The loss of the server, which the client was not told of yet.
        untold: Option<Lost>,
    },
}

/// A transaction as the client began it: what a server is sent to stand where the client believes to be.
///
/// Kept for as long as the transaction lasts, for every server that joins it. Commands that were sent and not answered
/// yet stand behind the others, since nobody knows whether they will succeed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Begun {
    steps: Vec<Step>,
    /// So many of the steps have succeeded.
    sure: usize,
    /// They were too many: what was done is not known any more, and there are no steps.
    untold: bool,
}

/// One command of a transaction that other servers are told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// BEGIN and SET TRANSACTION as the client wrote them.
    Modes(Vec<u8>),
    /// SET LOCAL and SET CONSTRAINTS. `rereads`: statements that were prepared before mean something else now.
    Local {
        text: Vec<u8>,
        rereads: bool,
    },
    /// SET, which outlives the transaction.
    Set {
        text: Vec<u8>,
        rereads: bool,
    },
    Savepoint(Vec<u8>),
    Release(Vec<u8>),
    RollBackTo(Vec<u8>),
    /// A cursor on this shard; no other one is told.
    Cursor {
        name: Vec<u8>,
        shard: ShardId,
    },
    /// All where none is named.
    CloseCursor(Option<Vec<u8>>),
}

impl Step {
    /// Statements that a server has prepared mean something else behind it.
    #[must_use]
    pub fn rereads(&self) -> bool {
        match self {
            Step::Local { rereads, .. } | Step::Set { rereads, .. } => *rereads,
            _ => false,
        }
    }
}

/// Steps of one transaction that are kept.
const STEPS_MAX: usize = 1000;

impl Begun {
    #[must_use]
    pub fn new(begin: &[u8]) -> Self {
        Self {
            steps: vec![Step::Modes(begin.to_vec())],
            sure: 1,
            untold: false,
        }
    }

    pub fn set_transaction(&mut self, text: &[u8]) {
        self.succeeds(Step::Modes(text.to_vec()));
    }

    /// What changes settings in it.
    pub fn sets(&self) -> impl Iterator<Item = &[u8]> {
        self.steps.iter().filter_map(|step| match step {
            Step::Local { text, .. } | Step::Set { text, .. } => Some(text.as_slice()),
            _ => None,
        })
    }

    /// COMMIT leaves something that only a server can tell.
    #[must_use]
    pub fn leaves_settings(&self) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(step, Step::Set { .. }))
    }

    #[must_use]
    pub fn has_savepoints(&self) -> bool {
        let is_savepoint = |step: &Step| matches!(step, Step::Savepoint(_));
        self.steps.iter().any(is_savepoint)
    }

    pub fn savepoint(&mut self, name: &[u8]) {
        self.succeeds(Step::Savepoint(name.to_vec()));
    }

    /// Releases a savepoint and those behind it; `false` where there is none of this name. What was set since stays.
    pub fn release(&mut self, name: &[u8]) -> bool {
        let Some(at) = self.position(name) else {
            return false;
        };
        let mut index = 0;
        self.steps.retain(|step| {
            index += 1;
            index <= at || !matches!(step, Step::Savepoint(_))
        });
        self.sure = self.steps.len();
        true
    }

    /// Drops all that came behind this savepoint; `false` where there is none of this name.
    pub fn roll_back_to(&mut self, name: &[u8]) -> bool {
        let found = self.position(name);
        if let Some(at) = found {
            self.steps.truncate(at + 1);
            self.sure = self.steps.len();
        }
        found.is_some()
    }

    fn position(&self, name: &[u8]) -> Option<usize> {
        let is_it = |step: &Step| matches!(step, Step::Savepoint(known) if known == name);
        self.steps.iter().rposition(is_it)
    }

    /// The same transaction again, as AND CHAIN has it.
    pub fn chain(&mut self) {
        self.steps.retain(|step| matches!(step, Step::Modes(_)));
        self.sure = self.steps.len();
    }

    /// A server was sent this, and its answer is not known yet.
    pub fn is_sent(&mut self, step: Step) {
        self.steps.push(step);
        self.limit();
    }

    /// All that was sent is answered. So many of the commands have succeeded; the others, behind an error, have not.
    pub fn confirm(&mut self, done: usize) {
        if self.steps.len() == self.sure {
            return;
        }
        let sent = self.steps.split_off(self.sure);
        for step in sent.into_iter().take(done) {
            self.succeeds(step);
        }
    }

    /// A server has done this.
    pub fn succeeds(&mut self, step: Step) {
        match step {
            Step::Release(name) => {
                self.release(&name);
            }
            Step::RollBackTo(name) => {
                self.roll_back_to(&name);
            }
            Step::CloseCursor(closed) => self.steps.retain(|step| match step {
                Step::Cursor { name, .. } => closed.as_ref().is_some_and(|closed| closed != name),
                _ => true,
            }),
            step => self.steps.push(step),
        }
        self.sure = self.steps.len();
        self.limit();
    }

    fn limit(&mut self) {
        if self.steps.len() > STEPS_MAX || self.untold {
            *self = Self {
                untold: true,
                ..Self::default()
            };
        }
    }

    /// The shard of a cursor.
    #[must_use]
    pub fn cursor(&self, wanted: &[u8]) -> Option<ShardId> {
        let last = self.steps.iter().rev().find(|step| match step {
            Step::Cursor { name, .. } => name == wanted,
            Step::CloseCursor(name) => name.as_ref().is_none_or(|name| name == wanted),
            _ => false,
        });
        match last {
            Some(Step::Cursor { shard, .. }) => Some(*shard),
            _ => None,
        }
    }

    /// Whether statements that a server has prepared mean something else in this transaction.
    #[must_use]
    pub fn rereads(&self) -> bool {
        self.steps.iter().any(Step::rereads)
    }

    /// The commands that bring a server to where the client believes to be; `None` where they are not known.
    #[must_use]
    pub fn prologue(&self) -> Option<Vec<Vec<u8>>> {
        let text = |step: &Step| match step {
            Step::Modes(text) | Step::Local { text, .. } | Step::Set { text, .. } => {
                Some(text.clone())
            }
            Step::Savepoint(name) => Some(savepoint(name)),
            // Of those that have succeeded, only what is left of them is kept.
            Step::Release(_) | Step::RollBackTo(_) => None,
            Step::Cursor { .. } | Step::CloseCursor(_) => None,
        };
        let known = !self.steps.is_empty() && self.sure == self.steps.len();
        known.then(|| self.steps.iter().filter_map(text).collect())
    }
}

fn savepoint(name: &[u8]) -> Vec<u8> {
    let mut text = b"SAVEPOINT \"".to_vec();
    for &byte in name {
        if byte == b'"' {
            text.push(byte);
        }
        text.push(byte);
    }
    text.push(b'"');
    text
}

impl Transaction {
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Transaction::Idle => Status::Idle,
            Transaction::Begun(_) => Status::InTransaction,
            Transaction::Failed { .. } => Status::Failed,
        }
    }

    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self, Transaction::Idle)
    }

    /// An error of ours, in the middle of it.
    pub fn fail(&mut self) {
        if let Transaction::Begun(_) = self {
            *self = Transaction::Failed { untold: None };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn savepoints_nest_as_on_a_server() {
        let mut begun = Begun::new(b"BEGIN READ ONLY -- as written");
        for name in [&b"a"[..], b"b", b"a", b"it\"s"] {
            begun.savepoint(name);
        }
        assert!(begun.roll_back_to(b"a"));
        assert!(!begun.release(b"it\"s"));
        assert!(begun.release(b"a"));
        begun.savepoint(b"it\"s");
        begun.set_transaction(b"SET TRANSACTION DEFERRABLE");
        assert_eq!(
            begun.prologue().unwrap(),
            [
                &b"BEGIN READ ONLY -- as written"[..],
                b"SAVEPOINT \"a\"",
                b"SAVEPOINT \"b\"",
                b"SAVEPOINT \"it\"\"s\"",
                b"SET TRANSACTION DEFERRABLE",
            ]
        );
        begun.chain();
        assert!(!begun.has_savepoints() && !begun.release(b"a"));
    }

    fn local(text: &str) -> Step {
        Step::Local {
            text: text.into(),
            rereads: text.contains("datestyle"),
        }
    }

    #[test]
    fn what_was_set_goes_with_its_savepoint_and_stays_where_that_is_released() {
        let texts = |begun: &Begun| {
            let lines = begun.prologue().unwrap().concat();
            String::from_utf8(lines).unwrap()
        };
        let mut begun = Begun::new(b"BEGIN;");
        begun.savepoint(b"a");
        begun.succeeds(local("SET LOCAL x = 1;"));
        begun.savepoint(b"b");
        begun.succeeds(local("SET LOCAL datestyle = 'German';"));
        assert!(begun.rereads());
        let mut released = begun.clone();
        assert!(released.release(b"a"));
        assert_eq!(
            texts(&released),
            "BEGIN;SET LOCAL x = 1;SET LOCAL datestyle = 'German';"
        );
        assert!(begun.roll_back_to(b"b"));
        assert!(!begun.rereads());
        assert_eq!(
            texts(&begun),
            "BEGIN;SAVEPOINT \"a\"SET LOCAL x = 1;SAVEPOINT \"b\""
        );
        begun.chain();
        assert_eq!(texts(&begun), "BEGIN;");
    }

    #[test]
    fn a_cursor_is_known_until_it_is_closed_or_rolled_back() {
        let cursor = |shard| Step::Cursor {
            name: b"c".to_vec(),
            shard: ShardId(shard),
        };
        let mut begun = Begun::new(b"BEGIN");
        begun.succeeds(cursor(1));
        begun.savepoint(b"a");
        begun.is_sent(Step::CloseCursor(Some(b"c".to_vec())));
        assert_eq!(begun.cursor(b"c"), None);
        begun.is_sent(cursor(2));
        assert_eq!(begun.cursor(b"c"), Some(ShardId(2)));
        // Nothing of it has succeeded.
        begun.confirm(0);
        assert_eq!(begun.cursor(b"c"), Some(ShardId(1)));
        begun.succeeds(Step::CloseCursor(None));
        begun.succeeds(cursor(0));
        assert!(begun.roll_back_to(b"a"));
        assert_eq!(begun.cursor(b"c"), None);
        assert_eq!(begun.prologue().unwrap().len(), 2);
    }

    #[test]
    fn what_was_sent_counts_once_it_has_succeeded() {
        let mut begun = Begun::new(b"BEGIN");
        begun.is_sent(Step::Savepoint(b"a".to_vec()));
        begun.is_sent(Step::RollBackTo(b"a".to_vec()));
        begun.is_sent(Step::Savepoint(b"skipped".to_vec()));
        assert_eq!(begun.prologue(), None);
        begun.confirm(2);
        let expected = [&b"BEGIN"[..], b"SAVEPOINT \"a\""];
        assert_eq!(begun.prologue().unwrap(), expected);
        begun.confirm(0);
        assert_eq!(begun.prologue().unwrap(), expected);
        for _ in 0..STEPS_MAX {
            begun.savepoint(b"more");
        }
        assert_eq!(begun.prologue(), None);
        begun.roll_back_to(b"a");
        begun.confirm(0);
        assert_eq!(begun.prologue(), None);
    }
}
