//! The data folder of the embedded bus, copied and put back as an operator does: all of what was stored, or the word that
//! it isn't, never a part.

use std::fs;

use harness::alone::Alone;
use harness::program::Launch;
use tempfile::TempDir;

use super::{ids, must_recover, must_reload};
use crate::backup::copy;

/// Asks it to leave, as `systemctl stop` does.
async fn stop(alone: &mut Alone) {
    alone.program.signal("TERM").await;
    alone.program.expect_success().await;
}

/// A copy of the data folder.
fn back_up(alone: &Alone) -> TempDir {
    let backup = TempDir::new().expect("there is room");
    copy(&alone.data(), backup.path());
    backup
}

/// Puts a copy in the place of the data folder.
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
    // The harness asks for memory otherwise.
    let declared = declare.argument("--yes").variable("MC_BUS__STORE__SYNC", "strict").run().await;
    assert_eq!(declared.code, 0, "{declared:?}");
    alone.start_again(&[]).await;
    // As many as were lost, so that every sequence that devices know was given out anew.
    let anew = ids(&alone, 7..=10).await;
    for id in [&before[0], &before[2], &after[0], &after[2]] {
        must_reload(&alone, id).await;
    }
    // What was stored since is as whole as ever; `must_reload` published as well.
    let (mut device, recovery) = harness::device::Device::back(alone.edge(), "user-1", &anew[1]).await;
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
    // A process that stands still writes nothing: the copy is of one moment, as that of a volume is.
    alone.program.signal("STOP").await;
    let backup = back_up(&alone);
    alone.program.signal("CONT").await;
    alone.kill().await;
    restore(&alone, &backup);
    alone.start_again(&[]).await;
    must_recover(&alone, &ids[4], 6..=20).await;
    alone.end().await;
}
