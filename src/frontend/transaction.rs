//! What the session itself knows of the client's transaction, for as long as no server knows it.

use crate::backend::server::Lost;
use crate::wire::decode::Status;

/// Where the client stands while the session holds no server.
#[derive(Debug, Default)]
pub enum Transaction {
    #[default]
    Idle,
    /// BEGIN was answered and not sent: the first statement says where to.
    Begun {
        /// What to send first: BEGIN as written, then the savepoints.
        prologue: Vec<u8>,
        /// Names of the savepoints in the prologue, in order.
        savepoints: Vec<Vec<u8>>,
    },
    /// An error ended it; everything but ROLLBACK and COMMIT is refused.
    Failed {
        /// The loss of the server, which the client was not told of yet.
        untold: Option<Lost>,
    },
}

impl Transaction {
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Transaction::Idle => Status::Idle,
            Transaction::Begun { .. } => Status::InTransaction,
            Transaction::Failed { .. } => Status::Failed,
        }
    }

    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self, Transaction::Idle)
    }

    /// An error of ours, in the middle of it.
    pub fn fail(&mut self) {
        if let Transaction::Begun { .. } = self {
            *self = Transaction::Failed { untold: None };
        }
    }
}
