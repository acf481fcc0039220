//! Times as the JetStream API writes them: RFC 3339 with up to nine digits after the second.
//!
//! Inside, times are nanoseconds since 1970, in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time of the first and last message of an empty stream.
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// Returns the system's time of day, in nanoseconds since 1970. It may jump either way: see `clock`.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Writes a time, without zeros at its end.
pub(crate) fn format(nanos: u64) -> String {
    let whole = humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(nanos)).to_string();
    let digits = whole.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{digits}Z")
}

/// Reads a time, in UTC or with an offset such as `+02:00`. A time before 1970 counts as 1970.
pub(crate) fn parse(text: &str) -> Option<u64> {
    if text == NEVER {
        return Some(0);
    }
    let (local, offset) = if text.ends_with(['Z', 'z']) {
        (text.strip_suffix(['Z', 'z'])?, 0)
    } else {
        let (local, zone) = text.split_at_checked(text.len().checked_sub(6)?)?;
        (local, offset(zone)?)
    };
    let time = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let nanos = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let nanos = i128::try_from(nanos).ok()? - i128::from(offset) * 1_000_000_000;
    Some(u64::try_from(nanos).unwrap_or(0))
}

/// Reads the seconds east of UTC of `+hh:mm` or `-hh:mm`.
fn offset(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_written_without_zeros_at_the_end() {
        assert_eq!(format(0), "1970-01-01T00:00:00Z");
        assert_eq!(format(1_500_000_000), "1970-01-01T00:00:01.5Z");
        assert_eq!(
            format(1_795_389_537_018_407_128),
            "2026-11-22T22:38:57.018407128Z".replace("22:38", "23:18")
        );
    }

    #[test]
    fn an_offset_counts() {
        assert_eq!(parse("2020-01-01T00:00:00+02:00"), parse("2019-12-31T22:00:00Z"));
        assert_eq!(parse("2020-01-01T00:00:00-02:30"), parse("2020-01-01T02:30:00Z"));
        for bad in ["", "bad", "2020-01-01", "2020-01-01T00:00:00", "2020-01-01T00:00:00*02:00", "ü"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(nanos in 0_u64..4_000_000_000_000_000_000) {
            prop_assert_eq!(parse(&format(nanos)), Some(nanos));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
