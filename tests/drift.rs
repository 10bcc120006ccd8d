//! Live: schemas that change while a database is served, and shards whose schemas come to differ. What changes on all
//! shards is learned without a restart; what differs is told, and what it would make wrong is refused until it is mended.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/herd.rs"]
mod herd;
mod support;

use std::sync::Arc;

use herd::{Herd, config_of, sharded};
use pgherd::catalog::Resolved;
use pgherd::config::TableRule;
use pgherd::error::Severity;
use pgherd::names::ShardId;
use pgherd::snapshot::{Watch, check_connect, init as write_placement, load_database};
use support::client::{Client, Reply, bind, execute, parse, sync};
use support::proxy::{Proxy, init};
use support::{database, servers, sql, until};

const SCHEMA: &str = "
CREATE TABLE orders (customer_id bigint PRIMARY KEY, partner_id bigint NOT NULL DEFAULT 0, note text);
CREATE VIEW partners AS SELECT customer_id AS k, note FROM orders;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
";

struct Shards {
    proxy: Proxy,
    name: String,
}

/// Served, with `orders` and `later` sharded by their customer; `later` does not exist yet.
fn serve(name: &str, refresh: &str) -> Shards {
    let servers = servers().all();
    let name = database(servers, name, SCHEMA);
    let tables = format!(
        "[databases.{name}.tables.orders]\nkey = \"customer_id\"\n[databases.{name}.tables.later]\nkey = \"customer_id\"\n"
    );
    let config = Proxy::config(&name, servers, &tables).replace(
        "workers = 2",
        &format!("workers = 2\ncatalog_refresh = \"{refresh}\""),
    );
    let proxy = Proxy::start_with(&config, init);
    Shards { proxy, name }
}

impl Shards {
    fn client(&self) -> Client {
        self.proxy.client(&self.name, "postgres", "")
    }

    fn shard(&self, shard: usize, text: &str) -> String {
        sql(&servers().all()[shard], &self.name, text)
    }

    fn everywhere(&self, text: &str) {
        for server in servers().all() {
            sql(server, &self.name, text);
        }
    }

    fn metric(&self, name: &str, labels: &str) -> Option<String> {
        let page = self.proxy.page("/metrics");
        let start = format!("{name}{{database=\"{}\"{labels}}} ", self.name);
        let line = page.lines().find(|line| line.starts_with(&start))?;
        Some(line[start.len()..].to_owned())
    }
}

fn number(reply: &Reply) -> Option<String> {
    let error = reply.of(b'E').next()?;
    Some(error.field(b'M')?.chars().take(6).collect())
}

#[test]
fn a_difference_is_told_refused_where_it_would_be_wrong_and_gone_when_it_is_mended() {
    let shards = serve("differ", "50ms");
    let mut client = shards.client();
    let by_key = "SELECT note FROM orders WHERE customer_id = 1";
    client.query(by_key).ok();
    let drift = |shard: &str, kind: &str| {
        let labels = format!(",shard=\"{shard}\",kind=\"{kind}\"");
        shards.metric("pgherd_schema_drift", &labels)
    };
    assert_eq!(drift("s1", "default"), None);

    // Told, no more: the answer is the same.
    shards.shard(1, "ALTER TABLE orders ALTER note SET DEFAULT 'x'");
    until("the default is told", || {
        drift("s1", "default").as_deref() == Some("1")
    });
    let log = shards.proxy.log();
    assert!(log.contains("the default of column note"), "{log}");
    client.query(by_key).ok();
    shards.shard(1, "ALTER TABLE orders ALTER note DROP DEFAULT");
    until("the default is mended", || {
        drift("s1", "default").as_deref() == Some("0")
    });
    assert!(
        shards
            .proxy
            .log()
            .contains("a difference between shards is gone")
    );

    // A trigger on one shard may do anything to a row.
    shards.shard(
        2,
        "CREATE TRIGGER t BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION nothing()",
    );
    until("the trigger is refused", || {
        number(&client.query(by_key)).as_deref() == Some("PGH075")
    });
    assert_eq!(drift("s2", "trigger").as_deref(), Some("1"));
    let reply = client.query(by_key);
    let detail = reply.of(b'E').next().unwrap().field(b'D').unwrap();
    assert!(
        detail.contains("s2") && detail.contains("trigger t"),
        "{detail}"
    );
    // The same as rows.
    let shown = client.query("SHOW pgherd.drift");
    assert_eq!(shown.tags(), ["SHOW"]);
    let names = shown.of(b'T').next().unwrap().names();
    assert_eq!(names, ["database", "shard", "kind", "object", "difference"]);
    let [line] = shown.lines().try_into().unwrap();
    let start = format!(
        "{}|s2|trigger|table public.orders, trigger t|s0 does not have it; ",
        shards.name
    );
    assert!(line.starts_with(&start), "{line}");
    shards.shard(2, "DROP TRIGGER t ON orders");
    until("the trigger is gone", || {
        number(&client.query(by_key)).is_none()
    });
    client.query(by_key).ok();
}

