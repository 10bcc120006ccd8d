//! Live: settings of a session on three shards. PostgreSQL takes or refuses them, they are in force on every shard, and they
//! end as they would on one server; statements are planned under the search_path that the session has chosen.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use pgherd::demo::shop;
use support::client::{Client, bind, describe, execute, parse, query, sync};
use support::proxy::{Proxy, init};
use support::shop::{CUSTOMERS, Shop, refused, start_over};
use support::{SHOP, database, servers, sql};

const OTHER: &str = "CREATE SCHEMA other; CREATE TABLE other.customers (id bigint, name text); \
CREATE FUNCTION remember(text) RETURNS text LANGUAGE sql AS 'SELECT set_config(''app.remembered'', $1, false)'";

fn start(name: &str) -> Shop {
    let shop = start_over(name, OTHER, |name| {
        format!("[databases.{name}.tables.\"other.customers\"]\nkey = \"name\"\n")
    });
    let mut client = shop.client();
    for id in 1..=CUSTOMERS {
        let text = format!("UPDATE customers SET name = 'c{id}' WHERE id = {id}");
        client.query(&text).ok();
        let text = format!("INSERT INTO other.customers (id, name) VALUES ({id}, 'o{id}')");
        client.query(&text).ok();
    }
    shop
}

impl Shop {
    /// Straight to the authoritative shard.
    fn straight(&self) -> Client {
        let mut client = Client::connect(servers().all()[0].port());
        client.login(&[("user", "postgres"), ("database", &self.name)], "");
        client
    }

    /// The setting as the server of each shard has it for this client.
    fn everywhere(&self, client: &mut Client, name: &str) -> Vec<String> {
        self.on
            .iter()
            .flat_map(|id| {
                let text =
                    format!("SELECT current_setting('{name}') FROM customers WHERE id = {id}");
                client.query(&text).ok().lines()
            })
            .collect()
    }
}

/// The texts have the answers of one PostgreSQL, by Query and by extended messages.
fn as_postgresql(shop: &Shop, texts: &[&str]) {
    for extended in [false, true] {
        let mut straight = shop.straight();
        let mut through = shop.client();
        for text in texts {
            let ask = |client: &mut Client| {
                if extended {
                    client.run(text, &[]).to_string()
                } else {
                    client.query(text).to_string()
                }
            };
            assert_eq!(ask(&mut through), ask(&mut straight), "{text} {extended}");
        }
    }
}

#[test]
fn settings_are_in_force_on_every_shard_and_for_this_client_only() {
    let shop = start("settings_everywhere");
    let mut client = shop.client();
    let mut other = shop.client();
    client.query("SET work_mem = '7MB'").ok();
    client.query("SET app.tenant = 'x y'").ok();
    client
        .query("SELECT set_config('app.other', 'z', false)")
        .ok();
    assert_eq!(shop.everywhere(&mut client, "work_mem"), ["7MB"; 3]);
    assert_eq!(shop.everywhere(&mut client, "app.tenant"), ["x y"; 3]);
    assert_eq!(shop.everywhere(&mut client, "app.other"), ["z"; 3]);
    assert_eq!(shop.everywhere(&mut other, "work_mem"), ["4MB"; 3]);
    // By extended messages, with all of it on its way at once.
    let select = format!(
        "SELECT current_setting('work_mem') FROM customers WHERE id = {}",
        shop.on[2]
    );
    client.send(
        &[
            parse("", "SET work_mem = '8MB'", &[]),
            bind("", "", &[]),
            execute("", 0),
            sync(),
            parse("", &select, &[]),
            bind("", "", &[]),
            execute("", 0),
            sync(),
            query("SET work_mem = '9MB'"),
            query(&select),
            query("SELECT id FROM customers"),
        ]
        .concat(),
    );
    client.reply().ok();
    assert_eq!(client.reply().lines(), ["8MB"]);
    client.reply().ok();
    assert_eq!(client.reply().lines(), ["9MB"]);
    assert_eq!(client.reply().tags(), [format!("SELECT {CUSTOMERS}")]);
    assert_eq!(shop.everywhere(&mut client, "work_mem"), ["9MB"; 3]);
    client.query("RESET ALL").ok();
    assert_eq!(shop.everywhere(&mut client, "work_mem"), ["4MB"; 3]);
    client.query("SET work_mem = '8MB'").ok();
    client.query("DISCARD ALL").ok();
    assert_eq!(shop.everywhere(&mut client, "work_mem"), ["4MB"; 3]);
    // One that came with settings goes back to those.
    let mut client = Client::connect(shop.proxy.port);
    client.login(
        &[
            ("user", "postgres"),
            ("database", &shop.name),
            ("options", "-c work_mem=3MB"),
        ],
        "",
    );
    assert_eq!(shop.everywhere(&mut client, "work_mem"), ["3MB"; 3]);
    client.query("SET work_mem = '8MB'").ok();
    for reset in ["RESET work_mem", "SET work_mem TO DEFAULT", "RESET ALL"] {
        client.query("SET work_mem = '8MB'").ok();
        assert_eq!(shop.everywhere(&mut client, "work_mem"), ["8MB"; 3]);
        client.query(reset).ok();
        assert_eq!(
            shop.everywhere(&mut client, "work_mem"),
            ["3MB"; 3],
            "{reset}"
        );
    }
}

