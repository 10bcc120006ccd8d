//! Finding out whether a server lets a user in to a database, before there is a pool for it.

use std::sync::Arc;
use std::time::Instant;

use super::connect;
use super::pool::{BACKOFF_MAX, BACKOFF_MIN, PoolError, is_final};
use super::pools::Pools;
use crate::names::{ShardId, UserName};

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
        let mut pause = BACKOFF_MIN;
        loop {
            let attempt = connect::connect(login.with(&[], limit));
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
            if is_final(&error) || begun.elapsed() >= limit {
                return Err(PoolError::of_login(&login.shard, error));
            }
            tokio::time::sleep(pause).await;
            pause = BACKOFF_MAX.min(pause * 2);
        }
    }
}
