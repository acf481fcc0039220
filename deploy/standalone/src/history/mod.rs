//! `message-center history` and `message-center partitions`: show and change the history, for operators.
//!
//! A command connects to the bus as a part does, or opens the data of the embedded bus if no other process
//! has the data open. A command that can't be undone first says what it would do, and does it only with
//! `--yes`.

mod alive;
mod partitions;
mod show;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use futures_util::future::BoxFuture;
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

/// The commands for the history.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the streams of the history: what they hold, their epochs and their leaders
    Status(Status),
    /// Declare that the history may have changed, e.g. after restoring a backup: devices reload
    NewGeneration(NewGeneration),
    /// Erase the history of one channel
    Erase(Erase),
}

/// The flags that say where the bus is, and the common flags.
#[derive(Debug, Args)]
pub struct BusLocation {
    #[command(flatten)]
    common: CommonArgs,
    /// The bus to connect to, e.g. nats://10.0.0.5:4222 [default: open the data of the embedded bus]
    #[arg(long, value_name = "URL")]
    bus_url: Option<String>,
    /// The data folder of the embedded bus, which must not be in use [default: message-center-data]
    #[arg(long, value_name = "FOLDER", conflicts_with = "bus_url")]
    data: Option<String>,
}

/// The flags of `history status`.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    location: BusLocation,
}

/// The flags of `history new-generation`.
#[derive(Debug, Args)]
pub struct NewGeneration {
    #[command(flatten)]
    location: BusLocation,
    /// Do it
    #[arg(long)]
    yes: bool,
}

/// The flags of `history erase`.
#[derive(Debug, Args)]
pub struct Erase {
    #[command(flatten)]
    location: BusLocation,
    /// The internal name of the channel, e.g. user:1001
    #[arg(long, value_name = "NAME")]
    channel: String,
    /// Do it
    #[arg(long)]
    yes: bool,
}

/// The sections of the configuration that a command reads.
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

/// Runs the command.
pub fn run(command: Command) -> BoxFuture<'static, ExitCode> {
    // Boxed, so that only this crate compiles the code that it starts.
    Box::pin(async move {
        match command {
            Command::Status(Status { location }) => location.run(status).await,
            Command::NewGeneration(NewGeneration { location, yes }) => {
                location.run(async move |settings, bus, _| new_generation(&settings, &bus, yes).await).await
            }
            Command::Erase(Erase { location, channel, yes }) => {
                location
                    .run(async move |settings, bus, drain| {
                        erase(&settings, &bus, &drain, &channel, yes).await
                    })
                    .await
            }
        }
    })
}

impl BusLocation {
    /// Connects to the bus, runs `work`, and writes the answer of `work` to standard output.
    async fn run(self, work: impl AsyncFnOnce(Settings, Bus, Drain) -> anyhow::Result<String>) -> ExitCode {
        // The answer of a command is nothing to mix with a log; --set log.filter=info overrides this.
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
                // A closed standard output is no error: nobody reads there.
                let _ = std::io::stdout().write_all(answer?.as_bytes());
                Ok(())
            },
        )
        .await
    }
}

/// Checks that there is data to open. A command must not make a folder and report that it is empty.
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
        Channel::parse(channel).map_err(|error| anyhow::anyhow!("{channel:?} is no channel: {error}"))?;
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