#[test]
fn shards_that_write_values_in_different_ways_are_not_read() {
    let shards = serve("written", "50ms");
    let mut client = shards.client();
    let by_key = "SELECT note FROM orders WHERE customer_id = 1";
    client.query(by_key).ok();
    let set = |what: &str| {
        shards.shard(1, &format!("ALTER DATABASE {} {what}", shards.name));
    };
    for (change, undo) in [
        ("SET TimeZone = 'Asia/Tokyo'", "RESET TimeZone"),
        ("SET DateStyle = 'German'", "RESET DateStyle"),
    ] {
        set(change);
        until("the setting is refused", || {
            number(&client.query(by_key)).as_deref() == Some("PGH076")
        });
        client.query("SELECT now()").ok();
        set(undo);
        until("the setting is as it was", || {
            number(&client.query(by_key)).is_none()
        });
    }
}

#[test]
fn a_table_that_was_made_later_is_known_as_soon_as_somebody_asks_for_it() {
    // Only when a statement names it: the timer is off.
    let shards = serve("later", "0");
    let mut client = shards.client();
    let text = "SELECT note FROM later WHERE customer_id = 1";
    assert_eq!(number(&client.query(text)).as_deref(), Some("PGH036"));
    assert_eq!(
        shards.metric("pgherd_catalog_version", "").as_deref(),
        Some("1")
    );
    shards.everywhere("CREATE TABLE later (customer_id bigint PRIMARY KEY, note text)");
    until("the table is known", || {
        number(&client.query(text)).is_none()
    });
    client.query("INSERT INTO later VALUES (1, 'here')").ok();
    assert_eq!(client.query(text).lines(), ["here"]);
    let version: u64 = shards
        .metric("pgherd_catalog_version", "")
        .unwrap()
        .parse()
        .unwrap();
    assert!(version > 1);

    // One that nobody has placed is PostgreSQL's to refuse, before and after.
    let unknown = client.query("SELECT * FROM nowhere_at_all");
    assert_eq!(unknown.sqlstate().as_deref(), Some("42P01"));
}

#[test]
fn a_prepared_statement_is_planned_again_when_its_view_has_changed() {
    let shards = serve("prepared", "50ms");
    let mut client = shards.client();
    for id in 1..20 {
        let text = format!("INSERT INTO orders VALUES ({id}, {}, 'of {id}')", 20 - id);
        client.query(&text).ok();
    }
    client.send(
        &[
            parse("p", "SELECT note FROM partners WHERE k = $1", &[]),
            sync(),
        ]
        .concat(),
    );
    client.reply().ok();
    let mut run = |key: &str| {
        client.send(
            &[
                bind("", "p", &[Some(key.as_bytes())]),
                execute("", 0),
                sync(),
            ]
            .concat(),
        );
        client.reply()
    };
    for id in 1..20 {
        assert_eq!(run(&id.to_string()).lines(), [format!("of {id}")]);
    }
    // The same columns, but the rows of a key are on any shard now.
    shards
        .everywhere("CREATE OR REPLACE VIEW partners AS SELECT partner_id AS k, note FROM orders");
    until("the view is known", || {
        number(&run("1")).as_deref() == Some("PGH016")
    });
    // … and back again.
    shards
        .everywhere("CREATE OR REPLACE VIEW partners AS SELECT customer_id AS k, note FROM orders");
    until("the old view is back", || number(&run("1")).is_none());
    for id in 1..20 {
        assert_eq!(run(&id.to_string()).lines(), [format!("of {id}")]);
    }
}

