//! Live: a database of one shard behind the transaction pool does what PostgreSQL does, message by message.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use support::client::{
    Client, bind, cancel_request, close, copy_data, copy_done, describe, execute, flush, message,
    parse, query, sync,
};
use support::proxy::Proxy;
use support::{database, psql, servers, until};

const SCHEMA: &str = "CREATE TABLE t (id int primary key, v text)";

fn started(name: &str, pool: u32) -> (Proxy, String) {
    let server = &servers().all()[..1];
    let name = database(server, name, SCHEMA);
    let config = Proxy::config(&name, server, "").replace(
        &format!("[databases.{name}]\n"),
        &format!("[databases.{name}]\npool = {{ size = {pool} }}\n"),
    );
    (Proxy::start(&config), name)
}

/// The same bytes to PostgreSQL and to the proxy give the same answer.
fn same(requests: &[Vec<u8>], replies: usize) {
    let (proxy, name) = started("same", 1);
    let direct = database(&servers().all()[..1], "direct", SCHEMA);
    let mut through = proxy.client(&name, "postgres", "");
    let mut straight = Client::connect(servers().all()[0].port());
    straight.login(&[("user", "postgres"), ("database", &direct)], "");
    let bytes = requests.concat();
    through.send(&bytes);
    straight.send(&bytes);
    for _ in 0..replies {
        assert_eq!(
            through.reply().to_string(),
            straight.reply().to_string(),
            "{requests:?}"
        );
    }
}

