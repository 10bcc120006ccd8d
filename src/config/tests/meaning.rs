//! What right texts mean, with the files that they name.

use super::*;
use std::time::Duration;

#[test]
fn a_right_text_means_what_it_says() {
    let text = format!(
        r#"
        [proxy]
        listen = ["${{LISTEN}}", "localhost:0", "[::1]:6432", "/run/pgherd", "/run/pgherd:7000"]
        http = "[::1]:9632"
        workers = 3
        clients_max = 5
        host_connections_max = 90
        server_logins_max = 2
        memory_max = "1GiB"
        dns_interval = "0"
        catalog_refresh = "90s"
        ignore_startup_parameters = ["Extra_Float_Digits"]
        admin_users = []
        login_timeout = "5s"
        shutdown_timeout = "0"
        message_bytes_max = "64MiB"
        [log]
        format = "json"
        level = "info,pgherd::backend=debug"
        [pool]
        mode = "session"
        size = 7
        wait_timeout = "1s"
        lifetime = "0"
        reset_query = ""
        [users.ann]
        connections_max = 5
        clients_max = 0
        [users.ann.pool]
        size = 3
        query_timeout = "9s"
        {SHOP}
        replicas = ["postgres://u:${{SECRET}}@r:3/shop"]
        [databases.shop.pool]
        mode = "transaction"
        connect_parallelism = 9
        [databases.shop.tables.Customers]
        key = "ID"
        [databases.shop.tables."public.countries"]
        reference = true
        [databases.shop.tables."sales.orders"]
        key = ['"Customer"']
        [databases.shop.tables.settings]
        shard = "s1"
        reference = false
        "#
    )
    .replace(
        "[databases.shop]",
        "[databases.shop]\ndefault_table = \"s1\"\nclients_max = 70",
    );
    let config = read(&text).expect("a right text");
    let tcp = |host: &str, port| Listen::Tcp {
        host: host.to_owned(),
        port,
    };
    let folder = PathBuf::from("/run/pgherd");
    assert_eq!(
        config.proxy,
        Proxy {
            listen: vec![
                tcp("127.0.0.1", 7000),
                tcp("localhost", 0),
                tcp("::1", 6432),
                Listen::Unix {
                    folder: folder.clone(),
                    port: 6432
                },
                Listen::Unix { folder, port: 7000 },
            ],
            http: "[::1]:9632".parse().ok(),
            workers: 3,
            pin_workers: false,
            clients_max: 5,
            host_connections_max: NonZeroU32::new(90),
            server_logins_max: NonZeroU32::new(2).expect("2"),
            memory_max: MemoryMax::Bytes(1 << 30),
            dns_interval: Duration::ZERO,
            catalog_refresh: Duration::from_secs(90),
            ignore_startup_parameters: ["extra_float_digits".to_owned()].into(),
            admin_users: vec![],
            login_timeout: Duration::from_secs(5),
            shutdown_timeout: Duration::ZERO,
            message_bytes_max: 64 << 20,
            log: Log {
                json: true,
                level: "info,pgherd::backend=debug".to_owned()
            },
        }
    );
    let shop = shop(&config);
    assert_eq!(
        shop.pool,
        PoolSettings {
            size: NonZeroU32::new(7).expect("7"),
            wait_timeout: Duration::from_secs(1),
            lifetime: Duration::ZERO,
            connect_parallelism: NonZeroU32::new(9).expect("9"),
            reset_query: None,
            ..PoolSettings::default()
        }
    );
    let ann = UserName::from("ann");
    assert_eq!(
        *shop.pool_of(&ann),
        PoolSettings {
            size: NonZeroU32::new(3).expect("3"),
            timeouts: Timeouts {
                query: Duration::from_secs(9),
                ..Timeouts::default()
            },
            ..shop.pool.clone()
        }
    );
    assert_eq!(shop.pool_of(&UserName::from("bob")), &shop.pool);
    assert_eq!(shop.caps.clients_max, NonZeroU32::new(70));
    assert_eq!(shop.caps.connections_max, None);
    assert_eq!(
        config.users[&ann],
        Caps {
            connections_max: NonZeroU32::new(5),
            clients_max: None
        }
    );
    let table = |schema: Option<&str>, name: &str| TableName {
        schema: schema.map(Into::into),
        name: name.into(),
    };
    let sharded = |key: &str| TableRule::Sharded {
        key: vec![key.to_owned()],
    };
    assert_eq!(
        shop.tables,
        BTreeMap::from([
            (table(None, "customers"), sharded("id")),
            (table(None, "countries"), TableRule::Reference),
            (table(Some("sales"), "orders"), sharded("Customer")),
            (table(None, "settings"), TableRule::Single(ShardId(1))),
        ])
    );
    assert_eq!(shop.default_table, DefaultTable::Shard(ShardId(1)));
    assert!(shop.is_sharded());
    let [first, second] = shop.shards.as_slice() else {
        panic!("two shards")
    };
    assert_eq!((first.id, first.name.as_str()), (ShardId(0), "s0"));
    assert_eq!(first.control, first.primary);
    assert_eq!(first.primary.dbname, "shop");
    let replica = second.replicas.first().expect("a replica");
    assert_eq!(replica.password, Some(Password("hunter2'\"\\ ".to_owned())));
}

