//! Cases of streams that speak the JetStream API byte by byte.
//!
//! Several cases run at once over one server, so each uses stream names and subjects of its own. Over a
//! cluster every stream has three replicas.

use crate::fixture::Case;

mod account;
mod advisories;
mod age;
mod bad_requests;
mod batch;
mod create;
mod direct;
mod expected;
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

/// All cases.
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
        bad_requests::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
