//! A client process: opens sessions when told to, receives, and reports what came.
//!
//! One thread: several processes use several cores, and nothing in a process waits for a lock. It ends when its standard
//! input does, so none outlives the tool.

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
use crate::control::{Event, Finished, Ledger, Open, Opened, Order, Progress};
use crate::latency::Latency;
use crate::session::{self, End, Session, Stage, Steps};
use crate::target::Target;

/// Handshakes at a time, of one process.
const HANDSHAKES: usize = 128;
const PROGRESS: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_millis(10);
/// Orders that may wait; there is one at a time.
const ORDERS: usize = 4;

/// What all sessions of a process write to.
#[derive(Debug)]
pub(crate) struct Board {
    open: AtomicU64,
    received: AtomicU64,
    gone: AtomicU64,
    last: AtomicU64,
    delivery: Mutex<Latency>,
    /// Sessions that have all that was published to them.
    pub(crate) whole: AtomicU64,
    /// Messages that are not of this run.
    pub(crate) foreign: AtomicU64,
}

impl Board {
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

    /// Takes note of a message that came at `now`, so long after it was to be sent.
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
/// The runtime can't start, or an order can't be read.
pub(crate) fn run() -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime")?;
    let (queue, orders) = mpsc::channel(ORDERS);
    // Blocks, so it has a thread of its own, which ends with standard input or with the process.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if queue.blocking_send(line).is_err() {
                break;
            }
        }
    });
    runtime.block_on(serve(orders))
}

async fn serve(mut orders: mpsc::Receiver<String>) -> anyhow::Result<()> {
    let mut crowd = Crowd::new();
    let mut ticks = interval(PROGRESS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let order = tokio::select! {
            order = orders.recv() => match order {
                Some(line) => serde_json::from_str(&line).context("an order")?,
                None => return Ok(()),
            },
            _ = ticks.tick() => {
                say(&Event::Progress(crowd.board.progress()))?;
                continue;
            }
        };
        match order {
            Order::Open(open) => {
                let opened = crowd.open(open, &mut ticks).await?;
                say(&Event::Opened(opened))?;
            }
            Order::Close => {
                crowd.end(None).await;
                crowd = Crowd::new();
                say(&Event::Closed)?;
            }
            Order::Finish { ledger, settle_ms } => {
                let finished = crowd.finish(ledger, Duration::from_millis(settle_ms)).await;
                say(&Event::Finished(Box::new(finished)))?;
                crowd = Crowd::new();
            }
        }
    }
}

fn say(event: &Event) -> anyhow::Result<()> {
    let mut line = serde_json::to_string(event).context("an event")?;
    line.push('\n');
    let mut output = std::io::stdout().lock();
    output.write_all(line.as_bytes()).and_then(|()| output.flush()).context("the tool does not listen")
}

/// The sessions of this process.
struct Crowd {
    board: Arc<Board>,
    stage: watch::Sender<Stage>,
    sessions: JoinSet<(Session, End)>,
}

type Attempt = Result<(Session, Steps), String>;

impl Crowd {
    fn new() -> Self {
        Self { board: Arc::new(Board::new()), stage: watch::Sender::default(), sessions: JoinSet::new() }
    }

    /// Opens all sessions of the order, paced, and leaves them receiving.
    async fn open(&mut self, order: Open, ticks: &mut tokio::time::Interval) -> anyhow::Result<Opened> {
        let target = Arc::new(order.url.parse::<Target>().map_err(anyhow::Error::msg)?);
        let (order, places) = (Arc::new(order), Arc::new(Semaphore::new(HANDSHAKES)));
        let (mut attempts, mut tally) = (JoinSet::<Attempt>::new(), Tally::new());
        let start = Instant::now();
        let mut next = 0;
        while next < order.sessions || !attempts.is_empty() {
            let due = match (next * 1_000_000_000).checked_div(order.ramp) {
                Some(after) => start + Duration::from_nanos(after),
                None => start,
            };
            tokio::select! {
                biased;
                _ = ticks.tick() => say(&Event::Progress(self.board.progress()))?,
                Some(attempt) = attempts.join_next() => self.take(attempt?, &mut tally),
                place = async {
                    sleep_until(due).await;
                    Arc::clone(&places).acquire_owned().await
                }, if next < order.sessions => {
                    let (target, order, number) = (Arc::clone(&target), Arc::clone(&order), order.first + next);
                    let patience = Duration::from_millis(order.patience_ms);
                    attempts.spawn(async move {
                        let _place = place;
                        let late = |_| Err(format!("no answer within {patience:?}"));
                        timeout(patience, session::open(&target, &order, number)).await.unwrap_or_else(late)
                    });
                    next += 1;
                }
            }
        }
        tally.opened.ended = clock::now();
        Ok(tally.sum())
    }

    /// Takes over a session that was opened, or counts why not.
    fn take(&mut self, attempt: Attempt, tally: &mut Tally) {
        match attempt {
            Ok((mut session, steps)) => {
                tally.handshake.record(steps.handshake);
                tally.login.record(steps.login);
                tally.opened.open += 1;
                self.board.open.fetch_add(1, Ordering::Relaxed);
                let (board, stage) = (Arc::clone(&self.board), self.stage.subscribe());
                self.sessions.spawn(async move {
                    let end = session.receive(&board, stage).await;
                    match end {
                        End::Asked => session.close().await,
                        End::Gone(_) => {
                            board.gone.fetch_add(1, Ordering::Relaxed);
                            board.open.fetch_sub(1, Ordering::Relaxed);
                        }
                    }
                    (session, end)
                });
            }
            Err(why) => *tally.opened.refused.entry(why).or_default() += 1,
        }
    }

    /// Waits until every session has what was published to it, at most `settle`.
    async fn finish(&mut self, ledger: Ledger, settle: Duration) -> Finished {
        let (ledger, all) = (Arc::new(ledger), self.sessions.len() as u64);
        self.stage.send_replace(Stage::Settling(Arc::clone(&ledger)));
        let board = Arc::clone(&self.board);
        let settled = async {
            let mut looks = interval(LOOK);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while board.whole.load(Ordering::Relaxed) + board.gone.load(Ordering::Relaxed) < all {
                looks.tick().await;
            }
        };
        // What is missing at the deadline is counted as lost.
        let _ = timeout(settle, settled).await;
        self.end(Some(&ledger)).await
    }

    /// Ends all sessions and sums up. What sessions miss that the server closed is no loss of messages: they are
    /// counted themselves.
    async fn end(&mut self, ledger: Option<&Ledger>) -> Finished {
        self.stage.send_replace(Stage::Over);
        let mut finished = Finished::default();
        while let Some(ended) = self.sessions.join_next().await {
            let Ok((session, end)) = ended else {
                *finished.gone.entry("a session of the tool failed".into()).or_default() += 1;
                continue;
            };
            let (twice, late) = session.disorder();
            finished.duplicates += twice;
            finished.reordered += late;
            match end {
                End::Asked => finished.lost += ledger.map_or(0, |ledger| session.lost(ledger)),
                End::Gone(why) => *finished.gone.entry(why).or_default() += 1,
            }
        }
        finished.received = self.board.received.load(Ordering::Relaxed);
        finished.foreign = self.board.foreign.load(Ordering::Relaxed);
        finished.last = self.board.last.load(Ordering::Relaxed);
        finished.delivery = self.board.delivery.lock().unwrap_or_else(PoisonError::into_inner).recorded();
        finished
    }
}

/// How opening goes.
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