#[test]
fn messages_are_answered_as_by_postgresql() {
    let cases: Vec<(Vec<Vec<u8>>, usize)> = vec![
        (vec![query("")], 1),
        (vec![query(";;")], 1),
        (vec![query("SELECT 1; SELECT 2; SELECT 1/0; SELECT 3")], 1),
        (vec![query("BEGIN; SELECT 1"), query("COMMIT")], 2),
        (
            vec![
                query("BEGIN"),
                query("SELECT x"),
                query("SELECT 1"),
                query("END"),
            ],
            4,
        ),
        (vec![query("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")], 1),
        (
            vec![
                query("COPY t FROM STDIN"),
                copy_data(b"1\ta\n2\t\\N\n"),
                copy_done(),
                query("TABLE t"),
            ],
            2,
        ),
        (
            vec![
                query("COPY t FROM STDIN"),
                message(b'f', b"no\0"),
                query("TABLE t"),
            ],
            2,
        ),
        (
            vec![
                query("COPY t FROM STDIN"),
                copy_data(b"x\n"),
                copy_done(),
                query("TABLE t"),
            ],
            2,
        ),
        (vec![query("COPY (VALUES (1, 'a'), (2, 'b')) TO STDOUT")], 1),
        (
            vec![
                parse("", "COPY t FROM STDIN", &[]),
                bind("", "", &[]),
                execute("", 0),
                copy_data(b"5\tfive\n"),
                copy_done(),
                sync(),
                query("TABLE t"),
            ],
            2,
        ),
        // A suspended portal, inside a transaction and at its Sync.
        (
            vec![
                parse("s", "SELECT generate_series(1, 5)", &[]),
                bind("p", "s", &[]),
                describe(b'P', "p"),
                execute("p", 2),
                execute("p", 2),
                execute("p", 0),
                close(b'P', "p"),
                sync(),
                execute("p", 0),
                sync(),
            ],
            2,
        ),
        (
            vec![
                query("BEGIN"),
                parse("s", "SELECT generate_series(1, 5)", &[]),
                bind("p", "s", &[]),
                execute("p", 2),
                sync(),
                execute("p", 2),
                sync(),
                query("COMMIT"),
            ],
            4,
        ),
        (
            vec![
                parse("s", "SELECT $1::int + 1", &[]),
                describe(b'S', "s"),
                sync(),
                bind("", "s", &[Some(b"41")]),
                execute("", 0),
                sync(),
                parse("s", "SELECT 2", &[]),
                sync(),
                close(b'S', "s"),
                parse("s", "SELECT 2", &[]),
                bind("", "s", &[]),
                execute("", 0),
                sync(),
                query("DEALLOCATE s"),
                bind("", "s", &[]),
                sync(),
            ],
            6,
        ),
        (vec![bind("", "nobody", &[]), sync(), query("SELECT 1")], 2),
        (vec![describe(b'S', "nobody"), sync()], 1),
        (
            vec![
                parse("bad", "SELEC 1", &[]),
                sync(),
                bind("", "bad", &[]),
                sync(),
            ],
            2,
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
        // A Parse that an earlier error skipped left no statement.
        (
            vec![
                parse("", "SELECT 1/(SELECT 0)", &[]),
                bind("", "", &[]),
                execute("", 0),
                parse("late", "SELECT 1", &[]),
                sync(),
                bind("", "late", &[]),
                sync(),
                parse("late", "SELECT 1", &[]),
                bind("", "late", &[]),
                execute("", 0),
                sync(),
            ],
            3,
        ),
        // BEGIN and COMMIT inside one pipeline.
        (
            vec![
                parse("", "BEGIN", &[]),
                bind("", "", &[]),
                execute("", 0),
                parse("", "INSERT INTO t VALUES (7, 'seven')", &[]),
                bind("", "", &[]),
                execute("", 0),
                parse("", "COMMIT", &[]),
                bind("", "", &[]),
                execute("", 0),
                sync(),
                query("TABLE t"),
            ],
            2,
        ),
        // An implicit transaction: the error undoes what the pipeline wrote before.
        (
            vec![
                parse("", "INSERT INTO t VALUES (8, 'eight')", &[]),
                bind("", "", &[]),
                execute("", 0),
                parse("", "SELECT 1/(SELECT 0)", &[]),
                bind("", "", &[]),
                execute("", 0),
                sync(),
                query("TABLE t"),
            ],
            2,
        ),
        (vec![query("SAVEPOINT a")], 1),
        (
            vec![
                query("BEGIN"),
                query("SAVEPOINT a"),
                query("SELECT 1/0"),
                query("ROLLBACK TO a"),
                query("SELECT 1"),
                query("COMMIT"),
            ],
            6,
        ),
        (
            vec![
                query("PREPARE p AS SELECT $1::int"),
                query("EXECUTE p(3)"),
                query("DEALLOCATE p"),
                query("EXECUTE p(3)"),
            ],
            4,
        ),
        (
            vec![
                query("CREATE TEMP TABLE tt (a int)"),
                query("INSERT INTO tt VALUES (1)"),
                query("TABLE tt"),
            ],
            3,
        ),
        (
            vec![
                query("SET work_mem = '7MB'"),
                query("SHOW work_mem"),
                query("RESET work_mem"),
                query("SHOW work_mem"),
            ],
            4,
        ),
    ];
    for (requests, replies) in cases {
        same(&requests, replies);
    }
}

#[test]
fn flush_brings_what_is_there_before_the_sync() {
    let (proxy, name) = started("flush", 1);
    let mut client = proxy.client(&name, "postgres", "");
    client.send(
        &[
            parse("s", "SELECT $1::int", &[]),
            describe(b'S', "s"),
            flush(),
        ]
        .concat(),
    );
    assert_eq!(client.until(b'T').to_string(), "1 t T(int4)");
    client.send(&[bind("", "s", &[Some(b"5")]), execute("", 0), flush()].concat());
    assert_eq!(client.until(b'C').to_string(), "2 D(5) C(SELECT 1)");
    client.send(&sync());
    assert_eq!(client.reply().to_string(), "Z(I)");
}

#[test]
fn what_is_answered_without_a_server_is_told_while_others_messages_wait_for_their_sync() {
    let (proxy, name) = started("told", 1);
    let mut client = proxy.client(&name, "postgres", "");
    client.send(&[parse("known", "SELECT 7", &[]), sync()].concat());
    assert_eq!(client.reply().to_string(), "1 Z(I)");
    let mut other = proxy.client(&name, "postgres", "");
    let known = parse("known", "SELECT 7", &[]);
    let run = [bind("", "known", &[]), execute("", 0)].concat();
    // The server says nothing before the second Sync, and the client sends it only when it has seen the first answer.
    other.send(&[&known[..], &sync(), &run].concat());
    assert_eq!(other.reply().to_string(), "1 Z(I)");
    other.send(&sync());
    assert_eq!(other.reply().to_string(), "2 D(7) C(SELECT 1) Z(I)");
    // In a transaction, where it has a server.
    assert_eq!(other.query("BEGIN").to_string(), "C(BEGIN) Z(T)");
    let again = parse("again", "SELECT 7", &[]);
    other.send(&[&again[..], &flush(), &run].concat());
    assert_eq!(other.until(b'1').to_string(), "1");
    other.send(&sync());
    assert_eq!(other.reply().to_string(), "2 D(7) C(SELECT 1) Z(T)");
}

#[test]
fn messages_larger_than_any_buffer_pass_both_ways() {
    let (proxy, name) = started("large", 1);
    let mut client = proxy.client(&name, "postgres", "");
    let value = "0123456789".repeat(1_500_000);
    let reply = client.run("SELECT $1::text", &[Some(&value)]).ok();
    assert_eq!(reply.lines(), [value]);
    let reply = client
        .query("SELECT repeat('x', 1000000), n FROM generate_series(1, 30) n")
        .ok();
    let lengths: usize = reply.of(b'D').map(|row| row.body.len()).sum();
    assert!(lengths > 30_000_000);
    assert_eq!(client.query("SELECT 1").lines(), ["1"]);
}

#[test]
fn a_cancel_request_reaches_the_server_that_works_for_the_client() {
    let (proxy, name) = started("cancel", 2);
    let mut bystander = proxy.client(&name, "postgres", "");
    bystander.query("BEGIN").ok();
    let mut client = proxy.client(&name, "postgres", "");
    let key = client.cancel_key.clone();
    let cancel = || {
        let mut request = Client::connect(proxy.port);
        request.send(&cancel_request(&key));
        // By then it has reached whom it concerns.
        assert!(request.is_closed());
    };
    client.send(&query("SELECT pg_sleep(60)"));
    until("the query runs", || {
        let sleeps = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND wait_event = 'PgSleep'"
        );
        support::sql(&servers().all()[0], "postgres", &sleeps) == "1"
    });
    cancel();
    assert_eq!(client.reply().sqlstate().as_deref(), Some("57014"));
    // A late request hits nobody.
    cancel();
    assert_eq!(client.query("SELECT 6").lines(), ["6"]);
    assert_eq!(bystander.query("COMMIT").to_string(), "C(COMMIT) Z(I)");
    let mut wrong = key.clone();
    *wrong.last_mut().unwrap() ^= 1;
    bystander.send(&query("SELECT pg_sleep(0.3), 8"));
    Client::connect(proxy.port).send(&cancel_request(&wrong));
    assert_eq!(bystander.reply().lines(), ["|8"]);
}

