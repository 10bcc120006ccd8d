//! Two streams joined: bytes both ways, unread, until one side ends. For connections that belong to one client alone.
//!
//! Each way has one buffer and reads only into an empty one, so who does not read stops the other. Of the server's
//! bytes only the lengths of messages are looked at: to end it with words of our own, their last message must be
//! whole. What would surprise: a server that takes no bytes any more is still read to its end, for what it says last
//! is the reason.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::wire::frame::HEADER_BYTES;
use crate::wire::stream::Stream;

/// What a client sends on such a connection is short, what it gets is not.
const UP_BYTES: usize = 16 * 1024;
const DOWN_BYTES: usize = 64 * 1024;

/// Reads and writes before other clients of the worker are looked at.
const STEPS_MAX: usize = 32;

/// A client has left, or will not send more: how long a server may be silent then.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How long a client has for its last bytes, and to close.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// How it ended.
#[derive(Debug)]
pub enum Joined {
    /// The server closed; the client has all that it said.
    Server,
    /// The client closed, and the server said nothing more. It may still be at work.
    Client,
    /// The connection of the client broke.
    Broken(io::Error),
    /// It was asked for.
    Asked,
}

/// Which way bytes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
}

/// Joins them. `asked` tells when to end (the task must be woken for it); then the client gets `last_words`, where
/// that is possible. `passed` is told of every read.
pub async fn join(
    client: &mut Stream,
    server: &mut Stream,
    asked: impl Fn() -> bool,
    mut passed: impl FnMut(Way, usize),
    last_words: &[u8],
) -> Joined {
    let mut up = Pipe::new(UP_BYTES);
    let mut down = Pipe::new(DOWN_BYTES);
    let first = std::future::poll_fn(|cx| {
        poll_both(
            cx,
            (&mut *client, &mut up),
            (&mut *server, &mut down),
            &asked,
            &mut passed,
        )
    })
    .await;
    match first {
        Joined::Client => {
            // It may still listen.
            let _ = timeout(FAREWELL_MAX, server.shutdown()).await;
            let end = rest(client, server, &mut down, &asked, &mut passed).await;
            let _ = timeout(FAREWELL_MAX, client.shutdown()).await;
            end
        }
        Joined::Server => {
            say_goodbye(client).await;
            Joined::Server
        }
        Joined::Asked => {
            let told = timeout(FAREWELL_MAX, async {
                down.finish_message(server, client).await?;
                client.write_all(last_words).await?;
                client.flush().await
            });
            if let Ok(Ok(())) = told.await {
                say_goodbye(client).await;
            }
            Joined::Asked
        }
        Joined::Broken(error) => Joined::Broken(error),
    }
}

