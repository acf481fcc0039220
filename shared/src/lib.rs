//! The ground that all parts of message center stand on: what two processes must agree on, and the frame of a
//! part.
//!
//! | module | holds |
//! | --- | --- |
//! | [`ids`] | checked names: user, channel, node, message |
//! | [`rules`] | channel rules: the channel that a client's name stands for, and who may use it |
//! | [`subject`], [`headers`] | subjects of the bus, built and parsed only here; names of headers |
//! | [`wire`] | envelopes on the bus: live messages, asks, commands, heartbeats, token checks |
//! | [`bus`] | a cheap handle to the bus, embedded or not |
//! | [`history`] | the history of channels in streams of the bus: storing, reading, positions |
//! | [`bans`] | the list of users who may not log in for a while, in a stream of the bus |
//! | [`config`] | one file, the environment over it, every problem named at once |
//! | [`reload`], [`tls`] | settings and certificates that change while the process runs |
//! | [`telemetry`], [`trace`], [`log_throttle`] | logs and traces; spans across processes; one line for one outage |
//! | [`metrics`], [`gauge`] | `/metrics`; a guard that counts in a gauge |
//! | [`health`] | `/livez`, `/readyz`, `/metrics` on the admin port |
//! | [`handshake`] | checks of WebSocket handshakes |
//! | [`host`] | checks of the header `Host`, against pages in browsers |
//! | [`clock`], [`awake`] | the time of day; a clock that leaves out the time in which this process did not run |
//! | [`drain`], [`tasks`] | leaving in order; tasks, and the meaning of their ends |
//! | [`part`] | the frame of a part: start, readiness, proof of subscriptions, leave |
//! | [`service`] | the `main` of a part: arguments, configuration, signals, exit code |
//! | [`faults`] | test switches, in debug builds |

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
pub mod login;
pub mod metrics;
pub mod pages;
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
