//! Running what was planned: relaying between one client and one server, and putting the parts of several servers
//! together. Drives the servers that it is handed; borrows none.

mod duplex;
mod relay;
mod scatter;

pub use duplex::{Joined, Way, join};
pub use relay::{Broken, ask_watching, poll_presence, poll_replies, settle, settle_watching};
pub use scatter::{Part, scatter};
