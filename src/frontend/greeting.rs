//! What a client is told when it is let in: the parameters that a server of its database reports under its settings, and
//! the key with which it may cancel.

use std::sync::Arc;

use super::database::Database;
use super::sharded::{check_settings, has_readable_path};
use super::trouble::Trouble;
use crate::backend::pool::Greeting;
use crate::backend::settings::Settings;
use crate::backend::worker::Worker;
use crate::error::Report;
use crate::names::{ShardId, UserName};
use crate::planner::{self, Number};
use crate::registry::Client;
use crate::wire::encode;

/// Why a client with the right password is still not let in.
pub enum Refusal {
    Report(Box<dyn Report + Send + Sync>),
    /// A server's ErrorResponse, whole.
    Relay(Vec<u8>),
}

/// ParameterStatus of all that is reported, and BackendKeyData. Asks a server only for settings never seen before.
pub async fn greeting(
    database: &Database,
    user: &UserName,
    settings: Settings,
    client: &Client,
    worker: &Worker,
) -> Result<(Vec<u8>, Arc<Settings>), Refusal> {
    let no_shard = || Refusal::Report(Box::new(super::trouble::SessionError::Internal("no shard")));
    let pool = database.pools.pool(ShardId(0), user).ok_or_else(no_shard)?;
    let limit = database.config.pool_of(user).wait_timeout;
    let known = if let Some(known) = pool.greeting(&settings) {
        known
    } else {
        let mut server = pool
            .checkout(worker, limit)
            .await
            .map_err(|error| Refusal::Report(Box::new(error)))?;
        if !database.leavers.is_loaded() {
            let loaded = database.leavers.load(&mut server).await;
            loaded.map_err(|lost| Refusal::Report(Box::new(lost)))?;
        }
        let wanted = settings;
        // What the connect query has set is the default of every client.
        let settings = match pool.baseline() {
            Some(baseline) => baseline.under(&wanted),
            None => wanted.clone(),
        };
        let settings = Arc::new(settings);
        match server.adopt(&settings).await {
            Ok(Ok(_)) => {}
            // The client's wish cannot be met; half of it may be in force on this server, which is closed.
            Ok(Err(error)) => return Err(Refusal::Relay(error)),
            Err(lost) => return Err(Refusal::Report(Box::new(lost))),
        }
        if database.config.is_sharded() && settings.get("search_path").is_some() {
            let readable = has_readable_path(&mut server).await;
            if !readable.map_err(|lost| Refusal::Report(Box::new(lost)))? {
                let refusal = planner::Refusal::about(Number::SessionSetting, "search_path");
                return Err(Refusal::Report(Box::new(refusal)));
            }
        }
        let mut told = Vec::with_capacity(512);
        for (name, value) in server.reported() {
            encode::parameter_status(&mut told, name, value);
        }
        let known = Greeting {
            settings,
            reported: server.reported().into(),
            told: told.into(),
        };
        pool.learn_greeting(wanted, known.clone());
        pool.give_back(server);
        known
    };
    if database.config.is_sharded() {
        check_settings(&known.settings, &known.reported)
            .map_err(|refusal| Refusal::Report(Box::new(refusal)))?;
    }
    let mut out = known.told.to_vec();
    encode::backend_key_data(&mut out, client.pid, &client.key);
    Ok((out, known.settings))
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Report(report) => Trouble::Tell(report),
            Refusal::Relay(error) => Trouble::Relay(error),
        }
    }
}
