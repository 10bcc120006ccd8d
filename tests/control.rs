//! Live: the control plane's connections, in clear and encrypted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/herd.rs"]
mod herd;
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::time::Duration;

use certificates::{Certificates, Kind};
use pgherd::backend::control::{Control, ControlError, ControlLimits};
use pgherd::config::{Dsn, Endpoint, Password, ServerTls, SslMode, TargetSession};
use pgherd::demo::{Options, Server, Servers};
use pgherd::error::Report;

#[tokio::test]
async fn control_connections_tell_errors_end_transactions_and_time_out() {
    let (dsn, control) = herd::database_of_its_own("control", 0);
    let rows = control
        .rows("SELECT 1, NULL, 'a'; SELECT 2, 'b', current_setting('application_name')")
        .await
        .unwrap();
    let text = |value: &str| Some(value.to_owned());
    assert_eq!(
        rows,
        [
            [text("1"), None, text("a")],
            [text("2"), text("b"), text("pgherd")]
        ]
    );

    let error = control.rows("SELECT 1/0").await.unwrap_err();
    assert_eq!(
        (error.sqlstate().code(), error.to_string()),
        ("22012", "control: division by zero".to_owned())
    );

    control
        .execute("CREATE TABLE public.t (i int)")
        .await
        .unwrap();
    let mut dropped = control.begin().await.unwrap();
    dropped
        .execute("INSERT INTO public.t VALUES (1)")
        .await
        .unwrap();
    drop(dropped);
    let mut kept = control.begin().await.unwrap();
    kept.execute("INSERT INTO public.t VALUES (2)")
        .await
        .unwrap();
    kept.commit().await.unwrap();
    let mut failed = control.begin().await.unwrap();
    failed
        .execute("INSERT INTO public.t VALUES (3)")
        .await
        .unwrap();
    failed.execute("SELECT 1/0").await.unwrap_err();
    assert!(matches!(
        failed.commit().await,
        Err(ControlError::TransactionFailed { .. })
    ));
    assert_eq!(
        control.rows("SELECT i FROM public.t").await.unwrap(),
        [[text("2")]]
    );

    let limits = ControlLimits {
        statement_timeout: Duration::from_millis(50),
        ..ControlLimits::default()
    };
    let hurried = Control::new("control", &dsn, limits).unwrap();
    let error = hurried.rows("SELECT pg_sleep(60)").await.unwrap_err();
    assert!(error.is_server("57014"), "{error:?}");

    let wrong = Dsn {
        dbname: "absent".to_owned(),
        ..dsn
    };
    let error = Control::new("control", &wrong, ControlLimits::default())
        .unwrap()
        .rows("SELECT 1")
        .await
        .unwrap_err();
    assert!(error.is_server("3D000"), "{error:?}");
}

#[tokio::test]
async fn a_session_is_closed_after_use_and_begins_blind_to_other_schemas() {
    let (_, control) = herd::database_of_its_own("sessions", 0);
    let path = "SELECT current_setting('search_path')";
    let is = |value: &str| [[Some(value.to_owned())]];
    assert_eq!(control.rows(path).await.unwrap(), is("pg_catalog"));
    let mut session = control.session().await.unwrap();
    session
        .execute("RESET search_path; SET work_mem = '99MB'")
        .await
        .unwrap();
    assert_eq!(session.rows(path).await.unwrap(), is("\"$user\", public"));
    let pid = session.rows("SELECT pg_backend_pid()").await.unwrap();
    drop(session);
    for _ in 0..4 {
        assert_ne!(control.rows("SELECT pg_backend_pid()").await.unwrap(), pid);
        assert_ne!(
            control
                .rows("SELECT current_setting('work_mem')")
                .await
                .unwrap(),
            is("99MB")
        );
    }
}

#[tokio::test]
async fn tls_is_used_and_verified_as_the_connection_string_asks() {
    let servers = Servers::start(&Options {
        label: "control-tls".to_owned(),
        statements: vec!["CREATE ROLE encrypted LOGIN PASSWORD 'secret'".to_owned()],
        hba: Some(
            "local all postgres trust\nhostssl all encrypted 127.0.0.1/32 scram-sha-256\n"
                .to_owned(),
        ),
        ..Options::default()
    })
    .unwrap();
    let server = &servers.all()[0];
    let certificates = Certificates::new();
    encrypt(server, &certificates);
    let stranger = Certificates::new();

    let dsn = |host: &str, mode, root: Option<&Certificates>| Dsn {
        hosts: vec![Endpoint::Tcp {
            host: host.to_owned(),
            port: server.port(),
        }],
        dbname: "postgres".to_owned(),
        user: Some("encrypted".to_owned()),
        password: Some(Password("secret".to_owned())),
        tls: ServerTls {
            mode,
            root_cert: root.map(Certificates::root),
            client_cert: None,
        },
        connect_timeout: None,
        application_name: None,
        options: None,
        target: TargetSession::Any,
        shuffle_hosts: false,
    };
    let ask = async |dsn: Dsn| {
        let control = Control::new("s", &dsn, ControlLimits::default())?;
        control
            .rows("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            .await
    };
    for good in [
        dsn("localhost", SslMode::Prefer, None),
        dsn("127.0.0.1", SslMode::Require, None),
        dsn("127.0.0.1", SslMode::VerifyCa, Some(&certificates)),
        dsn("localhost", SslMode::VerifyFull, Some(&certificates)),
    ] {
        let mode = good.tls.mode;
        assert_eq!(
            ask(good).await.unwrap(),
            [[Some("t".to_owned())]],
            "{mode:?}"
        );
    }
    for bad in [
        dsn("localhost", SslMode::VerifyCa, Some(&stranger)),
        dsn("127.0.0.1", SslMode::VerifyFull, Some(&certificates)),
    ] {
        let mode = bad.tls.mode;
        let error = ask(bad).await.unwrap_err();
        assert!(
            error.to_string().contains("certificate"),
            "{mode:?}: {error}"
        );
    }
    let error = ask(dsn("localhost", SslMode::Disable, None))
        .await
        .unwrap_err();
    assert!(error.is_server("28000"), "{error:?}");
}

fn encrypt(server: &Server, certificates: &Certificates) {
    let pair = certificates.make("server", Kind::LOCALHOST);
    let data = server.data_dir();
    let owner = fs::metadata(&data).unwrap();
    for (from, name) in [(&pair.cert, "server.crt"), (&pair.key, "server.key")] {
        let to = data.join(name);
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, Permissions::from_mode(0o600)).unwrap();
        chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    support::sql(server, "postgres", "ALTER SYSTEM SET ssl = on");
    support::sql(server, "postgres", "SELECT pg_reload_conf()");
    support::until("ssl is on", || {
        support::sql(server, "postgres", "SHOW ssl") == "on"
    });
}
