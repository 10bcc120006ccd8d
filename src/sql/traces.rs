//! What a statement may leave behind in its server's session, or take away from it, as far as its text tells: settings,
//! locks, temporary objects, prepared statements. It says where a look at the server is due, not what will be found.
//!
//! `None` is a promise: such a text leaves nothing that another client could notice. What surprises: words count
//! wherever they stand, in a string too, since a text that is looked at in vain costs little, and one that is not costs
//! a wrong answer.

use std::cell::LazyCell;

use super::listen;
use super::scan::{self, Verb, is_single, split, verb};
use super::verb::Discard;
use super::words::{Reach, found, starts_with};

/// What is to be done about a text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traces {
    /// The server must be asked what is there, once the transaction has ended.
    pub asks: bool,
    /// Settings of no module, which the server does not list: lower case, with a dot.
    pub custom: Vec<String>,
    /// What stays and what no server can be asked for: why the session must keep its server.
    pub untold: Option<&'static str>,
    /// Settings that are reset; empty for all.
    pub resets: Vec<String>,
    /// Parameters, from 1 on, whose values are the names of such or other settings.
    pub named_by: Vec<usize>,
    /// Settings that change; empty for some that are not known.
    pub rereads: Vec<String>,
    /// Drops every prepared statement.
    pub drops: bool,
    /// Asks for a value that a sequence gave to this session.
    pub sequences: bool,
    /// Makes something that stays, by its text.
    pub makes: Option<&'static str>,
    /// Defines what other statements may run without naming it in a way that is known here.
    pub defines: bool,
    /// Channels that it may listen to.
    pub listens: Vec<Vec<u8>>,
}

/// Calls of set_config in one text that are read; of more, the names count as unknown.
const CALLS_MAX: usize = 64;

/// What this Query or Parse text may leave behind; `None` where that is surely nothing.
#[must_use]
pub fn traces(text: &[u8]) -> Option<Box<Traces>> {
    let plain = scan::is_plain_query(text);
    if plain && !has_call_or_temp(text) {
        return None;
    }
    let mut traces = Traces::default();
    if !plain {
        if is_single(text, true) {
            traces.asks = traces.command(text);
        } else {
            for range in split(text, true) {
                traces.asks |= traces.command(text.get(range).unwrap_or_default());
            }
        }
    }
    traces.asks |= traces.words(text);
    traces.runs_later(text);
    if traces.asks && !plain {
        traces.listens = listen::channels(text);
    }
    (traces != Traces::default()).then(|| Box::new(traces))
}

/// Whether functions or schemas that are named anywhere in this text may leave something.
#[must_use]
pub fn words_leave(text: &[u8]) -> bool {
    let mut traces = Traces::default();
    traces.words(text) || traces != Traces::default()
}

/// What the body of a function may leave, of which nothing is known but that it has one of the words.
#[must_use]
pub fn body_traces(body: &[u8]) -> Traces {
    let mut traces = Traces {
        asks: true,
        rereads: vec![String::new()],
        ..Traces::default()
    };
    traces.words(body);
    traces.custom_sets(body);
    if contains(body, b"load ") {
        traces.untold = Some("LOAD");
    }
    traces
}

impl Traces {
    /// PREPARE runs nothing yet, so no setting changes by it.
    pub fn runs_later(&mut self, text: &[u8]) {
        if is_single(text, true) && matches!(verb(text), Verb::Prepare { .. }) {
            self.rereads.clear();
        }
    }

    /// What either of them may leave.
    pub fn add(&mut self, other: &Traces) {
        fn join(these: &mut Vec<String>, those: &[String]) {
            for one in those {
                if !these.contains(one) {
                    these.push(one.clone());
                }
            }
        }
        self.asks |= other.asks;
        join(&mut self.custom, &other.custom);
        self.untold = self.untold.or(other.untold);
        for number in &other.named_by {
            if !self.named_by.contains(number) {
                self.named_by.push(*number);
            }
        }
        join(&mut self.resets, &other.resets);
        join(&mut self.rereads, &other.rereads);
        self.drops |= other.drops;
        self.sequences |= other.sequences;
        self.makes = self.makes.or(other.makes);
        self.defines |= other.defines;
    }

