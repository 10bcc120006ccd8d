//! `/metrics` for Prometheus, `/healthz` (the process lives) and `/readyz` (it takes clients).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::workers::Meter;
use crate::frontend::Gate;
use crate::telemetry::Exporter;

/// Prometheus's text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone)]
pub(super) struct Told {
    pub exporter: Option<Exporter>,
    pub gate: Arc<Gate>,
    pub meters: Arc<[Meter]>,
    /// No new clients are taken.
    pub draining: Arc<AtomicBool>,
}

/// Binds and serves; gives the address, which matters where the port was 0.
pub(super) async fn serve(
    address: SocketAddr,
    told: Told,
) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(told);
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the HTTP server ended");
        }
    });
    Ok((address, task))
}

async fn metrics(State(told): State<Told>) -> impl IntoResponse {
    told.meters.iter().for_each(Meter::publish);
    for database in told.gate.databases.all() {
        database.metrics.publish();
        for pool in database.pools.all() {
            pool.publish();
        }
    }
    let text = told
        .exporter
        .map(|exporter| exporter.render())
        .unwrap_or_default();
    ([(header::CONTENT_TYPE, METRICS_TYPE)], text)
}

async fn ready(State(told): State<Told>) -> impl IntoResponse {
    if told.draining.load(Ordering::Acquire) {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}
