//! LISTEN and NOTIFY in transaction mode: one connection listens for all clients ([`Hub`](crate::backend::listener)),
//! and the session passes on what its client listens to, whichever server it has at the moment.
//!
//! What the client listens to is decided by the server, as with settings: the hub is made to listen first, then the
//! statement runs as it is written, and once the transaction has ended the server says which channels it listens to.
//! It is made to stop then, and its own notifications are not shown, for they come from the hub. So that UNLISTEN and
//! DISCARD ALL have something to end, rolled back or not, a server is made to listen to the session's channels before
//! it gets a statement that may end them or begins a transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::session::{Held, Session};
use super::single::{ONLY, only_verb};
use super::trouble::{End, SessionError, Trouble};
use super::waiting::{Patience, watching};
use crate::backend::listener::{Subscription, named};
use crate::backend::mailbox::Mailbox;
use crate::backend::pool::PoolError;
use crate::backend::replies::Expect;
use crate::backend::server::Lost;
use crate::error::SqlState;
use crate::sql::listen::{Unlisten, unlistened};
use crate::sql::scan::{self, Verb};
use crate::wire::decode::Status;

/// Notifications that are passed on at once.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// Times that a server is told something.
const TRIES_MAX: usize = 3;

/// What a session listens to by way of a hub.
pub(super) struct Listening {
    mailbox: Arc<Mailbox>,
    channels: BTreeMap<Vec<u8>, Followed>,
    /// The server at hand listens to all channels that are sure.
    through_server: bool,
    /// UNLISTEN in a pipeline whose server does not: they count where nothing fails behind them.
    unlistened: Vec<Unlisten>,
    /// Errors of the server when the first of them was sent.
    errors_before: u64,
}

struct Followed {
    subscription: Subscription,
    /// The LISTEN was committed.
    sure: bool,
}

impl Listening {
    async fn new() -> Self {
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        Self {
            mailbox: Arc::new(Mailbox::new(waker)),
            channels: BTreeMap::new(),
            through_server: false,
            unlistened: Vec::new(),
            errors_before: 0,
        }
    }

    /// Keeps the channels that `stays` says, and drops what waits of the others.
    fn retain(&mut self, stays: impl Fn(&[u8], &Followed) -> bool) {
        let mut gone = BTreeSet::new();
        self.channels.retain(|name, followed| {
            let stays = stays(name, followed);
            if !stays {
                gone.insert(followed.subscription.id().0);
            }
            stays
        });
        if !gone.is_empty() {
            self.mailbox.forget(|channel| gone.contains(&channel.0));
        }
    }

    /// A transaction is open that has LISTEN in it: what was notified before it ends is not meant for it.
    fn forget_early_mail(&self) {
        let unsure = self.channels.values().filter(|followed| !followed.sure);
        let unsure: BTreeSet<_> = unsure.map(|it| it.subscription.id().0).collect();
        if !unsure.is_empty() {
            self.mailbox.forget(|channel| unsure.contains(&channel.0));
        }
    }

    fn has_sure_channels(&self) -> bool {
        self.channels.values().any(|followed| followed.sure)
    }

    fn has_unsure_channels(&self) -> bool {
        self.channels.values().any(|followed| !followed.sure)
    }

    /// The Query that makes a server listen to all that is sure.
    fn listen_to_all(&self) -> Vec<u8> {
        let sure = self.channels.iter().filter(|(_, followed)| followed.sure);
        sure.flat_map(|(name, _)| named(b";LISTEN ", name))
            .collect()
    }
}

impl Session {
    /// Whether [`Session::listen_ahead`] has something to do.
    pub(super) fn may_listen(&self) -> bool {
        self.listening.is_some() || !self.state.wanted.is_empty()
    }

    /// To be called before a text is sent: what it may listen to is listened to from now on, and what it may end is there
    /// to be ended.
    pub(super) async fn listen_ahead(&mut self, text: &[u8]) -> Result<(), Trouble> {
        let mut wanted = std::mem::take(&mut self.state.wanted);
        if self.is_in_failed_transaction() {
            return Ok(());
        }
        if let (Some(listening), Some(held)) = (&self.listening, &self.held) {
            let replies = &held.server.replies;
            if replies.settled() && !replies.unsynced() && replies.status != Status::Idle {
                listening.forget_early_mail();
            }
        }
        let follows = |name: &[u8]| {
            let listening = self.listening.as_ref();
            listening.is_some_and(|listening| listening.channels.contains_key(name))
        };
        wanted.retain(|name| !follows(name) && !self.state.own_channels.contains(name));
        if !wanted.is_empty()
            && let Err(trouble) = self.follow(wanted).await
        {
            // Any other text may not mean to listen, and the session keeps its server if it does.
            let is_listen = only_verb(text) == Verb::Listen;
            let is_hubs = matches!(&trouble, Trouble::Tell(report) if report.sqlstate() != SqlState::QUERY_CANCELED);
            if is_listen || !is_hubs {
                return Err(trouble);
            }
        }
        if !scan::is_plain_query(text) {
            self.listen_through_server().await?;
            self.note_unlisten(text);
        }
        let passes_on = |it: &Listening| it.through_server || it.has_unsure_channels();
        if self.listening.as_ref().is_some_and(|it| passes_on(it)) || self.pinned.is_some() {
            self.hold(ONLY).await?;
            self.quieten_server();
        }
        Ok(())
    }

