//! The house as a test: who may import whom, which package has its door where, and which rooms stay pure.
//!
//! It reads the sources as tokens (comments, texts and `#[cfg(test)]` items left out), so a path counts wherever it
//! stands, in a `use` or in the middle of an expression. The tables below are the ones in `ARCHITECTURE.md`: a change
//! of the house changes both.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/rust_code.rs"]
mod rust_code;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rust_code::{CodePath, Token, paths, tokens, without_tests};

/// Each room and the rooms that it may import, from the ground up. A room stands above all rooms that it imports.
const FLOORS: &[(&str, &str)] = &[
    ("names", ""),
    ("error", "names"),
    ("telemetry", "names error"),
    ("config", "names error"),
    ("wire", "names error"),
    ("sql", "names error"),
    ("placement", "names error"),
    ("catalog", "names error sql placement"),
    ("planner", "names error sql placement catalog"),
    ("backend", "names error telemetry config wire"),
    (
        "execute",
        "names error telemetry wire placement catalog planner backend",
    ),
    (
        "snapshot",
        "names error telemetry config placement catalog planner backend",
    ),
    (
        "registry",
        "names error telemetry config placement catalog planner backend",
    ),
    (
        "admin",
        "names error telemetry config wire placement catalog planner backend snapshot registry",
    ),
    (
        "recovery",
        "names error telemetry config placement catalog backend snapshot registry",
    ),
    (
        "reshard",
        "names error telemetry config placement catalog backend snapshot registry",
    ),
    (
        "frontend",
        "names error telemetry config wire sql placement catalog planner backend execute snapshot registry admin",
    ),
    (
        "demo",
        "names error telemetry config wire sql placement catalog planner backend execute snapshot registry admin \
         recovery reshard frontend",
    ),
    (
        "app",
        "names error telemetry config wire sql placement catalog planner backend execute snapshot registry admin \
         recovery reshard frontend demo",
    ),
    ("main", "app"),
    ("lib", ""),
];

/// Each package that is somebody's business only, and the places (a file, or a folder with `/`) that may name it.
const DOORS: &[(&str, &str)] = &[
    ("pgwire", "wire/"),
    ("sqlparser", "sql/"),
    ("consistent_hash_ring", "placement/ring.rs"),
    ("deadpool_postgres", "backend/control.rs backend/control/"),
    (
        "tokio_postgres",
        "backend/control.rs backend/control/ config/dsn.rs demo/",
    ),
    ("postgres_protocol", "backend/connect.rs backend/connect/"),
    ("toml", "config/"),
    ("serde", "config/"),
    ("metrics", "telemetry/"),
    ("metrics_exporter_prometheus", "telemetry/"),
    ("rustls", "wire/"),
    ("rustls_pemfile", "wire/"),
    ("tokio_rustls", "wire/"),
    ("axum", "app/http.rs app/http/"),
    ("clap", "app/arguments.rs app/arguments/"),
];

/// Rooms without I/O and without a clock.
const PURE: &str = "names error sql placement catalog planner";
const IMPURE: &[&str] = &[
    "tokio",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "std::os",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// Of a file of `src`; tables of examples may be longer.
const LINES_MAX: usize = 700;
const TEST_LINES_MAX: usize = 1000;

#[test]
fn the_sources_keep_to_the_house() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for folder in ["src", "tests", "benches"] {
        collect(root, Path::new(folder), &mut sources);
    }
    assert!(sources.len() > 20, "the sources were not found");
    let violations: Vec<_> = check(&sources).iter().map(ToString::to_string).collect();
    assert!(
        violations.is_empty(),
        "{} violations:\n{}\n",
        violations.len(),
        violations.join("\n")
    );
}

#[test]
fn a_room_stands_above_all_rooms_that_it_imports() {
    let mut below = BTreeSet::new();
    for (room, imports) in FLOORS {
        for import in imports.split_whitespace() {
            assert!(
                below.contains(import),
                "{room} imports {import}, which does not stand below it"
            );
        }
        below.insert(*room);
    }
}

