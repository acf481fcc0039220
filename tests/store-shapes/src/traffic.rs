//! The stored messages. A message follows from its sequence alone, so that a later reader of a store knows
//! every message.

use std::collections::HashSet;

/// The kinds of messages, the number of channels, and the limit per channel.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub name: &'static str,
    pub channels: u64,
    pub limit: usize,
    /// Whether few channels get most of the messages.
    pub skewed: bool,
    /// Whether one message in fifty is large.
    pub mixed: bool,
    /// Whether the group is measured when none is named.
    pub by_default: bool,
}

const fn group(name: &'static str, channels: u64, limit: usize) -> Group {
    Group { name, channels, limit, skewed: false, mixed: false, by_default: true }
}

pub const GROUPS: [Group; 7] = [
    group("small-1", 1, 10_000),
    group("small-100k", 100_000, 2),
    Group { skewed: true, ..group("small-100k-skewed", 100_000, 10) },
    group("small-1M", 1_000_000, 1),
    Group { mixed: true, ..group("mixed-1", 1, 1_000) },
    Group { mixed: true, ..group("mixed-100k", 100_000, 1) },
    Group { mixed: true, by_default: false, ..group("mixed-1M", 1_000_000, 1) },
];

const SMALL: usize = 200;
const LARGE: usize = 200_000;
const LARGE_IS_ONE_IN: u64 = 50;
/// Bytes of the headers: `Nats-Msg-Id` and 32 digits, as a publisher-api writes them.
pub const HEADERS: usize = 10 + 13 + 32 + 4;
pub const ID: std::ops::Range<usize> = 23..55;

impl Group {
    /// Messages stored before the measurement: until most messages remove another.
    pub fn prefill(&self) -> u64 {
        let full = self.channels * self.limit as u64;
        if self.skewed { full / 2 } else { full }
    }

    pub fn channel(&self, seq: u64) -> u64 {
        let random = mix(seq);
        if seq <= self.prefill() && !self.skewed {
            return seq % self.channels;
        }
        if !self.skewed {
            return random % self.channels;
        }
        // A fifth of the messages goes to one channel in six hundred.
        let part = (random >> 11) as f64 / (1_u64 << 53) as f64;
        ((part.powi(4) * self.channels as f64) as u64).min(self.channels - 1)
    }

    pub fn payload(&self, seq: u64) -> usize {
        if self.mixed && mix(seq ^ 0x5bd1).is_multiple_of(LARGE_IS_ONE_IN) { LARGE } else { SMALL }
    }

    /// Bytes of a message, all parts.
    pub fn size(&self, seq: u64) -> usize {
        subject(self.channel(seq)).len() + HEADERS + self.payload(seq)
    }
}

/// Mixes a number into a pseudo-random one; equal inputs give equal outputs.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn subject(channel: u64) -> String {
    format!("mc.user.{channel:09}.events")
}

fn headers(seq: u64) -> String {
    format!("NATS/1.0\r\nNats-Msg-Id: {:016x}{:016x}\r\n\r\n", mix(seq ^ 0x1d), mix(seq ^ 0x1e))
}

/// A message as handed to a store.
#[derive(Debug)]
pub struct Message<'a> {
    pub seq: u64,
    pub time: u64,
    pub subject: String,
    pub headers: String,
    pub payload: &'a [u8],
    /// The sequence of the message that this one replaces.
    pub removes: Option<u64>,
}

impl Message<'_> {
    pub fn size(&self) -> usize {
        self.subject.len() + self.headers.len() + self.payload.len()
    }
}

/// The messages that become durable together.
#[derive(Debug)]
pub struct Batch<'a> {
    pub messages: Vec<Message<'a>>,
    /// The ids of messages from this sequence on are in the duplicate window, removed ones included.
    pub window_from: u64,
    removed: HashSet<u64>,
}

impl<'a> Batch<'a> {
    pub fn new(messages: Vec<Message<'a>>, window_from: u64) -> Self {
        let first = messages.first().map_or(0, |message| message.seq);
        let removed = messages.iter().filter_map(|message| message.removes);
        let removed = removed.filter(|seq| *seq >= first).collect();
        Self { messages, window_from, removed }
    }

    /// Whether a message of this batch is removed by a later one of the batch: a key-value store skips both.
    pub fn has_come_and_gone(&self, seq: u64) -> bool {
        self.removed.contains(&seq)
    }
}

/// The id of a message, in the form of the duplicate window.
pub fn id(seq: u64) -> Vec<u8> {
    headers(seq).as_bytes()[ID].to_vec()
}

/// Incompressible text, from which payloads are cut.
pub struct Text(Vec<u8>);

impl Text {
    pub fn new() -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        Self((0..LARGE + (4 << 20)).map(|_| letters[random.usize(..64)]).collect())
    }

    pub fn message(&self, group: &Group, seq: u64, time: u64, removes: Option<u64>) -> Message<'_> {
        let from = (mix(seq ^ 0x7e) % (4 << 20)) as usize;
        let payload = &self.0[from..from + group.payload(seq)];
        Message { seq, time, subject: subject(group.channel(seq)), headers: headers(seq), payload, removes }
    }
}

/// The live messages of each channel; a new message removes the oldest.
pub struct Alive {
    group: Group,
    /// One ring of sequences per channel; 0 is a free entry.
    rings: Vec<u64>,
    next: Vec<u32>,
    pub bytes: u64,
    pub count: u64,
}

impl Alive {
    pub fn new(group: Group) -> Self {
        let channels = group.channels as usize;
        // Touches the memory now, so that it does not count as growth later.
        let (mut rings, mut next) = (vec![1; channels * group.limit], vec![1; channels]);
        rings.fill(0);
        next.fill(0);
        Self { group, rings, next, bytes: 0, count: 0 }
    }

    /// Adds a message; returns the sequence that it replaces.
    pub fn add(&mut self, seq: u64) -> Option<u64> {
        let channel = self.group.channel(seq) as usize;
        let place = channel * self.group.limit + self.next[channel] as usize;
        self.next[channel] = (self.next[channel] + 1) % self.group.limit as u32;
        let old = std::mem::replace(&mut self.rings[place], seq);
        self.bytes += self.group.size(seq) as u64;
        self.count += 1;
        (old > 0).then(|| {
            self.bytes -= self.group.size(old) as u64;
            self.count -= 1;
            old
        })
    }

    pub fn seqs(&self) -> impl Iterator<Item = u64> + '_ {
        self.rings.iter().copied().filter(|seq| *seq > 0)
    }

    /// A random live message.
    pub fn any(&self, random: &mut fastrand::Rng) -> u64 {
        loop {
            let seq = self.rings[random.usize(..self.rings.len())];
            if seq > 0 {
                return seq;
            }
        }
    }
}
