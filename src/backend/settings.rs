//! The session settings that a client asked for at start-up, and the statement that brings a server to them.

use std::collections::BTreeMap;

/// Settings under which PostgreSQL reads a statement when it is prepared, constants and names in it.
const READING: &[&str] = &[
    "array_nulls",
    "datestyle",
    "intervalstyle",
    "lc_monetary",
    "search_path",
    "standard_conforming_strings",
    "timezone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmloption",
];

/// Settings whose value was taken by a server once, and so by any: no table, role or privilege decides on it.
const SURE: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "lock_timeout",
    "search_path",
    "standard_conforming_strings",
    "statement_timeout",
    "timezone",
    "work_mem",
];

const ENCODING: &str = "client_encoding";
const ROLE: &str = "role";
const AUTHORIZATION: &str = "session_authorization";

/// Whether such a setting is named anywhere in a text in lower case.
#[must_use]
pub fn names_reading(text: &str) -> bool {
    READING.iter().any(|name| text.contains(name))
}

/// Whether statements are read in another way under another value of this setting.
#[must_use]
pub fn changes_reading(name: &[u8]) -> bool {
    READING
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// What of a session is carried from server to server: settings, by names in lower case, and the statements that it
/// prepared by SQL. Equal ones need no work on a server that has them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Settings {
    values: BTreeMap<String, String>,
    /// The text of PREPARE, by the name of the statement.
    prepared: BTreeMap<String, String>,
}

impl Settings {
    #[must_use]
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let pairs = pairs.into_iter();
        let values = pairs.map(|(name, value)| (name.to_ascii_lowercase(), value));
        Self {
            values: values.collect(),
            prepared: BTreeMap::new(),
        }
    }

    /// The same settings, and these statements.
    #[must_use]
    pub fn with_prepared(self, prepared: BTreeMap<String, String>) -> Self {
        Self { prepared, ..self }
    }

    #[must_use]
    pub fn prepared(&self) -> &BTreeMap<String, String> {
        &self.prepared
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Those of `over`, and of these settings whatever `over` has not.
    #[must_use]
    pub fn under(&self, over: &Settings) -> Settings {
        let mut values = self.values.clone();
        values.extend(over.values.clone());
        Settings {
            values,
            prepared: over.prepared.clone(),
        }
    }

    /// One Query text that sets the one of this name, or all for an empty name, where the server has no value of the
    /// session for it: RESET may have failed, or been skipped.
    #[must_use]
    pub fn restored(&self, name: &str) -> Vec<u8> {
        let mut text = Vec::new();
        let wanted = |known: &str| name.is_empty() || known == name;
        for (known, value) in self.values.iter().filter(|(known, _)| wanted(known)) {
            text.extend_from_slice(b"SELECT ");
            set_config(&mut text, known, value);
            let mut quoted = Vec::new();
            literal(&mut quoted, known);
            if known.contains('.') {
                text.extend_from_slice(b" WHERE coalesce(pg_catalog.current_setting(");
                text.extend_from_slice(&quoted);
                text.extend_from_slice(b",true),'') OPERATOR(pg_catalog.=) '';");
            } else if known == "role" {
                text.extend_from_slice(
                    b" WHERE pg_catalog.current_setting('role') OPERATOR(pg_catalog.=) 'none';",
                );
            } else {
                text.extend_from_slice(
                    b" FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.<>) 'session' AND pg_catalog.lower(name) OPERATOR(pg_catalog.=) ",
                );
                text.extend_from_slice(&quoted);
                text.push(b';');
            }
        }
        text
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Whether a statement prepared under these settings means the same under `other`.
    #[must_use]
    pub fn reads_as(&self, other: &Settings) -> bool {
        READING.iter().all(|name| self.get(name) == other.get(name))
    }

    /// One Query text that leads from the values of `from` to these. Who the session is decides what it may set, and goes
    /// with its authorization: so it is itself again first, and somebody else last.
    #[must_use]
    pub fn change_from(&self, from: &Settings) -> Vec<u8> {
        let mut text = Vec::new();
        let differs = |name: &str| self.get(name) != from.get(name);
        let authorization = differs(AUTHORIZATION);
        let changes = |name: &str| differs(name) || (authorization && name == ROLE);
        let others = |name: &&str| *name != ROLE && *name != AUTHORIZATION;
        let who = [ROLE, AUTHORIZATION].into_iter();
        let before = from.values.keys().map(String::as_str).filter(others);
        for name in who.clone().chain(before) {
            let gone = !self.values.contains_key(name) || !others(&name);
            if changes(name) && gone && from.values.contains_key(name) {
                reset(&mut text, name);
            }
        }
        let after = self.values.keys().map(String::as_str).filter(others);
        for name in after.chain(who.rev()) {
            let Some(value) = self.get(name).filter(|_| changes(name)) else {
                continue;
            };
            if from.values.contains_key(name) && others(&name) {
                // A value may be taken as a change of the one in force, such as a DateStyle without an order.
                reset(&mut text, name);
            }
            text.extend_from_slice(b"SELECT ");
            set_config(&mut text, name, value);
            text.push(b';');
        }
        text
    }
}

impl Settings {
    /// Whether all that differs from `from` is sure to be taken.
    #[must_use]
    pub fn is_surely_taken_after(&self, from: &Settings) -> bool {
        let both = self.values.iter().chain(&from.values);
        let mut changed = both.filter(|(name, _)| self.values.get(*name) != from.values.get(*name));
        changed.all(|(name, _)| SURE.contains(&name.as_str()))
    }

    /// Whether texts are read in another encoding than under `from`.
    #[must_use]
    pub fn recodes(&self, from: &Settings) -> bool {
        self.get(ENCODING) != from.get(ENCODING)
    }

    /// The encoding alone.
    #[must_use]
    pub fn encoding(&self) -> Settings {
        let encoding = self.values.get_key_value(ENCODING);
        Settings::new(encoding.map(|(name, value)| (name.clone(), value.clone())))
    }

    /// What of the statements that are prepared on a server must go, as one Query text.
    #[must_use]
    pub fn deallocations(&self, there: &Settings) -> Vec<u8> {
        let mut text = Vec::new();
        let stays =
            |(name, prepared): &(&String, &String)| self.prepared.get(*name) != Some(prepared);
        for (name, _) in there.prepared.iter().filter(stays) {
            text.extend_from_slice(b"DEALLOCATE ");
            quoted(&mut text, name, b'"');
            text.push(b';');
        }
        text
    }

    /// The statements that are not prepared on a server yet.
    pub fn preparations<'a>(
        &'a self,
        there: &'a Settings,
    ) -> impl Iterator<Item = (&'a String, &'a String)> {
        self.prepared
            .iter()
            .filter(|(name, text)| there.prepared.get(*name) != Some(text))
    }
}

