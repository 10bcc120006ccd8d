//! Live: the statements of `tests/data` on three shards and on one PostgreSQL that holds all rows. What is routed gives
//! the same answer in both protocols, what is refused has its number, and in the end the same rows are there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::fmt::Write;
use std::path::Path;

use pgherd::demo::Server;
use support::client::{Client, Reply};
use support::proxy::{Proxy, init};
use support::{database, servers, servers_with, sql};

/// Fewer statements of a kind would prove too little.
const STATEMENTS_MIN: usize = 200;

fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines of a file that are neither empty nor comments.
fn lines(text: &str) -> Vec<&str> {
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

struct Both {
    proxy: Proxy,
    name: String,
    shards: &'static [Server],
    one: Server1,
}

/// The one PostgreSQL.
struct Server1 {
    servers: pgherd::demo::Servers,
}

impl Server1 {
    fn server(&self) -> &Server {
        &self.servers.all()[0]
    }
}

fn start() -> Both {
    let shards = servers().all();
    let name = database(shards, "herd", "");
    let one = Server1 {
        servers: servers_with("one", 1),
    };
    sql(one.server(), "postgres", &format!("CREATE DATABASE {name}"));
    let schema = data("schema.sql");
    for server in shards.iter().chain([one.server()]) {
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
    fn through(&self) -> Client {
        self.proxy.client(&self.name, "postgres", "")
    }

    fn straight(&self) -> Client {
        let mut client = Client::connect(self.one.server().port());
        client.login(&[("user", "postgres"), ("database", &self.name)], "");
        client
    }

    fn fill(&self) {
        let (mut through, mut straight) = (self.through(), self.straight());
        for text in lines(&data("rows.sql")) {
            straight.query(text).ok();
            through.query(text).ok();
        }
    }

    /// Every row of every table, as the shards have them together and as the one has them.
    fn compare_rows(&self) {
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
            let expected = rows(self.one.server());
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

fn run(client: &mut Client, text: &str, extended: bool) -> Reply {
    if extended {
        client.run(text, &[])
    } else {
        client.query(text)
    }
}

/// An answer as it can be compared: rows without an order are sorted.
fn comparable(text: &str, reply: &Reply) -> String {
    let mut frames: Vec<String> = reply.0.iter().map(ToString::to_string).collect();
    if !text.to_lowercase().contains("order by") {
        let rows = |frame: &String| frame.starts_with("D(");
        let (mut sorted, others): (Vec<_>, Vec<_>) = frames.into_iter().partition(rows);
        sorted.sort_unstable();
        frames = [others, sorted].concat();
    }
    frames.join(" ")
}

#[test]
fn what_is_routed_equals_the_answer_of_one_postgresql_and_what_is_not_is_refused_by_number() {
    let both = start();
    both.fill();
    both.compare_rows();
    let (routed, refused) = (data("routed.sql"), data("refused.sql"));
    let (routed, refused) = (lines(&routed), lines(&refused));
    assert!(routed.len() >= STATEMENTS_MIN && refused.len() >= STATEMENTS_MIN);
    let mut wrong = String::new();
    for extended in [false, true] {
        let (mut through, mut straight) = (both.through(), both.straight());
        for text in &routed {
            let expected = comparable(text, &run(&mut straight, text, extended));
            let found = comparable(text, &run(&mut through, text, extended));
            if found != expected {
                writeln!(
                    wrong,
                    "extended={extended} {text}\n  one:   {expected}\n  herd:  {found}"
                )
                .unwrap();
            }
        }
        for line in &refused {
            let (number, text) = line.split_once('\t').expect("number, tab, statement");
            let reply = run(&mut through, text, extended);
            let said = reply.of(b'E').next().and_then(|error| error.field(b'M'));
            if !said
                .as_ref()
                .is_some_and(|said| said.starts_with(&format!("{number}:")))
            {
                writeln!(
                    wrong,
                    "extended={extended} {number} {text}\n  herd:  {reply}"
                )
                .unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    both.compare_rows();
}
