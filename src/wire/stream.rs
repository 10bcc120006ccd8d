//! One connection, whatever carries it: TCP, a unix socket, or TLS over TCP on either side. Reading and writing go
//! straight to the carrier.
//!
//! Does not know what the bytes mean. TLS lives over TCP only, as in PostgreSQL. What would surprise: a readable
//! TLS socket need not have a byte for us (its peer may have sent a record of TLS itself); [`Stream::is_quiet`] knows
//! the difference.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use rustix::net::{RecvFlags, SendFlags};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};

use super::socket;

/// A connected peer.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// We are the server of the TLS handshake: a client of ours.
    TlsServer(Box<server::TlsStream<TcpStream>>),
    /// We are the client of the TLS handshake: a server of ours.
    TlsClient(Box<client::TlsStream<TcpStream>>),
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    /// A local process; unix sockets have no address worth telling.
    Unix,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

/// A connection on its way to another runtime.
#[derive(Debug)]
pub enum Detached {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
    /// Still watched by the runtime that it leaves: its cryptographic state cannot be taken out and put in again.
    Tls(Stream),
}

impl Detached {
    /// Registers the connection with the runtime that calls.
    ///
    /// # Errors
    /// The system's, when it cannot watch one more socket.
    pub fn attach(self) -> io::Result<Stream> {
        match self {
            Detached::Tcp(tcp) => TcpStream::from_std(tcp).map(Stream::Tcp),
            Detached::Unix(unix) => UnixStream::from_std(unix).map(Stream::Unix),
            Detached::Tls(mut tls) => {
                match &mut tls {
                    Stream::TlsServer(tls) => reattach(tls.get_mut().0)?,
                    Stream::TlsClient(tls) => reattach(tls.get_mut().0)?,
                    Stream::Tcp(_) | Stream::Unix(_) => {}
                }
                Ok(tls)
            }
        }
    }
}

/// Puts the same socket, watched by the runtime that calls, in the place of one that another watches.
fn reattach(tcp: &mut TcpStream) -> io::Result<()> {
    let again = std::net::TcpStream::from(tcp.as_fd().try_clone_to_owned()?);
    *tcp = TcpStream::from_std(again)?;
    Ok(())
}

/// Reads once, straight from the system. What does not fill the buffer has emptied the socket: the runtime is told that
/// there is nothing more, which spares the call that would find that out.
macro_rules! poll_plain {
    ($socket:expr, $context:expr, $buffer:expr) => {
        loop {
            ready!($socket.poll_read_ready($context))?;
            let mut emptied = None;
            let read = $socket.try_io(Interest::READABLE, || {
                let count = rustix::net::recv(&*$socket, &mut *$buffer, RecvFlags::empty())?.0;
                if count == 0 || count == $buffer.len() {
                    return Ok(count);
                }
                emptied = Some(count);
                Err(io::ErrorKind::WouldBlock.into())
            });
            match (emptied, read) {
                (Some(count), _) => break Poll::Ready(Ok(count)),
                (None, Err(error)) if is_passing(&error) => {}
                (None, read) => break Poll::Ready(read),
            }
        }
    };
}

/// Whether the call is to be tried again.
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

impl Stream {
    /// A TCP connection with its options set (see [`socket::tune`]).
    ///
    /// # Errors
    /// The system's, when the connection is already dead.
    pub fn from_tcp(tcp: TcpStream) -> io::Result<Stream> {
        socket::tune(&SockRef::from(&tcp))?;
        Ok(Stream::Tcp(tcp))
    }

    /// A TCP connection from a listening socket that has the options itself.
    ///
    /// # Errors
    /// As [`Stream::from_tcp`].
    pub fn accepted(tcp: TcpStream) -> io::Result<Stream> {
        if socket::INHERITED {
            Ok(Stream::Tcp(tcp))
        } else {
            Stream::from_tcp(tcp)
        }
    }

    /// Takes the connection away from its runtime.
    ///
    /// # Errors
    /// The system's, and no connection any more, when the runtime could not let go of it.
    pub fn detach(self) -> io::Result<Detached> {
        match self {
            Stream::Tcp(tcp) => tcp.into_std().map(Detached::Tcp),
            Stream::Unix(unix) => unix.into_std().map(Detached::Unix),
            tls => Ok(Detached::Tls(tls)),
        }
    }

