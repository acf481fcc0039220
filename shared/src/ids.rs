//! Checked names: user, channel, node and message. A value of these types is valid, wherever it comes from.
//!
//! All are cheap to clone, and no other code holds such a name as a bare `String`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest uid and the longest placeholder value, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 128;
/// The longest internal channel name, in bytes of UTF-8.
pub const MAX_CHANNEL_BYTES: usize = 200;

/// Why a value is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("it is empty")]
    Empty,
    /// The name has too many bytes.
    #[error("it has {got} bytes, the limit is {max}")]
    TooLong {
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The name has a character that is not allowed.
    #[error("it holds a blank or control character, which is not allowed")]
    Character,
    /// A uid that is no uid: zero, a fraction, a boolean, null, a list or an object.
    #[error("a uid is an integer from 1 to 2^64-1 or a string of 1 to 128 bytes other than \"0\"")]
    NotUid,
    /// A group that is no group: a fraction, a boolean, null, a list or an object.
    #[error("a group is an integer or a string of 1 to 128 bytes")]
    NotGroup,
}

/// The id of a user, as the business system gives it. The number `1001` and the text `"1001"` are the same
/// user.
///
/// ```
/// use shared::ids::Uid;
///
/// let number = Uid::from_json(&serde_json::json!(1001))?;
/// assert_eq!(number, Uid::parse("1001")?);
/// assert!(Uid::parse("0").is_err(), "0 is nobody");
/// assert!(Uid::from_json(&serde_json::json!(1.5)).is_err());
/// # Ok::<(), shared::ids::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(Arc<str>);

impl Uid {
    /// Reads a uid from text: 1 to 128 bytes, not `"0"`, no control characters.
    ///
    /// # Errors
    /// The rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_placeholder(text)?;
        if text == "0" {
            return Err(NameError::NotUid);
        }
        Ok(Self(text.into()))
    }

    /// Reads a uid as business systems and publishers write it: a JSON integer or string.
    ///
    /// # Errors
    /// [`NameError::NotUid`] for zero, negative numbers, fractions and every other JSON type.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, NameError> {
        match value {
            serde_json::Value::Number(number) => match number.as_u64() {
                Some(0) | None => Err(NameError::NotUid),
                Some(integer) => Ok(Self(integer.to_string().into())),
            },
            serde_json::Value::String(text) => Self::parse(text),
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_) => Err(NameError::NotUid),
        }
    }

    /// Returns the uid as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The most groups of one user.
pub const MAX_GROUPS: usize = 64;

/// A group of users, as the business system names it: 1 to 128 bytes without control characters. The number
/// `7` and the text `"7"` are the same group.
///
/// ```
/// use shared::ids::Group;
///
/// assert_eq!(Group::from_json(&serde_json::json!(7)), Group::parse("7"));
/// assert!(Group::parse("").is_err());
/// assert!(Group::from_json(&serde_json::json!(["vip"])).is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(Arc<str>);

impl Group {
    /// Reads a group from text: 1 to 128 bytes, no control characters.
    ///
    /// # Errors
    /// The rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_placeholder(text)?;
        Ok(Self(text.into()))
    }

    /// Reads a group as business systems write it: a JSON integer or string.
    ///
    /// # Errors
    /// [`NameError::NotGroup`] for fractions and every other JSON type, or the rule that the text breaks.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, NameError> {
        match value {
            serde_json::Value::Number(number) if number.is_i64() || number.is_u64() => {
                Ok(Self(number.to_string().into()))
            }
            serde_json::Value::String(text) => Self::parse(text),
            serde_json::Value::Number(_)
            | serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_) => Err(NameError::NotGroup),
        }
    }

    /// Returns the group as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The beginning of the name of a user's channel; the uid follows.
pub const USER_PREFIX: &str = "user:";
/// The beginning of the name of a group's channel; the group follows.
pub const GROUP_PREFIX: &str = "group:";
/// The name of the channel of everyone who is logged in.
pub const ALL: &str = "all";

/// The internal name of a channel, by which publishers name it: 1 to 200 bytes without control characters.
/// Blanks are allowed only in a uid, behind [`USER_PREFIX`], so that every user who can log in can be named.
///
/// ```
/// use shared::ids::{Channel, Group, Uid};
///
/// let channel = Channel::of_user(&Uid::parse("Ada Lovelace")?);
/// assert_eq!(channel.as_str(), "user:Ada Lovelace");
/// assert_eq!(Channel::of_group(&Group::parse("vip")?)?.as_str(), "group:vip");
/// assert!(Channel::of_group(&Group::parse("a b")?).is_err());
/// assert_eq!(Channel::of_all().as_str(), "all");
/// assert!(Channel::parse("video:a b").is_err(), "a blank outside of a uid");
/// # Ok::<(), shared::ids::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

