//! What a statement is by its first words: enough for the session to follow transactions, settings and prepared
//! statements without a parse.
//!
//! `well_formed` says that the whole statement is PostgreSQL's grammar of that command, so that its answer is known
//! before a server sees it; where it is false, a server raises the error. Commands with a name that cannot be read
//! surely (`U&"…"`, a reserved word, something behind the name) become [`Verb::Other`]. Nothing is allocated but a
//! name that has capitals or doubled quotes.

use std::borrow::Cow;

use super::reserved::is_reserved;
use super::scan::{Kind, Token, Tokens, tokens};

/// A name as PostgreSQL stores it: folded, without quotes, at most 63 bytes.
pub type Name<'a> = Cow<'a, [u8]>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb<'a> {
    /// Blanks and comments only.
    Empty,
    Select,
    Insert,
    Update,
    Delete,
    Merge,
    With,
    Values,
    Table,
    /// BEGIN or START TRANSACTION.
    Begin {
        modes: Modes,
        well_formed: bool,
    },
    /// COMMIT or END.
    Commit {
        chain: bool,
        well_formed: bool,
    },
    /// ROLLBACK or ABORT, of the whole transaction.
    Rollback {
        chain: bool,
        well_formed: bool,
    },
    Savepoint {
        name: Name<'a>,
    },
    Release {
        name: Name<'a>,
    },
    RollbackTo {
        name: Name<'a>,
    },
    PrepareTransaction,
    CommitPrepared,
    RollbackPrepared,
    /// SET LOCAL of a setting, `name` as `SHOW` would call it.
    SetLocal {
        name: Name<'a>,
    },
    /// SET TRANSACTION (also SET LOCAL TRANSACTION); not well formed where it takes a SNAPSHOT.
    SetTransaction {
        modes: Modes,
        well_formed: bool,
    },
    SetConstraints,
    /// Any other SET: it outlives the transaction.
    SetSession {
        name: Name<'a>,
    },
    /// RESET; `None` for ALL.
    Reset {
        name: Option<Name<'a>>,
    },
    /// SHOW; `None` for ALL.
    Show {
        name: Option<Name<'a>>,
    },
    Discard(Discard),
    Prepare {
        name: Name<'a>,
    },
    Execute {
        name: Name<'a>,
    },
    /// DEALLOCATE; `None` for ALL.
    Deallocate {
        name: Option<Name<'a>>,
    },
    Listen,
    Unlisten,
    Notify,
    Copy,
    Declare,
    Fetch,
    Move,
    Close,
    Lock,
    Explain,
    /// `temp` where the object goes into the session's temporary schema.
    Create {
        temp: bool,
    },
    Alter,
    Drop,
    Truncate,
    Do,
    Call,
    Load,
    Vacuum,
    Analyze,
    Cluster,
    Checkpoint,
    Comment,
    Grant,
    Revoke,
    Reindex,
    Refresh,
    /// Anything else: its first token, as written.
    Other(&'a [u8]),
}

impl Verb<'_> {
    /// Reads or writes rows: what is planned, and what leaves nothing in the session but by the functions that it calls.
    #[must_use]
    pub fn is_query(&self) -> bool {
        matches!(
            self,
            Verb::Select
                | Verb::Insert
                | Verb::Update
                | Verb::Delete
                | Verb::Merge
                | Verb::With
                | Verb::Values
                | Verb::Table
        )
    }
}

/// What DISCARD names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    All,
    Plans,
    Sequences,
    Temp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

/// Transaction modes as written; the last of each kind counts, as in PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Modes {
    pub isolation: Option<Isolation>,
    pub read_only: Option<bool>,
    pub deferrable: Option<bool>,
}

/// Classifies one statement (see [`split`](super::scan::split)).
///
/// Names and verbs do not depend on `standard_conforming_strings`.
pub fn verb(statement: &[u8]) -> Verb<'_> {
    let mut words = Words {
        text: statement,
        tokens: tokens(statement, true),
    };
    let mut parenthesised = false;
    let first = loop {
        match words.next() {
            None if parenthesised => return Verb::Other(b"("),
            None => return Verb::Empty,
            Some(Word {
                kind: Kind::Symbol(b'('),
                ..
            }) => parenthesised = true,
            Some(word) => break word,
        }
    };
    if first.kind != Kind::Word {
        return Verb::Other(first.text);
    }
    if let Some(verb) = reading(&first) {
        return verb;
    }
    if parenthesised {
        return Verb::Other(b"(");
    }
    command(&first, words)
}