    /// What the first words tell; `false` where a statement of this kind leaves nothing by itself.
    fn command(&mut self, statement: &[u8]) -> bool {
        match verb(statement) {
            Verb::SetSession { name } => {
                let name = String::from_utf8_lossy(&name).to_lowercase();
                self.setting(&name);
                if ends_in_default(statement) {
                    self.resets.push(name);
                } else {
                    self.makes = Some("SET");
                }
            }
            Verb::Reset { name: Some(name) } => {
                let name = String::from_utf8_lossy(&name).to_lowercase();
                self.setting(&name);
                self.resets.push(name);
            }
            // Undone with the transaction, but read by until then.
            Verb::SetLocal { name } => {
                self.rereads
                    .push(String::from_utf8_lossy(&name).to_lowercase());
                return false;
            }
            Verb::Deallocate { name: None } => self.drops = true,
            Verb::Reset { name: None } | Verb::Discard(Discard::All) => {
                self.drops |= matches!(verb(statement), Verb::Discard(_));
                self.rereads.push(String::new());
                self.resets.push(String::new());
            }
            Verb::Load => {
                self.untold = Some("LOAD");
                self.makes = self.untold;
            }
            Verb::Prepare { .. } => self.makes = Some("PREPARE"),
            Verb::Listen => self.makes = Some("LISTEN"),
            // Its body may say SET of anything.
            // Its body may say SET of anything, and define anything.
            Verb::Do => {
                self.defines = true;
                if contains(statement, b"set") {
                    self.rereads.push(String::new());
                    self.custom_sets(statement);
                }
            }
            Verb::Declare if contains(statement, b"hold") => {
                self.makes = Some("a cursor WITH HOLD");
            }
            Verb::Create { temp: true } => self.makes = Some("a temporary object"),
            Verb::Create { temp: false } | Verb::Alter if defines_code(statement) => {
                self.defines = true;
            }
            Verb::Declare | Verb::Create { temp: false } => return false,
            query if query.is_query() => return false,
            Verb::Empty
            | Verb::Begin { .. }
            | Verb::Commit { .. }
            | Verb::Rollback { .. }
            | Verb::RollbackTo { .. }
            | Verb::Savepoint { .. }
            | Verb::Release { .. }
            | Verb::SetTransaction { .. }
            | Verb::SetConstraints
            | Verb::Show { .. }
            | Verb::Notify
            | Verb::Copy
            | Verb::Fetch
            | Verb::Move
            | Verb::Lock
            | Verb::Explain
            | Verb::Alter
            | Verb::Truncate
            | Verb::Vacuum
            | Verb::Analyze
            | Verb::Cluster
            | Verb::Checkpoint
            | Verb::Comment
            | Verb::Grant
            | Verb::Revoke
            | Verb::Reindex
            | Verb::Refresh => return false,
            _ => {}
        }
        true
    }

    /// A setting that outlives its transaction.
    pub fn setting(&mut self, name: &str) {
        if name.contains('.') {
            self.custom.push(name.to_owned());
        } else {
            self.rereads.push(name.to_owned());
        }
    }

    /// `SET [SESSION] a.b` anywhere in a body.
    fn custom_sets(&mut self, body: &[u8]) {
        let body = String::from_utf8_lossy(body).to_lowercase();
        let mut words = body.split_whitespace().peekable();
        while let Some(word) = words.next() {
            if word != "set" {
                continue;
            }
            if words.peek() == Some(&"session") {
                words.next();
            }
            let name = words.peek().copied().unwrap_or_default();
            let name = name.split('=').next().unwrap_or_default();
            if name.contains('.') {
                self.custom.push(name.to_owned());
            }
        }
    }

