//! The container image, built by `deploy/image/build` without pulling anything: its contents, its
//! configuration, its self-test inside its own root filesystem, and the compose file that runs it.
//!
//! Compiled without optimisation, for both architectures: static programs differ from those of the other
//! tests, and optimised ones would take most of a run. `MC_TEST_LONG=1` builds those of a release.

mod built;
mod compose;
mod contents;
mod context;
mod elf;
mod oci;
mod root;
mod sbom;
mod selftest;
