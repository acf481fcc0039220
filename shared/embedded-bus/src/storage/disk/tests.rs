//! The store on a disk that loses what was not synced, fails, fills up and rots.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::files::Files;
use super::frame::{self, Header, Salt};
use super::shared::Shared;
use super::sim::Sim;
use super::{DiskStore, folder};
use crate::config::{DiskConfig, Sync};
use crate::storage::{Claim, Log, LogError, Opened, Record, Saved, Store as _, Told, Why};

const SEGMENT: u64 = 2_000;
const FOLDER: &str = "/data";

fn store(sim: &Sim, sync: Sync) -> Result<DiskStore, LogError> {
    let shared = Shared::new(Box::new(sim.clone()), Path::new(FOLDER), sync, 1 << 30, None);
    DiskStore::with(shared, SEGMENT)
}

fn saved() -> Saved {
    Saved { name: "S".to_owned(), config: Bytes::from_static(b"{}"), created: 7 }
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

fn there(told: Told<'_>, to: &mut Vec<Record>) {
    match told {
        Told::There(record) => to.push(record),
        Told::Stored(record) => assert!(record.headers.ends_with(b"Nats-Msg-Id: x\r\n\r\n"), "{record:?}"),
    }
}

/// What was promised.
#[derive(Default)]
struct Model {
    /// Commit returned.
    kept: BTreeMap<u64, Record>,
    /// Appended since.
    open: BTreeMap<u64, Record>,
    /// Removed, not committed; or forgotten: there or not.
    loose: BTreeMap<u64, Record>,
    removed_open: Vec<u64>,
    /// Removed and committed. Where a commit does not wait for the disk, a power cut may bring them back.
    gone: BTreeMap<u64, Record>,
    /// The highest sequence that anybody was told.
    highest: u64,
    /// Sequences from which on ids were to be kept.
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

    /// Compares what a log tells with what was promised, and goes on with that.
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
) -> Result<(), LogError> {
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
        let why = if random.bool() { Why::Order } else { Why::Limit };
        if !some.is_empty() {
            for seq in &some {
                if forget {
                    let one = model.kept.remove(seq).unwrap();
                    model.loose.insert(*seq, one);
                } else {
                    model.removed_open.push(*seq);
                }
            }
            if forget { log.forget(&some)? } else { log.remove(&some, why)? }
        }
        log.commit()?;
        model.committed();
        if random.bool() {
            let pause = if random.u8(..4) == 0 { 50_000_000_000 } else { 800_000_000 };
            *now += random.u64(..pause);
            model.ids_from = next.saturating_sub(random.u64(10..40)).max(model.ids_from);
            log.keep_ids_from(model.ids_from);
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

fn survive(seed: u64, sync: Sync, end: End) {
    let (mut random, sim, mut model) = (fastrand::Rng::with_seed(seed), Sim::new(), Model::default());
    let mut now = 1;
    drop(store(&sim, sync).unwrap().create(&saved()).unwrap());
    for round in 0..6 {
        let context = format!("seed {seed}, {sync:?}, {end:?}, round {round}");
        let mut disks = store(&sim, sync).unwrap_or_else(|error| panic!("{context}: {error}"));
        let mut ended_well = true;
        for attempt in 0..3 {
            let (mut stored, mut told) = (Vec::new(), Vec::new());
            // The last attempt is to end well.
            if attempt < 2 {
                let when = random.u64(1..120);
                match end {
                    End::Kill | End::Power => sim.cut_after(when),
                    End::Fault(kind) => sim.fail_after(when, kind),
                }
            }
            let opened = disks.open("S", &mut |one| {
                if let Told::Stored(record) = &one {
                    stored.push(record.seq);
                }
                there(one, &mut told);
            });
            let result = opened.and_then(|(mut log, opened)| {
                // A fault may have struck while the log ended.
                let may_miss = sync == Sync::Relaxed
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
                Err(LogError::Damaged(what)) => panic!("{context}: {what}"),
                Err(LogError::Full(_) | LogError::Io { .. }) => ended_well = false,
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
    (0..150).for_each(|seed| survive(seed, Sync::Strict, End::Power));
}

#[test]
fn strict_and_relaxed_keep_everything_when_the_process_is_killed() {
    (0..80).for_each(|seed| survive(seed, Sync::Strict, End::Kill));
    (0..80).for_each(|seed| survive(seed, Sync::Relaxed, End::Kill));
}

#[test]
fn relaxed_says_so_when_a_power_cut_took_something_and_uses_no_sequence_twice() {
    (0..150).for_each(|seed| survive(seed, Sync::Relaxed, End::Power));
}

#[test]
fn a_full_disk_and_one_that_fails_lose_nothing_that_was_acknowledged() {
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        (0..80).for_each(|seed| survive(seed, Sync::Strict, End::Fault(kind)));
        (0..80).for_each(|seed| survive(seed, Sync::Relaxed, End::Fault(kind)));
    }
}

fn segment(number: u32) -> PathBuf {
    Path::new(FOLDER).join(format!("streams/S/{number:08x}.log"))
}

/// A log of some segments, and what is in it; the process was killed.
fn filled(sim: &Sim) -> u64 {
    let mut disks = store(sim, Sync::Strict).unwrap();
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

fn open(sim: &Sim) -> Result<(Vec<u64>, Opened), LogError> {
    let mut told = Vec::new();
    let (_log, opened) = store(sim, Sync::Strict)?.open("S", &mut |one| there(one, &mut told))?;
    let told = told.iter().map(|one: &Record| one.seq).collect();
    Ok((told, opened))
}

#[test]
fn damage_in_the_middle_is_named_and_nothing_is_opened() {
    for (number, at) in [(1, 600), (2, 10), (4, 200)] {
        let sim = Sim::new();
        filled(&sim);
        sim.damage(&segment(number), at);
        let error = open(&sim).unwrap_err().to_string();
        assert!(error.contains(&format!("{number:08x}.log")) && error.contains("backup"), "{error}");
        assert!(error.contains("at byte"), "{error}");
    }
}

#[test]
fn an_end_that_was_cut_off_while_it_was_written_is_dropped() {
    let sim = Sim::new();
    let last = filled(&sim);
    let active = (1..100)
        .map(segment)
        .take_while(|path| super::files::Files::open(&sim, path).is_ok())
        .last()
        .unwrap();
    sim.damage(&active, sim.size(&active) - 1);
    let (told, opened) = open(&sim).unwrap();
    assert_eq!(told, (1..last).collect::<Vec<u64>>());
    assert!(opened.last_seq >= last, "the sequence of the lost one is not used again: {opened:?}");
}

/// What a publisher could put into a message: records that claim that the file was on the disk up to `synced`.
fn forged(synced: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    for seq in [1, 2, 1 << 40] {
        frame::put_message(&mut payload, Salt::NONE, synced, &record(seq, 20));
        frame::put_remove(&mut payload, Salt::random(), synced, Why::Limit, &[1, seq]);
        frame::put_reserve(&mut payload, Salt::NONE, synced, seq);
    }
    payload
}

#[test]
fn records_in_a_payload_are_not_taken_for_the_logs_own_when_its_write_was_cut_off() {
    // Torn in the last byte, in the fields before the subject, and in the length.
    for torn in [None, Some(frame::PREFIX + 2), Some(1)] {
        let sim = Sim::new();
        let mut log = store(&sim, Sync::Strict).unwrap().create(&saved()).unwrap();
        log.append(record(1, 10)).unwrap();
        log.commit().unwrap();
        let at = sim.size(&segment(1));
        let payload = forged(u32::try_from(at).unwrap() + 1).into();
        log.append(Record { payload, ..record(2, 0) }).unwrap();
        log.commit().unwrap();
        sim.cut_after(1);
        drop(log);
        sim.kill();
        sim.damage(&segment(1), torn.map_or(sim.size(&segment(1)) - 1, |torn| at + torn));
        let (told, opened) = open(&sim).unwrap();
        assert_eq!(told, [1], "torn at {torn:?}");
        assert!(opened.last_seq >= 2, "{opened:?}");
    }
}

#[test]
fn segments_without_a_salt_are_read_and_not_written_to() {
    let sim = Sim::new();
    let log = store(&sim, Sync::Strict).unwrap().create(&saved()).unwrap();
    sim.cut_after(1);
    drop(log);
    sim.kill();
    let mut data = Header { number: 1, last_seq: 0, reserved: 0, salt: Salt::NONE }.encode();
    assert_eq!(data.len(), 32);
    frame::put_reserve(&mut data, Salt::NONE, 0, 100);
    for seq in 1..=3 {
        frame::put_message(&mut data, Salt::NONE, 0, &record(seq, 50));
    }
    let mut file = Files::create(&sim, &segment(1)).unwrap();
    file.write_at(&data, 0).unwrap();
    file.sync().unwrap();
    drop(file);
    let mut told = Vec::new();
    let opened = store(&sim, Sync::Strict).unwrap().open("S", &mut |one| there(one, &mut told)).unwrap();
    let (mut log, Opened { last_seq, .. }) = opened;
    assert_eq!(told, (1..=3).map(|seq| record(seq, 50)).collect::<Vec<_>>());
    assert_eq!(log.read(2).unwrap(), Some(record(2, 50)));
    log.append(record(last_seq + 1, 50)).unwrap();
    log.commit().unwrap();
    assert_eq!(sim.size(&segment(1)), data.len(), "the old segment is as it was");
    drop(log);
    assert_eq!(open(&sim).unwrap().0, [1, 2, 3, last_seq + 1]);
}

#[test]
fn a_folder_of_the_format_before_becomes_one_of_this() {
    let place = tempfile::tempdir().unwrap();
    drop(folder::take(place.path()).unwrap());
    let now = std::fs::read_to_string(place.path().join("format")).unwrap();
    std::fs::write(place.path().join("format"), "message-center bus data, format 1\n").unwrap();
    drop(folder::take(place.path()).unwrap());
    assert_eq!(std::fs::read_to_string(place.path().join("format")).unwrap(), now);
}

#[test]
fn a_log_that_ended_well_and_is_shorter_now_is_damaged() {
    let sim = Sim::new();
    let mut log = store(&sim, Sync::Relaxed).unwrap().create(&saved()).unwrap();
    log.append(record(1, 10)).unwrap();
    log.commit().unwrap();
    drop(log);
    let mut file = super::files::Files::open(&sim, &segment(1)).unwrap();
    file.set_len(40).unwrap();
    assert!(open(&sim).unwrap_err().to_string().contains("ended well"));
}

#[test]
fn room_is_given_back_and_what_was_removed_stays_away() {
    let sim = Sim::new();
    let mut disks = store(&sim, Sync::Strict).unwrap();
    let mut log = disks.create(&saved()).unwrap();
    log.keep_ids_from(u64::MAX);
    for seq in 1..=2_000 {
        log.append(record(seq, 100)).unwrap();
        if seq > 50 && seq % 100 != 0 {
            // One of each hundred stays for ever.
            if (seq - 50) % 100 != 0 {
                log.remove(&[seq - 50], Why::Limit).unwrap();
            }
        }
        log.commit().unwrap();
        log.on_tick(seq * 200_000_000).unwrap();
    }
    for tick in 0..2_000 {
        log.on_tick(tick).unwrap();
    }
    let size = log.size();
    assert!(size < 60_000, "{size} bytes for about 90 messages of 190 bytes and their removals");
    let alive: Vec<u64> = (1..=2_000).filter(|seq| log.read(*seq).unwrap().is_some()).collect();
    drop(log);
    assert_eq!(open(&sim).unwrap().0, alive);
}

#[test]
fn a_full_disk_refuses_until_there_is_room() {
    let sim = Sim::new();
    let mut log = store(&sim, Sync::Strict).unwrap().create(&saved()).unwrap();
    log.on_tick(1).unwrap();
    assert!(log.room(0, Claim::Common).is_ok());
    sim.set_free(1 << 20);
    log.on_tick(2).unwrap();
    assert!(matches!(log.room(0, Claim::Common), Err(LogError::Full(_))));
    sim.set_free(1 << 30);
    log.on_tick(3).unwrap();
    log.on_tick(10_000_000_000).unwrap();
    assert!(log.room(0, Claim::Common).is_ok());
}

#[test]
fn the_limit_of_bytes_refuses_and_what_leaves_makes_room() {
    let sim = Sim::new();
    let shared = Shared::new(Box::new(sim), Path::new(FOLDER), Sync::Strict, 5_000, None);
    let mut log = DiskStore::with(shared, SEGMENT).unwrap().create(&saved()).unwrap();
    log.keep_ids_from(u64::MAX);
    let mut seq = 0;
    while log.room(0, Claim::Common).is_ok() {
        seq += 1;
        log.append(record(seq, 100)).unwrap();
        log.commit().unwrap();
    }
    assert!(log.size() >= 4_688 && log.size() < 5_000, "{}", log.size());
    assert!(log.room(100, Claim::Reserved).is_ok(), "a sixteenth is kept back");
    log.forget(&(1..=seq).collect::<Vec<_>>()).unwrap();
    log.on_tick(1).unwrap();
    assert!(log.room(0, Claim::Common).is_ok());
}

#[test]
fn streams_and_their_settings_are_found_again_and_deleted_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let config = DiskConfig { path: folder.path().join("data"), sync: Sync::Strict, max_bytes: 1 << 30 };
    let mut disks = DiskStore::open(&config).unwrap();
    let odd = Saved { name: "../ä %".to_owned(), config: Bytes::from_static(b"{\"a\":1}"), created: 9 };
    drop(disks.create(&odd).unwrap());
    drop(disks.create(&saved()).unwrap());
    let taken = DiskStore::open(&config).unwrap_err().to_string();
    assert!(taken.contains("another process") && taken.contains("--data"), "{taken}");
    drop(disks);
    let mut disks = DiskStore::open(&config).unwrap();
    disks.delete("S").unwrap();
    assert_eq!(disks.streams().unwrap(), [odd]);
}

#[cfg(unix)]
#[test]
fn a_new_folder_is_for_its_user_alone_and_one_that_is_there_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("some/data");
    drop(folder::take(&data).unwrap());
    assert_eq!(mode(&data), 0o700);
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o750)).unwrap();
    drop(folder::take(&data).unwrap());
    assert_eq!(mode(&data), 0o750);
}

#[test]
fn a_folder_that_is_no_data_folder_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("letter.txt"), "mine").unwrap();
    assert!(folder::take(place.path()).unwrap_err().to_string().contains("not empty"));
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("format"), "message-center bus data, format 9\n").unwrap();
    assert!(folder::take(other.path()).unwrap_err().to_string().contains("another format"));
    let file = place.path().join("letter.txt/data");
    assert!(folder::take(&file).unwrap_err().to_string().contains("bus.store.path"));
}

