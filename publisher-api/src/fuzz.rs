//! Entry points of fuzzing: arbitrary bytes from a publisher, without a socket. The fuzz targets and the
//! tests over their corpora call them.

use axum::http::{HeaderMap, HeaderValue, header};
use serde_json::Value;

use crate::connmix::{Call, http_answer, read_message, ws_answer};
use crate::error::Code;
use crate::keys::{self, Credentials, SecretHash};
use crate::publisher::Message;

const LIMIT: usize = 256;

/// Reads `input` as the body of a publish and as a frame of a publishing socket. Returns how many of them are
/// good.
///
/// # Panics
/// A parser breaks one of its promises: it refuses what is too long or no channel, and an answer is JSON.
pub fn check_bytes(input: &[u8]) -> usize {
    let body = read_message(input, LIMIT);
    let mut good = usize::from(body.as_ref().is_ok_and(is_sound));
    if let Err(refusal) = body {
        let answer: Value = serde_json::from_str(&http_answer(&Err(refusal))).expect("an answer is JSON");
        assert!(answer["E"]["c"].is_u64() && answer["E"]["m"].is_string(), "{answer}");
    }
    if let Ok(text) = std::str::from_utf8(input) {
        let Call { echo, message, .. } = Call::parse(text, LIMIT);
        good += usize::from(message.as_ref().is_ok_and(is_sound));
        if let Err(refusal) = message {
            let answer: Value =
                serde_json::from_str(&ws_answer(&Err(refusal), echo)).expect("an answer is JSON");
            assert_eq!(answer.get("i").is_some(), echo.is_some(), "{answer}");
        }
    }
    good
}

/// Reads `input` as the header `Authorization`, as a file of keys and as a hash. Returns how many of them are
/// good.
///
/// # Panics
/// A reader breaks one of its promises: an unreadable header is refused with code 105, an unreadable file
/// names its problems.
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

fn is_sound(message: &Message) -> bool {
    assert!(message.payload.len() <= LIMIT, "{} bytes", message.payload.len());
    let channel = message.channel.as_str();
    assert!((1..=200).contains(&channel.len()) && !channel.contains(char::is_control), "{channel:?}");
    true
}
