//! Shared by the cases of streams: a raw client that sends requests to the JetStream API and waits for the
//! answers.
//!
//! Reads find every earlier write, over every kind of server. A replica may be behind, and the replica of a
//! client's own node serves that client, so [`Streams::settle`] waits until that replica has caught up.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::raw::{Message, RawClient};

/// Interval between two looks at a condition.
const POLL: Duration = Duration::from_millis(5);
/// After this time without an answer a question to a cluster is repeated.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// A connection with an inbox of its own, for requests.
pub(crate) struct Streams {
    /// The client, for everything but requests.
    pub(crate) client: RawClient,
    /// The subject of the answers.
    pub(crate) inbox: String,
    replicas: usize,
}

impl Streams {
    /// Connects to the shared server.
    pub(crate) async fn open(fixture: &Fixture) -> anyhow::Result<Self> {
        Self::open_at(fixture, fixture.shared.address()).await
    }

    /// Connects to one node of the shared server.
    pub(crate) async fn open_at(fixture: &Fixture, address: SocketAddr) -> anyhow::Result<Self> {
        let mut client = RawClient::connect(address).await?;
        let inbox = format!("in.{:016x}", fastrand::u64(..));
        client.send(format!("SUB {inbox} 1\r\n")).await?;
        Ok(Self { client, inbox, replicas: fixture.kind().replicas() })
    }

    /// Connects to the node that leads the stream, where its live copies arrive without delay.
    pub(crate) async fn open_at_leader(fixture: &Fixture, stream: &str) -> anyhow::Result<Self> {
        let mut any = Self::open(fixture).await?;
        let node = any.leader(stream).await?;
        Self::open_at(fixture, fixture.shared.addresses()[node]).await
    }

    /// The index of the node that leads the stream; waits until one does.
    pub(crate) async fn leader(&mut self, stream: &str) -> anyhow::Result<usize> {
        if self.replicas == 1 {
            return Ok(0);
        }
        let mut poll = tokio::time::interval(POLL);
        loop {
            poll.tick().await;
            let info = self.api(&format!("STREAM.INFO.{stream}"), "").await?;
            if let Some(leader) = info["cluster"]["leader"].as_str() {
                return leader.trim_start_matches('n').parse().context("the name of the leader");
            }
        }
    }

    /// Publishes with headers and this client's inbox as the reply.
    pub(crate) async fn send(
        &mut self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: impl AsRef<[u8]>,
    ) -> anyhow::Result<()> {
        let (inbox, payload) = (&self.inbox, payload.as_ref());
        let mut bytes = if headers.is_empty() {
            format!("PUB {subject} {inbox} {}\r\n", payload.len()).into_bytes()
        } else {
            let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let block = format!("NATS/1.0\r\n{fields}\r\n");
            let total = block.len() + payload.len();
            format!("HPUB {subject} {inbox} {} {total}\r\n{block}", block.len()).into_bytes()
        };
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(b"\r\n");
        self.client.send(bytes).await
    }

    /// The answer to a request, whatever the answer.
    pub(crate) async fn ask(&mut self, subject: &str, payload: impl AsRef<[u8]>) -> anyhow::Result<Message> {
        self.send(subject, &[], payload).await?;
        self.client.message().await.with_context(|| format!("as an answer to {subject}"))
    }

    /// The JSON answer of `$JS.API.<path>`.
    pub(crate) async fn api(&mut self, path: &str, body: impl ToString) -> anyhow::Result<Value> {
        self.ask(&format!("$JS.API.{path}"), body.to_string()).await?.json()
    }

    /// As [`Self::api`], but the answer must not be an error.
    pub(crate) async fn done(&mut self, path: &str, body: impl ToString) -> anyhow::Result<Value> {
        let answer = self.api(path, body).await?;
        ensure!(answer["error"].is_null(), "{path} is refused: {answer}");
        Ok(answer)
    }

