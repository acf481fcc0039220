//! A store that is short of space, by its own limit or on the disk.

use serde_json::{Value, json};

use super::harness::Harness;
use crate::jetstream::request::Route;
use crate::storage;

const MIB: usize = 1 << 20;
/// A tick, in nanoseconds.
const TICK: u64 = 200_000_000;
const MINUTE: u64 = 60_000_000_000;
const HOUR: u64 = 60 * MINUTE;

fn is_stored(answer: &str) -> bool {
    answer.contains("\"seq\"") && !answer.contains("error")
}

/// Returns the sequence that an acknowledgement names.
fn seq_of(answer: &str) -> u64 {
    serde_json::from_str::<Value>(answer).expect("JSON")["seq"].as_u64().expect("a sequence")
}

fn tick(harness: &mut Harness, after: u64) {
    harness.now += after;
    harness.streams.on_tick(harness.now);
    harness.streams.settle(harness.now);
}

fn erase(harness: &mut Harness, subject: &str) -> String {
    harness.publish(subject, &[("Nats-Rollup", "sub"), ("Erased", "1")], "")
}

fn holds(disk: &storage::Simulated, text: &str) -> bool {
    disk.contents().windows(text.len()).any(|part| part == text.as_bytes())
}

/// Returns a text that no other message has.
fn text(number: usize, len: usize) -> String {
    format!("<{number}>").repeat(len)[..len].to_owned()
}

#[test]
fn a_store_does_not_fill_with_what_is_dead() {
    // One large channel with one message, and users who come and go with two bytes each.
    let disk = storage::Simulated::limited(12 * MIB as u64);
    let mut harness = Harness::new(disk.open());
    harness.make(
        "S",
        "s.>",
        json!({ "max_msgs_per_subject": 1, "allow_rollup_hdrs": true, "discard": "new" }),
    );
    let large = "x".repeat(200_000);
    for round in 0..400 {
        for (subject, payload) in
            [("s.large".to_owned(), &*large), (format!("s.a{round}"), "hi"), (format!("s.b{round}"), "hi")]
        {
            let answer = harness.publish(&subject, &[], payload);
            assert!(is_stored(&answer), "round {round}: {answer}");
        }
        if round % 5 == 0 {
            tick(&mut harness, TICK);
        }
    }
    assert_eq!(harness.streams.check(), None);
}

#[test]
fn whatever_is_alive_fits_up_to_four_fifths_of_the_limit() {
    for seed in 0..2 {
        let (max_bytes, mut random) = (2 * MIB, fastrand::Rng::with_seed(seed));
        let disk = storage::Simulated::limited(max_bytes as u64);
        let mut harness = Harness::new(disk.open());
        // Up to four fifths of the limit, in messages of very different sizes that are replaced in any order.
        harness.make("S", "s.>", json!({ "max_msgs_per_subject": 1, "discard": "new" }));
        let (mut alive, mut all, mut stored) = (std::collections::HashMap::new(), 0, 0_usize);
        while stored < 6 * max_bytes {
            let size = if random.u8(..50) == 0 { random.usize(..60_000) } else { random.usize(..400) };
            let subject = random.u32(..5_000);
            let before = alive.get(&subject).copied().unwrap_or(0);
            // At four fifths a message is replaced by one that is not larger.
            let room = max_bytes / 5 * 4 - all + before;
            if room < 100 {
                continue;
            }
            // The overhead of a record, and of the removal of the message before.
            let size = size.min(room - 100);
            let answer = harness.publish(&format!("s.{subject:05}"), &[], &"x".repeat(size));
            assert!(is_stored(&answer), "seed {seed}, {stored} stored, {all} alive: {answer}");
            alive.insert(subject, size + 100);
            all = all - before + size + 100;
            stored += size + 100;
            if random.u8(..20) == 0 {
                tick(&mut harness, TICK);
            }
        }
        assert!(all > max_bytes / 10 * 7, "{all} alive");
        assert_eq!(harness.streams.check(), None);
        tick(&mut harness, TICK);
        let store = harness.streams.store_now();
        let copied = store.rewritten_bytes as f64 / stored as f64;
        assert!(copied < 5.0, "seed {seed}: {copied} bytes copied for each one stored");
        assert!(store.bytes <= max_bytes as u64, "{store:?}");
    }
}

#[test]
fn a_full_store_lets_erasures_and_bans_in() {
    let disk = storage::Simulated::limited(4 * MIB as u64);
    let mut harness = Harness::new(disk.open());
    harness.make("S", "s.>", json!({ "allow_rollup_hdrs": true, "discard": "new" }));
    harness.make("BANS", "ban.>", json!({ "discard": "new" }));
    let mut number = 0;
    loop {
        number += 1;
        let answer = harness.publish(&format!("s.{}", number % 7), &[], &text(number, 3_000));
        if !is_stored(&answer) {
            assert!(answer.contains("no space left"), "{answer}");
            break;
        }
    }
    let ban = harness.give(Route::Publish("BANS"), "ban.7", "", "until then");
    assert!(is_stored(std::str::from_utf8(&ban[0].payload).unwrap()), "{ban:?}");
    let answer = erase(&mut harness, "s.3");
    assert!(is_stored(&answer), "{answer}");
    let answer = harness.publish("s.3", &[], &text(0, 3_000));
    assert!(is_stored(&answer), "what was erased makes room at once: {answer}");
}

