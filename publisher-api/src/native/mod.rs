//! The native dialect: publishing to many, batches, history, who is online, disconnecting.
//!
//! | module | holds |
//! | --- | --- |
//! | `publish`, `channels`, `users`, `openapi` | the calls |
//! | `answer` | the types of answers, which the description shows too |
//! | `deliver` | from the messages of a call to their results |
//! | `respond` | how a call is answered |
//! | `body`, `limits`, `message`, `target` | requests within their limits, read without trusting them |
//!
//! A success is JSON; every refusal is a problem (RFC 9457) with a name that programs can rely on. Everything
//! a call asks for is bounded: entries, bytes, and the work under way at a time.

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
