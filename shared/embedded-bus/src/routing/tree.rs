//! Patterns with wildcards, as a tree of their tokens.
//!
//! Nodes lie in one list and refer to each other by index, so that neither matching nor dropping a deep tree
//! recurses: clients decide how deep it is. Nodes without members and children are removed.

use std::collections::HashMap;
use std::sync::Arc;

use super::members::Members;
use super::{GroupPart, Subscription};
use crate::subject;

const ROOT: usize = 0;

#[derive(Debug)]
pub(super) struct Tree<T> {
    nodes: Vec<Node<T>>,
    /// Indices of unused nodes.
    free: Vec<usize>,
}

#[derive(Debug)]
struct Node<T> {
    parent: usize,
    /// The token that leads here from the parent.
    token: Arc<[u8]>,
    children: HashMap<Arc<[u8]>, usize>,
    /// The child for `*`.
    any: Option<usize>,
    /// Subscriptions whose pattern ends here.
    here: Members<T>,
    /// Subscriptions whose pattern ends with `>` behind this node.
    rest: Members<T>,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { nodes: vec![Node::new(ROOT, (&[][..]).into())], free: Vec::new() }
    }
}

impl<T> Node<T> {
    fn new(parent: usize, token: Arc<[u8]>) -> Self {
        Self {
            parent,
            token,
            children: HashMap::new(),
            any: None,
            here: Members::Nobody,
            rest: Members::Nobody,
        }
    }

    fn is_unused(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.here.is_empty() && self.rest.is_empty()
    }

    fn child(&self, token: &[u8]) -> Option<usize> {
        if subject::is_wildcard(token) { self.any } else { self.children.get(token).copied() }
    }
}

impl<T> Tree<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.nodes[ROOT].is_unused()
    }

    pub(super) fn insert(&mut self, subscription: Arc<Subscription<T>>) {
        let mut at = ROOT;
        let pattern = Arc::clone(&subscription.subject);
        for token in subject::tokens(&pattern) {
            if subject::is_rest(token) {
                self.nodes[at].rest.insert(subscription);
                return;
            }
            at = match self.nodes[at].child(token) {
                Some(child) => child,
                None => self.grow(at, token),
            };
        }
        self.nodes[at].here.insert(subscription);
    }

    /// Returns the number of nodes, used or not.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.nodes.len()
    }

    fn grow(&mut self, parent: usize, token: &[u8]) -> usize {
        let token: Arc<[u8]> = token.into();
        let node = Node::new(parent, Arc::clone(&token));
        let child = match self.free.pop() {
            Some(index) => {
                self.nodes[index] = node;
                index
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        if subject::is_wildcard(&token) {
            self.nodes[parent].any = Some(child);
        } else {
            self.nodes[parent].children.insert(token, child);
        }
        child
    }

    pub(super) fn remove(&mut self, subscription: &Arc<Subscription<T>>) {
        let mut at = ROOT;
        let mut rest = false;
        for token in subject::tokens(&subscription.subject) {
            if subject::is_rest(token) {
                rest = true;
                break;
            }
            match self.nodes[at].child(token) {
                Some(child) => at = child,
                None => return,
            }
        }
        let node = &mut self.nodes[at];
        if rest { &mut node.rest } else { &mut node.here }.remove(subscription);
        self.prune(at);
    }

    /// Removes `at` and the nodes above it, as far as they are unused.
    fn prune(&mut self, mut at: usize) {
        while at != ROOT && self.nodes[at].is_unused() {
            let (parent, token) = (self.nodes[at].parent, Arc::clone(&self.nodes[at].token));
            if subject::is_wildcard(&token) {
                self.nodes[parent].any = None;
            } else {
                self.nodes[parent].children.remove(&token);
            }
            self.free.push(at);
            at = parent;
        }
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Visits the subscriptions that match a well-formed subject.
    pub(super) fn matching<'a>(
        &'a self,
        subject: &[u8],
        queues: &mut Vec<GroupPart<'a, T>>,
        plain: &mut impl FnMut(&'a Arc<Subscription<T>>),
    ) {
        // Each entry: a node, and the rest of the subject to match below it.
        let mut open = vec![(ROOT, Some(subject))];
        while let Some((at, remaining)) = open.pop() {
            let node = &self.nodes[at];
            let Some(remaining) = remaining else {
                node.here.visit(queues, plain);
                continue;
            };
            node.rest.visit(queues, plain);
            let dot = remaining.iter().position(|byte| *byte == b'.');
            let (token, below) = match dot {
                Some(dot) => (&remaining[..dot], Some(&remaining[dot + 1..])),
                None => (remaining, None),
            };
            // A published `*` is an ordinary token: the map has no such key, so only wildcards match it.
            open.extend(node.any.map(|child| (child, below)));
            open.extend(node.children.get(token).map(|child| (*child, below)));
        }
    }
}
