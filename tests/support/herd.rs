//! Sharded databases on the shared servers, and the configuration that describes them.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgherd::backend::control::{Control, ControlLimits};
use pgherd::config::{
    Auth, AuthMethod, Caps, Config, Database, DefaultTable, Dsn, Endpoint, Log, MemoryMax,
    PoolSettings, Proxy, ServerTls, Shard, SslMode, TableRule, TargetSession, Users,
};
use pgherd::demo::Server;
use pgherd::names::{DatabaseName, ShardId, ShardName, TableName};

use crate::support;

/// The shards of one database: each a database on a server of its own.
pub struct Herd {
    name: String,
    pub controls: Vec<Control>,
    pub shards: Vec<Shard>,
}

impl Herd {
    /// New and empty, on the shared servers (three of them).
    pub fn of(name: &str, shard_count: u16) -> Herd {
        Herd::on(support::servers().all(), name, shard_count)
    }

    pub fn on(servers: &[Server], name: &str, shard_count: u16) -> Herd {
        let (mut controls, mut shards) = (Vec::new(), Vec::new());
        for (id, server) in (0..shard_count).zip(servers.iter().cycle()) {
            let database =
                support::database(std::slice::from_ref(server), &format!("{name}_s{id}"), "");
            let dsn = socket_dsn(server.socket_dir(), server.port(), &database);
            controls.push(
                Control::new(format!("{name}/s{id}"), &dsn, ControlLimits::default()).unwrap(),
            );
            shards.push(shard(id, dsn));
        }
        Herd {
            name: name.to_owned(),
            controls,
            shards,
        }
    }

    pub async fn everywhere(&self, text: &str) {
        for control in &self.controls {
            control.execute(text).await.unwrap();
        }
    }

    /// The file's view of it, with these tables.
    pub fn with_tables(&self, tables: &[(&str, TableRule)]) -> Arc<Database> {
        Arc::new(database(&self.name, self.shards.clone(), tables))
    }
}

/// A new database on one of the shared servers.
pub fn database_of_its_own(name: &str, server: usize) -> (Dsn, Control) {
    let server = support::servers().get(server).unwrap();
    let database = support::database(std::slice::from_ref(server), name, "");
    let dsn = socket_dsn(server.socket_dir(), server.port(), &database);
    let control = Control::new(name, &dsn, ControlLimits::default()).unwrap();
    (dsn, control)
}

pub fn sharded(key: &str) -> TableRule {
    TableRule::Sharded {
        key: vec![key.to_owned()],
    }
}

pub fn table(name: &str) -> TableName {
    TableName {
        schema: Some("public".into()),
        name: name.into(),
    }
}

pub fn database(name: &str, shards: Vec<Shard>, tables: &[(&str, TableRule)]) -> Database {
    let number = |n| NonZeroU32::new(n).unwrap();
    Database {
        name: DatabaseName::from(name),
        shards,
        pool: PoolSettings {
            size: number(2),
            wait_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::ZERO,
            lifetime: Duration::ZERO,
            connect_parallelism: number(1),
            ..PoolSettings::default()
        },
        user_pools: BTreeMap::new(),
        caps: Caps::default(),
        tables: tables
            .iter()
            .map(|(name, rule)| {
                (
                    TableName {
                        schema: None,
                        name: (*name).into(),
                    },
                    rule.clone(),
                )
            })
            .collect(),
        default_table: DefaultTable::Refuse,
        shard_safe: std::collections::BTreeSet::new(),
    }
}

/// Two shards at a socket where nobody listens.
pub fn nowhere_database() -> Arc<Database> {
    let shards = (0..2)
        .map(|id| shard(id, socket_dsn(Path::new("/nonexistent"), 1, "nowhere")))
        .collect();
    Arc::new(database("nowhere", shards, &[]))
}

pub fn shard(id: u16, dsn: Dsn) -> Shard {
    let dsn = Arc::new(dsn);
    let name = ShardName::new(format!("s{id}"));
    Shard {
        id: ShardId(id),
        name,
        primary: Arc::clone(&dsn),
        control: dsn,
        replicas: Vec::new(),
    }
}

pub fn socket_dsn(folder: &Path, port: u16, dbname: &str) -> Dsn {
    Dsn {
        hosts: vec![Endpoint::Unix {
            path: folder.join(format!(".s.PGSQL.{port}")),
        }],
        dbname: dbname.to_owned(),
        user: Some("postgres".to_owned()),
        password: None,
        tls: ServerTls {
            mode: SslMode::Disable,
            root_cert: None,
            client_cert: None,
        },
        connect_timeout: None,
        application_name: None,
        options: None,
        target: TargetSession::Any,
        shuffle_hosts: false,
    }
}

pub fn config_of(databases: &[Arc<Database>]) -> Config {
    Config {
        proxy: Proxy {
            listen: Vec::new(),
            http: None,
            workers: 1,
            pin_workers: false,
            clients_max: 10,
            host_connections_max: None,
            server_logins_max: NonZeroU32::MIN,
            memory_max: MemoryMax::Off,
            dns_interval: Duration::ZERO,
            catalog_refresh: Duration::ZERO,
            ignore_startup_parameters: BTreeSet::new(),
            admin_users: Vec::new(),
            login_timeout: Duration::from_secs(5),
            shutdown_timeout: Duration::from_secs(5),
            message_bytes_max: 1 << 20,
            log: Log {
                json: false,
                level: "info".to_owned(),
            },
        },
        auth: Auth {
            method: AuthMethod::Trust,
            users: Arc::new(Users::default()),
        },
        tls: None,
        databases: databases
            .iter()
            .map(|database| (database.name.clone(), Arc::clone(database)))
            .collect(),
        users: BTreeMap::new(),
    }
}
