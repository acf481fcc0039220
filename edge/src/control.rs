//! What publishers ask about users: who is online, and "close their sessions".
//!
//! A ban is on the list before the sessions are closed, and a login is looked up there after it took its
//! place: so a login that is under way meanwhile is either closed or refused, never missed. An order that
//! this version does not know is not answered, so that nobody takes it for obeyed.

use std::sync::Arc;

use futures_util::StreamExt as _;
use shared::bus::async_nats::{Message, Subscriber};
use shared::bus::{self, Bus, RequestError};
use shared::clock::unix_ms;
use shared::ids::{NodeId, Uid};
use shared::subject;
use shared::wire::{
    Command, Control, ControlAnswer, Envelope as _, MAX_SINCE, StoredAt, UserAnswer, VERSION,
};
use tokio_util::sync::CancellationToken;

use crate::Core;
use crate::deny::Words;
use crate::hub::Hub;
use crate::metrics::{Loss, Metrics};

/// Users that one order may name; publishers name fewer.
const MAX_USERS: usize = 10_000;

/// Carries out what publishers order.
#[derive(Debug)]
pub(crate) struct Desk {
    bus: Bus,
    node: NodeId,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
}

impl Desk {
    /// Subscribes, and listens until the edge is gone.
    pub(crate) async fn start(core: &Core) -> Result<(), RequestError> {
        let orders = core.bus.subscribe(subject::CONTROL_ALL, None, bus::DEADLINE).await?;
        let Core { bus, node, hub, metrics, drain, gone } = core.clone();
        let state = (Self { bus, node, hub, metrics }, orders, gone);
        drain.supervise("edge-orders", state, |(desk, orders, gone)| Box::pin(desk.listen(orders, gone)));
        Ok(())
    }

    async fn listen(&self, orders: &mut Subscriber, gone: &CancellationToken) {
        loop {
            tokio::select! {
                message = orders.next() => match message {
                    Some(message) => self.on_message(message).await,
                    None => return tracing::error!("the bus client ended the subscription to orders"),
                },
                () = gone.cancelled() => return,
            }
        }
    }

    async fn on_message(&self, message: Message) {
        let (Ok(control), Some(reply)) = (Control::decode(&message.payload), message.reply) else {
            self.metrics.lost(Loss::BadOrder, 1);
            return tracing::debug!("dropped an order that can't be read or answered");
        };
        let Some(users) = self.carry_out(&control.command) else {
            self.metrics.lost(Loss::BadOrder, 1);
            return tracing::warn!("dropped an order about something that is no user, or about too many");
        };
        let answer = ControlAnswer { v: VERSION, edge: self.node.clone(), users };
        match self.bus.publish(reply, None, None, answer.encode()).await {
            Ok(()) => {
                self.metrics.orders.inc();
            }
            Err(error) => {
                self.metrics.lost(Loss::Answer, 1);
                tracing::debug!(%error, "a publisher gets no answer");
            }
        }
    }

    /// None: the order can't be carried out, and nothing of it was.
    fn carry_out(&self, order: &Command) -> Option<Vec<UserAnswer>> {
        match order {
            Command::Sessions { users } => {
                Some(uids(users)?.iter().map(|uid| online(self.hub.logins_of(uid))).collect())
            }
            Command::Disconnect { users, reason, deny_for_ms, stored } => {
                let words: Words = reason.as_deref().map(Into::into);
                let until = deny_for_ms.map(|time| Until::of(time, *stored));
                Some(uids(users)?.iter().map(|uid| self.disconnect(uid, &words, until)).collect())
            }
        }
    }

    fn disconnect(&self, uid: &Uid, words: &Words, until: Option<Until>) -> UserAnswer {
        let denied = until.is_some_and(|until| self.deny(uid, words, until));
        let sessions = self.hub.disconnect(uid, words);
        tracing::debug!(sessions, denied, "the back end disconnects a user");
        UserAnswer { sessions, since: Vec::new(), denied }
    }

    /// Says whether the user is kept out now.
    fn deny(&self, uid: &Uid, words: &Words, until: Until) -> bool {
        let (now, mut list) = (unix_ms(), self.hub.denied());
        let bans = match until {
            Until::Kept(StoredAt { until_ms, .. }) => until_ms > now,
            Until::For(_) => false,
        };
        let taken = match until {
            Until::Kept(StoredAt { seq, until_ms }) => list.order(uid, seq, until_ms, words.clone(), now),
            Until::For(time) => {
                // Who is let in again stays so, whatever the clock says later.
                let until_ms = if time == 0 { 0 } else { now.saturating_add(time) };
                list.order_unkept(uid, until_ms, words.clone(), now)
            }
        };
        if taken.is_err() {
            self.metrics.lost(Loss::Denial, 1);
            tracing::error!("a ban finds no place: too many users are banned on this edge");
        }
        let denied = list.denies(uid, now).is_some();
        if bans && !denied {
            // The list as it was read is past this order and keeps nobody out: it may be another one by now.
            self.hub.doubt().notify_one();
        }
        denied
    }
}

/// How long a user is kept out.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// As the list keeps it.
    Kept(StoredAt),
    /// For so many milliseconds: the publisher keeps no list.
    For(u64),
}

impl Until {
    fn of(time: u64, kept: Option<StoredAt>) -> Self {
        kept.map_or(Self::For(time), Self::Kept)
    }
}

fn uids(users: &[String]) -> Option<Vec<Uid>> {
    let few = users.len() <= MAX_USERS;
    few.then(|| users.iter().map(|user| Uid::parse(user).ok()).collect()).flatten()
}

fn online(mut since: Vec<u64>) -> UserAnswer {
    let sessions = since.len() as u64;
    since.sort_unstable();
    since.truncate(MAX_SINCE);
    UserAnswer { sessions, since, denied: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_about_something_that_is_no_user_is_not_carried_out_at_all() {
        assert_eq!(uids(&["1".into(), "0".into()]), None);
        assert_eq!(uids(&vec!["1".into(); MAX_USERS + 1]), None);
        assert_eq!(uids(&["1".into(), "bob".into()]).unwrap().len(), 2);
    }

    #[test]
    fn times_are_told_from_the_oldest_on_and_their_number_is_bounded() {
        let answer = online((0..40).rev().collect());
        assert_eq!((answer.sessions, answer.since), (40, (0..32).collect()));
    }
}
