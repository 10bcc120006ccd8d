//! Local throw-away PostgreSQL servers, for `pgherd demo` and for the tests.
//!
//! Knows how to run PostgreSQL as a child and how to leave nothing behind; knows nothing of the proxy, which it
//! meets only through what [`crate::app`] hands in. What would surprise: a server outlives nobody. Even when this
//! process is killed with SIGKILL a small shell, the janitor, stops the servers and removes their folder.

mod error;
mod folder;
mod programs;
mod server;
mod servers;

pub use error::DemoError;
pub use server::Server;
pub use servers::{Authentication, Options, Servers};
