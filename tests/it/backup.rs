//! A restored backup: a recovering device gets everything, or is told that it cannot; never a part.

use std::path::Path;

use bytes::Bytes;
use harness::device::Device;
use harness::fleet::{Fleet, Over};
use harness::nats::NatsServer;
use harness::program::Launch;
use harness::tools;
use harness::wait::{DEADLINE, soon};
use shared::bus::{self, Bus, BusConfig};
use shared::drain::Drain;
use shared::history::{History, HistoryConfig, Role};
use shared::ids::{Channel, MessageIds};
use shared::wire::{Kind, LiveMessage};
use tempfile::TempDir;
use tokio::time::Instant;

/// Copies the data of a stopped bus.
fn back_up(bus: &NatsServer) -> TempDir {
    assert!(!bus.is_running());
    let backup = TempDir::new().expect("there is room");
    copy(&bus.data(), backup.path());
    backup
}

/// Replaces the data of a stopped bus with a backup.
fn restore(bus: &NatsServer, backup: &TempDir) {
    assert!(!bus.is_running());
    std::fs::remove_dir_all(bus.data()).expect("it is ours");
    copy(backup.path(), &bus.data());
}

/// Copies a folder and its contents.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("there is room");
    for entry in std::fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it is there");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it is there").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("there is room");
        }
    }
}

async fn fleet(bus: &NatsServer) -> Fleet {
    Fleet::plan(Over::Url(bus.url())).start().await
}

/// A back end that stores messages as publisher-api does, but counts no sessions.
pub(crate) struct Store {
    history: History,
    ids: MessageIds,
    drain: Drain,
}

impl Store {
    pub(crate) async fn at(url: &str, partitions: u32) -> Self {
        let drain = Drain::new();
        let config = BusConfig { url: url.to_owned(), ..BusConfig::default() };
        let server = bus::provide(&config, &drain).await.expect("nothing is embedded");
        let bus = Bus::connect(&server, "test", &drain).await.expect("the address is one");
        let config = HistoryConfig { partitions, ..HistoryConfig::default() };
        let history = History::open(&bus, &config, Role::Publisher, &drain);
        let mut state = history.state();
        soon("history is ready", state.wait_for(|state| state.epochs().is_some()))
            .await
            .expect("the part lives");
        Self { history, ids: MessageIds::random(), drain }
    }

    /// Stores a text for a user.
    pub(crate) async fn put(&self, user: &str, text: &str) {
        let channel = Channel::parse(&format!("user:{user}")).expect("it is a channel");
        let payload = Bytes::copy_from_slice(text.as_bytes());
        let message = LiveMessage { id: self.ids.next(), kind: Kind::Text, payload };
        let deadline = Instant::now() + DEADLINE;
        self.history.store(&channel, &message, Default::default(), deadline).await.expect("it is stored");
    }

    pub(crate) async fn end(self) {
        assert_eq!(self.drain.finish(DEADLINE).await, 0, "tasks are left");
    }
}

#[tokio::test]
async fn a_backup_that_is_restored_under_running_parts_is_noticed() {
    let test = "a backup that is restored under running parts";
    let Some(binary) = tools::find("MC_TEST_NATS_SERVER", test) else { return };
    let mut bus = NatsServer::start(&binary).await;
    let mut fleet = fleet(&bus).await;
    fleet.expect_errors();
    let store = Store::at(&bus.url(), 1).await;
    let (mut live, _) = Device::back(fleet.edge(0), "user-1", "").await;
    for text in ["one", "two", "three"] {
        store.put("1", text).await;
    }
    let third = live.expect_messages(["one", "two", "three"]).await;
    bus.leave().await;
    let backup = back_up(&bus);
    bus.restart().await;
    for text in ["four", "five", "six"] {
        store.put("1", text).await;
    }
    let sixth = live.expect_messages(["four", "five", "six"]).await;
    let mut other = Device::recovered(fleet.edge(0), "user-1", &third).await;
    assert_eq!(other.expect_messages(["four", "five", "six"]).await, sixth);
    other.close().await;

    bus.leave().await;
    restore(&bus, &backup);
    bus.restart().await;
    // Four more messages than were lost: the stream has grown longer than ever before any part looks at it.
    for text in ["seven", "eight", "nine", "ten"] {
        store.put("1", text).await;
    }
    let position = live.expect_event("@reload").await;
    store.put("1", "eleven").await;
    // Some of the messages stored before the word may arrive after it.
    let rest = live.take_until("eleven").await;
    let later = ["seven", "eight", "nine", "ten"];
    assert!(later.ends_with(&rest.iter().map(String::as_str).collect::<Vec<_>>()), "{rest:?}");
    fleet.ready().await;
    let (back, recovery) = Device::back(fleet.edge(0), "user-1", &sixth).await;
    assert!(!recovery.recovered, "{recovery:?}");
    let (even, recovery) = Device::back(fleet.edge(0), "user-1", &third).await;
    assert!(!recovery.recovered, "{recovery:?}");
    assert_ne!(position, sixth);
    for device in [live, back, even] {
        device.close().await;
    }
    store.end().await;
    fleet.end().await;
    bus.leave().await;
}

#[tokio::test]
async fn a_restored_backup_is_declared_where_nobody_can_notice_it() {
    let test = "a restored backup is declared where nobody can notice it";
    let Some(binary) = tools::find("MC_TEST_NATS_SERVER", test) else { return };
    let mut bus = NatsServer::start(&binary).await;
    let parts = fleet(&bus).await;
    let store = Store::at(&bus.url(), 1).await;
    let (mut device, _) = Device::back(parts.edge(0), "user-1", "").await;
    store.put("1", "one").await;
    let first = device.expect_messages(["one"]).await;
    device.close().await;
    store.end().await;
    parts.end().await;
    bus.leave().await;
    let backup = back_up(&bus);

    // Nothing was stored since the backup: the history is whole.
    restore(&bus, &backup);
    bus.restart().await;
    let parts = fleet(&bus).await;
    let store = Store::at(&bus.url(), 1).await;
    let mut device = Device::recovered(parts.edge(0), "user-1", &first).await;
    for text in ["two", "three"] {
        store.put("1", text).await;
    }
    let third = device.expect_messages(["two", "three"]).await;
    device.close().await;
    store.end().await;
    parts.end().await;
    bus.leave().await;

    // Messages were stored since the backup, and no part that saw them still runs.
    restore(&bus, &backup);
    bus.restart().await;
    let url = bus.url();
    let launch = Launch::of("history").argument("new-generation").argument("--yes");
    let declared = launch.argument("--bus-url").argument(&url).run().await;
    assert_eq!(declared.code, 0, "{declared:?}");
    let parts = fleet(&bus).await;
    let store = Store::at(&bus.url(), 1).await;
    for text in ["other two", "other three", "four"] {
        store.put("1", text).await;
    }
    for id in [&third, &first] {
        let (mut device, recovery) = Device::back(parts.edge(0), "user-1", id).await;
        assert!(!recovery.recovered, "{recovery:?}");
        device.expect_nothing().await;
        device.close().await;
    }
    store.end().await;
    parts.end().await;
    bus.leave().await;
}
