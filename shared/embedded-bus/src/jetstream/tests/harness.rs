//! A bus of streams without a thread, asked and published to directly.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::jetstream::request::{Item, Output, OutputKind, Route};
use crate::jetstream::reserved::Reserved;
use crate::jetstream::streams::{Bounds, Streams};
use crate::jetstream::{api, memory};
use crate::stats::Stats;
use crate::storage::{self, Store};
use crate::wire::Publish;

pub(super) const NOW: u64 = 1_500_000_000_000_000_000;

pub(super) fn bounds() -> Bounds {
    let memory = memory::MemoryBound { max: 1 << 30, holds_messages: false };
    let reserved = Reserved { streams: vec!["BANS".to_owned()], header: "Erased".to_owned() };
    Bounds { max_streams: 3, max_answer: 1 << 20, leader: "L".to_owned(), reserved, memory }
}

pub(super) struct Harness {
    pub(super) streams: Streams,
    pub(super) now: u64,
}

impl Harness {
    pub(super) fn new(store: Box<dyn Store>) -> Self {
        Self::opened_at(store, NOW)
    }

    pub(super) fn opened_at(store: Box<dyn Store>, now: u64) -> Self {
        Self { streams: Streams::open(store, bounds(), Stats::default(), Some(now)).expect("opened"), now }
    }

    /// Makes a stream `S` on `s.>`, with these further settings.
    pub(super) fn with(settings: Value) -> Self {
        let mut harness = Self::new(storage::open(&crate::Storage::Memory).expect("memory"));
        harness.make("S", "s.>", settings);
        harness
    }

    pub(super) fn make(&mut self, name: &str, subject: &str, settings: Value) {
        let mut config = json!({ "name": name, "subjects": [subject] });
        config.as_object_mut().expect("an object").extend(settings.as_object().expect("an object").clone());
        let answer = self.ask(&format!("STREAM.CREATE.{name}"), &config.to_string());
        assert_eq!(answer["did_create"], true, "{answer}");
    }

    pub(super) fn send(&mut self, route: Route<'_>, subject: &str, headers: &str, payload: &str) {
        let publish = Publish {
            subject: subject.as_bytes(),
            reply: Some(b"reply"),
            headers: headers.as_bytes(),
            payload: payload.as_bytes(),
            with_headers: !headers.is_empty(),
        };
        self.streams.handle(&Item::copy(&route.sid(0), &publish), self.now);
    }

    /// Handles one item, and returns the outputs.
    pub(super) fn give(
        &mut self,
        route: Route<'_>,
        subject: &str,
        headers: &str,
        payload: &str,
    ) -> Vec<Output> {
        self.send(route, subject, headers, payload);
        self.streams.settle(self.now)
    }

    pub(super) fn ask(&mut self, call: &str, body: &str) -> Value {
        let subject = format!("$JS.API.{call}");
        let matches = |(pattern, _): &(&str, api::Endpoint)| {
            crate::subject::matches(pattern.as_bytes(), subject.as_bytes())
        };
        let endpoint = api::ENDPOINTS.iter().position(matches).expect("an endpoint");
        let outputs = self.give(Route::Api(endpoint), &subject, "", body);
        serde_json::from_slice(&outputs[0].payload).expect("JSON")
    }

    pub(super) fn publish(&mut self, subject: &str, headers: &[(&str, &str)], payload: &str) -> String {
        let outputs = self.give(Route::Publish("S"), subject, &block(headers), payload);
        let ack =
            outputs.into_iter().find(|output| output.kind == OutputKind::Ack).expect("an acknowledgement");
        String::from_utf8(ack.payload.into()).expect("text")
    }

    /// Reads directly. Returns header blocks and payloads as text, with line ends as `|` and without times.
    pub(super) fn direct(&mut self, rest: &str, body: &str) -> Vec<String> {
        let outputs = self.give(Route::Direct("S"), &format!("$JS.API.DIRECT.GET.S{rest}"), "", body);
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).replace("\r\n", "|");
        let time = "Nats-Time-Stamp: 2017-07-14T02:40:00Z|";
        outputs
            .iter()
            .map(|output| format!("{}{}", text(&output.headers), text(&output.payload)).replace(time, ""))
            .collect()
    }
}

pub(super) fn block(headers: &[(&str, &str)]) -> String {
    if headers.is_empty() {
        return String::new();
    }
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("NATS/1.0\r\n{lines}\r\n")
}

pub(super) fn error(answer: &Value) -> (u64, u64, &str) {
    let error = &answer["error"];
    let number = |field: &str| error[field].as_u64().unwrap_or_else(|| panic!("no {field} in {answer}"));
    (number("code"), number("err_code"), error["description"].as_str().unwrap_or_default())
}
