//! A transaction on several shards: one server is held, the others are parked beside it and change places with it.
//!
//! Shards join as they are needed and are told what the client did so far. At most one of them was written, so its
//! COMMIT decides, and those of the others cannot fail in a way that loses anything. What would surprise: when a
//! statement fails, the parked servers are not told. Until the transaction ends or goes back to a savepoint all goes to
//! the held one, which refuses it.

use super::command::only_statement;
use super::extended::described_rows;
use super::plans::Description;
use super::standing::Several;
use super::{AUTHORITATIVE, Block};
use crate::backend::replies::Expect;
use crate::backend::rescue::{self, Remains};
use crate::backend::server::Server;
use crate::backend::settings::changes_reading;
use crate::execute::{self, Broken, Part};
use crate::frontend::session::{Held, Session};
use crate::frontend::statements::Prepared;
use crate::frontend::transaction::{Step, Transaction};
use crate::frontend::trouble::{End, SessionError, Trouble};
use crate::names::ShardId;
use crate::planner::{Effect, Number, Refusal};
use crate::sql::scan::{Modes, Verb, verb};
use crate::wire::decode::Status;
use crate::wire::encode;
use crate::wire::frame::{Frame, server_frames};

/// How the client sent a command.
pub(super) enum Message<'a> {
    /// The whole message.
    Query(&'a [u8]),
    Execute,
}

/// What a command means for the servers of a transaction.
enum Deed {
    Ends {
        commits: bool,
        chain: bool,
    },
    /// All of them do it.
    Everywhere(Step),
    Other,
}

impl Deed {
    fn of(text: &[u8]) -> Deed {
        Deed::Everywhere(match verb(text) {
            Verb::Commit {
                chain,
                well_formed: true,
            } => {
                return Deed::Ends {
                    commits: true,
                    chain,
                };
            }
            Verb::Rollback {
                chain,
                well_formed: true,
            } => {
                return Deed::Ends {
                    commits: false,
                    chain,
                };
            }
            Verb::Savepoint { name } => Step::Savepoint(name.into_owned()),
            Verb::Release { name } => Step::Release(name.into_owned()),
            Verb::RollbackTo { name } => Step::RollBackTo(name.into_owned()),
            Verb::SetTransaction {
                well_formed: true, ..
            } => Step::Modes(text.to_vec()),
            // A warning, and yet its modes are set.
            Verb::Begin {
                modes,
                well_formed: true,
            } if modes != Modes::default() => Step::Modes(text.to_vec()),
            Verb::SetLocal { name } => Step::Local {
                text: text.to_vec(),
                rereads: changes_reading(&name),
            },
            Verb::SetSession { name } => Step::Set {
                text: text.to_vec(),
                rereads: changes_reading(&name),
            },
            Verb::SetConstraints => Step::Local {
                text: text.to_vec(),
                rereads: false,
            },
            _ => return Deed::Other,
        })
    }
}

impl super::Sharded {
    /// What was sent is answered; so many of the commands that are kept account of have succeeded.
    pub(in crate::frontend) fn confirm(&mut self, done: usize) {
        self.begun.confirm(done);
    }
}

impl Session {
    pub(super) fn is_spread(&self) -> bool {
        !self.sharded.parked.is_empty()
    }

    /// The parked servers are needed no more: whatever they are in the middle of is rolled back.
    pub(in crate::frontend) fn rescue_parked(&mut self, remains: Remains) {
        for Held { pool, server, .. } in std::mem::take(&mut self.sharded.parked) {
            self.entry.gave_back_one(server.identity());
            pool.rescue(server, remains);
        }
    }

    /// A message for the parked server of this shard, whose answer nobody needs to see.
    pub(super) fn send_to_parked(&mut self, shard: ShardId, message: &[u8], expect: Expect) {
        let mut parked = self.sharded.parked.iter_mut();
        if let Some(parked) = parked.find(|parked| parked.shard == shard) {
            parked.server.send(message, expect, &mut Vec::new());
        }
    }

