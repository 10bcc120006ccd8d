//! The schema and rows of `tests/data`, on three shards behind a proxy and on one PostgreSQL that holds all rows.

use std::fmt::Write;
use std::path::Path;

use pgherd::demo::{Server, Servers};

use crate::support::client::Client;
use crate::support::proxy::{Proxy, init};
use crate::support::{database, servers, servers_with, sql};

pub fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines of a file that are neither empty nor comments.
pub fn lines(text: &str) -> Vec<&str> {
    let is_kept =
        |line: &&str| !line.trim().is_empty() && !line.starts_with("--") && !line.starts_with('#');
    text.lines().filter(is_kept).collect()
}

/// `rules.txt` as it stands in a configuration.
fn rules(database: &str) -> String {
    let mut toml = String::new();
    for line in lines(&data("rules.txt")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let rule = match words[1..] {
            ["sharded", key] => format!("key = \"{key}\""),
            ["reference"] => "reference = true".to_owned(),
            ["single", shard] => format!("shard = \"{shard}\""),
            _ => panic!("{line}"),
        };
        write!(
            toml,
            "[databases.{database}.tables.\"{}\"]\n{rule}\n",
            words[0]
        )
        .unwrap();
    }
    toml
}

pub struct Both {
    pub proxy: Proxy,
    name: String,
    shards: &'static [Server],
    /// The one PostgreSQL.
    one: Servers,
}

pub fn start(name: &str) -> Both {
    let shards = servers().all();
    let name = database(shards, name, "");
    let one = servers_with("one", 1);
    sql(
        &one.all()[0],
        "postgres",
        &format!("CREATE DATABASE {name}"),
    );
    let schema = data("schema.sql");
    for server in shards.iter().chain(one.all()) {
        sql(server, &name, &schema);
    }
    let config = Proxy::config(&name, shards, &rules(&name));
    let proxy = Proxy::start_with(&config, init);
    Both {
        proxy,
        name,
        shards,
        one,
    }
}

impl Both {
    fn one(&self) -> &Server {
        &self.one.all()[0]
    }

    pub fn through(&self) -> Client {
        self.proxy.client(&self.name, "postgres", "")
    }

    pub fn straight(&self) -> Client {
        let mut client = Client::connect(self.one().port());
        client.login(&[("user", "postgres"), ("database", &self.name)], "");
        client
    }

    pub fn fill(&self) {
        let (mut through, mut straight) = (self.through(), self.straight());
        for text in lines(&data("rows.sql")) {
            straight.query(text).ok();
            through.query(text).ok();
        }
    }

    /// Every row of every table, as the shards have them together and as the one has them.
    pub fn compare_rows(&self) {
        for rule in lines(&data("rules.txt")) {
            let words: Vec<&str> = rule.split_whitespace().collect();
            let table = words[0];
            let rows = |server: &Server| {
                let text = sql(
                    server,
                    &self.name,
                    &format!("SELECT t::text FROM {table} t"),
                );
                let mut rows: Vec<String> = text.lines().map(str::to_owned).collect();
                rows.sort_unstable();
                rows
            };
            let expected = rows(self.one());
            if words[1] == "reference" {
                for shard in self.shards {
                    assert_eq!(rows(shard), expected, "{table}");
                }
            } else {
                let mut found: Vec<String> = self.shards.iter().flat_map(rows).collect();
                found.sort_unstable();
                assert_eq!(found, expected, "{table}");
            }
        }
    }
}
