//! `pgherd demo`: local shards, a sample shop and a tour; and the throw-away servers that the tests use too.
//!
//! Knows how to run PostgreSQL as a child and how to leave nothing behind; of the proxy it knows only what [`Proxy`]
//! says, which `app` provides. What would surprise: a server outlives nobody. Even when this process is killed with
//! SIGKILL a small shell, the janitor, stops the servers and removes their folder.

mod error;
mod folder;
mod load;
mod print;
mod programs;
mod server;
mod servers;
pub mod shop;
mod tour;

pub use error::{DemoError, Trouble};
pub use server::Server;
pub use servers::{Authentication, Options, Servers};

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::{config, snapshot};
use load::Link;
use print::say;
use tour::Shard;

const LISTEN_PORT: u16 = 6432;
const HTTP_PORT: u16 = 9632;

/// What the person asked for on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoOptions {
    pub shards: usize,
    /// End after the tour.
    pub once: bool,
    /// `None`: 6432, or another one where that is taken.
    pub port: Option<u16>,
    /// `None`: 9632, or another one where that is taken.
    pub http_port: Option<u16>,
}

/// How the proxy would run a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Names of the shards that are asked.
    pub shards: Vec<String>,
    /// The plan, for a person.
    pub text: String,
}

/// What the demo needs of the proxy.
pub trait Proxy {
    /// Serves what the file says; ready when clients can connect.
    fn start(&mut self, config: &Path) -> impl Future<Output = Result<(), Trouble>>;
    /// The plan of a statement, as `pgherd explain` has it.
    fn explain(
        &self,
        database: &str,
        sql: &str,
    ) -> impl Future<Output = Result<Explained, Trouble>>;
    /// Ends all that `start` began; does nothing when nothing was started.
    fn stop(&mut self) -> impl Future<Output = ()>;
}

/// Runs the demo to its end: after the tour with `once`, else at SIGINT or SIGTERM. In each case, failure included,
/// proxy and servers are stopped and their files removed before it returns.
pub async fn run(options: DemoOptions, mut proxy: impl Proxy) -> Result<(), DemoError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DemoError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(DemoError::Signals)?;
    say(&format!("starting {} PostgreSQL servers …", options.shards));
    // Not part of the select below: what was started must be in our hands before we can put it away.
    let servers = start_servers(options.shards).await?;
    let ended = tokio::select! {
        ended = show(&options, &mut proxy, &servers) => ended,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    say("\nstopping, and removing everything …");
    proxy.stop().await;
    // Blocks, but this is the last thing we do.
    drop(servers);
    ended
}

async fn start_servers(shards: usize) -> Result<Servers, DemoError> {
    let options = Options {
        count: shards,
        label: "demo".to_owned(),
        authentication: Authentication::ScramSha256,
        statements: vec![
            format!(
                "CREATE ROLE {} LOGIN PASSWORD '{}'",
                shop::USER,
                shop::PASSWORD
            ),
            format!("CREATE DATABASE {} OWNER {}", shop::DATABASE, shop::USER),
        ],
        ..Options::default()
    };
    let started = tokio::task::spawn_blocking(move || Servers::start(&options)).await;
    started.unwrap_or_else(|error| Err(DemoError::Proxy(error.into())))
}

