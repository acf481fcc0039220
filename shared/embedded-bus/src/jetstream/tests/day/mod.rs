//! A day of a mixed store by a clock of its own: large and small messages, hot and cold channels, limits,
//! erasures, bans, restarts, kills and a full store, beside a store in memory that never ended.
//!
//! Both stores get the same messages and must answer the same. Every hour all their messages are compared. A
//! message that the disk refuses for want of space is not given to the memory.

mod hours;

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::harness::{Harness, NOW, block};
use crate::config::{DiskConfig, Storage, SyncMode};
use crate::jetstream::request::{OutputKind, Route};
use crate::jetstream::state::Filter;
use crate::storage;

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;
const MIB: u64 = 1 << 20;
/// The interval of the stream worker.
const TICK: u64 = SECOND / 5;
const WINDOW: u64 = 20 * 60 * SECOND;
const AGE: u64 = 6 * HOUR;

/// The bounds of the store: everything alive fits while this much of the limit is not reached.
mod allowed {
    use super::MIB;

    /// Bytes on the disk for each byte that is alive.
    const PER_LIVE_BYTE: f64 = 1.25;
    /// Bytes on the disk besides.
    const BESIDES: u64 = MIB;
    /// Files of all streams for each MiB of the limit, and besides.
    const FILES_PER_MIB: u64 = 8;
    const FILES_BESIDES: u64 = 32;

    /// Whether a message may be refused.
    pub(super) fn refusal(live: u64, limit: u64) -> bool {
        live as f64 * PER_LIVE_BYTE + BESIDES as f64 > limit as f64
    }

    /// Returns the bytes that the files may have at a limit.
    pub(super) fn bytes(limit: u64) -> u64 {
        limit + BESIDES
    }

    pub(super) fn files(limit: u64) -> u64 {
        FILES_BESIDES + FILES_PER_MIB * limit / MIB
    }
}

/// The amount of work.
#[derive(Clone, Copy)]
struct Plan {
    seed: u64,
    /// Messages in an hour.
    rate: u64,
    /// Bytes of the largest message.
    large: u64,
    /// The limits of bytes of the stream and of the store.
    history: u64,
    limit: u64,
}

const SHORT: Plan = Plan { seed: 1, rate: 400, large: 200_000, history: 5 * MIB + MIB / 8, limit: 8 * MIB };

/// A message that was stored lately; its number is its id.
#[derive(Clone)]
struct Recent {
    time: u64,
    number: u64,
    subject: String,
}

struct Day {
    plan: Plan,
    random: fastrand::Rng,
    parent: tempfile::TempDir,
    /// The store's folder in `parent`, a new one after each kill.
    folder: PathBuf,
    limit: u64,
    /// `None`: the store is closed.
    disk: Option<Harness>,
    memory: Harness,
    now: u64,
    number: u64,
    /// Time, id and subject of messages that were stored lately.
    recent: VecDeque<Recent>,
    erased: HashSet<u64>,
    stored_bytes: u64,
    refused: u64,
    highest: f64,
    /// Bytes written by the copies that stand for kills.
    copied: u64,
    /// The current step, named in failures.
    doing: &'static str,
}

fn settings(history: u64) -> Value {
    json!({
        "name": "M", "subjects": ["u.>"], "max_msgs_per_subject": 10, "max_age": AGE, "max_bytes": history,
        "duplicate_window": WINDOW, "allow_direct": true,
    })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a copy");
        }
    }
}

/// Returns bytes and number of the files in a folder.
fn files(folder: &Path) -> (u64, u64) {
    let (mut bytes, mut count) = (0, 0);
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let about = entry.metadata().expect("a file");
        let (more, others) = if about.is_dir() { files(&entry.path()) } else { (about.len(), 1) };
        (bytes, count) = (bytes + more, count + others);
    }
    (bytes, count)
}

/// Returns the bytes that this process has had written to disks; 0 where that is not known.
fn written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