    /// Subscribes to these channels, which is not sure before the client's transaction has ended.
    async fn follow(&mut self, names: Vec<Vec<u8>>) -> Result<(), Trouble> {
        // For as long as something is wanted, a server has the client's settings before it is lent.
        self.state.wanted.clone_from(&names);
        self.hold(ONLY).await?;
        self.state.wanted.clear();
        let Some(held) = &self.held else {
            return Ok(());
        };
        let reported = held.server.reported().iter();
        let encoding = reported
            .filter(|(name, _)| name == "client_encoding")
            .map(|(_, value)| value.clone())
            .next()
            .unwrap_or_default();
        let is_free = held.server.is_idle();
        if is_free
            && self.pinned.is_none()
            && !self.is_overtaken()
            && !self.listens_through_server()
        {
            // Others can have it while we wait.
            self.give_back();
        }
        let hub = self.database.pools.hub(&self.user, &encoding);
        let hub = hub.ok_or(SessionError::Internal("no such shard"))?;
        let mut listening = match self.listening.take() {
            Some(listening) => listening,
            None => Box::new(Listening::new().await),
        };
        let mailbox = Arc::clone(&listening.mailbox);
        let patience = Patience {
            may_end: self.held.is_none(),
            notice_after: None,
        };
        let subscribe = async {
            for name in names {
                if let Some(subscription) = hub.subscribe(&name, &mailbox).await? {
                    let followed = Followed {
                        subscription,
                        sure: false,
                    };
                    listening.channels.insert(name, followed);
                }
            }
            Ok::<_, PoolError>(())
        };
        let subscribed = watching(
            &self.entry,
            &mut self.client,
            patience,
            std::pin::pin!(subscribe),
        )
        .await;
        if !listening.channels.is_empty() {
            self.listening = Some(listening);
        }
        subscribed
    }

    /// An UNLISTEN for which the server does not listen, since the transaction began in another way.
    fn note_unlisten(&mut self, text: &[u8]) {
        let (Some(held), Some(listening)) = (&self.held, &mut self.listening) else {
            return;
        };
        if listening.through_server || !listening.has_sure_channels() {
            return;
        }
        if let Some(unlistened) = unlistened(text) {
            if listening.unlistened.is_empty() {
                listening.errors_before = held.server.replies.errors();
            }
            listening.unlistened.push(unlistened);
        }
    }

    /// To be called before a text is sent to be parsed, which begins a transaction as well.
    pub(super) async fn parse_ahead(&mut self, text: &[u8]) -> Result<(), Trouble> {
        let needs = self.listening.is_some() && self.transaction.is_idle();
        if needs && !scan::is_plain_query(text) {
            self.listen_through_server().await?;
        }
        Ok(())
    }

    /// Makes the server listen to the session's channels, where no transaction is open on it.
    async fn listen_through_server(&mut self) -> Result<(), Trouble> {
        let needed =
            |listening: &Listening| !listening.through_server && listening.has_sure_channels();
        if !self.listening.as_ref().is_some_and(|it| needed(it)) {
            return Ok(());
        }
        self.hold(ONLY).await?;
        let is_busy = |held: &Held| !held.server.is_idle() && !held.server.replies.unsynced();
        if self.held.as_ref().is_some_and(is_busy) {
            self.settle().await?;
            self.hold(ONLY).await?;
        }
        let (Some(held), Some(listening)) = (&mut self.held, &mut self.listening) else {
            return Ok(());
        };
        if !held.server.is_idle() {
            return Ok(());
        }
        listening.through_server = true;
        self.quieten_server();
        let listen = self.listening.as_ref().map(|it| it.listen_to_all());
        match self.tell_server_surely(&listen.unwrap_or_default()).await {
            Ok(done) => {
                if let Some(listening) = &mut self.listening {
                    listening.through_server = done;
                }
                Ok(())
            }
            // Nothing of the client's was sent to it.
            Err(lost) => {
                if self.pinned.is_some() || self.loses_unread_state(false) {
                    return Err(End::Bereft(lost).into());
                }
                self.drop_server();
                Err(Trouble::Tell(Box::new(lost)))
            }
        }
    }

    /// Runs a Query of ours on the server at hand; the client gets what other channels notify meanwhile. `false`: it
    /// failed.
    async fn tell_server(&mut self, text: &[u8]) -> Result<bool, Lost> {
        let Some(held) = &mut self.held else {
            return Ok(false);
        };
        held.server.replies.hidden_error = None;
        held.server
            .send_query(text, Expect::HiddenQuery, &mut Vec::new());
        let shown = held.server.ask().await?;
        self.client.outbox().extend_from_slice(&shown);
        Ok(held.server.replies.hidden_error.take().is_none())
    }

