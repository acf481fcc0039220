//! The mapping: the question to the business system, and the meaning of its answers. Pure.
//!
//! | module | holds |
//! | --- | --- |
//! | this one | [`Mapping`], made from the configuration, with every fault named by its key |
//! | [`config`] | the keys |
//! | `presets` | the values of keys that are left out |
//! | `token_place` | where the token stands in a request |
//! | `condition` | values that are wanted at a place in an answer |
//! | `once` | keys that stand twice |
//! | `decide` | status and body → yes, no or no answer, and why |
//! | `expiry` | when a login ends |
//! | `key_names`, `advice` | what was in an answer, without values, and what to set |

mod advice;
mod condition;
pub(crate) mod config;
mod decide;
mod expiry;
mod key_names;
mod once;
mod presets;
mod token_place;

use shared::config::Problems;

use crate::config::Config;
use crate::pointer::{Pointer, PointerError};
use condition::Condition;
use config::{Method, Preset};
use presets::{Conditions, Keys};

pub(crate) use decide::{Decision, Moment, Reply, decide};
pub(crate) use token_place::{TokenPlace, is_hop_by_hop};

/// The mapping between message center and one business system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    preset: Preset,
    method: Method,
    token: TokenPlace,
    refusals: Vec<u16>,
    ok: Vec<Condition>,
    unavailable: Vec<Condition>,
    uid: Vec<Pointer>,
    expires_in: Option<Pointer>,
    expires_at: Option<Pointer>,
    groups: Option<Pointer>,
}

impl Mapping {
    /// Makes the mapping of a configuration.
    ///
    /// # Errors
    /// Every fault of its keys.
    pub(crate) fn of(config: &Config) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let keys = Keys::of(config.preset).under(&config.request, &config.answer);
        let mapping = Self::compile(config, &keys, &mut problems);
        problems.into_result(mapping)?.ok_or_else(Problems::default)
    }

    /// Adds what is wrong with the keys of the mapping.
    pub(crate) fn validate(config: &Config, problems: &mut Problems) {
        if let Err(faults) = Self::of(config) {
            problems.extend(faults);
        }
    }

    /// Returns the mapping of a preset alone.
    fn of_preset(preset: Preset) -> Option<Self> {
        Self::of(&Config { preset, ..Config::default() }).ok()
    }

    fn compile(config: &Config, keys: &Keys, problems: &mut Problems) -> Option<Self> {
        let token = token(config, keys, problems);
        let ok = conditions("ok", &keys.ok, problems);
        let unavailable = conditions("unavailable", &keys.unavailable, problems);
        let uid = keys.uid.iter().filter_map(|place| pointer("uid", place, problems)).collect();
        problems.check(!keys.uid.is_empty(), "auth_adapter.answer.uid", || {
            "is empty: name where the user stands, e.g. [\"/data/uid\"]".into()
        });
        Some(Self {
            preset: config.preset,
            method: keys.method,
            refusals: config.refusals.clone(),
            ok,
            unavailable,
            uid,
            expires_in: optional("expires_in", &keys.expires_in, problems),
            expires_at: optional("expires_at", &keys.expires_at, problems),
            groups: optional("groups", &keys.groups, problems),
            token: token?,
        })
    }

    /// Returns the method of a token check.
    pub(crate) fn method(&self) -> Method {
        self.method
    }

    /// Returns where the token stands.
    pub(crate) fn token(&self) -> &TokenPlace {
        &self.token
    }

    /// Returns every configured place in an answer.
    fn places(&self) -> Vec<&Pointer> {
        let conditions = self.ok.iter().chain(&self.unavailable).map(Condition::place);
        let rest = [&self.expires_in, &self.expires_at, &self.groups];
        conditions.chain(&self.uid).chain(rest.into_iter().flatten()).collect()
    }
}

fn token(config: &Config, keys: &Keys, problems: &mut Problems) -> Option<TokenPlace> {
    const KEY: &str = "auth_adapter.request.token";
    let place = TokenPlace::parse(&keys.token).map_err(|fault| problems.add(KEY, fault)).ok()?;
    if let Some(fault) = place.fault_with(keys.method) {
        problems.add("auth_adapter.request.method", fault);
    }
    match &place {
        TokenPlace::Header { name, .. } => {
            let twice = config.headers.keys().any(|other| other.eq_ignore_ascii_case(name.as_str()));
            problems.check(!twice, KEY, || {
                format!("auth_adapter.headers sets {name} too: a request has one, so leave one of them out")
            });
        }
        TokenPlace::Query(name) => {
            let url = reqwest::Url::parse(&config.url).ok();
            let twice = url.is_some_and(|url| url.query_pairs().any(|(other, _)| other == name.as_str()));
            problems.check(!twice, KEY, || {
                format!("auth_adapter.url has the parameter {name:?} too: take it out of the URL")
            });
        }
        TokenPlace::Json(_) | TokenPlace::Form(_) => {}
    }
    Some(place)
}

fn conditions(key: &str, conditions: &Conditions, problems: &mut Problems) -> Vec<Condition> {
    let parsed = conditions.iter().map(|(place, values)| Condition::parse(place, values));
    parsed.filter_map(|parsed| named(key, parsed, problems)).collect()
}

fn pointer(key: &str, place: &str, problems: &mut Problems) -> Option<Pointer> {
    named(key, place_in_answer(place), problems)
}

/// Reads a pointer that names a value.
fn place_in_answer(place: &str) -> Result<Pointer, String> {
    let pointer = if place.is_empty() { Err(PointerError::Beginning) } else { Pointer::parse(place) };
    pointer.map_err(|fault| format!("{place:?} {fault}"))
}

fn optional(key: &str, place: &str, problems: &mut Problems) -> Option<Pointer> {
    if place.is_empty() { None } else { pointer(key, place, problems) }
}

fn named<T>(key: &str, parsed: Result<T, String>, problems: &mut Problems) -> Option<T> {
    parsed.map_err(|fault| problems.add(format!("auth_adapter.answer.{key}"), fault)).ok()
}

#[cfg(test)]
mod tests;
