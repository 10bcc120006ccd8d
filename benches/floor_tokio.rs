//! The floor of tokio: the relay of `benches/floor.rs` over the runtime that pgherd stands on.
//! `floor_tokio LISTEN_PORT SERVER_PORT`
//!
//! One thread, one task for each client with a server connection of its own. What it costs more than the bare relay is
//! what any program pays for tokio's polls and wake-ups, before it does anything of its own.

use std::cell::RefCell;
use std::env;
use std::future::poll_fn;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

const CHUNK_BYTES: usize = 64 * 1024;

/// The read buffer, which all tasks share.
type Chunk = Rc<RefCell<Vec<u8>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let mut ports = env::args().skip(1).filter_map(|port| port.parse().ok());
    let (Some(listen), Some(server)) = (ports.next(), ports.next()) else {
        eprintln!("usage: floor_tokio LISTEN_PORT SERVER_PORT");
        std::process::exit(2);
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, listen)).await?;
    LocalSet::new().run_until(accept(listener, server)).await
}

async fn accept(listener: TcpListener, server_port: u16) -> io::Result<()> {
    let chunk = Chunk::new(RefCell::new(vec![0; CHUNK_BYTES]));
    loop {
        let (client, _) = listener.accept().await?;
        let chunk = Rc::clone(&chunk);
        // A pair of which one end has gone is closed.
        spawn_local(async move { relay(client, server_port, &chunk).await.err() });
    }
}

async fn relay(mut client: TcpStream, server_port: u16, chunk: &Chunk) -> io::Result<()> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, to_client) = client.split();
    let (mut from_server, to_server) = server.split();
    poll_fn(|cx| {
        let mut chunk = chunk.borrow_mut();
        let answers = poll_pass(cx, &mut from_server, &to_client, &mut chunk)?;
        let requests = poll_pass(cx, &mut from_client, &to_server, &mut chunk)?;
        if answers.is_ready() || requests.is_ready() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await
}

/// Ready when there is nothing more to come.
fn poll_pass(
    cx: &mut Context<'_>,
    from: &mut ReadHalf<'_>,
    to: &WriteHalf<'_>,
    chunk: &mut [u8],
) -> Poll<io::Result<()>> {
    loop {
        let mut read = ReadBuf::new(chunk);
        ready!(Pin::new(&mut *from).poll_read(cx, &mut read))?;
        let read = read.filled();
        if read.is_empty() {
            return Poll::Ready(Ok(()));
        }
        // A buffer that is full ends the relay: messages are short, where this is the floor.
        if to.try_write(read)? < read.len() {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
    }
}
