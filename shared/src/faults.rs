//! Test switches: rules against loss that can be turned off, and tasks that can be ended, so that tests can
//! show the consequences.
//!
//! Only builds with debug assertions have them: a released program refuses the setting, and has no way to end
//! a task.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::config::Problems;

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// An edge does not wait for the proof that its subscription is active.
    Barrier,
    /// An edge does not fetch what a message shows to be missing before it.
    GapFetch,
    /// An edge does not compare what it has with what the streams have.
    Sweep,
    /// An edge does not fetch what it is asked about and has not seen.
    AskFetch,
    /// A publisher repeats a message under another id.
    MessageId,
}

/// The rules that are switched off; none, but in a test.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Returns whether this rule is turned off.
    pub fn has(&self, fault: Fault) -> bool {
        cfg!(debug_assertions) && self.0.contains(&fault)
    }

    /// Returns whether all rules hold.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses test switches in a released program.
    pub fn validate(&self, key: &str, problems: &mut Problems) {
        problems.check(cfg!(debug_assertions) || self.0.is_empty(), key, || {
            "switches rules against loss off, which only a debug build does, for tests; remove it".into()
        });
    }
}

/// Tasks that a test can make panic. In a released program there are none.
#[derive(Debug, Default)]
pub(crate) struct Kills(Mutex<BTreeMap<&'static str, Arc<Notify>>>);

impl Kills {
    /// Runs a task that panics when it is told to.
    pub(crate) async fn mortal<T>(&self, name: &'static str, task: impl Future<Output = T>) -> T {
        if !cfg!(debug_assertions) {
            return task.await;
        }
        let bell = self.bell(name);
        tokio::select! {
            biased;
            () = bell.notified() => panic!("a test made the task \"{name}\" panic"),
            done = task => done,
        }
    }

    /// Returns the bell that makes the task panic.
    pub(crate) fn bell(&self, name: &'static str) -> Arc<Notify> {
        Arc::clone(self.lock().entry(name).or_default())
    }

    /// Makes one task with this name panic, now or when it is begun. Returns false if no such task was begun
    /// yet.
    pub(crate) fn kill(&self, name: &str) -> bool {
        self.lock().get(name).map(|bell| bell.notify_one()).is_some()
    }

    /// Returns the names of the tasks that were begun.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
