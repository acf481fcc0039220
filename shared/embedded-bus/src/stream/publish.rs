//! What a publisher is answered.
//!
//! Byte for byte as nats-server writes it: clients of long ago compare text.

use bytes::Bytes;
use serde::Serialize;

use super::error::ApiError;

#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a ApiError,
    stream: &'a str,
    seq: u64,
}

/// It is stored.
pub(crate) fn acknowledgement(stream: &str, seq: u64) -> Bytes {
    format!("{{\"stream\":{},\"seq\":{seq}}}", quoted(stream)).into()
}

/// It was stored before.
pub(crate) fn duplicate(stream: &str, seq: u64) -> Bytes {
    format!("{{\"stream\":{},\"seq\":{seq},\"duplicate\": true}}", quoted(stream)).into()
}

/// It is not stored.
pub(crate) fn refusal(stream: &str, error: &ApiError) -> Bytes {
    let refusal = Refusal { error, stream, seq: 0 };
    serde_json::to_vec(&refusal).expect("strings and numbers are always JSON").into()
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_read_as_nats_server_writes_them() {
        assert_eq!(acknowledgement("S1", 3), r#"{"stream":"S1","seq":3}"#);
        assert_eq!(duplicate("S1", 2), r#"{"stream":"S1","seq":2,"duplicate": true}"#);
        let expected = r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"},"stream":"S1","seq":0}"#;
        assert_eq!(refusal("S1", &ApiError::wrong_last_sequence(3)), expected);
    }
}
