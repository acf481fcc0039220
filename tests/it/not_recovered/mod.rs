//! Whole or not at all: if any missed message may be gone, the device is told, and nothing is replayed.

mod dropped;
mod epochs;
mod erased;
mod limits;
mod pages;
mod restored;
mod while_subscribed;

use harness::alone::Alone;
use harness::device::Device;

/// Comes back with an id after which messages may be missing: the device is told, receives no older message,
/// and continues from a new id.
async fn must_reload(alone: &Alone, after: &str) {
    let (mut device, recovery) = Device::back(alone.edge(), "user-1", after).await;
    assert!(!recovery.recovered, "recovered after {after}");
    assert_ne!(recovery.id, after, "the old id is no place to go on from");
    device.expect_nothing().await;
    // The earlier connection may still be counted.
    assert_eq!(alone.publisher().publish("user:1", "reloaded").await.status, 200);
    let last = device.expect_message("reloaded").await;
    device.close().await;
    // The new position is as good as any other.
    let mut device = Device::recovered(alone.edge(), "user-1", &recovery.id).await;
    assert_eq!(device.expect_message("reloaded").await, last);
    device.expect_nothing().await;
    device.close().await;
}

/// Comes back with an id after which nothing is missing: exactly the messages `numbers` follow.
async fn must_recover(alone: &Alone, after: &str, numbers: impl IntoIterator<Item = u64>) {
    let mut device = Device::recovered(alone.edge(), "user-1", after).await;
    device.expect_messages(numbers).await;
    device.expect_nothing().await;
    device.close().await;
}

/// Publishes `numbers`, and returns the id of each.
async fn ids(alone: &Alone, numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    let (mut device, _) = alone.begin().await;
    let mut ids = Vec::new();
    for number in numbers {
        alone.publish(1, [number]).await;
        ids.push(device.expect_message(&number.to_string()).await);
    }
    device.close().await;
    ids
}