/// The verbs that every simple query is tried for first, and which may stand in parentheses.
fn reading(first: &Word<'_>) -> Option<Verb<'static>> {
    Some(match first.text.len() {
        4 if first.is("with") => Verb::With,
        5 if first.is("table") => Verb::Table,
        6 if first.is("select") => Verb::Select,
        6 if first.is("values") => Verb::Values,
        _ => return None,
    })
}

fn command<'a>(first: &Word<'a>, rest: Words<'a>) -> Verb<'a> {
    let mut buffer = [0u8; 12];
    let Some(lower) = first.lower(&mut buffer) else {
        return Verb::Other(first.text);
    };
    let other = Verb::Other(first.text);
    match lower {
        b"insert" => Verb::Insert,
        b"update" => Verb::Update,
        b"delete" => Verb::Delete,
        b"merge" => Verb::Merge,
        b"begin" => begin(rest),
        b"start" => start(rest).unwrap_or(other),
        b"commit" | b"end" => commit(rest),
        b"rollback" | b"abort" => rollback(lower == b"rollback", rest).unwrap_or(other),
        b"savepoint" => only_name(rest).map_or(other, |name| Verb::Savepoint { name }),
        b"release" => savepoint_name(rest).map_or(other, |name| Verb::Release { name }),
        b"prepare" => prepare(rest).unwrap_or(other),
        b"set" => set(rest).unwrap_or(other),
        b"reset" => setting(rest).map_or(other, |name| Verb::Reset { name }),
        b"show" => setting(rest).map_or(other, |name| Verb::Show { name }),
        b"discard" => discard(rest).unwrap_or(other),
        b"execute" => first_name(rest).map_or(other, |name| Verb::Execute { name }),
        b"deallocate" => deallocate(rest).unwrap_or(other),
        b"create" => Verb::Create {
            temp: creates_temporary(rest),
        },
        _ => plain(lower).unwrap_or(other),
    }
}

/// Commands of which the first word says all that is asked here.
fn plain(lower: &[u8]) -> Option<Verb<'static>> {
    Some(match lower {
        b"listen" => Verb::Listen,
        b"unlisten" => Verb::Unlisten,
        b"notify" => Verb::Notify,
        b"copy" => Verb::Copy,
        b"declare" => Verb::Declare,
        b"fetch" => Verb::Fetch,
        b"move" => Verb::Move,
        b"close" => Verb::Close,
        b"lock" => Verb::Lock,
        b"explain" => Verb::Explain,
        b"alter" => Verb::Alter,
        b"drop" => Verb::Drop,
        b"truncate" => Verb::Truncate,
        b"do" => Verb::Do,
        b"call" => Verb::Call,
        b"load" => Verb::Load,
        b"vacuum" => Verb::Vacuum,
        b"analyze" | b"analyse" => Verb::Analyze,
        b"cluster" => Verb::Cluster,
        b"checkpoint" => Verb::Checkpoint,
        b"comment" => Verb::Comment,
        b"grant" => Verb::Grant,
        b"revoke" => Verb::Revoke,
        b"reindex" => Verb::Reindex,
        b"refresh" => Verb::Refresh,
        _ => return None,
    })
}

