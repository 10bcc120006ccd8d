//! Live: several statements in one query string, on three shards.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use support::client::{Client, query, sync};
use support::servers;
use support::shop::{ends, fails, pipeline, refused, shared, start};

#[test]
fn a_string_for_one_shard_is_one_transaction() {
    let shop = start("strings");
    let mut client = shop.client();
    let other = format!(
        "UPDATE customers SET country = NULL WHERE id = {}",
        shop.on[1]
    );
    let reply = client.query(&format!(
        "{};{}; SELECT 5 ; ",
        shop.update(1, "new"),
        shop.select(1)
    ));
    assert_eq!(
        reply.to_string(),
        "C(UPDATE 1) T(name) D(new) C(SELECT 1) T(?column?) D(5) C(SELECT 1) Z(I)"
    );
    // Its error undoes all of it.
    let reply = client.query(&format!(
        "{}; {other}; {}; SELECT 5",
        shop.update(1, "lost"),
        shop.fail(1)
    ));
    assert_eq!(reply.sqlstate().as_deref(), Some("22012"), "{reply}");
    assert_eq!(reply.tags(), ["UPDATE 1", "UPDATE 1"]);
    assert!(ends(&reply, 'I'), "{reply}");
    assert_eq!(shop.name_on(1), "new");
    // With a transaction of its own.
    for (end, name) in [("ROLLBACK", "new"), ("COMMIT", "newer"), ("END ;", "newer")] {
        let reply = client.query(&format!(
            "BEGIN; SAVEPOINT a; {}; ROLLBACK TO a; {}; SET LOCAL work_mem = '1MB'; SHOW work_mem; {end}",
            shop.update(1, "lost"),
            shop.update(1, "newer")
        ));
        assert_eq!(reply.lines(), ["1MB"], "{reply}");
        assert!(ends(&reply, 'I') && reply.sqlstate().is_none(), "{reply}");
        assert_eq!(shop.name_on(1), name);
    }
    let reply = client.query(&format!(
        "BEGIN; {}; {}; COMMIT",
        shop.update(1, "lost"),
        shop.fail(1)
    ));
    fails(&reply, "22012");
    fails(&client.query(&shop.select(2)), "25P02");
    assert_eq!(client.query("COMMIT").to_string(), "C(ROLLBACK) Z(I)");
    assert_eq!(shop.name_on(1), "newer");
    // An end of its own only.
    assert!(ends(
        &client.query(&format!("BEGIN; {}", shop.update(1, "kept"))),
        'T'
    ));
    assert_eq!(client.query(&shop.select(2)).lines(), ["old"]);
    refused(&client.query(&shop.update(2, "lost")), "PGH100");
    client.query("ROLLBACK").ok();
    client.query("BEGIN").ok();
    let reply = client.query(&format!("{}; SELECT 1; COMMIT", shop.update(1, "kept")));
    assert_eq!(reply.tags(), ["UPDATE 1", "SELECT 1", "COMMIT"], "{reply}");
    assert!(ends(&reply, 'I'), "{reply}");
    assert_eq!(shop.name_on(1), "kept");
    shop.all_ends();
    // What comes right behind finds the session where the string has left it.
    let both = |first: &str| [query(first), pipeline(&[&shop.select(2)])].concat();
    client.send(&both(&format!("BEGIN; {}; COMMIT", shop.update(1, "kept"))));
    assert!(ends(&client.reply(), 'I'));
    let reply = client.reply();
    assert_eq!(reply.lines(), ["old"], "{reply}");
    client.send(&both(&format!("BEGIN; {}; COMMIT", shop.fail(1))));
    fails(&client.reply(), "22012");
    fails(&client.reply(), "25P02");
    client.query("ROLLBACK").ok();
    shop.all_ends();
}

