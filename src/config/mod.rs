//! `sharding.toml` read once, checked whole, and then trusted: [`File`](file::File) is the text as written,
//! [`Config`] is what it means. Nobody behind this room checks a setting again.

// the text
mod file;
mod keys;
mod values;
// what stands in it
mod dsn;
mod dsn_text;
mod listen;
mod passfile;
mod users;
// what it means
mod check;
mod databases;
mod pool;
mod problems;
mod tables;

#[cfg(test)]
mod tests;

pub use check::{load, parse};
pub use databases::{ANY, may_be_asked_for};
pub use keys::known_keys;
pub use problems::{Problem, Problems};
pub use users::{Secret, Users};

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::names::{DatabaseName, ShardId, ShardName, TableName, UserName};

/// All settings, as meant: every reference is resolved and every value is in its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub proxy: Proxy,
    pub auth: Auth,
    /// TLS towards clients; `None` answers an SSLRequest with `N`.
    pub tls: Option<ClientTls>,
    pub databases: BTreeMap<DatabaseName, Arc<Database>>,
    /// Caps of single users, over all databases.
    pub users: BTreeMap<UserName, Caps>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    pub listen: Vec<Listen>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub http: Option<SocketAddr>,
    /// Worker threads, each with its own runtime; already resolved (0 in the file means one per core).
    pub workers: usize,
    /// Each worker keeps to a core of its own.
    pub pin_workers: bool,
    pub clients_max: u32,
    /// Server connections to one host and port, over all pools; `None`: no cap.
    pub host_connections_max: Option<NonZeroU32>,
    /// Logins to one server under way at once, over all pools.
    pub server_logins_max: NonZeroU32,
    pub memory_max: MemoryMax,
    /// How often the addresses of the servers' host names are asked for; zero: only for a new connection.
    pub dns_interval: Duration,
    /// How often the schemas of the shards are looked at; zero: only when a statement names a relation that is not known.
    pub catalog_refresh: Duration,
    /// Start-up parameters of clients that are dropped, in lower case.
    pub ignore_startup_parameters: BTreeSet<String>,
    pub admin_users: Vec<String>,
    pub login_timeout: Duration,
    pub shutdown_timeout: Duration,
    /// The largest single message that a client may send.
    pub message_bytes_max: u32,
    pub log: Log,
}

/// Beyond which resident memory no new work is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryMax {
    /// Four fifths of what the machine or the control group has.
    Auto,
    Off,
    Bytes(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub json: bool,
    /// A tracing filter such as `info` or `pgherd=debug`.
    pub level: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// host:port; a host name is resolved when the socket is bound.
    Tcp { host: String, port: u16 },
    /// A folder that gets the socket `.s.PGSQL.<port>`.
    Unix { folder: PathBuf, port: u16 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    pub method: AuthMethod,
    pub users: Arc<Users>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    Trust,
    Md5,
    ScramSha256,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Refuse clients that do not ask for TLS (unix sockets excepted).
    pub required: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    pub name: DatabaseName,
    /// At least one, in the order of the file; `ShardId` is the index.
    pub shards: Vec<Shard>,
    pub pool: PoolSettings,
    /// What is different for the users that have a section of their own.
    pub user_pools: BTreeMap<UserName, PoolSettings>,
    pub caps: Caps,
    /// Tables that the file names, with folded names. A table of the schema `public` has `schema: None` here,
    /// whether the file names its schema or not.
    pub tables: BTreeMap<TableName, TableRule>,
    pub default_table: DefaultTable,
    /// Functions that may run on any shard, with the rows that are there, named like tables.
    pub shard_safe: BTreeSet<TableName>,
}

impl Database {
    #[must_use]
    pub fn is_sharded(&self) -> bool {
        self.shards.len() > 1
    }

    /// The settings for this user.
    #[must_use]
    pub fn pool_of(&self, user: &UserName) -> &PoolSettings {
        self.user_pools.get(user).unwrap_or(&self.pool)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    pub id: ShardId,
    pub name: ShardName,
    pub primary: Arc<Dsn>,
    /// Who loads the catalogue and the placement.
    pub control: Arc<Dsn>,
    pub replicas: Vec<Arc<Dsn>>,
}

/// When a server is free for the next client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// When the client leaves.
    Session,
    Transaction,
    /// After each transaction, and no transaction has more than one statement.
    Statement,
}

/// Which of the idle server connections is lent next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// The one that came back last; those that are not needed grow old and are closed.
    Lifo,
    /// The one that has rested longest.
    RoundRobin,
}

