//! The sessions of one channel: mostly one or two, sometimes all there are.

use std::collections::HashMap;

/// Up to so many sessions are searched; more are looked up.
const FEW: usize = 16;

/// Something that belongs to one session.
pub(crate) trait OfSession {
    /// Returns the session's number.
    fn id(&self) -> u64;
}

/// Holds at most one item of each session.
#[derive(Debug)]
pub(crate) enum Subscribers<T> {
    Few(Vec<T>),
    #[expect(
        clippy::box_collection,
        reason = "a map is twice as large as a list, which nearly all channels have"
    )]
    Many(Box<HashMap<u64, T>>),
}

impl<T> Default for Subscribers<T> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<T: OfSession> Subscribers<T> {
    /// Adds an item, unless its session has one already.
    pub(crate) fn insert(&mut self, new: T) {
        match self {
            Self::Few(few) if few.iter().any(|other| other.id() == new.id()) => {}
            Self::Few(few) if few.len() < FEW => {
                few.reserve_exact(usize::from(few.is_empty()));
                few.push(new);
            }
            Self::Few(few) => {
                let many = few.drain(..).chain([new]).map(|item| (item.id(), item));
                *self = Self::Many(Box::new(many.collect()));
            }
            Self::Many(many) => {
                many.entry(new.id()).or_insert(new);
            }
        }
    }

    /// Returns the item of this session.
    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        match self {
            Self::Few(few) => few.iter_mut().find(|item| item.id() == id),
            Self::Many(many) => many.get_mut(&id),
        }
    }

    /// Takes out the item of this session.
    pub(crate) fn remove(&mut self, id: u64) -> Option<T> {
        match self {
            Self::Few(few) => few.iter().position(|item| item.id() == id).map(|index| few.remove(index)),
            Self::Many(many) => many.remove(&id),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    pub(crate) fn each(&self, visit: impl FnMut(&T)) {
        match self {
            Self::Few(few) => few.iter().for_each(visit),
            Self::Many(many) => many.values().for_each(visit),
        }
    }
}
