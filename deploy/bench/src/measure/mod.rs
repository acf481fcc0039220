//! The stages of a run: server, client processes, sessions, idling, publishing, settling; and the report of
//! the run.

mod gather;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::args::{Args, Fanout, Mode, Transport};
use crate::clock;
use crate::control::{Event, Finished, Instruction, Open, Opened, Progress};
use crate::crew::Crew;
use crate::files;
use crate::pace::Pace;
use crate::progress::Line;
use crate::publish::{self, LiveCounts, Outcome, Task};
use crate::report::Report;
use crate::run::Failure;
use crate::schedule::Schedule;
use crate::server::Server;
use crate::target::Target;
use crate::usage::{self, NamedProcess, Usage};

/// How long opening one session may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// One session in this many comes and goes first, so that one-time allocations of the server do not count for
/// sessions. These sessions are few, because the memory that they leave behind is missing in the figure.
const WARM_UP: u64 = 100;
/// How long the server may take to forget the sessions of the warm-up.
const WARMED: Duration = Duration::from_millis(500);
/// Time for the publishing connections to come up before the first message.
const AHEAD: Duration = Duration::from_millis(200);
const PROGRESS: Duration = Duration::from_millis(250);
/// The most sessions from one source address; an address has some 28,000 ports.
const PORTS: u64 = 20_000;

/// The result of a run that has a report.
pub(crate) struct Measured {
    pub(crate) report: Report,
    pub(crate) server_gone: bool,
}

/// One run: its flags, the addresses and processes of the server, and the line of progress.
struct Run<'a> {
    args: &'a Args,
    devices: Target,
    address: SocketAddr,
    publisher: Target,
    publishing: SocketAddr,
    /// The number that the messages of this run carry.
    run: u32,
    server: Vec<NamedProcess>,
    line: Line,
}

/// The findings of the stages.
struct Findings {
    opened: Vec<Opened>,
    finished: Vec<Finished>,
    outcome: Outcome,
    pace: Arc<Pace>,
    ended: Ended,
    /// When publishing began, in nanoseconds of the run's clock.
    began: u64,
    /// When the last answer had come, in nanoseconds of the run's clock.
    answered: u64,
    /// Usage of the server's processes before the first session.
    before: Vec<Option<Usage>>,
    /// Usage of the server's processes with all sessions open and idle.
    idle: Vec<Option<Usage>>,
    /// Usage of the server's processes at the end.
    after: Vec<Option<Usage>>,
    /// Processor time of the tool while publishing, in seconds.
    client: Option<f64>,
    sent: u64,
}

/// Why publishing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Every message was published.
    Done,
    /// Answers did not come in time.
    Late,
    /// The user pressed Ctrl-C.
    Interrupted,
    /// The server went away.
    Gone,
}

/// Runs all stages.
///
/// # Errors
/// Fails if there is nothing to report.
pub(crate) async fn measure(args: &Args, interrupted: &CancellationToken) -> Result<Measured, Failure> {
    args.check().map_err(Failure::Usage)?;
    let limit = files::raise()?;
    let connections = u64::from(args.connections());
    files::check(limit, args.sessions, args.processes, connections, args.spawn.is_some())
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let mut line = Line::new();
    line.show("starting");
    let server = match args.spawn {
        Some(how) => Some(
            stoppable(interrupted, Server::start(how, args))
                .await?
                .map_err(|error| Failure::Unavailable(format!("{error:#}")))?,
        ),
        None => None,
    };
    let (devices, publisher, processes) = match &server {
        Some(server) => (server.devices.clone(), server.publisher.clone(), server.processes()),
        None => (args.devices(), args.publisher(), named(&args.pid)?),
    };
    let unknown = |error: anyhow::Error| Failure::Unavailable(format!("{error:#}"));
    let mut run = Run {
        args,
        address: devices.resolve().await.map_err(unknown)?,
        publishing: publisher.resolve().await.map_err(unknown)?,
        devices,
        publisher,
        run: fastrand::u32(..),
        server: processes,
        line,
    };
    let started_at = clock::date();
    let mut crew = Crew::start(args.processes)?;
    let found = run.stages(&mut crew, interrupted).await;
    run.line.show("ending");
    crew.end().await;
    if let Some(server) = server {
        server.end().await;
    }
    run.line.clear();
    let found = found?;
    let server_gone = found.ended == Ended::Gone;
    let mut report = run.report(&found, started_at);
    report.judge(server_gone);
    Ok(Measured { report, server_gone })
}

/// Names the processes of `--pid`.
fn named(pids: &[u32]) -> Result<Vec<NamedProcess>, Failure> {
    let name = |pid: &u32| match usage::name(*pid) {
        Some(name) if usage::of(*pid).is_some() => Ok(NamedProcess { name, pid: *pid }),
        Some(_) | None => Err(Failure::Usage(format!(
            "--pid {pid}: there is no such process, or this system does not tell what processes use (Linux does)"
        ))),
    };
    pids.iter().map(name).collect()
}