    /// What the words of functions and schemas tell.
    fn words(&mut self, text: &[u8]) -> bool {
        let mut leaves = false;
        // Looked for once: a long text may have the word many times.
        let temporary = LazyCell::new(|| names_temporary(text));
        let mut calls = 0;
        for (end, reach) in found(text) {
            let behind = text.get(end..).unwrap_or_default();
            match reach {
                Reach::AdvisoryLock if starts_with(behind, b"_xact") => continue,
                Reach::Temporary if !*temporary => continue,
                // The name of a column.
                Reach::SetConfig if is_no_call(behind) => continue,
                Reach::SetConfig => {
                    calls += 1;
                    let call = (calls <= CALLS_MAX).then(|| SetConfig::read(behind));
                    let Some(call) = call.flatten() else {
                        // Its name is not written here.
                        self.untold = Some("set_config of a computed name");
                        self.makes = self.untold;
                        self.rereads.push(String::new());
                        leaves = true;
                        continue;
                    };
                    match call {
                        SetConfig {
                            name: SettingName::Written(name),
                            is_local: true,
                        } => {
                            if !name.contains('.') {
                                self.rereads.push(name);
                            }
                            continue;
                        }
                        SetConfig { is_local: true, .. } => {
                            self.rereads.push(String::new());
                            continue;
                        }
                        SetConfig {
                            name: SettingName::Written(name),
                            ..
                        } => self.setting(&name),
                        SetConfig {
                            name: SettingName::Parameter(number),
                            ..
                        } => self.named_by.push(number),
                    }
                    self.makes = Some("set_config");
                    leaves = true;
                    continue;
                }
                Reach::Stays(cause) => {
                    self.untold = Some(cause);
                    self.makes = self.untold;
                }
                Reach::AdvisoryLock if !starts_with(behind, b"_unlock") => {
                    self.makes = Some("an advisory lock");
                }
                Reach::Temporary => self.makes = Some("a temporary object"),
                Reach::SequenceValue => {
                    self.sequences = true;
                    self.untold = Some("the values of sequences");
                }
                Reach::AdvisoryLock | Reach::Disguised => {}
            }
            leaves = true;
        }
        leaves
    }
}

/// What stands behind a function's name is surely not its arguments.
fn is_no_call(behind: &[u8]) -> bool {
    use scan::Kind::{Symbol, Word};
    let next = scan::tokens(behind, true).next();
    next.is_none_or(|token| {
        token.span.start > 0 && token.kind == Word
            || matches!(token.kind, Symbol(b';' | b',' | b')'))
    })
}

/// `('name', …, true)`, as far as it is written in constants.
struct SetConfig {
    name: SettingName,
    is_local: bool,
}

enum SettingName {
    Written(String),
    /// The parameter of this number, from 1 on.
    Parameter(usize),
}

impl SetConfig {
    /// Reads what stands behind the function's name.
    fn read(behind: &[u8]) -> Option<Self> {
        let mut tokens = scan::tokens(behind, true);
        let open = tokens.next()?;
        let first = tokens.next()?;
        if open.kind != scan::Kind::Symbol(b'(') {
            return None;
        }
        let written = behind.get(first.span)?;
        let name = match first.kind {
            scan::Kind::String => {
                let name = written.strip_prefix(b"'")?.strip_suffix(b"'")?;
                let name = std::str::from_utf8(name).ok()?.to_lowercase();
                (!name.contains('\'')).then_some(SettingName::Written(name))?
            }
            scan::Kind::Parameter => {
                let number = std::str::from_utf8(written.get(1..)?).ok()?.parse().ok()?;
                SettingName::Parameter(number)
            }
            _ => return None,
        };
        let mut tokens = tokens.peekable();
        // `'name'::text`, as the server writes it.
        let colon = scan::Kind::Symbol(b':');
        if tokens.next_if(|token| token.kind == colon).is_some() {
            let cast = [tokens.next()?.kind, tokens.next()?.kind];
            if cast != [colon, scan::Kind::Word] {
                return None;
            }
        }
        if tokens.peek()?.kind != scan::Kind::Symbol(b',') {
            return None;
        }
        let (mut depth, mut last) = (0_usize, None);
        for token in tokens {
            match token.kind {
                scan::Kind::Symbol(b'(' | b'[') => depth += 1,
                scan::Kind::Symbol(b')') if depth == 0 => break,
                scan::Kind::Symbol(b')' | b']') => depth = depth.saturating_sub(1),
                _ => {}
            }
            last = Some(token);
        }
        let is_local = last.is_some_and(|token| {
            token.kind == scan::Kind::Word
                && behind
                    .get(token.span)
                    .is_some_and(|word| word.eq_ignore_ascii_case(b"true"))
        });
        Some(Self { name, is_local })
    }
}

