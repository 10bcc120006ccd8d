//! Live: what is in the middle of a transaction or a pipeline on three shards when something fails or a server is lost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use support::client::{bind, execute, parse, query, sync};
use support::shop::{Shop, fails, refused, shared, start, step};
use support::until;

/// Ends the server processes that are asleep on this shard.
fn kill_sleeper(shop: &Shop, shard: usize) {
    until("somebody sleeps", || {
        shop.ask(
            shard,
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE datname = current_database() \
             AND wait_event = 'PgSleep'",
        ) != "0"
    });
}

fn sleep(shop: &Shop, shard: usize) -> String {
    format!(
        "SELECT pg_sleep(60) FROM customers WHERE id = {}",
        shop.on[shard]
    )
}

#[test]
fn a_statement_that_a_failed_transaction_refuses_has_written_nothing() {
    let shop = start("refused_writes");
    let mut client = shop.client();
    let insert = "UPDATE customers SET name = $2 WHERE id = $1";
    client.send(&[parse("s", insert, &[]), sync()].concat());
    client.reply().ok();
    let (first, second) = (shop.on[0].to_string(), shop.on[1].to_string());
    let write = |id: &str| {
        let values = [Some(id.as_bytes()), Some(&b"new"[..])];
        [bind("", "s", &values), execute("", 0), sync()].concat()
    };
    client.query("BEGIN").ok();
    client.send(&write(&first));
    client.reply().ok();
    client.query("SAVEPOINT s").ok();
    fails(&client.query(&shop.fail(1)), "22012");
    client.send(&write(&second));
    fails(&client.reply(), "25P02");
    client.query("ROLLBACK TO s").ok();
    // The writer is still the first shard.
    client.send(&write(&second));
    refused(&client.reply(), "PGH100");
    client.query("ROLLBACK").ok();
    assert_eq!(
        (shop.name_on(0).as_str(), shop.name_on(1).as_str()),
        ("old", "old")
    );
    shop.all_ends();
}

#[test]
fn a_second_begin_sets_its_modes() {
    let shop = shared();
    let mut client = shop.client();
    client.query("BEGIN").ok();
    client.query("START TRANSACTION READ ONLY").ok();
    fails(&client.query(&shop.update(1, "never")), "25006");
    client.query("ROLLBACK").ok();
    client.query("BEGIN").ok();
    client.query("BEGIN ISOLATION LEVEL SERIALIZABLE").ok();
    client.query(&shop.select(1)).ok();
    refused(&client.query(&shop.select(2)), "PGH125");
    client.query("ROLLBACK").ok();
}

#[test]
fn a_query_behind_one_whose_server_is_lost_has_its_own_answer() {
    let shop = start("lost_earlier");
    let mut client = shop.client();
    let mut both = query(&sleep(&shop, 1));
    both.extend(query("SELECT 5"));
    client.send(&both);
    kill_sleeper(&shop, 1);
    let reply = client.reply();
    assert_eq!(reply.sqlstate().as_deref(), Some("08006"), "{reply}");
    assert_eq!(client.reply().lines(), ["5"]);
    // In a transaction, which is lost with it.
    for next in [1, 2] {
        client.query("BEGIN").ok();
        let mut both = query(&sleep(&shop, 1));
        both.extend(query(&shop.select(next)));
        client.send(&both);
        kill_sleeper(&shop, 1);
        fails(&client.reply(), "08006");
        fails(&client.reply(), "25P02");
        assert_eq!(client.query("ROLLBACK").tags(), ["ROLLBACK"]);
    }
    shop.all_ends();
}

#[test]
fn a_loss_in_the_middle_of_a_pipeline_is_told() {
    let shop = start("lost_within");
    for last in ["COMMIT".to_owned(), shop.select(2)] {
        let mut client = shop.client();
        client.query("BEGIN").ok();
        client.query(&shop.select(1)).ok();
        client.query(&shop.select(2)).ok();
        let sleeps = step(&sleep(&shop, 1));
        client.send(&[sleeps, step(&last), sync()].concat());
        kill_sleeper(&shop, 1);
        let reply = client.reply();
        fails(&reply, "08006");
        client.query("ROLLBACK").ok();
        assert_eq!(client.query("SELECT 7").lines(), ["7"]);
        shop.all_ends();
    }
}

#[test]
fn the_step_that_failed_is_not_taken_for_the_one_that_succeeded() {
    let shop = shared();
    let mut client = shop.client();
    client.query("BEGIN").ok();
    client.query(&shop.select(1)).ok();
    client.query("SAVEPOINT s").ok();
    client.query("SET LOCAL timezone = 'Asia/Tokyo'").ok();
    client.send(
        &[
            step("RELEASE nosuch"),
            sync(),
            step("ROLLBACK TO s"),
            sync(),
        ]
        .concat(),
    );
    fails(&client.reply(), "3B001");
    client.reply().ok();
    let zone = |shard: usize| {
        format!(
            "SELECT current_setting('timezone') FROM customers WHERE id = {}",
            shop.on[shard]
        )
    };
    let before = client.query(&zone(1)).lines();
    assert_eq!(client.query(&zone(2)).lines(), before);
    client.query("ROLLBACK").ok();
}
