//! Not furnished yet.
pub mod control;
