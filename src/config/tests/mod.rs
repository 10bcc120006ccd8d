//! The room as its users see it: whole texts in, a configuration or a list of problems out.

mod dsn;
mod meaning;
mod wrong;

use std::path::Path;

use super::check::parse_in;
use super::*;

/// A section for each test to add to: one database with two shards and a user.
const SHOP: &str = r#"
[auth]
method = "trust"
[databases.shop]
[[databases.shop.shards]]
name = "s0"
primary = "host=h port=1 user=u"
[[databases.shop.shards]]
name = "s1"
primary = "host=h port=2 user=u"
"#;

fn environment(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some("hunter2'\"\\ ".to_owned()),
        "LISTEN" => Some("127.0.0.1:7000".to_owned()),
        _ => None,
    }
}

fn read(text: &str) -> Result<Config, Problems> {
    parse_in(text, Path::new("/nowhere"), &environment)
}

fn shop(config: &Config) -> &Database {
    config.databases.get("shop").expect("the database shop")
}

/// Problems as `path: problem`.
fn problems(text: &str) -> Vec<String> {
    match read(text) {
        Ok(_) => Vec::new(),
        Err(Problems(problems)) => problems
            .iter()
            .map(|Problem { path, problem, .. }| format!("{path}: {problem}"))
            .collect(),
    }
}

/// What `addition`, put before the shop, is answered.
fn check(addition: &str, expected: &[&str]) {
    assert_eq!(
        problems(&format!("{addition}\n{SHOP}")),
        expected,
        "{addition}"
    );
}

/// What `addition`, put after the shop, is answered.
fn check_after(addition: &str, expected: &[&str]) {
    assert_eq!(
        problems(&format!("{SHOP}\n{addition}")),
        expected,
        "{addition}"
    );
}
