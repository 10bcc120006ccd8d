//! Live: a session on three shards. Statements go where their rows are, transactions stand on one shard, what cannot be
//! answered is refused by number and leaves the session as PostgreSQL would.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::sync::OnceLock;

use pgherd::demo::shop;
use support::client::{
    Client, Reply, bind, bind_as, cancel_request, close, copy_data, describe, execute, flush,
    message, parse, query, sync,
};
use support::proxy::{Proxy, init, pgherd};
use support::shop::refused;
use support::{PATIENCE, database, psql, servers, servers_with, sql, until};

const CUSTOMERS: i64 = 30;

struct Shop {
    proxy: Proxy,
    name: String,
}

impl Shop {
    fn client(&self) -> Client {
        self.proxy.client(&self.name, "postgres", "")
    }

    /// On which shard the customer is, found by asking each.
    fn shard_of(&self, customer: i64) -> usize {
        let found: Vec<usize> = (0..3)
            .filter(|&shard| {
                let text = format!("SELECT count(*) FROM customers WHERE id = {customer}");
                sql(&servers().all()[shard], &self.name, &text) == "1"
            })
            .collect();
        assert_eq!(found.len(), 1, "customer {customer} is on shards {found:?}");
        found[0]
    }

    /// Two customers on different shards, neither on the first.
    fn two(&self) -> (i64, i64) {
        let first = (1..CUSTOMERS).find(|&id| self.shard_of(id) == 1).unwrap();
        let second = (1..CUSTOMERS).find(|&id| self.shard_of(id) == 2).unwrap();
        (first, second)
    }
}

/// Shared by the tests that only read, or that write rows of their own.
fn shared() -> &'static Shop {
    static SHOP: OnceLock<Shop> = OnceLock::new();
    SHOP.get_or_init(|| start("sharded"))
}

fn start(name: &str) -> Shop {
    let servers = servers().all();
    let name = database(servers, name, shop::SCHEMA);
    for server in servers {
        sql(
            server,
            &name,
            "INSERT INTO countries VALUES ('CZ', 'Czechia', 'Europe'), ('JP', 'Japan', 'Asia')",
        );
    }
    let rules = shop::RULES.replace("databases.shop.", &format!("databases.{name}."));
    let config = Proxy::config(&name, servers, &rules);
    let proxy = Proxy::start_with(&config, init);
    let shop = Shop { proxy, name };
    let mut client = shop.client();
    for id in 1..=CUSTOMERS {
        client
            .query(&format!(
                "INSERT INTO customers (id, name, country) VALUES ({id}, 'c{id}', 'CZ')"
            ))
            .ok();
    }
    shop
}

#[test]
fn rows_are_where_the_placement_says_and_all_of_them_are_found() {
    let shop = shared();
    let mut client = shop.client();
    let mut used = [0; 3];
    for id in 1..=CUSTOMERS {
        used[shop.shard_of(id)] += 1;
        let text = format!("SELECT name FROM customers WHERE id = {id}");
        assert_eq!(client.query(&text).lines(), [format!("c{id}")]);
        let found = client.run(
            "SELECT name FROM customers WHERE id = $1",
            &[Some(&id.to_string())],
        );
        assert_eq!(found.lines(), [format!("c{id}")]);
    }
    assert!(used.iter().all(|&count| count > 0), "{used:?}");
    for extended in [false, true] {
        let text = format!("SELECT id FROM customers WHERE name LIKE 'c%' AND id <= {CUSTOMERS}");
        let reply = if extended {
            client.run(&text, &[])
        } else {
            client.query(&text)
        };
        let mut ids: Vec<i64> = reply.lines().iter().map(|id| id.parse().unwrap()).collect();
        ids.sort_unstable();
        assert_eq!(ids, (1..=CUSTOMERS).collect::<Vec<_>>());
        assert_eq!(reply.tags(), [format!("SELECT {CUSTOMERS}")]);
        assert_eq!(reply.of(b'T').count(), 1, "{reply}");
    }
}

