//! The questions asked of a server's catalogue, for PostgreSQL 12 to 18. Every name is qualified and every value is
//! cast to text, so that no setting changes an answer; only of views it has to be asked with nothing but `pg_catalog` in
//! the search path, as control connections do, so that their texts name every other relation with its schema.

/// Name and text of each query; `Catalog::from_rows` takes their rows in this order.
pub const QUERIES: &[(&str, &str)] = &[
    ("relations", RELATIONS),
    ("columns", COLUMNS),
    ("functions", FUNCTIONS),
    ("unique constraints", UNIQUE),
    ("foreign keys", FOREIGN_KEYS),
    ("settings", SETTINGS),
    ("role schemas", ROLE_SCHEMAS),
    ("partitions", PARTITIONS),
    ("views", VIEWS),
];

const RELATIONS: &str = "\
SELECT n.nspname, c.relname, c.relkind::pg_catalog.text, \
 (c.relispartition OR EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid OR i.inhparent = c.oid))::pg_catalog.text, \
 EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN')::pg_catalog.text, \
 EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)::pg_catalog.text, \
 c.relrowsecurity::pg_catalog.text \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_(toast|temp)' \
ORDER BY 1, 2";

const COLUMNS: &str = "\
SELECT n.nspname, c.relname, a.attname, t.oid::pg_catalog.text, tn.nspname, t.typname, a.atttypmod::pg_catalog.text, \
 a.attnotnull::pg_catalog.text, (a.attgenerated <> '')::pg_catalog.text, (a.attidentity <> '')::pg_catalog.text, \
 CASE WHEN pg_catalog.concat(pg_catalog.pg_get_expr(d.adbin, d.adrelid), t.typdefault) ~* '(nextval|currval|lastval|setval)' THEN 'sequence' \
  WHEN d.adbin IS NOT NULL OR t.typdefault IS NOT NULL THEN 'other' ELSE 'none' END, \
 coalesce(l.collisdeterministic, true)::pg_catalog.text \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace \
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum \
LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation \
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
ORDER BY n.nspname, c.relname, a.attnum";

const FUNCTIONS: &str = "\
SELECT n.nspname, p.proname, max(p.provolatile::pg_catalog.text), pg_catalog.bool_or(p.prokind = 'a')::pg_catalog.text, \
 pg_catalog.bool_or(p.prokind = 'w')::pg_catalog.text, pg_catalog.bool_or(p.proretset)::pg_catalog.text \
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
WHERE p.prokind <> 'p' AND n.nspname !~ '^pg_(toast|temp)' GROUP BY 1, 2";

/// One row for each column of each index that keeps rows apart; NULL for an expression. A partial index counts too.
const UNIQUE: &str = "\
SELECT n.nspname, c.relname, x.relname, a.attname \
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid \
JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY k(attnum, at) \
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum AND k.attnum > 0 \
WHERE (i.indisunique OR i.indisexclusion) AND k.at <= i.indnkeyatts AND n.nspname !~ '^pg_' \
ORDER BY 1, 2, 3, k.at";

/// One row for each pair of columns of each foreign key, with what a change of the referenced row does to the others:
/// `set` where it writes NULL or a default into them, `cascade` where it changes or deletes them alike.
const FOREIGN_KEYS: &str = "\
SELECT n.nspname, c.relname, f.conname, a.attname, rn.nspname, r.relname, ra.attname, \
 CASE WHEN f.confdeltype IN ('n', 'd') OR f.confupdtype IN ('n', 'd') THEN 'set' \
  WHEN f.confdeltype = 'c' OR f.confupdtype = 'c' THEN 'cascade' ELSE 'none' END \
FROM pg_catalog.pg_constraint f JOIN pg_catalog.pg_class c ON c.oid = f.conrelid \
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_class r ON r.oid = f.confrelid \
JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace \
CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(f.conkey), pg_catalog.unnest(f.confkey)) k(attnum, refnum) \
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum \
JOIN pg_catalog.pg_attribute ra ON ra.attrelid = r.oid AND ra.attnum = k.refnum \
WHERE f.contype = 'f' AND n.nspname !~ '^pg_' ORDER BY 1, 2, 3";

/// The search path that a session begins with (the one in force is that of whoever asks), whether a role has one of its own, and whether operators or casts are not immutable.
const SETTINGS: &str = "\
SELECT (SELECT s.reset_val FROM pg_catalog.pg_settings s WHERE s.name = 'search_path'), \
 EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c(entry) \
  WHERE s.setrole <> 0 AND c.entry ~* '^search_path=')::pg_catalog.text, \
 (EXISTS (SELECT FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode \
   JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname <> 'pg_catalog' AND p.provolatile <> 'i') \
  OR EXISTS (SELECT FROM pg_catalog.pg_cast k JOIN pg_catalog.pg_proc p ON p.oid = k.castfunc \
   JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname <> 'pg_catalog' AND p.provolatile <> 'i'))::pg_catalog.text";

const ROLE_SCHEMAS: &str = "\
SELECT n.nspname FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.rolname = n.nspname";

/// Each partition with the table that it is part of.
const PARTITIONS: &str = "\
SELECT n.nspname, c.relname, pn.nspname, p.relname FROM pg_catalog.pg_inherits i \
JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition AND c.relkind IN ('r', 'p', 'f') \
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_class p ON p.oid = i.inhparent \
JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace ORDER BY 1, 2";

const VIEWS: &str = "\
SELECT n.nspname, c.relname, pg_catalog.pg_get_viewdef(c.oid) FROM pg_catalog.pg_class c \
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE c.relkind = 'v' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1, 2";
