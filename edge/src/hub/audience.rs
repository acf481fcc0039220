//! The sessions of one channel: mostly one or two, sometimes all there are.

use std::collections::HashMap;
use std::sync::Arc;

use super::Peer;
use crate::frame::SubscriptionId;

/// Up to here they are searched; beyond, looked up.
const FEW: usize = 16;

/// Something that belongs to one session.
pub(super) trait OfSession {
    /// The session's number.
    fn id(&self) -> u64;
}

/// A session that receives messages as they were published.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) peer: Arc<Peer>,
    pub(super) subscription: SubscriptionId,
}

impl OfSession for Listener {
    fn id(&self) -> u64 {
        self.peer.id
    }
}

/// At most one of each session.
#[derive(Debug)]
pub(super) enum Audience<T> {
    Few(Vec<T>),
    #[expect(
        clippy::box_collection,
        reason = "it is twice as large as a list, which nearly all channels have"
    )]
    Many(Box<HashMap<u64, T>>),
}

impl<T> Default for Audience<T> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<T: OfSession> Audience<T> {
    /// Adds one, unless the session has one already.
    pub(super) fn insert(&mut self, new: T) {
        match self {
            Self::Few(few) if few.iter().any(|other| other.id() == new.id()) => {}
            Self::Few(few) if few.len() < FEW => {
                few.reserve_exact(usize::from(few.is_empty()));
                few.push(new);
            }
            Self::Few(few) => {
                let many = few.drain(..).chain([new]).map(|one| (one.id(), one));
                *self = Self::Many(Box::new(many.collect()));
            }
            Self::Many(many) => {
                many.entry(new.id()).or_insert(new);
            }
        }
    }

    /// The one of this session.
    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        match self {
            Self::Few(few) => few.iter_mut().find(|one| one.id() == id),
            Self::Many(many) => many.get_mut(&id),
        }
    }

    /// Takes out the one of this session.
    pub(super) fn remove(&mut self, id: u64) -> Option<T> {
        match self {
            Self::Few(few) => few.iter().position(|one| one.id() == id).map(|place| few.remove(place)),
            Self::Many(many) => many.remove(&id),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    pub(super) fn each(&self, visit: impl FnMut(&T)) {
        match self {
            Self::Few(few) => few.iter().for_each(visit),
            Self::Many(many) => many.values().for_each(visit),
        }
    }
}
