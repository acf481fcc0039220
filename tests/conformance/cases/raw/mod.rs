//! Cases that speak the protocol byte by byte.

use crate::fixture::Case;

mod access;
mod bad_input;
mod corners;
mod handshake;
mod headers;
mod info;
mod leaving;
mod limits;
mod load;
mod payload;
mod queue;
mod requests;
mod subjects;
mod tracing;
mod unsubscribe;

/// All cases.
pub(crate) fn all() -> Vec<Case> {
    [
        handshake::cases(),
        info::cases(),
        leaving::cases(),
        access::cases(),
        payload::cases(),
        headers::cases(),
        subjects::cases(),
        queue::cases(),
        unsubscribe::cases(),
        requests::cases(),
        bad_input::cases(),
        corners::cases(),
        tracing::cases(),
        limits::cases(),
        load::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
