//! Logging in to a server, and asking a server to cancel: the only place that speaks the first part of the protocol as
//! a client does, by the crate `postgres-protocol`.
//!
//! Hosts are tried in order, and every address of a host name, as libpq does: the next one is tried when nobody
//! answers, when the server cannot take connections now (57P03), or when it is not what `target_session_attrs` asks
//! for; any other refusal is final. Asks for protocol 3.0 and takes cancel keys of any length. Knows nothing of pools. What would surprise: deriving a SCRAM proof takes
//! milliseconds, so it runs on the runtime's blocking threads.

mod conversation;
mod target;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rand::seq::SliceRandom;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::config::{Dsn, Endpoint, Secret, ServerTls, SslMode, TargetSession};
use crate::error::{Blame, Report, SqlState};
use crate::wire::derived::Derived;
use crate::wire::encode;
use crate::wire::frame::FrameError;
use crate::wire::helpers::Helpers;
use crate::wire::scram_client::ScramError;
use crate::wire::stream::Stream;
use crate::wire::tls::{Connector, TlsError, Verification};

use self::conversation::Ready;
pub(super) use self::conversation::refusal;
pub(super) use self::target::reported_fits;

const CANCEL_REQUEST_CODE: i32 = 80_877_102;

/// Why there is no logged-in connection. The text is safe to show; `Debug` tells the operator more.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no server can be reached")]
    Unreachable {
        endpoint: Endpoint,
        error: io::Error,
    },
    #[error("no server answered within {}", humantime::format_duration(*after))]
    TimedOut { endpoint: Endpoint, after: Duration },
    #[error(
        "{answered} of {tried} servers answered, but none is what target_session_attrs={} asks for",
        target.as_str()
    )]
    NoneFits {
        target: TargetSession,
        answered: usize,
        tried: usize,
    },
    #[error("the connection to the server was lost during login")]
    Lost(#[source] io::Error),
    #[error("the server does not offer TLS, which its connection string requires")]
    TlsNotOffered,
    #[error("TLS towards the server failed")]
    Tls(#[source] TlsError),
    /// The server's own words.
    #[error("{message}")]
    Refused {
        severity: String,
        sqlstate: SqlState,
        message: String,
        detail: Option<String>,
        hint: Option<String>,
    },
    #[error(
        "the server asks for a password of user \"{user}\", and none is known that it can take"
    )]
    NoUsablePassword { user: String },
    #[error("the server asks for an authentication that is not supported ({0})")]
    UnsupportedAuthentication(String),
    #[error("SCRAM with the server failed: {0}")]
    Scram(#[from] ScramError),
    #[error("the server broke the protocol during login: {0}")]
    Unexpected(&'static str),
    #[error("the server broke the protocol during login: {0}")]
    Frame(#[from] FrameError),
}

impl Report for ConnectError {
    fn sqlstate(&self) -> SqlState {
        match self {
            ConnectError::Refused { sqlstate, .. } => *sqlstate,
            ConnectError::Unreachable { .. }
            | ConnectError::TimedOut { .. }
            | ConnectError::NoneFits { .. }
            | ConnectError::TlsNotOffered
            | ConnectError::Tls(_) => SqlState::CANNOT_CONNECT_NOW,
            ConnectError::NoUsablePassword { .. } => SqlState::INVALID_PASSWORD,
            ConnectError::UnsupportedAuthentication(_) => SqlState::INVALID_AUTHORIZATION,
            ConnectError::Lost(_) | ConnectError::Scram(_) => SqlState::CONNECTION_FAILURE,
            ConnectError::Unexpected(_) | ConnectError::Frame(_) => SqlState::PROTOCOL_VIOLATION,
        }
    }
    fn blame(&self) -> Blame {
        match self {
            ConnectError::NoUsablePassword { .. } => Blame::Proxy,
            _ => Blame::Server,
        }
    }
    fn detail(&self) -> Option<String> {
        match self {
            ConnectError::Refused { detail, .. } => detail.clone(),
            _ => None,
        }
    }
    fn advice(&self) -> Option<String> {
        match self {
            ConnectError::Refused { hint, .. } => hint.clone(),
            ConnectError::NoUsablePassword { .. } => Some(
                "Give user and password in the connection string, or a plain password in users_file."
                    .into(),
            ),
            ConnectError::NoneFits { .. } => Some(
                "Ask each host: SELECT pg_is_in_recovery(), and SHOW default_transaction_read_only."
                    .into(),
            ),
            _ => None,
        }
    }
}

impl ConnectError {
    /// Whether another host may do better, by libpq's rule.
    fn is_for_the_next_host(&self) -> bool {
        match self {
            ConnectError::Refused { sqlstate, .. } => *sqlstate == SqlState::CANNOT_CONNECT_NOW,
            ConnectError::NoUsablePassword { .. } | ConnectError::UnsupportedAuthentication(_) => {
                false
            }
            _ => true,
        }
    }
}

/// How one connection string wants TLS, its files read once. Cheap to clone.
#[derive(Clone)]
pub enum Encryption {
    /// Never.
    Off,
    /// When the server offers it.
    Preferred(Connector),
    Required(Connector),
}

impl Encryption {
    /// Reads the files that a connection string names. Handshakes will be done by `helpers`. `require` with a root certificate checks it, as libpq does.
    ///
    /// # Errors
    /// [`ConnectError::Tls`].
    pub fn load(tls: &ServerTls, helpers: &Helpers) -> Result<Encryption, ConnectError> {
        let verification = match tls.mode {
            SslMode::Disable => return Ok(Encryption::Off),
            SslMode::Require if tls.root_cert.is_some() => Verification::Chain,
            SslMode::Prefer | SslMode::Require => Verification::None,
            SslMode::VerifyCa => Verification::Chain,
            SslMode::VerifyFull => Verification::Full,
        };
        let client_cert = tls.client_cert.as_ref();
        let connector = Connector::load(
            verification,
            tls.root_cert.as_deref(),
            client_cert.map(|(chain, key)| (chain.as_path(), key.as_path())),
            helpers,
        )
        .map_err(ConnectError::Tls)?;
        Ok(match tls.mode {
            SslMode::Prefer => Encryption::Preferred(connector),
            _ => Encryption::Required(connector),
        })
    }

    fn connector(&self) -> Option<&Connector> {
        match self {
            Encryption::Off => None,
            Encryption::Preferred(connector) | Encryption::Required(connector) => Some(connector),
        }
    }
}

/// All that one login needs.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// Where to, and with which `dbname`, `options` and `application_name`. Its user and password are not looked at.
    pub dsn: &'a Dsn,
    pub encryption: &'a Encryption,
    pub user: &'a str,
    /// What proves it. A SCRAM secret proves nothing to a server: it only checks proofs.
    pub secret: Option<&'a Secret>,
    /// What is already derived of passwords.
    pub derived: &'a Derived,
    /// Start-up parameters of the client; they win over those of `dsn`.
    pub parameters: &'a [(&'a str, &'a str)],
    /// For each address, connecting and logging in; `dsn.connect_timeout` wins.
    pub timeout: Duration,
}

/// The very server process that a connection leads to; for cancel requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerAddress {
    pub place: Place,
    /// The connection is encrypted: so must be a request to cancel it.
    pub encrypted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// `host` as configured, for the certificate.
    Tcp {
        address: SocketAddr,
        host: String,
    },
    Unix(PathBuf),
}

