//! One login, from the start-up message to ReadyForQuery, on a connection that stands.
//!
//! Reads only whole frames within a cap, and no more than a cap in all: a server that is none, or a hostile one, costs
//! a bounded amount of memory. A server that begins SCRAM must end it, and so prove that it knows the password, before
//! its AuthenticationOk counts.

use std::io;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{ConnectError, Login, target};
use crate::config::Secret;
use crate::error::SqlState;
use crate::wire::decode;
use crate::wire::frame::{FrameError, HEADER_BYTES, Header, first_frame, server_header};
use crate::wire::scram::{MECHANISM, MECHANISM_PLUS, md5_response};
use crate::wire::scram_client::{Binding, Opened, ScramError};
use crate::wire::stream::Stream;
use crate::wire::tls::server_end_point;

/// The largest message that a server may send before it is ready.
const LOGIN_MESSAGE_BYTES_MAX: u32 = 64 * 1024;
/// All that a server may send before it is ready: notices included.
const LOGIN_BYTES_MAX: usize = 1024 * 1024;
const READ_BYTES: usize = 8 * 1024;
const CANCEL_KEY_BYTES_MAX: usize = 256;

/// A connection that is ready for a query, and what the server said of it.
pub(super) struct Ready {
    pub(super) stream: Stream,
    pub(super) pid: i32,
    pub(super) key: Vec<u8>,
    pub(super) parameters: Vec<(String, String)>,
    /// The server is what `target_session_attrs` asks for.
    pub(super) fits: bool,
}

pub(super) async fn log_in(stream: Stream, login: Login<'_>) -> Result<Ready, ConnectError> {
    let mut conversation = Conversation {
        stream,
        read: BytesMut::new(),
        read_bytes: 0,
    };
    conversation.send(&startup_message(login)?).await?;
    conversation.authenticate(login).await?;
    let (pid, key, parameters) = conversation.settle().await?;
    let fits = target::fits(login.dsn.target, &parameters, &mut conversation).await?;
    Ok(Ready {
        stream: conversation.stream,
        pid,
        key,
        parameters,
        fits,
    })
}

/// The start-up message: the client's parameters first, then those of the connection string that it did not give. Of
/// `options` both have theirs.
fn startup_message(login: Login<'_>) -> Result<BytesMut, ConnectError> {
    let dsn = login.dsn;
    let mut parameters = vec![("user", login.user), ("database", dsn.dbname.as_str())];
    parameters.extend(
        login
            .parameters
            .iter()
            .copied()
            .filter(|(name, _)| !matches!(*name, "user" | "database")),
    );
    if let Some(name) = &dsn.application_name
        && !parameters
            .iter()
            .any(|(known, _)| *known == "application_name")
    {
        parameters.push(("application_name", name));
    }
    let options;
    if let Some(ours) = &dsn.options {
        match parameters.iter_mut().find(|(known, _)| *known == "options") {
            // Each word of them counts, and of equal names the last.
            Some((_, theirs)) => {
                options = format!("{ours} {theirs}");
                *theirs = &options;
            }
            None => parameters.push(("options", ours)),
        }
    }
    let mut message = BytesMut::new();
    frontend::startup_message(parameters, &mut message)
        .map_err(|_| ConnectError::Unexpected("a start-up parameter holds a zero byte"))?;
    Ok(message)
}

pub(super) struct Conversation {
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
    let Some(Header { tag, frame_bytes }) = header else {
        return Ok(None);
    };
    match u32::try_from(frame_bytes) {
        Ok(length) if length <= LOGIN_MESSAGE_BYTES_MAX => Ok(header),
        length => {
            let length = length.unwrap_or(u32::MAX);
            Err(FrameError::TooLarge {
                tag,
                length,
                limit: LOGIN_MESSAGE_BYTES_MAX,
            })
        }
    }
}

impl Conversation {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), ConnectError> {
        self.stream
            .write_all(bytes)
            .await
            .map_err(ConnectError::Lost)?;
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
            let read = self
                .stream
                .read_buf(&mut self.read)
                .await
                .map_err(ConnectError::Lost)?;
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
            _ => md5_hash(
                login.user.as_bytes(),
                plain_password(login)?.as_bytes(),
                salt,
            ),
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
        let opened = Opened::new(binding);
        let mut message = BytesMut::new();
        frontend::sasl_initial_response(mechanism, opened.message().as_bytes(), &mut message)
            .map_err(ConnectError::Lost)?;
        self.send(&message).await?;

        let challenge = self.receive_sasl(11).await?;
        let challenged = opened.challenged(&challenge)?;
        let salted = login
            .derived
            .salted(password, &challenged.salt, challenged.iterations)
            .await
            .map_err(|_| ScramError::BrokenOff)?;
        let (proof, proved) = challenged.prove(&salted);
        message.clear();
        frontend::sasl_response(proof.as_bytes(), &mut message).map_err(ConnectError::Lost)?;
        self.send(&message).await?;

