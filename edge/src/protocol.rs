//! The JSON that a client speaks: reads frames, and builds replies. No state, no sockets.
//!
//! Nothing that a client sends makes this module panic or allocate more than a small multiple of the frame.
//! The `i` of a client comes back byte for byte.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use shared::config::Secret;
use shared::history::Position;

use crate::code::{CloseCode, ErrorCode};
use crate::frame::block;

/// The depth to which JSON may be nested; an op is flat.
const MAX_DEPTH: usize = 64;

/// One frame from the client, as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// The text `ping`.
    Ping,
    /// A well-formed op, which may still be refused.
    Op(Request),
    /// A frame after which the connection can't go on.
    Fatal(Fatal),
}

/// Why a connection ends after a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fatal {
    /// The text of an error frame that goes first, if the connection is still fit for one.
    pub(crate) error_text: Option<&'static str>,
    /// The code with which the connection is closed.
    pub(crate) close: CloseCode,
}

/// An op, and the `i` that its answer must carry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) op: ClientOp,
    pub(crate) echo: Echo,
}

/// The op that a client sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClientOp {
    /// "I am the one with this token."
    Auth { token: Secret },
    /// "Send me this channel", and how.
    Subscribe { name: Box<str>, after: After },
    /// "Not any more."
    Unsubscribe { name: Box<str> },
    /// An op of another name.
    Unknown,
    /// A known op with a malformed field.
    Malformed(&'static str),
}

/// The wish of a subscribing client besides new messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Nothing: messages as they were published.
    Plain,
    /// Ids of messages, from now on.
    Now,
    /// Ids of messages, and first everything after this position.
    Position(Position),
}

/// The client's `i`: a JSON scalar, as written. The answer carries it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Echo(Option<Box<str>>);

/// The fields that any op has; their values are looked at only once the op is known.
#[derive(Deserialize)]
struct Fields<'f> {
    #[serde(borrow, default, deserialize_with = "present")]
    op: Option<&'f RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    i: Option<&'f RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    token: Option<&'f RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    channel: Option<&'f RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    after: Option<&'f RawValue>,
}

/// Tells `null` apart from an absent field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Incoming {
    /// Reads a text frame.
    pub(crate) fn text(text: &str) -> Self {
        if text == "ping" {
            return Self::Ping;
        }
        match read(text) {
            Ok(request) => Self::Op(request),
            Err(text) => Self::bad(text),
        }
    }

    /// Refuses a binary frame.
    pub(crate) const fn binary() -> Self {
        Self::bad("binary frames are not taken: send JSON in text frames")
    }

    /// Refuses a frame above the limit.
    pub(crate) const fn too_big() -> Self {
        Self::Fatal(Fatal {
            error_text: Some("the frame is too big: send smaller ones"),
            close: CloseCode::TooBig,
        })
    }

    /// Refuses bytes that break the WebSocket protocol.
    pub(crate) const fn violation(close: CloseCode) -> Self {
        Self::Fatal(Fatal { error_text: None, close })
    }

    /// Refuses a frame whose bytes besides the token of a login are more than `most`.
    pub(crate) fn bounded(self, bytes: usize, most: usize) -> Self {
        let token = if let Self::Op(Request { op: ClientOp::Auth { token }, .. }) = &self {
            token.expose().len()
        } else {
            0
        };
        if bytes.saturating_sub(token) <= most { self } else { Self::too_big() }
    }

    /// Returns the heap memory of the frame.
    pub(crate) fn heap_bytes(&self) -> usize {
        let Self::Op(Request { op, echo }) = self else { return 0 };
        let text = match op {
            ClientOp::Auth { token } => block(token.expose().len()),
            ClientOp::Subscribe { name, .. } | ClientOp::Unsubscribe { name } => block(name.len()),
            ClientOp::Unknown | ClientOp::Malformed(_) => 0,
        };
        text + echo.0.as_ref().map_or(0, |echo| block(echo.len()))
    }

    const fn bad(text: &'static str) -> Self {
        Self::Fatal(Fatal { error_text: Some(text), close: CloseCode::BadRequest })
    }
}

