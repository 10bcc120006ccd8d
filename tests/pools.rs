//! Live: how many server connections there are, who gets them, and what state they are in when they are lent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use support::client::{Client, query};
use support::proxy::Proxy;
use support::{SHOP, database, servers, servers_with, signal, sql, until};

/// A database of one shard where each client logs in as itself; `more` stands below `[databases.<name>]`, `rest` at the
/// end.
fn started(name: &str, proxy: &str, more: &str, rest: &str) -> (Proxy, String) {
    let server = &servers().all()[..1];
    let name = database(server, name, "");
    let config = Proxy::config(&name, server, rest)
        .replace("[auth]", &format!("{proxy}\n\n[auth]"))
        .replace(
            &server[0].dsn(&name),
            &format!("host=127.0.0.1 port={} dbname={name}", server[0].port()),
        )
        .replace(
            "method = \"trust\"",
            "method = \"trust\"\nusers_file = \"{folder}/userlist.txt\"",
        )
        .replace(
            &format!("[databases.{name}]\n"),
            &format!("[databases.{name}]\n{more}\n"),
        );
    let proxy = Proxy::start_with(&config, |folder, _| {
        let line = format!("\"{}\" \"{}\"\n", SHOP.0, SHOP.1);
        std::fs::write(folder.join("userlist.txt"), line).unwrap();
    });
    (proxy, name)
}

/// How many connections a user has to a database, by the server's own count.
fn connections(name: &str, user: &str) -> usize {
    let text = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND usename = '{user}' \
         AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    );
    sql(&servers().all()[0], "postgres", &text).parse().unwrap()
}

#[test]
fn a_pool_keeps_its_least_number_of_connections() {
    let (proxy, name) = started(
        "least",
        "",
        "pool = { size = 5, size_min = 3, idle_timeout = \"1ms\" }",
        "",
    );
    let mut client = proxy.client(&name, "postgres", "");
    client.query("SELECT 1").ok();
    until("three connections", || connections(&name, "postgres") == 3);
    sql(
        &servers().all()[0],
        "postgres",
        &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"),
    );
    until("three again", || connections(&name, "postgres") == 3);
}

#[test]
fn the_reserve_is_for_those_who_wait_for_long() {
    let pool = "pool = { size = 1, reserve_size = 1, reserve_timeout = \"300ms\", wait_timeout = \"900ms\" }";
    let (proxy, name) = started("reserve", "", pool, "");
    let mut busy = proxy.client(&name, "postgres", "");
    let mut second = proxy.client(&name, "postgres", "");
    let mut third = proxy.client(&name, "postgres", "");
    busy.query("BEGIN").ok();
    let begun = Instant::now();
    second.query("BEGIN").ok();
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(connections(&name, "postgres"), 2);
    let reply = third.query("SELECT 1");
    assert_eq!(reply.sqlstate().as_deref(), Some("53300"), "{reply}");
    second.query("COMMIT").ok();
    // Nobody waits: the one beyond the size is closed.
    until("one connection", || connections(&name, "postgres") == 1);
}

#[test]
fn a_cap_of_the_database_is_shared_by_its_users() {
    let (proxy, name) = started(
        "cap",
        "",
        "connections_max = 1\npool = { wait_timeout = \"3s\" }",
        "",
    );
    let mut postgres = proxy.client(&name, "postgres", "");
    let mut shop = proxy.client(&name, SHOP.0, "");
    // An unused connection of the one is closed for the other.
    for _ in 0..3 {
        assert_eq!(postgres.query("SELECT current_user").lines(), ["postgres"]);
        assert_eq!(shop.query("SELECT current_user").lines(), [SHOP.0]);
    }
    until("one connection", || {
        connections(&name, "postgres") + connections(&name, SHOP.0) == 1
    });
    // One that is used is waited for.
    shop.query("BEGIN").ok();
    postgres.send(&query("SELECT current_user"));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(connections(&name, "postgres"), 0);
    shop.query("COMMIT").ok();
    assert_eq!(postgres.reply().lines(), ["postgres"]);
    // In vain, in the end.
    shop.query("BEGIN").ok();
    let reply = postgres.query("SELECT 1");
    assert_eq!(reply.sqlstate().as_deref(), Some("53300"), "{reply}");
    let detail = reply.of(b'E').next().unwrap().field(b'D').unwrap();
    assert!(
        detail.contains("connections_max in [databases."),
        "{detail}"
    );
}

