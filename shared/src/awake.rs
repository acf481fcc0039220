//! A clock that leaves out the time in which this process did not run.
//!
//! A process that was stopped, or whose machine paused or was too busy, finds all deadlines past when it runs
//! again, although nobody had a chance to meet them. Others are therefore judged by this clock. It looks at
//! the time every `TICK`; a look that comes much too late shows that the process did not run, and the gap
//! counts as one tick. Real time stays right where nobody needs a chance, as for the end of a login.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, MissedTickBehavior, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::drain::Drain;

/// The interval between two looks at the time.
const TICK: Duration = Duration::from_millis(50);
/// The gap between two looks beyond which the process counts as not running.
const STALL: Duration = Duration::from_millis(150);
/// The clock. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Awake {
    /// Locked for one look.
    count: Arc<Mutex<Count>>,
}

/// The result of the looks so far. Pure: the caller gives the time.
#[derive(Debug)]
struct Count {
    /// The time of the latest look; `None` once the clock looks no longer.
    seen: Option<Instant>,
    /// The time until then in which the process did not run.
    asleep: Duration,
}

impl Count {
    /// Notes a look, and returns the time in which the process did not run.
    fn look(&mut self, now: Instant) -> Duration {
        if let Some(seen) = &mut self.seen {
            let gap = now.saturating_duration_since(*seen);
            if gap > STALL {
                self.asleep += gap - TICK;
            }
            *seen = now.max(*seen);
        }
        self.asleep
    }
}

impl Awake {
    /// Starts the clock, which looks until the drain begins. From then on all time counts.
    pub fn start(drain: &Drain) -> Self {
        let awake = Self::new(Instant::now());
        let state = (Looking(awake.clone()), drain.token());
        drain.supervise("awake", state, |(looking, leaving)| Box::pin(looking.until(leaving)));
        awake
    }

    fn new(now: Instant) -> Self {
        Self { count: Arc::new(Mutex::new(Count { seen: Some(now), asleep: Duration::ZERO })) }
    }

    /// Returns the time in which the process has not run since the start of this clock. It never decreases.
    pub fn asleep(&self) -> Duration {
        self.look().1
    }

    /// Returns the present moment of this clock. It can be compared only with other moments of this clock.
    pub fn now(&self) -> Instant {
        let (now, asleep) = self.look();
        now.checked_sub(asleep).unwrap_or(now)
    }

    fn look(&self) -> (Instant, Duration) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that looks are in order.
        let now = Instant::now();
        (now, count.look(now))
    }

    /// Converts a moment of this clock into real time, if the process runs until then.
    pub fn real(&self, moment: Instant) -> Instant {
        moment + self.asleep()
    }

    /// Waits for a moment of this clock.
    pub async fn sleep_until(&self, moment: Instant) {
        while self.now() < moment {
            sleep_until(self.real(moment)).await;
        }
    }

    /// Waits for a moment of this clock; without a moment, for ever.
    pub async fn sleep_until_some(&self, moment: Option<Instant>) {
        match moment {
            Some(moment) => self.sleep_until(moment).await,
            None => std::future::pending().await,
        }
    }

    /// Waits for a future for a time of this clock.
    pub fn timeout<F: Future>(&self, patience: Duration, future: F) -> Timeout<'_, F> {
        self.timeout_at(self.now() + patience, future)
    }

    /// Waits for a future until a moment of this clock.
    pub fn timeout_at<F: Future>(&self, moment: Instant, future: F) -> Timeout<'_, F> {
        Timeout { future, timer: sleep_until(self.real(moment)), moment, awake: self }
    }
}

/// A future did not finish in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was not done in time")]
pub struct Late;

pin_project! {
    /// The future of [`Awake::timeout`]. An async function would hold the inner future twice.
    #[derive(Debug)]
    pub struct Timeout<'a, F> {
        #[pin]
        future: F,
        #[pin]
        timer: Sleep,
        moment: Instant,
        awake: &'a Awake,
    }
}