#[test]
fn a_shard_that_cannot_be_asked_is_told_of_once() {
    let servers = support::servers_with("asked", 2);
    let name = database(servers.all(), "asked", SCHEMA);
    let tables = format!("[databases.{name}.tables.orders]\nkey = \"customer_id\"\n");
    let config = Proxy::config(&name, servers.all(), &tables)
        .replace("workers = 2", "workers = 2\ncatalog_refresh = \"50ms\"");
    let proxy = Proxy::start_with(&config, init);
    let shards = Shards { proxy, name };
    servers.all()[1].stop();
    let told = || shards.proxy.log().matches("could not be looked at").count();
    until("the loss is told", || told() > 0);
    let looks = || -> u64 {
        let looks = shards.metric("pgherd_catalog_looks_total", ",result=\"unchanged\"");
        looks.unwrap_or_default().parse().unwrap_or(0)
    };
    let before = looks();
    until("it is looked at again", || looks() >= before + 2);
    assert_eq!(told(), 1, "{}", shards.proxy.log());
    // What the other shard says is learned all the same.
    let text = "ALTER TABLE orders ADD more int";
    sql(&servers.all()[0], &shards.name, text);
    until("the change is known", || {
        shards.metric("pgherd_catalog_version", "").as_deref() == Some("2")
    });
}

// ── what is found ───────────────────────────────────────────────────────────────────────────────────────────────

/// DDL on the second shard, the line that tells of it, and whether statements are refused for it.
const DIFFERENCES: &[(&str, &str, bool)] = &[
    (
        "CREATE OR REPLACE VIEW notes AS SELECT customer_id, 'x'::text AS note FROM orders",
        "view public.notes: it is not defined as on s0",
        true,
    ),
    (
        "ALTER TABLE orders ADD more int",
        "table public.orders, column more: s0 does not have it",
        false,
    ),
    (
        "ALTER TABLE orders ALTER note TYPE varchar(9)",
        "table public.orders, column note: it is character varying(9), on s0 it is text",
        true,
    ),
    (
        "ALTER TABLE orders ALTER note SET NOT NULL",
        "table public.orders, whether column note may be NULL: it is NOT NULL, on s0 it is NULL",
        false,
    ),
    (
        "ALTER TABLE orders ALTER note SET DEFAULT 'x'",
        "table public.orders, the default of column note: s0 does not have it",
        false,
    ),
    (
        "ALTER TABLE orders ADD UNIQUE (customer_id, note)",
        "table public.orders, unique key UNIQUE (customer_id, note): s0 does not have it",
        false,
    ),
    (
        "CREATE UNIQUE INDEX ON orders (customer_id) WHERE note IS NULL",
        "table public.orders, unique key UNIQUE (customer_id) WHERE (note IS NULL): s0 does not have it",
        false,
    ),
    (
        "ALTER TABLE lines DROP CONSTRAINT lines_customer_id_fkey",
        "table public.lines, foreign key FOREIGN KEY (customer_id) REFERENCES public.orders(customer_id): it is missing; s0 has it",
        false,
    ),
    (
        "ALTER TABLE orders ADD CHECK (customer_id > 0)",
        "table public.orders, check CHECK ((customer_id > 0)): s0 does not have it",
        false,
    ),
    (
        "CREATE TRIGGER t BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION nothing()",
        "table public.orders, trigger t: s0 does not have it",
        true,
    ),
    (
        "CREATE RULE r AS ON DELETE TO orders DO INSTEAD NOTHING",
        "table public.orders, rule r: s0 does not have it",
        true,
    ),
    (
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
        "table public.orders, its row security: s0 does not have it",
        true,
    ),
    (
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1)",
        "table public.parts_1: s0 does not have it",
        true,
    ),
    (
        "ALTER TABLE orders REPLICA IDENTITY FULL",
        "table public.orders, its replica identity: it is all columns, on s0 it is (customer_id)",
        false,
    ),
    (
        "CREATE OR REPLACE FUNCTION nothing() RETURNS trigger STABLE LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "function public.nothing(): it is stable, definition",
        false,
    ),
    (
        "ALTER TYPE mood ADD VALUE 'calm'",
        "type public.mood: it is enum ('sad', 'calm'), on s0 it is enum ('sad')",
        false,
    ),
    (
        "DO $$ BEGIN EXECUTE format('ALTER ROLE shop IN DATABASE %I SET bytea_output = escape', current_database()); END $$",
        "role setting shop.bytea_output: s0 does not have it",
        true,
    ),
    (
        "CREATE SCHEMA mia; CREATE TABLE mia.orders ()",
        "table mia.orders: it is only here, and public.orders is called like it",
        true,
    ),
    (
        "DROP TABLE lines",
        "table public.lines: it is missing; s0 has it",
        true,
    ),
];

