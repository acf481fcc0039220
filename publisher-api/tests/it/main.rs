//! publisher-api from outside: real sockets, a real bus, edges played by the test.

#![expect(clippy::unwrap_used, reason = "a test that can't go on says where")]

mod bounds;
mod closing;
mod counts;
mod frames;
mod keys;
mod leaving;
mod manual;
mod native;
mod order;
mod outage;
mod refusals;
mod stored;
mod support;