        let verdict = self.receive_sasl(12).await?;
        Ok(proved.verify(&verdict)?)
    }

    /// The strongest of the mechanisms offered; with channel binding wherever both sides can.
    fn choose_mechanism(&self, offered: &[u8]) -> Result<(&'static str, Binding), ConnectError> {
        let offers = |name: &str| {
            offered
                .split(|&byte| byte == 0)
                .any(|one| one == name.as_bytes())
        };
        match server_end_point(&self.stream) {
            Some(hash) if offers(MECHANISM_PLUS) => {
                Ok((MECHANISM_PLUS, Binding::ServerEndPoint(hash)))
            }
            Some(_) if offers(MECHANISM) => Ok((MECHANISM, Binding::NotOffered)),
            None if offers(MECHANISM) => Ok((MECHANISM, Binding::Impossible)),
            _ => {
                let names = String::from_utf8_lossy(offered).replace('\0', " ");
                Err(ConnectError::UnsupportedAuthentication(format!(
                    "SASL: {}",
                    names.trim()
                )))
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

    /// From AuthenticationOk to ReadyForQuery and an empty buffer: process id, cancel key and parameters.
    async fn settle(&mut self) -> Result<Settled, ConnectError> {
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
                b'Z' if !ready => ready = is_idle(&body)?,
                _ => return Err(ConnectError::Unexpected("it sent what no login holds")),
            }
        }
        Ok((pid, key, parameters))
    }

    /// Runs one query; the first column of its first row.
    pub(super) async fn ask(&mut self, question: &str) -> Result<Vec<u8>, ConnectError> {
        let mut message = BytesMut::new();
        frontend::query(question, &mut message)
            .map_err(|_| ConnectError::Unexpected("a question of ours holds a zero byte"))?;
        self.send(&message).await?;
        let mut answer = None;
        let mut ready = false;
        while !ready || !self.read.is_empty() {
            let Message { tag, body } = self.receive().await?;
            match tag {
                b'T' | b'C' | b'S' => {}
                b'D' if answer.is_none() => answer = first_column(&body),
                b'Z' if !ready => ready = is_idle(&body)?,
                _ => return Err(ConnectError::Unexpected("it did not answer a question")),
            }
        }
        answer.ok_or(ConnectError::Unexpected("it did not answer a question"))
    }
}

type Settled = (i32, Vec<u8>, Vec<(String, String)>);

/// A ReadyForQuery must say so.
fn is_idle(body: &[u8]) -> Result<bool, ConnectError> {
    match decode::ready_for_query(body)? {
        decode::Status::Idle => Ok(true),
        _ => Err(ConnectError::Unexpected("it is in a transaction")),
    }
}

/// Of a DataRow; `None` where it is NULL, or not there at all.
fn first_column(body: &[u8]) -> Option<Vec<u8>> {
    let (_count, rest) = body.split_first_chunk::<2>()?;
    let (length, value) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    value.get(..length).map(<[u8]>::to_vec)
}

fn plain_password(login: Login<'_>) -> Result<&str, ConnectError> {
    match login.secret {
        Some(Secret::Plain(password)) => Ok(&password.0),
        _ => Err(ConnectError::NoUsablePassword {
            user: login.user.to_owned(),
        }),
    }
}

/// The kind of an Authentication message, and what it carries.
fn authentication(body: &[u8]) -> Result<(u32, &[u8]), ConnectError> {
    let Some((&code, data)) = body.split_first_chunk::<4>() else {
        return Err(ConnectError::Unexpected(
            "an Authentication message is too short",
        ));
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
        _ => Err(ConnectError::Unexpected(
            "its cancel key has a wrong length",
        )),
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
pub(in crate::backend) fn refusal(body: &[u8]) -> ConnectError {
    let fields = match decode::fields(b'E', body) {
        Ok(fields) => fields,
        Err(error) => return error.into(),
    };
    let text = |code| {
        fields
            .field(code)
            .map(|text| String::from_utf8_lossy(text).into_owned())
    };
    let sqlstate = fields
        .field(b'C')
        .and_then(|code| <[u8; 5]>::try_from(code).ok());
    ConnectError::Refused {
        severity: text(b'V')
            .or_else(|| text(b'S'))
            .unwrap_or_else(|| "FATAL".into()),
        sqlstate: sqlstate.map_or(SqlState::CONNECTION_FAILURE, SqlState),
        message: text(b'M').unwrap_or_else(|| "the server refused the login".into()),
        detail: text(b'D'),
        hint: text(b'H'),
    }
}