#[test]
fn settings_are_answered_as_by_postgresql() {
    let shop = start("settings_answers");
    as_postgresql(
        &shop,
        &[
            "SET work_mem = '5MB'",
            "SHOW work_mem",
            "SET work_mem = 'x'",
            "SET nonsense = 1",
            "SHOW work_mem",
            "SET TIME ZONE 'Europe/Prague'",
            "SHOW TIME ZONE",
            "SET SESSION DateStyle = 'German'",
            "SELECT '1.2.2024'::date",
            "RESET DateStyle",
            "SELECT '2024-02-01'::date",
            "SET application_name = 'it''s me'",
            "SHOW application_name",
            "SET client_encoding TO 'UTF8'",
            "SET NAMES 'utf-8'",
            "SET client_encoding TO 'nonsense'",
            "SET standard_conforming_strings = on",
            "SET search_path TO DEFAULT",
            "SET search_path = 'other', public",
            "SHOW search_path",
            "SET ROLE NONE",
            "SET SESSION AUTHORIZATION DEFAULT",
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SHOW transaction_isolation",
            "BEGIN",
            "SHOW transaction_isolation",
            "ROLLBACK",
            "SELECT set_config('app.tenant', '6', false), set_config('app.x', 'y', false)",
            "SHOW app.tenant",
            "SELECT set_config('work_mem', 'x', false)",
            "RESET app.tenant",
            "SHOW app.tenant",
            "SET LOCAL work_mem = '1MB'",
            "SHOW work_mem",
            "RESET ALL",
            "SHOW work_mem",
            "DISCARD ALL",
        ],
    );
}

#[test]
fn settings_in_transactions_end_as_on_postgresql() {
    let shop = start("settings_transactions");
    as_postgresql(
        &shop,
        &[
            "BEGIN",
            "SET LOCAL work_mem = '6MB'",
            "SET statement_timeout = 4000",
            "SET LOCAL work_mem = 'x'",
            "SELECT 1",
            "ROLLBACK",
            "SHOW statement_timeout",
            "BEGIN",
            "SET lock_timeout = 777",
            "SAVEPOINT a",
            "SET lock_timeout = 778",
            "ROLLBACK TO a",
            "COMMIT",
            "SHOW lock_timeout",
            "BEGIN",
            "SET lock_timeout = 779",
            "SHOW lock_timeout",
            "ROLLBACK",
            "SHOW lock_timeout",
            "BEGIN",
            "SET TIME ZONE 'UTC'",
            "SET LOCAL DateStyle = 'German'",
            "ROLLBACK",
            "BEGIN",
            "SET TIME ZONE 'Asia/Tokyo'",
            "COMMIT",
            "SHOW TimeZone",
            "BEGIN",
            "SELECT set_config('work_mem', '9MB', true)",
            "SELECT set_config('work_mem', 'x', true)",
            "COMMIT",
            "SHOW work_mem",
            "BEGIN",
            "SET CONSTRAINTS ALL DEFERRED",
            "SET CONSTRAINTS nonsense DEFERRED",
            "COMMIT",
            "BEGIN",
            "RESET lock_timeout",
            "DISCARD ALL",
            "ROLLBACK",
            "SHOW lock_timeout",
            "BEGIN",
            "SET lock_timeout = 780",
            "COMMIT AND CHAIN",
            "SHOW lock_timeout",
            "ROLLBACK",
        ],
    );
    // The shard of the transaction has them, whichever it is.
    let mut client = shop.client();
    for id in shop.on {
        let text = format!("SELECT current_setting('work_mem') FROM customers WHERE id = {id}");
        client.query("BEGIN").ok();
        assert_eq!(
            client.query("SET LOCAL work_mem = '11MB'").to_string(),
            "C(SET) Z(T)"
        );
        client.query("SAVEPOINT a").ok();
        client.query("SET work_mem = '12MB'").ok();
        assert_eq!(client.query(&text).lines(), ["12MB"]);
        client.query("ROLLBACK TO a").ok();
        assert_eq!(client.query(&text).lines(), ["11MB"]);
        client.query("SET work_mem = '13MB'").ok();
        assert_eq!(client.query(&text).lines(), ["13MB"]);
        client.query("COMMIT").ok();
        assert_eq!(shop.everywhere(&mut client, "work_mem"), ["13MB"; 3]);
        client.query("BEGIN").ok();
        client.query(&text).ok();
        client.query("SET work_mem = '14MB'").ok();
        client.query("ROLLBACK").ok();
        assert_eq!(shop.everywhere(&mut client, "work_mem"), ["13MB"; 3]);
        client.query("RESET work_mem").ok();
    }
}

