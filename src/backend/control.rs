//! The control plane's door to one shard: a small pool of connections that speak SQL. The only room that names
//! `deadpool_postgres` and `tokio_postgres`.
//!
//! For what pgherd asks in its own name: placement, catalogue, probes, recovery. Clients' statements never come here,
//! for rows are text and nothing of the reply but rows is kept.
//!
//! What would surprise: a session always runs with `search_path = pg_catalog`, so a stranger's function in `public`
//! cannot get between. And a transaction dropped before its commit takes its connection with it: the server rolls
//! back, and the pool never sees a session in an unknown state.

mod error;
mod tls;

pub use error::ControlError;

use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType,
};
use tokio_postgres::config::{SslMode as PgSslMode, TargetSessionAttrs};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use self::tls::Tls;
use super::connect::{ConnectError, Encryption};
use crate::config::{Dsn, Endpoint, SslMode};
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
        let config = connection_settings(&server, dsn, limits)?;
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Verified,
        };
        let manager = match encryption(&server, dsn)? {
            Encryption::Off => Manager::from_config(config, NoTls, recycling),
            Encryption::Preferred(tls) | Encryption::Required(tls) => {
                Manager::from_config(config, Tls(tls), recycling)
            }
        };
        let pool = Pool::builder(manager)
            .max_size(limits.connections_max.max(1))
            .wait_timeout(Some(limits.connect_timeout))
            .create_timeout(Some(limits.connect_timeout))
            .recycle_timeout(Some(limits.connect_timeout))
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

fn connection_settings(
    server: &str,
    dsn: &Dsn,
    limits: ControlLimits,
) -> Result<tokio_postgres::Config, ControlError> {
    let server = || server.to_owned();
    let Some(user) = &dsn.user else {
        return Err(ControlError::NoUser { server: server() });
    };
    let mut config = tokio_postgres::Config::new();
    config
        .user(user)
        .dbname(&dsn.dbname)
        .application_name("pgherd");
    if let Some(password) = &dsn.password {
        config.password(&password.0);
    }
    for endpoint in &dsn.hosts {
        match endpoint {
            Endpoint::Tcp { host, port } => config.host(host).port(*port),
            Endpoint::Unix { path } => {
                let port = path
                    .file_name()
                    .and_then(|name| name.to_str()?.strip_prefix(".s.PGSQL.")?.parse().ok());
                let (Some(folder), Some(port)) = (path.parent(), port) else {
                    return Err(ControlError::SocketName { server: server() });
                };
                config.host_path(folder).port(port)
            }
        };
    }
    if dsn.hosts.len() > 1 {
        // Several hosts are the same shard before and after a failover: only its primary will do.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    config.connect_timeout(limits.connect_timeout);
    config.ssl_mode(match dsn.tls.mode {
        _ if !reaches_over_tcp(dsn) => PgSslMode::Disable,
        SslMode::Disable => PgSslMode::Disable,
        SslMode::Prefer => PgSslMode::Prefer,
        // What is verified is the connector's affair.
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => PgSslMode::Require,
    });
    let ours = format!(
        "-c statement_timeout={} -c search_path=pg_catalog",
        limits.statement_timeout.as_millis()
    );
    config.options(
        dsn.options
            .as_ref()
            .map_or(ours.clone(), |theirs| format!("{theirs} {ours}")),
    );
    Ok(config)
}

/// Unix sockets have no TLS, whatever `sslmode` says, as in libpq.
fn reaches_over_tcp(dsn: &Dsn) -> bool {
    dsn.hosts
        .iter()
        .any(|endpoint| matches!(endpoint, Endpoint::Tcp { .. }))
}

fn encryption(server: &str, dsn: &Dsn) -> Result<Encryption, ControlError> {
    if !reaches_over_tcp(dsn) {
        return Ok(Encryption::Off);
    }
    Encryption::load(&dsn.tls).map_err(|cause: ConnectError| ControlError::TlsFiles {
        server: server.to_owned(),
        cause: Box::new(cause),
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
    use crate::config::{Password, ServerTls};
    use crate::error::Report;

    fn dsn() -> Dsn {
        Dsn {
            hosts: vec![Endpoint::Tcp {
                host: "127.0.0.1".to_owned(),
                port: 1,
            }],
            dbname: "shop".to_owned(),
            user: Some("control".to_owned()),
            password: Some(Password("correct horse".to_owned())),
            tls: ServerTls::default(),
            connect_timeout: None,
            application_name: None,
            options: None,
        }
    }

    fn refusal(dsn: &Dsn) -> ControlError {
        Control::new("shop/s0", dsn, ControlLimits::default()).unwrap_err()
    }

    #[test]
    fn a_string_that_cannot_serve_is_refused_before_connecting() {
        let error = refusal(&Dsn {
            user: None,
            ..dsn()
        });
        assert_eq!(
            error.to_string(),
            "shop/s0: the control connection string names no user"
        );
        assert!(error.advice().unwrap().contains("`control`"));
        let unix = Endpoint::Unix {
            path: "/tmp/postgres.sock".into(),
        };
        assert!(matches!(
            refusal(&Dsn {
                hosts: vec![unix],
                ..dsn()
            }),
            ControlError::SocketName { .. }
        ));
    }

    #[test]
    fn the_session_is_named_limited_and_blind_to_other_schemas() {
        let theirs = Dsn {
            options: Some("-c work_mem=64kB".to_owned()),
            ..dsn()
        };
        let config = connection_settings("s", &theirs, ControlLimits::default()).unwrap();
        assert_eq!(config.get_application_name(), Some("pgherd"));
        assert_eq!(
            config.get_options(),
            Some("-c work_mem=64kB -c statement_timeout=30000 -c search_path=pg_catalog")
        );
        let unix = Endpoint::Unix {
            path: "/run/pg/.s.PGSQL.5433".into(),
        };
        let config = connection_settings(
            "s",
            &Dsn {
                hosts: vec![unix],
                ..dsn()
            },
            ControlLimits::default(),
        )
        .unwrap();
        assert_eq!(config.get_ports(), [5433]);
        assert_eq!(
            config.get_hosts(),
            [tokio_postgres::config::Host::Unix("/run/pg".into())]
        );
    }

    #[tokio::test]
    async fn a_dead_server_is_unreachable_and_the_error_shows_no_secret_and_no_address() {
        let control = Control::new("shop/s0", &dsn(), ControlLimits::default()).unwrap();
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
