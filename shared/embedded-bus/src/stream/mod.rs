//! Streams: messages that are kept, told again and counted, as JetStream has them.
//!
//! One thread owns all streams ([`Worker`]). What is published to their subjects and what is asked of them waits in one
//! bounded queue ([`Inlet`]); the thread takes what waits as one batch, changes state, appends to the logs, commits, and
//! only then lets copies and answers go, in the order in which they came about. So nobody hears of a message that a crash
//! could take back.
//!
//! `streams` is that work without a thread; `one` is one stream, `state` what it holds, `config` how it is set up,
//! `api`, `direct` and `publish` what it answers, `republish` what it copies.

mod api;
mod clock;
mod config;
mod direct;
mod error;
pub(crate) mod headers;
mod inlet;
mod memory;
mod one;
mod publish;
mod republish;
mod request;
mod reserved;
mod state;
mod streams;
#[cfg(test)]
mod tests;
mod time;
mod worker;

pub(crate) use config::API_LEVEL;
pub(crate) use inlet::{Inlet, Pushed};
pub(crate) use request::Item;
pub(crate) use worker::Worker;
