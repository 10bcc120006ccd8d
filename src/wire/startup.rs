//! The first, untyped message of a connection: a total, borrowed decoder ([`decode`]) and the negotiation that leads to
//! a start-up or a cancel ([`negotiate`]).
//!
//! Source: PostgreSQL, "Message Flow: Start-up", and `ProcessStartupPacket` in `backend_startup.c`. Knows no user, no
//! database and no password. Reads exactly one message at a time, never a byte beyond it: bytes that a client sends in
//! clear behind an SSLRequest reach the TLS handshake, which fails on them; where they are already there when we
//! answer, we do not even begin it. Time is the caller's to limit.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::encode;
pub use super::parameters::{Parameters, Replication, parse_options};
use super::stream::Stream;
use super::tls::{Acceptor, TlsError};
use crate::error::{Blame, Report, Severity, SqlState};

/// PostgreSQL's limit for any first message, its length included.
const MESSAGE_BYTES_MAX: u32 = 10_000;
/// A length and a code.
const MESSAGE_BYTES_MIN: u32 = 8;
const LENGTH_BYTES: usize = 4;
const CANCEL_KEY_BYTES_MIN: usize = 4;
const CANCEL_KEY_BYTES_MAX: usize = 256;

const PROTOCOL_MAJOR: u16 = 3;
/// The newest minor version that pgherd speaks.
pub const PROTOCOL_MINOR: u16 = 2;
/// "Major version" of messages that are not start-ups.
const REQUEST_MAJOR: u16 = 1234;
const CANCEL_REQUEST: u16 = 5678;
const SSL_REQUEST: u16 = 5679;
const GSSENC_REQUEST: u16 = 5680;
/// The first byte of a TLS handshake record; never that of a length.
const TLS_HANDSHAKE: u8 = 0x16;

/// Why a first message leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// The client left before it said a word: a probe, a port scan.
    #[error("the connection was closed before it began")]
    Closed,
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    #[error("invalid length of startup packet")]
    BadLength(u32),
    #[error("invalid startup packet layout: {0}")]
    BadLayout(&'static str),
    #[error(
        "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{PROTOCOL_MINOR}"
    )]
    UnsupportedProtocol { major: u16, minor: u16 },
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    #[error("invalid value for parameter \"{name}\": \"{value}\"")]
    BadValue { name: &'static str, value: String },
    #[error("unsupported start-up option: {0}")]
    BadOption(String),
    #[error("received unencrypted data after SSL request")]
    UnencryptedData,
    #[error("connections without TLS are refused")]
    TlsRequired,
    #[error("TLS is not configured here")]
    NoTls,
    #[error("the TLS handshake failed")]
    Tls(#[from] TlsError),
}

impl Report for StartupError {
    fn sqlstate(&self) -> SqlState {
        match self {
            StartupError::Closed | StartupError::Lost(_) => SqlState::CONNECTION_FAILURE,
            StartupError::UnsupportedProtocol { .. } | StartupError::NoTls => {
                SqlState::FEATURE_NOT_SUPPORTED
            }
            StartupError::NoUser | StartupError::TlsRequired => SqlState::INVALID_AUTHORIZATION,
            StartupError::BadValue { .. } | StartupError::BadOption(_) => {
                SqlState::INVALID_PARAMETER_VALUE
            }
            _ => SqlState::PROTOCOL_VIOLATION,
        }
    }
    fn blame(&self) -> Blame {
        Blame::Client
    }
    fn severity(&self) -> Severity {
        Severity::Fatal
    }
    fn advice(&self) -> Option<String> {
        match self {
            StartupError::TlsRequired => Some("Connect with sslmode=require or stricter.".into()),
            StartupError::NoTls => Some("Connect with sslnegotiation=postgres.".into()),
            _ => None,
        }
    }
}

/// A name and its value, as sent.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// A first message, borrowed from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First<'a> {
    Startup {
        /// The minor version of protocol 3 that the client asks for.
        minor: u16,
        /// In the order of the message, as sent.
        parameters: Vec<Pair<'a>>,
    },
    SslRequest,
    GssencRequest,
    Cancel {
        pid: i32,
        key: &'a [u8],
    },
}