#[test]
fn listen_and_notify_work() {
    let (proxy, name) = started("notify", 2);
    let mut listener = proxy.client(&name, "postgres", "");
    let mut speaker = proxy.client(&name, "postgres", "");
    listener.query("LISTEN herd").ok();
    speaker.query("NOTIFY herd, 'moo'").ok();
    let heard = listener.frame();
    assert_eq!(heard.tag, b'A');
    assert!(String::from_utf8_lossy(&heard.body).contains("moo"));
}

#[test]
fn what_one_client_leaves_behind_no_other_one_sees() {
    let (proxy, name) = started("clean", 1);
    let mut first = proxy.client(&name, "postgres", "");
    first.query("SET application_name = 'first'").ok();
    first.query("CREATE TEMP TABLE mine (a int)").ok();
    first.query("PREPARE p AS SELECT 1").ok();
    first.run("SELECT 1", &[]).ok();
    drop(first);
    let mut second = proxy.client(&name, "postgres", "");
    assert_eq!(second.query("SHOW application_name").lines(), [""]);
    assert_eq!(
        second.query("TABLE mine").sqlstate().as_deref(),
        Some("42P01")
    );
    assert_eq!(
        second.query("EXECUTE p").sqlstate().as_deref(),
        Some("26000")
    );
}