#[tokio::test]
async fn every_kind_of_difference_is_found() {
    let schema = "CREATE TABLE public.orders (customer_id int8 PRIMARY KEY, note text); \
        CREATE TABLE public.lines (customer_id int8 REFERENCES public.orders, text text); \
        CREATE TABLE public.parts (customer_id int8) PARTITION BY LIST (customer_id); \
        CREATE VIEW public.notes AS SELECT customer_id, note FROM public.orders; \
        CREATE TYPE public.mood AS ENUM ('sad'); CREATE TABLE public.stray (a int); \
        CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'";
    let herd = Herd::of("kinds", 2);
    herd.everywhere(schema).await;
    let key = || sharded("customer_id");
    let database = herd.with_tables(&[
        ("orders", key()),
        ("lines", key()),
        ("parts", key()),
        ("alone", TableRule::Single(ShardId(1))),
    ]);
    write_placement(&database, false).await.unwrap();
    let known = load_database(&database).await.unwrap();
    assert_eq!(known.drift, []);
    // What is on one shard alone, or in nobody's rules, may differ.
    let other = &herd.controls[1];
    other
        .execute("CREATE TABLE public.alone (b int); ALTER TABLE public.stray ADD c int")
        .await
        .unwrap();
    let mut watch = Watch::new(&known).unwrap().unwrap();
    let look = watch.look().await.unwrap();
    assert_eq!(look.news.unwrap().drift, []);
    assert!(
        watch.look().await.unwrap().news.is_none(),
        "nothing has changed"
    );

    for (ddl, line, breaks) in DIFFERENCES {
        // What one DDL does is told beside what those before it did.
        other
            .execute(&format!(
                "SET search_path = public; {ddl}; SET search_path = pg_catalog"
            ))
            .await
            .unwrap();
        let look = watch.look().await.unwrap();
        let drift = look.news.expect(ddl).drift;
        let found = drift
            .iter()
            .find(|each| each.to_string().contains(&format!(", {line}")));
        let found = found.unwrap_or_else(|| panic!("{ddl}\n{line}\n{drift:#?}"));
        assert_eq!(found.shard.as_str(), "s1");
        let refuses = found.difference.breaks.is_some() || found.difference.setting.is_some();
        assert_eq!(refuses, *breaks, "{ddl}");
    }

    // The same, as an operator sees it.
    let findings = check_connect(&config_of(&[Arc::clone(&database)])).await;
    for (_, line, breaks) in DIFFERENCES {
        // the table is gone by now, and with it what it lacks
        if line.starts_with("table public.lines, ") {
            continue;
        }
        let severity = if *breaks {
            Severity::Error
        } else {
            Severity::Warning
        };
        let hit = findings.iter().any(|finding| {
            finding.severity == severity
                && finding.path == "databases.kinds.shards.s1"
                && finding.problem.contains(line)
                && finding.remedy.is_some()
        });
        assert!(hit, "{line}\n{findings:#?}");
    }
}

