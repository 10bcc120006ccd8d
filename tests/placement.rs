//! Placement against real servers: our hash is PostgreSQL's, our reading of literals is its input functions', and a
//! database whose shards do not agree with the file or each other is never served.
//!
//! One throw-away postmaster with a database for each shard; it ends with the last test that uses it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use pgherd::backend::control::{Control, ControlError, ControlLimits};
use pgherd::config::{
    Auth, AuthMethod, Config, Database, DefaultTable, Dsn, Endpoint, Log, PoolMode, PoolSettings,
    Proxy, ServerTls, Shard, SslMode, TableRule, Users,
};
use pgherd::error::{Report, Severity};
use pgherd::names::{DatabaseName, ShardId, ShardName, TableName};
use pgherd::placement::{Decoded, KeyType, KeyValue, Placement, sql};
use pgherd::snapshot::{
    Finding, KeyProblem, Outcome, SnapshotError, check_connect, check_rows, init, load,
    load_database,
};

// ── the hash ────────────────────────────────────────────────────────────────────────────────────────────────────

const VALUES: usize = 10_000;

#[tokio::test]
async fn every_row_is_in_the_bucket_that_postgresql_computes() {
    let server = Server::shared();
    let control = server.database("hashes").await;
    let mut random = Random(7);
    let types: [(&str, KeyType); 6] = [
        ("int2", KeyType::Int2),
        ("int4", KeyType::Int4),
        ("int8", KeyType::Int8),
        ("text", KeyType::Text),
        ("varchar", KeyType::Text),
        ("uuid", KeyType::Uuid),
    ];
    let placement = Placement::new("c", 1, vec![ShardId(0); 4096], 1).unwrap();
    for (type_name, key_type) in types {
        control
            .execute(&format!(
                "CREATE TABLE public.{type_name}s (k {type_name}, bucket int) PARTITION BY HASH (k); \
                 DO $$ BEGIN FOR r IN 0..7 LOOP EXECUTE pg_catalog.format('CREATE TABLE public.{type_name}s_%s \
                   PARTITION OF public.{type_name}s FOR VALUES WITH (MODULUS 8, REMAINDER %s)', r, r); END LOOP; END $$"
            ))
            .await
            .unwrap();
        let rows: Vec<String> = values_of(key_type, &mut random)
            .into_iter()
            .map(|text| match text {
                Some(text) => {
                    let Decoded::Value(value) = key_type.from_text(text.as_bytes()) else {
                        panic!("{type_name} {text:?} is not read")
                    };
                    format!("({}, {})", sql::literal(&text), placement.bucket(&value).0)
                }
                None => format!("(NULL, {})", placement.bucket(&KeyValue::Null).0),
            })
            .collect();
        assert_eq!(rows.len(), VALUES);
        control
            .execute(&format!(
                "INSERT INTO public.{type_name}s VALUES {}",
                rows.join(", ")
            ))
            .await
            .unwrap();
        let ours = sql::bucket_expression(key_type, "k", 4096);
        let wrong = control
            .rows(&format!(
                "SELECT k, bucket, {ours} FROM public.{type_name}s WHERE {ours} <> bucket \
                   OR NOT satisfies_hash_partition('public.{type_name}s'::regclass, 4096, bucket, k) \
                   OR tableoid <> ('public.{type_name}s_' || bucket % 8)::regclass"
            ))
            .await
            .unwrap();
        assert_eq!(wrong, Vec::<Vec<Option<String>>>::new(), "{type_name}");
        let count = control
            .rows(&format!("SELECT count(*) FROM public.{type_name}s"))
            .await
            .unwrap();
        assert_eq!(count, [[Some(VALUES.to_string())]], "{type_name}");
    }
}

