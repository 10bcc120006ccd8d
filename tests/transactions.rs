//! Live: transactions on three shards. Shards that are only read join, one is written, and all of them end together.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use support::client::{
    Client, bind, cancel_request, close, describe, execute, flush, parse, query, sync,
};
use support::servers;
use support::shop::{Shop, ends, fails, pipeline, refused, say, shared, start, start_with, step};
use support::until;

#[test]
fn shards_that_are_only_read_join_and_end_with_the_one_that_is_written() {
    let shop = start("joins");
    for (extended, name) in [(false, "simple"), (true, "extended")] {
        let mut client = shop.client();
        let mut do_it = |text: &str| say(&mut client, extended, text).ok();
        do_it("BEGIN");
        do_it(&shop.update(1, name));
        assert_eq!(do_it(&shop.select(2)).lines(), ["old"]);
        assert_eq!(shop.open(), [0, 1, 1]);
        assert_eq!(do_it(&shop.select(1)).lines(), [name]);
        // All shards, with what this transaction has written.
        let all = do_it(&format!("SELECT id FROM customers WHERE name = '{name}'"));
        assert_eq!(all.lines(), [shop.on[1].to_string()]);
        assert_eq!(all.tags(), ["SELECT 1"]);
        assert!(ends(&all, 'T'), "{all}");
        assert_eq!(shop.open(), [1, 1, 1]);
        assert_eq!(do_it("SELECT 7").lines(), ["7"]);
        assert_eq!(
            do_it("SELECT count(*) FROM pg_class WHERE relname = 'customers'").lines(),
            ["1"]
        );
        // Where it goes back to, it writes again.
        do_it(&shop.select(0));
        do_it(&format!(
            "UPDATE customers SET country = NULL WHERE id = {}",
            shop.on[1]
        ));
        do_it(&shop.select(2));
        assert_eq!(shop.name_on(1), if extended { "simple" } else { "old" });
        let end = do_it("COMMIT");
        assert_eq!(end.tags(), ["COMMIT"]);
        assert!(ends(&end, 'I'), "{end}");
        assert_eq!(shop.name_on(1), name);
        shop.all_ends();
        // Nothing is left of it in the session.
        assert_eq!(do_it(&shop.select(2)).lines(), ["old"]);
        do_it("BEGIN");
        do_it(&shop.update(2, "undone"));
        do_it(&shop.select(1));
        let end = do_it("ROLLBACK");
        assert_eq!(end.tags(), ["ROLLBACK"]);
        assert!(ends(&end, 'I'), "{end}");
        assert_eq!(shop.name_on(2), "old");
        shop.all_ends();
    }
}

#[test]
fn a_scatter_may_begin_a_transaction() {
    let shop = start("scatters");
    for extended in [false, true] {
        let mut client = shop.client();
        let mut do_it = |text: &str| say(&mut client, extended, text).ok();
        do_it("BEGIN");
        let all = do_it("SELECT id FROM customers");
        assert_eq!(all.lines().len(), 30);
        assert!(ends(&all, 'T'), "{all}");
        assert_eq!(shop.open(), [1, 1, 1]);
        do_it(&shop.update(2, "new"));
        assert_eq!(
            do_it("SELECT id FROM customers WHERE name = 'new'")
                .lines()
                .len(),
            1
        );
        do_it("COMMIT");
        assert_eq!(shop.name_on(2), "new");
        shop.all_ends();
        shop.ask(2, "UPDATE customers SET name = 'old'");
    }
}

