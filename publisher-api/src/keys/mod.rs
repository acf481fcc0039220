//! Keys: the senders of requests, and what each sender may do.
//!
//! | module | holds |
//! | --- | --- |
//! | `config` | keys as they are configured, and their problems |
//! | `secret` | making, hashing and recognizing secrets |
//! | `pattern`, `rate` | what a key permits: channels, messages a second (the calls are in `scope.rs`) |
//! | `credentials` | the header `Authorization` of a request |
//! | `table` | the keys that are valid now |
//! | `store` | the one table in use, and how another replaces it |
//! | `caller` | the sender of a request, checked against the table |
//! | `new` | a new key, for `message-center key new` |
//!
//! Secrets are stored nowhere: not in the configuration, a log, a metric or a `Debug`. Without keys everybody
//! may do everything; then the port is on loopback, or its owner allowed that explicitly.

mod caller;
pub(crate) mod config;
mod credentials;
mod metrics;
mod new;
mod pattern;
mod rate;
mod secret;
mod store;
mod table;
#[cfg(test)]
mod tests;

pub use crate::scope::Scope;
pub use caller::Caller;
pub use config::KeyConfig;
pub(crate) use credentials::Credentials;
pub use new::{NewKey, Place};
pub use secret::{SecretHash, check as check_secret, generate as generate_secret};
pub(crate) use store::Keys;