/// Whether a plain query could call a function or name a temporary schema: two quick searches answer for most.
fn has_call_or_temp(text: &[u8]) -> bool {
    memchr::memchr(b'(', text).is_some()
        || memchr::memchr2_iter(b'p', b'P', text).any(|at| {
            let word = at.checked_sub(3).and_then(|from| text.get(from..at));
            word.is_some_and(|word| word.eq_ignore_ascii_case(b"tem"))
        })
}

/// Whether CREATE or ALTER is about an object that has code, or may get some.
fn defines_code(statement: &[u8]) -> bool {
    const KINDS: &[&[u8]] = &[
        b"function",
        b"procedure",
        b"routine",
        b"trigger",
        b"view",
        b"rule",
        b"policy",
        b"operator",
        b"aggregate",
        b"cast",
        b"domain",
        b"default",
        b"generated",
        b"check",
        b"index",
        b"extension",
    ];
    KINDS.iter().any(|kind| contains(statement, kind))
}

/// `SET x TO DEFAULT` is RESET.
pub(super) fn ends_in_default(statement: &[u8]) -> bool {
    scan::tokens(statement, true).last().is_some_and(|token| {
        let word = statement.get(token.span).unwrap_or_default();
        token.kind == scan::Kind::Word && word.eq_ignore_ascii_case(b"default")
    })
}

