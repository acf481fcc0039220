//! The login of a conversation: begun, renewed, expired, and ended by a refresh.

use std::sync::Arc;

use shared::ids::{Group, Uid};
use shared::rules::User;
use tokio::time::Instant;

use super::{Effect, State};
use crate::code::ErrorCode;
use crate::protocol::{self, Echo};

/// Who the client is.
#[derive(Debug)]
pub(super) enum Login {
    None,
    Active { uid: Uid, groups: Arc<[Group]>, expires: Option<Instant> },
    Expired { uid: Uid, groups: Arc<[Group]>, renew_by: Instant },
}

impl Login {
    pub(super) fn user(&self) -> Option<User<'_>> {
        match self {
            Self::None => None,
            Self::Active { uid, groups, .. } | Self::Expired { uid, groups, .. } => {
                Some(User { uid, groups })
            }
        }
    }
}

impl State {
    /// Ends a login that is not newer than this refresh, as if the login had expired.
    pub(crate) fn on_refresh(&mut self, newer_than: u64, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if !self.ended && self.newer_than < Some(newer_than) {
            self.newer_than = Some(newer_than);
            self.end_login(now, &mut effects);
        }
        effects
    }

    pub(super) fn log_in(
        &mut self,
        uid: Uid,
        groups: Arc<[Group]>,
        expires: Option<Instant>,
        echo: &Echo,
        effects: &mut Vec<Effect>,
    ) {
        let before = std::mem::replace(&mut self.login, Login::Active { uid: uid.clone(), groups, expires });
        let (user_before, was_paused) = match before {
            Login::None => (None, false),
            Login::Active { uid, .. } => (Some(uid), false),
            Login::Expired { uid, .. } => (Some(uid), true),
        };
        if user_before.is_some_and(|before| before != uid) {
            self.subscriptions = Vec::new();
            effects.push(Effect::Forget);
        }
        self.end_forbidden(effects);
        self.useful_by = None;
        effects.push(Effect::Reply(protocol::result(echo)));
        if was_paused {
            effects.push(Effect::Resume);
        }
    }

    /// Ends an expired login, which holds messages back until the login is renewed.
    pub(super) fn expire(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if let Login::Active { expires: Some(expires), .. } = &self.login
            && *expires <= now
        {
            self.end_login(now, effects);
        }
    }

    fn end_login(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Login::Active { uid, groups, .. } = &self.login else { return };
        let (uid, groups) = (uid.clone(), Arc::clone(groups));
        self.login = Login::Expired { uid, groups, renew_by: now + self.limits.reauth_timeout };
        self.refuse((ErrorCode::AuthExpired, None), &Echo::default(), effects);
        effects.push(Effect::Pause);
    }
}