#[test]
fn a_second_shard_is_not_written() {
    let shop = start("writes");
    for extended in [false, true] {
        let mut client = shop.client();
        let mut do_it = |text: &str| say(&mut client, extended, text);
        do_it("BEGIN").ok();
        do_it(&shop.update(1, "lost")).ok();
        do_it(&shop.select(2)).ok();
        let reply = do_it(&shop.update(2, "lost"));
        refused(&reply, "PGH100");
        assert!(ends(&reply, 'E'), "{reply}");
        // On whichever shard.
        for shard in 0..3 {
            fails(&do_it(&shop.select(shard)), "25P02");
        }
        fails(&do_it("SELECT id FROM customers"), "25P02");
        let end = do_it("COMMIT");
        assert_eq!(end.tags(), ["ROLLBACK"]);
        assert!(ends(&end, 'I'), "{end}");
        assert_eq!([1, 2].map(|shard| shop.name_on(shard)), ["old", "old"]);
        shop.all_ends();
        // A lock is no read.
        do_it("BEGIN").ok();
        do_it(&format!("{} FOR UPDATE", shop.select(1))).ok();
        refused(&do_it(&shop.update(2, "lost")), "PGH100");
        do_it("ROLLBACK").ok();
        // Going back to a savepoint makes it whole again.
        do_it("BEGIN").ok();
        do_it(&shop.update(1, "kept")).ok();
        do_it("SAVEPOINT a").ok();
        refused(&do_it(&shop.update(2, "lost")), "PGH100");
        let back = do_it("ROLLBACK TO a");
        assert!(ends(&back, 'T') && back.tags() == ["ROLLBACK"], "{back}");
        assert_eq!(do_it(&shop.select(2)).lines(), ["old"]);
        do_it("COMMIT").ok();
        assert_eq!([1, 2].map(|shard| shop.name_on(shard)), ["kept", "old"]);
        shop.ask(1, "UPDATE customers SET name = 'old'");
    }
}

#[test]
fn a_shard_that_joins_is_told_what_was_done_before() {
    let shop = shared();
    for extended in [false, true] {
        let mut client = shop.client();
        let mut do_it = |text: &str| say(&mut client, extended, text);
        do_it("BEGIN READ ONLY").ok();
        do_it(&shop.select(1)).ok();
        fails(&do_it(&shop.update(2, "x")), "25006");
        do_it("ROLLBACK").ok();
        do_it("BEGIN").ok();
        do_it("SET TRANSACTION READ ONLY").ok();
        do_it(&shop.select(1)).ok();
        do_it(&shop.select(2)).ok();
        fails(&do_it(&shop.update(2, "x")), "25006");
        do_it("ROLLBACK").ok();
        // Told later, all are told.
        do_it("BEGIN").ok();
        do_it(&shop.select(1)).ok();
        do_it(&shop.select(2)).ok();
        do_it("SET TRANSACTION READ ONLY").ok();
        fails(&do_it(&shop.update(1, "x")), "25006");
        do_it("ROLLBACK").ok();
        // SHOW asks the shard of the statement before.
        do_it("BEGIN").ok();
        do_it(&shop.select(1)).ok();
        do_it("SAVEPOINT a").ok();
        do_it("SET LOCAL work_mem = '77MB'").ok();
        do_it("SET LOCAL DateStyle = 'German'").ok();
        for shard in [2, 0, 1] {
            do_it(&shop.select(shard)).ok();
            assert_eq!(do_it("SHOW work_mem").lines(), ["77MB"], "shard {shard}");
        }
        do_it("SAVEPOINT b").ok();
        do_it("SET LOCAL work_mem = '88MB'").ok();
        for shard in [2, 0, 1] {
            do_it(&shop.select(shard)).ok();
            assert_eq!(do_it("SHOW work_mem").lines(), ["88MB"], "shard {shard}");
        }
        do_it("ROLLBACK TO b").ok();
        do_it("RELEASE b").ok();
        for shard in [2, 0, 1] {
            do_it(&shop.select(shard)).ok();
            assert_eq!(do_it("SHOW work_mem").lines(), ["77MB"], "shard {shard}");
        }
        do_it("ROLLBACK TO a").ok();
        for shard in [2, 0, 1] {
            do_it(&shop.select(shard)).ok();
            assert_eq!(do_it("SHOW work_mem").lines(), ["4MB"], "shard {shard}");
        }
        do_it("COMMIT").ok();
        shop.all_ends();
    }
}

