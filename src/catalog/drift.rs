//! What two shards that should be alike say of themselves, and where they differ. Pure: this file owns the texts of the
//! questions ([`FACTS`]) and compares their answers.
//!
//! An answer is a list of facts: a kind, an object, and a text that has to be the same everywhere. What would surprise:
//! not every fact counts. A table that is whole on one shard, or that the file does not name, may differ as it likes;
//! a partition counts where its table does, and a view where all that it reads does.

use std::collections::{BTreeMap, BTreeSet};

use super::CatalogError;
use super::build::rule_of;
use super::relation::{Rule, Rules};

/// Name and text of each question. All answer rows of: kind, schema, relation, detail, value. Asked with nothing but
/// `pg_catalog` in the search path, so that every other name is written with its schema.
pub const FACTS: &[(&str, &str)] = &[
    ("relations", RELATIONS),
    ("columns", COLUMNS),
    ("constraints", CONSTRAINTS),
    ("what statements set off", SIDE_EFFECTS),
    ("functions and types", FUNCTIONS),
    ("surroundings", SURROUNDINGS),
];

/// One small text that changes when something does that [`FACTS`] or the catalogue's questions ask about: the versions
/// of the rows (`xmin`) of what users have made. ANALYZE and VACUUM change rows in place and are not seen.
pub const FINGERPRINT: &str = "\
SELECT pg_catalog.md5(pg_catalog.concat_ws(' ', \
 (SELECT pg_catalog.concat(pg_catalog.count(*), '/', pg_catalog.sum(pg_catalog.hashint8extended(c.xmin::pg_catalog.text::pg_catalog.int8, c.oid::pg_catalog.int8))) \
  FROM pg_catalog.pg_class c WHERE c.oid >= 16384 AND c.relpersistence <> 't'), \
 (SELECT pg_catalog.concat(pg_catalog.count(*), '/', pg_catalog.sum(pg_catalog.hashint8extended(a.xmin::pg_catalog.text::pg_catalog.int8, a.attrelid::pg_catalog.int8 * 4096 + a.attnum))) \
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid WHERE c.oid >= 16384 AND c.relpersistence <> 't'), \
 (SELECT pg_catalog.concat(pg_catalog.count(*), '/', pg_catalog.sum(pg_catalog.hashint8extended(e.version, e.oid))) FROM (\
   SELECT 0::pg_catalog.int8 AS oid, 0::pg_catalog.int8 AS version \
   UNION ALL SELECT x.oid::pg_catalog.int8, x.xmin::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_attrdef x WHERE x.oid >= 16384 \
   UNION ALL SELECT x.oid::pg_catalog.int8, x.xmin::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_constraint x WHERE x.oid >= 16384 \
   UNION ALL SELECT x.indexrelid::pg_catalog.int8, x.xmin::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_index x WHERE x.indexrelid >= 16384 \
   UNION ALL SELECT x.oid::pg_catalog.int8, x.xmin::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_trigger x WHERE x.oid >= 16384 \
   UNION ALL SELECT x.oid::pg_catalog.int8, x.xmin::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_rewrite x WHERE x.oid >= 16384 \
   UNION ALL SELECT x.oid::pg_catalog.int8, x.xmin::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_policy x \
   UNION ALL SELECT x.oid::pg_catalog.int8, x.xmin::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_proc x WHERE x.oid >= 16384 \
   UNION ALL SELECT x.oid::pg_catalog.int8, x.xmin::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_type x WHERE x.oid >= 16384 \
   UNION ALL SELECT x.oid::pg_catalog.int8, x.xmin::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_enum x \
   UNION ALL SELECT x.oid::pg_catalog.int8, x.xmin::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_operator x WHERE x.oid >= 16384 \
   UNION ALL SELECT x.oid::pg_catalog.int8, x.xmin::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_cast x WHERE x.oid >= 16384 \
   UNION ALL SELECT x.oid::pg_catalog.int8, x.xmin::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_collation x WHERE x.oid >= 16384 \
   UNION ALL SELECT x.oid::pg_catalog.int8, x.xmin::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_namespace x WHERE x.oid >= 16384 AND x.nspname !~ '^pg_' \
   UNION ALL SELECT x.oid::pg_catalog.int8, x.xmin::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_extension x \
   UNION ALL SELECT x.oid::pg_catalog.int8, x.xmin::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_roles r JOIN pg_catalog.pg_namespace x ON x.nspname = r.rolname \
   UNION ALL SELECT x.inhrelid::pg_catalog.int8 * 2 + x.inhparent::pg_catalog.int8, x.xmin::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_inherits x \
   UNION ALL SELECT x.setdatabase::pg_catalog.int8 * 2 + x.setrole::pg_catalog.int8, x.xmin::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_db_role_setting x) e), \
 (SELECT pg_catalog.string_agg(s.reset_val, ' ' ORDER BY s.name) FROM pg_catalog.pg_settings s WHERE s.category !~ '^(Resource|Write-Ahead|Replication|Statistics|Reporting)')))";

