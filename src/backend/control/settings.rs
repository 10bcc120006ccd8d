//! From one connection string to what the drivers of the control plane want to hear.

use std::time::Duration;

use tokio_postgres::config::SslMode as PgSslMode;

use super::ControlError;
use crate::backend::connect::{ConnectError, Encryption};
use crate::config::{Dsn, Endpoint, SslMode};
use crate::wire::helpers::Helpers;

pub(super) fn connection_settings(
    server: &str,
    dsn: &Dsn,
    connect_timeout: Duration,
) -> Result<tokio_postgres::Config, ControlError> {
    let server = || server.to_owned();
    let Some(user) = &dsn.user else {
        return Err(ControlError::NoUser { server: server() });
    };
    let mut config = tokio_postgres::Config::new();
    config
        .user(user)
        .dbname(&dsn.dbname)
        .application_name("pgherd");
    if let Some(password) = &dsn.password {
        config.password(&password.0);
    }
    for endpoint in &dsn.hosts {
        match endpoint {
            Endpoint::Tcp { host, port } => config.host(host).port(*port),
            Endpoint::Unix { path } => {
                let port = path
                    .file_name()
                    .and_then(|name| name.to_str()?.strip_prefix(".s.PGSQL.")?.parse().ok());
                let (Some(folder), Some(port)) = (path.parent(), port) else {
                    return Err(ControlError::SocketName { server: server() });
                };
                config.host_path(folder).port(port)
            }
        };
    }
    config.connect_timeout(connect_timeout);
    config.ssl_mode(match dsn.tls.mode {
        _ if !reaches_over_tcp(dsn) => PgSslMode::Disable,
        SslMode::Disable => PgSslMode::Disable,
        SslMode::Prefer => PgSslMode::Prefer,
        // What is verified is the connector's affair.
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => PgSslMode::Require,
    });
    if let Some(options) = &dsn.options {
        config.options(options);
    }
    Ok(config)
}

/// Unix sockets have no TLS, whatever `sslmode` says, as in libpq.
fn reaches_over_tcp(dsn: &Dsn) -> bool {
    dsn.hosts
        .iter()
        .any(|endpoint| matches!(endpoint, Endpoint::Tcp { .. }))
}

pub(super) fn encryption(server: &str, dsn: &Dsn) -> Result<Encryption, ControlError> {
    if !reaches_over_tcp(dsn) {
        return Ok(Encryption::Off);
    }
    let here = Helpers::none();
    Encryption::load(&dsn.tls, &here).map_err(|cause: ConnectError| ControlError::TlsFiles {
        server: server.to_owned(),
        cause: Box::new(cause),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{Password, ServerTls, TargetSession};
    use crate::error::Report;

    /// Nobody listens there.
    pub fn dsn() -> Dsn {
        Dsn {
            hosts: vec![Endpoint::Tcp {
                host: "127.0.0.1".to_owned(),
                port: 1,
            }],
            dbname: "shop".to_owned(),
            user: Some("control".to_owned()),
            password: Some(Password("correct horse".to_owned())),
            tls: ServerTls::default(),
            connect_timeout: None,
            application_name: None,
            options: None,
            target: TargetSession::Any,
            shuffle_hosts: false,
        }
    }

    fn settings(dsn: &Dsn) -> Result<tokio_postgres::Config, ControlError> {
        connection_settings("shop/s0", dsn, Duration::from_secs(5))
    }

    #[test]
    fn a_string_that_cannot_serve_is_refused_before_connecting() {
        let error = settings(&Dsn {
            user: None,
            ..dsn()
        })
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "shop/s0: the control connection string names no user"
        );
        assert!(error.advice().unwrap().contains("`control`"));
        let hosts = vec![Endpoint::Unix {
            path: "/tmp/postgres.sock".into(),
        }];
        let error = settings(&Dsn { hosts, ..dsn() }).unwrap_err();
        assert!(
            matches!(error, ControlError::SocketName { .. }),
            "{error:?}"
        );
    }

    #[test]
    fn the_session_is_named_and_a_socket_becomes_its_folder_and_port() {
        let config = settings(&Dsn {
            options: Some("-c work_mem=64kB".to_owned()),
            ..dsn()
        })
        .unwrap();
        assert_eq!(config.get_application_name(), Some("pgherd"));
        assert_eq!(config.get_options(), Some("-c work_mem=64kB"));
        let hosts = vec![Endpoint::Unix {
            path: "/run/pg/.s.PGSQL.5433".into(),
        }];
        let config = settings(&Dsn { hosts, ..dsn() }).unwrap();
        assert_eq!(config.get_ports(), [5433]);
        assert_eq!(
            config.get_hosts(),
            [tokio_postgres::config::Host::Unix("/run/pg".into())]
        );
    }

    #[test]
    fn sslmode_keeps_its_meaning_but_on_unix_sockets_where_there_is_no_tls() {
        let tls = |mode| ServerTls {
            mode,
            ..ServerTls::default()
        };
        for (mode, expected) in [
            (SslMode::Disable, PgSslMode::Disable),
            (SslMode::Prefer, PgSslMode::Prefer),
            (SslMode::Require, PgSslMode::Require),
            (SslMode::VerifyCa, PgSslMode::Require),
            (SslMode::VerifyFull, PgSslMode::Require),
        ] {
            let config = settings(&Dsn {
                tls: tls(mode),
                ..dsn()
            })
            .unwrap();
            assert_eq!(config.get_ssl_mode(), expected, "{mode:?}");
        }
        let hosts = vec![Endpoint::Unix {
            path: "/run/pg/.s.PGSQL.5433".into(),
        }];
        let local = Dsn {
            hosts,
            tls: tls(SslMode::VerifyFull),
            ..dsn()
        };
        assert_eq!(settings(&local).unwrap().get_ssl_mode(), PgSslMode::Disable);
        assert!(matches!(encryption("s", &local), Ok(Encryption::Off)));
        let unreadable = Dsn {
            tls: tls(SslMode::VerifyFull),
            ..dsn()
        };
        assert!(matches!(
            encryption("s", &unreadable),
            Err(ControlError::TlsFiles { .. })
        ));
    }
}
