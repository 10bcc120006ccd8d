//! Who a client says it is, proved: the conversation between its start-up message and AuthenticationOk.
//!
//! Knows no file of users: the caller hands over what is stored of the one who knocks, or nothing. Then the same
//! conversation is held, with a salt that stays the same for the same name, and fails with the same words: who tries
//! names learns none. One attempt a connection. What would surprise: AuthenticationOk is not sent but returned, so that
//! a pool can be chosen before, and the whole welcome leaves in one write.

use std::io;
use std::sync::Arc;

use pgwire::messages::Message;
use pgwire::messages::startup::Authentication;
use ring::hmac;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::derived::Derived;
use super::encode::AUTHENTICATION_OK;
use super::helpers::Helpers;
use super::scram::{
    ChannelBinding, Exchange, ITERATIONS, KEY_BYTES, Keys, MECHANISM, MECHANISM_PLUS, ScramFailure,
    fixed, md5_matches, md5_stored,
};
use crate::error::{Blame, Report, Severity, SqlState};

/// The largest SASL message, as a body.
const SASL_BYTES_MAX: u32 = 2 * 1024;
/// The largest password message, as a body.
const PASSWORD_BYTES_MAX: u32 = 64 * 1024;
const SALT_BYTES: usize = 16;

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Not at all.
    Trust,
    /// By md5; by SCRAM where that is what is stored.
    Md5,
    ScramSha256,
}

/// What is stored of a user.
#[derive(Clone)]
pub enum Verifier {
    Plain(String),
    /// 32 hexadecimal digits: md5(password + user name).
    Md5(String),
    Scram(Keys),
}

/// A client that is who it says.
#[derive(Debug)]
pub struct Authenticated {
    /// The beginning of the welcome, to be sent first: what is left of the exchange, and AuthenticationOk.
    pub welcome: Vec<u8>,
}

/// Why a client is not let in.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// Also said of users that do not exist.
    #[error("password authentication failed for user \"{0}\"")]
    Failed(String),
    /// psql does this in order to ask for a password.
    #[error("the client left before it proved who it is")]
    Left,
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    #[error("expected password response, got message type {}", char::from(*.0).escape_default())]
    UnexpectedMessage(u8),
    #[error("invalid password message: {0}")]
    Malformed(&'static str),
    #[error("client selected an invalid SASL authentication mechanism")]
    UnknownMechanism,
    #[error("the work of checking a password was broken off")]
    BrokenOff,
}

impl Report for AuthenticationError {
    fn sqlstate(&self) -> SqlState {
        match self {
            AuthenticationError::Failed(_) => SqlState::INVALID_PASSWORD,
            AuthenticationError::Left | AuthenticationError::Lost(_) => {
                SqlState::CONNECTION_FAILURE
            }
            AuthenticationError::BrokenOff => SqlState::INTERNAL_ERROR,
            _ => SqlState::PROTOCOL_VIOLATION,
        }
    }
    fn blame(&self) -> Blame {
        match self {
            AuthenticationError::BrokenOff => Blame::Proxy,
            _ => Blame::Client,
        }
    }
    fn severity(&self) -> Severity {
        Severity::Fatal
    }
}

/// What all logins share: the key of the salts, and what was derived of plain passwords.
pub struct Authenticator {
    key: hmac::Key,
    derived: Arc<Derived>,
}

impl Default for Authenticator {
    fn default() -> Self {
        Self::new(Derived::new(Helpers::none()))
    }
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticator")
    }
}

/// How one login goes, decided before a byte is exchanged; the same for users that exist and those that do not.
enum Exercise {
    Md5 { stored: String, real: bool },
    Scram { keys: Keys, real: bool },
}

impl Authenticator {
    /// With a random key: salts differ from one start to the next.
    pub fn new(derived: Arc<Derived>) -> Authenticator {
        let key: [u8; KEY_BYTES] = rand::random();
        Authenticator {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            derived,
        }
    }