const RELATIONS: &str = "\
SELECT 'table', n.nspname, c.relname, '', CASE c.relkind WHEN 'r' THEN 'a table' WHEN 'p' THEN 'a partitioned table' \
  WHEN 'v' THEN 'a view' WHEN 'm' THEN 'a materialized view' ELSE 'a foreign table' END \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgherd') \
UNION ALL \
SELECT 'columns', n.nspname, c.relname, '', pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgherd') GROUP BY 2, 3 \
UNION ALL \
SELECT 'view', n.nspname, c.relname, '', pg_catalog.concat_ws(' ', pg_catalog.array_to_string(c.reloptions, ' '), pg_catalog.pg_get_viewdef(c.oid)) \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE c.relkind IN ('v', 'm') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgherd') \
UNION ALL \
SELECT 'partition', n.nspname, c.relname, '', \
  pg_catalog.concat_ws(' ', 'partitioned by ' || pg_catalog.pg_get_partkeydef(c.oid), pg_catalog.pg_get_expr(c.relpartbound, c.oid)) \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE (c.relkind = 'p' OR c.relispartition) AND c.relkind IN ('r', 'p', 'f') AND n.nspname !~ '^pg_' \
UNION ALL \
SELECT 'part of', n.nspname, c.relname, pn.nspname, p.relname \
FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition AND c.relkind IN ('r', 'p', 'f') \
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_class p ON p.oid = i.inhparent \
JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace \
UNION ALL \
SELECT DISTINCT 'reads', vn.nspname, v.relname, tn.nspname, t.relname \
FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm') \
JOIN pg_catalog.pg_namespace vn ON vn.oid = v.relnamespace \
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid \
 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
JOIN pg_catalog.pg_class t ON t.oid = d.refobjid AND t.oid <> v.oid AND t.relkind IN ('r', 'p', 'v', 'm', 'f') \
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace WHERE vn.nspname !~ '^pg_' AND vn.nspname <> 'information_schema' \
UNION ALL \
SELECT 'replica identity', n.nspname, c.relname, '', CASE c.relreplident WHEN 'f' THEN 'all columns' WHEN 'n' THEN 'nothing' ELSE \
  coalesce((SELECT '(' || pg_catalog.string_agg(a.attname, ', ' ORDER BY a.attname) || ')' FROM pg_catalog.pg_index i \
   JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) \
   WHERE i.indrelid = c.oid AND CASE c.relreplident WHEN 'd' THEN i.indisprimary ELSE i.indisreplident END), 'nothing') END \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname !~ '^pg_'";

