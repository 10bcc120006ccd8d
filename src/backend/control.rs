//! The control plane's door to one shard: a small pool of connections that speak SQL. The only room that names
//! `deadpool_postgres` and `tokio_postgres`.
//!
//! For what pgherd asks in its own name: placement, catalogue, probes, recovery. Clients' statements never come here,
//! for rows are text and nothing of the reply but rows is kept.
//!
//! What would surprise: a session begins with `search_path = pg_catalog`, so a stranger's function in `public` cannot
//! get between (`RESET search_path` gives the server's own back). And a transaction dropped before its commit takes its
//! connection with it: the server rolls back, and the pool never sees a session in an unknown state.

mod error;
mod hosts;
mod settings;
mod tls;

pub use error::ControlError;

use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
    TimeoutType,
};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use self::hosts::{Hosts, Wanted};
use self::settings::{connection_settings, encryption};
use self::tls::Tls;
use super::connect::Encryption;
use crate::config::Dsn;
use crate::error::SqlState;

/// Rows as text, in the server's output format; `None` is NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// How long the server may take beyond its own `statement_timeout` before the connection is given up.
const SERVER_GRACE: Duration = Duration::from_secs(5);

/// What a pool of control connections may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlLimits {
    pub connections_max: usize,
    /// Connecting and logging in, unless the connection string says otherwise; also how long to wait for a free one.
    pub connect_timeout: Duration,
    /// Of each statement; zero: none.
    pub statement_timeout: Duration,
}

impl Default for ControlLimits {
    fn default() -> Self {
        Self {
            connections_max: 2,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
        }
    }
}

/// A small pool of control connections to one server. Connects when first asked.
#[derive(Debug, Clone)]
pub struct Control {
    server: String,
    limits: ControlLimits,
    pool: Pool,
}

impl Control {
    /// `server` is what errors call it. Does not connect yet.
    ///
    /// # Errors
    /// When the connection string cannot serve as a control connection: no user, or TLS files that cannot be used.
    pub fn new(
        server: impl Into<String>,
        dsn: &Dsn,
        limits: ControlLimits,
    ) -> Result<Self, ControlError> {
        let server = server.into();
        let limits = ControlLimits {
            connect_timeout: dsn.connect_timeout.unwrap_or(limits.connect_timeout),
            ..limits
        };
        let config = connection_settings(&server, dsn, limits.connect_timeout)?;
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Verified,
        };
        let wanted = Wanted::by(dsn);
        let limit = limits.connect_timeout;
        let manager = match encryption(&server, dsn)? {
            Encryption::Off => {
                let tls = NoTls;
                Manager::from_connect(config, Hosts { tls, wanted, limit }, recycling)
            }
            Encryption::Preferred(tls) | Encryption::Required(tls) => {
                let tls = Tls(tls);
                Manager::from_connect(config, Hosts { tls, wanted, limit }, recycling)
            }
        };
        // Each host has its own time; names with several addresses share that of their hosts.
        let hosts = u32::try_from(dsn.hosts.len()).unwrap_or(u32::MAX);
        let pool = Pool::builder(manager)
            .max_size(limits.connections_max.max(1))
            .wait_timeout(Some(limits.connect_timeout))
            .create_timeout(Some(limit.saturating_mul(hosts)))
            .recycle_timeout(Some(limits.connect_timeout))
            .post_create(settle(wanted, limits.statement_timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| ControlError::Unreachable {
                server: server.clone(),
                cause: error.to_string(),
            })?;
        Ok(Self {
            server,
            limits,
            pool,
        })
    }

    /// What errors call this server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The rows of one statement (of the last ones, when several are given), each column as text.
    ///
    /// # Errors
    /// Connecting, the server's own error, or a time-out.
    pub async fn rows(&self, sql: &str) -> Result<Rows, ControlError> {
        let mut session = self.session().await?;
        let answer = session.rows(sql).await;
        session.reuse = true;
        answer
    }

    /// Runs one or several statements and forgets their rows.
    ///
    /// # Errors
    /// Connecting, the server's own error, or a time-out.
    pub async fn execute(&self, sql: &str) -> Result<(), ControlError> {
        self.rows(sql).await.map(drop)
    }