#[test]
fn a_transaction_begins_where_its_first_statement_goes_and_stays_there() {
    let shop = start("transactions");
    let (one, two) = shop.two();
    let mut client = shop.client();
    assert_eq!(client.query("BEGIN").to_string(), "C(BEGIN) Z(T)");
    assert_eq!(client.query("SAVEPOINT a").to_string(), "C(SAVEPOINT) Z(T)");
    let update =
        |id: i64, name: &str| format!("UPDATE customers SET name = '{name}' WHERE id = {id}");
    let name_of = |client: &mut Client, id: i64| {
        client
            .query(&format!("SELECT name FROM customers WHERE id = {id}"))
            .lines()
    };
    client.query(&update(one, "changed")).ok();
    // The savepoint of before is there.
    assert_eq!(
        client.query("ROLLBACK TO a").to_string(),
        "C(ROLLBACK) Z(T)"
    );
    assert_eq!(name_of(&mut client, one), [format!("c{one}")]);
    client.query(&update(one, "kept")).ok();
    assert_eq!(client.query("COMMIT").to_string(), "C(COMMIT) Z(I)");
    assert_eq!(name_of(&mut client, one), ["kept"]);
    // A second shard is refused, and fails the transaction as any error does.
    client.query("BEGIN").ok();
    client.query(&update(one, "lost")).ok();
    let reply = client.query(&update(two, "lost"));
    refused(&reply, "PGH100");
    assert!(reply.to_string().ends_with("Z(E)"), "{reply}");
    assert_eq!(
        client.query("SELECT 1").sqlstate().as_deref(),
        Some("25P02")
    );
    assert_eq!(client.query("COMMIT").to_string(), "C(ROLLBACK) Z(I)");
    assert_eq!(name_of(&mut client, one), ["kept"]);
    // Also where a savepoint can be gone back to.
    client.query("BEGIN").ok();
    client.query(&update(one, "kept too")).ok();
    client.query("SAVEPOINT b").ok();
    refused(&client.query(&update(two, "lost")), "PGH100");
    assert_eq!(
        client.query("ROLLBACK TO b").to_string(),
        "C(ROLLBACK) Z(T)"
    );
    client.query("COMMIT").ok();
    assert_eq!(name_of(&mut client, one), ["kept too"]);
    assert_eq!(name_of(&mut client, two), [format!("c{two}")]);
}

#[test]
fn begin_takes_its_options_along() {
    let shop = shared();
    let mut client = shop.client();
    let (one, _) = shop.two();
    for begin in [
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        "START TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ",
    ] {
        assert!(client.query(begin).to_string().ends_with("Z(T)"));
        client
            .query(&format!("SELECT 1 FROM customers WHERE id = {one}"))
            .ok();
        assert_eq!(
            client.query("SHOW transaction_isolation").lines(),
            ["repeatable read"]
        );
        let write = format!("UPDATE customers SET name = 'x' WHERE id = {one}");
        assert_eq!(client.query(&write).sqlstate().as_deref(), Some("25006"));
        client.query("ROLLBACK").ok();
    }
    client.query("BEGIN").ok();
    client.query("SET TRANSACTION READ ONLY").ok();
    let write = format!("UPDATE customers SET name = 'x' WHERE id = {one}");
    assert_eq!(client.query(&write).sqlstate().as_deref(), Some("25006"));
    client.query("ROLLBACK").ok();
}

#[test]
fn transaction_commands_without_statements_are_answered_as_by_postgresql() {
    let shop = shared();
    let mut straight = Client::connect(servers().all()[0].port());
    straight.login(&[("user", "postgres"), ("database", &shop.name)], "");
    let mut through = shop.client();
    for text in [
        "BEGIN",
        "BEGIN",
        "COMMIT",
        "COMMIT",
        "ROLLBACK",
        "START TRANSACTION",
        "SAVEPOINT a",
        "SAVEPOINT \"B b\"",
        "RELEASE a",
        "ROLLBACK TO a",
        "ROLLBACK",
        "SAVEPOINT a",
        "BEGIN; ",
        "COMMIT AND CHAIN",
        "ROLLBACK AND CHAIN",
        "END;",
        "COMMIT AND CHAIN",
        "BEGIN ISOLATION LEVEL nonsense",
        "BEGIN",
        "SELECT 1/0",
        "SELECT 1",
        "END",
        "",
        ";",
        "SHOW server_encoding",
        "DEALLOCATE ALL",
        "DISCARD ALL",
        "RESET ALL",
        "UNLISTEN *",
    ] {
        assert_eq!(
            through.query(text).to_string(),
            straight.query(text).to_string(),
            "{text}"
        );
    }
}

