//! Logging in to a server, and asking a server to cancel: the only place that speaks the first part of the protocol as
//! a client does, by the crate `postgres-protocol`.
//!
//! Hosts are tried in order, and every address of a host name, as libpq does: the next one is tried when nobody
//! answers or the server cannot take connections now (57P03); any other refusal is final. Asks for protocol 3.0 and
//! takes cancel keys of any length. Knows nothing of pools. What would surprise: deriving a SCRAM proof takes
//! milliseconds, so it runs on the runtime's blocking threads.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::config::{Dsn, Endpoint, Secret, ServerTls, SslMode};
use crate::error::{Blame, Report, SqlState};
use crate::wire::decode;
use crate::wire::frame::{FrameError, HEADER_BYTES, Header, first_frame, server_header};
use crate::wire::scram::md5_response;
use crate::wire::stream::Stream;
use crate::wire::tls::{Connector, TlsError, Verification, server_end_point};

/// The largest message that a server may send before it is ready.
const LOGIN_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// All that a server may send before it is ready: notices included.
const LOGIN_BYTES_MAX: usize = 1024 * 1024;
const READ_BYTES: usize = 8 * 1024;
const CANCEL_KEY_BYTES_MAX: usize = 256;
const CANCEL_REQUEST_CODE: i32 = 80_877_102;

/// Why there is no logged-in connection. The text is safe to show; `Debug` tells the operator more.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no server can be reached")]
    Unreachable { endpoint: Endpoint, error: io::Error },
    #[error("no server answered within {}", humantime::format_duration(*after))]
    TimedOut { endpoint: Endpoint, after: Duration },
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
    #[error("the server asks for a password of user \"{user}\", and none is known that it can take")]
    NoUsablePassword { user: String },
    #[error("the server asks for an authentication that is not supported ({0})")]
    UnsupportedAuthentication(String),
    #[error("SCRAM with the server failed: {0}")]
    Scram(io::Error),
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
    /// Reads the files that a connection string names. `require` with a root certificate checks it, as libpq does.
    ///
    /// # Errors
    /// [`ConnectError::Tls`].
    pub fn load(tls: &ServerTls) -> Result<Encryption, ConnectError> {
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
    Tcp { address: SocketAddr, host: String },
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
}

/// Connects and logs in to the first host that takes us.
///
/// # Errors
/// The refusal that ended it, or what the last host said.
pub async fn connect(login: Login<'_>) -> Result<LoggedIn, ConnectError> {
    let mut last = ConnectError::Unexpected("no host is configured");
    for endpoint in &login.dsn.hosts {
        let places = match places(endpoint).await {
            Ok(places) => places,
            Err(error) => {
                last = ConnectError::Unreachable { endpoint: endpoint.clone(), error };
                continue;
            }
        };
        for place in places {
            match connect_in_time(login, endpoint, place).await {
                Ok(server) => return Ok(server),
                Err(error) if error.is_for_the_next_host() => last = error,
                Err(error) => return Err(error),
            }
        }
    }
    Err(last)
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
    match timeout(limit, cancel_unlimited(address, encryption, pid, key)).await {
        Ok(result) => result,
        Err(_) => {
            let endpoint = address.place.endpoint();
            Err(ConnectError::TimedOut { endpoint, after: limit })
        }
    }
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
    stream.write_all(&message).await.map_err(ConnectError::Lost)?;
    stream.flush().await.map_err(ConnectError::Lost)?;
    // Whatever ends the connection ends the wait: a server may reset it, or leave out TLS's farewell.
    let mut nothing = [0; 64];
    while matches!(stream.read(&mut nothing).await, Ok(read) if read > 0) {}
    Ok(())
}

impl Place {
    fn endpoint(&self) -> Endpoint {
        match self {
            Place::Tcp { address, host } => {
                Endpoint::Tcp { host: host.clone(), port: address.port() }
            }
            Place::Unix(path) => Endpoint::Unix { path: path.clone() },
        }
    }
}

async fn places(endpoint: &Endpoint) -> io::Result<Vec<Place>> {
    match endpoint {
        Endpoint::Unix { path } => Ok(vec![Place::Unix(path.clone())]),
        Endpoint::Tcp { host, port } => {
            let addresses = tokio::net::lookup_host((host.as_str(), *port)).await?;
            Ok(addresses.map(|address| Place::Tcp { address, host: host.clone() }).collect())
        }
    }
}

