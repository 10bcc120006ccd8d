//! Live: EXPLAIN on several shards, and what programs ask of the catalogue: psql, pg_dump.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use support::client::{Client, bind, describe, execute, parse, sync};
use support::proxy::Proxy;
use support::shop::{Shop, refused, start_over};
use support::{database, program, servers, sql};

const MORE: &str = "\
CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN short AS text CHECK (length(VALUE) < 9);
CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * n';
CREATE VIEW rich AS SELECT id FROM customers WHERE credit > 5; CREATE SEQUENCE numbers;
CREATE MATERIALIZED VIEW seen AS SELECT 1 AS one;
CREATE SCHEMA other; CREATE TABLE other.parts (id int PRIMARY KEY, mood mood DEFAULT 'ok', word short) PARTITION BY RANGE (id);
CREATE TABLE other.parts_1 PARTITION OF other.parts FOR VALUES FROM (1) TO (9);
COMMENT ON TABLE customers IS 'who buys'; CREATE STATISTICS name_country ON name, country FROM customers";

fn shared() -> &'static Shop {
    static SHOP: OnceLock<Shop> = OnceLock::new();
    SHOP.get_or_init(|| start_over("introspection", MORE, |_| String::new()))
}

#[test]
fn explain_shows_our_plan_in_front_of_postgresqls() {
    let shop = shared();
    let mut client = shop.client();
    for (id, shard) in shop.on.iter().zip(0..) {
        let text = format!("EXPLAIN (COSTS off) SELECT name FROM customers WHERE id = {id}");
        for reply in [client.query(&text), client.run(&text, &[])] {
            let lines = reply.lines();
            assert_eq!(lines[0], format!("one shard s{shard}, primary"), "{reply}");
            assert!(lines[1].contains("Scan") && lines.len() > 2, "{reply}");
            assert_eq!(reply.tags(), ["EXPLAIN"]);
        }
        let analyzed = client.query(&text.replace("COSTS off", "ANALYZE, COSTS off"));
        assert!(
            analyzed.lines().last().unwrap().contains("Execution Time"),
            "{analyzed}"
        );
        // A parameter's value names the shard.
        let text = "EXPLAIN SELECT name FROM customers WHERE id = $1";
        let lines = client.run(text, &[Some(&id.to_string())]).ok().lines();
        assert_eq!(
            lines[0],
            format!("one shard by parameter $1 (int8), here s{shard}")
        );
        let text = format!("EXPLAIN (FORMAT json) SELECT name FROM customers WHERE id = {id}");
        let reply = client.query(&text).ok();
        assert!(
            reply.rows()[0][0].as_ref().unwrap().starts_with('['),
            "{reply}"
        );
    }
    let lines = client.query("EXPLAIN SELECT relname FROM pg_class").lines();
    assert_eq!(lines[0], "authoritative shard s0");
    assert_eq!(
        client.query("explain verbose select 1;").lines()[0],
        "any one shard"
    );
    // Every shard's, one below the other.
    let text = "EXPLAIN (COSTS off) SELECT name FROM customers";
    for reply in [client.query(text), client.run(text, &[])] {
        let lines = reply.lines();
        assert_eq!(lines[0], "every shard, concatenated");
        let shards: Vec<&String> = lines
            .iter()
            .filter(|line| line.starts_with("shard "))
            .collect();
        assert_eq!(shards, ["shard s0:", "shard s1:", "shard s2:"]);
        let scans = lines
            .iter()
            .filter(|line| line.contains("Seq Scan on customers"));
        assert_eq!(scans.count(), 3, "{reply}");
        assert_eq!(reply.tags(), ["EXPLAIN"]);
    }
    for text in [
        "EXPLAIN (FORMAT json) SELECT name FROM customers",
        "EXPLAIN SELECT name FROM customers WHERE name = $1",
    ] {
        let parameters: &[Option<&str>] = if text.contains('$') {
            &[Some("x")]
        } else {
            &[]
        };
        refused(&client.run(text, parameters), "PGH119");
    }
    refused(
        &client.query("EXPLAIN SELECT count(*) FROM customers"),
        "PGH007",
    );
    refused(&client.query("EXPLAIN EXECUTE x"), "PGH118");
    refused(
        &client.query("EXPLAIN ANALYZE SELECT set_config('a.b', 'c', false)"),
        "PGH048",
    );
    assert_eq!(
        client.query("EXPLAIN SELEC 1").sqlstate().as_deref(),
        Some("0A000")
    );
    assert_eq!(
        client
            .query("EXPLAIN SELECT 1 FROM nowhere")
            .sqlstate()
            .as_deref(),
        Some("42P01")
    );
    assert_eq!(client.query("SELECT 1").lines(), ["1"]);
}

