//! A client process: opens sessions as instructed, receives messages, and reports.
//!
//! A client process has one thread: several processes use several cores, and no session waits for a lock. A
//! client process ends when its standard input does, so it can't outlive the tool.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use crate::clock;
use crate::control::{Event, Finished, Instruction, Ledger, Open, Opened, Progress};
use crate::latency::Latency;
use crate::session::{self, Disorder, End, Session, Stage, Steps};
use crate::target::Target;

/// The most handshakes of one process at the same time.
const HANDSHAKES: usize = 128;
const PROGRESS: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_millis(10);
/// Instructions that may wait; the tool gives one at a time.
const INSTRUCTIONS: usize = 4;

/// The counts that all sessions of a process share.
#[derive(Debug)]
pub(crate) struct Counts {
    open: AtomicU64,
    received: AtomicU64,
    gone: AtomicU64,
    last: AtomicU64,
    delivery: Mutex<Latency>,
    /// Sessions that have received every message published to them.
    pub(crate) whole: AtomicU64,
    /// Messages of other runs or publishers.
    pub(crate) foreign: AtomicU64,
}

impl Counts {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            open: zero(),
            received: zero(),
            gone: zero(),
            last: zero(),
            delivery: Mutex::new(Latency::new()),
            whole: zero(),
            foreign: zero(),
        }
    }

    /// Records a message that arrived at `now`, `after` nanoseconds after it was due.
    pub(crate) fn received(&self, now: u64, after: u64) {
        self.received.fetch_add(1, Ordering::Relaxed);
        self.last.store(now, Ordering::Relaxed);
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner).record(after);
    }

    fn progress(&self) -> Progress {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Progress { open: read(&self.open), received: read(&self.received), gone: read(&self.gone) }
    }
}

/// Runs this process as a client process, until standard input ends.
///
/// # Errors
/// Fails if the runtime can't start, or if an instruction can't be read.
pub(crate) fn run() -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime")?;
    let (queue, instructions) = mpsc::channel(INSTRUCTIONS);
    // Reading standard input blocks, so it has a thread of its own, which ends with standard input or the
    // process.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if queue.blocking_send(line).is_err() {
                break;
            }
        }
    });
    runtime.block_on(serve(instructions))
}

async fn serve(mut instructions: mpsc::Receiver<String>) -> anyhow::Result<()> {
    let mut sessions = Sessions::new();
    let mut ticks = interval(PROGRESS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let instruction = tokio::select! {
            instruction = instructions.recv() => match instruction {
                Some(line) => serde_json::from_str(&line).context("an instruction")?,
                None => return Ok(()),
            },
            _ = ticks.tick() => {
                report(&Event::Progress(sessions.counts.progress()))?;
                continue;
            }
        };
        match instruction {
            Instruction::Open(plan) => {
                let opened = sessions.open(plan, &mut ticks).await?;
                report(&Event::Opened(opened))?;
            }
            Instruction::Close => {
                sessions.end(None).await;
                sessions = Sessions::new();
                report(&Event::Closed)?;
            }
            Instruction::Finish { ledger, settle_ms } => {
                let finished = sessions.finish(ledger, Duration::from_millis(settle_ms)).await;
                report(&Event::Finished(Box::new(finished)))?;
                sessions = Sessions::new();
            }
        }
    }
}

fn report(event: &Event) -> anyhow::Result<()> {
    let mut line = serde_json::to_string(event).context("an event")?;
    line.push('\n');
    let mut output = std::io::stdout().lock();
    output.write_all(line.as_bytes()).and_then(|()| output.flush()).context("the tool does not listen")
}

/// The sessions of this process.
struct Sessions {
    counts: Arc<Counts>,
    stage: watch::Sender<Stage>,
    running: JoinSet<(Session, End)>,
}

type Attempt = Result<(Session, Steps), String>;

impl Sessions {
    fn new() -> Self {
        Self { counts: Arc::new(Counts::new()), stage: watch::Sender::default(), running: JoinSet::new() }
    }

