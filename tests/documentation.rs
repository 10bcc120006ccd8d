//! The pages in `docs/` and at the root, held to the code: every metric, every SQLSTATE and every dependency is told
//! of, and nothing that is not there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pgherd::planner::Number;
use pgherd::telemetry::METRICS;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The rows of a page's tables whose first cell is code, as cells; the first without its backticks.
fn rows(page: &str) -> Vec<Vec<String>> {
    page.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells = line.trim_matches('|').split(" | ");
            cells
                .map(|cell| cell.trim().trim_matches('`').to_owned())
                .collect()
        })
        .collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_page_of_metrics_is_the_table_of_metrics() {
    let told: Vec<_> = rows(&page("docs/metrics.md"))
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone(), row[3].clone()))
        .collect();
    let real: Vec<_> = METRICS
        .iter()
        .map(|(name, kind, _, meaning)| {
            let kind = format!("{kind:?}").to_lowercase();
            ((*name).to_owned(), kind, (*meaning).to_owned())
        })
        .collect();
    assert_eq!(told, real);
}

#[test]
fn the_page_of_errors_has_every_sqlstate_that_the_code_names_and_no_other() {
    let constants = page("src/error.rs");
    let codes: BTreeMap<_, _> = constants
        .lines()
        .filter_map(|line| {
            let (name, rest) = line
                .trim()
                .strip_prefix("pub const ")?
                .split_once(": SqlState")?;
            let (_, rest) = rest.split_once("b\"")?;
            Some((name, &rest[..5]))
        })
        .collect();
    assert!(codes.len() > 20, "{codes:?}");
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let mut words = BTreeSet::new();
    for file in files.iter().filter(|file| !file.ends_with("src/error.rs")) {
        let text = fs::read_to_string(file).unwrap();
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        words.extend(
            text.split(|c| !is_word(c))
                .filter(|word| codes.contains_key(word))
                .map(str::to_owned),
        );
    }
    let used: BTreeSet<_> = words
        .iter()
        .map(|word| codes[word.as_str()].to_owned())
        .filter(|code| code != "00000")
        .collect();
    let told: BTreeSet<_> = rows(&page("docs/errors.md"))
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    assert_eq!(told, used);
}

#[test]
fn the_pages_name_only_files_that_exist() {
    let mut pages = vec!["README.md".to_owned(), "ARCHITECTURE.md".to_owned()];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name();
        pages.push(format!("docs/{}", name.to_str().unwrap()));
    }
    let mut named = 0;
    for name in &pages {
        // Between backticks, or as the target of a link.
        let text = page(name);
        let spans = text.split('`').skip(1).step_by(2).chain(
            text.split("](")
                .skip(1)
                .filter_map(|rest| rest.split(')').next()),
        );
        for span in spans.filter(|span| is_ours(span)) {
            named += 1;
            assert!(root().join(span).exists(), "{name} names {span}");
        }
    }
    assert!(named > 15, "only {named} names of files were found");
}

fn is_ours(span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let folder = ["docs/", "src/", "tests/", "docker/", "fuzz/", "benches/"]
        .iter()
        .any(|folder| span.starts_with(folder));
    let extension = Path::new(span).extension().and_then(|name| name.to_str());
    let file = ["Cargo.toml", "sharding.toml", "Makefile", "deny.toml"].contains(&span)
        || extension == Some("md");
    // PostgreSQL's own sources are named too; ours are not in C.
    (folder || file) && span.chars().all(plain) && extension != Some("c")
}

#[test]
fn the_architecture_gives_a_reason_for_every_dependency_and_for_nothing_else() {
    let manifest: toml::Table = page("Cargo.toml").parse().unwrap();
    let direct: BTreeSet<_> = ["dependencies", "dev-dependencies"]
        .iter()
        .flat_map(|section| manifest[*section].as_table().unwrap().keys().cloned())
        .collect();
    let page = page("ARCHITECTURE.md");
    let (_, section) = page.split_once("## Dependencies").unwrap();
    let told: BTreeSet<_> = rows(section)
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    assert_eq!(told, direct);
}

#[test]
fn the_configuration_of_the_readme_can_be_used() {
    let readme = page("README.md");
    let (_, rest) = readme.split_once("```toml\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("readme-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("userlist.txt"), "\"shop\" \"secret\"\n").unwrap();
    let config = pgherd::config::parse(text, &folder);
    fs::remove_dir_all(&folder).unwrap();
    let config = config.unwrap_or_else(|problems| panic!("{problems}"));
    assert!(config.databases["shop"].is_sharded());
}

/// By its number, as clients see it, or by its name.
#[test]
fn every_number_of_a_refusal_has_a_test() {
    let mut files = Vec::new();
    sources(&root().join("tests"), &mut files);
    sources(&root().join("src"), &mut files);
    let mut tests = page("tests/data/refused.sql");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let is_test = file.starts_with(root().join("tests"))
            || file.iter().any(|part| part == "tests")
            || file.file_stem().is_some_and(|stem| stem == "tests");
        tests += match text.find("mod tests {") {
            _ if is_test => &text,
            Some(at) => &text[at..],
            None => "",
        };
    }
    let untested: Vec<String> = Number::ALL
        .iter()
        .filter(|number| {
            !tests.contains(&number.to_string()) && !tests.contains(&format!("Number::{number:?}"))
        })
        .map(ToString::to_string)
        .collect();
    assert!(untested.is_empty(), "{untested:?} have no test");
}