fn values_of(key_type: KeyType, random: &mut Random) -> Vec<Option<String>> {
    let mut values: Vec<Option<String>> = vec![None];
    let (min, max) = match key_type {
        KeyType::Int2 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        KeyType::Int4 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    };
    match key_type {
        KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => {
            values.extend([min, min + 1, -1, 0, 1, max - 1, max].map(|v| Some(v.to_string())));
            while values.len() < VALUES {
                let wide = random.next().cast_signed() >> (random.next() % 64);
                values.push(Some(wide.clamp(min, max).to_string()));
            }
        }
        KeyType::Text => {
            values.extend(
                [
                    "", " ", "a", "A", "á", "a\u{301}", "\\", "'", "𐍈", "a ", "\n",
                ]
                .map(|v| Some(v.to_owned())),
            );
            let alphabet: Vec<char> = "abcXYZ019 -_'\\\"%{},äßéж中文🦀\u{301}\t".chars().collect();
            while values.len() < VALUES {
                let length = random.next() % 48;
                let text = (0..length)
                    .map(|_| alphabet[random.next() as usize % alphabet.len()])
                    .collect();
                values.push(Some(text));
            }
        }
        KeyType::Uuid => {
            values.extend([0u128, 1, u128::MAX].map(|v| Some(format!("{v:032x}"))));
            while values.len() < VALUES {
                values.push(Some(format!(
                    "{:016x}{:016x}",
                    random.next(),
                    random.next()
                )));
            }
        }
    }
    values
}

// ── literals ────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn literals_have_the_value_that_postgresql_gives_them_or_are_refused_as_it_does() {
    let server = Server::shared();
    let control = server.database("literals").await;
    control
        .execute(
            "CREATE FUNCTION public.try(t text, type text) RETURNS text LANGUAGE plpgsql AS $$ DECLARE r text; BEGIN \
             EXECUTE pg_catalog.format('SELECT %L::%s::text', t, type) INTO r; RETURN 'is ' || r; \
             EXCEPTION WHEN data_exception THEN RETURN 'error'; END $$",
        )
        .await
        .unwrap();
    let version = control
        .rows("SELECT current_setting('server_version_num')")
        .await
        .unwrap();
    let reads_new_integers = version[0][0].as_ref().unwrap().as_str() >= "160000";
    let mut compared = 0;
    for (type_name, key_type, literals) in [
        ("int2", KeyType::Int2, integer_literals()),
        ("int4", KeyType::Int4, integer_literals()),
        ("int8", KeyType::Int8, integer_literals()),
        ("uuid", KeyType::Uuid, uuid_literals()),
        ("text", KeyType::Text, integer_literals()),
        ("varchar", KeyType::Text, uuid_literals()),
    ] {
        assert!(literals.len() > 300, "{} literals", literals.len());
        let rows: Vec<String> = literals
            .iter()
            .enumerate()
            .map(|(i, text)| format!("({i}, {})", sql::literal(text)))
            .collect();
        let answers = control
            .rows(&format!(
                "SELECT public.try(t, '{type_name}') FROM (VALUES {}) AS v (i, t) ORDER BY i",
                rows.join(", ")
            ))
            .await
            .unwrap();
        assert_eq!(answers.len(), literals.len());
        for (text, answer) in literals.iter().zip(&answers) {
            let ours = match key_type.from_text(text.as_bytes()) {
                Decoded::Value(value) => format!("is {}", written(&value)),
                Decoded::Invalid => "error".to_owned(),
            };
            let theirs = answer[0].as_deref().unwrap();
            let is_new = is_integer(key_type) && is_newer_integer(text);
            if is_new && !reads_new_integers {
                // The shard that the statement reaches refuses it, whichever it is.
                assert_eq!(theirs, "error", "{type_name} {text:?}");
            } else {
                assert_eq!(ours, theirs, "{type_name} {text:?}");
            }
            compared += 1;
        }
    }
    assert!(compared > 2000, "{compared}");
}

fn is_integer(key_type: KeyType) -> bool {
    matches!(key_type, KeyType::Int2 | KeyType::Int4 | KeyType::Int8)
}

fn is_newer_integer(text: &str) -> bool {
    text.contains(['_', 'x', 'X', 'o', 'O', 'b', 'B'])
}

