//! Messages that are gone: expired, dropped by a full store, lost with the end of a disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::alone::Alone;
use harness::device::Device;
use harness::wait::eventually;

use super::{ids, must_recover, must_reload};

const STREAM: &str = "MC_LOG_0";
const KIB: usize = 1024;

/// Messages in the stream.
async fn stored(alone: &Alone) -> u64 {
    let info = alone.on_bus(async |bus| bus.stream_info(STREAM, Duration::from_secs(10)).await).await;
    info.expect("the stream is there").state.messages
}

#[tokio::test]
async fn what_expired_while_a_device_was_away_is_told() {
    let alone =
        Alone::plan().set("history.max_age", "2s").set("history.duplicate_window", "1s").start().await;
    let ids = ids(&alone, 1..=3).await;
    eventually("all has expired", async || stored(&alone).await == 0).await;
    // This device missed nothing: it has received the expired messages.
    must_recover(&alone, &ids[2], []).await;
    must_reload(&alone, &ids[1]).await;
    // Now a message is stored after the expired ones.
    must_reload(&alone, &ids[0]).await;
    alone.end().await;
}

#[tokio::test]
async fn what_a_full_store_dropped_while_a_device_was_away_is_told() {
    let alone =
        Alone::plan().set("history.max_bytes", "1MiB").set("history.full", "drop-oldest").start().await;
    let ids = ids(&alone, 1..=3).await;
    must_recover(&alone, &ids[0], [2, 3]).await;
    // Other channels fill the store.
    let (publisher, text) = (alone.publisher(), "x".repeat(64 * KIB));
    for user in 0..20 {
        publisher.publish_to(0, &format!("other:{user}"), &text).await;
        publisher.publish_to(0, &format!("user:{}", user + 10), &text).await;
    }
    must_reload(&alone, &ids[0]).await;
    // A device that missed nothing of its own channel cannot be told from one that did.
    must_reload(&alone, &ids[2]).await;
    alone.end().await;
}

#[tokio::test]
async fn a_full_store_refuses_rather_than_break_what_it_promised() {
    let alone = Alone::plan().set("history.max_bytes", "1MiB").start().await;
    let ids = ids(&alone, 1..=3).await;
    let (publisher, text) = (alone.publisher(), "x".repeat(64 * KIB));
    let mut refused = None;
    for user in 0..40 {
        let answer = publisher.publish(&format!("user:{}", user + 10), &text).await;
        if answer.counts().is_none() {
            refused = Some(answer);
            break;
        }
    }
    let why = refused.expect("1 MiB has an end").expect_error(503, 108);
    assert!(why.contains("full"), "it says what to do: {why}");
    must_recover(&alone, &ids[0], [2, 3]).await;
    alone.end().await;
}

#[tokio::test]
async fn a_disk_that_lost_its_end_is_told() {
    let mut alone = Alone::plan().set("bus.store.sync", "relaxed").start().await;
    // One large message, so that the cut falls into a message.
    let ids = ids(&alone, 1..=5).await;
    let (mut device, _) = alone.begin().await;
    let large = "z".repeat(32 * KIB);
    alone.publisher().publish_to(1, "user:1", &large).await;
    let lost = device.expect_message(&large).await;
    drop(device);
    must_recover(&alone, &lost, []).await;
    alone.kill().await;
    let file = holding(&alone.data(), large.as_bytes()).expect("the message is on disk");
    let length = std::fs::metadata(&file).expect("it is there").len();
    let whole = std::fs::read(&file).expect("it can be read");
    let begin = find(&whole, large.as_bytes()).expect("the message is in it");
    assert!(begin > 0 && (begin as u64) < length);
    let cut = std::fs::File::options().write(true).open(&file).expect("it can be written");
    cut.set_len(begin as u64 + 100).expect("it can be cut");
    drop(cut);
    let marks = pretend_that_the_machine_went_down(&alone.data());
    assert!(marks > 0, "each log says in which life of the machine it was open");
    alone.start_again(&[]).await;
    // The device has received a message that is gone.
    must_reload(&alone, &lost).await;
    // A message that is gone would have been replayed.
    must_reload(&alone, &ids[4]).await;
    must_reload(&alone, &ids[0]).await;
    let new = ids_after_loss(&alone).await;
    assert!(!ids.contains(&new) && new != lost, "no id is given out twice");
    alone.program.expect_errors();
    alone.end().await;
}

/// Rewrites the marks of the logs as if the machine had gone down since; returns their number. A killed
/// process loses nothing that was written, but a machine that goes down does.
fn pretend_that_the_machine_went_down(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).expect("the folder is there").filter_map(Result::ok);
    let mut marks = 0;
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            marks += pretend_that_the_machine_went_down(&path);
        } else if let Ok(text) = std::fs::read_to_string(&path)
            && let Some((_, rest)) = text.split_once("running boot=")
        {
            let (_, rest) = rest.split_once(' ').expect("more follows");
            std::fs::write(&path, format!("running boot=another {rest}")).expect("it can be written");
            marks += 1;
        }
    }
    marks
}

async fn ids_after_loss(alone: &Alone) -> String {
    let (mut device, _) = alone.begin().await;
    alone.publish(1, [6]).await;
    let id = device.expect_message("6").await;
    Device::close(device).await;
    id
}

/// The file below a folder that contains these bytes.
fn holding(folder: &Path, bytes: &[u8]) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder is there").filter_map(Result::ok);
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            if let Some(found) = holding(&path, bytes) {
                return Some(found);
            }
        } else if std::fs::read(&path).is_ok_and(|content| find(&content, bytes).is_some()) {
            return Some(path);
        }
    }
    None
}

fn find(content: &[u8], bytes: &[u8]) -> Option<usize> {
    content.windows(bytes.len()).position(|window| window == bytes)
}