#[tokio::test]
async fn constraints_and_identities_without_the_sharding_key_are_warned_of() {
    let herd = Herd::of("loose", 2);
    herd.everywhere(
        "CREATE TABLE public.orders (customer_id int8, id int8 PRIMARY KEY); \
         CREATE TABLE public.lines (customer_id int8, order_id int8 REFERENCES public.orders, n int8, \
           PRIMARY KEY (customer_id, n), CONSTRAINT same UNIQUE (n))",
    )
    .await;
    let database = herd.with_tables(&[
        ("orders", sharded("customer_id")),
        ("lines", sharded("customer_id")),
    ]);
    write_placement(&database, false).await.unwrap();
    let findings = check_connect(&config_of(&[database])).await;
    for (table, text) in [
        (
            "orders",
            "constraint orders_pkey (id) lacks the sharding key customer_id",
        ),
        (
            "orders",
            "its replica identity lacks the sharding key customer_id",
        ),
        (
            "lines",
            "constraint same (n) lacks the sharding key customer_id",
        ),
        (
            "lines",
            "constraint lines_order_id_fkey (order_id) lacks the sharding key customer_id",
        ),
    ] {
        let path = format!("databases.loose.tables.\"public.{table}\"");
        let hit = |finding: &&pgherd::snapshot::Finding| {
            finding.severity == Severity::Warning
                && finding.path == path
                && finding.problem.contains(text)
        };
        assert_eq!(
            findings.iter().filter(hit).count(),
            1,
            "{text}\n{findings:#?}"
        );
    }
    let of_lines = findings
        .iter()
        .filter(|finding| finding.path.contains("public.lines"));
    assert_eq!(of_lines.count(), 2, "{findings:#?}");
}

/// Rows stay where the old type's hash has put them, so nothing is found by the new one's.
#[tokio::test]
async fn a_key_that_hashes_otherwise_now_is_refused() {
    let herd = Herd::of("rekeyed", 2);
    herd.everywhere(
        "CREATE TABLE public.orders (customer_id int8); CREATE TABLE public.lines (customer_id int8)",
    )
    .await;
    let database = herd.with_tables(&[
        ("orders", sharded("customer_id")),
        ("lines", sharded("customer_id")),
    ]);
    write_placement(&database, false).await.unwrap();
    let known = load_database(&database).await.unwrap();
    let mut watch = Watch::new(&known).unwrap().unwrap();
    for (ddl, orders_are_broken) in [
        ("SELECT 1", false),
        (
            "ALTER TABLE public.orders ALTER customer_id TYPE int4",
            false,
        ),
        (
            "ALTER TABLE public.orders ALTER customer_id TYPE text",
            true,
        ),
        (
            "ALTER TABLE public.orders ALTER customer_id TYPE int8 USING customer_id::int8",
            false,
        ),
        (
            "ALTER TABLE public.orders RENAME customer_id TO client_id",
            true,
        ),
    ] {
        herd.everywhere(ddl).await;
        let catalog = watch.look().await.unwrap().news.map(|news| news.catalog);
        let is_broken = |name| match &catalog {
            Some(catalog) => match catalog.resolve(Some("public"), name) {
                Resolved::Relation(relation) => catalog.broken(&relation).is_some(),
                other => panic!("{other:?}"),
            },
            None => false,
        };
        assert_eq!(is_broken("orders"), orders_are_broken, "{ddl}");
        assert!(!is_broken("lines"), "{ddl}");
    }
}

/// A server that is down does not keep the others' changes from being learned.
#[tokio::test]
async fn a_shard_that_is_down_keeps_what_was_known_of_it() {
    let servers = support::servers_with("down", 2);
    let herd = Herd::on(servers.all(), "down", 2);
    herd.everywhere("CREATE TABLE public.orders (customer_id int8)")
        .await;
    let database = herd.with_tables(&[("orders", sharded("customer_id"))]);
    write_placement(&database, false).await.unwrap();
    let known = load_database(&database).await.unwrap();
    let mut watch = Watch::new(&known).unwrap().unwrap();
    herd.controls[1]
        .execute("ALTER TABLE public.orders ADD a int")
        .await
        .unwrap();
    let drift = watch.look().await.unwrap().news.unwrap().drift;
    assert_eq!(drift.len(), 1, "{drift:#?}");
    servers.all()[1].stop();
    herd.controls[0]
        .execute("ALTER TABLE public.orders ADD b int")
        .await
        .unwrap();
    let look = watch.look().await.unwrap();
    assert_eq!(look.lost.len(), 1);
    let now = look.news.unwrap().drift;
    assert!(
        now.len() > 1 && now.iter().any(|each| drift.contains(each)),
        "{now:#?}"
    );
}
