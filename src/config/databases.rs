//! The databases of the file and their shards.
//!
//! Knows nothing of other sections; no server is asked. What would surprise: two shards in one database are refused, and a
//! sharded database needs a user that reads the catalogue, in `primary` or in `control`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::check::Check;
use super::dsn::{self, Context};
use super::file;
use super::problems::join;
use super::tables::{self, ShardNames};
use super::{Database, DefaultTable, Dsn, Password, PoolMode, PoolSettings, Shard, pool};
use crate::names::{DatabaseName, ShardId, ShardName, UserName};

/// The section for every database that has none of its own.
pub const ANY: &str = "*";
/// Whether a client that asks for a database of this name may get one after `[databases."*"]`.
#[must_use]
pub fn may_be_asked_for(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains('\0') && !RESERVED.contains(&name)
}

impl Database {
    /// What this section, `[databases."*"]`, is for the database of that name. A connection string without a dbname
    /// got the section's name, and gets this one.
    #[must_use]
    pub fn of_template(&self, name: &str) -> Database {
        let dsn = |dsn: &Arc<Dsn>| match dsn.dbname.as_str() {
            ANY => Arc::new(Dsn {
                dbname: name.to_owned(),
                ..(**dsn).clone()
            }),
            _ => Arc::clone(dsn),
        };
        let shards = self.shards.iter().map(|shard| Shard {
            id: shard.id,
            name: shard.name.clone(),
            primary: dsn(&shard.primary),
            control: dsn(&shard.control),
            replicas: shard.replicas.iter().map(dsn).collect(),
        });
        Database {
            name: DatabaseName::new(name),
            shards: shards.collect(),
            ..self.clone()
        }
    }
}

/// Names of the console's own databases.
const RESERVED: &[&str] = &["pgherd", "pgbouncer"];
/// Fewer than the buckets of a placement, so that each shard can hold some.
const SHARDS_MAX: usize = 1024;
/// PostgreSQL's NAMEDATALEN without its closing NUL.
pub(super) const NAME_BYTES_MAX: usize = 63;

type Databases = BTreeMap<DatabaseName, Arc<Database>>;

/// `None` only after a report.
pub(super) fn check(
    check: &mut Check,
    file: &file::File,
    pool: &PoolSettings,
) -> Option<Databases> {
    let written = &file.databases;
    if written.is_empty() {
        check.findings.report(
            "databases",
            "there is no database to serve",
            "add [databases.NAME] with one [[databases.NAME.shards]] that has a name and a primary",
        );
    }
    let mut databases = Some(Databases::new());
    for (name, written) in written {
        match (
            database(check, name, written, &file.users, pool),
            &mut databases,
        ) {
            (Some(database), Some(databases)) => {
                databases.insert(database.name.clone(), Arc::new(database));
            }
            _ => databases = None,
        }
    }
    databases
}

fn database(
    check: &mut Check,
    name: &str,
    written: &file::Database,
    users: &BTreeMap<String, file::User>,
    pool: &PoolSettings,
) -> Option<Database> {
    let path = join("databases", name);
    if RESERVED.contains(&name) {
        check.findings.report(
            &path,
            format!("the name {name} is reserved for the console"),
            "call the database something else",
        );
    }
    if name.is_empty() || name.contains('\0') {
        check.findings.report(
            &path,
            "is not a name that a client can ask for",
            "call the database something else",
        );
    }
    let shards = shards(check, name, &path, &written.shards);
    let pool = check.pool(&join(&path, "pool"), &written.pool, pool);
    let sharded = written.shards.len() > 1;
    one_shard_mode(check, &join(&path, "pool"), sharded, &pool);
    if sharded && name == ANY {
        check.findings.report(
            &path,
            "a database of several shards has one name",
            "give it the name that clients ask for",
        );
    }
    let user_pools = users
        .iter()
        .filter(|(_, user)| user.pool != file::Pool::default());
    let user_pools = user_pools
        .map(|(name, user)| {
            let path = join(&join("users", name), "pool");
            let pool = check.pool(&path, &user.pool, &pool);
            one_shard_mode(check, &path, sharded, &pool);
            (UserName::from(name.as_str()), pool)
        })
        .collect();
    let names = ShardNames::of(check, &path, &written.shards);
    let tables = tables::check(check, &join(&path, "tables"), &written.tables, &names);
    let functions = tables::shard_safe(check, &join(&path, "functions"), &written.functions);
    let default_table = match written.default_table.as_deref() {
        None | Some("refuse") => Some(DefaultTable::Refuse),
        Some(shard) => names
            .find(check, &join(&path, "default_table"), shard, "\"refuse\"")
            .map(DefaultTable::Shard),
    };
    Some(Database {
        name: DatabaseName::new(name),
        shards: shards?,
        pool,
        user_pools,
        caps: pool::caps(written.connections_max, written.clients_max),
        tables: tables?,
        default_table: default_table?,
        shard_safe: functions?,
    })
}