    /// Waits for answers up to the last Sync that was sent: an error before it concerns nothing that comes behind.
    /// `false`: what was sent behind it has failed.
    pub(super) async fn settle_syncs(&mut self) -> Result<bool, Trouble> {
        let syncing = |held: &Held| held.server.replies.syncing();
        if self.held.as_ref().is_some_and(syncing) {
            Box::pin(self.settle_earlier()).await?;
        }
        Ok(!self.is_skipping())
    }

    /// Waits for the answers to earlier messages. The loss of their server is told in their place, and concerns the
    /// message at hand only where it needs the transaction that is lost.
    pub(in crate::frontend) async fn settle_earlier(&mut self) -> Result<(), Trouble> {
        match self.settle().await {
            Err(Trouble::Lost(lost)) => Ok(self.server_lost(lost)?),
            settled => settled,
        }
    }

    /// A transaction of which the server was lost goes on nowhere.
    pub(in crate::frontend) fn check_not_failed(&mut self) -> Result<(), Trouble> {
        match &mut self.transaction {
            Transaction::Failed { untold } => Err(match untold.take() {
                Some(lost) => Trouble::Tell(Box::new(lost)),
                None => SessionError::InFailedTransaction.into(),
            }),
            Transaction::Idle | Transaction::Begun(_) => Ok(()),
        }
    }

    /// Waits until the held server has answered all, and syncs it: another one is to have its turn. `false`: what was
    /// sent to it has failed, and all is ignored up to the client's Sync.
    async fn pause(&mut self) -> Result<bool, Trouble> {
        if !self.settle_syncs().await? {
            return Ok(false);
        }
        self.check_not_failed()?;
        let Some(Held { server, .. }) = &mut self.held else {
            return Ok(true);
        };
        if server.replies.unsynced() {
            let errors = server.replies.errors();
            server.send(encode::SYNC, Expect::HiddenSync, self.client.outbox());
            execute::settle(&mut self.client, server).await?;
            self.skipping |= server.replies.errors() != errors;
        }
        self.settle().await?;
        Ok(!self.skipping)
    }

    /// The transaction goes on on another shard, which joins it where it must. `false`: see [`Session::pause`].
    pub(super) async fn go_to(&mut self, shard: ShardId) -> Result<bool, Trouble> {
        if !self.pause().await? {
            return Ok(false);
        }
        self.check_alive()?;
        if !self.takes_place(shard) {
            let number = if shard == AUTHORITATIVE {
                Number::CatalogElsewhere
            } else {
                Number::ShardsOfSnapshot
            };
            self.enlist(shard, number).await?;
            self.takes_place(shard);
        }
        Ok(true)
    }

    fn check_alive(&self) -> Result<(), Trouble> {
        match &self.held {
            Some(held) if held.server.replies.status == Status::InTransaction => Ok(()),
            Some(_) => Err(SessionError::InFailedTransaction.into()),
            None => Err(SessionError::Internal("the transaction has no server").into()),
        }
    }

    /// The parked server of this shard becomes the held one; `false` where there is none.
    fn takes_place(&mut self, shard: ShardId) -> bool {
        let Some(held) = &mut self.held else {
            return false;
        };
        let parked = &mut self.sharded.parked;
        if held.shard == shard {
            return true;
        }
        match parked.iter_mut().find(|parked| parked.shard == shard) {
            Some(parked) => {
                std::mem::swap(held, parked);
                true
            }
            None => false,
        }
    }

    /// Another shard joins the transaction. Its server is parked, and what it must be told is still to be sent.
    async fn enlist(&mut self, shard: ShardId, number: Number) -> Result<(), Trouble> {
        if !self.is_spread() {
            self.check_isolation(shard, number).await?;
        }
        if let Some(what) = self.sharded.stays {
            return Err(Refusal::about(Number::StepsUntold, what).into());
        }
        let prologue = self.sharded.begun.prologue();
        let prologue = prologue.ok_or_else(|| Refusal::new(Number::StepsUntold))?;
        let pool = self.pool(shard)?;
        let mut server = self.borrow(&pool).await?;
        self.entry.borrowed(server.identity());
        if self.sharded.begun.rereads() {
            server.forgets_all();
        }
        for text in prologue {
            server.send_prologue(&text, &mut Vec::new());
        }
        self.sharded.parked.push(Held {
            shard,
            pool,
            server,
        });
        Ok(())
    }