#[test]
fn the_room_of_the_newest_file_is_given_back_too_once_it_is_mostly_waste() {
    let sim = Sim::new();
    let shared = Shared::new(Box::new(sim.clone()), Path::new(FOLDER), Sync::Strict, 1 << 30, None);
    let mut disks = DiskStore::with(shared, 64 << 20).unwrap();
    let mut log = disks.create(&saved()).unwrap();
    log.keep_ids_from(u64::MAX);
    for seq in 1..=20_000 {
        log.append(record(seq, 100)).unwrap();
    }
    log.commit().unwrap();
    let full = log.size();
    log.on_tick(1).unwrap();
    assert_eq!(log.size(), full, "all of it is needed");
    log.remove(&(1..20_000).collect::<Vec<_>>(), Why::Limit).unwrap();
    log.commit().unwrap();
    for tick in 2..20 {
        log.on_tick(tick * 200_000_000).unwrap();
    }
    assert!(log.size() < full / 5, "{} of {full} bytes for one message", log.size());
    drop(log);
    let mut told = Vec::new();
    disks.open("S", &mut |one| there(one, &mut told)).unwrap();
    assert_eq!(told, [record(20_000, 100)]);
}

#[test]
fn a_steady_stream_takes_a_bounded_part_of_the_disk() {
    // Seven subjects with at most ten messages each, of which some also grow too old: whatever comes, files stay small.
    let sim = Sim::new();
    let mut log = store(&sim, Sync::Strict).unwrap().create(&saved()).unwrap();
    let mut alive: std::collections::VecDeque<u64> = std::collections::VecDeque::new();
    let (mut most, mut seq) = (0, 0);
    log.keep_ids_from(u64::MAX);
    for tick in 1..=3_000_u64 {
        for _ in 0..5 {
            seq += 1;
            log.append(record(seq, 100)).unwrap();
            alive.push_back(seq);
            if alive.len() > 70 {
                let oldest = alive.pop_front().unwrap();
                log.remove(&[oldest], Why::Limit).unwrap();
            }
        }
        log.commit().unwrap();
        if tick % 10 == 0 {
            let old: Vec<u64> = alive.drain(..10).collect();
            log.forget(&old).unwrap();
        }
        log.on_tick(tick * 200_000_000).unwrap();
        most = most.max(log.size());
    }
    assert!(most < 40_000, "{most} bytes of files for 70 messages of 190 bytes, 15,000 stored");
    assert_eq!(open_alive(&mut *log, seq), alive.into_iter().collect::<Vec<_>>());
}

