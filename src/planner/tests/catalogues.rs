//! What tools ask of the system catalogues.

use super::{AUTHORITATIVE, check, said};

/// Queries as psql, drivers and object-relational mappers send them, apart by lines of `--`.
const QUERIES: &str = include_str!("catalogues.sql");

#[test]
fn what_tools_ask_of_the_catalogues_goes_to_the_authoritative_shard() {
    let queries: Vec<&str> = QUERIES.split("\n-- ").map(str::trim).collect();
    assert!(queries.len() > 30, "{}", queries.len());
    let wrong: Vec<String> = queries
        .iter()
        .filter_map(|query| {
            let sql = query.split_once('\n').map_or(*query, |(_, sql)| sql);
            let said = said(sql);
            let why = super::planned(sql).err();
            (said != AUTHORITATIVE).then(|| format!("{said} {why:?}\n{query}"))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}

#[test]
fn what_shows_one_servers_state_is_refused() {
    check(&[
        ("SELECT * FROM pg_stat_activity", "PGH060"),
        ("SELECT * FROM pg_locks", "PGH060"),
        ("SELECT * FROM pg_catalog.pg_stat_user_tables", "PGH060"),
        ("SELECT * FROM pg_prepared_xacts", "PGH060"),
        ("SELECT * FROM pg_settings", AUTHORITATIVE),
        ("SELECT * FROM pg_catalog.pg_nothing", "must fail"),
        ("SELECT * FROM information_schema.tables", AUTHORITATIVE),
    ]);
}
