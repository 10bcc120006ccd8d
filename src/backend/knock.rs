//! Finding out whether a server lets a user in to a database, before there is a pool for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connect;
use super::pool::{PoolError, is_final};
use super::pools::Pools;
use crate::names::{ShardId, UserName};

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

impl Pools {
    /// Logs in to the first shard as this user would, and leaves. A server that cannot be reached now is waited for
    /// as a pool does; makes no pool.
    ///
    /// # Errors
    /// As [`Pool::checkout`](super::pool::Pool::checkout).
    pub async fn knock(&self, user: &UserName) -> Result<(), PoolError> {
        let login = self.login(ShardId(0), user).ok_or(PoolError::Closed)?;
        let limit = self.connect_timeout(user);
        let begun = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            let attempt = connect::connect(connect::Login {
                dsn: &login.dsn,
                encryption: &login.encryption,
                user: &login.user,
                secret: login.secret.as_ref(),
                parameters: &[],
                timeout: limit,
            });
            let error = match attempt.await {
                Ok(server) => {
                    server.leave().await;
                    return Ok(());
                }
                Err(error) => Arc::new(error),
            };
            // A client chose the name.
            tracing::warn!(
                database = ?login.database, user = %login.user, %error,
                "login to the server failed, for a database that is not in the file"
            );
            if is_final(&error) {
                return Err(PoolError::LoginRefused { error });
            }
            if begun.elapsed() >= limit {
                let shard = login.shard;
                return Err(PoolError::Unreachable { shard, error });
            }
            tokio::time::sleep(pause).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }
}