/// Decodes what follows the four bytes of length.
///
/// # Errors
/// [`StartupError::BadLayout`], [`StartupError::BadLength`] and [`StartupError::UnsupportedProtocol`].
pub fn decode(message: &[u8]) -> Result<First<'_>, StartupError> {
    let Some((&[a, b, c, d], body)) = message.split_first_chunk::<4>() else {
        return Err(StartupError::BadLayout("expected a protocol version"));
    };
    let (major, minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    match (major, minor) {
        (PROTOCOL_MAJOR, _) => Ok(First::Startup {
            minor,
            parameters: decode_parameters(body)?,
        }),
        (REQUEST_MAJOR, CANCEL_REQUEST) => decode_cancel(body),
        (REQUEST_MAJOR, SSL_REQUEST) if body.is_empty() => Ok(First::SslRequest),
        (REQUEST_MAJOR, GSSENC_REQUEST) if body.is_empty() => Ok(First::GssencRequest),
        (REQUEST_MAJOR, SSL_REQUEST | GSSENC_REQUEST) => Err(StartupError::BadLayout(
            "expected nothing behind an encryption request",
        )),
        _ => Err(StartupError::UnsupportedProtocol { major, minor }),
    }
}

fn decode_cancel(body: &[u8]) -> Result<First<'_>, StartupError> {
    let Some((&pid, key)) = body.split_first_chunk::<4>() else {
        return Err(StartupError::BadLayout("expected a process id to cancel"));
    };
    if !(CANCEL_KEY_BYTES_MIN..=CANCEL_KEY_BYTES_MAX).contains(&key.len()) {
        return Err(StartupError::BadLayout("invalid length of the cancel key"));
    }
    Ok(First::Cancel {
        pid: i32::from_be_bytes(pid),
        key,
    })
}

fn decode_parameters(body: &[u8]) -> Result<Vec<Pair<'_>>, StartupError> {
    const NO_END: StartupError = StartupError::BadLayout("expected terminator as last byte");
    let mut parameters = Vec::new();
    let mut rest = body;
    loop {
        let (name, after) = text(rest).ok_or(NO_END)?;
        if name.is_empty() {
            return if after.is_empty() {
                Ok(parameters)
            } else {
                Err(NO_END)
            };
        }
        let (value, after) = text(after).ok_or(NO_END)?;
        parameters.push((name, value));
        rest = after;
    }
}

/// Up to the next zero byte, and what is behind it.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// What a listener demands of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Refuse start-ups without TLS; unix sockets excepted.
    pub tls_required: bool,
}

/// Where the first messages led.
#[derive(Debug)]
pub enum Opening {
    Cancel { pid: i32, key: Vec<u8> },
    Startup(Startup),
}

/// A client that wants to log in.
#[derive(Debug)]
pub struct Startup {
    pub stream: Stream,
    /// The minor version of protocol 3 that is spoken from here on: 0 to [`PROTOCOL_MINOR`]. Cancel keys may be longer
    /// than four bytes from 2 on.
    pub minor: u16,
    pub parameters: Parameters,
}

/// A negotiation that failed, with the connection where the error can still be told.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct NegotiationFailed {
    pub error: StartupError,
    pub stream: Option<Stream>,
}

/// Reads first messages until one is a start-up or a cancel; answers requests for encryption, each kind at most once.
/// Unknown protocol options and newer minor versions are answered with NegotiateProtocolVersion.
///
/// # Errors
/// [`NegotiationFailed`]; its stream is `None` when nobody can read an answer (no TLS after all, connection lost).
pub async fn negotiate(
    mut stream: Stream,
    tls: Option<&Acceptor>,
    policy: Policy,
) -> Result<Opening, NegotiationFailed> {
    let (mut tls_answered, mut gss_answered, mut direct) = (false, false, !stream.is_unix());
    loop {
        let (beginning, filled) = match read_beginning(&mut stream).await {
            Ok(beginning) => beginning,
            Err(error) => return Err(failed(error, stream)),
        };
        if std::mem::take(&mut direct) && begins_tls(beginning) {
            let read = beginning.get(..filled).unwrap_or_default();
            stream = direct_tls(stream, tls, read).await?;
            tls_answered = true;
            continue;
        }
        let message = match read_message(&mut stream, beginning).await {
            Ok(message) => message,
            Err(error) => return Err(failed(error, stream)),
        };
        match decode(&message) {
            Ok(First::Cancel { pid, key }) => {
                return Ok(Opening::Cancel {
                    pid,
                    key: key.to_vec(),
                });
            }
            Ok(First::Startup { minor, parameters }) => {
                return match start(&mut stream, minor, &parameters, policy).await {
                    Ok((minor, parameters)) => Ok(Opening::Startup(Startup {
                        stream,
                        minor,
                        parameters,
                    })),
                    Err(error) => Err(failed(error, stream)),
                };
            }
            Ok(First::SslRequest) if !tls_answered => {
                tls_answered = true;
                stream = answer_ssl_request(stream, tls).await?;
            }
            Ok(First::GssencRequest) if !gss_answered && !stream.is_tls() => {
                gss_answered = true;
                if let Err(error) = answer(&mut stream, b'N').await {
                    return Err(failed(error, stream));
                }
            }
            Ok(First::SslRequest | First::GssencRequest) => {
                let error = StartupError::BadLayout("expected a start-up message");
                return Err(failed(error, stream));
            }
            Err(error) => return Err(failed(error, stream)),
        }
    }
}

