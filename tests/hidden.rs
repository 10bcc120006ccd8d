//! Live: session state that no statement shows, since a function, a trigger, a view or a default makes it, follows its
//! client like any other, and no other client sees it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use support::client::Client;
use support::proxy::Proxy;
use support::{database, servers, sql};

const SCHEMA: &str = "
    CREATE TABLE t (id int primary key, tenant text DEFAULT current_setting('app.tenant', true));
    INSERT INTO t SELECT g, 'tenant ' || g FROM generate_series(1, 9) g;
    CREATE FUNCTION become(who text) RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('app.tenant', who, false); END $$;
    CREATE FUNCTION become_by_command(who text) RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN EXECUTE 'SET app.tenant = ' || quote_literal(who); END $$;
    CREATE FUNCTION outer_function(who text) RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN PERFORM become(who); END $$;
    CREATE FUNCTION in_sql(who text) RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT set_config('app.tenant', who, false); END;
    CREATE FUNCTION of_trigger() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM outer_function('trigger'); RETURN NEW; END $$;
    CREATE FUNCTION of_trigger_old() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM become('cascade'); RETURN OLD; END $$;
    CREATE TABLE audited (id int);
    CREATE TRIGGER audit BEFORE INSERT ON audited FOR EACH ROW EXECUTE FUNCTION of_trigger();
    CREATE VIEW becoming AS SELECT become('view') IS NULL AS nothing;
    CREATE FUNCTION defaulted() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT set_config('app.tenant', 'default', false) $$;
    CREATE TABLE with_default (id int, who text DEFAULT defaulted());
    CREATE FUNCTION locks() RETURNS void LANGUAGE sql AS $$ SELECT pg_advisory_lock(4711) $$;
    CREATE FUNCTION settings() RETURNS void LANGUAGE plpgsql AS $$ BEGIN SET work_mem = '9MB'; END $$;
    CREATE FUNCTION harmless() RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN UPDATE t SET id = id WHERE id = 1; RETURN 7; END $$;
    CREATE FUNCTION declares() RETURNS int LANGUAGE plpgsql AS
        $$ DECLARE x int := 1; BEGIN PERFORM pg_advisory_xact_lock(x); RETURN x; END $$;
    CREATE TABLE parent (id int primary key); INSERT INTO parent SELECT generate_series(1, 9);
    CREATE TABLE child (id int REFERENCES parent ON DELETE CASCADE); INSERT INTO child SELECT generate_series(1, 9);
    CREATE TRIGGER audit BEFORE DELETE ON child FOR EACH ROW EXECUTE FUNCTION of_trigger_old();
    CREATE TABLE whole (id int) PARTITION BY RANGE (id);
    CREATE TABLE part PARTITION OF whole FOR VALUES FROM (1) TO (9);
    CREATE TRIGGER audit BEFORE INSERT ON part FOR EACH ROW EXECUTE FUNCTION of_trigger();
    CREATE FUNCTION by_default(x text DEFAULT set_config('app.tenant', 'argument', false)) RETURNS text LANGUAGE sql AS 'SELECT x';
    CREATE FUNCTION numbered(a int, b int) RETURNS bool LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('app.tenant', 'operator', false); RETURN true; END $$;
";

fn started(name: &str, schema: &str) -> (Proxy, String) {
    let server = &servers().all()[..1];
    let name = database(server, name, schema);
    let config = Proxy::config(&name, server, "").replace(
        &format!("[databases.{name}]\n"),
        &format!("[databases.{name}]\npool = {{ size = 1, wait_timeout = \"500ms\" }}\n"),
    );
    (Proxy::start(&config), name)
}

fn ask(client: &mut Client, text: &str, extended: bool) {
    let reply = if extended {
        client.run(text, &[])
    } else {
        client.query(text)
    };
    assert!(reply.sqlstate().is_none(), "{text}: {reply}");
}

const TENANT: &str = "SELECT coalesce(nullif(current_setting('app.tenant', true), ''), 'nobody')";