fn read(text: &str) -> Result<Request, &'static str> {
    if is_deep(text) {
        return Err("the JSON is nested too deep: an op is a flat object");
    }
    if !text.trim_start().starts_with('{') {
        return Err("not a JSON object: send an op such as {\"op\":\"auth\",\"token\":\"…\"}");
    }
    let fields: Fields<'_> = serde_json::from_str(text)
        .map_err(|_| "not valid JSON, or a field stands twice: send one JSON object")?;
    let Some(op) = fields.op else { return Err("the field \"op\" is missing") };
    let Some(op) = string(op) else { return Err("the field \"op\" must be a string") };
    let echo = match fields.i {
        None => Echo::default(),
        Some(i) if is_scalar(i) => Echo(Some(i.get().into())),
        Some(_) => {
            let op = ClientOp::Malformed("\"i\" must be a string, a number, true, false or null");
            return Ok(Request { op, echo: Echo::default() });
        }
    };
    let op = match &*op {
        "auth" => auth(fields.token),
        "subscribe" => match (channel(fields.channel), after(fields.after)) {
            (Ok(name), Ok(after)) => ClientOp::Subscribe { name, after },
            (Err(malformed), _) | (Ok(_), Err(malformed)) => malformed,
        },
        "unsubscribe" => match channel(fields.channel) {
            Ok(name) => ClientOp::Unsubscribe { name },
            Err(malformed) => malformed,
        },
        _ => ClientOp::Unknown,
    };
    Ok(Request { op, echo })
}

fn auth(token: Option<&RawValue>) -> ClientOp {
    match token.and_then(string) {
        Some(token) if !token.is_empty() => ClientOp::Auth { token: Secret::new(token) },
        Some(_) | None => ClientOp::Malformed("\"token\" must be a string that is not empty"),
    }
}

fn channel(channel: Option<&RawValue>) -> Result<Box<str>, ClientOp> {
    let name = channel.and_then(string).ok_or(ClientOp::Malformed("\"channel\" must be a string"))?;
    Ok(name.into())
}

fn after(after: Option<&RawValue>) -> Result<After, ClientOp> {
    let Some(after) = after else { return Ok(After::Plain) };
    match string(after).as_deref() {
        Some("") => Ok(After::Now),
        Some(text) => text.parse().map(After::Position).map_err(|_| {
            ClientOp::Malformed("\"after\" is no id that was given out here: name the last one, or send \"\"")
        }),
        None => Err(ClientOp::Malformed("\"after\" must be a string: the last id, or \"\" for from now on")),
    }
}

fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    /// Borrows the text if it has no escape sequence.
    #[derive(Deserialize)]
    struct Text<'t>(#[serde(borrow)] Cow<'t, str>);
    serde_json::from_str(value.get()).ok().map(|Text(text)| text)
}

fn is_scalar(value: &RawValue) -> bool {
    !value.get().starts_with(['{', '['])
}

