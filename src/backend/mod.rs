//! Servers: how connections to PostgreSQL are made, kept, lent and taken back.
//!
//! A [`Server`](server::Server) knows what it still owes its borrower ([`replies`]) and leaves its pool when it is
//! dropped in any state but idle.

pub mod replies;
