//! EXPLAIN: our own plan in front of PostgreSQL's, or alone.

use super::extended::{give_back_or_stop, shape};
use super::plans::Work;
use super::standing::Several;
use crate::backend::replies::Expect;
use crate::backend::settings::literal;
use crate::error::Report;
use crate::execute;
use crate::frontend::session::Session;
use crate::frontend::statements::Prepared;
use crate::frontend::trouble::{SessionError, Trouble};
use crate::names::{ShardId, ShardName};
use crate::planner::{self, Effect, Number, Plan, Refusal, Route};
use crate::sql::{explain, scan};
use crate::wire::decode;
use crate::wire::encode;
use crate::wire::frame::{Frame, FrameError, server_frames};

/// What an EXPLAIN is about.
pub(super) enum Explained<'t> {
    /// `EXPLAIN (PLAN)`: only what pgherd would do is asked for.
    Plan(&'t [u8]),
    /// A server is asked too.
    Run {
        statement: &'t [u8],
        analyze: bool,
        text: bool,
    },
}

/// What the text explains, where it is one EXPLAIN.
pub(super) fn read(text: &[u8]) -> Option<Explained<'_>> {
    if !scan::is_single(text, true) {
        return None;
    }
    let only = text.get(scan::split(text, true).first()?.clone())?;
    let found = explain::explain(only)?;
    let statement = only.get(found.statement)?;
    Some(if found.plan {
        Explained::Plan(statement)
    } else {
        Explained::Run {
            statement,
            analyze: found.analyze,
            text: found.text,
        }
    })
}

/// The plan of a statement that is run only where it is analyzed.
pub(super) fn without_effect(plan: Plan, analyze: bool) -> Plan {
    let effect = if analyze { plan.effect } else { Effect::Read };
    Plan { effect, ..plan }
}

/// The Parse message, without its name, of a statement that tells what was decided: so any protocol, portal and format is
/// a server's business.
pub(super) fn told(work: &Result<Work, Refusal>, shards: &[ShardName]) -> Vec<u8> {
    let lines = match work {
        Ok(Work::Plan(plan)) if plan.must_fail => {
            vec!["it names a relation that does not exist: PostgreSQL raises the error".to_owned()]
        }
        Ok(Work::Plan(plan)) => vec![planner::explain(plan, shards)],
        Ok(Work::Command | Work::Cursor) => {
            vec!["a command of the session or its transaction".to_owned()]
        }
        Ok(Work::Empty) => vec!["nothing to do".to_owned()],
        Err(refusal) => {
            let more = [("Detail", refusal.detail()), ("Hint", refusal.advice())];
            let more = more
                .into_iter()
                .filter_map(|(name, text)| text.map(|text| format!("{name}: {text}")));
            std::iter::once(refusal.to_string()).chain(more).collect()
        }
    };
    let mut tail = rows_of(&lines);
    tail.extend_from_slice(b"\0\0\0");
    tail
}

/// A statement whose rows are these lines, whatever the settings.
pub fn rows_of(lines: &[String]) -> Vec<u8> {
    let mut text = b"SELECT line AS \"QUERY PLAN\" FROM (VALUES ".to_vec();
    for (index, line) in lines.iter().enumerate() {
        text.extend_from_slice(if index == 0 { b"(" } else { b",(" });
        literal(&mut text, line);
        text.push(b')');
    }
    text.extend_from_slice(b") AS plan(line)");
    text
}

impl Session {
    fn line(&self, plan: &Plan, shard: Option<ShardId>) -> String {
        let names: Vec<ShardName> = self.shard_names();
        let line = planner::explain(plan, &names);
        match shard.and_then(|shard| names.get(shard.index())) {
            Some(name) if matches!(plan.route, Route::Key { .. }) => format!("{line}, here {name}"),
            _ => line,
        }
    }

    fn shard_names(&self) -> Vec<ShardName> {
        let shards = self.database.config.shards.iter();
        shards.map(|shard| shard.name.clone()).collect()
    }

