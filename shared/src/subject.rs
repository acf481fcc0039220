//! The subjects of the bus: no other module builds or parses one.
//!
//! A channel name becomes one token of a subject, so that no name of a client or publisher can reach into the
//! routing: every byte outside `[A-Za-z0-9_:@-]` is written as `=XX`.

use std::borrow::Cow;

use crate::ids::{Channel, NodeId, Uid};

/// Asks to how many sessions a message went. The subject is below `mc.live.` so that an ask arrives in the
/// one ordered feed of an edge, behind the messages that the ask is about; see [`LIVE_ALL`].
pub const ASK: &str = "mc.live.ask";
/// All that an edge must receive in order: live messages and asks.
pub const LIVE_ALL: &str = "mc.live.>";
/// Heartbeats of the edges; publishers acknowledge them.
pub const HEARTBEAT: &str = "mc.edge.hb";
/// Heartbeats of the edges for the other edges, which compare their numbers of sessions.
pub const PEERS: &str = "mc.edge.peers";
/// Token checks, each answered by one of the auth-adapters.
pub const VERIFY: &str = "mc.auth.verify";
/// The queue group in which the auth-adapters share the token checks.
pub const VERIFY_QUEUE: &str = "auth-adapter";
/// Heartbeats of the auth-adapters, from which an edge knows the adapter of each token; see [`verify_at`].
pub const VERIFY_HEARTBEAT: &str = "mc.auth.hb";
/// Asks all auth-adapters for a heartbeat at once, for an edge that has just connected to the bus.
pub const VERIFY_HELLO: &str = "mc.auth.hello";
/// Commands to every edge.
pub const CONTROL_ALL: &str = "mc.ctl.all";

/// The stream with the list of bans: one message per user.
pub const DENY_STREAM: &str = "MC_DENY";
/// All subjects of the list of bans; see [`deny`].
pub const DENY_ALL: &str = "mc.deny.>";
/// Live copies of stored bans, with their sequences. Edges subscribe to these.
pub const DENIED_ALL: &str = "mc.denied.>";

/// The template of live messages' subjects, for traces: it names no channel.
pub const LIVE_TEMPLATE: &str = "mc.live.{partition}.{channel}";
/// The template of stored messages' subjects, for traces.
pub const LOG_TEMPLATE: &str = "mc.log.{partition}.{channel}";
/// The stream that remembers idempotency keys for a while.
pub const KEY_STREAM: &str = "MC_KEYS";
/// All subjects of the stream of idempotency keys: one message per key.
pub const KEY_ALL: &str = "mc.key.>";

const HEX: &[u8; 16] = b"0123456789ABCDEF";
const LIVE_PREFIX: &str = "mc.live.";
const LOG_PREFIX: &str = "mc.log.";

/// Returns the subject of commands to one edge.
pub fn control_edge(edge: &NodeId) -> String {
    format!("mc.ctl.edge.{edge}")
}

/// Returns the subject of a user's bans.
pub fn deny(uid: &Uid) -> String {
    let mut subject = String::from("mc.deny.");
    encode_into(&mut subject, uid.as_str());
    subject
}

/// Returns the subject of token checks for one auth-adapter. All edges ask the same adapter about the same
/// token, so that the business system is asked once. An edge that knows no adapter asks any, at [`VERIFY`].
pub fn verify_at(adapter: &NodeId) -> String {
    format!("{VERIFY}.{adapter}")
}

/// Returns a subject that nobody serves. A request to it is answered by "no responders", which proves that
/// all earlier subscriptions of the same connection are active.
pub fn barrier(node: &NodeId) -> String {
    format!("mc.void.{node}")
}

/// Returns the subject of a channel's live messages.
///
/// ```
/// use shared::{ids::Channel, subject};
///
/// let channel = Channel::parse("video:7.5")?;
/// assert_eq!(subject::live(&channel, 1), "mc.live.0.video:7=2E5");
/// # Ok::<(), shared::ids::NameError>(())
/// ```
pub fn live(channel: &Channel, partitions: u32) -> String {
    of_channel(LIVE_PREFIX, channel, partitions)
}

/// Returns the subject under which a channel's messages are stored.
pub fn log(channel: &Channel, partitions: u32) -> String {
    of_channel(LOG_PREFIX, channel, partitions)
}

/// Returns the subjects that the stream of a partition stores.
pub fn log_all(partition: u32) -> String {
    format!("{LOG_PREFIX}{partition}.>")
}

/// Returns the subjects of the live copies of a partition's messages.
pub fn live_all(partition: u32) -> String {
    format!("{LIVE_PREFIX}{partition}.>")
}

/// Returns the name of the stream of a partition.
pub fn log_stream(partition: u32) -> String {
    format!("MC_LOG_{partition}")
}

/// Parses the name of a stream into its partition. `None`: the stream is no partition of the history.
pub fn parse_log_stream(name: &str) -> Option<u32> {
    let partition = name.strip_prefix("MC_LOG_")?.parse().ok()?;
    (log_stream(partition) == name).then_some(partition)
}

/// Parses the subject of a stored message into its channel. `None`: this version does not know the subject.
pub fn parse_log(subject: &str) -> Option<Cow<'_, str>> {
    let (partition, token) = subject.strip_prefix(LOG_PREFIX)?.split_once('.')?;
    partition.parse::<u32>().ok()?;
    decode(token)
}