fn written(value: &KeyValue) -> String {
    match value {
        KeyValue::Int(value) => value.to_string(),
        KeyValue::Text(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        KeyValue::Uuid(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!(
                "{}-{}-{}-{}-{}",
                &hex[..8],
                &hex[8..12],
                &hex[12..16],
                &hex[16..20],
                &hex[20..]
            )
        }
        KeyValue::Null => "null".to_owned(),
    }
}

fn integer_literals() -> Vec<String> {
    let cores = [
        "",
        "0",
        "5",
        "005",
        "5.0",
        "5.",
        ".5",
        "1e3",
        "1E3",
        "5a",
        "a5",
        "5 5",
        "0x1F",
        "0xG",
        "0x",
        "0o17",
        "0b101",
        "1_000",
        "1__0",
        "_1",
        "1_",
        "32767",
        "32768",
        "2147483647",
        "2147483648",
        "9223372036854775807",
        "9223372036854775808",
        "99999999999",
        "00000000000000000000000000000001",
        "NaN",
        "infinity",
        "٥",
        "１",
        "NULL",
        "'5'",
        "5\u{a0}",
    ];
    let around = [
        ("", ""),
        ("  ", " "),
        ("\t", "\n"),
        ("\u{b}", "\u{c}"),
        ("\r\n", ""),
        ("\u{a0}", ""),
        ("", "x"),
        ("(", ")"),
    ];
    let signs = ["", "-", "+", "--", "+-", "- "];
    let mut literals = Vec::new();
    for core in cores {
        for (before, after) in around {
            for sign in signs {
                literals.push(format!("{before}{sign}{core}{after}"));
            }
        }
    }
    literals
}

fn uuid_literals() -> Vec<String> {
    let cores = [
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
        "a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11",
        "a0-eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a112",
        "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "",
        "-",
        "0",
    ];
    let around = [
        ("", ""),
        ("{", "}"),
        ("{", ""),
        ("", "}"),
        ("{{", "}}"),
        (" ", ""),
        ("", " "),
        ("", "-"),
        ("-", ""),
        ("{ ", " }"),
        ("0x", ""),
        ("{", "-}"),
    ];
    let mut literals = Vec::new();
    for core in cores {
        for (before, after) in around {
            literals.push(format!("{before}{core}{after}"));
        }
    }
    // One character of a good one replaced or missing, at each place.
    let good = cores[0];
    for at in 0..good.len() {
        literals.push(format!("{}{}", &good[..at], &good[at + 1..]));
        for other in ["-", "z", " ", "{", "é"] {
            literals.push(format!("{}{other}{}", &good[..at], &good[at + 1..]));
        }
    }
    literals
}

// ── init and load ───────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn init_twice_then_load() {
    let server = Server::shared();
    let cluster = server.cluster("twice", 3).await;
    cluster
        .everywhere("CREATE TABLE public.orders (id int8, customer_id int4, note text)")
        .await;
    let database = cluster.with_tables(&[
        ("orders", sharded("customer_id")),
        ("countries", TableRule::Reference),
    ]);

    let error = load_database(&database).await.unwrap_err();
    assert!(
        matches!(error, SnapshotError::NotInitialised { .. }),
        "{error:?}"
    );
    assert!(
        error.advice().unwrap().contains("pgherd init --config"),
        "{:?}",
        error.advice()
    );

    let first = init(&database, false).await.unwrap();
    let Outcome::Created {
        epoch: 1,
        buckets: 4096,
        cluster_id,
    } = &first.outcome
    else {
        panic!("{first:?}")
    };
    assert_eq!(first.rules_written, [table("countries"), table("orders")]);
    let second = init(&database, false).await.unwrap();
    assert_eq!(second.outcome, Outcome::AlreadyInitialised { epoch: 1 });
    assert_eq!(
        second.to_string(),
        "database twice: already initialised, epoch 1"
    );
    assert_eq!(second.rules_written, []);

    let loaded = load_database(&database).await.unwrap();
    let placement = loaded.placement.unwrap();
    assert_eq!(&placement.cluster_id, cluster_id);
    assert_eq!(placement.epoch, 1);
    // The map that is loaded is the one on the shards, read with nothing of ours.
    for shard in 0..3u16 {
        let here = cluster.controls[usize::from(shard)]
            .rows(&format!(
                "SELECT count(*) FROM pgherd.placement, unnest(map) AS s WHERE s = {shard}"
            ))
            .await
            .unwrap();
        let count = placement.shards.iter().filter(|id| id.0 == shard).count();
        assert_eq!(here, [[Some(count.to_string())]]);
    }
}

