//! What we build on, held to `deny.toml` without a tool that has to be installed: permissive licences, crates.io only,
//! none of the banned packages.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn every_package_has_a_licence_that_deny_toml_allows() {
    let deny = toml_file("deny.toml");
    let allowed = strings(&deny["licenses"]["allow"]);
    let exceptions = deny["licenses"]["exceptions"].as_array().unwrap();
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--prefix",
            "none",
            "--edges",
            "normal,build,dev",
            "--locked",
            "--offline",
            "--format",
            "{p}|{l}",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).unwrap();
    let packages: BTreeSet<_> = tree
        .lines()
        .filter_map(|line| line.trim_end_matches(" (*)").split_once('|'))
        .collect();
    assert!(
        packages.len() > 100,
        "only {} packages were found",
        packages.len()
    );
    let refused: Vec<_> = packages
        .iter()
        .filter(|(package, licence)| {
            let name = package.split_whitespace().next().unwrap();
            let excepted = exceptions
                .iter()
                .find(|exception| exception["crate"].as_str() == Some(name));
            let more = excepted
                .map(|exception| strings(&exception["allow"]))
                .unwrap_or_default();
            !is_allowed(licence, &allowed.union(&more).cloned().collect())
        })
        .collect();
    assert!(refused.is_empty(), "not in deny.toml: {refused:#?}");
}

#[test]
fn every_package_comes_from_crates_io_and_none_is_banned() {
    let lock = toml_file("Cargo.lock");
    let deny = toml_file("deny.toml");
    let banned: Vec<_> = deny["bans"]["deny"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ban| ban["name"].as_str().unwrap())
        .collect();
    let registries = strings(&deny["sources"]["allow-registry"]);
    for package in lock["package"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        assert!(!banned.contains(&name), "{name} is banned");
        let source = package
            .get("source")
            .map_or("", |source| source.as_str().unwrap());
        let ours = name == env!("CARGO_PKG_NAME") && source.is_empty();
        let registry = source.strip_prefix("registry+").unwrap_or_default();
        assert!(
            ours || registries.contains(registry),
            "{name} comes from {source:?}"
        );
    }
}

#[test]
fn an_expression_is_allowed_when_one_of_its_choices_is() {
    let allowed: BTreeSet<String> = ["MIT", "ISC", "Apache-2.0"].map(str::to_owned).into();
    let table = [
        ("MIT", true),
        ("MIT OR Apache-2.0", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0 OR ISC", true),
        ("Apache-2.0 AND ISC", true),
        ("(MIT OR GPL-3.0) AND ISC", true),
        ("MIT AND (GPL-3.0 OR ISC)", true),
        ("GPL-3.0", false),
        ("MIT AND GPL-3.0", false),
        ("MIT AND (GPL-3.0 OR LGPL-2.1)", false),
        ("Apache-2.0 WITH LLVM-exception", false),
        ("", false),
    ];
    for (expression, expected) in table {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}

/// An SPDX expression: AND binds closer than OR; the old `/` is an OR.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let text = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<_> = text.split_whitespace().collect();
    let (verdict, rest) = any(&words, allowed);
    verdict && rest.is_empty()
}

fn any<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    let (mut verdict, mut rest) = all(words, allowed);
    while let Some((&"OR", after)) = rest.split_first() {
        let (other, after) = all(after, allowed);
        (verdict, rest) = (verdict || other, after);
    }
    (verdict, rest)
}

fn all<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    let (mut verdict, mut rest) = one(words, allowed);
    while let Some((&"AND", after)) = rest.split_first() {
        let (other, after) = one(after, allowed);
        (verdict, rest) = (verdict && other, after);
    }
    (verdict, rest)
}

fn one<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    match words {
        ["(", rest @ ..] => {
            let (verdict, rest) = any(rest, allowed);
            (verdict, rest.strip_prefix(&[")"]).unwrap_or(rest))
        }
        [name, "WITH", exception, rest @ ..] => {
            (allowed.contains(&format!("{name} WITH {exception}")), rest)
        }
        [name, rest @ ..] => (allowed.contains(*name), rest),
        [] => (false, words),
    }
}

fn toml_file(name: &str) -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(path).unwrap().parse().unwrap()
}

fn strings(value: &toml::Value) -> BTreeSet<String> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item.as_str().unwrap().to_owned())
        .collect()
}