fn one_shard_mode(check: &mut Check, path: &str, sharded: bool, pool: &PoolSettings) {
    let mode = match pool.mode {
        PoolMode::Transaction => return,
        PoolMode::Session => "session",
        PoolMode::Statement => "statement",
    };
    if sharded {
        check.findings.report(
            &join(path, "mode"),
            format!("a database of several shards has no {mode} mode"),
            "write \"transaction\", here or in [pool]",
        );
    }
}

fn shards(
    check: &mut Check,
    database: &str,
    path: &str,
    written: &[file::Shard],
) -> Option<Vec<Shard>> {
    let path = join(path, "shards");
    if written.is_empty() {
        check.findings.report(
            &path,
            "the database has no shard",
            format!("add [[{path}]] with a name and a primary"),
        );
        return None;
    }
    if written.len() > SHARDS_MAX {
        check.findings.report(
            &path,
            format!("there are more than {SHARDS_MAX} shards"),
            "split them into several databases",
        );
        return None;
    }
    let mut names = Vec::new();
    let mut shards = Vec::new();
    for (index, written_shard) in written.iter().enumerate() {
        let path = format!("{path}[{index}]");
        shard_name(check, &path, written_shard.name.as_deref(), &mut names);
        shards.push(shard(
            check,
            database,
            &path,
            index,
            written_shard,
            written.len() > 1,
        ));
    }
    same_server_twice(check, &path, &shards);
    shards.into_iter().collect()
}

fn shard_name<'a>(check: &mut Check, path: &str, name: Option<&'a str>, before: &mut Vec<&'a str>) {
    let path = join(path, "name");
    let Some(name) = name else {
        check.findings.report(
            &path,
            "is missing",
            "give the shard a name, such as name = \"s0\"",
        );
        return;
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        check.findings.report(
            &path,
            format!("{name:?} is not a shard name"),
            format!("use 1 to {NAME_BYTES_MAX} letters, digits, \"-\" or \"_\""),
        );
    } else if name == "refuse" {
        check.findings.report(
            &path,
            "\"refuse\" has a meaning of its own in default_table",
            "call the shard something else",
        );
    } else if before.contains(&name) {
        check.findings.report(
            &path,
            format!("another shard of this database is called {name:?}"),
            "give each shard its own name",
        );
    }
    before.push(name);
}

fn shard(
    check: &mut Check,
    database: &str,
    path: &str,
    index: usize,
    written: &file::Shard,
    sharded: bool,
) -> Option<Shard> {
    let primary_path = join(path, "primary");
    if written.primary.is_none() {
        check.findings.report(
            &primary_path,
            "is missing",
            "add the server that takes writes: primary = \"host=… port=5432 dbname=… user=…\"",
        );
    }
    let primary = written.primary.as_deref().and_then(|text| {
        let password = password_file(
            check,
            path,
            "primary_password_file",
            written.primary_password_file.as_deref(),
        )?;
        dsn(check, &primary_path, text, database, password)
    });
    let dbname = primary
        .as_ref()
        .map_or(database, |primary| primary.dbname.as_str());
    let control = control(check, path, written, primary.as_ref(), sharded);
    let mut replicas = Some(Vec::new());
    let password = password_file(
        check,
        path,
        "replicas_password_file",
        written.replicas_password_file.as_deref(),
    );
    for (index, text) in written.replicas.iter().enumerate() {
        let path = format!("{}[{index}]", join(path, "replicas"));
        let replica = password
            .clone()
            .and_then(|password| dsn(check, &path, text, dbname, password));
        if let (Some(primary), Some(replica)) = (&primary, &replica) {
            same_database(check, &path, primary, replica);
        }
        replicas = replicas.zip(replica).map(|(mut replicas, replica)| {
            replicas.push(Arc::new(replica));
            replicas
        });
    }
    Some(Shard {
        id: ShardId(u16::try_from(index).ok()?),
        name: ShardName::new(written.name.as_deref()?),
        primary: Arc::new(primary?),
        control: Arc::new(control?),
        replicas: replicas?,
    })
}