#[test]
fn what_would_change_the_meaning_of_statements_is_refused() {
    let shop = start("settings_meanings");
    let mut client = shop.client();
    for text in [
        "SET ROLE shop",
        "SET SESSION AUTHORIZATION shop",
        "SET client_encoding = 'LATIN1'",
        "SET NAMES 'LATIN1'",
        "SET standard_conforming_strings = off",
        "SET transform_null_equals = on",
        "SET search_path = public, pg_catalog",
        "SET search_path = information_schema",
        "SET seed = 0.5",
        "SELECT set_config('role', 'shop', false)",
    ] {
        refused(&client.query(text), "PGH103");
        refused(&client.run(text, &[]), "PGH103");
    }
    client.query("BEGIN").ok();
    refused(&client.query("SET LOCAL ROLE shop"), "PGH103");
    client.query("ROLLBACK").ok();
    client.send(
        &[
            parse("", "SET search_path = other", &[]),
            bind("", "", &[]),
            execute("", 0),
            parse("", "SELECT 1 FROM customers", &[]),
            sync(),
        ]
        .concat(),
    );
    refused(&client.reply(), "PGH103");
    assert_eq!(
        client.query("SHOW search_path").lines(),
        ["\"$user\", public"]
    );
    assert_eq!(shop.everywhere(&mut client, "work_mem"), ["4MB"; 3]);
    // Many custom settings are more than are carried.
    for number in 0..256 {
        client.query(&format!("SET app.x{number} = 1")).ok();
    }
    refused(&client.query("SET app.y = 1"), "PGH103");
    assert_eq!(client.query("SHOW app.x255").lines(), ["1"]);
}

