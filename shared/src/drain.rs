//! Leaving in order: a signal to leave, and the tasks to wait for.
//!
//! Every task of a part is spawned on its drain, so nothing outlives the part. A drain is a value, not a
//! global: two edges in one process leave independently.

use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

/// A part's way out. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    leaving: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// A drain that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a task that [`Drain::finish`] waits for. It must end by itself once the drain has begun.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// Tells everyone to leave.
    pub fn begin(&self) {
        self.leaving.cancel();
    }

    /// Whether leaving has begun.
    pub fn has_begun(&self) -> bool {
        self.leaving.is_cancelled()
    }

    /// Resolves when leaving begins.
    pub fn begun(&self) -> WaitForCancellationFuture<'_> {
        self.leaving.cancelled()
    }

    /// The signal alone, for code that takes a token.
    pub fn token(&self) -> CancellationToken {
        self.leaving.clone()
    }

    /// How many tasks still run.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Begins, and waits until all tasks ended, at most `grace`. Returns how many did not.
    pub async fn finish(&self, grace: Duration) -> usize {
        self.begin();
        self.tasks.close();
        let _ = tokio::time::timeout(grace, self.tasks.wait()).await;
        self.tasks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn finishing_waits_for_the_tasks_but_not_longer_than_the_grace() {
        let drain = Drain::new();
        let polite = drain.clone();
        drain.spawn(async move { polite.begun().await });
        assert_eq!(drain.finish(Duration::from_secs(5)).await, 0);

        let drain = Drain::new();
        drain.spawn(std::future::pending::<()>());
        assert_eq!(drain.finish(Duration::from_secs(5)).await, 1);
    }
}
