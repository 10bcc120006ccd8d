//! From the command line to what it asks for, and to an exit code.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use super::arguments::{self, Command};
use super::explain::{self, ExplainError};
use super::in_process::InProcess;
use super::proxy::raise_open_files;
use super::serve;
use super::tell::{Exit, complain, complain_of, complain_of_config, say};
use crate::config::{self, Config, Database};
use crate::demo::{self, DemoOptions};
use crate::error::{Report, Severity};
use crate::snapshot::{self, Finding, InitReport, MisplacedRows, Outcome};
use crate::telemetry;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let exit = match arguments::read() {
        Ok(command) => obey(command),
        Err(exit) => exit,
    };
    exit.into()
}

fn obey(command: Command) -> Exit {
    match command {
        Command::Run { config } => serve::run(&config),
        Command::Check {
            config,
            connect,
            rows,
        } => with_config(&config, async |found| {
            check(found, &config, connect, rows).await
        }),
        Command::Init { config, repair } => {
            with_config(&config, async |found| init(found, repair).await)
        }
        Command::Explain {
            config,
            database,
            sql,
        } => with_config(&config, async |found| {
            explain(found, database.as_deref(), &sql).await
        }),
        Command::Demo(options) => demo(options),
    }
}

/// Loads the file and does something with it on a runtime.
fn with_config(path: &Path, work: impl AsyncFnOnce(&Config) -> Exit) -> Exit {
    let config = match config::load(path) {
        Ok(config) => config,
        Err(problems) => return complain_of_config(path, &problems),
    };
    match serve::background() {
        Ok(runtime) => runtime.block_on(work(&config)),
        Err(error) => {
            complain_of(&error, &[]);
            Exit::Failed
        }
    }
}

async fn check(config: &Config, path: &Path, connect: bool, rows: bool) -> Exit {
    say(&format!("{}: no problem", path.display()));
    for database in config.databases.values() {
        say(&format!("  {}", summary(database)));
    }
    let mut exit = Exit::Done;
    if connect {
        // As `run` does, so that the limit which is compared is the one that will hold.
        raise_open_files();
        let findings = snapshot::check_connect(config).await;
        if findings
            .iter()
            .any(|one| matches!(one.severity, Severity::Error | Severity::Fatal))
        {
            exit = Exit::Failed;
        }
        findings.iter().for_each(complain_of_finding);
        if findings.is_empty() {
            say("all servers were reached, and nothing is wrong with them");
        }
    }
    if rows {
        for database in config.databases.values() {
            exit = exit.worse(check_rows(database).await);
        }
    }
    exit
}

fn summary(database: &Database) -> String {
    let shards: Vec<_> = database
        .shards
        .iter()
        .map(|shard| shard.name.as_str())
        .collect();
    let shards = match shards.as_slice() {
        [one] => format!("one shard ({one})"),
        many => format!("{} shards ({})", many.len(), many.join(", ")),
    };
    let tables = match database.tables.len() {
        0 => "no rules for tables".to_owned(),
        1 => "rules for 1 table".to_owned(),
        count => format!("rules for {count} tables"),
    };
    format!("database {}: {shards}, {tables}", database.name)
}

fn complain_of_finding(finding: &Finding) {
    let severity = finding.severity.as_str().to_lowercase();
    let remedy = finding
        .remedy
        .as_ref()
        .map(|remedy| format!("\n    {remedy}"));
    let remedy = remedy.unwrap_or_default();
    complain(&format!(
        "{severity}: {}: {}{remedy}",
        finding.path, finding.problem
    ));
}

async fn check_rows(database: &Database) -> Exit {
    match snapshot::check_rows(database).await {
        Ok(found) if found.is_empty() => {
            say(&format!(
                "database {}: every row is where it belongs",
                database.name
            ));
            Exit::Done
        }
        Ok(found) => {
            for MisplacedRows {
                table,
                shard,
                rows,
                example,
            } in found
            {
                let example = example.map(|key| format!(", such as the one with the key {key}"));
                complain(&format!(
                    "database {}: {rows} rows of {table} on shard {shard} belong on other shards{}",
                    database.name,
                    example.unwrap_or_default()
                ));
            }
            Exit::Failed
        }
        Err(error) => failed(&error),
    }
}

async fn init(config: &Config, repair: bool) -> Exit {
    let mut exit = Exit::Done;
    for database in config.databases.values() {
        match snapshot::init(database, repair).await {
            Ok(report) => tell_init(database, &report),
            Err(error) => exit = failed(&error),
        }
    }
    exit
}

fn tell_init(database: &Database, report: &InitReport) {
    say(&report.to_string());
    let rules_changed = !(report.rules_written.is_empty() && report.rules_removed.is_empty());
    for shard in &database.shards {
        let done = match &report.outcome {
            Outcome::NotSharded => "left alone",
            Outcome::Created { .. } => "placement written",
            Outcome::Repaired { shards, .. } if shards.contains(&shard.name) => "repaired",
            _ if rules_changed => "rules brought up to date",
            _ => "up to date",
        };
        say(&format!("  {}: {done}", shard.name));
    }
}

async fn explain(config: &Config, name: Option<&str>, sql: &str) -> Exit {
    let explained = match explain::find(config, name) {
        Ok(database) => explain::explain(&Arc::clone(database), sql).await,
        Err(error) => Err(error),
    };
    match explained {
        Ok(explained) => {
            say(&explained.text);
            say(&format!("shards: {}", explained.shards.join(", ")));
            Exit::Done
        }
        Err(error @ ExplainError::Database { .. }) => {
            failed(&error);
            Exit::Usage
        }
        Err(error) => failed(&error),
    }
}

fn demo(options: DemoOptions) -> Exit {
    telemetry::start_logs(false, "warn");
    let ended = serve::background()
        .map(|runtime| runtime.block_on(demo::run(options, InProcess::default())));
    match ended {
        Ok(Ok(())) => Exit::Done,
        Ok(Err(error)) => failed(&error),
        Err(error) => {
            complain_of(&error, &[]);
            Exit::Failed
        }
    }
}

/// A failure at run time, told whole.
fn failed(error: &impl Report) -> Exit {
    complain_of(error, &[error.detail(), error.advice()]);
    Exit::Failed
}
