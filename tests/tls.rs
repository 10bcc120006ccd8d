//! TLS on both sides of pgherd: who is trusted, who is not, and what SCRAM binds to.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/certificates.rs"]
mod certificates;

use std::future::poll_fn;
use std::process::Stdio;
use std::task::Poll;
use std::time::Duration;

use certificates::{Certificates, Kind, Pair};
use pgherd::backend::connect::{ConnectError, Encryption, LoggedIn, Login, connect};
use pgherd::config::{Dsn, Endpoint, Password, Secret, ServerTls, SslMode, TargetSession};
use pgherd::error::Report;
use pgherd::wire::authenticate::{Authenticator, Method, Verifier};
use pgherd::wire::channel::Channel;
use pgherd::wire::derived::Derived;
use pgherd::wire::helpers::Helpers;
use pgherd::wire::startup::{Opening, Policy, negotiate};
use pgherd::wire::stream::Stream;
use pgherd::wire::tls::{Acceptor, Connector, TlsError, Verification, server_end_point};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One handshake of our connector with our acceptor.
async fn handshake(server: &Pair, connector: &Connector, host: &str) -> Result<(), String> {
    let acceptor = Acceptor::load(&server.cert, &server.key, &Helpers::none()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(tcp, Some(&[])).await?;
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        Ok::<_, TlsError>(())
    });
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut stream = connector
        .connect(tcp, host)
        .await
        .map_err(|error| error.to_string())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
    server.await.unwrap().unwrap();
    Ok(())
}

/// TLS takes bytes that the socket does not: they are in nobody's outbox, and must be flushed all the same.
#[tokio::test]
async fn what_tls_has_taken_and_the_socket_has_not_counts_as_unsent() {
    const PIECE: [u8; 1000] = [b'x'; 1000];
    let certificates = Certificates::new();
    let pair = certificates.make("server", Kind::LOCALHOST);
    let acceptor = Acceptor::load(&pair.cert, &pair.key, &Helpers::none()).unwrap();
    let connector = Connector::load(Verification::None, None, None, &Helpers::none()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap());
    let (accepted, tcp) = tokio::join!(listener.accept(), tcp);
    let server = acceptor.accept(accepted.unwrap().0, Some(&[]));
    let client = connector.connect(tcp.unwrap(), "localhost");
    let (server, client) = tokio::join!(server, client);
    let (mut channel, mut reader) = (Channel::new(server.unwrap()), client.unwrap());
    let mut written = 0;
    poll_fn(|cx| {
        while !channel.has_unsent() {
            channel.write_through(cx, &PIECE).unwrap();
            written += PIECE.len();
        }
        Poll::Ready(())
    })
    .await;
    assert_eq!(channel.unsent_bytes(), 0);
    assert!(!channel.can_wait());
    let mut read = vec![0; written];
    let (flushed, all) = tokio::join!(
        poll_fn(|cx| channel.poll_flush(cx)),
        reader.read_exact(&mut read)
    );
    flushed.unwrap();
    all.unwrap();
    assert!(!channel.has_unsent() && read.iter().all(|&byte| byte == b'x'));
}