/// A connection that is ready for a query, with nothing unread.
#[derive(Debug)]
pub struct LoggedIn {
    pub stream: Stream,
    pub pid: i32,
    /// 4 to 256 bytes; empty when the server sent none.
    pub key: Vec<u8>,
    /// What the server reported, each name once, in the order of the first report.
    pub parameters: Vec<(String, String)>,
    pub address: ServerAddress,
    /// What was asked for; the server was that when it let us in (of [`TargetSession::PreferStandby`], perhaps).
    pub target: TargetSession,
}

impl LoggedIn {
    /// Ends the connection in good order.
    pub async fn leave(mut self) {
        // The server may be gone already.
        let _ = self.stream.write_all(encode::TERMINATE).await;
        let _ = self.stream.flush().await;
    }
}

/// Connects and logs in to the first host that takes us.
///
/// # Errors
/// The refusal that ended it, or what the last host said.
pub async fn connect(login: Login<'_>) -> Result<LoggedIn, ConnectError> {
    let dsn = login.dsn;
    let mut last = ConnectError::Unexpected("no host is configured");
    let (mut tried, mut unfit) = (0, 0);
    // The first that answered, for who would rather have a standby and takes anybody.
    let mut second_best = None;
    for endpoint in in_order(dsn, dsn.hosts.iter().collect()) {
        tried += 1;
        let places = match places(endpoint).await {
            Ok(places) => places,
            Err(error) => {
                last = ConnectError::Unreachable {
                    endpoint: endpoint.clone(),
                    error,
                };
                continue;
            }
        };
        tried += places.len().saturating_sub(1);
        for place in in_order(dsn, places) {
            match connect_in_time(login, endpoint, place).await {
                Ok((server, true)) => return Ok(server),
                Ok((server, false)) => {
                    unfit += 1;
                    if dsn.target == TargetSession::PreferStandby && second_best.is_none() {
                        second_best = Some(server);
                    } else {
                        server.leave().await;
                    }
                }
                Err(error) if error.is_for_the_next_host() => last = error,
                Err(error) => return second_best.ok_or(error),
            }
        }
    }
    second_best.ok_or(match unfit {
        0 => last,
        answered => ConnectError::NoneFits {
            target: dsn.target,
            answered,
            tried,
        },
    })
}

