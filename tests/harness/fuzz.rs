//! The promises of every parser that reads input from outside, whatever the bytes.
//!
//! Each function takes any bytes, panics if a promise is broken, and returns how much of the input it
//! understood. The fuzz targets in `tests/fuzz` call them, and on a stable compiler the test `corpus` does.

use std::io::Write as _;

use async_nats::HeaderMap;
use bytes::Bytes;
use shared::config::{Sources, load, print};
use shared::ids::Channel;
use shared::subject::{self, Live};
use shared::wire::{
    Answer, Ask, AuthHeartbeat, Envelope, Heartbeat, HeartbeatAck, LiveMessage, VerifyReply, VerifyRequest,
};

/// A parser's entry point, with the name of its fuzz target, which is also that of its folder in the corpus.
pub type Target = (&'static str, fn(&[u8]) -> usize);

/// All targets.
pub const TARGETS: [Target; 7] = [
    ("bus", bus),
    ("client", client),
    ("config", config),
    ("envelope", envelope),
    ("key", key),
    ("publish", publish),
    ("subject", subject),
];

/// A client of the embedded bus: the NATS protocol, sessions and routing.
pub fn bus(input: &[u8]) -> usize {
    embedded_bus::check_bytes(input)
}

/// A device: WebSocket frames, ops, and the conversation they lead to.
pub fn client(input: &[u8]) -> usize {
    edge::check_bytes(input)
}

/// A publisher: bodies and frames.
pub fn publish(input: &[u8]) -> usize {
    publisher_api::check_bytes(input)
}

/// A publisher's key: the header that carries it, and the file that holds its hash.
pub fn key(input: &[u8]) -> usize {
    publisher_api::check_key_bytes(input)
}

/// A subject on the bus. A subject that parses as a channel is built again from that channel.
///
/// # Panics
/// The rebuilt subject differs.
pub fn subject(input: &[u8]) -> usize {
    let Ok(text) = std::str::from_utf8(input) else { return 0 };
    let mut understood = 0;
    if let Some(Live::Message { channel, .. }) = subject::parse_live(text)
        && let Ok(channel) = Channel::parse(&channel)
    {
        understood += 1;
        let built = subject::live(&channel, 1);
        assert_eq!(
            subject::parse_live(&built),
            Some(Live::Message { partition: 0, channel: channel.as_str().into() })
        );
    }
    if let Ok(channel) = Channel::parse(text) {
        understood += 1;
        let built = subject::live(&channel, 7);
        assert!(!built.contains(['*', '>', ' ']) && built.split('.').count() == 4, "{built}");
        assert_eq!(
            subject::parse_live(&built),
            Some(Live::Message { partition: subject::partition(&channel, 7), channel: text.into() })
        );
    }
    understood
}

/// An envelope on the bus. An envelope that decodes encodes to bytes that decode to the same.
///
/// # Panics
/// The second encoding differs.
pub fn envelope(input: &[u8]) -> usize {
    let payload = Bytes::copy_from_slice(input);
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", "00000000000000000000000000000007");
    let live = LiveMessage::decode(Some(&headers), payload.clone());
    assert_eq!(live.is_ok_and(|live| live.payload == payload), std::str::from_utf8(input).is_ok());
    usize::from(again::<Ask>(input))
        + usize::from(again::<Answer>(input))
        + usize::from(again::<Heartbeat>(input))
        + usize::from(again::<HeartbeatAck>(input))
        + usize::from(again::<VerifyRequest>(input))
        + usize::from(again::<AuthHeartbeat>(input))
        + usize::from(again::<VerifyReply>(input))
}

fn again<E: Envelope>(input: &[u8]) -> bool {
    let Ok(envelope) = E::decode(input) else { return false };
    let written = envelope.encode();
    assert_eq!(E::decode(&written).expect("it reads what it writes").encode(), written);
    true
}

/// A configuration: lines that begin with `MC_` are variables, the rest is the file. Either every error is
/// named, or the printed settings load as the same configuration.
///
/// # Panics
/// An error has no text, or the printed settings load differently.
pub fn config(input: &[u8]) -> usize {
    let text = String::from_utf8_lossy(input);
    let (variables, lines): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with("MC_"));
    let environment =
        variables.iter().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned()));
    match settings(&lines.join("\n"), environment.collect()) {
        Ok(settings) => {
            // Secrets print as `***`, so settings with secrets cannot be compared.
            let printed = print(&settings);
            if !printed.contains("\"***\"") {
                let back = settings_of(&printed).unwrap_or_else(|faults| panic!("{faults}\n{printed}"));
                assert_eq!(print(&back), printed);
            }
            1
        }
        Err(faults) => {
            assert!(faults.trim().len() > 3, "{faults:?}");
            0
        }
    }
}

fn settings_of(file: &str) -> Result<standalone::Settings, String> {
    settings(file, Vec::new())
}

fn settings(file: &str, environment: Vec<(String, String)>) -> Result<standalone::Settings, String> {
    let mut named = tempfile::NamedTempFile::new().expect("there is room for a file");
    named.write_all(file.as_bytes()).expect("there is room for a file");
    let sources = Sources { file: Some(named.path().to_owned()), environment, ..Sources::default() };
    load(&sources).map_err(|problems| problems.to_string())
}
