//! pgherd: a herd of PostgreSQL servers behind one gate.
//!
//! A client's **Request** is understood as a **Statement**, decided into a **Plan**, run on borrowed **Servers**, and
//! relayed back as a **Reply**. Each room below knows one part of that line; `ARCHITECTURE.md` says who may import
//! whom and `tests/architecture.rs` holds the house to it.

// floor 0: words
pub mod error;
pub mod names;
pub mod telemetry;
// floor 1: understanding, one room per package
pub mod config;
pub mod placement;
pub mod sql;
pub mod wire;
// floor 2: knowing
pub mod catalog;
// floor 3: deciding and holding
pub mod backend;
pub mod planner;
// floor 4: doing
pub mod execute;
pub mod registry;
pub mod snapshot;
// floor 6: one client
pub mod frontend;
// floor 7: wiring
pub mod app;
pub mod demo;