    /// Holds the conversation. `stored` is `None` for a user that does not exist; `binding` is given on TLS
    /// connections only (see [`Acceptor::channel_binding`](super::tls::Acceptor::channel_binding)).
    ///
    /// # Errors
    /// [`AuthenticationError`]; the caller tells it to the client and closes.
    pub async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        method: Method,
        user: &str,
        stored: Option<&Verifier>,
        binding: Option<&ChannelBinding>,
    ) -> Result<Authenticated, AuthenticationError> {
        let mut welcome = Vec::new();
        match self.exercise(method, user, stored).await? {
            None => {}
            Some(Exercise::Md5 { stored, real }) => {
                let right = md5(stream, &stored).await?;
                if !(right && real) {
                    return Err(AuthenticationError::Failed(user.to_owned()));
                }
            }
            Some(Exercise::Scram { keys, real }) => match scram(stream, keys, binding).await? {
                Some(verdict) if real => {
                    put(&mut welcome, &Authentication::SASLFinal(verdict.into()));
                }
                _ => return Err(AuthenticationError::Failed(user.to_owned())),
            },
        }
        welcome.extend_from_slice(AUTHENTICATION_OK);
        Ok(Authenticated { welcome })
    }

    async fn exercise(
        &self,
        method: Method,
        user: &str,
        stored: Option<&Verifier>,
    ) -> Result<Option<Exercise>, AuthenticationError> {
        let exercise = match (method, stored) {
            (Method::Trust, _) => return Ok(None),
            (Method::Md5, Some(Verifier::Md5(stored))) => Exercise::Md5 {
                stored: stored.clone(),
                real: true,
            },
            (Method::Md5, Some(Verifier::Plain(password))) => Exercise::Md5 {
                stored: md5_stored(user, password),
                real: true,
            },
            (Method::Md5, None) => Exercise::Md5 {
                stored: md5_stored(user, ""),
                real: false,
            },
            (_, Some(Verifier::Scram(keys))) => Exercise::Scram {
                keys: keys.clone(),
                real: true,
            },
            (Method::ScramSha256, Some(Verifier::Plain(password))) => Exercise::Scram {
                keys: self.derive(user, password).await?,
                real: true,
            },
            // Nothing that is stored as md5 can check SCRAM: the user is as good as unknown.
            (Method::ScramSha256, None | Some(Verifier::Md5(_))) => Exercise::Scram {
                keys: self.mock_keys(user),
                real: false,
            },
        };
        Ok(Some(exercise))
    }

    /// The keys of a plain password.
    async fn derive(&self, user: &str, password: &str) -> Result<Keys, AuthenticationError> {
        let salt = self.salt(user);
        let salted = self.derived.salted(password, &salt, ITERATIONS).await;
        let salted = salted.map_err(|_| AuthenticationError::BrokenOff)?;
        Ok(Keys::of(&salted, salt))
    }

    /// Keys that nobody's proof fits, for a user whose password is not known.
    fn mock_keys(&self, user: &str) -> Keys {
        Keys {
            iterations: ITERATIONS,
            salt: self.salt(user),
            stored_key: self.keyed(b"mock", user, "stored"),
            server_key: self.keyed(b"mock", user, "server"),
        }
    }

    /// The salt of a user for whom none is stored. It is the same whether the user exists or not.
    fn salt(&self, user: &str) -> Vec<u8> {
        self.keyed(b"salt", user, "")
            .iter()
            .copied()
            .take(SALT_BYTES)
            .collect()
    }

    fn keyed(&self, purpose: &[u8], user: &str, text: &str) -> [u8; KEY_BYTES] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(purpose);
        context.update(&(user.len() as u64).to_be_bytes());
        context.update(user.as_bytes());
        context.update(text.as_bytes());
        fixed(context.sign().as_ref())
    }
}

