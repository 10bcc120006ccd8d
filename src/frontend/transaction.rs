//! What the session itself knows of the client's transaction, for as long as no server knows it.

use crate::backend::server::Lost;
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

/// A transaction that no server knows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// BEGIN and SET TRANSACTION as the client wrote them.
    texts: Vec<Vec<u8>>,
    savepoints: Vec<Vec<u8>>,
}

impl Begun {
    #[must_use]
    pub fn new(begin: &[u8]) -> Self {
        Self {
            texts: vec![begin.to_vec()],
            savepoints: Vec::new(),
        }
    }

    pub fn set_transaction(&mut self, text: &[u8]) {
        self.texts.push(text.to_vec());
    }

    #[must_use]
    pub fn has_savepoints(&self) -> bool {
        !self.savepoints.is_empty()
    }

    pub fn savepoint(&mut self, name: &[u8]) {
        self.savepoints.push(name.to_vec());
    }

    /// Releases a savepoint and those behind it; `false` where there is none of this name.
    pub fn release(&mut self, name: &[u8]) -> bool {
        let found = self.savepoints.iter().rposition(|known| known == name);
        if let Some(at) = found {
            self.savepoints.truncate(at);
        }
        found.is_some()
    }

    /// Drops the savepoints behind this one; `false` where there is none of this name.
    pub fn roll_back_to(&mut self, name: &[u8]) -> bool {
        let found = self.savepoints.iter().rposition(|known| known == name);
        if let Some(at) = found {
            self.savepoints.truncate(at + 1);
        }
        found.is_some()
    }

    /// The same transaction again, as AND CHAIN has it.
    pub fn chain(&mut self) {
        self.savepoints.clear();
    }

    /// The commands that bring a server to where the client believes to be.
    #[must_use]
    pub fn prologue(&self) -> Vec<Vec<u8>> {
        let mut prologue = self.texts.clone();
        for name in &self.savepoints {
            let mut text = b"SAVEPOINT \"".to_vec();
            for &byte in name {
                if byte == b'"' {
                    text.push(byte);
                }
                text.push(byte);
            }
            text.push(b'"');
            prologue.push(text);
        }
        prologue
    }
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
            begun.prologue(),
            [
                &b"BEGIN READ ONLY -- as written"[..],
                b"SET TRANSACTION DEFERRABLE",
                b"SAVEPOINT \"a\"",
                b"SAVEPOINT \"b\"",
                b"SAVEPOINT \"it\"\"s\"",
            ]
        );
        begun.chain();
        assert!(!begun.has_savepoints() && !begun.release(b"a"));
    }
}