fn open_alive(log: &mut dyn Log, last: u64) -> Vec<u64> {
    (1..=last).filter(|seq| log.read(*seq).unwrap().is_some()).collect()
}

#[test]
fn a_log_is_read_on_a_full_disk_and_its_sequences_are_not_used_again() {
    let sim = Sim::new();
    let last = filled(&sim);
    // Torn, so that the next opening would like to begin a new segment.
    let active = (1..100).map(segment).take_while(|path| Files::open(&sim, path).is_ok()).last().unwrap();
    sim.damage(&active, sim.size(&active) - 1);
    sim.fill();
    for _ in 0..3 {
        let (told, opened) = open(&sim).unwrap();
        assert_eq!(told, (1..last).collect::<Vec<u64>>());
        assert!(opened.last_seq >= last, "{opened:?}");
    }
}

#[test]
fn times_are_told_by_the_clock_as_it_was_set_later() {
    let sim = Sim::new();
    let mut log = store(&sim, Sync::Strict).unwrap().create(&saved()).unwrap();
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
    let tell = &mut |one: Told<'_>| match one {
        Told::Stored(record) => stored.push(record.time / hour.cast_unsigned()),
        Told::There(record) => told.push(record.time / hour.cast_unsigned()),
    };
    drop(store(&sim, Sync::Strict).unwrap().open("S", tell).unwrap());
    assert_eq!(told, [98, 97, 100, 100]);
    assert_eq!(stored, told);
}

