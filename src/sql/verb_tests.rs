//! What a statement is by its first words, as tables of texts.

use super::*;

fn name(text: &str) -> Name<'_> {
    Name::Borrowed(text.as_bytes())
}

fn begin_with(modes: Modes) -> Verb<'static> {
    Verb::Begin {
        modes,
        well_formed: true,
    }
}

#[track_caller]
#[allow(clippy::needless_pass_by_value, reason = "tables read better")]
fn check(text: &str, expected: Verb<'_>) {
    assert_eq!(verb(text.as_bytes()), expected, "in {text:?}");
}

#[test]
fn the_first_word_says_what_a_statement_is() {
    check("", Verb::Empty);
    check(" /* a */ -- b", Verb::Empty);
    check("select 1", Verb::Select);
    check("/* hint */ SeLeCt 1", Verb::Select);
    check("((SELECT 1) UNION SELECT 2)", Verb::Select);
    check("(VALUES (1))", Verb::Values);
    check("(BEGIN)", Verb::Other(b"("));
    check("(", Verb::Other(b"("));
    check("\"select\" 1", Verb::Other(b"\"select\""));
    check("selects 1", Verb::Other(b"selects"));
    check("INSERT INTO t VALUES (1)", Verb::Insert);
    check("update t set a = 1", Verb::Update);
    check("DELETE FROM t", Verb::Delete);
    check("MERGE INTO t USING s ON true", Verb::Merge);
    check("WITH a AS (SELECT 1) SELECT 1", Verb::With);
    check("TABLE t", Verb::Table);
    check("COPY t FROM STDIN", Verb::Copy);
    check("explain analyze select 1", Verb::Explain);
    check("ANALYSE t", Verb::Analyze);
    check("nonsense", Verb::Other(b"nonsense"));
    check(
        "a_word_longer_than_any_command",
        Verb::Other(b"a_word_longer_than_any_command"),
    );
}

#[test]
fn begin_is_well_formed_exactly_where_the_grammar_of_postgresql_says_so() {
    let serializable = Modes {
        isolation: Some(Isolation::Serializable),
        ..Modes::default()
    };
    let read_only = Modes {
        read_only: Some(true),
        ..Modes::default()
    };
    for text in [
        "BEGIN",
        "begin work",
        "BEGIN TRANSACTION",
        "START TRANSACTION",
        "begin /* a */",
    ] {
        check(text, begin_with(Modes::default()));
    }
    check(
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        begin_with(serializable),
    );
    check(
        "START TRANSACTION ISOLATION LEVEL serializable",
        begin_with(serializable),
    );
    check("BEGIN READ ONLY", begin_with(read_only));
    check("BEGIN READ WRITE, READ ONLY", begin_with(read_only));
    check(
        "BEGIN TRANSACTION READ WRITE",
        begin_with(Modes {
            read_only: Some(false),
            ..Modes::default()
        }),
    );
    check(
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY, NOT DEFERRABLE",
        begin_with(Modes {
            isolation: Some(Isolation::Serializable),
            read_only: Some(true),
            deferrable: Some(false),
        }),
    );
    for (text, isolation) in [
        ("READ UNCOMMITTED", Isolation::ReadUncommitted),
        ("READ COMMITTED", Isolation::ReadCommitted),
        ("REPEATABLE READ", Isolation::RepeatableRead),
    ] {
        check(
            &format!("BEGIN ISOLATION LEVEL {text}"),
            begin_with(Modes {
                isolation: Some(isolation),
                ..Modes::default()
            }),
        );
    }
    for text in [
        "BEGIN READ",
        "BEGIN ,READ ONLY",
        "BEGIN READ ONLY,",
        "BEGIN READ ONLY,,READ WRITE",
        "BEGIN ISOLATION SERIALIZABLE",
        "BEGIN ISOLATION LEVEL",
        "BEGIN NOT READ ONLY",
        "BEGIN WORK TRANSACTION",
        "BEGIN 1",
        "START TRANSACTION WORK",
        "BEGIN ISOLATION LEVEL READ ONLY",
        "BEGIN \"work\"",
        "BEGIN 'x'",
    ] {
        check(
            text,
            Verb::Begin {
                modes: Modes::default(),
                well_formed: false,
            },
        );
    }
    check("START", Verb::Other(b"START"));
    check("START WORK", Verb::Other(b"START"));
}

