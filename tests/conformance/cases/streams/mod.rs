//! Cases of streams that speak the JetStream API byte by byte.
//!
//! They run several at a time over one server, so each has streams and subjects of its own names. Over a cluster every
//! stream has three copies.

use crate::fixture::Case;

mod account;
mod advisories;
mod age;
mod batch;
mod create;
mod direct;
mod expected;
mod hostile;
mod info;
mod limits;
mod messages;
mod multi_last;
mod names;
mod publish;
mod purge;
mod refused;
mod replicas;
mod republish;
mod restart;
mod unsupported;
mod update;

/// Every one.
pub(crate) fn all() -> Vec<Case> {
    [
        account::cases(),
        advisories::cases(),
        create::cases(),
        refused::cases(),
        update::cases(),
        info::cases(),
        names::cases(),
        purge::cases(),
        messages::cases(),
        direct::cases(),
        batch::cases(),
        multi_last::cases(),
        publish::cases(),
        expected::cases(),
        republish::cases(),
        limits::cases(),
        age::cases(),
        restart::cases(),
        replicas::cases(),
        unsupported::cases(),
        hostile::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
