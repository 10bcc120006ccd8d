//! Clients that prove who they are, or do not: whole conversations with the client side of `postgres-protocol`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::sync::Arc;

use bytes::BytesMut;
use pgherd::error::Report;
use pgherd::wire::authenticate::{Authenticator, Method, Verifier};
use pgherd::wire::scram::{Keys, md5_stored};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const SALT: &[u8] = b"0123456789abcdef";

fn scram_keys(password: &str) -> Verifier {
    Verifier::Scram(Keys::derive(password, SALT.to_vec()))
}

/// The body of an Authentication message: its kind and what it carries; `None` when the server is gone.
async fn receive(stream: &mut DuplexStream) -> Option<(u32, Vec<u8>)> {
    assert_eq!(stream.read_u8().await.ok()?, b'R');
    let mut body = vec![0; stream.read_u32().await.ok()? as usize - 4];
    stream.read_exact(&mut body).await.unwrap();
    let data = body.split_off(4);
    Some((u32::from_be_bytes(body.try_into().unwrap()), data))
}

/// A client that answers as its server asks. Its transcript holds no random text; the salt is kept.
#[derive(Default)]
struct Told {
    kinds: Vec<u32>,
    salt: String,
}

async fn client(mut stream: DuplexStream, user: &str, password: &str) -> Told {
    let mut told = Told::default();
    let mut scram = None;
    while let Some((kind, data)) = receive(&mut stream).await {
        told.kinds.push(kind);
        let mut out = BytesMut::new();
        match kind {
            0 => break,
            5 => {
                let hash = md5_hash(
                    user.as_bytes(),
                    password.as_bytes(),
                    data.try_into().unwrap(),
                );
                frontend::password_message(hash.as_bytes(), &mut out).unwrap();
            }
            10 => {
                assert_eq!(data, b"SCRAM-SHA-256\0\0");
                let exchange = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                frontend::sasl_initial_response("SCRAM-SHA-256", exchange.message(), &mut out)
                    .unwrap();
                scram = Some(exchange);
            }
            11 => {
                let text = String::from_utf8(data.clone()).unwrap();
                text.split(",s=").nth(1).unwrap().clone_into(&mut told.salt);
                let exchange = scram.as_mut().unwrap();
                exchange.update(&data).unwrap();
                frontend::sasl_response(exchange.message(), &mut out).unwrap();
            }
            // The server's own proof.
            12 => scram.as_mut().unwrap().finish(&data).unwrap(),
            other => panic!("kind {other}"),
        }
        stream.write_all(&out).await.unwrap();
    }
    told
}

/// Lets a client log in; gives its transcript and what came of it.
async fn log_in(
    authenticator: &Authenticator,
    method: Method,
    stored: Option<&Verifier>,
    password: &str,
) -> (Told, String) {
    let (here, mut there) = tokio::io::duplex(4096);
    let password = password.to_owned();
    let client = tokio::spawn(async move { client(here, "me", &password).await });
    let result = authenticator
        .authenticate(&mut there, method, "me", stored, None)
        .await;
    let outcome = match result {
        Ok(authenticated) => {
            there.write_all(&authenticated.welcome).await.unwrap();
            "welcome".to_owned()
        }
        Err(error) => format!("{} {error}", error.sqlstate()),
    };
    drop(there);
    (client.await.unwrap(), outcome)
}

#[tokio::test]
async fn the_right_password_is_welcome_and_no_other_by_every_method() {
    const FAILED: &str = "28P01 password authentication failed for user \"me\"";
    let plain = Verifier::Plain("pencil".into());
    let md5 = Verifier::Md5(md5_stored("me", "pencil"));
    let scram = scram_keys("pencil");
    let table: &[(Method, Option<&Verifier>, &str, &[u32], &str)] = &[
        (Method::Trust, Some(&plain), "wrong", &[0], "welcome"),
        (Method::Trust, None, "", &[0], "welcome"),
        (Method::Md5, Some(&plain), "pencil", &[5, 0], "welcome"),
        (Method::Md5, Some(&md5), "pencil", &[5, 0], "welcome"),
        (
            Method::Md5,
            Some(&scram),
            "pencil",
            &[10, 11, 12, 0],
            "welcome",
        ),
        (
            Method::ScramSha256,
            Some(&plain),
            "pencil",
            &[10, 11, 12, 0],
            "welcome",
        ),
        (
            Method::ScramSha256,
            Some(&scram),
            "pencil",
            &[10, 11, 12, 0],
            "welcome",
        ),
        (Method::Md5, Some(&plain), "Pencil", &[5], FAILED),
        (Method::Md5, Some(&md5), "", &[5], FAILED),
        (Method::Md5, Some(&scram), "wrong", &[10, 11], FAILED),
        (
            Method::ScramSha256,
            Some(&plain),
            "wrong",
            &[10, 11],
            FAILED,
        ),
        (
            Method::ScramSha256,
            Some(&scram),
            "wrong",
            &[10, 11],
            FAILED,
        ),
        // nobody, and somebody whose secret cannot serve
        (Method::Md5, None, "pencil", &[5], FAILED),
        (Method::Md5, None, "", &[5], FAILED),
        (Method::ScramSha256, None, "pencil", &[10, 11], FAILED),
        (Method::ScramSha256, Some(&md5), "pencil", &[10, 11], FAILED),
    ];
    let authenticator = Authenticator::default();
    for (number, (method, stored, password, kinds, expected)) in table.iter().enumerate() {
        let (told, outcome) = log_in(&authenticator, *method, *stored, password).await;
        assert_eq!(
            (&told.kinds[..], outcome.as_str()),
            (*kinds, *expected),
            "row {number}"
        );
    }
}