/// Everything between the start of the servers and their end.
async fn show(
    options: &DemoOptions,
    proxy: &mut impl Proxy,
    servers: &Servers,
) -> Result<(), DemoError> {
    let begun = Instant::now();
    let listen = choose_port(options.port, LISTEN_PORT)?;
    let http = choose_port(options.http_port, HTTP_PORT)?;
    let config = write_config(servers, listen, http)?;
    let mut shards = Vec::new();
    for (number, server) in servers.all().iter().enumerate() {
        let link = Link::open(&server.dsn_of(shop::DATABASE, shop::USER, shop::PASSWORD)).await?;
        shards.push(Shard {
            name: format!("s{number}"),
            link,
        });
    }
    load::create_tables(&shards).await?;
    initialise(&config).await?;
    proxy.start(&config).await.map_err(DemoError::Proxy)?;
    let dsn = format!(
        "host=127.0.0.1 port={listen} dbname={} user={} password={} sslmode=disable",
        shop::DATABASE,
        shop::USER,
        shop::PASSWORD
    );
    let client = Link::open(&dsn).await?;
    load::load(&client, &shards).await?;
    say(&format!(
        "ready after {}",
        humantime::format_duration(rounded(begun.elapsed()))
    ));
    tour::tour(proxy, &client, &shards).await?;
    drop((client, shards));
    say_goodbye(servers, listen, http);
    if options.once {
        return Ok(());
    }
    say("\nCtrl-C stops it and removes everything.");
    std::future::pending().await
}

/// `sharding.toml` and the file of users, next to the servers.
fn write_config(servers: &Servers, listen: u16, http: u16) -> Result<PathBuf, DemoError> {
    let users = servers.folder().join("userlist.txt");
    let path = servers.folder().join("sharding.toml");
    let written = |path: &PathBuf, text: String| {
        fs::write(path, text).map_err(|source| DemoError::Folder {
            what: "cannot write",
            path: path.clone(),
            source,
        })
    };
    written(
        &users,
        format!("\"{}\" \"{}\"\n", shop::USER, shop::PASSWORD),
    )?;
    written(&path, shop::config(servers.all(), listen, http, &users))?;
    Ok(path)
}

/// What `pgherd init` does.
async fn initialise(path: &Path) -> Result<(), DemoError> {
    let config = config::load(path).map_err(|problems| {
        let lines = problems
            .0
            .iter()
            .map(|one| format!("{}: {} ({})", one.path, one.problem, one.remedy));
        DemoError::Proxy(lines.collect::<Vec<_>>().join("; ").into())
    })?;
    for database in config.databases.values() {
        let report = snapshot::init(database, false)
            .await
            .map_err(|error| DemoError::Proxy(error.into()))?;
        say(&report.to_string());
    }
    Ok(())
}

fn say_goodbye(servers: &Servers, listen: u16, http: u16) {
    let (user, password, database) = (shop::USER, shop::PASSWORD, shop::DATABASE);
    say(&format!(
        "\npgherd    psql postgresql://{user}:{password}@127.0.0.1:{listen}/{database}"
    ));
    for (number, server) in servers.all().iter().enumerate() {
        say(&format!(
            "shard s{number}  psql postgresql://{user}:{password}@127.0.0.1:{}/{database}",
            server.port()
        ));
    }
    say(&format!("metrics   http://127.0.0.1:{http}/metrics"));
    say(&format!(
        "config    {}",
        servers.folder().join("sharding.toml").display()
    ));
}

/// The port that was asked for, or else the usual one, or else any.
fn choose_port(asked: Option<u16>, usual: u16) -> Result<u16, DemoError> {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).ok();
    match asked {
        Some(port) => is_free(port)
            .map(|_| port)
            .ok_or(DemoError::PortTaken { port }),
        None => is_free(usual)
            .or_else(|| is_free(0))
            .and_then(|listener| Some(listener.local_addr().ok()?.port()))
            .ok_or(DemoError::PortTaken { port: usual }),
    }
}

fn rounded(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX) / 100 * 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_was_asked_for_is_taken_or_refused_and_the_usual_one_gives_way() {
        // Below the range that the kernel gives away, so that nobody else gets it as soon as it is free.
        let from = 12_000 + u16::try_from(std::process::id() % 8_000).unwrap();
        let taken = (from..32_000)
            .find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok())
            .unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(
            matches!(choose_port(Some(port), 1), Err(DemoError::PortTaken { port: p }) if p == port)
        );
        assert!(![0, port].contains(&choose_port(None, port).unwrap()));
        drop(taken);
        assert_eq!(choose_port(Some(port), 1).unwrap(), port);
        assert_eq!(choose_port(None, port).unwrap(), port);
    }
}
