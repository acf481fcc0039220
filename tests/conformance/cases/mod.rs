//! All cases that are written in Rust; those of nats.py and nats.js are in `clients/`.

pub(crate) mod raw;
pub(crate) mod rust;
pub(crate) mod streams;
