//! What PostgreSQL's own parser says of the statements of PostgreSQL's regression tests (`tests/data/oracle.txt`, made
//! by `make oracle`), held against ours: nothing that writes passes for a read, no table and no function is missed, no
//! command is taken for another one. What we do not understand is refused, and counted, so that it does not grow.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "support/named.rs"]
mod named;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use named::{Named, escaped, kind};
use pgherd::sql::scan::{self, Discard, Isolation, Modes, Verb, verb};
use pgherd::sql::{STACK_BYTES, understand};

/// Of a thousand statements of each kind, how many are understood: measured, rounded down. Refusals are answers, but
/// there must not be more of them tomorrow.
const UNDERSTOOD: &[(&str, usize)] = &[
    ("delete", 974),
    ("insert", 966),
    ("merge", 872),
    ("select", 943),
    ("update", 901),
];

/// Calls that PostgreSQL makes of words: its grammar says `pg_catalog`, so no function of a user can be meant, and none
/// of them writes or tells one server from another. The tree keeps their operands only.
const FORMS: &[&str] = &[
    "form:pg_catalog.btrim",
    "form:pg_catalog.extract",
    "form:pg_catalog.is_normalized",
    "form:pg_catalog.ltrim",
    "form:pg_catalog.normalize",
    "form:pg_catalog.overlaps",
    "form:pg_catalog.overlay",
    "form:pg_catalog.position",
    "form:pg_catalog.rtrim",
    "form:pg_catalog.substring",
    "form:pg_catalog.timezone",
    "pg_catalog.like_escape",
    "pg_catalog.similar_to_escape",
];

/// Calls in our tree that PostgreSQL's shows as expressions of their own kind, or under another name.
const EXPRESSIONS: &[&str] = &[
    "array",
    "coalesce",
    "cube",
    "greatest",
    "grouping",
    "least",
    "normalize",
    "nullif",
    "pg_catalog.date_part",
    "rollup",
    "row",
    "xmlconcat",
    "xmlelement",
    "xmlforest",
    "xmlparse",
    "xmlroot",
];

/// The slowest statement may take this long, on a busy machine and without optimisation.
const LONGEST: Duration = Duration::from_secs(2);

struct Case<'a> {
    kind: &'a str,
    writes: bool,
    locks: bool,
    temporary: bool,
    /// As [`Named::shape`].
    shape: &'a str,
    /// Relations of a query, words and names of a command.
    names: Vec<&'a str>,
    functions: BTreeSet<&'a str>,
    text: String,
}

impl Case<'_> {
    fn is_query(&self) -> bool {
        ["select", "insert", "update", "delete", "merge"].contains(&self.kind)
    }
}

/// The page, or another one of its kind, such as `tests/oracle/mutate.py` makes.
fn page() -> String {
    let page = other_page().unwrap_or_else(|| "tests/data/oracle.txt".to_owned());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    fs::read_to_string(path).unwrap()
}

fn other_page() -> Option<String> {
    std::env::var("ORACLE_PAGE").ok()
}

fn cases(page: &str) -> Vec<Case<'_>> {
    let lines = page
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let cases: Vec<_> = lines.map(case).collect();
    assert!(cases.len() > 10_000, "only {} statements", cases.len());
    cases
}

fn case(line: &str) -> Case<'_> {
    let fields: Vec<_> = line.split('\t').collect();
    let [kind, flags, shape, names, functions, text] = fields[..] else {
        panic!("not six fields: {line}");
    };
    Case {
        kind,
        writes: flags.contains('w'),
        locks: flags.contains('l'),
        temporary: flags.contains('t'),
        shape,
        names: names.split(',').filter(|name| !name.is_empty()).collect(),
        functions: functions
            .split(',')
            .filter(|name| !name.is_empty())
            .collect(),
        text: unescaped(text),
    }
}