#[test]
fn explain_runs_only_what_it_analyzes() {
    let shop = shared();
    let mut client = shop.client();
    let [_, one, two] = shop.on;
    let name = |client: &mut Client| {
        let text = format!("SELECT name FROM customers WHERE id = {one}");
        client.query(&text).lines()
    };
    let update = format!("UPDATE customers SET name = 'changed' WHERE id = {one}");
    client.query(&format!("EXPLAIN {update}")).ok();
    assert_eq!(name(&mut client), ["old"]);
    client.query("BEGIN").ok();
    let lines = client
        .query(&format!("EXPLAIN ANALYZE {update}"))
        .ok()
        .lines();
    assert_eq!(lines[0], "one shard s1, primary");
    assert_eq!(name(&mut client), ["changed"]);
    // The transaction stands on that shard now.
    let other = format!("UPDATE customers SET name = 'x' WHERE id = {two}");
    let status = client.query(&format!("EXPLAIN {other}")).to_string();
    assert!(
        status.ends_with("Z(E)") || status.ends_with("Z(T)"),
        "{status}"
    );
    client.query("ROLLBACK").ok();
    assert_eq!(name(&mut client), ["old"]);
    // Writes in one pipeline are one transaction, explained ones too.
    let analyze =
        |id: i64| format!("EXPLAIN ANALYZE UPDATE customers SET name = name WHERE id = {id}");
    let message = |text: &str| {
        [
            parse("", text, &[]),
            bind("", "", &[]),
            describe(b'P', ""),
            execute("", 0),
        ]
        .concat()
    };
    client.send(&[message(&analyze(one)), message("SELECT 2"), sync()].concat());
    let reply = client.reply().ok();
    assert_eq!(reply.lines()[0], "one shard s1, primary");
    assert_eq!(reply.lines().last().unwrap(), "2");
    client.send(&[message(&analyze(one)), message(&analyze(two)), sync()].concat());
    refused(&client.reply(), "PGH111");
}

#[test]
fn explain_plan_is_ours_alone_and_runs_nothing() {
    let shop = shared();
    let mut client = shop.client();
    let id = shop.on[2];
    for (text, expected) in [
        (
            format!("DELETE FROM customers WHERE id = {id}"),
            "one shard s2, primary",
        ),
        (
            "SELECT name FROM customers".to_owned(),
            "every shard, concatenated",
        ),
        ("SELECT 1".to_owned(), "any one shard"),
        (
            "BEGIN".to_owned(),
            "a command of the session or its transaction",
        ),
    ] {
        let text = format!("EXPLAIN (PLAN) {text}");
        for reply in [client.query(&text), client.run(&text, &[])] {
            assert_eq!(reply.lines(), [expected], "{reply}");
            assert!(reply.to_string().ends_with("Z(I)"), "{reply}");
        }
    }
    let reply = client
        .query("EXPLAIN (PLAN, ANALYZE) SELECT count(*) FROM customers")
        .ok();
    let lines = reply.lines();
    assert_eq!(reply.of(b'T').next().unwrap().names(), ["QUERY PLAN"]);
    assert_eq!(
        lines[0],
        "PGH007: pgherd does not support an aggregate over several shards"
    );
    assert!(
        lines[1].starts_with("Detail: ") && lines[2].starts_with("Hint: "),
        "{lines:?}"
    );
    assert_eq!(lines.len(), 3);
    client.query("BEGIN").ok();
    client.query("SELECT 1/0");
    let reply = client.query("EXPLAIN (PLAN) SELECT 1");
    assert_eq!(reply.sqlstate().as_deref(), Some("25P02"), "{reply}");
    client.query("ROLLBACK").ok();
    // On one shard nothing is planned.
    let servers = &servers().all()[..1];
    let name = database(servers, "introspection_one", "");
    let proxy = Proxy::start(&Proxy::config(&name, servers, ""));
    let mut client = proxy.client(&name, "postgres", "");
    let text = "explain (plan) DROP DATABASE x";
    for reply in [client.query(text), client.run(text, &[])] {
        assert_eq!(reply.lines(), ["one shard, passed unread"], "{reply}");
    }
    assert!(client.query("EXPLAIN SELECT 1").lines()[0].starts_with("Result"));
}

