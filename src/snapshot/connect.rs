//! `pgherd check --connect`: looks at every server of the configuration and says what would hurt later.
//!
//! Unlike loading it goes on after the first problem, and a server that is down is one finding among others.

use std::collections::BTreeMap;

use super::{findings, load_database};
use crate::backend::control::{Control, ControlError, ControlLimits, Rows};
use crate::config::{ANY, Config, Database, Dsn, Shard, TargetSession};
use crate::error::{Report, Severity};
use crate::names::Role;

/// Files beside sockets of clients and servers: logs, listeners, the HTTP door.
const FILES_SPARE: u64 = 64;
/// What is looked at on each server.
const SETTINGS: [&str; 4] = [
    "server_encoding",
    "max_prepared_transactions",
    "fsync",
    "max_connections",
];

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `Error`: this database will not be served rightly; `Warning`: it will hurt one day; `Notice`: good to know.
    pub severity: Severity,
    /// A path as in the configuration, such as `databases.shop.shards.s0.primary`.
    pub path: String,
    pub problem: String,
    pub remedy: Option<String>,
}

impl Finding {
    pub(super) fn new(
        severity: Severity,
        path: &str,
        problem: impl Into<String>,
        remedy: Option<&str>,
    ) -> Self {
        Self {
            severity,
            path: path.to_owned(),
            problem: problem.into(),
            remedy: remedy.map(str::to_owned),
        }
    }

    fn of_error(path: &str, error: &impl Report) -> Self {
        let mut problem = error.to_string();
        // The operator may see the files and addresses that the message itself leaves out.
        let mut cause = error.source();
        while let Some(inner) = cause {
            problem = format!("{problem}: {inner}");
            cause = inner.source();
        }
        if let Some(detail) = error.detail() {
            problem = format!("{problem} ({detail})");
        }
        Self {
            severity: Severity::Error,
            path: path.to_owned(),
            problem,
            remedy: error.advice(),
        }
    }
}

/// Reaches every server and compares them; empty when there is nothing to say.
pub async fn check_connect(config: &Config) -> Vec<Finding> {
    let mut findings = enough_files(config);
    for database in config.databases.values() {
        let mut primaries = 0;
        for shard in &database.shards {
            let path = format!("databases.{}.shards.{}", database.name, shard.name);
            primaries += usize::from(check_shard(database, shard, &path, &mut findings).await);
        }
        if !database.is_sharded() {
            continue;
        }
        let path = format!("databases.{}", database.name);
        match findings::of_schemas(database).await {
            Ok(found) => findings.extend(found),
            Err(_) if primaries == 0 => {}
            Err(error) => findings.push(Finding::of_error(&path, &error)),
        }
        if primaries == database.shards.len() {
            findings.extend(
                load_database(database)
                    .await
                    .err()
                    .map(|error| Finding::of_error(&path, &error)),
            );
        }
    }
    findings
}

/// Whether the shard's primary can be reached over its control connection.
async fn check_shard(
    database: &Database,
    shard: &Shard,
    path: &str,
    findings: &mut Vec<Finding>,
) -> bool {
    let mut reached = false;
    let control_path = format!("{path}.control");
    match settings_of(database, shard, &shard.control).await {
        Ok(settings) => {
            let role = (Role::Primary, shard.control.target);
            judge(database, &settings, role, &control_path, findings);
            reached = true;
        }
        Err(error) => findings.push(Finding::of_error(&control_path, &error)),
    }
    if shard.primary != shard.control {
        check_reach(
            database,
            shard,
            &shard.primary,
            Role::Primary,
            &format!("{path}.primary"),
            findings,
        )
        .await;
    }
    for (index, replica) in shard.replicas.iter().enumerate() {
        let path = format!("{path}.replicas[{index}]");
        check_reach(database, shard, replica, Role::Replica, &path, findings).await;
    }
    reached
}

async fn check_reach(
    database: &Database,
    shard: &Shard,
    dsn: &Dsn,
    role: Role,
    path: &str,
    findings: &mut Vec<Finding>,
) {
    if dsn.user.is_none() {
        let problem =
            "not looked at: the connection string names no user, each client brings its own";
        findings.push(Finding::new(Severity::Notice, path, problem, None));
        return;
    }
    match settings_of(database, shard, dsn).await {
        Ok(settings) => judge(database, &settings, (role, dsn.target), path, findings),
        Err(error) => findings.push(Finding::of_error(path, &error)),
    }
}

type Settings = BTreeMap<String, String>;

