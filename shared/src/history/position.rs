//! A position in the history of a channel: an opaque text for clients, epoch and sequence here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::subject::fnv1a;

/// The numbering of a stream, from its creation, repartitioning or restoring to the next. Sequences of two
/// epochs can't be compared.
///
/// An epoch is a hash of the time at which the stream was created, the number of partitions, the partition,
/// and a generation that is raised when the stream went back in time. Two epochs of one stream are equal with
/// a probability of 2^-64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Computes the epoch of one of `partitions` partitions; `created` is in nanoseconds since 1970.
    pub fn of(created: u64, partitions: u32, partition: u32, generation: u64) -> Self {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&created.to_be_bytes());
        bytes[8..12].copy_from_slice(&partitions.to_be_bytes());
        bytes[12..16].copy_from_slice(&partition.to_be_bytes());
        bytes[16..].copy_from_slice(&generation.to_be_bytes());
        Self(fnv1a(&bytes))
    }
}

/// How far a client has received a channel: every message up to here. Written as the epoch in 16 hexadecimal
/// digits, a dot, and the sequence in decimal.
///
/// ```
/// use shared::history::{Epoch, Position};
///
/// let position: Position = "00000000000000ab.17".parse()?;
/// assert_eq!(position, Position { epoch: Epoch(0xab), seq: 17 });
/// assert_eq!(position.to_string(), "00000000000000ab.17");
/// assert!("ab.017".parse::<Position>().is_err(), "one position has one text");
/// # Ok::<(), shared::history::NotAPosition>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The epoch of the stream.
    pub epoch: Epoch,
    /// The sequence in the stream, included.
    pub seq: u64,
}

/// The text is no position that any message center gave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no id that was given out here")]
pub struct NotAPosition;

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Epoch {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 16 || !text.bytes().all(hex) {
            return Err(NotAPosition);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| NotAPosition)
    }
}

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let (epoch, seq) = text.split_once('.').ok_or(NotAPosition)?;
        let canonical = seq == "0" || !seq.starts_with('0');
        if !canonical || !seq.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotAPosition);
        }
        Ok(Self { epoch: epoch.parse()?, seq: seq.parse().map_err(|_| NotAPosition)? })
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_position_is_written_so() {
        let position = Position { epoch: Epoch::of(1_763_851_285_723_991_015, 1, 0, 0), seq: 42 };
        assert_eq!(position.to_string(), "2b9f42b420cf6b4c.42");
    }

    #[test]
    fn what_was_never_given_out_is_refused() {
        for wrong in [
            "",
            ".",
            "1.2",
            "00000000000000ff",
            "00000000000000ff.",
            "00000000000000FF.1",
            "00000000000000ff.01",
            "00000000000000ff.-1",
            "00000000000000ff.+1",
            "00000000000000ff.1 ",
            "00000000000000ff.18446744073709551616",
            "nonsense",
            "é0000000000000f.1",
        ] {
            assert_eq!(wrong.parse::<Position>(), Err(NotAPosition), "{wrong:?}");
        }
    }

    #[test]
    fn another_life_is_another_epoch() {
        let first = Epoch::of(1, 4, 0, 0);
        for other in
            [Epoch::of(2, 4, 0, 0), Epoch::of(1, 3, 0, 0), Epoch::of(1, 4, 1, 0), Epoch::of(1, 4, 0, 1)]
        {
            assert_ne!(first, other);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(epoch: u64, seq: u64) {
            let position = Position { epoch: Epoch(epoch), seq };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }
    }
}