    /// The same, and tries again, since a late cancel request may hit the words.
    async fn tell_server_surely(&mut self, text: &[u8]) -> Result<bool, Lost> {
        for _ in 0..TRIES_MAX {
            if self.tell_server(text).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn drop_server(&mut self) {
        if self.held.take().is_some() {
            self.entry.gave_back();
        }
        if let Some(listening) = &mut self.listening {
            listening.through_server = false;
        }
    }

    /// What the hub passes on, the server at hand does not.
    fn quieten_server(&mut self) {
        let channels = self.listening.as_ref().map(|it| &it.channels);
        let names = channels.into_iter().flat_map(BTreeMap::keys).cloned();
        if let Some(held) = &mut self.held {
            held.server.replies.quiet_channels = names.collect();
        }
    }

    /// A server that listens for the session must not be given back before it was made to stop.
    pub(super) fn listens_through_server(&self) -> bool {
        let listening = self.listening.as_ref();
        self.pinned.is_none() && listening.is_some_and(|listening| listening.through_server)
    }

    /// Nothing has changed: the server stops listening and is given back.
    pub(super) async fn stop_server_listening(&mut self) -> Result<(), Trouble> {
        if let Ok(true) = self.tell_server_surely(b"UNLISTEN *").await {
            if let Some(listening) = &mut self.listening {
                listening.through_server = false;
            }
            self.give_back();
            return Ok(());
        }
        // It had nothing that the session does not know.
        self.drop_server();
        Ok(())
    }

    /// The transaction has ended and left the server listening to these channels: so does the session, and the server
    /// stops, unless it is kept for `cause`. Gives why the session must keep it.
    pub(super) async fn keep_channels(
        &mut self,
        listed: BTreeSet<Vec<u8>>,
        cause: Option<&'static str>,
    ) -> Option<&'static str> {
        let errors = self.held.as_ref().map(|held| held.server.replies.errors());
        if let Some(listening) = &mut self.listening {
            let ended = std::mem::take(&mut listening.unlistened);
            let counts = errors == Some(listening.errors_before);
            let ends = |name: &[u8]| counts && ended.iter().any(|ended| ended.concerns(name));
            let all = listening.through_server;
            listening.retain(|name, followed| {
                listed.contains(name) || (!all && followed.sure && !ends(name))
            });
            for followed in listening.channels.values_mut() {
                followed.sure = true;
            }
        }
        let followed = self.listening.as_ref().map(|it| &it.channels);
        let is_own = |name: &&Vec<u8>| followed.is_none_or(|it| !it.contains_key(*name));
        self.state.own_channels = listed.iter().filter(is_own).cloned().collect();
        let own = (!self.state.own_channels.is_empty()).then_some("LISTEN");
        let cause = cause.or(own);
        if cause.is_some() {
            if let Some(listening) = &mut self.listening {
                let listens = |name| listed.contains(name);
                listening.through_server = listening.channels.keys().all(listens);
            }
            self.quieten_server();
        } else {
            // One that is lost has nothing that the session does not know.
            let stopped = listed.is_empty()
                || matches!(self.tell_server_surely(b"UNLISTEN *").await, Ok(true));
            if let Some(listening) = &mut self.listening {
                listening.through_server = false;
            }
            if !stopped {
                self.drop_server();
            }
        }
        let is_done = |listening: &mut Box<Listening>| listening.channels.is_empty();
        self.listening.take_if(is_done);
        cause
    }

    /// Nobody knows what came of the transaction: what it was about to listen to is forgotten. Where there is a server
    /// that listens to it, it is heard from there.
    pub(super) fn forget_unsure_channels(&mut self) {
        self.state.wanted.clear();
        if let Some(listening) = &mut self.listening {
            listening.unlistened.clear();
            listening.through_server &= self.held.is_some();
            listening.retain(|_, followed| followed.sure);
        }
        self.quieten_server();
    }

    /// Passes on what was notified, where the client is in no transaction and takes what it is sent.
    pub(super) fn pass_on_notifications(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(listening) = &self.listening else {
            return Ok(());
        };
        if !listening.mailbox.has_mail() || self.skipping || !self.is_at_rest() {
            return Ok(());
        }
        if self.client.poll_flush(cx)?.is_pending() {
            // The socket wakes us.
            return Ok(());
        }
        if listening.has_unsure_channels() {
            // What would have made it sure was never sent.
            self.forget_unsure_channels();
        }
        let Some(listening) = &self.listening else {
            return Ok(());
        };
        let level = self.settings.get("client_min_messages").unwrap_or_default();
        let quiet = ["error", "fatal", "panic"];
        let warns = !quiet.iter().any(|quiet| level.eq_ignore_ascii_case(quiet));
        let outbox = self.client.outbox();
        let count = listening.mailbox.take(outbox, BATCH_BYTES_MAX, warns);
        if let Some(followed) = listening.channels.values().next() {
            followed.subscription.count_delivered(count);
        }
        let has_more = listening.mailbox.has_mail();
        if self.client.poll_flush(cx)?.is_ready() && has_more {
            // The others of this worker want their turn, too.
            cx.waker().wake_by_ref();
        }
        Ok(())
    }
}
