//! Live: logging in to PostgreSQL in every way that it asks for, and cancelling what runs there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/certificates.rs"]
mod certificates;
mod support;

use std::time::{Duration, Instant};

use certificates::{Certificates, Kind};
use pgherd::backend::connect::{ConnectError, Encryption, LoggedIn, Login, cancel, connect};
use pgherd::config::{Dsn, Endpoint, Password, Secret, ServerTls, SslMode, TargetSession};
use pgherd::demo::{Options, Server, Servers};
use pgherd::error::Report;
use pgherd::wire::derived::Derived;
use pgherd::wire::helpers::Helpers;
use pgherd::wire::scram::md5_stored;
use pgherd::wire::tls::server_end_point;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HBA: &str = "
local all postgres trust
host all trusted 127.0.0.1/32 trust
local all trusted trust
host all cleartext 127.0.0.1/32 password
host all md5 127.0.0.1/32 md5
hostssl all encrypted 127.0.0.1/32 scram-sha-256
hostssl all certified 127.0.0.1/32 cert
host all scram 127.0.0.1/32 scram-sha-256
local all scram scram-sha-256
";
const ROLES: [&str; 6] = [
    "trusted",
    "cleartext",
    "md5",
    "scram",
    "encrypted",
    "certified",
];
const PASSWORD: &str = "päss wörd";
const LIMIT: Duration = Duration::from_secs(10);

struct Place {
    servers: Servers,
    certificates: Certificates,
}

