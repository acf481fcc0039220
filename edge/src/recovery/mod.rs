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
