//! A stream with what was read from it and not yet understood, and what must still be written to it.
//!
//! Reads go through a scratch buffer that a worker lends for the moment, so a silent connection owns no buffer. A write
//! is tried at once; only what the socket does not take is kept.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::frame::HEADER_BYTES;
use super::spares::{empty, make_room};
use super::stream::{Stream, is_passing};

/// Unsent bytes that may be kept for the next write.
const WAITING_BYTES_MAX: usize = 1024;

#[derive(Debug)]
pub struct Channel {
    pub stream: Stream,
    /// Read and not yet consumed; the first `consumed` bytes are done with.
    inbox: Vec<u8>,
    consumed: usize,
    /// To be written; the first `sent` bytes are.
    outbox: Vec<u8>,
    sent: usize,
    /// The socket did not take all that was written; there is a waker for when it does.
    stuck: bool,
    /// Bytes written since they were last asked for.
    written: u64,
}

impl Channel {
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            inbox: Vec::new(),
            consumed: 0,
            outbox: Vec::new(),
            sent: 0,
            stuck: false,
            written: 0,
        }
    }

    /// How many bytes were written since the last call.
    pub fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written)
    }

    /// What was read and not consumed.
    #[must_use]
    pub fn received(&self) -> &[u8] {
        self.inbox.get(self.consumed..).unwrap_or_default()
    }

    pub fn consume(&mut self, bytes: usize) {
        self.consumed += bytes;
        if self.consumed >= self.inbox.len() {
            self.consumed = 0;
            empty(&mut self.inbox);
        }
    }

    /// Takes out what was received, so that it can be read while the channel is used; [`Channel::put_back`] follows.
    pub fn take_received(&mut self) -> Vec<u8> {
        if self.consumed > 0 {
            self.inbox.drain(..self.consumed);
            self.consumed = 0;
        }
        std::mem::take(&mut self.inbox)
    }

    /// Gives back what [`Channel::take_received`] took, of which the first `consumed` bytes are done with. Whether more
    /// was received meanwhile.
    pub fn put_back(&mut self, mut taken: Vec<u8>, consumed: usize) -> bool {
        let more = !self.received().is_empty();
        taken.extend_from_slice(self.received());
        self.inbox = taken;
        self.consumed = 0;
        self.consume(consumed);
        more
    }

    /// Puts bytes at the end of what was received.
    pub fn keep(&mut self, bytes: &[u8]) {
        if self.consumed > 0 {
            self.inbox.drain(..self.consumed);
            self.consumed = 0;
        }
        make_room(&mut self.inbox, bytes.len());
        self.inbox.extend_from_slice(bytes);
    }

    /// Where messages to the peer are appended; [`Channel::poll_flush`] sends them.
    pub fn outbox(&mut self) -> &mut Vec<u8> {
        &mut self.outbox
    }

    /// The same, with room for so many more bytes: large buffers are lent, see [`spares`](super::spares).
    pub fn outbox_for(&mut self, bytes: usize) -> &mut Vec<u8> {
        make_room(&mut self.outbox, bytes);
        &mut self.outbox
    }

    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        self.outbox.len() - self.sent
    }

    /// Whether something is to be flushed: of the outbox, or of what TLS has encrypted and the socket did not take.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.stuck || self.unsent_bytes() > 0
    }

    /// Whether what is unsent may go with what comes next: a few short messages that PostgreSQL keeps to itself, too, until it
    /// has more to say.
    #[must_use]
    pub fn can_wait(&self) -> bool {
        if self.stuck || self.sent > 0 || self.outbox.len() > WAITING_BYTES_MAX {
            return false;
        }
        let messages = self.outbox.chunks(HEADER_BYTES);
        let waits = |message: &[u8]| matches!(message, [b'1' | b'2' | b'3', 0, 0, 0, 4]);
        messages.into_iter().all(waits)
    }

    /// Reads once into the inbox; 0 is the end of the stream.
    pub fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.stream.poll_receive(cx, scratch))?;
        self.keep(scratch.get(..count).unwrap_or_default());
        Poll::Ready(Ok(count))
    }

    /// Sends the outbox; ready when it is empty and the stream has passed everything on.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outbox.is_empty() {
            return self.poll_flush_stream(cx);
        }
        while self.sent < self.outbox.len() {
            let rest = self.outbox.get(self.sent..).unwrap_or_default();
            match poll_write(&mut self.stream, cx, rest)? {
                Poll::Pending => {
                    self.stuck = true;
                    return Poll::Pending;
                }
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => {
                    self.sent += count;
                    self.written += count as u64;
                }
            }
        }
        self.sent = 0;
        empty(&mut self.outbox);
        self.poll_flush_stream(cx)
    }

    /// What was written is out of the process, too: TLS may have encrypted more than the socket took.
    fn poll_flush_stream(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = if self.stream.is_tls() {
            Pin::new(&mut self.stream).poll_flush(cx)
        } else {
            Poll::Ready(Ok(()))
        };
        self.stuck = flushed.is_pending();
        flushed
    }

    /// Sends `bytes` behind what waits in the outbox; what the socket does not take now is kept.
    pub fn write_through(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        if self.outbox.is_empty() {
            while !rest.is_empty() {
                match poll_write(&mut self.stream, cx, rest)? {
                    Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(count) => {
                        self.written += count as u64;
                        rest = rest.get(count..).unwrap_or_default();
                    }
                    Poll::Pending => break,
                }
            }
        }
        self.outbox_for(rest.len()).extend_from_slice(rest);
        // Registers for the rest, and pushes encrypted records out.
        match self.poll_flush(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }
}

fn poll_write(stream: &mut Stream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    match stream.try_send(bytes) {
        Err(error) if is_passing(&error) => Pin::new(stream).poll_write(cx, bytes),
        sent => Poll::Ready(sent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::encode;
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn only_a_few_messages_wait_that_postgresql_keeps_to_itself_too() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await;
        let mut channel = Channel::new(Stream::from_tcp(tcp.unwrap()).unwrap());
        channel
            .outbox()
            .extend_from_slice(&encode::PARSE_COMPLETE.repeat(3));
        assert!(channel.has_unsent() && channel.can_wait());
        // ReadyForQuery is what its client waits for.
        encode::ready_for_query(channel.outbox(), crate::wire::decode::Status::Idle);
        assert!(!channel.can_wait());
        channel.outbox().clear();
        let many = encode::PARSE_COMPLETE.repeat(WAITING_BYTES_MAX);
        channel.outbox().extend_from_slice(&many);
        assert!(!channel.can_wait());
    }
}
