//! The proxy as the demo wants it: in the same process, with its plans to look at.

use std::path::Path;
use std::time::Duration;

use super::explain;
use super::proxy::Proxy;
use crate::config::{self, Config};
use crate::demo::{Explained, Proxy as Wanted, Trouble};
use crate::telemetry::Exporter;

/// The demo has one session of its own, and whoever looks on with psql has seen Ctrl-C.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Not started, or running.
#[derive(Default)]
pub(super) struct InProcess(Option<Proxy>);

impl Wanted for InProcess {
    async fn start(&mut self, config: &Path) -> Result<(), Trouble> {
        let config: Config = config::load(config)?;
        self.0 = Some(Proxy::start(&config, Exporter::start()).await?);
        Ok(())
    }

    async fn explain(&self, database: &str, sql: &str) -> Result<Explained, Trouble> {
        let databases = self.0.as_ref().map(|proxy| &proxy.gate().databases);
        let database = databases
            .and_then(|databases| databases.of_file(database))
            .ok_or_else(|| format!("the database {database} is not served"))?;
        Ok(explain::explain_known(&database.known, sql)?)
    }

    async fn stop(&mut self) {
        if let Some(proxy) = self.0.take() {
            proxy.drain(DRAIN_LIMIT).await;
        }
    }
}