    /// Expects this error from `$JS.API.<path>`, with `words` in its description.
    pub(crate) async fn refused(
        &mut self,
        path: &str,
        body: impl ToString,
        code: (u64, u64),
        words: &str,
    ) -> anyhow::Result<()> {
        let body = body.to_string();
        let answer = self.api(path, &body).await?;
        let shown: String = body.chars().take(300).collect();
        check_error(&answer, code, words).with_context(|| format!("{path} {shown}"))
    }

    /// Creates a stream on `<lower case name>.>` with `settings` over the usual ones; returns the answer.
    pub(crate) async fn create(&mut self, name: &str, settings: Value) -> anyhow::Result<Value> {
        let config = self.config(name, settings);
        let answer = self.done(&format!("STREAM.CREATE.{name}"), &config).await?;
        if self.replicas > 1 {
            self.until_heard(&config).await?;
        }
        Ok(answer)
    }

    /// Waits until this node knows that the stream listens: publishes messages that the stream refuses, and
    /// so never stores.
    async fn until_heard(&mut self, config: &Value) -> anyhow::Result<()> {
        let subject = config["subjects"][0].as_str().context("it has subjects")?.replace(['*', '>'], "heard");
        self.settle_listening(&subject).await
    }

    /// As [`Self::until_heard`], for this subject.
    pub(crate) async fn settle_listening(&mut self, subject: &str) -> anyhow::Result<()> {
        let mut poll = tokio::time::interval(POLL);
        loop {
            poll.tick().await;
            self.send(subject, &[("Nats-Expected-Stream", "?")], "").await?;
            if self.client.message().await?.status_line().is_empty() {
                return Ok(());
            }
        }
    }

    /// Waits until a request about a just deleted stream is answered. In a cluster only the meta leader
    /// answers, and only once it knows that the stream's own leader no longer does.
    pub(crate) async fn settle_deleted(&mut self, name: &str) -> anyhow::Result<()> {
        loop {
            self.send(&format!("$JS.API.STREAM.INFO.{name}"), &[], "").await?;
            if let Ok(answer) = tokio::time::timeout(ASK_AGAIN, self.client.message()).await {
                return answer.map(drop);
            }
        }
    }

    /// The configuration that [`Self::create`] sends.
    pub(crate) fn config(&self, name: &str, settings: Value) -> Value {
        let mut config = json!({
            "name": name,
            "subjects": [format!("{}.>", name.to_lowercase())],
            "storage": "memory",
            "allow_direct": true,
            "num_replicas": self.replicas,
        });
        for (key, value) in settings.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        config
    }

    /// Publishes; returns the acknowledgement.
    pub(crate) async fn publish(
        &mut self,
        subject: &str,
        payload: impl AsRef<[u8]>,
    ) -> anyhow::Result<Value> {
        self.publish_with(subject, &[], payload).await
    }

    /// As [`Self::publish`], with headers.
    pub(crate) async fn publish_with(
        &mut self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: impl AsRef<[u8]>,
    ) -> anyhow::Result<Value> {
        self.send(subject, headers, payload).await?;
        self.client.message().await.with_context(|| format!("as an answer to {subject}"))?.json()
    }

    /// Publishes to each of these subjects once, and checks that the messages get the sequences after
    /// `after`. The payload is `<subject> <sequence>`. Waits until the replica that serves this client has
    /// the messages.
    pub(crate) async fn fill(&mut self, stream: &str, after: u64, subjects: &[&str]) -> anyhow::Result<()> {
        for (seq, subject) in (after + 1..).zip(subjects) {
            let ack = self.publish(subject, format!("{subject} {seq}")).await?;
            ensure!(ack == json!({"stream": stream, "seq": seq}), "{subject} is acknowledged with {ack}");
        }
        self.settle(stream, after + subjects.len() as u64).await
    }

