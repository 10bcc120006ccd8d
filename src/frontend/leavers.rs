//! Functions, tables and views of a database whose use may leave something in the session though no statement says so:
//! a function that calls set_config, a table with a trigger that takes a lock, a view that calls such a function.
//!
//! Their names are read from the catalogue of the server: when the first client comes, every [`RELOAD`] while statements
//! run, and after statements that define such things. A text that has one of the names is treated as if it had what
//! they do. What surprises: names count wherever they stand, in any schema and in strings, since to ask in vain costs
//! little. Most databases have no such names, and nothing is looked for there.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aho_corasick::AhoCorasick;

use crate::backend::pool::Pool;
use crate::backend::server::{Lost, Server};
use crate::backend::settings::{literal, names_reading};
use crate::backend::worker::Worker;
use crate::sql::traces::{Traces, body_traces};

/// How often the names are read again.
pub const RELOAD: Duration = Duration::from_secs(30);

/// Times that the server is asked, since a late cancel request may hit the question.
const TRIES_MAX: usize = 3;

/// A chain of functions that call each other is followed so far.
const ROUNDS_MAX: usize = 16;

/// Sources that may leave something, as a regular expression of PostgreSQL, without regard to case. A command counts
/// where a statement can begin, or in a string that is executed: `UPDATE t SET` shall not.
const LEAVES: &str = r"set_config|advisory(?!_xact)|setseed|dblink|currval|lastval|pg_temp|with\s+hold|\mtemp(orary)?\s|(^|;|'|\$|\mbegin\M|\mthen\M|\melse\M|\mloop\M)\s*(set|reset|discard|prepare|listen|load|deallocate)\M";

/// Every object that users define and that runs code: its name, and what it runs.
const OBJECTS: &str = r"
SELECT p.proname::text, p.prosrc FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE l.lanname NOT IN ('internal', 'c') AND p.prosrc <> ''
UNION ALL SELECT p.proname, pg_catalog.pg_get_functiondef(p.oid) FROM pg_catalog.pg_proc p
 WHERE p.prokind IN ('f', 'p') AND p.prosrc = '' AND p.oid >= 16384
UNION ALL SELECT p.proname, pg_catalog.pg_get_expr(p.proargdefaults, 0) FROM pg_catalog.pg_proc p
 WHERE p.proargdefaults IS NOT NULL AND p.oid >= 16384
UNION ALL SELECT p.proname, a.aggtransfn::text || ' ' || a.aggfinalfn::text FROM pg_catalog.pg_aggregate a
 JOIN pg_catalog.pg_proc p ON p.oid = a.aggfnoid WHERE p.oid >= 16384
UNION ALL SELECT c.relname, f.proname FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
 JOIN pg_catalog.pg_proc f ON f.oid = t.tgfoid WHERE NOT t.tgisinternal
UNION ALL SELECT c.relname, pg_catalog.pg_get_ruledef(r.oid) FROM pg_catalog.pg_rewrite r
 JOIN pg_catalog.pg_class c ON c.oid = r.ev_class WHERE c.oid >= 16384
UNION ALL SELECT c.relname, pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d
 JOIN pg_catalog.pg_class c ON c.oid = d.adrelid
UNION ALL SELECT c.relname, pg_catalog.pg_get_constraintdef(k.oid) FROM pg_catalog.pg_constraint k
 JOIN pg_catalog.pg_class c ON c.oid = k.conrelid WHERE k.contype = 'c'
UNION ALL SELECT c.relname, coalesce(pg_catalog.pg_get_expr(p.polqual, p.polrelid), '') || ' ' ||
 coalesce(pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), '') FROM pg_catalog.pg_policy p
 JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
UNION ALL SELECT c.relname, pg_catalog.pg_get_indexdef(i.indexrelid) FROM pg_catalog.pg_index i
 JOIN pg_catalog.pg_class c ON c.oid = i.indrelid WHERE c.oid >= 16384 AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
UNION ALL SELECT p.relname, c.relname FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class p ON p.oid = k.confrelid
 JOIN pg_catalog.pg_class c ON c.oid = k.conrelid WHERE k.contype = 'f'
 AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))
UNION ALL SELECT p.relname, c.relname FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
 JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
UNION ALL SELECT '', t.typdefault FROM pg_catalog.pg_type t WHERE t.typtype = 'd' AND t.typdefault IS NOT NULL
UNION ALL SELECT '', o.oprcode::text FROM pg_catalog.pg_operator o WHERE o.oid >= 16384
UNION ALL SELECT '', c.castfunc::regproc::text FROM pg_catalog.pg_cast c WHERE c.oid >= 16384 AND c.castfunc <> 0
UNION ALL SELECT '', e.evtfoid::regproc::text FROM pg_catalog.pg_event_trigger e
UNION ALL SELECT '', pg_catalog.pg_get_constraintdef(k.oid) FROM pg_catalog.pg_constraint k WHERE k.contypid <> 0
";