/// Runs a stage that Ctrl-C ends without a report.
async fn stoppable<T>(interrupted: &CancellationToken, stage: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::select! {
        () = interrupted.cancelled() => Err(Failure::Stopped),
        done = stage => Ok(done),
    }
}

impl Run<'_> {
    async fn stages(
        &mut self,
        crew: &mut Crew,
        interrupted: &CancellationToken,
    ) -> Result<Findings, Failure> {
        let args = self.args;
        let warm = args.sessions.div_ceil(args.processes).div_ceil(WARM_UP);
        stoppable(interrupted, self.warm_up(crew, warm)).await??;
        let before = self.server_usage();
        let opened = stoppable(interrupted, self.open(crew)).await??;
        stoppable(interrupted, async {
            self.line.show("all sessions open; leaving them idle");
            sleep(args.idle).await;
        })
        .await?;
        let idle = self.server_usage();
        let client = self.client_usage(crew);
        let began = clock::now() + clock::nanoseconds(AHEAD);
        let task = self.task(began);
        let open = opened.iter().map(|opened| opened.open).sum();
        let (outcome, ended) = self.publish(&task, crew, open, interrupted).await;
        let answered = clock::now();
        self.line.show("waiting for what has not arrived yet");
        let settle_ms = u64::try_from(args.settle.as_millis()).unwrap_or(u64::MAX);
        let ledger = outcome.ledger.clone();
        let events = crew.ask(|_| Instruction::Finish { ledger: ledger.clone(), settle_ms }).await?;
        let finished = events.into_iter().filter_map(finished).collect();
        let client = client.zip(self.client_usage(crew)).map(|(before, after)| after - before);
        let after = self.server_usage();
        let sent = task.live.sent.load(Ordering::Relaxed);
        let pace = Arc::clone(&task.pace);
        Ok(Findings {
            opened,
            finished,
            outcome,
            pace,
            ended,
            began,
            answered,
            before,
            idle,
            after,
            client,
            sent,
        })
    }

    /// Describes the sessions that a client process is to open.
    fn sessions_to_open(&self, first: u64, sessions: u64, ramp: u64) -> Open {
        let args = self.args;
        let broadcast = args.fanout == Fanout::Broadcast;
        let needed = if args.sessions > PORTS { args.sessions.div_ceil(PORTS) } else { 0 };
        let loopback = self.address.ip() == std::net::Ipv4Addr::LOCALHOST;
        let usual = if loopback { u8::try_from(needed).unwrap_or(254).min(254) } else { 0 };
        Open {
            url: self.devices.to_string(),
            address: self.address,
            run: self.run,
            first,
            sessions,
            users: args.users(),
            token: args.token_template.clone(),
            subscribe: if broadcast { args.channel.0.clone() } else { "@user".into() },
            recover: args.recover,
            broadcast,
            ramp,
            sources: args.sources.unwrap_or(usual),
            patience_ms: u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX),
        }
    }

    async fn warm_up(&mut self, crew: &mut Crew, sessions: u64) -> Result<(), Failure> {
        self.line.show("warming up");
        let plan = self.sessions_to_open(0, sessions, 0);
        let ask = |number| Instruction::Open(Open { first: number * sessions, ..plan.clone() });
        let opened = opened(crew.ask(ask).await?);
        if opened.iter().all(|opened| opened.open == 0) {
            return Err(self.no_session(&opened));
        }
        crew.ask(|_| Instruction::Close).await?;
        sleep(WARMED).await;
        Ok(())
    }

    /// Says why not a single session could be opened.
    fn no_session(&self, opened: &[Opened]) -> Failure {
        let reasons = merged(opened.iter().map(|opened| &opened.refused));
        let listed: Vec<_> = reasons.iter().map(|(why, count)| format!("{count} x {why}")).collect();
        let why = format!("no session could be opened at {}: {}", self.devices, listed.join("; "));
        if reasons.keys().all(|why| why.starts_with("connect: ")) {
            return Failure::Unavailable(format!(
                "{why}\nIs a message center there? --url says where, --spawn starts one."
            ));
        }
        let (name, channel) = &self.args.channel;
        let hint = if reasons.keys().any(|why| why.contains("\"code\":6")) {
            format!(
                "\nFor --fanout broadcast the server needs a rule: [[channels]] name = \"{name}\" channel = \"{channel}\""
            )
        } else if reasons.keys().any(|why| why.contains("\"code\":2")) {
            "\nThe business system does not know these tokens: --token-template says how they look.".into()
        } else {
            String::new()
        };
        Failure::Refused(format!("{why}{hint}"))
    }

    async fn open(&mut self, crew: &mut Crew) -> Result<Vec<Opened>, Failure> {
        let args = self.args;
        let share = |number: u64| args.sessions * number / args.processes;
        // The remainder goes to the first processes.
        let ramp = |number: u64| match args.ramp {
            0 => 0,
            ramp => (ramp / args.processes + u64::from(number < ramp % args.processes)).max(1),
        };
        let plan = self.sessions_to_open(0, 0, 0);
        let progress = crew.progress();
        let asked = crew.ask(|number| {
            let (first, end) = (share(number), share(number + 1));
            Instruction::Open(Open { first, sessions: end - first, ramp: ramp(number), ..plan.clone() })
        });
        let line = &mut self.line;
        let events = tokio::select! {
            events = asked => events?,
            () = watch(line, || format!("{} of {} sessions open", progress().open, args.sessions)) => Vec::new(),
        };
        let opened = opened(events);
        if opened.iter().all(|opened| opened.open == 0) { Err(self.no_session(&opened)) } else { Ok(opened) }
    }

    fn task(&self, began: u64) -> Arc<Task> {
        let args = self.args;
        let pace = match args.mode {
            Mode::Open => {
                let takers = usize::from(args.connections());
                Pace::open(Schedule::new(began, args.rate, args.duration), takers)
            }
            Mode::Closed => Pace::closed(began, began + clock::nanoseconds(args.duration)),
        };
        let path = match args.via {
            Transport::Http => "/v1/mesh/publish",
            Transport::Ws => "/ws/v1",
        };
        Arc::new(Task {
            target: self.publisher.at(path),
            address: self.publishing,
            authorization: self.publisher.authorization(args.key.as_deref()),
            run: self.run,
            payload: usize::try_from(args.payload).unwrap_or(usize::MAX),
            users: (args.fanout == Fanout::User).then(|| args.users()),
            channel: args.channel.1.clone(),
            pace,
            stop: CancellationToken::new(),
            live: LiveCounts::default(),
        })
    }

    /// Publishes until every message is answered, or until there is a reason to stop.
    async fn publish(
        &mut self,
        task: &Arc<Task>,
        crew: &Crew,
        open: u64,
        interrupted: &CancellationToken,
    ) -> (Outcome, Ended) {
        let args = self.args;
        let publishing = publish::run(task, args.via, args.connections(), args.window());
        tokio::pin!(publishing);
        let progress = crew.progress();
        let late = Instant::now() + AHEAD + args.duration + args.settle;
        let line = &mut self.line;
        let show = watch(line, || going(task, progress()));
        let all_gone = async {
            let mut looks = interval(PROGRESS);
            loop {
                looks.tick().await;
                if progress().gone >= open {
                    return;
                }
            }
        };
        let ended = tokio::select! {
            outcome = &mut publishing => {
                let ended = if task.live.gone.is_cancelled() { Ended::Gone } else { Ended::Done };
                return (outcome, ended);
            }
            () = interrupted.cancelled() => Ended::Interrupted,
            () = task.live.gone.cancelled() => Ended::Gone,
            () = all_gone => Ended::Gone,
            () = sleep_until(late) => Ended::Late,
            () = show => Ended::Interrupted,
        };
        task.pace.stop();
        if ended == Ended::Interrupted {
            // Messages in flight may still be answered.
            if let Ok(outcome) = tokio::time::timeout(args.settle, &mut publishing).await {
                return (outcome, ended);
            }
        }
        task.stop.cancel();
        (publishing.await, ended)
    }

    fn server_usage(&self) -> Vec<Option<Usage>> {
        self.server.iter().map(|process| usage::of(process.pid)).collect()
    }

    /// Returns the processor time of the tool and its client processes so far, in seconds.
    fn client_usage(&self, crew: &Crew) -> Option<f64> {
        let pids = crew.pids().into_iter().chain([std::process::id()]);
        pids.map(|pid| usage::of(pid).map(|usage| usage.cpu_seconds)).sum()
    }
}

/// Shows the text that `text` returns, four times a second, for ever.
async fn watch(line: &mut Line, text: impl Fn() -> String) {
    let mut ticks = interval(PROGRESS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        line.show(&text());
    }
}

fn going(task: &Task, progress: Progress) -> String {
    let (sent, answered) =
        (task.live.sent.load(Ordering::Relaxed), task.live.answered.load(Ordering::Relaxed));
    format!(
        "{sent} sent, {answered} answered, {} delivered, {} sessions gone",
        progress.received, progress.gone
    )
}

fn opened(events: Vec<Event>) -> Vec<Opened> {
    let opened = |event| match event {
        Event::Opened(opened) => Some(opened),
        Event::Progress(_) | Event::Closed | Event::Finished(_) => None,
    };
    events.into_iter().filter_map(opened).collect()
}

fn finished(event: Event) -> Option<Finished> {
    match event {
        Event::Finished(finished) => Some(*finished),
        Event::Progress(_) | Event::Opened(_) | Event::Closed => None,
    }
}

/// Adds up counts by reason.
fn merged<'a>(parts: impl Iterator<Item = &'a BTreeMap<String, u64>>) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    for (why, count) in parts.flatten() {
        *sum.entry(why.clone()).or_default() += count;
    }
    sum
}
