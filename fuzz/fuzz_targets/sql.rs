#![no_main]
//! Any text: split, told by its first words and understood without a panic.

use libfuzzer_sys::fuzz_target;
use pgherd::sql::{scan, understand};

fuzz_target!(|bytes: &[u8]| {
    for conforming in [true, false] {
        for statement in scan::split(bytes, conforming) {
            let _ = scan::verb(&bytes[statement]);
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = understand(text);
    }
});