    /// Under REPEATABLE READ all statements see one moment, and no moment is the same on two shards. The default may come
    /// from anywhere, so the server is asked.
    async fn check_isolation(&mut self, shard: ShardId, number: Number) -> Result<(), Trouble> {
        let Some(Held { server, .. }) = &mut self.held else {
            return Err(SessionError::Internal("no server is held").into());
        };
        let show = b"SHOW transaction_isolation";
        server.send_query(show, Expect::Query, &mut Vec::new());
        // The client did not ask for this, so a loss is an error like others.
        let asked = execute::ask_watching(&mut self.client, server).await;
        let answer = self.or_abandon(asked.map_err(Trouble::from))?;
        for frame in server_frames(&answer) {
            let Frame { tag, body, whole } = frame?;
            match tag {
                b'E' => return Err(Trouble::Relay(whole.to_vec())),
                // Behind the number of columns and the length of the only one.
                b'D' => {
                    let level = body.get(6..).unwrap_or_default();
                    if level == b"read committed" || level == b"read uncommitted" {
                        return Ok(());
                    }
                    let level = String::from_utf8_lossy(level);
                    let what = format!("{level}, shard {}", self.shard_name(shard));
                    return Err(Refusal::about(number, what).into());
                }
                _ => {}
            }
        }
        Err(SessionError::Internal("a server does not tell its isolation level").into())
    }

    /// These shards join, in their order, so that no two sessions wait for each other without need. `false`: see
    /// [`Session::pause`].
    async fn enlist_all(&mut self, shards: &[ShardId]) -> Result<bool, Trouble> {
        if !self.is_in_block() {
            let first = shards.first().copied().unwrap_or(AUTHORITATIVE);
            if !self.stand_on(first, Effect::Read).await? {
                return Ok(false);
            }
        }
        if !self.pause().await? {
            return Ok(false);
        }
        self.check_alive()?;
        for &shard in shards {
            let is_it = |held: &Held| held.shard == shard;
            if !self.held.as_ref().is_some_and(is_it) && !self.sharded.parked.iter().any(is_it) {
                self.enlist(shard, Number::ScatterInTransaction).await?;
            }
        }
        Ok(true)
    }

    /// Runs a statement on several shards inside of the client's transaction; gives the number of rows.
    pub(super) async fn scatter_inside(
        &mut self,
        several: &Several,
        doubted: Option<(&Prepared, &Description)>,
        put: impl Fn(&mut Server, bool),
    ) -> Result<u64, Trouble> {
        let shards = self.shards_of(several);
        if !self.enlist_all(&shards).await? {
            return Err(Trouble::Skipped);
        }
        let held = self.held.take();
        let at = held.as_ref().map(|held| held.shard);
        let mut servers = std::mem::take(&mut self.sharded.parked);
        servers.extend(held);
        servers.sort_unstable_by_key(|held| held.shard);
        let needed = |held: &Held| shards.contains(&held.shard);
        let (mut servers, others): (Vec<Held>, Vec<Held>) = servers.into_iter().partition(needed);
        let ran = self.run_parts(&mut servers, doubted, put).await;
        for server in servers.into_iter().chain(others) {
            if Some(server.shard) == at {
                self.held = Some(server);
            } else {
                self.sharded.parked.push(server);
            }
        }
        self.or_abandon(ran)
    }