fn succeeded(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn psql_describes_the_authoritative_shard() {
    let shop = shared();
    let server = &servers().all()[0];
    let straight = server.dsn(&shop.name);
    let through = shop.proxy.dsn(&shop.name, "postgres");
    let mut wrong = Vec::new();
    for command in [
        "\\d",
        "\\d+",
        "\\dt",
        "\\dt+",
        "\\d orders",
        "\\d+ customers",
        "\\d rich",
        "\\d+ rich",
        "\\d numbers",
        "\\d+ other.parts",
        "\\d other.*",
        "\\di",
        "\\di+",
        "\\dv",
        "\\dv+",
        "\\dm",
        "\\ds",
        "\\df",
        "\\df+",
        "\\sf twice",
        "\\sv rich",
        "\\l",
        "\\l+",
        "\\du",
        "\\du+",
        "\\dg",
        "\\dn",
        "\\dn+",
        "\\dT",
        "\\dT+",
        "\\dD",
        "\\dx",
        "\\dp",
        "\\db",
        "\\dc",
        "\\dC",
        "\\dd",
        "\\ddp",
        "\\dL",
        "\\do",
        "\\dO",
        "\\dP",
        "\\dRp",
        "\\dRs",
        "\\drds",
        "\\dy",
        "\\dX",
        "\\da",
        "\\dA",
        "\\dF",
        "\\des",
        "\\det",
        "\\conninfo",
        "\\encoding",
        "\\z",
        "\\dconfig work_mem",
    ] {
        let run = |dsn: &str| {
            let mut psql = program(server, "psql");
            psql.args(["-X", "-d", dsn, "-c", command]);
            let output = psql.output().unwrap();
            let (out, errors) = (output.stdout, output.stderr);
            String::from_utf8(out).unwrap() + &String::from_utf8(errors).unwrap()
        };
        let (expected, found) = (run(&straight), run(&through));
        if found != expected && command != "\\conninfo" {
            wrong.push(format!("{command}\n{expected}\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pg_dump_dumps_the_schema_of_the_authoritative_shard() {
    let shop = shared();
    let server = &servers().all()[0];
    let dump = |dsn: &str, more: &[&str]| {
        let mut dump = program(server, "pg_dump");
        dump.args(["--schema-only", "-d", dsn]).args(more);
        let text = succeeded(&dump.output().unwrap());
        // A number by chance.
        let told = text.lines().filter(|line| !line.contains("restrict "));
        told.map(|line| format!("{line}\n")).collect::<String>()
    };
    let through = shop.proxy.dsn(&shop.name, "postgres");
    for more in [&[][..], &["-t", "orders"], &["-n", "other", "--clean"]] {
        let expected = dump(&server.dsn(&shop.name), more);
        assert!(expected.contains("CREATE TABLE "));
        assert_eq!(dump(&through, more), expected, "{more:?}");
    }
}

#[test]
fn sqlalchemy_and_django_find_the_schema_of_the_authoritative_shard() {
    let shop = shared();
    let drivers = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .unwrap()
        .join("drivers");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/introspect.py");
    let run = |port: u16| {
        let dsn = format!("postgresql://postgres@127.0.0.1:{port}/{}", shop.name);
        let mut python = Command::new(drivers.join("venv/bin/python"));
        python.arg(&script).env("PGHERD_DSN", dsn);
        let text = succeeded(&python.env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap());
        let told = text.lines().map(|line| format!("{line}\n"));
        told.collect::<String>()
    };
    let expected = run(servers().all()[0].port());
    for name in ["order_lines", "TableInfo(name='customers'", "mood", "rich"] {
        assert!(expected.contains(name), "{name} in {expected}");
    }
    let found = run(shop.proxy.port);
    let differs = |(found, expected): &(&str, &str)| found != expected;
    let difference = found.lines().zip(expected.lines()).find(differs);
    assert_eq!(difference, None);
    assert_eq!(found, expected);
}

#[test]
fn statements_about_the_catalogue_may_be_prepared_and_no_others() {
    let shop = shared();
    let mut client = shop.client();
    let mut other = shop.client();
    let class = "PREPARE class(text) AS SELECT relkind FROM pg_class WHERE relname = $1";
    assert_eq!(client.query(class).to_string(), "C(PREPARE) Z(I)");
    // Whatever was asked between, on whichever server.
    for id in shop.on {
        client
            .query(&format!("SELECT name FROM customers WHERE id = {id}"))
            .ok();
        assert_eq!(client.query("EXECUTE class('orders')").lines(), ["r"]);
    }
    assert_eq!(
        other.query("EXECUTE class('orders')").sqlstate().as_deref(),
        Some("26000")
    );
    for text in [
        "PREPARE p AS SELECT name FROM customers WHERE id = $1",
        "PREPARE p AS SELECT 1",
        "PREPARE p AS SELECT set_config('a.b', 'c', false) FROM pg_class",
        "PREPARE p AS DELETE FROM pg_class",
        "EXECUTE class(upper('orders'))",
        "EXECUTE class((SELECT 'orders'))",
    ] {
        refused(&client.query(text), "PGH107");
    }
    assert_eq!(
        client.query("DEALLOCATE class").to_string(),
        "C(DEALLOCATE) Z(I)"
    );
    assert_eq!(
        client
            .query("EXECUTE class('orders')")
            .sqlstate()
            .as_deref(),
        Some("26000")
    );
    client.query("BEGIN").ok();
    client.query(class).ok();
    assert_eq!(client.query("EXECUTE class('rich')").lines(), ["v"]);
    client
        .query("LOCK TABLE orders, ONLY customers IN ACCESS SHARE MODE")
        .ok();
    let text = "SELECT count(*) FROM pg_locks WHERE relation = 'orders'::regclass AND mode = 'AccessShareLock'";
    assert_eq!(sql(&servers().all()[0], &shop.name, text), "1");
    client.query("ROLLBACK").ok();
    assert_eq!(
        client.query("DEALLOCATE ALL").to_string(),
        "C(DEALLOCATE ALL) Z(I)"
    );
    assert_eq!(
        client.query("EXECUTE class('rich')").sqlstate().as_deref(),
        Some("26000")
    );
    refused(&client.query("LOCK TABLE orders"), "PGH118");
    assert_eq!(client.query("SELECT 1").lines(), ["1"]);
}