/// A server with TLS and a role for each way to log in.
fn start() -> Place {
    let mut statements = Vec::new();
    for role in ROLES {
        let encryption = if role == "md5" {
            "md5"
        } else {
            "scram-sha-256"
        };
        statements.push(format!("SET password_encryption = '{encryption}'"));
        statements.push(format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'"));
    }
    let options = Options {
        label: "login".to_owned(),
        statements,
        hba: Some(HBA.to_owned()),
        ..Options::default()
    };
    let servers = Servers::start(&options).unwrap();
    let certificates = Certificates::new();
    let pair = certificates.make("server", Kind::LOCALHOST);
    support::encrypt(
        &servers.all()[0],
        &pair.cert,
        &pair.key,
        &certificates.root(),
    );
    Place {
        servers,
        certificates,
    }
}

impl Place {
    fn server(&self) -> &Server {
        &self.servers.all()[0]
    }

    fn dsn(&self, host: &str, tls: ServerTls) -> Dsn {
        let port = self.server().port();
        let endpoint = match host {
            "unix" => {
                let path = self.server().socket_dir().join(format!(".s.PGSQL.{port}"));
                Endpoint::Unix { path }
            }
            _ => Endpoint::Tcp {
                host: host.to_owned(),
                port,
            },
        };
        Dsn {
            hosts: vec![endpoint],
            dbname: "postgres".into(),
            user: None,
            password: None,
            tls,
            connect_timeout: None,
            application_name: Some("herd".into()),
            options: Some("-c work_mem=5MB".into()),
            target: TargetSession::Any,
            shuffle_hosts: false,
        }
    }

    fn tls(&self, mode: SslMode) -> ServerTls {
        ServerTls {
            mode,
            root_cert: Some(self.certificates.root()),
            client_cert: None,
        }
    }
}

async fn log_in(dsn: &Dsn, user: &str, secret: Option<&Secret>) -> Result<LoggedIn, ConnectError> {
    let nothing = Derived::new(Helpers::none());
    log_in_with(dsn, user, secret, &nothing).await
}

async fn log_in_with(
    dsn: &Dsn,
    user: &str,
    secret: Option<&Secret>,
    derived: &Derived,
) -> Result<LoggedIn, ConnectError> {
    let encryption = Encryption::load(&dsn.tls, &Helpers::none())?;
    let login = Login {
        dsn,
        encryption: &encryption,
        user,
        secret,
        derived,
        parameters: &[],
        timeout: LIMIT,
    };
    connect(login).await
}

/// How it went: the user and whether it was encrypted, or the SQLSTATE and the message.
async fn outcome(dsn: &Dsn, user: &str, secret: Option<&Secret>) -> String {
    match log_in(dsn, user, secret).await {
        Ok(mut server) => {
            let encrypted = if server.address.encrypted {
                "encrypted"
            } else {
                "clear"
            };
            assert!(server.stream.is_quiet() && server.pid > 0 && server.key.len() == 4);
            format!(
                "{encrypted} {}",
                value(&mut server, "SELECT current_user").await
            )
        }
        Err(error) => format!("{} {error}", error.sqlstate()),
    }
}

async fn query(server: &mut LoggedIn, sql: &str) {
    let length = u32::try_from(sql.len() + 5).unwrap();
    let message = [b"Q", &length.to_be_bytes()[..], sql.as_bytes(), b"\0"].concat();
    server.stream.write_all(&message).await.unwrap();
    server.stream.flush().await.unwrap();
}

/// The frames up to ReadyForQuery.
async fn replies(server: &mut LoggedIn) -> Vec<(u8, Vec<u8>)> {
    let mut replies = Vec::new();
    while replies.last().is_none_or(|(tag, _)| *tag != b'Z') {
        let tag = server.stream.read_u8().await.unwrap();
        let mut body = vec![0; server.stream.read_u32().await.unwrap() as usize - 4];
        server.stream.read_exact(&mut body).await.unwrap();
        replies.push((tag, body));
    }
    replies
}

/// The first field of the first row.
async fn value(server: &mut LoggedIn, sql: &str) -> String {
    query(server, sql).await;
    let replies = replies(server).await;
    let (_, row) = replies.iter().find(|(tag, _)| *tag == b'D').unwrap();
    String::from_utf8(row[6..].to_vec()).unwrap()
}

fn plain(password: &str) -> Secret {
    Secret::Plain(Password(password.into()))
}

#[tokio::test]
async fn every_way_to_log_in_is_taken_and_every_refusal_is_the_servers() {
    use SslMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
    let place = start();
    let right = plain(PASSWORD);
    let wrong = plain("wrong");
    let md5 = Secret::Md5(md5_stored("md5", PASSWORD));
    let scram = Secret::Scram {
        iterations: 4096,
        salt: vec![0; 16],
        stored_key: vec![0; 32],
        server_key: vec![0; 32],
    };
    let failed = |user: &str| format!("28P01 password authentication failed for user \"{user}\"");
    let unusable = |user: &str| {
        format!(
            "28P01 the server asks for a password of user \"{user}\", and none is known that it can take"
        )
    };
    let welcome = |how: &str, user: &str| format!("{how} {user}");
    let table = [
        ("unix", Disable, "trusted", None, welcome("clear", "trusted")),
        ("unix", VerifyFull, "scram", Some(&right), welcome("clear", "scram")),
        ("127.0.0.1", Disable, "trusted", None, welcome("clear", "trusted")),
        ("127.0.0.1", Disable, "cleartext", Some(&right), welcome("clear", "cleartext")),
        ("127.0.0.1", Disable, "md5", Some(&right), welcome("clear", "md5")),
        ("127.0.0.1", Disable, "md5", Some(&md5), welcome("clear", "md5")),
        ("127.0.0.1", Disable, "scram", Some(&right), welcome("clear", "scram")),
        ("127.0.0.1", Prefer, "scram", Some(&right), welcome("encrypted", "scram")),
        ("127.0.0.1", Require, "encrypted", Some(&right), welcome("encrypted", "encrypted")),
        ("127.0.0.1", VerifyCa, "encrypted", Some(&right), welcome("encrypted", "encrypted")),
        ("localhost", VerifyFull, "encrypted", Some(&right), welcome("encrypted", "encrypted")),
        ("127.0.0.1", VerifyFull, "encrypted", Some(&right), "57P03 TLS towards the server failed".into()),
        ("127.0.0.1", Disable, "cleartext", Some(&wrong), failed("cleartext")),
        ("127.0.0.1", Disable, "md5", Some(&wrong), failed("md5")),
        ("127.0.0.1", Disable, "scram", Some(&wrong), failed("scram")),
        ("127.0.0.1", Require, "encrypted", Some(&wrong), failed("encrypted")),
        ("127.0.0.1", Disable, "cleartext", None, unusable("cleartext")),
        ("127.0.0.1", Disable, "md5", None, unusable("md5")),
        ("127.0.0.1", Disable, "scram", None, unusable("scram")),
        ("127.0.0.1", Disable, "scram", Some(&scram), unusable("scram")),
        ("127.0.0.1", Disable, "scram", Some(&md5), unusable("scram")),
        (
            "127.0.0.1",
            Disable,
            "encrypted",
            Some(&right),
            "28000 no pg_hba.conf entry for host \"127.0.0.1\", user \"encrypted\", database \"postgres\", no encryption".into(),
        ),
        ("127.0.0.1", Require, "certified", Some(&right), "28000 connection requires a valid client certificate".into()),
    ];
    for (number, (host, mode, user, secret, expected)) in table.into_iter().enumerate() {
        let tls = ServerTls {
            root_cert: None,
            ..place.tls(mode)
        };
        let tls = if matches!(mode, VerifyCa | VerifyFull) {
            place.tls(mode)
        } else {
            tls
        };
        let found = outcome(&place.dsn(host, tls), user, secret).await;
        assert_eq!(found, expected, "row {number}");
    }

    let named = place.certificates.make(
        "client",
        Kind {
            common_name: "certified",
            ..Kind::LOCALHOST
        },
    );
    let tls = ServerTls {
        client_cert: Some((named.cert, named.key)),
        ..place.tls(VerifyCa)
    };
    assert_eq!(
        outcome(&place.dsn("127.0.0.1", tls), "certified", None).await,
        "encrypted certified"
    );
    // A root certificate makes `require` check it, as libpq does.
    let others = ServerTls {
        root_cert: Some(Certificates::new().root()),
        ..place.tls(Require)
    };
    assert!(
        log_in(&place.dsn("127.0.0.1", others), "trusted", None)
            .await
            .is_err()
    );

    a_changed_password_is_noticed(&place).await;
    channel_binding_is_used(&place, &right).await;
    parameters_reach_the_server(&place).await;
    the_next_host_is_tried(&place, &right).await;
    what_runs_is_cancelled(&place, &right).await;
}

/// Where our side has a hash to bind to, it chooses SCRAM-SHA-256-PLUS or tells the server that it could; PostgreSQL
/// refuses a wrong binding, and a client that could bind and did not.
/// What is kept of a password must not outlive it, on either side.
async fn a_changed_password_is_noticed(place: &Place) {
    let dsn = place.dsn("127.0.0.1", ServerTls::default());
    let derived = Derived::new(Helpers::none());
    let change = |password: &str| {
        let text = format!("ALTER ROLE scram PASSWORD '{password}'");
        support::sql(place.server(), "postgres", &text);
    };
    let enters = async |password: &str| {
        let secret = plain(password);
        let entered = log_in_with(&dsn, "scram", Some(&secret), &derived).await;
        entered.is_ok()
    };
    change("first");
    assert!(enters("first").await && enters("first").await);
    // The same password with another salt, then another password, then the first one again.
    change("first");
    assert!(enters("first").await);
    change("second");
    assert!(!enters("first").await && enters("second").await);
    change("first");
    assert!(!enters("second").await && enters("first").await);
    change(PASSWORD);
}

async fn channel_binding_is_used(place: &Place, right: &Secret) {
    let dsn = place.dsn("127.0.0.1", place.tls(SslMode::Require));
    let server = log_in(&dsn, "encrypted", Some(right)).await.unwrap();
    assert_eq!(
        server_end_point(&server.stream).map(|hash| hash.len()),
        Some(32)
    );
}

async fn parameters_reach_the_server(place: &Place) {
    let dsn = place.dsn("unix", ServerTls::default());
    let mut server = log_in(&dsn, "trusted", None).await.unwrap();
    assert_eq!(value(&mut server, "SHOW application_name").await, "herd");
    assert_eq!(value(&mut server, "SHOW work_mem").await, "5MB");
    let reported = |name: &str| {
        server
            .parameters
            .iter()
            .find(|(known, _)| known == name)
            .unwrap()
            .1
            .clone()
    };
    assert_eq!(reported("application_name"), "herd");
    assert_eq!(reported("client_encoding"), "UTF8");

    let encryption = Encryption::Off;
    let parameters = [
        ("application_name", "client"),
        ("DateStyle", "German"),
        ("user", "nobody"),
    ];
    let login = Login {
        dsn: &dsn,
        encryption: &encryption,
        user: "trusted",
        secret: None,
        derived: &Derived::new(Helpers::none()),
        parameters: &parameters,
        timeout: LIMIT,
    };
    let mut server = connect(login).await.unwrap();
    assert_eq!(
        value(
            &mut server,
            "SELECT current_setting('application_name') || current_user"
        )
        .await,
        "clienttrusted"
    );
    assert_eq!(value(&mut server, "SHOW DateStyle").await, "German, DMY");
}

async fn the_next_host_is_tried(place: &Place, right: &Secret) {
    // A port that nobody listens on: it was free a moment ago and belongs to no server.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut dsn = place.dsn("127.0.0.1", ServerTls::default());
    dsn.hosts.insert(
        0,
        Endpoint::Tcp {
            host: "127.0.0.1".into(),
            port: free,
        },
    );
    dsn.hosts.insert(
        1,
        Endpoint::Unix {
            path: "/nowhere/.s.PGSQL.1".into(),
        },
    );
    assert_eq!(outcome(&dsn, "scram", Some(right)).await, "encrypted scram");
    dsn.hosts.truncate(2);
    assert_eq!(
        outcome(&dsn, "scram", Some(right)).await,
        "57P03 no server can be reached"
    );

    // Nobody accepts here: the kernel completes the connection and no word ever comes.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    dsn.hosts = vec![Endpoint::Tcp {
        host: "127.0.0.1".into(),
        port: silent.local_addr().unwrap().port(),
    }];
    dsn.connect_timeout = Some(Duration::from_millis(100));
    assert_eq!(
        outcome(&dsn, "scram", Some(right)).await,
        "57P03 no server answered within 100ms"
    );
}