impl Day {
    fn new(plan: Plan, parent: tempfile::TempDir) -> Self {
        let memory = Harness::new(storage::open(&Storage::Memory).expect("memory"));
        let folder = parent.path().join("0");
        let mut day = Self {
            plan,
            random: fastrand::Rng::with_seed(plan.seed),
            parent,
            folder,
            limit: plan.limit,
            disk: None,
            memory,
            now: NOW,
            number: 0,
            recent: VecDeque::new(),
            erased: HashSet::new(),
            stored_bytes: 0,
            refused: 0,
            highest: 0.0,
            copied: 0,
            doing: "the beginning",
        };
        day.open();
        let bans = json!({ "max_msgs_per_subject": 1, "allow_rollup_hdrs": true, "allow_direct": true });
        for harness in [day.disk.as_mut().expect("open"), &mut day.memory] {
            harness.make("M", "u.>", settings(plan.history));
            harness.make("D", "deny.>", bans.clone());
        }
        day
    }

    fn open(&mut self) {
        let sync = if self.random.bool() { SyncMode::Strict } else { SyncMode::Relaxed };
        let config = DiskConfig { path: self.folder.clone(), sync, max_bytes: self.limit };
        let store = storage::open(&Storage::Disk(config)).expect("the folder is free");
        self.disk = Some(Harness::opened_at(store, self.now));
    }

    fn context(&self) -> String {
        let hour = (self.now - NOW) as f64 / HOUR as f64;
        format!("seed {}, hour {hour:.2}, message {}, {}", self.plan.seed, self.number, self.doing)
    }

    /// Returns the bytes that are alive, as limits count them.
    fn live(&self) -> u64 {
        self.memory.streams.streams.values().map(|stream| stream.state.bytes()).sum()
    }

    /// Lets time pass, with several ticks, so that work in steps can go on.
    fn wait(&mut self, time: u64) {
        self.now += time;
        for _ in 0..3 {
            self.now += TICK;
            let now = self.now;
            for harness in [self.disk.as_mut().expect("open"), &mut self.memory] {
                harness.now = now;
                harness.streams.on_tick(now);
                assert!(harness.streams.settle(now).is_empty(), "nobody asked");
            }
        }
        while self.recent.front().is_some_and(|recent| recent.time + WINDOW <= self.now) {
            self.recent.pop_front();
        }
    }

    /// Ends the process and starts it again.
    fn restart(&mut self, killed: bool) {
        if killed {
            // The state that a process leaves when it is killed now.
            let next = self.parent.path().join(self.number.to_string() + "-" + &self.now.to_string());
            let so_far = written();
            copy(&self.folder, &next);
            self.copied += written() - so_far;
            let before = std::mem::replace(&mut self.folder, next);
            self.disk = None;
            fs::remove_dir_all(before).expect("removed");
        } else {
            self.disk = None;
        }
        self.open();
        self.wait(0);
        self.repeat_some(40);
        self.compare();
    }

    /// Publishes a few messages that become durable together. Returns which of them were stored.
    fn tell(&mut self, stream: &str, messages: &[(String, String, String)]) -> Vec<bool> {
        let (context, live, limit) = (self.context(), self.live(), self.limit);
        let (disk, memory) = (self.disk.as_mut().expect("open"), &mut self.memory);
        (disk.now, memory.now) = (self.now, self.now);
        for (subject, headers, payload) in messages {
            disk.send(Route::Publish(stream), subject, headers, payload);
        }
        let answers = disk.streams.settle(self.now);
        assert_eq!(answers.len(), messages.len(), "{context}");
        let mut stored = Vec::new();
        for (answer, (subject, headers, payload)) in answers.iter().zip(messages) {
            assert_eq!(answer.kind, OutputKind::Ack, "{context}");
            let told: Value = serde_json::from_slice(&answer.payload).expect("JSON");
            if told["error"]["err_code"] == 10_077 {
                assert!(
                    allowed::refusal(live, limit),
                    "{context}: {told} with {live} bytes alive at a limit of {limit}, files of {:?}",
                    files(&self.folder)
                );
                self.refused += 1;
                stored.push(false);
                continue;
            }
            let expected = memory.give(Route::Publish(stream), subject, headers, payload);
            let expected: Value = serde_json::from_slice(&expected[0].payload).expect("JSON");
            assert_eq!(told, expected, "{context}");
            assert_eq!(told["error"], Value::Null, "{context}");
            self.stored_bytes += (subject.len() + headers.len() + payload.len()) as u64;
            stored.push(true);
        }
        stored
    }