#[test]
fn a_stream_at_its_limit_is_erased_from_and_nothing_of_the_text_stays() {
    let disk = storage::Simulated::limited(64 * MIB as u64);
    let mut harness = Harness::new(disk.open());
    harness.make("S", "s.>", json!({ "max_msgs_per_subject": 2, "max_bytes": 20_000, "discard": "new" }));
    for number in 0..3 {
        assert!(is_stored(&harness.publish("s.a", &[], &text(number, 1_000))));
    }
    let mut number = 3;
    for size in [1_000, 1] {
        while is_stored(&harness.publish(&format!("s.{number}"), &[], &text(number, size))) {
            number += 1;
        }
    }
    let mark = &[("Erased", "1")][..];
    assert!(harness.publish("s.none", mark, "").contains("maximum bytes"), "nothing would make room for it");
    let before = harness.ask("STREAM.INFO.S", "")["state"]["num_subjects"].clone();
    let answer = harness.publish("s.a", mark, "");
    assert!(is_stored(&answer), "{answer}");
    assert_eq!(
        harness.ask("STREAM.INFO.S", "")["state"]["num_subjects"],
        before,
        "no other channel lost anything"
    );
    // One message has made room for the mark, and this purge removes the others, as an erasure does.
    harness.ask("STREAM.PURGE.S", &json!({ "filter": "s.a", "seq": seq_of(&answer) }).to_string());
    tick(&mut harness, 2 * MINUTE);
    tick(&mut harness, TICK);
    for number in 1..3 {
        assert!(!holds(&disk, &text(number, 30)), "message {number} was erased");
    }
    assert!(holds(&disk, &text(3, 30)));
    assert_eq!(harness.streams.check(), None);
}

#[test]
fn what_makes_room_by_a_limit_is_not_taken_for_erased() {
    let disk = storage::Simulated::limited(64 * MIB as u64);
    let mut harness = Harness::new(disk.open());
    harness.make("BANS", "ban.>", json!({ "max_msgs_per_subject": 1 }));
    for number in 0..20 {
        harness.give(Route::Publish("BANS"), "ban.7", "", &text(number, 300));
    }
    for _ in 0..5 {
        tick(&mut harness, MINUTE);
    }
    assert_eq!(harness.streams.store_now().rewrites, 0, "nobody waits for a few bytes of this file");
}

#[test]
fn a_disk_that_others_fill_has_no_file_rewritten_for_each_message_that_is_refused() {
    let disk = storage::Simulated::limited(64 * MIB as u64);
    let mut harness = Harness::new(disk.open());
    harness.make("S", "s.>", json!({ "max_msgs_per_subject": 1 }));
    for number in 0..6_000 {
        harness.publish(&format!("s.{number}"), &[], &text(number, 1_500));
    }
    // Too little waste in each file for a tick, and enough for a message that wants space.
    for number in (0..6_000).step_by(9) {
        harness.publish(&format!("s.{number}"), &[], "");
    }
    disk.set_left(10 * MIB as u64);
    tick(&mut harness, TICK);
    let before = harness.streams.store_now();
    assert!(before.segments > 5 && before.wasted_bytes * 11 > before.bytes, "{before:?}");
    assert!(harness.publish("s.new", &[], "x").contains("no space left"));
    assert_eq!(harness.streams.store_now().rewrites, before.rewrites);
}

