//! Connection strings in both spellings.

use std::time::Duration;

use super::super::dsn::{Context, parse};
use super::super::problems::Fault;
use super::*;

fn environment(name: &str) -> Option<String> {
    (name == "SECRET").then(|| "hunter2 'x' @/".to_owned())
}

fn read(text: &str) -> Result<Dsn, Vec<Fault>> {
    parse(
        text,
        &Context {
            folder: Path::new("/nowhere"),
            environment: &environment,
            dbname: "shop",
            password: None,
        },
    )
}

fn base() -> Dsn {
    Dsn {
        hosts: vec![Endpoint::Tcp {
            host: "h".to_owned(),
            port: 5432,
        }],
        dbname: "shop".to_owned(),
        user: None,
        password: None,
        tls: ServerTls::default(),
        connect_timeout: None,
        application_name: None,
        options: None,
        target: TargetSession::Any,
        shuffle_hosts: false,
    }
}

fn tcp(host: &str, port: u16) -> Endpoint {
    Endpoint::Tcp {
        host: host.to_owned(),
        port,
    }
}

fn unix(path: &str) -> Endpoint {
    Endpoint::Unix { path: path.into() }
}

fn target(target: TargetSession) -> Dsn {
    Dsn { target, ..base() }
}

fn tls(mode: SslMode) -> ServerTls {
    ServerTls {
        mode,
        ..ServerTls::default()
    }
}

#[allow(clippy::unnecessary_wraps, reason = "tables read better")]
fn password(text: &str) -> Option<Password> {
    Some(Password(text.to_owned()))
}

#[allow(clippy::unnecessary_wraps, reason = "tables read better")]
fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn both_spellings_mean_the_same_server() {
    for (keywords, uri, expected) in [
        ("host=h", "postgres://h", base()),
        (
            "host=h port=6543",
            "postgresql://h:6543",
            Dsn {
                hosts: vec![tcp("h", 6543)],
                ..base()
            },
        ),
        (
            "host=h dbname=d",
            "postgres://h/d",
            Dsn {
                dbname: "d".to_owned(),
                ..base()
            },
        ),
        (
            "host=h user=u",
            "postgres://u@h",
            Dsn {
                user: some("u"),
                ..base()
            },
        ),
        (
            r"host=h user=u password='a b\'\\c'",
            "postgres://u:a%20b'%5Cc@h",
            Dsn {
                user: some("u"),
                password: password(r"a b'\c"),
                ..base()
            },
        ),
        (
            "host=h user=u password=${SECRET}",
            "postgres://u:${SECRET}@h",
            Dsn {
                user: some("u"),
                password: password("hunter2 'x' @/"),
                ..base()
            },
        ),
        (
            "host=a,b,c port=1,,3",
            "postgres://a:1,b,c:3",
            Dsn {
                hosts: vec![tcp("a", 1), tcp("b", 5432), tcp("c", 3)],
                ..base()
            },
        ),
        (
            "host=a,b port=7",
            "postgres://a,b?port=7",
            Dsn {
                hosts: vec![tcp("a", 7), tcp("b", 7)],
                ..base()
            },
        ),
        (
            "host=::1 port=7",
            "postgres://[::1]:7",
            Dsn {
                hosts: vec![tcp("::1", 7)],
                ..base()
            },
        ),
        (
            "host=/run/pg",
            "postgres://%2Frun%2Fpg",
            Dsn {
                hosts: vec![unix("/run/pg/.s.PGSQL.5432")],
                ..base()
            },
        ),
        (
            "host=/run/pg,h port=5433,1",
            "postgres:///?host=/run/pg,h&port=5433,1",
            Dsn {
                hosts: vec![unix("/run/pg/.s.PGSQL.5433"), tcp("h", 1)],
                ..base()
            },
        ),
        (
            "host=h sslmode=disable",
            "postgres://h?sslmode=disable",
            Dsn {
                tls: tls(SslMode::Disable),
                ..base()
            },
        ),
        (
            "host=h sslmode=allow",
            "postgres://h?sslmode=allow",
            Dsn {
                tls: tls(SslMode::Prefer),
                ..base()
            },
        ),
        (
            "host=h sslmode=prefer",
            "postgres://h?sslmode=prefer",
            base(),
        ),
        (
            "host=h sslmode=require",
            "postgres://h?sslmode=require",
            Dsn {
                tls: tls(SslMode::Require),
                ..base()
            },
        ),
        (
            "host=h connect_timeout=3",
            "postgres://h?connect_timeout=3",
            Dsn {
                connect_timeout: Some(Duration::from_secs(3)),
                ..base()
            },
        ),
        (
            "host=h connect_timeout=0",
            "postgres://h?connect_timeout=0",
            base(),
        ),
        (
            "host=h application_name=a",
            "postgres://h?application_name=a",
            Dsn {
                application_name: some("a"),
                ..base()
            },
        ),
        (
            "host=h fallback_application_name=b application_name=a",
            "postgres://h?fallback_application_name=a",
            Dsn {
                application_name: some("a"),
                ..base()
            },
        ),
        (
            "host=h options='-c geqo=off'",
            "postgres://h?options=-c%20geqo%3Doff",
            Dsn {
                options: some("-c geqo=off"),
                ..base()
            },
        ),
        (
            "host=h target_session_attrs=any",
            "postgres://h?target_session_attrs=any",
            base(),
        ),
        (
            "host=h target_session_attrs=primary",
            "postgres://h?target_session_attrs=primary",
            target(TargetSession::Primary),
        ),
        (
            "host=h target_session_attrs=read-write",
            "postgres://h?target_session_attrs=read-write",
            target(TargetSession::ReadWrite),
        ),
        (
            "host=h target_session_attrs=read-only",
            "postgres://h?target_session_attrs=read-only",
            target(TargetSession::ReadOnly),
        ),
        (
            "host=h target_session_attrs=standby",
            "postgres://h?target_session_attrs=standby",
            target(TargetSession::Standby),
        ),
        (
            "host=h target_session_attrs=prefer-standby load_balance_hosts=disable",
            "postgres://h?target_session_attrs=prefer-standby",
            target(TargetSession::PreferStandby),
        ),
        (
            "host=h load_balance_hosts=random",
            "postgres://h?load_balance_hosts=random",
            Dsn {
                shuffle_hosts: true,
                ..base()
            },
        ),
        ("host=x host=h", "postgres://x?host=h", base()),
        ("host=h dbname='' user=''", "postgres://:@h/?user=", base()),
    ] {
        assert_eq!(read(keywords).as_ref(), Ok(&expected), "{keywords}");
        assert_eq!(read(uri).as_ref(), Ok(&expected), "{uri}");
    }
}