/// The string of the control connections; without one of its own it is the primary's.
fn control(
    check: &mut Check,
    path: &str,
    written: &file::Shard,
    primary: Option<&Dsn>,
    sharded: bool,
) -> Option<Dsn> {
    let file = written.control_password_file.as_deref();
    let control_path = join(path, "control");
    let Some(text) = &written.control else {
        if file.is_some() {
            check.findings.report(
                &join(path, "control_password_file"),
                "there is no control string that it belongs to",
                "add control = \"host=… user=…\", or remove the file",
            );
        }
        // A single server can be served with the clients' own names alone; a sharded database cannot be planned for.
        if sharded && primary.is_some_and(|primary| primary.user.is_none()) {
            check.findings.report(
                &control_path,
                "is missing, and the primary's string has no user: nobody could read the catalogue of this shard",
                "add control = \"host=… dbname=… user=pgherd_control …\"",
            );
            return None;
        }
        return primary.cloned();
    };
    let password = password_file(check, path, "control_password_file", file)?;
    let dbname = primary
        .map(|primary| primary.dbname.clone())
        .unwrap_or_default();
    let control = dsn(check, &control_path, text, &dbname, password)?;
    if control.user.is_none() {
        check.findings.report(
            &control_path,
            "has no user",
            "add user=…: the control connections log in as somebody",
        );
        return None;
    }
    if let Some(primary) = primary {
        same_database(check, &control_path, primary, &control);
    }
    Some(control)
}

/// The outer `None` after a report; the inner one when no file is named.
fn password_file(
    check: &mut Check,
    path: &str,
    key: &str,
    file: Option<&str>,
) -> Option<Option<Password>> {
    let Some(file) = file else { return Some(None) };
    let path = join(path, key);
    let (name, text) = check.text_file(&path, file)?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.contains(['\0', '\n']) {
        check.findings.report(
            &path,
            format!(
                "the file {} does not hold one line with a password",
                name.display()
            ),
            "write the password alone into it",
        );
        return None;
    }
    Some(Some(Password(password.to_owned())))
}

fn dsn(
    check: &mut Check,
    path: &str,
    text: &str,
    dbname: &str,
    password: Option<Password>,
) -> Option<Dsn> {
    let context = Context {
        folder: check.folder,
        environment: check.environment,
        dbname,
        password,
    };
    match dsn::parse(text, &context) {
        Ok(dsn) => Some(dsn),
        Err(faults) => {
            for fault in faults {
                check.findings.fault(path, fault);
            }
            None
        }
    }
}

fn same_database(check: &mut Check, path: &str, primary: &Dsn, other: &Dsn) {
    if primary.dbname != other.dbname {
        check.findings.report(
            path,
            format!(
                "names the database {:?}, but the primary's string names {:?}",
                other.dbname, primary.dbname
            ),
            "let all strings of a shard name the same database",
        );
    }
}

/// Two shards in one database would hold every row of a scatter twice.
fn same_server_twice(check: &mut Check, path: &str, shards: &[Option<Shard>]) {
    for (index, shard) in shards.iter().enumerate() {
        let Some(shard) = shard else { continue };
        let twin = shards.iter().take(index).flatten().find(|earlier| {
            earlier.primary.dbname == shard.primary.dbname
                && earlier
                    .primary
                    .hosts
                    .iter()
                    .any(|host| shard.primary.hosts.contains(host))
        });
        if let Some(twin) = twin {
            check.findings.report(
                &format!("{path}[{index}].primary"),
                format!("is the same database as the primary of {:?}", twin.name),
                "give each shard a database of its own: another host, port or dbname",
            );
        }
    }
}
