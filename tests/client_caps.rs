//! Live: how many clients there may be at once, of a database, of a user and in all.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::sync::Barrier;
use std::thread;

use support::client::Client;
use support::proxy::Proxy;
use support::{database, servers, until};

/// A database `name` and one more of the same server, `<name>_other`, with clients capped as `more` says.
fn capped(name: &str, caps: &str, more: &str) -> (Proxy, String, String) {
    let server = &servers().all()[..1];
    let (name, other) = (
        database(server, name, ""),
        database(server, &format!("{name}_other"), ""),
    );
    let config = Proxy::config(&name, server, "").replace(
        &format!("[databases.{name}]\n"),
        &format!("[databases.{name}]\n{caps}"),
    );
    let more = format!(
        "\n[databases.{other}]\n[[databases.{other}.shards]]\nname = \"s0\"\nprimary = \"{}\"\n{more}",
        server[0].dsn(&other)
    );
    (Proxy::start(&(config + &more)), name, other)
}

/// The client, or what it was told.
fn try_client(proxy: &Proxy, database: &str, user: &str) -> Result<Client, String> {
    let mut client = Client::connect(proxy.port);
    let reply = client.try_login(&[("user", user), ("database", database)], "");
    let Some(error) = reply.of(b'E').next() else {
        return Ok(client);
    };
    let field = |code| error.field(code).unwrap();
    assert!(client.is_closed());
    Err(format!("{} {} {}", field(b'S'), field(b'C'), field(b'M')))
}

fn enters(proxy: &Proxy, database: &str, user: &str) -> Client {
    try_client(proxy, database, user).unwrap_or_else(|told| panic!("{told}"))
}

/// Why it is refused, which a client that has just left may delay.
fn refused(proxy: &Proxy, database: &str, user: &str) -> String {
    match try_client(proxy, database, user) {
        Ok(_) => "it was let in".to_owned(),
        Err(told) => told,
    }
}

#[test]
fn one_client_more_than_a_cap_is_told_which_cap_it_is() {
    let (proxy, name, other) = capped(
        "told",
        "clients_max = 2\n",
        "[users.ann]\nclients_max = 3\n",
    );
    let of_database =
        format!("FATAL 53300 client connections exceeded (databases.{name}.clients_max)");
    let of_user = "FATAL 53300 client connections exceeded (users.ann.clients_max)";
    let mut here = vec![enters(&proxy, &name, "ann"), enters(&proxy, &name, "bob")];
    assert_eq!(refused(&proxy, &name, "bob"), of_database);
    here.push(enters(&proxy, &other, "ann"));
    here.push(enters(&proxy, &other, "ann"));
    assert_eq!(refused(&proxy, &other, "ann"), of_user);
    // Others are not concerned.
    here.push(enters(&proxy, &other, "bob"));
    // Who was refused has no place: when one leaves, exactly one comes in.
    for _ in 0..3 {
        drop(here.remove(0));
        until("a place is free", || {
            try_client(&proxy, &name, "ann").is_ok_and(|client| {
                here.insert(0, client);
                true
            })
        });
        assert_eq!(refused(&proxy, &name, "bob"), of_database);
    }
    for client in &mut here {
        assert_eq!(client.query("SELECT 1").lines(), ["1"]);
    }
}

#[test]
fn the_cap_of_all_clients_counts_over_databases_and_users() {
    let server = &servers().all()[..1];
    let name = database(server, "all", "");
    let config =
        Proxy::config(&name, server, "").replace("workers = 2", "workers = 2\nclients_max = 2");
    let proxy = Proxy::start(&config);
    let _here = [enters(&proxy, &name, "ann"), enters(&proxy, &name, "bob")];
    assert_eq!(
        refused(&proxy, &name, "cid"),
        "FATAL 53300 no more connections allowed (clients_max)"
    );
}

#[test]
fn a_database_made_on_demand_has_the_cap_of_its_section() {
    let server = &servers().all()[..1];
    let names = [database(server, "made", ""), database(server, "made", "")];
    let config = Proxy::config("any", server, "")
        .replace("databases.any", "databases.\"*\"")
        .replace("dbname=any ", "")
        .replace(
            "[databases.\"*\"]\n",
            "[databases.\"*\"]\nclients_max = 1\n",
        );
    let proxy = Proxy::start(&config);
    let _here = names.each_ref().map(|name| enters(&proxy, name, "ann"));
    for name in &names {
        assert_eq!(
            refused(&proxy, name, "bob"),
            "FATAL 53300 client connections exceeded (databases.\"*\".clients_max)"
        );
    }
}

#[test]
fn clients_that_come_at_once_never_get_more_places_than_there_are_nor_fewer() {
    const CAP: usize = 5;
    const CLIENTS: usize = 40;
    let (proxy, name, _) = capped("race", &format!("clients_max = {CAP}\n"), "");
    for _ in 0..5 {
        let (together, all_tried) = (Barrier::new(CLIENTS), Barrier::new(CLIENTS));
        let let_in = thread::scope(|scope| {
            let running: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    scope.spawn(|| {
                        together.wait();
                        let client = try_client(&proxy, &name, "ann");
                        // Nobody leaves before all have tried.
                        all_tried.wait();
                        client.is_ok()
                    })
                })
                .collect();
            let ended = running.into_iter().map(|client| client.join().unwrap());
            ended.filter(|let_in| *let_in).count()
        });
        assert_eq!(let_in, CAP);
        // Until all of them are counted off.
        let clients = format!("pgherd_clients{{database=\"{name}\"}} 0");
        until("all have left", || {
            proxy.page("/metrics").contains(&clients)
        });
    }
}
