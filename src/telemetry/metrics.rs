//! Every metric of pgherd in one table, and the handles through which the rooms count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::histograms::{Histograms, Recorder};

/// How a metric is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Name, kind, unit and meaning of each metric; `docs/metrics.md` is checked against it.
pub const METRICS: &[(&str, Kind, Unit, &str)] = &[
    (
        "pgherd_build_info",
        Kind::Gauge,
        Unit::Count,
        "Always 1; the version is a label.",
    ),
    (
        "pgherd_clients",
        Kind::Gauge,
        Unit::Count,
        "Logged-in clients of a database.",
    ),
    (
        "pgherd_client_logins_total",
        Kind::Counter,
        Unit::Count,
        "Client logins by result: ok, refused.",
    ),
    (
        "pgherd_statements_total",
        Kind::Counter,
        Unit::Count,
        "Query, Execute and FunctionCall messages of clients.",
    ),
    (
        "pgherd_transactions_total",
        Kind::Counter,
        Unit::Count,
        "Times that a server was given back after use.",
    ),
    (
        "pgherd_transaction_seconds",
        Kind::Histogram,
        Unit::Seconds,
        "From borrowing a server until it is free again.",
    ),
    (
        "pgherd_pool_wait_seconds",
        Kind::Histogram,
        Unit::Seconds,
        "How long a client waited for a server connection.",
    ),
    (
        "pgherd_pool_wait_timeouts_total",
        Kind::Counter,
        Unit::Count,
        "Clients that waited in vain (53300).",
    ),
    (
        "pgherd_pool_waiting",
        Kind::Gauge,
        Unit::Count,
        "Clients waiting for a server connection now.",
    ),
    (
        "pgherd_server_connections",
        Kind::Gauge,
        Unit::Count,
        "Server connections by state: idle, active, connecting.",
    ),
    (
        "pgherd_pool_size",
        Kind::Gauge,
        Unit::Count,
        "The most server connections that a pool may have.",
    ),
    (
        "pgherd_server_logins_total",
        Kind::Counter,
        Unit::Count,
        "Logins to servers by result: ok, failed.",
    ),
    (
        "pgherd_server_losses_total",
        Kind::Counter,
        Unit::Count,
        "Server connections lost while a client had them.",
    ),
    (
        "pgherd_errors_total",
        Kind::Counter,
        Unit::Count,
        "Errors of pgherd's own, by SQLSTATE and blame.",
    ),
    (
        "pgherd_pins_total",
        Kind::Counter,
        Unit::Count,
        "Sessions that began to keep their server connection, by cause.",
    ),
    (
        "pgherd_subscriptions",
        Kind::Gauge,
        Unit::Count,
        "Channels that clients listen to, counted for each client.",
    ),
    (
        "pgherd_notifications_total",
        Kind::Counter,
        Unit::Count,
        "Notifications passed on to clients that listen.",
    ),
    (
        "pgherd_notifications_dropped_total",
        Kind::Counter,
        Unit::Count,
        "Notifications that a client did not take in time, so that it lost them.",
    ),
    (
        "pgherd_listener_reconnects_total",
        Kind::Counter,
        Unit::Count,
        "Connections that listen which were lost and made again; clients may have missed notifications.",
    ),
    (
        "pgherd_refusals_total",
        Kind::Counter,
        Unit::Count,
        "Statements refused, by number.",
    ),
    (
        "pgherd_plan_lookups_total",
        Kind::Counter,
        Unit::Count,
        "Texts of sharded databases whose plan was looked for, by result: hit, miss (parsed and planned).",
    ),
    (
        "pgherd_plan_evictions_total",
        Kind::Counter,
        Unit::Count,
        "Plans that were forgotten to make room.",
    ),
    (
        "pgherd_catalog_version",
        Kind::Gauge,
        Unit::Count,
        "Counts the changes of the catalogue that were learned since the start, from 1.",
    ),
    (
        "pgherd_catalog_looks_total",
        Kind::Counter,
        Unit::Count,
        "Looks at the schemas of all shards, by result: unchanged, changed, failed.",
    ),
    (
        "pgherd_schema_drift",
        Kind::Gauge,
        Unit::Count,
        "Differences between the schema of a shard and that of the authoritative one, by kind.",
    ),
    (
        "pgherd_worker_connections",
        Kind::Gauge,
        Unit::Count,
        "Client connections of a worker, also those that are logging in.",
    ),
    (
        "pgherd_worker_transactions_total",
        Kind::Counter,
        Unit::Count,
        "Times that a client of this worker gave a server back.",
    ),
    (
        "pgherd_worker_busy_seconds_total",
        Kind::Counter,
        Unit::Seconds,
        "Time in which a worker had something to do, in whole seconds.",
    ),
    (
        "pgherd_resident_bytes",
        Kind::Gauge,
        Unit::Bytes,
        "Resident memory of the process.",
    ),
    (
        "pgherd_memory_refusals_total",
        Kind::Counter,
        Unit::Count,
        "Refused for want of memory (53200), by work: client, transaction.",
    ),
    (
        "pgherd_received_bytes_total",
        Kind::Counter,
        Unit::Bytes,
        "Bytes received from clients.",
    ),
    (
        "pgherd_sent_bytes_total",
        Kind::Counter,
        Unit::Bytes,
        "Bytes sent to clients.",
    ),
];

