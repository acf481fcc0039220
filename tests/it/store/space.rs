//! Little free space, seen from outside: the limit of the folder, and a disk that another program fills.

use std::path::Path;
use std::process::Stdio;

use harness::alone::Alone;
use harness::device::Device;
use harness::raw;
use harness::tools;
use harness::wait::{eventually, soon, until};
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use super::wire::Wire;
use super::{address, bus, make};

#[tokio::test]
async fn a_folder_does_not_fill_with_messages_that_others_took_the_place_of() {
    // One channel with large messages, of which one is stored, and two bytes for each of many new users.
    let alone = Alone::plan()
        .set("history.per_channel", 1)
        .set("history.max_bytes", "11MiB")
        .set("bus.store.max_bytes", "12MiB")
        .set("history.partitions", 1)
        .start()
        .await;
    let (publisher, large) = (alone.publisher(), "x".repeat(200_000));
    for round in 0..150 {
        for (user, text) in [(1, &*large), (1000 + 2 * round, "hi"), (1001 + 2 * round, "hi")] {
            publisher.publish_to(0, &format!("user:{user}"), text).await;
        }
    }
    assert!(alone.metric("mc_bus_server_store_rewrites_total", "").await > 0.0);
    assert!(alone.metric("mc_bus_server_store_bytes", "").await < 12.0 * 1_048_576.0);
    assert_eq!(alone.metric("mc_bus_server_store_refused_total", "").await, 0.0);
    alone.end().await;
}

#[tokio::test]
async fn while_the_folder_is_full_channels_are_erased_and_users_kept_out() {
    let alone = Alone::plan()
        .set("history.max_bytes", "3MiB")
        .set("bus.store.max_bytes", "3MiB")
        .set("history.partitions", 1)
        .start()
        .await;
    let (publisher, text) = (alone.publisher(), "x".repeat(20_000));
    let mut device = Device::online(alone.edge(), "user-7").await;
    let mut number = 0;
    until("it is full", async || {
        number += 1;
        let answer = publisher.publish(&format!("user:{}", number % 5), &text).await;
        (answer.status == 503).then_some(())
    })
    .await;
    let request = publisher.request(Method::POST, "/v1/users/7/disconnect");
    let request =
        request.header("content-type", "application/json").body(r#"{"deny_for":"10m","reason":"no 7"}"#);
    let denied = publisher.send(request).await;
    assert_eq!(denied.status, 200, "{denied:?}");
    assert_eq!(device.expect_close(4410).await, "no 7");
    crate::bans::expect_refused_at(alone.edge(), "user-7", "no 7").await;
    let erased = publisher.send(publisher.request(Method::DELETE, "/v1/channels/user:3/messages")).await;
    assert_eq!(erased.status, 200, "{erased:?}");
    eventually("there is room again", async || publisher.publish("user:3", &text).await.status == 200).await;
    alone.end().await;
}

#[tokio::test]
async fn a_repeat_with_its_key_is_known_after_the_first_has_left_and_the_process_was_killed() {
    for how in ["evicted", "erased"] {
        let mut alone = Alone::plan()
            .set("history.per_channel", 10)
            .set("bus.store.max_bytes", "8MiB")
            .set("history.max_bytes", "6MiB")
            .set("history.partitions", 1)
            .start()
            .await;
        let keyed = async |alone: &Alone| {
            let publisher = alone.publisher();
            let request = publisher.request(Method::POST, "/v1/publish").header("idempotency-key", "once");
            let call = json!({ "to": { "users": [1] }, "raw": "first" }).to_string();
            let answer = publisher.send(request.header("content-type", "application/json").body(call)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            serde_json::from_str::<serde_json::Value>(&answer.text).expect("JSON")
        };
        let first = keyed(&alone).await;
        if how == "erased" {
            let publisher = alone.publisher();
            let request = publisher.request(Method::DELETE, "/v1/channels/user:1/messages");
            assert_eq!(publisher.send(request).await.status, 200);
        }
        let text = "y".repeat(9_000);
        let path = alone.data();
        until("the file of the first was given back", async || {
            for _ in 0..50 {
                alone.publisher().publish_to(0, "user:1", &text).await;
            }
            (!holds(&path, b"first")).then_some(())
        })
        .await;
        alone.kill().await;
        alone.start_again(&[]).await;
        let again = keyed(&alone).await;
        assert_eq!(again["duplicate"], true, "{how}: {again}");
        assert_eq!(again["results"][0]["id"], first["results"][0]["id"], "{how}");
        alone.end().await;
    }
}

#[tokio::test]
async fn channels_at_their_limits_are_erased_from_and_the_answer_says_how_many() {
    let alone = Alone::plan()
        .set("history.per_channel", 3)
        .set("history.max_bytes", "2MiB")
        .set("history.partitions", 1)
        .start()
        .await;
    let (publisher, text) = (alone.publisher(), "x".repeat(20_000));
    for _ in 0..5 {
        publisher.publish_to(0, "user:1", &text).await;
    }
    let mut user = 1;
    until("the history has its bytes", async || {
        user += 1;
        (publisher.publish(&format!("user:{user}"), &text).await.status == 503).then_some(())
    })
    .await;
    let erase = async || {
        let erased = publisher.send(publisher.request(Method::DELETE, "/v1/channels/user:1/messages")).await;
        assert_eq!(erased.status, 200, "{erased:?}");
        serde_json::from_str::<serde_json::Value>(&erased.text).expect("JSON")["erased"].clone()
    };
    assert_eq!(erase().await, 3, "one of them made room for the mark");
    assert_eq!(erase().await, 0, "a mark is no message");
    publisher.publish_to(0, "user:1", "hi").await;
    assert_eq!(erase().await, 1);
    alone.end().await;
}

#[tokio::test]
async fn a_data_folder_that_is_gone_is_told_and_nothing_is_acknowledged_into_it() {
    for gone in ["lock", ""] {
        let folder = TempDir::new().expect("there is room");
        let data = folder.path().join("data");
        let mut program = bus(&data, "strict").start();
        program.expect_errors();
        let admin = program.address("the admin port listens").await;
        let mut wire = Wire::connect(address(&mut program).await).await;
        make(&mut wire, &json!({})).await;
        assert!(wire.store("s.a", "one", "x").await["error"].is_null());
        if gone.is_empty() {
            std::fs::remove_dir_all(&data).expect("it can be removed");
        } else {
            std::fs::remove_file(data.join(gone)).expect("it can be removed");
        }
        let ready = until("/readyz says so", async || {
            let ready = raw::get(admin, "/readyz").await;
            (ready.status == 503).then_some(ready.body)
        })
        .await;
        assert!(ready.contains("damaged") || ready.contains("removed"), "{ready}");
        let answer = wire.store("s.a", "two", "x").await;
        assert_eq!(answer["error"]["code"], 503, "{answer}");
        assert!(program.stderr().contains("was removed or replaced under this process"));
        program.end().await;
    }
}

/// Whether a file below the folder contains these bytes.
fn holds(folder: &Path, bytes: &[u8]) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.filter_map(Result::ok).any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        // A file may be replaced during the search.
        std::fs::read(path).is_ok_and(|data| data.windows(bytes.len()).any(|part| part == bytes))
    })
}