#[test]
fn savepoints_hold_on_all_shards() {
    let shop = start("savepoints");
    for extended in [false, true] {
        let mut client = shop.client();
        let mut do_it = |text: &str| say(&mut client, extended, text);
        do_it("BEGIN").ok();
        do_it("SAVEPOINT first").ok();
        do_it(&shop.update(1, "one")).ok();
        do_it("SAVEPOINT \"Se\"\"cond\"").ok();
        do_it(&shop.update(1, "two")).ok();
        // Joins in the middle, with both of them.
        do_it(&shop.select(2)).ok();
        fails(&do_it(&shop.fail(2)), "22012");
        fails(&do_it(&shop.select(1)), "25P02");
        fails(&do_it("SAVEPOINT third"), "25P02");
        fails(&do_it("ROLLBACK TO nobody"), "3B001");
        let back = do_it("ROLLBACK TO \"Se\"\"cond\"");
        assert!(ends(&back, 'T') && back.tags() == ["ROLLBACK"], "{back}");
        assert_eq!(do_it(&shop.select(1)).lines(), ["one"]);
        assert_eq!(do_it(&shop.select(2)).lines(), ["old"]);
        // The one that failed in vain is nowhere.
        fails(&do_it("RELEASE third"), "3B001");
        do_it("ROLLBACK TO first").ok();
        assert_eq!(do_it(&shop.select(1)).lines(), ["old"]);
        do_it(&shop.update(1, "three")).ok();
        // An error of one shard among all.
        do_it("SAVEPOINT every").ok();
        let among_all = format!("SELECT 1 / (id - {}) FROM customers", shop.on[1]);
        fails(&do_it(&among_all), "22012");
        fails(&do_it(&shop.select(0)), "25P02");
        do_it("ROLLBACK TO every").ok();
        for (shard, name) in ["old", "three", "old"].into_iter().enumerate() {
            assert_eq!(do_it(&shop.select(shard)).lines(), [name]);
        }
        do_it("RELEASE first").ok();
        fails(&do_it("ROLLBACK TO every"), "3B001");
        let end = do_it("COMMIT");
        assert_eq!(end.tags(), ["ROLLBACK"], "{end}");
        assert_eq!(shop.name_on(1), "old");
        shop.all_ends();
        // And what is left of it is committed.
        do_it("BEGIN").ok();
        do_it(&shop.select(2)).ok();
        do_it("SAVEPOINT a").ok();
        do_it(&shop.update(1, "lost")).ok();
        do_it("ROLLBACK TO a").ok();
        do_it(&shop.update(1, "kept")).ok();
        do_it("RELEASE a").ok();
        do_it(&shop.select(0)).ok();
        do_it("COMMIT").ok();
        assert_eq!(shop.name_on(1), "kept");
        shop.ask(1, "UPDATE customers SET name = 'old'");
        shop.all_ends();
    }
}

#[test]
fn an_error_on_any_shard_fails_the_whole_transaction() {
    let shop = start("errors");
    for extended in [false, true] {
        let mut client = shop.client();
        let mut do_it = |text: &str| say(&mut client, extended, text);
        for failing in [0, 1, 2] {
            do_it("BEGIN").ok();
            do_it(&shop.update(1, "lost")).ok();
            do_it("SELECT id FROM customers").ok();
            do_it(&shop.select(2)).ok();
            fails(&do_it(&shop.fail(failing)), "22012");
            fails(&do_it(&shop.select(1)), "25P02");
            fails(&do_it(&shop.select(2)), "25P02");
            let end = do_it(if failing == 0 { "END" } else { "COMMIT" });
            assert_eq!(end.tags(), ["ROLLBACK"], "{end}");
            assert!(ends(&end, 'I'), "{end}");
            assert_eq!(shop.name_on(1), "old");
            assert_eq!(do_it(&shop.select(1)).lines(), ["old"]);
            shop.all_ends();
        }
    }
}