#[test]
fn statements_mean_what_they_mean_under_the_search_path_of_the_session() {
    let shop = start("settings_path");
    let mut client = shop.client();
    let mut usual = shop.client();
    let by_id = "SELECT name FROM customers WHERE id = 7";
    let by_name = "SELECT id FROM customers WHERE name = 'o7'";
    let both = |client: &mut Client| {
        [
            client.query(by_id).ok().lines(),
            client.query(by_name).ok().lines(),
        ]
    };
    // The statement is prepared before the path changes.
    client.send(
        &[
            parse("s", "SELECT name FROM customers WHERE id = $1", &[]),
            describe(b'S', "s"),
            sync(),
        ]
        .concat(),
    );
    client.reply().ok();
    let bound = |client: &mut Client| {
        client.send(&[bind("", "s", &[Some(b"7")]), execute("", 0), sync()].concat());
        client.reply()
    };
    for _ in 0..2 {
        assert_eq!(both(&mut usual), [vec!["c7".to_owned()], vec![]]);
        client.query("SET search_path = other, public").ok();
        assert_eq!(client.query("SHOW search_path").lines(), ["other, public"]);
        assert_eq!(both(&mut client), [["o7".to_owned()], ["7".to_owned()]]);
        assert_eq!(client.run(by_name, &[]).lines(), ["7"]);
        assert_eq!(bound(&mut client).lines(), ["o7"]);
        // A key of the other table is none of this one.
        let all = client
            .query("SELECT name FROM customers WHERE id IN (1, 2, 3)")
            .lines();
        assert_eq!(all.len(), 3);
        client
            .query("SELECT pg_catalog.set_config('search_path', '', false)")
            .ok();
        assert_eq!(client.query(by_id).sqlstate().as_deref(), Some("42P01"));
        assert_eq!(client.run(by_id, &[]).sqlstate().as_deref(), Some("42P01"));
        assert_eq!(bound(&mut client).sqlstate().as_deref(), Some("42P01"));
        for (id, shard) in shop.on.iter().zip(0..) {
            let text = format!("SELECT name FROM public.customers WHERE id = {id}");
            assert_eq!(client.query(&text).lines(), [format!("c{id}")], "{shard}");
        }
        client.query("RESET search_path").ok();
        assert_eq!(both(&mut client), [vec!["c7".to_owned()], vec![]]);
        assert_eq!(bound(&mut client).lines(), ["c7"]);
    }
    // In a transaction it is undone with it, or with a savepoint.
    let (c7, o7) = ("c7".to_owned(), "o7".to_owned());
    let found = |client: &mut Client| {
        let bound = bound(client).ok().lines();
        assert_eq!(client.query(by_id).ok().lines(), bound);
        assert_eq!(client.run(by_id, &[]).ok().lines(), bound);
        bound
    };
    // The row of the one is on the shard of the other's.
    let place = "SELECT name FROM public.customers WHERE id = 7";
    client.query("BEGIN").ok();
    client.query(place).ok();
    client.query("SAVEPOINT a").ok();
    client.query("SET LOCAL search_path = ''").ok();
    assert_eq!(client.query(by_id).sqlstate().as_deref(), Some("42P01"));
    client.query("ROLLBACK TO a").ok();
    assert_eq!(found(&mut client).concat(), c7);
    client.query("SET search_path = ''").ok();
    client.query("SAVEPOINT b").ok();
    client.query("SET search_path = public").ok();
    assert_eq!(found(&mut client).concat(), c7);
    client.query("RELEASE b").ok();
    assert_eq!(found(&mut client).concat(), c7);
    client.query("COMMIT").ok();
    assert_eq!(client.query("SHOW search_path").lines(), ["public"]);
    assert_eq!(both(&mut client), [vec![c7.clone()], vec![]]);
    client.query("BEGIN").ok();
    client.query("SET search_path = other").ok();
    client.query("ROLLBACK").ok();
    assert_eq!(both(&mut client), [vec![c7], vec![]]);
    client.query("BEGIN").ok();
    client.query("SET search_path = other").ok();
    client.query("COMMIT").ok();
    assert_eq!(both(&mut client), [[o7], ["7".to_owned()]]);
    // Some come with one.
    let mut client = Client::connect(shop.proxy.port);
    client.login(
        &[
            ("user", "postgres"),
            ("database", &shop.name),
            ("search_path", "other"),
        ],
        "",
    );
    assert_eq!(both(&mut client), [["o7".to_owned()], ["7".to_owned()]]);
}

#[test]
fn what_functions_set_follows_their_client_and_nobody_else() {
    let shop = start("settings_functions");
    let mut client = shop.client();
    for (id, extended) in shop.on.iter().zip([false, true, false]) {
        let text = format!("SELECT remember('of {id}') FROM customers WHERE id = {id}");
        let run = |client: &mut Client, text: &str| {
            if extended {
                client.run(text, &[]).ok()
            } else {
                client.query(text).ok()
            }
        };
        assert_eq!(run(&mut client, &text).lines(), [format!("of {id}")]);
        let remembered = shop.everywhere(&mut client, "app.remembered");
        assert_eq!(remembered, vec![format!("of {id}"); 3]);
        run(
            &mut client,
            &format!("EXPLAIN ANALYZE {}", text.replace("of ", "analyzed ")),
        );
        let remembered = shop.everywhere(&mut client, "app.remembered");
        assert_eq!(remembered, vec![format!("analyzed {id}"); 3]);
        for _ in 0..4 {
            let mut other = shop.client();
            for id in shop.on {
                let text =
                    "coalesce(nullif(current_setting('app.remembered', true), ''), 'nothing')";
                let text = format!("SELECT {text} FROM customers WHERE id = {id}");
                assert_eq!(other.query(&text).ok().lines(), ["nothing"]);
            }
        }
    }
}

#[test]
fn a_search_path_with_a_schema_that_the_user_may_not_use_is_refused() {
    let servers = servers().all();
    let name = database(
        servers,
        "settings_usage",
        &format!("{}; {OTHER}", shop::SCHEMA),
    );
    let rules = shop::RULES.replace("databases.shop.", &format!("databases.{name}."));
    let mut config = Proxy::config(&name, servers, &rules);
    for server in servers {
        let dsn = server.dsn_of(&name, SHOP.0, &format!("'{}'", SHOP.1));
        config = config.replace(&server.dsn(&name), &dsn);
    }
    let proxy = Proxy::start_with(&config, init);
    let mut client = proxy.client(&name, "shop", "");
    client.query("SET search_path = other, public").ok();
    client.query("RESET search_path").ok();
    for server in servers {
        sql(server, &name, "ALTER SCHEMA other OWNER TO postgres");
    }
    // PostgreSQL passes over it, and a table of the next one is meant.
    refused(
        &client.query("SET search_path = \"other\", public"),
        "PGH103",
    );
    refused(
        &client.run("SELECT set_config('search_path', 'Other', false)", &[]),
        "PGH103",
    );
    client.query("SET search_path = public, another").ok();
    let reply = Client::connect(proxy.port).try_login(
        &[
            ("user", "shop"),
            ("database", &name),
            ("search_path", "other, public"),
        ],
        "",
    );
    refused(&reply, "PGH103");
}