#[test]
fn one_shard_needs_neither_a_user_nor_rules_that_make_sense() {
    let text = r#"
        [auth]
        method = "trust"
        [databases.d]
        default_table = "s"
        [[databases.d.shards]]
        name = "s"
        primary = "host=/tmp"
        [databases.d.tables.t]
        key = "id"
    "#;
    let config = read(text).expect("harmless");
    let database = config.databases.get("d").expect("d");
    assert!(!database.is_sharded());
    assert!(config.proxy.workers >= 1);
    assert_eq!(config.proxy.http, None);
    assert_eq!(config.tls, None);
}

#[test]
fn problems_are_paragraphs_with_a_remedy_and_no_secret() {
    let Problems(mut found) =
        read("[auth]\nmethod = \"trust\"\nhunter3 = 1\n[[databases.d.shards]]\nname = \"s\"\nprimary = \"host=h password=hunter2 port=x\"")
            .expect_err("wrong");
    found.retain(|problem| problem.path.starts_with("databases"));
    assert_eq!(
        Problems(found).to_string(),
        "databases.d.shards[0].primary: a port is not a number from 1 to 65535\n    \
         correct the port (in a URI, write : / @ and ? in a password as %3A %2F %40 and %3F)"
    );
    let two = read("[auth]\nmethod = \"x\"")
        .expect_err("wrong")
        .to_string();
    assert_eq!(two.matches("\n\n").count(), 1, "{two}");
}