#[tokio::test]
async fn two_inits_at_once_make_one_placement() {
    let server = Server::shared();
    let cluster = server.cluster("atonce", 3).await;
    let database = cluster.with_tables(&[("orders", sharded("id"))]);
    // The same shards, listed in another order.
    let mut other = (*database).clone();
    other.shards.reverse();
    for (shard, index) in other.shards.iter_mut().zip(0..) {
        shard.id = ShardId(index);
    }
    let (one, two) = tokio::join!(init(&database, false), init(&other, false));
    let outcomes = [one.unwrap().outcome, two.unwrap().outcome];
    let created = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Outcome::Created { .. }))
        .count();
    assert_eq!(created, 1, "{outcomes:?}");
    assert!(
        outcomes.contains(&Outcome::AlreadyInitialised { epoch: 1 }),
        "{outcomes:?}"
    );

    // Whatever the order in the file, a key leads to the same shard by name.
    let (one, two) = (
        load_database(&database).await.unwrap(),
        load_database(&Arc::new(other.clone())).await.unwrap(),
    );
    for key in 0..1000 {
        let name = |database: &Database, placement: &Option<Arc<Placement>>| {
            let shard = placement.as_ref().unwrap().shard(&KeyValue::Int(key));
            database.shards[shard.index()].name.clone()
        };
        assert_eq!(
            name(&database, &one.placement),
            name(&other, &two.placement),
            "{key}"
        );
    }
}

#[tokio::test]
async fn a_new_table_is_refused_until_init_adds_its_rule() {
    let server = Server::shared();
    let cluster = server.cluster("newtable", 2).await;
    init(&cluster.with_tables(&[("orders", sharded("id"))]), false)
        .await
        .unwrap();

    let grown = cluster.with_tables(&[("orders", sharded("id")), ("lines", sharded("order_id"))]);
    let error = load_database(&grown).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "table public.lines: the shards do not know its rule yet (sharded by order_id)"
    );
    assert!(error.advice().unwrap().contains("pgherd init"), "{error:?}");

    let report = init(&grown, false).await.unwrap();
    assert_eq!(report.rules_written, [table("lines")]);
    load_database(&grown).await.unwrap();

    // A table that the file no longer names is not left to the default rule either.
    let shrunk = cluster.with_tables(&[("orders", sharded("id"))]);
    let error = load_database(&shrunk).await.unwrap_err();
    assert!(
        matches!(error, SnapshotError::RuleChanged { .. }),
        "{error:?}"
    );
    let report = init(&shrunk, false).await.unwrap();
    assert_eq!(report.rules_removed, [table("lines")]);
    load_database(&shrunk).await.unwrap();
}

