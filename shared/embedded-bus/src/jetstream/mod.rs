//! Streams as JetStream has them: messages that are stored, replayed and counted.
//!
//! Nothing here has a thread or a socket. Published messages and requests wait in one bounded queue
//! ([`StreamQueue`]). The stream worker takes them as one batch: [`Streams`] changes state, appends to the
//! logs, commits, and only then hands out live copies and answers, in the order in which they were made. So
//! nobody hears of a message that a crash could take back.
//!
//! `stream` is one stream: `state` is what it holds, `config` its settings. `publish`, `api` and `direct`
//! answer, `republish` makes live copies, `settle` commits.

mod api;
pub(crate) mod clock;
mod config;
mod direct;
mod error;
mod memory;
mod publish;
mod queue;
mod republish;
mod request;
mod reserved;
mod settle;
mod state;
mod stream;
mod streams;
#[cfg(test)]
mod tests;
pub(crate) mod time;

pub(crate) use memory::MemoryBound;
pub(crate) use queue::{Pushed, StreamQueue, Taken};
pub(crate) use request::{Item, Output, RouteChange};
pub(crate) use reserved::Reserved;
pub(crate) use streams::{Bounds, Streams};
