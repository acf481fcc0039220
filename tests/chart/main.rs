//! The Helm chart: the rendered objects, the refusals, and that the program accepts the rendered
//! configuration.
//!
//! Runs helm 3 and 4, as `tests/run` installs them. There is no API server: the rules that only a server
//! would enforce are tests here, and [`cluster`] stands in for a server where helm looks at live objects.

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
