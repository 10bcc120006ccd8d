//! One logged-in client: takes its messages in order, puts each where it belongs, and moves bytes until there is more
//! to do.
//!
//! The session holds at most one server, and only while something is owed, a transaction is open or the session is
//! pinned. Messages are put into the server's outbox one after the other and sent together when no more are there; the
//! replies come while further messages are read. Surprising: an answer of our own takes its place behind what the
//! server still owes ([`Replies::expect`](crate::backend::replies::Replies::expect)).

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::database::{Database, Gate};
use super::listening::Listening;
use super::sharded::Sharded;
use super::state::SessionState;
use super::statements::Statements;
use super::transaction::Transaction;
use super::trouble::{End, SessionError, Trouble};
use super::waiting::{Patience, watching};
use crate::backend::pool::Pool;
use crate::backend::replies::Expect;
use crate::backend::rescue::Remains;
use crate::backend::server::{Lost, Server};
use crate::backend::settings::Settings;
use crate::backend::worker::{Worker, with_scratch};
use crate::config::{PoolMode, PoolSettings};
use crate::error::{Report, Severity};
use crate::execute::{self, poll_replies};
use crate::names::{ShardId, UserName};
use crate::registry::{Overdue, Phase, Registered};
use crate::wire::channel::Channel;
use crate::wire::decode::Status;
use crate::wire::encode;
use crate::wire::frame::{Frame, client_header, first_frame};

/// While more than this waits to be sent in one direction, the other end is not read. With one read on top it still fits into
/// a buffer that is lent (`wire::spares`); sockets have room of their own for what is on its way.
const BACKLOG_BYTES_MAX: usize = 16 * 1024;

/// Turns of a client that never pauses before others are looked at.
const TURNS_MAX: u32 = 16;

/// The text of a Query that is sent to fail, so that the server ends the transaction where we refuse a statement.
const POISON: &[u8] = b"pgherd refuses this statement";

/// Why a session keeps its server where the pool's mode says so.
pub(super) const SESSION_MODE: &str = "session mode";

/// A borrowed server.
pub(super) struct Held {
    pub shard: ShardId,
    pub pool: Arc<Pool>,
    pub server: Box<Server>,
}

pub(super) struct Session {
    pub client: Channel,
    pub worker: Arc<Worker>,
    pub gate: Arc<Gate>,
    pub database: Arc<Database>,
    pub entry: Registered,
    pub user: UserName,
    pub settings: Arc<Settings>,
    /// Of this user on this database.
    pub pool_settings: Arc<PoolSettings>,
    pub statements: Statements,
    pub transaction: Transaction,
    pub held: Option<Held>,
    /// Why the session keeps its server, if it does.
    pub pinned: Option<&'static str>,
    /// The next message changes how the server reads statements, or drops those that it has.
    pub rereads: bool,
    /// An extended message failed without a server; all is ignored until Sync.
    pub skipping: bool,
    pub sharded: Sharded,
    pub state: SessionState,
    /// Some time-out holds for it.
    timed: bool,
    /// It had to wait for somebody since the turns were last counted, so others had theirs.
    paused: bool,
    /// What the server at hand had ended when the current statement began.
    progress: u64,
    /// What it listens to, if it does.
    pub(super) listening: Option<Box<Listening>>,
    /// The pools of this user, by shard, as far as they were needed.
    pools: Vec<Option<Arc<Pool>>>,
}

impl Session {
    pub fn new(
        client: Channel,
        worker: Arc<Worker>,
        gate: Arc<Gate>,
        database: Arc<Database>,
        entry: Registered,
        settings: Arc<Settings>,
    ) -> Self {
        let state = SessionState::new(Arc::clone(&settings));
        let pools = database.config.shards.iter().map(|_| None).collect();
        let pool_settings = database.settings_of(&entry.user);
        let keeps = pool_settings.mode == PoolMode::Session;
        let timed = entry.is_timed();
        let pinned = keeps.then_some(SESSION_MODE);
        Self {
            client,
            worker,
            gate,
            user: entry.user.clone(),
            database,
            entry,
            settings,
            pool_settings,
            statements: Statements::default(),
            transaction: Transaction::Idle,
            held: None,
            pinned,
            rereads: false,
            skipping: false,
            sharded: Sharded::default(),
            state,
            timed,
            paused: false,
            progress: 0,
            listening: None,
            pools,
        }
    }

