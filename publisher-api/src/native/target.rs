//! Targets of a call: users, channels, groups and all who are logged in, each checked by itself.
//!
//! A bad target does not stop the others. A target that is named twice is served once.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use shared::ids::{ALL, Channel, Group, Uid};
use utoipa::ToSchema;

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

/// Who a message is for, as the request has it.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = To)]
pub(super) struct To<'a> {
    /// Users, as integers or strings; `1001` and `"1001"` are the same user. A user stands for the channel
    /// `user:<id>`.
    #[serde(borrow, default)]
    #[schema(value_type = Vec<UserId>, required = false, max_items = 10_000, example = json!([1001, "bob"]))]
    pub(super) users: Entries<'a>,
    /// Names of channels.
    #[serde(borrow, default)]
    #[schema(value_type = Vec<String>, required = false, max_items = 10_000, example = json!(["broadcast"]))]
    pub(super) channels: Entries<'a>,
    /// Groups, as integers or strings; `7` and `"7"` are the same group. A group stands for the channel
    /// `group:<group>`, one message however many members the group has.
    #[serde(borrow, default)]
    #[schema(value_type = Vec<GroupId>, required = false, max_items = 10_000, example = json!(["vip", 7]))]
    pub(super) groups: Entries<'a>,
    /// Whether the message is for everyone who is logged in: the channel `all`, one message however many
    /// users there are. `false` is the same as leaving `all` out.
    #[serde(default)]
    pub(super) all: bool,
}

impl To<'_> {
    /// Returns how many targets the request names.
    pub(super) fn count(&self) -> usize {
        let Self { users, channels, groups, all } = self;
        users.0.len() + channels.0.len() + groups.0.len() + usize::from(*all)
    }
}

/// A user: an integer from 1 to 2^64-1, or a string of 1 to 128 bytes other than "0".
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(
    dead_code,
    reason = "it only describes what is read entry by entry, so that one bad entry harms no other"
)]
pub(super) enum UserId {
    /// The id as a number.
    Number(u64),
    /// The id as text.
    Text(String),
}

/// A group: an integer, or a string of 1 to 128 bytes without blanks.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(
    dead_code,
    reason = "it only describes what is read entry by entry, so that one bad entry harms no other"
)]
pub(super) enum GroupId {
    /// The group as a number.
    Number(i64),
    /// The group as text.
    Text(String),
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

/// Reads all targets of a call: users, then channels, then groups, then `all`.
pub(super) fn targets(to: &To<'_>) -> Vec<Target> {
    let users = to.users.0.iter().map(|entry| (*entry, user(entry).map(|uid| Channel::of_user(&uid))));
    let channels = to.channels.0.iter().map(|entry| (*entry, channel(entry)));
    let groups = to.groups.0.iter().map(|entry| (*entry, group(entry)));
    let named = users.chain(channels).chain(groups).map(|(entry, channel)| {
        let name = channel.as_ref().map_or_else(|_| echo(entry), |channel| channel.as_str().to_owned());
        (name, channel)
    });
    let everyone = to.all.then(|| (ALL.to_owned(), Ok(Channel::of_all())));
    let mut known: HashMap<Channel, usize> = HashMap::new();
    named
        .chain(everyone)
        .enumerate()
        .map(|(index, (name, channel))| {
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

/// Reads a group: an integer or a string.
fn group(entry: &RawValue) -> Result<Channel, Refusal> {
    let value = scalar(entry).unwrap_or(Value::Null);
    let group = Group::from_json(&value).map_err(Refusal::BadGroup)?;
    Channel::of_group(&group).map_err(Refusal::BadGroup)
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