/// Whether a text has `pg_temp`, or INTO and TEMP or TEMPORARY behind it: words such as `temperature` are common.
fn names_temporary(text: &[u8]) -> bool {
    if contains(text, b"pg_temp") {
        return true;
    }
    let mut after_into = false;
    for token in scan::tokens(text, true) {
        let word = text.get(token.span).unwrap_or_default();
        let is = |keyword: &[u8]| word.eq_ignore_ascii_case(keyword);
        if after_into && (is(b"temp") || is(b"temporary")) {
            return true;
        }
        after_into = is(b"into") || (after_into && (is(b"local") || is(b"global")));
    }
    false
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len())
        .any(|window| window.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_statements_leave_nothing() {
        for text in [
            "SELECT abalance FROM pgbench_accounts WHERE aid = 123;",
            "INSERT INTO t VALUES (1, now())",
            "SELECT count(*), coalesce(max(x), 0) FROM t",
            "BEGIN",
            "COMMIT; BEGIN ISOLATION LEVEL SERIALIZABLE",
            "CREATE TABLE t (id int)",
            "SELECT pg_catalog.set_config('app.tenant', $1, true)",
            "SET TRANSACTION READ ONLY",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "COPY t FROM STDIN",
            "SELECT temperature FROM t WHERE id IN (SELECT attempt FROM u)",
            "INSERT INTO temperatures VALUES (1)",
            "SELECT pg_advisory_xact_lock(1)",
            "",
        ] {
            assert_eq!(traces(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_may_stay_is_looked_at() {
        for text in [
            "SET work_mem = '5MB'",
            "SELECT 1; SET work_mem = '5MB'",
            "RESET ALL",
            "SELECT Set_Config('work_mem', '5MB', false)",
            "SELECT pg_advisory_lock(1)",
            "SELECT * INTO TEMP x FROM t",
            "SELECT 1 AS a INTO pg_temp.x",
            "SELECT * INTO -- so\n LOCAL TEMPORARY x FROM t",
            "INSERT INTO t SELECT pg_try_advisory_lock(2)",
            "CREATE TEMP TABLE x (a int)",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "PREPARE p AS SELECT 1",
            "DEALLOCATE p",
            "LISTEN c",
            "UNLISTEN *",
            "DISCARD ALL",
            "DROP TABLE x",
            "CLOSE ALL",
            "DO $$ BEGIN PERFORM 1; END $$",
            "CALL p()",
            "EXPLAIN ANALYZE SELECT set_config('a', 'b', false)",
            "nonsense",
        ] {
            assert!(traces(text.as_bytes()).is_some_and(|it| it.asks), "{text}");
        }
    }

    #[test]
    fn a_long_text_is_read_a_bounded_number_of_times() {
        // Read anew at each word, these would take hours.
        let temps = format!("SELECT '{}'", "temp ".repeat(100_000));
        assert_eq!(traces(temps.as_bytes()), None);
        let calls = format!("SELECT {}", "set_config('a.b', ".repeat(20_000));
        let found = traces(calls.as_bytes()).unwrap();
        assert_eq!(found.untold, Some("set_config of a computed name"));
        assert_eq!(found.custom.len(), CALLS_MAX);
    }

    #[test]
    fn settings_that_no_server_lists_are_named() {
        let custom = |text: &str| traces(text.as_bytes()).unwrap().custom.clone();
        assert_eq!(custom("SET app.Tenant = 'x'"), ["app.tenant"]);
        assert_eq!(
            custom("SELECT set_config('App.tenant', f(1), false), set_config('a.b','',false)"),
            ["app.tenant", "a.b"]
        );
        assert_eq!(
            custom("SELECT set_config('a.b'::text, 'c', false)"),
            ["a.b"]
        );
        assert_eq!(
            custom("DO $$ BEGIN SET my.x = 1; SET SESSION my.y TO 2; END $$"),
            ["my.x", "my.y"]
        );
    }

    #[test]
    fn what_no_server_can_be_asked_for_is_told() {
        let untold = |text: &str| traces(text.as_bytes()).and_then(|traces| traces.untold);
        assert_eq!(
            untold("SELECT set_config(lower($1), 'x', false)"),
            Some("set_config of a computed name")
        );
        let by = traces(b"SELECT set_config($2, $1, false), set_config($1, 'x', true)").unwrap();
        assert_eq!((&*by.named_by, by.untold), (&[2][..], None));
        assert_eq!(untold("SELECT setseed(0.5)"), Some("setseed"));
        assert_eq!(untold("LOAD 'x'"), Some("LOAD"));
        assert_eq!(untold("SET a.b = 1"), None);
    }

    #[test]
    fn what_makes_something_that_stays_is_told_from_what_ends_it() {
        let makes = |text: &str| traces(text.as_bytes()).and_then(|traces| traces.makes);
        for (text, expected) in [
            ("SET a = 1", Some("SET")),
            ("SELECT 1; SET a = 1", Some("SET")),
            ("SELECT set_config('a', 'b', false)", Some("set_config")),
            ("SELECT set_config($1, 'b', false)", Some("set_config")),
            (
                "SELECT set_config(f(), 'b', false)",
                Some("set_config of a computed name"),
            ),
            ("SELECT pg_advisory_lock(1)", Some("an advisory lock")),
            ("SELECT pg_try_advisory_lock(1)", Some("an advisory lock")),
            ("CREATE TEMP TABLE x (a int)", Some("a temporary object")),
            ("SELECT * INTO TEMP x FROM t", Some("a temporary object")),
            (
                "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
                Some("a cursor WITH HOLD"),
            ),
            ("PREPARE p AS SELECT 1", Some("PREPARE")),
            ("LISTEN c", Some("LISTEN")),
            ("LOAD 'x'", Some("LOAD")),
            ("SELECT setseed(0.5)", Some("setseed")),
            ("SET LOCAL a = 1", None),
            ("SET a TO DEFAULT", None),
            ("RESET ALL", None),
            ("DISCARD ALL", None),
            ("SELECT pg_advisory_unlock(1)", None),
            ("SELECT pg_advisory_xact_lock(1)", None),
            ("UNLISTEN *", None),
            ("DEALLOCATE p", None),
            ("DROP TABLE x", None),
            ("DO $$ BEGIN END $$", None),
        ] {
            assert_eq!(makes(text), expected, "{text}");
        }
    }

    #[test]
    fn what_changes_how_statements_are_read_is_named() {
        let rereads = |text: &str| traces(text.as_bytes()).unwrap().rereads.clone();
        assert_eq!(rereads("SET TimeZone = 'UTC'"), ["timezone"]);
        assert_eq!(rereads("SET LOCAL DateStyle = 'ISO'"), ["datestyle"]);
        assert_eq!(
            rereads("SELECT set_config('timezone', 'UTC', true)"),
            ["timezone"]
        );
        assert_eq!(rereads("RESET ALL"), [""]);
        let resets = |text: &str| traces(text.as_bytes()).unwrap().resets.clone();
        assert_eq!(resets("SET work_mem TO DEFAULT"), ["work_mem"]);
        assert_eq!(resets("DISCARD ALL"), [""]);
        assert!(resets("SET work_mem TO 'default'").is_empty());
    }
}
