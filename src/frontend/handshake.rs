//! From an accepted connection to a session: negotiation, authentication, greeting. Everything before the login is
//! bounded by `login_timeout` and by the size limits of its messages.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::Poll;

use tokio::io::{AsyncWriteExt, BufReader};

use super::database::{Database, Gate};
use super::greeting::{self, Refusal};
use super::replication;
use super::session::Session;
use super::trouble::{End, SessionError};
use crate::backend::settings::Settings;
use crate::backend::worker::Worker;
use crate::config::{AuthMethod, Secret};
use crate::error::{Report, Severity};
use crate::names::UserName;
use crate::registry::{Client, Registered};
use crate::telemetry::DatabaseMetrics;
use crate::wire::authenticate::{AuthenticationError, Method, Verifier};
use crate::wire::channel::Channel;
use crate::wire::decode::Status;
use crate::wire::encode;
use crate::wire::scram::Keys;
use crate::wire::startup::{self, Opening, Replication, Startup, StartupError};
use crate::wire::stream::Stream;

/// Start-up parameters that are not settings of a session.
const NOT_SETTINGS: &[&str] = &["options", "replication"];

/// The buffer of a login; its messages are shorter.
const READ_BYTES: usize = 512;

/// Serves one connection to its end. What the login needs is let go of with it.
pub async fn serve(stream: Stream, gate: Arc<Gate>, worker: Arc<Worker>) {
    match Box::pin(let_in(stream, gate, worker)).await {
        None => {}
        Some(Guest::Replication(link, stream, early)) => {
            let clients = ClientGauge::count(&link.database);
            // Few do this; the task of every client has the size of the largest of its parts.
            Box::pin(link.run(stream, early)).await;
            drop(clients);
        }
        Some(Guest::Session(session)) => {
            let database = Arc::clone(&session.database);
            let clients = ClientGauge::count(&database);
            let pid = session.entry.pid;
            let end = session.run().await;
            drop(clients);
            log_end(&database, pid, &end);
        }
    }
}

/// A client that is logged in.
enum Guest {
    Session(Box<Session>),
    Replication(replication::Link, Stream, Vec<u8>),
}

/// `None` where there is nobody to be served: a cancel request, or whoever may not come in and was told.
async fn let_in(stream: Stream, gate: Arc<Gate>, worker: Arc<Worker>) -> Option<Guest> {
    let limit = gate.login_timeout;
    let opening = tokio::time::timeout(
        limit,
        startup::negotiate(stream, gate.tls.as_ref(), gate.policy),
    )
    .await;
    let startup = match opening {
        Err(_) => return None,
        Ok(Ok(Opening::Cancel { pid, key })) => {
            gate.registry.cancel(pid, &key).await;
            return None;
        }
        Ok(Ok(Opening::Startup(startup))) => startup,
        Ok(Err(failed)) => {
            if !matches!(failed.error, StartupError::Closed) {
                tracing::debug!(error = %failed.error, "a connection did not become a session");
            }
            if let Some(mut stream) = failed.stream {
                refuse(&mut stream, &failed.error).await;
            }
            return None;
        }
    };
    let Startup {
        mut stream,
        minor,
        parameters,
    } = startup;
    let logged_in = log_in(&mut stream, minor, &parameters, &gate, &worker);
    match tokio::time::timeout(limit, logged_in).await {
        Err(_) => {
            let seconds = limit.as_secs();
            refuse(&mut stream, &SessionError::LoginTimeout(seconds)).await;
            None
        }
        Ok(Err(None)) => None,
        Ok(Err(Some(Refusal::Report(report)))) => {
            refuse(&mut stream, &*report).await;
            None
        }
        Ok(Err(Some(Refusal::Relay(error)))) => {
            // The peer may be gone already.
            let _ = stream.write_all(&fatal(&error)).await;
            let _ = stream.flush().await;
            None
        }
        Ok(Ok((Welcome::Replication(link), early))) => {
            Some(Guest::Replication(link, stream, early))
        }
        Ok(Ok((Welcome::Session(database, entry, settings), early))) => {
            tracing::debug!(
                database = %database.config.name, user = %entry.user, client = entry.pid, "logged in"
            );
            let mut client = Channel::new(stream);
            client.keep(&early);
            let session = Session::new(client, worker, gate, database, entry, settings);
            Some(Guest::Session(Box::new(session)))
        }
    }
}

/// Counts the session off, however it ends.
struct ClientGauge(Arc<Database>);

impl ClientGauge {
    fn count(database: &Arc<Database>) -> Self {
        database.metrics.logins.increment(1);
        database.metrics.clients.increment(1.0);
        Self(Arc::clone(database))
    }
}

impl Drop for ClientGauge {
    fn drop(&mut self) {
        self.0.metrics.clients.decrement(1.0);
    }
}

fn log_end(database: &Database, client: i32, end: &End) {
    let database = &database.config.name;
    match end {
        End::Left | End::Asked | End::OutOfTime | End::Bereft(_) => {
            tracing::debug!(%database, client, "the session ended");
        }
        End::Overdue(overdue) => {
            tracing::info!(%database, client, ?overdue, "a client took too long");
        }
        End::Cut(error) => {
            tracing::warn!(%database, client, %error, "a client was cut off in the middle of a message");
        }
        End::Broken(error) => {
            tracing::info!(%database, client, %error, "the connection of a client broke");
        }
        End::Malformed(error) => {
            tracing::warn!(%database, client, %error, "a client does not follow the protocol");
        }
    }
}

/// What a client becomes that was let in.
enum Welcome {
    Session(Arc<Database>, Registered, Arc<Settings>),
    Replication(replication::Link),
}