    /// Opens all sessions of the plan at its pace, and leaves them receiving.
    async fn open(&mut self, plan: Open, ticks: &mut tokio::time::Interval) -> anyhow::Result<Opened> {
        let target = Arc::new(plan.url.parse::<Target>().map_err(anyhow::Error::msg)?);
        let (plan, slots) = (Arc::new(plan), Arc::new(Semaphore::new(HANDSHAKES)));
        let (mut attempts, mut tally) = (JoinSet::<Attempt>::new(), Tally::new());
        let start = Instant::now();
        let mut next = 0;
        while next < plan.sessions || !attempts.is_empty() {
            let due = match (next * 1_000_000_000).checked_div(plan.ramp) {
                Some(after) => start + Duration::from_nanos(after),
                None => start,
            };
            tokio::select! {
                biased;
                _ = ticks.tick() => report(&Event::Progress(self.counts.progress()))?,
                Some(attempt) = attempts.join_next() => self.take(attempt?, &mut tally),
                slot = async {
                    sleep_until(due).await;
                    Arc::clone(&slots).acquire_owned().await
                }, if next < plan.sessions => {
                    let (target, plan, number) = (Arc::clone(&target), Arc::clone(&plan), plan.first + next);
                    let patience = Duration::from_millis(plan.patience_ms);
                    attempts.spawn(async move {
                        let _slot = slot;
                        let late = |_| Err(format!("no answer within {patience:?}"));
                        timeout(patience, session::open(&target, &plan, number)).await.unwrap_or_else(late)
                    });
                    next += 1;
                }
            }
        }
        tally.opened.ended = clock::now();
        Ok(tally.sum())
    }

    /// Starts receiving on a session that was opened, or counts the reason why it was not.
    fn take(&mut self, attempt: Attempt, tally: &mut Tally) {
        match attempt {
            Ok((mut session, steps)) => {
                tally.handshake.record(steps.handshake);
                tally.login.record(steps.login);
                tally.opened.open += 1;
                self.counts.open.fetch_add(1, Ordering::Relaxed);
                let (counts, stage) = (Arc::clone(&self.counts), self.stage.subscribe());
                self.running.spawn(async move {
                    let end = session.receive(&counts, stage).await;
                    match end {
                        End::Asked => session.close().await,
                        End::Gone(_) => {
                            counts.gone.fetch_add(1, Ordering::Relaxed);
                            counts.open.fetch_sub(1, Ordering::Relaxed);
                        }
                    }
                    (session, end)
                });
            }
            Err(why) => *tally.opened.refused.entry(why).or_default() += 1,
        }
    }

    /// Waits until every session has received every message published to it, at most for `settle`. Then ends
    /// all.
    async fn finish(&mut self, ledger: Ledger, settle: Duration) -> Finished {
        let (ledger, all) = (Arc::new(ledger), self.running.len() as u64);
        self.stage.send_replace(Stage::Settling(Arc::clone(&ledger)));
        let counts = Arc::clone(&self.counts);
        let settled = async {
            let mut looks = interval(LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while counts.whole.load(Ordering::Relaxed) + counts.gone.load(Ordering::Relaxed) < all {
                looks.tick().await;
            }
        };
        // Messages that are missing at the deadline count as lost.
        let _ = timeout(settle, settled).await;
        self.end(Some(&ledger)).await
    }

    /// Ends all sessions and sums up. Messages that a session misses because the server closed it are not
    /// lost: the session itself is counted as gone.
    async fn end(&mut self, ledger: Option<&Ledger>) -> Finished {
        self.stage.send_replace(Stage::Over);
        let mut finished = Finished::default();
        while let Some(ended) = self.running.join_next().await {
            let Ok((session, end)) = ended else {
                *finished.gone.entry("a session of the tool failed".into()).or_default() += 1;
                continue;
            };
            let Disorder { duplicates, reordered } = session.disorder();
            finished.duplicates += duplicates;
            finished.reordered += reordered;
            match end {
                End::Asked => finished.lost += ledger.map_or(0, |ledger| session.lost(ledger)),
                End::Gone(why) => *finished.gone.entry(why).or_default() += 1,
            }
        }
        finished.received = self.counts.received.load(Ordering::Relaxed);
        finished.foreign = self.counts.foreign.load(Ordering::Relaxed);
        finished.last = self.counts.last.load(Ordering::Relaxed);
        finished.delivery = self.counts.delivery.lock().unwrap_or_else(PoisonError::into_inner).recorded();
        finished
    }
}

/// The outcome of opening so far.
struct Tally {
    opened: Opened,
    handshake: Latency,
    login: Latency,
}

impl Tally {
    fn new() -> Self {
        let opened = Opened { began: clock::now(), refused: BTreeMap::new(), ..Opened::default() };
        Self { opened, handshake: Latency::new(), login: Latency::new() }
    }

    fn sum(self) -> Opened {
        Opened { handshake: self.handshake.recorded(), login: self.login.recorded(), ..self.opened }
    }
}