#[test]
fn startup_settings_follow_their_client_to_any_server() {
    let (proxy, name) = started("settings", 1);
    let login = |zone: &str, style: &str| {
        let mut client = Client::connect(proxy.port);
        let options = format!("-c DateStyle={style}");
        client.login(
            &[
                ("user", "postgres"),
                ("database", &name),
                ("TimeZone", zone),
                ("options", &options),
            ],
            "",
        );
        client
    };
    let mut prague = login("Europe/Prague", "German");
    let mut tokyo = login("Asia/Tokyo", "SQL");
    let mut plain = proxy.client(&name, "postgres", "");
    for _ in 0..3 {
        let when = "SELECT '2026-01-15 12:00:00+00'::timestamptz";
        assert_eq!(prague.query(when).lines(), ["15.01.2026 13:00:00 CET"]);
        assert_eq!(tokyo.query(when).lines(), ["01/15/2026 21:00:00 JST"]);
        assert_ne!(plain.query(when).lines(), ["01/15/2026 21:00:00 JST"]);
    }
    assert_eq!(prague.parameters["TimeZone"], "Europe/Prague");
    assert_eq!(tokyo.parameters["TimeZone"], "Asia/Tokyo");
}

#[test]
fn ignored_startup_parameters_reach_no_server() {
    let server = &servers().all()[..1];
    let name = database(server, "ignored", "");
    let config = Proxy::config(&name, server, "").replace(
        "workers = 2\n",
        "workers = 2\nignore_startup_parameters = [\"Extra_Float_Digits\", \"no_such_setting\"]\n",
    );
    let proxy = Proxy::start(&config);
    for replication in ["false", "database"] {
        let mut client = Client::connect(proxy.port);
        client.login(
            &[
                ("user", "postgres"),
                ("database", &name),
                ("replication", replication),
                ("extra_float_digits", "2"),
                ("no_such_setting", "x"),
                (
                    "options",
                    "-c work_mem=5MB --extra-float-digits=3 -c no_such_setting=y",
                ),
            ],
            "",
        );
        assert_eq!(client.query("SHOW extra_float_digits").lines(), ["1"]);
        assert_eq!(client.query("SHOW work_mem").lines(), ["5MB"]);
    }
    // Any other name is still the server's to refuse.
    let parameters = [("user", "postgres"), ("database", &name), ("nor_this", "x")];
    let reply = Client::connect(proxy.port).try_login(&parameters, "");
    assert_eq!(reply.sqlstate().as_deref(), Some("42704"), "{reply}");
}

#[test]
fn a_setting_that_no_server_takes_is_the_servers_own_error_at_login() {
    let (proxy, name) = started("badsetting", 1);
    let reply = Client::connect(proxy.port).try_login(
        &[
            ("user", "postgres"),
            ("database", &name),
            ("DateStyle", "nonsense"),
        ],
        "",
    );
    let error = reply.of(b'E').next().unwrap();
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    assert_eq!(error.field(b'C').as_deref(), Some("22023"));
    let unknown =
        Client::connect(proxy.port).try_login(&[("user", "postgres"), ("database", "nowhere")], "");
    assert_eq!(unknown.sqlstate().as_deref(), Some("3D000"));
}

#[test]
fn psql_and_its_catalogue_commands_work() {
    let (proxy, name) = started("psql", 2);
    let dsn = proxy.dsn(&name, "postgres");
    let described = psql(&dsn, "\\d t");
    assert!(
        described.ok && described.stdout.contains("id|integer"),
        "{described:?}"
    );
    assert!(psql(&dsn, "\\l").stdout.contains(&name));
    let error = psql(&dsn, "SELECT * FROM missing");
    assert!(!error.ok && error.stderr.contains("42P01"), "{error:?}");
    let copied = psql(&dsn, "COPY (SELECT 1, 'x') TO STDOUT WITH CSV");
    assert_eq!(copied.stdout, "1,x");
}

#[test]
fn a_function_call_message_is_answered() {
    let (proxy, name) = started("function", 1);
    let mut client = proxy.client(&name, "postgres", "");
    let oid: u32 = client.query("SELECT 'int4pl'::regproc::oid").lines()[0]
        .parse()
        .unwrap();
    let mut body = oid.to_be_bytes().to_vec();
    body.extend(b"\0\0\0\x02\0\0\0\x0240\0\0\0\x012\0\0");
    client.send(&message(b'F', &body));
    let reply = client.reply();
    assert!(reply.to_string().ends_with("Z(I)"), "{reply}");
    assert_eq!(reply.of(b'V').next().unwrap().body, b"\0\0\0\x0242");
}

