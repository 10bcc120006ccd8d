//! Live: what must not pass from one client to the next on a server, and what must reach the next server with its client.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::client::{
    Client, bind, cancel_request, close, copy_data, describe, execute, parse, query, sync,
};
use support::proxy::Proxy;
use support::{MD5, SHOP, database, servers, signal, sql};

fn started_with(name: &str, pool: &str, rest: &str) -> (Proxy, String) {
    let server = &servers().all()[..1];
    let name = database(
        server,
        name,
        "CREATE TABLE t (id int primary key); CREATE SEQUENCE s",
    );
    let config = Proxy::config(&name, server, "").replace(
        &format!("[databases.{name}]\n"),
        &format!("[databases.{name}]\npool = {{ {pool} }}\n"),
    ) + rest;
    (Proxy::start(&config), name)
}

/// A database of one shard with a pool of one.
fn started(name: &str) -> (Proxy, String) {
    started_with(name, "size = 1, wait_timeout = \"5s\"", "")
}

fn login(proxy: &Proxy, name: &str, user: &str, more: &[(&str, &str)]) -> Client {
    let mut client = Client::connect(proxy.port);
    let mut all = vec![("user", user), ("database", name)];
    all.extend(more);
    client.login(&all, "");
    client
}

/// What a session that left was not to hear of its server, the next one does not hear.
#[test]
fn a_session_hears_what_one_that_left_heard_elsewhere() {
    let users = format!("\n[users.{}.pool]\nmode = \"session\"\n", SHOP.0);
    let server = &servers().all()[0];
    let name = database(std::slice::from_ref(server), "quiet", "");
    let config = Proxy::config(&name, std::slice::from_ref(server), "").replace(
        &format!("[databases.{name}]\n"),
        &format!("[databases.{name}]\npool = {{ size = 1, wait_timeout = \"5s\" }}\n"),
    ) + &users;
    println!("{config}");
    let proxy = Proxy::start(&config);
    let mut one = proxy.client(&name, "postgres", "");
    one.query("LISTEN c").ok();
    one.query("BEGIN").ok();
    one.query("SELECT 1").ok();
    drop(one);
    let mut two = proxy.client(&name, SHOP.0, "");
    two.query("LISTEN c").ok();
    sql(server, &name, "NOTIFY c, 'x'");
    std::thread::sleep(Duration::from_millis(200));
    let reply = two.query("SELECT 1");
    let more = if reply.of(b'A').count() == 0 {
        two.query("SELECT 2").to_string()
    } else {
        String::new()
    };
    assert!(reply.of(b'A').count() == 1, "{reply} {more}");
}

/// COPY under query_timeout by a client that pauses, which then leaves.
#[test]
fn a_copy_that_takes_too_long_leaves_its_server() {
    let (proxy, name) = started_with(
        "copy",
        "size = 1, wait_timeout = \"15s\", query_timeout = \"300ms\"",
        "",
    );
    let mut one = proxy.client(&name, "postgres", "");
    one.send(&query("COPY t FROM STDIN"));
    let frame = one.frame();
    assert_eq!(frame.tag, b'G');
    one.send(&copy_data(b"1\n"));
    let mut other = proxy.client(&name, "postgres", "");
    other.send(&query("SELECT count(*) FROM t"));
    assert_eq!(other.reply().lines(), ["0"]);
    println!("{}", one.until(b'E'));
}

/// Who has waited for a server is ended once it has one.
#[test]
fn to_wait_for_a_server_is_no_transaction() {
    let (proxy, name) = started_with(
        "waits",
        "size = 1, transaction_timeout = \"600ms\", wait_timeout = \"5s\"",
        "",
    );
    let mut keepers = Vec::new();
    // Three one after the other keep it for longer than a transaction may last.
    for _ in 0..3 {
        let mut keeper = proxy.client(&name, "postgres", "");
        keeper.send(&query("SELECT pg_sleep(0.35)"));
        std::thread::sleep(Duration::from_millis(30));
        keepers.push(keeper);
    }
    let mut waiting = proxy.client(&name, "postgres", "");
    waiting.send(&query("SELECT pg_sleep(0.2), 7"));
    let reply = waiting.until(b'D');
    assert!(reply.of(b'D').count() == 1, "{reply}");
}