async fn settings_of(
    database: &Database,
    shard: &Shard,
    dsn: &Dsn,
) -> Result<Settings, ControlError> {
    // Which database `[databases."*"]` leads to is not known before a client asks; this one is on nearly every server.
    let known = (dsn.dbname == ANY).then(|| Dsn {
        dbname: "postgres".to_owned(),
        ..dsn.clone()
    });
    let control = Control::new(
        format!("{}/{}", database.name, shard.name),
        known.as_ref().unwrap_or(dsn),
        ControlLimits::default(),
    )?;
    let names = SETTINGS.map(|name| format!("'{name}'"));
    let question = format!(
        "SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN ({}) \
         UNION ALL SELECT 'in_recovery', pg_catalog.pg_is_in_recovery()::text",
        names.join(", ")
    );
    Ok(pairs(control.rows(&question).await?))
}

fn pairs(rows: Rows) -> Settings {
    rows.into_iter()
        .filter_map(|row| match <[Option<String>; 2]>::try_from(row) {
            Ok([Some(name), Some(value)]) => Some((name, value)),
            _ => None,
        })
        .collect()
}

/// A string that asks for standbys means them, also where a primary usually stands.
fn wants_primary(target: TargetSession) -> bool {
    matches!(
        target,
        TargetSession::Any | TargetSession::ReadWrite | TargetSession::Primary
    )
}

fn judge(
    database: &Database,
    settings: &Settings,
    (role, target): (Role, TargetSession),
    path: &str,
    findings: &mut Vec<Finding>,
) {
    let is = |name: &str, value: &str| settings.get(name).is_some_and(|found| found == value);
    let mut find = |severity, problem: String, remedy| {
        findings.push(Finding::new(severity, path, problem, remedy));
    };
    match (role, is("in_recovery", "true")) {
        (Role::Primary, true) if wants_primary(target) => {
            find(
                Severity::Error,
                "this server is a replica".to_owned(),
                Some("name the primary here"),
            );
        }
        (Role::Replica, false) => {
            find(
                Severity::Warning,
                "this server is no replica".to_owned(),
                Some("name a replica here"),
            );
        }
        _ => {}
    }
    if is("fsync", "off") {
        let problem = "fsync is off: a crash of the machine loses the database, and with it decided transactions";
        find(
            Severity::Warning,
            problem.to_owned(),
            Some("set fsync = on, unless the data may be lost"),
        );
    }
    if database.is_sharded() {
        if role == Role::Primary && is("max_prepared_transactions", "0") {
            let problem = "max_prepared_transactions is 0: transactions that write on several shards will fail";
            find(
                Severity::Warning,
                problem.to_owned(),
                Some("set max_prepared_transactions = 100 and restart it"),
            );
        }
        if !is("server_encoding", "UTF8") {
            let problem = "the server encoding is not UTF8: text keys cannot be placed";
            find(
                Severity::Error,
                problem.to_owned(),
                Some("create the database with ENCODING 'UTF8'"),
            );
        }
    }
    let connections = settings
        .get("max_connections")
        .and_then(|value| value.parse::<u32>().ok());
    if connections.is_some_and(|max| max < database.pool.size.get()) {
        let problem = format!(
            "max_connections is smaller than the pool's size of {}",
            database.pool.size
        );
        find(
            Severity::Warning,
            problem,
            Some("raise max_connections, or lower the pool's `size`"),
        );
    }
}

/// Whether this process may open as many sockets as it promises clients. Where `/proc` is not there, nothing is said.
fn enough_files(config: &Config) -> Vec<Finding> {
    let Ok(limits) = std::fs::read_to_string("/proc/self/limits") else {
        return Vec::new();
    };
    let Some(files_max) = open_files_max(&limits) else {
        return Vec::new();
    };
    let servers: u64 = config
        .databases
        .values()
        .map(|database| u64::from(database.pool.size.get()) * database.shards.len() as u64)
        .sum();
    let needed = u64::from(config.proxy.clients_max) + servers + FILES_SPARE;
    if needed <= files_max {
        return Vec::new();
    }
    let problem = format!(
        "this process may open {files_max} files, but clients_max and the pools need {needed}"
    );
    let remedy = "raise the limit (`ulimit -n`, LimitNOFILE=), or lower clients_max";
    vec![Finding::new(
        Severity::Warning,
        "proxy.clients_max",
        problem,
        Some(remedy),
    )]
}

/// The soft limit in the text of `/proc/self/limits`.
fn open_files_max(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_of_open_files_is_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             127235               127235               processes \n\
                    Max open files            1024                 1048576              files     \n";
        assert_eq!(open_files_max(text), Some(1024));
        assert_eq!(open_files_max(&text.replace("1024 ", "unlimited ")), None);
        assert_eq!(open_files_max(""), None);
    }
}