#[test]
fn a_message_that_fails_before_it_is_sent_keeps_no_server() {
    let (proxy, name) = started("kept", 1);
    let mut first = proxy.client(&name, "postgres", "");
    first.send(&[describe(b'S', "nobody"), sync()].concat());
    assert_eq!(first.reply().sqlstate().as_deref(), Some("26000"));
    let mut second = proxy.client(&name, "postgres", "");
    assert_eq!(second.query("SELECT 1").lines(), ["1"]);
}

#[test]
fn unix_sockets_serve_both_sides() {
    let server = &servers().all()[0];
    let name = database(std::slice::from_ref(server), "unix", SCHEMA);
    let config = Proxy::config(&name, std::slice::from_ref(server), "")
        .replace(
            "listen = [\"{listen}\"]",
            // In this order they begin to listen, and the test waits for the last one.
            "listen = [\"{folder}:6432\", \"{listen}\"]",
        )
        .replace(
            "host=127.0.0.1",
            &format!("host={}", server.socket_dir().display()),
        );
    let proxy = Proxy::start(&config);
    let mut client = Client::connect_unix(&proxy.folder().join(".s.PGSQL.6432"));
    client.login(&[("user", "postgres"), ("database", &name)], "");
    assert_eq!(
        client.query("SELECT inet_server_addr() IS NULL").lines(),
        ["t"]
    );
}

#[test]
fn a_query_in_a_failed_pipeline_is_ignored_and_its_server_is_free_afterwards() {
    same(
        &[
            parse("", "SELEC", &[]),
            query("SELECT 5"),
            sync(),
            query("SELECT 6"),
        ],
        2,
    );
    let (proxy, name) = started("ignored", 1);
    let mut first = proxy.client(&name, "postgres", "");
    first.send(&[parse("", "SELEC", &[]), query("SELECT 5"), sync()].concat());
    assert_eq!(first.reply().sqlstate().as_deref(), Some("42601"));
    let mut second = proxy.client(&name, "postgres", "");
    assert_eq!(second.query("SELECT 7").lines(), ["7"]);
    assert_eq!(first.query("SELECT 8").lines(), ["8"]);
}

#[test]
fn what_must_be_known_before_it_goes_on_is_asked_for() {
    let call = |name| [bind("", name, &[]), execute("", 0)].concat();
    // The second pipeline needs to know how the first ended, while its own Sync has not come.
    same(
        &[
            parse("s", "SELECT 1", &[]),
            sync(),
            parse("", "SELECT 2", &[]),
            call("s"),
            call(""),
            sync(),
        ],
        2,
    );
    same(
        &[parse("s", "SELECT 1", &[]), query("DEALLOCATE s"), sync()],
        2,
    );
}

/// Logs in with one more start-up parameter.
fn client_with(proxy: &Proxy, name: &str, setting: (&str, &str)) -> Client {
    let mut client = Client::connect(proxy.port);
    client.login(&[("user", "postgres"), ("database", name), setting], "");
    client
}

fn prepared(client: &mut Client, name: &str, text: &str) -> String {
    let call = [bind("", name, &[]), execute("", 0)].concat();
    client.send(&[parse(name, text, &[]), call, sync()].concat());
    client.reply().lines().join("\n")
}

#[test]
fn constants_are_read_under_the_settings_of_who_prepares_them() {
    let (proxy, name) = started("reading", 1);
    let text = "SELECT extract(epoch FROM '2024-01-01 00:00'::timestamptz)::bigint";
    let (here, there) = ("1704067200", "1704034800");
    let mut utc = client_with(&proxy, &name, ("TimeZone", "UTC"));
    let mut tokyo = client_with(&proxy, &name, ("TimeZone", "Asia/Tokyo"));
    assert_eq!(prepared(&mut utc, "s", text), here);
    assert_eq!(prepared(&mut tokyo, "s", text), there);
    // A setting of one transaction, that nobody shall inherit.
    utc.query("BEGIN").ok();
    utc.query("SET LOCAL TimeZone = 'Asia/Tokyo'").ok();
    assert_eq!(prepared(&mut utc, "local", text), there);
    utc.query("COMMIT").ok();
    assert_eq!(prepared(&mut utc, "again", text), here);
    utc.query("SET TimeZone = 'Asia/Tokyo'").ok();
    assert_eq!(prepared(&mut utc, "pinned", text), there);
    drop(utc);
    let mut utc = client_with(&proxy, &name, ("TimeZone", "UTC"));
    assert_eq!(prepared(&mut utc, "s", text), here);
}