fn failed(error: StartupError, stream: Stream) -> NegotiationFailed {
    let told = !matches!(error, StartupError::Closed | StartupError::Lost(_));
    NegotiationFailed {
        error,
        stream: told.then_some(stream),
    }
}

fn lost(error: impl Into<StartupError>) -> NegotiationFailed {
    NegotiationFailed {
        error: error.into(),
        stream: None,
    }
}

/// The beginning of a first message: its length, and what kind it is. No message is shorter, and a request for
/// encryption is not longer, so nothing is read that may belong to TLS.
type Beginning = [u8; MESSAGE_BYTES_MIN as usize];

/// A client may begin TLS at once (`sslnegotiation=direct`): told by its first byte.
async fn direct_tls(
    stream: Stream,
    tls: Option<&Acceptor>,
    beginning: &[u8],
) -> Result<Stream, NegotiationFailed> {
    match (tls, stream) {
        (Some(tls), Stream::Tcp(tcp)) => tls.accept(tcp, Some(beginning)).await.map_err(lost),
        _ => Err(lost(StartupError::NoTls)),
    }
}

/// Also how much of it was read: of TLS, what came first.
async fn read_beginning(stream: &mut Stream) -> Result<(Beginning, usize), StartupError> {
    let mut beginning = Beginning::default();
    let mut filled = 0;
    while let Some(rest) = beginning.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest).await? {
            0 if filled == 0 => return Err(StartupError::Closed),
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "early eof").into()),
            read => filled += read,
        }
        if begins_tls(beginning) {
            break;
        }
        // Who sends a wrong length is told at once, also when nothing follows.
        if filled >= LENGTH_BYTES {
            length(beginning)?;
        }
    }
    Ok((beginning, filled))
}

fn begins_tls(beginning: Beginning) -> bool {
    beginning.first() == Some(&TLS_HANDSHAKE)
}

/// Of the whole message.
fn length(beginning: Beginning) -> Result<u32, StartupError> {
    let bytes = beginning.first_chunk().copied().unwrap_or_default();
    match u32::from_be_bytes(bytes) {
        length @ MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX => Ok(length),
        length => Err(StartupError::BadLength(length)),
    }
}

/// What follows the length of the message.
async fn read_message(stream: &mut Stream, beginning: Beginning) -> Result<Vec<u8>, StartupError> {
    let (_length, kind) = beginning.split_at(LENGTH_BYTES);
    let mut message = kind.to_vec();
    message.resize(length(beginning)? as usize - LENGTH_BYTES, 0);
    let (_kind, rest) = message.split_at_mut(kind.len());
    stream.read_exact(rest).await?;
    Ok(message)
}

async fn answer(stream: &mut Stream, byte: u8) -> Result<(), StartupError> {
    // A client waits for the answer; bytes that are already there were sent by someone in between, or by a client
    // that does not keep to the protocol.
    if !stream.is_emptied() {
        return Err(StartupError::UnencryptedData);
    }
    stream.write_all(&[byte]).await?;
    Ok(())
}

async fn answer_ssl_request(
    mut stream: Stream,
    tls: Option<&Acceptor>,
) -> Result<Stream, NegotiationFailed> {
    let acceptor = tls.filter(|_| !stream.is_unix());
    let byte = if acceptor.is_some() { b'S' } else { b'N' };
    if let Err(error) = answer(&mut stream, byte).await {
        return Err(failed(error, stream));
    }
    match (acceptor, stream) {
        (Some(acceptor), Stream::Tcp(tcp)) => acceptor.accept(tcp, None).await.map_err(lost),
        (_, stream) => Ok(stream),
    }
}

/// Checks a start-up and settles the version.
async fn start(
    stream: &mut Stream,
    asked_minor: u16,
    pairs: &[Pair<'_>],
    policy: Policy,
) -> Result<(u16, Parameters), StartupError> {
    if policy.tls_required && !stream.is_tls() && !stream.is_unix() {
        return Err(StartupError::TlsRequired);
    }
    let parameters = Parameters::of_pairs(pairs)?;
    let minor = asked_minor.min(PROTOCOL_MINOR);
    if minor != asked_minor || !parameters.unknown_options().is_empty() {
        let version = (i32::from(PROTOCOL_MAJOR) << 16) | i32::from(minor);
        let mut message = Vec::new();
        encode::negotiate_protocol_version(
            &mut message,
            version,
            parameters.unknown_options().to_vec(),
        );
        stream.write_all(&message).await?;
    }
    Ok((minor, parameters))
}
