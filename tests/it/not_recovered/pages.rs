//! The same promises one level below: in the pages that `shared::history` reads, over both kinds of bus.

use std::time::Duration;

use harness::wait::{eventually, until};
use shared::bus::jetstream::StreamState;
use shared::config::ByteSize;
use shared::history::{Full, HistoryConfig, PageLimit, Role};

use crate::history::{Rig, channel, page, store};

const STREAM: &str = "MC_LOG_0";
const LIMIT: PageLimit = PageLimit { messages: 100, bytes: 1 << 20 };

async fn state(rig: &Rig) -> StreamState {
    rig.bus.stream_info(STREAM, Duration::from_secs(5)).await.expect("the stream is there").state
}

#[tokio::test]
async fn a_page_is_whole_up_to_one_message_fewer_than_the_limit() {
    for limit in [1, 2, 7] {
        for rig in Rig::each("a page at the limit").await {
            let config = HistoryConfig { per_channel: limit, ..HistoryConfig::default() };
            let history = rig.history(&config, Role::Publisher).await;
            let (one, other) = (channel("user:1"), channel("user:2"));
            store(&history, &other, 1).await;
            let begin = store(&history, &one, 2).await;
            for behind in 1..=limit + 1 {
                store(&history, &one, 2 + u128::from(behind)).await;
                let page = page(&history, &one, begin).await;
                assert_eq!(page.whole, behind < limit, "{behind} behind it, limit {limit}");
                assert_eq!(page.messages.len() as u64, u64::from(behind.min(limit)));
            }
            rig.end().await;
        }
    }
}

#[tokio::test]
async fn a_page_behind_what_expired_is_not_whole_and_one_that_missed_nothing_is() {
    for rig in Rig::each("a page behind what expired").await {
        let short = Duration::from_secs(1);
        let config = HistoryConfig { max_age: short, duplicate_window: short, ..HistoryConfig::default() };
        let history = rig.history(&config, Role::Publisher).await;
        let (one, other) = (channel("user:1"), channel("user:2"));
        let first = store(&history, &one, 1).await;
        let second = store(&history, &one, 2).await;
        assert!(page(&history, &one, first).await.whole);
        eventually("all has expired", async || state(&rig).await.messages == 0).await;
        assert!(page(&history, &one, second).await.whole, "nothing came behind it");
        assert!(!page(&history, &one, first).await.whole, "the second came behind it and is gone");
        assert!(!page(&history, &one, 0).await.whole);
        // This stays true when the stream is no longer empty.
        let third = store(&history, &other, 3).await;
        assert!(page(&history, &one, second).await.whole);
        assert!(!page(&history, &one, first).await.whole);
        eventually("that expires too", async || state(&rig).await.messages == 0).await;
        assert!(page(&history, &one, third).await.whole);
        assert!(!page(&history, &one, second).await.whole, "nobody can tell whose message it was");
        rig.end().await;
    }
}

#[tokio::test]
async fn a_page_behind_what_a_full_store_dropped_is_not_whole() {
    for rig in Rig::each("a page behind what a full store dropped").await {
        let config = HistoryConfig {
            max_bytes: ByteSize(1 << 20),
            full: Full::DropOldest,
            ..HistoryConfig::default()
        };
        let history = rig.history(&config, Role::Publisher).await;
        let one = channel("user:1");
        let first = store(&history, &one, 1).await;
        assert!(page(&history, &one, first).await.whole);
        let mut last = 0;
        let mut id = 2;
        while state(&rig).await.first_seq <= first + 1 {
            for _ in 0..500 {
                last = store(&history, &channel(&format!("user:{id}")), id).await;
                id += 1;
            }
            assert!(id < 100_000, "1 MiB has an end");
        }
        assert!(!page(&history, &one, first).await.whole);
        assert!(page(&history, &one, last).await.whole);
        rig.end().await;
    }
}

#[tokio::test]
async fn the_smallest_limit_of_an_epoch_decides_also_for_a_part_that_came_later() {
    for rig in Rig::each("the smallest limit of an epoch").await {
        let of = |per_channel| HistoryConfig { per_channel, ..HistoryConfig::default() };
        let history = rig.history(&of(10), Role::Publisher).await;
        let one = channel("user:1");
        let mut places = Vec::new();
        for id in 1..=8 {
            places.push(store(&history, &one, id).await);
        }
        assert!(page(&history, &one, places[0]).await.whole);
        let stream = async || rig.bus.stream_info(STREAM, Duration::from_secs(5)).await.ok();
        let limit = async |wanted: i64| {
            until("the limit is set", async || {
                stream().await.filter(|info| info.config.max_msgs_per_subject == wanted)
            })
            .await
        };
        rig.history(&of(4), Role::Publisher).await;
        limit(4).await;
        let raised = rig.history(&of(10), Role::Publisher).await;
        limit(10).await;
        for (number, place) in (1..).zip(&places) {
            let whole = page(&raised, &one, *place).await.whole;
            assert_eq!(whole, 8 - number < 4, "{} behind it", 8 - number);
        }
        // An edge that opens the stream now learns the limit from the stream.
        let edge = rig.history(&of(10), Role::Reader).await;
        assert!(!page(&edge, &one, places[3]).await.whole);
        assert!(page(&edge, &one, places[4]).await.whole);
        rig.end().await;
    }
}

#[tokio::test]
async fn a_page_read_right_after_the_stream_was_made_anew_is_not_taken_for_one_of_before() {
    for rig in Rig::each("a page right after the stream was made anew").await {
        let edge = rig.history(&HistoryConfig::default(), Role::Reader).await;
        let one = channel("user:1");
        let epoch = edge.epoch(&one).expect("history is ready");
        let mut seq = 0;
        for id in 1..=3 {
            seq = store(&edge, &one, id).await;
        }
        rig.bus.delete_stream(STREAM, Duration::from_secs(5)).await.expect("it is there");
        // Another publisher notices first, and soon has stored as many messages again.
        let other = rig.history(&HistoryConfig::default(), Role::Publisher).await;
        for id in 11..=20 {
            store(&other, &one, id).await;
        }
        assert!(edge.page(&one, epoch, seq, LIMIT).await.is_err(), "sequences of another life");
        assert_ne!(other.epoch(&one), Some(epoch));
        rig.end().await;
    }
}

#[tokio::test]
async fn a_page_read_right_after_the_limit_was_lowered_knows_it() {
    for rig in Rig::each("a page right after the limit was lowered").await {
        let of = |per_channel| HistoryConfig { per_channel, ..HistoryConfig::default() };
        let edge = rig.history(&of(10), Role::Reader).await;
        let one = channel("user:1");
        // An older message stays, so that the stream's first sequence reveals nothing.
        store(&edge, &channel("user:2"), 100).await;
        let mut places = Vec::new();
        for id in 1..=8 {
            places.push(store(&edge, &one, id).await);
        }
        rig.history(&of(4), Role::Publisher).await;
        let page = page(&edge, &one, places[0]).await;
        assert!(!page.whole, "{} of 7 are there", page.messages.len());
        rig.end().await;
    }
}
