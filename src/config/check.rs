//! From the text to the meaning, with all problems at once.
//!
//! Knows every section except the databases, and every default. What would surprise: the files that the text names
//! (users, certificates, passwords) are read here too, so that a configuration that loads can be served.

use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use super::dsn::cannot_read;
use super::file::{self, File};
use super::keys::closest;
use super::problems::{Findings, Problem, Problems};
use super::values::{Environment, duration, resolve, size};
use super::{
    Auth, AuthMethod, ClientTls, Config, Listen, Log, MemoryMax, PoolSettings, Proxy, Secret,
    Users, databases, listen, pool, users,
};
use crate::names::UserName;

const LISTEN: &str = "127.0.0.1:6432";
const CLIENTS_MAX: u32 = 10_000;
const ADMIN_USER: &str = "postgres";
/// Enough to fill the pools quickly, and few enough for a server that has just restarted.
const SERVER_LOGINS_MAX: NonZeroU32 = match NonZeroU32::new(32) {
    Some(number) => number,
    None => NonZeroU32::MIN,
};
const DNS_INTERVAL: Duration = Duration::from_secs(15);
const CATALOG_REFRESH: Duration = Duration::from_secs(60);
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// PostgreSQL's own limit, of `palloc`.
const MESSAGE_BYTES_MAX: u32 = 1 << 30;
/// Less would refuse ordinary logins and statements.
const MESSAGE_BYTES_MAX_MIN: u32 = 8 << 10;
const MEMORY_MAX_MIN: u64 = 32 << 20;
const LOG_LEVEL: &str = "info";
const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];
/// Reads and checks the file at `path` and the files that it names.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let text = fs::read_to_string(path).map_err(|error| {
        Problems(vec![Problem {
            path: path.display().to_string(),
            problem: format!("the configuration file cannot be read: {}", error.kind()),
            remedy: "name another with --config FILE, or start from the sharding.toml that comes with pgherd".to_owned(),
        }])
    })?;
    parse(&text, path.parent().unwrap_or(Path::new("")))
}

/// Checks a text; files that it names are relative to `folder`, and `${NAME}` comes from this process's environment.
pub fn parse(text: &str, folder: &Path) -> Result<Config, Problems> {
    parse_in(text, folder, &|name| std::env::var(name).ok())
}

pub(super) fn parse_in(
    text: &str,
    folder: &Path,
    environment: Environment,
) -> Result<Config, Problems> {
    let mut findings = Findings::default();
    let file = file::read(text, environment, &mut findings);
    let mut check = Check {
        folder,
        environment,
        findings,
    };
    let config = file.and_then(|file| check.file(&file));
    let problems = check.findings.into_problems();
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(Problems(problems)),
    }
}

/// One reading of one text; shared with the databases.
pub(super) struct Check<'a> {
    pub folder: &'a Path,
    pub environment: Environment<'a>,
    pub findings: Findings,
}