    /// [`Trouble::Lost`] is the loss of any of them.
    async fn run_parts(
        &mut self,
        servers: &mut [Held],
        doubted: Option<(&Prepared, &Description)>,
        put: impl Fn(&mut Server, bool),
    ) -> Result<u64, Trouble> {
        if let Some((prepared, description)) = doubted {
            for Held { server, .. } in servers.iter_mut() {
                self.check_description(server, prepared, description)
                    .await?;
            }
        }
        for (index, Held { server, .. }) in servers.iter_mut().enumerate() {
            put(server, index == 0);
        }
        let mut parts: Vec<&mut Server> =
            servers.iter_mut().map(|held| &mut *held.server).collect();
        let ended = execute::scatter(&mut self.client, &mut parts).await;
        for server in &mut parts {
            if std::mem::take(&mut server.replies.outdated_plan) {
                self.database.forget_statements();
            }
        }
        match ended {
            Ok(Part::Rows(rows)) => Ok(rows),
            Ok(Part::Failed(error)) => {
                for server in parts {
                    rescue::interrupt(server).await?;
                }
                Err(Trouble::Relay(error))
            }
            Err(Broken::Server(lost)) if parts.iter().any(|it| it.replies.is_mid_message()) => {
                Err(End::Cut(lost).into())
            }
            Err(broken) => Err(broken.into()),
        }
    }

    async fn check_description(
        &mut self,
        server: &mut Server,
        prepared: &Prepared,
        description: &Description,
    ) -> Result<(), Trouble> {
        if server.knows(prepared.id) {
            return Ok(());
        }
        server.send_describe(prepared.id, &prepared.tail, encode::SYNC);
        let answer = execute::ask_watching(&mut self.client, server).await?;
        match described_rows(&answer)? {
            Ok(rows) if description.fits(&rows) => Ok(()),
            Ok(_) => {
                server.unlearn(prepared.id);
                server.send(encode::SYNC, Expect::HiddenSync, &mut Vec::new());
                self.database.forget_statements();
                Err(SessionError::ResultTypeChanged.into())
            }
            Err(error) => Err(Trouble::Relay(error)),
        }
    }

    /// A transaction that has lost one of its servers has failed, and nothing of it is kept anywhere.
    fn or_abandon<T>(&mut self, ran: Result<T, Trouble>) -> Result<T, Trouble> {
        match ran {
            Err(Trouble::Lost(lost)) => {
                self.abandon();
                tracing::warn!(
                    database = %self.database.config.name, client = self.entry.pid,
                    error = %lost, detail = crate::error::Report::detail(&lost),
                    "a server was lost while a transaction on several shards had it"
                );
                Err(Trouble::Tell(Box::new(lost)))
            }
            ran => ran,
        }
    }

    fn abandon(&mut self) {
        let remains = self.remains();
        self.rescue_parked(remains);
        if let Some(Held { pool, server, .. }) = self.held.take() {
            self.entry.gave_back();
            pool.rescue(server, remains);
        }
        self.sharded = super::Sharded::default();
        self.transaction = Transaction::Failed { untold: None };
    }

    /// A command while the held server is in the client's transaction.
    pub(super) async fn command_inside(
        &mut self,
        message: Message<'_>,
        text: &[u8],
    ) -> Result<(), Trouble> {
        let statement = only_statement(text);
        let deed = Deed::of(statement);
        if let Deed::Ends { .. } = deed {
            // What was bound and not executed ends with it, also where no server knows of it.
            self.sharded.portals.clear();
        }
        match deed {
            Deed::Ends { commits, chain } if chain || self.is_spread() => {
                Box::pin(self.end_everywhere(message, text, commits, chain)).await
            }
            Deed::Ends { .. } => {
                self.pass_on_command(&message, text, Expect::Execute);
                self.sharded.block = Block::Ended;
                self.sharded.wrote = false;
                Ok(())
            }
            Deed::Everywhere(step) => {
                Box::pin(self.do_everywhere(message, text, statement, step)).await
            }
            Deed::Other => {
                if self.is_spread() {
                    // Should it end the transaction all the same, then where something can be lost.
                    if !Box::pin(self.pause()).await? {
                        return Ok(());
                    }
                    if let Some(writer) = self.sharded.writer
                        && self.check_alive().is_ok()
                    {
                        self.takes_place(writer);
                    }
                }
                self.pass_on_command(&message, text, Expect::Execute);
                Ok(())
            }
        }
    }

    fn pass_on_command(&mut self, message: &Message<'_>, text: &[u8], expect: Expect) {
        match message {
            Message::Query(message) => {
                if let Some(held) = &mut self.held {
                    held.server.unnamed = None;
                    held.server.outbox().extend_from_slice(message);
                }
                self.expect(Expect::Query);
            }
            Message::Execute => self.put_command(text, expect),
        }
    }

