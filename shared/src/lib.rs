//! What two processes of message center must agree on, and nothing else.
//!
//! | module | holds |
//! | --- | --- |
//! | [`ids`] | the checked names: user, channel, edge, message |
//! | [`rules`] | which channel a client's name stands for, and who may use it |
//! | [`subject`] | the only place where a bus subject is built or taken apart |
//! | [`wire`] | what travels on the bus: live messages, asks, heartbeats, token checks |
//! | [`bus`] | a cheap handle to the bus, whoever serves it |
//! | [`history`] | what was published, kept in streams of the bus: storing, reading, positions |
//! | [`bans`] | who may not log in for a while, kept in a stream of the bus |
//! | [`config`] | one file, environment over it, every fault named at once |
//! | [`reload`], [`tls`] | settings and certificates that change while the process runs |
//! | [`telemetry`], [`metrics`], [`gauge`] | logs and traces; what is counted; a gauge of what is there |
//! | [`log_throttle`] | one line for one outage |
//! | [`health`] | `/livez`, `/readyz`, `/metrics` on the admin port |
//! | [`handshake`] | whether a request is a WebSocket handshake |
//! | [`host`] | whether a request names this machine, or a page in a browser sent it |
//! | [`trace`] | spans of traces, and how a trace goes on in another process |
//! | [`awake`] | time as it counts against others: without that in which this process did not run |
//! | [`drain`], [`tasks`] | leaving in order; what becomes of tasks that end |
//! | [`part`] | the frame of a part: start, readiness, proof of subscriptions, leave |
//! | [`service`] | the frame around a service's `main` |
//! | [`faults`] | what tests switch off, or end, in debug builds |

pub mod awake;
pub mod bans;
pub mod bus;
pub mod clock;
pub mod config;
pub mod drain;
pub mod faults;
pub mod gauge;
pub mod handshake;
pub mod headers;
pub mod health;
pub mod history;
pub mod host;
pub mod ids;
pub mod log_throttle;
pub mod metrics;
pub mod part;
pub mod reload;
pub mod rules;
pub mod service;
pub mod subject;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod trace;
pub mod wire;
