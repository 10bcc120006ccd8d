//! Wiring: from the command line to a running proxy and its orderly end.

mod http;
mod listen;
mod proxy;
mod workers;

pub use proxy::{Proxy, StartError};
