//! What a client sees of a server's bytes.
#![no_main]

#[allow(dead_code)]
#[path = "../../tests/support/wire_checks.rs"]
mod wire_checks;

libfuzzer_sys::fuzz_target!(|input: (u64, &[u8])| wire_checks::replies(input.1, input.0));
