//! Starts message center for a test, plays its devices and back ends, and checks at the end that nothing is
//! left.
//!
//! | module | holds |
//! | --- | --- |
//! | [`fleet`], [`program`] | the real binary as processes: addresses from its log, signals, exit codes |
//! | [`alone`] | all parts in one process of the real binary, over a folder that outlives the process |
//! | [`cluster`] | any topology inside this process |
//! | [`business`] | a business system that can be slow, wrong or gone |
//! | [`collector`] | an OpenTelemetry collector |
//! | [`link`] | a TCP link that can stall, cut and heal |
//! | [`bus_proxy`] | a link to the bus that can lose single messages and hold subscriptions |
//! | [`nats`], [`nats_cluster`] | the real nats-server, and three of them with TLS and passwords |
//! | [`certificate`] | an authority and what it signs |
//! | [`device`], [`recovering`], [`publisher`], [`raw`] | clients: WebSocket, recovering WebSocket, HTTP,
//! bare TCP |
//! | [`fuzz`] | what parsers promise, for the fuzz targets |
//! | [`ports`] | ports that a server keeps while it is away |
//! | [`wait`] | waiting for a condition |
//! | [`tools`] | what `tests/run` has installed |
//!
//! A failed expectation is a panic with a message, since only tests use this crate.

pub mod alone;
pub mod bus_proxy;
pub mod business;
pub mod certificate;
pub mod cluster;
pub mod collector;
pub mod device;
pub mod fleet;
pub mod fuzz;
pub mod link;
pub mod nats;
pub mod nats_cluster;
pub mod ports;
pub mod program;
pub mod publisher;
pub mod raw;
pub mod recovering;
pub mod tools;
pub mod wait;