/// What is done to a server between two clients in transaction and statement mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// Only what the next client needs.
    Auto,
    /// The reset query, after every transaction.
    Always,
}

/// What becomes of session state in transaction and statement mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSessionState {
    /// Settings follow the client; what cannot follow keeps its server.
    Track,
    /// Whoever has any keeps its server.
    Pin,
    /// A statement that would make any is refused.
    Refuse,
}

/// How many at once; `None`: no cap of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caps {
    /// Server connections.
    pub connections_max: Option<NonZeroU32>,
    pub clients_max: Option<NonZeroU32>,
}

/// How long a client may take; zero: as long as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// One statement, or all up to a Sync: a server says nothing before.
    pub query: Duration,
    /// From the first statement of a transaction to its end.
    pub transaction: Duration,
    /// A transaction whose client sends nothing.
    pub idle_in_transaction: Duration,
    /// A client without a transaction that sends nothing.
    pub client_idle: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    pub mode: PoolMode,
    /// Server connections of one pool (database, shard, user) over all workers.
    pub size: NonZeroU32,
    /// Server connections that are kept, also when nobody needs them.
    pub size_min: u32,
    /// Further server connections, once a client has waited for `reserve_timeout`.
    pub reserve_size: u32,
    pub reserve_timeout: Duration,
    pub reuse: Reuse,
    /// How long a client waits for a server connection before 53300.
    pub wait_timeout: Duration,
    /// A client that waits for so long is told that it does; zero: never.
    pub wait_notice: Duration,
    /// Connecting and logging in to a server.
    pub connect_timeout: Duration,
    /// Logins of one pool under way at once.
    pub connect_parallelism: NonZeroU32,
    /// Run on each new server connection.
    pub connect_query: Option<String>,
    /// An unused server connection is closed after this; zero: never.
    pub idle_timeout: Duration,
    /// A server connection older than this is closed when it is next idle; zero: never.
    pub lifetime: Duration,
    /// A server connection that has rested for longer must answer before it is lent; zero: every one.
    pub check_after: Duration,
    pub reset: Reset,
    /// Run on a server when its client has left, in session mode; see [`Reset`].
    pub reset_query: Option<String>,
    pub on_session_state: OnSessionState,
    pub timeouts: Timeouts,
}

/// What the file says of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableRule {
    /// Spread over the shards by the hash of these columns (one column for now).
    Sharded { key: Vec<String> },
    /// The same rows on every shard.
    Reference,
    /// Whole on one shard.
    Single(ShardId),
}

/// What becomes of tables that the file does not name, on a database of several shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultTable {
    Refuse,
    Shard(ShardId),
}

/// One connection string, as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dsn {
    /// At least one; tried in order, see `shuffle_hosts`.
    pub hosts: Vec<Endpoint>,
    pub dbname: String,
    /// The forced user; `None` means each client's own name and secret.
    pub user: Option<String>,
    pub password: Option<Password>,
    pub tls: ServerTls,
    pub connect_timeout: Option<Duration>,
    pub application_name: Option<String>,
    /// The libpq `options` value, sent in the start-up message.
    pub options: Option<String>,
    pub target: TargetSession,
    /// Hosts, and the addresses of each, are tried in a new random order every time (`load_balance_hosts=random`).
    pub shuffle_hosts: bool,
}

/// What a host must be to be taken: libpq's `target_session_attrs`
/// (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-TARGET-SESSION-ATTRS>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetSession {
    #[default]
    Any,
    /// No standby, and transactions may write unless they say otherwise.
    ReadWrite,
    /// The opposite.
    ReadOnly,
    Primary,
    Standby,
    /// A standby, or any host where there is none.
    PreferStandby,
}

impl TargetSession {
    /// As a connection string has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            TargetSession::Any => "any",
            TargetSession::ReadWrite => "read-write",
            TargetSession::ReadOnly => "read-only",
            TargetSession::Primary => "primary",
            TargetSession::Standby => "standby",
            TargetSession::PreferStandby => "prefer-standby",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    Tcp {
        host: String,
        port: u16,
    },
    /// The full path of the socket file.
    Unix {
        path: PathBuf,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerTls {
    pub mode: SslMode,
    pub root_cert: Option<PathBuf>,
    pub client_cert: Option<(PathBuf, PathBuf)>,
}

/// libpq's `sslmode` (<https://www.postgresql.org/docs/current/libpq-ssl.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslMode {
    Disable,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// A password that never shows itself in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}