#[tokio::test]
async fn the_key_of_a_table_with_rows_cannot_change() {
    let server = Server::shared();
    let cluster = server.cluster("changedkey", 2).await;
    cluster
        .everywhere("CREATE TABLE public.orders (id int8, customer_id int8)")
        .await;
    init(&cluster.with_tables(&[("orders", sharded("id"))]), false)
        .await
        .unwrap();

    let changed = cluster.with_tables(&[("orders", sharded("customer_id"))]);
    let error = load_database(&changed).await.unwrap_err();
    assert!(
        matches!(&error, SnapshotError::RuleChanged { configured, .. } if configured == "sharded by customer_id")
    );

    cluster.controls[1]
        .execute("INSERT INTO public.orders VALUES (1, 1)")
        .await
        .unwrap();
    let error = init(&changed, false).await.unwrap_err();
    assert!(
        matches!(error, SnapshotError::RuleChanged { .. }),
        "{error:?}"
    );
    let error = init(&cluster.with_tables(&[]), false).await.unwrap_err();
    assert!(
        matches!(error, SnapshotError::RuleChanged { .. }),
        "{error:?}"
    );

    cluster.controls[1]
        .execute("TRUNCATE public.orders")
        .await
        .unwrap();
    assert_eq!(
        init(&changed, false).await.unwrap().rules_written,
        [table("orders")]
    );
    load_database(&changed).await.unwrap();

    // An integer may become wider; becoming text moves every row.
    cluster
        .everywhere("ALTER TABLE public.orders ALTER customer_id TYPE int4")
        .await;
    load_database(&changed).await.unwrap();
    cluster
        .everywhere("ALTER TABLE public.orders ALTER customer_id TYPE text")
        .await;
    let error = load_database(&changed).await.unwrap_err();
    assert!(
        matches!(error, SnapshotError::RuleChanged { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_key_that_cannot_be_hashed_is_refused() {
    let server = Server::shared();
    let cluster = server.cluster("badkey", 2).await;
    cluster
        .everywhere(
            "CREATE TABLE public.t (n numeric, c char(3), \
             v varchar(20), i text COLLATE \"C\"); \
             CREATE COLLATION public.nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
             ALTER TABLE public.t ADD x text COLLATE public.nocase",
        )
        .await;
    for (column, problem) in [
        (
            "n",
            KeyProblem::Type {
                column: "n".to_owned(),
                type_name: "numeric".to_owned(),
            },
        ),
        (
            "c",
            KeyProblem::Type {
                column: "c".to_owned(),
                type_name: "character(3)".to_owned(),
            },
        ),
        (
            "x",
            KeyProblem::Collation {
                column: "x".to_owned(),
            },
        ),
        (
            "y",
            KeyProblem::Missing {
                column: "y".to_owned(),
            },
        ),
    ] {
        let error = init(&cluster.with_tables(&[("t", sharded(column))]), false)
            .await
            .unwrap_err();
        assert!(
            matches!(&error, SnapshotError::Key { problem: found, .. } if *found == problem),
            "{error:?}"
        );
    }
    // Nothing was written by the refused ones.
    let report = init(&cluster.with_tables(&[("t", sharded("v"))]), false)
        .await
        .unwrap();
    assert!(
        matches!(report.outcome, Outcome::Created { .. }),
        "{report:?}"
    );
}

#[tokio::test]
async fn swapped_connection_strings_are_found_and_both_shards_named() {
    let server = Server::shared();
    let cluster = server.cluster("swapped", 3).await;
    let database = cluster.with_tables(&[("orders", sharded("id"))]);
    init(&database, false).await.unwrap();
    let mut swapped = (*database).clone();
    let (first, second) = (
        swapped.shards[0].control.clone(),
        swapped.shards[1].control.clone(),
    );
    swapped.shards[0].control = second;
    swapped.shards[1].control = first.clone();
    let swapped = Arc::new(swapped);
    for error in [
        load_database(&swapped).await.unwrap_err(),
        init(&swapped, true).await.unwrap_err(),
    ] {
        assert_eq!(
            error.to_string(),
            "database swapped: the connection string of shard s0 leads to shard s1"
        );
        assert!(error.advice().unwrap().contains("swapped"));
    }
    let mut doubled = (*database).clone();
    doubled.shards[1].control = first;
    let error = init(&doubled, false).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "database swapped: shards s0 and s1 are the same database"
    );
}

#[tokio::test]
async fn shards_that_disagree_are_not_served() {
    let server = Server::shared();
    let cluster = server.cluster("disagree", 2).await;
    let database = cluster.with_tables(&[("orders", sharded("id"))]);
    init(&database, false).await.unwrap();
    let other = &cluster.controls[1];
    for (break_it, mend_it, what) in [
        (
            "UPDATE pgherd.placement SET epoch = 2",
            "UPDATE pgherd.placement SET epoch = 1",
            "epoch",
        ),
        (
            "UPDATE pgherd.placement SET map[8] = 1 - map[8]",
            "UPDATE pgherd.placement SET map[8] = 1 - map[8]",
            "the map",
        ),
        (
            "UPDATE pgherd.rules SET key_columns = '{other}'",
            "UPDATE pgherd.rules SET key_columns = '{id}'",
            "the rules",
        ),
    ] {
        other.execute(break_it).await.unwrap();
        let error = load_database(&database).await.unwrap_err();
        assert!(
            error.to_string().contains(what) && error.to_string().contains("s0 and s1"),
            "{error}"
        );
        other.execute(mend_it).await.unwrap();
        load_database(&database).await.unwrap();
    }
    other
        .execute("UPDATE pgherd.identity SET cluster_id = gen_random_uuid()")
        .await
        .unwrap();
    let error = load_database(&database).await.unwrap_err();
    assert!(
        matches!(error, SnapshotError::OtherCluster { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_half_made_placement_is_refused_and_repaired_by_copying() {
    let server = Server::shared();
    let cluster = server.cluster("half", 3).await;
    let database = cluster.with_tables(&[
        ("orders", sharded("id")),
        ("settings", TableRule::Single(ShardId(2))),
    ]);
    init(&database, false).await.unwrap();
    let before = load_database(&database).await.unwrap().placement.unwrap();
    cluster.controls[0]
        .execute("DROP SCHEMA pgherd CASCADE")
        .await
        .unwrap();
    cluster.controls[2]
        .execute("DROP TABLE pgherd.identity")
        .await
        .unwrap();
    for error in [
        load_database(&database).await.unwrap_err(),
        init(&database, false).await.unwrap_err(),
    ] {
        assert_eq!(
            error.to_string(),
            "database half: the placement is only half there: shard s0, s2 has none"
        );
        assert!(error.advice().unwrap().contains("--repair"), "{error:?}");
    }
    let report = init(&database, true).await.unwrap();
    let names = vec![ShardName::from("s0"), ShardName::from("s2")];
    assert_eq!(
        report.outcome,
        Outcome::Repaired {
            epoch: 1,
            shards: names
        }
    );
    assert_eq!(
        load_database(&database).await.unwrap().placement.unwrap(),
        before
    );
    assert_eq!(
        init(&database, true).await.unwrap().outcome,
        Outcome::AlreadyInitialised { epoch: 1 }
    );

    // An init that died between two commits while it added a rule: the next one completes it.
    cluster.controls[1]
        .execute("DELETE FROM pgherd.rules")
        .await
        .unwrap();
    load_database(&database).await.unwrap_err();
    init(&database, false).await.unwrap();
    load_database(&database).await.unwrap();

    // Nothing to copy from.
    cluster.everywhere("DELETE FROM pgherd.identity").await;
    let error = init(&database, true).await.unwrap_err();
    assert!(
        matches!(error, SnapshotError::HalfInitialised { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn another_set_of_shards_is_refused() {
    let server = Server::shared();
    let cluster = server.cluster("grown", 3).await;
    let three = cluster.with_tables(&[]);
    let mut two = (*three).clone();
    two.shards.truncate(2);
    init(&two, false).await.unwrap();
    let error = init(&three, true).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "database grown: the file has the shards s0, s1, s2, the placement has s0, s1"
    );
    load_database(&Arc::new(two)).await.unwrap();
}

#[tokio::test]
async fn tables_must_be_equal_on_all_shards() {
    let server = Server::shared();
    let cluster = server.cluster("tables", 2).await;
    let database = cluster.with_tables(&[("orders", sharded("id"))]);
    init(&database, false).await.unwrap();
    // Nowhere is as good as everywhere.
    load_database(&database).await.unwrap();
    cluster.controls[0]
        .execute("CREATE TABLE public.orders (id int8, note text)")
        .await
        .unwrap();
    let error = load_database(&database).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "table public.orders: it is missing on shard s1"
    );
    cluster.controls[1]
        .execute("CREATE TABLE public.orders (id int8, note varchar)")
        .await
        .unwrap();
    let error = load_database(&database).await.unwrap_err();
    assert!(
        error
            .detail()
            .unwrap()
            .contains("note text default and note character varying default"),
        "{error:?}"
    );
    cluster.controls[1]
        .execute("ALTER TABLE public.orders ALTER note TYPE text")
        .await
        .unwrap();
    load_database(&database).await.unwrap();
}

#[tokio::test]
async fn rows_on_the_wrong_shard_are_counted_and_keep_a_rule_from_being_written() {
    let server = Server::shared();
    let cluster = server.cluster("rows", 2).await;
    cluster
        .everywhere("CREATE TABLE public.orders (id int4); CREATE TABLE public.tenants (name text)")
        .await;
    let database = cluster.with_tables(&[("orders", sharded("id"))]);
    init(&database, false).await.unwrap();
    let placement = load_database(&database).await.unwrap().placement.unwrap();
    for (control, id) in cluster.controls.iter().zip(0u16..) {
        let here: Vec<String> = (1..=200)
            .filter(|key| placement.shard(&KeyValue::Int(*key)).0 == id)
            .map(|key| format!("({key})"))
            .collect();
        assert!(here.len() > 60, "{}", here.len());
        control
            .execute(&format!(
                "INSERT INTO public.orders VALUES {}",
                here.join(", ")
            ))
            .await
            .unwrap();
    }
    assert_eq!(check_rows(&database).await.unwrap(), []);
    let strangers: Vec<i64> = (1..=200)
        .filter(|key| placement.shard(&KeyValue::Int(*key)).0 == 1)
        .take(3)
        .collect();
    for key in &strangers {
        cluster.controls[0]
            .execute(&format!("INSERT INTO public.orders VALUES ({key})"))
            .await
            .unwrap();
    }
    let found = check_rows(&database).await.unwrap();
    let [found] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(
        (found.rows, found.shard.as_str(), &found.table),
        (3, "s0", &table("orders"))
    );
    assert!(
        strangers
            .iter()
            .any(|key| Some(key.to_string()) == found.example),
        "{found:?}"
    );

    // All tenants are on both shards, so half of them are wrong on each.
    cluster
        .everywhere(
            "INSERT INTO public.tenants SELECT 'tenant-' || i FROM generate_series(1, 100) AS i",
        )
        .await;
    let grown = cluster.with_tables(&[("orders", sharded("id")), ("tenants", sharded("name"))]);
    let error = init(&grown, false).await.unwrap_err();
    assert!(
        matches!(error, SnapshotError::RowsMisplaced { rows: 1..100, .. }),
        "{error:?}"
    );
    load_database(&database).await.unwrap();
}

#[tokio::test]
async fn a_database_of_one_shard_is_not_touched() {
    let mut database = (*nowhere_database()).clone();
    database.shards.truncate(1);
    let database = Arc::new(database);
    let loaded = load_database(&database).await.unwrap();
    assert!(loaded.placement.is_none() && loaded.catalog.is_none());
    assert_eq!(
        init(&database, false).await.unwrap().outcome,
        Outcome::NotSharded
    );
    assert_eq!(check_rows(&database).await.unwrap(), []);
    let snapshot = load(&config_of(&[database])).await.unwrap();
    assert!(snapshot.databases.contains_key("nowhere"));
}

// ── check --connect ─────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn check_connect_says_what_would_hurt() {
    let server = Server::shared();
    let cluster = server.cluster("looked", 2).await;
    let database = cluster.with_tables(&[("orders", sharded("id"))]);
    cluster.controls[1]
        .execute("ALTER DATABASE looked_s1 SET TimeZone = 'Asia/Tokyo'")
        .await
        .unwrap();
    let findings = check_connect(&config_of(&[Arc::clone(&database), nowhere_database()])).await;
    let has = |severity, path: &str, text: &str| {
        let hit =
            |f: &&Finding| f.severity == severity && f.path == path && f.problem.contains(text);
        assert!(
            findings.iter().any(|f| hit(&f)),
            "{path}: {text}\n{findings:#?}"
        );
    };
    has(
        Severity::Warning,
        "databases.looked.shards.s0.control",
        "max_prepared_transactions is 0",
    );
    has(
        Severity::Warning,
        "databases.looked.shards.s0.control",
        "fsync is off",
    );
    has(
        Severity::Warning,
        "databases.looked.shards.s1",
        "TimeZone is Asia/Tokyo",
    );
    has(Severity::Error, "databases.looked", "hold no placement yet");
    has(
        Severity::Error,
        "databases.nowhere.shards.s0.control",
        "nowhere/s0",
    );
    let init_named = findings
        .iter()
        .filter_map(|f| f.remedy.as_deref())
        .any(|r| r.contains("pgherd init"));
    assert!(init_named, "{findings:#?}");

    init(&database, false).await.unwrap();
    let findings = check_connect(&config_of(&[database])).await;
    assert!(
        findings.iter().all(|f| f.severity != Severity::Error),
        "{findings:#?}"
    );
}

// ── control connections ─────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn control_connections_tell_errors_end_transactions_and_time_out() {
    let server = Server::shared();
    let control = server.database("control").await;
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

    let dsn = server.dsn("control");
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

// ── the rig ─────────────────────────────────────────────────────────────────────────────────────────────────────

/// Small, seeded, and good enough to spread test values (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

fn sharded(key: &str) -> TableRule {
    TableRule::Sharded {
        key: vec![key.to_owned()],
    }
}

fn table(name: &str) -> TableName {
    TableName {
        schema: Some("public".into()),
        name: name.into(),
    }
}

/// The databases of one herd, one for each shard.
struct Cluster {
    name: String,
    controls: Vec<Control>,
    shards: Vec<Shard>,
}

impl Cluster {
    async fn everywhere(&self, text: &str) {
        for control in &self.controls {
            control.execute(text).await.unwrap();
        }
    }

    fn with_tables(&self, tables: &[(&str, TableRule)]) -> Arc<Database> {
        Arc::new(database(&self.name, self.shards.clone(), tables))
    }
}

fn database(name: &str, shards: Vec<Shard>, tables: &[(&str, TableRule)]) -> Database {
    let number = |n| NonZeroU32::new(n).unwrap();
    Database {
        name: DatabaseName::from(name),
        shards,
        pool: PoolSettings {
            mode: PoolMode::Transaction,
            size: number(2),
            wait_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::ZERO,
            lifetime: Duration::ZERO,
            connect_parallelism: number(1),
        },
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
    }
}

/// Two shards at a socket where nobody listens.
fn nowhere_database() -> Arc<Database> {
    let shards = (0..2)
        .map(|id| shard(id, socket_dsn(Path::new("/nonexistent"), 1, "nowhere")))
        .collect();
    Arc::new(database("nowhere", shards, &[]))
}

fn shard(id: u16, dsn: Dsn) -> Shard {
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

fn socket_dsn(folder: &Path, port: u16, dbname: &str) -> Dsn {
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
    }
}

fn config_of(databases: &[Arc<Database>]) -> Config {
    Config {
        proxy: Proxy {
            listen: Vec::new(),
            http: None,
            workers: 1,
            clients_max: 10,
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
            .collect::<BTreeMap<_, _>>(),
    }
}

/// A throw-away postmaster that only listens on a socket in its own folder.
struct Server {
    folder: PathBuf,
    process: Child,
}

static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
static FOLDERS: AtomicU32 = AtomicU32::new(0);
const PORT: u16 = 54_931;

impl Server {
    /// The one that runs already, or a new one; it ends when nobody holds it any more.
    fn shared() -> Arc<Server> {
        let mut shared = SHARED.lock().unwrap();
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Server::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    fn start() -> Server {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("pgherd-placement-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let data = folder.join("data");
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&folder));
        }
        let mut initdb = unprivileged("initdb");
        initdb.args([
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "-D",
        ]);
        run(initdb.arg(&data));
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let process = unprivileged("postgres")
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(&folder)
            .args([
                "-p",
                &PORT.to_string(),
                "-c",
                "listen_addresses=",
                "-c",
                "fsync=off",
                "-c",
                "max_connections=200",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Server { folder, process };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let mut ready = Command::new(program("pg_isready"));
            ready
                .arg("-q")
                .arg("-h")
                .arg(&self.folder)
                .args(["-p", &PORT.to_string()]);
            if ready.status().unwrap().success() {
                return;
            }
            let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(
                Instant::now() < until,
                "the server did not start: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn dsn(&self, dbname: &str) -> Dsn {
        socket_dsn(&self.folder, PORT, dbname)
    }

    async fn database(&self, name: &str) -> Control {
        let limits = ControlLimits::default();
        let postgres = Control::new("postgres", &self.dsn("postgres"), limits).unwrap();
        postgres
            .execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))
            .await
            .unwrap();
        Control::new(name, &self.dsn(name), limits).unwrap()
    }

    async fn cluster(&self, name: &str, shard_count: u16) -> Cluster {
        let (mut controls, mut shards) = (Vec::new(), Vec::new());
        for id in 0..shard_count {
            let dbname = format!("{name}_s{id}");
            controls.push(self.database(&dbname).await);
            shards.push(shard(id, self.dsn(&dbname)));
        }
        Cluster {
            name: name.to_owned(),
            controls,
            shards,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT: a fast shutdown, which also removes the shared memory.
        let _ = Command::new("kill")
            .args(["-INT", &self.process.id().to_string()])
            .status();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// PostgreSQL's programs refuse to run as root.
fn unprivileged(name: &str) -> Command {
    let program = program(name);
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
        .arg(program)
        .current_dir("/");
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.starts_with(b"0\n")
}

fn program(name: &str) -> PathBuf {
    let debian = Path::new("/usr/lib/postgresql");
    let mut versions: Vec<PathBuf> = std::fs::read_dir(debian)
        .map(|all| all.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    versions.sort();
    versions
        .into_iter()
        .rev()
        .map(|version| version.join("bin").join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(name))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
