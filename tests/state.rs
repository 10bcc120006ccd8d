//! Live: the state of a session follows its client through a pool of one server that another client uses in between,
//! exactly as if each had a PostgreSQL session of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use support::client::{Client, bind, describe, execute, parse, sync};
use support::proxy::Proxy;
use support::{database, servers, sql};

const SCHEMA: &str = "CREATE TABLE t (id int primary key, v text); CREATE SEQUENCE s; CREATE SCHEMA other; \
     CREATE TABLE other.t (id int primary key, v text, more text)";

/// What every client asked for when it came.
const STARTUP: &[(&str, &str)] = &[
    ("TimeZone", "Europe/Prague"),
    ("application_name", "mine"),
    ("options", "-c work_mem=6MB -c app.start=first"),
];

fn started(name: &str) -> (Proxy, String) {
    let server = &servers().all()[..1];
    let name = database(server, name, SCHEMA);
    let config = Proxy::config(&name, server, "").replace(
        &format!("[databases.{name}]\n"),
        &format!("[databases.{name}]\npool = {{ size = 1 }}\n"),
    );
    (Proxy::start(&config), name)
}

fn client(port: u16, name: &str) -> Client {
    let mut client = Client::connect(port);
    let who = [("user", "postgres"), ("database", name)];
    client.login(&[&who, STARTUP].concat(), "");
    client
}

/// Everything that these tests change. PostgreSQL keeps the name of a custom setting that once was there, with an empty
/// value: nobody can tell that from none here.
const SHOWN: &str = "SELECT current_setting('TimeZone'), current_setting('DateStyle'), current_setting('work_mem'), \
     current_setting('search_path'), current_setting('application_name'), current_user, session_user, \
     coalesce(current_setting('app.start', true), ''), coalesce(current_setting('app.x', true), ''), \
     current_setting('default_transaction_isolation'), current_setting('client_min_messages')";

const SCRIPTS: &[&[&str]] = &[
    &["SET work_mem = '7MB'"],
    &["SET TimeZone = 'Asia/Tokyo'"],
    &["SET TIME ZONE 'Asia/Tokyo'", "SET DateStyle = 'German'"],
    &[
        "SET search_path = other, \"$user\", public",
        "SELECT * FROM t",
    ],
    &["SET app.x = 'it''s \\ mine'", "SET app.x = ''"],
    &["BEGIN", "SET work_mem = '7MB'", "COMMIT"],
    &["BEGIN", "SET work_mem = '7MB'", "ROLLBACK"],
    &[
        "BEGIN",
        "SET work_mem = '7MB'",
        "SAVEPOINT a",
        "SET work_mem = '8MB'",
        "SET TimeZone = 'UTC'",
        "ROLLBACK TO a",
        "COMMIT",
    ],
    &["BEGIN", "SET LOCAL work_mem = '7MB'", "COMMIT"],
    &["BEGIN; SET work_mem = '7MB'; COMMIT; SELECT 1"],
    &["SET work_mem = '7MB'; SELECT 1/0"],
    &["SET nonsense = 1", "SET work_mem = 'nonsense'"],
    &["RESET work_mem", "RESET TimeZone", "RESET application_name"],
    &["SET work_mem = '7MB'", "RESET work_mem", "RESET app.start"],
    &["SET app.start = 'second'", "RESET ALL"],
    &["SET TimeZone = 'UTC'", "DISCARD ALL"],
    &["BEGIN", "RESET TimeZone", SHOWN, "COMMIT"],
    &["BEGIN", "RESET ALL", SHOWN, "ROLLBACK"],
    &["SET ROLE keeper", "SELECT * FROM t"],
    &["SET SESSION AUTHORIZATION keeper", "SET work_mem = '7MB'"],
    &[
        "SET SESSION AUTHORIZATION keeper",
        "SET ROLE other_keeper",
        "RESET SESSION AUTHORIZATION",
    ],
    &["SELECT set_config('work_mem', '7MB', false)"],
    &["SELECT set_config('app.x', 'y', false)"],
    &["SELECT set_config('work_mem', '7MB', true)"],
    &[
        "BEGIN",
        "SELECT set_config('app.x', 'y', true)",
        SHOWN,
        "COMMIT",
    ],
    &["DO $$ BEGIN SET work_mem = '7MB'; SET app.x = 'z'; END $$"],
    &["SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE"],
    &["SET client_min_messages = warning", "SET NAMES 'LATIN1'"],
    &["SET TimeZone = 'Asia/Tokyo'", "SELECT 1/0; RESET TimeZone"],
    &["SET app.start = 'second'", "SELECT 1/0; RESET ALL"],
    &["SET TimeZone TO DEFAULT", "SET work_mem TO DEFAULT"],
];

