//! A full disk: publishes are refused with a reason, and the process stays up and continues once there is
//! space.
//!
//! Runs on a small filesystem where a mount namespace can be had (`unshare`), and everywhere with the store's
//! own limit.

use std::net::SocketAddr;
use std::path::Path;

use harness::program::{Launch, Program};
use harness::raw;
use harness::tools;
use harness::wait::{eventually, until};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::wire::Wire;
use super::{address, bus, make};

/// Stores messages until one is refused; returns the number of acknowledged messages and the error.
async fn fill(wire: &mut Wire, payload: usize, most: u64) -> (u64, Value) {
    for number in 1..=most {
        let text = format!("{number} {}", "x".repeat(payload));
        let answer = wire.store("s.a", &format!("fill{number}"), &text).await;
        if answer["error"].is_null() {
            assert_eq!(answer["seq"], number, "{answer}");
        } else {
            return (number - 1, answer["error"].clone());
        }
    }
    panic!("{most} messages of {payload} bytes are more than the room");
}

/// Fills the store, reads everything, frees space, and stores again.
async fn exercise(program: &mut Program, payload: usize, most: u64) {
    program.expect_errors();
    let admin: SocketAddr = program.address("the admin port listens").await;
    let mut wire = Wire::connect(address(program).await).await;
    make(&mut wire, &json!({})).await;
    let (stored, error) = fill(&mut wire, payload, most).await;
    assert!(stored > 3, "{stored} messages of {payload} bytes");
    assert_eq!((&error["code"], &error["err_code"]), (&json!(503), &json!(10077)), "{error}");
    assert!(error["description"].as_str().is_some_and(|text| text.contains("no space left")), "{error}");
    let gauge = async |name: &str| raw::metric(admin, name, "").await;
    eventually("the metrics say that it is full", async || gauge("mc_bus_server_store_full").await == 1.0)
        .await;
    eventually("and count who was refused", async || gauge("mc_bus_server_store_refused_total").await >= 1.0)
        .await;
    let note = until("/readyz says so", async || {
        let ready = raw::get(admin, "/readyz").await;
        (ready.body.contains("full")).then_some(ready)
    })
    .await;
    assert_eq!(note.status, 200, "what is there can be read, so the process stays in use: {note:?}");
    let all = wire.all().await;
    assert_eq!(all.len() as u64, stored, "everything acknowledged is there");

    // The refused message is absent, and can be stored once there is space.
    let purged = wire.ask("STREAM.PURGE.S", r#"{"keep":2}"#).await;
    assert_eq!(purged["purged"], stored - 2, "{purged}");
    let again = until("it stores again", async || {
        let answer = wire.store("s.a", "again", "there is room").await;
        answer["error"].is_null().then_some(answer)
    })
    .await;
    // A write that was cut short may have used up sequences.
    let seq = again["seq"].as_u64().filter(|seq| *seq > stored).unwrap_or_else(|| panic!("{again}"));
    let left = wire.all().await;
    assert_eq!(left.keys().copied().collect::<Vec<_>>(), [stored - 1, stored, seq]);
    eventually("the metrics say so", async || gauge("mc_bus_server_store_full").await == 0.0).await;
    eventually("and /readyz", async || raw::get(admin, "/readyz").await.body == "ok\n").await;
}

#[tokio::test]
async fn at_the_limit_of_its_folder_the_bus_refuses_until_there_is_room() {
    let folder = TempDir::new().expect("there is room");
    let mut program = bus(folder.path(), "strict").set("bus.store.max_bytes", "3MiB").start();
    exercise(&mut program, 20_000, 1_000).await;
    program.end().await;
}

#[tokio::test]
async fn at_the_limit_of_its_memory_the_bus_refuses_until_some_has_gone() {
    let folder = TempDir::new().expect("there is room");
    let launch = || bus(folder.path(), "relaxed").set("bus.store.max_memory", "16MiB");
    let mut program = launch().start();
    program.expect_errors();
    let mut wire = Wire::connect(address(&mut program).await).await;
    make(&mut wire, &json!({})).await;
    // Long subjects, so that few of them fill the store.
    let subject = |number: u64| format!("s.{number}.{}", "x".repeat(3_000));
    let mut stored = 0;
    let error = loop {
        let answer = wire.store(&subject(stored + 1), &format!("m{}", stored + 1), "x").await;
        if !answer["error"].is_null() {
            break answer["error"].clone();
        }
        stored += 1;
        assert!(stored < 10_000, "there is no bound");
    };
    assert!(stored > 2_000, "{stored}");
    assert_eq!((&error["code"], &error["err_code"]), (&json!(503), &json!(10077)), "{error}");
    assert!(error["description"].as_str().is_some_and(|text| text.contains("no memory left")), "{error}");
    let again = wire.store(&subject(1), "m1", "x").await;
    assert_eq!((&again["seq"], &again["duplicate"]), (&json!(1), &json!(true)), "{again}");
    let bans = r#"{"name":"MC_DENY","subjects":["mc.deny.>"]}"#;
    assert!(wire.ask("STREAM.CREATE.MC_DENY", bans).await["error"].is_null());
    assert_eq!(wire.store("mc.deny.1", "ban", "x").await["seq"], 1, "a ban finds room");
    let mark = wire.store(&subject(1), "mark\r\nMc-Erased: 1", "").await;
    assert_eq!(mark["seq"], stored + 1, "and a mark of erasing: {mark}");
    let stored = stored + 1;

    program.kill().await;
    let mut program = launch().start();
    program.expect_errors();
    let admin: SocketAddr = program.address("the admin port listens").await;
    let mut wire = Wire::connect(address(&mut program).await).await;
    let ready = until("/readyz says what is full", async || {
        let ready = raw::get(admin, "/readyz").await;
        ready.body.contains("bus.store.max_memory").then_some(ready)
    })
    .await;
    assert_eq!(ready.status, 200, "what is there can be read: {ready:?}");
    let gauge = async |name: &str| raw::metric(admin, name, "").await;
    assert_eq!(gauge("mc_bus_server_store_full").await, 1.0);
    assert_eq!(gauge("mc_bus_server_store_max_memory_bytes").await, f64::from(16 << 20));
    assert!(gauge("mc_bus_server_store_memory_bytes").await >= f64::from(16 << 20));
    let refused = wire.store(&subject(stored + 1), "new", "x").await;
    assert_eq!(refused["error"]["err_code"], 10077, "{refused}");
    assert_eq!(wire.ask("STREAM.MSG.GET.S", r#"{"seq":2}"#).await["message"]["seq"], 2);
    let purged = wire.ask("STREAM.PURGE.S", r#"{"keep":2}"#).await;
    assert_eq!(purged["purged"], stored - 2, "{purged}");
    until("it stores again", async || {
        let answer = wire.store(&subject(stored + 1), "new", "x").await;
        answer["error"].is_null().then_some(())
    })
    .await;
    eventually("the metrics say so", async || gauge("mc_bus_server_store_full").await == 0.0).await;
    program.end().await;
}

#[tokio::test]
async fn on_a_disk_without_room_the_bus_refuses_until_there_is_some() {
    let test = "a small filesystem of its own";
    let tried = Command::new("unshare").args(["-Urm", "mount", "-t", "tmpfs", "none", "/mnt"]).output().await;
    if !tried.is_ok_and(|tried| tried.status.success()) {
        return tools::left_out(test, "this machine has no unshare, or does not let it mount anything");
    }
    let folder = TempDir::new().expect("there is room");
    for sync in ["strict", "relaxed"] {
        // The store reserves 16 MiB of it for removals.
        let script =
            format!("mount -t tmpfs -o size=24m none {} && exec \"$0\" \"$@\"", folder.path().display());
        let inside = folder.path().join("data");
        let launch: Launch = bus(&inside, sync).under(Path::new("unshare"), &["-Urm", "sh", "-c", &script]);
        let mut program = launch.start();
        exercise(&mut program, 60_000, 2_000).await;
        // unshare becomes the shell, and the shell becomes the bus.
        program.end().await;
    }
}

#[tokio::test]
async fn a_write_that_finds_no_room_takes_nothing_back_that_was_acknowledged() {
    // The system refuses to extend a file beyond its largest size, in the middle of a batch.
    let folder = TempDir::new().expect("there is room");
    let script = "ulimit -f 4000; trap '' XFSZ; exec \"$0\" \"$@\"";
    let launch: Launch = bus(folder.path(), "strict").under(Path::new("bash"), &["-c", script]);
    let mut program = launch.start();
    program.expect_errors();
    let admin: SocketAddr = program.address("the admin port listens").await;
    let mut wire = Wire::connect(address(&mut program).await).await;
    make(&mut wire, &json!({})).await;
    let (stored, error) = fill(&mut wire, 60_000, 1_000).await;
    assert!(stored > 3 && error["err_code"] == 10077, "{stored}: {error}");
    let unready = until("/readyz says that the disk fails", async || {
        // Each attempt is one more failure.
        wire.store("s.a", "again", &"x".repeat(60_000)).await;
        let ready = raw::get(admin, "/readyz").await;
        (ready.status == 503).then_some(ready.body)
    })
    .await;
    assert!(unready.contains("bus store: stream S: the stream's store failed"), "{unready}");
    assert!(raw::metric(admin, "mc_bus_server_store_errors_total", "").await >= 1.0);
    let all = until("it is read anew", async || {
        let all = wire.all().await;
        (all.len() as u64 == stored).then_some(all)
    })
    .await;
    let in_order =
        all.iter().zip(1..).all(|((seq, (id, _)), number)| *seq == number && *id == format!("fill{number}"));
    assert!(in_order, "everything acknowledged is there");
    program.end().await;
}
