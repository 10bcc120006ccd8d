//! The same schema under a search path that a session has chosen.

use super::Catalog;

/// Longest name in bytes; PostgreSQL cuts what is longer.
const NAME_BYTES_MAX: usize = 63;

impl Catalog {
    /// What names mean under this `search_path`, as `SHOW` writes it; `None` where that cannot be told.
    #[must_use]
    pub fn under_path(&self, path: &str) -> Option<Catalog> {
        Some(Catalog {
            search_path: entries(path)?,
            role_paths: false,
            ..self.clone()
        })
    }

    /// Whether names can be resolved under this `search_path`.
    #[must_use]
    pub fn reads_path(path: &str) -> bool {
        entries(path).is_some()
    }
}

/// The schemas that it lists. Operators and types are looked for in `pg_catalog` first, so it may stand at no other place;
/// the names of `information_schema` are known with their schema only.
fn entries(path: &str) -> Option<Vec<String>> {
    let mut entries: Vec<String> = Vec::new();
    for entry in path.split(',').map(str::trim) {
        let name = match entry.strip_prefix('"') {
            Some(rest) => rest
                .strip_suffix('"')
                .filter(|name| !name.contains('"'))?
                .to_owned(),
            None if path.trim().is_empty() => String::new(),
            None => {
                let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                let begins = entry.bytes().next().filter(|byte| !byte.is_ascii_digit());
                if begins.is_none() || !entry.bytes().all(letter) {
                    return None;
                }
                entry.to_ascii_lowercase()
            }
        };
        let misplaced = name == "pg_catalog" && !entries.is_empty();
        if misplaced || name == "information_schema" || name.len() > NAME_BYTES_MAX {
            return None;
        }
        if !name.is_empty() {
            entries.push(name);
        }
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_postgresql_reads_it() {
        let check = |path: &str, expected: Option<&[&str]>| {
            let found = entries(path);
            let found = found.map(|found| found.join(" "));
            assert_eq!(found, expected.map(|names| names.join(" ")), "{path}");
        };
        check("", Some(&[]));
        check("\"\"", Some(&[]));
        check("\"$user\", public", Some(&["$user", "public"]));
        check("Sales,\"Sales\" ,x_1", Some(&["sales", "Sales", "x_1"]));
        check("pg_catalog, public", Some(&["pg_catalog", "public"]));
        for path in [
            "public, pg_catalog",
            "a,",
            ", a",
            "a b",
            "\"a\"\"b\"",
            "\"a, b\"",
            "information_schema",
            "$user",
            "é",
        ] {
            check(path, None);
        }
    }
}