#[test]
fn a_wrong_connection_string_is_named_but_never_shown() {
    for (text, expected) in [
        ("", "names no host"),
        ("dbname=hunter2", "names no host"),
        ("postgres:///hunter2", "names no host"),
        (
            "host=h port=hunter2",
            "a port is not a number from 1 to 65535",
        ),
        ("host=h port=0", "a port is not a number from 1 to 65535"),
        (
            "host=h port=65536",
            "a port is not a number from 1 to 65535",
        ),
        ("host=a,b,c port=1,2", "there are 3 hosts but 2 ports"),
        (
            "postgres://u:hunter2/x@h/d",
            "a port is not a number from 1 to 65535",
        ),
        (
            "postgres://u:x@h@hunter2/d",
            "a host is neither a name nor an address nor a folder",
        ),
        (
            "postgres://hunter2 h/d",
            "a host is neither a name nor an address nor a folder",
        ),
        (
            "host=h:hunter2",
            "a host is neither a name nor an address nor a folder",
        ),
        ("host=h sslmode=hunter2", "sslmode has no such value"),
        (
            "host=h sslmode=verify-full",
            "sslmode verifies the server, but no sslrootcert says against which authority",
        ),
        (
            "host=h sslmode=verify-ca",
            "sslmode verifies the server, but no sslrootcert says against which authority",
        ),
        (
            "host=h sslrootcert=system",
            "sslrootcert=system is not supported",
        ),
        (
            "host=h sslrootcert=ca.pem",
            "the file /nowhere/ca.pem cannot be read: entity not found",
        ),
        (
            "host=h sslcert=/c.pem",
            "sslcert and sslkey belong together",
        ),
        ("host=h sslkey=/k.pem", "sslcert and sslkey belong together"),
        (
            "host=h user=u passfile=pass",
            "the file /nowhere/pass cannot be read: entity not found",
        ),
        (
            "host=h user=u passfile=pass password=hunter2",
            "the password is given twice",
        ),
        ("host=h password=hunter2", "there is a password but no user"),
        (
            "host=h target_session_attrs=hunter2",
            "target_session_attrs has no such value",
        ),
        (
            "host=h load_balance_hosts=hunter2",
            "load_balance_hosts has no such value",
        ),
        (
            "host=h connect_timeout=hunter2",
            "connect_timeout is not a whole number of seconds",
        ),
        (
            "host=h hostaddr=1.2.3.4",
            "the keyword hostaddr is not supported",
        ),
        ("host=h service=x", "the keyword service is not supported"),
        (
            "host=h password=my hunter2=3",
            "setting 3 of the connection string is none that libpq knows",
        ),
        (
            "host=h password=my hunter2",
            "setting 3 of the connection string has no \"=\"",
        ),
        (
            "postgres://u@h/d?hunter2=3",
            "setting 4 of the connection string is none that libpq knows",
        ),
        ("hunter2", "setting 1 of the connection string has no \"=\""),
    ] {
        let faults = read(text).expect_err(text);
        assert_eq!(
            faults.first().map(|fault| fault.problem.as_str()),
            Some(expected),
            "{text}"
        );
        assert!(
            !format!("{faults:?}").contains("hunter2"),
            "{text}: {faults:?}"
        );
    }
}

#[test]
fn all_faults_of_one_string_are_found() {
    let faults = read("host=h prot=1 sslmod=require sslcert=x target_session_attrs=x port=x")
        .expect_err("wrong");
    let remedies: Vec<&str> = faults.iter().map(|fault| fault.remedy.as_str()).collect();
    assert_eq!(faults.len(), 5, "{faults:?}");
    assert!(
        remedies.contains(&"did you mean port?") && remedies.contains(&"did you mean sslmode?"),
        "{remedies:?}"
    );
}

#[test]
fn a_password_is_hidden_from_logs() {
    let dsn = read("host=h user=u password=hunter2").expect("a good string");
    assert!(!format!("{dsn:?}").contains("hunter2"));
}
