//! Brings up message center for a test, plays its devices and back ends, and checks that nothing is left at the end.
//!
//! | module | holds |
//! | --- | --- |
//! | [`fleet`], [`program`] | the real binary as processes: addresses from its log, signals, exit codes |
//! | [`alone`] | everything in one process of the real binary, over a folder that outlives it |
//! | [`cluster`] | any topology within this process |
//! | [`business`] | a business system that can be slow, wrong or gone |
//! | [`collector`] | an OpenTelemetry collector |
//! | [`link`] | a TCP link that can stall, cut and heal |
//! | [`bus_proxy`] | a link to the bus that can lose single messages and hold subscriptions |
//! | [`nats`], [`nats_cluster`] | the real nats-server, and three of them with TLS and passwords |
//! | [`certificate`] | an authority and what it signs |
//! | [`device`], [`recovering`], [`publisher`], [`raw`] | the clients: WebSocket, the same with ids, HTTP, bare TCP |
//! | [`hostile`] | what parsers promise, for the fuzz targets |
//! | [`ports`] | ports that a server keeps while it is away |
//! | [`wait`] | waiting for a condition |
//! | [`tools`] | what `tests/run` has installed |
//!
//! What is expected and does not come is a panic that says so, since only tests use this.

pub mod alone;
pub mod bus_proxy;
pub mod business;
pub mod certificate;
pub mod cluster;
pub mod collector;
pub mod device;
pub mod fleet;
pub mod hostile;
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
