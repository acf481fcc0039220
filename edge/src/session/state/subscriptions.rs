//! The subscriptions of a conversation: begun, replaced and ended.

use std::sync::Arc;

use shared::ids::Channel;
use shared::rules::{Refusal, Resolved};

use super::{Effect, Login, Refused, Rest, State};
use crate::code::ErrorCode;
use crate::protocol::{self, After};

/// One of the client's subscriptions.
#[derive(Debug)]
pub(super) struct Subscription {
    /// The channel's name as the client calls it.
    pub(super) name: Arc<str>,
    /// The channel itself; several names may stand for it.
    pub(super) channel: Channel,
    /// Whether the messages come with ids.
    pub(super) follows: bool,
}

impl State {
    /// Begins a subscription. Returns the op to wait for; none if there is nothing to wait for.
    pub(super) fn subscribe(
        &mut self,
        name: &Arc<str>,
        after: After,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<(Arc<str>, Channel, Effect)>, Refused> {
        let Resolved { channel, history: has_history, .. } = self.resolve(name)?;
        let after = match after {
            After::Plain => None,
            After::Now | After::Position(_) if !has_history => {
                let detail = "this channel keeps no history: subscribe without \"after\"";
                return Err((ErrorCode::BadRequest, Some(detail)));
            }
            After::Now => Some(None),
            After::Position(position) => Some(Some(position)),
        };
        let known = self.index_of(name);
        let mut instead_of_plain = false;
        match (known, &after) {
            (Some(_), None) => return Ok(None),
            // The old subscription goes on until the new one begins, so that nothing is missing between them.
            (Some(index), Some(None)) => instead_of_plain = self.is_last_plain(index),
            // The old subscription ends now: messages of the channel from here on are given behind the named
            // position.
            (Some(index), Some(Some(_))) => self.end_subscription(index, Rest::Drop, effects),
            (None, _) if self.subscriptions.len() >= self.limits.subscriptions => {
                return Err((ErrorCode::TooManySubscriptions, None));
            }
            (None, _) => {}
        }
        let effect = match after {
            None if self.watches(&channel) => {
                self.subscriptions.push(Subscription { name: Arc::clone(name), channel, follows: false });
                return Ok(None);
            }
            None => Effect::Watch { channel: channel.clone(), has_history },
            Some(after) => {
                let (channel, name) = (channel.clone(), Arc::clone(name));
                Effect::Follow { channel, name, after, instead_of_plain }
            }
        };
        Ok(Some((Arc::clone(name), channel, effect)))
    }

    pub(super) fn unsubscribe(&mut self, name: &str, effects: &mut Vec<Effect>) -> Result<(), Refused> {
        self.resolve(name)?;
        if let Some(index) = self.index_of(name) {
            self.end_subscription(index, Rest::Give, effects);
        }
        Ok(())
    }

    pub(super) fn index_of(&self, name: &str) -> Option<usize> {
        self.subscriptions.iter().position(|subscription| *subscription.name == *name)
    }

    /// Returns whether this is the last subscription by which messages of its channel come as they were
    /// published.
    fn is_last_plain(&self, index: usize) -> bool {
        let Subscription { channel, follows, .. } = &self.subscriptions[index];
        let is_plain = |other: &&Subscription| !other.follows && other.channel == *channel;
        !follows && self.subscriptions.iter().filter(is_plain).count() == 1
    }

    pub(super) fn end_subscription(&mut self, index: usize, rest: Rest, effects: &mut Vec<Effect>) {
        let last_plain = self.is_last_plain(index);
        let Subscription { name, channel, follows } = self.subscriptions.swap_remove(index);
        if follows {
            effects.push(Effect::Unfollow { name, rest });
        } else if last_plain {
            effects.push(Effect::Unwatch { channel, rest });
        }
    }

    /// Ends the subscriptions for which the user has no group any more. The client is told of each, before
    /// the answer to its login.
    pub(super) fn end_forbidden(&mut self, effects: &mut Vec<Effect>) {
        let mut index = 0;
        while let Some(Subscription { name, .. }) = self.subscriptions.get(index) {
            if self.rules.resolve(name, self.login.user()) == Err(Refusal::NotMember) {
                let event = protocol::closed(name);
                self.end_subscription(index, Rest::Forbid, effects);
                effects.push(Effect::Closed(event));
            } else {
                index += 1;
            }
        }
    }

    fn resolve(&self, name: &str) -> Result<Resolved, Refused> {
        let expired = matches!(self.login, Login::Expired { .. });
        match self.rules.resolve(name, self.login.user()) {
            Ok(resolved) if resolved.login && expired => Err((ErrorCode::AuthExpired, None)),
            Ok(resolved) => Ok(resolved),
            Err(Refusal::UnknownChannel) => Err((ErrorCode::UnknownChannel, None)),
            Err(Refusal::NotAuth) => Err((ErrorCode::NotAuth, None)),
            Err(Refusal::NotMember) if expired => Err((ErrorCode::AuthExpired, None)),
            Err(Refusal::NotMember) => Err((ErrorCode::NotAllowed, None)),
            Err(Refusal::BadName(_)) => {
                let detail =
                    "\"channel\", with your uid in it, is too long or has blanks or control characters";
                Err((ErrorCode::BadRequest, Some(detail)))
            }
        }
    }

    /// Returns whether messages of this channel go to the client as they were published.
    fn watches(&self, channel: &Channel) -> bool {
        self.subscriptions
            .iter()
            .any(|subscription| !subscription.follows && subscription.channel == *channel)
    }
}
