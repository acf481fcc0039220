//! Refreshes: the sessions of a user are told to renew their logins, and a login under way learns of it.

use std::sync::{Arc, MutexGuard, PoisonError};

use shared::ids::Uid;
use tokio::time::Instant;

use super::Hub;
use super::member::Member;
use crate::refreshes::Refreshes;

impl Hub {
    /// Tells all sessions of these users to renew their logins. Returns for each user how many sessions were
    /// told. None: the list of refreshes has no space. Those who are online are told all the same, but a login
    /// under way does not learn of the refresh.
    pub(crate) fn refresh(&self, users: &[Uid], newer_than: u64, now: Instant) -> Option<Vec<u64>> {
        let numbers: Option<Vec<u64>> = {
            let mut list = self.refreshes();
            list.has_space(users, now)
                .then(|| users.iter().map(|uid| list.note(uid, newer_than, now)).collect())
        };
        let Some(numbers) = numbers else {
            for uid in users {
                self.tell_to_renew(uid, newer_than);
            }
            return None;
        };
        // After the list: a login that is entered in the hub from here on finds the refresh there.
        Some(users.iter().zip(numbers).map(|(uid, number)| self.tell_to_renew(uid, number)).collect())
    }

    fn tell_to_renew(&self, uid: &Uid, newer_than: u64) -> u64 {
        let handles: Vec<_> = self
            .users
            .of(uid)
            .get(uid)
            .into_iter()
            .flatten()
            .map(|login| Arc::clone(&login.handle))
            .collect();
        handles.iter().filter(|handle| handle.outbox.refresh(newer_than)).count() as u64
    }

    pub(super) fn refreshes(&self) -> MutexGuard<'_, Refreshes> {
        self.refreshes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// Returns the latest refresh of a user: an answer about the user must be newer than that. To be asked
    /// after the login was entered in the hub, so that no refresh is missed.
    pub(crate) fn refreshed(&self, uid: &Uid) -> Option<u64> {
        self.hub.refreshes().of(uid)
    }
}