#[test]
fn refusals_have_their_numbers_and_the_session_goes_on() {
    let shop = shared();
    let mut client = shop.client();
    for (text, number) in [
        ("SELECT count(*) FROM customers", "PGH007"),
        ("SELECT 1; COMMIT", "PGH102"),
        ("SET client_encoding = 'LATIN1'", "PGH103"),
        ("LISTEN x", "PGH104"),
        ("CREATE TEMP TABLE x (a int)", "PGH105"),
        ("COPY customers TO STDOUT", "PGH106"),
        ("COPY customers FROM STDIN", "PGH106"),
        ("PREPARE p AS SELECT 1", "PGH107"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "PGH108"),
        ("DROP TABLE customers", "PGH109"),
        ("PREPARE TRANSACTION 'x'", "PGH113"),
        ("VACUUM", "PGH118"),
        ("SELEC 1", "PGH001"),
    ] {
        refused(&client.query(text), number);
        let reply = client.run(text, &[]);
        refused(&reply, number);
        assert!(reply.to_string().ends_with("Z(I)"), "{reply}");
        assert_eq!(client.query("SELECT 1").lines(), ["1"]);
    }
    client.send(&message(b'F', b"\0\0\0\x01\0\0\0\0\0\0"));
    refused(&client.reply(), "PGH110");
    let (one, _) = shop.two();
    client.query("BEGIN").ok();
    client
        .query(&format!("SELECT 1 FROM customers WHERE id = {one}"))
        .ok();
    client.query("SET LOCAL work_mem = '1MB'").ok();
    assert_eq!(client.query("SHOW work_mem").lines(), ["1MB"]);
    client.query("ROLLBACK").ok();
    let reply = Client::connect(shop.proxy.port).try_login(
        &[
            ("user", "postgres"),
            ("database", &shop.name),
            ("replication", "database"),
        ],
        "",
    );
    refused(&reply, "PGH117");
    for (setting, value, number) in [
        ("client_encoding", "LATIN1", "PGH114"),
        ("search_path", "public, pg_catalog", "PGH103"),
        ("standard_conforming_strings", "off", "PGH103"),
    ] {
        let parameters = [
            ("user", "postgres"),
            ("database", &shop.name),
            (setting, value),
        ];
        refused(
            &Client::connect(shop.proxy.port).try_login(&parameters, ""),
            number,
        );
    }
}