const COLUMNS: &str = "\
WITH x AS (SELECT n.nspname, c.relname, a.attname, a.attnotnull, a.attidentity, a.attgenerated, \
  pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS expr, \
  CASE WHEN a.attcollation NOT IN (0, 100) THEN ' COLLATE ' || pg_catalog.quote_ident(ln.nspname) || '.' || pg_catalog.quote_ident(l.collname) END AS coll \
 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
 JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
 LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum \
 LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation LEFT JOIN pg_catalog.pg_namespace ln ON ln.oid = l.collnamespace \
 WHERE c.relkind IN ('r', 'p', 'f', 'v') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgherd')) \
SELECT 'column', x.nspname, x.relname, x.attname, x.type || coalesce(x.coll, '') FROM x \
UNION ALL SELECT 'nullability', x.nspname, x.relname, x.attname, CASE WHEN x.attnotnull THEN 'NOT NULL' ELSE 'NULL' END FROM x \
UNION ALL SELECT 'default', x.nspname, x.relname, x.attname, \
  pg_catalog.concat_ws(' ', CASE x.attidentity WHEN 'a' THEN 'GENERATED ALWAYS AS IDENTITY' WHEN 'd' THEN 'GENERATED BY DEFAULT AS IDENTITY' END, \
  CASE WHEN x.attgenerated <> '' THEN 'GENERATED ALWAYS AS' END, x.expr) \
 FROM x WHERE x.expr IS NOT NULL OR x.attidentity <> ''";

/// Constraints by what they say, for their names may differ and nothing else would.
const CONSTRAINTS: &str = "\
SELECT 'unique key', n.nspname, c.relname, pg_catalog.concat(\
  CASE WHEN i.indisprimary THEN 'PRIMARY KEY' WHEN i.indisexclusion THEN 'EXCLUDE' ELSE 'UNIQUE' END, \
  CASE WHEN pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct' = 'true' THEN ' NULLS NOT DISTINCT' END, ' (', \
  (SELECT pg_catalog.string_agg(pg_catalog.pg_get_indexdef(i.indexrelid, k, true), ', ' ORDER BY k) \
   FROM pg_catalog.generate_series(1, i.indnkeyatts::pg_catalog.int4) k), ')', \
  ' WHERE ' || pg_catalog.pg_get_expr(i.indpred, i.indrelid), CASE WHEN NOT i.indimmediate THEN ' DEFERRABLE' END), \
 CASE WHEN i.indisvalid THEN 'there' ELSE 'invalid' END \
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE (i.indisunique OR i.indisexclusion) AND c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'pgherd' \
UNION ALL \
SELECT CASE f.contype WHEN 'f' THEN 'foreign key' ELSE 'check' END, n.nspname, c.relname, \
 pg_catalog.replace(pg_catalog.pg_get_constraintdef(f.oid), ' NOT VALID', ''), CASE WHEN f.convalidated THEN 'there' ELSE 'not validated' END \
FROM pg_catalog.pg_constraint f JOIN pg_catalog.pg_class c ON c.oid = f.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE f.contype IN ('f', 'c') AND f.conparentid = 0 AND n.nspname !~ '^pg_' AND n.nspname <> 'pgherd'";

const SIDE_EFFECTS: &str = "\
SELECT 'trigger', n.nspname, c.relname, t.tgname, \
 pg_catalog.concat(pg_catalog.pg_get_triggerdef(t.oid), CASE t.tgenabled WHEN 'D' THEN ' (disabled)' WHEN 'O' THEN '' ELSE pg_catalog.concat(' (', t.tgenabled, ')') END) \
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE NOT t.tgisinternal AND n.nspname !~ '^pg_' AND n.nspname <> 'pgherd' \
UNION ALL \
SELECT 'rule', n.nspname, c.relname, r.rulename, \
 pg_catalog.concat(pg_catalog.pg_get_ruledef(r.oid), CASE r.ev_enabled WHEN 'D' THEN ' (disabled)' WHEN 'O' THEN '' ELSE pg_catalog.concat(' (', r.ev_enabled, ')') END) \
FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE r.rulename <> '_RETURN' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgherd') \
UNION ALL \
SELECT 'row security', n.nspname, c.relname, '', pg_catalog.concat(CASE WHEN c.relrowsecurity THEN 'on' ELSE 'off' END, \
  CASE WHEN c.relforcerowsecurity THEN ', forced' END, (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', '; policy', p.polname, p.polcmd, \
   CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END, \
   (SELECT pg_catalog.string_agg(coalesce(a.rolname, 'public'), ' ' ORDER BY a.rolname) \
    FROM pg_catalog.unnest(p.polroles) o(oid) LEFT JOIN pg_catalog.pg_roles a ON a.oid = o.oid), \
   'USING ' || pg_catalog.pg_get_expr(p.polqual, p.polrelid), 'CHECK ' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)), '' ORDER BY p.polname) \
  FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid)) \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'pgherd' \
 AND (c.relrowsecurity OR c.relforcerowsecurity OR EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid))";

