//! The command line of `message-center bench`, and the values that follow from several flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::stamp;
use crate::target::Target;

/// The default URLs of a server.
const URL: &str = "ws://127.0.0.1:6790/message-center";
const PUBLISH: &str = "http://127.0.0.1:6789";
/// Connections of an open loop over HTTP: the number of publishes without an answer before further ones wait.
const HTTP_CONNECTIONS: u16 = 64;
const WS_CONNECTIONS: u16 = 4;
/// The most messages without an answer on one WebSocket; the default of
/// `publisher_api.max_in_flight_per_socket`.
const WINDOW: usize = 256;

/// When the tool publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// At a constant rate; latency counts from the moment at which a message was due
    Open,
    /// With a constant number in flight; each answer starts the next message
    Closed,
}

/// The transport over which the tool publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// POST /v1/mesh/publish over connections that stay open
    Http,
    /// mesh.publish on /ws/v1, many in flight
    Ws,
}

/// The channels to which the tool publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fanout {
    /// To the users' own channels in turn
    User,
    /// To one channel that every session has subscribed
    Broadcast,
}

/// Where the server that the tool starts stores the history of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Store {
    /// Nowhere: the channels have no history
    None,
    /// In memory, until the server ends
    Memory,
    /// On disk, synced before each publish is answered
    Strict,
    /// On disk, synced within a second
    Relaxed,
    /// On the NATS servers that --set bus.url names
    Nats,
}

/// Which server the tool starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Spawn {
    /// Everything in one process
    Standalone,
    /// Bus, edge, publisher-api and auth-adapter in processes of their own
    Apart,
}

/// The flags of `message-center bench`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Start a server on free ports, with raised limits, and measure that server
    #[arg(long, value_enum, value_name = "HOW", conflicts_with_all = ["url", "publish", "pid"])]
    pub(crate) spawn: Option<Spawn>,
    /// Where the server of --spawn stores history; a folder is made and removed if need be
    #[arg(long, value_enum, default_value_t = Store::None, requires = "spawn")]
    pub(crate) store: Store,
    /// Key of the configuration of the server of --spawn, e.g. --set edge.outbox=1MiB (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "spawn")]
    pub(crate) set: Vec<String>,
    /// Where devices connect [default: ws://127.0.0.1:6790/message-center]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<Target>,
    /// Where back ends publish [default: http://127.0.0.1:6789]
    #[arg(long, value_name = "URL")]
    pub(crate) publish: Option<Target>,
    /// Key for publishing: name:secret, or a secret alone; --publish may hold it instead
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Process of the server on this machine whose processor time and memory to measure (repeatable)
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Vec<u32>,
    /// Sessions to open
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) sessions: u64,
    /// Client processes to spread the sessions over
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(crate) processes: u64,
    /// Users to spread the sessions over [default: one per session]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) users: Option<u64>,
    /// Tokens of the users; {uid} becomes 1, 2, 3 ...
    #[arg(long, default_value = "user-{uid}", value_name = "TEXT")]
    pub(crate) token_template: String,
    /// Connections opened per second; 0: as fast as the server accepts them
    #[arg(long, default_value_t = 1_000, value_name = "RATE", value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    pub(crate) ramp: u64,
    /// Source addresses to connect from: 127.0.0.1, 127.0.0.2 ... [default: as many as the sessions need
    /// ports]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=254))]
    pub(crate) sources: Option<u8>,
    /// When messages are sent
    #[arg(long, value_enum, default_value_t = Mode::Open)]
    pub(crate) mode: Mode,
    /// Transport for publishing
    #[arg(long, value_enum, default_value_t = Transport::Http)]
    pub(crate) via: Transport,
    /// Channels to publish to
    #[arg(long, value_enum, default_value_t = Fanout::User)]
    pub(crate) fanout: Fanout,
    /// Messages per second, with --mode open
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) rate: u64,
    /// Messages in flight, with --mode closed
    #[arg(long, default_value_t = 64, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=16_384))]
    pub(crate) in_flight: u16,
    /// Publishing connections [default: 64 over HTTP, 4 over WebSocket; closed over HTTP: as many as
    /// --in-flight]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=16_384))]
    pub(crate) connections: Option<u16>,
    /// Subscribe so that messages come with ids and can be recovered; the channels need history
    #[arg(long)]
    pub(crate) recover: bool,
    /// How long to publish
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Bytes per message; at least 52, since the receivers check a stamp of 52 bytes
    #[arg(long, default_value_t = 128, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(stamp::LENGTH as i64..=1 << 20))]
    pub(crate) payload: u32,
    /// How long the sessions stay idle before memory is measured
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub(crate) idle: Duration,
    /// How long to wait for answers and messages after the last publish
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(crate) settle: Duration,
    /// With --fanout broadcast: the name that sessions subscribe to, and the channel to publish to
    #[arg(long, default_value = "@broadcast=broadcast", value_name = "NAME=CHANNEL", value_parser = pair)]
    pub(crate) channel: (String, String),
    /// Write the report as JSON to this file; - is standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Run as a client process of the tool
    #[arg(long, hide = true)]
    pub(crate) worker: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; write e.g. 30s"))?;
    if duration > Duration::from_secs(86_400) {
        return Err("must be at most 1day".into());
    }
    Ok(duration)
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, channel)) if !name.is_empty() && !channel.is_empty() => Ok((name.into(), channel.into())),
        Some(_) | None => Err("write NAME=CHANNEL, e.g. @broadcast=broadcast".into()),
    }
}