#[test]
fn a_commit_that_the_writer_refuses_leaves_nothing() {
    let shop = start("deferred");
    for extended in [false, true] {
        let mut client = shop.client();
        let mut do_it = |text: &str| say(&mut client, extended, text);
        // No such customer: found out at the end only.
        let id = (1_000..1_100)
            .find(|id| {
                let text = format!("SELECT id FROM customers WHERE id = {id}");
                let plan = do_it(&format!(
                    "INSERT INTO customers (id, name) VALUES ({id}, 'x')"
                ));
                plan.ok();
                let there = shop.ask(1, &text) == id.to_string();
                do_it(&format!("DELETE FROM customers WHERE id = {id}")).ok();
                there
            })
            .unwrap();
        for chain in ["", " AND CHAIN"] {
            do_it("BEGIN").ok();
            do_it(&shop.update(1, "lost")).ok();
            do_it(&format!(
                "INSERT INTO orders VALUES ({id}, 1, '2024-01-01', 'new')"
            ))
            .ok();
            do_it(&shop.select(2)).ok();
            let end = do_it(&format!("COMMIT{chain}"));
            assert_eq!(end.sqlstate().as_deref(), Some("23503"), "{end}");
            assert!(ends(&end, 'I'), "{end}");
            assert_eq!(shop.name_on(1), "old");
            assert_eq!(shop.ask(1, "SELECT count(*) FROM orders"), "0");
            shop.all_ends();
            assert_eq!(do_it(&shop.select(2)).lines(), ["old"]);
        }
        // The same with SET CONSTRAINTS, on all of them, in the middle.
        do_it("BEGIN").ok();
        do_it(&format!(
            "INSERT INTO orders VALUES ({id}, 1, '2024-01-01', 'new')"
        ))
        .ok();
        do_it(&shop.select(2)).ok();
        fails(&do_it("SET CONSTRAINTS ALL IMMEDIATE"), "23503");
        do_it("ROLLBACK");
        shop.all_ends();
    }
}

#[test]
fn and_chain_begins_the_same_transaction_again() {
    let shop = start("chains");
    for extended in [false, true] {
        let mut client = shop.client();
        let mut do_it = |text: &str| say(&mut client, extended, text);
        do_it("BEGIN").ok();
        do_it("SAVEPOINT a").ok();
        do_it(&shop.update(1, "kept")).ok();
        do_it("SET LOCAL work_mem = '77MB'").ok();
        do_it(&shop.select(2)).ok();
        let end = do_it("COMMIT AND CHAIN");
        assert!(ends(&end, 'T') && end.tags() == ["COMMIT"], "{end}");
        assert_eq!(shop.name_on(1), "kept");
        // Another shard may be written now, and what belonged to the first transaction is gone.
        do_it(&shop.update(2, "kept too")).ok();
        assert_eq!(do_it("SHOW work_mem").lines(), ["4MB"]);
        do_it(&shop.select(1)).ok();
        assert_eq!(do_it("SHOW work_mem").lines(), ["4MB"]);
        fails(&do_it("ROLLBACK TO a"), "3B001");
        let end = do_it("ROLLBACK AND CHAIN");
        assert!(ends(&end, 'T') && end.tags() == ["ROLLBACK"], "{end}");
        do_it(&shop.update(0, "lost")).ok();
        do_it(&shop.select(2)).ok();
        do_it("ROLLBACK").ok();
        assert_eq!(
            [0, 1, 2].map(|shard| shop.name_on(shard)),
            ["old", "kept", "old"]
        );
        shop.ask(1, "UPDATE customers SET name = 'old'");
        shop.all_ends();
    }
}

#[test]
fn a_transaction_with_a_snapshot_stays_on_one_shard() {
    let shop = shared();
    for extended in [false, true] {
        for level in ["REPEATABLE READ", "SERIALIZABLE"] {
            for how in [0, 1, 2] {
                let mut client = match how {
                    2 => {
                        let mut client = Client::connect(shop.proxy.port);
                        let level = level.to_lowercase();
                        let parameters = [
                            ("user", "postgres"),
                            ("database", &shop.name),
                            ("default_transaction_isolation", &level),
                        ];
                        client.login(&parameters, "");
                        client
                    }
                    _ => shop.client(),
                };
                let begin = |client: &mut Client| match how {
                    0 => {
                        let text = format!("BEGIN ISOLATION LEVEL {level}");
                        say(client, extended, &text).ok();
                    }
                    1 => {
                        say(client, extended, "BEGIN").ok();
                        let text = format!("SET TRANSACTION ISOLATION LEVEL {level}");
                        say(client, extended, &text).ok();
                    }
                    _ => {
                        say(client, extended, "BEGIN").ok();
                    }
                };
                for (first, second, number) in [
                    (1, shop.select(2), "PGH125"),
                    (1, "SELECT id FROM customers".to_owned(), "PGH101"),
                    (1, "SELECT count(*) FROM pg_class".to_owned(), "PGH115"),
                    (0, shop.select(2), "PGH125"),
                ] {
                    begin(&mut client);
                    say(&mut client, extended, &shop.select(first)).ok();
                    say(&mut client, extended, &shop.select(first)).ok();
                    let reply = say(&mut client, extended, &second);
                    refused(&reply, number);
                    assert!(ends(&reply, 'E'), "{reply}");
                    say(&mut client, extended, "ROLLBACK").ok();
                }
                begin(&mut client);
                refused(
                    &say(&mut client, extended, "SELECT id FROM customers"),
                    "PGH101",
                );
                say(&mut client, extended, "ROLLBACK").ok();
            }
        }
    }
    shop.all_ends();
}

