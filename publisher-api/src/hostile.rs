//! Arbitrary bytes from a publisher, without a socket: what the fuzz target and the test over its corpus run.

use serde_json::Value;

use crate::connmix::{Call, Publish, http_answer, ws_answer};

const LIMIT: usize = 256;

/// Takes `input` as the body of a publish and as a frame of a publishing socket. Returns how many of them are good.
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
        let Call { echo, publish } = Call::parse(text, LIMIT);
        good += usize::from(publish.as_ref().is_ok_and(is_sound));
        if let Err(refusal) = publish {
            let answer: Value =
                serde_json::from_str(&ws_answer(&Err(refusal), echo)).expect("an answer is JSON");
            assert_eq!(answer.get("i").is_some(), echo.is_some(), "{answer}");
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
