//! A sharded database as the shards hold it: written by `init`, read by `load`, and never served when the shards do not
//! agree with the file or with each other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/herd.rs"]
mod herd;
mod support;

use std::sync::Arc;

use herd::{Herd, config_of, nowhere_database, sharded, table};
use pgherd::config::{Database, TableRule};
use pgherd::demo::{Options, Servers};
use pgherd::error::{Report, Severity};
use pgherd::names::{ShardId, ShardName};
use pgherd::placement::{KeyValue, Placement};
use pgherd::snapshot::{
    Finding, KeyProblem, Outcome, SnapshotError, check_connect, check_rows, init, load,
    load_database,
};

// ── init and load ───────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn init_twice_then_load() {
    let herd = Herd::of("twice", 3);
    herd.everywhere("CREATE TABLE public.orders (id int8, customer_id int4, note text)")
        .await;
    let database = herd.with_tables(&[
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
        let here = herd.controls[usize::from(shard)]
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
    let herd = Herd::of("atonce", 3);
    let database = herd.with_tables(&[("orders", sharded("id"))]);
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
    let herd = Herd::of("newtable", 2);
    init(&herd.with_tables(&[("orders", sharded("id"))]), false)
        .await
        .unwrap();

    let grown = herd.with_tables(&[("orders", sharded("id")), ("lines", sharded("order_id"))]);
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
    let shrunk = herd.with_tables(&[("orders", sharded("id"))]);
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
    let herd = Herd::of("changedkey", 2);
    herd.everywhere("CREATE TABLE public.orders (id int8, customer_id int8)")
        .await;
    init(&herd.with_tables(&[("orders", sharded("id"))]), false)
        .await
        .unwrap();

    let changed = herd.with_tables(&[("orders", sharded("customer_id"))]);
    let error = load_database(&changed).await.unwrap_err();
    assert!(
        matches!(&error, SnapshotError::RuleChanged { configured, .. } if configured == "sharded by customer_id")
    );

    herd.controls[1]
        .execute("INSERT INTO public.orders VALUES (1, 1)")
        .await
        .unwrap();
    let error = init(&changed, false).await.unwrap_err();
    assert!(
        matches!(error, SnapshotError::RuleChanged { .. }),
        "{error:?}"
    );
    let error = init(&herd.with_tables(&[]), false).await.unwrap_err();
    assert!(
        matches!(error, SnapshotError::RuleChanged { .. }),
        "{error:?}"
    );

    herd.controls[1]
        .execute("TRUNCATE public.orders")
        .await
        .unwrap();
    assert_eq!(
        init(&changed, false).await.unwrap().rules_written,
        [table("orders")]
    );
    load_database(&changed).await.unwrap();

    // An integer may become wider; becoming text moves every row.
    herd.everywhere("ALTER TABLE public.orders ALTER customer_id TYPE int4")
        .await;
    load_database(&changed).await.unwrap();
    herd.everywhere("ALTER TABLE public.orders ALTER customer_id TYPE text")
        .await;
    let error = load_database(&changed).await.unwrap_err();
    assert!(
        matches!(error, SnapshotError::RuleChanged { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_key_that_cannot_be_hashed_is_refused() {
    let herd = Herd::of("badkey", 2);
    herd
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
        let error = init(&herd.with_tables(&[("t", sharded(column))]), false)
            .await
            .unwrap_err();
        assert!(
            matches!(&error, SnapshotError::Key { problem: found, .. } if *found == problem),
            "{error:?}"
        );
    }
    // Nothing was written by the refused ones.
    let report = init(&herd.with_tables(&[("t", sharded("c"))]), false)
        .await
        .unwrap();
    assert!(
        matches!(report.outcome, Outcome::Created { .. }),
        "{report:?}"
    );
}

#[tokio::test]
async fn swapped_connection_strings_are_found_and_both_shards_named() {
    let herd = Herd::of("swapped", 3);
    let database = herd.with_tables(&[("orders", sharded("id"))]);
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
    let herd = Herd::of("disagree", 2);
    let database = herd.with_tables(&[("orders", sharded("id"))]);
    init(&database, false).await.unwrap();
    let other = &herd.controls[1];
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
    let herd = Herd::of("half", 3);
    let database = herd.with_tables(&[
        ("orders", sharded("id")),
        ("settings", TableRule::Single(ShardId(2))),
    ]);
    init(&database, false).await.unwrap();
    let before = load_database(&database).await.unwrap().placement.unwrap();
    herd.controls[0]
        .execute("DROP SCHEMA pgherd CASCADE")
        .await
        .unwrap();
    herd.controls[2]
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
    herd.controls[1]
        .execute("DELETE FROM pgherd.rules")
        .await
        .unwrap();
    load_database(&database).await.unwrap_err();
    init(&database, false).await.unwrap();
    load_database(&database).await.unwrap();

    // Nothing to copy from.
    herd.everywhere("DELETE FROM pgherd.identity").await;
    let error = init(&database, true).await.unwrap_err();
    assert!(
        matches!(error, SnapshotError::HalfInitialised { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn another_set_of_shards_is_refused() {
    let herd = Herd::of("grown", 3);
    let three = herd.with_tables(&[]);
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
    let herd = Herd::of("tables", 2);
    let database = herd.with_tables(&[("orders", sharded("id"))]);
    init(&database, false).await.unwrap();
    // Nowhere is as good as everywhere.
    load_database(&database).await.unwrap();
    herd.controls[0]
        .execute("CREATE TABLE public.orders (id int8, note text)")
        .await
        .unwrap();
    let error = load_database(&database).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "table public.orders: it is missing on shard s1"
    );
    herd.controls[1]
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
    herd.controls[1]
        .execute("ALTER TABLE public.orders ALTER note TYPE text")
        .await
        .unwrap();
    load_database(&database).await.unwrap();
}

#[tokio::test]
async fn rows_on_the_wrong_shard_are_counted_and_keep_a_rule_from_being_written() {
    let herd = Herd::of("rows", 2);
    herd.everywhere(
        "CREATE TABLE public.orders (id int4); CREATE TABLE public.tenants (name text)",
    )
    .await;
    let database = herd.with_tables(&[("orders", sharded("id"))]);
    init(&database, false).await.unwrap();
    let placement = load_database(&database).await.unwrap().placement.unwrap();
    for (control, id) in herd.controls.iter().zip(0u16..) {
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
        herd.controls[0]
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
    herd.everywhere(
        "INSERT INTO public.tenants SELECT 'tenant-' || i FROM generate_series(1, 100) AS i",
    )
    .await;
    let grown = herd.with_tables(&[("orders", sharded("id")), ("tenants", sharded("name"))]);
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
    let servers = Servers::start(&Options {
        label: "looked".to_owned(),
        statements: vec!["CREATE ROLE shop".to_owned()],
        settings: vec![("max_prepared_transactions".to_owned(), "0".to_owned())],
        ..Options::default()
    })
    .unwrap();
    let herd = Herd::on(servers.all(), "looked", 2);
    let database = herd.with_tables(&[("orders", sharded("id"))]);
    herd.controls[1]
        .execute(
            "DO $$ BEGIN EXECUTE pg_catalog.format('ALTER DATABASE %I SET TimeZone = ''Asia/Tokyo''', \
             pg_catalog.current_database()); END $$",
        )
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
        Severity::Error,
        "databases.looked.shards.s1",
        "setting TimeZone: it is Asia/Tokyo",
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
    let errors = findings.iter().filter(|f| f.severity == Severity::Error);
    let errors: Vec<_> = errors.map(|f| f.problem.as_str()).collect();
    assert!(
        matches!(errors.as_slice(), [only] if only.starts_with("setting TimeZone")),
        "{findings:#?}"
    );
}
