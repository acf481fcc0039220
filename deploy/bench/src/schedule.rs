//! The due times of the messages of an open loop: at a constant rate, whatever the server does.
//!
//! Latency counts from these times. A server that stalls for a second at 1,000 messages per second thus shows
//! a thousand slow messages, not one (coordinated omission). Pure: reads no clock.

use std::time::Duration;

use crate::clock::{SECOND, nanoseconds};

/// A constant rate from a start on, for a fixed number of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    start: u64,
    rate: u64,
    total: u64,
}

impl Schedule {
    /// Makes a schedule of `rate` messages per second (at least one) for `duration`, from `start` on, in
    /// nanoseconds.
    pub(crate) fn new(start: u64, rate: u64, duration: Duration) -> Self {
        let rate = rate.max(1);
        let total = u128::from(rate) * u128::from(nanoseconds(duration)) / u128::from(SECOND);
        Self { start, rate, total: u64::try_from(total).unwrap_or(u64::MAX).max(1) }
    }

    /// Returns the number of messages.
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// Returns when message `number` is due, in nanoseconds; the first message has number 0.
    pub(crate) fn intended(&self, number: u64) -> u64 {
        let after = u128::from(number) * u128::from(SECOND) / u128::from(self.rate);
        self.start.saturating_add(u64::try_from(after).unwrap_or(u64::MAX))
    }

    /// Returns how many messages are due at `now`.
    pub(crate) fn due(&self, now: u64) -> u64 {
        let Some(elapsed) = now.checked_sub(self.start) else { return 0 };
        let due = (u128::from(elapsed) + 1) * u128::from(self.rate);
        u64::try_from(due.div_ceil(u128::from(SECOND))).unwrap_or(u64::MAX).min(self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Latency;
    use proptest::prelude::*;

    const MS: u64 = SECOND / 1_000;

    /// Returns when a server answers a message sent at `sent`: after a millisecond, but not during its stall.
    fn answered(sent: u64) -> u64 {
        let stall = 5 * SECOND..6 * SECOND;
        if stall.contains(&sent) { stall.end + MS } else { sent + MS }
    }

    #[test]
    fn a_stall_of_the_server_shows_in_an_open_loop_and_hides_in_a_closed_loop() {
        // Four connections, 1,000 messages per second, ten seconds; the server stalls in the sixth.
        let schedule = Schedule::new(0, 1_000, Duration::from_secs(10));
        let (mut open, mut free) = (Latency::new(), [0_u64; 4]);
        for number in 0..schedule.total() {
            free.sort_unstable();
            let intended = schedule.intended(number);
            let end = answered(intended.max(free[0]));
            free[0] = end;
            open.record(end - intended);
        }
        let (mut closed, mut now) = (Latency::new(), 0);
        while now < 10 * SECOND {
            let end = answered(now);
            closed.record(end - now);
            now = end;
        }
        let (open, closed) = (open.summary(), closed.summary());
        // A tenth of all messages fell due during the stall.
        assert!(open.p99_us > 900_000, "{open:?}");
        assert!(open.p50_us < 2_000, "{open:?}");
        assert!(closed.p99_us < 2_000 && closed.max_us > 900_000, "{closed:?}");
    }

    proptest! {
        #[test]
        fn exactly_the_due_messages_are_not_in_the_future(
            start in 0..1_u64 << 50, rate in 1..1_000_000_u64, after in 0..100 * SECOND,
        ) {
            let schedule = Schedule::new(start, rate, Duration::from_secs(1_000));
            let now = start + after;
            let due = schedule.due(now);
            prop_assert!(due > 0 && schedule.intended(due - 1) <= now);
            prop_assert!(due == schedule.total() || schedule.intended(due) > now);
            prop_assert_eq!(schedule.due(start.wrapping_sub(1).min(start)), u64::from(start == 0));
        }

        #[test]
        fn the_messages_fill_the_duration(rate in 1..1_000_000_u64, seconds in 1..100_u64) {
            let schedule = Schedule::new(7, rate, Duration::from_secs(seconds));
            prop_assert_eq!(schedule.total(), rate * seconds);
            prop_assert_eq!(schedule.intended(schedule.total()), 7 + seconds * SECOND);
        }
    }
}