#[tokio::test]
async fn the_salt_does_not_tell_whether_a_user_exists() {
    let authenticator = Authenticator::default();
    let plain = Verifier::Plain("pencil".into());
    let mut salts = Vec::new();
    for stored in [None, Some(&plain), None, Some(&plain)] {
        salts.push(
            log_in(&authenticator, Method::ScramSha256, stored, "x")
                .await
                .0
                .salt,
        );
    }
    assert!(
        salts[0].len() > 20 && salts.iter().all(|salt| *salt == salts[0]),
        "{salts:?}"
    );
    let elsewhere = log_in(&Authenticator::default(), Method::ScramSha256, None, "x")
        .await
        .0
        .salt;
    assert_ne!(elsewhere, salts[0]);
}

#[tokio::test]
async fn a_plain_password_that_was_changed_is_not_answered_from_memory() {
    let authenticator = Authenticator::default();
    for (stored, password, expected) in [
        ("a", "a", true),
        ("b", "a", false),
        ("b", "b", true),
        ("a", "a", true),
    ] {
        let stored = Verifier::Plain(stored.into());
        let (_, outcome) =
            log_in(&authenticator, Method::ScramSha256, Some(&stored), password).await;
        assert_eq!(outcome == "welcome", expected, "{outcome}");
    }
}

#[tokio::test]
async fn fifty_clients_at_once_are_all_welcome() {
    let authenticator = Arc::new(Authenticator::default());
    let logins: Vec<_> = (0..50)
        .map(|_| {
            let authenticator = authenticator.clone();
            tokio::spawn(async move {
                let stored = Verifier::Plain("pencil".into());
                log_in(&authenticator, Method::ScramSha256, Some(&stored), "pencil")
                    .await
                    .1
            })
        })
        .collect();
    for login in logins {
        assert_eq!(login.await.unwrap(), "welcome");
    }
}

/// What is answered to a client that sends these bytes whatever it is asked.
async fn refusal(method: Method, bytes: &[u8]) -> String {
    let (mut here, mut there) = tokio::io::duplex(256 * 1024);
    here.write_all(bytes).await.unwrap();
    here.shutdown().await.unwrap();
    let stored = scram_keys("pencil");
    let stored = (method == Method::ScramSha256).then_some(&stored);
    let result = Authenticator::default()
        .authenticate(&mut there, method, "me", stored, None)
        .await;
    let error = result.unwrap_err();
    format!("{} {error}", error.sqlstate())
}

fn framed(body: &[u8]) -> Vec<u8> {
    [
        b"p",
        &u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..],
        body,
    ]
    .concat()
}

#[tokio::test]
async fn what_is_no_proof_is_refused_with_a_reason() {
    let sasl = |mechanism: &str, length: i32, data: &str| {
        framed(
            &[
                mechanism.as_bytes(),
                b"\0",
                &length.to_be_bytes(),
                data.as_bytes(),
            ]
            .concat(),
        )
    };
    let table: &[(Method, Vec<u8>, &str)] = &[
        (
            Method::Md5,
            vec![],
            "08006 the client left before it proved who it is",
        ),
        (
            Method::Md5,
            b"X\0\0\0\x04".to_vec(),
            "08006 the client left before it proved who it is",
        ),
        (
            Method::Md5,
            b"Q\0\0\0\x05\0".to_vec(),
            "08P01 expected password response, got message type Q",
        ),
        (
            Method::Md5,
            b"p\0\0\0\x03".to_vec(),
            "08P01 invalid password message: its length is too small",
        ),
        (
            Method::Md5,
            b"p\0\x01\0\x05".to_vec(),
            "08P01 invalid password message: its length is too large",
        ),
        (
            Method::Md5,
            framed(b""),
            "08P01 invalid password message: it has no end",
        ),
        (
            Method::Md5,
            framed(b"md5"),
            "08P01 invalid password message: it has no end",
        ),
        (
            Method::Md5,
            framed(b"md5\0"),
            "28P01 password authentication failed for user \"me\"",
        ),
        (
            Method::Md5,
            framed(&vec![0; 65_536]),
            "28P01 password authentication failed for user \"me\"",
        ),
        (
            Method::ScramSha256,
            b"p\0\0\x08\x05".to_vec(),
            "08P01 invalid password message: its length is too large",
        ),
        (
            Method::ScramSha256,
            framed(b"pencil\0"),
            "08P01 invalid password message: it is no SASL response",
        ),
        (
            Method::ScramSha256,
            framed(b""),
            "08P01 invalid password message: it is no SASL response",
        ),
        (
            Method::ScramSha256,
            sasl("SCRAM-SHA-256", -1, ""),
            "08P01 invalid password message: it is no SASL response",
        ),
        (
            Method::ScramSha256,
            sasl("SCRAM-SHA-256", 5, "n,,n"),
            "08P01 invalid password message: it is no SASL response",
        ),
        (
            Method::ScramSha256,
            sasl("SCRAM-SHA-256", 3, "n,,n"),
            "08P01 invalid password message: it is no SASL response",
        ),
        (
            Method::ScramSha256,
            sasl("SCRAM-SHA-1", 4, "n,,n"),
            "08P01 client selected an invalid SASL authentication mechanism",
        ),
        (
            Method::ScramSha256,
            sasl("SCRAM-SHA-256-PLUS", 4, "p=t,"),
            "08P01 client selected an invalid SASL authentication mechanism",
        ),
        (
            Method::ScramSha256,
            sasl("SCRAM-SHA-256", 0, ""),
            "08P01 invalid password message: the first message has no nonce",
        ),
    ];
    for (number, (method, bytes, expected)) in table.iter().enumerate() {
        assert_eq!(refusal(*method, bytes).await, *expected, "row {number}");
    }
}
