//! The threads that serve clients: one runtime each, one task for each client, nothing shared on the path of a message
//! but the pools.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::sync::mpsc;

use super::cores::{self, Core};
use crate::backend::worker::Worker;
use crate::frontend::{self, Gate};
use crate::wire::stream::{Detached, Stream};

/// Accepted connections that one worker may be behind with.
const BACKLOG: usize = 4096;
/// How often an idle worker wakes up for nothing.
const TICK: Duration = Duration::from_secs(1);

struct Thread {
    sockets: mpsc::Sender<(Detached, Counted)>,
    seats: Seats,
    runtime: Handle,
    running: JoinHandle<()>,
}

/// All workers of a proxy. There is at least one.
pub(super) struct Workers {
    first: Thread,
    others: Vec<Thread>,
}

/// What there is to be told of one worker, wherever it stands.
pub(super) struct Meter {
    load: Arc<AtomicUsize>,
    worker: Arc<Worker>,
    runtime: RuntimeMetrics,
}

impl Meter {
    /// Brings its figures up to a scrape.
    pub fn publish(&self) {
        let connections = self.load.load(Ordering::Relaxed);
        // A worker's runtime has one thread, its own.
        let busy = self.runtime.worker_total_busy_duration(0);
        self.worker.metrics.publish(connections, busy);
    }
}

impl Workers {
    /// So many; each on a core of its own where they are to be pinned.
    pub fn start(count: usize, pinned: bool, gate: &Arc<Gate>) -> io::Result<Self> {
        let mut cores = cores::for_workers(count.max(1), pinned).into_iter();
        let first = start_one(0, cores.next().flatten(), Arc::clone(gate))?;
        let others = (1..)
            .zip(cores)
            .map(|(index, core)| start_one(index, core, Arc::clone(gate)))
            .collect::<io::Result<_>>()?;
        Ok(Self { first, others })
    }

    fn all(&self) -> impl Iterator<Item = &Thread> {
        std::iter::once(&self.first).chain(&self.others)
    }

    pub fn meters(&self) -> Arc<[Meter]> {
        let meter = |thread: &Thread| Meter {
            load: Arc::clone(&thread.seats.load),
            worker: Arc::clone(&thread.seats.worker),
            runtime: thread.runtime.metrics(),
        };
        self.all().map(meter).collect()
    }

    /// The runtime of the worker that accepts.
    pub fn first(&self) -> Handle {
        self.first.runtime.clone()
    }

    /// Gives a connection that the first worker has accepted to the worker with the fewest. To be called on the first
    /// worker. Drops the connection where that one is hopelessly behind.
    pub fn hand_over(&self, stream: Stream) {
        let connections = |thread: &&Thread| thread.seats.load.load(Ordering::Relaxed);
        let fewest = self.others.iter().min_by_key(connections);
        match fewest.filter(|other| connections(other) < connections(&&self.first)) {
            None => self.first.seats.serve(stream),
            Some(other) => other.send(stream),
        }
    }

    /// Ends the threads, whatever their clients do; blocks for a moment.
    pub fn stop(self) {
        for Thread {
            sockets, running, ..
        } in std::iter::once(self.first).chain(self.others)
        {
            drop(sockets);
            if running.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

impl Thread {
    /// Gives a connection to this worker from another one.
    fn send(&self, stream: Stream) {
        let counted = self.seats.count();
        match stream.detach() {
            Ok(detached) => {
                if self.sockets.try_send((detached, counted)).is_err() {
                    tracing::warn!("a new connection was dropped: its worker is too far behind");
                }
            }
            Err(error) => tracing::debug!(%error, "a new connection was already broken"),
        }
    }
}

/// Where the connections of one worker are served.
#[derive(Clone)]
struct Seats {
    gate: Arc<Gate>,
    worker: Arc<Worker>,
    /// Connections that this worker has, also those on their way to it.
    load: Arc<AtomicUsize>,
}

impl Seats {
    fn count(&self) -> Counted {
        self.load.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(&self.load))
    }

    /// On the thread of this worker.
    fn serve(&self, stream: Stream) {
        self.serve_counted(stream, self.count());
    }

    fn serve_counted(&self, stream: Stream, counted: Counted) {
        let (gate, worker) = (Arc::clone(&self.gate), Arc::clone(&self.worker));
        // Sessions pause on their own: counting every read and write for them costs more than it gives.
        tokio::spawn(tokio::task::unconstrained(async move {
            frontend::serve(stream, gate, worker).await;
            drop(counted);
        }));
    }
}

fn start_one(index: usize, core: Option<Core>, gate: Arc<Gate>) -> io::Result<Thread> {
    let (sockets, mut accepted) = mpsc::channel::<(Detached, Counted)>(BACKLOG);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    let seats = Seats {
        gate,
        worker: Arc::new(Worker::new(index)),
        load: Arc::default(),
    };
    let here = seats.clone();
    let serve = async move {
        // Never waited for. While the runtime has a timer that comes soon, one that comes later (each login has two)
        // need not wake it up to be noted.
        let _ticks = tokio::spawn(tick());
        while let Some((detached, counted)) = accepted.recv().await {
            match detached.attach() {
                Ok(stream) => here.serve_counted(stream, counted),
                Err(error) => tracing::debug!(%error, "a new connection was already broken"),
            }
        }
    };
    let running = std::thread::Builder::new()
        // A statement is parsed where its session runs.
        .stack_size(crate::sql::STACK_BYTES)
        .name(format!("worker-{index}"))
        .spawn(move || {
            if let Some(core) = core {
                core.keep_to();
            }
            runtime.block_on(serve);
        })?;
    Ok(Thread {
        sockets,
        seats,
        runtime: handle,
        running,
    })
}

async fn tick() {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
    }
}

/// A connection that counts towards its worker's load until this is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
