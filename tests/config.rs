//! The repository's own `sharding.toml`: complete, true about its defaults, and fit to start from; and the promises of
//! `docs/configuration.md` about it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pgherd::config::{Config, known_keys, parse};

fn repository(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// A line of the file by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Set(&'a str),
    Default(&'a str),
    Example(&'a str),
    Prose,
}

fn lines(text: &str) -> Vec<Line<'_>> {
    text.lines()
        .map(|line| match line.strip_prefix('#') {
            None => Line::Set(line),
            Some(rest) if rest.is_empty() || rest.starts_with(' ') => Line::Prose,
            Some(rest) => match rest.strip_prefix("> ") {
                Some(example) => Line::Example(example),
                None => Line::Default(rest),
            },
        })
        .collect()
}

/// The file's text with the lines that are wanted.
fn text_with(wanted: impl Fn(Line) -> bool) -> String {
    let text = repository("sharding.toml");
    let kept = lines(&text).into_iter().filter(|line| wanted(*line));
    let kept: Vec<_> = kept
        .map(|line| match line {
            Line::Set(text) | Line::Default(text) | Line::Example(text) => text,
            Line::Prose => "",
        })
        .collect();
    kept.join("\n").replace("${SHOP_PASSWORD}", "secret")
}

/// With the files that the text names beside it, removed afterwards.
fn meaning(text: &str) -> Config {
    let folder = Folder::new();
    for (name, text) in [
        ("userlist.txt", "\"shop\" \"secret\"\n"),
        ("server.crt", "-----BEGIN CERTIFICATE-----\n"),
        ("server.key", "-----BEGIN PRIVATE KEY-----\n"),
        ("ca.crt", "-----BEGIN CERTIFICATE-----\n"),
        ("s3.password", "secret\n"),
        ("s3.control.password", "secret\n"),
    ] {
        fs::write(folder.0.join(name), text).unwrap();
    }
    parse(text, &folder.0).unwrap_or_else(|problems| panic!("{problems}"))
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("config-{}-{number}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The paths of all values in a text, as `known_keys` writes them.
fn keys_of(text: &str) -> BTreeSet<String> {
    let table: toml::Table = text.parse().unwrap();
    let mut keys = BTreeSet::new();
    collect(&table, "", &mut keys);
    keys
}

fn collect(table: &toml::Table, path: &str, keys: &mut BTreeSet<String>) {
    for (key, value) in table {
        // Below these the names are the operator's.
        let key = if [
            "databases",
            "databases.*.tables",
            "databases.*.functions",
            "users",
        ]
        .contains(&path)
        {
            "*"
        } else {
            key
        };
        let here = if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        };
        match value {
            toml::Value::Table(inner) => collect(inner, &here, keys),
            toml::Value::Array(items) if items.first().is_some_and(toml::Value::is_table) => {
                for item in items {
                    collect(item.as_table().unwrap(), &format!("{here}[]"), keys);
                }
            }
            _ => {
                keys.insert(here);
            }
        }
    }
}

#[test]
fn the_file_has_every_key_and_no_other() {
    let found = keys_of(&text_with(|_| true));
    let known: BTreeSet<_> = known_keys().into_iter().collect();
    assert_eq!(found, known);
}

#[test]
fn the_file_can_be_used_as_it_is_and_with_all_its_examples() {
    let plain = meaning(&text_with(|line| matches!(line, Line::Set(_))));
    assert_eq!(plain.databases["shop"].shards.len(), 3);
    let whole = meaning(&text_with(|_| true));
    assert_eq!(whole.databases["shop"].shards.len(), 4);
    assert!(whole.tls.is_some());
}

#[test]
fn what_the_comments_call_a_default_is_the_default() {
    let plain = meaning(&text_with(|line| matches!(line, Line::Set(_))));
    let spelt = meaning(&text_with(|line| !matches!(line, Line::Example(_))));
    assert_eq!(spelt, plain);
    let text = repository("sharding.toml");
    let defaults = lines(&text)
        .into_iter()
        .filter(|line| matches!(line, Line::Default(_)))
        .count();
    assert!(defaults >= 39, "only {defaults} defaults were found");
    // Two that no `#key` line can show: one is the absence of a line, the other needs its section.
    let no_http = text_with(|line| matches!(line, Line::Set(text) if !text.starts_with("http ")));
    assert_eq!(meaning(&no_http).proxy.http, None);
    let whole = meaning(&text_with(|_| true));
    let no_mode = meaning(&text_with(|line| line != Line::Example("mode = \"allow\"")));
    let required = |config: Config| config.tls.unwrap().required;
    assert_eq!(required(no_mode), required(whole));
}

#[test]
fn a_comment_that_is_wrong_about_a_default_would_be_noticed() {
    let plain = meaning(&text_with(|line| matches!(line, Line::Set(_))));
    for (key, other) in [
        ("clients_max = 10000", "clients_max = 10001"),
        ("login_timeout = \"60s\"", "login_timeout = \"61s\""),
        ("size = 20", "size = 21"),
        ("lifetime = \"1h\"", "lifetime = \"2h\""),
        ("default_table = \"refuse\"", "default_table = \"s1\""),
        ("method = \"scram-sha-256\"", "method = \"md5\""),
    ] {
        let spelt = text_with(|line| !matches!(line, Line::Example(_)));
        let changed = spelt.replace(key, other);
        assert_ne!(changed, spelt, "{key} is not in the file");
        assert_ne!(meaning(&changed), plain, "{other}");
    }
}

#[test]
fn the_documentation_names_every_key() {
    let text = repository("docs/configuration.md");
    // A heading gives the section, the first column of a table the key.
    let mut section = String::new();
    let mut named = BTreeSet::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## `") {
            let header = heading.split('`').next().unwrap();
            let path = header.trim_matches(['[', ']']).replace("NAME", "*");
            let each = if header.starts_with("[[") { "[]" } else { "" };
            section = format!("{path}{each}");
        } else if let Some(row) = line.strip_prefix("| `") {
            named.insert(format!("{section}.{}", row.split('`').next().unwrap()));
        }
    }
    let known: BTreeSet<_> = known_keys().into_iter().collect();
    assert_eq!(named, known);
}
