//! The whole product on loopback: sentences about what a user may rely on, each with its test.

mod apart;
mod bad_input;
mod bench;
mod clients;
mod cluster;
mod config;
mod counts;
mod denied;
mod first_message;
mod frozen;
mod history;
mod keys;
mod leaving;
mod limits;
mod login;
mod metrics;
mod native;
mod outage;
mod proxies;
mod publishing;
mod reload;
mod storm;
mod subscribe;
mod tls;
mod traces;
mod truth;
