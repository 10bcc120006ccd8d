//! `sharding.toml` as written: [`File`] mirrors the text and means nothing yet.
//!
//! The only place that knows TOML. What would surprise: serde stops at the first wrong key, so the text is walked along
//! the table of [`keys`](super::keys) first; whatever is unknown or of the wrong type is reported and taken out, and
//! serde then reads what is left. Messages never repeat a value, which may be a password.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::{Table, Value};

use super::keys::{self, Field, Kind, Meant, Shape, meant};
use super::problems::{Findings, join};
use super::values::{Environment, expand};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub proxy: Proxy,
    pub log: Log,
    pub auth: Auth,
    pub tls: Option<Tls>,
    pub pool: Pool,
    pub users: BTreeMap<String, User>,
    pub databases: BTreeMap<String, Database>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Proxy {
    pub listen: Option<Vec<String>>,
    pub http: Option<String>,
    pub workers: Option<u32>,
    pub pin_workers: Option<bool>,
    pub clients_max: Option<u32>,
    pub host_connections_max: Option<u32>,
    pub server_logins_max: Option<u32>,
    pub memory_max: Option<String>,
    pub dns_interval: Option<String>,
    pub catalog_refresh: Option<String>,
    pub ignore_startup_parameters: Option<Vec<String>>,
    pub admin_users: Option<Vec<String>>,
    pub login_timeout: Option<String>,
    pub shutdown_timeout: Option<String>,
    pub message_bytes_max: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub format: Option<String>,
    pub level: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Auth {
    pub method: Option<String>,
    pub users_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tls {
    pub cert_file: Option<String>,
    pub key_file: Option<String>,
    pub mode: Option<String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Pool {
    pub mode: Option<String>,
    pub size: Option<u32>,
    pub size_min: Option<u32>,
    pub reserve_size: Option<u32>,
    pub reserve_timeout: Option<String>,
    pub reuse: Option<String>,
    pub wait_timeout: Option<String>,
    pub wait_notice: Option<String>,
    pub connect_timeout: Option<String>,
    pub connect_parallelism: Option<u32>,
    pub connect_query: Option<String>,
    pub idle_timeout: Option<String>,
    pub lifetime: Option<String>,
    pub check_after: Option<String>,
    pub reset: Option<String>,
    pub reset_query: Option<String>,
    pub on_session_state: Option<String>,
    pub query_timeout: Option<String>,
    pub transaction_timeout: Option<String>,
    pub idle_in_transaction_timeout: Option<String>,
    pub client_idle_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct User {
    pub connections_max: Option<u32>,
    pub clients_max: Option<u32>,
    pub pool: Pool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Database {
    pub default_table: Option<String>,
    pub connections_max: Option<u32>,
    pub clients_max: Option<u32>,
    pub shards: Vec<Shard>,
    pub pool: Pool,
    pub tables: BTreeMap<String, TableRule>,
    pub functions: BTreeMap<String, Function>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Shard {
    pub name: Option<String>,
    pub primary: Option<String>,
    pub primary_password_file: Option<String>,
    pub control: Option<String>,
    pub control_password_file: Option<String>,
    pub replicas: Vec<String>,
    pub replicas_password_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TableRule {
    pub key: Option<OneOrMany>,
    pub reference: Option<bool>,
    pub shard: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Function {
    pub shard_safe: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Reads the text; what could not be read is reported to `findings` and absent from the result. `None` when the text
/// is not TOML at all.
pub(super) fn read(text: &str, environment: Environment, findings: &mut Findings) -> Option<File> {
    let mut table: Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            syntax_problem(text, &error, findings);
            return None;
        }
    };
    Walk {
        environment,
        findings,
    }
    .table(&mut table, keys::FILE, "");
    match table.try_into() {
        Ok(file) => Some(file),
        // Only when `keys` and `File` disagree, which a test forbids.
        Err(error) => {
            let error: toml::de::Error = error;
            findings.report(
                "the file",
                error.message(),
                "correct this key; pgherd could not say more precisely what is wrong",
            );
            None
        }
    }
}

fn syntax_problem(text: &str, error: &toml::de::Error, findings: &mut Findings) {
    let place = error
        .span()
        .map_or_else(|| "the file".to_owned(), |span| place(text, &span));
    let first_line = error.message().lines().next().unwrap_or_default();
    findings.report(
        &place,
        format!("this is not TOML: {first_line}"),
        "correct the line (text goes in \"quotes\"; see https://toml.io), then check again: other problems show once the file can be read",
    );
}

fn place(text: &str, span: &Range<usize>) -> String {
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    format!("line {line}, column {column}")
}

/// One pass over the parsed text.
struct Walk<'a> {
    environment: Environment<'a>,
    findings: &'a mut Findings,
}

impl Walk<'_> {
    fn table(&mut self, table: &mut Table, fields: &'static [Field], path: &str) {
        let present: Vec<String> = table.keys().cloned().collect();
        table.retain(|key, value| {
            let here = join(path, key);
            let kept = match fields.iter().find(|field| field.name == key) {
                Some(field) => self.value(value, field.shape, &here),
                None => self.unknown(fields, path, key, &present),
            };
            if !kept {
                self.findings.spoil(&here);
            }
            kept
        });
    }

    fn value(&mut self, value: &mut Value, shape: Shape, path: &str) -> bool {
        match (shape, value) {
            (Shape::Leaf(kind), value) => self.leaf(value, kind, path),
            (Shape::Table(fields), Value::Table(table)) => {
                self.table(table, fields, path);
                true
            }
            (Shape::Named(fields), Value::Table(table)) => {
                table.retain(|name, value| {
                    let here = join(path, name);
                    let kept = self.value(value, Shape::Table(fields), &here);
                    if !kept {
                        self.findings.spoil(&here);
                    }
                    kept
                });
                true
            }
            (Shape::Each(fields), Value::Array(items)) => {
                // Items keep their index, so that later problems name the right one: a wrong one spoils the array.
                let mut kept = true;
                for (index, item) in items.iter_mut().enumerate() {
                    kept &= self.value(item, Shape::Table(fields), &format!("{path}[{index}]"));
                }
                kept
            }
            (Shape::Each(_), other) => self.wrong_type(
                path,
                "a list of tables",
                other,
                &format!("write [[{path}]] with double brackets, once for each"),
            ),
            (Shape::Table(_) | Shape::Named(_), other) => self.wrong_type(
                path,
                "a table",
                other,
                &format!("write [{path}] on a line of its own and its keys below"),
            ),
        }
    }

    fn leaf(&mut self, value: &mut Value, kind: Kind, path: &str) -> bool {
        match (kind, value) {
            (Kind::Text | Kind::TextOrTexts | Kind::Duration | Kind::Size, Value::String(text)) => {
                self.expanded(text, path)
            }
            (Kind::Connection, Value::String(_)) | (Kind::Flag, Value::Boolean(_)) => true,
            (Kind::Texts | Kind::TextOrTexts | Kind::Connections, Value::Array(items)) => {
                let mut kept = true;
                for (index, item) in items.iter_mut().enumerate() {
                    let inner = if kind == Kind::Connections {
                        Kind::Connection
                    } else {
                        Kind::Text
                    };
                    kept &= self.leaf(item, inner, &format!("{path}[{index}]"));
                }
                kept
            }
            (Kind::Count { min, max }, Value::Integer(number)) => {
                let fits = (i64::from(min)..=i64::from(max)).contains(number);
                if !fits {
                    self.findings.report(
                        path,
                        format!("{number} is out of range"),
                        format!("write a whole number from {min} to {max}"),
                    );
                }
                fits
            }
            (kind, other) => {
                let (expected, remedy) = expectation(kind, path);
                self.wrong_type(path, expected, other, &remedy)
            }
        }
    }

    fn expanded(&mut self, text: &mut String, path: &str) -> bool {
        let expanded = expand(text, self.environment, str::to_owned);
        match self.findings.keep(path, expanded) {
            Some(expanded) => {
                *text = expanded;
                true
            }
            None => false,
        }
    }

    fn wrong_type(&mut self, path: &str, expected: &str, found: &Value, remedy: &str) -> bool {
        let found = match found {
            Value::String(_) => "a text",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a number with a fraction",
            Value::Boolean(_) => "true or false",
            Value::Datetime(_) => "a date",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
        };
        self.findings
            .report(path, format!("must be {expected}, but is {found}"), remedy);
        false
    }

    fn unknown(
        &mut self,
        fields: &'static [Field],
        path: &str,
        key: &str,
        present: &[String],
    ) -> bool {
        let here = join(path, key);
        let (problem, remedy) = match meant(fields, path, key) {
            Meant::Sibling(sibling) => {
                // The slip explains why the sibling is absent: one problem, not two.
                if !present.iter().any(|key| key == sibling) {
                    self.findings.spoil(&join(path, sibling));
                }
                (
                    "is not a known key".to_owned(),
                    format!("did you mean `{sibling}`?"),
                )
            }
            Meant::Elsewhere(known) => (
                "is not a known key here".to_owned(),
                format!("did you mean `{known}`?"),
            ),
            Meant::Later(instead) => (
                "is not supported yet".to_owned(),
                format!("remove it; {instead}"),
            ),
            Meant::Nothing => {
                let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
                (
                    "is not a known key".to_owned(),
                    format!("remove it; known here are {}", names.join(", ")),
                )
            }
        };
        self.findings.report(&here, problem, remedy);
        false
    }
}

fn expectation(kind: Kind, path: &str) -> (&'static str, String) {
    let key = path.rsplit('.').next().unwrap_or(path);
    match kind {
        Kind::Text | Kind::Connection => {
            ("a text", format!("put the value of {key} in \"quotes\""))
        }
        Kind::Texts | Kind::Connections => (
            "a list of texts",
            format!("write {key} = [\"…\"], with brackets and quotes"),
        ),
        Kind::TextOrTexts => ("a text", format!("write {key} = \"…\"")),
        Kind::Duration => (
            "a duration in quotes",
            format!("write it with its unit, such as {key} = \"30s\""),
        ),
        Kind::Size => (
            "a size in quotes",
            format!("write it with its unit, such as {key} = \"64MiB\""),
        ),
        Kind::Flag => (
            "true or false",
            format!("write {key} = true, without quotes"),
        ),
        Kind::Count { .. } => (
            "a whole number",
            format!("write {key} = followed by digits, without quotes"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text that sets every key of the table once.
    fn example(fields: &[Field]) -> Table {
        let mut table = Table::new();
        for field in fields {
            let value = match field.shape {
                Shape::Leaf(Kind::Texts | Kind::Connections) => Value::Array(vec!["x".into()]),
                Shape::Leaf(Kind::Flag) => true.into(),
                Shape::Leaf(Kind::Count { .. }) => 1.into(),
                Shape::Leaf(_) => "x".into(),
                Shape::Table(inner) => Value::Table(example(inner)),
                Shape::Named(inner) => Value::Table(Table::from_iter([(
                    "any".to_owned(),
                    Value::Table(example(inner)),
                )])),
                Shape::Each(inner) => Value::Array(vec![Value::Table(example(inner))]),
            };
            table.insert(field.name.to_owned(), value);
        }
        table
    }

    /// The field names that serde knows, from its own complaint about one that it does not.
    fn serde_names<T: for<'a> Deserialize<'a> + std::fmt::Debug>() -> Vec<String> {
        let unknown = Table::from_iter([("no_such_key".to_owned(), Value::Boolean(true))]);
        let message = unknown.try_into::<T>().unwrap_err().message().to_owned();
        message
            .split('`')
            .skip(3)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    }

    fn names(fields: &[Field]) -> Vec<String> {
        fields.iter().map(|field| field.name.to_owned()).collect()
    }

    fn inner(fields: &'static [Field], name: &str) -> &'static [Field] {
        match fields
            .iter()
            .find(|field| field.name == name)
            .unwrap()
            .shape
        {
            Shape::Table(inner) | Shape::Named(inner) | Shape::Each(inner) => inner,
            Shape::Leaf(_) => panic!("{name} is a leaf"),
        }
    }

    #[test]
    fn the_mirror_and_the_table_of_keys_know_the_same_names() {
        fn same<T: for<'a> Deserialize<'a> + std::fmt::Debug>(fields: &[Field]) {
            let mut ours = names(fields);
            let mut theirs = serde_names::<T>();
            ours.sort();
            theirs.sort();
            assert_eq!(ours, theirs);
        }
        let database = inner(keys::FILE, "databases");
        same::<File>(keys::FILE);
        same::<Proxy>(inner(keys::FILE, "proxy"));
        same::<Log>(inner(keys::FILE, "log"));
        same::<Auth>(inner(keys::FILE, "auth"));
        same::<Tls>(inner(keys::FILE, "tls"));
        same::<Pool>(inner(keys::FILE, "pool"));
        same::<Database>(database);
        same::<Shard>(inner(database, "shards"));
        same::<Pool>(inner(database, "pool"));
        same::<TableRule>(inner(database, "tables"));
        same::<Function>(inner(database, "functions"));
    }

    #[test]
    fn a_text_with_every_key_is_read_without_a_problem() {
        let text = example(keys::FILE).to_string();
        let mut findings = Findings::default();
        let file = read(&text, &|_| None, &mut findings);
        assert_eq!(findings.into_problems(), []);
        assert!(file.is_some_and(|file| file.databases.contains_key("any")));
    }
}
