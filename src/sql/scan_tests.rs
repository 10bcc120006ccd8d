//! Statements, tokens and boundaries, as tables of texts.

use super::*;

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    check_with(text, true, expected);
}

#[track_caller]
fn check_with(text: &str, standard_conforming_strings: bool, expected: &[&str]) {
    let found: Vec<&str> = split(text.as_bytes(), standard_conforming_strings)
        .into_iter()
        .map(|span| &text[span])
        .collect();
    assert_eq!(found, expected, "in {text:?}");
    assert_eq!(
        is_single(text.as_bytes(), standard_conforming_strings),
        expected.len() <= 1,
        "in {text:?}"
    );
}

#[test]
fn a_text_is_split_where_a_semicolon_ends_a_statement() {
    check("", &[]);
    check(";;; ;\n", &[]);
    check("-- nothing", &[]);
    check("/* ; */ ;", &[]);
    check("SELECT 1", &["SELECT 1"]);
    check(" SELECT 1 ; ", &["SELECT 1"]);
    check("SELECT 1;SELECT 2", &["SELECT 1", "SELECT 2"]);
    check("BEGIN; SELECT 1; COMMIT;", &["BEGIN", "SELECT 1", "COMMIT"]);
    check("SELECT 1 -- a; b\n; SELECT 2", &["SELECT 1", "SELECT 2"]);
    check("SELECT 1 -- a; b\r; SELECT 2", &["SELECT 1", "SELECT 2"]);
    check(
        "SELECT /* ; /* ; */ ; */ 1; SELECT 2",
        &["SELECT /* ; /* ; */ ; */ 1", "SELECT 2"],
    );
    check("SELECT 1 /* ; /* ; */ ; ", &["SELECT 1"]);
    check(
        "SELECT 1 +-- ;\n 2; SELECT 3",
        &["SELECT 1 +-- ;\n 2", "SELECT 3"],
    );
    check("SELECT 4*/*;*/5", &["SELECT 4*/*;*/5"]);
}

#[test]
fn quotes_hide_semicolons() {
    check("SELECT ';'; SELECT 2", &["SELECT ';'", "SELECT 2"]);
    check("SELECT 'a'';'; SELECT 2", &["SELECT 'a'';'", "SELECT 2"]);
    check(r"SELECT 'a\'; SELECT 2", &[r"SELECT 'a\'", "SELECT 2"]);
    check(
        r"SELECT E'a\';'; SELECT 2",
        &[r"SELECT E'a\';'", "SELECT 2"],
    );
    check(r"SELECT e'a\\'; SELECT 2", &[r"SELECT e'a\\'", "SELECT 2"]);
    check(r"SELECT U&'a\'; SELECT 2", &[r"SELECT U&'a\'", "SELECT 2"]);
    check(r"SELECT N'a\'; SELECT 2", &[r"SELECT N'a\'", "SELECT 2"]);
    check(
        r"SELECT tablE'a\'; SELECT 2",
        &[r"SELECT tablE'a\'", "SELECT 2"],
    );
    check(
        r#"SELECT ";" FROM "a"";"; SELECT 2"#,
        &[r#"SELECT ";" FROM "a"";""#, "SELECT 2"],
    );
    check(
        r#"SELECT U&";"; SELECT 2"#,
        &[r#"SELECT U&";""#, "SELECT 2"],
    );
    check("SELECT x';'; SELECT 2", &["SELECT x';'", "SELECT 2"]);
    check("SELECT ';", &["SELECT ';"]);
    check(r"SELECT E'\", &[r"SELECT E'\"]);
}

#[test]
fn a_string_continued_on_a_new_line_keeps_its_kind() {
    check(
        "SELECT E'a'\n'b\\';'; SELECT 2",
        &["SELECT E'a'\n'b\\';'", "SELECT 2"],
    );
    check(
        "SELECT E'a' -- c\n  'b\\';'; SELECT 2",
        &["SELECT E'a' -- c\n  'b\\';'", "SELECT 2"],
    );
    check(
        "SELECT E'a' 'b\\'; SELECT 2",
        &["SELECT E'a' 'b\\'", "SELECT 2"],
    );
    check(
        "SELECT 'a'\n'b\\'; SELECT 2",
        &["SELECT 'a'\n'b\\'", "SELECT 2"],
    );
}

#[test]
fn a_backslash_escapes_in_plain_quotes_without_standard_conforming_strings() {
    check_with(
        r"SELECT 'a\'; SELECT 2'",
        false,
        &[r"SELECT 'a\'; SELECT 2'"],
    );
    check_with(
        r"SELECT 'a\\'; SELECT 2",
        false,
        &[r"SELECT 'a\\'", "SELECT 2"],
    );
}

#[test]
fn dollar_quotes_hide_semicolons() {
    check("SELECT $$;$$; SELECT 2", &["SELECT $$;$$", "SELECT 2"]);
    check(
        "SELECT $a$;$$;$b$;$a$; SELECT 2",
        &["SELECT $a$;$$;$b$;$a$", "SELECT 2"],
    );
    check("SELECT $é$;$é$; SELECT 2", &["SELECT $é$;$é$", "SELECT 2"]);
    check("SELECT $1;SELECT $2", &["SELECT $1", "SELECT $2"]);
    check("SELECT a$b$; SELECT 2", &["SELECT a$b$", "SELECT 2"]);
    check("SELECT $a; SELECT $a$", &["SELECT $a", "SELECT $a$"]);
    check("SELECT $$;", &["SELECT $$;"]);
}

#[test]
fn parentheses_and_bodies_hide_semicolons() {
    check(
        "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3",
        &[
            "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)",
            "SELECT 3",
        ],
    );
    check("SELECT 1); SELECT 2", &["SELECT 1)", "SELECT 2"]);
    let body = "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END";
    check(&format!("{body}; SELECT 3"), &[body, "SELECT 3"]);
    check(
        "CREATE TABLE begin (atomic int); SELECT 1",
        &["CREATE TABLE begin (atomic int)", "SELECT 1"],
    );
}

#[test]
fn any_bytes_are_taken_without_a_panic() {
    let pieces: &[&[u8]] = &[
        b"'", b"\"", b"$", b"$$", b"$a$", b"E'", b"\\", b"/*", b"*/", b"--", b"\n", b"\xff",
        b"U&'", b";", b"1", b"e+", b"(", b")", b"x",
    ];
    let mut state = 1u64;
    for _ in 0..20_000 {
        let mut text = Vec::new();
        for _ in 0..12 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            text.extend_from_slice(pieces[usize::try_from(state >> 33).unwrap() % pieces.len()]);
        }
        for standard in [true, false] {
            let mut last = 0;
            for span in split(&text, standard) {
                assert!(
                    span.start >= last && span.end <= text.len() && !span.is_empty(),
                    "{text:?}"
                );
                last = span.end;
                let _ = verb(&text[span]);
            }
        }
    }
}

#[test]
fn a_plain_query_is_told_at_a_look() {
    for text in [
        "SELECT 1",
        "select\n1",
        "Insert into t values (1)",
        "UPDATE t SET a = 1",
        "DELETE FROM t; ",
    ] {
        assert!(is_plain_query(text.as_bytes()), "{text}");
    }
    for text in [
        "",
        "SELECT",
        "SELECT1",
        "SELECT 1; SET x = 1",
        " SELECT 1",
        "SELECT ';' ",
        "SET x = 1",
        "SELECTED x",
    ] {
        assert!(!is_plain_query(text.as_bytes()), "{text}");
    }
}
