//! The verdict whether a client can be given everything after the position that the client names: pure.

use shared::history::{Epoch, Position};

/// The stream's state, as its leader gave it after the client came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leader {
    /// The epoch of the stream.
    pub(crate) epoch: Epoch,
    /// The lowest sequence that is stored; one more than `last` if nothing is.
    pub(crate) first: u64,
    /// The highest sequence that the stream ever gave to a message.
    pub(crate) last: u64,
}

/// Why not everything after a position can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotWhole {
    /// The position is of another epoch.
    OtherEpoch,
    /// The position is beyond the end of the stream.
    Ahead,
    /// Messages after the position have expired.
    Expired,
    /// More messages came after the position than are stored of a channel.
    TooFar,
    /// Messages after the position were erased at the request of a back end.
    Erased,
    /// Messages after the position were held back for an expired login, until the client subscribed anew.
    HeldBack,
}

impl NotWhole {
    /// Returns the reason as metrics, logs and clients have it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::OtherEpoch => "epoch",
            Self::Ahead => "ahead",
            Self::Expired => "expired",
            Self::TooFar => "trimmed",
            Self::Erased => "erased",
            Self::HeldBack => "held_back",
        }
    }
}

/// Judges a position before anything is read.
///
/// # Errors
/// Why not everything after the position can be given.
pub(crate) fn judge(after: Position, leader: Leader) -> Result<(), NotWhole> {
    if after.epoch != leader.epoch {
        Err(NotWhole::OtherEpoch)
    } else if after.seq > leader.last {
        Err(NotWhole::Ahead)
    } else if after.seq + 1 < leader.first {
        Err(NotWhole::Expired)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_decides_alone() {
        let leader = Leader { epoch: Epoch(1), first: 10, last: 20 };
        let at = |epoch, seq| judge(Position { epoch: Epoch(epoch), seq }, leader);
        assert_eq!(at(1, 15), Ok(()));
        assert_eq!(at(2, 15), Err(NotWhole::OtherEpoch));
        assert_eq!((at(1, 20), at(1, 21)), (Ok(()), Err(NotWhole::Ahead)));
        assert_eq!((at(1, 9), at(1, 8)), (Ok(()), Err(NotWhole::Expired)));
        let empty = Leader { epoch: Epoch(1), first: 21, last: 20 };
        assert_eq!(judge(Position { epoch: Epoch(1), seq: 20 }, empty), Ok(()));
        assert_eq!(judge(Position { epoch: Epoch(1), seq: 19 }, empty), Err(NotWhole::Expired));
        let new = Leader { epoch: Epoch(1), first: 1, last: 0 };
        assert_eq!(judge(Position { epoch: Epoch(1), seq: 0 }, new), Ok(()));
    }
}