#[test]
fn settings_of_a_transaction_on_several_shards_are_in_force_on_all_of_them() {
    let shop = start("settings_spread");
    for (end, expected) in [("COMMIT", "13MB"), ("ROLLBACK", "4MB")] {
        for extended in [false, true] {
            let mut client = shop.client();
            let run = |client: &mut Client, text: &str| {
                if extended {
                    client.run(text, &[]).ok()
                } else {
                    client.query(text).ok()
                }
            };
            run(&mut client, "BEGIN");
            for id in &shop.on[..2] {
                run(
                    &mut client,
                    &format!("SELECT name FROM customers WHERE id = {id}"),
                );
            }
            run(&mut client, "SET LOCAL work_mem = '12MB'");
            assert_eq!(shop.everywhere(&mut client, "work_mem"), ["12MB"; 3]);
            run(&mut client, "SAVEPOINT a");
            run(&mut client, "SET work_mem = '14MB'");
            assert_eq!(shop.everywhere(&mut client, "work_mem"), ["14MB"; 3]);
            run(&mut client, "ROLLBACK TO a");
            run(&mut client, "SET work_mem = '13MB'");
            assert_eq!(shop.everywhere(&mut client, "work_mem"), ["13MB"; 3]);
            run(&mut client, end);
            assert_eq!(shop.everywhere(&mut client, "work_mem"), [expected; 3]);
            for _ in 0..4 {
                assert_eq!(shop.everywhere(&mut shop.client(), "work_mem"), ["4MB"; 3]);
            }
        }
    }
    // What is not told to other servers keeps them out.
    let mut client = shop.client();
    client.query("BEGIN").ok();
    let [one, two, _] = shop
        .on
        .map(|id| format!("SELECT name FROM customers WHERE id = {id}"));
    client.query(&one).ok();
    client
        .query("SELECT set_config('work_mem', '9MB', false)")
        .ok();
    refused(&client.query(&two), "PGH126");
    client.query("ROLLBACK").ok();
}

#[test]
fn what_only_one_server_would_know_keeps_the_transaction_on_its_shard() {
    let shop = start("settings_alone");
    let mut client = shop.client();
    let [one, two, _] = shop.on;
    let select = |id: i64| format!("SELECT id FROM customers WHERE id = {id}");
    let calls = |id: i64| format!("SELECT remember('x') FROM customers WHERE id = {id}");
    let prepare = "PREPARE p AS SELECT count(*) FROM pg_class".to_owned();
    let reset = "RESET work_mem".to_owned();
    for extended in [false, true] {
        let run = |client: &mut Client, text: &str| {
            if extended {
                client.run(text, &[])
            } else {
                client.query(text)
            }
        };
        for (cause, before, text) in [
            ("a function", vec![calls(one)], select(two)),
            ("a function", vec![select(one)], calls(two)),
            ("a function", vec![select(one), select(two)], calls(two)),
            ("RESET", vec![select(one), reset.clone()], select(two)),
            ("RESET", vec![select(one), select(two)], reset.clone()),
            // What PREPARE has made stays when the transaction is rolled back.
            ("PREPARE", vec![prepare.clone()], select(two)),
            (
                "DEALLOCATE",
                vec![select(one), select(two)],
                "DEALLOCATE p".to_owned(),
            ),
            (
                "DEALLOCATE",
                vec![select(one), select(two)],
                "DEALLOCATE ALL".to_owned(),
            ),
            ("DEALLOCATE", vec!["DEALLOCATE p".to_owned()], select(two)),
        ] {
            run(&mut client, "BEGIN").ok();
            for text in &before {
                run(&mut client, text).ok();
            }
            let reply = run(&mut client, &text);
            refused(&reply, "PGH126");
            let error = reply.of(b'E').next().unwrap();
            let detail = error.field(b'D').unwrap();
            assert!(detail.contains(cause), "{cause}: {detail}");
            run(&mut client, "ROLLBACK").ok();
            // Nothing of it is left.
            run(&mut client, &select(two)).ok();
        }
        run(&mut client, "DEALLOCATE ALL").ok();
    }
    refused(
        &client.query(&format!("SELECT 1; {}", calls(one))),
        "PGH103",
    );
}
