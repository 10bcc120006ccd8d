//! One connection that listens for all clients of a database under one user, and hands to each what it listens to.
//!
//! The connection is made with the first subscription and closed a while after the last one. A subscription counts from
//! the moment that the server confirmed its LISTEN. When the connection is lost, it is made anew, listens to all that it
//! did before, and whoever was subscribed is told that notifications may be missing. Runs in the background, on no
//! worker; no client can hold it up, see [`mailbox`](super::mailbox).

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::connect::{self, ConnectError};
use super::mailbox::{ChannelId, Mailbox};
use super::pool::{BACKOFF_MAX, BACKOFF_MIN, Login, PoolError, is_final, jittered};
use super::server::Lost;
use super::worker::with_scratch;
use crate::config::PoolSettings;
use crate::error::Report;
use crate::telemetry::ListenerMetrics;
use crate::wire::channel::Channel;
use crate::wire::decode;
use crate::wire::encode;
use crate::wire::frame::{first_frame, server_header};
use crate::wire::stream::Stream;

/// After a silence of this long the connection is tried, or closed where nobody is subscribed.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A connection that held this long begins again with short pauses.
const STEADY: Duration = Duration::from_secs(10);

const APPLICATION_NAME: &str = "pgherd listener";

/// All that listens under one user and encoding.
pub struct Hub {
    login: Login,
    /// What the server shall send names and payloads in.
    encoding: String,
    settings: PoolSettings,
    background: Handle,
    pub metrics: ListenerMetrics,
    state: Mutex<State>,
    /// Rings when there is something to say to the server.
    work: Notify,
}

#[derive(Default)]
struct State {
    channels: HashMap<Box<[u8]>, Subscribed>,
    /// For the server, while there is a connection.
    to_say: VecDeque<Said>,
    connected: bool,
    /// Channels that were lost with a connection and are not listened to again.
    missed: usize,
    /// Those that were lost since everything was right, of which some may be back.
    untold: bool,
    /// The task that has the connection lives.
    running: bool,
    closed: bool,
}

struct Subscribed {
    id: ChannelId,
    subscribers: Vec<Arc<Mailbox>>,
    /// The server listens for it.
    confirmed: bool,
    /// It did, on a connection that was lost, and the subscribers were not told yet.
    missed: bool,
    waiting: Vec<oneshot::Sender<Outcome>>,
}

/// What became of a wish to listen.
enum Outcome {
    Listening,
    /// The server said no to LISTEN: it would say so to the client, too.
    Refused,
    Failed(PoolError),
}

