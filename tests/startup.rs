//! How a connection begins: first messages as a table, then whole negotiations over a socket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use pgherd::error::Report;
use pgherd::wire::startup::{
    First, NegotiationFailed, Opening, Parameters, Policy, Replication, decode, negotiate,
    parse_options,
};
use pgherd::wire::stream::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSSENC_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";

/// A start-up message for protocol 3.`minor`.
fn startup(minor: u16, pairs: &str) -> Vec<u8> {
    let mut body = vec![0, 3];
    body.extend(minor.to_be_bytes());
    body.extend(pairs.as_bytes());
    let mut message = u32::try_from(body.len() + 4)
        .unwrap()
        .to_be_bytes()
        .to_vec();
    message.extend(body);
    message
}

/// What a first message means, in one line.
fn meaning(message: &[u8]) -> String {
    match decode(message) {
        Ok(First::Startup { minor, parameters }) => {
            let pairs: Vec<_> = parameters
                .iter()
                .map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii()))
                .collect();
            format!("start-up 3.{minor} {}", pairs.join(" "))
        }
        Ok(First::SslRequest) => "ssl".to_owned(),
        Ok(First::GssencRequest) => "gssenc".to_owned(),
        Ok(First::Cancel { pid, key }) => format!("cancel {pid} {} bytes", key.len()),
        Err(error) => format!("{} {error}", error.sqlstate()),
    }
}

#[test]
fn every_first_message_has_one_meaning() {
    const LAYOUT: &str = "08P01 invalid startup packet layout: ";
    let key = |length| [&b"\x04\xd2\x16\x2e\0\0\0\x07"[..], &vec![9; length]].concat();
    let end = format!("{LAYOUT}expected terminator as last byte");
    let key_error = format!("{LAYOUT}invalid length of the cancel key");
    let table: &[(&[u8], &str)] = &[
        (b"\0\x03\0\0user\0me\0\0", "start-up 3.0 user=me"),
        (
            b"\0\x03\0\x02user\0me\0database\0\xff\0\0",
            r"start-up 3.2 user=me database=\xff",
        ),
        (b"\0\x03\x27\x0fuser\0me\0\0", "start-up 3.9999 user=me"),
        (b"\0\x03\0\0a\0\0a\0x\0\0", "start-up 3.0 a= a=x"),
        (b"\0\x03\0\0\0", "start-up 3.0 "),
        (b"\0\x03\0\0", &end),
        (b"\0\x03\0\0user\0me\0", &end),
        (b"\0\x03\0\0user\0me", &end),
        (b"\0\x03\0\0user", &end),
        (b"\0\x03\0\0user\0me\0\0more", &end),
        (b"\0\x03\0\0user\0me\0\0\0", &end),
        (&SSL_REQUEST[4..], "ssl"),
        (&GSSENC_REQUEST[4..], "gssenc"),
        (
            b"\x04\xd2\x16\x2fx",
            "08P01 invalid startup packet layout: expected nothing behind an encryption request",
        ),
        (&key(4), "cancel 7 4 bytes"),
        (&key(256), "cancel 7 256 bytes"),
        (&key(3), &key_error),
        (&key(257), &key_error),
        (
            b"\x04\xd2\x16\x2e",
            "08P01 invalid startup packet layout: expected a process id to cancel",
        ),
        (
            b"\0\x02\0\0",
            "0A000 unsupported frontend protocol 2.0: server supports 3.0 to 3.2",
        ),
        (
            b"\0\x04\0\0",
            "0A000 unsupported frontend protocol 4.0: server supports 3.0 to 3.2",
        ),
        (
            b"GET ",
            "0A000 unsupported frontend protocol 18245.21536: server supports 3.0 to 3.2",
        ),
        (
            b"\0\x03",
            "08P01 invalid startup packet layout: expected a protocol version",
        ),
        (
            b"",
            "08P01 invalid startup packet layout: expected a protocol version",
        ),
    ];
    for (message, expected) in table {
        assert_eq!(meaning(message), *expected, "{}", message.escape_ascii());
    }
}

