//! Live: the raw client of the tests against PostgreSQL itself, so that what it says of the proxy can be believed.

mod support;

use support::client::{Client, bind, cancel_request, describe, execute, parse, ssl_request, sync};
use support::{CLEARTEXT, MD5, SHOP, database, servers};

#[test]
fn it_logs_in_by_trust_md5_cleartext_and_scram_and_is_told_when_the_password_is_wrong() {
    let port = servers().all()[0].port();
    for (user, password) in [("postgres", ""), MD5, CLEARTEXT, SHOP] {
        let mut client = Client::connect(port);
        client.login(&[("user", user), ("database", "postgres")], password);
        assert_eq!(client.query("SELECT current_user").lines(), [user]);
        assert_eq!(client.parameters["client_encoding"], "UTF8");
        assert_eq!(client.cancel_key.len(), 8);
    }
    for (user, _) in [MD5, CLEARTEXT, SHOP] {
        let reply =
            Client::connect(port).try_login(&[("user", user), ("database", "postgres")], "wrong");
        assert_eq!(reply.sqlstate().as_deref(), Some("28P01"), "{user}");
    }
}

#[test]
fn it_reads_replies_as_transcripts() {
    let server = &servers().all()[1];
    let name = database(
        servers().all(),
        "transcripts",
        "CREATE TABLE t (id int primary key, v text)",
    );
    let mut client = Client::connect(server.port());
    client.login(&[("user", "postgres"), ("database", &name)], "");
    assert_eq!(
        client
            .query("INSERT INTO t VALUES (1, NULL); SELECT * FROM t")
            .to_string(),
        "C(INSERT 0 1) T(id,v) D(1,NULL) C(SELECT 1) Z(I)"
    );
    assert_eq!(
        client.query("INSERT INTO t VALUES (1, NULL)").to_string(),
        "E(23505 duplicate key value violates unique constraint \"t_pkey\") Z(I)"
    );
    assert_eq!(
        client
            .run("SELECT $1::int + 1 AS n", &[Some("6")])
            .to_string(),
        "1 2 T(n) D(7) C(SELECT 1) Z(I)"
    );
    let mut bytes = parse("p", "SELECT v FROM t WHERE id = $1", &[23]);
    bytes.extend(describe(b'S', "p"));
    bytes.extend(bind("", "p", &[None]));
    bytes.extend(execute("", 0));
    bytes.extend(sync());
    client.send(&bytes);
    assert_eq!(client.reply().to_string(), "1 t T(v) 2 C(SELECT 0) Z(I)");
}

#[test]
fn it_cancels_asks_for_tls_and_sees_the_end_of_a_connection() {
    let port = servers().all()[2].port();
    let mut client = Client::connect(port);
    client.login(&[("user", "postgres"), ("database", "postgres")], "");
    client.send(&support::client::query("SELECT pg_sleep(60)"));
    let key = client.cancel_key.clone();
    // The server may not have begun yet, so the request is repeated until it has hit.
    let asking = std::thread::spawn(move || client.reply().sqlstate());
    support::until("the query is cancelled", || {
        Client::connect(port).send(&cancel_request(&key));
        asking.is_finished()
    });
    assert_eq!(asking.join().unwrap().as_deref(), Some("57014"));

    let mut plain = Client::connect(port);
    plain.send(&ssl_request());
    assert_eq!(plain.byte(), b'N');
    plain.send(&[0, 0, 0, 9, 1, 2, 3, 4, 5]);
    assert!(plain.is_closed());
}
