//! The Helm chart: what it renders to, what it refuses, and that the program takes the configuration in it.
//!
//! Runs helm 3 and 4, as `tests/run` installs them. There is no API server: the rules that only one would enforce are
//! tests here, and [`cluster`] stands in for one where helm needs to look at what is alive.

mod closed;
mod cluster;
mod custom;
mod exposure;
mod helm;
mod live;
mod monitoring;
mod names;
mod network;
mod pods;
mod program;
mod readme;
mod refusals;
mod scaling;
mod schemas;
