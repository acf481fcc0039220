//! `cargo +nightly fuzz run parse`, from `shared/embedded-bus`. `tests/corpus.rs` runs the same function on stable.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    embedded_bus::check_bytes(input);
});