/// One request of each kind of protocol.
fn ask(client: &mut Client, text: &str, extended: bool) -> String {
    if !extended || text.contains(';') {
        return client.query(text).to_string();
    }
    client.send(
        &[
            parse("", text, &[]),
            bind("", "", &[]),
            describe(b'P', ""),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    client.reply().to_string()
}

#[test]
fn settings_follow_their_client_and_reach_nobody_else() {
    let (proxy, name) = started("follow");
    let server = &servers().all()[0];
    for role in ["keeper", "other_keeper"] {
        sql(server, &name, &format!("DROP ROLE IF EXISTS {role}"));
        sql(server, &name, &format!("CREATE ROLE {role}"));
    }
    sql(server, &name, "GRANT other_keeper TO keeper");
    let mut stranger = proxy.client(&name, "postgres", "");
    let untouched = stranger.query(SHOWN).to_string();
    for script in SCRIPTS {
        for extended in [false, true] {
            let mut through = client(proxy.port, &name);
            let mut straight = client(server.port(), &name);
            for text in script.iter().chain(&[SHOWN]) {
                let expected = ask(&mut straight, text, extended);
                let seen = ask(&mut through, text, extended);
                assert_eq!(seen, expected, "{text} of {script:?}");
                if seen.ends_with("Z(I)") {
                    let now = stranger.query(SHOWN).to_string();
                    assert_eq!(now, untouched, "{text} of {script:?}");
                }
            }
            assert_eq!(through.parameters, straight.parameters, "{script:?}");
        }
    }
    for role in ["keeper", "other_keeper"] {
        sql(server, &name, &format!("DROP ROLE {role}"));
    }
}

/// What pins, how it is seen that it is there, and what ends it.
const PINS: &[(&str, &str, &str)] = &[
    (
        "CREATE TEMP TABLE mine (a int)",
        "SELECT count(*) FROM mine",
        "DROP TABLE mine",
    ),
    (
        "SELECT 1 AS a INTO TEMP mine",
        "SELECT a FROM mine",
        "DISCARD TEMP",
    ),
    (
        "SELECT pg_advisory_lock(7)",
        "SELECT 1",
        "SELECT pg_advisory_unlock(7)",
    ),
    (
        "SELECT pg_advisory_lock(7)",
        "SELECT 1",
        "SELECT pg_advisory_unlock_all()",
    ),
    (
        "DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 9)",
        "FETCH 1 FROM c",
        "CLOSE c",
    ),
    // A constant in it was read under settings that are not in force any more.
    (
        "BEGIN; SET datestyle = 'DMY'; PREPARE p AS SELECT '1/2/2024'::date; SET datestyle = 'MDY'; COMMIT",
        "EXECUTE p",
        "DISCARD ALL",
    ),
    (
        "DO $$BEGIN EXECUTE 'LIS' || 'TEN herd'; END$$",
        "SELECT 1",
        "UNLISTEN *",
    ),
    (
        "CREATE FUNCTION pg_temp.f() RETURNS int RETURN 4",
        "SELECT pg_temp.f()",
        "DISCARD ALL",
    ),
];

#[test]
fn what_cannot_move_keeps_the_server_until_it_is_gone() {
    let server = &servers().all()[..1];
    let name = database(server, "pins", SCHEMA);
    let config = Proxy::config(&name, server, "").replace(
        &format!("[databases.{name}]\n"),
        &format!("[databases.{name}]\npool = {{ size = 1, wait_timeout = \"300ms\" }}\n"),
    );
    let proxy = Proxy::start(&config);
    let mut stranger = proxy.client(&name, "postgres", "");
    for (begin, use_it, end) in PINS {
        for extended in [false, true] {
            let mut owner = proxy.client(&name, "postgres", "");
            let begun = ask(&mut owner, begin, extended);
            assert!(
                begun.ends_with("Z(I)") && !begun.contains("E("),
                "{begin}: {begun}"
            );
            let notice = owner.frame();
            assert_eq!(notice.tag, b'N', "{begin}");
            let used = ask(&mut owner, use_it, extended);
            assert!(!used.contains("E("), "{begin}, {use_it}: {used}");
            let waited = stranger.query("SELECT 1").sqlstate();
            assert_eq!(waited.as_deref(), Some("53300"), "{begin}");
            let ended = ask(&mut owner, end, extended);
            assert!(!ended.contains("E("), "{begin}, {end}: {ended}");
            assert_eq!(stranger.query("SELECT 1").lines(), ["1"], "{begin}, {end}");
            assert_eq!(owner.query("SELECT 1").lines(), ["1"]);
        }
    }
    // In a transaction that is rolled back, and with an end of its own: nothing stays.
    let mut owner = proxy.client(&name, "postgres", "");
    for script in [
        ["CREATE TEMP TABLE mine (a int)", "ROLLBACK"],
        ["CREATE TEMP TABLE mine (a int) ON COMMIT DROP", "COMMIT"],
        ["SELECT pg_advisory_xact_lock(7)", "COMMIT"],
        ["DECLARE c CURSOR WITH HOLD FOR SELECT 1", "ROLLBACK"],
    ] {
        owner.query("BEGIN").ok();
        owner.query(script[0]).ok();
        owner.query(script[1]).ok();
        assert_eq!(stranger.query("SELECT 1").lines(), ["1"], "{script:?}");
    }
}

#[test]
fn nobody_reads_the_last_value_of_a_sequence_that_another_client_asked_for() {
    let (proxy, name) = started("sequences");
    let mut one = proxy.client(&name, "postgres", "");
    assert_eq!(one.query("SELECT nextval('s')").lines(), ["1"]);
    for text in ["SELECT currval('s')", "SELECT lastval()"] {
        for extended in [false, true] {
            let mut other = proxy.client(&name, "postgres", "");
            let seen = ask(&mut other, text, extended);
            assert!(seen.contains("55000"), "{seen}");
        }
    }
    // Who has asked once keeps its server from then on, so the next time it is as on PostgreSQL.
    let mut other = proxy.client(&name, "postgres", "");
    other.query("SELECT lastval()");
    other.query("SELECT nextval('s')").ok();
    assert_eq!(other.query("SELECT lastval()").lines(), ["2"]);
}

#[test]
fn settings_outlive_the_server_that_they_were_made_on() {
    let (proxy, name) = started("unread");
    let server = &servers().all()[0];
    let mut owner = proxy.client(&name, "postgres", "");
    owner.query("SET work_mem = '7MB'").ok();
    let others =
        "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let kill = format!("SELECT count(pg_terminate_backend(pid, 5000)) {others}");
    // When somebody else gets the only server, the state was read: it outlives its server.
    let mut stranger = proxy.client(&name, "postgres", "");
    assert_eq!(stranger.query("SHOW work_mem").lines(), ["4MB"]);
    sql(server, &name, &kill);
    assert_eq!(owner.query("SHOW work_mem").lines(), ["7MB"]);
}

#[test]
fn a_statement_never_runs_where_the_settings_of_its_client_could_not_be_had() {
    let (proxy, name) = started("gone");
    let server = &servers().all()[0];
    for text in ["CREATE ROLE gone_keeper", "GRANT ALL ON t TO gone_keeper"] {
        sql(server, &name, text);
    }
    let mut keeper = proxy.client(&name, "postgres", "");
    keeper.query("SET ROLE gone_keeper").ok();
    let mut stranger = proxy.client(&name, "postgres", "");
    stranger.query("SELECT 1").ok();
    for text in ["DROP OWNED BY gone_keeper", "DROP ROLE gone_keeper"] {
        sql(server, &name, text);
    }
    for extended in [false, true] {
        // As the pool's own user it would be allowed.
        let reply = ask(&mut keeper, "INSERT INTO t VALUES (1, 'whose')", extended);
        assert!(reply.contains("22023"), "{reply}");
    }
    assert_eq!(stranger.query("SELECT count(*) FROM t").lines(), ["0"]);
}

#[test]
fn statements_of_prepare_follow_their_client() {
    let (proxy, name) = started("prepare");
    let mut ann = proxy.client(&name, "postgres", "");
    let mut bob = proxy.client(&name, "postgres", "");
    for extended in [false, true] {
        assert!(!ask(&mut ann, "PREPARE p (int) AS SELECT $1 + 1", extended).contains("E("));
        assert!(!ask(&mut bob, "PREPARE p AS SELECT 'bob'", extended).contains("E("));
        assert!(!ask(&mut bob, "PREPARE \"Q q\" AS SELECT 'q'", extended).contains("E("));
        for _ in 0..2 {
            assert_eq!(ann.query("EXECUTE p(5)").lines(), ["6"]);
            assert_eq!(bob.query("EXECUTE p").lines(), ["bob"]);
            assert_eq!(bob.run("EXECUTE \"Q q\"", &[]).lines(), ["q"]);
        }
        // Each has its own, and errors are PostgreSQL's.
        let names = "SELECT name FROM pg_prepared_statements WHERE from_sql ORDER BY 1";
        assert_eq!(ann.query(names).lines(), ["p"]);
        assert_eq!(bob.query(names).lines(), ["Q q", "p"]);
        let again = ann.query("PREPARE p AS SELECT 1").sqlstate();
        assert_eq!(again.as_deref(), Some("42P05"));
        let others = ann.query("EXECUTE \"Q q\"").sqlstate();
        assert_eq!(others.as_deref(), Some("26000"));
        // Not undone by a rollback, as on PostgreSQL.
        ann.query("BEGIN; DEALLOCATE p; ROLLBACK").ok();
        assert_eq!(bob.query("EXECUTE p").lines(), ["bob"]);
        assert_eq!(
            ann.query("EXECUTE p(5)").sqlstate().as_deref(),
            Some("26000")
        );
        bob.query("DEALLOCATE ALL").ok();
        ann.query("SELECT 1").ok();
        assert_eq!(bob.query("EXECUTE p").sqlstate().as_deref(), Some("26000"));
    }
    // One that cannot be prepared any more fails when it is used, and nothing else does.
    ann.query("CREATE TABLE short (a int)").ok();
    bob.query("PREPARE p AS SELECT * FROM short").ok();
    ann.query("DROP TABLE short").ok();
    assert_eq!(bob.query("SELECT 1").lines(), ["1"]);
    assert!(bob.query("EXECUTE p").sqlstate().is_some());
}

/// A database of one shard with a pool of one and these settings.
fn with_pool(name: &str, more: &str) -> (Proxy, String) {
    let server = &servers().all()[..1];
    let name = database(server, name, SCHEMA);
    let config = Proxy::config(&name, server, "").replace(
        &format!("[databases.{name}]\n"),
        &format!("[databases.{name}]\npool = {{ size = 1, wait_timeout = \"300ms\", {more} }}\n"),
    );
    (Proxy::start(&config), name)
}

#[test]
fn session_state_is_refused_where_it_is_not_allowed() {
    let (proxy, name) = with_pool("refuse", "on_session_state = \"refuse\"");
    let mut client = proxy.client(&name, "postgres", "");
    // What DO does is not known before.
    for (text, _, _) in PINS.iter().filter(|(text, _, _)| !text.starts_with("DO ")) {
        for extended in [false, true] {
            let reply = ask(&mut client, text, extended);
            assert!(reply.contains("E(0A000"), "{text}: {reply}");
        }
    }
    for text in [
        "SET work_mem = '5MB'",
        "SELECT set_config('a.b', 'c', false)",
    ] {
        let reply = client.query(text);
        assert_eq!(reply.sqlstate().as_deref(), Some("0A000"), "{text}");
        assert!(
            reply
                .of(b'E')
                .next()
                .unwrap()
                .field(b'H')
                .unwrap()
                .contains("on_session_state")
        );
    }
    // What ends with its transaction is nobody's business.
    client
        .query("BEGIN; SET LOCAL work_mem = '5MB'; COMMIT")
        .ok();
    client.query("BEGIN").ok();
    assert!(
        client
            .query("SET work_mem = '5MB'")
            .to_string()
            .ends_with("Z(E)")
    );
    client.query("ROLLBACK").ok();
    // The server is free in between.
    let mut other = proxy.client(&name, "postgres", "");
    assert_eq!(other.query("SHOW work_mem").lines(), ["4MB"]);
}

#[test]
fn session_state_keeps_the_server_where_it_shall() {
    let (proxy, name) = with_pool("pin", "on_session_state = \"pin\"");
    let mut owner = proxy.client(&name, "postgres", "");
    let mut other = proxy.client(&name, "postgres", "");
    owner.query("SET work_mem = '5MB'").ok();
    assert_eq!(owner.frame().tag, b'N');
    assert_eq!(other.query("SELECT 1").sqlstate().as_deref(), Some("53300"));
    assert_eq!(owner.query("SHOW work_mem").lines(), ["5MB"]);
    owner.query("RESET work_mem").ok();
    assert_eq!(other.query("SHOW work_mem").lines(), ["4MB"]);
}

#[test]
fn statement_mode_has_no_transactions() {
    let (proxy, name) = with_pool("statement", "mode = \"statement\"");
    let mut client = proxy.client(&name, "postgres", "");
    for text in [
        "BEGIN",
        "start transaction read only",
        "SELECT 1; BEGIN; SELECT 2",
    ] {
        for extended in [false, true] {
            if extended && text.contains(';') {
                continue;
            }
            let reply = ask(&mut client, text, extended);
            assert!(
                reply.contains("E(0A000 transaction blocks not allowed in statement pooling mode)"),
                "{text}: {reply}"
            );
            assert!(reply.ends_with("Z(I)"), "{reply}");
        }
    }
    client
        .query("INSERT INTO t VALUES (1, 'a'); INSERT INTO t VALUES (2, 'b')")
        .ok();
    client.query("SET work_mem = '5MB'").ok();
    let mut other = proxy.client(&name, "postgres", "");
    assert_eq!(
        other
            .query("SELECT count(*), current_setting('work_mem') FROM t")
            .lines(),
        ["2|4MB"]
    );
    assert_eq!(client.query("SHOW work_mem").lines(), ["5MB"]);
}

#[test]
fn settings_whose_name_is_a_parameter_follow_their_client() {
    let (proxy, name) = started("parameter");
    let mut owner = proxy.client(&name, "postgres", "");
    let mut stranger = proxy.client(&name, "postgres", "");
    let set = "SELECT set_config($1, $2, false)";
    for (setting, value) in [("App.Tenant", "seven"), ("work_mem", "7MB")] {
        owner.run(set, &[Some(setting), Some(value)]).ok();
        let show = format!("SELECT coalesce(current_setting('{setting}', true), '')");
        assert_ne!(stranger.query(&show).lines(), [value]);
        assert_eq!(owner.query(&show).lines(), [value]);
    }
    // Without a name it is the server's error, and nothing stays.
    assert_eq!(
        owner.run(set, &[None, Some("x")]).sqlstate().as_deref(),
        Some("22004")
    );
    assert_eq!(stranger.query("SELECT 1").lines(), ["1"]);
}