impl<F: Future> Future for Timeout<'_, F> {
    type Output = Result<F::Output, Late>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(output) = this.future.poll(context) {
            return Poll::Ready(Ok(output));
        }
        loop {
            std::task::ready!(this.timer.as_mut().poll(context));
            if this.awake.now() >= *this.moment {
                return Poll::Ready(Err(Late));
            }
            this.timer.as_mut().reset(this.awake.real(*this.moment));
        }
    }
}

/// Lets all time count once the clock looks no longer, so that no wait lasts for ever.
struct Looking(Awake);

impl Looking {
    async fn until(&self, leaving: &CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => drop(self.0.asleep()),
                () = leaving.cancelled() => return,
            }
        }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.count.lock().unwrap_or_else(PoisonError::into_inner).seen = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[tokio::test(start_paused = true)]
    async fn time_counts_while_the_process_runs() {
        let drain = Drain::new();
        let awake = Awake::start(&drain);
        let (began, patience) = (Instant::now(), Duration::from_secs(60));
        let never = std::future::pending::<()>();
        assert!(awake.timeout(patience, never).await.is_err());
        assert_eq!((began.elapsed(), awake.asleep()), (patience, Duration::ZERO));
        drain.begin();
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_when_the_process_stops_has_its_time_when_it_goes_on() {
        let drain = Drain::new();
        let awake = Awake::start(&drain);
        let (began, patience, pause) = (Instant::now(), Duration::from_secs(2), Duration::from_secs(3_600));
        let mut wait = std::pin::pin!(awake.timeout(patience, std::future::pending::<()>()));
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The clock jumps before anybody is woken, as when a process is stopped.
        tokio::time::advance(pause).await;
        let look = std::future::poll_fn(|context| Poll::Ready(wait.as_mut().poll(context).is_pending()));
        assert!(look.await);
        assert!(awake.now() - began <= Duration::from_secs(1) + STALL, "before anybody looked");
        assert!(wait.await.is_err());
        let waited = began.elapsed() - pause;
        assert!(waited >= patience - TICK && waited <= patience + TICK, "{waited:?}");
        let before = awake.now();
        awake.sleep_until(before + patience).await;
        assert_eq!(awake.now() - before, patience);
        drain.begin();
    }

    #[tokio::test(start_paused = true)]
    async fn when_nobody_looks_any_more_waits_end() {
        let drain = Drain::new();
        let awake = Awake::start(&drain);
        assert_eq!(drain.finish(TICK).await, 0);
        let (began, patience) = (Instant::now(), Duration::from_secs(60));
        assert!(awake.timeout(patience, std::future::pending::<()>()).await.is_err());
        assert!(began.elapsed() <= patience + TICK);
    }

    #[test]
    fn waiting_costs_little_more_than_what_is_waited_for() {
        let large = async {
            let bytes = [1_u8; 4096];
            std::future::pending::<()>().await;
            bytes
        };
        let size = size_of_val(&large);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        let awake = Awake::new(Instant::now());
        assert!(size_of_val(&awake.timeout(TICK, large)) < size + 512);
    }

    proptest! {
        /// Against the definition: each gap between looks counts whole, or as a tick if it is too long.
        #[test]
        fn the_time_asleep_is_that_of_the_late_looks(gaps in prop::collection::vec(0_u64..1_000, 1..50)) {
            let mut now = Instant::now();
            let (mut count, mut wanted) = (Count { seen: Some(now), asleep: Duration::ZERO }, Duration::ZERO);
            for gap in gaps {
                let gap = Duration::from_millis(gap);
                now += gap;
                wanted += if gap > STALL { gap - TICK } else { Duration::ZERO };
                prop_assert_eq!(count.look(now), wanted);
                // A look that another thread had taken just before changes nothing.
                prop_assert_eq!(count.look(now - gap / 2), wanted);
            }
        }
    }
}