#[test]
fn a_segment_or_the_settings_that_are_gone_are_noticed() {
    for gone in ["00000001.log", "00000003.log", "newest", "stream.json"] {
        let sim = Sim::new();
        filled(&sim);
        let newest = (1..100).take_while(|one| Files::open(&sim, &segment(*one)).is_ok()).last().unwrap();
        let gone = if gone == "newest" { format!("{newest:08x}.log") } else { gone.to_owned() };
        Files::remove(&sim, &Path::new(FOLDER).join("streams/S").join(&gone)).unwrap();
        let mut disks = store(&sim, Sync::Strict).unwrap();
        let opened = disks.streams().and_then(|_| disks.open("S", &mut |_| {}));
        let error = opened.unwrap_err().to_string();
        assert!(error.contains(&gone) && error.contains("missing") && error.contains("backup"), "{error}");
    }
}

#[test]
fn a_stream_whose_deletion_was_cut_off_is_no_damage() {
    for changes in 1..12 {
        let sim = Sim::new();
        filled(&sim);
        let mut disks = store(&sim, Sync::Strict).unwrap();
        sim.cut_after(changes);
        let _ = disks.delete("S");
        sim.kill();
        let mut disks = store(&sim, Sync::Strict).unwrap();
        if disks.streams().unwrap().is_empty() {
            drop(disks.create(&saved()).unwrap());
        }
        assert!(disks.open("S", &mut |_| {}).is_ok(), "cut off after {changes} changes");
    }
}

