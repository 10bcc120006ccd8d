//! `pgherd run`: from a configuration file to an orderly end.
//!
//! Knows signals and the order of things; the proxy itself is [`Proxy`]. What would surprise: signals are listened for
//! before anything starts, so a SIGTERM during a slow start ends it too.

use std::future::pending;
use std::io;
use std::path::Path;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::proxy::Proxy;
use super::tell::{Exit, complain_of, complain_of_config, with_causes};
use crate::config::{self, Config};
use crate::telemetry::{self, Exporter};

/// Serves what the file says until it is told to stop.
pub(super) fn run(path: &Path) -> Exit {
    let config = match config::load(path) {
        Ok(config) => config,
        Err(problems) => return complain_of_config(path, &problems),
    };
    telemetry::start_logs(config.proxy.log.json, &config.proxy.log.level);
    log_panics();
    let ended = background().and_then(|runtime| runtime.block_on(serve(&config)));
    ended.unwrap_or_else(|error| {
        complain_of(&error, &[]);
        Exit::Failed
    })
}

/// The runtime of all background duties; clients are served by the workers' own.
pub(super) fn background() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("background")
        .enable_all()
        .build()
}

async fn serve(config: &Config) -> io::Result<Exit> {
    let mut stop = Stop::listen()?;
    tokio::spawn(answer_hangups(signal(SignalKind::hangup())?));
    let started = tokio::select! {
        started = Proxy::start(config, Exporter::start()) => started,
        name = stop.asked() => {
            tracing::info!(signal = name, "stopped before it was ready");
            return Ok(Exit::Done);
        }
    };
    let proxy = match started {
        Ok(proxy) => proxy,
        Err(error) => {
            tracing::error!(error = %with_causes(&error), advice = error.advice(), "cannot start");
            return Ok(Exit::Failed);
        }
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = proxy.addresses.join(", "),
        http = proxy.http.map(tracing::field::display),
        workers = config.proxy.workers,
        databases = config.databases.len(),
        "ready"
    );
    let name = stop.asked().await;
    let limit = config.proxy.shutdown_timeout;
    tracing::info!(
        signal = name,
        limit = %humantime::format_duration(limit),
        "draining: no new clients, and sessions end where they are at rest"
    );
    tokio::select! {
        () = proxy.drain(limit) => {
            tracing::info!("stopped");
            Ok(Exit::Done)
        }
        name = stop.asked() => {
            tracing::warn!(signal = name, "stopped at once, at the second signal");
            Ok(Exit::Failed)
        }
    }
}

/// SIGTERM and SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one of them; its name.
    async fn asked(&mut self) -> &'static str {
        tokio::select! {
            Some(()) = self.terminate.recv() => "SIGTERM",
            Some(()) = self.interrupt.recv() => "SIGINT",
            else => pending().await,
        }
    }
}

/// By default a SIGHUP would end the process; operators who know other servers send it to have the file read again.
async fn answer_hangups(mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        tracing::warn!(
            "SIGHUP: the configuration cannot be read again while serving yet; restart to apply it"
        );
    }
}

/// A panic ends one client's task or one thread, not the process; it must not pass unseen in a log of JSON lines.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        tracing::error!(
            thread = std::thread::current().name(),
            place = panic.location().map(tracing::field::display),
            panic = text.unwrap_or("unknown"),
            "pgherd has a defect: a panic"
        );
    }));
}
