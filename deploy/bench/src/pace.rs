//! Decides when publishing connections may send: on a schedule (open loop), or after each answer (closed
//! loop).
//!
//! The schedule has a thread of its own, because the timers of the runtime have a resolution of one
//! millisecond. The lateness of that thread is recorded by itself, since the tool causes it and not the
//! server.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock;
use crate::latency::{Latency, Summary};
use crate::schedule::Schedule;

/// The shortest sleep of the pacing thread, in nanoseconds. Messages that fall due during a sleep go out
/// together.
const NAP: u64 = 50_000;
/// The longest sleep, in nanoseconds, so that the thread ends soon after a run was stopped.
const LONG_NAP: u64 = 20_000_000;

/// The permission to send one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The number of the message in the run; the first is 0.
    pub(crate) number: u64,
    /// When the message is due, in nanoseconds of the run's clock.
    pub(crate) intended: u64,
}

/// Hands out tickets to all publishing connections.
#[derive(Debug)]
pub(crate) struct Pace {
    kind: Kind,
    next: AtomicU64,
    over: AtomicBool,
}

#[derive(Debug)]
enum Kind {
    Open { schedule: Schedule, due: Semaphore, lag: Mutex<Latency> },
    Closed { begin: u64, end: u64 },
}

impl Pace {
    /// Starts an open loop: a thread hands out tickets at a constant rate. `takers`: how many connections may
    /// wait for a ticket at the same time.
    pub(crate) fn open(schedule: Schedule, takers: usize) -> Arc<Self> {
        let kind = Kind::Open { schedule, due: Semaphore::new(0), lag: Mutex::new(Latency::new()) };
        let pace = Arc::new(Self { kind, next: AtomicU64::new(0), over: AtomicBool::new(false) });
        let shared = Arc::clone(&pace);
        std::thread::spawn(move || shared.hand_out(takers));
        pace
    }

    /// Starts a closed loop: a ticket is there whenever one is asked for, from `begin` to `end`.
    pub(crate) fn closed(begin: u64, end: u64) -> Arc<Self> {
        Arc::new(Self {
            kind: Kind::Closed { begin, end },
            next: AtomicU64::new(0),
            over: AtomicBool::new(false),
        })
    }