#[tokio::test]
async fn a_server_is_trusted_as_far_as_its_connection_string_asks() {
    use Verification::{Chain, Full};
    let certificates = Certificates::new();
    let make = |file: &str, names: &[&str], self_signed, expired| {
        let common_name = if file.starts_with("common") {
            "*.example.org"
        } else {
            "someone"
        };
        certificates.make(
            file,
            Kind {
                common_name,
                names,
                self_signed,
                expired,
            },
        )
    };
    let (ours, elsewhere) = (certificates.root(), Certificates::new());
    let named = make("named", &["localhost", "127.0.0.1"], false, false);
    let common = make("common", &[], false, false);
    let itself = make("itself", &["localhost"], true, false);
    let expired = make("expired", &["localhost"], false, true);
    let itself_expired = make("itself_expired", &["localhost"], true, true);
    let (others, alone) = (elsewhere.root(), itself.cert.clone());
    let alone_expired = itself_expired.cert.clone();

    let table = [
        // server, what is checked, root, host, whether it is trusted
        (&named, Verification::None, None, "localhost", true),
        (&expired, Verification::None, None, "elsewhere", true),
        (&named, Chain, Some(&ours), "localhost", true),
        (&named, Chain, Some(&ours), "elsewhere", true),
        (&named, Chain, Some(&others), "localhost", false),
        (&expired, Chain, Some(&ours), "localhost", false),
        (&itself, Chain, Some(&ours), "localhost", false),
        (&itself, Chain, Some(&alone), "elsewhere", true),
        (
            &itself_expired,
            Chain,
            Some(&alone_expired),
            "localhost",
            false,
        ),
        (&named, Full, Some(&ours), "localhost", true),
        (&named, Full, Some(&ours), "127.0.0.1", true),
        (&named, Full, Some(&ours), "127.0.0.2", false),
        (&named, Full, Some(&ours), "elsewhere", false),
        (&named, Full, Some(&ours), "someone", false),
        (&named, Full, Some(&others), "localhost", false),
        (&itself, Full, Some(&alone), "localhost", true),
        (&itself, Full, Some(&alone), "elsewhere", false),
        (&common, Full, Some(&ours), "db.example.org", true),
        (&common, Full, Some(&ours), "DB.EXAMPLE.ORG", true),
        (&common, Full, Some(&ours), "example.org", false),
        (&common, Full, Some(&ours), "a.db.example.org", false),
        (&common, Full, Some(&ours), "localhost", false),
    ];
    for (number, (server, verification, root, host, trusted)) in table.into_iter().enumerate() {
        let connector = Connector::load(
            verification,
            root.map(std::path::PathBuf::as_path),
            None,
            &Helpers::none(),
        )
        .unwrap();
        let result = handshake(server, &connector, host).await;
        assert_eq!(result.is_ok(), trusted, "row {number}: {host}: {result:?}");
    }
}

#[test]
fn files_that_cannot_serve_are_named() {
    let certificates = Certificates::new();
    let pair = certificates.make("server", Kind::LOCALHOST);
    let other = certificates.make("other", Kind::LOCALHOST);
    let missing = certificates.folder().join("missing");
    let said = |error: TlsError| {
        error
            .to_string()
            .replace(certificates.folder().to_str().unwrap(), "folder")
    };
    let accept = |cert, key| said(Acceptor::load(cert, key, &Helpers::none()).err().unwrap());
    assert_eq!(
        accept(&missing, &pair.key),
        "cannot read folder/missing: No such file or directory (os error 2)"
    );
    assert_eq!(
        accept(&pair.key, &pair.key),
        "folder/server.key holds no PEM certificate"
    );
    assert_eq!(
        accept(&pair.cert, &pair.cert),
        "folder/server.crt holds no PEM private key"
    );
    assert!(
        accept(&pair.cert, &other.key).starts_with("the certificate and the key cannot be used")
    );
    let connect = |verification, root| {
        said(
            Connector::load(verification, root, None, &Helpers::none())
                .err()
                .unwrap(),
        )
    };
    assert_eq!(
        connect(Verification::Full, None),
        "verification needs a root certificate (sslrootcert)"
    );
    assert_eq!(
        connect(Verification::Chain, Some(&pair.key)),
        "folder/server.key holds no PEM certificate"
    );
}

/// A server made of our own client side: it negotiates, checks `me`'s password and says that it is ready.
async fn serve(listener: TcpListener, acceptor: Option<Acceptor>, method: Method) -> Vec<u8> {
    let (tcp, _) = listener.accept().await.unwrap();
    let stream = Stream::from_tcp(tcp).unwrap();
    let opening = negotiate(
        stream,
        acceptor.as_ref(),
        Policy {
            tls_required: false,
        },
    )
    .await;
    let Ok(Opening::Startup(mut startup)) = opening else {
        panic!("no start-up: {opening:?}")
    };
    let is_tls = startup.stream.is_tls();
    let binding = acceptor
        .as_ref()
        .filter(|_| is_tls)
        .and_then(Acceptor::channel_binding);
    let stored = Verifier::Plain("pencil".into());
    let authenticated = Authenticator::default()
        .authenticate(
            &mut startup.stream,
            method,
            startup.parameters.user(),
            Some(&stored),
            binding,
        )
        .await
        .unwrap();
    startup
        .stream
        .write_all(&authenticated.welcome)
        .await
        .unwrap();
    startup.stream.write_all(b"Z\0\0\0\x05I").await.unwrap();
    startup.stream.flush().await.unwrap();
    // A query, if any, is empty; then the end.
    let mut rest = Vec::new();
    let mut header = [0; 5];
    while startup.stream.read_exact(&mut header).await.is_ok() {
        rest.push(header[0]);
        let length = u32::from_be_bytes(header[1..].try_into().unwrap());
        let mut body = vec![0; length as usize - 4];
        startup.stream.read_exact(&mut body).await.unwrap();
        if header[0] == b'Q' {
            startup
                .stream
                .write_all(b"I\0\0\0\x04Z\0\0\0\x05I")
                .await
                .unwrap();
            startup.stream.flush().await.unwrap();
        }
    }
    rest
}

