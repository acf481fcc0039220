//! Damage that a start finds: files and folders that are changed, gone, of another format, or another
//! program's.

use super::*;

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
    let active = (1..100).map(segment).take_while(|path| Files::open(&sim, path).is_ok()).last().unwrap();
    sim.damage(&active, sim.size(&active) - 1);
    let (told, opened) = open(&sim).unwrap();
    assert_eq!(told, (1..last).collect::<Vec<u64>>());
    assert!(opened.last_seq >= last, "the sequence of the lost one is not used again: {opened:?}");
}

/// Returns a payload that looks like records, which claim that the file was on the disk up to `synced`.
fn forged(synced: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    for seq in [1, 2, 1 << 40] {
        frame::put_message(&mut payload, Salt::NONE, synced, &record(seq, 20));
        frame::put_remove(&mut payload, Salt::random(), synced, RemovalReason::Limit, &[1, seq]);
        frame::put_reserve(&mut payload, Salt::NONE, synced, seq);
    }
    payload
}

#[test]
fn records_in_a_payload_are_not_taken_for_the_logs_own_when_its_write_was_cut_off() {
    // Torn in the last byte, in the fields before the subject, and in the length.
    for torn in [None, Some(frame::PREFIX + 2), Some(1)] {
        let sim = Sim::new();
        let mut log = store(&sim, SyncMode::Strict).unwrap().create(&saved()).unwrap();
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
    let log = store(&sim, SyncMode::Strict).unwrap().create(&saved()).unwrap();
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
    let opened = store(&sim, SyncMode::Strict).unwrap().open("S", &mut |one| there(one, &mut told)).unwrap();
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
    let parent = tempfile::tempdir().unwrap();
    drop(folder::take(parent.path()).unwrap());
    let now = std::fs::read_to_string(parent.path().join("format")).unwrap();
    std::fs::write(parent.path().join("format"), "message-center bus data, format 1\n").unwrap();
    drop(folder::take(parent.path()).unwrap());
    assert_eq!(std::fs::read_to_string(parent.path().join("format")).unwrap(), now);
}

#[test]
fn a_log_that_ended_well_and_is_shorter_now_is_damaged() {
    let sim = Sim::new();
    let mut log = store(&sim, SyncMode::Relaxed).unwrap().create(&saved()).unwrap();
    log.append(record(1, 10)).unwrap();
    log.commit().unwrap();
    drop(log);
    let mut file = Files::open(&sim, &segment(1)).unwrap();
    file.set_len(40).unwrap();
    assert!(open(&sim).unwrap_err().to_string().contains("ended well"));
}

#[cfg(unix)]
#[test]
fn a_new_folder_is_for_its_user_alone_and_one_that_is_there_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("some/data");
    drop(folder::take(&data).unwrap());
    assert_eq!(mode(&data), 0o700);
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o750)).unwrap();
    drop(folder::take(&data).unwrap());
    assert_eq!(mode(&data), 0o750);
}

#[test]
fn a_folder_that_is_no_data_folder_is_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    std::fs::write(parent.path().join("letter.txt"), "mine").unwrap();
    assert!(folder::take(parent.path()).unwrap_err().to_string().contains("not empty"));
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("format"), "message-center bus data, format 9\n").unwrap();
    assert!(folder::take(other.path()).unwrap_err().to_string().contains("another format"));
    let file = parent.path().join("letter.txt/data");
    assert!(folder::take(&file).unwrap_err().to_string().contains("bus.store.path"));
}

#[test]
fn a_log_is_read_on_a_full_disk_and_its_sequences_are_not_used_again() {
    let sim = Sim::new();
    let last = filled(&sim);
    // Torn, so that the next opening wants to begin a new segment.
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
fn a_segment_or_the_settings_that_are_gone_are_noticed() {
    for gone in ["00000001.log", "00000003.log", "newest", "stream.json"] {
        let sim = Sim::new();
        filled(&sim);
        let newest = (1..100).take_while(|one| Files::open(&sim, &segment(*one)).is_ok()).last().unwrap();
        let gone = if gone == "newest" { format!("{newest:08x}.log") } else { gone.to_owned() };
        Files::remove(&sim, &Path::new(FOLDER).join("streams/S").join(&gone)).unwrap();
        let mut disks = store(&sim, SyncMode::Strict).unwrap();
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
        let mut disks = store(&sim, SyncMode::Strict).unwrap();
        sim.cut_after(changes);
        let _ = disks.delete("S");
        sim.kill();
        let mut disks = store(&sim, SyncMode::Strict).unwrap();
        if disks.streams().unwrap().is_empty() {
            drop(disks.create(&saved()).unwrap());
        }
        assert!(disks.open("S", &mut |_| {}).is_ok(), "cut off after {changes} changes");
    }
}