async fn connect_in_time(
    login: Login<'_>,
    endpoint: &Endpoint,
    place: Place,
) -> Result<LoggedIn, ConnectError> {
    let limit = login.dsn.connect_timeout.unwrap_or(login.timeout);
    match timeout(limit, connect_to(login, place)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::TimedOut { endpoint: endpoint.clone(), after: limit }),
    }
}

async fn open(place: &Place) -> Result<Stream, ConnectError> {
    let opened = match place {
        Place::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        Place::Tcp { address, .. } => match TcpStream::connect(address).await {
            Ok(tcp) => Stream::from_tcp(tcp),
            Err(error) => Err(error),
        },
    };
    opened.map_err(|error| ConnectError::Unreachable { endpoint: place.endpoint(), error })
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
    stream.write_all(&request).await.map_err(ConnectError::Lost)?;
    // One byte and no more: what follows belongs to the handshake.
    let answer = stream.read_u8().await.map_err(ConnectError::Lost)?;
    match (answer, stream) {
        (b'S', Stream::Tcp(tcp)) => connector.connect(tcp, host).await.map_err(ConnectError::Tls),
        (b'N', _) if required => Err(ConnectError::TlsNotOffered),
        (b'N', stream) => Ok(stream),
        // An old server, or one that refuses every connection, says so in an ErrorResponse, which cannot be trusted
        // here: it came in clear.
        _ => Err(ConnectError::Unexpected("its answer to SSLRequest is neither S nor N")),
    }
}

async fn connect_to(login: Login<'_>, place: Place) -> Result<LoggedIn, ConnectError> {
    let stream = open(&place).await?;
    let stream = match login.encryption {
        Encryption::Off => stream,
        Encryption::Preferred(connector) => encrypt(stream, &place, connector, false).await?,
        Encryption::Required(connector) => encrypt(stream, &place, connector, true).await?,
    };
    let mut conversation = Conversation { stream, read: BytesMut::new(), read_bytes: 0 };
    conversation.send(&startup_message(login)?).await?;
    conversation.authenticate(login).await?;
    conversation.finish(place).await
}

/// The start-up message: the client's parameters first, then those of the connection string that it did not give.
fn startup_message(login: Login<'_>) -> Result<BytesMut, ConnectError> {
    let dsn = login.dsn;
    let mut parameters = vec![("user", login.user), ("database", dsn.dbname.as_str())];
    parameters.extend(
        login.parameters.iter().copied().filter(|(name, _)| !matches!(*name, "user" | "database")),
    );
    let defaults = [
        ("application_name", dsn.application_name.as_deref()),
        ("options", dsn.options.as_deref()),
    ];
    for (name, value) in defaults {
        if let Some(value) = value
            && !parameters.iter().any(|(known, _)| *known == name)
        {
            parameters.push((name, value));
        }
    }
    let mut message = BytesMut::new();
    frontend::startup_message(parameters, &mut message)
        .map_err(|_| ConnectError::Unexpected("a start-up parameter holds a zero byte"))?;
    Ok(message)
}

struct Conversation {
    stream: Stream,
    read: BytesMut,
    /// All bytes so far.
    read_bytes: usize,
}

/// One message, taken out of the buffer.
struct Message {
    tag: u8,
    body: BytesMut,
}

fn login_header(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let header = server_header(bytes)?;
    if let Some(Header { tag, frame_bytes }) = header
        && frame_bytes > LOGIN_MESSAGE_BYTES_MAX
    {
        let length = u32::try_from(frame_bytes - 1).unwrap_or(u32::MAX);
        let limit = LOGIN_MESSAGE_BYTES_MAX as u32;
        return Err(FrameError::TooLarge { tag, length, limit });
    }
    Ok(header)
}