#[test]
fn a_prepared_statement_goes_to_another_shard_at_each_bind() {
    let shop = shared();
    let mut client = shop.client();
    client.send(
        &[
            parse("s", "SELECT id, name FROM customers WHERE id = $1", &[]),
            describe(b'S', "s"),
            sync(),
        ]
        .concat(),
    );
    assert_eq!(client.reply().to_string(), "1 t T(id,name) Z(I)");
    // With a Sync for each, and all in one pipeline of reads.
    for pipelined in [false, true] {
        let mut bytes = Vec::new();
        for id in 1..=CUSTOMERS {
            bytes.extend(bind("", "s", &[Some(id.to_string().as_bytes())]));
            bytes.extend(describe(b'P', ""));
            bytes.extend(execute("", 0));
            if !pipelined {
                bytes.extend(sync());
            }
        }
        bytes.extend(sync());
        client.send(&bytes);
        let mut replies = String::new();
        for _ in 0..if pipelined { 1 } else { CUSTOMERS + 1 } {
            replies += &client.reply().to_string();
        }
        for id in 1..=CUSTOMERS {
            assert!(
                replies.contains(&format!("2 T(id,name) D({id},c{id}) C(SELECT 1)")),
                "{replies}"
            );
        }
    }
    // In binary, both ways.
    let (one, _) = shop.two();
    client.send(
        &[
            bind_as("", "s", &[1], &[Some(&one.to_be_bytes())], &[1]),
            describe(b'P', ""),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    let reply = client.reply();
    let row = reply.of(b'D').next().unwrap().columns();
    assert_eq!(row[0].as_deref(), Some(&one.to_be_bytes()[..]));
    let described = &reply.of(b'T').next().unwrap().body;
    assert_eq!(described[described.len() - 1], 1, "the format is told");
    let every = parse("", "SELECT id FROM customers", &[]);
    client.send(&[every, bind("", "", &[]), execute("", 1), sync()].concat());
    refused(&client.reply(), "PGH116");
}

#[test]
fn names_of_statements_and_portals_are_kept_as_by_postgresql() {
    let shop = shared();
    let mut straight = Client::connect(servers().all()[0].port());
    straight.login(&[("user", "postgres"), ("database", &shop.name)], "");
    let mut through = shop.client();
    // Only what does not depend on the rows of one shard.
    let cases: Vec<(Vec<Vec<u8>>, usize)> = vec![
        (vec![bind("", "nobody", &[]), sync()], 1),
        (vec![describe(b'S', "nobody"), sync()], 1),
        (vec![describe(b'P', "nobody"), sync()], 1),
        (vec![execute("nobody", 0), sync()], 1),
        (
            vec![close(b'S', "nobody"), close(b'P', "nobody"), sync()],
            1,
        ),
        (
            vec![
                parse("s", "SELECT $1::int + 1", &[]),
                describe(b'S', "s"),
                sync(),
                parse("s", "SELECT 2", &[]),
                sync(),
                bind("p", "s", &[Some(b"41")]),
                describe(b'P', "p"),
                execute("p", 0),
                sync(),
                execute("p", 0),
                sync(),
                close(b'S', "s"),
                sync(),
                bind("", "s", &[]),
                sync(),
            ],
            6,
        ),
        (vec![parse("", "SELECT nope", &[]), sync()], 1),
        (
            vec![parse("", "SELECT $1::int", &[]), bind("", "", &[]), sync()],
            1,
        ),
        (
            vec![
                parse("", "SELECT $1::int", &[]),
                bind("", "", &[Some(b"x")]),
                execute("", 0),
                sync(),
            ],
            1,
        ),
        (
            vec![
                parse("", "", &[]),
                bind("", "", &[]),
                describe(b'P', ""),
                execute("", 0),
                sync(),
            ],
            1,
        ),
        (
            vec![
                parse("", "BEGIN", &[]),
                describe(b'S', ""),
                bind("", "", &[]),
                describe(b'P', ""),
                execute("", 0),
                sync(),
                parse("", "SELECT 1/(SELECT 0)", &[]),
                bind("", "", &[]),
                execute("", 0),
                parse("x", "SELECT 1", &[]),
                sync(),
                bind("", "x", &[]),
                sync(),
                parse("", "ROLLBACK", &[]),
                bind("", "", &[]),
                execute("", 0),
                sync(),
            ],
            4,
        ),
        (
            vec![
                query("BEGIN"),
                parse("", "SELECT generate_series(1, 5)", &[]),
                bind("p", "", &[]),
                execute("p", 2),
                sync(),
                execute("p", 2),
                flush(),
                execute("p", 0),
                sync(),
                query("COMMIT"),
            ],
            4,
        ),
        (vec![copy_data(b"1\n"), query("SELECT 3")], 1),
    ];
    for (requests, replies) in cases {
        let bytes = requests.concat();
        through.send(&bytes);
        straight.send(&bytes);
        for number in 0..replies {
            assert_eq!(
                through.reply().to_string(),
                straight.reply().to_string(),
                "reply {number} to {requests:?}"
            );
        }
    }
}

#[test]
fn a_pipeline_that_writes_on_two_shards_is_refused_and_undone() {
    let shop = start("pipelines");
    let (one, two) = shop.two();
    let mut client = shop.client();
    let step = |text: &str| [parse("", text, &[]), bind("", "", &[]), execute("", 0)].concat();
    let update = |id: i64| step(&format!("UPDATE customers SET name = 'x' WHERE id = {id}"));
    client.send(&[update(one), update(two), sync()].concat());
    let reply = client.reply();
    refused(&reply, "PGH111");
    assert!(reply.to_string().ends_with("Z(I)"), "{reply}");
    for id in [one, two] {
        let text = format!("SELECT name FROM customers WHERE id = {id}");
        assert_eq!(client.query(&text).lines(), [format!("c{id}")]);
    }
    // On one shard it is one transaction, with BEGIN and COMMIT inside or not.
    client.send(&[step("BEGIN"), update(one), step("COMMIT"), sync()].concat());
    assert_eq!(
        client.reply().to_string(),
        "1 2 C(BEGIN) 1 2 C(UPDATE 1) 1 2 C(COMMIT) Z(I)"
    );
    // A read elsewhere that fails skips to the Sync; what it follows is read, not more.
    let fails = step(&format!(
        "SELECT 1/(id - id) FROM customers WHERE id = {two}"
    ));
    let reads = step(&format!("SELECT name FROM customers WHERE id = {one}"));
    client.send(&[reads.clone(), fails, reads.clone(), sync(), reads, sync()].concat());
    let reply = client.reply();
    assert_eq!(reply.sqlstate().as_deref(), Some("22012"), "{reply}");
    assert_eq!(reply.lines(), ["x"], "{reply}");
    assert_eq!(client.reply().lines(), ["x"]);
}

#[test]
fn errors_of_postgresql_pass_with_their_fields() {
    let shop = shared();
    let mut client = shop.client();
    let (one, _) = shop.two();
    let reply = client.query(&format!(
        "INSERT INTO customers (id, name) VALUES ({one}, 'twice')"
    ));
    let error = reply.of(b'E').next().unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("23505"));
    assert_eq!(error.field(b'n').as_deref(), Some("customers_pkey"));
    for extended in [false, true] {
        let text = "SELECT name::int FROM customers WHERE name LIKE 'c%'";
        let reply = if extended {
            client.run(text, &[])
        } else {
            client.query(text)
        };
        assert_eq!(reply.sqlstate().as_deref(), Some("22P02"), "{reply}");
        assert!(reply.to_string().ends_with("Z(I)"), "{reply}");
        // The servers that failed are themselves again.
        let reply = client.query("SELECT 1/(id - id) FROM customers WHERE id = 1");
        assert_eq!(reply.sqlstate().as_deref(), Some("22012"), "{reply}");
    }
    assert_eq!(
        client.query("SELECT * FROM nowhere").sqlstate().as_deref(),
        Some("42P01")
    );
    assert_eq!(
        client
            .run("SELECT nope FROM customers WHERE id = 1", &[])
            .sqlstate()
            .as_deref(),
        Some("42703")
    );
}

#[test]
fn a_shard_that_dies_takes_only_its_own_statements_along() {
    let servers = servers_with("shardlost", 3);
    let name = database(servers.all(), "lost", shop::SCHEMA);
    let rules = shop::RULES.replace("databases.shop.", &format!("databases.{name}."));
    let config = Proxy::config(&name, servers.all(), &rules);
    let proxy = Proxy::start_with(&config, init);
    let mut client = proxy.client(&name, "postgres", "");
    let mut on = [0_i64; 3];
    for id in 1..=20 {
        client
            .query(&format!(
                "INSERT INTO customers (id, name) VALUES ({id}, 'c')"
            ))
            .ok();
        for (shard, server) in servers.all().iter().enumerate() {
            if sql(
                server,
                &name,
                &format!("SELECT count(*) FROM customers WHERE id = {id}"),
            ) == "1"
            {
                on[shard] = id;
            }
        }
    }
    let select = |shard: usize| format!("SELECT name FROM customers WHERE id = {}", on[shard]);
    client.query("BEGIN").ok();
    client.query(&select(2)).ok();
    servers.all()[2].kill9();
    let reply = client.query(&select(2));
    assert_eq!(reply.of(b'E').count(), 1, "{reply}");
    assert_eq!(reply.sqlstate().as_deref(), Some("08006"), "{reply}");
    assert_eq!(client.query("ROLLBACK").to_string(), "C(ROLLBACK) Z(I)");
    assert_eq!(client.query(&select(1)).lines(), ["c"]);
    // Every shard is needed here, and one is not there: an error, not a part of the rows.
    let begun = std::time::Instant::now();
    let reply = client.query("SELECT id FROM customers WHERE name = 'c'");
    assert_eq!(reply.of(b'E').count(), 1, "{reply}");
    assert!(begun.elapsed() < PATIENCE);
    servers.all()[2].restart().unwrap();
    until("the shard is back", || {
        client.query(&select(2)).lines() == ["c"]
    });
    let all = client.query("SELECT id FROM customers WHERE name = 'c'");
    assert_eq!(all.lines().len(), 20);
}

#[test]
fn a_cancel_request_ends_a_scattered_statement() {
    let shop = shared();
    let mut client = shop.client();
    let key = client.cancel_key.clone();
    // Slow without a function that is refused: a join of everything with everything.
    let text = "SELECT a.id FROM customers a, countries b, countries c, countries d, countries e, countries f, \
                countries g, countries h, countries i, countries j, countries k, countries l, countries m, \
                countries n, countries o, countries p, countries q, countries r, countries s, countries t, \
                countries u, countries v, countries w WHERE a.id < 0 OR a.name || b.code || w.code = 'never'";
    client.send(&query(text));
    let asking = std::thread::spawn(move || {
        let first = client.reply().sqlstate();
        (first, client)
    });
    until("the query is cancelled", || {
        Client::connect(shop.proxy.port).send(&cancel_request(&key));
        asking.is_finished()
    });
    let (first, mut client) = asking.join().unwrap();
    assert_eq!(first.as_deref(), Some("57014"));
    // Requests that were sent in vain may come late.
    until("it goes on", || client.query("SELECT 6").lines() == ["6"]);
}

#[test]
fn psql_describes_the_tables_of_the_authoritative_shard() {
    let shop = shared();
    let dsn = shop.proxy.dsn(&shop.name, "postgres");
    for (command, expected) in [
        ("\\d customers", "id|bigint"),
        ("\\dt", "public|orders|table"),
        ("\\d+ orders", "customer_id"),
        ("\\l", shop.name.as_str()),
        ("\\du", "postgres"),
        ("\\dn", "public"),
        ("\\df", ""),
        ("\\di", "customers_pkey"),
        ("\\dT", ""),
    ] {
        let said = psql(&dsn, command);
        assert!(
            said.ok && said.stdout.contains(expected),
            "{command}: {said:?}"
        );
    }
}

#[test]
fn explain_says_where_a_statement_would_run() {
    let shop = shared();
    let config = shop.proxy.folder().join("sharding.toml");
    let explain = |text: &str| {
        let output = pgherd(&["explain", "--config", config.to_str().unwrap(), text]);
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let (code, said) = explain("SELECT name FROM customers WHERE id = 1");
    assert!(code == Some(0) && said.contains("one shard s"), "{said}");
    let (code, said) = explain("SELECT name FROM customers");
    assert!(code == Some(0) && said.contains("every shard"), "{said}");
    let (code, said) = explain("SELECT count(*) FROM customers");
    assert!(code == Some(1) && said.contains("PGH007"), "{said}");
}

#[test]
fn nothing_behind_the_end_of_a_failed_transaction_runs_unplanned() {
    let shop = start("behind");
    let (first, second) = shop.two();
    let mut client = shop.client();
    let fail = format!("SELECT 1 / (id - id) FROM customers WHERE id = {first}");
    let elsewhere = format!("INSERT INTO orders VALUES ({second}, 77, '2024-01-01', 'new')");
    let count = |shard: usize| {
        let text = "SELECT count(*) FROM orders WHERE id = 77";
        sql(&servers().all()[shard], &shop.name, text)
    };
    client.query("BEGIN").ok();
    assert_eq!(client.query(&fail).sqlstate().as_deref(), Some("22012"));
    refused(
        &client.query(&format!("ROLLBACK; SET search_path = x; {elsewhere}")),
        "PGH102",
    );
    client.query("ROLLBACK").ok();
    // All at once, so that the answer to what ends the failure is not known when the INSERT is placed.
    for end in ["ROLLBACK TO a", "ROLLBACK AND CHAIN"] {
        client.query("BEGIN").ok();
        client
            .query(&format!(
                "UPDATE customers SET name = 'x' WHERE id = {first}"
            ))
            .ok();
        client.query("SAVEPOINT a").ok();
        assert_eq!(client.query(&fail).sqlstate().as_deref(), Some("22012"));
        client.send(
            &[
                parse("", end, &[]),
                bind("", "", &[]),
                execute("", 0),
                parse("", &elsewhere, &[]),
                bind("", "", &[]),
                execute("", 0),
                sync(),
            ]
            .concat(),
        );
        let reply = client.reply();
        if end == "ROLLBACK TO a" {
            refused(&reply, "PGH100");
        } else {
            // Another transaction, which may write elsewhere.
            assert_eq!(reply.tags(), ["ROLLBACK", "INSERT 0 1"], "{reply}");
        }
        client.query("ROLLBACK").ok();
    }
    assert_eq!([count(0), count(1), count(2)], ["0", "0", "0"]);
    assert_ne!(client.query("SHOW search_path").lines(), ["x"]);
}

#[test]
fn nobody_works_for_a_scattered_statement_that_has_ended() {
    let shop = start("ended");
    let stuck = |shard: usize| {
        let text = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                    AND wait_event_type = 'Lock'";
        sql(&servers().all()[shard], &shop.name, text)
    };
    let on_first = (1..CUSTOMERS).find(|&id| shop.shard_of(id) == 0).unwrap();
    let mut blocker = Client::connect(servers().all()[1].port());
    blocker.login(&[("user", "postgres"), ("database", &shop.name)], "");
    blocker.query("BEGIN; LOCK TABLE customers").ok();
    // The client leaves.
    let mut client = shop.client();
    client.send(&query("SELECT id FROM customers WHERE name LIKE 'z%'"));
    until("it waits", || stuck(1) == "1");
    drop(client);
    until("it ends", || stuck(1) == "0");
    // The first shard fails.
    let mut client = shop.client();
    let text = format!("SELECT 1 / (id - {on_first}) FROM customers");
    assert_eq!(client.query(&text).sqlstate().as_deref(), Some("22012"));
    until("the others end", || stuck(1) == "0");
    blocker.query("ROLLBACK").ok();
    assert_eq!(client.query("SELECT 1").lines(), ["1"]);
}

#[test]
fn a_begin_behind_an_error_of_its_pipeline_begins_nothing() {
    let shop = start("begins");
    let (first, _) = shop.two();
    let mut client = shop.client();
    let call = |text: &str| [parse("", text, &[]), bind("", "", &[]), execute("", 0)].concat();
    let fail = format!("SELECT 1 / (id - id) FROM customers WHERE id = {first}");
    for command in ["BEGIN", "DEALLOCATE ALL"] {
        client.send(&[parse("kept", "SELECT 1", &[]), sync()].concat());
        client.reply();
        client.send(&[call(&fail), call(command), sync()].concat());
        let reply = client.reply();
        assert_eq!(reply.sqlstate().as_deref(), Some("22012"), "{reply}");
        assert!(reply.to_string().ends_with("Z(I)"), "{reply}");
        let reply = client.query(&format!("SELECT id FROM customers WHERE id = {first}"));
        assert!(reply.to_string().ends_with("Z(I)"), "{reply}");
        client.send(&[bind("", "kept", &[]), execute("", 0), sync()].concat());
        assert_eq!(client.reply().lines(), ["1"]);
        client.send(&[close(b'S', "kept"), sync()].concat());
        client.reply();
    }
    // Where nothing fails, all of a pipeline goes on as written.
    let insert = format!("INSERT INTO orders VALUES ({first}, 5, '2024-01-01', 'new')");
    client.send(&[call("BEGIN"), call(&insert), call("COMMIT"), sync()].concat());
    let reply = client.reply();
    assert_eq!(reply.tags(), ["BEGIN", "INSERT 0 1", "COMMIT"], "{reply}");
}

/// Executes the statement `name` with one text parameter.
fn call(client: &mut Client, name: &str, key: &str) -> Reply {
    client.send(
        &[
            bind("", name, &[Some(key.as_bytes())]),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    client.reply()
}

#[test]
fn a_description_that_a_table_has_outgrown_is_an_error_once_and_then_forgotten() {
    let shop = start("outgrown");
    let (one, two) = shop.two();
    let (one, two) = (one.to_string(), two.to_string());
    for (number, text) in [
        "SELECT * FROM customers WHERE id = $1",
        "SELECT * FROM customers WHERE name IS NOT NULL AND $1::text IS NOT NULL",
        "UPDATE customers SET credit = credit WHERE id = $1 RETURNING *",
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = shop.client();
        // Parsed by one shard; the others have it to parse yet.
        client.send(&[parse("s", text, &[]), describe(b'S', "s"), sync()].concat());
        let columns = client.reply().of(b'T').next().unwrap().names().len();
        call(&mut client, "s", &one).ok();
        for server in servers().all() {
            let alter = format!("ALTER TABLE customers ADD COLUMN more{number} int DEFAULT 7");
            sql(server, &shop.name, &alter);
        }
        let mut fresh = shop.client();
        for client in [&mut client, &mut fresh] {
            // Told from memory, and refused when a server is asked.
            client.send(&[parse("t", text, &[]), describe(b'S', "t"), sync()].concat());
            let told = client.reply().of(b'T').next().unwrap().names().len();
            for key in [&two, &one, &two] {
                let reply = call(client, "t", key);
                if told == columns {
                    assert_eq!(
                        reply.sqlstate().as_deref(),
                        Some("0A000"),
                        "{text}: {reply}"
                    );
                    assert!(reply.to_string().contains("cached plan"), "{reply}");
                } else {
                    assert!(
                        reply.rows().iter().all(|row| row.len() == columns + 1),
                        "{reply}"
                    );
                    assert!(!reply.rows().is_empty(), "{reply}");
                }
            }
        }
        let mut last = shop.client();
        let reply = last.run(text, &[Some(&two)]);
        assert!(
            reply.rows().iter().all(|row| row.len() == columns + 1),
            "{reply}"
        );
    }
}

#[test]
fn a_description_that_waits_for_a_lock_ends_with_a_cancel_request_or_its_client() {
    let shop = start("described");
    let server = &servers().all()[0];
    let mut locker = Client::connect(server.port());
    locker.login(&[("user", "postgres"), ("database", &shop.name)], "");
    locker.query("BEGIN").ok();
    locker.query("LOCK TABLE customers").ok();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND wait_event_type = 'Lock'";
    let ask = [
        parse("", "SELECT id FROM customers WHERE id = $1", &[]),
        sync(),
    ]
    .concat();
    let mut client = shop.client();
    client.send(&ask);
    until("it waits", || sql(server, &shop.name, waiting) == "1");
    Client::connect(shop.proxy.port).send(&cancel_request(&client.cancel_key));
    assert_eq!(client.reply().sqlstate().as_deref(), Some("57014"));
    client.send(&ask);
    until("it waits again", || sql(server, &shop.name, waiting) == "1");
    drop(client);
    until("nobody waits", || sql(server, &shop.name, waiting) == "0");
    locker.query("COMMIT").ok();
    assert_eq!(
        shop.client()
            .run("SELECT id FROM customers WHERE id = $1", &[Some("1")])
            .lines(),
        ["1"]
    );
}

#[test]
fn a_portal_over_shards_gives_its_rows_once_and_a_command_runs_once() {
    let mut client = shared().client();
    let twice = |text: &str| {
        let calls = [
            parse("", text, &[]),
            bind("", "", &[]),
            execute("", 0),
            execute("", 0),
            sync(),
        ];
        calls.concat()
    };
    client.send(&twice("SELECT code FROM countries WHERE code = 'CZ'"));
    let reply = client.reply();
    assert_eq!(reply.tags(), ["SELECT 1", "SELECT 0"], "{reply}");
    client.send(&twice("SELECT id FROM customers"));
    let reply = client.reply();
    assert_eq!(
        reply.tags().last().map(String::as_str),
        Some("SELECT 0"),
        "{reply}"
    );
    client.send(&twice("BEGIN"));
    let reply = client.reply();
    assert_eq!(reply.sqlstate().as_deref(), Some("55000"), "{reply}");
    assert!(
        reply.to_string().contains("portal \"\" cannot be run"),
        "{reply}"
    );
    client.query("ROLLBACK");
    assert_eq!(client.query("SELECT 1").lines(), ["1"]);
}

#[test]
fn a_transaction_whose_server_dies_under_its_first_statement_has_failed() {
    let shop = start("first");
    let (customer, _) = shop.two();
    let server = &servers().all()[1];
    let mut locker = Client::connect(server.port());
    locker.login(&[("user", "postgres"), ("database", &shop.name)], "");
    locker.query("BEGIN").ok();
    locker.query("LOCK TABLE customers").ok();
    let waiting =
        "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let select = format!("SELECT id FROM customers WHERE id = {customer}");
    for extended in [false, true] {
        let mut client = shop.client();
        client.query("BEGIN").ok();
        client.query("SAVEPOINT a").ok();
        client.send(&if extended {
            [
                parse("", &select, &[]),
                bind("", "", &[]),
                execute("", 0),
                sync(),
            ]
            .concat()
        } else {
            query(&select)
        });
        let count = format!("SELECT count(*) {waiting}");
        until("it waits", || sql(server, &shop.name, &count) == "1");
        sql(
            server,
            &shop.name,
            &format!("SELECT pg_terminate_backend(pid, 5000) {waiting}"),
        );
        let reply = client.reply();
        assert_eq!(reply.sqlstate().as_deref(), Some("08006"), "{reply}");
        assert!(reply.to_string().ends_with("Z(E)"), "{reply}");
        assert_eq!(
            client.query("SELECT 1").sqlstate().as_deref(),
            Some("25P02")
        );
        assert_eq!(client.query("ROLLBACK").to_string(), "C(ROLLBACK) Z(I)");
        assert_eq!(client.query("SELECT 1").lines(), ["1"]);
    }
}

#[test]
fn texts_that_differ_in_literals_are_planned_once_and_find_their_shards() {
    let shop = start("templates");
    let counted = |result: &str| -> u64 {
        let line = format!(
            "pgherd_plan_lookups_total{{database=\"{}\",result=\"{result}\"}} ",
            shop.name
        );
        let page = shop.proxy.page("/metrics");
        page.lines()
            .find_map(|found| found.strip_prefix(&line))
            .unwrap()
            .parse()
            .unwrap()
    };
    let mut client = shop.client();
    // Planned for one shard first; the others must not inherit it.
    client.query("SELECT name FROM customers WHERE id = 1");
    let (misses, hits) = (counted("miss"), counted("hit"));
    for id in 1..=CUSTOMERS {
        for text in [
            format!("SELECT name FROM customers WHERE id = {id}"),
            format!("SELECT name  FROM customers WHERE id = {id}; -- again"),
        ] {
            assert_eq!(client.query(&text).lines(), [format!("c{id}")], "{text}");
        }
    }
    assert_eq!(counted("miss"), misses);
    assert!(counted("hit") >= hits + 2 * CUSTOMERS.unsigned_abs());
    // A string is another type, and so another text.
    let quoted = client.query("SELECT name FROM customers WHERE id = 'x'");
    assert_eq!(quoted.sqlstate().as_deref(), Some("22P02"));
    let quoted = client.query("SELECT name FROM customers WHERE id = '1'");
    assert_eq!(quoted.lines(), ["c1"]);
}
