//! One client: from the accepted socket to its last byte. The session is the only conductor: it understands, plans,
//! borrows, runs and relays by calling each room once, in this order.

mod catalogue;
mod database;
mod databases;
mod greeting;
mod handshake;
mod leavers;
mod listening;
mod memory;
mod replication;
mod session;
mod sharded;
mod single;
mod state;
mod statements;
mod transaction;
mod trouble;
mod waiting;

pub use database::{Database, Gate};
pub use databases::{Databases, SWEEP};
pub use handshake::serve;
pub use leavers::RELOAD;
pub use memory::{Change, Memory};
