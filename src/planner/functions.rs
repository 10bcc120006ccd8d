//! What a function call may do to a plan: the catalogue says how stable a function is; this file knows the built-in
//! ones of which that is not enough.

use crate::catalog::{Catalog, Function, Volatility};
use crate::sql::statement::Call;

/// A call, classified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nature {
    pub class: Class,
    pub aggregate: bool,
    pub window: bool,
    pub returns_set: bool,
    /// It may write, and must not run twice.
    pub writes: bool,
}

/// Ordered from harmless to forbidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Immutable,
    /// It depends on the moment, on chance or on settings, but not on the shard.
    Anywhere,
    /// It reads the schema or the state of a server, without effect.
    Reads,
    /// Volatile, and nobody says that it is harmless.
    Effects,
    /// Not of `pg_catalog` and not immutable, or unknown: it may read tables.
    User,
    /// It runs a query that is given as text.
    Query,
    /// Bound to a server, a session or a sequence.
    Server,
}

/// Forms that look like functions and are part of the grammar.
const FORMS: &[&str] = &[
    "array",
    "coalesce",
    "nullif",
    "greatest",
    "least",
    "row",
    "grouping",
    "xmlelement",
    "xmlforest",
];

/// Immutable built-in functions with an overload that depends on settings or encodings, which all shards share.
const IMMUTABLE: &[&str] = &["generate_series", "length"];

/// Built-in functions that are not immutable and yet say nothing about a shard.
const ANYWHERE: &[&str] = &[
    "age",
    "array_to_json",
    "array_to_string",
    "clock_timestamp",
    "concat",
    "concat_ws",
    "current_database",
    "date_part",
    "date_trunc",
    "extract",
    "format",
    "gen_random_uuid",
    "json_agg",
    "json_build_array",
    "json_build_object",
    "json_object_agg",
    "jsonb_agg",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_object_agg",
    "localtime",
    "localtimestamp",
    "make_timestamptz",
    "now",
    "overlaps",
    "pg_sleep",
    "pg_sleep_for",
    "pg_typeof",
    "quote_literal",
    "quote_nullable",
    "random",
    "row_to_json",
    "statement_timestamp",
    "string_to_array",
    "timeofday",
    "timezone",
    "to_char",
    "to_date",
    "to_json",
    "to_jsonb",
    "to_number",
    "to_timestamp",
    "to_tsquery",
    "to_tsvector",
    "transaction_timestamp",
    "uuidv4",
    "uuidv7",
    "version",
];

/// Volatile built-in functions that only read.
const READS: &[&str] = &[
    "current_setting",
    "pg_database_size",
    "pg_indexes_size",
    "pg_is_in_recovery",
    "pg_partition_ancestors",
    "pg_partition_tree",
    "pg_relation_filenode",
    "pg_relation_filepath",
    "pg_relation_size",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_total_relation_size",
];

/// They run a query or read a table that their argument names.
const QUERY_PREFIXES: &[&str] = &[
    "query_to_xml",
    "table_to_xml",
    "schema_to_xml",
    "database_to_xml",
    "cursor_to_xml",
    "ts_stat",
    "ts_rewrite",
    "dblink",
    "crosstab",
    "connectby",
];

const SERVER_NAMES: &[&str] = &[
    "currval",
    "lastval",
    "loread",
    "lowrite",
    "nextval",
    "setval",
    "set_config",
    "setseed",
    "pg_backend_pid",
    "pg_cancel_backend",
    "pg_terminate_backend",
    "pg_notify",
    "pg_listening_channels",
    "pg_notification_queue_usage",
    "pg_postmaster_start_time",
    "pg_conf_load_time",
    "pg_reload_conf",
    "pg_rotate_logfile",
    "pg_promote",
    "pg_read_file",
    "pg_read_binary_file",
    "pg_stat_file",
    "pg_prepared_statement",
    "pg_prepared_xact",
    "pg_cursor",
    "pg_blocking_pids",
    "pg_safe_snapshot_blocking_pids",
    "pg_isolation_test_session_is_blocked",
    "pg_lock_status",
    "pg_sequence_last_value",
    "pg_trigger_depth",
    "pg_jit_available",
    "pg_sleep_until",
    "pg_xact_commit_timestamp",
    "pg_xact_status",
    "pg_get_wal_replay_pause_state",
    "pg_size_bytes_of_database",
    "pg_relation_is_updatable",
    "pg_export_snapshot",
];

