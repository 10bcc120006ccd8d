//! Frames are the same wherever the bytes are cut.
#![no_main]

#[allow(dead_code)]
#[path = "../../tests/support/wire_checks.rs"]
mod wire_checks;

libfuzzer_sys::fuzz_target!(|input: (u64, &[u8])| wire_checks::frame(input.1, input.0));