fn parameters(pairs: &[(&str, &str)]) -> Result<Parameters, String> {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    Parameters::of_pairs(&pairs).map_err(|error| format!("{} {error}", error.sqlstate()))
}

#[test]
fn what_is_ignored_is_dropped_by_itself_and_inside_options() {
    let names = ["extra_float_digits", "geqo"].map(str::to_owned).into();
    let table = [
        ("-c a=1", "-c a=1"),
        // As it was where nothing is dropped.
        ("--a=1  -cb=2", "--a=1  -cb=2"),
        ("-c extra_float_digits=3", ""),
        ("--extra-float-digits=3 -c Geqo=off -cgeqo=on", ""),
        (
            r"-c a.b=x\ y\\z -c geqo=off --search-path=a,b -c c=",
            r"-c a.b=x\ y\\z -c search_path=a,b -c c=",
        ),
    ];
    for (options, expected) in table {
        let given = [
            ("user", "ann"),
            ("Extra_Float_Digits", "3"),
            ("application_name", "app"),
            ("options", options),
        ];
        let kept = parameters(&given).unwrap().without(&names).unwrap();
        assert_eq!(
            kept.get("options").unwrap_or_default(),
            expected,
            "{options}"
        );
        assert_eq!(kept.get("application_name"), Some("app"));
        assert_eq!(kept.get("Extra_Float_Digits"), None);
        assert_eq!(kept.user(), "ann");
        // What is left means what it meant.
        let mut meant = parse_options(options).unwrap();
        meant.retain(|(name, _)| !names.contains(&name.to_ascii_lowercase()));
        assert_eq!(kept.options().unwrap(), meant);
    }
    let all = ["options".to_owned()].into();
    let given = parameters(&[("user", "ann"), ("options", "-c a=1")]).unwrap();
    assert_eq!(given.without(&all).unwrap().get("options"), None);
    let odd = parameters(&[("user", "ann"), ("options", "-x")]).unwrap();
    assert!(odd.without(&names).is_err());
}

#[test]
fn the_last_of_equal_parameters_wins_and_the_database_is_the_users() {
    let given = parameters(&[
        ("user", "a"),
        ("x", "1"),
        ("user", "b"),
        ("x", "2"),
        ("y", "3"),
    ])
    .unwrap();
    assert_eq!(
        (given.user(), given.database(), given.get("x")),
        ("b", "b", Some("2"))
    );
    assert_eq!(
        given.others(),
        [("x".into(), "2".into()), ("y".into(), "3".into())]
    );
    let given = parameters(&[("user", "a"), ("database", "d"), ("_pq_.z", "1")]).unwrap();
    assert_eq!((given.user(), given.database()), ("a", "d"));
    assert!(given.others().is_empty());
    assert_eq!(
        parameters(&[("user", "a"), ("database", "")])
            .unwrap()
            .database(),
        "a"
    );
    let nobody = Err("28000 no PostgreSQL user name specified in startup packet".to_owned());
    assert_eq!(parameters(&[]), nobody);
    assert_eq!(parameters(&[("user", "")]), nobody);
}

#[test]
fn text_that_is_not_utf8_is_taken_only_as_the_name_of_an_application() {
    let of = |name: &str| {
        let pairs = [(&b"user"[..], &b"me"[..]), (name.as_bytes(), b"caf\xe9")];
        Parameters::of_pairs(&pairs).map(|given| given.get(name).unwrap_or_default().to_owned())
    };
    assert_eq!(of("application_name").unwrap(), r"caf\xe9");
    assert_eq!(of("user").unwrap_err().sqlstate().code(), "08P01");
    assert_eq!(of("database").unwrap_err().sqlstate().code(), "08P01");
}

#[test]
fn replication_is_a_boolean_or_the_word_database() {
    let table = [
        ("database", Ok(Replication::Logical)),
        ("on", Ok(Replication::Physical)),
        ("1", Ok(Replication::Physical)),
        ("FALSE", Ok(Replication::No)),
        (
            "maybe",
            Err("22023 invalid value for parameter \"replication\": \"maybe\"".to_owned()),
        ),
    ];
    for (value, expected) in table {
        let given = parameters(&[("user", "a"), ("replication", value)]).unwrap();
        let found = given
            .replication()
            .map_err(|error| format!("{} {error}", error.sqlstate()));
        assert_eq!(found, expected);
    }
    assert_eq!(
        parameters(&[("user", "a")]).unwrap().replication().unwrap(),
        Replication::No
    );
}