async fn log_in(port: u16, tls: ServerTls) -> Result<LoggedIn, ConnectError> {
    let encryption = Encryption::load(&tls, &Helpers::none())?;
    log_in_with(port, tls, &encryption).await
}

async fn log_in_with(
    port: u16,
    tls: ServerTls,
    encryption: &Encryption,
) -> Result<LoggedIn, ConnectError> {
    let dsn = Dsn {
        hosts: vec![Endpoint::Tcp {
            host: "127.0.0.1".into(),
            port,
        }],
        dbname: "me".into(),
        user: None,
        password: None,
        tls,
        connect_timeout: None,
        application_name: None,
        options: None,
        target: TargetSession::Any,
        shuffle_hosts: false,
    };
    let secret = Secret::Plain(Password("pencil".into()));
    connect(Login {
        dsn: &dsn,
        encryption,
        user: "me",
        secret: Some(&secret),
        derived: &Derived::new(Helpers::none()),
        parameters: &[],
        timeout: Duration::from_secs(10),
    })
    .await
}

#[tokio::test]
async fn scram_binds_to_the_certificate_whatever_hash_signed_it() {
    let algorithms = [
        (&PKCS_ECDSA_P256_SHA256, Some(32)),
        (&PKCS_ECDSA_P384_SHA384, Some(48)),
        (&PKCS_ED25519, None),
    ];
    for (algorithm, hash_bytes) in algorithms {
        let certificates = Certificates::signed_with(algorithm);
        let pair = certificates.make("server", Kind::LOCALHOST);
        let acceptor = Acceptor::load(&pair.cert, &pair.key, &Helpers::none()).unwrap();
        assert_eq!(acceptor.channel_binding().is_some(), hash_bytes.is_some());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(serve(listener, Some(acceptor), Method::ScramSha256));
        let tls = ServerTls {
            mode: SslMode::Require,
            ..ServerTls::default()
        };
        // Our client binds wherever it can, and a server that offers it refuses a client that could and did not.
        let mut server_side = log_in(port, tls).await.unwrap();
        assert!(server_side.address.encrypted && server_side.stream.is_quiet());
        assert_eq!(
            server_end_point(&server_side.stream).map(|hash| hash.len()),
            hash_bytes
        );
        drop(server_side);
        server.await.unwrap();
    }
}

/// Logs in to what `acceptor` serves; whether the session was resumed, and what it binds to.
async fn meet(acceptor: &Acceptor, encryption: &Encryption) -> (bool, Option<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(serve(listener, Some(acceptor.clone()), Method::ScramSha256));
    let tls = ServerTls {
        mode: SslMode::Require,
        ..ServerTls::default()
    };
    let logged_in = log_in_with(port, tls, encryption).await.unwrap();
    let Stream::TlsClient(stream) = &logged_in.stream else {
        panic!("it is not encrypted");
    };
    let kind = format!("{:?}", stream.get_ref().1.handshake_kind());
    let bound = server_end_point(&logged_in.stream);
    drop(logged_in);
    server.await.unwrap();
    (kind == "Some(Resumed)", bound)
}

/// Both sides of a resumed session bind to the certificate of the first one, so it must not outlive its certificate.
#[tokio::test]
async fn a_session_is_resumed_under_the_same_certificate_only_and_binds_to_it() {
    let certificates = Certificates::new();
    let (first, second) = (
        certificates.make("first", Kind::LOCALHOST),
        certificates.make("second", Kind::LOCALHOST),
    );
    let tls = ServerTls {
        mode: SslMode::Require,
        ..ServerTls::default()
    };
    // With helpers, which also means that the connections change their thread.
    let helpers = Helpers::start(1).unwrap();
    let encryption = Encryption::load(&tls, &helpers).unwrap();
    let acceptor = Acceptor::load(&first.cert, &first.key, &helpers).unwrap();
    let (resumed, bound) = meet(&acceptor, &encryption).await;
    assert!(!resumed && bound.is_some());
    for _ in 0..2 {
        assert_eq!(meet(&acceptor, &encryption).await, (true, bound.clone()));
    }
    let renewed = Acceptor::load(&second.cert, &second.key, &helpers).unwrap();
    let (resumed, other) = meet(&renewed, &encryption).await;
    assert!(!resumed && other != bound);
}