const SERVER_PREFIXES: &[&str] = &[
    "pg_advisory_",
    "pg_try_advisory_",
    "txid_",
    "pg_current_xact_id",
    "pg_current_snapshot",
    "pg_current_wal_",
    "pg_current_logfile",
    "pg_last_",
    "pg_wal_",
    "pg_walfile_",
    "pg_switch_wal",
    "pg_create_",
    "pg_drop_",
    "pg_copy_",
    "pg_logical_",
    "pg_replication_",
    "pg_start_backup",
    "pg_stop_backup",
    "pg_backup_",
    "pg_ls_",
    "pg_log_",
    "pg_stat_",
    "pg_control_",
    "pg_file_",
    "pg_import_",
    "inet_server_",
    "inet_client_",
    "lo_",
    "binary_upgrade_",
    "pg_promote",
    "pg_get_replication_slots",
    "pg_show_replication_origin_status",
    "pg_sync_",
    "pg_split_walfile",
];

/// Classifies a call; where overloads differ, the worst one counts.
pub(super) fn classify(catalog: &Catalog, call: &Call) -> Nature {
    let mut nature = Nature {
        class: Class::Immutable,
        aggregate: call.aggregates && !call.window,
        window: call.window,
        returns_set: false,
        writes: false,
    };
    if call.keyword {
        nature.class = if call.name == "current_schema" {
            Class::Reads
        } else {
            Class::Anywhere
        };
        return nature;
    }
    let name = call.name.as_str();
    if call.schema.is_none() && FORMS.contains(&name) {
        nature.aggregate |= name == "grouping";
        return nature;
    }
    if let Some(class) = forbidden(name) {
        nature.class = class;
        return nature;
    }
    let mut known = false;
    for function in catalog.functions(call.schema.as_deref(), name) {
        known = true;
        nature.aggregate |= function.aggregate && !call.window;
        nature.window |= function.window;
        nature.returns_set |= function.returns_set;
        let class = match function.volatility {
            volatility if is_built_in(function) => built_in(name, volatility),
            // its author promises that it reads no table
            Volatility::Immutable => Class::Immutable,
            // the operator does, or wants the rows of the shard
            Volatility::Stable if catalog.is_shard_safe(function, name) => Class::Immutable,
            // several shards together could leave its effect half done
            Volatility::Volatile if catalog.is_shard_safe(function, name) => {
                nature.writes = true;
                Class::Anywhere
            }
            _ => Class::User,
        };
        nature.class = nature.class.max(class);
    }
    if !known {
        nature.class = Class::User;
    }
    nature
}

fn is_built_in(function: &Function) -> bool {
    matches!(
        function.schema.as_str(),
        "pg_catalog" | "information_schema"
    )
}

fn forbidden(name: &str) -> Option<Class> {
    if QUERY_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Some(Class::Query);
    }
    let server = SERVER_NAMES.contains(&name)
        || SERVER_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix));
    server.then_some(Class::Server)
}

fn built_in(name: &str, volatility: Volatility) -> Class {
    match volatility {
        Volatility::Immutable => Class::Immutable,
        _ if IMMUTABLE.contains(&name) => Class::Immutable,
        _ if ANYWHERE.contains(&name) => Class::Anywhere,
        Volatility::Stable => Class::Reads,
        Volatility::Volatile if READS.contains(&name) => Class::Reads,
        Volatility::Volatile => Class::Effects,
    }
}

/// Views of `pg_catalog` that show one server's state rather than the schema.
pub(super) fn shows_server_state(relation: &str) -> bool {
    const STATE: &[&str] = &[
        "pg_locks",
        "pg_prepared_xacts",
        "pg_prepared_statements",
        "pg_cursors",
        "pg_sequences",
        "pg_replication_slots",
        "pg_largeobject",
        "pg_largeobject_metadata",
        "pg_backend_memory_contexts",
        "pg_shmem_allocations",
        "pg_wait_events",
        "pg_stats",
        "pg_stats_ext",
        "pg_stats_ext_exprs",
        "pg_statistic",
        "pg_replication_origin_status",
        "pg_file_settings",
        "pg_hba_file_rules",
        "pg_ident_file_mappings",
        "pg_aios",
    ];
    relation.starts_with("pg_stat_")
        || relation.starts_with("pg_statio_")
        || STATE.contains(&relation)
}

/// Whether `x.name` could call a function that may read tables.
pub(super) fn is_users(catalog: &Catalog, name: &str) -> bool {
    catalog.functions(None, name).any(|function| {
        !is_built_in(function)
            && function.volatility != Volatility::Immutable
            && !catalog.is_shard_safe(function, name)
    })
}
