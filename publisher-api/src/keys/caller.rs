//! The sender of a request, whose key was valid when the request came.
//!
//! A socket asks [`Caller::current`] before each call, so that a revoked key stops working there too.

use std::sync::Arc;

use axum::http::HeaderMap;
use shared::ids::Channel;

use super::credentials::Credentials;
use super::metrics::Reason;
use super::secret::SecretHash;
use super::store::Keys;
use super::table::Key;
use crate::error::Refusal;
use crate::scope::Scope;
use crate::shares::{NoShare, Owner};

/// The sender of a request. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller {
    keys: Arc<Keys>,
    /// `None`: no keys are configured, and everybody may do everything.
    key: Option<Arc<Key>>,
}

impl Caller {
    /// Finds out who sent a request with these headers.
    ///
    /// # Errors
    /// Code 105: no key, an unreadable key, or a key that is not valid.
    pub(crate) fn of(keys: &Arc<Keys>, headers: &HeaderMap) -> Result<Self, Refusal> {
        let table = keys.table();
        if table.is_empty() {
            return Ok(Self { keys: Arc::clone(keys), key: None });
        }
        let credentials =
            Credentials::read(headers).inspect_err(|_| keys.metrics.refused(None, Reason::Malformed))?;
        let Some(Credentials { name, secret }) = credentials else {
            keys.metrics.refused(None, Reason::Missing);
            return Err(Refusal::NoKey);
        };
        let key = table.find(&SecretHash::of(secret.expose()));
        match key.filter(|key| name.as_deref().is_none_or(|name| name == key.name())) {
            Some(key) => Ok(Self { keys: Arc::clone(keys), key: Some(Arc::clone(key)) }),
            None => {
                keys.metrics.refused(None, Reason::Invalid);
                Err(Refusal::WrongKey)
            }
        }
    }

    /// The name of the key; `anonymous` where none are configured.
    pub fn name(&self) -> &str {
        self.key.as_ref().map_or("anonymous", |key| key.name())
    }

    /// Whose share of the slots the work of this sender takes.
    pub(crate) fn owner(&self) -> Owner {
        self.key.as_ref().filter(|_| self.keys.table().is_shared()).map(|key| key.shared_name())
    }

    /// Counts that there was no slot for this sender, and returns the refusal.
    pub(crate) fn no_slot(&self, none: NoShare, what: &'static str, limit: usize) -> Refusal {
        match (none, &self.key) {
            (NoShare::Others, Some(key)) => {
                self.keys.metrics.refused(Some(key.shared_name()), Reason::Share);
                Refusal::Share { key: key.shared_name(), what, limit }
            }
            (NoShare::Full | NoShare::Others, _) => Refusal::TooMany { what, limit },
        }
    }

    /// Returns the same sender by the keys that are valid now.
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

    /// Counts `messages` messages (one a target) against the rate of the key. A call may take more than the
    /// burst; the calls after it wait the longer.
    ///
    /// # Errors
    /// Code 107, with the time after which a message is let through again.
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

    /// Checks all that publishing one message needs: scope, channel, rate.
    ///
    /// # Errors
    /// Codes 106, 107.
    pub fn admit_publish(&self, channel: &Channel) -> Result<(), Refusal> {
        self.require(Scope::Publish)?;
        self.require_channel(channel)?;
        self.admit(1)
    }
}
