//! The answer about a token, and what the business system wishes about the next call. Pure.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shared::ids::{Group, Uid};
use tokio::time::Instant;

/// The answer of the business system about a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The token belongs to this user.
    Yes {
        uid: Uid,
        /// When the login expires. `None`: never.
        expires: Option<Instant>,
        /// The groups of the user, at most [`MAX_GROUPS`](shared::ids::MAX_GROUPS).
        groups: Arc<[Group]>,
        /// The moment of the question to the business system, in Unix milliseconds.
        asked_at_ms: u64,
    },
    /// The token is not valid.
    No,
}

/// Parses `Retry-After`: a number of seconds, or a date. Any other value asks for nothing.
pub(super) fn retry_after(value: &[u8], now: SystemTime) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits {
        return text.parse().ok().map(Duration::from_secs);
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let of = |text: &str| retry_after(text.as_bytes(), now).map(|time| time.as_secs());
        assert_eq!(of("120"), Some(120));
        assert_eq!(of(" 0 "), Some(0));
        assert_eq!(of("Sun, 06 Nov 1994 08:50:07 GMT"), Some(30));
        assert_eq!(of("Sun, 06 Nov 1994 08:49:07 GMT"), Some(0), "it is over");
        for bad in ["", "-1", "1.5", "soon", "99999999999999999999", "\u{e9}"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_retry_after_makes_a_panic(text: Vec<u8>) {
            let _ = retry_after(&text, SystemTime::now());
        }
    }
}