    /// Writes without asking the runtime whether the socket has room: nearly always it has.
    ///
    /// # Errors
    /// `WouldBlock` where [`AsyncWrite::poll_write`] must wait for room, and always with TLS; the system's errors.
    #[inline]
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(tcp) => Ok(rustix::net::send(tcp, bytes, SendFlags::NOSIGNAL)?),
            Stream::Unix(unix) => Ok(rustix::net::send(unix, bytes, SendFlags::NOSIGNAL)?),
            Stream::TlsServer(_) | Stream::TlsClient(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Reads once; 0 is the end of the stream.
    ///
    /// # Errors
    /// The system's.
    #[inline]
    pub fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Stream::Tcp(tcp) => poll_plain!(tcp, context, buffer),
            Stream::Unix(unix) => poll_plain!(unix, context, buffer),
            Stream::TlsServer(_) | Stream::TlsClient(_) => {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(self).poll_read(context, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
        }
    }

    pub fn is_tls(&self) -> bool {
        matches!(self, Stream::TlsServer(_) | Stream::TlsClient(_))
    }

    pub fn is_unix(&self) -> bool {
        matches!(self, Stream::Unix(_))
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// The system's, when the peer is gone.
    pub fn peer(&self) -> io::Result<Peer> {
        match self.tcp() {
            Some(tcp) => tcp.peer_addr().map(Peer::Tcp),
            None => Ok(Peer::Unix),
        }
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Stream::Tcp(tcp) => Some(tcp),
            Stream::Unix(_) => None,
            Stream::TlsServer(tls) => Some(tls.get_ref().0),
            Stream::TlsClient(tls) => Some(tls.get_ref().0),
        }
    }

    /// Ready when there is something to read or the peer has closed; needs no buffer, so an idle connection holds
    /// none. One task may wait at a time. For TLS see the note at the top of the file.
    #[inline]
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(tcp) => tcp.poll_read_ready(context),
            Stream::Unix(unix) => unix.poll_read_ready(context),
            // rustls does not want to read while it holds decrypted bytes or the peer's farewell.
            Stream::TlsServer(tls) if !tls.get_ref().1.wants_read() => Poll::Ready(Ok(())),
            Stream::TlsClient(tls) if !tls.get_ref().1.wants_read() => Poll::Ready(Ok(())),
            Stream::TlsServer(tls) => tls.get_ref().0.poll_read_ready(context),
            Stream::TlsClient(tls) => tls.get_ref().0.poll_read_ready(context),
        }
    }

    /// Waits as [`Stream::poll_read_ready`] does.
    ///
    /// # Errors
    /// The system's.
    pub async fn readable(&self) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_read_ready(context)).await
    }

    /// Whether an idle connection is alive and has nothing to say. A connection that answers `false` must be closed:
    /// with TLS, the bytes that spoke against it are lost.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = match self {
            Stream::Tcp(tcp) => SockRef::from(&*tcp).peek(&mut byte),
            Stream::Unix(unix) => SockRef::from(&*unix).peek(&mut byte),
            Stream::TlsServer(_) | Stream::TlsClient(_) => return self.is_quiet_tls(),
        };
        matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether nothing more has come than what was read; does not look at what TLS has in store. Unlike
    /// [`Stream::is_quiet`] it goes by what the runtime has heard, and tells it that the socket is empty.
    pub fn is_emptied(&self) -> bool {
        let peek = |socket: SockRef<'_>| socket.peek(&mut [MaybeUninit::uninit()]);
        let peeked = match self {
            Stream::Unix(unix) => unix.try_io(Interest::READABLE, || peek(SockRef::from(unix))),
            stream => match stream.tcp() {
                Some(tcp) => tcp.try_io(Interest::READABLE, || peek(SockRef::from(tcp))),
                None => return false,
            },
        };
        matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    fn is_quiet_tls(&mut self) -> bool {
        let mut byte = [0];
        // The waker is replaced by the next one who waits; nobody else can be waiting behind `&mut self`.
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(self)
            .poll_read(&mut context, &mut ReadBuf::new(&mut byte))
            .is_pending()
    }
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            Stream::TlsServer($stream) => $call,
            Stream::TlsClient($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write_vectored(context, parts))
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_flush(context))
    }

    #[inline]
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn tcp_pair() -> (Stream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (there, _) = listener.accept().await.unwrap();
        (
            Stream::from_tcp(here).unwrap(),
            Stream::from_tcp(there).unwrap(),
        )
    }

    fn unix_pair() -> (Stream, Stream) {
        let (here, there) = UnixStream::pair().unwrap();
        (Stream::Unix(here), Stream::Unix(there))
    }

    #[tokio::test]
    async fn a_connection_is_quiet_until_its_peer_speaks_or_leaves() {
        for (mut here, mut there) in [tcp_pair().await, unix_pair()] {
            assert!(here.is_quiet());
            there.write_all(b"x").await.unwrap();
            here.readable().await.unwrap();
            assert!(!here.is_quiet());
            assert_eq!(here.read_u8().await.unwrap(), b'x');
            assert!(here.is_quiet());
            drop(there);
            here.readable().await.unwrap();
            assert!(!here.is_quiet());
        }
    }

    #[tokio::test]
    async fn a_plain_connection_moves_to_another_runtime_and_works_there() {
        for (here, mut there) in [tcp_pair().await, unix_pair()] {
            let detached = here.detach().unwrap();
            let echo = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                runtime.unwrap().block_on(async move {
                    let mut here = detached.attach().unwrap();
                    let byte = here.read_u8().await.unwrap();
                    here.write_all(&[byte + 1]).await.unwrap();
                });
            });
            there.write_all(b"a").await.unwrap();
            assert_eq!(there.read_u8().await.unwrap(), b'b');
            echo.join().unwrap();
        }
    }

    #[tokio::test]
    async fn a_peer_is_named_by_its_address() {
        let (here, there) = tcp_pair().await;
        let Stream::Tcp(tcp) = &there else {
            unreachable!()
        };
        assert_eq!(here.peer().unwrap(), Peer::Tcp(tcp.local_addr().unwrap()));
        assert_eq!(unix_pair().0.peer().unwrap().to_string(), "unix");
    }
}