#[test]
fn the_page_has_the_tables_of_this_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let rows: BTreeSet<Vec<String>> = page
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split(" | ").map(cell).collect())
        .collect();
    for (room, imports) in FLOORS
        .iter()
        .filter(|(room, _)| !["main", "lib"].contains(room))
    {
        let found = rows
            .iter()
            .any(|row| row.len() == 3 && row[1] == *room && row[2] == *imports);
        assert!(found, "the page does not say of {room}: {imports}");
    }
    for (package, places) in DOORS {
        let row = vec![(*package).to_owned(), (*places).to_owned()];
        assert!(
            rows.contains(&row),
            "the page does not say of {package}: {places}"
        );
    }
    let floors = rows
        .iter()
        .filter(|row| row.len() == 3 && row[0].parse::<u8>().is_ok());
    assert_eq!(
        floors.count(),
        FLOORS.len() - 2,
        "the page has rooms of its own"
    );
}

fn cell(text: &str) -> String {
    text.trim().trim_matches('`').to_owned()
}

#[test]
fn every_kind_of_violation_is_caught_with_its_file_and_line() {
    let table: &[(&str, &str, &str)] = &[
        // file, text after the opening line, what is said of it ("" for nothing)
        (
            "src/names.rs",
            "use crate::error::Report;",
            "src/names.rs:2: names may not import error",
        ),
        (
            "src/sql/mod.rs",
            "use crate::{names::Role, wire::Frame};",
            "src/sql/mod.rs:2: sql may not import wire",
        ),
        (
            "src/sql/a.rs",
            "\nfn f() { let x = crate::app::run(); }",
            "src/sql/a.rs:3: sql may not import app",
        ),
        (
            "src/sql/a/b.rs",
            "use super::super::super::wire::Frame;",
            "src/sql/a/b.rs:2: sql may not import wire",
        ),
        ("src/sql/a/b.rs", "use super::super::wire::Frame;", ""),
        (
            "src/sql/mod.rs",
            "use super::wire;",
            "src/sql/mod.rs:2: sql may not import wire",
        ),
        ("src/sql/a.rs", "use super::wire;", ""),
        (
            "src/sql/a.rs",
            "use crate::sql::Statement; use crate::names::Role; pub(crate) struct X;",
            "",
        ),
        (
            "src/sql/a.rs",
            "// crate::wire\n/// [`crate::wire`]\nconst X: &str = \"crate::wire\";",
            "",
        ),
        (
            "src/sql/a.rs",
            "/* /* */ crate::wire */ const X: &str = r#\"\" crate::wire \"#;",
            "",
        ),
        (
            "src/sql/a.rs",
            "const X: char = '\"'; use crate::wire::Y; const Z: char = '\"';",
            "src/sql/a.rs:2: sql may not import wire",
        ),
        (
            "src/sql/a.rs",
            "fn f<'a>(x: &'a str) { crate::wire::y(x) } //'",
            "src/sql/a.rs:2: sql may not import wire",
        ),
        (
            "src/sql/a.rs",
            "#[cfg(test)]\nmod tests { use crate::wire::X; fn f() {} }",
            "",
        ),
        ("src/sql/a.rs", "#[cfg(test)]\nuse crate::wire::X;", ""),
        (
            "src/sql/a.rs",
            "#[cfg(test)]\nmod tests {}\nuse crate::wire::X;",
            "src/sql/a.rs:4: sql may not import wire",
        ),
        (
            "src/cellar/mod.rs",
            "",
            "src/cellar/mod.rs:1: the room cellar is not in the table",
        ),
        (
            "src/frontend/a.rs",
            "use sqlparser::ast::Query;",
            "src/frontend/a.rs:2: sqlparser may only be named in sql/",
        ),
        (
            "src/frontend/a.rs",
            "type A = ::sqlparser::ast::Query;",
            "src/frontend/a.rs:2: sqlparser may only be named in sql/",
        ),
        ("src/sql/a.rs", "use sqlparser::ast::Query;", ""),
        (
            "src/placement/mod.rs",
            "use consistent_hash_ring::Ring;",
            "src/placement/mod.rs:2: consistent_hash_ring may only be named in placement/ring.rs",
        ),
        (
            "src/placement/ring.rs",
            "use consistent_hash_ring::Ring;",
            "",
        ),
        (
            "src/backend/a.rs",
            "use tokio_postgres as t;",
            "src/backend/a.rs:2: tokio_postgres may only be named in backend/control.rs backend/control/ config/dsn.rs demo/",
        ),
        (
            "src/backend/a.rs",
            "fn f() { metrics::counter!(\"x\"); }",
            "src/backend/a.rs:2: metrics may only be named in telemetry/",
        ),
        (
            "src/backend/a.rs",
            "use crate::telemetry::metrics; fn f() { metrics::x(); }",
            "",
        ),
        (
            "src/backend/a.rs",
            "mod metrics; fn f() { metrics::x(); self::toml::y(); }",
            "",
        ),
        ("src/app/http.rs", "use axum::Router;", ""),
        (
            "src/planner/a.rs",
            "use std::time::{Duration, Instant};",
            "src/planner/a.rs:2: planner is pure and may not name std::time::Instant",
        ),
        ("src/planner/a.rs", "use std::time::Duration;", ""),
        (
            "src/planner/a.rs",
            "use tokio::sync::watch;",
            "src/planner/a.rs:2: planner is pure and may not name tokio",
        ),
        (
            "src/planner/a.rs",
            "use std::{fmt, fs::File};",
            "src/planner/a.rs:2: planner is pure and may not name std::fs",
        ),
        (
            "src/backend/a.rs",
            "use std::{fmt, fs::File}; use tokio::net::TcpStream;",
            "",
        ),
        (
            "src/main.rs",
            "use pgherd::config::load;",
            "src/main.rs:2: main may not import config",
        ),
        ("src/main.rs", "fn main() { pgherd::app::main() }", ""),
        (
            "tests/a.rs",
            "use pgherd::config::load; use toml::Table;",
            "",
        ),
    ];
    for (path, text, expected) in table {
        let source = Source::new(path, format!("//! Made up.\n{text}\n"));
        let said: Vec<_> = check(&[source]).iter().map(ToString::to_string).collect();
        assert_eq!(said.join("\n"), *expected, "{path}: {text}");
    }
    let said = |path: &str, text: String| check(&[Source::new(path, text)])[0].to_string();
    assert_eq!(
        said("src/sql/a.rs", "use x;\n".to_owned()),
        "src/sql/a.rs:1: a file opens with its promise, `//!`"
    );
    let long = format!("//! Long.\n{}", "\n".repeat(LINES_MAX));
    assert_eq!(
        said("src/sql/a.rs", long),
        "src/sql/a.rs:701: 701 lines are more than 700"
    );
    let tests = [
        Source::new(
            "src/sql/mod.rs",
            "//! Made up.\n#[cfg(test)]\nmod tests;\n".to_owned(),
        ),
        Source::new(
            "src/sql/tests.rs",
            "//! Made up.\nuse crate::wire::X;\n".to_owned(),
        ),
    ];
    assert!(
        check(&tests).is_empty(),
        "a file that is declared for tests only is free"
    );
    assert_eq!(
        check(&tests[1..]).len(),
        1,
        "and is not when it is declared for all"
    );
}

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn new(path: impl Into<PathBuf>, text: String) -> Source {
        Source {
            path: path.into(),
            text,
        }
    }
}

