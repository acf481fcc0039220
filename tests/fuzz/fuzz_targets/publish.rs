//! `cargo +nightly fuzz run publish`, from `tests`. The test `corpus` runs the same on stable.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    harness::fuzz::publish(input);
});
