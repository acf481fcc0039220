//! The end of tasks: panics, and ends of tasks that a part needs.
//!
//! A panic ends its task, and the runtime tells nobody. So each task says what its end means:
//!
//! | kind | may end | after a panic |
//! | --- | --- | --- |
//! | of one connection or request ([`Drain::spawn`](crate::drain::Drain::spawn)) | yes | nothing else ends |
//! | must not stop halfway ([`Drain::spawn_whole`](crate::drain::Drain::spawn_whole)) | yes | the process leaves |
//! | vital ([`Drain::spawn_vital`](crate::drain::Drain::spawn_vital)) | no | the process leaves |
//! | supervised ([`Drain::supervise`](crate::drain::Drain::supervise)) | no | it is begun anew; if that does not help, the process leaves |
//! | useful ([`Drain::supervise_useful`](crate::drain::Drain::supervise_useful)) | no | it is begun anew, however often |
//!
//! Every such end is an error in the log and one more in `mc_task_ends_total`. A process that leaves for want
//! of a task is not ready from then on, leaves in order as after SIGTERM, and has an exit code that makes its
//! supervisor start it anew. Locks go on after a panic; where a half-made change under one of them could lose
//! messages, a part says so with [`Drain::on_panic`](crate::drain::Drain::on_panic), and the process leaves.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use crate::faults::Kills;

/// The first and the longest pause before a supervised task is begun anew.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// How long a task must have run to begin with the first pause again.
const STEADY: Duration = Duration::from_secs(60);
/// The number of ends, each within [`STEADY`], at which a supervised task is given up.
const MOST_ENDS: u32 = 5;

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Panicked,
    /// The task returned before the drain began.
    Returned,
}

impl How {
    fn label(self) -> &'static str {
        match self {
            Self::Panicked => "panicked",
            Self::Returned => "returned",
        }
    }
}

/// Why a process leaves although nobody asked it to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the task \"{task}\" {} and is needed: this process leaves, to be started anew ({why})", .how.label())]
pub struct Failure {
    task: &'static str,
    how: How,
    why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct End {
    task: &'static str,
    how: &'static str,
}

/// Returns the state that a panic left half changed, if any.
type Check = Box<dyn Fn() -> Option<&'static str> + Send + Sync>;

/// The ends of tasks, shared by all drains of one process.
#[derive(Clone)]
pub(crate) struct Watch {
    /// Cancelled to make the process leave.
    leave: CancellationToken,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    ends: Family<End, Counter>,
    failure: OnceLock<Failure>,
    checks: Mutex<Vec<Check>>,
    kills: Kills,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("failure", &self.inner.failure.get()).finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn new(leave: CancellationToken) -> Self {
        Self { leave, inner: Arc::default() }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Tasks that panicked, or ended although their part needs them, by how";
        registry.register("mc_task_ends", help, self.inner.ends.clone());
    }

    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.inner.failure.get()
    }

    /// Returns whether the process leaves.
    pub(crate) fn leaves(&self) -> bool {
        self.leave.is_cancelled()
    }

    pub(crate) fn kills(&self) -> &Kills {
        &self.inner.kills
    }

    pub(crate) fn add_check(&self, check: Check) {
        self.checks().push(check);
    }

    fn checks(&self) -> MutexGuard<'_, Vec<Check>> {
        self.inner.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a panic that ends one task only.
    pub(crate) fn on_panic(&self, task: &'static str, panic: &(dyn Any + Send)) {
        let why = text(panic);
        self.count(task, How::Panicked);
        tracing::error!(task, why, "a task panicked; what it served has ended, everything else goes on");
        self.check(task);
    }

    /// Notes the end of a supervised task that is begun anew.
    pub(crate) fn on_end(&self, task: &'static str, end: &Ended, pause: Duration) {
        self.count(task, end.how);
        tracing::error!(
            task,
            how = end.how.label(),
            why = end.why,
            pause_ms = pause.as_millis() as u64,
            "a background task ended and is begun anew"
        );
        if end.how == How::Panicked {
            self.check(task);
        }
    }

    /// Notes the end of a task without which the process can't go on.
    pub(crate) fn on_loss(&self, task: &'static str, end: Ended) {
        self.count(task, end.how);
        self.fail(Failure { task, how: end.how, why: end.why });
    }

    fn check(&self, task: &'static str) {
        let broken = self.checks().iter().find_map(|check| check());
        if let Some(what) = broken {
            self.fail(Failure { task, how: How::Panicked, why: format!("it left {what} half changed") });
        }
    }

    fn count(&self, task: &'static str, how: How) {
        self.inner.ends.get_or_create(&End { task, how: how.label() }).inc();
    }

    fn fail(&self, failure: Failure) {
        tracing::error!(
            task = failure.task,
            how = failure.how.label(),
            why = failure.why,
            "a task ended that this process needs; it leaves, to be started anew"
        );
        // The first is the cause of the others.
        let _ = self.inner.failure.set(failure);
        self.leave.cancel();
    }
}

/// The unwanted end of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    how: How,
    why: String,
}

impl Ended {
    pub(crate) fn panic(panic: &(dyn Any + Send)) -> Self {
        Self { how: How::Panicked, why: text(panic) }
    }

    pub(crate) fn panicked(&self) -> bool {
        self.how == How::Panicked
    }
}

/// Runs a task to its end, panics included.
pub(crate) async fn outcome(task: impl Future) -> Ended {
    match AssertUnwindSafe(task).catch_unwind().await {
        Ok(_) => Ended { how: How::Returned, why: "it returned".to_owned() },
        Err(panic) => Ended::panic(&*panic),
    }
}

/// Runs work that may wait for a disk on a thread of its own. A panic there continues in the task that waits.
pub async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime ends, and the waiting task with it.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// Returns the text of a panic.
fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(ToOwned::to_owned);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without text".to_owned())
}

/// Decides when a supervised task is begun anew. Pure.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    /// Ends in a row, each soon after its beginning.
    ends: u32,
}

impl Backoff {
    /// Notes an end of a task that `ran` for so long, and returns the pause. `None`: the task is given up.
    pub(crate) fn after(&mut self, ran: Duration, bounded: bool) -> Option<Duration> {
        if ran >= STEADY {
            self.ends = 0;
        }
        self.ends = self.ends.saturating_add(1);
        if bounded && self.ends >= MOST_ENDS {
            return None;
        }
        Some(FIRST_PAUSE.saturating_mul(1 << (self.ends - 1).min(16)).min(LAST_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_ends_again_and_again_is_given_up_and_one_that_ran_for_long_is_not() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..5).map(|_| backoff.after(Duration::ZERO, true)).collect();
        let expected = [100, 200, 400, 800].map(|ms| Some(Duration::from_millis(ms)));
        assert_eq!((&pauses[..4], pauses[4]), (&expected[..], None));
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            assert_eq!(backoff.after(STEADY, true), Some(FIRST_PAUSE));
        }
        let last = (0..100).map(|_| backoff.after(Duration::ZERO, false)).last();
        assert_eq!(last, Some(Some(LAST_PAUSE)), "one that is only useful is begun anew for ever");
    }
}