#[test]
fn a_newest_file_that_is_not_worth_it_yet_keeps_no_other_from_being_rewritten() {
    let sim = Sim::new();
    let shared = Shared::new(Box::new(sim), Path::new(FOLDER), Sync::Strict, 1 << 30, None);
    let mut log = DiskStore::with(shared, 4 << 20).unwrap().create(&saved()).unwrap();
    log.keep_ids_from(u64::MAX);
    let mut seq = 0;
    while log.size() < (4 << 20) {
        seq += 1;
        log.append(record(seq, 1_000)).unwrap();
        log.commit().unwrap();
    }
    let (last_of_first, full) = (seq, log.size());
    for _ in 0..100 {
        seq += 1;
        log.append(record(seq, 1_000)).unwrap();
        log.commit().unwrap();
    }
    log.remove(&(1..=last_of_first).filter(|seq| seq % 5 < 3).collect::<Vec<_>>(), Why::Limit).unwrap();
    log.remove(&(last_of_first + 1..seq).collect::<Vec<_>>(), Why::Limit).unwrap();
    log.commit().unwrap();
    for tick in 1..20 {
        log.on_tick(tick * 200_000_000).unwrap();
    }
    assert!(log.size() < full / 2 + 200_000, "{} of {full} bytes", log.size());
}
