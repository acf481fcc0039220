//! The history of channels: streams on the bus, one per partition, that store messages in order for a while.
//!
//! A handle is cheap to clone. Behind it the maintainer creates the streams, and finds out their epochs.
//! Invariants: positions of two epochs are never compared by their sequences; whether a page is whole is
//! decided by what a stream's leader says; a page tells by itself whether messages are missing in it.
//!
//! | module | holds |
//! | --- | --- |
//! | this one | [`History`]: state, epochs, what was seen |
//! | `config` | `[history]`, and the settings of the streams |
//! | `maintainer` | creates the streams, watches them, raises generations |
//! | `position` | [`Epoch`], [`Position`] |
//! | `store`, `read` | storing and erasing; tails and pages |
//! | [`admin`] | what operators do to the streams |

pub mod admin;
mod config;
mod maintainer;
mod position;
mod read;
mod store;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use tokio::sync::{Mutex, Notify, watch};
use tokio::time::Instant;

use crate::awake::Awake;
use crate::bus::Bus;
use crate::bus::jetstream::StreamState;
use crate::drain::Drain;
use crate::ids::Channel;
use crate::subject;

pub use config::{Full, HistoryConfig, MAX_PARTITIONS};
pub use position::{Epoch, NotAPosition, Position};
pub use read::{End, Page, PageLimit, ReadError, StoredMessage};
pub use store::{Erased, StoreError, Stored};

/// Why history can't be used until the maintainer has looked at the streams.
const LOOKING: &str = "the streams of the history are being looked for";

/// The rights of a part over the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Creates missing streams.
    Reader,
    /// Creates missing streams, and gives all of them the configured limits.
    Publisher,
}

/// Whether history can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryState {
    /// Not known yet, or no longer.
    Opening {
        /// The missing thing, in words.
        why: String,
    },
    /// History can be used.
    Ready(Arc<Epochs>),
    /// The streams contradict the configuration of this part, and waiting does not help.
    Mismatch {
        /// The difference, and what to do about it.
        why: String,
    },
}

impl HistoryState {
    /// Returns the epochs, if history can be used.
    pub fn epochs(&self) -> Option<&Arc<Epochs>> {
        match self {
            Self::Ready(epochs) => Some(epochs),
            Self::Opening { .. } | Self::Mismatch { .. } => None,
        }
    }

    /// Returns why history can't be used, if it can't.
    pub fn why_not(&self) -> Option<&str> {
        match self {
            Self::Ready(_) => None,
            Self::Opening { why } | Self::Mismatch { why } => Some(why),
        }
    }
}

/// The present epoch of each partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epochs {
    partitions: Vec<Partition>,
}

/// A partition as its stream describes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partition {
    epoch: Epoch,
    /// The most messages of a channel that are surely all stored: the smallest limit of this epoch.
    smallest_limit: u32,
}

impl Epochs {
    /// Returns the epoch of a partition.
    pub fn of(&self, partition: u32) -> Option<Epoch> {
        self.partitions.get(partition as usize).map(|partition| partition.epoch)
    }
}

/// The history of all channels that have one.
#[derive(Debug, Clone)]
pub struct History {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bus: Bus,
    config: HistoryConfig,
    role: Role,
    state: watch::Sender<HistoryState>,
    partitions: Vec<Shard>,
    silence: read::Silence,
}

/// The state of one partition besides its epoch.
#[derive(Debug, Default)]
struct Shard {
    /// Rung when there is a reason to look at the stream at once.
    look: Notify,
    /// The highest sequence seen in this epoch, in any way.
    seen: AtomicU64,
    /// Whether the stream went back, as far as this part knows.
    went_back: std::sync::Mutex<Option<WentBack>>,
    /// The leader's latest answer, and when it was asked. Held during the question, so that all callers who
    /// wait for an answer share one question.
    fresh: Mutex<Option<(Instant, Partition, StreamState)>>,
}

/// How sure the part is that a stream went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WentBack {
    /// The leader lacks a message at a sequence where one was seen.
    Perhaps { since: Instant },
    /// A new message was given a sequence that had been seen. With replicas, most of them agreed to it.
    Surely,
}

impl Shard {
    fn flag(&self) -> std::sync::MutexGuard<'_, Option<WentBack>> {
        self.went_back.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    /// Begins to create and watch the streams; [`History::state`] tells when history can be used.
    pub fn open(bus: &Bus, config: &HistoryConfig, role: Role, drain: &Drain) -> Self {
        let history = Self::with(bus, config, role);
        let state = (history.clone(), drain.token());
        drain.supervise("history-keeper", state, |(history, leaving)| {
            Box::pin(maintainer::run(history, leaving))
        });
        history
    }

