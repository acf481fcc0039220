//! The sender of a request, whose key was valid when it came.
//!
//! A socket asks [`Caller::current`] before each call, so that a key that was revoked stops working there
//! too.

use std::sync::Arc;

use shared::ids::Channel;

use super::metrics::Reason;
use super::scope::Scope;
use super::store::Keys;
use super::table::Key;
use crate::error::Refusal;
use crate::shares::{NoShare, Owner};

/// Who calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller {
    keys: Arc<Keys>,
    /// `None`: no keys are configured, and everybody may do everything.
    key: Option<Arc<Key>>,
}

impl Caller {
    pub(super) fn new(keys: Arc<Keys>, key: Option<Arc<Key>>) -> Self {
        Self { keys, key }
    }

    /// The name of the key; `anonymous` where none are configured.
    pub fn name(&self) -> &str {
        self.key.as_ref().map_or("anonymous", |key| key.name())
    }

    /// Whose share of the places it has what it does.
    pub(crate) fn owner(&self) -> Owner {
        self.key.as_ref().filter(|_| self.keys.table().is_shared()).map(|key| key.shared_name())
    }

    /// Counts that there was no place for this sender, and says so.
    pub(crate) fn no_place(&self, none: NoShare, what: &'static str, limit: usize) -> Refusal {
        match (none, &self.key) {
            (NoShare::Others, Some(key)) => {
                self.keys.metrics.refused(Some(key.shared_name()), Reason::Share);
                Refusal::Share { key: key.shared_name(), what, limit }
            }
            (NoShare::Full | NoShare::Others, _) => Refusal::TooMany { what, limit },
        }
    }

    /// The same sender by the keys that are valid now.
    ///
    /// # Errors
    /// Code 105: the key is not valid any more.
    pub fn current(&self) -> Result<Self, Refusal> {
        let table = self.keys.table();
        let found = match &self.key {
            None if table.is_empty() => return Ok(self.clone()),
            // The first keys came after this sender.
            None => None,
            Some(key) => table.find(&key.hash),
        };
        let Some(found) = found else {
            let name = self.key.as_ref().map(|key| key.shared_name());
            self.keys.metrics.refused(name, Reason::Invalid);
            return Err(Refusal::WrongKey);
        };
        Ok(Self { keys: Arc::clone(&self.keys), key: Some(Arc::clone(found)) })
    }

    /// Whether the sender may make calls that need this scope.
    ///
    /// # Errors
    /// Code 106.
    pub fn require(&self, scope: Scope) -> Result<(), Refusal> {
        match &self.key {
            Some(key) if !key.permits(scope) => {
                self.keys.metrics.refused(Some(key.shared_name()), Reason::Scope);
                Err(Refusal::MissingScope { key: key.shared_name(), scope })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the sender may name this channel.
    pub fn may(&self, channel: &Channel) -> bool {
        self.key.as_ref().is_none_or(|key| key.may(channel))
    }

    /// As [`Caller::may`], with the refusal and its counter.
    ///
    /// # Errors
    /// Code 106.
    pub fn require_channel(&self, channel: &Channel) -> Result<(), Refusal> {
        match &self.key {
            Some(key) if !key.may(channel) => {
                self.keys.metrics.refused(Some(key.shared_name()), Reason::Channel);
                Err(Refusal::ForbiddenChannel { key: key.shared_name() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Counts so many messages (one a target) against the rate of the key. One call may be for more than
    /// there is room for at once; the ones after it wait the longer.
    ///
    /// # Errors
    /// Code 107, with the time after which there is room.
    pub fn admit(&self, messages: u32) -> Result<(), Refusal> {
        let Some(key) = &self.key else { return Ok(()) };
        if let Some(limiter) = key.limiter()
            && let Err(after) = limiter.take(messages)
        {
            self.keys.metrics.refused(Some(key.shared_name()), Reason::Rate);
            return Err(Refusal::TooFast { key: key.shared_name(), rate: limiter.rate.per_second, after });
        }
        self.keys.metrics.admitted(key.shared_name(), messages);
        Ok(())
    }

    /// All that publishing one message needs: scope, channel, rate.
    ///
    /// # Errors
    /// Codes 106, 107.
    pub fn admit_publish(&self, channel: &Channel) -> Result<(), Refusal> {
        self.require(Scope::Publish)?;
        self.require_channel(channel)?;
        self.admit(1)
    }
}