    /// An EXPLAIN by a Query message, on the server that is held.
    pub(super) async fn explain_simple(
        &mut self,
        message: &[u8],
        plan: &Plan,
    ) -> Result<(), Trouble> {
        if let Some(held) = &mut self.held {
            held.server.unnamed = None;
            held.server.outbox().extend_from_slice(message);
        }
        self.expect(Expect::Query);
        self.explained(plan).await?;
        self.settle().await
    }

    /// An EXPLAIN by an Execute message for a portal on the server that is held.
    pub(super) async fn explain_portal(
        &mut self,
        message: &[u8],
        plan: &Plan,
    ) -> Result<(), Trouble> {
        self.settle().await?;
        if self.is_skipping() {
            return Ok(());
        }
        if let Some(held) = &mut self.held {
            held.server.outbox().extend_from_slice(message);
            held.server.outbox().extend_from_slice(encode::FLUSH);
        }
        self.expect(Expect::Execute);
        self.explained(plan).await
    }

    /// Waits for the answer, and puts our own line in front of its rows.
    async fn explained(&mut self, plan: &Plan) -> Result<(), Trouble> {
        let shard = self.held.as_ref().map(|held| held.shard);
        let line = self.line(plan, shard);
        let Some(held) = &mut self.held else {
            return Err(SessionError::Internal("no server is held").into());
        };
        let answer = execute::ask_watching(&mut self.client, &mut held.server).await?;
        let mut told = false;
        for frame in server_frames(&answer) {
            let Frame { tag, whole, .. } = frame?;
            if !told && matches!(tag, b'D' | b'C') {
                told = true;
                encode::text_row(self.client.outbox(), line.as_bytes());
            }
            self.client.outbox().extend_from_slice(whole);
        }
        Ok(())
    }

    /// An EXPLAIN of what runs on several shards: the plan of each. Gives no RowDescription and no end.
    pub(super) async fn explain_several(
        &mut self,
        several: &Several,
        prepared: &Prepared,
    ) -> Result<(), Trouble> {
        let Work::Plan(plan) = super::extended::work(prepared)? else {
            return Err(SessionError::Internal("not planned").into());
        };
        let types = shape(prepared)?.description.get();
        let has_parameters = types.is_some_and(|it| !it.parameter_types.is_empty());
        if shape(prepared)?.explained != Some(true) || has_parameters {
            return Err(Refusal::new(Number::ExplainOverShards).into());
        }
        let mut rows = vec![self.line(plan, None).into_bytes()];
        let names = self.shard_names();
        for shard in self.shards_of(several) {
            let name = names.get(shard.index()).map(ToString::to_string);
            rows.push(format!("shard {}:", name.unwrap_or_default()).into_bytes());
            let pool = self.pool(shard)?;
            let mut server = self.borrow(&pool).await?;
            server.send_query(prepared.text(), Expect::Query, &mut Vec::new());
            let asked = self.ask_aside(&mut server).await;
            give_back_or_stop(&pool, server);
            for line in lines(&asked?)?? {
                rows.push([b"  ", line.as_slice()].concat());
            }
        }
        for row in rows {
            encode::text_row(self.client.outbox(), &row);
        }
        Ok(())
    }
}

/// The first column of all rows, or the error.
fn lines(answer: &[u8]) -> Result<Result<Vec<Vec<u8>>, Trouble>, FrameError> {
    let mut lines = Vec::new();
    for frame in server_frames(answer) {
        let Frame { tag, body, whole } = frame?;
        match tag {
            b'E' => return Ok(Err(Trouble::Relay(whole.to_vec()))),
            b'D' => {
                let columns = decode::data_row(body)?;
                lines.push(
                    columns
                        .first()
                        .copied()
                        .flatten()
                        .unwrap_or_default()
                        .to_vec(),
                );
            }
            _ => {}
        }
    }
    Ok(Ok(lines))
}
