//! Servers: how connections to PostgreSQL are made, kept, lent and taken back.
//!
//! A [`Server`](server::Server) knows what it still owes its borrower ([`replies`]) and leaves its pool when it is
//! dropped in any state but idle.

pub mod addresses;
mod between;
pub mod connect;
pub mod control;
pub mod identity;
mod knock;
pub mod listener;
pub mod mailbox;
pub mod pool;
pub mod pools;
pub mod replies;
pub mod rescue;
pub mod server;
pub mod settings;
pub mod worker;
