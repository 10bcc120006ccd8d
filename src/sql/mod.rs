//! SQL as pgherd needs it: [`scan`] looks at bytes (where statements end, what each one begins with), [`understand`]
//! parses one statement into our own [`statement`] model. Pure; sqlparser is named in this room only.
//!
//! Session state never depends on a parse: BEGIN, SET, COPY and their kin are recognised by the scanner, which takes
//! any bytes and cannot fail.

mod error;
pub mod explain;
pub mod listen;
mod reserved;
pub mod scan;
pub mod setting;
pub mod slots;
pub mod statement;
pub mod traces;
mod understand;
pub mod utility;
mod verb;
mod words;

pub use error::Unparsed;
pub use statement::Statement;
pub use understand::{STACK_BYTES, TEXT_BYTES_MAX, understand, understand_fixed};
pub use verb::{Discard, Name, fold};
