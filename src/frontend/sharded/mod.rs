//! Requests on a database of several shards: each statement is planned, and runs on the one shard that is proven to
//! have its rows, on every shard where concatenation is the answer, or not at all.
//!
//! A transaction stands on the shard of its first statement; until then BEGIN is only remembered. What would surprise:
//! clients are never told a description of the server that runs a statement. Statements are described by the
//! authoritative shard, once for all clients, so types have one OID whatever shard the rows come from; a server that
//! has yet to parse a statement is asked whether it agrees.

mod cache;
mod command;
mod cursor;
mod drift;
mod explain;
mod extended;
mod many;
mod plans;
mod scatter;
mod settings;
mod simple;
mod spread;
mod standing;

use std::collections::HashMap;
use std::sync::Arc;

use command::changes_meaning;
pub(super) use explain::rows_of;
pub(super) use plans::{Plans, Shape};
pub(super) use settings::has_readable_path;
use standing::Several;

use super::session::{Held, Session};
use super::statements::Prepared;
use super::transaction::Begun;
use super::trouble::Trouble;
use crate::backend::replies::StatementId;
use crate::backend::settings::Settings;
use crate::catalog::Catalog;
use crate::names::ShardId;
use crate::planner::{Number, Refusal};
use crate::wire::frame::Frame;

/// The first shard of the file: it describes, and it has the catalogue that clients see.
const AUTHORITATIVE: ShardId = ShardId(0);

/// Whether the held server is in a transaction that the client began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Block {
    #[default]
    None,
    Open,
    /// COMMIT or ROLLBACK was sent and not answered yet.
    Ended,
}

/// What only a session on several shards has.
#[derive(Default)]
pub(super) struct Sharded {
    block: Block,
    /// Something was written since the last Sync.
    wrote: bool,
    /// The statement that was described last, since the last Sync: nobody can have changed its tables meanwhile.
    described: Option<StatementId>,
    portals: Portals,
    /// The transaction of the block, for a server that joins it.
    begun: Begun,
    /// The shard that the block wrote on. A server has written unless all that it ran is proven to read.
    writer: Option<ShardId>,
    /// The other servers of the block's transaction: all that was sent to them is answered and synced, or is hidden and
    /// still to be sent. Nearly always there is none.
    parked: Vec<Held>,
    /// What the transaction has done that no other server could be told, so none may join it.
    stays: Option<&'static str>,
    path: Path,
}

/// The search_path under which the next statement is planned.
#[derive(Default)]
enum Path {
    /// That of the session's settings.
    #[default]
    Session,
    /// It is not known yet.
    Changes,
    /// A transaction has changed it, for now to this.
    Block(Box<str>),
}

/// The portals of a session; nearly always there is only the unnamed one.
#[derive(Default)]
struct Portals {
    unnamed: Option<Portal>,
    named: HashMap<Box<[u8]>, Portal>,
    /// The formats of an unnamed portal that is gone: their buffer is used again.
    old_formats: Vec<u8>,
}

/// Format codes, two bytes each, whose buffer is worth keeping.
const FORMATS_BYTES_KEPT: usize = 64;

impl Portals {
    fn formats(&mut self, formats: &[u8]) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.old_formats);
        buffer.clear();
        buffer.extend_from_slice(formats);
        buffer
    }

    fn end_unnamed(&mut self) {
        let ended = self.unnamed.take();
        if let Some(Portal { formats, .. }) = ended
            && formats.capacity() <= FORMATS_BYTES_KEPT
        {
            self.old_formats = formats;
        }
    }

    fn get(&self, name: &[u8]) -> Option<&Portal> {
        if name.is_empty() {
            self.unnamed.as_ref()
        } else {
            self.named.get(name)
        }
    }

    fn get_mut(&mut self, name: &[u8]) -> Option<&mut Portal> {
        if name.is_empty() {
            self.unnamed.as_mut()
        } else {
            self.named.get_mut(name)
        }
    }

    fn insert(&mut self, name: &[u8], portal: Portal) {
        if name.is_empty() {
            self.end_unnamed();
            self.unnamed = Some(portal);
        } else {
            self.named.insert(name.into(), portal);
        }
    }

    fn remove(&mut self, name: &[u8]) -> Option<Portal> {
        if name.is_empty() {
            self.unnamed.take()
        } else {
            self.named.remove(name)
        }
    }

    fn clear(&mut self) {
        self.end_unnamed();
        self.named.clear();
    }
}

/// A bound statement.
struct Portal {
    prepared: Arc<Prepared>,
    /// Result format codes as Bind had them.
    formats: Vec<u8>,
    run: Run,
}