fn unescaped(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut characters = field.chars();
    while let Some(character) = characters.next() {
        text.push(match character {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some('\\') => '\\',
                other => panic!("an escape that nobody wrote: {other:?}"),
            },
            other => other,
        });
    }
    text
}

/// All disagreements at once, each with its statement: one alone would be found by many runs.
fn assert_none(disagreements: &[String]) {
    let shown = disagreements.len().min(6000);
    assert!(
        disagreements.is_empty(),
        "{} disagreements:\n{}\n",
        disagreements.len(),
        disagreements[..shown].join("\n")
    );
}

// ── the scanner ─────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn one_statement_is_one_statement_alone_and_among_others() {
    let page = page();
    let cases = cases(&page);
    let mut disagreements = Vec::new();
    for case in &cases {
        let text = case.text.as_bytes();
        let spans = scan::split(text, true);
        let whole = spans.len() == 1 && spans.first() == Some(&(0..text.len()));
        if !whole || !scan::is_single(text, true) {
            disagreements.push(format!("is split: {}", case.text));
        }
        let plain = ["select", "insert", "update", "delete"].contains(&case.kind);
        if scan::is_plain_query(text) && !plain {
            disagreements.push(format!("{} is taken for a query: {}", case.kind, case.text));
        }
    }
    for cases in cases.chunks(20) {
        let mut whole = String::new();
        let mut spans = Vec::new();
        for case in cases {
            spans.push(whole.len()..whole.len() + case.text.len());
            whole.push_str(&case.text);
            whole.push_str(";\n");
        }
        let found = scan::split(whole.as_bytes(), true);
        if let Some(at) = (0..spans.len()).find(|&at| found.get(at) != Some(&spans[at])) {
            disagreements.push(format!("does not end where it should: {}", cases[at].text));
        }
        if found.len() > 1 && scan::is_single(whole.as_bytes(), true) {
            disagreements.push(format!("is no single statement: {whole}"));
        }
    }
    assert_none(&disagreements);
}

#[test]
fn the_first_words_tell_what_a_statement_is() {
    let page = page();
    let mut disagreements = Vec::new();
    for case in cases(&page) {
        let verb = verb(case.text.as_bytes());
        let mut say = |what: &str| {
            disagreements.push(format!("{} {what} {verb:?}: {}", case.kind, case.text));
        };
        if !tags(&verb).iter().any(|tag| fits(tag, case.kind)) {
            say("is taken for");
        }
        if let Some(names) = names(&verb)
            && names != case.names
        {
            say(&format!("with {:?} became {names:?} in", case.names));
        }
        let temporary = matches!(verb, Verb::Create { temp: true });
        if case.temporary && !case.is_query() && !temporary {
            say("makes something temporary, unlike");
        }
    }
    assert_none(&disagreements);
}

