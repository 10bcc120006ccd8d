//! What pgherd stores on the shards and asks of them about placement, as texts. Runs nothing.
//!
//! Every name is qualified, so no `search_path` can lead these texts to a stranger's table or function.
//!
//! What would surprise: the whole map is one array in one row. It changes as a whole together with its epoch, so it
//! can never be half written, and two shards agree exactly when two rows are equal.

use super::{KeyType, hash};
use crate::names::TableName;

/// Creates what is missing of the schema; harmless when all is there. Nobody but its owner (the control user) and
/// superusers get any right to it.
pub const CREATE: &str = "
CREATE SCHEMA IF NOT EXISTS pgherd;
CREATE TABLE IF NOT EXISTS pgherd.identity (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    cluster_id uuid NOT NULL,
    shard_id int2 NOT NULL
);
CREATE TABLE IF NOT EXISTS pgherd.shards (
    shard_id int2 PRIMARY KEY CHECK (shard_id >= 0),
    name text NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS pgherd.placement (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch int8 NOT NULL CHECK (epoch > 0),
    map int2[] NOT NULL
);
CREATE TABLE IF NOT EXISTS pgherd.rules (
    table_schema text NOT NULL,
    table_name text NOT NULL,
    rule text NOT NULL CHECK (rule IN ('sharded', 'reference', 'single')),
    key_columns text[] NOT NULL DEFAULT '{}',
    key_types text[] NOT NULL DEFAULT '{}',
    shard_id int2,
    PRIMARY KEY (table_schema, table_name)
);
COMMENT ON SCHEMA pgherd IS 'Which rows live on which shard; written by pgherd, see its docs/placement.md';
COMMENT ON TABLE pgherd.identity IS 'Which shard of which cluster this is';
COMMENT ON TABLE pgherd.shards IS 'The shards of the cluster; the same on all of them';
COMMENT ON TABLE pgherd.placement IS 'map[bucket + 1] is the shard_id of a bucket; the same on all shards';
COMMENT ON TABLE pgherd.rules IS 'How each table is spread; the same on all shards';
";

/// Whether the schema is there, and whether all of its tables are: two columns, `t` or `f`.
pub const EXISTS: &str = "SELECT pg_catalog.to_regnamespace('pgherd') IS NOT NULL, \
    pg_catalog.to_regclass('pgherd.identity') IS NOT NULL AND pg_catalog.to_regclass('pgherd.shards') IS NOT NULL \
    AND pg_catalog.to_regclass('pgherd.placement') IS NOT NULL AND pg_catalog.to_regclass('pgherd.rules') IS NOT NULL";

/// cluster_id, shard_id; one row.
pub const READ_IDENTITY: &str = "SELECT cluster_id, shard_id FROM pgherd.identity";
/// shard_id, name; in order.
pub const READ_SHARDS: &str = "SELECT shard_id, name FROM pgherd.shards ORDER BY shard_id";
/// epoch, the map with commas; one row.
pub const READ_PLACEMENT: &str =
    "SELECT epoch, pg_catalog.array_to_string(map, ',') FROM pgherd.placement";
/// schema, table, rule, first key column, first key type, shard name; in order.
pub const READ_RULES: &str = "SELECT r.table_schema, r.table_name, r.rule, r.key_columns[1], r.key_types[1], s.name \
    FROM pgherd.rules AS r LEFT JOIN pgherd.shards AS s ON s.shard_id = r.shard_id ORDER BY 1, 2";

/// The transaction advisory lock that whoever changes schema `pgherd` holds: two proxies' `init` wait for each other.
/// The number is the bytes `pgherd` and version 1.
pub const LOCK: &str = "SELECT pg_catalog.pg_advisory_xact_lock(8099557239769268225)";

#[must_use]
pub fn write_identity(cluster_id: &str, shard_id: u16) -> String {
    format!(
        "INSERT INTO pgherd.identity (cluster_id, shard_id) VALUES ({}, {shard_id})",
        literal(cluster_id)
    )
}

#[must_use]
pub fn write_shard(shard_id: u16, name: &str) -> String {
    format!(
        "INSERT INTO pgherd.shards (shard_id, name) VALUES ({shard_id}, {})",
        literal(name)
    )
}

#[must_use]
pub fn write_placement(epoch: u64, map: &[u16]) -> String {
    let map: Vec<String> = map.iter().map(u16::to_string).collect();
    format!(
        "INSERT INTO pgherd.placement (epoch, map) VALUES ({epoch}, '{{{}}}')",
        map.join(",")
    )
}

/// One row of `pgherd.rules`, replacing what was there for the table.
#[must_use]
pub fn write_rule(
    table: &TableName,
    rule: &str,
    key: Option<(&str, Option<&str>)>,
    shard_id: Option<u16>,
) -> String {
    let array =
        |value: Option<&str>| value.map_or("'{}'".to_owned(), |v| format!("ARRAY[{}]", literal(v)));
    format!(
        "{}; INSERT INTO pgherd.rules (table_schema, table_name, rule, key_columns, key_types, shard_id) \
         VALUES ({}, {}, {}, {}, {}, {})",
        delete_rule(table),
        literal(schema_of(table)),
        literal(&table.name),
        literal(rule),
        array(key.map(|(column, _)| column)),
        array(key.and_then(|(_, key_type)| key_type)),
        shard_id.map_or("NULL".to_owned(), |shard| shard.to_string()),
    )
}

#[must_use]
pub fn delete_rule(table: &TableName) -> String {
    format!(
        "DELETE FROM pgherd.rules WHERE table_schema = {} AND table_name = {}",
        literal(schema_of(table)),
        literal(&table.name)
    )
}

/// The bucket (int8) of the row at hand, in plain SQL: what `Placement::bucket` computes. `column` is an expression,
/// quoted where needed.
#[must_use]
pub fn bucket_expression(key_type: KeyType, column: &str, bucket_count: usize) -> String {
    let function = match key_type {
        KeyType::Int2 => "hashint2extended",
        KeyType::Int4 => "hashint4extended",
        KeyType::Int8 => "hashint8extended",
        KeyType::Text => "hashtextextended",
        KeyType::Bpchar => "hashbpcharextended",
        KeyType::Uuid => "uuid_hash_extended",
    };
    let (seed, mask) = (hash::PARTITION_SEED, bucket_count.saturating_sub(1));
    // Masked before the addition, which would otherwise overflow; a NULL key is in bucket 0.
    format!(
        "coalesce(((pg_catalog.{function}({column}, {seed}) & {mask}) + {}) & {mask}, 0)",
        hash::COMBINE & mask as u64
    )
}

/// For one table on one shard: how many rows are in buckets of other shards, and the smallest key among them as text.
#[must_use]
pub fn count_misplaced(
    table: &TableName,
    key_column: &str,
    key_type: KeyType,
    bucket_count: usize,
) -> String {
    let column = identifier(key_column);
    let bucket = bucket_expression(key_type, &column, bucket_count);
    // Grouped first: the map is looked into once a bucket, not once a row.
    format!(
        "SELECT coalesce(pg_catalog.sum(b.rows), 0)::int8, pg_catalog.min(b.example) FROM (\
           SELECT {bucket} AS bucket, pg_catalog.count(*) AS rows, pg_catalog.min({column}::text) AS example \
           FROM {} GROUP BY 1) AS b, pgherd.placement AS p, pgherd.identity AS i \
         WHERE p.map[b.bucket::int4 + 1] <> i.shard_id",
        qualified(table)
    )
}

/// A string as an SQL literal, whatever `standard_conforming_strings` is.
#[must_use]
pub fn literal(value: &str) -> String {
    let quoted = value.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// A name as a quoted SQL identifier.
#[must_use]
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name, quoted and with its schema.
#[must_use]
pub fn qualified(table: &TableName) -> String {
    format!(
        "{}.{}",
        identifier(schema_of(table)),
        identifier(&table.name)
    )
}

/// The schema that a configured name means.
#[must_use]
pub fn schema_of(table: &TableName) -> &str {
    table.schema.as_deref().unwrap_or("public")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_expression_is_the_documented_one() {
        assert_eq!(
            bucket_expression(KeyType::Int8, "id", 4096),
            "coalesce(((pg_catalog.hashint8extended(id, 8816678312871386365) & 4095) + 2275) & 4095, 0)"
        );
    }

    #[test]
    fn names_and_strings_cannot_break_out_of_their_quotes() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r"E'a\\''b'");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        let table = TableName {
            schema: None,
            name: "Or\"ders".into(),
        };
        assert_eq!(qualified(&table), "\"public\".\"Or\"\"ders\"");
    }
}
