//! An address to listen on: `host:port`, `[address]:port`, `/folder` or `/folder:port`.
//!
//! Knows no other address and opens nothing; a host name is not looked up here.

use std::path::PathBuf;

use super::Listen;
use super::dsn::SOCKET_PATH_BYTES_MAX;
use super::problems::Fault;

/// The port of a unix socket whose entry names none.
const UNIX_PORT: u16 = 6432;

/// Reads one entry of `proxy.listen`.
pub(super) fn parse(text: &str) -> Result<Listen, Fault> {
    if text.starts_with('/') {
        return unix_listen(text);
    }
    let wrong = |remedy: &str| {
        Err(Fault::new(
            format!("{text:?} is no address to listen on"),
            remedy,
        ))
    };
    let Some((host, port)) = text.rsplit_once(':') else {
        return wrong(
            "write host:port such as \"127.0.0.1:6432\", or a folder such as \"/run/pgherd\" for a unix socket",
        );
    };
    let Ok(port) = port.parse::<u16>() else {
        return wrong(
            "end it with a port from 1 to 65535 (0: any free port), such as \"127.0.0.1:6432\"",
        );
    };
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
        None if host.contains([':', '[', ']']) => {
            return wrong("write an IPv6 address in brackets: \"[::1]:6432\"");
        }
        None if matches!(host, "" | "*") => {
            return wrong(
                "write \"0.0.0.0:6432\" for every IPv4 address, \"[::]:6432\" for every address",
            );
        }
        None if !host.contains(|c: char| c.is_whitespace() || c == '/') => host,
        _ => {
            return wrong(
                "write a host name, an IPv4 address, or an IPv6 address in brackets before the port",
            );
        }
    };
    Ok(Listen::Tcp {
        host: host.to_owned(),
        port,
    })
}

fn unix_listen(text: &str) -> Result<Listen, Fault> {
    let (folder, port) = match text.rsplit_once(':') {
        Some((folder, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
            (folder, port.parse::<u16>().ok().filter(|port| *port > 0))
        }
        _ => (text, Some(UNIX_PORT)),
    };
    let Some(port) = port else {
        return Err(Fault::new(
            format!("{text:?} does not end with a port from 1 to 65535"),
            "write \"/folder\" or \"/folder:6432\"",
        ));
    };
    let folder = PathBuf::from(folder);
    if folder.join(format!(".s.PGSQL.{port}")).as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(Fault::new(
            format!("the path of the unix socket is longer than {SOCKET_PATH_BYTES_MAX} bytes"),
            "use a shorter folder; the operating system takes no longer path",
        ));
    }
    Ok(Listen::Unix { folder, port })
}