/// The names of one database.
#[derive(Default)]
pub struct Leavers {
    known: Mutex<Option<Arc<Names>>>,
    /// There is any name: read for every statement, so that the lock is not.
    any: AtomicBool,
    stale: AtomicBool,
    /// They could not be read.
    unread: AtomicBool,
    /// Sessions that define something which is not read yet.
    defining: AtomicUsize,
    /// Changes whenever something may have become known.
    version: AtomicU64,
    reading: tokio::sync::Mutex<()>,
    /// Transactions that had run when the names were read in the background last.
    transactions: AtomicU64,
}

struct Names {
    finder: AhoCorasick,
    /// What the use of each name may leave.
    traces: Vec<Traces>,
    /// What any statement may leave: an operator, a cast or a domain does, whose use has no name.
    everywhere: Option<Traces>,
}

impl Leavers {
    /// To be read again by whoever has a server at hand next.
    pub fn set_stale(&self) {
        self.stale.store(true, Ordering::Release);
    }

    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.known().is_some()
    }

    /// Whether there is any name, or may be one.
    #[must_use]
    pub fn has_any(&self) -> bool {
        self.any.load(Ordering::Relaxed) || self.is_in_doubt()
    }

    /// There may be names that are not known.
    fn is_in_doubt(&self) -> bool {
        self.defining.load(Ordering::Acquire) > 0 || self.unread.load(Ordering::Relaxed)
    }

    /// A session is about to define something: until it was read, any statement may use it.
    pub fn begin_to_define(&self) {
        self.defining.fetch_add(1, Ordering::AcqRel);
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// It was read, or the session has gone.
    pub fn end_to_define(&self) {
        self.defining.fetch_sub(1, Ordering::AcqRel);
    }

    /// A text that was judged under another version is to be judged again.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// All custom settings that any of them sets.
    #[must_use]
    pub fn custom(&self) -> Vec<String> {
        let known = self.known();
        let names = known.iter().flat_map(|names| {
            let everywhere = names.everywhere.iter();
            names.traces.iter().chain(everywhere)
        });
        names.flat_map(|traces| traces.custom.clone()).collect()
    }

    fn known(&self) -> Option<Arc<Names>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    /// What this text may leave by what it uses.
    #[must_use]
    pub fn traces(&self, text: &[u8]) -> Option<Traces> {
        if !self.has_any() {
            return None;
        }
        let mut all = self.is_in_doubt().then(|| body_traces(b""));
        if let Some(names) = self.known() {
            if let Some(everywhere) = &names.everywhere {
                all.get_or_insert_with(Traces::default).add(everywhere);
            }
            for found in names.finder.find_overlapping_iter(text) {
                if is_word(text, found.range())
                    && let Some(traces) = names.traces.get(found.pattern().as_usize())
                {
                    all.get_or_insert_with(Traces::default).add(traces);
                }
            }
        }
        all
    }

    /// Reads the names on an idle server, where they are not known yet or not any more. An error of the server leaves what
    /// was known. Gives what the server had to say to its client meanwhile.
    pub async fn load(&self, server: &mut Server) -> Result<Vec<u8>, Lost> {
        let _reading = self.reading.lock().await;
        let stale = self.stale.swap(false, Ordering::AcqRel);
        if !stale && self.is_loaded() {
            return Ok(Vec::new());
        }
        let mut aside = Vec::new();
        for _ in 0..TRIES_MAX {
            if self.read_anew(server, &mut aside).await? {
                return Ok(aside);
            }
        }
        // Until the next time in the background anything may leave something.
        self.unread.store(true, Ordering::Release);
        Ok(aside)
    }

    /// `false`: the server answered with an error.
    async fn read_anew(&self, server: &mut Server, aside: &mut Vec<u8>) -> Result<bool, Lost> {
        let Some(names) = read(server, aside).await? else {
            return Ok(false);
        };
        let any = !names.traces.is_empty() || names.everywhere.is_some();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(Arc::new(names));
        self.any.store(any, Ordering::Release);
        self.unread.store(false, Ordering::Release);
        self.version.fetch_add(1, Ordering::AcqRel);
        Ok(true)
    }

    /// Reads the names again, on a connection of this pool that no client has, where something was run since the last
    /// time.
    pub async fn refresh(&self, pool: &Arc<Pool>) {
        let transactions = pool.metrics.transactions.count();
        let before = self.transactions.swap(transactions, Ordering::Relaxed);
        if before == transactions && !self.unread.load(Ordering::Acquire) {
            return;
        }
        if let Ok(mut server) = pool.checkout(&Worker::nobody(), RELOAD).await {
            let _reading = self.reading.lock().await;
            let aside = &mut Vec::new();
            let loaded = tokio::time::timeout(RELOAD, self.read_anew(&mut server, aside)).await;
            if matches!(loaded, Ok(Ok(_))) {
                self.transactions.fetch_add(1, Ordering::Relaxed);
                pool.give_back(server);
            }
        }
    }
}