    /// Returns whether this is an open loop, whose tickets come whatever the server does.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.kind, Kind::Open { .. })
    }

    /// Hands out the tickets of an open loop; runs in a thread of its own.
    fn hand_out(&self, takers: usize) {
        let Kind::Open { schedule, due, lag } = &self.kind else { return };
        let mut handed = 0;
        while handed < schedule.total() && !self.over.load(Ordering::Relaxed) {
            let now = clock::now();
            let ready = schedule.due(now);
            if ready > handed {
                let mut lag = lag.lock().unwrap_or_else(PoisonError::into_inner);
                (handed..ready).for_each(|number| lag.record(now.saturating_sub(schedule.intended(number))));
                // The permits can't overflow the semaphore: there are only as many as messages.
                due.add_permits(usize::try_from(ready - handed).unwrap_or(0));
                handed = ready;
            }
            if handed < schedule.total() {
                let nap = schedule.intended(handed).saturating_sub(clock::now()).clamp(NAP, LONG_NAP);
                std::thread::sleep(Duration::from_nanos(nap));
            }
        }
        // One more permit per taker: every waiting connection wakes up and learns that there are no more
        // tickets.
        due.add_permits(takers);
    }

    /// Waits for the next ticket. `None`: there are no more. Dropping the future loses nothing.
    pub(crate) async fn take(&self) -> Option<Ticket> {
        match &self.kind {
            Kind::Open { due, .. } => due.acquire().await.ok()?.forget(),
            Kind::Closed { begin, .. } => {
                let early = begin.saturating_sub(clock::now());
                if early > 0 {
                    tokio::time::sleep(Duration::from_nanos(early)).await;
                }
            }
        }
        self.number()
    }

    /// Returns a ticket if one is due already.
    pub(crate) fn take_now(&self) -> Option<Ticket> {
        if let Kind::Open { due, .. } = &self.kind {
            due.try_acquire().ok()?.forget();
        }
        self.number()
    }

    fn number(&self) -> Option<Ticket> {
        if self.over.load(Ordering::Relaxed) {
            return None;
        }
        match &self.kind {
            Kind::Open { schedule, due, .. } => {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                if number >= schedule.total() {
                    // Passes the permit on to the next connection that waits.
                    due.add_permits(1);
                    return None;
                }
                Some(Ticket { number, intended: schedule.intended(number) })
            }
            Kind::Closed { end, .. } => {
                let now = clock::now();
                let number = || self.next.fetch_add(1, Ordering::Relaxed);
                (now < *end).then(|| Ticket { number: number(), intended: now })
            }
        }
    }

    /// Ends the run early.
    pub(crate) fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
        if let Kind::Open { due, .. } = &self.kind {
            due.close();
        }
    }

    /// Returns the due times of all messages that fell due by `now` and whose tickets no connection took.
    pub(crate) fn untaken(&self, now: u64) -> Vec<u64> {
        match &self.kind {
            Kind::Open { schedule, .. } => {
                let taken = self.next.load(Ordering::Relaxed);
                (taken..schedule.due(now)).map(|number| schedule.intended(number)).collect()
            }
            Kind::Closed { .. } => Vec::new(),
        }
    }

    /// Returns how late the tool itself handed out tickets.
    pub(crate) fn lag(&self) -> Summary {
        match &self.kind {
            Kind::Open { lag, .. } => lag.lock().unwrap_or_else(PoisonError::into_inner).summary(),
            Kind::Closed { .. } => Summary::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_message_of_a_schedule_is_handed_out_once_and_then_all_takers_end() {
        let pace = Pace::open(Schedule::new(clock::now(), 50_000, Duration::from_millis(20)), 3);
        let take_all = async || {
            let mut taken = Vec::new();
            while let Some(ticket) = pace.take().await {
                assert!(ticket.intended <= clock::now(), "never early");
                taken.push(ticket.number);
            }
            taken
        };
        let (a, b, c) = tokio::join!(take_all(), take_all(), take_all());
        let mut all = [a, b, c].concat();
        all.sort_unstable();
        assert_eq!(all, (0..1_000).collect::<Vec<_>>());
        assert_eq!(pace.lag().count, 1_000);
        assert!(pace.untaken(u64::MAX).is_empty());
    }

    #[tokio::test]
    async fn a_connection_that_waits_for_a_ticket_learns_of_the_end() {
        let late = Schedule::new(clock::now() + 3_600 * clock::SECOND, 1, Duration::from_secs(5));
        let pace = Pace::open(late, 1);
        let (ticket, ()) = tokio::join!(pace.take(), async { pace.stop() });
        assert_eq!(ticket, None);
        assert_eq!(pace.take().await, None);
    }

    #[tokio::test]
    async fn tickets_that_fell_due_and_were_not_taken_are_known() {
        let schedule = Schedule::new(0, 10, Duration::from_secs(1));
        let pace = Pace::open(schedule, 1);
        assert_eq!(pace.take().await.map(|ticket| ticket.number), Some(0));
        pace.stop();
        let untaken = pace.untaken(clock::SECOND / 2);
        assert_eq!(untaken, (1..=5).map(|number| schedule.intended(number)).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_closed_loop_ends_with_its_time() {
        let begin = clock::now() + clock::SECOND / 100;
        let pace = Pace::closed(begin, begin + 3_600 * clock::SECOND);
        assert!(pace.take().await.is_some_and(|ticket| ticket.number == 0 && ticket.intended >= begin));
        assert_eq!(pace.take().await.map(|ticket| ticket.number), Some(1));
        assert_eq!(pace.take_now().map(|ticket| ticket.number), Some(2));
        assert_eq!(Pace::closed(0, clock::now()).take().await, None);
    }
}
