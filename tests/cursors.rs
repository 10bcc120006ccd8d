//! Live: cursors of SQL on three shards. Each is on the shard of its query, and is found there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use support::client::{bind, close, describe, execute, parse, sync};
use support::shop::{Shop, ends, fails, pipeline, refused, say, shared};

/// Five rows of a customer: its id times a hundred, and on.
fn rows(shop: &Shop, shard: usize) -> String {
    let id = shop.on[shard];
    format!("SELECT generate_series(1, 5) + id * 100 AS n FROM customers WHERE id = {id}")
}

fn expected(shop: &Shop, shard: usize, which: &[i64]) -> Vec<String> {
    let id = shop.on[shard];
    which.iter().map(|n| (n + id * 100).to_string()).collect()
}

#[test]
fn cursors_are_read_where_they_are() {
    let shop = shared();
    for extended in [false, true] {
        let mut client = shop.client();
        let mut do_it = |text: &str| say(&mut client, extended, text);
        do_it("BEGIN").ok();
        for (name, shard) in [("one", 1), ("\"Two\"", 2)] {
            let reply = do_it(&format!(
                "DECLARE {name} SCROLL CURSOR FOR {}",
                rows(shop, shard)
            ));
            assert_eq!(reply.tags(), ["DECLARE CURSOR"], "{reply}");
            assert!(ends(&reply, 'T'), "{reply}");
        }
        for (text, shard, which) in [
            ("FETCH 2 FROM one", 1, &[1, 2][..]),
            ("FETCH FORWARD 2 FROM \"Two\"", 2, &[1, 2]),
            ("FETCH ONE", 1, &[3]),
            ("FETCH ABSOLUTE 5 IN \"Two\"", 2, &[5]),
            ("FETCH PRIOR FROM \"Two\"", 2, &[4]),
            ("FETCH ALL FROM one", 1, &[4, 5]),
        ] {
            let reply = do_it(text);
            assert_eq!(
                reply.lines(),
                expected(shop, shard, which),
                "{text}: {reply}"
            );
            assert_eq!(reply.of(b'T').next().unwrap().names(), ["n"]);
        }
        assert_eq!(do_it("MOVE BACKWARD ALL IN one").tags(), ["MOVE 5"]);
        assert_eq!(do_it("FETCH one").lines(), expected(shop, 1, &[1]));
        // The name is taken, on whichever shard.
        do_it("SAVEPOINT a").ok();
        for shard in [1, 2] {
            let reply = do_it(&format!("DECLARE one CURSOR FOR {}", rows(shop, shard)));
            fails(&reply, "42P03");
            do_it("ROLLBACK TO a").ok();
        }
        // Until it is closed, or was never there.
        assert_eq!(do_it("CLOSE one").tags(), ["CLOSE CURSOR"]);
        fails(&do_it("FETCH one"), "34000");
        do_it("ROLLBACK TO a").ok();
        do_it(&format!("DECLARE one CURSOR FOR {}", rows(shop, 2))).ok();
        assert_eq!(do_it("FETCH one").lines(), expected(shop, 2, &[1]));
        do_it("ROLLBACK TO a").ok();
        do_it(&format!("DECLARE one CURSOR FOR {}", rows(shop, 0))).ok();
        assert_eq!(do_it("FETCH one").lines(), expected(shop, 0, &[1]));
        do_it("RELEASE a").ok();
        assert_eq!(do_it(&shop.select(1)).lines(), ["old"]);
        assert_eq!(do_it("FETCH one").lines(), expected(shop, 0, &[2]));
        do_it("COMMIT").ok();
        // They have gone with it.
        let reply = do_it("FETCH one");
        assert_eq!(reply.sqlstate().as_deref(), Some("34000"), "{reply}");
        do_it("BEGIN").ok();
        fails(&do_it("FETCH one"), "34000");
        do_it("ROLLBACK").ok();
        shop.all_ends();
    }
}

