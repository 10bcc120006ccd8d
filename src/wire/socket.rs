//! The options of every TCP socket, towards clients and servers alike: no delay, and a peer that vanished is noticed
//! within two minutes, not within the system's two hours.
//!
//! What a listening socket has, its connections inherit on Linux, so there it is set once.
//!
//! Sockets in unix folders need none of this: their peer cannot vanish without the kernel telling.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
/// A silent connection is probed after this.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES_MAX: u32 = 4;
/// Sent bytes that nobody acknowledges end the connection after this (Linux's `TCP_USER_TIMEOUT`).
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(60);

/// Accepted connections have the options of the socket that listens.
pub const INHERITED: bool = cfg!(target_os = "linux");

/// Sets all of them, on a connection or on a socket that listens.
///
/// # Errors
/// The system's, when the socket is already dead.
pub fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES_MAX);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_tuned_socket_has_every_option_and_so_have_its_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        tune(&SockRef::from(&here)).unwrap();
        has_every_option(&here);
        tune(&SockRef::from(&listener)).unwrap();
        let _another = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _untuned = listener.accept().unwrap();
        let (there, _) = listener.accept().unwrap();
        if INHERITED {
            has_every_option(&there);
        }
    }

    fn has_every_option(tcp: &TcpStream) {
        let socket = SockRef::from(tcp);
        assert!(tcp.nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(
            socket.tcp_keepalive_retries().unwrap(),
            KEEPALIVE_PROBES_MAX
        );
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED_MAX));
    }
}
