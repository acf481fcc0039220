//! No acknowledged message is lost: real processes are killed, cut off and stalled while messages flow.
//!
//! `cargo test -p tests --test chaos` runs the short version, `MC_CHAOS_LONG=1` the long one. Each case
//! prints its seed, which `MC_CHAOS_SEED` sets, and a row of the table in deploy/docs/chaos.md.

mod callers;
mod case;
mod cases;
mod clock;
mod ledger;
mod nodes;
mod rolls;
mod rules;
mod session;
mod stage;
