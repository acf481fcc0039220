//! The stamp in a published message: its run, its publishing connection, its number, and when it was due.
//!
//! A stamp has fixed offsets and hexadecimal digits, so that a receiver reads it without parsing JSON and so
//! that its length is constant.

/// The length of a stamp, in bytes, and so the shortest payload.
pub(crate) const LENGTH: usize = 52;
const MARK: &[u8] = b"mcb1";

/// The stamp of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The number of the run, which tells its messages from all others.
    pub(crate) run: u32,
    /// The publishing connection. Order is promised within one connection.
    pub(crate) lane: u16,
    /// The number of the message among this lane's messages to the channel; the first is 1.
    pub(crate) number: u64,
    /// When the message was due, in nanoseconds of the run's clock.
    pub(crate) intended: u64,
}

impl Stamp {
    /// Returns the payload: the stamp, padded to `size` bytes. The payload needs no escaping in JSON.
    pub(crate) fn payload(&self, size: usize) -> String {
        let Self { run, lane, number, intended } = self;
        let mut text = format!("mcb1 {run:08x} {lane:04x} {number:016x} {intended:016x}");
        text.extend(std::iter::repeat_n('.', size.saturating_sub(LENGTH)));
        text
    }

    /// Reads the stamp at the beginning of a payload, if there is one.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let stamp = payload.get(..LENGTH)?;
        let blanks = [4, 13, 18, 35].iter().all(|offset| stamp[*offset] == b' ');
        if !stamp.starts_with(MARK) || !blanks {
            return None;
        }
        Some(Self {
            run: u32::try_from(hexadecimal(&stamp[5..13])?).ok()?,
            lane: u16::try_from(hexadecimal(&stamp[14..18])?).ok()?,
            number: hexadecimal(&stamp[19..35])?,
            intended: hexadecimal(&stamp[36..52])?,
        })
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_written_stamp_can_be_read(
            run: u32, lane: u16, number: u64, intended: u64, size in 0..300_usize,
        ) {
            let stamp = Stamp { run, lane, number, intended };
            let payload = stamp.payload(size);
            prop_assert_eq!(payload.len(), size.max(LENGTH));
            prop_assert_eq!(Stamp::read(payload.as_bytes()), Some(stamp));
            prop_assert_eq!(serde_json::to_string(&payload).unwrap().len(), payload.len() + 2);
        }

        #[test]
        fn other_payloads_are_no_stamp_and_no_panic(payload: Vec<u8>) {
            prop_assert_eq!(Stamp::read(&payload), None);
        }
    }

    #[test]
    fn a_damaged_stamp_is_none() {
        let payload = Stamp { run: 1, lane: 2, number: 3, intended: 4 }.payload(60);
        for offset in 0..LENGTH {
            let mut damaged = payload.clone().into_bytes();
            damaged[offset] = b'?';
            assert_eq!(Stamp::read(&damaged), None, "{offset}");
        }
    }
}