#[test]
fn what_functions_and_triggers_set_is_seen_by_their_client_alone() {
    let (proxy, name) = started("hidden", SCHEMA);
    let mut stranger = proxy.client(&name, "postgres", "");
    for (text, tenant) in [
        ("SELECT become('ann')", "ann"),
        ("SELECT become_by_command('bob')", "bob"),
        ("SELECT outer_function('carol')", "carol"),
        ("SELECT OUTER_FUNCTION('dave')", "dave"),
        ("SELECT in_sql('erin')", "erin"),
        ("INSERT INTO audited VALUES (1)", "trigger"),
        ("COPY audited FROM PROGRAM 'echo 5'", "trigger"),
        (
            "DELETE FROM parent WHERE id = (SELECT min(id) FROM parent)",
            "cascade",
        ),
        ("INSERT INTO whole VALUES (1)", "trigger"),
        ("SELECT by_default()", "argument"),
        ("SELECT * FROM becoming", "view"),
        ("INSERT INTO with_default VALUES (1)", "default"),
        ("DO $$ BEGIN PERFORM become('do'); END $$", "do"),
        ("PREPARE p AS SELECT become('prepared')", "nobody"),
        ("BEGIN; SELECT become('undone'); ROLLBACK", "nobody"),
    ] {
        for extended in [false, true] {
            if extended && text.starts_with("BEGIN") {
                continue;
            }
            let mut client = proxy.client(&name, "postgres", "");
            ask(&mut client, text, extended);
            if text.starts_with("PREPARE") {
                assert_eq!(stranger.query(TENANT).lines(), ["nobody"]);
                ask(&mut client, "EXECUTE p", extended);
                assert_eq!(stranger.query(TENANT).lines(), ["nobody"]);
                assert_eq!(client.query(TENANT).lines(), ["prepared"]);
                continue;
            }
            assert_eq!(stranger.query(TENANT).lines(), ["nobody"], "{text}");
            assert_eq!(client.query(TENANT).lines(), [tenant], "{text}");
        }
    }
    let mut client = proxy.client(&name, "postgres", "");
    ask(&mut client, "SELECT settings()", false);
    assert_eq!(stranger.query("SHOW work_mem").lines(), ["4MB"]);
    assert_eq!(client.query("SHOW work_mem").lines(), ["9MB"]);
    // A lock keeps the server; what is harmless does not.
    ask(&mut client, "SELECT harmless()", false);
    assert_eq!(stranger.query("SELECT 1").lines(), ["1"]);
    ask(&mut client, "SELECT locks()", false);
    assert_eq!(
        stranger.query("SELECT 1").sqlstate().as_deref(),
        Some("53300")
    );
    ask(&mut client, "SELECT pg_advisory_unlock_all()", false);
    assert_eq!(stranger.query("SELECT 1").lines(), ["1"]);
}

#[test]
fn what_is_defined_while_pgherd_runs_is_known_at_once() {
    let (proxy, name) = started("defined", "CREATE TABLE t (id int)");
    let mut client = proxy.client(&name, "postgres", "");
    let mut stranger = proxy.client(&name, "postgres", "");
    let function = |name: &str, tenant: &str| {
        format!(
            "CREATE FUNCTION {name}() RETURNS void LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM set_config('app.tenant', '{tenant}', false); END $$"
        )
    };
    ask(&mut client, &function("made", "made"), true);
    let mut other = proxy.client(&name, "postgres", "");
    ask(&mut other, "SELECT made()", true);
    assert_eq!(stranger.query(TENANT).lines(), ["nobody"]);
    assert_eq!(other.query(TENANT).lines(), ["made"]);
    // In the transaction that makes it.
    let mut third = proxy.client(&name, "postgres", "");
    ask(
        &mut third,
        &format!(
            "BEGIN; {}; SELECT within(); COMMIT",
            function("within", "within")
        ),
        false,
    );
    assert_eq!(stranger.query(TENANT).lines(), ["nobody"]);
    assert_eq!(third.query(TENANT).lines(), ["within"]);
    ask(
        &mut third,
        "CREATE FUNCTION of_trigger() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM made(); RETURN NEW; END $$; \
         CREATE TRIGGER audit BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION of_trigger()",
        false,
    );
    ask(&mut client, "INSERT INTO t VALUES (1)", true);
    assert_eq!(stranger.query(TENANT).lines(), ["nobody"]);
    assert_eq!(client.query(TENANT).lines(), ["made"]);
}

#[test]
fn an_operator_that_leaves_something_is_looked_for_everywhere() {
    let (proxy, name) = started("operator", SCHEMA);
    let server = &servers().all()[0];
    sql(
        server,
        &name,
        "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = numbered)",
    );
    let mut client = proxy.client(&name, "postgres", "");
    let mut stranger = proxy.client(&name, "postgres", "");
    ask(&mut client, "SELECT 1 === 2", true);
    assert_eq!(stranger.query(TENANT).lines(), ["nobody"]);
    assert_eq!(client.query(TENANT).lines(), ["operator"]);
}

#[test]
fn a_search_path_hides_nothing() {
    let schema = "
        CREATE SCHEMA evil;
        CREATE FUNCTION evil.never(text, text) RETURNS bool LANGUAGE sql AS 'SELECT false';
        CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.never);
        CREATE OPERATOR evil.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.never);
        CREATE OPERATOR evil.~* (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.never);
        CREATE FUNCTION become(who text) RETURNS void LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_catalog.set_config('app.tenant', who, false); END $$;";
    let (proxy, name) = started("evil", schema);
    let mut client = Client::connect(proxy.port);
    client.login(
        &[
            ("user", "postgres"),
            ("database", &name),
            ("search_path", "evil, pg_catalog, public"),
        ],
        "",
    );
    ask(&mut client, "SET work_mem = '9MB'", false);
    ask(&mut client, "SELECT become('evil')", false);
    let mut stranger = proxy.client(&name, "postgres", "");
    assert_eq!(stranger.query("SHOW work_mem").lines(), ["4MB"]);
    assert_eq!(stranger.query(TENANT).lines(), ["nobody"]);
    assert_eq!(client.query("SHOW work_mem").lines(), ["9MB"]);
}