/// What extensions bring is told by their versions.
const FUNCTIONS: &str = "\
SELECT 'function', n.nspname, '', p.proname || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')', \
 pg_catalog.concat(CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END, ', definition ', \
  pg_catalog.substr(pg_catalog.md5(CASE p.prokind WHEN 'a' THEN (SELECT pg_catalog.concat_ws(' ', a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.agginitval) \
   FROM pg_catalog.pg_aggregate a WHERE a.aggfnoid = p.oid) ELSE pg_catalog.pg_get_functiondef(p.oid) END), 1, 8)) \
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgherd') AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
 WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e') \
UNION ALL \
SELECT 'type', n.nspname, '', t.typname, 'enum (' || pg_catalog.string_agg(pg_catalog.quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) || ')' \
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_enum e ON e.enumtypid = t.oid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace GROUP BY 2, 4 \
UNION ALL \
SELECT 'type', n.nspname, '', t.typname, pg_catalog.concat_ws(' ', 'domain over', pg_catalog.format_type(t.typbasetype, t.typtypmod), \
 CASE WHEN t.typnotnull THEN 'NOT NULL' END, 'DEFAULT ' || t.typdefault, \
 (SELECT pg_catalog.string_agg(pg_catalog.pg_get_constraintdef(k.oid), ' ' ORDER BY k.conname) FROM pg_catalog.pg_constraint k WHERE k.contypid = t.oid)) \
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
WHERE t.typtype = 'd' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
UNION ALL SELECT 'extension', '', '', e.extname, e.extversion FROM pg_catalog.pg_extension e";