/// Renders all metrics in Prometheus's text format.
#[derive(Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
    histograms: Arc<Histograms>,
}

impl Exporter {
    /// Starts recording for the whole process. `None` when something else already records.
    #[must_use]
    pub fn start() -> Option<Self> {
        let histograms = Arc::new(Histograms::default());
        let exporter = PrometheusBuilder::new().build_recorder();
        let handle = exporter.handle();
        let recorder = Recorder {
            exporter,
            histograms: Arc::clone(&histograms),
        };
        metrics::set_global_recorder(recorder).ok()?;
        for (name, kind, unit, meaning) in METRICS {
            match kind {
                Kind::Counter => metrics::describe_counter!(*name, *unit, *meaning),
                Kind::Gauge => metrics::describe_gauge!(*name, *unit, *meaning),
                Kind::Histogram => metrics::describe_histogram!(*name, *unit, *meaning),
            }
        }
        metrics::gauge!("pgherd_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Some(Self { handle, histograms })
    }

    #[must_use]
    pub fn render(&self) -> String {
        let meaning = |wanted: &str| {
            let metric = METRICS.iter().find(|(name, ..)| *name == wanted);
            metric.map_or("", |(.., meaning)| *meaning)
        };
        let mut text = self.handle.render();
        self.histograms.render(&mut text, meaning);
        text
    }
}

/// A counter on the path of every message: one addition there, brought to the exporter when somebody scrapes.
#[derive(Debug)]
pub struct Tally {
    count: AtomicU64,
    published: AtomicU64,
    counter: Counter,
}

impl Tally {
    fn new(counter: Counter) -> Self {
        Self {
            count: AtomicU64::new(0),
            published: AtomicU64::new(0),
            counter,
        }
    }