async fn what_runs_is_cancelled(place: &Place, right: &Secret) {
    for (host, mode) in [
        ("unix", SslMode::Disable),
        ("127.0.0.1", SslMode::Disable),
        ("127.0.0.1", SslMode::Require),
    ] {
        let dsn = place.dsn(host, place.tls(mode));
        let encryption = Encryption::load(&dsn.tls, &Helpers::none()).unwrap();
        let mut server = log_in(&dsn, "scram", Some(right)).await.unwrap();
        query(&mut server, "SELECT pg_sleep(60)").await;
        let pid = server.pid;
        let runs = format!("SELECT wait_event FROM pg_stat_activity WHERE pid = {pid}");
        support::until("it sleeps", || {
            support::sql(place.server(), "postgres", &runs) == "PgSleep"
        });

        let wrong_key: Vec<u8> = server.key.iter().map(|byte| byte ^ 1).collect();
        cancel(&server.address, &encryption, pid, &wrong_key, LIMIT)
            .await
            .unwrap();
        assert_eq!(support::sql(place.server(), "postgres", &runs), "PgSleep");

        let begun = Instant::now();
        cancel(&server.address, &encryption, pid, &server.key, LIMIT)
            .await
            .unwrap();
        let replies = replies(&mut server).await;
        assert!(begun.elapsed() < LIMIT);
        let (_, error) = replies.iter().find(|(tag, _)| *tag == b'E').unwrap();
        assert!(String::from_utf8_lossy(error).contains("C57014"), "{host}");
    }
}