/// The kinds that a verb may be; with a star, what begins so.
fn tags(verb: &Verb<'_>) -> &'static [&'static str] {
    match verb {
        Verb::Empty => &[],
        Verb::Select | Verb::Values | Verb::Table => &["select"],
        Verb::Insert => &["insert"],
        Verb::Update => &["update"],
        Verb::Delete => &["delete"],
        Verb::Merge => &["merge"],
        Verb::With => &["select", "insert", "update", "delete", "merge"],
        Verb::Begin { .. }
        | Verb::Commit { .. }
        | Verb::Rollback { .. }
        | Verb::Savepoint { .. }
        | Verb::Release { .. }
        | Verb::RollbackTo { .. }
        | Verb::PrepareTransaction
        | Verb::CommitPrepared
        | Verb::RollbackPrepared => &["TransactionStmt"],
        Verb::SetLocal { .. }
        | Verb::SetTransaction { .. }
        | Verb::SetSession { .. }
        | Verb::Reset { .. } => &["VariableSetStmt"],
        Verb::SetConstraints => &["ConstraintsSetStmt"],
        Verb::Show { .. } => &["VariableShowStmt"],
        Verb::Discard(_) => &["DiscardStmt"],
        Verb::Prepare { .. } => &["PrepareStmt"],
        Verb::Execute { .. } => &["ExecuteStmt"],
        Verb::Deallocate { .. } => &["DeallocateStmt"],
        Verb::Listen => &["ListenStmt"],
        Verb::Unlisten => &["UnlistenStmt"],
        Verb::Notify => &["NotifyStmt"],
        Verb::Copy => &["CopyStmt"],
        Verb::Declare => &["DeclareCursorStmt"],
        Verb::Fetch | Verb::Move => &["FetchStmt"],
        Verb::Close => &["ClosePortalStmt"],
        Verb::Lock => &["LockStmt"],
        Verb::Explain => &["ExplainStmt"],
        Verb::Create { .. } => &[
            "Create*",
            "CompositeTypeStmt",
            "DefineStmt",
            "IndexStmt",
            "RuleStmt",
            "ViewStmt",
        ],
        Verb::Alter => &["Alter*", "RenameStmt"],
        Verb::Drop => &["Drop*"],
        Verb::Truncate => &["TruncateStmt"],
        Verb::Do => &["DoStmt"],
        Verb::Call => &["CallStmt"],
        Verb::Load => &["LoadStmt"],
        Verb::Vacuum | Verb::Analyze => &["VacuumStmt"],
        Verb::Cluster => &["ClusterStmt"],
        Verb::Checkpoint => &["CheckPointStmt"],
        Verb::Comment => &["CommentStmt"],
        Verb::Grant | Verb::Revoke => &["GrantStmt", "GrantRoleStmt"],
        Verb::Reindex => &["ReindexStmt"],
        Verb::Refresh => &["RefreshMatViewStmt"],
        // Commands that nobody here asks for.
        Verb::Other(_) => &[
            "ImportForeignSchemaStmt",
            "ReassignOwnedStmt",
            "SecLabelStmt",
        ],
    }
}

fn fits(tag: &str, kind: &str) -> bool {
    tag.strip_suffix('*')
        .map_or(tag == kind, |begin| kind.starts_with(begin))
}

/// What a verb says of its command, as the page says it; nothing where only the command counts.
fn names(verb: &Verb<'_>) -> Option<Vec<String>> {
    let word = |word: &str| vec![word.to_owned()];
    let named = |word: &str, name: &[u8]| vec![word.to_owned(), shown(name)];
    let chained = |word: &str, chain: bool| {
        let chain = chain.then(|| "chain".to_owned());
        [word.to_owned()].into_iter().chain(chain).collect()
    };
    Some(match verb {
        // Not well formed where PostgreSQL takes it would be a disagreement, too.
        Verb::Begin { modes, well_formed } => {
            let begin = if *well_formed {
                "BEGIN"
            } else {
                "not well formed"
            };
            [word(begin), shown_modes(*modes)].concat()
        }
        Verb::Commit { chain, .. } => chained("COMMIT", *chain),
        Verb::Rollback { chain, .. } => chained("ROLLBACK", *chain),
        Verb::Savepoint { name } => named("SAVEPOINT", name),
        Verb::Release { name } => named("RELEASE", name),
        Verb::RollbackTo { name } => named("ROLLBACK_TO", name),
        Verb::PrepareTransaction => word("PREPARE"),
        Verb::CommitPrepared => word("COMMIT_PREPARED"),
        Verb::RollbackPrepared => word("ROLLBACK_PREPARED"),
        Verb::SetLocal { name } => named("LOCAL", name),
        Verb::SetTransaction { modes, well_formed } => {
            let whole = if *well_formed { "" } else { " SNAPSHOT" };
            let set = escaped(&format!("TRANSACTION{whole}"));
            [vec![set], shown_modes(*modes)].concat()
        }
        Verb::SetSession { name } if name.as_ref() == b"session_characteristics" => return None,
        Verb::SetSession { name } => named("SET", name),
        Verb::Reset { name: Some(name) } => named("RESET", name),
        Verb::Reset { name: None } => word("RESET"),
        Verb::Show { name } | Verb::Deallocate { name } => {
            name.iter().map(|name| shown(name)).collect()
        }
        Verb::Prepare { name } | Verb::Execute { name } => vec![shown(name)],
        Verb::Discard(what) => word(match what {
            Discard::All => "ALL",
            Discard::Plans => "PLANS",
            Discard::Sequences => "SEQUENCES",
            Discard::Temp => "TEMP",
        }),
        _ => return None,
    })
}

fn shown(name: &[u8]) -> String {
    escaped(std::str::from_utf8(name).unwrap())
}

fn shown_modes(modes: Modes) -> Vec<String> {
    let isolation = modes.isolation.map(|isolation| match isolation {
        Isolation::ReadUncommitted => "read uncommitted",
        Isolation::ReadCommitted => "read committed",
        Isolation::RepeatableRead => "repeatable read",
        Isolation::Serializable => "serializable",
    });
    let isolation = isolation.map(|level| format!("transaction_isolation={}", escaped(level)));
    let switch = |name: &str, on: Option<bool>| on.map(|on| format!("{name}={}", u8::from(on)));
    [
        isolation,
        switch("transaction_read_only", modes.read_only),
        switch("transaction_deferrable", modes.deferrable),
    ]
    .into_iter()
    .flatten()
    .collect()
}

// ── the tree ────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn what_is_understood_names_everything_that_postgresql_finds() {
    on_a_worker(|| {
        let page = page();
        let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
        let mut disagreements = Vec::new();
        for case in cases(&page) {
            let begun = Instant::now();
            let understood = catch_unwind(AssertUnwindSafe(|| understand(&case.text)));
            let taken = begun.elapsed();
            let mut say = |what: &str| {
                disagreements.push(format!("{what}: {}", case.text));
            };
            if taken > LONGEST {
                say(&format!("took {taken:?}"));
            }
            let Ok(understood) = understood else {
                say("a panic");
                continue;
            };
            let tally = tallies.entry(case.kind).or_default();
            tally.all += 1;
            match understood {
                Ok(statement) => {
                    tally.understood += 1;
                    if case.is_query() {
                        let found = Named::by(&statement);
                        for what in compared(&case, kind(&statement.query.body), &found) {
                            say(&what);
                        }
                    } else {
                        say(&format!("{} is taken for a query", case.kind));
                    }
                }
                Err(cause) => {
                    let cause = cause.to_string();
                    let (cause, _) = cause.split_once(" at Line").unwrap_or((&cause, ""));
                    *tally.refused.entry(cause.to_owned()).or_default() += 1;
                }
            }
        }
        println!("{}", summary(&tallies));
        assert_none(&disagreements);
        let measured = if other_page().is_none() {
            UNDERSTOOD
        } else {
            &[]
        };
        for (kind, minimum) in measured {
            let Tally {
                all, understood, ..
            } = tallies[kind];
            assert!(
                understood * 1000 >= minimum * all,
                "of {all} {kind}s only {understood} are understood"
            );
        }
    });
}