    /// Picks a subject: few channels get much, many get one message.
    fn subject(&mut self) -> String {
        match self.random.u8(..10) {
            0..3 => format!("u.hot{}", self.random.u8(..3)),
            3..7 => format!("u.user{}", self.random.u16(..2_000)),
            _ => format!("u.new{}", self.number),
        }
    }

    fn message(&mut self) -> (String, String, String) {
        self.number += 1;
        let size = match self.random.u8(..50) {
            0 => self.random.u64(self.plan.large / 2..=self.plan.large),
            1..10 => self.random.u64(1_000..4_000),
            _ => self.random.u64(2..400),
        };
        // Large messages go to few channels, each of which holds up to ten.
        let subject = if size > 10_000 { format!("u.hot{}", self.random.u8(..6)) } else { self.subject() };
        let id = self.number.to_string();
        let payload = format!("{id:0>8}").repeat(usize::try_from(size / 8 + 1).expect("small"));
        (subject, block(&[("Nats-Msg-Id", &id)]), payload)
    }

    /// Publishes a few messages at once.
    fn publish(&mut self) {
        let messages: Vec<_> = (0..self.random.u8(1..8)).map(|_| self.message()).collect();
        let first = self.number + 1 - messages.len() as u64;
        let stored = self.tell("M", &messages);
        for ((number, (subject, ..)), stored) in (first..).zip(messages).zip(stored) {
            if stored {
                self.recent.push_back(Recent { time: self.now, number, subject });
            }
        }
    }

