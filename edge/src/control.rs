//! Answers the commands of publishers about users: who is online, "close their sessions", "have them log in
//! again".
//!
//! A ban is put on the list before the sessions are closed, and a login looks at the list after the login was
//! entered in the hub. So a login under way is either closed or refused, never missed. A command that this
//! version does not know is not answered, so that no publisher takes the command for obeyed.

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
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::code::CloseReason;
use crate::hub::Hub;
use crate::metrics::{Loss, Metrics};
use crate::node::Node;

/// Users that one command may name; publishers name fewer.
const MAX_USERS: usize = 10_000;

/// Carries out the commands of publishers.
#[derive(Debug)]
pub(crate) struct ControlResponder {
    bus: Bus,
    id: NodeId,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
}

impl ControlResponder {
    /// Subscribes, and answers commands until the edge is gone.
    pub(crate) async fn start(node: &Node) -> Result<(), RequestError> {
        let commands = node.bus.subscribe(subject::CONTROL_ALL, None, bus::DEADLINE).await?;
        let Node { bus, id, hub, metrics, drain, gone } = node.clone();
        let state = (Self { bus, id, hub, metrics }, commands, gone);
        drain.supervise("edge-orders", state, |(responder, commands, gone)| {
            Box::pin(responder.listen(commands, gone))
        });
        Ok(())
    }

    async fn listen(&self, commands: &mut Subscriber, gone: &CancellationToken) {
        loop {
            tokio::select! {
                message = commands.next() => match message {
                    Some(message) => self.on_message(message).await,
                    None => return tracing::error!("the bus client ended the subscription to orders"),
                },
                () = gone.cancelled() => return,
            }
        }
    }

    async fn on_message(&self, message: Message) {
        let (Ok(control), Some(reply)) = (Control::decode(&message.payload), message.reply) else {
            self.metrics.lost(Loss::BadCommand, 1);
            return tracing::debug!("dropped an order that can't be read or answered");
        };
        let Some(users) = self.carry_out(&control.command) else {
            self.metrics.lost(Loss::BadCommand, 1);
            return tracing::warn!(
                "dropped an order about something that is no user, or about too many, or a refresh beyond the list"
            );
        };
        let answer = ControlAnswer { v: VERSION, edge: self.id.clone(), users };
        match self.bus.publish(reply, None, None, answer.encode()).await {
            Ok(()) => {
                self.metrics.commands.inc();
            }
            Err(error) => {
                self.metrics.lost(Loss::Answer, 1);
                tracing::debug!(%error, "a publisher gets no answer");
            }
        }
    }

    /// Carries out a command. None: this was not possible, and no part of the command was carried out.
    fn carry_out(&self, command: &Command) -> Option<Vec<UserAnswer>> {
        match command {
            Command::Sessions { users } => {
                Some(uids(users)?.iter().map(|uid| online(self.hub.logins_of(uid))).collect())
            }
            Command::Disconnect { users, reason, deny_for_ms, stored } => {
                let reason: CloseReason = reason.as_deref().map(Into::into);
                let until = deny_for_ms.map(|time| Until::of(time, *stored));
                Some(uids(users)?.iter().map(|uid| self.disconnect(uid, &reason, until)).collect())
            }
            Command::Refresh { users, newer_than_ms } => self.refresh(&uids(users)?, *newer_than_ms),
        }
    }

    fn disconnect(&self, uid: &Uid, reason: &CloseReason, until: Option<Until>) -> UserAnswer {
        let banned = until.is_some_and(|until| self.ban(uid, reason, until));
        let sessions = self.hub.disconnect(uid, reason);
        tracing::debug!(sessions, denied = banned, "the back end disconnects a user");
        UserAnswer { sessions, since: Vec::new(), denied: banned }
    }

    /// Has the sessions of these users renew their logins. None: the list of refreshes has no space.
    fn refresh(&self, users: &[Uid], newer_than: u64) -> Option<Vec<UserAnswer>> {
        let told = self.hub.refresh(users, newer_than, Instant::now())?;
        let sessions = told.iter().sum();
        self.metrics.refreshes.inc_by(sessions);
        tracing::debug!(sessions, "the back end has users renew their logins");
        Some(told.into_iter().map(|sessions| UserAnswer { sessions, ..UserAnswer::default() }).collect())
    }

    /// Bans a user, and returns whether it is banned now.
    fn ban(&self, uid: &Uid, reason: &CloseReason, until: Until) -> bool {
        let (now, mut list) = (unix_ms(), self.hub.bans());
        let bans = match until {
            Until::Stored(StoredAt { until_ms, .. }) => until_ms > now,
            Until::For(_) => false,
        };
        let taken = match until {
            Until::Stored(StoredAt { seq, until_ms }) => {
                list.command(uid, seq, until_ms, reason.clone(), now)
            }
            Until::For(time) => {
                // A user who is let in again stays let in, whatever the clock says later.
                let until_ms = if time == 0 { 0 } else { now.saturating_add(time) };
                list.command_unlisted(uid, until_ms, reason.clone(), now)
            }
        };
        if taken.is_err() {
            self.metrics.lost(Loss::Ban, 1);
            tracing::error!("a ban finds no place: too many users are banned on this edge");
        }
        let banned = list.banned(uid, now).is_some();
        if bans && !banned {
            // The list was read beyond this ban and does not contain it: the stream may be another one by
            // now.
            self.hub.bans_stale().notify_one();
        }
        banned
    }
}

/// How long a ban lasts.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// Until the end that the stream stores.
    Stored(StoredAt),
    /// For so many milliseconds: the publisher stores no bans.
    For(u64),
}

impl Until {
    fn of(time: u64, stored: Option<StoredAt>) -> Self {
        stored.map_or(Self::For(time), Self::Stored)
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