    pub fn add(&self, count: u64) {
        self.count.fetch_add(count, Ordering::Relaxed);
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Several tallies may add to one counter, so only what is new is brought there.
    fn publish(&self) {
        let now = self.count.load(Ordering::Relaxed);
        let before = self.published.swap(now, Ordering::AcqRel);
        self.counter.increment(now.wrapping_sub(before));
    }
}

/// What sessions of one database count.
#[derive(Debug)]
pub struct DatabaseMetrics {
    database: String,
    pub clients: Gauge,
    pub logins: Counter,
    pub statements: Tally,
    pub received_bytes: Tally,
    pub sent_bytes: Tally,
    /// Texts that were not parsed, for their plan was known.
    pub plan_hits: Tally,
    pub plan_misses: Tally,
    pub plan_evictions: Tally,
}

impl DatabaseMetrics {
    #[must_use]
    pub fn new(database: &str) -> Self {
        let database = database.to_owned();
        let lookups = |result: &'static str| {
            let database = database.clone();
            metrics::counter!("pgherd_plan_lookups_total", "database" => database, "result" => result)
        };
        Self {
            plan_hits: Tally::new(lookups("hit")),
            plan_misses: Tally::new(lookups("miss")),
            plan_evictions: Tally::new(
                metrics::counter!("pgherd_plan_evictions_total", "database" => database.clone()),
            ),
            clients: metrics::gauge!("pgherd_clients", "database" => database.clone()),
            logins: metrics::counter!("pgherd_client_logins_total", "database" => database.clone(), "result" => "ok"),
            statements: Tally::new(
                metrics::counter!("pgherd_statements_total", "database" => database.clone()),
            ),
            received_bytes: Tally::new(
                metrics::counter!("pgherd_received_bytes_total", "database" => database.clone()),
            ),
            sent_bytes: Tally::new(
                metrics::counter!("pgherd_sent_bytes_total", "database" => database.clone()),
            ),
            database,
        }
    }

    /// Brings the tallies up to a scrape.
    pub fn publish(&self) {
        for tally in [
            &self.statements,
            &self.received_bytes,
            &self.sent_bytes,
            &self.plan_hits,
            &self.plan_misses,
            &self.plan_evictions,
        ] {
            tally.publish();
        }
    }

    /// An error of ours was told to a client.
    pub fn error(&self, sqlstate: &str, blame: &'static str) {
        let labels = [
            ("database", self.database.clone()),
            ("sqlstate", sqlstate.to_owned()),
            ("blame", blame.to_owned()),
        ];
        metrics::counter!("pgherd_errors_total", &labels).increment(1);
    }

    /// A session keeps its server from now on.
    pub fn pinned(&self, cause: &'static str) {
        let labels = [
            ("database", self.database.clone()),
            ("cause", cause.to_owned()),
        ];
        metrics::counter!("pgherd_pins_total", &labels).increment(1);
    }

    /// A statement was refused by number.
    pub fn refusal(&self, number: u16) {
        let labels = [
            ("database", self.database.clone()),
            ("number", format!("PGH{number:03}")),
        ];
        metrics::counter!("pgherd_refusals_total", &labels).increment(1);
    }

    /// There was no memory for this work.
    pub fn out_of_memory(&self, work: &'static str) {
        let labels = [
            ("database", self.database.clone()),
            ("work", work.to_owned()),
        ];
        metrics::counter!("pgherd_memory_refusals_total", &labels).increment(1);
    }

    /// A login failed. No label names the database that was asked for: a stranger chooses that text.
    pub fn login_refused() {
        metrics::counter!("pgherd_client_logins_total", "database" => "", "result" => "refused")
            .increment(1);
    }
}

/// How much memory of the process is resident.
pub struct ResidentBytes(Gauge);

impl Default for ResidentBytes {
    fn default() -> Self {
        Self(metrics::gauge!("pgherd_resident_bytes"))
    }
}

impl ResidentBytes {
    pub fn set(&self, bytes: u64) {
        // Memory is far below 2^52 bytes, where a float stops counting.
        #[allow(clippy::cast_precision_loss)]
        self.0.set(bytes as f64);
    }
}

/// What one worker counts.
#[derive(Debug)]
pub struct WorkerMetrics {
    connections: Gauge,
    pub transactions: Tally,
    busy_seconds: Counter,
}

impl WorkerMetrics {
    #[must_use]
    pub fn new(worker: usize) -> Self {
        let worker = || worker.to_string();
        Self {
            connections: metrics::gauge!("pgherd_worker_connections", "worker" => worker()),
            transactions: Tally::new(
                metrics::counter!("pgherd_worker_transactions_total", "worker" => worker()),
            ),
            busy_seconds: metrics::counter!("pgherd_worker_busy_seconds_total", "worker" => worker()),
        }
    }

