//! The floor of a machine: a relay that knows nothing of PostgreSQL. `floor LISTEN_PORT SERVER_PORT`
//!
//! One thread, one epoll, one server connection for each client connection, a `recv` and a `send` for each chunk in
//! each direction, and nothing else: no pool, no state, no metric. `benches/bench.py` runs it beside the proxies,
//! because with short messages a proxy over epoll can hardly cost less. Its sends block, which only a benchmark may do.

use std::env;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

const CHUNK_BYTES: usize = 64 * 1024;
const EVENTS_MAX: usize = 256;
/// The listener's mark among the events; a socket's is twice the number of its pair, and one more for the server's.
const LISTENER: u64 = u64::MAX;

/// The client's socket, and the server's.
type Pair = [TcpStream; 2];

struct Relay {
    epoll: OwnedFd,
    listener: TcpListener,
    server_port: u16,
    pairs: Vec<Option<Pair>>,
    chunk: Vec<u8>,
}

fn main() -> io::Result<()> {
    let mut ports = env::args().skip(1).filter_map(|port| port.parse().ok());
    let (Some(listen), Some(server)) = (ports.next(), ports.next()) else {
        eprintln!("usage: floor LISTEN_PORT SERVER_PORT");
        std::process::exit(2);
    };
    Relay::new(listen, server)?.run()
}

impl Relay {
    fn new(listen_port: u16, server_port: u16) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, listen_port))?;
        let mark = EventData::new_u64(LISTENER);
        epoll::add(&epoll, &listener, mark, EventFlags::IN)?;
        Ok(Self {
            epoll,
            listener,
            server_port,
            pairs: Vec::new(),
            chunk: vec![0; CHUNK_BYTES],
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Err(Errno::INTR) => continue,
                done => done?,
            };
            for event in events.drain(..) {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    mark => self.relay(mark),
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let (client, _) = self.listener.accept()?;
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, self.server_port))?;
        // A number is used once, so that an event which is still on its way cannot meet somebody else's sockets.
        let first = 2 * self.pairs.len() as u64;
        for (mark, socket) in [(first, &client), (first + 1, &server)] {
            socket.set_nodelay(true)?;
            epoll::add(
                &self.epoll,
                socket,
                EventData::new_u64(mark),
                EventFlags::IN,
            )?;
        }
        self.pairs.push(Some([client, server]));
        Ok(())
    }

    /// Passes on one chunk; a pair of which one end has gone is closed.
    fn relay(&mut self, mark: u64) {
        let Some(slot) = usize::try_from(mark / 2)
            .ok()
            .and_then(|number| self.pairs.get_mut(number))
        else {
            return;
        };
        let Some([client, server]) = slot else {
            return;
        };
        let (from, to) = if mark.is_multiple_of(2) {
            (client, server)
        } else {
            (server, client)
        };
        if pass(from, to, &mut self.chunk).is_none() {
            *slot = None;
        }
    }
}

fn pass(from: &TcpStream, to: &TcpStream, chunk: &mut [u8]) -> Option<()> {
    let (count, _) = match rustix::net::recv(from, &mut *chunk, RecvFlags::DONTWAIT) {
        Err(Errno::AGAIN | Errno::INTR) => return Some(()),
        done => done.ok().filter(|(count, _)| *count > 0)?,
    };
    let mut rest = chunk.get(..count)?;
    while !rest.is_empty() {
        match rustix::net::send(to, rest, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            done => rest = rest.get(done.ok()?..)?,
        }
    }
    Some(())
}