/// As they are, or shuffled where the connection string says so.
fn in_order<T>(dsn: &Dsn, mut choices: Vec<T>) -> Vec<T> {
    if dsn.shuffle_hosts {
        choices.shuffle(&mut rand::rng());
    }
    choices
}

/// Asks the server at `address` to cancel what process `pid` runs, over a connection of its own, and waits until the
/// server has closed it: by then the signal is sent. Everything within `limit`.
///
/// # Errors
/// [`ConnectError`]; the server never says whether the key was right.
pub async fn cancel(
    address: &ServerAddress,
    encryption: &Encryption,
    pid: i32,
    key: &[u8],
    limit: Duration,
) -> Result<(), ConnectError> {
    let request = timeout(limit, cancel_unlimited(address, encryption, pid, key));
    request.await.unwrap_or_else(|_| {
        let endpoint = address.place.endpoint();
        Err(ConnectError::TimedOut {
            endpoint,
            after: limit,
        })
    })
}

async fn cancel_unlimited(
    address: &ServerAddress,
    encryption: &Encryption,
    pid: i32,
    key: &[u8],
) -> Result<(), ConnectError> {
    let mut stream = open(&address.place).await?;
    if address.encrypted {
        let connector = encryption.connector().ok_or(ConnectError::TlsNotOffered)?;
        stream = encrypt(stream, &address.place, connector, true).await?;
    }
    let length = 12 + u32::try_from(key.len()).unwrap_or(u32::MAX - 12);
    let mut message = Vec::with_capacity(12 + key.len());
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(&CANCEL_REQUEST_CODE.to_be_bytes());
    message.extend_from_slice(&pid.to_be_bytes());
    message.extend_from_slice(key);
    stream
        .write_all(&message)
        .await
        .map_err(ConnectError::Lost)?;
    stream.flush().await.map_err(ConnectError::Lost)?;
    // Whatever ends the connection ends the wait: a server may reset it, or leave out TLS's farewell.
    let mut nothing = [0; 64];
    while matches!(stream.read(&mut nothing).await, Ok(read) if read > 0) {}
    Ok(())
}

