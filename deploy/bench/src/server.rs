//! The server that `--spawn` starts: the parts of this program on free ports, with raised limits, and a
//! business system that accepts the tokens of the run.
//!
//! The business system runs in the tool's process, so that only message center is measured. Business system
//! and parts end with the tool.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use axum::Json;
use axum::http::StatusCode;
use axum::routing::post;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use shared::drain::Drain;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::args::{Args, Spawn, Store};
use crate::http::{self, Head};
use crate::socket;
use crate::target::Target;
use crate::usage::NamedProcess;

/// How long a part may take to listen, and again to be ready.
const START: Duration = Duration::from_secs(30);
/// How long the parts may take to leave.
const LEAVE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);
/// The number of log lines to show of a part that does not start.
const SHOWN: usize = 10;
const FREE: &str = "127.0.0.1:0";

/// The parts, running and ready.
pub(crate) struct Server {
    parts: Vec<Part>,
    drain: Drain,
    pub(crate) devices: Target,
    pub(crate) publisher: Target,
    /// The folder of the history; removed at the end.
    folder: Option<TempDir>,
}

struct Part {
    name: &'static str,
    child: Child,
    pid: u32,
    /// The rest of the log.
    log: Option<Lines<BufReader<ChildStderr>>>,
    /// The log lines that were read so far.
    read: VecDeque<Value>,
}

/// Where the parts listen.
struct Addresses {
    devices: SocketAddr,
    publisher: SocketAddr,
}

impl Server {
    /// Starts the parts, and waits until all are ready.
    ///
    /// # Errors
    /// Fails if a part does not start, with the last lines of its log.
    pub(crate) async fn start(how: Spawn, args: &Args) -> anyhow::Result<Self> {
        let drain = Drain::new();
        let folder = match args.store {
            Store::Strict | Store::Relaxed => Some(TempDir::new().context("a folder for the history")?),
            Store::None | Store::Memory | Store::Nats => None,
        };
        let keys = store_keys(args.store, folder.as_ref().map(TempDir::path));
        let login = format!("http://{}/", business(&args.token_template, &drain).await?);
        let mut parts = Vec::new();
        let Addresses { devices, publisher } = match how {
            Spawn::Standalone => {
                let mut all = Part::start("run", args, &own(&keys, &[("auth_adapter.url", &login)]))?;
                let devices = all.address("edge listens").await?;
                let publisher = all.address("publisher-api listens").await?;
                parts.push(all);
                Addresses { devices, publisher }
            }
            Spawn::Apart => apart(args, &login, &keys, &mut parts).await?,
        };
        for part in &mut parts {
            let admin = part.address("admin port listens").await?;
            ready(admin).await.with_context(|| format!("{} does not get ready", part.name))?;
        }
        for part in &mut parts {
            part.read_on(&drain);
        }
        let url = |scheme: &str, address, path: &str| format!("{scheme}://{address}{path}").parse::<Target>();
        Ok(Self {
            parts,
            drain,
            folder,
            devices: url("ws", devices, "/message-center").map_err(anyhow::Error::msg)?,
            publisher: url("http", publisher, "").map_err(anyhow::Error::msg)?,
        })
    }

    /// Returns the processes of the parts.
    pub(crate) fn processes(&self) -> Vec<NamedProcess> {
        self.parts.iter().map(|part| NamedProcess { name: part.name.to_owned(), pid: part.pid }).collect()
    }

    /// Lets the parts leave, each before the parts that it uses.
    pub(crate) async fn end(mut self) {
        while let Some(mut part) = self.parts.pop() {
            if part.child.try_wait().is_ok_and(|ended| ended.is_none())
                && let Some(pid) = i32::try_from(part.pid).ok().and_then(Pid::from_raw)
                && let Err(error) = kill_process(pid, Signal::TERM)
            {
                eprintln!("{} can't be told to leave: {error}", part.name);
            }
            if timeout(LEAVE, part.child.wait()).await.is_err() {
                // Dropping the child kills it.
                eprintln!("{} did not leave within {LEAVE:?}", part.name);
            }
        }
        self.drain.finish(LEAVE).await;
        if let Some(folder) = self.folder.take()
            && let Err(error) = folder.close()
        {
            eprintln!("the history can't be removed: {error}");
        }
    }
}