fn begin(mut rest: Words<'_>) -> Verb<'_> {
    let _ = rest.accept("work") || rest.accept("transaction");
    let modes = modes(rest);
    Verb::Begin {
        modes: modes.unwrap_or_default(),
        well_formed: modes.is_some(),
    }
}

fn start(mut rest: Words<'_>) -> Option<Verb<'_>> {
    if !rest.accept("transaction") {
        return None;
    }
    let modes = modes(rest);
    Some(Verb::Begin {
        modes: modes.unwrap_or_default(),
        well_formed: modes.is_some(),
    })
}

/// A list of transaction modes up to the end, commas optional between them (`transaction_mode_list` in `gram.y`).
fn modes(mut rest: Words<'_>) -> Option<Modes> {
    let mut modes = Modes::default();
    let mut after_comma = false;
    let mut first = true;
    loop {
        if rest.is_done() {
            return (!after_comma).then_some(modes);
        }
        if !first && !after_comma && rest.accept_symbol(b',') {
            after_comma = true;
            continue;
        }
        mode(&mut rest, &mut modes)?;
        first = false;
        after_comma = false;
    }
}

fn mode(rest: &mut Words<'_>, modes: &mut Modes) -> Option<()> {
    if rest.accept("isolation") {
        modes.isolation = Some(isolation(rest)?);
    } else if rest.accept("read") {
        modes.read_only = Some(rest.accept("only"));
        if modes.read_only == Some(false) && !rest.accept("write") {
            return None;
        }
    } else {
        let not = rest.accept("not");
        if !rest.accept("deferrable") {
            return None;
        }
        modes.deferrable = Some(!not);
    }
    Some(())
}

fn isolation(rest: &mut Words<'_>) -> Option<Isolation> {
    if !rest.accept("level") {
        return None;
    }
    if rest.accept("serializable") {
        return Some(Isolation::Serializable);
    }
    if rest.accept("repeatable") {
        return rest.accept("read").then_some(Isolation::RepeatableRead);
    }
    if !rest.accept("read") {
        return None;
    }
    if rest.accept("committed") {
        return Some(Isolation::ReadCommitted);
    }
    rest.accept("uncommitted")
        .then_some(Isolation::ReadUncommitted)
}

fn commit(mut rest: Words<'_>) -> Verb<'_> {
    if rest.accept("prepared") {
        return Verb::CommitPrepared;
    }
    let chain = chain(rest);
    Verb::Commit {
        chain: chain == Some(true),
        well_formed: chain.is_some(),
    }
}

fn rollback(is_rollback: bool, mut rest: Words<'_>) -> Option<Verb<'_>> {
    if is_rollback && rest.accept("prepared") {
        return Some(Verb::RollbackPrepared);
    }
    let mut tail = rest.clone();
    let _ = tail.accept("work") || tail.accept("transaction");
    if is_rollback && tail.accept("to") {
        return savepoint_name(tail).map(|name| Verb::RollbackTo { name });
    }
    let chain = chain(rest);
    Some(Verb::Rollback {
        chain: chain == Some(true),
        well_formed: chain.is_some(),
    })
}

/// `[WORK | TRANSACTION] [AND [NO] CHAIN]` up to the end; `None` where it is anything else.
fn chain(mut rest: Words<'_>) -> Option<bool> {
    let _ = rest.accept("work") || rest.accept("transaction");
    let and = rest.accept("and");
    let no = and && rest.accept("no");
    if and && !rest.accept("chain") {
        return None;
    }
    rest.is_done().then_some(and && !no)
}

/// `[SAVEPOINT] name` up to the end. `SAVEPOINT` alone is a name.
fn savepoint_name(mut rest: Words<'_>) -> Option<Name<'_>> {
    let whole = rest.clone();
    if rest.accept("savepoint") && !rest.is_done() {
        return only_name(rest);
    }
    only_name(whole)
}

fn prepare(mut rest: Words<'_>) -> Option<Verb<'_>> {
    let mut tail = rest.clone();
    if tail.accept("transaction") && tail.next().is_some_and(|word| word.is_string()) {
        return Some(Verb::PrepareTransaction);
    }
    rest.name().map(|name| Verb::Prepare { name })
}

fn set(mut rest: Words<'_>) -> Option<Verb<'_>> {
    let local = rest.accept_before_name("local");
    let mut session = !local && rest.accept_before_name("session");
    // LOCAL and SESSION may stand before SESSION AUTHORIZATION and SESSION CHARACTERISTICS as well
    let mut tail = rest.clone();
    if (local || session) && tail.accept("session") {
        let forms = ["authorization", "characteristics"];
        if forms.iter().any(|form| tail.clone().accept(form)) {
            (rest, session) = (tail, true);
        }
    }
    if rest.accept_before_name("transaction") {
        if session {
            return Some(Verb::SetSession {
                name: Name::Borrowed(b"transaction"),
            });
        }
        let modes = if rest.is_done() { None } else { modes(rest) };
        return Some(Verb::SetTransaction {
            modes: modes.unwrap_or_default(),
            well_formed: modes.is_some(),
        });
    }
    if !local && !session && rest.accept_before_name("constraints") {
        return Some(Verb::SetConstraints);
    }
    let name = setting_name(&mut rest, session)?;
    Some(if local {
        Verb::SetLocal { name }
    } else {
        Verb::SetSession { name }
    })
}

/// The setting that a SET names; the forms with words of their own become the setting that they change.
fn setting_name<'a>(rest: &mut Words<'a>, session: bool) -> Option<Name<'a>> {
    let known: &[(&str, &'static [u8])] = &[
        ("time", b"timezone"),
        ("names", b"client_encoding"),
        ("role", b"role"),
        ("schema", b"search_path"),
        ("catalog", b"catalog"),
        ("xml", b"xmloption"),
        ("characteristics", b"session_characteristics"),
    ];
    for &(word, name) in known {
        if rest.accept_before_name(word) {
            return Some(Name::Borrowed(name));
        }
    }
    if session && rest.accept_before_name("authorization") {
        return Some(Name::Borrowed(b"session_authorization"));
    }
    rest.dotted_name()
}

/// What RESET and SHOW name, up to the end; `Some(None)` for ALL.
fn setting(mut rest: Words<'_>) -> Option<Option<Name<'_>>> {
    let forms: &[(&[&str], Option<&'static [u8]>)] = &[
        (&["all"], None),
        (&["time", "zone"], Some(b"timezone")),
        (
            &["session", "authorization"],
            Some(b"session_authorization"),
        ),
        (
            &["transaction", "isolation", "level"],
            Some(b"transaction_isolation"),
        ),
    ];
    for &(form, name) in forms {
        let mut tail = rest.clone();
        if form.iter().all(|word| tail.accept(word)) && tail.is_done() {
            return Some(name.map(Name::Borrowed));
        }
    }
    let name = rest.dotted_name()?;
    rest.is_done().then_some(Some(name))
}

fn discard(mut rest: Words<'_>) -> Option<Verb<'_>> {
    let what = [
        ("all", Discard::All),
        ("plans", Discard::Plans),
        ("sequences", Discard::Sequences),
        ("temp", Discard::Temp),
        ("temporary", Discard::Temp),
    ];
    let (_, found) = what.into_iter().find(|(word, _)| rest.accept(word))?;
    rest.is_done().then_some(Verb::Discard(found))
}

fn deallocate(mut rest: Words<'_>) -> Option<Verb<'_>> {
    let whole = rest.clone();
    // PREPARE is a noise word unless it is itself the name
    if !rest.accept("prepare") || rest.is_done() {
        rest = whole;
    }
    if rest.accept("all") {
        return rest.is_done().then_some(Verb::Deallocate { name: None });
    }
    only_name(rest).map(|name| Verb::Deallocate { name: Some(name) })
}

/// `TEMP` before the kind of the object, or a name in `pg_temp`.
fn creates_temporary(mut rest: Words<'_>) -> bool {
    for _ in 0..10 {
        let Some(word) = rest.next() else {
            return false;
        };
        if word.is("temp")
            || word.is("temporary")
            || word.is("pg_temp")
            || word.text == b"\"pg_temp\""
        {
            return true;
        }
        if word.kind == Kind::Symbol(b'(') || word.is("as") {
            return false;
        }
    }
    false
}

fn only_name(mut rest: Words<'_>) -> Option<Name<'_>> {
    let name = rest.name()?;
    rest.is_done().then_some(name)
}

fn first_name(mut rest: Words<'_>) -> Option<Name<'_>> {
    rest.name()
}

#[derive(Debug, Clone, Copy)]
struct Word<'a> {
    kind: Kind,
    text: &'a [u8],
}

impl Word<'_> {
    fn is(&self, keyword: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(keyword.as_bytes())
    }

    fn is_string(&self) -> bool {
        matches!(
            self.kind,
            Kind::String | Kind::EscapeString | Kind::UnicodeString | Kind::DollarString
        )
    }

    /// The word in lower case, where it fits.
    fn lower<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let lower = buffer.get_mut(..self.text.len())?;
        lower.copy_from_slice(self.text);
        lower.make_ascii_lowercase();
        Some(lower)
    }
}

/// The tokens of a statement, taken one by one.
#[derive(Clone)]
struct Words<'a> {
    text: &'a [u8],
    tokens: Tokens<'a>,
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        let Token { kind, span } = self.tokens.next()?;
        Some(Word {
            kind,
            text: self.text.get(span).unwrap_or_default(),
        })
    }
}

impl<'a> Words<'a> {
    fn peek(&self) -> Option<Word<'a>> {
        self.clone().next()
    }

    fn is_done(&self) -> bool {
        self.peek().is_none()
    }

    fn accept(&mut self, keyword: &str) -> bool {
        self.accept_if(|word| word.is(keyword))
    }

    fn accept_symbol(&mut self, symbol: u8) -> bool {
        self.accept_if(|word| word.kind == Kind::Symbol(symbol))
    }

    fn accept_if(&mut self, wanted: impl Fn(&Word<'a>) -> bool) -> bool {
        let found = self.peek().is_some_and(|word| wanted(&word));
        if found {
            self.next();
        }
        found
    }

    /// Takes a keyword, unless it is itself the name of a setting (`SET local.x = 1`, `SET role TO 'r'` keeps its
    /// meaning because the setting is called the same).
    fn accept_before_name(&mut self, keyword: &str) -> bool {
        let mut tail = self.clone();
        if !tail.accept(keyword) {
            return false;
        }
        let named = tail
            .peek()
            .is_none_or(|next| matches!(next.kind, Kind::Symbol(b'.' | b'=')) || next.is("to"));
        if !named {
            self.next();
        }
        !named
    }

    /// A `ColId`: a name in quotes, or a word that is not reserved.
    fn name(&mut self) -> Option<Name<'a>> {
        let word = self.next()?;
        match word.kind {
            Kind::Word => {
                let folded = fold(word.text);
                (!is_reserved(&folded)).then_some(folded)
            }
            Kind::QuotedName => unquote(word.text),
            _ => None,
        }
    }

    /// Names joined by points, as one.
    fn dotted_name(&mut self) -> Option<Name<'a>> {
        let mut name = self.name()?;
        while self.accept_symbol(b'.') {
            let whole = name.to_mut();
            whole.push(b'.');
            whole.extend_from_slice(&self.name()?);
        }
        Some(name)
    }
}

/// Longest name in bytes (`NAMEDATALEN` less one); what is longer is cut.
const NAME_BYTES_MAX: usize = 63;

/// A word as PostgreSQL stores it: ASCII in lower case, cut to 63 bytes between characters (UTF-8).
pub fn fold(word: &[u8]) -> Name<'_> {
    let kept = clip(word);
    if kept.iter().any(u8::is_ascii_uppercase) {
        return Name::Owned(kept.to_ascii_lowercase());
    }
    Name::Borrowed(kept)
}

/// The name inside double quotes; `None` for an unfinished or empty one.
pub(super) fn unquote(quoted: &[u8]) -> Option<Name<'_>> {
    let inner = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.is_empty() {
        return None;
    }
    if !inner.contains(&b'"') {
        return Some(Name::Borrowed(clip(inner)));
    }
    let mut name = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        name.push(byte);
        if byte == b'"' {
            bytes.next();
        }
    }
    name.truncate(clip(&name).len());
    Some(Name::Owned(name))
}

fn clip(name: &[u8]) -> &[u8] {
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    // a character that starts within the limit and ends beyond it goes as a whole
    let mut end = NAME_BYTES_MAX;
    while end > 0
        && name
            .get(end)
            .is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000)
    {
        end -= 1;
    }
    name.get(..end).unwrap_or_default()
}

#[cfg(test)]
#[path = "verb_tests.rs"]
mod tests;