#[test]
fn a_client_that_leaves_leaves_no_transaction_on_any_shard() {
    let shop = start("leaves");
    for stuck in [false, true] {
        let mut locker = Client::connect(servers().all()[2].port());
        locker.login(&[("user", "postgres"), ("database", &shop.name)], "");
        let mut client = shop.client();
        client.query("BEGIN").ok();
        client.query(&shop.update(1, "lost")).ok();
        client.query("SELECT id FROM customers").ok();
        client.query(&shop.select(0)).ok();
        assert_eq!(shop.open(), [1, 1, 1]);
        if stuck {
            locker.query("BEGIN; LOCK TABLE countries").ok();
            client.send(&query(
                "SELECT id FROM customers, countries WHERE code = 'CZ'",
            ));
            until("it waits", || shop.waiting(2) == "1");
        }
        drop(client);
        until("all are rolled back", || {
            shop.open() == [0, 0, u32::from(stuck)]
        });
        assert_eq!(shop.name_on(1), "old");
        locker.query("ROLLBACK");
        shop.all_ends();
    }
}

/// Ends the server processes of the proxy that are in a transaction on this shard.
fn kill(shop: &Shop, shard: usize) {
    let killed = shop.ask(
        shard,
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE datname = current_database() \
         AND state = 'idle in transaction'",
    );
    assert_eq!(killed, "1");
}

#[test]
fn the_loss_of_any_server_fails_the_whole_transaction() {
    let shop = start("losses");
    for extended in [false, true] {
        let mut client = shop.client();
        let mut do_it = |text: &str| say(&mut client, extended, text);
        let all = "SELECT id FROM customers";
        // The one that is read and the one that was written, at hand and beside it.
        for (killed, next) in [
            (2, shop.select(2)),
            (2, all.to_owned()),
            (2, "SAVEPOINT b".to_owned()),
            (2, "ROLLBACK TO a".to_owned()),
            (1, shop.select(1)),
            (1, all.to_owned()),
            (1, "SET LOCAL work_mem = '1MB'".to_owned()),
            (1, "COMMIT".to_owned()),
        ] {
            for at_hand in [1, 2] {
                do_it("BEGIN").ok();
                do_it("SAVEPOINT a").ok();
                do_it(&shop.update(1, "lost")).ok();
                do_it(&shop.select(2)).ok();
                do_it(&shop.select(at_hand)).ok();
                kill(&shop, killed);
                let reply = do_it(&next);
                assert_eq!(
                    reply.sqlstate().as_deref(),
                    Some("08006"),
                    "{killed} {next} {at_hand}: {reply}"
                );
                assert_eq!(reply.of(b'E').count(), 1, "{reply}");
                if next == "COMMIT" {
                    // That was the end of it, told by whoever noticed first.
                    do_it("ROLLBACK").ok();
                    until("nothing is left", || shop.open() == [0, 0, 0]);
                    assert_eq!(shop.name_on(1), "old");
                    continue;
                }
                assert!(ends(&reply, 'E'), "{reply}");
                fails(&do_it("ROLLBACK TO a"), "25P02");
                fails(&do_it(&shop.select(1)), "25P02");
                until("nothing is left", || shop.open() == [0, 0, 0]);
                let end = do_it("COMMIT");
                assert_eq!(end.tags(), ["ROLLBACK"], "{end}");
                assert!(ends(&end, 'I'), "{end}");
                assert_eq!(shop.name_on(1), "old");
            }
        }
        // What was only read is not needed for the end.
        do_it("BEGIN").ok();
        do_it(&shop.update(1, "kept")).ok();
        do_it(&shop.select(2)).ok();
        do_it(&shop.select(1)).ok();
        kill(&shop, 2);
        let end = do_it("COMMIT");
        assert_eq!(end.tags(), ["COMMIT"], "{end}");
        assert_eq!(shop.name_on(1), "kept");
        shop.ask(1, "UPDATE customers SET name = 'old'");
        assert_eq!(do_it(&shop.select(2)).lines(), ["old"]);
    }
}