#[tokio::test]
async fn tls_is_used_when_it_is_offered_and_missed_only_when_it_is_required() {
    for (mode, expected) in [
        (SslMode::Disable, Ok(false)),
        (SslMode::Prefer, Ok(false)),
        (
            SslMode::Require,
            Err("57P03 the server does not offer TLS, which its connection string requires"),
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(serve(listener, None, Method::Md5));
        let result = log_in(
            port,
            ServerTls {
                mode,
                ..ServerTls::default()
            },
        )
        .await;
        let found = result
            .map(|server| server.address.encrypted)
            .map_err(|error| format!("{} {error}", error.sqlstate()));
        assert_eq!(found, expected.map_err(str::to_owned));
        server.abort();
    }
}

#[tokio::test]
async fn libpq_logs_in_over_tls_with_channel_binding_and_a_verified_host() {
    let certificates = Certificates::new();
    let pair = certificates.make("server", Kind::LOCALHOST);
    let root = certificates.root();
    let table = [
        (
            "host=localhost sslmode=verify-full channel_binding=require",
            true,
        ),
        (
            "host=localhost sslmode=require channel_binding=disable",
            true,
        ),
        (
            "host=localhost sslmode=disable channel_binding=prefer",
            true,
        ),
        (
            "host=localhost sslmode=disable channel_binding=require",
            false,
        ),
    ];
    for (dsn, welcome) in table {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = Acceptor::load(&pair.cert, &pair.key, &Helpers::none()).unwrap();
        let server = tokio::spawn(serve(listener, Some(acceptor), Method::ScramSha256));
        let dsn = format!(
            "{dsn} hostaddr=127.0.0.1 port={port} user=me password=pencil sslrootcert={}",
            root.display()
        );
        let psql = tokio::process::Command::new("psql")
            .args(["-X", "-d", &dsn, "-c", ""])
            .stdin(Stdio::null())
            .output()
            .await
            .expect("psql must be installed");
        let said = String::from_utf8_lossy(&psql.stderr);
        assert_eq!(psql.status.success(), welcome, "{dsn}\n{said}");
        if welcome {
            assert_eq!(server.await.unwrap().last(), Some(&b'X'));
        }
    }
}

#[tokio::test]
async fn a_client_may_begin_tls_at_once_if_it_names_the_protocol() {
    let certificates = Certificates::new();
    let pair = certificates.make("server", Kind::LOCALHOST);
    let acceptor = Acceptor::load(&pair.cert, &pair.key, &Helpers::none()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let opening = negotiate(
            Stream::from_tcp(tcp).unwrap(),
            Some(&acceptor),
            Policy { tls_required: true },
        )
        .await;
        match opening {
            Ok(Opening::Startup(startup)) => (startup.stream.is_tls(), startup.minor),
            other => panic!("{other:?}"),
        }
    });
    let connector = Connector::load(
        Verification::Full,
        Some(&certificates.root()),
        None,
        &Helpers::none(),
    )
    .unwrap();
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // Our connector names the protocol in every handshake.
    let mut stream = connector.connect(tcp, "localhost").await.unwrap();
    stream
        .write_all(b"\0\0\0\x11\0\x03\0\x02user\0me\0\0")
        .await
        .unwrap();
    stream.flush().await.unwrap();
    assert_eq!(server.await.unwrap(), (true, 2));
}

#[tokio::test]
async fn a_client_that_begins_tls_at_once_without_naming_the_protocol_is_refused() {
    let certificates = Certificates::new();
    let pair = certificates.make("server", Kind::LOCALHOST);
    let acceptor = Acceptor::load(&pair.cert, &pair.key, &Helpers::none()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let stream = Stream::from_tcp(tcp).unwrap();
        let failed = negotiate(stream, Some(&acceptor), Policy::default())
            .await
            .unwrap_err();
        assert!(failed.stream.is_none());
        failed.error
    });
    let pem = std::fs::read(certificates.root()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_pemfile::certs(&mut pem.as_slice()).flatten());
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let tls = connector
        .connect("localhost".try_into().unwrap(), tcp)
        .await;
    let error = server.await.unwrap();
    assert!(
        matches!(
            error,
            pgherd::wire::startup::StartupError::Tls(TlsError::NoProtocolNamed)
        ),
        "{error:?}"
    );
    drop(tls);
}