/// By way of JSON, for these columns came and changed their names over the versions of PostgreSQL. The settings are
/// those that a session begins with.
const SURROUNDINGS: &str = "\
SELECT 'setting', '', '', s.name, s.reset_val FROM pg_catalog.pg_settings s WHERE s.name IN ('DateStyle', 'IntervalStyle', 'TimeZone', \
 'array_nulls', 'bytea_output', 'default_text_search_config', 'extra_float_digits', 'integer_datetimes', 'lc_monetary', 'lc_numeric', \
 'lc_time', 'quote_all_identifiers', 'search_path', 'standard_conforming_strings', 'timezone_abbreviations', 'transform_null_equals', \
 'xmlbinary', 'xmloption') \
UNION ALL SELECT 'role setting', '', '', pg_catalog.concat(r.rolname, '.', pg_catalog.split_part(c.entry, '=', 1)), \
  pg_catalog.substr(c.entry, pg_catalog.strpos(c.entry, '=') + 1) \
 FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_roles r ON r.oid = s.setrole, pg_catalog.unnest(s.setconfig) c(entry) \
 WHERE (s.setdatabase = 0 OR s.setdatabase = (SELECT b.oid FROM pg_catalog.pg_database b WHERE b.datname = pg_catalog.current_database())) \
 AND pg_catalog.lower(pg_catalog.split_part(c.entry, '=', 1)) IN ('datestyle', 'intervalstyle', 'timezone', \
 'array_nulls', 'bytea_output', 'default_text_search_config', 'extra_float_digits', 'integer_datetimes', 'lc_monetary', 'lc_numeric', \
 'lc_time', 'quote_all_identifiers', 'search_path', 'standard_conforming_strings', 'timezone_abbreviations', 'transform_null_equals', \
 'xmlbinary', 'xmloption') \
UNION ALL SELECT 'encoding', '', '', '', pg_catalog.current_setting('server_encoding') \
UNION ALL SELECT 'version', '', '', '', (pg_catalog.current_setting('server_version_num')::pg_catalog.int4 / 10000)::pg_catalog.text \
UNION ALL SELECT 'collation', '', '', 'of the database', pg_catalog.concat_ws(', ', coalesce(d.j ->> 'datlocprovider', 'c'), d.j ->> 'datcollate', \
  d.j ->> 'datctype', coalesce(d.j ->> 'datlocale', d.j ->> 'daticulocale'), 'version ' || (d.j ->> 'datcollversion'), \
  'version of the server ' || (SELECT pg_catalog.pg_collation_actual_version(l.oid) FROM pg_catalog.pg_collation l \
   WHERE l.collprovider = 'c' AND pg_catalog.to_jsonb(l) ->> 'collcollate' = d.j ->> 'datcollate' ORDER BY l.oid LIMIT 1)) \
 FROM (SELECT pg_catalog.to_jsonb(b) AS j FROM pg_catalog.pg_database b WHERE b.datname = pg_catalog.current_database()) d \
UNION ALL SELECT DISTINCT 'collation', ln.nspname, '', l.collname, pg_catalog.concat_ws(', ', l.collprovider, pg_catalog.to_jsonb(l) ->> 'collcollate', \
  coalesce(pg_catalog.to_jsonb(l) ->> 'colllocale', pg_catalog.to_jsonb(l) ->> 'colliculocale'), \
  CASE WHEN l.collisdeterministic THEN 'deterministic' ELSE 'nondeterministic' END, 'version ' || pg_catalog.pg_collation_actual_version(l.oid)) \
 FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') AND c.oid >= 16384 \
 JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation AND l.oid NOT IN (100, 950, 951) JOIN pg_catalog.pg_namespace ln ON ln.oid = l.collnamespace";

/// A kind of difference: what metrics call it, what people call the object, and what to do about one.
#[derive(Debug, PartialEq, Eq)]
pub struct DriftKind {
    /// As the questions write it, and people.
    pub name: &'static str,
    /// A text that a person need not see: that it differs is all that is said.
    hidden: bool,
    /// Statements on the relation may have another meaning on that shard, so they are refused.
    breaks: bool,
    remedy: &'static str,
}

const fn kind(name: &'static str, hidden: bool, breaks: bool, remedy: &'static str) -> DriftKind {
    DriftKind {
        name,
        hidden,
        breaks,
        remedy,
    }
}

const SAME_DDL: &str = "run the same DDL there";
const SAME_SETTING: &str = "set it alike on all shards (ALTER DATABASE … SET, or postgresql.conf)";

pub const DRIFT_KINDS: &[DriftKind] = &[
    kind("table", false, true, SAME_DDL),
    kind(
        "columns",
        false,
        true,
        "create the table again with its columns in the same order",
    ),
    kind("column", false, true, SAME_DDL),
    kind("nullability", false, false, SAME_DDL),
    kind("default", false, false, SAME_DDL),
    kind("unique key", false, false, SAME_DDL),
    kind("foreign key", false, false, SAME_DDL),
    kind("check", false, false, SAME_DDL),
    kind("trigger", false, true, SAME_DDL),
    kind("rule", false, true, SAME_DDL),
    kind("row security", false, true, SAME_DDL),
    kind(
        "view",
        true,
        true,
        "run the same CREATE OR REPLACE VIEW there",
    ),
    kind(
        "partition",
        false,
        false,
        "create, attach or detach the same partitions there",
    ),
    kind(
        "replica identity",
        false,
        false,
        "run the same ALTER TABLE … REPLICA IDENTITY there",
    ),
    kind(
        "function",
        false,
        false,
        "run the same CREATE OR REPLACE FUNCTION there",
    ),
    kind("type", false, false, SAME_DDL),
    kind(
        "extension",
        false,
        false,
        "install the same version there (ALTER EXTENSION … UPDATE)",
    ),
    kind("setting", false, false, SAME_SETTING),
    kind(
        "role setting",
        false,
        false,
        "run the same ALTER ROLE … SET there",
    ),
    kind(
        "encoding",
        false,
        false,
        "create its database with ENCODING 'UTF8'",
    ),
    kind(
        "collation",
        false,
        false,
        "create the databases with the same locale, on the same version of its library",
    ),
    kind(
        "version",
        false,
        false,
        "run one major version of PostgreSQL on all shards",
    ),
];

