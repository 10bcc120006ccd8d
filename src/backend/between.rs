//! What is done to a server connection when no client has it: the connect query when it is new, the reset query when its
//! session has ended.

use std::io;
use std::sync::Arc;

use super::connect::{ConnectError, refusal};
use super::server::{Lost, Server};
use super::settings::Settings;
use crate::config::PoolSettings;
use crate::wire::decode;
use crate::wire::frame::{FrameError, HEADER_BYTES, server_header};

/// What differs from the defaults of the server, its database and its user.
const QUESTION: &[u8] = b"\
SELECT name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session' \
UNION ALL SELECT 'role', pg_catalog.current_setting('role') WHERE pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) 'none'";

/// The value of a setting that is not known: no client asks for it, so whoever has another one sets it.
const UNKNOWN: &str = "\u{1}";

impl Server {
    /// Runs this query, and gives what is set afterwards.
    pub(super) async fn prepare_for_all(&mut self, query: &str) -> Result<Settings, ConnectError> {
        if let Some(error) = self.run_hidden(query.as_bytes()).await? {
            return Err(refusal(error.get(HEADER_BYTES..).unwrap_or_default()));
        }
        if !self.is_idle() {
            return Err(ConnectError::Unexpected(
                "the connect query leaves a transaction open",
            ));
        }
        self.send_query(QUESTION, super::replies::Expect::Query, &mut Vec::new());
        let answer = self.ask().await?;
        // The server does not list custom settings, so those that were in force may be so still, or not.
        let unknown = self.settings.names().filter(|name| name.contains('.'));
        let unknown = unknown.map(|name| (name.to_owned(), UNKNOWN.to_owned()));
        let settings = Settings::new(unknown.chain(pairs(&answer)?));
        self.settings = Arc::new(settings.clone());
        Ok(settings)
    }

    /// Drops all that a session can have; `false` where the server cannot be used any more.
    pub async fn discard_all(&mut self) -> bool {
        let done = matches!(self.run_hidden(b"DISCARD ALL").await, Ok(None));
        self.has_no_statements();
        self.settings = Arc::default();
        done
    }

    /// Runs the reset query; `false` where the server cannot be used any more.
    pub async fn reset(&mut self, pool: &PoolSettings) -> bool {
        let Some(query) = pool.reset_query.as_deref() else {
            return true;
        };
        let reset = async {
            if is_discard_all(query) {
                return self.discard_all().await;
            }
            let done = self.prepare_for_all(query).await.is_ok();
            self.forgets_all();
            done
        };
        let done = tokio::time::timeout(pool.connect_timeout, reset).await;
        matches!(done, Ok(true)) && self.is_idle()
    }
}

fn is_discard_all(query: &str) -> bool {
    let query = query.trim().trim_end_matches(';');
    query.trim_end().eq_ignore_ascii_case("discard all")
}

impl From<Lost> for ConnectError {
    fn from(lost: Lost) -> Self {
        ConnectError::Lost(io::Error::other(lost))
    }
}

/// The rows of two columns in an answer.
fn pairs(answer: &[u8]) -> Result<Vec<(String, String)>, FrameError> {
    let mut pairs = Vec::new();
    let mut rest = answer;
    while let Some(header) = server_header(rest)? {
        let Some((frame, behind)) = rest.split_at_checked(header.frame_bytes) else {
            break;
        };
        if header.tag == b'D' {
            let columns = decode::data_row(frame.get(HEADER_BYTES..).unwrap_or_default())?;
            let text = |at: usize| {
                let value = columns.get(at).copied().flatten().unwrap_or_default();
                String::from_utf8_lossy(value).into_owned()
            };
            pairs.push((text(0), text(1)));
        }
        rest = behind;
    }
    Ok(pairs)
}
