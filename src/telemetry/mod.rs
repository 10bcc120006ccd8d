//! What can be seen from outside: every metric, and how logs are written. The only room that names the `metrics` crate.
//!
//! Handles are looked up once, when a database, a pool or a session is made; the path of a message only touches handles.
//! Gauges of pools are filled when somebody scrapes, so they cost nothing between scrapes.

mod histograms;
mod logs;
mod metrics;
mod schema;

pub use logs::start_logs;
pub use metrics::{
    DatabaseMetrics, Exporter, ListenerMetrics, METRICS, PoolFigures, PoolMetrics, ResidentBytes,
    Tally, WorkerMetrics,
};
pub use schema::{Looked, SchemaMetrics};
