//! A connection string as meant: [`Dsn`].
//!
//! Knows libpq's keywords; one of the two doors of tokio-postgres, whose own parser reads what is left after the keys
//! that it does not know (files, `verify-full` and the like) are taken out. What would surprise: nothing is taken from
//! the surroundings as libpq would (`PGHOST`, `~/.pgpass`, the name of the operating-system user); a proxy connects as
//! its file says. And `sslmode=require` with a root certificate verifies the authority, as in libpq.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use tokio_postgres::config::Host;

use super::dsn_text::{self, Settings};
use super::keys::closest;
use super::problems::{Fault, Problem, Problems};
use super::values::{Environment, resolve};
use super::{Dsn, Endpoint, Password, ServerTls, SslMode, TargetSession, passfile};

/// What a connection string means depends on where it stands.
pub(super) struct Context<'a> {
    /// Where relative file names start.
    pub folder: &'a Path,
    pub environment: Environment<'a>,
    /// The database when the string names none.
    pub dbname: &'a str,
    /// The password from a file that stands beside the string.
    pub password: Option<Password>,
}

const DEFAULT_PORT: u16 = 5432;
/// `sun_path` of Linux without its closing NUL.
pub(super) const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What tokio-postgres reads.
const PLAIN: &[&str] = &[
    "host",
    "port",
    "dbname",
    "user",
    "password",
    "connect_timeout",
    "application_name",
    "options",
];
/// What is taken out before.
const OURS: &[&str] = &[
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "passfile",
    "target_session_attrs",
    "load_balance_hosts",
    "fallback_application_name",
];
/// What libpq knows and pgherd does not, so that the answer can say so.
const LIBPQ_ONLY: &[&str] = &[
    "channel_binding",
    "client_encoding",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "max_protocol_version",
    "min_protocol_version",
    "replication",
    "require_auth",
    "requirepeer",
    "requiressl",
    "scram_client_key",
    "scram_server_key",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkeylogfile",
    "sslnegotiation",
    "sslpassword",
    "sslsni",
    "tcp_user_timeout",
];

impl Dsn {
    /// Reads one connection string outside a configuration file; `dbname` is the database when the text names none.
    /// Files are relative to the current folder, and `${NAME}` is not replaced.
    pub fn parse(text: &str, dbname: &str) -> Result<Dsn, Problems> {
        let context = Context {
            folder: Path::new(""),
            environment: &|_| None,
            dbname,
            password: None,
        };
        parse(text, &context).map_err(|faults| {
            let problem = |fault: Fault| Problem {
                path: "connection string".to_owned(),
                problem: fault.problem,
                remedy: fault.remedy,
            };
            Problems(faults.into_iter().map(problem).collect())
        })
    }
}

/// Reads a connection string; every fault is found, and none shows any piece of the text.
pub(super) fn parse(text: &str, context: &Context) -> Result<Dsn, Vec<Fault>> {
    let mut settings =
        dsn_text::settings(text, context.environment).map_err(|fault| vec![fault])?;
    // For libpq an empty value is the same as none.
    settings.retain(|(_, value)| !value.is_empty());
    let mut faults = unknown(&settings);
    let mut keep = |result: Result<(), Fault>| faults.extend(result.err());

    let mut tls = ServerTls::default();
    keep(server_tls(&mut settings, context).map(|read| tls = read));
    let mut target = TargetSession::Any;
    keep(target_session(&mut settings).map(|read| target = read));
    let mut shuffle_hosts = false;
    keep(load_balance(&mut settings).map(|read| shuffle_hosts = read));
    let pass_file = take(&mut settings, "passfile");
    if let Some(name) = take(&mut settings, "fallback_application_name") {
        settings.insert(0, ("application_name".to_owned(), name));
    }
    keep(numbers(&settings));
    if !faults.is_empty() {
        return Err(faults);
    }

    let plain = plain(&settings).map_err(|fault| vec![fault])?;
    let hosts = endpoints(&plain).map_err(|fault| vec![fault])?;
    let text = |value: Option<&str>| value.map(str::to_owned);
    let mut dsn = Dsn {
        hosts,
        dbname: plain.get_dbname().unwrap_or(context.dbname).to_owned(),
        user: text(plain.get_user()),
        password: plain
            .get_password()
            .map(|bytes| Password(String::from_utf8_lossy(bytes).into_owned())),
        tls,
        connect_timeout: plain.get_connect_timeout().copied(),
        application_name: text(plain.get_application_name()),
        options: text(plain.get_options()),
        target,
        shuffle_hosts,
    };
    dsn.password = password(&dsn, pass_file.as_deref(), context).map_err(|fault| vec![fault])?;
    Ok(dsn)
}

