//! A device that recovers: subscribes from a position on, and receives messages with ids.
//!
//! Every message must have exactly the shape that the protocol promises; a panic shows any other frame.

use serde_json::{Value, json};

use crate::device::{Device, Received};

/// The reply to a recovering subscribe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The position in the reply.
    pub id: String,
    /// Whether every message after the named id follows.
    pub recovered: bool,
}

/// A message with its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The id to name in order to continue after this message.
    pub id: String,
    /// The text; for a binary message, its base64.
    pub text: String,
}

impl Device {
    /// Logs in and subscribes to `@user` from this id on; the caller checks [`Recovery::recovered`].
    pub async fn back(edge: std::net::SocketAddr, token: &str, after: &str) -> (Self, Recovery) {
        let mut device = Self::login(edge, token).await;
        let recovery = device.subscribe_after("@user", after).await;
        (device, recovery)
    }

    /// Logs in and subscribes to `@user` from this id on, and expects all later messages to follow.
    ///
    /// # Panics
    /// The history is not whole.
    pub async fn recovered(edge: std::net::SocketAddr, token: &str, after: &str) -> Self {
        let (device, recovery) = Self::back(edge, token, after).await;
        assert!(recovery.recovered, "not recovered after {after:?}: {recovery:?}");
        device
    }

    /// Subscribes from an id on; `""` means from now on.
    ///
    /// # Panics
    /// The edge refuses.
    pub async fn subscribe_after(&mut self, channel: &str, after: &str) -> Recovery {
        self.send(&json!({ "op": "subscribe", "channel": channel, "after": after }).to_string()).await;
        let answer = self.next_json().await;
        let (id, recovered) = (answer["id"].as_str().unwrap_or_default(), answer["recovered"].as_bool());
        let recovered = recovered.unwrap_or_else(|| panic!("expected an answer with ids: {answer}"));
        assert_eq!(answer, json!({ "result": true, "id": id, "recovered": recovered }));
        assert!(!id.is_empty(), "{answer}");
        Recovery { id: id.to_owned(), recovered }
    }

    /// The next message of a channel.
    ///
    /// # Panics
    /// Something else comes, or nothing.
    pub async fn next_message(&mut self, channel: &str) -> Message {
        let frame = self.next_json().await;
        message(channel, &frame).unwrap_or_else(|| panic!("expected a message of {channel}: {frame}"))
    }

    /// The next message of `@user`, however long it takes; skips other frames. `None`: the connection has
    /// ended.
    pub async fn next_quietly(&mut self) -> Option<Message> {
        loop {
            match self.next_whenever().await {
                Received::Text(text) => {
                    let frame = serde_json::from_str(&text).unwrap_or_default();
                    if let Some(message) = message("@user", &frame) {
                        return Some(message);
                    }
                }
                Received::Binary(_) => {}
                Received::Close(..) | Received::Gone => return None,
            }
        }
    }

    /// Expects this text with an id, in `@user`; returns the id.
    ///
    /// # Panics
    /// Something else comes, or nothing.
    pub async fn expect_message(&mut self, text: &str) -> String {
        let message = self.next_message("@user").await;
        assert_eq!(message.text, text);
        message.id
    }

    /// Expects these texts in this order in `@user`; returns the last id.
    ///
    /// # Panics
    /// Something else comes, or nothing.
    pub async fn expect_messages<T: ToString>(&mut self, texts: impl IntoIterator<Item = T>) -> String {
        let mut last = String::new();
        for text in texts {
            last = self.expect_message(&text.to_string()).await;
        }
        last
    }

    /// Expects an event of message center itself about `@user`; returns its id.
    ///
    /// # Panics
    /// Something else comes, or nothing.
    pub async fn expect_event(&mut self, event: &str) -> String {
        let frame = self.next_json().await;
        assert_eq!((&frame["event"], &frame["channel"]), (&json!(event), &json!("@user")), "{frame}");
        frame["id"].as_str().unwrap_or_else(|| panic!("no id in {frame}")).to_owned()
    }

    /// Takes messages, with or without ids, up to this text; returns the texts before it.
    ///
    /// # Panics
    /// The text does not come.
    pub async fn take_until(&mut self, text: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            let received = self.next().await;
            let Received::Text(frame) = received else { panic!("expected {text:?}, received {received:?}") };
            let inner = serde_json::from_str::<Value>(&frame)
                .ok()
                .and_then(|frame| frame["d"].as_str().map(str::to_owned))
                .unwrap_or(frame);
            if inner == text {
                return before;
            }
            before.push(inner);
        }
    }
}

/// The message in a frame, if the frame has the shape of a message of this channel.
pub fn message(channel: &str, frame: &Value) -> Option<Message> {
    let id = frame["id"].as_str()?;
    let kind = if frame.get("b").is_some() { "b" } else { "d" };
    let text = frame[kind].as_str()?;
    let whole = json!({ "id": id, "channel": channel, kind: text });
    (*frame == whole).then(|| Message { id: id.to_owned(), text: text.to_owned() })
}