#[test]
fn a_pipeline_inside_a_transaction_goes_from_shard_to_shard() {
    let shop = start("pipelines");
    let mut client = shop.client();
    let (one, two, zero) = (shop.select(1), shop.select(2), shop.select(0));
    let write = shop.update(1, "piped");
    // All in one, and begun before.
    for begun in [false, true] {
        let mut texts = vec![
            "BEGIN",
            &write,
            &two,
            &one,
            "SAVEPOINT a",
            &zero,
            "SELECT id FROM customers",
            "COMMIT",
        ];
        if begun {
            client.query("BEGIN").ok();
            texts.remove(0);
        }
        client.send(&pipeline(&texts));
        let reply = client.reply();
        let mut expected = vec![
            "BEGIN",
            "UPDATE 1",
            "SELECT 1",
            "SELECT 1",
            "SAVEPOINT",
            "SELECT 1",
            "SELECT 30",
            "COMMIT",
        ];
        if begun {
            expected.remove(0);
        }
        assert_eq!(reply.tags(), expected, "{reply}");
        assert_eq!(reply.lines()[..3], ["old", "piped", "old"], "{reply}");
        assert!(ends(&reply, 'I'), "{reply}");
        assert_eq!(shop.name_on(1), "piped");
        shop.ask(1, "UPDATE customers SET name = 'old'");
        shop.all_ends();
    }
    // What follows an error is ignored, whichever shard it is for, and the transaction has failed.
    let fail = shop.fail(2);
    client.query("BEGIN").ok();
    client.query("SAVEPOINT a").ok();
    client.send(
        &[
            pipeline(&[&write, &two, &fail, &one, "COMMIT"]),
            pipeline(&[&zero]),
        ]
        .concat(),
    );
    let reply = client.reply();
    fails(&reply, "22012");
    assert_eq!(reply.tags(), ["UPDATE 1", "SELECT 1"], "{reply}");
    fails(&client.reply(), "25P02");
    // The error comes before the other shard's turn, and is known only then.
    client.query("ROLLBACK TO a").ok();
    client.send(&[pipeline(&[&fail]), pipeline(&[&one, &two])].concat());
    fails(&client.reply(), "22012");
    fails(&client.reply(), "25P02");
    client.query("ROLLBACK TO a").ok();
    client.send(&pipeline(&[&fail, &one, "ROLLBACK TO a"]));
    fails(&client.reply(), "22012");
    // All are revived, and a savepoint that was skipped is on none of them.
    client.send(&pipeline(&[
        "ROLLBACK TO a",
        "SAVEPOINT b",
        &one,
        &fail,
        "SAVEPOINT c",
    ]));
    fails(&client.reply(), "22012");
    client.send(&pipeline(&[
        "ROLLBACK TO b",
        &one,
        &two,
        &zero,
        "ROLLBACK TO c",
    ]));
    let reply = client.reply();
    assert_eq!(
        reply.tags(),
        ["ROLLBACK", "SELECT 1", "SELECT 1", "SELECT 1"],
        "{reply}"
    );
    fails(&reply, "3B001");
    // Answered and not synced, it is revived as well.
    client.send(&[step("ROLLBACK TO b"), flush()].concat());
    client.until(b'C');
    client.send(&pipeline(&[&two, &one]));
    assert_eq!(client.reply().lines(), ["old", "old"]);
    let end = client.query("COMMIT");
    assert_eq!(end.tags(), ["COMMIT"], "{end}");
    assert_eq!(shop.name_on(1), "old");
    shop.all_ends();
    // Also while it is on one shard.
    client.query("BEGIN").ok();
    client.query("SAVEPOINT a").ok();
    fails(&client.query(&shop.fail(1)), "22012");
    client.send(&[step("ROLLBACK TO a"), flush()].concat());
    client.until(b'C');
    client.send(&pipeline(&[&two]));
    assert_eq!(client.reply().lines(), ["old"]);
    client.query("ROLLBACK").ok();
}