/// Returns the keys that say where the embedded bus stores history.
fn store_keys(store: Store, folder: Option<&Path>) -> Vec<(&'static str, String)> {
    let folder = || folder.map(|folder| folder.join("data").display().to_string()).unwrap_or_default();
    match store {
        Store::None | Store::Nats | Store::Memory => vec![("bus.store.sync", "memory".into())],
        Store::Strict => vec![("bus.store.path", folder()), ("bus.store.sync", "strict".into())],
        Store::Relaxed => vec![("bus.store.path", folder()), ("bus.store.sync", "relaxed".into())],
    }
}

/// Returns the keys of the store, followed by the other keys of a part.
fn own<'a>(store: &'a [(&'static str, String)], keys: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    store.iter().map(|(key, value)| (*key, value.as_str())).chain(keys.iter().copied()).collect()
}

/// Starts bus, auth-adapter, publisher-api and edge. The part that starts last leaves first.
async fn apart(
    args: &Args,
    login: &str,
    store: &[(&'static str, String)],
    parts: &mut Vec<Part>,
) -> anyhow::Result<Addresses> {
    let mut bus = Part::start("bus", args, &own(store, &[("bus.listen", FREE)]))?;
    let bus_url = format!("nats://{}", bus.address("the embedded bus listens").await?);
    parts.push(bus);
    let over = ("bus.url", bus_url.as_str());
    parts.push(Part::start("auth-adapter", args, &[over, ("auth_adapter.url", login)])?);
    let mut publisher_api = Part::start("publisher-api", args, &[over])?;
    let publisher = publisher_api.address("publisher-api listens").await?;
    parts.push(publisher_api);
    let mut edge = Part::start("edge", args, &[over])?;
    let devices = edge.address("edge listens").await?;
    parts.push(edge);
    Ok(Addresses { devices, publisher })
}

/// Returns the keys for all parts: free ports, channels, and raised limits that a load test would otherwise
/// run into.
fn settings(args: &Args) -> Vec<(&'static str, String)> {
    let (name, channel) = (json!(args.channel.0), json!(args.channel.1));
    let history = args.store != Store::None;
    let channels = format!(
        "[{{ name = \"@user\", channel = \"user:{{uid}}\", login = true, history = {history} }}, \
         {{ name = {name}, channel = {channel}, login = false, history = {history} }}]"
    );
    let free = || FREE.to_owned();
    vec![
        ("edge.listen", free()),
        ("edge.admin", free()),
        ("publisher_api.listen", free()),
        ("publisher_api.admin", free()),
        ("auth_adapter.admin", free()),
        ("bus.admin", free()),
        ("channels", channels),
        ("edge.sessions_per_user", args.sessions.div_ceil(args.users()).max(32).to_string()),
        ("edge.max_handshakes", "65536".into()),
        ("edge.connections_per_second", "0".into()),
        ("edge.drain_window", "1s".into()),
        ("publisher_api.max_in_flight", "65536".into()),
        ("publisher_api.max_connections", "65536".into()),
        ("publisher_api.max_connections_per_address", "0".into()),
        ("publisher_api.max_sockets", "65536".into()),
        ("publisher_api.max_in_flight_per_socket", "4096".into()),
        ("publisher_api.max_message", "2MiB".into()),
        ("bus.max_payload", "4MiB".into()),
        ("auth_adapter.max_waiting", "65536".into()),
    ]
}

impl Part {
    /// Starts a part. The part's own keys override those of the tool, and the keys of `--set` override both.
    fn start(name: &'static str, args: &Args, own: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("the path of this program")?);
        command.arg(name).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let usual = settings(args);
        let keys = usual.iter().map(|(key, value)| format!("{key}={value}"));
        let own = own.iter().map(|(key, value)| format!("{key}={value}"));
        let log = ["log.format=json".to_owned()].into_iter();
        for pair in keys.chain(own).chain(args.set.iter().cloned()).chain(log) {
            command.args(["--set", &pair]);
        }
        let mut child =
            command.process_group(0).kill_on_drop(true).spawn().with_context(|| name.to_owned())?;
        let pid = child.id().with_context(|| format!("{name} ended at once"))?;
        let log = BufReader::new(child.stderr.take().context("the log of a part")?).lines();
        Ok(Self { name, child, pid, log: Some(log), read: VecDeque::new() })
    }

    /// Waits for the log line that contains `message`, and returns the address in that line.
    async fn address(&mut self, message: &str) -> anyhow::Result<SocketAddr> {
        let of = |line: &Value| {
            let found = line["message"].as_str().is_some_and(|text| text.contains(message));
            if found { line["address"].as_str()?.parse().ok() } else { None }
        };
        if let Some(address) = self.read.iter().find_map(of) {
            return Ok(address);
        }
        let log = self.log.as_mut().context("the log is read elsewhere")?;
        let found = timeout(START, async {
            while let Some(line) = log.next_line().await? {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                let found = of(&line);
                self.read.push_back(line);
                if found.is_some() {
                    return Ok::<_, std::io::Error>(found);
                }
            }
            Ok(None)
        });
        match found.await {
            Ok(Ok(Some(address))) => Ok(address),
            Ok(Ok(None)) => {
                let last: Vec<_> = self.read.iter().rev().take(SHOWN).rev().map(Value::to_string).collect();
                bail!("{} ended before it listened. It said:\n{}", self.name, last.join("\n"))
            }
            Ok(Err(error)) => Err(error).context("the log of a part"),
            Err(_) => bail!("{} does not say \"{message}\" within {START:?}", self.name),
        }
    }

    /// Reads the rest of the log in a task, so that the part never waits for a reader, and shows the errors
    /// in it.
    fn read_on(&mut self, drain: &Drain) {
        if let Some(log) = self.log.take() {
            drain.spawn("log", show_errors(self.name, log));
        }
    }
}

async fn show_errors(name: &'static str, mut log: Lines<BufReader<ChildStderr>>) {
    while let Ok(Some(line)) = log.next_line().await {
        if line.contains("\"level\":\"ERROR\"") || !line.starts_with('{') {
            eprintln!("{name}: {line}");
        }
    }
}

/// Waits until the admin port reports that a part is ready.
async fn ready(admin: SocketAddr) -> anyhow::Result<()> {
    let target: Target = format!("http://{admin}/readyz").parse().map_err(anyhow::Error::msg)?;
    let request = http::get(&target);
    let asked = async {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let mut stream = socket::tcp(admin, None).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            while Head::read(&answer).map_err(anyhow::Error::msg)?.is_none() {
                if stream.read_buf(&mut answer).await? == 0 {
                    bail!("the admin port closes");
                }
            }
            if Head::read(&answer).map_err(anyhow::Error::msg)?.is_some_and(|head| head.status == 200) {
                return Ok(());
            }
        }
    };
    timeout(START, asked).await.map_err(|_| anyhow!("not ready within {START:?}"))?
}

/// Starts a business system that accepts every token that follows the template. Returns its address.
async fn business(template: &str, drain: &Drain) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(FREE).await.context("the business system of the tool")?;
    let address = listener.local_addr().context("the business system of the tool")?;
    let (before, after) = template.split_once("{uid}").map_or((template, None), |(b, a)| (b, Some(a)));
    let (before, after) = (before.to_owned(), after.map(str::to_owned));
    let whose = async move |Json(question): Json<Value>| {
        let token = question["token"].as_str().unwrap_or_default();
        match uid(token, &before, after.as_deref()) {
            Some(uid) => (StatusCode::OK, Json(json!({ "uid": uid }))),
            None => (StatusCode::UNAUTHORIZED, Json(json!({}))),
        }
    };
    let router = axum::Router::new().route("/", post(whose));
    let leaving = drain.token();
    drain.spawn("business-system", async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(leaving.cancelled_owned());
        if let Err(error) = served.await {
            eprintln!("the business system of the tool stopped: {error}");
        }
    });
    Ok(address)
}

/// Returns the user of a token. If the template has no `{uid}`, every session belongs to user 1.
fn uid(token: &str, before: &str, after: Option<&str>) -> Option<u64> {
    match after {
        Some(after) => token.strip_prefix(before)?.strip_suffix(after)?.parse().ok().filter(|uid| *uid > 0),
        None => (token == before).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_whose_it_is() {
        assert_eq!(uid("user-7", "user-", Some("")), Some(7));
        assert_eq!(uid("a7b", "a", Some("b")), Some(7));
        assert_eq!(uid("same", "same", None), Some(1));
        for (token, after) in [("user-", Some("")), ("user-0", Some("")), ("x-7", Some("")), ("user-7", None)]
        {
            assert_eq!(uid(token, "user-", after), None, "{token}");
        }
    }
}
