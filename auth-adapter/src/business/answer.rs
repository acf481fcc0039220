//! The meaning of the business system's answers. Pure.
//!
//! Only a sure yes counts as a yes. An answer that is neither yes nor no counts as "unavailable": a device
//! must not be logged out because a URL is wrong or a database is away.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use shared::ids::Uid;
use tokio::time::Instant;

use super::Failure;

/// The longest lifetime of a login that makes a difference: a hundred years, in seconds.
const FOREVER: f64 = 3_153_600_000.0;

/// The answer of the business system about a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The token belongs to this user.
    Yes {
        uid: Uid,
        /// When the login expires. `None`: never.
        expires: Option<Instant>,
    },
    /// The token is not valid.
    No,
}

/// Interprets the body of an answer with status 200.
pub(super) fn interpret(body: &[u8], now: Instant) -> Result<Answer, Failure> {
    // Editors and frameworks sometimes put a byte order mark before UTF-8.
    let text = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let body: Value = serde_json::from_slice(text).map_err(|_| Failure::NotJson)?;
    if body.is_object() && serde_json::from_slice::<Once>(text).is_err() {
        return Err(Failure::Ambiguous);
    }
    let Some(Ok(uid)) = body.get("uid").map(Uid::from_json) else { return Ok(Answer::No) };
    let expires = match body.get("expires_in") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let seconds = value.as_f64().ok_or(Failure::BadExpiry)?;
            if seconds <= 0.0 {
                return Ok(Answer::No);
            }
            now.checked_add(Duration::from_secs_f64(seconds.min(FOREVER)))
        }
    };
    Ok(Answer::Yes { uid, expires })
}

/// An object that names user and expiry at most once each: readers differ in which of two values counts.
struct Once;

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object without two answers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut seen = [("uid", false), ("expires_in", false)];
        while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
            for (_, seen) in seen.iter_mut().filter(|(name, _)| *name == key) {
                if std::mem::replace(seen, true) {
                    return Err(A::Error::custom("a key stands twice"));
                }
            }
        }
        Ok(self)
    }
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

    fn yes(uid: &str, expires: Option<Instant>) -> Result<Answer, Failure> {
        Ok(Answer::Yes { uid: Uid::parse(uid).unwrap(), expires })
    }

    #[test]
    fn only_status_200_with_a_uid_is_a_yes() {
        let now = Instant::now();
        let of = |body: &str| interpret(body.as_bytes(), now);
        assert_eq!(of(r#"{"uid":1001}"#), yes("1001", None));
        assert_eq!(of(r#"{"uid":"1001","name":"x"}"#), yes("1001", None));
        assert_eq!(of(r#"{"uid":18446744073709551615}"#), yes("18446744073709551615", None));
        let later = now + Duration::from_millis(1_500);
        assert_eq!(of(r#"{"uid":1,"expires_in":1.5}"#), yes("1", Some(later)));
        assert_eq!(of(r#"{"uid":1,"expires_in":null}"#), yes("1", None));
        assert!(matches!(of(r#"{"uid":1,"expires_in":1e300}"#), Ok(Answer::Yes { expires: Some(_), .. })));
        for no in [
            "{}",
            "null",
            "[]",
            "1",
            r#""x""#,
            r#"{"uid":null}"#,
            r#"{"uid":0}"#,
            r#"{"uid":"0"}"#,
            r#"{"uid":""}"#,
            r#"{"uid":-1}"#,
            r#"{"uid":1.5}"#,
            r#"{"uid":18446744073709551616}"#,
            r#"{"uid":true}"#,
            r#"{"uid":[1]}"#,
            r#"{"uid":1,"expires_in":0}"#,
            r#"{"uid":1,"expires_in":-5}"#,
        ] {
            assert_eq!(of(no), Ok(Answer::No), "{no}");
        }
        assert_eq!(
            of("\u{feff}{\"uid\":1001}"),
            yes("1001", None),
            "a byte order mark is no part of the JSON"
        );
        assert_eq!(of("\u{feff}{\"uid\":0}"), Ok(Answer::No));
        assert_eq!(of("\u{feff}\u{feff}{\"uid\":1}"), Err(Failure::NotJson));
        assert_eq!(of(r#"{"user":{"uid":2},"uid":1,"UID":3}"#), yes("1", None), "these are other keys");
        for twice in [
            r#"{"uid":1001,"uid":1002}"#,
            r#"{"uid":1001,"uid":1001}"#,
            r#"{"uid":null,"uid":1001}"#,
            r#"{"uid":1001,"\u0075id":0}"#,
            r#"{"uid":1,"expires_in":5,"expires_in":500}"#,
        ] {
            assert_eq!(of(twice), Err(Failure::Ambiguous), "{twice}");
        }
        assert_eq!(of(r#"{"uid":1,"expires_in":"soon"}"#), Err(Failure::BadExpiry));
        for rubbish in ["", "<html>", "{\"uid\":1", "\u{0}"] {
            assert_eq!(of(rubbish), Err(Failure::NotJson), "{rubbish}");
        }
    }

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

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,40}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(Value::from))
    }

    proptest! {
        #[test]
        fn only_an_integer_or_a_string_is_a_user(uid in any_json(), expires in any_json()) {
            let now = Instant::now();
            let body = serde_json::json!({ "uid": uid, "expires_in": expires });
            match interpret(body.to_string().as_bytes(), now) {
                Ok(Answer::Yes { uid: user, expires: at }) => {
                    let text = uid.as_str().map(str::to_owned).or_else(|| uid.as_u64().map(|uid| uid.to_string()));
                    prop_assert_eq!(Some(user.as_str()), text.as_deref());
                    prop_assert!(expires.is_null() || expires.as_f64().is_some_and(|seconds| seconds > 0.0));
                    prop_assert!(at.is_none_or(|at| at >= now) && at.is_none() == expires.is_null());
                }
                Ok(Answer::No) => prop_assert!(
                    Uid::from_json(&uid).is_err() || expires.as_f64().is_some_and(|seconds| seconds <= 0.0)
                ),
                Err(failure) => {
                    prop_assert_eq!(failure, Failure::BadExpiry);
                    prop_assert!(!expires.is_null() && !expires.is_number());
                }
            }
        }

        #[test]
        fn no_retry_after_makes_a_panic(text: Vec<u8>) {
            let _ = retry_after(&text, SystemTime::now());
        }

        #[test]
        fn no_body_makes_a_panic_and_only_a_uid_makes_a_yes(body: Vec<u8>) {
            let answer = interpret(&body, Instant::now());
            if let Ok(Answer::Yes { .. }) = answer {
                let value: Value = serde_json::from_slice(&body).unwrap();
                prop_assert!(Uid::from_json(&value["uid"]).is_ok());
            }
        }
    }
}
