//! `message-center history` and `message-center partitions`: what an operator sees of the history, and does to it.
//!
//! A command connects to the bus as a part does, or opens the data of the embedded bus if nobody else has it open. What
//! can't be undone is said first, and done only with `--yes`.

mod alive;
mod partitions;
mod show;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use shared::bus::{Bus, BusConfig, provide};
use shared::config::{self, LogConfig, Problems};
use shared::drain::Drain;
use shared::history::{History, HistoryConfig, HistoryState, Role, admin};
use shared::ids::Channel;
use shared::service::{self, CommonArgs};
use tokio::time::timeout;

use crate::settings::on_disk;

pub use partitions::Partitions;

/// How long the bus may take to be reached, or the history to be found.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long erasing a channel may take.
const ERASING: Duration = Duration::from_secs(30);

/// What to do with the history.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the streams that keep the history: what they hold, their epochs and their leaders
    Status(Status),
    /// Declare that the history may not be what it was, e.g. after a backup was restored: devices reload
    NewGeneration(NewGeneration),
    /// Erase all that is kept of one channel
    Erase(Erase),
}

/// Where the bus is.
#[derive(Debug, Args)]
pub struct Place {
    #[command(flatten)]
    common: CommonArgs,
    /// The bus to connect to, e.g. nats://10.0.0.5:4222 [default: open the data of the embedded one]
    #[arg(long, value_name = "URL")]
    bus_url: Option<String>,
    /// The data folder of the embedded bus, which must not be in use [default: message-center-data]
    #[arg(long, value_name = "FOLDER", conflicts_with = "bus_url")]
    data: Option<String>,
}

/// What the status is asked of.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    place: Place,
}

/// What gets a new generation.
#[derive(Debug, Args)]
pub struct NewGeneration {
    #[command(flatten)]
    place: Place,
    /// Do it
    #[arg(long)]
    yes: bool,
}

/// What to erase.
#[derive(Debug, Args)]
pub struct Erase {
    #[command(flatten)]
    place: Place,
    /// The internal name of the channel, e.g. user:1001
    #[arg(long, value_name = "NAME")]
    channel: String,
    /// Do it
    #[arg(long)]
    yes: bool,
}

/// What a command reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Settings {
    bus: BusConfig,
    history: HistoryConfig,
    log: LogConfig,
}

impl config::Settings for Settings {
    const SERVICE: &'static str = "message-center-history";

    fn complete(&mut self) {
        self.bus = on_disk(std::mem::take(&mut self.bus));
    }

    fn validate(&self, problems: &mut Problems) {
        self.bus.validate(problems);
        self.history.validate(problems);
        shared::telemetry::validate(&self.log, problems);
    }
}

/// Does it.
pub async fn run(command: Command) -> ExitCode {
    match command {
        Command::Status(Status { place }) => place.run(status).await,
        Command::NewGeneration(NewGeneration { place, yes }) => {
            place.run(async move |settings, bus, _| new_generation(&settings, &bus, yes).await).await
        }
        Command::Erase(Erase { place, channel, yes }) => {
            place
                .run(async move |settings, bus, drain| erase(&settings, &bus, &drain, &channel, yes).await)
                .await
        }
    }
}

impl Place {
    /// Connects, and lets `work` do its work. What it answers goes to standard output.
    async fn run(self, work: impl AsyncFnOnce(Settings, Bus, Drain) -> anyhow::Result<String>) -> ExitCode {
        // Who runs a command reads its answer, not a log; --set log.filter=info stands over it.
        let quiet = ("log.filter".to_owned(), "off".to_owned());
        let url = self.bus_url.map(|url| ("bus.url".to_owned(), url));
        let data = self.data.map(|folder| ("bus.store.path".to_owned(), folder));
        let flags = std::iter::once(quiet).chain(url).chain(data).collect();
        service::run(
            self.common,
            flags,
            |settings: &Settings| &settings.log,
            async |live, drain| {
                let mut settings = Settings::clone(&live.get());
                // The data of an embedded bus is opened for this command alone.
                settings.bus.listen.clear();
                let bus_drain = Drain::new();
                let answer = async {
                    find_data(&settings.bus)?;
                    let server = provide(&settings.bus, &bus_drain).await.context("the bus")?;
                    let bus = Bus::connect(&server, "operator", &bus_drain).await.context("the bus")?;
                    bus.connected(PATIENCE).await.with_context(|| {
                        format!(
                            "the bus at {} can't be reached; start it, or say where it is with --bus-url",
                            server.urls.join(",")
                        )
                    })?;
                    work(settings.clone(), bus, bus_drain.clone()).await
                };
                let answer = tokio::select! {
                    answer = answer => answer,
                    () = drain.begun() => Err(anyhow::anyhow!("stopped before it was done; begin again")),
                };
                bus_drain.finish(PATIENCE).await;
                // Whoever closed standard output wants to read nothing.
                let _ = std::io::stdout().write_all(answer?.as_bytes());
                Ok(())
            },
        )
        .await
    }
}

/// A command must not make a folder and call it empty.
fn find_data(bus: &BusConfig) -> anyhow::Result<()> {
    if !bus.is_embedded() {
        return Ok(());
    }
    let Some(folder) = bus.store.folder() else {
        bail!("bus.store.sync is \"memory\": there is no data to open; name a running bus with --bus-url")
    };
    ensure!(
        folder.join("streams").is_dir(),
        "there is no data of an embedded bus in {}: name its folder with --data, or a running bus with --bus-url",
        folder.display()
    );
    Ok(())
}

async fn status(settings: Settings, bus: Bus, _drain: Drain) -> anyhow::Result<String> {
    Ok(show::status(&streams(&bus).await?, &settings.history))
}

async fn streams(bus: &Bus) -> anyhow::Result<Vec<admin::StreamStatus>> {
    admin::streams(bus).await.context("the streams can't be read")
}

async fn new_generation(settings: &Settings, bus: &Bus, yes: bool) -> anyhow::Result<String> {
    let streams = streams(bus).await?;
    ensure!(!streams.is_empty(), "there is no history on this bus, so there is nothing to declare");
    ensure!(
        yes,
        "{}Every device that recovers would be told to reload from the business system.\nNothing was changed. Repeat with \
         --yes to do it.",
        show::status(&streams, &settings.history)
    );
    let raised = admin::raise_generation(bus, &streams)
        .await
        .context("not all streams could be changed; repeat it")?;
    Ok(format!("{}Running parts notice within seconds.\n", show::status(&raised, &settings.history)))
}

async fn erase(
    settings: &Settings,
    bus: &Bus,
    drain: &Drain,
    channel: &str,
    yes: bool,
) -> anyhow::Result<String> {
    let channel =
        Channel::parse(channel).map_err(|fault| anyhow::anyhow!("{channel:?} is no channel: {fault}"))?;
    ensure!(
        yes,
        "This would erase all that is kept of {channel}. Nothing was changed. Repeat with --yes to do it."
    );
    ensure!(!streams(bus).await?.is_empty(), "there is no history on this bus, so there is nothing to erase");
    let history = History::open(bus, &settings.history, Role::Reader, drain);
    let mut state = history.state();
    let known = |state: &HistoryState| !matches!(state, HistoryState::Opening { .. });
    let found =
        timeout(PATIENCE, state.wait_for(known)).await.context("the history can't be read in time")??.clone();
    if let Some(why) = found.why_not() {
        bail!("{why}");
    }
    let erased = history.erase(&channel, bus.awake().now() + ERASING).await?;
    Ok(format!(
        "{} messages of {channel} are erased. Devices that recover from before are told to reload.\n",
        erased.messages
    ))
}