    /// One connection, for statements that belong together (a `SET`, an advisory lock of the session). It is closed
    /// afterwards, so nothing that was set on it outlives it.
    ///
    /// # Errors
    /// No connection in time, or none at all.
    pub async fn session(&self) -> Result<ControlSession, ControlError> {
        match self.pool.get().await {
            Ok(client) => {
                let server = self.server.clone();
                Ok(ControlSession {
                    server,
                    limits: self.limits,
                    client: Some(client),
                    reuse: false,
                })
            }
            Err(error) => Err(self.connect_error(error)),
        }
    }

    /// A connection with a transaction begun on it (READ COMMITTED).
    ///
    /// # Errors
    /// As [`session`](Self::session), or the server's refusal.
    pub async fn begin(&self) -> Result<ControlTransaction, ControlError> {
        let mut session = self.session().await?;
        session
            .execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            .await?;
        Ok(ControlTransaction {
            session,
            failed: false,
        })
    }

    fn connect_error(&self, error: PoolError) -> ControlError {
        let server = self.server.clone();
        let after = self.limits.connect_timeout;
        match error {
            PoolError::Timeout(TimeoutType::Wait) => ControlError::Busy { server, after },
            PoolError::Timeout(_) => ControlError::ConnectTimeout { server, after },
            PoolError::Backend(error) => match server_error(&server, &error) {
                Some(refusal) => refusal,
                None => ControlError::Unreachable {
                    server,
                    cause: with_sources(&error),
                },
            },
            PoolError::PostCreateHook(HookError::Message(cause)) => ControlError::Unreachable {
                server,
                cause: cause.into_owned(),
            },
            PoolError::PostCreateHook(HookError::Backend(error)) => {
                match server_error(&server, &error) {
                    Some(refusal) => refusal,
                    None => ControlError::Unreachable {
                        server,
                        cause: with_sources(&error),
                    },
                }
            }
            other => ControlError::Unreachable {
                server,
                cause: other.to_string(),
            },
        }
    }
}

/// One borrowed control connection; closed when dropped, for nobody knows what was set on it.
#[derive(Debug)]
pub struct ControlSession {
    server: String,
    limits: ControlLimits,
    /// `None` after a time-out or a loss: nobody knows what such a connection would answer next.
    client: Option<Object>,
    /// It is in the state of a fresh connection and may go back to its pool.
    reuse: bool,
}

impl ControlSession {
    /// As [`Control::rows`].
    ///
    /// # Errors
    /// The server's own error, a time-out, or a lost connection.
    pub async fn rows(&mut self, sql: &str) -> Result<Rows, ControlError> {
        let Some(client) = self.client.take() else {
            return Err(ControlError::Lost {
                server: self.server.clone(),
                cause: "it was given up".to_owned(),
            });
        };
        // Held apart while the statement runs: when this future is dropped half-way, the guard ends the connection.
        let guard = Discard(Some(client));
        let answer = guard.simple_query(sql, self.limits.statement_timeout).await;
        match answer {
            Ok(messages) => {
                self.client = guard.keep();
                Ok(text_rows(&messages))
            }
            Err(Failure::Timeout(after)) => Err(ControlError::StatementTimeout {
                server: self.server.clone(),
                after,
            }),
            Err(Failure::Postgres(error)) => match server_error(&self.server, &error) {
                Some(refusal) => {
                    self.client = guard.keep();
                    Err(refusal)
                }
                None => Err(ControlError::Lost {
                    server: self.server.clone(),
                    cause: with_sources(&error),
                }),
            },
        }
    }

    /// As [`Control::execute`].
    ///
    /// # Errors
    /// The server's own error, a time-out, or a lost connection.
    pub async fn execute(&mut self, sql: &str) -> Result<(), ControlError> {
        self.rows(sql).await.map(drop)
    }
}

impl Drop for ControlSession {
    fn drop(&mut self) {
        if !self.reuse {
            drop(Discard(self.client.take()));
        }
    }
}

/// A transaction on a control connection. Dropped without commit, the connection is closed and the server rolls back.
/// What is set in it must be set with `SET LOCAL`: after the commit the connection is used again.
#[derive(Debug)]
pub struct ControlTransaction {
    session: ControlSession,
    failed: bool,
}