/// Currval in the extended protocol, on a server that gave a value to somebody else.
#[test]
fn currval_of_another_client_is_not_told_in_the_extended_protocol() {
    let (proxy, name) = started("currval");
    let mut one = proxy.client(&name, "postgres", "");
    assert_eq!(one.query("SELECT nextval('s')").lines(), ["1"]);
    let mut other = proxy.client(&name, "postgres", "");
    let reply = other.run("SELECT currval('s')", &[]);
    assert_eq!(reply.sqlstate().as_deref(), Some("55000"), "{reply}");
}

/// DISCARD ALL that fails drops the client's statements.
#[test]
fn a_discard_that_fails_drops_nothing() {
    let (proxy, name) = started("discard");
    let mut client = proxy.client(&name, "postgres", "");
    client.send(&[parse("s", "SELECT 7", &[]), sync()].concat());
    client.reply().ok();
    client.query("BEGIN").ok();
    assert_eq!(
        client.query("DISCARD ALL").sqlstate().as_deref(),
        Some("25001")
    );
    client.query("ROLLBACK").ok();
    client.send(&[bind("", "s", &[]), execute("", 0), sync()].concat());
    assert_eq!(client.reply().ok().lines(), ["7"]);
}

/// A role under another session's authorization.
#[test]
fn the_role_survives_its_session_authorization() {
    let (proxy, name) = started("role");
    let server = &servers().all()[0];
    sql(server, &name, &format!("GRANT {} TO {}", MD5.0, SHOP.0));
    let mut one = proxy.client(&name, "postgres", "");
    one.query(&format!("SET SESSION AUTHORIZATION {}", SHOP.0))
        .ok();
    one.query(&format!("SET ROLE {}", MD5.0)).ok();
    let who = "SELECT session_user, current_user";
    assert_eq!(one.query(who).lines(), [format!("{}|{}", SHOP.0, MD5.0)]);
    let mut other = proxy.client(&name, "postgres", "");
    assert_eq!(other.query(who).lines(), ["postgres|postgres"]);
    assert_eq!(one.query(who).lines(), [format!("{}|{}", SHOP.0, MD5.0)]);
}

/// The change of settings is read in the encoding of the client of before.
#[test]
fn settings_reach_a_server_in_the_encoding_of_their_client() {
    let (proxy, name) = started("encoding");
    for custom in [true, false] {
        let mut one = proxy.client(&name, "postgres", "");
        let mut other = login(&proxy, &name, "postgres", &[("client_encoding", "LATIN1")]);
        if custom {
            one.query("SET app.name = 'Zoë'").ok();
            other.query("SELECT 1").ok();
            assert_eq!(one.query("SHOW app.name").lines(), ["Zoë"]);
        } else {
            one.query("SET search_path = 'Zoë'").ok();
            other.query("SELECT 1").ok();
            assert_eq!(one.query("SHOW search_path").lines(), ["\"Zoë\""]);
        }
    }
}

/// Constants of a carried PREPARE are read anew under other settings.
#[test]
fn constants_of_prepare_are_read_once() {
    let (proxy, name) = started("constants");
    let mut client = proxy.client(&name, "postgres", "");
    let mut other = proxy.client(&name, "postgres", "");
    client
        .query("PREPARE p AS SELECT '1/2/2024'::date - '2024-01-01'::date")
        .ok();
    assert_eq!(client.query("EXECUTE p").lines(), ["1"]);
    client.query("SET datestyle = 'ISO, DMY'").ok();
    assert_eq!(client.query("EXECUTE p").lines(), ["1"]);
    client.query("SET work_mem = '5MB'").ok();
    other.send(&query("SELECT 1"));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(client.query("EXECUTE p").lines(), ["1"]);
}

/// The same where they were read under a setting of the transaction.
#[test]
fn constants_of_prepare_are_read_under_set_local() {
    let (proxy, name) = started("local");
    let mut client = proxy.client(&name, "postgres", "");
    let mut other = proxy.client(&name, "postgres", "");
    client.query("BEGIN").ok();
    client.query("SET LOCAL datestyle = 'ISO, DMY'").ok();
    client
        .query("PREPARE p AS SELECT '1/2/2024'::date - '2024-01-01'::date")
        .ok();
    client.query("COMMIT").ok();
    other.send(&query("SELECT 1"));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(client.query("EXECUTE p").lines(), ["31"]);
}