#[test]
fn on_a_full_disk_everything_but_growing_goes_on() {
    let disk = storage::Simulated::limited(64 * MIB as u64);
    disk.set_left(40 * MIB as u64);
    let mut harness = Harness::new(disk.open());
    harness.make(
        "S",
        "s.>",
        json!({ "max_msgs_per_subject": 2, "allow_rollup_hdrs": true, "discard": "new" }),
    );
    tick(&mut harness, TICK);
    for number in 0..2_000 {
        assert!(is_stored(&harness.publish(&format!("s.{}", number % 9), &[], &text(number, 300))));
    }
    assert!(is_stored(&harness.publish("s.keep", &[], "kept")));
    tick(&mut harness, TICK);
    disk.fill();
    for _ in 0..30 {
        // Rewriting is wanted too, but the disk has no space for a copy.
        tick(&mut harness, TICK);
    }
    let refused = harness.publish("s.1", &[], &text(1, 300));
    assert!(refused.contains("no space left"), "{refused}");
    assert_eq!(harness.streams.check(), None, "all can be read");
    assert_eq!(harness.streams.error_now(), None, "a full disk is no failed store");

    for killed in [false, true, true] {
        let now = harness.now;
        if killed {
            disk.kill(harness);
        } else {
            drop(harness);
        }
        harness = Harness::opened_at(disk.open(), now);
        assert_eq!(harness.streams.check(), None, "it is opened and read, killed: {killed}");
        assert_eq!(harness.ask("STREAM.INFO.S", "")["state"]["num_subjects"], 10);
        tick(&mut harness, TICK);
    }
    let erased = erase(&mut harness, "s.3");
    assert!(is_stored(&erased), "the reserve has room for it: {erased}");
    assert_eq!(harness.streams.check(), None);
    let now = harness.now;
    disk.kill(harness);
    let mut harness = Harness::opened_at(disk.open(), now);
    assert_eq!(
        harness.ask("STREAM.INFO.S", r#"{"subjects_filter":"s.3"}"#)["state"]["subjects"],
        json!({"s.3": 1})
    );

    disk.set_left(60 * MIB as u64);
    for _ in 0..20 {
        tick(&mut harness, TICK);
    }
    assert!(is_stored(&harness.publish("s.1", &[], &text(1, 300))), "it goes on by itself");
    assert_eq!(harness.streams.check(), None);
}

#[test]
fn a_repeat_is_a_duplicate_after_its_message_has_left_and_everything_was_read_anew() {
    for how in ["evicted", "erased"] {
        let disk = storage::Simulated::limited(4 * MIB as u64);
        let mut harness = Harness::new(disk.open());
        harness.make(
            "S",
            "s.>",
            json!({ "max_msgs_per_subject": 10, "allow_rollup_hdrs": true, "duplicate_window": 60_000_000_000_u64 }),
        );
        let keyed = |harness: &mut Harness| harness.publish("s.a", &[("Nats-Msg-Id", "key")], "first");
        assert!(is_stored(&keyed(&mut harness)));
        if how == "erased" {
            assert!(is_stored(&erase(&mut harness, "s.a")));
        }
        for number in 0..1_200 {
            assert!(is_stored(&harness.publish("s.a", &[], &text(number, 3_000))));
            if number % 50 == 0 {
                tick(&mut harness, TICK);
            }
        }
        assert!(!holds(&disk, "first"), "{how}: its file was given back");
        let now = harness.now;
        disk.kill(harness);
        let mut harness = Harness::opened_at(disk.open(), now);
        let answer = keyed(&mut harness);
        assert!(answer.contains("\"duplicate\": true") && answer.contains("\"seq\":1"), "{how}: {answer}");
        harness.now += 61_000_000_000;
        assert!(!keyed(&mut harness).contains("duplicate"), "{how}: the window has passed");
    }
}

#[test]
fn what_was_erased_leaves_its_file_within_minutes_and_what_expired_within_an_hour() {
    // Quiet: a few small messages, never enough to end a file.
    let disk = storage::Simulated::limited(1 << 30);
    let mut harness = Harness::new(disk.open());
    harness.make("S", "s.>", json!({ "max_age": 10 * HOUR, "allow_rollup_hdrs": true }));
    harness.publish("s.a", &[], "secret of a");
    harness.publish("s.b", &[], "secret of b");
    tick(&mut harness, TICK);
    erase(&mut harness, "s.a");
    tick(&mut harness, 2 * MINUTE);
    tick(&mut harness, TICK);
    assert!(!holds(&disk, "secret of a"), "erased");
    assert!(holds(&disk, "secret of b"));
    erase(&mut harness, "s.b");
    harness.publish("s.c", &[], "secret of c");
    // A restart must not forget what is due.
    let now = harness.now;
    drop(harness);
    let mut harness = Harness::opened_at(disk.open(), now + TICK);
    tick(&mut harness, TICK);
    tick(&mut harness, TICK);
    assert!(!holds(&disk, "secret of b"), "erased before a restart");
    assert!(holds(&disk, "secret of c"));
    harness.publish("s.d", &[], "alive");
    tick(&mut harness, 10 * HOUR);
    harness.publish("s.d", &[], "alive");
    tick(&mut harness, HOUR);
    tick(&mut harness, TICK);
    assert!(!holds(&disk, "secret of c"), "expired");
    assert!(holds(&disk, "alive"));
    assert_eq!(harness.streams.check(), None);
}

#[test]
fn erased_text_is_looked_for_with_two_mebibytes_a_tick() {
    // The rate that the manual names.
    let disk = storage::Simulated::limited(64 * MIB as u64);
    let mut harness = Harness::new(disk.open());
    harness.make("S", "s.>", json!({}));
    for number in 0..8_000 {
        let payload =
            if number % 500 == 0 { format!("secret {}", text(number, 1_400)) } else { text(number, 1_400) };
        harness.publish(&format!("s.{number}"), &[], &payload);
    }
    for number in (0..8_000).step_by(500) {
        harness.ask("STREAM.PURGE.S", &json!({ "filter": format!("s.{number}") }).to_string());
    }
    let mebibytes = harness.streams.store_now().bytes / MIB as u64;
    assert!(mebibytes >= 10 && holds(&disk, "secret "));
    tick(&mut harness, 61 * 1_000_000_000);
    for _ in 0..=mebibytes / 2 {
        tick(&mut harness, TICK);
    }
    assert!(!holds(&disk, "secret "), "{mebibytes} MiB");
}
