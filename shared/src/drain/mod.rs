//! Leaving in order: a signal to leave, and the tasks to wait for.
//!
//! Every task of a part is spawned on its drain, so nothing outlives the part, and says what its end means
//! ([`tasks`](crate::tasks)). A drain is a value, not a global: two edges in one process leave independently.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

use crate::tasks::{Backoff, Ended, Failure, Watch, outcome};

/// The signal to leave, and the tasks of a part. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Drain {
    leaving: CancellationToken,
    tasks: TaskTracker,
    watch: Watch,
}

impl Default for Drain {
    fn default() -> Self {
        let leaving = CancellationToken::new();
        Self { watch: Watch::new(leaving.clone()), leaving, tasks: TaskTracker::new() }
    }
}

impl Drain {
    /// Makes a drain that has not begun. It begins by itself when a needed task is lost.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes another drain of the same process, with tasks of its own. If a needed one of them is lost, the
    /// first drain begins, since the whole process leaves.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self { leaving: CancellationToken::new(), tasks: TaskTracker::new(), watch: self.watch.clone() }
    }

    /// Runs one of many similar tasks, such as one per connection. The task must end by itself once the drain
    /// has begun, and [`Drain::finish`] waits for it. A panic ends this task only, and is logged and counted.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let watch = self.watch.clone();
        // An async block would hold the task twice, and there is one task per session.
        self.tasks.spawn(AssertUnwindSafe(task).catch_unwind().map(move |ended| {
            if let Err(panic) = ended {
                watch.on_panic(name, &*panic);
            }
        }));
    }

    /// Runs a task that may end, but must not panic halfway: then the process leaves.
    pub fn spawn_whole<F>(&self, name: &'static str, task: F)
    where
        F: Future + Send + 'static,
    {
        let watch = self.watch.clone();
        self.tasks.spawn(AssertUnwindSafe(task).catch_unwind().map(move |ended| {
            if let Err(panic) = ended {
                watch.on_loss(name, Ended::panic(&*panic));
            }
        }));
    }

    /// Runs a task that must not end before the drain begins: otherwise the process leaves.
    pub fn spawn_vital<F>(&self, name: &'static str, task: F)
    where
        F: Future + Send + 'static,
    {
        self.tasks.spawn(self.vital(name, task));
    }

    /// Runs a vital task that goes on until the process ends: [`Drain::finish`] does not wait for it.
    pub fn spawn_beyond<F>(&self, name: &'static str, task: F)
    where
        F: Future + Send + 'static,
    {
        let vital = self.vital(name, task);
        #[expect(clippy::disallowed_methods, reason = "it ends with the process")]
        tokio::spawn(vital);
    }

    fn vital<F>(&self, name: &'static str, task: F) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Future + Send + 'static,
    {
        let (watch, leaving) = (self.watch.clone(), self.leaving.clone());
        async move {
            let ended = outcome(watch.kills().mortal(name, task)).await;
            if ended.panicked() || !(leaving.is_cancelled() || watch.leaves()) {
                watch.on_loss(name, ended);
            }
        }
    }

    /// Runs a task that must not end before the drain begins. If the task ends, it is begun anew with the
    /// state that it had; if it ends again and again, the process leaves.
    pub fn supervise<S: Send + 'static>(
        &self,
        name: &'static str,
        state: S,
        run: impl for<'a> FnMut(&'a mut S) -> BoxFuture<'a, ()> + Send + 'static,
    ) {
        self.tasks.spawn(self.clone().keep_alive(name, state, run, true));
    }

    /// Runs a task that the process can do without: the task is begun anew however often it ends.
    pub fn supervise_useful<S: Send + 'static>(
        &self,
        name: &'static str,
        state: S,
        run: impl for<'a> FnMut(&'a mut S) -> BoxFuture<'a, ()> + Send + 'static,
    ) {
        self.tasks.spawn(self.clone().keep_alive(name, state, run, false));
    }

    async fn keep_alive<S: Send + 'static>(
        self,
        name: &'static str,
        mut state: S,
        mut run: impl for<'a> FnMut(&'a mut S) -> BoxFuture<'a, ()> + Send + 'static,
        bounded: bool,
    ) {
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let ended = outcome(self.watch.kills().mortal(name, run(&mut state))).await;
            let leaving = self.has_begun() || self.watch.leaves();
            if leaving && !ended.panicked() {
                return;
            }
            match backoff.after(began.elapsed(), bounded) {
                None => return self.watch.on_loss(name, ended),
                Some(pause) => {
                    self.watch.on_end(name, &ended, pause);
                    if leaving {
                        return;
                    }
                    // Cut short by leaving: the task may have something to do then.
                    tokio::select! { () = sleep(pause) => {}, () = self.begun() => {} }
                }
            }
        }
    }

    /// Adds a check that runs after each panic of a single task. If it returns a name, the panic left that
    /// state half changed, messages depend on it, and the process leaves.
    pub fn on_panic(&self, check: impl Fn() -> Option<&'static str> + Send + Sync + 'static) {
        self.watch.add_check(Box::new(check));
    }

    /// Begins to leave: tells all tasks.
    pub fn begin(&self) {
        self.leaving.cancel();
    }

    /// Returns whether the drain has begun.
    pub fn has_begun(&self) -> bool {
        self.leaving.is_cancelled()
    }

    /// Waits until the drain begins.
    pub fn begun(&self) -> WaitForCancellationFuture<'_> {
        self.leaving.cancelled()
    }

    /// Returns the signal to leave as a token.
    pub fn token(&self) -> CancellationToken {
        self.leaving.clone()
    }

    /// Returns the number of running tasks.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Returns why the process leaves, if a needed task was lost.
    pub fn failure(&self) -> Option<Failure> {
        self.watch.failure().cloned()
    }

    /// Registers the counter of ended tasks, of all drains of this process.
    pub fn register(&self, registry: &mut Registry) {
        self.watch.register(registry);
    }

    /// Begins to leave, and waits until all tasks have ended, at most `grace`. Returns the number of the
    /// others.
    pub async fn finish(&self, grace: Duration) -> usize {
        self.begin();
        self.tasks.close();
        let _ = tokio::time::timeout(grace, self.tasks.wait()).await;
        self.tasks.len()
    }

    /// Makes one task with this name panic, or the next task with it, for tests. Returns false if there was
    /// none, and always in a released program.
    pub fn kill(&self, name: &str) -> bool {
        self.watch.kills().kill(name)
    }

    /// Runs `act` when [`Drain::kill`] names this name, which is no task. Never in a released program.
    pub fn on_kill(&self, name: &'static str, act: impl FnOnce() + Send + 'static) {
        if cfg!(debug_assertions) {
            let (bell, leaving) = (self.watch.kills().bell(name), self.leaving.clone());
            self.tasks.spawn(async move {
                tokio::select! { () = bell.notified() => act(), () = leaving.cancelled() => {} }
            });
        }
    }

    /// Returns the names of the vital and supervised tasks that were begun, in a debug build.
    pub fn mortals(&self) -> Vec<&'static str> {
        self.watch.kills().names()
    }
}

#[cfg(test)]
mod tests;
