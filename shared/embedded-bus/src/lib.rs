//! A NATS-compatible server as a library: the core protocol and streams, without consumers, clustering or TLS.
//!
//! [`EmbeddedBus::bind`] takes a port, [`EmbeddedBus::serve`] serves it. The README of this crate says what is supported
//! and where it differs from nats-server. A client that misbehaves loses its own connection and nothing else; every
//! queue has a bound, every wait a deadline, every loss a counter in [`Stats`].
//!
//! The way of a message: `connection` reads it, `wire` takes it apart, `session` decides what it does, `delivery` asks
//! `routing` who hears it and appends it to their `outbox`, whose writer sends it. What is for a stream goes into the
//! queue of the one thread that owns all streams (`stream`), and comes back as copies and answers once it is kept
//! (`storage`).

mod bus;
mod config;
mod connection;
mod delivery;
mod error;
mod fuzz;
mod handshake;
mod headers;
mod jetstream;
mod outbox;
mod routing;
mod server;
mod session;
#[cfg(feature = "shapes")]
#[doc(hidden)]
pub mod shapes;
mod stats;
mod storage;
mod stream_worker;
mod subject;
mod wire;

pub use config::{Config, Credentials, DiskConfig, Storage, StreamsConfig, SyncMode};
pub use error::{BindError, ServeError, StoreError, StreamsError};
#[doc(hidden)]
pub use fuzz::check_bytes;
pub use server::EmbeddedBus;
pub use stats::{MemorySnapshot, Snapshot, Stats, StoreSnapshot, StreamSnapshot};
