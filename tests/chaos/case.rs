//! A case: many sessions, callers that publish, a script of disturbances, and a verdict.
//!
//! Cases run one after the other, since each loads the machine. The seed decides every random choice. The
//! timing of the machine is not repeatable, which is why the seed decides so much.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use harness::publisher::Publisher;
use harness::tools;
use shared::drain::Drain;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::callers::{Books, Caller, How};
use crate::clock::{Clock, pass};
use crate::ledger::Verdict;
use crate::nodes::Nodes;
use crate::session::{Session, Shared};
use crate::stage::{CaseBus, EDGES, PUBLISHERS, Programs, Stage};

/// Users. Each has a recovering session; every fourth has a second one on another edge, every second a plain
/// one.
const USERS: u32 = 200;
const CALLERS: [How; 8] =
    [How::Call, How::Call, How::Call, How::Call, How::Batch, How::Batch, How::Socket, How::Socket];
/// Interval between two looks at the progress of a case.
const POLL: Duration = Duration::from_millis(100);
/// How long clients may take to catch up after the last message, disturbances included.
const CATCH_UP: Duration = Duration::from_secs(60);
/// How long to wait for late duplicates.
const AFTERMATH: Duration = Duration::from_secs(1);

/// Held by the running case.
static TURN: Mutex<()> = Mutex::const_new(());

/// The bus that a case needs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Over {
    /// `message-center bus`.
    Bus,
    /// This many nats-servers.
    Nats(usize),
}

/// A running case, as its script sees it.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) stage: Stage,
    pub(crate) random: fastrand::Rng,
    books: Arc<Books>,
    diaries: Vec<Shared>,
    clock: Clock,
    sessions: Drain,
    callers: Drain,
}

/// Whether this run is the long version.
pub(crate) fn is_long() -> bool {
    std::env::var_os("MC_CHAOS_LONG").is_some_and(|value| value == "1")
}

/// Messages per second while disturbances are still to come.
fn pace() -> u64 {
    if is_long() { 1500 } else { 250 }
}

/// Divides the numbers of large messages: 10 in the short version, 50 in the long one, which has more
/// messages.
fn large_every() -> u32 {
    if is_long() { 50 } else { 10 }
}

/// The seed of this run.
fn seed() -> u64 {
    let given = std::env::var_os("MC_CHAOS_SEED").map(|text| {
        let seed = text.to_str().and_then(|text| text.parse().ok());
        seed.unwrap_or_else(|| panic!("MC_CHAOS_SEED is {text:?}; it takes a number"))
    });
    given.unwrap_or_else(|| fastrand::u64(..1_000_000))
}

/// Runs a case and judges it. A case whose bus is not installed is left to `tests/run`, and says so.
///
/// # Panics
/// A promise is broken.
pub(crate) async fn run(name: &str, over: Over, script: impl AsyncFnOnce(&mut Case)) {
    run_from(name, over, Programs::default(), &[], script).await;
}

/// As [`run`], but all parts start from `programs`, with these settings.
///
/// # Panics
/// A promise is broken.
pub(crate) async fn run_from(
    name: &str,
    over: Over,
    programs: Programs,
    settings: &[(&str, &str)],
    script: impl AsyncFnOnce(&mut Case),
) {
    let bus = match over {
        Over::Bus => None,
        Over::Nats(count) => match tools::find("MC_TEST_NATS_SERVER", name) {
            Some(binary) => Some((binary, count)),
            None => return,
        },
    };
    let turn = TURN.lock().await;
    let (seed, total) = (seed(), if is_long() { 100_000 } else { 4_000 });
    say(&format!("{name}: MC_CHAOS_SEED={seed}\n"));
    let bus = match bus {
        None => CaseBus::embedded(programs.bus.clone()).await,
        Some((binary, count)) => CaseBus::Nodes(Nodes::start(binary, count).await),
    };
    let stage = Stage::start(bus, settings, programs).await;
    let mut case = Case::start(stage, seed, total).await;
    script(&mut case).await;
    let (verdict, warnings) = case.end().await;
    say(&row(name, &verdict));
    drop(turn);
    assert!(verdict.is_clean(), "{name}, MC_CHAOS_SEED={seed}: {verdict:#?}\n{warnings}");
    assert_eq!(verdict.published, total);
}

impl Case {
    async fn start(stage: Stage, seed: u64, total: u64) -> Self {
        let clock = Clock::start();
        let books = Arc::new(Books::new(total, pace(), large_every(), clock));
        let random = fastrand::Rng::with_seed(seed);
        let (sessions, callers) = (Drain::new(), Drain::new());
        let mut case = Self { stage, random, books, diaries: Vec::new(), clock, sessions, callers };
        case.open_sessions().await;
        // The pace counts from the first message.
        case.books = Arc::new(Books::new(total, pace(), large_every(), Clock::start()));
        case.open_callers();
        case
    }

    async fn open_sessions(&mut self) {
        let online = watch::Sender::new(0);
        for user in 1..=USERS {
            let home = user as usize % EDGES;
            self.open_session(user, home, true, &online);
            if user % 4 == 0 {
                self.open_session(user, home + 1, true, &online);
            }
            if user % 2 == 0 {
                self.open_session(user, home + 1, false, &online);
            }
        }
        let (count, mut there) = (self.diaries.len(), online.subscribe());
        let all = there.wait_for(|there| *there == count);
        let all = timeout(CATCH_UP, all).await;
        assert!(all.is_ok(), "{} of {count} sessions are online", *online.borrow());
    }