impl Conversation {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), ConnectError> {
        self.stream.write_all(bytes).await.map_err(ConnectError::Lost)?;
        self.stream.flush().await.map_err(ConnectError::Lost)
    }

    /// The next message that says something: notices are passed over, an error ends the login.
    async fn receive(&mut self) -> Result<Message, ConnectError> {
        loop {
            let message = self.receive_any().await?;
            match message.tag {
                b'N' => {}
                b'E' => return Err(refusal(&message.body)),
                _ => return Ok(message),
            }
        }
    }

    async fn receive_any(&mut self) -> Result<Message, ConnectError> {
        loop {
            if let Some(frame) = first_frame(&self.read, login_header)? {
                let (tag, frame_bytes) = (frame.tag, frame.whole.len());
                let mut body = self.read.split_to(frame_bytes);
                let _header = body.split_to(HEADER_BYTES);
                return Ok(Message { tag, body });
            }
            self.read.reserve(READ_BYTES);
            let read = self.stream.read_buf(&mut self.read).await.map_err(ConnectError::Lost)?;
            if read == 0 {
                return Err(ConnectError::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
            self.read_bytes += read;
            if self.read_bytes > LOGIN_BYTES_MAX {
                return Err(ConnectError::Unexpected("it does not come to an end"));
            }
        }
    }

    /// Up to AuthenticationOk.
    async fn authenticate(&mut self, login: Login<'_>) -> Result<(), ConnectError> {
        loop {
            let message = self.receive().await?;
            match message.tag {
                // NegotiateProtocolVersion: we asked for the oldest version and no options, so all is agreed.
                b'v' => continue,
                b'R' => {}
                _ => return Err(ConnectError::Unexpected("it did not authenticate")),
            }
            let (code, data) = authentication(&message.body)?;
            match code {
                0 => return Ok(()),
                3 => self.send_password(login).await?,
                5 => self.send_md5(login, data).await?,
                10 => self.scram(login, data).await?,
                _ => {
                    let name = authentication_name(code);
                    return Err(ConnectError::UnsupportedAuthentication(name));
                }
            }
        }
    }

    async fn send_password(&mut self, login: Login<'_>) -> Result<(), ConnectError> {
        let password = plain_password(login)?;
        self.send_password_message(password.as_bytes()).await
    }

    async fn send_md5(&mut self, login: Login<'_>, salt: &[u8]) -> Result<(), ConnectError> {
        let salt = <[u8; 4]>::try_from(salt)
            .map_err(|_| ConnectError::Unexpected("its md5 salt has not four bytes"))?;
        let response = match login.secret {
            Some(Secret::Md5(stored)) => md5_response(stored, salt),
            _ => md5_hash(login.user.as_bytes(), plain_password(login)?.as_bytes(), salt),
        };
        self.send_password_message(response.as_bytes()).await
    }

    async fn send_password_message(&mut self, password: &[u8]) -> Result<(), ConnectError> {
        let mut message = BytesMut::new();
        frontend::password_message(password, &mut message)
            .map_err(|_| ConnectError::Unexpected("the password holds a zero byte"))?;
        self.send(&message).await
    }

    /// SCRAM-SHA-256 from the server's list of mechanisms to its proof that it knows the password, too.
    async fn scram(&mut self, login: Login<'_>, mechanisms: &[u8]) -> Result<(), ConnectError> {
        let password = plain_password(login)?;
        let (mechanism, binding) = self.choose_mechanism(mechanisms)?;
        let mut scram = ScramSha256::new(password.as_bytes(), binding);
        let mut message = BytesMut::new();
        frontend::sasl_initial_response(mechanism, scram.message(), &mut message)
            .map_err(ConnectError::Scram)?;
        self.send(&message).await?;

        let challenge = self.receive_sasl(11).await?;
        let proof = tokio::task::spawn_blocking(move || {
            scram.update(&challenge)?;
            let mut message = BytesMut::new();
            frontend::sasl_response(scram.message(), &mut message)?;
            Ok((scram, message))
        });
        let (mut scram, message) =
            proof.await.map_err(io::Error::other).flatten().map_err(ConnectError::Scram)?;
        self.send(&message).await?;

        let verdict = self.receive_sasl(12).await?;
        scram.finish(&verdict).map_err(ConnectError::Scram)
    }

    /// The strongest of the mechanisms offered; with channel binding wherever both sides can.
    fn choose_mechanism(
        &self,
        offered: &[u8],
    ) -> Result<(&'static str, ChannelBinding), ConnectError> {
        let offers = |name: &str| offered.split(|&byte| byte == 0).any(|one| one == name.as_bytes());
        match server_end_point(&self.stream) {
            Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
                Ok((SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash)))
            }
            // We could and the server does not offer it: saying so lets the server notice a man in the middle.
            Some(_) if offers(SCRAM_SHA_256) => {
                Ok((SCRAM_SHA_256, ChannelBinding::unrequested()))
            }
            None if offers(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, ChannelBinding::unsupported())),
            _ => {
                let names = String::from_utf8_lossy(offered).replace('\0', " ");
                Err(ConnectError::UnsupportedAuthentication(format!("SASL: {}", names.trim())))
            }
        }
    }

    async fn receive_sasl(&mut self, expected_code: u32) -> Result<Vec<u8>, ConnectError> {
        let message = self.receive().await?;
        if message.tag == b'R'
            && let (code, data) = authentication(&message.body)?
            && code == expected_code
        {
            return Ok(data.to_vec());
        }
        Err(ConnectError::Unexpected("it broke off SCRAM"))
    }

    /// From AuthenticationOk to ReadyForQuery and an empty buffer.
    async fn finish(mut self, place: Place) -> Result<LoggedIn, ConnectError> {
        let (mut pid, mut key, mut parameters) = (0, Vec::new(), Vec::new());
        let mut ready = false;
        while !ready || !self.read.is_empty() {
            let Message { tag, body } = self.receive().await?;
            match tag {
                b'S' => {
                    let (name, value) = decode::parameter_status(&body)?;
                    report(&mut parameters, name, value);
                }
                b'K' => (pid, key) = backend_key(&body)?,
                b'v' => {}
                b'Z' if !ready => {
                    let status = decode::ready_for_query(&body)?;
                    if status != decode::Status::Idle {
                        return Err(ConnectError::Unexpected("it is in a transaction"));
                    }
                    ready = true;
                }
                _ => return Err(ConnectError::Unexpected("it sent what no login holds")),
            }
        }
        let address = ServerAddress { place, encrypted: self.stream.is_tls() };
        Ok(LoggedIn { stream: self.stream, pid, key, parameters, address })
    }
}