impl ControlTransaction {
    /// What errors call this server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.session.server
    }

    /// As [`Control::rows`], in this transaction.
    ///
    /// # Errors
    /// The server's own error (the transaction has then failed), a time-out, or a lost connection.
    pub async fn rows(&mut self, sql: &str) -> Result<Rows, ControlError> {
        let answer = self.session.rows(sql).await;
        self.failed |= answer.is_err();
        answer
    }

    /// As [`Control::execute`], in this transaction.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub async fn execute(&mut self, sql: &str) -> Result<(), ControlError> {
        self.rows(sql).await.map(drop)
    }

    /// # Errors
    /// When a statement failed before (PostgreSQL would answer such a COMMIT with ROLLBACK and no error), or the
    /// server's own error. After [`ControlError::Lost`] or a time-out it is unknown whether it was committed.
    pub async fn commit(mut self) -> Result<(), ControlError> {
        if self.failed {
            return Err(ControlError::TransactionFailed {
                server: self.session.server.clone(),
            });
        }
        self.session.execute("COMMIT").await?;
        self.session.reuse = true;
        Ok(())
    }
}

/// Takes a connection out of its pool and closes it, unless it is kept.
struct Discard(Option<Object>);

enum Failure {
    Timeout(Duration),
    Postgres(tokio_postgres::Error),
}

impl Discard {
    async fn simple_query(
        &self,
        sql: &str,
        limit: Duration,
    ) -> Result<Vec<SimpleQueryMessage>, Failure> {
        let Some(client) = &self.0 else {
            return Ok(Vec::new());
        };
        if limit.is_zero() {
            return client.simple_query(sql).await.map_err(Failure::Postgres);
        }
        let after = limit + SERVER_GRACE;
        match tokio::time::timeout(after, client.simple_query(sql)).await {
            Ok(answer) => answer.map_err(Failure::Postgres),
            Err(_) => Err(Failure::Timeout(after)),
        }
    }

    fn keep(mut self) -> Option<Object> {
        self.0.take()
    }
}

impl Drop for Discard {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(Object::take(client));
        }
    }
}

fn text_rows(messages: &[SimpleQueryMessage]) -> Rows {
    messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|i| row.try_get(i).ok().flatten().map(str::to_owned))
                    .collect(),
            ),
            _ => None,
        })
        .collect()
}

/// How a session begins. By `SET` and not in the start-up message, so that `RESET` still finds the server's own values.
fn settle(wanted: Wanted, statement_timeout: Duration) -> Hook {
    let text = format!(
        "SET search_path = pg_catalog; SET statement_timeout = {}",
        statement_timeout.as_millis()
    );
    Hook::async_fn(move |client, _| {
        let text = text.clone();
        Box::pin(async move {
            wanted.must_fit(client).await?;
            let done = client.simple_query(&text).await;
            done.map(drop).map_err(HookError::Backend)
        })
    })
}

fn server_error(server: &str, error: &tokio_postgres::Error) -> Option<ControlError> {
    let refusal = error.as_db_error()?;
    let code = refusal.code().code().as_bytes();
    Some(ControlError::Server {
        server: server.to_owned(),
        sqlstate: code.try_into().map_or(SqlState::INTERNAL_ERROR, SqlState),
        message: refusal.message().to_owned(),
        detail: refusal.detail().map(str::to_owned),
        hint: refusal.hint().map(str::to_owned),
    })
}

/// The error and what caused it; the package's own `Display` leaves the cause out.
fn with_sources(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Report;

    #[tokio::test]
    async fn a_dead_server_is_unreachable_and_the_error_shows_no_secret_and_no_address() {
        let control =
            Control::new("shop/s0", &settings::tests::dsn(), ControlLimits::default()).unwrap();
        let error = control.rows("SELECT 1").await.unwrap_err();
        assert!(
            matches!(error, ControlError::Unreachable { .. }),
            "{error:?}"
        );
        assert_eq!(error.sqlstate(), SqlState::CANNOT_CONNECT_NOW);
        for text in [
            error.to_string(),
            format!("{error:?}"),
            format!("{control:?}"),
        ] {
            assert!(!text.contains("correct horse"), "{text}");
        }
        assert!(!error.to_string().contains("127.0.0.1"), "{error}");
    }
}
