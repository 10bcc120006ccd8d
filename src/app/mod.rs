//! Wiring: from the command line to a running proxy and its orderly end.

// the command line
mod arguments;
mod command;
mod explain;
mod tell;
// a running proxy
mod cores;
mod http;
mod in_process;
mod listen;
mod memory;
mod proxy;
mod serve;
mod workers;

pub use command::main;
pub use explain::ExplainError;
pub use proxy::{Proxy, StartError};