/// Returns the subject of an idempotency key's claim; `hash` is a hash of the key and its owner.
pub fn key(hash: &[u8; 32]) -> String {
    let mut subject = String::with_capacity(72);
    subject.push_str("mc.key.");
    for byte in hash {
        subject.push(char::from(HEX[usize::from(byte >> 4)]));
        subject.push(char::from(HEX[usize::from(byte & 15)]));
    }
    subject
}

fn of_channel(prefix: &str, channel: &Channel, partitions: u32) -> String {
    let mut subject = String::with_capacity(prefix.len() + channel.as_str().len() + 4);
    subject.push_str(prefix);
    subject.push_str(&partition(channel, partitions).to_string());
    subject.push('.');
    encode_into(&mut subject, channel.as_str());
    subject
}

/// A message of the feed, by its subject.
#[derive(Debug, PartialEq, Eq)]
pub enum Live<'a> {
    /// An ask.
    Ask,
    /// A message of this channel.
    Message {
        /// The partition of the channel.
        partition: u32,
        /// Internal channel name.
        channel: Cow<'a, str>,
    },
}

/// Parses a subject of the feed. `None`: this version does not know the subject.
pub fn parse_live(subject: &str) -> Option<Live<'_>> {
    if subject == ASK {
        return Some(Live::Ask);
    }
    let (partition, token) = subject.strip_prefix(LIVE_PREFIX)?.split_once('.')?;
    Some(Live::Message { partition: partition.parse().ok()?, channel: decode(token)? })
}

/// Returns the partition of a channel: FNV-1a 64 of the name's bytes, modulo `partitions`.
pub fn partition(channel: &Channel, partitions: u32) -> u32 {
    // The remainder is less than `partitions`, so it fits.
    (fnv1a(channel.as_str().as_bytes()) % u64::from(partitions.max(1))) as u32
}

/// Computes FNV-1a with 64 bits (Fowler, Noll, Vo; draft-eastlake-fnv).
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn encode_into(subject: &mut String, name: &str) {
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'@' | b'-') {
            subject.push(char::from(byte));
        } else {
            subject.push('=');
            subject.push(char::from(HEX[usize::from(byte >> 4)]));
            subject.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

fn decode(token: &str) -> Option<Cow<'_, str>> {
    if !token.contains('=') {
        return (!token.is_empty() && !token.contains('.')).then_some(Cow::Borrowed(token));
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'=' => {
                let (high, low) = (hex_digit(rest.next()?)?, hex_digit(rest.next()?)?);
                bytes.push(high << 4 | low);
            }
            b'.' => return None,
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The vectors that another implementation must meet too.
    #[test]
    fn subjects_are_those_of_the_contract() {
        for (channel, partitions, subject) in [
            ("user:1001", 1, "mc.live.0.user:1001"),
            ("user:a.b", 1, "mc.live.0.user:a=2Eb"),
            ("user:*", 1, "mc.live.0.user:=2A"),
            (">", 1, "mc.live.0.=3E"),
            ("a=b", 1, "mc.live.0.a=3Db"),
            ("video:ü", 1, "mc.live.0.video:=C3=BC"),
            ("_-@:", 1, "mc.live.0._-@:"),
        ] {
            assert_eq!(live(&Channel::parse(channel).unwrap(), partitions), subject);
        }
        assert_eq!(
            live(&Channel::parse("broadcast").unwrap(), 4),
            format!("mc.live.{}.broadcast", fnv1a(b"broadcast") % 4)
        );
        assert_eq!(log(&Channel::parse("user:a.b").unwrap(), 1), "mc.log.0.user:a=2Eb");
        assert_eq!((log_all(3), live_all(3)), ("mc.log.3.>".into(), "mc.live.3.>".into()));
        assert_eq!(log_stream(3), "MC_LOG_3");
        assert_eq!(key(&[0xa5; 32]), format!("mc.key.{}", "A5".repeat(32)));
        assert_eq!(control_edge(&"e1".into()), "mc.ctl.edge.e1");
        for (uid, subject) in
            [("1001", "mc.deny.1001"), ("a.b *", "mc.deny.a=2Eb=20=2A"), ("ü", "mc.deny.=C3=BC")]
        {
            assert_eq!(deny(&Uid::parse(uid).unwrap()), subject);
        }
        assert_eq!(verify_at(&"a1".into()), "mc.auth.verify.a1");
        assert_eq!(parse_live("mc.live.ask"), Some(Live::Ask));
    }

    #[test]
    fn fnv1a_meets_the_published_vectors() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_foreign_subject_is_not_taken_for_a_channel() {
        for foreign in [
            "mc.live.",
            "mc.live.0",
            "mc.live.0.",
            "mc.live.x.a",
            "mc.live.0.a.b",
            "mc.live.0.=",
            "mc.live.0.=2",
            "mc.live.0.=2e",
            "mc.live.0.=FF",
            "mc.log.0.a",
        ] {
            assert_eq!(parse_live(foreign), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn every_channel_comes_back_and_is_one_token(name in "\\PC{1,60}", partitions in 1u32..300) {
            if let Ok(channel) = Channel::parse(&name) {
                let subject = live(&channel, partitions);
                prop_assert_eq!(subject.split('.').count(), 4);
                prop_assert!(!subject.contains(['*', '>', ' ']));
                let partition = partition(&channel, partitions);
                prop_assert_eq!(
                    parse_live(&subject),
                    Some(Live::Message { partition, channel: name.as_str().into() })
                );
                let log = log(&channel, partitions);
                prop_assert_eq!(parse_log(&log), Some(name.as_str().into()));
            }
        }
    }
}
