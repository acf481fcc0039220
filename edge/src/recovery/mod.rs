//! Nothing lost within history: what an edge does so that every message is handled once, and in order.
//!
//! | file | decides or does |
//! | --- | --- |
//! | [`line`] | how far one channel has come; what to do with a live copy (pure) |
//! | [`heard`] | whether anything may have been missed in a partition (pure) |
//! | [`doubt`] | whether the stream is still the one that was heard |
//! | [`verdict`] | whether a client can be given everything after its position (pure) |
//! | [`envelope`] | what recovering subscribers are sent |
//! | [`opening`] | the beginning of a line, for whoever subscribes |
//! | [`fetch`] | reads what is missing |
//! | [`sweep`] | compares with the streams: after each interruption, and every ten seconds |
//! | [`replay`] | gives one session what is stored, as fast as it reads |
//! | [`asks`] | answers publishers, and fetches what they ask about in vain |
//! | [`looks`] | one look at a time at where a channel ends, for all who subscribe |
//! | [`keep`], [`recent`], [`metrics`] | what all of these share; the latest counts; what is counted |

pub(crate) mod asks;
pub(crate) mod doubt;
pub(crate) mod envelope;
mod fetch;
pub(crate) mod heard;
pub(crate) mod keep;
pub(crate) mod line;
mod looks;
pub(crate) mod metrics;
pub(crate) mod opening;
pub(crate) mod recent;
pub(crate) mod replay;
pub(crate) mod sweep;
pub(crate) mod verdict;

use std::sync::Arc;

use keep::Keep;

/// Tells after a panic what it left half changed, so that no message is lost by it unnoticed.
pub(crate) fn half_changed(keep: &Arc<Keep>) -> impl Fn() -> Option<&'static str> + Send + Sync + use<> {
    // Not held: its tasks have the drain that asks.
    let keep = Arc::downgrade(keep);
    move || {
        let keep = keep.upgrade()?;
        let what = [
            (keep.hub.is_poisoned(), "the sessions and channels of this edge"),
            (keep.is_poisoned(), "what was heard of the streams"),
        ];
        what.into_iter().find_map(|(poisoned, what)| poisoned.then_some(what))
    }
}