/// Returns whether brackets outside of strings are nested deeper than any op needs. serde_json has no limit
/// of its own for values that it passes over.
fn is_deep(text: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The answer to `ping`.
pub(crate) const PONG: &str = "pong";

/// The answer to an op that was carried out.
pub(crate) fn result(echo: &Echo) -> Cow<'static, str> {
    match &echo.0 {
        None => r#"{"result":true}"#.into(),
        Some(i) => format!(r#"{{"result":true,"i":{i}}}"#).into(),
    }
}

/// The answer to a subscription with ids: where it begins, and whether everything after the named position
/// follows.
pub(crate) fn following(position: Position, recovered: bool, echo: &Echo) -> Cow<'static, str> {
    match &echo.0 {
        None => format!(r#"{{"result":true,"id":"{position}","recovered":{recovered}}}"#).into(),
        Some(i) => format!(r#"{{"result":true,"id":"{position}","recovered":{recovered},"i":{i}}}"#).into(),
    }
}

/// The event that a subscription has ended, since the user's new login lacks the group.
pub(crate) fn closed(name: &str) -> String {
    let name = serde_json::to_string(name).expect("text is JSON");
    format!(r#"{{"event":"@closed","channel":{name},"reason":"not_member"}}"#)
}

/// The answer to an op that was refused.
pub(crate) fn error(code: ErrorCode, detail: Option<&str>, echo: &Echo) -> Cow<'static, str> {
    let (number, text) = (code.number(), code.text());
    let message = match detail {
        None => Cow::Borrowed(text),
        Some(detail) => format!("{text}: {detail}").into(),
    };
    let message = serde_json::to_string(&message).expect("text is JSON");
    match &echo.0 {
        None => format!(r#"{{"code":{number},"msg":{message}}}"#).into(),
        Some(i) => format!(r#"{{"code":{number},"msg":{message},"i":{i}}}"#).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(text: &str) -> Request {
        match Incoming::text(text) {
            Incoming::Op(request) => request,
            other @ (Incoming::Ping | Incoming::Fatal(_)) => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn ops_are_read_whatever_else_is_in_them() {
        let token = Secret::new("a\"b");
        assert_eq!(request(r#"{"op":"auth","token":"a\"b"}"#).op, ClientOp::Auth { token });
        let subscribe = |after| ClientOp::Subscribe { name: "@user".into(), after };
        assert_eq!(request(r#" {"x":[{}],"channel":"@user","op":"subscribe"} "#).op, subscribe(After::Plain));
        let position = "00000000000000ab.7".parse().unwrap();
        for (text, after) in [("", After::Now), ("00000000000000ab.7", After::Position(position))] {
            let op = request(&format!(r#"{{"op":"subscribe","channel":"@user","after":"{text}"}}"#)).op;
            assert_eq!(op, subscribe(after));
        }
        let name = "@user".into();
        assert_eq!(request(r#"{"op":"unsubscribe","channel":"@user"}"#).op, ClientOp::Unsubscribe { name });
        assert_eq!(
            request(r#"{"op":"\u0061uth","token":"a"}"#).op,
            ClientOp::Auth { token: Secret::new("a") }
        );
        for unknown in ["", "AUTH", "publish"] {
            assert_eq!(request(&format!(r#"{{"op":"{unknown}"}}"#)).op, ClientOp::Unknown);
        }
    }

    #[test]
    fn only_the_token_of_a_login_makes_a_large_frame() {
        let of = |text: &str| Incoming::text(text).bounded(text.len(), 100);
        let long = "x".repeat(200);
        assert!(matches!(of(&format!(r#"{{"op":"auth","token":"{long}"}}"#)), Incoming::Op(_)));
        for large in [
            format!(r#"{{"op":"auth","token":"{long}","i":"{long}"}}"#),
            format!(r#"{{"op":"auth","token":7,"i":"{long}"}}"#),
            format!(r#"{{"op":"subscribe","channel":"{long}"}}"#),
            format!(r#"{{"op":"x","token":"{long}"}}"#),
            long.clone(),
        ] {
            assert_eq!(of(&large), Incoming::too_big(), "{large}");
        }
        assert_eq!(of("hello"), Incoming::text("hello"), "a small frame is refused for what it is");
    }

    #[test]
    fn a_field_of_the_wrong_kind_is_named() {
        for (text, field) in [
            (r#"{"op":"auth"}"#, "token"),
            (r#"{"op":"auth","token":""}"#, "token"),
            (r#"{"op":"auth","token":7}"#, "token"),
            (r#"{"op":"auth","token":null}"#, "token"),
            (r#"{"op":"subscribe"}"#, "channel"),
            (r#"{"op":"subscribe","channel":["@user"]}"#, "channel"),
            (r#"{"op":"subscribe","channel":"@user","after":null}"#, "after"),
            (r#"{"op":"subscribe","channel":"@user","after":"1-2"}"#, "after"),
            (r#"{"op":"unsubscribe","channel":null}"#, "channel"),
            (r#"{"op":"auth","token":"a","i":[]}"#, "\"i\""),
            (r#"{"op":"nonsense","i":{}}"#, "\"i\""),
        ] {
            let ClientOp::Malformed(detail) = request(text).op else { panic!("{text}") };
            assert!(detail.contains(field), "{text}: {detail}");
        }
    }

    #[test]
    fn what_is_no_op_is_fatal_and_says_why() {
        let deep = |n| format!(r#"{{"op":"auth","token":{}{}}}"#, "[".repeat(n), "]".repeat(n));
        for (text, why) in [
            ("", "not a JSON object"),
            ("PING", "not a JSON object"),
            ("[]", "not a JSON object"),
            ("null", "not a JSON object"),
            ("\u{feff}{}", "not a JSON object"),
            ("{", "not valid JSON"),
            (r#"{"op":"auth"} {"#, "not valid JSON"),
            (r#"{"op":"auth","op":"auth"}"#, "twice"),
            ("{}", "\"op\" is missing"),
            (r#"{"op":null}"#, "\"op\" must be a string"),
            (r#"{"op":5}"#, "\"op\" must be a string"),
            (&deep(100), "too deep"),
            (&"[".repeat(4096), "too deep"),
        ] {
            let Incoming::Fatal(fatal) = Incoming::text(text) else { panic!("{text}") };
            assert_eq!(fatal.close, CloseCode::BadRequest);
            assert!(fatal.error_text.is_some_and(|text| text.contains(why)), "{text}: {fatal:?}");
        }
        assert!(matches!(request(&deep(10)).op, ClientOp::Malformed(_)), "as deep as allowed");
        assert_eq!(
            request(r#"{"op":"x","y":"[[[[[\"[[["}"#).op,
            ClientOp::Unknown,
            "brackets in text don't count"
        );
    }

    #[test]
    fn i_comes_back_as_it_was_written() {
        for i in ["7", "-1.50", "1e400", "123456789012345678901234567890", r#""a \" b""#, "true", "null"] {
            let echo = request(&format!(r#"{{"op":"x","i": {i} }}"#)).echo;
            assert_eq!(result(&echo), format!(r#"{{"result":true,"i":{i}}}"#));
            let answer = error(ErrorCode::UnknownOp, None, &echo);
            assert_eq!(answer, format!(r#"{{"code":5,"msg":"Unknown Op","i":{i}}}"#));
        }
        assert_eq!(result(&Echo::default()), r#"{"result":true}"#);
        let answer = error(ErrorCode::BadRequest, Some("\"i\""), &Echo::default());
        assert_eq!(answer, r#"{"code":4,"msg":"Bad Request: \"i\""}"#);
    }

    #[test]
    fn a_token_is_not_in_debug_output() {
        assert!(
            !format!("{:?}", Incoming::text(r#"{"op":"auth","token":"very-secret"}"#))
                .contains("very-secret")
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_a_panic(text in "\\PC{0,80}") {
            let _ = Incoming::text(&text);
        }

        #[test]
        fn every_answer_is_json(i in prop_oneof!["[0-9]{1,30}", "\"[a-z ]{0,9}\""], detail in "\\PC{0,20}") {
            let echo = match Incoming::text(&format!(r#"{{"op":"x","i":{i}}}"#)) {
                Incoming::Op(request) => request.echo,
                // A number such as 007 is not JSON.
                Incoming::Ping | Incoming::Fatal(_) => return Ok(()),
            };
            for text in [result(&echo), error(ErrorCode::BadRequest, Some(&detail), &echo)] {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
            }
        }
    }
}