#[test]
fn options_are_split_as_libpq_joins_them() {
    let table: &[(&str, Result<&[(&str, &str)], &str>)] = &[
        ("", Ok(&[])),
        ("  ", Ok(&[])),
        ("-c a=1", Ok(&[("a", "1")])),
        ("-ca=1 --b-c=2", Ok(&[("a", "1"), ("b_c", "2")])),
        (r"-c search_path=a,\ b", Ok(&[("search_path", "a, b")])),
        (r"-c a=\\x -c b=", Ok(&[("a", r"\x"), ("b", "")])),
        ("-c\ta=1\n--b=x=y", Ok(&[("a", "1"), ("b", "x=y")])),
        ("-c", Err("22023 unsupported start-up option: -c")),
        ("-c a", Err("22023 unsupported start-up option: -c")),
        ("-S 64", Err("22023 unsupported start-up option: -S")),
        ("--=1", Err("22023 unsupported start-up option: --=1")),
        ("a=1", Err("22023 unsupported start-up option: a=1")),
    ];
    for (options, expected) in table {
        let found = parse_options(options).map_err(|error| format!("{} {error}", error.sqlstate()));
        let expected = expected
            .map(|pairs| {
                pairs
                    .iter()
                    .map(|(a, b)| ((*a).into(), (*b).into()))
                    .collect()
            })
            .map_err(str::to_owned);
        assert_eq!(found, expected, "{options}");
    }
}

async fn tcp_pair() -> (TcpStream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    (
        client,
        Stream::from_tcp(listener.accept().await.unwrap().0).unwrap(),
    )
}

const REQUIRED: Policy = Policy { tls_required: true };

fn outcome(result: Result<Opening, NegotiationFailed>) -> String {
    match result {
        Ok(Opening::Cancel { pid, key }) => format!("cancel {pid} {}", key.escape_ascii()),
        Ok(Opening::Startup(startup)) => {
            format!(
                "start-up 3.{} of {}",
                startup.minor,
                startup.parameters.user()
            )
        }
        Err(NegotiationFailed { error, stream }) => {
            let told = if stream.is_some() { "told" } else { "not told" };
            format!("{told}: {} {error}", error.sqlstate())
        }
    }
}

/// Sends each part once the one before was answered with as many bytes as expected; gives the answers and the outcome.
async fn converse(parts: &[(&[u8], usize)], policy: Policy) -> (Vec<u8>, String) {
    let (mut client, stream) = tcp_pair().await;
    let server = tokio::spawn(async move { outcome(negotiate(stream, None, policy).await) });
    let mut answers = Vec::new();
    for (part, answer_bytes) in parts {
        client.write_all(part).await.unwrap();
        let mut answer = vec![0; *answer_bytes];
        client.read_exact(&mut answer).await.unwrap();
        answers.extend(answer);
    }
    client.shutdown().await.unwrap();
    (answers, server.await.unwrap())
}

#[tokio::test]
async fn requests_for_encryption_are_answered_once_each() {
    let start = startup(0, "user\0me\0\0");
    let none = Policy::default();
    assert_eq!(
        converse(&[(&start, 0)], none).await,
        (vec![], "start-up 3.0 of me".into())
    );
    let all = [(SSL_REQUEST, 1), (GSSENC_REQUEST, 1), (&start[..], 0)];
    assert_eq!(
        converse(&all, none).await,
        (b"NN".to_vec(), "start-up 3.0 of me".into())
    );
    let turned = [(GSSENC_REQUEST, 1), (SSL_REQUEST, 1), (&start[..], 0)];
    assert_eq!(
        converse(&turned, none).await,
        (b"NN".to_vec(), "start-up 3.0 of me".into())
    );
    for request in [SSL_REQUEST, GSSENC_REQUEST] {
        let (answers, outcome) = converse(&[(request, 1), (request, 0)], none).await;
        assert_eq!(answers, b"N");
        assert_eq!(
            outcome,
            "told: 08P01 invalid startup packet layout: expected a start-up message"
        );
    }
}

