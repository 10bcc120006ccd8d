//! Which host a control connection goes to: the same rules as on the data plane (`backend::connect`), for
//! `tokio_postgres` itself knows only some values of `target_session_attrs`.
//!
//! What would surprise: its errors cannot be made by us. So where hosts answered but none fits, the last of them is
//! handed out, and [`Wanted::must_fit`] refuses it before anybody gets it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use deadpool_postgres::{Connect, HookError};
use rand::seq::SliceRandom;
use tokio::task::JoinHandle;
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Error, SimpleQueryMessage, Socket};

use crate::config::{Dsn, TargetSession};

/// What a connection string asks of its hosts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub target: TargetSession,
    pub shuffle: bool,
}

impl Wanted {
    /// Of several hosts of which nothing is asked, one that takes writes: they are one shard before and after a
    /// failover, and `pgherd init` writes.
    pub fn by(dsn: &Dsn) -> Self {
        let target = match dsn.target {
            TargetSession::Any if dsn.hosts.len() > 1 => TargetSession::ReadWrite,
            target => target,
        };
        Self {
            target,
            shuffle: dsn.shuffle_hosts,
        }
    }

    async fn fits(self, client: &Client) -> Result<bool, Error> {
        let (question, answer) = match self.target {
            TargetSession::Any => return Ok(true),
            TargetSession::ReadWrite => ("SHOW transaction_read_only", "off"),
            TargetSession::ReadOnly => ("SHOW transaction_read_only", "on"),
            TargetSession::Primary => ("SELECT pg_catalog.pg_is_in_recovery()", "f"),
            TargetSession::Standby | TargetSession::PreferStandby => {
                ("SELECT pg_catalog.pg_is_in_recovery()", "t")
            }
        };
        let messages = client.simple_query(question).await?;
        Ok(messages.iter().any(
            |message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some(answer)),
        ))
    }

    /// Refuses a connection that was only the last of those that did not fit.
    pub async fn must_fit(self, client: &Client) -> Result<(), HookError> {
        let fits = match self.target {
            TargetSession::PreferStandby => true,
            _ => self.fits(client).await.map_err(HookError::Backend)?,
        };
        if fits {
            return Ok(());
        }
        Err(HookError::message(format!(
            "hosts answered, but none is what target_session_attrs={} asks for",
            self.target.as_str()
        )))
    }
}

/// Connects to the first host that fits.
pub(super) struct Hosts<T> {
    pub tls: T,
    pub wanted: Wanted,
    /// For each address, connecting and logging in.
    pub limit: Duration,
}

type Connected = (Client, JoinHandle<()>);

impl<T> Connect for Hosts<T>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + Sync,
    T::TlsConnect: Send + Sync,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    fn connect(
        &self,
        config: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<Connected, Error>> + Send + '_>> {
        let config = config.clone();
        Box::pin(async move { self.first_that_fits(&config).await })
    }
}

impl<T> Hosts<T>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + Sync,
    T::TlsConnect: Send + Sync,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    async fn first_that_fits(&self, config: &Config) -> Result<Connected, Error> {
        let mut failed = None;
        let mut unfit = None;
        for one in each_host(config, self.wanted.shuffle).await {
            // Who does not answer in time is passed over.
            let Ok(answer) = tokio::time::timeout(self.limit, self.one(&one)).await else {
                continue;
            };
            match answer {
                Ok((connected, true)) => return Ok(connected),
                // The first of them is the second choice of prefer-standby.
                Ok((connected, false)) => {
                    unfit.get_or_insert(connected);
                }
                Err(error) if is_final(&error) => return unfit.ok_or(error),
                Err(error) => failed = Some(error),
            }
        }
        match (unfit, failed) {
            (Some(connected), _) => Ok(connected),
            (None, Some(error)) => Err(error),
            // Nobody answered in time; the pool's own limit says so.
            (None, None) => std::future::pending().await,
        }
    }

    async fn one(&self, config: &Config) -> Result<(Connected, bool), Error> {
        let (client, connection) = config.connect(self.tls.clone()).await?;
        let running = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a control connection ended");
            }
        });
        let fits = self.wanted.fits(&client).await?;
        Ok(((client, running), fits))
    }
}

/// By libpq's rule, as on the data plane.
fn is_final(error: &Error) -> bool {
    error
        .code()
        .is_some_and(|code| *code != SqlState::CANNOT_CONNECT_NOW)
}

/// The settings for every address of every host, in the order in which they are to be tried.
async fn each_host(config: &Config, shuffle: bool) -> Vec<Config> {
    let mut hosts: Vec<(&Host, u16)> = config
        .get_hosts()
        .iter()
        .zip(config.get_ports().iter().copied())
        .collect();
    if shuffle {
        hosts.shuffle(&mut rand::rng());
    }
    let mut all = Vec::new();
    for (host, port) in hosts {
        let mut one = without_hosts(config);
        one.port(port);
        match host {
            Host::Tcp(name) => {
                one.host(name);
                let found = tokio::net::lookup_host((name.as_str(), port)).await;
                let mut addresses: Vec<SocketAddr> =
                    found.map(Iterator::collect).unwrap_or_default();
                if shuffle {
                    addresses.shuffle(&mut rand::rng());
                }
                // A name that is not found: connecting will say so.
                if addresses.is_empty() {
                    all.push(one.clone());
                }
                all.extend(addresses.iter().map(|address| {
                    let mut one = one.clone();
                    one.hostaddr(address.ip());
                    one
                }));
            }
            #[cfg(unix)]
            Host::Unix(folder) => {
                one.host_path(folder);
                all.push(one);
            }
        }
    }
    all
}

/// The package has no way to take a host out of its settings again.
fn without_hosts(config: &Config) -> Config {
    let mut bare = Config::new();
    if let Some(user) = config.get_user() {
        bare.user(user);
    }
    if let Some(password) = config.get_password() {
        bare.password(password);
    }
    if let Some(dbname) = config.get_dbname() {
        bare.dbname(dbname);
    }
    if let Some(options) = config.get_options() {
        bare.options(options);
    }
    if let Some(name) = config.get_application_name() {
        bare.application_name(name);
    }
    if let Some(limit) = config.get_connect_timeout() {
        bare.connect_timeout(*limit);
    }
    bare.ssl_mode(config.get_ssl_mode());
    bare
}
