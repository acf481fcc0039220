//! Starts message center for a test, plays its devices and back ends, and checks at the end that nothing is
//! left.
//!
//! | module | holds |
//! | --- | --- |
//! | [`fleet`], [`program`] | the real binary as processes: addresses from its log, signals, exit codes |
//! | [`alone`] | all parts in one process of the real binary, over a folder that outlives the process |
//! | [`cluster`] | any topology inside this process |
//! | [`collector`] | an OpenTelemetry collector |
//! | [`bus_proxy`] | a link to the bus that can lose single messages and hold subscriptions |
//! | [`nats_cluster`] | three real nats-servers with TLS and passwords |
//! | [`device`], [`recovering`] | WebSocket clients: plain, and with ids |
//! | [`publisher`], [`raw`] | HTTP clients, and bare TCP |
//! | [`fuzz`] | what parsers promise, for the fuzz targets |
//!
//! Everything that needs no part is in [`test_kit`], whose modules are re-exported here.
//!
//! A failed expectation is a panic with a message, since only tests use this crate.

pub mod alone;
pub mod bus_proxy;
pub mod cluster;
pub mod collector;
pub mod device;
pub mod fleet;
pub mod fuzz;
pub mod nats_cluster;
pub mod program;
pub mod publisher;
pub mod raw;
pub mod recovering;

pub use test_kit::{
    bus, business, certificate, frames, frameworks, jwt, link, metrics, nats, ports, tools, wait,
};