impl DriftKind {
    /// The value of the label `kind`.
    #[must_use]
    pub fn label(&self) -> String {
        self.name.replace(' ', "_")
    }
}

/// Schema and name of a relation; two empty texts where a fact is of none.
type Place = (String, String);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// An index into [`DRIFT_KINDS`], so that differences are told in that order.
    kind: usize,
    place: Place,
    detail: String,
}

/// What one shard says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    values: BTreeMap<Key, String>,
    /// A partition and the table that it is part of.
    part_of: BTreeMap<Place, Place>,
    /// A view and all that it reads.
    reads: BTreeMap<Place, BTreeSet<Place>>,
}

/// Something that is not on a shard as it is on the authoritative one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    pub kind: &'static str,
    pub label: String,
    /// Such as `table public.orders, column note`.
    pub object: String,
    /// What differs.
    pub what: String,
    /// What to do.
    pub remedy: &'static str,
    /// The relation on which statements are refused until it is mended.
    pub breaks: Option<(String, String)>,
    /// Schema and name of a function that is not the same.
    pub function: Option<(String, String)>,
    /// The name of a setting, of the database or of a role, that changes what texts or values mean.
    pub setting: Option<String>,
}

impl Facts {
    /// Reads the answers to [`FACTS`], one after the other.
    ///
    /// # Errors
    /// Rows that are not those of the questions.
    pub fn from_rows<'r>(
        rows: impl Iterator<Item = &'r Vec<Option<String>>>,
    ) -> Result<Self, CatalogError> {
        let mut facts = Facts::default();
        for row in rows {
            let unexpected = |reason| CatalogError::Row {
                query: "facts",
                reason,
            };
            let [Some(kind), Some(schema), Some(relation), detail, value] = row.as_slice() else {
                return Err(unexpected("other columns"));
            };
            let place = (schema.clone(), relation.clone());
            let detail = detail.clone().unwrap_or_default();
            let value = value.clone().unwrap_or_default();
            match kind.as_str() {
                "part of" => {
                    facts.part_of.insert(place, (detail, value));
                }
                "reads" => {
                    facts
                        .reads
                        .entry(place)
                        .or_default()
                        .insert((detail, value));
                }
                name => {
                    let kind = DRIFT_KINDS.iter().position(|kind| kind.name == name);
                    let kind = kind.ok_or_else(|| unexpected("another kind"))?;
                    let key = Key {
                        kind,
                        place,
                        detail,
                    };
                    facts.values.insert(key, value);
                }
            }
        }
        Ok(facts)
    }

    fn value(&self, kind: &str, place: &Place) -> Option<&str> {
        let kind = DRIFT_KINDS.iter().position(|each| each.name == kind)?;
        let key = Key {
            kind,
            place: place.clone(),
            detail: String::new(),
        };
        self.values.get(&key).map(String::as_str)
    }

    /// Whether replicas of the table can tell its rows apart by this column; `true` where nothing is known of it.
    #[must_use]
    pub fn identifies(&self, schema: &str, table: &str, column: &str) -> bool {
        let place = (schema.to_owned(), table.to_owned());
        match self.value("replica identity", &place) {
            None | Some("all columns") => true,
            Some(columns) => columns
                .trim_matches(['(', ')'])
                .split(", ")
                .any(|each| each == column),
        }
    }

    fn has_column(&self, of: &Key) -> bool {
        let kind = DRIFT_KINDS.iter().position(|each| each.name == "column");
        let key = kind.map(|kind| Key { kind, ..of.clone() });
        key.is_some_and(|key| self.values.contains_key(&key))
    }

    /// The relations that have to be the same everywhere: those that the rules spread, their partitions, and the views
    /// that read nothing else.
    fn wanted(&self, rules: &Rules) -> BTreeSet<&Place> {
        let is_spread = |place: &&Place| {
            let rule = rule_of(rules, &place.0, &place.1);
            matches!(rule, Some(Rule::Sharded { .. } | Rule::Reference))
        };
        let has_no_rule = |place: &Place| rule_of(rules, &place.0, &place.1).is_none();
        let mut wanted: BTreeSet<&Place> = self.relations().filter(is_spread).collect();
        for _ in 0..DEPTH_MAX {
            let parts = self.part_of.iter();
            let parts = parts.filter(|(_, parent)| wanted.contains(parent));
            let views = self.reads.iter();
            let views = views.filter(|(_, read)| read.iter().all(|each| wanted.contains(each)));
            let found = parts
                .map(|(place, _)| place)
                .chain(views.map(|(place, _)| place));
            let found: Vec<&Place> = found
                .filter(|place| !wanted.contains(place) && has_no_rule(place))
                .collect();
            if found.is_empty() {
                break;
            }
            wanted.extend(found);
        }
        wanted
    }

    fn relations(&self) -> impl Iterator<Item = &Place> {
        let tables = self.values.keys().filter(|key| key.kind == 0);
        tables.map(|key| &key.place)
    }
}