/// What was said to the server, in the order of its answers.
enum Said {
    Listen(ChannelId, Box<[u8]>),
    Unlisten(Box<[u8]>),
    /// Its answer changes nothing here.
    Other(&'static str),
}

/// Why a connection is given up.
enum End {
    Unused,
    Lost(Lost),
}

/// A client's wish for a channel; over when dropped.
pub struct Subscription {
    hub: Arc<Hub>,
    mailbox: Arc<Mailbox>,
    name: Box<[u8]>,
    id: ChannelId,
}

impl Subscription {
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// So many notifications were passed on to the client.
    pub fn count_delivered(&self, count: u64) {
        self.hub.metrics.delivered.increment(count);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.metrics.subscriptions.decrement(1.0);
        self.hub.unsubscribe(self);
    }
}

impl Hub {
    #[must_use]
    pub fn new(login: Login, encoding: String, settings: PoolSettings, background: Handle) -> Self {
        Self {
            metrics: ListenerMetrics::new(login.database.as_str()),
            login,
            encoding,
            settings,
            background,
            state: Mutex::default(),
            work: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what is notified on a channel into the mailbox from now on. `None`: the server does not listen, and has the
    /// reason for whoever asks it. A mailbox must not subscribe to a channel twice.
    pub async fn subscribe(
        self: &Arc<Self>,
        name: &[u8],
        mailbox: &Arc<Mailbox>,
    ) -> Result<Option<Subscription>, PoolError> {
        let (subscription, outcome) = self.add(name, mailbox)?;
        let Some(outcome) = outcome else {
            return Ok(Some(subscription));
        };
        let limit = self.settings.wait_timeout;
        match timeout(limit, outcome).await {
            Ok(Ok(Outcome::Listening)) => Ok(Some(subscription)),
            Ok(Ok(Outcome::Refused)) => Ok(None),
            Ok(Ok(Outcome::Failed(error))) => Err(error),
            Ok(Err(_)) => Err(PoolError::Closed),
            Err(_) => Err(
                self.unreachable(Arc::new(match self.login.dsn.hosts.first() {
                    Some(endpoint) => ConnectError::TimedOut {
                        endpoint: endpoint.clone(),
                        after: limit,
                    },
                    None => ConnectError::Unexpected("no host is configured"),
                })),
            ),
        }
    }

    fn unreachable(&self, error: Arc<ConnectError>) -> PoolError {
        PoolError::of_login(&self.login.shard, error)
    }

    fn add(
        self: &Arc<Self>,
        name: &[u8],
        mailbox: &Arc<Mailbox>,
    ) -> Result<(Subscription, Option<oneshot::Receiver<Outcome>>), PoolError> {
        let mut state = self.state();
        if state.closed {
            return Err(PoolError::Closed);
        }
        let state = &mut *state;
        let channel = state.channels.entry(name.into()).or_insert_with(|| {
            // Numbers are unique in the process: a mailbox may have mail of several hubs.
            static LAST: AtomicU64 = AtomicU64::new(0);
            let id = ChannelId(LAST.fetch_add(1, Ordering::Relaxed));
            if state.connected {
                state.to_say.push_back(Said::Listen(id, name.into()));
            }
            Subscribed {
                id,
                subscribers: Vec::new(),
                confirmed: false,
                missed: false,
                waiting: Vec::new(),
            }
        });
        channel.subscribers.push(Arc::clone(mailbox));
        self.metrics.subscriptions.increment(1.0);
        let subscription = Subscription {
            hub: Arc::clone(self),
            mailbox: Arc::clone(mailbox),
            name: name.into(),
            id: channel.id,
        };
        let outcome = (!channel.confirmed).then(|| {
            let (sender, receiver) = oneshot::channel();
            channel.waiting.push(sender);
            receiver
        });
        if !std::mem::replace(&mut state.running, true) {
            self.background.spawn(Arc::clone(self).run());
        }
        self.work.notify_one();
        Ok((subscription, outcome))
    }

    fn unsubscribe(&self, subscription: &Subscription) {
        let mut state = self.state();
        let Some(channel) = state.channels.get_mut(&subscription.name) else {
            return;
        };
        if channel.id != subscription.id {
            return;
        }
        channel
            .subscribers
            .retain(|mailbox| !Arc::ptr_eq(mailbox, &subscription.mailbox));
        if channel.subscribers.is_empty() {
            state.remove(&subscription.name);
            if state.connected {
                let name = subscription.name.clone();
                state.to_say.push_back(Said::Unlisten(name));
                self.work.notify_one();
            }
            self.tell_if_restored(&mut state);
        }
    }

    /// Whoever is subscribed or waits for it hears nothing more.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.channels.clear();
        self.work.notify_one();
    }

    /// Nobody is subscribed: the task ends, and the next subscription starts another one.
    fn stops_unused(&self) -> bool {
        let mut state = self.state();
        if state.channels.is_empty() {
            state.running = false;
        }
        !state.running
    }

    async fn run(self: Arc<Self>) {
        let mut pause = BACKOFF_MIN;
        let mut failing_since = None;
        while !self.stops_unused() {
            let parameters = [
                ("application_name", APPLICATION_NAME),
                ("client_encoding", &self.encoding),
            ];
            let login = self.login.with(&parameters, self.settings.connect_timeout);
            match connect::connect(login).await {
                Ok(logged_in) => {
                    failing_since = None;
                    let begun = Instant::now();
                    match self.serve(logged_in.stream).await {
                        End::Unused => return,
                        End::Lost(error) => self.lost(&error),
                    }
                    if begun.elapsed() > STEADY {
                        pause = BACKOFF_MIN;
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        database = %self.login.database, user = %self.login.user, %error,
                        "the connection that listens could not be made"
                    );
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    if is_final(&error) || since.elapsed() >= self.settings.connect_timeout {
                        self.fail_waiting(&Arc::new(error));
                    }
                }
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        }
    }

    fn fail_waiting(&self, error: &Arc<ConnectError>) {
        for channel in self.state().channels.values_mut() {
            for waiting in channel.waiting.drain(..) {
                // One that gave up needs no answer.
                let _ = waiting.send(Outcome::Failed(self.unreachable(Arc::clone(error))));
            }
        }
    }

    fn lost(&self, error: &Lost) {
        tracing::warn!(
            database = %self.login.database, user = %self.login.user, %error, detail = error.detail(),
            "the connection that listens was lost"
        );
        self.state().lose();
    }

    /// Everybody is told at once, and once, when everything is listened to again.
    fn tell_if_restored(&self, state: &mut State) {
        if let Some(told) = state.restored() {
            self.metrics.reconnects.increment(1);
            for mailbox in told {
                mailbox.put_gap();
            }
        }
    }

    /// Talks to one server until that is over.
    async fn serve(&self, stream: Stream) -> End {
        let mut conversation = Conversation {
            hub: self,
            server: Channel::new(stream),
            said: VecDeque::new(),
            error: None,
        };
        // Silence is what this connection is for. Servers before 14 do not know the setting, and do not mind silence.
        conversation.say(Said::Other("SET idle_session_timeout = 0"));
        self.begin_anew();
        loop {
            for said in self.take_to_say() {
                conversation.say(said);
            }
            match timeout(SILENCE_MAX, conversation.hear(&self.work)).await {
                Ok(Ok(())) => {}
                Ok(Err(lost)) => return End::Lost(lost),
                Err(_) if self.stops_unused() => {
                    conversation.leave();
                    return End::Unused;
                }
                Err(_) if conversation.said.is_empty() => conversation.say(Said::Other("")),
                Err(_) => return End::Lost(Lost::Io(std::io::ErrorKind::TimedOut.into())),
            }
            if self.state().closed {
                conversation.leave();
                return End::Unused;
            }
        }
    }

    /// A new connection is to listen to everything.
    fn begin_anew(&self) {
        let mut state = self.state();
        let state = &mut *state;
        state.connected = true;
        state.to_say.clear();
        for (name, channel) in &state.channels {
            let said = Said::Listen(channel.id, name.clone());
            state.to_say.push_back(said);
        }
    }

    fn take_to_say(&self) -> VecDeque<Said> {
        std::mem::take(&mut self.state().to_say)
    }

    /// The server listens to this channel.
    fn confirm(&self, id: ChannelId, name: &[u8]) {
        let mut state = self.state();
        let state = &mut *state;
        let Some(channel) = state.channels.get_mut(name) else {
            return;
        };
        if channel.id != id {
            return;
        }
        channel.confirmed = true;
        for waiting in channel.waiting.drain(..) {
            // One that gave up needs no answer.
            let _ = waiting.send(Outcome::Listening);
        }
        state.missed -= usize::from(channel.missed);
        self.tell_if_restored(state);
    }

    /// The server does not listen to this channel. `false`: it did before, so the connection is of no use.
    fn refused(&self, id: ChannelId, name: &[u8]) -> bool {
        let mut state = self.state();
        let Some(channel) = state.channels.get_mut(name) else {
            return true;
        };
        if channel.id != id {
            return true;
        }
        if channel.missed {
            return false;
        }
        for waiting in channel.waiting.drain(..) {
            // One that gave up needs no answer.
            let _ = waiting.send(Outcome::Refused);
        }
        state.remove(name);
        true
    }

    fn deliver(&self, name: &[u8], notification: &[u8]) {
        let mut state = self.state();
        let Some(channel) = state.channels.get_mut(name) else {
            return;
        };
        let notification = Bytes::copy_from_slice(notification);
        let lost = channel
            .subscribers
            .iter()
            .map(|mailbox| mailbox.put(channel.id, &notification))
            .sum::<usize>();
        if lost > 0 {
            self.metrics.dropped.increment(lost as u64);
        }
    }
}

impl State {
    fn remove(&mut self, name: &[u8]) {
        if let Some(channel) = self.channels.remove(name) {
            self.missed -= usize::from(channel.missed && !channel.confirmed);
        }
    }

    /// The connection is gone.
    fn lose(&mut self) {
        self.connected = false;
        for channel in self.channels.values_mut() {
            if std::mem::take(&mut channel.confirmed) {
                channel.missed = true;
                self.missed += 1;
                self.untold = true;
            }
        }
    }

    /// Who has missed something, once everything is listened to again.
    fn restored(&mut self) -> Option<Vec<Arc<Mailbox>>> {
        if self.missed > 0 || !std::mem::take(&mut self.untold) {
            return None;
        }
        let mut told = Vec::new();
        for channel in self.channels.values_mut() {
            if std::mem::take(&mut channel.missed) {
                told.extend(channel.subscribers.iter().cloned());
            }
        }
        told.sort_unstable_by_key(Arc::as_ptr);
        told.dedup_by_key(|mailbox| Arc::as_ptr(mailbox));
        Some(told)
    }
}

/// A connection while it lives.
struct Conversation<'a> {
    hub: &'a Hub,
    server: Channel,
    /// What is not answered yet.
    said: VecDeque<Said>,
    /// The error in the answer that is under way.
    error: Option<String>,
}

impl Conversation<'_> {
    fn say(&mut self, said: Said) {
        let text = match &said {
            Said::Listen(_, name) => named(b"LISTEN ", name),
            Said::Unlisten(name) => named(b"UNLISTEN ", name),
            Said::Other(text) => text.as_bytes().to_vec(),
        };
        encode::query(self.server.outbox(), &text);
        self.said.push_back(said);
    }

