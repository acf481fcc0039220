//! Rules against loss that can be switched off, so that tests can show that they would notice.
//!
//! Only in builds with debug assertions: a released program refuses the setting.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Problems;

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Whether this rule is switched off.
    pub fn has(&self, fault: Fault) -> bool {
        cfg!(debug_assertions) && self.0.contains(&fault)
    }

    /// Whether all rules hold.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses them in a released program.
    pub fn validate(&self, key: &str, problems: &mut Problems) {
        problems.check(cfg!(debug_assertions) || self.0.is_empty(), key, || {
            "switches rules against loss off, which only a debug build does, for tests; remove it".into()
        });
    }
}
