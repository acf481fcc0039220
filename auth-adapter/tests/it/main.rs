//! An auth-adapter from outside: questions over a real bus, a real HTTP server as the business system.

#![expect(clippy::unwrap_used, reason = "a test that can not go on fails")]

mod answers;
mod breaker;
mod bus;
mod connections;
mod flights;
mod jwt;
mod mapping;
mod remembering;
mod stranger;
mod support;