impl Channel {
    /// Checks a channel name.
    ///
    /// # Errors
    /// The rule that the name breaks.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        check_length(name, MAX_CHANNEL_BYTES)?;
        if name.chars().any(char::is_control) || has_stray_blank(name) {
            return Err(NameError::Character);
        }
        Ok(Self(name.into()))
    }

    /// Returns the channel of a user. Every user has one.
    pub fn of_user(uid: &Uid) -> Self {
        Self(format!("{USER_PREFIX}{uid}").into())
    }

    /// Returns the channel of a group.
    ///
    /// # Errors
    /// [`NameError::Character`] for a group with a blank, which has no channel.
    pub fn of_group(group: &Group) -> Result<Self, NameError> {
        Self::parse(&format!("{GROUP_PREFIX}{group}"))
    }

    /// Returns the channel of everyone who is logged in.
    pub fn of_all() -> Self {
        Self(ALL.into())
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Returns whether a channel name, or a pattern of one, has a blank outside of a uid.
pub fn has_stray_blank(name: &str) -> bool {
    !name.starts_with(USER_PREFIX) && name.contains(char::is_whitespace)
}

/// Checks a placeholder's value: 1 to 128 bytes without control characters.
///
/// # Errors
/// The rule that the value breaks.
pub fn check_placeholder(value: &str) -> Result<(), NameError> {
    check_length(value, MAX_NAME_BYTES)?;
    if value.chars().any(char::is_control) {
        return Err(NameError::Character);
    }
    Ok(())
}

fn check_length(text: &str, max: usize) -> Result<(), NameError> {
    match text.len() {
        0 => Err(NameError::Empty),
        got if got > max => Err(NameError::TooLong { got, max }),
        _ => Ok(()),
    }
}

/// The id of one process of a part (an edge, a publisher-api), new at each start: 16 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Draws a random id.
    pub fn random() -> Self {
        Self(format!("{:016x}", random_bits() >> 64).into())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for NodeId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

/// The id of one accepted message, in every part. Written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub u128);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for MessageId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NameError::Character);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| NameError::Character)
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Channel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Channel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Makes message ids: 64 random bits of this process, then a counter.
#[derive(Debug)]
pub struct MessageIds {
    prefix: u64,
    next: AtomicU64,
}

impl MessageIds {
    /// Starts a source of its own: two sources make the same ids with a probability of 2^-64.
    pub fn random() -> Self {
        // The upper half of the random bits fits by construction.
        Self { prefix: (random_bits() >> 64) as u64, next: AtomicU64::new(1) }
    }

    /// Makes the next id.
    pub fn next(&self) -> MessageId {
        let counter = self.next.fetch_add(1, Ordering::Relaxed);
        MessageId((u128::from(self.prefix) << 64) | u128::from(counter))
    }
}

/// 128 bits from the operating system.
///
/// # Panics
/// The system has no source of randomness; nothing that identifies or protects could be made then.
pub(crate) fn random_bits() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    u128::from_ne_bytes(bytes)
}

macro_rules! text_like {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    )*};
}
text_like!(Uid, Group, Channel, NodeId);

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_group_is_an_integer_or_a_short_text() {
        for (value, text) in [(json!(7), "7"), (json!(0), "0"), (json!(-3), "-3"), (json!("a b"), "a b")] {
            assert_eq!(Group::from_json(&value).unwrap().as_str(), text);
        }
        for no in [json!(null), json!(true), json!(1.5), json!(["vip"]), json!({"name": "vip"})] {
            assert_eq!(Group::from_json(&no), Err(NameError::NotGroup), "{no}");
        }
        assert!(Group::parse(&"x".repeat(128)).is_ok());
        for no in ["", "a\nb", &"x".repeat(129)] {
            assert!(Group::parse(no).is_err(), "{no:?}");
        }
    }

    #[test]
    fn a_uid_is_an_integer_or_a_string_and_both_spellings_are_one_user() {
        assert_eq!(Uid::from_json(&json!(1001)), Uid::from_json(&json!("1001")));
        assert_eq!(Uid::from_json(&json!(u64::MAX)).unwrap().as_str(), "18446744073709551615");
        for no in
            [json!(0), json!(-1), json!(1.5), json!(1e30), json!(true), json!(null), json!([]), json!({})]
        {
            assert_eq!(Uid::from_json(&no), Err(NameError::NotUid), "{no}");
        }
        assert_eq!(Uid::from_json(&json!("0")), Err(NameError::NotUid));
        assert_eq!(Uid::from_json(&json!("")), Err(NameError::Empty));
        assert!(Uid::from_json(&json!("x".repeat(128))).is_ok());
        assert!(Uid::from_json(&json!("x".repeat(129))).is_err());
    }

    #[test]
    fn a_channel_has_at_most_200_bytes_and_blanks_only_in_a_uid() {
        for good in ["user:1001", "user:a b", "user: ", "user:a\u{a0}b"] {
            assert!(Channel::parse(good).is_ok(), "{good:?}");
        }
        assert!(Channel::parse("ü.*>=").is_ok());
        assert!(Channel::parse(&"x".repeat(200)).is_ok());
        for bad in
            ["", "a b", "a\nb", "a\u{a0}b", "\0", " user:1", "video:a b", "user:a\tb", &"x".repeat(201)]
        {
            assert!(Channel::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_user_can_be_named_by_a_channel(text in "[ -~]{1,128}|\\PC{1,40}|[ \u{a0}\u{2003}a:%/+.]{1,20}") {
            if let Ok(uid) = Uid::parse(&text) {
                let channel = Channel::of_user(&uid);
                prop_assert_eq!(Channel::parse(channel.as_str()), Ok(channel.clone()));
                let subject = crate::subject::log(&channel, 1);
                prop_assert_eq!(crate::subject::parse_log(&subject), Some(channel.as_str().into()));
                let json = serde_json::to_string(&channel).unwrap();
                prop_assert_eq!(serde_json::from_str::<Channel>(&json).unwrap(), channel);
            }
        }
    }

    #[test]
    fn a_message_id_is_32_hexadecimal_digits() {
        let ids = MessageIds::random();
        let (first, second) = (ids.next(), ids.next());
        assert_ne!(first, second);
        assert_eq!(first.to_string().parse(), Ok(first));
        assert_eq!(first.to_string().len(), 32);
        for bad in ["", "1", "+0000000000000000000000000000001", "zz"] {
            assert!(bad.parse::<MessageId>().is_err(), "{bad}");
        }
    }
}