impl Check<'_> {
    /// `None` only after a report; what has a default goes on with it, so that later problems are found too.
    fn file(&mut self, file: &File) -> Option<Config> {
        let log = self.log(&file.log);
        let proxy = self.proxy(&file.proxy, log);
        let auth = self.auth(&file.auth);
        let tls = file.tls.as_ref().map(|tls| self.tls(tls));
        let pool = self.pool("pool", &file.pool, &PoolSettings::default());
        let databases = databases::check(self, file, &pool);
        let users = file.users.iter();
        let users = users.map(|(name, user)| {
            let caps = pool::caps(user.connections_max, user.clients_max);
            (UserName::from(name.as_str()), caps)
        });
        let tls = match tls {
            Some(tls) => Some(tls?),
            None => None,
        };
        Some(Config {
            proxy,
            auth: auth?,
            tls,
            databases: databases?,
            users: users.collect(),
        })
    }

    fn proxy(&mut self, written: &file::Proxy, log: Log) -> Proxy {
        let listen = self.listen(written.listen.as_deref());
        let http = written
            .http
            .as_deref()
            .and_then(|http| self.http(http, &listen));
        let workers = match written.workers {
            // The cores that this process may use: it knows affinity masks and the quota of a control group.
            None | Some(0) => available_parallelism().map_or(1, usize::from),
            Some(workers) => usize::try_from(workers).unwrap_or(1),
        };
        let mut admin_users = written
            .admin_users
            .clone()
            .unwrap_or_else(|| vec![ADMIN_USER.to_owned()]);
        admin_users.dedup();
        if admin_users.iter().any(String::is_empty) {
            self.findings.report(
                "proxy.admin_users",
                "a user name is empty",
                "remove it; admin_users = [] lets nobody in",
            );
        }
        let positive = Duration::from_millis(1);
        Proxy {
            listen,
            http,
            workers,
            pin_workers: written.pin_workers.unwrap_or(false),
            clients_max: written.clients_max.unwrap_or(CLIENTS_MAX),
            host_connections_max: written.host_connections_max.and_then(NonZeroU32::new),
            server_logins_max: written
                .server_logins_max
                .and_then(NonZeroU32::new)
                .unwrap_or(SERVER_LOGINS_MAX),
            memory_max: self.memory_max(written.memory_max.as_deref()),
            dns_interval: self.duration(
                "proxy.dns_interval",
                written.dns_interval.as_deref(),
                DNS_INTERVAL,
                Duration::ZERO,
            ),
            catalog_refresh: self.duration(
                "proxy.catalog_refresh",
                written.catalog_refresh.as_deref(),
                CATALOG_REFRESH,
                Duration::ZERO,
            ),
            ignore_startup_parameters: written
                .ignore_startup_parameters
                .iter()
                .flatten()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
            admin_users,
            login_timeout: self.duration(
                "proxy.login_timeout",
                written.login_timeout.as_deref(),
                LOGIN_TIMEOUT,
                positive,
            ),
            shutdown_timeout: self.duration(
                "proxy.shutdown_timeout",
                written.shutdown_timeout.as_deref(),
                SHUTDOWN_TIMEOUT,
                Duration::ZERO,
            ),
            message_bytes_max: self.message_bytes_max(written.message_bytes_max.as_deref()),
            log,
        }
    }

    fn listen(&mut self, written: Option<&[String]>) -> Vec<Listen> {
        let default = [LISTEN.to_owned()];
        let written = written.unwrap_or(&default);
        if written.is_empty() {
            self.findings.report(
                "proxy.listen",
                "names no address",
                format!("write listen = [\"{LISTEN}\"], or remove the line: that is the default"),
            );
        }
        let mut listens = Vec::new();
        for (index, text) in written.iter().enumerate() {
            let path = format!("proxy.listen[{index}]");
            let Some(listen) = self.findings.keep(&path, listen::parse(text)) else {
                continue;
            };
            let any_port = matches!(listen, Listen::Tcp { port: 0, .. });
            if listens.contains(&listen) && !any_port {
                self.findings.report(
                    &path,
                    format!("{text:?} is listed twice"),
                    "keep one of them",
                );
            }
            listens.push(listen);
        }
        listens
    }

    fn http(&mut self, text: &str, listens: &[Listen]) -> Option<SocketAddr> {
        const PATH: &str = "proxy.http";
        if text == "off" {
            return None;
        }
        let Ok(address) = text.parse::<SocketAddr>() else {
            self.findings.report(
                PATH,
                format!("{text:?} is not an IP address with a port"),
                "write http = \"127.0.0.1:9632\", http = \"[::1]:9632\", or http = \"off\"",
            );
            return None;
        };
        let same = Listen::Tcp {
            host: address.ip().to_string(),
            port: address.port(),
        };
        if address.port() != 0 && listens.contains(&same) {
            self.findings.report(
                PATH,
                format!("{text:?} is also in proxy.listen"),
                "give one of them another port",
            );
        }
        Some(address)
    }

    /// What is not written depends on the machine, and is found when the proxy starts.
    fn memory_max(&mut self, written: Option<&str>) -> MemoryMax {
        const PATH: &str = "proxy.memory_max";
        match written {
            None | Some("auto") => MemoryMax::Auto,
            Some("off") => MemoryMax::Off,
            Some(text) => match self.findings.keep(PATH, size(text)) {
                Some(bytes) if bytes >= MEMORY_MAX_MIN => MemoryMax::Bytes(bytes),
                Some(_) => {
                    self.findings.report(
                        PATH,
                        "is less than the proxy itself needs",
                        "write at least \"32MiB\", \"auto\" or \"off\"",
                    );
                    MemoryMax::Auto
                }
                None => MemoryMax::Auto,
            },
        }
    }

    fn message_bytes_max(&mut self, written: Option<&str>) -> u32 {
        const PATH: &str = "proxy.message_bytes_max";
        let Some(bytes) = written.and_then(|text| self.findings.keep(PATH, size(text))) else {
            return MESSAGE_BYTES_MAX;
        };
        if let Ok(bytes @ MESSAGE_BYTES_MAX_MIN..=MESSAGE_BYTES_MAX) = u32::try_from(bytes) {
            bytes
        } else {
            self.findings.report(
                PATH,
                "is out of range",
                "write a size from \"8kB\" to \"1GiB\", which is PostgreSQL's own limit",
            );
            MESSAGE_BYTES_MAX
        }
    }

    fn log(&mut self, written: &file::Log) -> Log {
        let json = match written.format.as_deref() {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => {
                self.word("log.format", other, &["text", "json"]);
                false
            }
        };
        let level = written
            .level
            .clone()
            .unwrap_or_else(|| LOG_LEVEL.to_owned());
        if !level.split(',').all(is_log_directive) {
            self.findings.report(
                "log.level",
                format!("{level:?} is not a log filter"),
                format!(
                    "write one of {}, or by module: \"info,pgherd::backend=debug\"",
                    LEVELS.join(", ")
                ),
            );
        }
        Log { json, level }
    }

    fn auth(&mut self, written: &file::Auth) -> Option<Auth> {
        const PATH: &str = "auth.method";
        let method = match written.method.as_deref() {
            Some("trust") => Some(AuthMethod::Trust),
            Some("md5") => Some(AuthMethod::Md5),
            Some("scram-sha-256") | None => Some(AuthMethod::ScramSha256),
            Some(later @ ("cert" | "hba")) => {
                self.findings.report(
                    PATH,
                    format!("{later:?} is not supported yet"),
                    "write \"scram-sha-256\" for now",
                );
                None
            }
            Some(other) => {
                self.word(PATH, other, &["trust", "md5", "scram-sha-256"]);
                None
            }
        };
        let users = match (&written.users_file, method) {
            (Some(file), method) => self.users(file, method),
            (None, Some(AuthMethod::Md5 | AuthMethod::ScramSha256)) => {
                self.findings.report(
                    "auth.users_file",
                    "is missing: there is nothing to check a password against",
                    "write users_file = \"userlist.txt\" and one line \"user\" \"secret\" for each user in it, or method = \"trust\" on a machine of your own",
                );
                None
            }
            (None, _) => Some(Users::default()),
        };
        Some(Auth {
            method: method?,
            users: Arc::new(users?),
        })
    }

    fn users(&mut self, file: &str, method: Option<AuthMethod>) -> Option<Users> {
        const PATH: &str = "auth.users_file";
        let (path, text) = self.text_file(PATH, file)?;
        let (users, faults) = users::parse(&text);
        for (line, fault) in faults {
            self.findings.report(
                PATH,
                format!("{}, line {line}: {}", path.display(), fault.problem),
                fault.remedy,
            );
        }
        if method == Some(AuthMethod::ScramSha256) {
            let mut unusable: Vec<&str> = users
                .names()
                .filter(|user| matches!(users.secret(user), Some(Secret::Md5(_))))
                .collect();
            unusable.sort_unstable();
            if let Some(first) = unusable.first() {
                self.findings.report(
                    PATH,
                    format!("md5 secrets cannot be used with scram-sha-256; {} of them, the first of the user {first:?}", unusable.len()),
                    "store SCRAM secrets or plain passwords for these users, or write auth.method = \"md5\"",
                );
            }
        }
        Some(users)
    }

    fn tls(&mut self, written: &file::Tls) -> Option<ClientTls> {
        let cert_file = self.pem(
            "tls.cert_file",
            written.cert_file.as_deref(),
            "CERTIFICATE-----",
        );
        let key_file = self.pem(
            "tls.key_file",
            written.key_file.as_deref(),
            "PRIVATE KEY-----",
        );
        let required = match written.mode.as_deref() {
            None | Some("allow") => false,
            Some("require") => true,
            Some(other) => {
                self.word("tls.mode", other, &["allow", "require"]);
                false
            }
        };
        Some(ClientTls {
            cert_file: cert_file?,
            key_file: key_file?,
            required,
        })
    }

    fn pem(&mut self, key: &str, file: Option<&str>, marker: &str) -> Option<PathBuf> {
        let Some(file) = file else {
            self.findings.report(
                key,
                "is missing",
                "name a file in PEM form, or remove the whole section [tls] to serve without TLS",
            );
            return None;
        };
        let (path, text) = self.text_file(key, file)?;
        if !text.contains(marker) {
            self.findings.report(
                key,
                format!("the file {} has no \"{marker}\" in it", path.display()),
                "name a file in PEM form",
            );
            return None;
        }
        Some(path)
    }

    pub fn duration(
        &mut self,
        path: &str,
        written: Option<&str>,
        default: Duration,
        least: Duration,
    ) -> Duration {
        let Some(value) = written.and_then(|text| self.findings.keep(path, duration(text))) else {
            return default;
        };
        if value < least {
            self.findings.report(
                path,
                "must be longer than nothing",
                "write a duration of at least \"1ms\": no wait is endless here",
            );
        }
        value
    }

    /// Reports a word that is none of the choices.
    pub fn word(&mut self, path: &str, found: &str, choices: &[&str]) {
        let remedy = match closest(found, choices.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("write one of {}", choices.join(", ")),
        };
        self.findings
            .report(path, format!("{found:?} is none of the choices"), remedy);
    }

    /// The full name and the text of a file named in the configuration.
    pub fn text_file(&mut self, key: &str, file: &str) -> Option<(PathBuf, String)> {
        let path = resolve(self.folder, self.environment, file);
        let text = fs::read_to_string(&path).map_err(|error| cannot_read(&path, &error));
        let text = self.findings.keep(key, text)?;
        Some((path, text))
    }
}

/// `level`, or `target=level`; the target is not checked.
fn is_log_directive(text: &str) -> bool {
    let (target, level) = text
        .trim()
        .rsplit_once('=')
        .unwrap_or(("pgherd", text.trim()));
    !target.is_empty() && LEVELS.contains(&level.to_ascii_lowercase().as_str())
}
