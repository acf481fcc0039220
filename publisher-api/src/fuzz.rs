//! Arbitrary bytes from a publisher, without a socket: what the fuzz target and the test over its corpus run.

use axum::http::{HeaderMap, HeaderValue, header};
use serde_json::Value;

use crate::connmix::{Call, Publish, http_answer, ws_answer};
use crate::error::Code;
use crate::keys::{self, Credentials, SecretHash};

const LIMIT: usize = 256;

/// Takes `input` as the body of a publish and as a frame of a publishing socket. Returns how many of them are
/// good.
///
/// # Panics
/// If a parser breaks one of its promises: what is too long or not a channel is refused, an answer is JSON.
pub fn check_bytes(input: &[u8]) -> usize {
    let body = Publish::parse(input, LIMIT);
    let mut good = usize::from(body.as_ref().is_ok_and(is_sound));
    if let Err(refusal) = body {
        let answer: Value = serde_json::from_str(&http_answer(&Err(refusal))).expect("an answer is JSON");
        assert!(answer["E"]["c"].is_u64() && answer["E"]["m"].is_string(), "{answer}");
    }
    if let Ok(text) = std::str::from_utf8(input) {
        let Call { echo, publish, .. } = Call::parse(text, LIMIT);
        good += usize::from(publish.as_ref().is_ok_and(is_sound));
        if let Err(refusal) = publish {
            let answer: Value =
                serde_json::from_str(&ws_answer(&Err(refusal), echo)).expect("an answer is JSON");
            assert_eq!(answer.get("i").is_some(), echo.is_some(), "{answer}");
        }
    }
    good
}

/// Takes `input` as the header `Authorization`, as a file of keys and as a hash. Returns how many of them are
/// good.
///
/// # Panics
/// If a reader breaks one of its promises: what can't be read is refused with code 105 or named by the file.
pub fn check_key_bytes(input: &[u8]) -> usize {
    let mut good = 0;
    if let Ok(value) = HeaderValue::from_bytes(input) {
        match Credentials::read(&HeaderMap::from_iter([(header::AUTHORIZATION, value)])) {
            Ok(credentials) => {
                let secret = credentials.expect("there is a header").secret;
                assert!(!secret.is_empty());
                good += 1;
            }
            Err(refusal) => assert_eq!(refusal.code(), Code::BadKey, "{refusal}"),
        }
    }
    if let Ok(text) = std::str::from_utf8(input) {
        match keys::config::count_in_file(text) {
            Ok(count) => {
                assert!(count > 0, "a file without keys opens the door");
                good += 1;
            }
            Err(problems) => assert!(!problems.is_empty()),
        }
        if let Ok(hash) = SecretHash::parse(text) {
            assert_eq!(hash.to_string(), text.to_ascii_lowercase());
            good += 1;
        }
    }
    good
}

fn is_sound(publish: &Publish) -> bool {
    assert!(publish.payload.len() <= LIMIT, "{} bytes", publish.payload.len());
    let channel = publish.channel.as_str();
    assert!((1..=200).contains(&channel.len()) && !channel.contains(char::is_control), "{channel:?}");
    true
}
