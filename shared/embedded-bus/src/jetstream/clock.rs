//! The clock of the streams, which never jumps, whatever happens to the system's clock.
//!
//! The clock begins with the time of day and goes on by elapsed time, including the time in which the machine
//! was suspended. Ages, the duplicate window and every wait are differences of this clock, so a step of the
//! system's clock moves none of them. Times in answers and in the store are in the time of day, which differs
//! from this clock by an [`Offset`].

use std::time::Duration;
#[cfg(not(target_os = "linux"))]
use std::time::Instant;

use super::time;

/// A time of day before 2026-01-01 means that the clock was never set: a machine without a battery begins in
/// 1970.
const SET: u64 = 1_767_225_600_000_000_000;
/// A difference below this, in nanoseconds, is no step: clocks are read one after the other, and slewed.
const STEP: u64 = 1_000_000_000;
/// Two clocks read further apart than this, in nanoseconds, can't be compared.
const APART: u64 = 100_000_000;

/// The clock of the streams.
#[derive(Debug)]
pub(crate) struct Clock {
    base: u64,
    begun: Moment,
}

impl Clock {
    /// Begins with this time, in nanoseconds since 1970.
    pub(crate) fn starting_at(base: u64) -> Self {
        Self { base, begun: Moment::now() }
    }

    /// Returns nanoseconds since 1970 by this clock, never less than before.
    pub(crate) fn now(&self) -> u64 {
        let elapsed = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.base.saturating_add(elapsed)
    }

    /// Reads both clocks. Returns nothing if the time of day is not set, or if the process stood still
    /// between the two readings.
    pub(crate) fn look(&self) -> Option<Reading> {
        let (before, wall, after) = (self.now(), wall(), self.now());
        (after - before <= APART).then_some(Reading { now: after, wall: wall? })
    }
}

/// Two clocks that were read together, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The clock of the streams.
    pub(crate) now: u64,
    /// The time of day.
    pub(crate) wall: u64,
}

/// Returns the time of day in nanoseconds since 1970; `None` if it was never set.
pub(crate) fn wall() -> Option<u64> {
    Some(time::now()).filter(|now| *now >= SET)
}

/// The lead of the time of day over the clock of the streams, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offset(i64);

impl Offset {
    /// Follows the time of day. Returns by how much it was set, if that was a step.
    pub(crate) fn follow(&mut self, Reading { now, wall }: Reading) -> Option<i64> {
        let by = i64::try_from(i128::from(wall) - i128::from(self.wall(now))).ok()?;
        if by.unsigned_abs() < STEP {
            return None;
        }
        self.0 = self.0.saturating_add(by);
        Some(by)
    }

    /// Converts a time of the streams' clock to the time of day.
    pub(crate) fn wall(self, steady: u64) -> u64 {
        steady.saturating_add_signed(self.0)
    }

    /// Converts a time of day to a time of the streams' clock.
    pub(crate) fn steady(self, wall: u64) -> u64 {
        wall.saturating_add_signed(self.0.saturating_neg())
    }
}

/// Describes a step in words: whole seconds, and the direction.
pub(crate) fn words(by: i64) -> String {
    let length = humantime::format_duration(Duration::from_secs(by.unsigned_abs() / STEP));
    format!("{length} {}", if by < 0 { "back" } else { "ahead" })
}

/// A moment of a clock that goes on while the machine is suspended.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug)]
struct Moment(Duration);

#[cfg(target_os = "linux")]
impl Moment {
    fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Self(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default()))
    }

    fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

/// A moment of a monotonic clock. It may stand still while the machine is suspended.
#[cfg(not(target_os = "linux"))]
#[derive(Clone, Copy, Debug)]
struct Moment(Instant);

#[cfg(not(target_os = "linux"))]
impl Moment {
    fn now() -> Self {
        Self(Instant::now())
    }

    fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn it_begins_where_it_is_told_to_and_never_goes_back() {
        let clock = Clock::starting_at(SET);
        let mut last = clock.now();
        assert!((SET..SET + 60 * STEP).contains(&last), "{last}");
        for _ in 0..1_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        let Reading { now, wall } = clock.look().expect("the clock of whoever runs this is set");
        assert!(wall >= SET && now >= last);
    }

    #[test]
    fn less_than_a_second_is_no_step_until_it_has_become_one() {
        let mut offset = Offset::default();
        let now = SET;
        for by in [1, -1, SECOND - 1, 1 - SECOND] {
            assert_eq!(offset.follow(Reading { now, wall: now.saturating_add_signed(by) }), None, "{by}");
            assert_eq!(offset, Offset::default());
        }
        for by in [SECOND, -SECOND, 3_600 * SECOND, -86_400 * SECOND] {
            let wall = offset.wall(now).saturating_add_signed(by);
            assert_eq!(offset.follow(Reading { now, wall }), Some(by));
            assert_eq!((offset.wall(now), offset.steady(wall)), (wall, now));
            assert_eq!(offset.follow(Reading { now: now + 5, wall: wall + 7 }), None, "it is followed once");
        }
    }

    #[test]
    fn a_step_is_told_in_words() {
        assert_eq!(words(3_602 * SECOND + 5), "1h 2s ahead");
        assert_eq!(words(-86_400 * SECOND), "1day back");
    }
}
