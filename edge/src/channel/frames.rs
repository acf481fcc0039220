//! Frames for recovering subscribers: messages with their ids, and events about the history. They are written
//! here only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use shared::history::Position;
use shared::wire::Kind;

use super::recoverable::NotWhole;
use crate::frame::Frame;

/// Encodes a message: `d` is its text as a JSON string, `b` its bytes in base64.
pub(crate) fn message(position: Position, name: &str, kind: Kind, payload: &[u8]) -> Frame {
    let name = json(name);
    // The text was checked when the message came from the bus, so nothing is replaced here.
    let text = match kind {
        Kind::Text => {
            let text = json(&String::from_utf8_lossy(payload));
            format!(r#"{{"id":"{position}","channel":{name},"d":{text}}}"#)
        }
        Kind::Binary => {
            let bytes = STANDARD.encode(payload);
            format!(r#"{{"id":"{position}","channel":{name},"b":"{bytes}"}}"#)
        }
    };
    Frame::text(&text)
}

/// Encodes a position: nothing else came up to here.
pub(crate) fn position(position: Position, name: &str) -> Frame {
    Frame::text(&format!(r#"{{"event":"@position","channel":{},"id":"{position}"}}"#, json(name)))
}

/// Encodes a reload: something is missing before this position, and can't be had any more.
pub(crate) fn reload(position: Position, name: &str, why: NotWhole) -> Frame {
    let (name, why) = (json(name), why.text());
    Frame::text(&format!(r#"{{"event":"@reload","channel":{name},"id":"{position}","reason":"{why}"}}"#))
}

/// Encodes the request to open another connection within this time, before this connection is closed.
pub(crate) fn reconnect(within_ms: u64, position: Position, name: &str) -> Frame {
    let name = json(name);
    Frame::text(&format!(r#"{{"event":"@reconnect","within_ms":{within_ms},"ids":{{{name}:"{position}"}}}}"#))
}

fn json(text: &str) -> String {
    serde_json::to_string(text).expect("text is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::history::Epoch;

    const HERE: Position = Position { epoch: Epoch(0xab), seq: 42 };

    fn text(frame: &Frame) -> String {
        let bytes = frame.bytes();
        let header = if bytes[1] < 126 { 2 } else { 4 };
        String::from_utf8(bytes[header..].to_vec()).unwrap()
    }

    #[test]
    fn what_recovering_subscribers_are_sent_looks_so() {
        let payload = br#"{"event":"@user","data":{"n":1}}"#;
        insta::assert_snapshot!(
            [
                text(&message(HERE, "@user", Kind::Text, payload)),
                text(&message(HERE, "\"x\"@video", Kind::Text, "ü\u{0}\n".as_bytes())),
                text(&message(HERE, "@user", Kind::Binary, &[0xff, 0])),
                text(&position(HERE, "@user")),
                text(&reload(HERE, "@user", NotWhole::Expired)),
                text(&reconnect(1_500, HERE, "@user")),
            ]
            .join("\n")
        );
    }
}