    /// Serves the client to the end of its session. An idle client costs what this future is large, so whatever rarely
    /// waits for long waits in a box of its own.
    pub async fn run(mut self: Box<Self>) -> End {
        std::future::poll_fn(|cx| {
            self.entry.listen(cx.waker());
            Poll::Ready(())
        })
        .await;
        let end = self.work_in_time().await;
        self.leave(&end).await;
        end
    }

    /// All turns, of which nothing more is done once the time is up.
    async fn work_in_time(&mut self) -> End {
        let (entry, timed) = (Arc::clone(&self.entry), self.timed);
        let mut work = std::pin::pin!(self.work());
        std::future::poll_fn(|cx| {
            if entry.is_cut_off() {
                return Poll::Ready(End::OutOfTime);
            }
            if let Poll::Ready(end) = work.as_mut().poll(cx) {
                return Poll::Ready(end);
            }
            // In the middle of something that waits for a server which says nothing any more, and does not look itself.
            if timed
                && let Some(overdue @ (Overdue::Cancel | Overdue::Transaction)) = entry.overdue()
            {
                return Poll::Ready(End::Overdue(overdue));
            }
            Poll::Pending
        })
        .await
    }

    async fn work(&mut self) -> End {
        let mut turns = 0;
        loop {
            if let Err(end) = self.turn().await {
                return end;
            }
            turns = if std::mem::take(&mut self.paused) {
                0
            } else {
                turns + 1
            };
            if turns == TURNS_MAX {
                self.paused = true;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes all whole messages that are there, then moves bytes until there are more.
    async fn turn(&mut self) -> Result<(), End> {
        let received = self.client.take_received();
        let mut at = 0;
        let taken = self.take_messages(&received, &mut at).await;
        let more = self.client.put_back(received, at);
        taken?;
        if more {
            // It came while the session waited for a server, so no socket will tell of it again.
            return Ok(());
        }
        let pumped = self.pump().await;
        self.database
            .metrics
            .sent_bytes
            .add(self.client.take_written());
        match pumped {
            Err(Trouble::Lost(lost)) => self.server_lost(lost)?,
            Err(Trouble::End(end)) => return Err(end),
            Err(_) | Ok(()) => {}
        }
        if self.must_ask() {
            match Box::pin(self.read_state()).await {
                Err(Trouble::Lost(lost)) => return Err(End::Bereft(lost)),
                Err(Trouble::End(end)) => return Err(end),
                Err(_) | Ok(()) => {}
            }
        }
        Ok(())
    }

    async fn take_messages(&mut self, received: &[u8], at: &mut usize) -> Result<(), End> {
        let limit = self.gate.message_bytes_max;
        loop {
            let rest = received.get(*at..).unwrap_or_default();
            let frame =
                first_frame(rest, |bytes| client_header(bytes, limit)).map_err(End::Malformed)?;
            let Some(frame) = frame else { return Ok(()) };
            *at += frame.whole.len();
            match self.take(frame).await {
                Ok(()) | Err(Trouble::Skipped) => {}
                Err(Trouble::End(end)) => return Err(end),
                Err(Trouble::Lost(lost)) => self.server_lost(lost)?,
                Err(Trouble::Tell(report)) => self.tell(frame.tag, &*report).await?,
                Err(Trouble::Refuse(refusal)) => {
                    self.database.metrics.refusal(refusal.number.value());
                    self.tell(frame.tag, &refusal).await?;
                }
                Err(Trouble::Relay(error)) => self.refuse(frame.tag, error).await?,
            }
        }
    }

    async fn take(&mut self, frame: Frame<'_>) -> Result<(), Trouble> {
        if self.timed {
            self.entry.does(Phase::Query);
        }
        match frame.tag {
            b'X' => {
                // What was sent before is answered first.
                self.settle().await?;
                self.flush_what_is_taken().await;
                Err(End::Left.into())
            }
            _ if self.database.config.is_sharded() => match self.take_sharded_at_once(frame) {
                Some(taken) => taken,
                None => self.take_sharded(frame).await,
            },
            _ => self.take_single(frame).await,
        }
    }

    /// Moves bytes in all directions until the client has sent something new.
    async fn pump(&mut self) -> Result<(), Trouble> {
        std::future::poll_fn(|cx| self.poll_pump(cx)).await
    }

    fn poll_pump(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        loop {
            if self.entry.is_asked_to_end() && self.is_at_rest() {
                return Poll::Ready(Err(End::Asked.into()));
            }
            if self.must_ask() {
                return Poll::Ready(Ok(()));
            }
            if self.timed {
                self.keep_time()?;
            }
            if self.listening.is_some()
                && let Err(error) = self.pass_on_notifications(cx)
            {
                return Poll::Ready(Err(End::Broken(error).into()));
            }
            let mut backlog = self.client.unsent_bytes();
            if let Some(held) = &mut self.held {
                if self.pinned.is_none() && held.server.is_idle() {
                    // Borrowed for a message that then failed before it was sent.
                    self.settled();
                    continue;
                }
                match poll_replies(cx, &mut self.client, &mut held.server) {
                    Poll::Ready(Ok(())) => {
                        self.settled();
                        continue;
                    }
                    Poll::Ready(Err(broken)) => return Poll::Ready(Err(broken.into())),
                    Poll::Pending => {
                        backlog = held.server.unsent_bytes().max(self.client.unsent_bytes());
                    }
                }
            } else if let Poll::Ready(Err(error)) = self.client.poll_flush(cx) {
                return Poll::Ready(Err(End::Broken(error).into()));
            }
            if backlog > BACKLOG_BYTES_MAX {
                return Poll::Pending;
            }
            return match with_scratch(|scratch| self.client.poll_receive(cx, scratch)) {
                Poll::Pending => {
                    self.paused = true;
                    Poll::Pending
                }
                Poll::Ready(Ok(0)) => Poll::Ready(Err(End::Left.into())),
                Poll::Ready(Ok(count)) => {
                    self.database.metrics.received_bytes.add(count as u64);
                    Poll::Ready(Ok(()))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(End::Broken(error).into())),
            };
        }
    }

    /// Notes what the client does, and ends what took too long.
    fn keep_time(&mut self) -> Result<(), Trouble> {
        match (self.entry.overdue(), &mut self.held) {
            (Some(Overdue::Query), Some(held)) if !held.server.replies.settled() => {
                if self.entry.cancel_overdue() {
                    let report = SessionError::Overdue(Overdue::Query);
                    let mut error = Vec::new();
                    encode::error(&mut error, &report);
                    held.server.replies.overdue = Some(error.into());
                    self.database
                        .metrics
                        .error(report.sqlstate().code(), report.blame().as_str());
                }
            }
            (Some(Overdue::Query) | None, _) => {}
            (Some(overdue), _) => return Err(End::Overdue(overdue).into()),
        }
        let in_transaction = !self.is_at_rest();
        match &self.held {
            Some(held) if !held.server.replies.settled() => {
                let progress = held.server.replies.progress();
                if std::mem::replace(&mut self.progress, progress) == progress {
                    self.entry.does(Phase::Query);
                } else {
                    self.entry.goes_on();
                }
            }
            _ if in_transaction => self.entry.does(Phase::InTransaction),
            _ => self.entry.does(Phase::Idle),
        }
        Ok(())
    }

    /// Nothing is owed to the client and it has no transaction.
    pub(super) fn is_at_rest(&self) -> bool {
        self.transaction.is_idle() && self.held.as_ref().is_none_or(|held| held.server.is_idle())
    }

    /// Everything sent to the server was answered: gives it back unless the client still needs it.
    fn settled(&mut self) {
        let Some(held) = &mut self.held else { return };
        let failed = held.server.take_failed_parses();
        if !failed.is_empty() {
            self.statements.parse_failed(&failed);
        }
        let unclosed = std::mem::take(&mut held.server.replies.unclosed);
        if unclosed > 0 {
            self.statements.reopen(unclosed);
        }
        for (id, told) in held.server.replies.descriptions.told.drain(..) {
            let transaction = self.state.reread;
            if !self
                .statements
                .described(id, told, &self.settings, transaction)
            {
                held.server.replies.outdated_plan = true;
            }
        }
        if std::mem::take(&mut held.server.replies.outdated_plan) {
            self.database.forget_statements();
        }
        let done = std::mem::take(&mut held.server.replies.counted);
        self.sharded.confirm(done);
        if held.server.replies.unsynced() {
            return;
        }
        self.statements.confirm();
        let status = held.server.replies.status;
        self.stands(status);
        let Some(held) = &self.held else { return };
        if self.pinned.is_none() && held.server.is_idle() && !self.must_ask() {
            self.give_back();
        }
    }

    pub fn give_back(&mut self) {
        if let Some(mut held) = self.held.take() {
            self.entry.gave_back();
            self.state.reread = false;
            held.server.replies.quiet_channels.clear();
            self.worker.metrics.transactions.add(1);
            held.pool.give_back(held.server);
        }
    }

    /// Waits until the server has answered all that was sent; afterwards the session holds it only if it must.
    pub async fn settle(&mut self) -> Result<(), Trouble> {
        if let Some(held) = &mut self.held {
            if held.server.replies.unsynced() && !held.server.replies.settled() {
                // Without it the server keeps its answers to itself until Sync.
                held.server.outbox().extend_from_slice(encode::FLUSH);
            }
            execute::settle(&mut self.client, &mut held.server).await?;
            self.settled();
        }
        Ok(())
    }

    pub fn pool(&mut self, shard: ShardId) -> Result<Arc<Pool>, Trouble> {
        let slot = self
            .pools
            .get_mut(shard.index())
            .ok_or(SessionError::Internal("no such shard"))?;
        if let Some(pool) = slot {
            return Ok(Arc::clone(pool));
        }
        let pool = self
            .database
            .pools
            .pool(shard, &self.user)
            .ok_or(SessionError::Internal("no such shard"))?;
        *slot = Some(Arc::clone(&pool));
        Ok(pool)
    }

    async fn wait_for_server(&mut self, pool: &Arc<Pool>) -> Result<Box<Server>, Trouble> {
        let settings = &self.pool_settings;
        let tells = self.wants_notices() && settings.wait_notice < settings.wait_timeout;
        let patience = Patience {
            may_end: self.held.is_none(),
            notice_after: Some(settings.wait_notice).filter(|after| tells && !after.is_zero()),
        };
        let checkout = pool.checkout(&self.worker, settings.wait_timeout);
        watching(&self.entry, &mut self.client, patience, checkout).await
    }

    /// Borrows a server of this shard, with the client's settings in force on it. Not where memory is short, unless
    /// it is for what has begun.
    pub async fn borrow(&mut self, pool: &Arc<Pool>) -> Result<Box<Server>, Trouble> {
        if self.gate.memory.is_full() && self.held.is_none() {
            self.database.metrics.out_of_memory("transaction");
            return Err(self.gate.memory.refusal().into());
        }
        let mut server = match pool.checkout_at_once(&self.worker) {
            Some(server) => server,
            None => self.wait_for_server(pool).await?,
        };
        server.is_lent_to(self.entry.pid);
        if self.database.uses_sequences() && server.has_foreign_sequences() {
            server.forget_sequences();
        }
        // What looks at the server's parameters next must find this client's.
        let waits = self.may_listen() || self.is_to_restore();
        if !waits && server.adopt_at_once(&self.settings) {
            return Ok(server);
        }
        self.entry.borrowed(server.identity());
        let adopted = Box::pin(self.adopt(&mut server)).await;
        self.entry.gave_back_one(server.identity());
        match adopted {
            Ok(settings) => {
                self.settings = settings;
                Ok(server)
            }
            Err(lost @ Trouble::Tell(_)) => Err(lost),
            Err(trouble) => {
                // Some of the settings may be in force, and it may still be at work for them.
                pool.rescue(server, Remains::State);
                Err(trouble)
            }
        }
    }

    /// Puts the client's settings in force on a server that the session does not hold yet. This may take as long as any
    /// statement, for a statement of PREPARE may wait for a lock: so it ends with the client and by its time-outs.
    async fn adopt(&mut self, server: &mut Server) -> Result<Arc<Settings>, Trouble> {
        let settings = Arc::clone(&self.settings);
        let mut work = std::pin::pin!(server.adopt(&settings));
        std::future::poll_fn(|cx| {
            loop {
                if let Poll::Ready(adopted) = work.as_mut().poll(cx) {
                    return Poll::Ready(match adopted {
                        Ok(Ok(settings)) => Ok(settings),
                        Ok(Err(error)) => Err(Trouble::Relay(error)),
                        // The session does not hold this server yet, so its loss is an error like others.
                        Err(lost) => Err(Trouble::Tell(Box::new(lost))),
                    });
                }
                match self.entry.overdue() {
                    Some(Overdue::Query) | None => {}
                    Some(overdue) => return Poll::Ready(Err(End::Overdue(overdue).into())),
                }
                if let Err(error) = ready!(execute::poll_presence(cx, &mut self.client)) {
                    return Poll::Ready(Err(End::Broken(error).into()));
                }
            }
        })
        .await
    }

    /// Holds a server of this shard; nothing to do where it is the one at hand.
    pub async fn hold(&mut self, shard: ShardId) -> Result<&mut Held, Trouble> {
        if self.held.as_ref().is_none_or(|held| held.shard != shard) {
            let pool = self.pool(shard)?;
            let server = self.borrow(&pool).await?;
            self.entry.borrowed(server.identity());
            self.held = Some(Held {
                shard,
                pool,
                server,
            });
        }
        self.held
            .as_mut()
            .ok_or_else(|| SessionError::Internal("no server is held").into())
    }

    async fn tell(&mut self, tag: u8, report: &(dyn Report + Sync)) -> Result<(), End> {
        let mut error = Vec::new();
        encode::error_with_severity(&mut error, report, Severity::Error);
        self.database
            .metrics
            .error(report.sqlstate().code(), report.blame().as_str());
        self.refuse(tag, error).await
    }

    /// Tells an error in its place. A server in a transaction is made to fail it, so that it stands where the client
    /// believes to stand.
    async fn refuse(&mut self, tag: u8, error: Vec<u8>) -> Result<(), End> {
        let simple = matches!(tag, b'Q' | b'F');
        if self
            .held
            .as_ref()
            .is_some_and(|held| simple || !held.server.replies.unsynced())
        {
            match self.settle().await {
                Err(Trouble::Lost(lost)) => self.server_lost(lost)?,
                Err(Trouble::End(end)) => return Err(end),
                Ok(()) | Err(_) => {}
            }
            if simple && self.is_skipping() {
                // What came before has failed meanwhile, so this was ignored.
                return Ok(());
            }
        }
        if let Some(held) = &mut self.held
            && (held.server.replies.unsynced() || held.server.replies.status != Status::Idle)
        {
            let (server, answers) = (&mut held.server, self.client.outbox());
            if simple {
                server.send_query(POISON, Expect::PoisonQuery(error.into()), answers);
            } else {
                server.unnamed = None;
                encode::parse(server.outbox(), b"", &[POISON, b"\0\0\0"].concat());
                server
                    .replies
                    .expect(Expect::PoisonParse(error.into()), answers);
            }
            return Ok(());
        }
        self.transaction.fail();
        let status = self.transaction.status();
        self.client.outbox().extend_from_slice(&error);
        if simple {
            encode::ready_for_query(self.client.outbox(), status);
        } else {
            self.skipping = true;
        }
        Ok(())
    }

    /// The server is gone: the client gets one error for each request that it waits for, and its session lives on. Not
    /// so where the server had state of this session that nobody can bring back, such as a role or a search path.
    pub(super) fn server_lost(&mut self, lost: Lost) -> Result<(), End> {
        let Some(held) = self.held.take() else {
            return Ok(());
        };
        self.entry.gave_back();
        held.pool.metrics.losses.increment(1);
        tracing::warn!(
            database = %self.database.config.name, shard = %held.pool.shard(), client = self.entry.pid,
            error = %lost, detail = lost.detail(), "a server was lost while a client had it"
        );
        if held.server.replies.is_mid_message() {
            return Err(End::Cut(lost));
        }
        if matches!(lost, Lost::Outdated) {
            self.database.forget_statements();
        }
        // What was sent to begin a transaction need not be answered yet.
        let in_block = self.loses_block();
        let in_transaction = held.server.replies.status != Status::Idle || in_block;
        let (answers, unsynced) = held.server.replies.owed();
        let in_flight = answers > 0 || unsynced;
        let unread = self.loses_unread_state(in_flight) && !in_transaction;
        if self.pinned.is_some() || unread {
            return Err(End::Bereft(lost));
        }
        let mut error = Vec::new();
        encode::error(&mut error, &lost);
        if answers > 0 || unsynced {
            self.database
                .metrics
                .error(lost.sqlstate().code(), lost.blame().as_str());
            if in_transaction {
                self.transaction = Transaction::Failed { untold: None };
            }
        } else if in_transaction {
            self.transaction = Transaction::Failed { untold: Some(lost) };
        }
        let status = self.transaction.status();
        let mut told = held.server.replies.told_error();
        for _ in 0..answers {
            if !std::mem::take(&mut told) {
                self.client.outbox().extend_from_slice(&error);
            }
            encode::ready_for_query(self.client.outbox(), status);
        }
        if unsynced {
            if !told {
                self.client.outbox().extend_from_slice(&error);
            }
            self.skipping = true;
        }
        Ok(())
    }

    /// The end of the session: its last words, and the server goes back to its pool.
    async fn leave(&mut self, end: &End) {
        if self.is_between_messages() {
            match end {
                End::Malformed(error) => self.say_last(error).await,
                End::Bereft(lost) => self.say_last(lost).await,
                End::Asked | End::OutOfTime => self.say_last(&SessionError::Ended).await,
                End::Overdue(overdue) => self.say_last(&SessionError::Overdue(*overdue)).await,
                End::Left | End::Broken(_) | End::Cut(_) => {}
            }
        }
        self.leaves_definitions();
        let remains = self.remains();
        self.rescue_parked(remains);
        if let Some(held) = self.held.take() {
            self.entry.gave_back();
            held.pool.rescue(held.server, remains);
        } else if self.entry.has_servers() {
            // Those of every shard, where the end came in the middle of it.
            Box::pin(self.entry.cancel()).await;
        }
    }

    /// The client has no beginning of a message. Not sure, and so `false`, where servers are at work that the session
    /// does not hold.
    fn is_between_messages(&self) -> bool {
        match &self.held {
            Some(held) => !held.server.replies.is_mid_message(),
            None => !self.entry.has_servers(),
        }
    }

    async fn say_last(&mut self, report: &(dyn Report + Sync)) {
        self.database
            .metrics
            .error(report.sqlstate().code(), report.blame().as_str());
        encode::error_with_severity(self.client.outbox(), report, Severity::Fatal);
        self.flush_what_is_taken().await;
    }

    /// Best effort: who does not read does not get it.
    async fn flush_what_is_taken(&mut self) {
        std::future::poll_fn(|cx| {
            let _ = self.client.poll_flush(cx);
            Poll::Ready(())
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every client costs, idle ones too, besides the session itself.
    const FUTURE_BYTES_MAX: usize = 1_424;

    fn size_of_future<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_a_session_is_small() {
        let bytes = size_of_future(Session::run);
        assert!(bytes <= FUTURE_BYTES_MAX, "{bytes}");
    }
}
