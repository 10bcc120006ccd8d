//! The PostgreSQL protocol as bytes: where frames begin and end, what the few fields mean that must be read, and
//! how the messages are written that pgherd originates.
//!
//! Raw bytes from a peer are only ever read by our own total decoders; pgwire's structs are used to *encode*. See
//! `ARCHITECTURE.md`, "Data plane".

pub mod decode;
pub mod encode;
pub mod frame;

// connections, and how they begin
pub mod authenticate;
mod certificate;
pub mod channel;
pub mod derived;
pub mod helpers;
mod parameters;
pub mod scram;
pub mod scram_client;
pub mod socket;
mod spares;
pub mod startup;
pub mod stream;
pub mod tls;
