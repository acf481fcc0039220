//! The clock that streams go by: it never jumps, whatever becomes of the system's.
//!
//! It begins with the time of day at its start and goes on by elapsed time, the time in which the machine was suspended
//! included. Ages, the duplicate window and every wait are differences of this clock, so a step of the system's clock moves
//! none of them. What is told and what is kept is in the time of day: the two differ by an [`Offset`].

use std::time::Duration;
#[cfg(not(target_os = "linux"))]
use std::time::Instant;

use super::time;

/// A time of day before this, 2026-01-01, means that the clock was never set: a machine without a battery begins in 1970.
const SET: u64 = 1_767_225_600_000_000_000;
/// A difference below this, in nanoseconds, is no step: clocks are read one after the other, and slewed.
const STEP: u64 = 1_000_000_000;
/// Two clocks that were read with more than this between them, in nanoseconds, say nothing about each other.
const APART: u64 = 100_000_000;

/// A clock that begins now.
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

    /// Nanoseconds since 1970 by this clock. Never less than before.
    pub(crate) fn now(&self) -> u64 {
        let elapsed = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.base.saturating_add(elapsed)
    }

    /// Reads both clocks. Returns nothing if the time of day is not set, or if the process stood still while the two
    /// clocks were read.
    pub(crate) fn look(&self) -> Option<Reading> {
        let (before, wall, after) = (self.now(), wall(), self.now());
        (after - before <= APART).then_some(Reading { now: after, wall: wall? })
    }
}

/// Two clocks that were read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The clock of the streams.
    pub(crate) now: u64,
    /// The time of day.
    pub(crate) wall: u64,
}

/// The time of day, in nanoseconds since 1970; none: it was never set.
pub(crate) fn wall() -> Option<u64> {
    Some(time::now()).filter(|now| *now >= SET)
}

/// By how much the time of day is ahead of the clock of the streams, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offset(i64);

impl Offset {
    /// Follows the time of day, and tells by how much it was set if that was a step.
    pub(crate) fn follow(&mut self, Reading { now, wall }: Reading) -> Option<i64> {
        let by = i64::try_from(i128::from(wall) - i128::from(self.wall(now))).ok()?;
        if by.unsigned_abs() < STEP {
            return None;
        }
        self.0 = self.0.saturating_add(by);
        Some(by)
    }

    /// The time of day at a time of the streams' clock.
    pub(crate) fn wall(self, steady: u64) -> u64 {
        steady.saturating_add_signed(self.0)
    }

    /// The time of the streams' clock at a time of day.
    pub(crate) fn steady(self, wall: u64) -> u64 {
        wall.saturating_add_signed(self.0.saturating_neg())
    }
}

/// A step in words: whole seconds, and which way.
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

/// A moment of the clock that never goes back; elsewhere it may stand still while the machine is suspended.
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