#[test]
fn cursors_that_are_not_of_one_shard_or_transaction_are_refused() {
    let shop = shared();
    for extended in [false, true] {
        let mut client = shop.client();
        let mut do_it = |text: &str| say(&mut client, extended, text);
        for (text, number) in [
            (
                "DECLARE c CURSOR FOR SELECT id FROM customers".to_owned(),
                "PGH108",
            ),
            (
                format!("DECLARE c CURSOR WITH HOLD FOR {}", rows(shop, 1)),
                "PGH108",
            ),
            (
                "DECLARE c CURSOR FOR SELECT count(*) FROM customers".to_owned(),
                "PGH007",
            ),
            (
                format!("DECLARE U&\"c\" CURSOR FOR {}", rows(shop, 1)),
                "PGH108",
            ),
        ] {
            refused(&do_it(&text), number);
            do_it("BEGIN").ok();
            let reply = do_it(&text);
            refused(&reply, number);
            assert!(ends(&reply, 'E'), "{reply}");
            do_it("ROLLBACK").ok();
        }
        // A server says that there is no transaction.
        let reply = do_it(&format!("DECLARE c CURSOR FOR {}", rows(shop, 1)));
        assert_eq!(reply.sqlstate().as_deref(), Some("25P01"), "{reply}");
        // Locks count as written.
        do_it("BEGIN").ok();
        do_it(&format!(
            "DECLARE c CURSOR FOR {} FOR UPDATE",
            shop.select(1)
        ))
        .ok();
        assert_eq!(do_it("FETCH c").lines(), ["old"]);
        refused(&do_it(&shop.update(2, "lost")), "PGH100");
        do_it("ROLLBACK").ok();
        // All at once, where they are on one shard.
        do_it("BEGIN").ok();
        do_it(&format!("DECLARE c CURSOR FOR {}", rows(shop, 1))).ok();
        do_it(&format!("DECLARE d CURSOR FOR {}", rows(shop, 1))).ok();
        assert_eq!(do_it("CLOSE ALL").tags(), ["CLOSE CURSOR ALL"]);
        fails(&do_it("FETCH d"), "34000");
        do_it("ROLLBACK").ok();
        do_it("BEGIN").ok();
        do_it(&format!("DECLARE c CURSOR FOR {}", rows(shop, 1))).ok();
        do_it(&shop.select(2)).ok();
        refused(&do_it("CLOSE ALL"), "PGH108");
        do_it("ROLLBACK").ok();
        shop.all_ends();
    }
}

#[test]
fn a_cursor_is_a_portal_of_its_name_and_pipelines_find_it() {
    let shop = shared();
    let mut client = shop.client();
    let declare = |name: &str, shard| format!("DECLARE {name} CURSOR FOR {}", rows(shop, shard));
    client.send(&pipeline(&[
        "BEGIN",
        &declare("c", 1),
        &declare("d", 2),
        "FETCH 2 FROM c",
        "FETCH 1 FROM d",
        "FETCH 1 FROM c",
    ]));
    let reply = client.reply();
    let found = [
        expected(shop, 1, &[1, 2]),
        expected(shop, 2, &[1]),
        expected(shop, 1, &[3]),
    ]
    .concat();
    assert_eq!(reply.lines(), found, "{reply}");
    // As psycopg asks for its columns, and as others read it.
    client.send(&[describe(b'P', "d"), sync()].concat());
    assert_eq!(client.reply().to_string(), "T(n) Z(T)");
    client.send(&[execute("c", 1), execute("d", 1), close(b'P', "c"), sync()].concat());
    let reply = client.reply();
    let found = [expected(shop, 1, &[4]), expected(shop, 2, &[2])].concat();
    assert_eq!(reply.lines(), found, "{reply}");
    client.query("SAVEPOINT a").ok();
    fails(&client.query("FETCH c"), "34000");
    client.query("ROLLBACK TO a").ok();
    // A prepared FETCH has the columns of the cursor that is there.
    let text = format!("SELECT name FROM customers WHERE id = {}", shop.on[0]);
    client.send(
        &[
            parse("f", "FETCH d", &[]),
            describe(b'S', "f"),
            bind("", "f", &[]),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    let reply = client.reply();
    assert_eq!(
        reply.to_string(),
        format!(
            "1 t T(n) 2 D({}) C(FETCH 1) Z(T)",
            expected(shop, 2, &[3])[0]
        )
    );
    client.send(&pipeline(&[
        "CLOSE d",
        &format!("DECLARE d CURSOR FOR {text}"),
    ]));
    client.reply().ok();
    client.send(
        &[
            describe(b'S', "f"),
            bind("p", "f", &[]),
            describe(b'P', "p"),
            execute("p", 0),
            sync(),
        ]
        .concat(),
    );
    assert_eq!(
        client.reply().to_string(),
        "t T(name) 2 T(name) D(old) C(FETCH 1) Z(T)"
    );
    // One that an error has skipped is on no shard.
    client.query("SAVEPOINT b").ok();
    client.send(&pipeline(&[&shop.fail(1), &declare("e", 1)]));
    fails(&client.reply(), "22012");
    client.query("ROLLBACK TO b").ok();
    client.send(&pipeline(&[&declare("e", 2), "FETCH e"]));
    assert_eq!(client.reply().lines(), expected(shop, 2, &[1]));
    client.query("COMMIT").ok();
    // In one string, which then has to stay where it is.
    let reply = client.query(&format!("BEGIN; {}; FETCH 2 FROM c", declare("c", 1)));
    assert_eq!(reply.lines(), expected(shop, 1, &[1, 2]), "{reply}");
    assert_eq!(client.query("FETCH c").lines(), expected(shop, 1, &[3]));
    refused(&client.query(&shop.select(2)), "PGH126");
    client.query("ROLLBACK").ok();
    shop.all_ends();
}