    /// Ready when the server has said something, or there is something to say to it.
    async fn hear(&mut self, work: &Notify) -> Result<(), Lost> {
        let mut work = std::pin::pin!(work.notified());
        let heard = std::future::poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = self.server.poll_flush(cx) {
                return Poll::Ready(Err(Lost::Io(error)));
            }
            match with_scratch(|scratch| self.server.poll_receive(cx, scratch)) {
                Poll::Ready(Ok(0)) => Poll::Ready(Err(Lost::Closed {
                    last_words: self.error.take(),
                })),
                Poll::Ready(Ok(_)) => Poll::Ready(Ok(true)),
                Poll::Ready(Err(error)) => Poll::Ready(Err(Lost::Io(error))),
                Poll::Pending => work.as_mut().poll(cx).map(|()| Ok(false)),
            }
        });
        if heard.await? {
            let received = self.server.take_received();
            let mut at = 0;
            let understood = self.understand(&received, &mut at);
            self.server.put_back(received, at);
            understood?;
        }
        Ok(())
    }

    fn understand(&mut self, received: &[u8], at: &mut usize) -> Result<(), Lost> {
        while let Some(frame) = first_frame(received.get(*at..).unwrap_or_default(), server_header)?
        {
            *at += frame.whole.len();
            match frame.tag {
                b'A' => {
                    let notification = decode::notification(frame.body)?;
                    self.hub.deliver(notification.channel, frame.whole);
                }
                b'E' => self.error = Some(words(frame.body)?),
                b'Z' => self.answered()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn answered(&mut self) -> Result<(), Lost> {
        let error = self.error.take();
        if let Some(Said::Listen(id, name)) = self.said.pop_front() {
            if error.is_none() {
                self.hub.confirm(id, &name);
            } else if !self.hub.refused(id, &name) {
                return Err(Lost::Closed { last_words: error });
            }
        }
        Ok(())
    }

    /// Tells the server that we leave, best effort.
    fn leave(&mut self) {
        self.server.outbox().extend_from_slice(encode::TERMINATE);
        let waker = std::task::Waker::noop();
        let _ = self
            .server
            .poll_flush(&mut std::task::Context::from_waker(waker));
    }
}

/// What an ErrorResponse says, in short.
fn words(error: &[u8]) -> Result<String, Lost> {
    let fields = decode::fields(b'E', error)?;
    let text = |code| String::from_utf8_lossy(fields.field(code).unwrap_or_default());
    Ok(format!("{} {}: {}", text(b'S'), text(b'C'), text(b'M')))
}

/// A command and a name behind it, which may have any bytes.
#[must_use]
pub fn named(command: &[u8], name: &[u8]) -> Vec<u8> {
    let mut text = command.to_vec();
    text.push(b'"');
    for &byte in name {
        if byte == b'"' {
            text.push(byte);
        }
        text.push(byte);
    }
    text.push(b'"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state that listens to `a` and `b` for one client and to `b` for another.
    fn state() -> (State, [Arc<Mailbox>; 2]) {
        let mailbox = || Arc::new(Mailbox::new(std::task::Waker::noop().clone()));
        let clients = [mailbox(), mailbox()];
        let mut state = State::default();
        for (number, name, count) in [(1, b"a", 1), (2, b"b", 2)] {
            let channel = Subscribed {
                id: ChannelId(number),
                subscribers: clients.iter().take(count).cloned().collect(),
                confirmed: true,
                missed: false,
                waiting: Vec::new(),
            };
            state.channels.insert(name.as_slice().into(), channel);
        }
        (state, clients)
    }

    fn confirm(state: &mut State, name: &[u8]) {
        let channel = state.channels.get_mut(name).unwrap();
        channel.confirmed = true;
        state.missed -= usize::from(channel.missed);
    }

    #[test]
    fn everybody_is_told_once_when_all_is_listened_to_again() {
        let (mut state, _) = state();
        assert!(state.restored().is_none());
        state.lose();
        confirm(&mut state, b"a");
        assert!(state.restored().is_none());
        // Lost again half-way.
        state.lose();
        confirm(&mut state, b"b");
        assert!(state.restored().is_none());
        confirm(&mut state, b"a");
        assert_eq!(state.restored().map(|told| told.len()), Some(2));
        assert!(state.restored().is_none());
    }

    #[test]
    fn a_channel_that_nobody_wants_any_more_is_not_waited_for() {
        for removed in [b"a", b"b"] {
            let (mut state, clients) = state();
            state.lose();
            let other = if removed == b"a" { b"b" } else { b"a" };
            confirm(&mut state, other);
            state.remove(removed);
            let told = state.restored().unwrap();
            let expected = if removed == b"a" { 2 } else { 1 };
            assert_eq!(told.len(), expected);
            assert!(told.iter().any(|mailbox| Arc::ptr_eq(mailbox, &clients[0])));
            assert_eq!(state.missed, 0);
            state.remove(other);
            assert_eq!(state.missed, 0);
        }
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(named(b"LISTEN ", b"a\"b"), b"LISTEN \"a\"\"b\"");
    }
}
