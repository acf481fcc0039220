//! One edge over real sockets, between a bus, auth-adapters and publishers that do what a test tells them.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod admission;
mod announcing;
mod bans;
mod bounds;
mod control;
mod counting;
mod crowd;
mod ending;
mod fairness;
mod flooding;
mod groups;
mod leaving;
mod login;
mod recovery;
mod refusing;
mod rfc6455;
mod slow;
mod support;
mod switching;
mod tls;
