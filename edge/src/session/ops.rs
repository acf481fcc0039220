//! Ops that take time: a login, and subscriptions that need the bus.

use std::pin::Pin;
use std::sync::Arc;

use shared::config::Secret;
use shared::history::Position;
use shared::ids::Channel;
use sockets::Source;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use super::Deps;
use crate::authn::Owner;
use crate::hub::guards::ChannelGuard;
use crate::recovery::replay::Found;
use crate::spans;

/// An op that takes time. Only sessions that have one pay for it.
pub(super) type UnderWay = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// The outcome of an op that takes time.
pub(super) enum Outcome {
    Checked(Checked),
    /// The channel, and a guard of its cursor until the session watches it.
    Watchable(Channel, Option<ChannelGuard>),
    /// The channel, and the stored messages that the client can be given.
    Followable(Box<Followable>),
    Unproved,
}

/// A token that was checked.
pub(super) struct Checked {
    pub(super) token: Secret,
    /// The refresh that the answer is newer than.
    pub(super) newer_than: Option<u64>,
    pub(super) owner: Owner,
}

/// A subscription with ids as the client asked for it.
pub(super) struct Wanted {
    pub(super) name: Arc<str>,
    /// The position that the client named; none: from now on.
    pub(super) after: Option<Position>,
    /// Whether the plain subscription of the channel ends in the same step.
    pub(super) instead_of_plain: bool,
}

/// A channel that can be followed.
pub(super) struct Followable {
    pub(super) wanted: Wanted,
    pub(super) found: Found,
}

/// Waits for the op under way, or for ever if there is none.
pub(super) async fn outcome(under_way: &mut Option<UnderWay>) -> Outcome {
    match under_way {
        Some(under_way) => under_way.await,
        None => std::future::pending().await,
    }
}

/// Asks whose token this is. The answer must be newer than the refresh `newer_than`.
pub(super) fn check_token(
    deps: &Arc<Deps>,
    token: Secret,
    source: Source,
    newer_than: Option<u64>,
) -> UnderWay {
    let deps = Arc::clone(deps);
    let check = async move {
        let began = Instant::now();
        let owner = deps.authn.owner(token.clone(), source, newer_than).await;
        deps.metrics.login_took(began.elapsed());
        spans::logged_in(owner.label());
        Outcome::Checked(Checked { token, newer_than, owner })
    };
    Box::pin(check.instrument(spans::login()))
}

/// Waits until a channel can be watched.
pub(super) fn watch_channel(deps: &Arc<Deps>, channel: Channel, has_history: bool) -> UnderWay {
    let (active, recovery) = (deps.active.clone(), Arc::clone(&deps.recovery));
    let deadline = Instant::now() + deps.subscribe_deadline;
    Box::pin(async move {
        if !proof(active, deadline).await {
            return Outcome::Unproved;
        }
        if !has_history {
            return Outcome::Watchable(channel, None);
        }
        match timeout_at(deadline, recovery.attach(&channel)).await {
            Ok(attached) => Outcome::Watchable(channel, Some(attached.guard)),
            Err(_) => Outcome::Unproved,
        }
    })
}

/// Waits until a channel can be followed, and finds out which stored messages the client can be given.
pub(super) fn follow_channel(deps: &Arc<Deps>, channel: Channel, wanted: Wanted) -> UnderWay {
    let (active, recovery) = (deps.active.clone(), Arc::clone(&deps.recovery));
    let deadline = Instant::now() + deps.subscribe_deadline;
    Box::pin(async move {
        if !proof(active, deadline).await {
            return Outcome::Unproved;
        }
        let find = async {
            match wanted.after {
                None => Found { attached: recovery.attach(&channel).await, first: Ok(None) },
                Some(after) => recovery.find(&channel, after).await,
            }
        };
        match timeout_at(deadline, find).await {
            Ok(found) => Outcome::Followable(Box::new(Followable { wanted, found })),
            Err(_) => Outcome::Unproved,
        }
    })
}

/// Waits, until the deadline, for the proof that messages surely arrive from the bus. False: there was none
/// in time.
async fn proof(mut active: watch::Receiver<bool>, deadline: Instant) -> bool {
    timeout_at(deadline, active.wait_for(|active| *active)).await.is_ok_and(|proved| proved.is_ok())
}