/// Removes every occurrence of a keyword and returns the last value.
fn take(settings: &mut Settings, key: &str) -> Option<String> {
    settings
        .extract_if(.., |(name, _)| name == key)
        .last()
        .map(|(_, value)| value)
}

/// A fault for each keyword that cannot be used, by its place: its text may be a piece of a password.
fn unknown(settings: &Settings) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, (key, _)) in settings.iter().enumerate() {
        let key = key.as_str();
        if PLAIN.contains(&key) || OURS.contains(&key) {
            continue;
        }
        if key == "hostaddr" {
            faults.push(Fault::new(
                "the keyword hostaddr is not supported",
                "write the address as host=…",
            ));
        } else if LIBPQ_ONLY.contains(&key) {
            faults.push(Fault::new(
                format!("the keyword {key} is not supported"),
                "remove it from the connection string",
            ));
        } else {
            let known = PLAIN.iter().chain(OURS).chain(LIBPQ_ONLY).copied();
            let remedy = match closest(key, known) {
                Some(near) => format!("did you mean {near}?"),
                None => "check the spelling, and put values with spaces in 'single quotes' (in a URI: percent-encode them)".to_owned(),
            };
            faults.push(Fault::new(
                format!(
                    "setting {} of the connection string is none that libpq knows",
                    index + 1
                ),
                remedy,
            ));
        }
    }
    faults
}

fn server_tls(settings: &mut Settings, context: &Context) -> Result<ServerTls, Fault> {
    let mode = take(settings, "sslmode");
    let root_cert = take(settings, "sslrootcert");
    let cert = take(settings, "sslcert");
    let key = take(settings, "sslkey");
    let mut mode = match mode.as_deref() {
        Some("disable") => SslMode::Disable,
        None | Some("allow" | "prefer") => SslMode::Prefer,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("verify-full") => SslMode::VerifyFull,
        Some(_) => {
            return Err(Fault::new(
                "sslmode has no such value",
                "write disable, allow, prefer, require, verify-ca or verify-full",
            ));
        }
    };
    match (&root_cert, mode) {
        (Some(file), _) if file == "system" => {
            return Err(Fault::new(
                "sslrootcert=system is not supported",
                "name the file with the system's authorities, such as /etc/ssl/certs/ca-certificates.crt",
            ));
        }
        (Some(_), SslMode::Require) => mode = SslMode::VerifyCa,
        (None, SslMode::VerifyCa | SslMode::VerifyFull) => {
            return Err(Fault::new(
                "sslmode verifies the server, but no sslrootcert says against which authority",
                "add sslrootcert=FILE with the certificate of the authority in PEM form",
            ));
        }
        _ => {}
    }
    let file = |file: String| readable(resolve(context.folder, context.environment, &file));
    let client_cert = match (cert, key) {
        (Some(cert), Some(key)) => Some((file(cert)?, file(key)?)),
        (None, None) => None,
        _ => {
            return Err(Fault::new(
                "sslcert and sslkey belong together",
                "give both files or neither",
            ));
        }
    };
    Ok(ServerTls {
        mode,
        root_cert: root_cert.map(file).transpose()?,
        client_cert,
    })
}