#[tokio::test]
async fn bytes_sent_in_clear_behind_an_ssl_request_are_fatal() {
    let both = [SSL_REQUEST, &startup(0, "user\0me\0\0")].concat();
    let outcome = converse(&[(&both, 0)], Policy::default()).await.1;
    assert_eq!(
        outcome,
        "told: 08P01 received unencrypted data after SSL request"
    );
}

#[tokio::test]
async fn newer_minors_and_unknown_options_are_negotiated_down() {
    let newest = |version: &[u8], options: &[u8]| {
        let count = u32::from(!options.is_empty());
        let length = u32::try_from(12 + options.len()).unwrap();
        [
            b"v",
            &length.to_be_bytes()[..],
            version,
            &count.to_be_bytes(),
            options,
        ]
        .concat()
    };
    let table = [
        (
            startup(9999, "user\0me\0\0"),
            newest(b"\0\x03\0\x02", b""),
            "start-up 3.2 of me",
        ),
        (
            startup(3, "user\0me\0\0"),
            newest(b"\0\x03\0\x02", b""),
            "start-up 3.2 of me",
        ),
        (startup(2, "user\0me\0\0"), vec![], "start-up 3.2 of me"),
        (
            startup(0, "user\0me\0_pq_.x\0on\0\0"),
            newest(b"\0\x03\0\0", b"_pq_.x\0"),
            "start-up 3.0 of me",
        ),
        (
            startup(2, "_pq_.x\0\0user\0me\0_pq_.x\0\0\0"),
            newest(b"\0\x03\0\x02", b"_pq_.x\0"),
            "start-up 3.2 of me",
        ),
    ];
    for (message, answer, expected) in table {
        let found = converse(&[(&message, answer.len())], Policy::default()).await;
        assert_eq!(found, (answer, expected.to_owned()));
    }
}

#[tokio::test]
async fn a_cancel_request_needs_no_tls_and_a_startup_does_where_it_is_required() {
    let cancel = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07abcd";
    assert_eq!(converse(&[(cancel, 0)], REQUIRED).await.1, "cancel 7 abcd");
    let outcome_in_clear = converse(&[(&startup(0, "user\0me\0\0"), 0)], REQUIRED)
        .await
        .1;
    assert_eq!(
        outcome_in_clear,
        "told: 28000 connections without TLS are refused"
    );

    let (mut client, server) = UnixStream::pair().unwrap();
    client.write_all(&startup(0, "user\0me\0\0")).await.unwrap();
    let over_unix = outcome(negotiate(Stream::Unix(server), None, REQUIRED).await);
    assert_eq!(over_unix, "start-up 3.0 of me");
}

#[tokio::test]
async fn a_length_is_not_believed_and_a_client_that_leaves_is_not_told() {
    let none = Policy::default();
    let table: &[(&[u8], &str)] = &[
        (
            b"\0\0\0\x07\0\x03\0",
            "told: 08P01 invalid length of startup packet",
        ),
        (
            b"\0\0\x27\x11\0\x03\0\0",
            "told: 08P01 invalid length of startup packet",
        ),
        (
            b"\xff\xff\xff\xff",
            "told: 08P01 invalid length of startup packet",
        ),
        (
            b"",
            "not told: 08006 the connection was closed before it began",
        ),
        (
            b"\0\0",
            "not told: 08006 the connection was lost: early eof",
        ),
        (
            b"\0\0\0\x09\0\x03\0\0",
            "not told: 08006 the connection was lost: early eof",
        ),
        (
            b"\x16\x03\x01",
            "not told: 0A000 TLS is not configured here",
        ),
    ];
    for (bytes, expected) in table {
        assert_eq!(
            converse(&[(bytes, 0)], none).await.1,
            *expected,
            "{}",
            bytes.escape_ascii()
        );
    }
}