    fn open_session(&mut self, user: u32, home: usize, recovering: bool, online: &watch::Sender<usize>) {
        let mut edges: Vec<_> = self.stage.to_edges.iter().map(harness::link::Link::address).collect();
        let edges_of = edges.len();
        edges.rotate_left(home % edges_of);
        let diary = Shared::new(user, recovering);
        self.diaries.push(diary.clone());
        let session = Session {
            user,
            edges,
            random: self.random.fork(),
            clock: self.clock,
            diary,
            online: online.clone(),
            last: recovering.then(String::new),
            failures: 0,
        };
        let over = self.sessions.clone();
        self.sessions.spawn("session", async move {
            tokio::select! { () = session.run() => {}, () = over.begun() => {} }
        });
    }

    fn open_callers(&mut self) {
        for (index, how) in CALLERS.into_iter().enumerate() {
            let mut addresses: Vec<_> =
                self.stage.to_publishers.iter().map(harness::link::Link::address).collect();
            addresses.rotate_left(index % PUBLISHERS);
            let users = (1..=USERS).filter(|user| *user as usize % CALLERS.len() == index);
            let caller = Caller {
                lane: u32::try_from(index).unwrap_or_default(),
                how,
                users: users.map(|user| (user, 0)).collect(),
                publishers: addresses.into_iter().map(|at| (at, Publisher::of(at))).collect(),
                random: self.random.fork(),
                clock: self.clock,
                books: Arc::clone(&self.books),
            };
            self.callers.spawn("caller", caller.run());
        }
    }

    /// Moments of the disturbances, as shares of all messages: few in the short version, many in the long
    /// one.
    pub(crate) fn moments(&mut self) -> Vec<f64> {
        let count = if is_long() { 8 } else { 2 };
        let width = 0.75 / f64::from(count);
        (0..count).map(|index| 0.05 + width * (f64::from(index) + 0.6 * self.random.f64())).collect()
    }

    /// Waits until this share of all messages has begun.
    pub(crate) async fn reach(&self, share: f64) {
        #[expect(clippy::cast_precision_loss, reason = "a share of a few thousand")]
        let reached = || self.books.begun() as f64 >= share * self.books.total as f64;
        self.wait(&format!("{:.0} % of the messages are begun", share * 100.0), reached).await;
    }

    /// Waits for a random time between a tenth of `most` and `most`.
    pub(crate) async fn pause(&mut self, most: Duration) {
        let share = 0.1 + 0.9 * self.random.f64();
        pass(most.mul_f64(share)).await;
    }

    /// Waits until `done`, as long as there is any progress.
    async fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let (mut ticks, mut moved) = (interval(POLL), (0, 0, Instant::now()));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !done() {
            ticks.tick().await;
            let (begun, acknowledged) = (self.books.begun(), self.books.lock().acknowledged());
            if (begun, acknowledged) != (moved.0, moved.1) {
                moved = (begun, acknowledged, Instant::now());
            }
            let still = moved.2.elapsed();
            assert!(still < CATCH_UP, "nothing moved for {still:?}, waiting until {what}: {moved:?}");
        }
    }

    /// Lets callers finish and clients catch up, ends everything, and judges. Returns the verdict and the
    /// warnings of the parts.
    async fn end(self) -> (Verdict, String) {
        self.books.hurry();
        self.wait("all callers are done", || self.callers.tasks() == 0).await;
        let caught_up = async {
            let mut ticks = interval(POLL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let ledger = self.books.lock();
                let behind = |diary: &&Shared| {
                    let diary = diary.lock();
                    diary.recovers() && !ledger.is_caught_up(&diary)
                };
                if self.diaries.iter().find(behind).is_none() {
                    return;
                }
            }
        };
        // Messages still missing then are lost; the verdict names them.
        let _ = timeout(CATCH_UP, caught_up).await;
        pass(AFTERMATH).await;
        self.sessions.finish(CATCH_UP).await;
        let warnings = self.stage.warnings();
        self.stage.end().await;
        let ledger = self.books.lock();
        let diaries: Vec<_> = self.diaries.iter().map(Shared::lock).collect();
        (ledger.judge(diaries.iter().map(|diary| &**diary)), warnings)
    }
}

/// Writes to standard error directly, since libtest captures the output of tests that pass.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// The row of a case in the table of results.
pub(crate) fn row(name: &str, verdict: &Verdict) -> String {
    const COLUMNS: &str = "| case | published | acknowledged | delivered | lost | doubled | reordered | \
                           recovered:false | @reload | longest gap, ms | late, ms |\n";
    let mut row = COLUMNS.to_owned();
    let Verdict { published, acknowledged, delivered, lost, doubled, reordered, .. } = verdict;
    let Verdict { unrecovered, reloads, longest_gap, late, .. } = verdict;
    let _ = writeln!(
        row,
        "| {name} | {published} | {acknowledged} | {delivered} | {lost} | {doubled} | {reordered} | {unrecovered} | \
         {reloads} | {longest_gap} | {late} |"
    );
    row
}