#[derive(Default)]
struct Tally {
    all: usize,
    understood: usize,
    refused: BTreeMap<String, usize>,
}

fn compared(case: &Case<'_>, kind: &str, found: &Named) -> Vec<String> {
    let mut said = Vec::new();
    if kind != case.kind {
        said.push(format!("{} is taken for {kind}", case.kind));
    }
    if (found.writes, found.locks) != (case.writes, case.locks) {
        let (writes, locks) = (found.writes, found.locks);
        said.push(format!(
            "writes = {writes}, locks = {locks}, which it does not"
        ));
    }
    let letters = found.shape.iter();
    let shape: String = letters.map(|(letter, n)| format!("{letter}{n}")).collect();
    if shape != case.shape {
        said.push(format!("the shape is {shape}, not {}", case.shape));
    }
    let relations: BTreeSet<_> = found.relations.iter().map(String::as_str).collect();
    let expected: BTreeSet<_> = case.names.iter().copied().collect();
    if relations != expected {
        said.push(format!("relations are {relations:?}, not {expected:?}"));
    }
    let functions: BTreeSet<_> = found.functions.iter().map(String::as_str).collect();
    let missed: Vec<_> = case
        .functions
        .difference(&functions)
        .filter(|name| !FORMS.contains(name))
        .collect();
    let added: Vec<_> = functions
        .difference(&case.functions)
        .filter(|name| !EXPRESSIONS.contains(name))
        .collect();
    if !missed.is_empty() || !added.is_empty() {
        said.push(format!(
            "functions: {missed:?} are missed, {added:?} are none"
        ));
    }
    said
}