#[test]
fn portals_stay_on_their_shards() {
    let shop = shared();
    let mut client = shop.client();
    let rows = |shard: usize| {
        let id = shop.on[shard];
        format!("SELECT generate_series(1, 5) + id * 100 FROM customers WHERE id = {id}")
    };
    let expected = |shard: usize, from: i64| -> Vec<String> {
        let ids = from..from + 2;
        ids.map(|n| (n + shop.on[shard] * 100).to_string())
            .collect()
    };
    client.query("BEGIN").ok();
    for (portal, shard) in [("p", 1), ("q", 2)] {
        client.send(
            &[
                parse("", &rows(shard), &[]),
                bind(portal, "", &[]),
                execute(portal, 2),
                sync(),
            ]
            .concat(),
        );
        assert_eq!(client.reply().lines(), expected(shard, 1));
    }
    for (portal, shard) in [("p", 1), ("q", 2)] {
        client.send(&[describe(b'P', portal), execute(portal, 2), sync()].concat());
        let reply = client.reply();
        assert_eq!(reply.lines(), expected(shard, 3), "{reply}");
        assert_eq!(reply.of(b'T').count(), 1, "{reply}");
    }
    // A name is a portal's on whichever shard.
    client.query("SAVEPOINT a").ok();
    client.send(&[parse("", &rows(1), &[]), bind("q", "", &[]), sync()].concat());
    fails(&client.reply(), "42P03");
    client.query("ROLLBACK TO a").ok();
    // Closed, it is free again.
    client.send(
        &[
            close(b'P', "p"),
            close(b'P', "q"),
            parse("", &rows(1), &[]),
            bind("q", "", &[]),
            execute("q", 2),
            sync(),
        ]
        .concat(),
    );
    let reply = client.reply();
    assert_eq!(
        reply.to_string().matches('3').count(),
        2 + reply.lines().concat().matches('3').count(),
        "{reply}"
    );
    assert_eq!(reply.lines(), expected(1, 1), "{reply}");
    // Really, on its server too.
    client.send(
        &[
            parse("", &rows(2), &[]),
            bind("p", "", &[]),
            execute("p", 2),
            sync(),
        ]
        .concat(),
    );
    assert_eq!(client.reply().lines(), expected(2, 1));
    client.query("COMMIT").ok();
    client.send(&[execute("p", 0), sync()].concat());
    assert_eq!(client.reply().sqlstate().as_deref(), Some("34000"));
    shop.all_ends();
}

#[test]
fn a_cancel_request_reaches_the_shard_at_work() {
    let shop = start("cancels");
    for all in [false, true] {
        let mut locker = Client::connect(servers().all()[2].port());
        locker.login(&[("user", "postgres"), ("database", &shop.name)], "");
        locker.query("BEGIN; LOCK TABLE countries").ok();
        let mut client = shop.client();
        client.query("BEGIN").ok();
        client.query(&shop.update(1, "kept")).ok();
        client.query("SAVEPOINT a").ok();
        let text = if all {
            "SELECT id FROM customers, countries WHERE code = 'CZ'".to_owned()
        } else {
            format!(
                "SELECT id FROM customers, countries WHERE id = {}",
                shop.on[2]
            )
        };
        client.send(&query(&text));
        until("it waits", || shop.waiting(2) == "1");
        Client::connect(shop.proxy.port).send(&cancel_request(&client.cancel_key));
        fails(&client.reply(), "57014");
        locker.query("ROLLBACK").ok();
        client.query("ROLLBACK TO a").ok();
        assert_eq!(client.query(&shop.select(2)).lines(), ["old"]);
        client.query("COMMIT").ok();
        assert_eq!(shop.name_on(1), "kept");
        shop.ask(1, "UPDATE customers SET name = 'old'");
        shop.all_ends();
    }
}

