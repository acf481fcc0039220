//! Targets of a call: users and channels, each checked by itself.
//!
//! A bad target does not stop the others. A target that is named twice is served once.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use shared::ids::{Channel, Uid};

use super::limits::MAX_TARGETS;
use crate::error::Refusal;

/// The most bytes of a bad target that its result repeats.
const MAX_ECHO: usize = 64;

/// Entries of a list, as raw JSON. At most [`MAX_TARGETS`] + 1 entries are stored: enough to know that there
/// are too many.
#[derive(Debug, Clone, Default)]
pub(super) struct Entries<'a>(pub(super) Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Entries<'de>, A::Error> {
        let mut entries = Vec::new();
        while entries.len() <= MAX_TARGETS {
            match items.next_element::<&RawValue>()? {
                Some(entry) => entries.push(entry),
                None => return Ok(Entries(entries)),
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Entries(entries))
    }
}

/// One target of a call.
#[derive(Debug)]
pub(super) struct Target {
    /// The name of the target in its result: the channel, or the text that the request had in its place.
    pub(super) name: String,
    /// The channel, or the refusal.
    pub(super) channel: Result<Channel, Refusal>,
    /// The index of an equal earlier target.
    pub(super) same_as: Option<usize>,
}

/// Reads all targets of a call, users first.
pub(super) fn targets(users: &Entries<'_>, channels: &Entries<'_>) -> Vec<Target> {
    let users = users.0.iter().map(|entry| (*entry, user(entry).map(|uid| Channel::of_user(&uid))));
    let channels = channels.0.iter().map(|entry| (*entry, channel(entry)));
    let mut known: HashMap<Channel, usize> = HashMap::new();
    users
        .chain(channels)
        .enumerate()
        .map(|(index, (entry, channel))| {
            let name = channel.as_ref().map_or_else(|_| echo(entry), |channel| channel.as_str().to_owned());
            let first = channel.as_ref().ok().map(|channel| *known.entry(channel.clone()).or_insert(index));
            Target { name, channel, same_as: first.filter(|first| *first != index) }
        })
        .collect()
}

/// Reads a user: an integer or a string.
pub(super) fn user(entry: &RawValue) -> Result<Uid, Refusal> {
    let value = scalar(entry).unwrap_or(Value::Null);
    Uid::from_json(&value).map_err(Refusal::BadUser)
}

fn channel(entry: &RawValue) -> Result<Channel, Refusal> {
    match scalar(entry) {
        Some(Value::String(name)) => Channel::parse(&name).map_err(Refusal::BadTarget),
        Some(_) | None => Err(Refusal::Native("a channel is named by a string, like \"broadcast\"")),
    }
}

/// Reads a value, unless it is an array or an object, which could be costly to build.
fn scalar(entry: &RawValue) -> Option<Value> {
    let text = entry.get();
    (!text.starts_with(['[', '{'])).then(|| serde_json::from_str(text).ok()).flatten()
}

/// Returns the beginning of an entry, for the result of the entry.
pub(super) fn echo(entry: &RawValue) -> String {
    let text = match scalar(entry) {
        Some(Value::String(text)) => text,
        Some(_) | None => entry.get().to_owned(),
    };
    text[..text.floor_char_boundary(MAX_ECHO)].to_owned()
}
