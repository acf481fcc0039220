//! The native dialect: publishing to several targets, batches, history, sessions of users, disconnecting.
//!
//! | module | holds |
//! | --- | --- |
//! | `publish`, `channels`, `users`, `openapi` | the calls |
//! | `answer` | the types of answers, which the description shows too |
//! | `deliver` | from the messages of a call to their results |
//! | `respond` | answering a call |
//! | `body`, `limits`, `message`, `target` | reading untrusted requests, within their limits |
//!
//! A success is JSON. Every refusal is a problem (RFC 9457) with a name that programs can rely on. Every call
//! is bounded in entries, in bytes, and in the work under way at a time.

mod answer;
mod body;
pub(crate) mod channels;
mod deliver;
mod limits;
mod message;
pub(crate) mod openapi;
pub(crate) mod publish;
mod respond;
mod target;
pub(crate) mod users;

#[cfg(test)]
mod tests;

pub(crate) use respond::refuse;
