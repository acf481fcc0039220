//! The data folder of the embedded bus, copied and put back as an operator does: a device gets all messages,
//! or is told that it cannot; never a part.

use std::fs;

use harness::alone::Alone;
use harness::device::Device;
use harness::fleet::{Fleet, Over};
use harness::program::Launch;
use tempfile::TempDir;

use super::{ids, must_recover, must_reload};
use crate::backup::copy;
use crate::store;

/// Asks the process to leave, as `systemctl stop` does.
async fn stop(alone: &mut Alone) {
    alone.program.signal("TERM").await;
    alone.program.expect_success().await;
}

/// Copies the data folder.
fn back_up(alone: &Alone) -> TempDir {
    let backup = TempDir::new().expect("there is room");
    copy(&alone.data(), backup.path());
    backup
}

/// Replaces the data folder with a copy.
fn restore(alone: &Alone, backup: &TempDir) {
    fs::remove_dir_all(alone.data()).expect("it is ours");
    copy(backup.path(), &alone.data());
}

#[tokio::test]
async fn a_folder_that_was_put_back_and_declared_makes_devices_reload() {
    let mut alone = Alone::start().await;
    let before = ids(&alone, 1..=3).await;
    stop(&mut alone).await;
    let backup = back_up(&alone);
    alone.start_again(&[]).await;
    let after = ids(&alone, 4..=6).await;
    stop(&mut alone).await;

    restore(&alone, &backup);
    let data = alone.data().display().to_string();
    let declare = Launch::of("history").argument("new-generation").argument("--data").argument(&data);
    // The harness would keep streams in memory.
    let declared = declare.argument("--yes").variable("MC_BUS__STORE__SYNC", "strict").run().await;
    assert_eq!(declared.code, 0, "{declared:?}");
    alone.start_again(&[]).await;
    // As many messages as were lost, so that every sequence known to devices is given out anew.
    let anew = ids(&alone, 7..=10).await;
    for id in [&before[0], &before[2], &after[0], &after[2]] {
        must_reload(&alone, id).await;
    }
    // The messages since are whole; `must_reload` published some, too.
    let (mut device, recovery) = Device::back(alone.edge(), "user-1", &anew[1]).await;
    assert!(recovery.recovered, "{recovery:?}");
    device.expect_messages(["9", "10", "reloaded", "reloaded", "reloaded", "reloaded"]).await;
    device.close().await;
    alone.end().await;
}

#[tokio::test]
async fn a_folder_that_was_put_back_as_it_was_left_is_recovered_from() {
    let mut alone = Alone::start().await;
    let ids = ids(&alone, 1..=5).await;
    stop(&mut alone).await;
    let backup = back_up(&alone);
    restore(&alone, &backup);
    alone.start_again(&[]).await;
    must_recover(&alone, &ids[1], 3..=5).await;
    must_recover(&alone, &ids[4], []).await;
    alone.end().await;
}

#[tokio::test]
async fn a_snapshot_of_one_moment_holds_all_that_was_acknowledged_before() {
    let mut alone = Alone::start().await;
    let ids = ids(&alone, 1..=20).await;
    // A stopped process writes nothing: the copy is of one moment, like a snapshot of a volume.
    alone.program.signal("STOP").await;
    let backup = back_up(&alone);
    alone.program.signal("CONT").await;
    alone.kill().await;
    restore(&alone, &backup);
    alone.start_again(&[]).await;
    must_recover(&alone, &ids[4], 6..=20).await;
    alone.end().await;
}

#[tokio::test]
async fn a_disk_that_lost_its_end_while_parts_run_makes_devices_reload() {
    let folder = TempDir::new().expect("there is room");
    let mut bus = store::bus(folder.path(), "strict").start();
    let address = store::address(&mut bus).await;
    let mut fleet = Fleet::plan(Over::Url(format!("nats://{address}"))).start().await;
    fleet.expect_errors();
    let publisher = fleet.publisher(0);
    let (mut live, _) = Device::back(fleet.edge(0), "user-1", "").await;
    for text in ["one", "two", "three"] {
        assert_eq!(publisher.publish("user:1", text).await.counts(), Some((1, 0)));
    }
    let third = live.expect_messages(["one", "two", "three"]).await;
    bus.signal("STOP").await;
    let earlier = TempDir::new().expect("there is room");
    copy(folder.path(), earlier.path());
    bus.signal("CONT").await;
    for text in ["four", "five", "six"] {
        assert_eq!(publisher.publish("user:1", text).await.counts(), Some((1, 0)));
    }
    let sixth = live.expect_messages(["four", "five", "six"]).await;

    bus.kill().await;
    fs::remove_dir_all(folder.path()).expect("it is ours");
    copy(earlier.path(), folder.path());
    let mut bus = store::bus(folder.path(), "strict").set("bus.listen", address).start();
    assert_eq!(store::address(&mut bus).await, address);
    // More messages than were lost: every sequence known to the device now belongs to another message.
    for text in ["seven", "eight", "nine", "ten"] {
        assert_eq!(publisher.publish("user:1", text).await.status, 200);
    }
    let position = live.expect_event("@reload").await;
    assert_eq!(publisher.publish("user:1", "eleven").await.status, 200);
    // Some of the messages stored before the word may arrive after it.
    let rest = live.take_until("eleven").await;
    let later = ["seven", "eight", "nine", "ten"];
    assert!(later.ends_with(&rest.iter().map(String::as_str).collect::<Vec<_>>()), "{rest:?}");
    fleet.ready().await;
    for id in [&sixth, &third] {
        let (back, recovery) = Device::back(fleet.edge(0), "user-1", id).await;
        assert!(!recovery.recovered, "{recovery:?} after {id}");
        back.close().await;
    }
    let mut back = Device::recovered(fleet.edge(0), "user-1", &position).await;
    back.take_until("eleven").await;
    for device in [live, back] {
        device.close().await;
    }
    fleet.end().await;
    bus.signal("TERM").await;
    bus.expect_success().await;
}