    /// Makes a handle whose streams nobody maintains.
    fn with(bus: &Bus, config: &HistoryConfig, role: Role) -> Self {
        let why = LOOKING.to_owned();
        let inner = Inner {
            bus: bus.clone(),
            config: config.clone(),
            role,
            state: watch::Sender::new(HistoryState::Opening { why }),
            partitions: (0..config.partitions).map(|_| Shard::default()).collect(),
            silence: read::Silence::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the state and its changes. A new epoch is a change.
    pub fn state(&self) -> watch::Receiver<HistoryState> {
        self.inner.state.subscribe()
    }

    /// Returns the number of partitions.
    pub fn partitions(&self) -> u32 {
        self.inner.config.partitions
    }

    /// Returns the configuration.
    pub fn config(&self) -> &HistoryConfig {
        &self.inner.config
    }

    /// Returns the partition of a channel.
    pub fn partition(&self, channel: &Channel) -> u32 {
        subject::partition(channel, self.partitions())
    }

    /// Returns the epoch of a channel's partition; `None` while history can't be used.
    pub fn epoch(&self, channel: &Channel) -> Option<Epoch> {
        let partition = self.partition(channel);
        self.inner.state.borrow().epochs()?.of(partition)
    }

    /// Returns the epoch of a partition; `None` while history can't be used.
    pub fn epoch_of(&self, partition: u32) -> Option<Epoch> {
        self.inner.state.borrow().epochs()?.of(partition)
    }

    /// Notes that a message with this sequence was seen in this epoch, so that a stream that goes back is
    /// noticed.
    pub fn saw(&self, epoch: Epoch, partition: u32, seq: u64) {
        self.in_epoch(epoch, partition, |shard| shard.seen.fetch_max(seq, Ordering::Relaxed));
    }

    /// Sets the state, and forgets in the same step what was seen in another epoch. Returns the state before,
    /// if it was different.
    fn tell(&self, state: HistoryState) -> Option<HistoryState> {
        let mut told = None;
        self.inner.state.send_if_modified(|known| {
            if *known == state {
                return false;
            }
            if let HistoryState::Ready(epochs) = &state {
                let before = known.epochs().cloned();
                for (partition, shard) in self.inner.partitions.iter().enumerate() {
                    let of = |epochs: &Arc<Epochs>| epochs.partitions.get(partition).map(|it| it.epoch);
                    if before.as_ref().and_then(of) != of(epochs) {
                        shard.seen.store(0, Ordering::Relaxed);
                        *shard.flag() = None;
                    }
                }
            }
            told = Some(std::mem::replace(known, state));
            true
        });
        told
    }

    /// Changes the state of a partition, unless its epoch is another one. The maintainer clears that state in
    /// the same step in which it sets another epoch, so nothing of one epoch ever counts for the next.
    fn in_epoch<T>(&self, epoch: Epoch, partition: u32, change: impl FnOnce(&Shard) -> T) {
        // Borrowed during the change: the epoch can't change meanwhile.
        let state = self.inner.state.borrow();
        let known = state.epochs().and_then(|epochs| epochs.of(partition));
        if known == Some(epoch)
            && let Some(shard) = self.inner.partitions.get(partition as usize)
        {
            change(shard);
        }
        drop(state);
    }

    /// Notes that the leader of a partition has another message, or none, at a sequence of this epoch where a
    /// message was seen: the stream seems to have gone back. A new epoch follows soon; with replicas only
    /// once this has lasted, since a replica that has not caught up may lead for a moment.
    pub fn seems_back(&self, epoch: Epoch, partition: u32) {
        self.flag(epoch, partition, |known| known.or(Some(WentBack::Perhaps { since: self.awake().now() })));
        self.look_at(partition);
    }

    /// Takes [`seems_back`](Self::seems_back) back: the leader has the message after all, or can no longer be
    /// asked.
    pub fn stands(&self, epoch: Epoch, partition: u32) {
        self.flag(epoch, partition, |known| known.filter(|known| *known == WentBack::Surely));
    }

    /// Notes that a new message was given a sequence of this epoch that had been seen. A new epoch follows
    /// soon.
    fn went_back(&self, epoch: Epoch, partition: u32) {
        self.flag(epoch, partition, |_| Some(WentBack::Surely));
        self.look_at(partition);
    }

    /// Returns the clock by which streams are judged: it leaves out the time in which this process did not
    /// run and asked no leader.
    pub fn awake(&self) -> &Awake {
        self.inner.bus.awake()
    }

    /// Makes the maintainer look at the stream of a partition at once.
    fn look_at(&self, partition: u32) {
        if let Some(shard) = self.inner.partitions.get(partition as usize) {
            shard.look.notify_one();
        }
    }

    fn flag(&self, epoch: Epoch, partition: u32, change: impl FnOnce(Option<WentBack>) -> Option<WentBack>) {
        self.in_epoch(epoch, partition, |shard| {
            let mut flag = shard.flag();
            *flag = change(*flag);
        });
    }

    /// Returns the highest sequence of a partition that was seen in its epoch.
    pub fn seen(&self, partition: u32) -> u64 {
        self.inner.partitions.get(partition as usize).map_or(0, |shard| shard.seen.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{self, BusConfig};

    fn ready(epoch: Epoch) -> HistoryState {
        let partitions = vec![Partition { epoch, smallest_limit: 1 }];
        HistoryState::Ready(Arc::new(Epochs { partitions }))
    }

    /// Threads that really run at once: what one epoch saw while the next is told of must not count for that.
    #[tokio::test]
    async fn what_was_seen_in_one_epoch_never_counts_for_the_next() {
        let drain = Drain::new();
        let server = bus::provide(&BusConfig::default(), &drain).await.unwrap();
        let bus = Bus::connect(&server, "test", &drain).await.unwrap();
        let history = History::with(&bus, &HistoryConfig::default(), Role::Reader);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(2);
        let ends = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (history, ends) = (&history, &ends);
            for epoch in [1, 2] {
                scope.spawn(move || {
                    while !ends.load(Ordering::Relaxed) {
                        history.saw(Epoch(epoch), 0, 1_000 * epoch);
                        history.seems_back(Epoch(epoch), 0);
                    }
                });
            }
            for epoch in [1, 2].into_iter().cycle() {
                if std::time::Instant::now() > until {
                    break;
                }
                history.tell(ready(Epoch(epoch)));
                std::thread::yield_now();
                let seen = history.seen(0);
                assert!([0, 1_000 * epoch].contains(&seen), "{seen} in epoch {epoch}");
            }
            ends.store(true, Ordering::Relaxed);
        });
        drain.begin();
        drop((history, bus));
        assert_eq!(drain.finish(std::time::Duration::from_secs(5)).await, 0);
    }
}