#[test]
fn deallocate_means_the_statements_of_the_client_in_every_protocol() {
    let cases = [
        vec!["BEGIN", "DEALLOCATE ALL", "COMMIT"],
        vec![
            "BEGIN",
            "SELECT 1/0",
            "DEALLOCATE ALL",
            "DEALLOCATE s",
            "ROLLBACK",
        ],
        vec![
            "SET work_mem = '5MB'",
            "BEGIN",
            "DEALLOCATE ALL",
            "ROLLBACK",
        ],
        vec!["BEGIN; DEALLOCATE ALL", "ROLLBACK"],
        vec!["DEALLOCATE s"],
        vec!["DEALLOCATE nobody"],
    ];
    for case in cases {
        for extended in [false, true] {
            let (proxy, name) = started("deallocate", 1);
            let mut straight = Client::connect(servers().all()[0].port());
            straight.login(&[("user", "postgres"), ("database", &name)], "");
            let mut through = proxy.client(&name, "postgres", "");
            // Keeps the shared statement in use.
            let mut other = proxy.client(&name, "postgres", "");
            assert_eq!(prepared(&mut other, "o", "SELECT 4"), "4");
            let run = |client: &mut Client| {
                let mut seen = vec![prepared(client, "s", "SELECT 4")];
                for text in &case {
                    seen.push(if extended && !text.contains(';') {
                        let call = [parse("", text, &[]), bind("", "", &[]), execute("", 0)];
                        client.send(&[call.concat(), sync()].concat());
                        client.reply().to_string()
                    } else {
                        client.query(text).to_string()
                    });
                }
                for text in ["SELECT 4", "SELECT 5"] {
                    let call = [bind("", "s", &[]), execute("", 0), sync()];
                    client.send(&call.concat());
                    seen.push(client.reply().to_string());
                    seen.push(prepared(client, "s", text));
                }
                seen.push(prepared(client, "t", "SELECT 4"));
                seen
            };
            assert_eq!(run(&mut through), run(&mut straight), "{case:?} {extended}");
        }
    }
}

#[test]
fn who_prepares_a_statement_anew_after_its_table_changed_gets_the_new_columns() {
    let (proxy, name) = started("outdated", 1);
    let mut old = proxy.client(&name, "postgres", "");
    assert_eq!(prepared(&mut old, "s", "TABLE t"), "");
    support::sql(
        &servers().all()[0],
        &name,
        "ALTER TABLE t ADD more text; INSERT INTO t VALUES (1)",
    );
    let call = [bind("", "s", &[]), execute("", 0), sync()].concat();
    old.send(&call);
    assert_eq!(old.reply().sqlstate().as_deref(), Some("0A000"));
    let mut new = proxy.client(&name, "postgres", "");
    assert_eq!(prepared(&mut new, "s", "TABLE t"), "1||");
    old.send(&[close(b'S', "s"), sync()].concat());
    old.reply();
    assert_eq!(prepared(&mut old, "s", "TABLE t"), "1||");
}

#[test]
fn what_a_client_was_told_of_a_statement_holds_on_every_server() {
    let (proxy, name) = started("promised", 1);
    let mut client = proxy.client(&name, "postgres", "");
    let prepare = [parse("s", "TABLE t", &[]), describe(b'S', "s"), sync()].concat();
    let call = [bind("", "s", &[]), execute("", 0), sync()].concat();
    client.send(&[prepare.clone(), call.clone()].concat());
    client.reply().ok();
    client.reply().ok();
    // A new server that would parse it as the table is now, once with the old columns and once with others.
    let anew = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let server = &servers().all()[0];
    support::sql(server, &name, anew);
    client.send(&call);
    client.reply().ok();
    support::sql(
        server,
        &name,
        &format!("ALTER TABLE t ADD more text; INSERT INTO t VALUES (1); {anew}"),
    );
    client.send(&call);
    let reply = client.reply();
    assert_eq!(reply.sqlstate().as_deref(), Some("0A000"), "{reply}");
    assert_eq!(reply.of(b'D').count(), 0);
    // As drivers do it then.
    client.send(&[close(b'S', "s"), sync()].concat());
    client.reply().ok();
    client.send(&[prepare, call].concat());
    client.reply().ok();
    assert_eq!(client.reply().lines(), ["1||"]);
}