/// Also what the client has sent behind its login; `Err(None)`: nobody is there to be told.
async fn log_in(
    stream: &mut Stream,
    minor: u16,
    parameters: &startup::Parameters,
    gate: &Arc<Gate>,
    worker: &Arc<Worker>,
) -> Result<(Welcome, Vec<u8>), Option<Refusal>> {
    let report = |report: Box<dyn Report + Send + Sync>| Some(Refusal::Report(report));
    // Who may not come in learns nothing about databases: authentication is first.
    // Read through a buffer: each message in one call of the system.
    let mut reader = BufReader::with_capacity(READ_BYTES, &mut *stream);
    let mut out = authenticate(&mut reader, parameters.user(), gate).await?;
    let early = reader.buffer().to_vec();
    let parameters = if gate.ignored_parameters.is_empty() {
        Cow::Borrowed(parameters)
    } else {
        let kept = parameters.without(&gate.ignored_parameters);
        Cow::Owned(kept.map_err(|error| report(Box::new(error)))?)
    };
    let replication = parameters.replication();
    let replication = replication.map_err(|error| report(Box::new(error)))?;
    let settings = settings(&parameters).map_err(|error| report(Box::new(error)))?;
    let user = UserName::from(parameters.user());
    let database = replication::find(gate, parameters.database(), replication, &user)
        .await
        .map_err(report)?;
    if gate.memory.is_full() {
        database.metrics.out_of_memory("client");
        return Err(report(Box::new(gate.memory.refusal())));
    }
    let entry = gate.enter(&database, &user, minor >= 2);
    let entry = entry.map_err(|error| report(Box::new(error)))?;
    let client = Arc::clone(&entry);
    let welcome = async {
        if replication == Replication::No {
            let (greeting, settings) =
                greeting::greeting(&database, &entry.user, settings, &entry, worker).await?;
            Ok((greeting, Welcome::Session(database, entry, settings)))
        } else {
            let (greeting, link) =
                Box::pin(replication::open(&database, entry, &parameters)).await?;
            Ok((greeting, Welcome::Replication(link)))
        }
    };
    let (greeting, welcome) = unless_asked_to_end(&client, welcome).await.map_err(Some)?;
    out.extend_from_slice(&greeting);
    encode::ready_for_query(&mut out, Status::Idle);
    let sent = async {
        stream.write_all(&out).await?;
        stream.flush().await
    };
    sent.await.map_err(|_| None)?;
    Ok((welcome, early))
}

/// A login may wait for a server, and who is shut down shall not.
async fn unless_asked_to_end<T>(
    client: &Client,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|cx| {
        client.listen(cx.waker());
        if client.is_asked_to_end() {
            return Poll::Ready(Err(Refusal::Report(Box::new(SessionError::Ended))));
        }
        work.as_mut().poll(cx)
    })
    .await
}

async fn authenticate(
    stream: &mut BufReader<&mut Stream>,
    user: &str,
    gate: &Gate,
) -> Result<Vec<u8>, Option<Refusal>> {
    let method = match gate.auth.method {
        AuthMethod::Trust => Method::Trust,
        AuthMethod::Md5 => Method::Md5,
        AuthMethod::ScramSha256 => Method::ScramSha256,
    };
    let verifier = gate.auth.users.secret(user).and_then(verifier);
    let binding = if stream.get_ref().is_tls() {
        gate.tls.as_ref().and_then(|tls| tls.channel_binding())
    } else {
        None
    };
    match gate
        .authenticator
        .authenticate(stream, method, user, verifier.as_ref(), binding)
        .await
    {
        Ok(authenticated) => Ok(authenticated.welcome),
        Err(AuthenticationError::Left | AuthenticationError::Lost(_)) => Err(None),
        Err(error) => {
            DatabaseMetrics::login_refused();
            tracing::info!(user, %error, "a login was refused");
            Err(Some(Refusal::Report(Box::new(error))))
        }
    }
}

/// A stored secret of a wrong length, which the configuration would not let pass, counts as none.
fn verifier(secret: &Secret) -> Option<Verifier> {
    Some(match secret {
        Secret::Plain(password) => Verifier::Plain(password.0.clone()),
        Secret::Md5(digest) => Verifier::Md5(digest.clone()),
        Secret::Scram {
            iterations,
            salt,
            stored_key,
            server_key,
        } => Verifier::Scram(Keys {
            iterations: *iterations,
            salt: salt.clone(),
            stored_key: stored_key.as_slice().try_into().ok()?,
            server_key: server_key.as_slice().try_into().ok()?,
        }),
    })
}

/// The settings a client asks for: those in `options`, then the parameters of their own, which win.
fn settings(parameters: &startup::Parameters) -> Result<Settings, StartupError> {
    let mut pairs = parameters.options()?;
    let others = parameters.others().iter();
    pairs.extend(
        others
            .filter(|(name, _)| !NOT_SETTINGS.contains(&name.as_str()))
            .cloned(),
    );
    Ok(Settings::new(pairs))
}

async fn refuse(stream: &mut Stream, report: &(dyn Report + Sync)) {
    let mut out = Vec::new();
    encode::error_with_severity(&mut out, report, Severity::Fatal);
    // The peer may be gone already.
    let _ = stream.write_all(&out).await;
    let _ = stream.flush().await;
}

/// A server's ERROR during our login is the end of the client's: the same message as FATAL.
fn fatal(error: &[u8]) -> Vec<u8> {
    let body = error
        .get(crate::wire::frame::HEADER_BYTES..)
        .unwrap_or_default();
    let Ok(fields) = crate::wire::decode::fields(b'E', body) else {
        return error.to_vec();
    };
    let fields = fields.map(|(code, value)| match code {
        b'S' | b'V' => (code, b"FATAL".as_slice()),
        _ => (code, value),
    });
    let mut out = Vec::new();
    encode::error_of_fields(&mut out, fields);
    out
}