fn plain_password<'a>(login: Login<'a>) -> Result<&'a str, ConnectError> {
    match login.secret {
        Some(Secret::Plain(password)) => Ok(&password.0),
        _ => Err(ConnectError::NoUsablePassword { user: login.user.to_owned() }),
    }
}

/// The kind of an Authentication message, and what it carries.
fn authentication(body: &[u8]) -> Result<(u32, &[u8]), ConnectError> {
    let Some((&code, data)) = body.split_first_chunk::<4>() else {
        return Err(ConnectError::Unexpected("an Authentication message is too short"));
    };
    Ok((u32::from_be_bytes(code), data))
}

fn authentication_name(code: u32) -> String {
    match code {
        2 => "Kerberos V5".into(),
        6 => "SCM credentials".into(),
        7 | 8 => "GSSAPI".into(),
        9 => "SSPI".into(),
        _ => format!("code {code}"),
    }
}

fn backend_key(body: &[u8]) -> Result<(i32, Vec<u8>), ConnectError> {
    match body.split_first_chunk::<4>() {
        Some((&pid, key)) if (4..=CANCEL_KEY_BYTES_MAX).contains(&key.len()) => {
            Ok((i32::from_be_bytes(pid), key.to_vec()))
        }
        _ => Err(ConnectError::Unexpected("its cancel key has a wrong length")),
    }
}

fn report(parameters: &mut Vec<(String, String)>, name: &[u8], value: &[u8]) {
    let name = String::from_utf8_lossy(name);
    let value = String::from_utf8_lossy(value).into_owned();
    match parameters.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = value,
        None => parameters.push((name.into_owned(), value)),
    }
}

/// An ErrorResponse in answer to a login.
fn refusal(body: &[u8]) -> ConnectError {
    let fields = match decode::fields(b'E', body) {
        Ok(fields) => fields,
        Err(error) => return error.into(),
    };
    let text = |code| fields.field(code).map(|text| String::from_utf8_lossy(text).into_owned());
    let sqlstate = fields.field(b'C').and_then(|code| <[u8; 5]>::try_from(code).ok());
    ConnectError::Refused {
        severity: text(b'V').or_else(|| text(b'S')).unwrap_or_else(|| "FATAL".into()),
        sqlstate: sqlstate.map_or(SqlState::CONNECTION_FAILURE, SqlState),
        message: text(b'M').unwrap_or_else(|| "the server refused the login".into()),
        detail: text(b'D'),
        hint: text(b'H'),
    }
}