impl Place {
    fn endpoint(&self) -> Endpoint {
        match self {
            Place::Tcp { address, host } => Endpoint::Tcp {
                host: host.clone(),
                port: address.port(),
            },
            Place::Unix(path) => Endpoint::Unix { path: path.clone() },
        }
    }
}

async fn places(endpoint: &Endpoint) -> io::Result<Vec<Place>> {
    match endpoint {
        Endpoint::Unix { path } => Ok(vec![Place::Unix(path.clone())]),
        Endpoint::Tcp { host, port } => {
            let addresses = tokio::net::lookup_host((host.as_str(), *port)).await?;
            Ok(addresses
                .map(|address| Place::Tcp {
                    address,
                    host: host.clone(),
                })
                .collect())
        }
    }
}

async fn connect_in_time(
    login: Login<'_>,
    endpoint: &Endpoint,
    place: Place,
) -> Result<(LoggedIn, bool), ConnectError> {
    let limit = login.dsn.connect_timeout.unwrap_or(login.timeout);
    timeout(limit, connect_to(login, place))
        .await
        .unwrap_or_else(|_| {
            Err(ConnectError::TimedOut {
                endpoint: endpoint.clone(),
                after: limit,
            })
        })
}

async fn open(place: &Place) -> Result<Stream, ConnectError> {
    let opened = match place {
        Place::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        Place::Tcp { address, .. } => match TcpStream::connect(address).await {
            Ok(tcp) => Stream::from_tcp(tcp),
            Err(error) => Err(error),
        },
    };
    opened.map_err(|error| ConnectError::Unreachable {
        endpoint: place.endpoint(),
        error,
    })
}

/// Asks for TLS and does its handshake. Where TLS is not required and the server says no, the connection stays as it
/// is. Unix sockets have no TLS, as in libpq.
async fn encrypt(
    mut stream: Stream,
    place: &Place,
    connector: &Connector,
    required: bool,
) -> Result<Stream, ConnectError> {
    let Place::Tcp { host, .. } = place else {
        return Ok(stream);
    };
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream
        .write_all(&request)
        .await
        .map_err(ConnectError::Lost)?;
    // One byte and no more: what follows belongs to the handshake.
    let answer = stream.read_u8().await.map_err(ConnectError::Lost)?;
    match (answer, stream) {
        (b'S', Stream::Tcp(tcp)) => connector
            .connect(tcp, host)
            .await
            .map_err(ConnectError::Tls),
        (b'N', _) if required => Err(ConnectError::TlsNotOffered),
        (b'N', stream) => Ok(stream),
        // An old server, or one that refuses every connection, says so in an ErrorResponse, which cannot be trusted
        // here: it came in clear.
        _ => Err(ConnectError::Unexpected(
            "its answer to SSLRequest is neither S nor N",
        )),
    }
}

/// And whether the server is what was asked for.
async fn connect_to(login: Login<'_>, place: Place) -> Result<(LoggedIn, bool), ConnectError> {
    let stream = open(&place).await?;
    let stream = match login.encryption {
        Encryption::Off => stream,
        Encryption::Preferred(connector) => encrypt(stream, &place, connector, false).await?,
        Encryption::Required(connector) => encrypt(stream, &place, connector, true).await?,
    };
    let ready = conversation::log_in(stream, login).await?;
    let address = ServerAddress {
        place,
        encrypted: ready.stream.is_tls(),
    };
    let Ready {
        stream,
        pid,
        key,
        parameters,
        fits,
    } = ready;
    let target = login.dsn.target;
    let server = LoggedIn {
        stream,
        pid,
        key,
        parameters,
        address,
        target,
    };
    Ok((server, fits))
}