enum Run {
    /// The portal is on the transaction's server of this shard.
    On(ShardId),
    /// The same, of a DECLARE or CLOSE, whose success is kept account of.
    Counts(ShardId),
    /// The same, of an EXPLAIN to whose rows ours are added.
    Explained(ShardId),
    /// All but the names of its Bind; it is bound on these shards when it is executed.
    Scatter(Several, Vec<u8>),
    /// A command about the transaction or the session.
    Command,
    /// One that has run.
    Done,
    /// Every row was sent.
    Drained,
    Empty,
}

impl Run {
    /// The portal is on the server of this shard.
    fn is_on(&self, held: Option<ShardId>) -> bool {
        match self {
            Run::On(shard) | Run::Counts(shard) | Run::Explained(shard) => held == Some(*shard),
            _ => false,
        }
    }
}

/// Whether a client may have these settings, and a server that reports these parameters under them, on a database whose
/// plans presume the settings of the catalogue.
pub(super) fn check_settings(
    settings: &Settings,
    reported: &[(String, String)],
) -> Result<(), Refusal> {
    let readable = settings.get("search_path").is_none_or(Catalog::reads_path);
    if let Some(name) = settings.names().find(|name| match *name {
        "search_path" => !readable,
        name => !REPORTED.iter().any(|(reported, _)| *reported == name) && changes_meaning(name),
    }) {
        return Err(Refusal::about(Number::SessionSetting, name));
    }
    for (name, value) in reported {
        let wanted = REPORTED.iter().find(|(wanted, _)| wanted == name);
        if let Some((_, good)) = wanted
            && !good.contains(&value.as_str())
        {
            let number = if name == "client_encoding" {
                Number::ClientEncoding
            } else {
                Number::SessionSetting
            };
            return Err(Refusal::about(number, format!("{name} is {value}")));
        }
    }
    Ok(())
}

/// Parameters that every server reports, with the values under which keys are read rightly. With SQL_ASCII the server
/// takes the bytes as they are.
const REPORTED: &[(&str, &[&str])] = &[
    ("client_encoding", &["UTF8", "SQL_ASCII"]),
    ("standard_conforming_strings", &["on"]),
];

impl Session {
    /// The messages that nothing must be waited for; the others are left to [`Session::take_sharded`].
    pub(super) fn take_sharded_at_once(&mut self, frame: Frame<'_>) -> Option<Result<(), Trouble>> {
        match frame.tag {
            b'S' => {
                self.sharded.described = None;
                if self.held.is_none() {
                    self.sharded.portals.clear();
                    self.statements.confirm();
                } else if self.skipping && self.is_in_block() {
                    // What failed was synced already, so that another shard could have its turn.
                    self.skipping = false;
                    self.ready();
                    return Some(Ok(()));
                }
                self.sync();
                Some(Ok(()))
            }
            b'H' => {
                if let Some(held) = &mut self.held {
                    held.server.outbox().extend_from_slice(frame.whole);
                }
                Some(Ok(()))
            }
            // No COPY ever runs here; PostgreSQL ignores these outside of one.
            b'd' | b'c' | b'f' => Some(Ok(())),
            // Even a Query waits for Sync when a pipeline has failed.
            _ if self.is_skipping() => Some(Ok(())),
            b'E' => self.execute_held(frame),
            b'D' => self.describe_portal(frame),
            b'C' => Some(self.close_sharded(frame)),
            b'F' => {
                self.count_statement();
                Some(Err(Refusal::new(Number::FunctionCall).into()))
            }
            _ => None,
        }
    }

    pub(super) async fn take_sharded(&mut self, frame: Frame<'_>) -> Result<(), Trouble> {
        match frame.tag {
            b'Q' => self.query_sharded(frame).await,
            b'P' => self.parse_sharded(frame).await,
            b'B' => self.bind_sharded(frame).await,
            b'D' => self.describe_sharded(frame).await,
            _ => self.execute_sharded(frame).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_change_what_a_text_means_are_refused() {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let check = |settings: &[(&str, &str)], reported: &[(&str, &str)]| {
            let reported: Vec<_> = reported.iter().map(pair).collect();
            check_settings(&Settings::new(settings.iter().map(pair)), &reported)
                .map_err(|refusal| refusal.number)
        };
        let good = [
            ("client_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
        ];
        assert_eq!(
            check(&[("DateStyle", "ISO"), ("client_encoding", "utf-8")], &good),
            Ok(())
        );
        assert_eq!(check(&[("search_path", "sales, public")], &good), Ok(()));
        for name in ["search_path", "Role", "transform_null_equals"] {
            assert_eq!(
                check(&[(name, "x,")], &good),
                Err(Number::SessionSetting),
                "{name}"
            );
        }
        let latin = [("client_encoding", "LATIN1")];
        assert_eq!(check(&[], &latin), Err(Number::ClientEncoding));
        let old = [("standard_conforming_strings", "off")];
        assert_eq!(check(&[], &old), Err(Number::SessionSetting));
    }
}