/// A carried PREPARE waits for a lock, and nothing ends that.
#[test]
fn what_is_carried_to_a_server_can_be_cancelled() {
    let (proxy, name) = started_with(
        "carried",
        "size = 1, wait_timeout = \"5s\", query_timeout = \"500ms\"",
        "",
    );
    let server = &servers().all()[0];
    let mut client = proxy.client(&name, "postgres", "");
    client.query("PREPARE p AS SELECT * FROM t").ok();
    let mut other = proxy.client(&name, "postgres", "");
    other.query("SELECT 1").ok();
    let dsn = server.dsn(&name);
    let lock = std::thread::spawn(move || {
        support::psql(&dsn, "BEGIN; LOCK t; SELECT pg_sleep(10); COMMIT");
    });
    std::thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    client.send(&query("SELECT 7"));
    std::thread::sleep(Duration::from_millis(200));
    let mut canceller = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
    canceller
        .write_all(&cancel_request(&client.cancel_key))
        .unwrap();
    let reply = client.reply();
    let took = begun.elapsed();
    lock.join().unwrap();
    assert!(took < Duration::from_secs(3), "{took:?} {reply}");
}

/// A PREPARE that could not be carried for the moment is forgotten.
#[test]
fn what_is_carried_is_not_forgotten_for_a_lock() {
    let (proxy, name) = started("forgotten");
    let server = &servers().all()[0];
    let mut client = proxy.client(&name, "postgres", "");
    client.query("SET lock_timeout = '100ms'").ok();
    client.query("PREPARE p AS SELECT count(*) FROM t").ok();
    let mut other = proxy.client(&name, "postgres", "");
    other.query("SELECT 1").ok();
    let dsn = server.dsn(&name);
    let lock = std::thread::spawn(move || {
        support::psql(&dsn, "BEGIN; LOCK t; SELECT pg_sleep(1); COMMIT");
    });
    std::thread::sleep(Duration::from_millis(400));
    let during = client.query("SELECT 7").to_string();
    lock.join().unwrap();
    let reply = client.query("EXECUTE p");
    assert_eq!(reply.lines(), ["0"], "{during} / {reply}");
}

/// What another client was told under another search_path is held against this one.
#[test]
fn a_description_is_of_the_client_that_was_told() {
    let (proxy, name) = started("tenants");
    let server = &servers().all()[0];
    sql(
        server,
        &name,
        "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.u (id int); CREATE TABLE b.u (id int, more text)",
    );
    let mut clients: Vec<_> = ["a", "b", "a", "b"]
        .iter()
        .map(|path| {
            login(
                &proxy,
                &name,
                "postgres",
                &[("options", &format!("-c search_path={path}"))],
            )
        })
        .collect();
    let mut seen = Vec::new();
    for client in &mut clients {
        let mut bytes = parse("s", "SELECT * FROM u", &[]);
        bytes.extend(describe(b'S', "s"));
        bytes.extend(sync());
        client.send(&bytes);
        seen.push(client.reply().to_string());
        let mut bytes = bind("", "s", &[]);
        bytes.extend(execute("", 0));
        bytes.extend(sync());
        client.send(&bytes);
        seen.push(client.reply().to_string());
    }
    assert!(seen.iter().all(|reply| !reply.contains("E(")), "{seen:#?}");
}

/// The same where the second client was told nothing at all.
#[test]
fn who_was_told_nothing_is_promised_nothing() {
    let (proxy, name) = started("untold");
    let server = &servers().all()[0];
    sql(
        server,
        &name,
        "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.u (id int); CREATE TABLE b.u (id int, more text)",
    );
    let mut first = login(
        &proxy,
        &name,
        "postgres",
        &[("options", "-c search_path=a")],
    );
    let mut bytes = parse("s", "SELECT * FROM u", &[]);
    bytes.extend(describe(b'S', "s"));
    bytes.extend(sync());
    first.send(&bytes);
    first.reply().ok();
    let mut second = login(
        &proxy,
        &name,
        "postgres",
        &[("options", "-c search_path=b")],
    );
    let mut bytes = parse("s", "SELECT * FROM u", &[]);
    bytes.extend(bind("", "s", &[]));
    bytes.extend(execute("", 0));
    bytes.extend(sync());
    second.send(&bytes);
    second.reply().ok();
}

