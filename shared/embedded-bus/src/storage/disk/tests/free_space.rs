//! The space that a log gives back, and the limits at which it takes nothing more.

use super::*;

#[test]
fn room_is_given_back_and_what_was_removed_stays_away() {
    let sim = Sim::new();
    let mut disks = store(&sim, SyncMode::Strict).unwrap();
    let mut log = disks.create(&saved()).unwrap();
    log.retain_ids_from(u64::MAX);
    for seq in 1..=2_000 {
        log.append(record(seq, 100)).unwrap();
        if seq > 50 && seq % 100 != 0 {
            // One message of each hundred stays for ever.
            if (seq - 50) % 100 != 0 {
                log.remove(&[seq - 50], RemovalReason::Limit).unwrap();
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
    let mut log = store(&sim, SyncMode::Strict).unwrap().create(&saved()).unwrap();
    log.on_tick(1).unwrap();
    assert!(log.check_space(0, Priority::Common).is_ok());
    sim.set_free(1 << 20);
    log.on_tick(2).unwrap();
    assert!(matches!(log.check_space(0, Priority::Common), Err(StoreError::Full(_))));
    sim.set_free(1 << 30);
    log.on_tick(3).unwrap();
    log.on_tick(10_000_000_000).unwrap();
    assert!(log.check_space(0, Priority::Common).is_ok());
}

#[test]
fn the_limit_of_bytes_refuses_and_what_leaves_makes_room() {
    let sim = Sim::new();
    let shared = Shared::new(Box::new(sim), Path::new(FOLDER), SyncMode::Strict, 5_000, None);
    let mut log = DiskStore::with(shared, SEGMENT).unwrap().create(&saved()).unwrap();
    log.retain_ids_from(u64::MAX);
    let mut seq = 0;
    while log.check_space(0, Priority::Common).is_ok() {
        seq += 1;
        log.append(record(seq, 100)).unwrap();
        log.commit().unwrap();
    }
    assert!(log.size() >= 4_688 && log.size() < 5_000, "{}", log.size());
    assert!(log.check_space(100, Priority::Reserved).is_ok(), "a sixteenth is kept back");
    log.forget(&(1..=seq).collect::<Vec<_>>()).unwrap();
    log.on_tick(1).unwrap();
    assert!(log.check_space(0, Priority::Common).is_ok());
}

#[test]
fn the_room_of_the_newest_file_is_given_back_too_once_it_is_mostly_waste() {
    let sim = Sim::new();
    let shared = Shared::new(Box::new(sim.clone()), Path::new(FOLDER), SyncMode::Strict, 1 << 30, None);
    let mut disks = DiskStore::with(shared, 64 << 20).unwrap();
    let mut log = disks.create(&saved()).unwrap();
    log.retain_ids_from(u64::MAX);
    for seq in 1..=20_000 {
        log.append(record(seq, 100)).unwrap();
    }
    log.commit().unwrap();
    let full = log.size();
    log.on_tick(1).unwrap();
    assert_eq!(log.size(), full, "all of it is needed");
    log.remove(&(1..20_000).collect::<Vec<_>>(), RemovalReason::Limit).unwrap();
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
    // Seven subjects with at most ten messages each, some of which expire: files stay small whatever comes.
    let sim = Sim::new();
    let mut log = store(&sim, SyncMode::Strict).unwrap().create(&saved()).unwrap();
    let mut alive: std::collections::VecDeque<u64> = std::collections::VecDeque::new();
    let (mut most, mut seq) = (0, 0);
    log.retain_ids_from(u64::MAX);
    for tick in 1..=3_000_u64 {
        for _ in 0..5 {
            seq += 1;
            log.append(record(seq, 100)).unwrap();
            alive.push_back(seq);
            if alive.len() > 70 {
                let oldest = alive.pop_front().unwrap();
                log.remove(&[oldest], RemovalReason::Limit).unwrap();
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
fn a_newest_file_that_is_not_worth_it_yet_keeps_no_other_from_being_rewritten() {
    let sim = Sim::new();
    let shared = Shared::new(Box::new(sim), Path::new(FOLDER), SyncMode::Strict, 1 << 30, None);
    let mut log = DiskStore::with(shared, 4 << 20).unwrap().create(&saved()).unwrap();
    log.retain_ids_from(u64::MAX);
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
    log.remove(&(1..=last_of_first).filter(|seq| seq % 5 < 3).collect::<Vec<_>>(), RemovalReason::Limit)
        .unwrap();
    log.remove(&(last_of_first + 1..seq).collect::<Vec<_>>(), RemovalReason::Limit).unwrap();
    log.commit().unwrap();
    for tick in 1..20 {
        log.on_tick(tick * 200_000_000).unwrap();
    }
    assert!(log.size() < full / 2 + 200_000, "{} of {full} bytes", log.size());
}