/// A small filesystem, visible only to programs in its mount namespace.
struct SmallDisk {
    holder: Child,
    folder: TempDir,
}

impl SmallDisk {
    /// `None`: this machine does not allow the mount.
    async fn mount(size: &str) -> Option<Self> {
        let folder = TempDir::new().expect("there is room");
        let script = format!(
            "mount -t tmpfs -o size={size} none {} && echo mounted && exec cat",
            folder.path().display()
        );
        let mut holder = Command::new("unshare")
            .args(["-Urm", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        let mut said = [0; 8];
        let mut stdout = holder.stdout.take().expect("it is piped");
        soon("it is mounted or not", stdout.read_exact(&mut said)).await.ok()?;
        Some(Self { holder, folder })
    }

    fn inside(&self) -> Vec<String> {
        let id = self.holder.id().expect("it runs").to_string();
        ["-t", &id, "-U", "-m", "--preserve-credentials"].map(str::to_owned).to_vec()
    }

    /// Another program takes all the free space.
    async fn fill(&self) {
        let script = format!("cat /dev/zero > {}/other", self.folder.path().display());
        let filled = Command::new("nsenter").args(self.inside()).args(["sh", "-c", &script]).output().await;
        let filled = filled.expect("nsenter is there");
        assert!(String::from_utf8_lossy(&filled.stderr).contains("No space"), "{filled:?}");
    }
}

#[tokio::test]
async fn on_a_disk_that_another_program_fills_everything_but_growing_goes_on() {
    let Some(disk) = SmallDisk::mount("40m").await else {
        return tools::left_out(
            "a small filesystem of its own",
            "this machine does not let it mount anything",
        );
    };
    let start = || {
        let inside = disk.inside();
        let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
        bus(&disk.folder.path().join("data"), "strict").under(Path::new("nsenter"), &inside).start()
    };
    let mut program = start();
    program.expect_errors();
    let admin = program.address("the admin port listens").await;
    let mut wire = Wire::connect(address(&mut program).await).await;
    // Mostly dead messages: the bus would compact, but has no space for the new file.
    make(&mut wire, &json!({ "max_msgs_per_subject": 1, "allow_rollup_hdrs": true })).await;
    for number in 0..1_000 {
        let answer = wire.store(&format!("s.{}", number % 7), &format!("id{number}"), &"x".repeat(500)).await;
        assert!(answer["error"].is_null(), "{answer}");
    }
    let all = wire.all().await;
    assert_eq!(all.len(), 7);
    disk.fill().await;
    eventually("the metrics say that it is full", async || {
        raw::metric(admin, "mc_bus_server_store_full", "").await == 1.0
    })
    .await;
    for _ in 0..3 {
        assert_eq!(wire.all().await, all, "everything is read");
        let answer = wire.store("s.1", "more", &"x".repeat(500)).await;
        assert!(
            answer["error"]["description"].as_str().is_some_and(|text| text.contains("no space")),
            "{answer}"
        );
        assert_eq!(raw::get(admin, "/readyz").await.status, 200);
    }
    assert_eq!(raw::metric(admin, "mc_bus_server_stream_failures_total", "").await, 0.0);
    program.kill().await;

    let mut program = start();
    program.expect_errors();
    let admin = program.address("the admin port listens").await;
    let mut wire = Wire::connect(address(&mut program).await).await;
    assert_eq!(wire.all().await, all, "it starts on the full disk, and everything is read");
    let purged = wire.ask("STREAM.PURGE.S", r#"{"filter":"s.3"}"#).await;
    assert_eq!(purged["purged"], 1, "{purged}");
    assert_eq!(wire.all().await.len(), 6, "erasing goes on");
    assert_eq!(raw::get(admin, "/readyz").await.status, 200);
    program.kill().await;
    let mut program = start();
    program.expect_errors();
    let mut wire = Wire::connect(address(&mut program).await).await;
    assert_eq!(wire.all().await.len(), 6, "what was erased stays away");
    program.end().await;
}
