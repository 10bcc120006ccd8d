//! A group of PostgreSQL servers with the same data, started together in about two seconds.
//!
//! `initdb` runs once; the other servers get copies of its folder. What would surprise: copies share PostgreSQL's
//! *system identifier*, and `fsync` is off, as nothing here is meant to last.

use std::fs;
use std::io::Write;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Stdio;
use std::thread;

use super::error::DemoError;
use super::folder::Folder;
use super::programs::{Programs, run};
use super::server::{Server, must, prepare_folder};

/// How clients log in to the servers over TCP and over the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Authentication {
    #[default]
    Trust,
    /// The superuser's password is [`Options::password`].
    ScramSha256,
}

/// What to start. `Options::default()` is one server without a database of its own.
#[derive(Debug, Clone)]
pub struct Options {
    pub count: usize,
    /// Part of the folder's name, so that a person sees what it belongs to.
    pub label: String,
    /// Created on every server.
    pub databases: Vec<String>,
    /// SQL that runs once in the database `postgres` before the start, one statement each, without line breaks
    /// (roles, say). It ends up on every server.
    pub statements: Vec<String>,
    /// Lines of `postgresql.conf`; they win over our own.
    pub settings: Vec<(String, String)>,
    /// The whole of `pg_hba.conf`, when `authentication` alone will not do.
    pub hba: Option<String>,
    pub authentication: Authentication,
    pub superuser: String,
    pub password: String,
    pub max_connections: u32,
    /// More arguments for `initdb`, such as `--locale=…`, which win over our own.
    pub initdb: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            count: 1,
            label: "servers".to_owned(),
            databases: Vec::new(),
            statements: Vec::new(),
            settings: Vec::new(),
            hba: None,
            authentication: Authentication::Trust,
            superuser: "postgres".to_owned(),
            password: "postgres".to_owned(),
            max_connections: 100,
            initdb: Vec::new(),
        }
    }
}

/// The servers, and the folder in which they live. Dropping it stops them and removes the folder.
#[derive(Debug)]
pub struct Servers {
    // The order matters: fields are dropped from the top, and the servers must be gone before their folder.
    servers: Vec<Server>,
    folder: Folder,
}

impl Servers {
    /// Blocks for one to three seconds. A folder that a killed run left behind is removed on the way.
    pub fn start(options: &Options) -> Result<Servers, DemoError> {
        let programs = Programs::find()?;
        let folder = Folder::create(&options.label, programs.user().is_some())?;
        let names: Vec<_> = (0..options.count)
            .map(|number| folder.path().join(format!("s{number}")))
            .collect();
        let Some((first, others)) = names.split_first() else {
            return Ok(Servers {
                servers: Vec::new(),
                folder,
            });
        };
        prepare_folder(first, &programs)?;
        initialise(&first.join("data"), options, &programs)?;
        for other in others {
            prepare_folder(other, &programs)?;
            let mut copy = programs.as_user("cp");
            must({
                copy.arg("-Rp")
                    .arg(first.join("data"))
                    .arg(other.join("data"));
                copy
            })?;
        }
        let servers = thread::scope(|scope| {
            let starting: Vec<_> = names
                .iter()
                .map(|name| {
                    let programs = programs.clone();
                    scope.spawn(move || {
                        Server::start(
                            programs,
                            name.clone(),
                            &options.superuser,
                            &options.password,
                        )
                    })
                })
                .collect();
            // All are joined before the first failure is looked at, so that those that did start are dropped.
            let ended: Vec<_> = starting
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect();
            ended
                .into_iter()
                .map(|ended| ended.unwrap_or_else(|panic| resume_unwind(panic)))
                .collect::<Result<Vec<_>, _>>()
        })?;
        Ok(Servers { servers, folder })
    }

    pub fn all(&self) -> &[Server] {
        &self.servers
    }

    pub fn get(&self, number: usize) -> Option<&Server> {
        self.servers.get(number)
    }

    /// Removed with everything in it when the servers end; a good place for a `sharding.toml`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A data folder with the settings, the databases and the roles of all.
fn initialise(data: &Path, options: &Options, programs: &Programs) -> Result<(), DemoError> {
    // initdb wants a password file for anything but trust; the method takes effect with our own pg_hba.conf.
    let mut initdb = programs.command("initdb");
    initdb
        .arg("-D")
        .arg(data)
        .args(["-U", &options.superuser, "-A", "trust", "-E", "UTF8"]);
    // Small log segments make small copies.
    initdb
        .args(["--no-sync", "--no-locale", "--wal-segsize=1"])
        .args(&options.initdb);
    must(initdb)?;
    let written = |path: &Path, text: &str| {
        let added = fs::OpenOptions::new()
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        added.map_err(|source| DemoError::Folder {
            what: "cannot write",
            path: path.to_path_buf(),
            source,
        })
    };
    written(&data.join("postgresql.conf"), &settings(options))?;
    run_alone(data, options, programs)?;
    let path = data.join("pg_hba.conf");
    fs::write(&path, hba(options)).map_err(|source| DemoError::Folder {
        what: "cannot write",
        path,
        source,
    })
}

fn hba(options: &Options) -> String {
    let method = match options.authentication {
        Authentication::Trust => "trust",
        Authentication::ScramSha256 => "scram-sha-256",
    };
    options.hba.clone().unwrap_or_else(|| {
        format!(
            "local all all {method}\nhost all all 127.0.0.1/32 {method}\n\
             local replication all {method}\nhost replication all 127.0.0.1/32 {method}\n"
        )
    })
}

fn settings(options: &Options) -> String {
    let own = format!(
        "\nmax_connections = {}\nshared_buffers = '32MB'\nmax_wal_size = '1GB'\nwal_level = logical\n\
         max_prepared_transactions = 100\nfsync = off\nfull_page_writes = off\n\
         password_encryption = 'scram-sha-256'\n",
        options.max_connections
    );
    let theirs = options.settings.iter();
    let theirs = theirs.map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")));
    own + &theirs.collect::<String>()
}

/// Runs the set-up in a server without a network ("single-user mode"), which takes one statement a line.
fn run_alone(data: &Path, options: &Options, programs: &Programs) -> Result<(), DemoError> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let mut lines = vec![format!(
        "ALTER ROLE {} PASSWORD '{}'",
        quoted(&options.superuser),
        options.password.replace('\'', "''")
    )];
    lines.extend(
        options
            .statements
            .iter()
            .map(|statement| statement.replace('\n', " ")),
    );
    lines.extend(
        options
            .databases
            .iter()
            .map(|name| format!("CREATE DATABASE {}", quoted(name))),
    );
    let script = lines.join("\n") + "\n";
    let path = data.join("setup.sql");
    let failed = |source| DemoError::Folder {
        what: "cannot write",
        path: path.clone(),
        source,
    };
    fs::write(&path, script).map_err(failed)?;
    let input = fs::File::open(&path).map_err(failed)?;
    let mut postgres = programs.command("postgres");
    postgres
        .args(["--single", "-F", "-c", "exit_on_error=on", "-D"])
        .arg(data)
        .arg("postgres")
        .stdin(Stdio::from(input));
    run(postgres)?;
    fs::remove_file(&path).map_err(failed)
}