#[test]
fn the_ends_of_a_transaction_are_told_apart() {
    for text in [
        "COMMIT",
        "end",
        "COMMIT WORK",
        "END TRANSACTION",
        "COMMIT AND NO CHAIN",
    ] {
        check(
            text,
            Verb::Commit {
                chain: false,
                well_formed: true,
            },
        );
    }
    check(
        "COMMIT AND CHAIN",
        Verb::Commit {
            chain: true,
            well_formed: true,
        },
    );
    check(
        "COMMIT WORK AND CHAIN",
        Verb::Commit {
            chain: true,
            well_formed: true,
        },
    );
    check(
        "COMMIT AND",
        Verb::Commit {
            chain: false,
            well_formed: false,
        },
    );
    check(
        "COMMIT CHAIN",
        Verb::Commit {
            chain: false,
            well_formed: false,
        },
    );
    check("COMMIT PREPARED 'x'", Verb::CommitPrepared);
    for text in [
        "ROLLBACK",
        "abort",
        "ROLLBACK WORK",
        "ABORT TRANSACTION AND NO CHAIN",
    ] {
        check(
            text,
            Verb::Rollback {
                chain: false,
                well_formed: true,
            },
        );
    }
    check(
        "rollback and chain",
        Verb::Rollback {
            chain: true,
            well_formed: true,
        },
    );
    check(
        "ROLLBACK nonsense",
        Verb::Rollback {
            chain: false,
            well_formed: false,
        },
    );
    check(
        "ABORT TO a",
        Verb::Rollback {
            chain: false,
            well_formed: false,
        },
    );
    check("ROLLBACK PREPARED 'x'", Verb::RollbackPrepared);
    check("PREPARE TRANSACTION 'x'", Verb::PrepareTransaction);
}

#[test]
fn savepoint_names_are_folded_as_postgresql_folds_them() {
    check("SAVEPOINT Abc", Verb::Savepoint { name: name("abc") });
    check("SAVEPOINT \"Abc\"", Verb::Savepoint { name: name("Abc") });
    check(
        "SAVEPOINT \"a\"\"b\"",
        Verb::Savepoint { name: name("a\"b") },
    );
    check("SAVEPOINT É", Verb::Savepoint { name: name("É") });
    check("SAVEPOINT a b", Verb::Other(b"SAVEPOINT"));
    check("SAVEPOINT select", Verb::Other(b"SAVEPOINT"));
    check("SAVEPOINT U&\"a\"", Verb::Other(b"SAVEPOINT"));
    check("SAVEPOINT", Verb::Other(b"SAVEPOINT"));
    check("SAVEPOINT \"\"", Verb::Other(b"SAVEPOINT"));
    check("RELEASE a", Verb::Release { name: name("a") });
    check("RELEASE SAVEPOINT a", Verb::Release { name: name("a") });
    check(
        "RELEASE SAVEPOINT",
        Verb::Release {
            name: name("savepoint"),
        },
    );
    check("ROLLBACK TO a", Verb::RollbackTo { name: name("a") });
    check(
        "ROLLBACK TO SAVEPOINT a",
        Verb::RollbackTo { name: name("a") },
    );
    check(
        "ROLLBACK WORK TO SAVEPOINT a",
        Verb::RollbackTo { name: name("a") },
    );
    check(
        "ROLLBACK TRANSACTION TO A",
        Verb::RollbackTo { name: name("a") },
    );
    let long = "a".repeat(70);
    check(
        &format!("SAVEPOINT {long}"),
        Verb::Savepoint {
            name: name(&long[..63]),
        },
    );
    let accents = "é".repeat(40);
    check(
        &format!("SAVEPOINT {accents}"),
        Verb::Savepoint {
            name: name(&accents[..62]),
        },
    );
}