#[test]
fn reads_of_several_shards_go_one_after_the_other() {
    let shop = shared();
    let mut client = shop.client();
    let (one, two) = (shop.select(1), shop.select(2));
    let all = format!(
        "SELECT name FROM customers WHERE id IN ({}, {})",
        shop.on[1], shop.on[2]
    );
    let all = if client.query(&all).sqlstate().is_none() {
        all
    } else {
        "SELECT name FROM customers".to_owned()
    };
    let count = client.query(&all).lines().len();
    for begin in [false, true] {
        if begin {
            client.query("BEGIN").ok();
        }
        let status = if begin { 'T' } else { 'I' };
        let reply = client.query(&format!("{one}; {two}; SHOW work_mem; {all}; SELECT 1;"));
        let tags = [
            "SELECT 1",
            "SELECT 1",
            "SHOW",
            &format!("SELECT {count}"),
            "SELECT 1",
        ];
        assert_eq!(reply.tags(), tags, "{reply}");
        assert_eq!(reply.of(b'Z').count(), 1);
        assert_eq!(reply.of(b'T').count(), 5);
        assert_eq!(reply.lines()[..3], ["old", "old", "4MB"]);
        assert!(ends(&reply, status), "{reply}");
        // The first error ends it, and there is one end.
        let reply = client.query(&format!("{one}; {}; {one}", shop.fail(2)));
        assert_eq!(reply.sqlstate().as_deref(), Some("22012"), "{reply}");
        assert_eq!(reply.tags(), ["SELECT 1"], "{reply}");
        assert!(ends(&reply, if begin { 'E' } else { 'I' }), "{reply}");
        if begin {
            client.query("ROLLBACK").ok();
        }
        assert_eq!(client.query(&two).lines(), ["old"]);
    }
    client.send(&[query(&format!("{one}; {two}")), sync(), query("SELECT 3")].concat());
    assert_eq!(client.reply().lines(), ["old", "old"]);
    assert_eq!(client.reply().to_string(), "Z(I)");
    assert_eq!(client.reply().lines(), ["3"]);
    shop.all_ends();
}

#[test]
fn strings_that_could_be_half_done_are_refused() {
    let shop = start("halves");
    let mut client = shop.client();
    let (read, write) = (shop.select(2), shop.update(1, "lost"));
    let elsewhere = shop.update(2, "lost");
    for text in [
        format!("{write}; {elsewhere}"),
        format!("{write}; {read}"),
        format!("{read}; {write}"),
        format!("{write}; SELECT id FROM customers"),
        format!("BEGIN; {write}; {elsewhere}; COMMIT"),
        format!("BEGIN; {write}; {read}; COMMIT"),
        format!("BEGIN; {write}; COMMIT; {elsewhere}"),
        format!("{write}; COMMIT"),
        format!("COMMIT; {write}"),
        format!("{write}; BEGIN"),
        format!("SAVEPOINT a; {write}"),
        format!("BEGIN; {write}; SET LOCAL search_path = x; COMMIT"),
        format!("BEGIN; {write}; DEALLOCATE ALL; COMMIT"),
        format!("BEGIN; {write}; COMMIT AND CHAIN"),
        format!("{write}; DISCARD ALL"),
    ] {
        let reply = client.query(&text);
        refused(&reply, "PGH102");
        assert!(ends(&reply, 'I'), "{text}: {reply}");
        assert_eq!(
            [1, 2].map(|shard| shop.name_on(shard)),
            ["old", "old"],
            "{text}"
        );
    }
    // A part that is refused refuses the whole.
    refused(&client.query(&format!("{write}; LISTEN x")), "PGH104");
    for text in [format!("{read}; COMMIT"), format!("BEGIN; {write}")] {
        client.query("BEGIN").ok();
        client.query(&write).ok();
        let reply = client.query(&text);
        refused(&reply, "PGH102");
        assert!(ends(&reply, 'E'), "{text}: {reply}");
        client.query("ROLLBACK").ok();
    }
    client.query("BEGIN").ok();
    client.query(&read).ok();
    client.query(&write).ok();
    refused(&client.query(&format!("{write}; COMMIT")), "PGH102");
    client.query("ROLLBACK").ok();
    // Inside of a transaction the writes are held together, by the number for them.
    client.query("BEGIN").ok();
    let reply = client.query(&format!("{write}; {elsewhere}"));
    refused(&reply, "PGH100");
    client.query("ROLLBACK").ok();
    assert_eq!([1, 2].map(|shard| shop.name_on(shard)), ["old", "old"]);
    shop.all_ends();
}

#[test]
fn a_string_whose_server_is_lost_is_answered_once() {
    let shop = start("lost");
    let mut locker = Client::connect(servers().all()[2].port());
    locker.login(&[("user", "postgres"), ("database", &shop.name)], "");
    locker.query("BEGIN; LOCK TABLE customers").ok();
    let mut client = shop.client();
    client.send(&query(&format!(
        "{}; {}; {}",
        shop.select(1),
        shop.select(2),
        shop.select(1)
    )));
    let waiting =
        "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    support::until("it waits", || {
        shop.ask(2, &format!("SELECT count(*) {waiting}")) == "1"
    });
    shop.ask(
        2,
        &format!("SELECT pg_terminate_backend(pid, 5000) {waiting}"),
    );
    let reply = client.reply();
    assert_eq!(reply.sqlstate().as_deref(), Some("08006"), "{reply}");
    assert_eq!(reply.tags(), ["SELECT 1"], "{reply}");
    assert_eq!(reply.of(b'E').count(), 1, "{reply}");
    assert!(ends(&reply, 'I'), "{reply}");
    locker.query("ROLLBACK").ok();
    assert_eq!(client.query(&shop.select(2)).lines(), ["old"]);
}