#[test]
fn who_waits_for_a_second_shard_waits_no_longer_than_wait_timeout() {
    let shop = start_with("waits", "size = 1\nwait_timeout = \"300ms\"");
    let (mut a, mut b) = (shop.client(), shop.client());
    for (client, shard) in [(&mut a, 1), (&mut b, 2)] {
        client.query("BEGIN").ok();
        client.query(&shop.update(shard, "kept")).ok();
    }
    // Each has what the other one waits for.
    a.send(&query(&shop.select(2)));
    b.send(&query(&shop.select(1)));
    fails(&a.reply(), "53300");
    a.query("ROLLBACK").ok();
    let reply = b.reply();
    if reply.sqlstate().is_some() {
        fails(&reply, "53300");
    }
    b.query("ROLLBACK").ok();
    shop.all_ends();
    // The pools have lost nothing.
    for shard in 0..3 {
        assert_eq!(a.query(&shop.select(shard)).lines(), ["old"]);
    }
}

#[test]
fn begin_and_commit_behind_a_write_of_the_same_pipeline_are_refused() {
    let shop = start("behind");
    let mut client = shop.client();
    for command in ["BEGIN", "COMMIT", "ROLLBACK"] {
        client.send(&pipeline(&[&shop.update(1, "lost"), command]));
        let reply = client.reply();
        refused(&reply, "PGH111");
        assert!(ends(&reply, 'I'), "{reply}");
        assert_eq!(shop.name_on(1), "old");
    }
    // What was read before is not part of it.
    client.send(&pipeline(&[&shop.select(1), "BEGIN"]));
    let reply = client.reply();
    assert_eq!(reply.tags(), ["SELECT 1", "BEGIN"], "{reply}");
    assert!(ends(&reply, 'T'), "{reply}");
    client.query(&shop.update(2, "lost")).ok();
    client.query("ROLLBACK").ok();
    assert_eq!(shop.name_on(2), "old");
    // An error of one series says nothing of the next.
    client.send(
        &[
            pipeline(&[&shop.fail(1)]),
            pipeline(&[&shop.select(1), &shop.select(2)]),
        ]
        .concat(),
    );
    assert_eq!(client.reply().sqlstate().as_deref(), Some("22012"));
    assert_eq!(client.reply().lines(), ["old", "old"]);
}

#[test]
fn time_outs_hold_for_all_servers_of_a_transaction() {
    let shop = start_with("silence", "idle_in_transaction_timeout = \"400ms\"");
    let mut client = shop.client();
    client.query("BEGIN").ok();
    client.query(&shop.update(1, "lost")).ok();
    client.query("SELECT id FROM customers").ok();
    let last = client.frame();
    assert_eq!(last.field(b'C').as_deref(), Some("25P03"), "{last:?}");
    assert!(client.is_closed());
    shop.all_ends();
    assert_eq!(shop.name_on(1), "old");
    let shop = start_with("slow", "query_timeout = \"400ms\"");
    let mut locker = Client::connect(servers().all()[2].port());
    locker.login(&[("user", "postgres"), ("database", &shop.name)], "");
    let one = format!(
        "SELECT id FROM customers, countries WHERE id = {}",
        shop.on[2]
    );
    let all = "SELECT id FROM customers, countries WHERE code = 'CZ'".to_owned();
    for (extended, text) in [(false, &one), (true, &one), (false, &all), (true, &all)] {
        let mut client = shop.client();
        client.query("BEGIN").ok();
        client.query(&shop.update(1, "kept")).ok();
        client.query("SAVEPOINT a").ok();
        locker.query("BEGIN; LOCK TABLE countries").ok();
        fails(&say(&mut client, extended, text), "57014");
        locker.query("ROLLBACK").ok();
        client.query("ROLLBACK TO a").ok();
        assert_eq!(client.query(&shop.select(2)).lines(), ["old"]);
        client.query("COMMIT").ok();
        assert_eq!(shop.name_on(1), "kept");
        shop.ask(1, "UPDATE customers SET name = 'old'");
        shop.all_ends();
    }
}
