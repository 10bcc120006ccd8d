//! Every key of `sharding.toml` as one table: where it stands, what kind of value it takes, what it may be mistaken for.
//!
//! Knows no text and no meaning; [`file`](super::file) walks a parsed text along this table to find all unknown keys and
//! wrong types in one pass. What would surprise: the serde mirror in `file` repeats the names, and a test holds the two
//! together.

/// What may stand at one place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    Leaf(Kind),
    /// A table with these keys.
    Table(&'static [Field]),
    /// A table whose keys are names that the operator chooses.
    Named(&'static [Field]),
    /// An array of tables.
    Each(&'static [Field]),
}

/// What a single value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// Text in which variables are left alone: the reader of connection strings knows how to quote what it inserts.
    Connection,
    Connections,
    Texts,
    TextOrTexts,
    Duration,
    Size,
    Flag,
    Count {
        min: u32,
        max: u32,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub name: &'static str,
    pub shape: Shape,
}

const fn leaf(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        shape: Shape::Leaf(kind),
    }
}

const fn count(name: &'static str, min: u32, max: u32) -> Field {
    leaf(name, Kind::Count { min, max })
}

const WORKERS_MAX: u32 = 1024;
const CLIENTS_MAX_MAX: u32 = 1_000_000;
const POOL_SIZE_MAX: u32 = 100_000;
const CONNECT_PARALLELISM_MAX: u32 = 1000;

pub(super) const FILE: &[Field] = &[
    Field {
        name: "proxy",
        shape: Shape::Table(PROXY),
    },
    Field {
        name: "log",
        shape: Shape::Table(LOG),
    },
    Field {
        name: "auth",
        shape: Shape::Table(AUTH),
    },
    Field {
        name: "tls",
        shape: Shape::Table(TLS),
    },
    Field {
        name: "pool",
        shape: Shape::Table(POOL),
    },
    Field {
        name: "users",
        shape: Shape::Named(USER),
    },
    Field {
        name: "databases",
        shape: Shape::Named(DATABASE),
    },
];

const PROXY: &[Field] = &[
    leaf("listen", Kind::Texts),
    leaf("http", Kind::Text),
    count("workers", 0, WORKERS_MAX),
    leaf("pin_workers", Kind::Flag),
    count("clients_max", 1, CLIENTS_MAX_MAX),
    count("host_connections_max", 0, POOL_SIZE_MAX),
    count("server_logins_max", 1, CONNECT_PARALLELISM_MAX),
    leaf("memory_max", Kind::Text),
    leaf("dns_interval", Kind::Duration),
    leaf("catalog_refresh", Kind::Duration),
    leaf("ignore_startup_parameters", Kind::Texts),
    leaf("admin_users", Kind::Texts),
    leaf("login_timeout", Kind::Duration),
    leaf("shutdown_timeout", Kind::Duration),
    leaf("message_bytes_max", Kind::Size),
];

const LOG: &[Field] = &[leaf("format", Kind::Text), leaf("level", Kind::Text)];

const AUTH: &[Field] = &[leaf("method", Kind::Text), leaf("users_file", Kind::Text)];

const TLS: &[Field] = &[
    leaf("cert_file", Kind::Text),
    leaf("key_file", Kind::Text),
    leaf("mode", Kind::Text),
];

const POOL: &[Field] = &[
    leaf("mode", Kind::Text),
    count("size", 1, POOL_SIZE_MAX),
    count("size_min", 0, POOL_SIZE_MAX),
    count("reserve_size", 0, POOL_SIZE_MAX),
    leaf("reserve_timeout", Kind::Duration),
    leaf("reuse", Kind::Text),
    leaf("wait_timeout", Kind::Duration),
    leaf("wait_notice", Kind::Duration),
    leaf("connect_timeout", Kind::Duration),
    count("connect_parallelism", 1, CONNECT_PARALLELISM_MAX),
    leaf("connect_query", Kind::Text),
    leaf("idle_timeout", Kind::Duration),
    leaf("lifetime", Kind::Duration),
    leaf("check_after", Kind::Duration),
    leaf("reset", Kind::Text),
    leaf("reset_query", Kind::Text),
    leaf("on_session_state", Kind::Text),
    leaf("query_timeout", Kind::Duration),
    leaf("transaction_timeout", Kind::Duration),
    leaf("idle_in_transaction_timeout", Kind::Duration),
    leaf("client_idle_timeout", Kind::Duration),
];

const USER: &[Field] = &[
    count("connections_max", 0, POOL_SIZE_MAX),
    count("clients_max", 0, CLIENTS_MAX_MAX),
    Field {
        name: "pool",
        shape: Shape::Table(POOL),
    },
];

const DATABASE: &[Field] = &[
    leaf("default_table", Kind::Text),
    count("connections_max", 0, POOL_SIZE_MAX),
    count("clients_max", 0, CLIENTS_MAX_MAX),
    Field {
        name: "shards",
        shape: Shape::Each(SHARD),
    },
    Field {
        name: "pool",
        shape: Shape::Table(POOL),
    },
    Field {
        name: "tables",
        shape: Shape::Named(TABLE),
    },
    Field {
        name: "functions",
        shape: Shape::Named(FUNCTION),
    },
];

const SHARD: &[Field] = &[
    leaf("name", Kind::Text),
    leaf("primary", Kind::Connection),
    leaf("primary_password_file", Kind::Text),
    leaf("control", Kind::Connection),
    leaf("control_password_file", Kind::Text),
    leaf("replicas", Kind::Connections),
    leaf("replicas_password_file", Kind::Text),
];

const TABLE: &[Field] = &[
    leaf("key", Kind::TextOrTexts),
    leaf("reference", Kind::Flag),
    leaf("shard", Kind::Text),
];

const FUNCTION: &[Field] = &[leaf("shard_safe", Kind::Flag)];

/// Keys that will come, with what to do until then.
const LATER: &[(&str, &str)] = &[("auth.query", "list the users in users_file for now")];

/// What PgBouncer calls a setting, and where it lives here.
const BORROWED: &[(&str, &str)] = &[
    ("auth_file", "auth.users_file"),
    ("auth_type", "auth.method"),
    ("client_login_timeout", "proxy.login_timeout"),
    ("default_pool_size", "pool.size"),
    (
        "idle_transaction_timeout",
        "pool.idle_in_transaction_timeout",
    ),
    ("listen_addr", "proxy.listen"),
    ("listen_port", "proxy.listen"),
    ("max_client_conn", "proxy.clients_max"),
    ("max_db_client_connections", "databases.*.clients_max"),
    ("max_db_connections", "databases.*.connections_max"),
    ("max_user_client_connections", "users.*.clients_max"),
    ("max_user_connections", "users.*.connections_max"),
    ("min_pool_size", "pool.size_min"),
    ("pool_mode", "pool.mode"),
    ("pool_size", "pool.size"),
    ("query_wait_notify", "pool.wait_notice"),
    ("query_wait_timeout", "pool.wait_timeout"),
    ("reserve_pool_size", "pool.reserve_size"),
    ("reserve_pool_timeout", "pool.reserve_timeout"),
    ("server_check_delay", "pool.check_after"),
    ("server_connect_timeout", "pool.connect_timeout"),
    ("server_idle_timeout", "pool.idle_timeout"),
    ("server_lifetime", "pool.lifetime"),
    ("server_reset_query", "pool.reset_query"),
    ("server_round_robin", "pool.reuse"),
];

/// Every key as a path: `proxy.listen`, `databases.*.shards[].primary`, `databases.*.tables.*.key`.
#[must_use]
pub fn known_keys() -> Vec<String> {
    let mut keys = Vec::new();
    collect(FILE, "", &mut keys);
    keys
}

fn collect(fields: &[Field], path: &str, keys: &mut Vec<String>) {
    for field in fields {
        let here = if path.is_empty() {
            field.name.to_owned()
        } else {
            format!("{path}.{}", field.name)
        };
        match field.shape {
            Shape::Leaf(_) => keys.push(here),
            Shape::Table(inner) => collect(inner, &here, keys),
            Shape::Named(inner) => collect(inner, &format!("{here}.*"), keys),
            Shape::Each(inner) => collect(inner, &format!("{here}[]"), keys),
        }
    }
}

/// What the writer of an unknown key probably meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meant {
    /// This key of the same table, by a slip of the hand.
    Sibling(&'static str),
    /// The key at this path.
    Elsewhere(String),
    /// A key that does not work yet; what to do instead.
    Later(&'static str),
    Nothing,
}

/// Guesses what `key`, unknown among `fields` at `path`, was meant to be.
pub(super) fn meant(fields: &'static [Field], path: &str, key: &str) -> Meant {
    let full = super::problems::join(path, key);
    if let Some((_, instead)) = LATER.iter().find(|(later, _)| *later == full) {
        return Meant::Later(instead);
    }
    if let Some(sibling) = closest(key, fields.iter().map(|field| field.name)) {
        return Meant::Sibling(sibling);
    }
    if let Some((_, here)) = BORROWED.iter().find(|(theirs, _)| *theirs == key) {
        return Meant::Elsewhere((*here).to_owned());
    }
    let same_name = known_keys()
        .into_iter()
        .find(|known| known.rsplit('.').next() == Some(key));
    same_name.map_or(Meant::Nothing, Meant::Elsewhere)
}

/// The candidate that differs from `word` by a slip or two, if any.
pub(super) fn closest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .map(|candidate| (distance(&word.to_lowercase(), candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, changes and swaps of neighbours between two words, in characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut earlier: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    let mut before_left = None;
    for (i, l) in left.chars().enumerate() {
        let mut next = vec![i + 1];
        let mut before_right = None;
        for (j, r) in right.iter().copied().enumerate() {
            let at =
                |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX - 1);
            let mut least = (at(&row, j) + usize::from(l != r))
                .min(at(&row, j + 1) + 1)
                .min(at(&next, j) + 1);
            if before_left == Some(r) && before_right == Some(l) && j > 0 {
                least = least.min(at(&earlier, j - 1) + 1);
            }
            next.push(least);
            before_right = Some(r);
        }
        earlier = row;
        row = next;
        before_left = Some(l);
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_finds_its_neighbour() {
        for (word, expected) in [
            ("primry", Some("primary")),
            ("Primary", Some("primary")),
            ("replica", Some("replicas")),
            ("nmae", Some("name")),
            ("emna", None),
            ("nam", Some("name")),
            ("password", None),
        ] {
            let names = SHARD.iter().map(|field| field.name);
            assert_eq!(closest(word, names), expected, "{word}");
        }
    }

    #[test]
    fn distances_count_single_changes() {
        for (left, right, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("size", "siez", 1),
            ("prot", "port", 1),
            ("ab", "ba", 1),
        ] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
        }
    }

    #[test]
    fn keys_of_other_sections_and_other_poolers_are_pointed_to() {
        for (path, fields, key, expected) in [
            (
                "proxy",
                PROXY,
                "size",
                Meant::Elsewhere("pool.size".to_owned()),
            ),
            (
                "proxy",
                PROXY,
                "max_client_conn",
                Meant::Elsewhere("proxy.clients_max".to_owned()),
            ),
            ("pool", POOL, "sise", Meant::Sibling("size")),
            (
                "auth",
                AUTH,
                "query",
                Meant::Later("list the users in users_file for now"),
            ),
            ("auth", AUTH, "flavour", Meant::Nothing),
        ] {
            assert_eq!(meant(fields, path, key), expected, "{path}.{key}");
        }
    }
}