/// Where `other`, a shard's facts, differs from `first`, those of the authoritative shard, as far as it matters.
#[must_use]
pub fn differences(
    first: &Facts,
    other: &Facts,
    first_name: &str,
    rules: &Rules,
) -> Vec<Difference> {
    let comparison = Comparison {
        first,
        other,
        first_name,
    };
    let mut wanted = first.wanted(rules);
    wanted.extend(other.wanted(rules));
    let mut found = Vec::new();
    let keys: BTreeSet<&Key> = first.values.keys().chain(other.values.keys()).collect();
    for key in keys {
        let of_relation = !key.place.1.is_empty();
        if of_relation && !wanted.contains(&key.place) {
            found.extend(comparison.shadow(key, &wanted));
            continue;
        }
        let is_there = |facts: &Facts| facts.value("table", &key.place).is_some();
        let is_missing = of_relation && key.kind != 0 && !(is_there(first) && is_there(other));
        let of_column = DRIFT_KINDS
            .get(key.kind)
            .is_some_and(|kind| matches!(kind.name, "nullability" | "default"));
        if is_missing || (of_column && !(first.has_column(key) && other.has_column(key))) {
            // that it is missing is said once
            continue;
        }
        found.extend(comparison.difference(key));
    }
    found
}

/// Views in views, and partitions of partitions, that are followed.
const DEPTH_MAX: usize = 16;

/// What the questions call a table of another server.
const FOREIGN: &str = "a foreign table";

/// Bytes of a value that a line shows.
const SHOWN_MAX: usize = 200;

struct Comparison<'a> {
    first: &'a Facts,
    other: &'a Facts,
    first_name: &'a str,
}