    /// Waits until the replica that serves this client has the message with this sequence; the stream must
    /// allow direct gets.
    pub(crate) async fn settle(&mut self, stream: &str, seq: u64) -> anyhow::Result<()> {
        let mut poll = tokio::time::interval(POLL);
        loop {
            poll.tick().await;
            let [answer] = &self.direct(stream, json!({"seq": seq})).await?[..] else {
                anyhow::bail!("more than one answer to a direct get of one message")
            };
            if answer.status_line().is_empty() {
                return Ok(());
            }
            ensure!(self.replicas > 1, "sequence {seq} of {stream} is not there: {answer:?}");
        }
    }

    /// The whole answer to a direct get: one message, or, for many, all messages up to the one with a status.
    pub(crate) async fn direct(&mut self, stream: &str, request: Value) -> anyhow::Result<Vec<Message>> {
        let many =
            request["batch"].as_i64().is_some_and(|batch| batch != 0) || request.get("multi_last").is_some();
        self.send(&format!("$JS.API.DIRECT.GET.{stream}"), &[], request.to_string()).await?;
        let mut answers = Vec::new();
        loop {
            let answer = self.client.message().await.with_context(|| format!("as an answer to {request}"))?;
            let last = !many || !answer.status_line().is_empty();
            answers.push(answer);
            if last {
                return Ok(answers);
            }
        }
    }

    /// Expects a direct get to answer only this status line.
    pub(crate) async fn direct_status(
        &mut self,
        stream: &str,
        request: Value,
        status: &str,
    ) -> anyhow::Result<()> {
        let answers = self.direct(stream, request.clone()).await?;
        ensure!(
            answers.len() == 1 && answers[0].status_line() == status && answers[0].payload.is_empty(),
            "{status} was due for {request}, {answers:?} came"
        );
        Ok(())
    }

    /// The state in the answer of STREAM.INFO.
    pub(crate) async fn state(&mut self, stream: &str) -> anyhow::Result<Value> {
        Ok(self.done(&format!("STREAM.INFO.{stream}"), "").await?["state"].clone())
    }

    /// Expects these `messages`, `first_seq` and `last_seq` in the state.
    pub(crate) async fn expect_state(&mut self, stream: &str, due: [u64; 3]) -> anyhow::Result<Value> {
        let state = self.state(stream).await?;
        ensure!(
            numbers(&state) == due.map(Some),
            "{due:?} were due as messages, first and last sequence of {stream}, it says {state}"
        );
        Ok(state)
    }

    /// Waits until the state has these `messages`, `first_seq` and `last_seq`; bounded by the deadline of the
    /// case.
    pub(crate) async fn until_state(&mut self, stream: &str, due: [u64; 3]) -> anyhow::Result<()> {
        let mut poll = tokio::time::interval(POLL);
        while numbers(&self.state(stream).await?) != due.map(Some) {
            poll.tick().await;
        }
        Ok(())
    }
}

fn numbers(state: &Value) -> [Option<u64>; 3] {
    ["messages", "first_seq", "last_seq"].map(|key| state[key].as_u64())
}

/// Expects this error in `answer`: HTTP-like code and error code, with `words` in the description.
pub(crate) fn check_error(answer: &Value, code: (u64, u64), words: &str) -> anyhow::Result<()> {
    let error = &answer["error"];
    ensure!(
        error["code"] == code.0
            && error["err_code"] == code.1
            && error["description"].as_str().is_some_and(|text| text.contains(words)),
        "error {code:?} with \"{words}\" was due, {answer} came"
    );
    Ok(())
}

/// The subject and sequence of each message.
pub(crate) fn subjects_and_sequences(messages: &[Message]) -> anyhow::Result<Vec<(String, u64)>> {
    messages
        .iter()
        .map(|message| Ok((message.field("Nats-Subject"), message.number("Nats-Sequence")?)))
        .collect()
}

/// Whether the server has streams: asks about the account.
pub(crate) async fn are_there(fixture: &Fixture) -> anyhow::Result<bool> {
    let mut streams = Streams::open(fixture).await?;
    Ok(streams.ask("$JS.API.INFO", "").await?.status_line().is_empty())
}
