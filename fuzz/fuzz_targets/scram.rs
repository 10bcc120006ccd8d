//! The two messages of a client that proves its password.
#![no_main]

#[allow(dead_code)]
#[path = "../../tests/support/wire_checks.rs"]
mod wire_checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire_checks::scram(bytes));