fn put(out: &mut Vec<u8>, message: &Authentication) {
    let mut bytes = bytes::BytesMut::new();
    // Fails only beyond pgwire's own limits, which are far above any message here.
    if message.encode(&mut bytes).is_ok() {
        out.extend_from_slice(&bytes);
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, message: &Authentication) -> io::Result<()> {
    let mut bytes = Vec::new();
    put(&mut bytes, message);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// Reads one message of type `p`, exactly.
async fn receive<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes_max: u32,
) -> Result<Vec<u8>, AuthenticationError> {
    let mut tag = [0];
    if stream.read(&mut tag).await? == 0 {
        return Err(AuthenticationError::Left);
    }
    match tag {
        [b'p'] => {}
        [b'X'] => return Err(AuthenticationError::Left),
        [other] => return Err(AuthenticationError::UnexpectedMessage(other)),
    }
    let length = stream.read_u32().await?;
    match length.checked_sub(4) {
        None => Err(AuthenticationError::Malformed("its length is too small")),
        Some(body_bytes) if body_bytes > bytes_max => {
            Err(AuthenticationError::Malformed("its length is too large"))
        }
        Some(body_bytes) => {
            let mut body = vec![0; body_bytes as usize];
            stream.read_exact(&mut body).await?;
            Ok(body)
        }
    }
}

/// The md5 challenge; whether the response is right.
async fn md5<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    stored: &str,
) -> Result<bool, AuthenticationError> {
    let salt: [u8; 4] = rand::random();
    send(stream, &Authentication::MD5Password(salt.to_vec())).await?;
    let body = receive(stream, PASSWORD_BYTES_MAX).await?;
    let Some((0, response)) = body.split_last() else {
        return Err(AuthenticationError::Malformed("it has no end"));
    };
    Ok(md5_matches(stored, salt, response))
}

/// The SCRAM exchange up to the client's proof; the server's last message where it holds.
async fn scram<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    keys: Keys,
    binding: Option<&ChannelBinding>,
) -> Result<Option<String>, AuthenticationError> {
    let mut mechanisms = vec![MECHANISM.to_owned()];
    if binding.is_some() {
        mechanisms.insert(0, MECHANISM_PLUS.to_owned());
    }
    send(stream, &Authentication::SASL(mechanisms)).await?;

    let body = receive(stream, SASL_BYTES_MAX).await?;
    let (mechanism, client_first) = sasl_initial_response(&body)?;
    let plus = match mechanism {
        _ if mechanism == MECHANISM.as_bytes() => false,
        _ if mechanism == MECHANISM_PLUS.as_bytes() && binding.is_some() => true,
        _ => return Err(AuthenticationError::UnknownMechanism),
    };
    let (exchange, challenge) =
        Exchange::begin(client_first, keys, plus, binding).map_err(malformed)?;
    send(stream, &Authentication::SASLContinue(challenge.into())).await?;

    let client_final = receive(stream, SASL_BYTES_MAX).await?;
    match exchange.finish(&client_final) {
        Ok(verdict) => Ok(Some(verdict)),
        Err(ScramFailure::WrongProof) => Ok(None),
        Err(failure) => Err(malformed(failure)),
    }
}

fn malformed(failure: ScramFailure) -> AuthenticationError {
    match failure {
        ScramFailure::Malformed(what) => AuthenticationError::Malformed(what),
        ScramFailure::WrongProof => AuthenticationError::Malformed("the proof does not hold"),
    }
}

/// SASLInitialResponse: the chosen mechanism and its first message, which must be there.
pub fn sasl_initial_response(body: &[u8]) -> Result<(&[u8], &[u8]), AuthenticationError> {
    const SHAPE: AuthenticationError = AuthenticationError::Malformed("it is no SASL response");
    let end = body.iter().position(|&byte| byte == 0).ok_or(SHAPE)?;
    let (mechanism, rest) = body.split_at_checked(end).ok_or(SHAPE)?;
    let (_zero, rest) = rest.split_first().ok_or(SHAPE)?;
    let (&length, data) = rest.split_first_chunk::<4>().ok_or(SHAPE)?;
    match usize::try_from(i32::from_be_bytes(length)) {
        Ok(length) if length == data.len() => Ok((mechanism, data)),
        _ => Err(SHAPE),
    }
}