/// The same where the search_path is one of the transaction.
#[test]
fn what_is_told_in_a_transaction_with_its_own_search_path_holds_for_nobody_else() {
    let (proxy, name) = started("set_local");
    let server = &servers().all()[0];
    sql(
        server,
        &name,
        "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.u (id int); CREATE TABLE b.u (id int, more text)",
    );
    let mut clients: Vec<_> = (0..4)
        .map(|_| proxy.client(&name, "postgres", ""))
        .collect();
    let mut seen = Vec::new();
    for (number, client) in clients.iter_mut().enumerate() {
        let path = if number % 2 == 0 { "a" } else { "b" };
        client.query("BEGIN").ok();
        client
            .query(&format!("SET LOCAL search_path = {path}"))
            .ok();
        let mut bytes = parse("s", "SELECT * FROM u", &[]);
        if number < 2 {
            bytes.extend(describe(b'S', "s"));
        }
        bytes.extend(bind("", "s", &[]));
        bytes.extend(execute("", 0));
        bytes.extend(sync());
        client.send(&bytes);
        seen.push(client.reply().to_string());
        client.query("COMMIT").ok();
    }
    assert!(seen.iter().all(|reply| !reply.contains("E(")), "{seen:#?}");
}

/// Not repaired: the session ends, where PostgreSQL only fails the statement.
#[test]
fn a_changed_statement_does_not_end_a_session_that_keeps_its_server() {
    let (proxy, name) = started("pinned");
    let mut client = proxy.client(&name, "postgres", "");
    client.query("CREATE TEMP TABLE x (a int)").ok();
    client.send(
        &[
            parse("s", "SELECT * FROM x", &[]),
            describe(b'S', "s"),
            sync(),
        ]
        .concat(),
    );
    client.reply().ok();
    client.query("ALTER TABLE x ADD b int").ok();
    client.query("SET timezone = 'UTC'").ok();
    client.send(&[bind("", "s", &[]), execute("", 0), sync()].concat());
    let reply = client.reply();
    assert_eq!(reply.sqlstate().as_deref(), Some("0A000"), "{reply}");
    assert_eq!(client.query("SELECT count(*) FROM x").lines(), ["0"]);
}

/// Within a transaction the server's values are those of others.
#[test]
fn currval_of_another_client_is_not_told_in_a_transaction() {
    let (proxy, name) = started("in_transaction");
    let mut one = proxy.client(&name, "postgres", "");
    assert_eq!(one.query("SELECT nextval('s')").lines(), ["1"]);
    let mut other = proxy.client(&name, "postgres", "");
    assert_eq!(one.query("SELECT nextval('s')").lines(), ["2"]);
    other.query("BEGIN").ok();
    let reply = other.query("SELECT currval('s')");
    assert_eq!(reply.sqlstate().as_deref(), Some("55000"), "{reply}");
}

/// A frozen server while the client's settings are brought to it.
#[test]
fn a_server_that_freezes_before_it_has_the_settings_does_not_hold_its_client() {
    let (proxy, name) = started_with(
        "frozen",
        "size = 1, wait_timeout = \"5s\", query_timeout = \"200ms\"",
        "",
    );
    let mut client = proxy.client(&name, "postgres", "");
    client.query("SET app.x = 'y'").ok();
    let mut other = proxy.client(&name, "postgres", "");
    let pid = other.server_pid();
    signal("STOP", &pid);
    client.send(&query("SELECT 1"));
    let frame = client.try_frame();
    signal("CONT", &pid);
    let frame = frame.unwrap();
    assert_eq!(frame.field(b'C').as_deref(), Some("57014"), "{frame}");
    assert!(client.is_closed());
}

/// Function whose definition outlives a short statement_timeout of who defines it.
#[test]
fn what_a_function_sets_is_known_though_the_catalogue_could_not_be_read() {
    let (proxy, name) = started("unread");
    let server = &servers().all()[0];
    let many = "DO $do$ BEGIN FOR n IN 1..4000 LOOP EXECUTE format('CREATE FUNCTION f%s() RETURNS int LANGUAGE sql AS $$ SELECT %s /* %s */ $$', n, n, repeat('x ', 1000)); END LOOP; END $do$";
    sql(server, &name, many);
    let mut one = proxy.client(&name, "postgres", "");
    one.query("SET statement_timeout = '5ms'").ok();
    let made = one.query(
        "CREATE FUNCTION leak() RETURNS text LANGUAGE plpgsql AS $$ BEGIN SET work_mem = '9MB'; RETURN 'x'; END $$",
    );
    println!("{made}");
    let mut two = proxy.client(&name, "postgres", "");
    two.run("SELECT leak()", &[]).ok();
    let mut three = proxy.client(&name, "postgres", "");
    assert_eq!(three.query("SHOW work_mem").lines(), ["4MB"]);
}