#[test]
fn who_waits_under_a_shared_cap_is_not_passed_over_for_ever() {
    let (proxy, name) = started(
        "fair",
        "",
        "connections_max = 1\npool = { wait_timeout = \"15s\" }",
        "",
    );
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Two clients of one user always have the next statement ready.
        for _ in 0..2 {
            scope.spawn(|| {
                let mut busy = proxy.client(&name, "postgres", "");
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    busy.query("SELECT pg_sleep(0.01)").ok();
                }
            });
        }
        let mut other = proxy.client(&name, SHOP.0, "");
        for _ in 0..3 {
            let begun = Instant::now();
            assert_eq!(other.query("SELECT current_user").lines(), [SHOP.0]);
            assert!(
                begun.elapsed() < Duration::from_secs(3),
                "{:?}",
                begun.elapsed()
            );
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn caps_of_users_and_hosts_hold_over_all_databases() {
    for (key, proxy, users) in [
        (
            "host_connections_max in [proxy]",
            "host_connections_max = 2",
            "",
        ),
        (
            "connections_max in [users.postgres]",
            "",
            "[users.postgres]\nconnections_max = 2\n",
        ),
    ] {
        let server = &servers().all()[..1];
        let (one, two) = (database(server, "one", ""), database(server, "two", ""));
        let second = format!(
            "[databases.{two}]\n[[databases.{two}.shards]]\nname = \"s0\"\nprimary = \"{}\"\n{users}",
            server[0].dsn(&two)
        );
        let config = Proxy::config(&one, server, &second).replace(
            "[auth]",
            &format!("{proxy}\n\n[pool]\nwait_timeout = \"1s\"\n[auth]"),
        );
        let proxy = Proxy::start(&config);
        let mut clients: Vec<_> = [&one, &two, &one]
            .map(|name| proxy.client(name, "postgres", ""))
            .into();
        clients[0].query("BEGIN").ok();
        clients[1].query("BEGIN").ok();
        let reply = clients[2].query("SELECT 1");
        assert_eq!(reply.sqlstate().as_deref(), Some("53300"), "{reply}");
        let detail = reply.of(b'E').next().unwrap().field(b'D').unwrap();
        assert!(detail.contains(key), "{detail}");
        clients[1].query("COMMIT").ok();
        clients[2].query("SELECT 1").ok();
    }
}

#[test]
fn a_client_that_waits_is_told_so() {
    let pool = "pool = { size = 1, wait_notice = \"50ms\", wait_timeout = \"10s\" }";
    let (proxy, name) = started("notice", "", pool, "");
    let mut busy = proxy.client(&name, "postgres", "");
    let mut waiting = proxy.client(&name, "postgres", "");
    busy.query("BEGIN").ok();
    waiting.send(&query("SELECT 1"));
    let notice = waiting.frame();
    assert_eq!(notice.tag, b'N');
    assert!(notice.field(b'M').unwrap().contains("waiting for a server"));
    busy.query("COMMIT").ok();
    assert_eq!(waiting.reply().lines(), ["1"]);
}

#[test]
fn connections_are_used_in_the_order_that_the_file_says() {
    for (reuse, expected) in [("lifo", 1), ("round-robin", 3)] {
        let pool = format!("pool = {{ size = 3, reuse = \"{reuse}\" }}");
        let (proxy, name) = started("reuse", "", &pool, "");
        let mut clients: Vec<_> = (0..3)
            .map(|_| proxy.client(&name, "postgres", ""))
            .collect();
        for client in &mut clients {
            client.query("BEGIN").ok();
        }
        for client in &mut clients {
            client.query("COMMIT").ok();
        }
        let pids: BTreeSet<_> = (0..9).map(|_| clients[0].server_pid()).collect();
        assert_eq!(pids.len(), expected, "{reuse}: {pids:?}");
    }
}

#[test]
fn what_the_connect_query_sets_is_every_clients_default() {
    let pool = "pool = { size = 1, connect_query = \"SET work_mem = '7MB'; SET search_path = pg_catalog\" }";
    let (proxy, name) = started("connect", "", pool, "");
    let mut ann = proxy.client(&name, "postgres", "");
    let mut bob = proxy.client(&name, "postgres", "");
    assert_eq!(ann.query("SHOW work_mem").lines(), ["7MB"]);
    ann.query("SET work_mem = '9MB'").ok();
    assert_eq!(bob.query("SHOW work_mem").lines(), ["7MB"]);
    assert_eq!(ann.query("SHOW work_mem").lines(), ["9MB"]);
    ann.query("RESET work_mem").ok();
    assert_eq!(ann.query("SHOW work_mem").lines(), ["7MB"]);
    ann.query("DISCARD ALL").ok();
    assert_eq!(ann.query("SHOW work_mem").lines(), ["7MB"]);
    assert_eq!(bob.query("SHOW search_path").lines(), ["pg_catalog"]);
    // What the client itself asks for wins.
    let mut carol = Client::connect(proxy.port);
    carol.login(
        &[
            ("user", "postgres"),
            ("database", &name),
            ("work_mem", "5MB"),
        ],
        "",
    );
    assert_eq!(carol.query("SHOW work_mem").lines(), ["5MB"]);
    assert_eq!(carol.query("SHOW search_path").lines(), ["pg_catalog"]);
}

#[test]
fn a_connect_query_that_fails_is_a_login_that_fails() {
    let pool = "pool = { connect_query = \"SET nonsense_setting = 1\" }";
    let (proxy, name) = started("refused", "", pool, "");
    let mut client = Client::connect(proxy.port);
    let reply = client.try_login(&[("user", "postgres"), ("database", &name)], "");
    assert_eq!(reply.sqlstate().as_deref(), Some("42704"), "{reply}");
}

#[test]
fn a_frozen_server_is_found_out_before_it_is_lent() {
    let servers = servers_with("frozen", 1);
    let server = &servers.all()[..1];
    let name = database(server, "frozen", "");
    let config = Proxy::config(&name, server, "").replace(
        &format!("[databases.{name}]\n"),
        &format!(
            "[databases.{name}]\npool = {{ size = 2, check_after = \"0s\", connect_timeout = \"500ms\" }}\n"
        ),
    );
    let proxy = Proxy::start(&config);
    let mut client = proxy.client(&name, "postgres", "");
    let frozen = client.server_pid();
    signal("STOP", &frozen);
    let other = client.server_pid();
    signal("CONT", &frozen);
    assert_ne!(frozen, other);
}

#[test]
fn always_reset_leaves_nothing_behind() {
    let (proxy, name) = started(
        "always",
        "",
        "pool = { size = 1, reset = \"always\", on_session_state = \"track\" }",
        "",
    );
    let mut client = proxy.client(&name, "postgres", "");
    // Put together from pieces, so that nobody sees it.
    client
        .query("CREATE FUNCTION hidden() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'S' || 'ET work_mem = ''9MB'''; END $$")
        .ok();
    client.query("SELECT hidden()").ok();
    assert_eq!(client.query("SHOW work_mem").lines(), ["4MB"]);
}

#[test]
fn users_have_settings_of_their_own() {
    let users = format!(
        "[users.{}.pool]\nmode = \"session\"\nsize = 1\nwait_timeout = \"500ms\"\n",
        SHOP.0
    );
    let (proxy, name) = started("own", "", "", &users);
    let mut first = proxy.client(&name, SHOP.0, "");
    first.query("SET work_mem = '9MB'").ok();
    let mut second = proxy.client(&name, SHOP.0, "");
    let reply = second.query("SELECT 1");
    assert_eq!(reply.sqlstate().as_deref(), Some("53300"), "{reply}");
    let mut others: Vec<_> = (0..3)
        .map(|_| proxy.client(&name, "postgres", ""))
        .collect();
    for other in &mut others {
        other.query("BEGIN").ok();
    }
}
