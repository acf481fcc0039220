//! Surroundings of a part under test, for the tests of every crate. No part is in here, so that each part can
//! use the kit as a dev-dependency; whole topologies are in `tests/harness`.
//!
//! | module | holds |
//! | --- | --- |
//! | [`wait`] | waiting for a condition, with a deadline |
//! | [`link`] | a TCP link that can stall, go deaf, cut and heal |
//! | [`business`] | a business system that can be slow, wrong or gone |
//! | [`frameworks`] | stand-ins for business systems of common frameworks |
//! | [`jwt`] | makers of JWTs, and the page with the keys of an issuer |
//! | [`bus`] | an embedded bus that can stop and come back at its address |
//! | [`nats`] | the real nats-server as a process |
//! | [`frames`] | WebSocket frames, byte for byte |
//! | [`certificate`], [`site`] | an authority and the certificates it signs; a self-signed certificate |
//! | [`metrics`] | values in Prometheus text |
//! | [`ports`] | ports that a server keeps while it is away |
//! | [`tools`] | the programs that `tests/run` has installed |
//!
//! A failed expectation is a panic with a message, since only tests use this crate.

pub mod bus;
pub mod business;
pub mod certificate;
pub mod frames;
pub mod frameworks;
pub mod jwt;
pub mod link;
pub mod metrics;
pub mod nats;
pub mod ports;
pub mod site;
pub mod tools;
pub mod wait;
