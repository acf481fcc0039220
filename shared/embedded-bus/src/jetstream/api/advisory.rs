//! `$JS.EVENT.ADVISORY.STREAM.>`: advisories that a stream was created, changed or deleted.

use serde::Serialize;

use crate::jetstream::request::{Output, OutputKind};
use crate::jetstream::streams::Streams;
use crate::jetstream::time;

/// An action on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    Create,
    Modify,
    Delete,
}

impl Action {
    /// Returns the token in the subject.
    fn token(self) -> &'static str {
        match self {
            Self::Create => "CREATED",
            Self::Modify => "UPDATED",
            Self::Delete => "DELETED",
        }
    }
}

#[derive(Serialize)]
struct Advisory<'a> {
    r#type: &'static str,
    id: String,
    timestamp: String,
    stream: &'a str,
    action: Action,
}

impl Streams {
    /// Leaves an advisory to be sent behind the answer. The action is durable already, so no later failure of
    /// the stream undoes it.
    pub(super) fn advise(&mut self, name: &str, action: Action, now: u64) {
        let advisory = Advisory {
            r#type: "io.nats.jetstream.advisory.v1.stream_action",
            id: std::iter::repeat_with(fastrand::alphanumeric).take(22).collect(),
            timestamp: time::format(self.offset.wall(now)),
            stream: name,
            action,
        };
        let payload = serde_json::to_vec(&advisory).expect("strings are always JSON").into();
        let subject = format!("$JS.EVENT.ADVISORY.STREAM.{}.{name}", action.token()).into();
        let headers = bytes::Bytes::new();
        self.advisory = Some(Output { stream: None, kind: OutputKind::Copy, subject, headers, payload });
    }
}
