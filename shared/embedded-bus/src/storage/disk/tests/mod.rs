//! The store on a disk that loses unsynced changes, fails, fills up and rots.

mod damage;
mod free_space;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::files::Files;
use super::frame::{self, Header, Salt};
use super::shared::Shared;
use super::sim::Sim;
use super::{DiskStore, folder};
use crate::config::{DiskConfig, SyncMode};
use crate::storage::{
    Log, Opened, Priority, Record, RemovalReason, Replayed, Store as _, StoreError, StoredStream,
};

const SEGMENT: u64 = 2_000;
const FOLDER: &str = "/data";

fn store(sim: &Sim, sync: SyncMode) -> Result<DiskStore, StoreError> {
    let shared = Shared::new(Box::new(sim.clone()), Path::new(FOLDER), sync, 1 << 30, None);
    DiskStore::with(shared, SEGMENT)
}

fn saved() -> StoredStream {
    StoredStream { name: "S".to_owned(), config: Bytes::from_static(b"{}"), created: 7 }
}

fn record(seq: u64, size: usize) -> Record {
    let filler = u8::try_from(seq % 251).unwrap();
    Record {
        seq,
        time: seq * 10,
        subject: format!("mc.log.0.user.u{}", seq % 7).into(),
        headers: Bytes::from_static(b"NATS/1.0\r\nNats-Msg-Id: x\r\n\r\n"),
        payload: vec![filler; size].into(),
    }
}

fn there(told: Replayed<'_>, to: &mut Vec<Record>) {
    match told {
        Replayed::Present(record) => to.push(record),
        Replayed::Stored(record) => {
            assert!(record.headers.ends_with(b"Nats-Msg-Id: x\r\n\r\n"), "{record:?}")
        }
    }
}

/// The promises that a log has made.
#[derive(Default)]
struct Model {
    /// Committed.
    kept: BTreeMap<u64, Record>,
    /// Appended since the last commit.
    open: BTreeMap<u64, Record>,
    /// Removed and not committed, or forgotten: may be there or not.
    loose: BTreeMap<u64, Record>,
    removed_open: Vec<u64>,
    /// Removed and committed. Where a commit does not wait for the disk, a power cut may bring them back.
    gone: BTreeMap<u64, Record>,
    /// The highest sequence that was acknowledged.
    highest: u64,
    /// Ids of messages from this sequence on have to stay.
    ids_from: u64,
    /// Committed and in that window.
    ids: std::collections::BTreeSet<u64>,
}

impl Model {
    fn committed(&mut self) {
        self.ids.extend(self.open.keys());
        self.kept.append(&mut self.open);
        for seq in self.removed_open.drain(..) {
            if let Some(one) = self.kept.remove(&seq) {
                self.gone.insert(seq, one);
            }
        }
        self.highest = self.highest.max(self.kept.keys().next_back().copied().unwrap_or(0));
    }

    /// Compares the messages of a log with the promises, and goes on with those messages.
    fn check(&mut self, (stored, told): (&[u64], &[Record]), opened: Opened, may_miss: bool, context: &str) {
        self.ids = self.ids.split_off(&self.ids_from);
        let lost: Vec<&u64> = self.ids.iter().filter(|id| stored.binary_search(id).is_err()).collect();
        assert!(lost.is_empty() || may_miss && opened.may_miss_some, "{context}: ids {lost:?} are forgotten");
        self.ids.retain(|id| stored.binary_search(id).is_ok());
        assert!(told.windows(2).all(|two| two[0].seq < two[1].seq), "{context}: out of order or twice");
        let there: BTreeMap<u64, Record> = told.iter().map(|one| (one.seq, one.clone())).collect();
        for (seq, one) in &there {
            let all = [&self.kept, &self.open, &self.loose, &self.gone];
            let known = all.iter().find_map(|all| all.get(seq));
            assert_eq!(known, Some(one), "{context}: {seq} is not what was stored");
            let back = self.gone.contains_key(seq);
            assert!(!back || may_miss && opened.may_miss_some, "{context}: {seq} was removed and is back");
        }
        let missing: Vec<u64> = self
            .kept
            .keys()
            .filter(|seq| !there.contains_key(seq) && !self.removed_open.contains(seq))
            .copied()
            .collect();
        assert!(missing.is_empty() || may_miss && opened.may_miss_some, "{context}: {missing:?} are missing");
        assert!(may_miss || !opened.may_miss_some, "{context}: nothing can be missing");
        assert!(opened.last_seq >= self.highest, "{context}: {} would be used again", self.highest);
        assert!(there.keys().all(|seq| *seq <= opened.last_seq), "{context}");
        let (highest, ids_from) = (self.highest.max(opened.last_seq), self.ids_from);
        let mut gone = std::mem::take(&mut self.gone);
        gone.retain(|seq, _| !there.contains_key(seq));
        let ids = std::mem::take(&mut self.ids);
        *self = Self { kept: there, highest, gone, ids_from, ids, ..Self::default() };
    }
}

