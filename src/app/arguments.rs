//! The command line: what may be asked of pgherd, and how it is explained to whoever asks `--help`.
//!
//! The only place that names clap, so what leaves this file are plain values. What would surprise: without a command it
//! is `run`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::tell::{Exit, complain};
use crate::demo::DemoOptions;

const EXAMPLES: &str = "\
Examples:
  pgherd demo                                    three local shards, sample data and a tour
  pgherd check --config sharding.toml --connect  is the file right, and are the servers?
  pgherd init --config sharding.toml             once for each database of several shards
  pgherd run --config sharding.toml              serve clients until SIGTERM
  pgherd explain -d shop 'SELECT * FROM orders WHERE customer_id = 7'

Exit codes:
  0  done
  1  failed at run time: a server, a port, a finding of `check --connect`
  2  wrong usage, or a configuration that cannot be used";

/// A PostgreSQL proxy: one address for clients, pooled connections to one server or to many shards behind it.
#[derive(Debug, Parser)]
#[command(name = "pgherd", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    #[command(subcommand)]
    command: Option<Asked>,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration
    #[arg(
        long,
        short,
        global = true,
        value_name = "FILE",
        env = "PGHERD_CONFIG",
        default_value = "sharding.toml"
    )]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Asked {
    /// Serve clients until SIGTERM or Ctrl-C; this is what `pgherd` does without a command
    ///
    /// The first signal lets sessions finish what they are at, the second ends at once.
    Run,
    /// Show every problem of the configuration, each with its path and a remedy
    Check {
        /// Also reach every server, and compare their settings and the shards' schemas
        #[arg(long)]
        connect: bool,
        /// Also count rows that are not on the shard where they belong (reads whole tables)
        #[arg(long)]
        rows: bool,
    },
    /// Write the placement to the shards of every database that has several
    ///
    /// Running it again only adds what the configuration has gained, such as the rules of new tables.
    Init {
        /// Mend shards that hold no placement, or half of one, from those that hold all of it
        #[arg(long)]
        repair: bool,
    },
    /// Say how a statement would be run, without running it
    Explain {
        /// The database, as in [databases.NAME]; may be left out where the file has only one
        #[arg(long, short, value_name = "NAME")]
        database: Option<String>,
        /// One SQL statement; parameters such as $1 are allowed
        sql: String,
    },
    /// Start local PostgreSQL servers with a sample shop, and show pgherd on them
    ///
    /// Needs PostgreSQL's server programs. Everything is removed at the end.
    Demo {
        /// How many shards
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
        shards: u16,
        /// End after the tour instead of waiting for Ctrl-C
        #[arg(long)]
        once: bool,
        /// Where clients connect [default: 6432, or a free one]
        #[arg(long)]
        port: Option<u16>,
        /// Where metrics are served [default: 9632, or a free one]
        #[arg(long, value_name = "PORT")]
        http_port: Option<u16>,
    },
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Run {
        config: PathBuf,
    },
    Check {
        config: PathBuf,
        connect: bool,
        rows: bool,
    },
    Init {
        config: PathBuf,
        repair: bool,
    },
    Explain {
        config: PathBuf,
        database: Option<String>,
        sql: String,
    },
    Demo(DemoOptions),
}

/// Reads the command line of this process. `Err` when all is said already: help, the version, or wrong usage.
pub(super) fn read() -> Result<Command, Exit> {
    Arguments::try_parse().map(Command::from).map_err(|error| {
        if let Err(error) = error.print() {
            complain(&error.to_string());
        }
        if error.use_stderr() {
            Exit::Usage
        } else {
            Exit::Done
        }
    })
}

impl From<Arguments> for Command {
    fn from(Arguments { file, command }: Arguments) -> Self {
        let config = file.config;
        match command.unwrap_or(Asked::Run) {
            Asked::Run => Command::Run { config },
            Asked::Check { connect, rows } => Command::Check {
                config,
                connect,
                rows,
            },
            Asked::Init { repair } => Command::Init { config, repair },
            Asked::Explain { database, sql } => Command::Explain {
                config,
                database,
                sql,
            },
            Asked::Demo {
                shards,
                once,
                port,
                http_port,
            } => Command::Demo(DemoOptions {
                shards: usize::from(shards),
                once,
                port,
                http_port,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = std::iter::once("pgherd").chain(line.split_whitespace());
        Arguments::try_parse_from(words).map(Command::from)
    }

    #[test]
    fn the_definition_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_command_line_means() {
        let config = || PathBuf::from("a.toml");
        for (line, expected) in [
            ("-c a.toml", Command::Run { config: config() }),
            ("run --config a.toml", Command::Run { config: config() }),
            ("--config a.toml run", Command::Run { config: config() }),
            (
                "check -c a.toml --connect",
                Command::Check {
                    config: config(),
                    connect: true,
                    rows: false,
                },
            ),
            (
                "init -c a.toml",
                Command::Init {
                    config: config(),
                    repair: false,
                },
            ),
            (
                "explain -c a.toml --database shop VALUES(1)",
                Command::Explain {
                    config: config(),
                    database: Some("shop".to_owned()),
                    sql: "VALUES(1)".to_owned(),
                },
            ),
            (
                "demo --once --shards 2 --port 7000 --http-port 7001",
                Command::Demo(DemoOptions {
                    shards: 2,
                    once: true,
                    port: Some(7000),
                    http_port: Some(7001),
                }),
            ),
        ] {
            assert_eq!(parse(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "serve",
            "run extra",
            "explain",
            "demo --shards 0",
            "demo --port 70000",
            "check --conect",
        ] {
            assert!(parse(line).unwrap_err().use_stderr(), "{line}");
        }
    }
}