    /// Of who is no worker: nobody sees them.
    #[must_use]
    pub fn nobodys() -> Self {
        Self {
            connections: Gauge::noop(),
            transactions: Tally::new(Counter::noop()),
            busy_seconds: Counter::noop(),
        }
    }

    /// Brings them up to a scrape.
    pub fn publish(&self, connections: usize, busy: Duration) {
        // Connections are far below 2^52, where a float stops counting.
        #[allow(clippy::cast_precision_loss)]
        self.connections.set(connections as f64);
        self.transactions.publish();
        self.busy_seconds.absolute(busy.as_secs());
    }
}

/// What the connections that listen count for one database.
#[derive(Debug)]
pub struct ListenerMetrics {
    pub subscriptions: Gauge,
    pub delivered: Counter,
    pub dropped: Counter,
    pub reconnects: Counter,
}

impl ListenerMetrics {
    #[must_use]
    pub fn new(database: &str) -> Self {
        let database = || database.to_owned();
        Self {
            subscriptions: metrics::gauge!("pgherd_subscriptions", "database" => database()),
            delivered: metrics::counter!("pgherd_notifications_total", "database" => database()),
            dropped: metrics::counter!("pgherd_notifications_dropped_total", "database" => database()),
            reconnects: metrics::counter!("pgherd_listener_reconnects_total", "database" => database()),
        }
    }
}

/// What one pool counts; the labels are database and shard (and user in the log only: users may be many).
#[derive(Debug)]
pub struct PoolMetrics {
    labels: [(&'static str, String); 4],
    pub transactions: Tally,
    pub transaction_seconds: Histogram,
    pub wait_seconds: Histogram,
    pub wait_timeouts: Counter,
    pub logins_ok: Counter,
    pub logins_failed: Counter,
    pub losses: Counter,
}

/// The state of a pool at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolFigures {
    pub size: usize,
    pub idle: usize,
    pub active: usize,
    pub connecting: usize,
    pub waiting: usize,
}

impl PoolMetrics {
    #[must_use]
    pub fn new(database: &str, shard: &str, user: &str, purpose: &str) -> Self {
        let labels = [
            ("database", database.to_owned()),
            ("shard", shard.to_owned()),
        ];
        let with = |key, value: &str| {
            let [database, shard] = labels.clone();
            [database, shard, (key, value.to_owned())]
        };
        Self {
            transactions: Tally::new(metrics::counter!("pgherd_transactions_total", &labels)),
            transaction_seconds: metrics::histogram!("pgherd_transaction_seconds", &labels),
            wait_seconds: metrics::histogram!("pgherd_pool_wait_seconds", &labels),
            wait_timeouts: metrics::counter!("pgherd_pool_wait_timeouts_total", &labels),
            logins_ok: metrics::counter!("pgherd_server_logins_total", &with("result", "ok")),
            logins_failed: metrics::counter!(
                "pgherd_server_logins_total",
                &with("result", "failed")
            ),
            losses: metrics::counter!("pgherd_server_losses_total", &labels),
            labels: {
                let [database, shard, user] = with("user", user);
                [database, shard, user, ("purpose", purpose.to_owned())]
            },
        }
    }

    /// Publishes the figures of a scrape.
    pub fn publish(&self, figures: PoolFigures) {
        self.transactions.publish();
        // Figures of pools are far below 2^52, where a float stops counting.
        #[allow(clippy::cast_precision_loss)]
        let set = |gauge: Gauge, value: usize| gauge.set(value as f64);
        set(
            metrics::gauge!("pgherd_pool_size", &self.labels),
            figures.size,
        );
        set(
            metrics::gauge!("pgherd_pool_waiting", &self.labels),
            figures.waiting,
        );
        for (state, value) in [
            ("idle", figures.idle),
            ("active", figures.active),
            ("connecting", figures.connecting),
        ] {
            let [database, shard, user, purpose] = self.labels.clone();
            let labels = [database, shard, user, purpose, ("state", state.to_owned())];
            set(metrics::gauge!("pgherd_server_connections", &labels), value);
        }
    }
}
