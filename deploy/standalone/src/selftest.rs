//! `message-center selftest`: publishes over REST and receives on a WebSocket, with recovery, as a user
//! would.
//!
//! Each step is printed when it is done. Exit codes: 0 if every step succeeded; 1 if a step failed, with the
//! reason on standard error. The test needs a channel with history: by default a rule must map
//! `@selftest/{id}`, without login, to `selftest:{id}`; with a token the test uses `@user`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use futures_util::future::BoxFuture;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::plain_http;

/// The message center to test.
#[derive(Debug, Args)]
pub struct SelfTest {
    /// Where devices connect, e.g. ws://127.0.0.1:6790/message-center
    #[arg(long, value_name = "URL")]
    edge: String,
    /// Where back ends publish, e.g. http://127.0.0.1:6789
    #[arg(long, value_name = "URL")]
    publisher: String,
    /// Publishing key; other users of the machine can see it, so prefer --key-file
    #[arg(long, conflicts_with = "key_file")]
    key: Option<String>,
    /// File that holds the publishing key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Token that your business system accepts, to test a login and @user; needs --user
    #[arg(long, alias = "login-data", value_name = "TOKEN", requires = "user")]
    token: Option<String>,
    /// User to whom --token belongs
    #[arg(long, value_name = "UID", requires = "token")]
    user: Option<String>,
    /// How long each step may take
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    deadline: Duration,
}

/// The names of the channel under test: for a device, and for a back end.
#[derive(Debug)]
struct Names {
    device: String,
    back_end: Value,
}

/// A device that subscribed with recovery.
#[derive(Debug)]
struct Device {
    socket: WebSocketStream<TcpStream>,
}

impl SelfTest {
    /// Runs the self-test.
    pub fn run(self) -> BoxFuture<'static, ExitCode> {
        // Boxed, so that only this crate compiles the code that it starts.
        Box::pin(async move {
            match self.steps().await {
                Ok(()) => {
                    say("the self-test has passed");
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    eprintln!("the self-test has failed: {error:#}");
                    ExitCode::FAILURE
                }
            }
        })
    }

    async fn steps(&self) -> anyhow::Result<()> {
        let key = self.key().context("the publishing key")?;
        let run = format!("{:016x}", rand_word()?);
        let names = match &self.user {
            Some(user) => Names { device: "@user".to_owned(), back_end: json!({ "users": [user] }) },
            None => Names {
                device: format!("@selftest/{run}"),
                back_end: json!({ "channels": [format!("selftest:{run}")] }),
            },
        };
        let (mut device, recovered, id) = self.within("subscribing", self.device(&names, "")).await?;
        ensure!(recovered && !id.is_empty(), "the first subscription has no position");
        say(&format!("subscribed to {}", names.device));
        let first = format!("selftest {run} 1");
        self.within("publishing", self.publish(key.as_deref(), &names, &first)).await?;
        say("published over REST");
        let id = self.within("receiving", device.expect(&first)).await?;
        say("received on the WebSocket");
        // Dropped, not closed, like a device that loses its network.
        drop(device);
        let second = format!("selftest {run} 2");
        self.within("publishing", self.publish(key.as_deref(), &names, &second)).await?;
        say("published while the device was away");
        let (mut device, recovered, _) = self.within("coming back", self.device(&names, &id)).await?;
        ensure!(recovered, "the device came back, but was told that its history is not whole");
        self.within("recovering", device.expect(&second)).await?;
        say("recovered what was missed");
        let _ = device.socket.close(None).await;
        Ok(())
    }

    fn key(&self) -> anyhow::Result<Option<String>> {
        let Some(file) = &self.key_file else { return Ok(self.key.clone()) };
        let key = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        Ok(Some(key.trim().to_owned()))
    }

    async fn within<T>(
        &self,
        what: &str,
        step: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let late = || format!("{what} took longer than {}", humantime::format_duration(self.deadline));
        timeout(self.deadline, step).await.with_context(late)?.context(what.to_owned())
    }

    /// Connects, logs in if there is a token, and subscribes from the id `after` on. Returns the device,
    /// whether every message after the id follows, and the device's position.
    async fn device(&self, names: &Names, after: &str) -> anyhow::Result<(Device, bool, String)> {
        let (host, port, _) = plain_http::target(&self.edge, "ws")?;
        let stream = plain_http::connect(&host, port).await?;
        let (socket, _) = tokio_tungstenite::client_async(self.edge.as_str(), stream).await?;
        let mut device = Device { socket };
        if let Some(token) = &self.token {
            let answer = device.ask(&json!({ "op": "auth", "token": token })).await?;
            ensure!(answer["result"] == true, "the login was answered with {answer}");
        }
        let subscribe = json!({ "op": "subscribe", "channel": names.device, "after": after });
        let answer = device.ask(&subscribe).await?;
        let (Some(id), Some(recovered)) = (answer["id"].as_str(), answer["recovered"].as_bool()) else {
            bail!("subscribe to {} was answered with {answer}{}", names.device, advice(&answer));
        };
        Ok((device, recovered, id.to_owned()))
    }

    async fn publish(&self, key: Option<&str>, names: &Names, text: &str) -> anyhow::Result<()> {
        let url = format!("{}/v1/publish", self.publisher.trim_end_matches('/'));
        let body = json!({ "to": names.back_end, "raw": text }).to_string();
        let answer = plain_http::post(&url, key, &body).await?;
        ensure!(answer.status == 200, "status {}: {}", answer.status, answer.body);
        Ok(())
    }
}

impl Device {
    async fn ask(&mut self, op: &Value) -> anyhow::Result<Value> {
        self.socket.send(Message::text(op.to_string())).await?;
        self.next().await
    }

    /// Returns the next JSON frame.
    async fn next(&mut self) -> anyhow::Result<Value> {
        while let Some(frame) = self.socket.next().await {
            match frame? {
                Message::Text(text) => {
                    return serde_json::from_str(&text).with_context(|| format!("received {text}"));
                }
                Message::Close(why) => bail!("the edge closed: {why:?}"),
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        bail!("the connection ended")
    }

    /// Receives until this text comes, and returns its id. Other messages may come between: with a token,
    /// other back ends may publish to the user.
    async fn expect(&mut self, text: &str) -> anyhow::Result<String> {
        loop {
            let frame = self.next().await?;
            if frame["d"] == text {
                return Ok(frame["id"].as_str().context("the message has no id")?.to_owned());
            }
            ensure!(frame.get("code").is_none(), "received {frame}");
        }
    }
}

/// Says what to do about an answer without a position.
fn advice(answer: &Value) -> &'static str {
    match answer["code"].as_u64() {
        Some(1) => "; the rule needs a login: give --token and --user",
        Some(6) => {
            "; no rule of [[channels]] takes this name: add { name = \"@user\", channel = \"user:{uid}\" } to test with \
             --token, or { name = \"@selftest/{id}\", channel = \"selftest:{id}\", login = false } to test without"
        }
        Some(_) | None => "",
    }
}

/// Returns a random number that tells this run from others.
fn rand_word() -> anyhow::Result<u64> {
    getrandom::u64().context("the system has no random numbers")
}

fn say(step: &str) {
    // A closed standard output must not change the exit code.
    let _ = writeln!(std::io::stdout(), "{step}");
}
