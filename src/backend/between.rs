//! What is done to a server connection when no client has it: the connect query when it is new, the reset query when its
//! session has ended.

use std::io;
use std::sync::Arc;

use super::connect::{ConnectError, refusal};
use super::replies::Expect;
use super::server::{Lost, Server};
use super::settings::Settings;
use crate::config::PoolSettings;
use crate::wire::decode;
use crate::wire::frame::{Frame, HEADER_BYTES, server_frames};

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
        let set = self.ask_for_pairs(QUESTION, &mut Vec::new()).await?;
        let set = set.ok_or(ConnectError::Unexpected("its settings cannot be read"))?;
        // The server does not list custom settings, so those that were in force may be so still, or not.
        let unknown = self.settings.names().filter(|name| name.contains('.'));
        let unknown = unknown.map(|name| (name.to_owned(), UNKNOWN.to_owned()));
        let settings = Settings::new(unknown.chain(set));
        self.settings = Arc::new(settings.clone());
        Ok(settings)
    }

    /// The rows of a question of ours that has two columns; `None` where the server answers with an error. What it has
    /// to say to its client meanwhile is appended to `aside`.
    pub async fn ask_for_pairs(
        &mut self,
        question: &[u8],
        aside: &mut Vec<u8>,
    ) -> Result<Option<Vec<(String, String)>>, Lost> {
        self.send_query(question, Expect::Query, &mut Vec::new());
        let answer = self.ask().await?;
        let mut pairs = Some(Vec::new());
        for frame in server_frames(&answer) {
            let Frame { tag, body, whole } = frame?;
            match (tag, &mut pairs) {
                (b'A', _) => aside.extend_from_slice(whole),
                (b'E', _) => pairs = None,
                (b'D', Some(pairs)) => {
                    let columns = decode::data_row(body)?;
                    let text = |value: Option<&[u8]>| {
                        String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
                    };
                    if let [name, value] = columns.as_slice() {
                        pairs.push((text(*name), text(*value)));
                    }
                }
                _ => {}
            }
        }
        Ok(pairs)
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
        // Without one its state stays, but what is set must be known.
        let query = pool.reset_query.as_deref().unwrap_or_default();
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