#[derive(Debug)]
struct Violation {
    path: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.what)
    }
}

fn collect(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(root.join(folder)) else {
        return;
    };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for path in names.iter().map(|name| folder.join(name)) {
        if root.join(&path).is_dir() {
            collect(root, &path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(root.join(&path)).unwrap();
            sources.push(Source::new(path, text));
        }
    }
}

fn check(sources: &[Source]) -> Vec<Violation> {
    let tests_only: Vec<_> = sources.iter().flat_map(declared_for_tests).collect();
    let mut violations = Vec::new();
    for source in sources {
        let mut say = |line, what| {
            violations.push(Violation {
                path: source.path.clone(),
                line,
                what,
            });
        };
        if !source.text.starts_with("//!") {
            say(1, "a file opens with its promise, `//!`".to_owned());
        }
        let lines = source.text.lines().count();
        let is_table = !source.path.starts_with("src") || source.path.ends_with("tests.rs");
        let lines_max = if is_table { TEST_LINES_MAX } else { LINES_MAX };
        if lines > lines_max {
            say(lines, format!("{lines} lines are more than {lines_max}"));
        }
        let in_tests = tests_only.iter().any(|path| source.path.starts_with(path));
        if let (Ok(inner), false) = (source.path.strip_prefix("src"), in_tests) {
            check_paths(inner, &source.text, &mut say);
        }
    }
    violations
}

fn check_paths(file: &Path, text: &str, say: &mut impl FnMut(usize, String)) {
    let module = module_of(file);
    let room = module.first().map_or("lib", String::as_str);
    let Some((_, imports)) = FLOORS.iter().find(|(name, _)| *name == room) else {
        return say(1, format!("the room {room} is not in the table"));
    };
    let tokens = without_tests(&tokens(text));
    let paths = paths(&tokens);
    let shadowed = shadowed(&tokens, &paths);
    for path in &paths {
        if let Some(other) = imported(path, &module) {
            let is_room = FLOORS.iter().any(|(name, _)| *name == other);
            if is_room && other != room && !imports.split_whitespace().any(|name| name == other) {
                say(path.line, format!("{room} may not import {other}"));
            }
        }
        if let Some((package, places)) = DOORS.iter().find(|(package, _)| path.begins_with(package))
        {
            let allowed = places
                .split_whitespace()
                .any(|place| match place.strip_suffix('/') {
                    Some(folder) => file.starts_with(folder),
                    None => file == Path::new(place),
                });
            if !allowed && !shadowed.contains(*package) && path.is_package() {
                say(
                    path.line,
                    format!("{package} may only be named in {places}"),
                );
            }
        }
        let is_pure = PURE.split_whitespace().any(|name| name == room);
        let impure = IMPURE.iter().find(|impure| path.begins_with(impure));
        if let (true, Some(impure)) = (is_pure, impure) {
            say(
                path.line,
                format!("{room} is pure and may not name {impure}"),
            );
        }
    }
}

/// `sql/a/b.rs` is the module `sql::a::b`; `sql/mod.rs` is `sql`; `lib.rs` is the root.
fn module_of(file: &Path) -> Vec<String> {
    let mut module: Vec<_> = file
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if module.len() > 1 && module.last().is_some_and(|name| name == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

/// The name below the root of the crate that a path leads to, if it starts there.
fn imported<'a>(path: &'a CodePath, module: &[String]) -> Option<&'a str> {
    let (first, rest) = path.segments.split_first()?;
    match first.as_str() {
        "crate" => rest.first().map(String::as_str),
        "pgherd" if module == ["main"] => rest.first().map(String::as_str),
        "super" => {
            let ups = path
                .segments
                .iter()
                .take_while(|segment| *segment == "super")
                .count();
            (ups == module.len())
                .then(|| path.segments.get(ups).map(String::as_str))
                .flatten()
        }
        _ => None,
    }
}

/// Names that mean something of ours in this file: a module declared here, or an import from the crate.
fn shadowed(tokens: &[Token], paths: &[CodePath]) -> BTreeSet<String> {
    let declared = tokens
        .windows(2)
        .filter(|pair| pair[0].text == "mod")
        .map(|pair| pair[1].text.clone());
    let imported = paths
        .iter()
        .filter(|path| path.used && ["crate", "super", "self"].contains(&path.segments[0].as_str()))
        .filter_map(|path| path.segments.last().cloned());
    declared.chain(imported).collect()
}

/// The files and folders of the modules that a source declares below `#[cfg(test)]`.
fn declared_for_tests(source: &Source) -> Vec<PathBuf> {
    let tokens = tokens(&source.text);
    let texts: Vec<_> = tokens.iter().map(|token| token.text.as_str()).collect();
    let is_root = ["mod.rs", "lib.rs", "main.rs"]
        .iter()
        .any(|name| source.path.ends_with(name));
    let folder = if is_root {
        source.path.parent().unwrap().to_path_buf()
    } else {
        source.path.with_extension("")
    };
    let pattern = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    texts
        .windows(pattern.len() + 2)
        .filter(|window| window.starts_with(&pattern) && window.last() == Some(&";"))
        .flat_map(|window| {
            let name = window[pattern.len()];
            [folder.join(format!("{name}.rs")), folder.join(name)]
        })
        .collect()
}
