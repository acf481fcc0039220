//! `message-center bench`: opens sessions, publishes, checks every delivery, and reports what the deliveries
//! cost.
//!
//! | module | holds |
//! | --- | --- |
//! | [`args`] | the command line |
//! | `run`, `measure` | exit codes and signals; the stages of a run |
//! | `server` | the server that `--spawn` starts |
//! | `crew`, `control`, `worker`, `session` | client processes: from the tool's side, messages, from within |
//! | `publish`, `pace` | publishing connections, and when they may send |
//! | `schedule`, `sequence`, `latency` | pure: due times, losses, percentiles |
//! | `stamp`, `frame`, `http`, `target` | pure: bytes and URLs |
//! | `socket` | a WebSocket connection |
//! | `usage`, `files`, `clock` | what the system reports about processes, limits and time |
//! | `report`, `table`, `progress` | the output |
//!
//! The tool is honest before it is fast. Latency counts from the moment at which a message was due. A message
//! that was never sent or never answered counts with the time for which it waited. Every receiver checks
//! numbers and order. The report says so when the tool itself was too slow.

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