impl Comparison<'_> {
    /// A relation that only one of the two has, named like one that counts: a name without a schema may mean it there.
    fn shadow(&self, key: &Key, wanted: &BTreeSet<&Place>) -> Option<Difference> {
        if key.kind != 0
            || self.first.values.contains_key(key) == self.other.values.contains_key(key)
        {
            return None;
        }
        let meant = wanted.iter().find(|place| place.1 == key.place.1)?;
        let here = self.other.values.contains_key(key);
        let place = if here { "here" } else { self.first_name };
        Some(Difference {
            kind: "table",
            label: "table".to_owned(),
            object: object("table", key),
            what: format!(
                "it is only {place}, and {}.{} is called like it",
                meant.0, meant.1
            ),
            remedy: "rename one of them, or make the other one everywhere",
            breaks: Some((*meant).clone()),
            function: None,
            setting: None,
        })
    }

    fn difference(&self, key: &Key) -> Option<Difference> {
        let kind = DRIFT_KINDS.get(key.kind)?;
        let (first, other) = (self.first.values.get(key), self.other.values.get(key));
        if first == other {
            return None;
        }
        let what = match (first, other) {
            _ if kind.hidden => format!("it is not defined as on {}", self.first_name),
            (Some(_), None) => format!("it is missing; {} has it", self.first_name),
            (None, Some(_)) => format!("{} does not have it", self.first_name),
            (first, other) => format!(
                "it is {}, on {} it is {}",
                shown(other),
                self.first_name,
                shown(first)
            ),
        };
        let grown = kind.name == "columns" && is_longer(first, other);
        if grown {
            // each column more is told by itself
            return None;
        }
        let only_grown = kind.name == "column" && (first.is_none() || other.is_none());
        let breaks = kind.breaks && !only_grown;
        let values = (first, other);
        Some(Difference {
            kind: kind.name,
            label: kind.label(),
            object: object(kind.name, key),
            what,
            remedy: kind.remedy,
            breaks: breaks.then(|| self.broken(&key.place, values)),
            setting: kind.name.ends_with("setting").then(|| {
                let name = key.detail.rsplit('.').next().unwrap_or_default();
                name.to_ascii_lowercase()
            }),
            function: (kind.name == "function").then(|| {
                let name = key.detail.split('(').next().unwrap_or_default();
                (key.place.0.clone(), name.to_owned())
            }),
        })
    }

    /// The table of a partition, for it reads the partition too. Not where the partition is only missing: what it has
    /// not got the server says itself, and partitions come and go on one shard after the other.
    fn broken(&self, place: &Place, (first, other): (Option<&String>, Option<&String>)) -> Place {
        let is_ordinary = |value: Option<&String>| value.is_none_or(|value| value != FOREIGN);
        let is_missing = first.is_none() || other.is_none();
        if is_missing && is_ordinary(first) && is_ordinary(other) {
            return place.clone();
        }
        let mut place = place;
        for _ in 0..DEPTH_MAX {
            let parent = self.first.part_of.get(place);
            match parent.or_else(|| self.other.part_of.get(place)) {
                Some(parent) => place = parent,
                None => break,
            }
        }
        place.clone()
    }
}

/// Whether one list of columns is the other with more at its end.
fn is_longer(first: Option<&String>, other: Option<&String>) -> bool {
    let (Some(first), Some(other)) = (first, other) else {
        return false;
    };
    let goes_on = |long: &str, short: &str| {
        long.strip_prefix(short)
            .is_some_and(|rest| rest.starts_with(", "))
    };
    goes_on(first, other) || goes_on(other, first)
}

fn shown(value: Option<&String>) -> String {
    let value = value.map_or("", String::as_str);
    let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
    match value.char_indices().find(|(at, _)| *at >= SHOWN_MAX) {
        Some((at, _)) => format!("{}…", value.get(..at).unwrap_or_default()),
        None if value.is_empty() => "empty".to_owned(),
        None => value,
    }
}

fn object(kind: &str, key: &Key) -> String {
    let (schema, relation) = &key.place;
    let detail = shown(Some(&key.detail));
    match (relation.is_empty(), schema.is_empty()) {
        (true, true) if key.detail.is_empty() => format!("the {kind}"),
        (true, true) => format!("{kind} {detail}"),
        (true, false) => format!("{kind} {schema}.{detail}"),
        (false, _) => {
            let table = format!("{schema}.{relation}");
            match kind {
                "table" | "view" => format!("{kind} {table}"),
                "columns" => format!("table {table}, the order of its columns"),
                "nullability" => format!("table {table}, whether column {detail} may be NULL"),
                "default" => format!("table {table}, the default of column {detail}"),
                _ if key.detail.is_empty() => format!("table {table}, its {kind}"),
                _ => format!("table {table}, {kind} {detail}"),
            }
        }
    }
}