impl Args {
    /// Checks the flags together.
    ///
    /// # Errors
    /// Fails if flags exclude each other; the text says what to do.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.duration.is_zero() {
            return Err("--duration must be above zero".into());
        }
        if !self.token_template.contains("{uid}") && self.users() > 1 {
            return Err(
                "--token-template needs {uid}, or all sessions are the same user; say --users 1 if so".into(),
            );
        }
        if self.url.as_ref().is_some_and(|url| !url.is_websocket()) {
            return Err("--url must be a ws:// URL".into());
        }
        if self.publish.as_ref().is_some_and(Target::is_websocket) {
            return Err("--publish must be an http:// URL; --via ws makes it a WebSocket".into());
        }
        if self.recover && self.spawn.is_some() && self.store == Store::None {
            return Err("--recover needs channels with history: say --store memory, strict or relaxed".into());
        }
        let elsewhere = self.set.iter().any(|pair| pair.starts_with("bus.url="));
        let fits = match self.store {
            Store::None => true,
            Store::Nats => elsewhere,
            Store::Memory | Store::Strict | Store::Relaxed => !elsewhere,
        };
        if !fits {
            return Err("--store nats and --set bus.url=nats://… go together".into());
        }
        if self.store == Store::Nats && self.spawn == Some(Spawn::Apart) {
            return Err("--store nats goes with --spawn standalone; with apart the bus is a part".into());
        }
        if self.processes > self.sessions {
            return Err("--processes must not be above --sessions".into());
        }
        if self.mode == Mode::Closed && self.connections() > self.in_flight {
            return Err("--connections must not be above --in-flight".into());
        }
        Ok(())
    }

    pub(crate) fn users(&self) -> u64 {
        self.users.unwrap_or(self.sessions).min(self.sessions)
    }

    pub(crate) fn devices(&self) -> Target {
        self.url.clone().unwrap_or_else(|| URL.parse().expect("the default is a URL"))
    }

    pub(crate) fn publisher(&self) -> Target {
        let usual = || PUBLISH.parse().expect("the default is a URL");
        // A caller may copy the whole URL of the publish call.
        self.publish.clone().map_or_else(usual, |url| url.without("/v1/mesh/publish"))
    }

    /// Returns the number of publishing connections.
    pub(crate) fn connections(&self) -> u16 {
        let usual = match (self.mode, self.via) {
            (Mode::Open, Transport::Http) => HTTP_CONNECTIONS,
            (Mode::Closed, Transport::Http) => self.in_flight,
            (Mode::Open, Transport::Ws) => WS_CONNECTIONS,
            (Mode::Closed, Transport::Ws) => WS_CONNECTIONS.min(self.in_flight),
        };
        self.connections.unwrap_or(usual)
    }

    /// Returns how many messages without an answer each connection may have. Over HTTP a connection has one.
    pub(crate) fn window(&self) -> usize {
        match (self.mode, self.via) {
            (_, Transport::Http) => 1,
            (Mode::Open, Transport::Ws) => WINDOW,
            (Mode::Closed, Transport::Ws) => usize::from(self.in_flight.div_ceil(self.connections())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, String> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        cli.args.check().map(|()| cli.args)
    }

    #[test]
    fn without_flags_it_measures_a_server_at_the_usual_ports() {
        let args = parse("").unwrap();
        assert_eq!(
            (args.devices().to_string().as_str(), args.publisher().to_string().as_str()),
            (URL, "http://127.0.0.1:6789/")
        );
        assert_eq!((args.users(), args.connections(), args.window()), (1_000, 64, 1));
    }

    #[test]
    fn connections_follow_from_mode_and_transport() {
        let of = |line| parse(line).map(|args| (args.connections(), args.window())).unwrap();
        assert_eq!(of("--mode closed --in-flight 10"), (10, 1));
        assert_eq!(of("--mode closed --in-flight 10 --via ws"), (4, 3));
        assert_eq!(of("--mode closed --in-flight 2 --via ws"), (2, 1));
        assert_eq!(of("--via ws"), (4, WINDOW));
        assert_eq!(of("--via ws --connections 2"), (2, WINDOW));
    }

    #[test]
    fn flags_that_exclude_each_other_are_refused_with_a_reason() {
        for (line, why) in [
            ("--duration 0s", "above zero"),
            ("--duration 3", "30s"),
            ("--duration 2days", "at most"),
            ("--token-template x", "{uid}"),
            ("--url http://a", "ws://"),
            ("--publish ws://a", "http://"),
            ("--url wss://a", "TLS"),
            ("--processes 5 --sessions 4", "--processes"),
            ("--mode closed --in-flight 3 --connections 4", "--in-flight"),
            ("--spawn apart --pid 1", "cannot be used with"),
            ("--set a=b", "--spawn"),
            ("--payload 51", "52"),
            ("--channel x", "NAME=CHANNEL"),
            ("--store strict", "--spawn"),
            ("--spawn standalone --recover", "--store"),
            ("--spawn standalone --store nats", "bus.url"),
            ("--spawn standalone --store strict --set bus.url=nats://a", "bus.url"),
            ("--spawn apart --store nats --set bus.url=nats://a", "standalone"),
            ("--sessions 0", "1.."),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
        assert_eq!(parse("--token-template x --users 1").unwrap().users(), 1);
        assert_eq!(parse("--sessions 5 --users 9").unwrap().users(), 5);
    }
}
