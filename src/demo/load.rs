//! Connections of the demo, to the proxy and to the shards, and the sample rows that go over them.

use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::error::DemoError;
use super::print::say;
use super::shop;
use super::tour::Shard;

/// A connection; its reader ends with it.
pub(super) struct Link {
    client: Client,
    reader: JoinHandle<()>,
}

impl Link {
    /// `dsn` is a libpq string.
    pub async fn open(dsn: &str) -> Result<Link, DemoError> {
        let (client, connection) = tokio_postgres::connect(dsn, NoTls)
            .await
            .map_err(DemoError::Client)?;
        let reader = tokio::spawn(async move {
            // What breaks the connection shows in the statement that is under way.
            let _ = connection.await;
        });
        Ok(Link { client, reader })
    }

    pub async fn simple_query(
        &self,
        sql: &str,
    ) -> Result<Vec<SimpleQueryMessage>, tokio_postgres::Error> {
        self.client.simple_query(sql).await
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// SQLSTATE, message and hint, if it was a refusal with a number of ours.
pub(super) fn refusal(error: &tokio_postgres::Error) -> Option<(String, String, Option<String>)> {
    let error = error.as_db_error()?;
    let refused = error.code().code() == "0A000" && error.message().contains("PGH");
    refused.then(|| {
        (
            error.code().code().to_owned(),
            error.message().to_owned(),
            error.hint().map(str::to_owned),
        )
    })
}

/// The tables, on every shard directly: DDL does not go through the proxy yet.
pub(super) async fn create_tables(shards: &[Shard]) -> Result<(), DemoError> {
    for shard in shards {
        shard
            .link
            .simple_query(shop::SCHEMA)
            .await
            .map_err(DemoError::Client)?;
    }
    Ok(())
}

/// All rows through the proxy, which finds the shard of each; what it refuses goes to the shards directly, and that is
/// said.
pub(super) async fn load(client: &Link, shards: &[Shard]) -> Result<(), DemoError> {
    let countries = shop::countries();
    match client.simple_query(&countries).await {
        Ok(_) => say("loaded 20 countries through pgherd, onto every shard"),
        Err(error) => {
            let (_, message, _) = refusal(&error).ok_or(DemoError::Client(error))?;
            for shard in shards {
                shard
                    .link
                    .simple_query(&countries)
                    .await
                    .map_err(DemoError::Client)?;
            }
            say(&format!(
                "loaded 20 countries straight into each shard, as pgherd says: {message}"
            ));
        }
    }
    for row in shop::rows() {
        client.simple_query(&row).await.map_err(DemoError::Client)?;
    }
    let counts: Vec<_> = shop::counts()
        .iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    say(&format!(
        "loaded {} through pgherd, each row by its key",
        counts.join(", ")
    ));
    Ok(())
}