/// Uses a log until something fails.
fn use_it(
    log: &mut dyn Log,
    model: &mut Model,
    mut next: u64,
    now: &mut u64,
    random: &mut fastrand::Rng,
) -> Result<(), StoreError> {
    for _ in 0..random.usize(5..60) {
        for _ in 0..random.usize(0..8) {
            let one = record(next, random.usize(..300));
            next += 1;
            model.open.insert(one.seq, one.clone());
            log.append(one.clone())?;
            assert_eq!(log.read(one.seq)?, Some(one));
        }
        let some: Vec<u64> = model.kept.keys().copied().filter(|_| random.u8(..4) == 0).take(12).collect();
        let forget = random.u8(..5) == 0;
        let reason = if random.bool() { RemovalReason::Request } else { RemovalReason::Limit };
        if !some.is_empty() {
            for seq in &some {
                if forget {
                    let one = model.kept.remove(seq).unwrap();
                    model.loose.insert(*seq, one);
                } else {
                    model.removed_open.push(*seq);
                }
            }
            if forget { log.forget(&some)? } else { log.remove(&some, reason)? }
        }
        log.commit()?;
        model.committed();
        if random.bool() {
            let pause = if random.u8(..4) == 0 { 50_000_000_000 } else { 800_000_000 };
            *now += random.u64(..pause);
            model.ids_from = next.saturating_sub(random.u64(10..40)).max(model.ids_from);
            log.retain_ids_from(model.ids_from);
            if random.u8(..4) == 0 {
                log.reclaim()?;
            }
            log.on_tick(*now)?;
        }
        if let Some((seq, one)) = model.kept.iter().nth(random.usize(..=model.kept.len())) {
            assert_eq!(log.read(*seq)?.as_ref(), Some(one));
        }
        if let Some(seq) = model.gone.keys().next_back() {
            assert_eq!(log.read(*seq)?, None);
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Kill,
    Power,
    Fault(ErrorKind),
}

fn survive(seed: u64, sync: SyncMode, end: End) {
    let (mut random, sim, mut model) = (fastrand::Rng::with_seed(seed), Sim::new(), Model::default());
    let mut now = 1;
    drop(store(&sim, sync).unwrap().create(&saved()).unwrap());
    for round in 0..6 {
        let context = format!("seed {seed}, {sync:?}, {end:?}, round {round}");
        let mut disks = store(&sim, sync).unwrap_or_else(|error| panic!("{context}: {error}"));
        let mut ended_well = true;
        for attempt in 0..3 {
            let (mut stored, mut told) = (Vec::new(), Vec::new());
            // The last attempt has to end well.
            if attempt < 2 {
                let when = random.u64(1..120);
                match end {
                    End::Kill | End::Power => sim.cut_after(when),
                    End::Fault(kind) => sim.fail_after(when, kind),
                }
            }
            let opened = disks.open("S", &mut |one| {
                if let Replayed::Stored(record) = &one {
                    stored.push(record.seq);
                }
                there(one, &mut told);
            });
            let result = opened.and_then(|(mut log, opened)| {
                // The failure may have come while the log ended.
                let may_miss = sync == SyncMode::Relaxed
                    && match end {
                        End::Kill => false,
                        End::Power => !ended_well,
                        End::Fault(_) => true,
                    };
                model.check((&stored, &told), opened, may_miss, &context);
                if opened.may_miss_some {
                    disks.save(&saved())?;
                    log.note_shortness()?;
                }
                ended_well = true;
                use_it(&mut *log, &mut model, opened.last_seq + 1, &mut now, &mut random)
            });
            match result {
                Ok(()) => {}
                Err(
                    error
                    @ (StoreError::Damaged(_) | StoreError::Settings { .. } | StoreError::Folder { .. }),
                ) => {
                    panic!("{context}: {error}")
                }
                Err(StoreError::Full(_) | StoreError::Io { .. }) => ended_well = false,
            }
            match end {
                End::Kill => sim.kill(),
                End::Power => {
                    sim.power(&mut random);
                    ended_well = false;
                }
                End::Fault(_) => continue,
            }
            disks = store(&sim, sync).unwrap();
        }
    }
}

#[test]
fn strict_keeps_everything_that_was_acknowledged_whatever_a_power_cut_takes() {
    (0..150).for_each(|seed| survive(seed, SyncMode::Strict, End::Power));
}

#[test]
fn strict_and_relaxed_keep_everything_when_the_process_is_killed() {
    (0..80).for_each(|seed| survive(seed, SyncMode::Strict, End::Kill));
    (0..80).for_each(|seed| survive(seed, SyncMode::Relaxed, End::Kill));
}

#[test]
fn relaxed_says_so_when_a_power_cut_took_something_and_uses_no_sequence_twice() {
    (0..150).for_each(|seed| survive(seed, SyncMode::Relaxed, End::Power));
}

#[test]
fn a_full_disk_and_one_that_fails_lose_nothing_that_was_acknowledged() {
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        (0..80).for_each(|seed| survive(seed, SyncMode::Strict, End::Fault(kind)));
        (0..80).for_each(|seed| survive(seed, SyncMode::Relaxed, End::Fault(kind)));
    }
}

fn segment(number: u32) -> PathBuf {
    Path::new(FOLDER).join(format!("streams/S/{number:08x}.log"))
}

/// Fills a log of some segments and kills the process. Returns the last sequence.
fn filled(sim: &Sim) -> u64 {
    let mut disks = store(sim, SyncMode::Strict).unwrap();
    let mut log = disks.create(&saved()).unwrap();
    for seq in 1..=40 {
        log.append(record(seq, 200)).unwrap();
        log.commit().unwrap();
    }
    sim.cut_after(1);
    drop(log);
    sim.kill();
    40
}

fn open(sim: &Sim) -> Result<(Vec<u64>, Opened), StoreError> {
    let mut told = Vec::new();
    let (_log, opened) = store(sim, SyncMode::Strict)?.open("S", &mut |one| there(one, &mut told))?;
    let told = told.iter().map(|one: &Record| one.seq).collect();
    Ok((told, opened))
}

#[test]
fn streams_and_their_settings_are_found_again_and_deleted_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let config = DiskConfig { path: folder.path().join("data"), sync: SyncMode::Strict, max_bytes: 1 << 30 };
    let mut disks = DiskStore::open(&config).unwrap();
    let odd =
        StoredStream { name: "../ä %".to_owned(), config: Bytes::from_static(b"{\"a\":1}"), created: 9 };
    drop(disks.create(&odd).unwrap());
    drop(disks.create(&saved()).unwrap());
    let taken = DiskStore::open(&config).unwrap_err().to_string();
    assert!(taken.contains("another process") && taken.contains("--data"), "{taken}");
    drop(disks);
    let mut disks = DiskStore::open(&config).unwrap();
    disks.delete("S").unwrap();
    assert_eq!(disks.streams().unwrap(), [odd]);
}

#[test]
fn times_are_told_by_the_clock_as_it_was_set_later() {
    let sim = Sim::new();
    let mut log = store(&sim, SyncMode::Strict).unwrap().create(&saved()).unwrap();
    let hour = 3_600_000_000_000_i64;
    for seq in 1..=4 {
        log.append(Record { time: 100 * hour.cast_unsigned() + seq, ..record(seq, 10) }).unwrap();
        log.commit().unwrap();
        match seq {
            1 => log.on_step(hour).unwrap(),
            2 => log.on_step(-3 * hour).unwrap(),
            _ => {}
        }
    }
    sim.cut_after(1);
    drop(log);
    sim.kill();
    let (mut stored, mut told) = (Vec::new(), Vec::new());
    let tell = &mut |one: Replayed<'_>| match one {
        Replayed::Stored(record) => stored.push(record.time / hour.cast_unsigned()),
        Replayed::Present(record) => told.push(record.time / hour.cast_unsigned()),
    };
    drop(store(&sim, SyncMode::Strict).unwrap().open("S", tell).unwrap());
    assert_eq!(told, [98, 97, 100, 100]);
    assert_eq!(stored, told);
}