fn summary(tallies: &BTreeMap<&str, Tally>) -> String {
    let mut text = String::new();
    for (kind, tally) in tallies.iter().filter(|(_, tally)| tally.understood > 0) {
        let Tally {
            all,
            understood,
            refused,
        } = tally;
        let _ = writeln!(
            text,
            "{kind}: {understood} of {all} are understood; refused:"
        );
        let mut refused: Vec<_> = refused.iter().collect();
        refused.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (cause, count) in refused.iter().take(8) {
            let cause: String = cause.chars().take(100).collect();
            let _ = writeln!(text, "{count:>8}  {cause}");
        }
    }
    text
}

// ── texts that nobody wrote ─────────────────────────────────────────────────────────────────────────────────────

/// Texts made of the queries.
const MUTATIONS: usize = 12_000;

#[test]
fn a_token_too_many_too_few_or_in_the_wrong_place_is_no_panic() {
    on_a_worker(|| {
        let page = page();
        let cases = cases(&page);
        let queries: Vec<_> = cases.iter().filter(|case| case.is_query()).collect();
        let mut random = Random(0x5eed);
        let mut disagreements = Vec::new();
        for _ in 0..MUTATIONS {
            let text = mutated(&queries[random.below(queries.len())].text, &mut random);
            let begun = Instant::now();
            let survived = catch_unwind(AssertUnwindSafe(|| {
                for span in scan::split(text.as_bytes(), true) {
                    let _ = verb(&text.as_bytes()[span]);
                }
                let _ = understand(&text);
            }));
            let taken = begun.elapsed();
            if survived.is_err() || taken > LONGEST {
                disagreements.push(format!("panics, or took {taken:?}: {text}"));
            }
        }
        assert_none(&disagreements);
    });
}

/// One or two tokens are dropped, said twice or change places; what is between them stays.
fn mutated(text: &str, random: &mut Random) -> String {
    let mut text = text.to_owned();
    for _ in 0..=random.below(2) {
        let tokens: Vec<_> = scan::tokens(text.as_bytes(), true)
            .map(|token| token.span)
            .collect();
        if tokens.len() < 2 {
            break;
        }
        let at = tokens[random.below(tokens.len())].clone();
        let other = tokens[random.below(tokens.len())].clone();
        // A mutation may have cut a character.
        let (Some(piece), Some(another)) = (text.get(at.clone()), text.get(other.clone())) else {
            break;
        };
        let (piece, another) = (piece.to_owned(), another.to_owned());
        match random.below(3) {
            0 => text.replace_range(at, ""),
            1 => text.insert_str(other.start, &format!("{piece} ")),
            _ if at.start < other.start => {
                text.replace_range(other, &piece);
                text.replace_range(at, &another);
            }
            _ => {
                text.replace_range(at, &another);
                text.replace_range(other, &piece);
            }
        }
    }
    text
}

/// The same texts on each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// With the stack that the proxy's own threads have.
fn on_a_worker(work: fn()) {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    let finished = thread.spawn(work).unwrap().join();
    if let Err(cause) = finished {
        std::panic::resume_unwind(cause);
    }
}