/// `Joined::Client` as soon as everything of the client was passed on.
fn poll_both(
    cx: &mut Context<'_>,
    (client, up): (&mut Stream, &mut Pipe),
    (server, down): (&mut Stream, &mut Pipe),
    asked: &impl Fn() -> bool,
    passed: &mut impl FnMut(Way, usize),
) -> Poll<Joined> {
    for _ in 0..STEPS_MAX {
        if asked() {
            return Poll::Ready(Joined::Asked);
        }
        let mut moved = false;
        if !up.deaf {
            match up.poll_step(cx, client, server) {
                Poll::Pending => {}
                Poll::Ready(Step::Ended) => return Poll::Ready(Joined::Client),
                Poll::Ready(Step::SourceBroke(error)) => {
                    return Poll::Ready(Joined::Broken(error));
                }
                Poll::Ready(Step::TargetBroke(_)) => up.deaf = true,
                Poll::Ready(Step::Read(count)) => {
                    passed(Way::Up, count);
                    moved = true;
                }
                Poll::Ready(Step::Wrote) => moved = true,
            }
        }
        match down.poll_step(cx, server, client) {
            Poll::Pending => {}
            Poll::Ready(Step::Ended | Step::SourceBroke(_)) => return Poll::Ready(Joined::Server),
            Poll::Ready(Step::TargetBroke(error)) => return Poll::Ready(Joined::Broken(error)),
            Poll::Ready(Step::Read(count)) => {
                passed(Way::Down, count);
                moved = true;
            }
            Poll::Ready(Step::Wrote) => moved = true,
        }
        if !moved {
            return Poll::Pending;
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// What a server still says to a client that sends nothing more.
async fn rest(
    client: &mut Stream,
    server: &mut Stream,
    down: &mut Pipe,
    asked: &impl Fn() -> bool,
    passed: &mut impl FnMut(Way, usize),
) -> Joined {
    loop {
        let step = std::future::poll_fn(|cx| {
            if asked() {
                return Poll::Ready(None);
            }
            down.poll_step(cx, server, client).map(Some)
        });
        match timeout(SILENCE_MAX, step).await {
            Err(_) => return Joined::Client,
            Ok(None) => return Joined::Asked,
            Ok(Some(Step::Ended | Step::SourceBroke(_))) => return Joined::Server,
            Ok(Some(Step::TargetBroke(_))) => return Joined::Client,
            Ok(Some(Step::Read(count))) => passed(Way::Down, count),
            Ok(Some(Step::Wrote)) => {}
        }
    }
}

/// Ends our side and reads the client's to its end: a connection that is closed over unread bytes is reset, and the
/// client might lose what it was told last.
async fn say_goodbye(client: &mut Stream) {
    let farewell = async {
        client.shutdown().await?;
        let mut nothing = [0; 4096];
        while std::future::poll_fn(|cx| client.poll_receive(cx, &mut nothing)).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // Whoever stays is cut off.
    let _ = timeout(FAREWELL_MAX, farewell).await;
}

enum Step {
    Read(usize),
    Wrote,
    /// The source has ended, and everything of it was passed on.
    Ended,
    SourceBroke(io::Error),
    TargetBroke(io::Error),
}

/// One way.
struct Pipe {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    unflushed: bool,
    /// The target takes nothing any more.
    deaf: bool,
    messages: Messages,
    /// Behind the last whole message in the buffer.
    whole: Option<usize>,
}

impl Pipe {
    fn new(bytes: usize) -> Self {
        Self {
            buffer: vec![0; bytes].into_boxed_slice(),
            start: 0,
            end: 0,
            unflushed: false,
            deaf: false,
            messages: Messages::default(),
            whole: Some(0),
        }
    }

    /// One write; one read where nothing waits to be written.
    fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
    ) -> Poll<Step> {
        let waiting = self.buffer.get(self.start..self.end).unwrap_or_default();
        if !waiting.is_empty() {
            return Poll::Ready(match ready!(Pin::new(to).poll_write(cx, waiting)) {
                Ok(0) => Step::TargetBroke(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.start += count;
                    self.unflushed = true;
                    Step::Wrote
                }
                Err(error) => Step::TargetBroke(error),
            });
        }
        if self.unflushed {
            if let Err(error) = ready!(Pin::new(to).poll_flush(cx)) {
                return Poll::Ready(Step::TargetBroke(error));
            }
            self.unflushed = false;
        }
        Poll::Ready(match ready!(from.poll_receive(cx, &mut self.buffer)) {
            Ok(0) => Step::Ended,
            Ok(count) => {
                (self.start, self.end) = (0, count);
                let read = self.buffer.get(..count).unwrap_or_default();
                self.whole = self.messages.walk(read);
                Step::Read(count)
            }
            Err(error) => Step::SourceBroke(error),
        })
    }

    /// Passes on what makes the last message whole, and drops what is behind it.
    async fn finish_message(&mut self, from: &mut Stream, to: &mut Stream) -> io::Result<()> {
        loop {
            if let Some(whole) = self.whole.filter(|whole| *whole >= self.start) {
                self.end = whole;
                if self.start == self.end {
                    return Ok(());
                }
            }
            match std::future::poll_fn(|cx| self.poll_step(cx, from, to)).await {
                Step::Read(_) | Step::Wrote => {}
                Step::Ended => return Err(io::ErrorKind::UnexpectedEof.into()),
                Step::SourceBroke(error) | Step::TargetBroke(error) => return Err(error),
            }
        }
    }
}

/// Where messages end in a stream of them.
#[derive(Default)]
struct Messages {
    /// The first bytes of a header.
    header: [u8; HEADER_BYTES],
    known: usize,
    /// Bytes of the message behind its header that are still to come.
    left: usize,
}

impl Messages {
    /// How far these bytes are whole messages. `None`: they begin in the middle of one and do not reach its end.
    fn walk(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut whole = (self.known == 0 && self.left == 0).then_some(0);
        let mut at = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len() - at);
                self.left -= passed;
                at += passed;
            } else {
                let (Some(place), Some(byte)) = (self.header.get_mut(self.known), bytes.get(at))
                else {
                    break;
                };
                *place = *byte;
                self.known += 1;
                at += 1;
                if self.known < HEADER_BYTES {
                    continue;
                }
                let [_, length @ ..] = self.header;
                // The length counts itself.
                self.left = (u32::from_be_bytes(length) as usize).saturating_sub(4);
            }
            if self.left == 0 {
                self.known = 0;
                whole = Some(at);
            }
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![b'd'];
        bytes.extend(u32::try_from(length + 4).unwrap().to_be_bytes());
        bytes.extend(vec![b'x'; length]);
        bytes
    }

    #[test]
    fn the_end_of_the_last_whole_message_is_found_however_the_bytes_are_cut() {
        let lengths = [0, 3, 0, 700, 1, 0];
        let bytes: Vec<u8> = lengths.iter().flat_map(|&length| message(length)).collect();
        let mut ends = vec![0];
        for length in lengths {
            ends.push(ends.last().unwrap() + 5 + length);
        }
        for cut in 1..=bytes.len() {
            let (mut messages, mut at) = (Messages::default(), 0);
            for piece in bytes.chunks(cut) {
                let expected = ends
                    .iter()
                    .rfind(|end| (at..=at + piece.len()).contains(*end))
                    .map(|end| end - at);
                assert_eq!(messages.walk(piece), expected, "cut at {cut}, from {at}");
                at += piece.len();
            }
        }
    }

    /// Our ends and theirs.
    fn pair() -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Stream::Unix(ours), theirs)
    }

    /// What the client gets of these bytes when it is asked to end after so many of them were read.
    async fn told(sent: Vec<u8>, asked_after: usize) -> Vec<u8> {
        let (mut client, mut application) = pair();
        let (mut server, mut postgres) = pair();
        let writer = tokio::spawn(async move {
            // It may be cut off before all is written.
            let _ = postgres.write_all(&sent).await;
            postgres
        });
        let read = std::cell::Cell::new(0);
        let joined = join(
            &mut client,
            &mut server,
            || read.get() > asked_after,
            |_, count| read.set(read.get() + count),
            b"last words",
        );
        let reader = async {
            let mut all = Vec::new();
            application.read_to_end(&mut all).await.unwrap();
            drop(application);
            all
        };
        let (joined, all) = tokio::join!(joined, reader);
        assert!(matches!(joined, Joined::Asked), "{joined:?}");
        drop(server);
        writer.await.unwrap();
        all
    }

    #[tokio::test]
    async fn last_words_stand_behind_a_whole_message() {
        let (first, second) = (message(10), message(3 * DOWN_BYTES));
        let sent = [&first[..], &second, &message(1)[..4]].concat();
        // The client has nothing of the second message, so it gets none of it.
        let all = told(sent.clone(), 0).await;
        assert!(all == [&first[..], b"last words"].concat(), "{}", all.len());
        // It has the beginning, and the end is yet to be read.
        let all = told(sent, DOWN_BYTES).await;
        let expected = [&first[..], &second, b"last words"].concat();
        assert!(all == expected, "{}", all.len());
    }

    #[tokio::test]
    async fn who_stops_sending_still_gets_the_answer() {
        let (mut client, mut application) = pair();
        let (mut server, mut postgres) = pair();
        application.write_all(b"question").await.unwrap();
        application.shutdown().await.unwrap();
        let answered = async {
            let mut question = Vec::new();
            postgres.read_to_end(&mut question).await.unwrap();
            postgres.write_all(b"answer").await.unwrap();
            drop(postgres);
            question
        };
        let joined = join(&mut client, &mut server, || false, |_, _| {}, b"");
        let (joined, question) = tokio::join!(joined, answered);
        assert!(matches!(joined, Joined::Server), "{joined:?}");
        assert_eq!(question, b"question");
        let mut answer = Vec::new();
        application.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
    }

    #[tokio::test]
    async fn the_last_words_of_a_server_that_takes_nothing_more_are_passed_on() {
        let (mut client, mut application) = pair();
        let (mut server, mut postgres) = pair();
        postgres.write_all(&message(5)).await.unwrap();
        drop(postgres);
        application.write_all(b"nobody reads this").await.unwrap();
        let joined = join(&mut client, &mut server, || false, |_, _| {}, b"");
        let reader = async {
            let mut all = Vec::new();
            application.read_to_end(&mut all).await.unwrap();
            drop(application);
            all
        };
        let (joined, all) = tokio::join!(joined, reader);
        assert!(matches!(joined, Joined::Server), "{joined:?}");
        assert_eq!(all, message(5));
    }
}