fn reset(text: &mut Vec<u8>, name: &str) {
    text.extend_from_slice(b"RESET ");
    quoted(text, name, b'"');
    text.push(b';');
}

/// It takes a list such as a search_path as it is written; SET would take it for one name.
fn set_config(text: &mut Vec<u8>, name: &str, value: &str) {
    text.extend_from_slice(b"pg_catalog.set_config(");
    literal(text, name);
    text.push(b',');
    literal(text, value);
    text.extend_from_slice(b",false)");
}

fn quoted(text: &mut Vec<u8>, value: &str, quote: u8) {
    text.push(quote);
    for byte in value.bytes() {
        if byte == quote {
            text.push(quote);
        }
        text.push(byte);
    }
    text.push(quote);
}

/// A string constant that means the same whatever `standard_conforming_strings` is.
pub fn literal(text: &mut Vec<u8>, value: &str) {
    if value.contains('\\') {
        text.push(b'E');
        quoted(text, &value.replace('\\', "\\\\"), b'\'');
    } else {
        quoted(text, value, b'\'');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_set_or_reset() {
        let settings = |pairs: &[(&str, &str)]| {
            Settings::new(
                pairs
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
            )
        };
        let check = |from: &[(&str, &str)], to: &[(&str, &str)], expected: &str| {
            let text = settings(to).change_from(&settings(from));
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        };
        check(&[("TimeZone", "UTC")], &[("timezone", "UTC")], "");
        check(
            &[],
            &[("TimeZone", "UTC")],
            "SELECT pg_catalog.set_config('timezone','UTC',false);",
        );
        check(&[("my.x", "1")], &[], "RESET \"my.x\";");
        check(
            &[("a", "1")],
            &[("a", "2")],
            "RESET \"a\";SELECT pg_catalog.set_config('a','2',false);",
        );
        check(
            &[],
            &[("a", "it's")],
            "SELECT pg_catalog.set_config('a','it''s',false);",
        );
        check(
            &[],
            &[("a", "b\\'c")],
            "SELECT pg_catalog.set_config('a',E'b\\\\''c',false);",
        );
    }
}