/// Files in a folder that is removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "pgherd-config-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a new folder");
        for (name, text) in files {
            std::fs::write(folder.join(name), text).expect("a new file");
        }
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_are_found_beside_the_configuration() {
    let folder = Folder::with(&[
        ("userlist.txt", "\"ann\" \"a\"\n\"bob\" \"b\""),
        ("cert.pem", "-----BEGIN CERTIFICATE-----"),
        ("key.pem", "-----BEGIN EC PRIVATE KEY-----"),
        ("pw", "hunter2\n"),
        (
            "sharding.toml",
            r#"
            [auth]
            users_file = "userlist.txt"
            [tls]
            cert_file = "cert.pem"
            key_file = "key.pem"
            mode = "require"
            [[databases.d.shards]]
            name = "s"
            primary = "host=h user=u sslmode=require sslrootcert=cert.pem sslcert=cert.pem sslkey=key.pem"
            primary_password_file = "pw"
            control = "host=h user=c"
            control_password_file = "pw"
            replicas = ["host=r user=u"]
            replicas_password_file = "pw"
        "#,
        ),
    ]);
    let config = load(&folder.0.join("sharding.toml")).expect("all files are there");
    assert_eq!(config.auth.method, AuthMethod::ScramSha256);
    assert_eq!(
        config.auth.users.secret("bob"),
        Some(&Secret::Plain(Password("b".to_owned())))
    );
    let tls = config.tls.as_ref().expect("TLS");
    assert_eq!(
        (tls.cert_file.clone(), tls.required),
        (folder.0.join("cert.pem"), true)
    );
    let shard = config
        .databases
        .get("d")
        .and_then(|database| database.shards.first())
        .expect("one shard");
    let password = Some(Password("hunter2".to_owned()));
    assert_eq!(shard.primary.password, password);
    assert_eq!(shard.control.password, password);
    assert_eq!(
        shard
            .replicas
            .first()
            .map(|replica| replica.password.clone()),
        Some(password)
    );
    assert_eq!(
        shard.primary.tls,
        ServerTls {
            mode: SslMode::VerifyCa,
            root_cert: Some(folder.0.join("cert.pem")),
            client_cert: Some((folder.0.join("cert.pem"), folder.0.join("key.pem"))),
        }
    );
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn lines_of_the_users_file_are_named() {
    let folder = Folder::with(&[(
        "u",
        "\"ann\" \"md50123456789abcdef0123456789abcdef\"\nbob\n\"ann\" \"x\"",
    )]);
    let text = SHOP
        .to_string()
        .replace("method = \"trust\"", "users_file = \"u\"");
    let Problems(found) = parse(&text, &folder.0).expect_err("wrong users");
    let file = folder.0.join("u");
    let file = file.display();
    assert_eq!(
        found.iter().map(|problem| problem.problem.clone()).collect::<Vec<_>>(),
        [
            format!("{file}, line 2: the user name is not in double quotes"),
            format!("{file}, line 3: the user \"ann\" is listed a second time"),
            "md5 secrets cannot be used with scram-sha-256; 1 of them, the first of the user \"ann\"".to_owned(),
        ]
    );
}

#[cfg(unix)]
#[test]
fn a_password_file_of_libpq_is_read_if_only_the_owner_may() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::with(&[("pass", "h:5432:shop:u:hunter2\ni:*:*:u:other\n")]);
    let read = |hosts: &str| {
        let text = format!(
            "[auth]\nmethod = \"trust\"\n[[databases.shop.shards]]\nname = \"s\"\nprimary = \"host={hosts} user=u passfile=pass\""
        );
        parse(&text, &folder.0).map(|config| {
            shop(&config)
                .shards
                .first()
                .and_then(|shard| shard.primary.password.clone())
        })
    };
    let mode = |mode| {
        std::fs::set_permissions(folder.0.join("pass"), std::fs::Permissions::from_mode(mode))
            .expect("a file of our own");
    };
    let problem = |hosts: &str| read(hosts).expect_err(hosts).to_string();
    mode(0o644);
    assert!(problem("h").contains("can be read by others"));
    mode(0o600);
    assert_eq!(read("h"), Ok(Some(Password("hunter2".to_owned()))));
    assert!(problem("j").contains("has no line for this host"));
    assert!(problem("h,i").contains("different passwords"));
}

#[test]
fn a_missing_configuration_file_is_a_problem_like_any_other() {
    let Problems(found) = load(Path::new("/nowhere/sharding.toml")).expect_err("missing");
    let problem = found.first().expect("one problem");
    assert_eq!(problem.path, "/nowhere/sharding.toml");
    assert_eq!(
        problem.problem,
        "the configuration file cannot be read: entity not found"
    );
}

#[test]
fn the_template_of_all_databases_gives_its_name_where_none_is_written() {
    let text = "[auth]\nmethod = \"trust\"\n[databases.\"*\"]\nclients_max = 3\n[[databases.\"*\".shards]]\nname = \"s0\"\n\
                primary = \"host=h\"\ncontrol = \"host=h user=c\"\nreplicas = [\"host=r\"]\n";
    let template = |text: &str| {
        let config = read(text).expect("a good file");
        config.databases.get(ANY).cloned().expect("the template")
    };
    let made = template(text).of_template("shop");
    assert_eq!(made.name.as_str(), "shop");
    assert_eq!(made.caps.clients_max.map(u32::from), Some(3));
    let shard = &made.shards[0];
    for dsn in [&shard.primary, &shard.control, &shard.replicas[0]] {
        assert_eq!(dsn.dbname, "shop");
    }
    let elsewhere = text
        .replace("host=h", "host=h dbname=d")
        .replace("host=r", "host=r dbname=d");
    let made = template(&elsewhere).of_template("shop");
    assert_eq!(made.shards[0].primary.dbname, "d");
    assert_eq!(made.name.as_str(), "shop");

    let (longest, longer) = ("x".repeat(63), "x".repeat(64));
    for (name, may) in [
        ("shop", true),
        ("*", true),
        (longest.as_str(), true),
        (longer.as_str(), false),
        ("", false),
        ("a\0b", false),
        ("pgherd", false),
        ("pgbouncer", false),
    ] {
        assert_eq!(may_be_asked_for(name), may, "{name:?}");
    }
}
