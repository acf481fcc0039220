//! The container image, built as `deploy/image/build` does it without pulling anything: what is in it, what it says of
//! itself, that it passes its self-test from inside its own root filesystem, and the compose file that runs it.
//!
//! Compiled without optimisation, for both architectures: static programs are others than those that the rest of the
//! tests run, and optimised ones would take most of a run. With `MC_TEST_LONG=1` they are those of a release.

mod built;
mod compose;
mod contents;
mod context;
mod elf;
mod oci;
mod root;
mod sbom;
mod selftest;