fn readable(path: PathBuf) -> Result<PathBuf, Fault> {
    match fs::File::open(&path) {
        Ok(_) => Ok(path),
        Err(error) => Err(cannot_read(&path, &error)),
    }
}

/// The fault of a file that is named somewhere and cannot be read.
pub(super) fn cannot_read(path: &Path, error: &std::io::Error) -> Fault {
    let remedy = match error.kind() {
        std::io::ErrorKind::NotFound => {
            "create it, or correct the name (relative names start at the folder of the configuration file)"
        }
        std::io::ErrorKind::PermissionDenied => "let the user that runs pgherd read it",
        _ => "name a readable text file",
    };
    Fault::new(
        format!(
            "the file {} cannot be read: {}",
            path.display(),
            error.kind()
        ),
        remedy,
    )
}

fn target_session(settings: &mut Settings) -> Result<TargetSession, Fault> {
    const ALL: [TargetSession; 6] = [
        TargetSession::Any,
        TargetSession::ReadWrite,
        TargetSession::ReadOnly,
        TargetSession::Primary,
        TargetSession::Standby,
        TargetSession::PreferStandby,
    ];
    let Some(word) = take(settings, "target_session_attrs") else {
        return Ok(TargetSession::Any);
    };
    ALL.into_iter()
        .find(|target| target.as_str() == word)
        .ok_or_else(|| {
            Fault::new(
                "target_session_attrs has no such value",
                "write any, read-write, read-only, primary, standby or prefer-standby",
            )
        })
}

/// Whether hosts are taken in a random order.
fn load_balance(settings: &mut Settings) -> Result<bool, Fault> {
    match take(settings, "load_balance_hosts").as_deref() {
        None | Some("disable") => Ok(false),
        Some("random") => Ok(true),
        Some(_) => Err(Fault::new(
            "load_balance_hosts has no such value",
            "write disable or random",
        )),
    }
}

/// Says in our words what tokio-postgres would only call invalid.
fn numbers(settings: &Settings) -> Result<(), Fault> {
    for (key, value) in settings {
        if key == "port"
            && value
                .split(',')
                .any(|port| !port.is_empty() && !matches!(port.parse::<u16>(), Ok(1..)))
        {
            return Err(Fault::new(
                "a port is not a number from 1 to 65535",
                "correct the port (in a URI, write : / @ and ? in a password as %3A %2F %40 and %3F)",
            ));
        }
        if key == "connect_timeout" && value.parse::<u32>().is_err() {
            return Err(Fault::new(
                "connect_timeout is not a whole number of seconds",
                "write connect_timeout=10, without a unit",
            ));
        }
    }
    Ok(())
}

fn plain(settings: &Settings) -> Result<tokio_postgres::Config, Fault> {
    let mut last = Settings::new();
    for (key, value) in settings {
        // tokio-postgres would add up the hosts of two `host` settings; libpq takes the last.
        last.retain(|(known, _)| known != key);
        last.push((key.clone(), value.clone()));
    }
    let mut text = String::new();
    for (key, value) in &last {
        let value = value.replace('\\', "\\\\").replace('\'', "\\'");
        // Writing to a String cannot fail.
        let _ = write!(text, "{key}='{value}' ");
    }
    // Its message is not passed on: it may repeat pieces of the text.
    text.parse().map_err(|_| {
        Fault::new(
            "is no connection string",
            "write host=… port=… dbname=… user=…, or postgres://user@host:port/dbname",
        )
    })
}

