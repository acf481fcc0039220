//! A NATS-compatible server as a library: the core protocol and streams, without consumers, clustering or
//! TLS.
//!
//! [`EmbeddedBus::bind`] takes a port, [`EmbeddedBus::serve`] serves it. The README of this crate says what
//! is supported and where it differs from nats-server. A client that misbehaves loses its own connection and
//! nothing else. Every queue has a bound, every wait a deadline, every loss a counter in [`Stats`].
//!
//! The path of a message: `connection` reads it, `wire` splits it into operations, `session` decides what it
//! does, `delivery` asks `routing` for the subscribers and appends it to their `outbox`, whose writer sends
//! it. A message for a stream goes into the queue of the stream worker (`stream_worker`), which owns all
//! streams (`jetstream`). Its live copy and its acknowledgement come back once it is stored (`storage`).
//!
//! # Example
//!
//! Starts a bus, connects an unmodified client, and ends both.
//!
//! ```
//! use embedded_bus::{Config, EmbeddedBus};
//! use futures_util::StreamExt as _;
//! use tokio_util::sync::CancellationToken;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = EmbeddedBus::bind(Config { listen: "127.0.0.1:0".parse()?, ..Config::default() }).await?;
//! let (address, shutdown) = (bus.local_addr(), CancellationToken::new());
//! let serving = tokio::spawn(bus.serve(shutdown.clone()));
//!
//! let client = async_nats::connect(format!("nats://{address}")).await?;
//! // `*` matches one token of a subject, `>` one or more.
//! let mut news = client.subscribe("news.*").await?;
//! client.publish("news.today", "hello".into()).await?;
//! assert_eq!(news.next().await.expect("a message").payload, "hello");
//!
//! drop((client, news));
//! shutdown.cancel();
//! serving.await??;
//! # Ok(())
//! # }
//! ```

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

/// Compiles the sample of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