    async fn do_everywhere(
        &mut self,
        message: Message<'_>,
        text: &[u8],
        statement: &[u8],
        step: Step,
    ) -> Result<(), Trouble> {
        if self.is_spread() {
            if !self.pause().await? {
                return Ok(());
            }
            let alive = self.check_alive().is_ok();
            // A transaction that has failed does nothing else, and the held server says so.
            if alive || matches!(step, Step::RollBackTo(_)) {
                self.tell_parked(statement, step.rereads()).await?;
            }
        } else if !self.settle_syncs().await? {
            // Which step it is that succeeds has to be known.
            return Ok(());
        }
        let errors = |session: &Session| {
            let held = session.held.as_ref();
            held.map(|held| held.server.replies.errors())
        };
        let before = errors(self);
        self.pass_on_command(&message, text, Expect::CountedExecute);
        if let Message::Execute = message {
            self.sharded.begun.is_sent(step);
            return Ok(());
        }
        self.settle().await?;
        if errors(self) == before {
            self.sharded.begun.succeeds(step);
        }
        Ok(())
    }

    /// Runs a command on all parked servers. Where one of them fails, the held one is to fail, too.
    async fn tell_parked(&mut self, text: &[u8], rereads: bool) -> Result<(), Trouble> {
        let mut parked = std::mem::take(&mut self.sharded.parked);
        let told = self.tell_each(&mut parked, text, rereads).await;
        self.sharded.parked = parked;
        self.or_abandon(told)
    }

    async fn tell_each(
        &mut self,
        parked: &mut [Held],
        text: &[u8],
        rereads: bool,
    ) -> Result<(), Trouble> {
        for Held { server, .. } in parked.iter_mut() {
            if rereads {
                server.forgets_all();
            }
            server.replies.hidden_error = None;
            server.send_hidden_query(text);
        }
        let mut told = Ok(());
        for Held { server, .. } in parked.iter_mut() {
            execute::settle_watching(&mut self.client, server).await?;
            if let Some(error) = server.replies.hidden_error.take() {
                told = Err(Trouble::Relay(error));
            }
        }
        told
    }

    /// COMMIT or ROLLBACK of all. The one that wrote commits first; only when it has are the others committed.
    async fn end_everywhere(
        &mut self,
        message: Message<'_>,
        text: &[u8],
        commits: bool,
        chain: bool,
    ) -> Result<(), Trouble> {
        if !self.pause().await? {
            return Ok(());
        }
        let alive = self.check_alive().is_ok();
        if let Some(writer) = self.sharded.writer.filter(|_| alive) {
            self.takes_place(writer);
        }
        let parked = std::mem::take(&mut self.sharded.parked);
        let errors = |held: &Held| held.server.replies.errors();
        let before = self.held.as_ref().map(errors);
        self.pass_on_command(&message, text, Expect::Execute);
        if !chain {
            self.sharded.block = Block::Ended;
            self.sharded.wrote = false;
        }
        let ended = match &mut self.held {
            Some(held) => {
                if held.server.replies.unsynced() {
                    held.server.outbox().extend_from_slice(encode::FLUSH);
                }
                execute::settle(&mut self.client, &mut held.server).await
            }
            None => Ok(()),
        };
        let asks = self.is_to_ask();
        let done = ended.is_ok() && self.held.as_ref().map(errors) == before;
        for Held { pool, server, .. } in parked {
            self.entry.gave_back_one(server.identity());
            // It may have settings that nobody knows of; it has only read.
            if asks {
                pool.rescue(server, Remains::State);
            } else if alive && commits && done {
                pool.commit_and_take_back(server);
            } else {
                pool.rescue(server, Remains::Nothing);
            }
        }
        ended?;
        if chain && done {
            self.sharded.begun.chain();
            // A server that joined would not have what the transaction before has set.
            if self.is_to_ask() {
                self.sharded.stays = Some("settings of the transaction before AND CHAIN");
            }
            self.sharded.writer = None;
        }
        self.settle().await
    }
}
