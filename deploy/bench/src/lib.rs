//! `message-center bench`: opens sessions, publishes, and tells what came of it.
//!
//! | module | holds |
//! | --- | --- |
//! | [`args`] | the command line |
//! | `run`, `measure` | exit codes and signals; the stages of a run |
//! | `server` | a server of the tool's own |
//! | `crew`, `control`, `worker`, `session` | client processes: started, spoken to, and from within |
//! | `publish`, `pace` | publishing connections, and when they may send |
//! | `schedule`, `sequence`, `latency`, `stamp`, `frame`, `http`, `target` | pure: times, losses, percentiles, bytes |
//! | `socket` | a WebSocket connection |
//! | `usage`, `files`, `clock` | what the system tells of processes, limits and time |
//! | `report`, `table`, `progress` | what comes out |
//!
//! The tool is honest before it is fast: latency counts from when a message was to be sent, what was never sent or
//! answered counts with the time it waited, every receiver checks number and order, and the tool says when it was itself
//! what is slow.

pub mod args;
mod clock;
mod control;
mod crew;
mod files;
mod frame;
mod http;
mod latency;
mod measure;
mod pace;
mod progress;
mod publish;
mod report;
mod run;
mod schedule;
mod sequence;
mod server;
mod session;
mod socket;
mod stamp;
mod table;
mod target;
mod usage;
mod worker;

pub use args::Args;
pub use run::run;
