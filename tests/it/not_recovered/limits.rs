//! The limit of messages per channel, exact to the message, and the promise after a change of the limit.

use harness::alone::Alone;

use super::{ids, must_recover, must_reload};

#[tokio::test]
async fn one_message_fewer_than_the_limit_is_whole_and_the_limit_itself_is_not() {
    let alone = Alone::plan().set("history.per_channel", 5).start().await;
    // Messages of other channels do not count.
    alone.publisher().publish_to(0, "user:2", "for another").await;
    let ids = ids(&alone, 1..=10).await;
    // After ids[n - 1] come 10 - n messages.
    must_recover(&alone, &ids[9], []).await;
    must_recover(&alone, &ids[5], 7..=10).await;
    // With as many messages as the limit, nobody can tell whether one more was dropped.
    must_reload(&alone, &ids[4]).await;
    // Each check has stored one message, so two more are there: seven and more behind the position are surely
    // dropped.
    must_reload(&alone, &ids[3]).await;
    must_reload(&alone, &ids[0]).await;
    alone.end().await;
}

#[tokio::test]
async fn the_smallest_limit_of_an_epoch_counts_even_when_it_was_raised_again() {
    let mut alone = Alone::plan().set("history.per_channel", 20).start().await;
    let ids = ids(&alone, 1..=10).await;
    must_recover(&alone, &ids[0], 2..=10).await;
    // While every device is away, the limit is lowered, so that messages are dropped, and raised again.
    alone.restart(&[("history.per_channel", "5")]).await;
    alone.publish(0, [11]).await;
    alone.restart(&[("history.per_channel", "20")]).await;
    alone.publish(0, [12, 13]).await;
    // Three messages follow ids[9], four follow ids[8], five follow ids[7].
    must_recover(&alone, &ids[9], 11..=13).await;
    must_recover(&alone, &ids[8], 10..=13).await;
    must_reload(&alone, &ids[7]).await;
    must_reload(&alone, &ids[0]).await;
    alone.end().await;
}

#[tokio::test]
async fn a_raised_limit_is_no_reason_to_reload() {
    let mut alone = Alone::plan().set("history.per_channel", 5).start().await;
    let ids = ids(&alone, 1..=3).await;
    alone.restart(&[("history.per_channel", "50")]).await;
    alone.publish(0, [4]).await;
    must_recover(&alone, &ids[0], 2..=4).await;
    alone.end().await;
}