#[test]
fn a_set_that_ends_with_the_transaction_is_told_from_one_that_stays() {
    check(
        "SET LOCAL work_mem = '1MB'",
        Verb::SetLocal {
            name: name("work_mem"),
        },
    );
    check(
        "SET LOCAL TIME ZONE 'UTC'",
        Verb::SetLocal {
            name: name("timezone"),
        },
    );
    check("SET LOCAL role x", Verb::SetLocal { name: name("role") });
    check(
        "set work_mem to 1",
        Verb::SetSession {
            name: name("work_mem"),
        },
    );
    check(
        "SET SESSION work_mem TO 1",
        Verb::SetSession {
            name: name("work_mem"),
        },
    );
    check(
        "SET App.Tenant = 'x'",
        Verb::SetSession {
            name: name("app.tenant"),
        },
    );
    check(
        "SET local.x = 1",
        Verb::SetSession {
            name: name("local.x"),
        },
    );
    check(
        "SET session.x = 1",
        Verb::SetSession {
            name: name("session.x"),
        },
    );
    check(
        "SET NAMES 'UTF8'",
        Verb::SetSession {
            name: name("client_encoding"),
        },
    );
    check("SET ROLE x", Verb::SetSession { name: name("role") });
    check("SET role TO x", Verb::SetSession { name: name("role") });
    check(
        "SET SCHEMA 'x'",
        Verb::SetSession {
            name: name("search_path"),
        },
    );
    check(
        "SET TIME ZONE DEFAULT",
        Verb::SetSession {
            name: name("timezone"),
        },
    );
    check(
        "SET SESSION AUTHORIZATION x",
        Verb::SetSession {
            name: name("session_authorization"),
        },
    );
    check(
        "SET SESSION SESSION AUTHORIZATION x",
        Verb::SetSession {
            name: name("session_authorization"),
        },
    );
    check(
        "SET LOCAL SESSION AUTHORIZATION x",
        Verb::SetLocal {
            name: name("session_authorization"),
        },
    );
    check(
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        Verb::SetSession {
            name: name("session_characteristics"),
        },
    );
    check("SET CONSTRAINTS ALL DEFERRED", Verb::SetConstraints);
    check(
        "SET TRANSACTION READ ONLY",
        Verb::SetTransaction {
            modes: Modes {
                read_only: Some(true),
                ..Modes::default()
            },
            well_formed: true,
        },
    );
    check(
        "SET LOCAL TRANSACTION READ ONLY",
        Verb::SetTransaction {
            modes: Modes {
                read_only: Some(true),
                ..Modes::default()
            },
            well_formed: true,
        },
    );
    check(
        "SET TRANSACTION SNAPSHOT 'x'",
        Verb::SetTransaction {
            modes: Modes::default(),
            well_formed: false,
        },
    );
    check(
        "SET TRANSACTION",
        Verb::SetSession {
            name: name("transaction"),
        },
    );
    check("SET", Verb::Other(b"SET"));
}

#[test]
fn reset_show_and_discard_name_what_they_mean() {
    check("RESET ALL", Verb::Reset { name: None });
    check(
        "RESET Work_Mem",
        Verb::Reset {
            name: Some(name("work_mem")),
        },
    );
    check("SHOW all", Verb::Show { name: None });
    check(
        "SHOW Server_Version",
        Verb::Show {
            name: Some(name("server_version")),
        },
    );
    check(
        "SHOW app.tenant",
        Verb::Show {
            name: Some(name("app.tenant")),
        },
    );
    check(
        "SHOW TIME ZONE",
        Verb::Show {
            name: Some(name("timezone")),
        },
    );
    check(
        "SHOW TRANSACTION ISOLATION LEVEL",
        Verb::Show {
            name: Some(name("transaction_isolation")),
        },
    );
    check("SHOW a b", Verb::Other(b"SHOW"));
    check("DISCARD ALL", Verb::Discard(Discard::All));
    check("DISCARD TEMPORARY", Verb::Discard(Discard::Temp));
    check("DISCARD nothing", Verb::Other(b"DISCARD"));
}

#[test]
fn prepared_statements_of_sql_are_named() {
    check(
        "PREPARE Plan AS SELECT 1",
        Verb::Prepare { name: name("plan") },
    );
    check(
        "PREPARE transaction AS SELECT 1",
        Verb::Prepare {
            name: name("transaction"),
        },
    );
    check("EXECUTE plan(1)", Verb::Execute { name: name("plan") });
    check(
        "DEALLOCATE plan",
        Verb::Deallocate {
            name: Some(name("plan")),
        },
    );
    check(
        "DEALLOCATE PREPARE \"Plan\"",
        Verb::Deallocate {
            name: Some(name("Plan")),
        },
    );
    check(
        "DEALLOCATE prepare",
        Verb::Deallocate {
            name: Some(name("prepare")),
        },
    );
    check("DEALLOCATE ALL", Verb::Deallocate { name: None });
    check("DEALLOCATE PREPARE ALL", Verb::Deallocate { name: None });
}

#[test]
fn a_temporary_object_is_seen() {
    for text in [
        "CREATE TEMP TABLE a (b int)",
        "create temporary view a as select 1",
        "CREATE LOCAL TEMP SEQUENCE s",
        "CREATE OR REPLACE TEMP VIEW v AS SELECT 1",
        "CREATE TABLE IF NOT EXISTS pg_temp.a (b int)",
    ] {
        check(text, Verb::Create { temp: true });
    }
    for text in [
        "CREATE TABLE a (temp int)",
        "CREATE VIEW v AS SELECT temp FROM t",
        "CREATE INDEX ON t (a)",
    ] {
        check(text, Verb::Create { temp: false });
    }
}

#[test]
fn the_reserved_words_are_sorted() {
    assert!(crate::sql::reserved::RESERVED.is_sorted());
}