async fn read(server: &mut Server, aside: &mut Vec<u8>) -> Result<Option<Names>, Lost> {
    let mut found: BTreeMap<String, Traces> = BTreeMap::new();
    let mut pattern = LEAVES.to_owned();
    for round in 0..ROUNDS_MAX {
        let Some(objects) = objects(server, &pattern, aside).await? else {
            return Ok(None);
        };
        let mut new = BTreeMap::new();
        for (name, source) in objects {
            let traces = if round == 0 {
                traces_of_body(&source)
            } else {
                let mut traces = Traces::default();
                let source = source.to_lowercase();
                for (_, of) in found.iter().filter(|(name, _)| source.contains(&***name)) {
                    traces.add(of);
                }
                traces
            };
            let name = name.to_lowercase();
            if found.get(&name) != Some(&traces) {
                let entry: &mut Traces = new.entry(name).or_default();
                entry.add(&traces);
            }
        }
        new.retain(|name, traces| found.get(name) != Some(traces));
        if new.is_empty() {
            break;
        }
        let names: Vec<String> = new
            .keys()
            .filter(|name| !name.is_empty())
            .map(|name| escaped(name))
            .collect();
        for (name, traces) in new {
            found.entry(name).or_default().add(&traces);
        }
        if names.is_empty() {
            break;
        }
        pattern = names.join("|");
    }
    let everywhere = found.remove("");
    let finder = AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .build(found.keys());
    // Too many names for a search: then every statement counts.
    Ok(Some(match finder {
        Ok(finder) => Names {
            finder,
            traces: found.into_values().collect(),
            everywhere,
        },
        Err(_) => return Ok(None),
    }))
}

/// Not a part of a longer name.
fn is_word(text: &[u8], found: Range<usize>) -> bool {
    let goes_on = |byte: Option<&u8>| {
        byte.is_some_and(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
        })
    };
    let before = found.start.checked_sub(1).and_then(|at| text.get(at));
    !goes_on(before) && !goes_on(text.get(found.end))
}

/// What a body may leave. Statements are read in another way only where it names such a setting, or puts together what
/// it runs.
fn traces_of_body(source: &str) -> Traces {
    let mut traces = body_traces(source.as_bytes());
    let source = source.to_lowercase();
    let unknown = ["execute", "all"].iter().any(|word| source.contains(word));
    if !unknown && traces.untold.is_none() && !names_reading(&source) {
        traces.rereads.clear();
    }
    traces
}

/// A name as a regular expression.
fn escaped(name: &str) -> String {
    let mut pattern = String::new();
    for char in name.chars() {
        if !char.is_alphanumeric() && char != '_' {
            pattern.push('\\');
        }
        pattern.push(char);
    }
    pattern
}

/// The objects whose source fits; `None` where the server answers with an error.
async fn objects(
    server: &mut Server,
    pattern: &str,
    aside: &mut Vec<u8>,
) -> Result<Option<Vec<(String, String)>>, Lost> {
    // Whatever the client's search_path is, it shall not decide which operators this uses, nor its time-out whether all
    // clients know what was defined.
    let mut text = b"SELECT pg_catalog.set_config('search_path', 'pg_catalog', true);\
        SELECT pg_catalog.set_config('statement_timeout', '0', true);\
        SELECT DISTINCT name, source FROM ("
        .to_vec();
    text.extend_from_slice(OBJECTS.as_bytes());
    text.extend_from_slice(b") AS objects (name, source) WHERE source ~* ");
    literal(&mut text, pattern);
    let objects = server.ask_for_pairs(&text, aside).await?;
    if objects.is_none() {
        tracing::warn!("the functions that leave session state could not be read");
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_as_a_whole_word() {
        for (text, expected) in [
            ("SELECT become(1)", true),
            ("SELECT \"become\"(1)", true),
            ("SELECT public.become", true),
            ("become", true),
            ("SELECT becomes(1)", false),
            ("SELECT will_become(1)", false),
            ("SELECT \u{fc}become", false),
        ] {
            let at = text.find("become").unwrap();
            assert_eq!(is_word(text.as_bytes(), at..at + 6), expected, "{text}");
        }
    }

    #[test]
    fn what_a_body_prepares_is_read_anew_only_where_it_may_be_read_otherwise() {
        for (body, rereads) in [
            (
                "BEGIN PERFORM set_config('app.tenant', who, false); END",
                false,
            ),
            ("BEGIN SET TimeZone = 'UTC'; END", true),
            ("BEGIN PERFORM set_config(name, value, false); END", true),
            ("BEGIN EXECUTE command; END", true),
            ("BEGIN RESET ALL; END", true),
        ] {
            let traces = traces_of_body(body);
            assert!(traces.asks, "{body}");
            assert_eq!(!traces.rereads.is_empty(), rereads, "{body}");
        }
    }
}