/// A Query in a pipeline whose server's settings are pending, cancelled and left.
#[test]
fn cancel_requests_at_any_moment_leave_answers_in_order() {
    let (proxy, name) = started("storm");
    let mut one = proxy.client(&name, "postgres", "");
    let mut other = login(&proxy, &name, "postgres", &[("application_name", "other")]);
    one.query("SET application_name = 'one'").ok();
    for round in 0..150_u32 {
        let key = one.cancel_key.clone();
        let port = proxy.port;
        let canceller = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(u64::from(round % 15) * 100));
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(&cancel_request(&key)).unwrap();
        });
        other.query("SELECT 1").ok();
        one.send(
            &[
                parse("", "SELECT current_setting('application_name')", &[]),
                bind("", "", &[]),
                execute("", 0),
                sync(),
                query("SHOW application_name"),
            ]
            .concat(),
        );
        for _ in 0..2 {
            let reply = one.reply();
            match reply.sqlstate() {
                None => assert_eq!(reply.lines(), ["one"], "{reply}"),
                Some(code) => assert_eq!(code, "57014", "{reply}"),
            }
        }
        canceller.join().unwrap();
        assert_eq!(other.query("SHOW application_name").ok().lines(), ["other"]);
    }
}

/// Not repaired: a Query is judged before it waits for its server, by what was known then.
#[test]
fn what_a_function_sets_is_known_to_a_query_that_waits() {
    let (proxy, name) = started("judged");
    let mut early = proxy.client(&name, "postgres", "");
    let mut two = proxy.client(&name, "postgres", "");
    let mut one = proxy.client(&name, "postgres", "");
    one.query(
        "CREATE FUNCTION leak() RETURNS text LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM set_config('work_mem', '9MB', false); RETURN 'x'; END $$",
    )
    .ok();
    two.query("SELECT leak()").ok();
    assert_eq!(early.query("SHOW work_mem").lines(), ["4MB"]);
}

#[test]
fn currval_of_another_client_is_not_told_to_who_has_its_server_since_before_either() {
    let (proxy, name) = started_with("since_before", "size = 3, reuse = \"round-robin\"", "");
    let mut clients: Vec<_> = (0..3)
        .map(|_| proxy.client(&name, "postgres", ""))
        .collect();
    // Every server has served somebody else.
    for turn in 0..6 {
        for text in ["BEGIN", "SELECT nextval('s')", "COMMIT"] {
            for at in 0..3 {
                clients[(at + turn) % 3].query(text).ok();
            }
        }
    }
    let [open, asking, keeps] = &mut clients[..] else {
        unreachable!()
    };
    // One in a transaction, and one that keeps its server for another reason, while it is not known yet.
    open.query("BEGIN").ok();
    keeps.query("CREATE TEMP TABLE mine (a int)").ok();
    let code = |client: &mut Client, text: &str| client.query(text).sqlstate();
    for _ in 0..2 {
        assert_eq!(code(keeps, "SELECT currval('s')").as_deref(), Some("55000"));
    }
    assert_eq!(code(open, "SELECT lastval()").as_deref(), Some("55000"));
    open.query("ROLLBACK").ok();
    assert_eq!(
        code(asking, "SELECT currval('s')").as_deref(),
        Some("55000")
    );
    // Who gets a value is told it.
    for client in [open, keeps] {
        client.query("BEGIN").ok();
        let got = client.query("SELECT nextval('s')").lines();
        assert_eq!(client.query("SELECT currval('s')").lines(), got);
        client.query("COMMIT").ok();
    }
}

#[test]
fn a_statement_that_was_skipped_is_not_taken_for_one_that_the_server_has() {
    let (proxy, name) = started("skipped");
    let mut client = proxy.client(&name, "postgres", "");
    client.send(&[parse("s", "SELECT 1", &[]), sync()].concat());
    client.reply().ok();
    let at_once = [
        parse("a", "SELECT 3", &[]),
        close(b'S', "s"),
        sync(),
        parse("bad", "SELEC", &[]),
        parse("s", "SELECT 2", &[]),
        sync(),
    ];
    client.send(&at_once.concat());
    client.reply().ok();
    assert_eq!(client.reply().sqlstate().as_deref(), Some("42601"));
    let mut other = proxy.client(&name, "postgres", "");
    for (client, prepare) in [(&mut other, true), (&mut client, false)] {
        let mut bytes = if prepare {
            parse("s", "SELECT 2", &[])
        } else {
            Vec::new()
        };
        bytes.extend([bind("", "s", &[]), execute("", 0), sync()].concat());
        client.send(&bytes);
        let reply = client.reply();
        if prepare {
            assert_eq!(reply.lines(), ["2"], "{reply}");
        } else {
            assert_eq!(reply.sqlstate().as_deref(), Some("26000"), "{reply}");
        }
    }
}