/// Each host with its port: one port for all, or one for each.
fn endpoints(plain: &tokio_postgres::Config) -> Result<Vec<Endpoint>, Fault> {
    let (hosts, ports) = (plain.get_hosts(), plain.get_ports());
    if hosts.is_empty() {
        return Err(Fault::new(
            "names no host",
            "add host=… (a name, an address, or the folder of a unix socket)",
        ));
    }
    if ports.len() > 1 && ports.len() != hosts.len() {
        return Err(Fault::new(
            format!("there are {} hosts but {} ports", hosts.len(), ports.len()),
            "give one port for all hosts, or one for each",
        ));
    }
    let port = |index: usize| match ports {
        [] => DEFAULT_PORT,
        [port] => *port,
        many => many.get(index).copied().unwrap_or(DEFAULT_PORT),
    };
    hosts
        .iter()
        .enumerate()
        .map(|(index, host)| endpoint(host, port(index)))
        .collect()
}

fn endpoint(host: &Host, port: u16) -> Result<Endpoint, Fault> {
    match host {
        Host::Tcp(host) => {
            let address = host.parse::<std::net::IpAddr>().is_ok();
            if host.is_empty()
                || !address
                    && host
                        .contains(|c: char| c == ':' || c == '@' || c == '/' || c.is_whitespace())
            {
                return Err(Fault::new(
                    "a host is neither a name nor an address nor a folder",
                    "write the port apart from the host, and in a URI : / @ and ? of a password as %3A %2F %40 and %3F",
                ));
            }
            Ok(Endpoint::Tcp {
                host: host.clone(),
                port,
            })
        }
        #[cfg(unix)]
        Host::Unix(folder) => {
            let path = folder.join(format!(".s.PGSQL.{port}"));
            if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
                return Err(Fault::new(
                    format!(
                        "the path of the unix socket is longer than {SOCKET_PATH_BYTES_MAX} bytes"
                    ),
                    "use a shorter folder; the operating system takes no longer path",
                ));
            }
            Ok(Endpoint::Unix { path })
        }
    }
}

/// The password from the one place that gives it.
fn password(
    dsn: &Dsn,
    pass_file: Option<&str>,
    context: &Context,
) -> Result<Option<Password>, Fault> {
    let sources = [
        dsn.password.is_some(),
        pass_file.is_some(),
        context.password.is_some(),
    ];
    if sources.iter().filter(|given| **given).count() > 1 {
        return Err(Fault::new(
            "the password is given twice",
            "keep one of password, passfile and the password file beside the connection string",
        ));
    }
    let Some(user) = &dsn.user else {
        if sources.contains(&true) {
            return Err(Fault::new(
                "there is a password but no user",
                "add user=…, or remove the password so that each client logs in as itself",
            ));
        }
        return Ok(None);
    };
    match pass_file {
        Some(file) => from_pass_file(
            &resolve(context.folder, context.environment, file),
            dsn,
            user,
        )
        .map(Some),
        None => Ok(dsn.password.clone().or_else(|| context.password.clone())),
    }
}

fn from_pass_file(file: &Path, dsn: &Dsn, user: &str) -> Result<Password, Fault> {
    let text = fs::read_to_string(file).map_err(|error| cannot_read(file, &error))?;
    if others_may_read(file) {
        return Err(Fault::new(
            format!("the password file {} can be read by others", file.display()),
            format!(
                "run chmod 600 {}; PostgreSQL's own clients ignore such a file",
                file.display()
            ),
        ));
    }
    let mut found = dsn
        .hosts
        .iter()
        .map(|host| passfile::password(&text, host, &dsn.dbname, user));
    let first = found.next().flatten();
    match first {
        Some(first) if found.all(|other| other.as_ref() == Some(&first)) => Ok(Password(first)),
        Some(_) => Err(Fault::new(
            format!(
                "{} has different passwords for the hosts of this connection string",
                file.display()
            ),
            "give the hosts the same password: they are one database",
        )),
        None => Err(Fault::new(
            format!(
                "{} has no line for this host, port, database and user",
                file.display()
            ),
            "add host:port:database:user:password, with * for whatever does not matter",
        )),
    }
}

#[cfg(unix)]
fn others_may_read(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|data| data.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn others_may_read(_file: &Path) -> bool {
    false
}