    /// Repeats some messages of the duplicate window: both stores must know them.
    fn repeat_some(&mut self, count: usize) {
        for _ in 0..count.min(self.recent.len()) {
            let Recent { number, subject, .. } = self.recent[self.random.usize(..self.recent.len())].clone();
            let headers = block(&[("Nats-Msg-Id", &number.to_string())]);
            let (now, context) = (self.now, self.context());
            let answer = |harness: &mut Harness| {
                harness.now = now;
                let outputs = harness.give(Route::Publish("M"), &subject, &headers, "again");
                String::from_utf8_lossy(&outputs[0].payload).into_owned()
            };
            let expected = answer(&mut self.memory);
            assert!(expected.contains(r#""duplicate": true"#), "{context}: {expected}");
            let told = answer(self.disk.as_mut().expect("open"));
            assert_eq!(told, expected, "{context}: message {number} is repeated");
        }
    }

    /// Asks both stores, which must answer the same.
    fn ask(&mut self, call: &str, body: &Value) -> Value {
        let (context, now) = (self.context(), self.now);
        let ask = |harness: &mut Harness| {
            harness.now = now;
            let mut answer = harness.ask(call, &body.to_string());
            // Not known once the message and its file are gone.
            if let Some(state) = answer.get_mut("state") {
                state["last_ts"] = Value::Null;
            }
            answer
        };
        let (expected, told) = (ask(&mut self.memory), ask(self.disk.as_mut().expect("open")));
        assert_eq!(told, expected, "{context}");
        told
    }

    /// Erases one message, or all of a channel. That needs no free space.
    fn erase(&mut self) {
        let stream = &self.memory.streams.streams["M"];
        let last = stream.state.last_seq();
        if last == 0 {
            return;
        }
        let from = self.random.u64(1..=last);
        let Some(seq) = stream.state.next_of(Filter::All, from) else { return };
        if self.random.u8(..4) > 0 {
            let told = self.ask("STREAM.MSG.DELETE.M", &json!({ "seq": seq }));
            assert_eq!(told["success"], true, "{}: {told}", self.context());
            self.erased.insert(seq);
            return;
        }
        let subject = format!("u.user{}", self.random.u16(..2_000));
        self.erase_all_of(&subject);
    }

    fn erase_all_of(&mut self, subject: &str) {
        let state = &self.memory.streams.streams["M"].state;
        let mut next = state.next_of(Filter::One(subject.as_bytes()), 0);
        while let Some(seq) = next {
            self.erased.insert(seq);
            next = state.next_of(Filter::One(subject.as_bytes()), seq + 1);
        }
        let told = self.ask("STREAM.PURGE.M", &json!({ "filter": subject }));
        assert_eq!(told["success"], true, "{}: {told}", self.context());
    }

    /// Bans a user, or lifts the ban.
    fn ban(&mut self) {
        let subject = format!("deny.user{}", self.random.u8(..50));
        let until = json!({ "until": self.now }).to_string();
        self.tell("D", &[(subject, block(&[("Nats-Rollup", "sub")]), until)]);
    }

    /// Compares all messages of both stores, and checks the files.
    fn compare(&mut self) {
        let context = self.context();
        for name in ["M", "D"] {
            let disk = self.disk.as_mut().expect("open").streams.streams.get_mut(name).expect("the stream");
            let memory = self.memory.streams.streams.get_mut(name).expect("the stream");
            let (mut next, mut found) =
                (memory.state.next_of(Filter::All, 0), disk.state.next_of(Filter::All, 0));
            while let Some(seq) = next {
                assert_eq!(found, next, "{context}: messages of {name}");
                let (there, expected) = (disk.read(seq), memory.read(seq));
                assert!(there.is_ok() && there == expected, "{context}: message {seq} of {name}");
                next = memory.state.next_of(Filter::All, seq + 1);
                found = disk.state.next_of(Filter::All, seq + 1);
            }
            assert_eq!(found, None, "{context}: {name} has what had gone");
            assert_eq!(disk.state.last_seq(), memory.state.last_seq(), "{context}: {name}");
            assert_eq!(disk.state.ids_in_window(), memory.state.ids_in_window(), "{context}: ids of {name}");
        }
        let disk = &self.disk.as_ref().expect("open").streams.streams["M"];
        let back = self.erased.iter().find(|seq| disk.state.get(**seq).is_some());
        assert_eq!(back, None, "{context}: it was erased");
        self.look_at_files();
    }

    fn look_at_files(&mut self) {
        let (bytes, count) = files(&self.folder);
        let (context, live) = (self.context(), self.live());
        self.highest = self.highest.max(bytes as f64 / live.max(MIB) as f64);
        // A limit below the bytes that have to stay can't be kept.
        if self.limit == self.plan.limit {
            let most = allowed::bytes(self.limit);
            assert!(bytes <= most, "{context}: {bytes} bytes on the disk for {live} that are alive");
        }
        let most = allowed::files(self.plan.limit);
        assert!(count <= most, "{context}: {count} files");
    }
}

fn pass(plan: Plan, parent: tempfile::TempDir) {
    let before = written();
    let mut day = Day::new(plan, parent);
    day.pass();
    println!(
        "seed {}: {} messages of {} MiB, {} refused; files of at most {:.2} bytes for each that was alive; the process wrote \
         {:.2} bytes to disks for each",
        plan.seed,
        day.number,
        day.stored_bytes / MIB,
        day.refused,
        day.highest,
        (written() - before - day.copied) as f64 / day.stored_bytes as f64,
    );
}

#[test]
fn a_day_of_a_mixed_store_loses_nothing_and_stays_within_its_room() {
    // Syncs cost nothing in memory, and no test here crashes the machine.
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    pass(SHORT, parent.expect("a folder"));
}

#[test]
fn long_days_of_a_mixed_store_lose_nothing_and_stay_within_their_room() {
    if std::env::var_os("MC_TEST_LONG").is_none() {
        return;
    }
    for seed in 2..4 {
        let plan = Plan { seed, rate: 8_000, history: 52 * MIB, limit: 80 * MIB, ..SHORT };
        pass(plan, tempfile::tempdir().expect("a folder"));
    }
}
