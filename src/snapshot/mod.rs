//! All that is known at one moment: for each database its configuration and, when it has several shards, its placement
//! and its catalogue. Made as a whole by [`load`], never changed afterwards; a reload makes another one.
//!
//! What would surprise: a database of one shard is not touched at all when it is loaded. It has nothing to agree on,
//! and its server may be down while pgherd starts.

mod agreement;
mod connect;
mod drift;
mod error;
mod findings;
mod init;
mod load;
mod rows;
mod stored;
mod tables;
mod watch;

pub use connect::{Finding, check_connect};
pub use drift::Drift;
pub use error::{KeyProblem, SnapshotError};
pub use init::{InitReport, Outcome, init};
pub use load::{load, load_database};
pub use rows::{MisplacedRows, check_rows};
pub use watch::{Look, News, Watch};

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backend::control::{Control, ControlError, ControlLimits};
use crate::catalog::Catalog;
use crate::config;
use crate::names::DatabaseName;
use crate::placement::Placement;

#[derive(Debug, Clone)]
pub struct Snapshot {
    pub databases: BTreeMap<DatabaseName, Arc<DatabaseSnapshot>>,
}

#[derive(Debug, Clone)]
pub struct DatabaseSnapshot {
    pub config: Arc<config::Database>,
    /// `None` on a database of one shard.
    pub placement: Option<Arc<Placement>>,
    /// `None` on a database of one shard.
    pub catalog: Option<Arc<Catalog>>,
    /// Where shards differ from the authoritative one.
    pub drift: Vec<Drift>,
}

/// One control pool for each shard, in the order of the file.
fn controls(
    database: &config::Database,
    limits: ControlLimits,
) -> Result<Vec<Control>, ControlError> {
    database
        .shards
        .iter()
        .map(|shard| {
            Control::new(
                format!("{}/{}", database.name, shard.name),
                &shard.control,
                limits,
            )
        })
        .collect()
}

/// The same work on every shard at once; answers in the order of the shards, the first error by that order.
async fn on_every<T, Work, Answer>(
    controls: &[Control],
    work: Work,
) -> Result<Vec<T>, SnapshotError>
where
    T: Send + 'static,
    Work: Fn(Control) -> Answer,
    Answer: Future<Output = Result<T, SnapshotError>> + Send + 'static,
{
    // A JoinSet ends its tasks when this future is dropped half-way.
    let mut running = tokio::task::JoinSet::new();
    for (index, control) in controls.iter().enumerate() {
        let answer = work(control.clone());
        running.spawn(async move { (index, answer.await) });
    }
    let mut answers = BTreeMap::new();
    while let Some(done) = running.join_next().await {
        let (index, answer) = done.map_err(|_| SnapshotError::Interrupted)?;
        answers.insert(index, answer);
    }
    answers.into_values().collect()
}
