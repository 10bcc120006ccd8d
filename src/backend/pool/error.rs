//! Why no server could be borrowed.

use std::sync::Arc;
use std::time::Duration;

use super::logins::is_final;
use crate::backend::connect::ConnectError;
use crate::error::{Blame, Report, SqlState};
use crate::names::ShardName;

#[derive(Debug, Clone, thiserror::Error)]
pub enum PoolError {
    #[error("no server connection became free within {} ms", .waited.as_millis())]
    WaitedInVain {
        shard: ShardName,
        /// What kept it from connecting.
        cause: Scarcity,
        waited: Duration,
    },
    #[error("no server of shard \"{shard}\" can be used: {error}")]
    Unreachable {
        shard: ShardName,
        error: Arc<ConnectError>,
    },
    #[error("{error}")]
    LoginRefused { error: Arc<ConnectError> },
    #[error("the pool is closed")]
    Closed,
}

impl PoolError {
    /// What a login that failed means to who waits for it.
    pub(in crate::backend) fn of_login(shard: &ShardName, error: Arc<ConnectError>) -> Self {
        if is_final(&error) {
            return PoolError::LoginRefused { error };
        }
        PoolError::Unreachable {
            shard: shard.clone(),
            error,
        }
    }
}

/// What there is not enough of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scarcity {
    /// Connections of the pool: its size.
    Pool(usize),
    /// The cap of this name, which several pools share.
    Cap(String),
    /// Logins do not come to their end.
    Logins,
}

impl Report for PoolError {
    fn sqlstate(&self) -> SqlState {
        match self {
            PoolError::WaitedInVain { .. } => SqlState::TOO_MANY_CONNECTIONS,
            PoolError::Unreachable { error, .. } => match **error {
                // A server that answers has its own reason.
                ConnectError::Refused { sqlstate, .. } => sqlstate,
                _ => SqlState::CANNOT_CONNECT_NOW,
            },
            PoolError::LoginRefused { error } => error.sqlstate(),
            PoolError::Closed => SqlState::ADMIN_SHUTDOWN,
        }
    }
    fn blame(&self) -> Blame {
        match self {
            PoolError::WaitedInVain { .. } | PoolError::Closed => Blame::Proxy,
            PoolError::Unreachable { .. } | PoolError::LoginRefused { .. } => Blame::Server,
        }
    }
    fn detail(&self) -> Option<String> {
        match self {
            PoolError::WaitedInVain { shard, cause, .. } => Some(match cause {
                Scarcity::Pool(size) => {
                    format!("All {size} connections of the pool for shard \"{shard}\" are in use.")
                }
                Scarcity::Cap(cap) => format!("As many connections as {cap} allows are in use."),
                Scarcity::Logins => {
                    format!("Logins to the server of shard \"{shard}\" did not end in time.")
                }
            }),
            PoolError::Unreachable { error, .. } | PoolError::LoginRefused { error } => {
                error.detail()
            }
            PoolError::Closed => None,
        }
    }
    fn advice(&self) -> Option<String> {
        match self {
            PoolError::WaitedInVain { cause, .. } => Some(match cause {
                Scarcity::Pool(_) => {
                    "Look for long transactions; raise size or wait_timeout in the section [pool]."
                        .into()
                }
                Scarcity::Cap(cap) => format!("Look for long transactions; raise {cap}."),
                Scarcity::Logins => "Look whether the server is overloaded.".into(),
            }),
            PoolError::Unreachable { .. } => {
                Some("pgherd tries again with the next statement.".into())
            }
            PoolError::LoginRefused { error } => error.advice(),
            PoolError::Closed => None,
        }
    }
}
