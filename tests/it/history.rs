//! `shared::history` over both kinds of bus: stored messages are read in order, and whole or not at all.

use std::time::Duration;

use bytes::Bytes;
use harness::nats::NatsServer;
use harness::tools;
use harness::wait::{soon, until};
use shared::bus::{self, Bus, BusConfig};
use shared::drain::Drain;
use shared::history::{End, History, HistoryConfig, HistoryState, Page, PageLimit, Role};
use shared::ids::{Channel, MessageId};
use shared::wire::{Kind, LiveMessage};
use tokio::time::Instant;

const LIMIT: PageLimit = PageLimit { messages: 100, bytes: 1 << 20 };

pub(crate) struct Rig {
    /// The real nats-server; `None` if the bus is embedded.
    pub(crate) server: Option<NatsServer>,
    drain: Drain,
    bus_drain: Drain,
    pub(crate) bus: Bus,
}

impl Rig {
    /// One rig over the embedded bus, and one over the real nats-server if this run has the binary.
    pub(crate) async fn each(test: &str) -> Vec<Self> {
        let embedded = BusConfig { listen: "127.0.0.1:0".into(), ..BusConfig::default() };
        let mut rigs = vec![Self::over(&embedded, None).await];
        if let Some(binary) = tools::find("MC_TEST_NATS_SERVER", test) {
            let server = NatsServer::start(&binary).await;
            let url = format!("nats://{}", server.address());
            rigs.push(Self::over(&BusConfig { url, ..BusConfig::default() }, Some(server)).await);
        }
        rigs
    }

    async fn over(config: &BusConfig, server: Option<NatsServer>) -> Self {
        let (drain, bus_drain) = (Drain::new(), Drain::new());
        let there = bus::provide(config, &bus_drain).await.expect("the bus starts");
        let bus = Bus::connect(&there, "test", &drain).await.expect("the address is one");
        Self { server, drain, bus_drain, bus }
    }

    pub(crate) async fn history(&self, config: &HistoryConfig, role: Role) -> History {
        let history = History::open(&self.bus, config, role, &self.drain);
        let mut state = history.state();
        soon("history is ready", state.wait_for(|state| state.epochs().is_some()))
            .await
            .expect("the part lives");
        history
    }

    pub(crate) async fn end(self) {
        for drain in [self.drain, self.bus_drain] {
            assert_eq!(drain.finish(Duration::from_secs(5)).await, 0, "tasks are left");
        }
        if let Some(server) = self.server {
            server.stop().await;
        }
    }
}

fn message(id: u128, text: &str) -> LiveMessage {
    LiveMessage { id: MessageId(id), kind: Kind::Text, payload: Bytes::copy_from_slice(text.as_bytes()) }
}

pub(crate) async fn store(history: &History, channel: &Channel, id: u128) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(10);
    let message = message(id, &id.to_string());
    history.store(channel, &message, Default::default(), deadline).await.expect("it is stored").position.seq
}

pub(crate) async fn page(history: &History, channel: &Channel, after: u64) -> Page {
    let epoch = history.epoch(channel).expect("history is ready");
    history.page(channel, epoch, after, LIMIT).await.expect("it can be read")
}

pub(crate) fn channel(name: &str) -> Channel {
    Channel::parse(name).expect("it is a channel")
}

#[tokio::test]
async fn what_is_stored_is_read_in_order_and_once() {
    for rig in Rig::each("what_is_stored_is_read_in_order_and_once").await {
        let history = rig.history(&HistoryConfig::default(), Role::Publisher).await;
        let (one, two) = (channel("user:1"), channel("user:2.x"));
        let mut places = Vec::new();
        for id in 1..=10 {
            places.push(store(&history, &one, id).await);
            store(&history, &two, 100 + id).await;
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        let again = history.store(&one, &message(3, "3"), Default::default(), deadline).await.unwrap();
        assert!(again.duplicate);
        assert_eq!(again.position.seq, places[2]);
        assert_eq!(history.tail(&one).await.unwrap().seq, places[9]);
        let all = page(&history, &one, 0).await;
        assert!(all.whole);
        assert_eq!(all.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), places);
        let texts: Vec<_> =
            all.messages.iter().map(|it| it.message.as_ref().unwrap().payload.clone()).collect();
        assert_eq!(texts, (1..=10).map(|id: u128| id.to_string()).collect::<Vec<_>>());
        let few = PageLimit { messages: 3, ..LIMIT };
        let some = history.page(&one, all.epoch, places[1], few).await.unwrap();
        assert_eq!((some.messages.len(), some.remaining, some.whole), (3, 5, true));
        assert_eq!(some.messages[0].seq, places[2]);
        assert!(page(&history, &one, places[9]).await.messages.is_empty());
        let last = history.fresh(0).await.unwrap().last_seq;
        let channels = [one.clone(), channel("nobody"), two.clone()];
        let tails = async |after| history.tails(0, &channels, after, last).await.unwrap();
        assert_eq!(tails(0).await, [Some(places[9]), None, Some(last)]);
        assert_eq!(tails(places[9]).await, [None, None, Some(last)], "the others have nothing beyond");
        assert_eq!(tails(last).await, [None; 3]);
        rig.end().await;
    }
}

#[tokio::test]
async fn the_tails_of_channels_that_have_nothing_are_known_however_full_the_stream_is() {
    for rig in Rig::each("the_tails_of_channels_that_have_nothing").await {
        let history = rig.history(&HistoryConfig::default(), Role::Publisher).await;
        let nobody = [channel("nobody"), channel("nothing")];
        let tails =
            async |last| soon("they are known", Box::pin(history.tails(0, &nobody, 0, last))).await.unwrap();
        assert_eq!(tails(0).await, [None; 2], "nothing at all is stored");
        let last = store(&history, &channel("user:1"), 1).await;
        assert_eq!(tails(last).await, [None; 2]);
        rig.end().await;
    }
}

#[tokio::test]
async fn every_tail_is_found_however_large_the_last_messages_are() {
    for rig in Rig::each("every_tail_is_found").await {
        let history = rig.history(&HistoryConfig::default(), Role::Publisher).await;
        let channels: Vec<_> = (0..40).map(|number| channel(&format!("user:{number}"))).collect();
        let large = "x".repeat(200_000);
        let mut places = Vec::new();
        for (channel, id) in channels.iter().zip(1..) {
            let deadline = Instant::now() + Duration::from_secs(10);
            let stored = history.store(channel, &message(id, &large), Default::default(), deadline).await;
            places.push(Some(stored.unwrap().position.seq));
        }
        let last = places.last().copied().flatten().unwrap();
        assert_eq!(history.tails(0, &channels, 0, last).await.unwrap(), places);
        rig.end().await;
    }
}

#[tokio::test]
async fn what_an_operator_set_on_a_stream_stays_when_its_limits_are_set() {
    for rig in Rig::each("what_an_operator_set_on_a_stream_stays").await {
        let ours = |per_channel| HistoryConfig { per_channel, ..HistoryConfig::default() };
        rig.history(&ours(10), Role::Publisher).await;
        let deadline = Duration::from_secs(5);
        let stream = async || rig.bus.stream_info("MC_LOG_0", deadline).await.expect("it is there").config;
        let is = stream().await;
        let mut set = serde_json::to_value(&is).unwrap();
        set["description"] = "of the operator".into();
        set["max_msg_size"] = 500_000.into();
        set["metadata"]["team"] = "blue".into();
        if rig.server.is_some() {
            set["compression"] = "s2".into();
        }
        let body = set.to_string().into();
        rig.bus.request("$JS.API.STREAM.UPDATE.MC_LOG_0", body, deadline).await.unwrap();
        let before = stream().await;
        assert_eq!(before.others["description"], "of the operator");
        rig.history(&ours(20), Role::Publisher).await;
        let after = until("the limit is set", async || {
            Some(stream().await).filter(|config| config.max_msgs_per_subject == 20)
        })
        .await;
        assert_eq!(after.others, before.others);
        assert_eq!(after.metadata["team"], "blue");
        // A raised generation leaves everything as it is, too.
        let streams = shared::history::admin::streams(&rig.bus).await.unwrap();
        shared::history::admin::raise_generation(&rig.bus, &streams).await.unwrap();
        let raised = stream().await;
        assert_eq!((&raised.others, &raised.metadata["team"]), (&before.others, &before.metadata["team"]));
        rig.end().await;
    }
}

#[tokio::test]
async fn where_a_channel_ends_is_known_without_reading_its_last_message() {
    for rig in Rig::each("where_a_channel_ends_is_known_without_reading_its_last_message").await {
        let history = rig.history(&HistoryConfig::default(), Role::Publisher).await;
        let (small, large, none) = (channel("user:1"), channel("user:2"), channel("user:3"));
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut ends = Vec::new();
        for (id, channel, size) in [(1, &small, 100), (2, &large, 200 << 10)] {
            let message = message(id, &"x".repeat(size));
            let stored = history.store(channel, &message, Default::default(), deadline).await.unwrap();
            ends.push(stored.position.seq);
        }
        assert_eq!(history.tail(&none).await.unwrap().seq, 0);
        let mut received = Vec::new();
        for (channel, end) in [(&small, ends[0]), (&large, ends[1])] {
            let before = rig.bus.received_bytes();
            for _ in 0..100 {
                assert_eq!(history.tail(channel).await.unwrap().seq, end);
            }
            received.push(rig.bus.received_bytes() - before);
        }
        assert!(received[1] < received[0] + 20_000, "bytes for 100 B and for 200 KB: {received:?}");
        let epoch = history.epoch(&large).unwrap();
        let last = history.fresh(0).await.unwrap().last_seq;
        assert_eq!(last, 2, "a question stores nothing");
        let end = history.end(&large, epoch).await.unwrap();
        assert_eq!(end, End { epoch, tail: ends[1], come: last });
        assert_eq!(history.end(&none, epoch).await.unwrap(), End { epoch, tail: 0, come: last });
        rig.end().await;
    }
}

#[tokio::test]
async fn what_was_pushed_out_or_erased_is_not_called_whole() {
    for rig in Rig::each("what_was_pushed_out_or_erased_is_not_called_whole").await {
        let config = HistoryConfig { per_channel: 5, ..HistoryConfig::default() };
        let history = rig.history(&config, Role::Publisher).await;
        let (one, other) = (channel("user:1"), channel("user:2"));
        store(&history, &other, 1_000).await;
        let mut places = Vec::new();
        for id in 1..=8 {
            places.push(store(&history, &one, id).await);
        }
        assert!(page(&history, &one, places[3]).await.whole, "four are after it");
        assert!(!page(&history, &one, places[2]).await.whole, "five are: as many as are kept");
        assert!(!page(&history, &one, 0).await.whole);
        let erased = history.erase(&one, Instant::now() + Duration::from_secs(10)).await.unwrap();
        assert_eq!(erased.messages, 5, "also the one that made room for the mark");
        let rest = page(&history, &one, places[5]).await;
        assert_eq!(rest.messages.len(), 1);
        assert!(rest.messages[0].erased);
        assert_eq!(rest.messages[0].seq, erased.position.seq);
        rig.end().await;
    }
}

#[tokio::test]
async fn a_stream_that_is_made_anew_is_another_epoch() {
    for rig in Rig::each("a_stream_that_is_made_anew_is_another_epoch").await {
        let history = rig.history(&HistoryConfig::default(), Role::Reader).await;
        let one = channel("user:1");
        let (before, seq) = (history.epoch(&one).unwrap(), store(&history, &one, 1).await);
        rig.bus.delete_stream("MC_LOG_0", Duration::from_secs(5)).await.unwrap();
        until("another epoch", async || history.epoch(&one).filter(|epoch| *epoch != before)).await;
        assert!(history.page(&one, before, seq, LIMIT).await.is_err());
        assert_eq!(store(&history, &one, 2).await, 1);
        rig.end().await;
    }
}

#[tokio::test]
async fn another_number_of_partitions_is_said_and_not_used() {
    for rig in Rig::each("another_number_of_partitions_is_said_and_not_used").await {
        rig.history(&HistoryConfig { partitions: 2, ..HistoryConfig::default() }, Role::Publisher).await;
        let four = HistoryConfig { partitions: 4, ..HistoryConfig::default() };
        let history = History::open(&rig.bus, &four, Role::Reader, &rig.drain);
        let mut state = history.state();
        let mismatch = |state: &HistoryState| matches!(state, HistoryState::Mismatch { .. });
        let why =
            soon("it is noticed", state.wait_for(mismatch)).await.unwrap().why_not().unwrap().to_owned();
        assert!(why.contains("made for 2") && why.contains("message-center partitions 4"), "{why}");
        let more = rig.bus.stream_info("MC_LOG_2", Duration::from_secs(5)).await;
        assert_eq!(more, Err(shared::bus::jetstream::ApiError::NoStream), "nothing is made for it");
        rig.end().await;
    }
}

#[tokio::test]
async fn a_new_message_with_a_sequence_of_before_is_acknowledged_only_in_another_epoch() {
    let test = "a_new_message_with_a_sequence_of_before_is_acknowledged_only_in_another_epoch";
    for rig in Rig::each(test).await {
        let history = rig.history(&HistoryConfig::default(), Role::Publisher).await;
        let one = channel("user:1");
        let last = store(&history, &one, 1).await;
        let before = history.epoch(&one).unwrap();
        // A part saw more of this stream than the stream has now, and the stream outgrows that before any
        // part looks.
        history.saw(before, 0, last + 3);
        let deadline = Instant::now() + Duration::from_secs(10);
        let messages: Vec<_> = (2..8).map(|id| message(id, "again")).collect();
        let stored =
            messages.iter().map(|message| history.store(&one, message, Default::default(), deadline));
        for stored in futures_util::future::join_all(stored).await.into_iter().take(3) {
            let position = stored.unwrap().position;
            assert_ne!(position.epoch, before, "{position}");
        }
        assert_eq!(page(&history, &one, 0).await.messages.len(), 7, "nothing is lost or stored twice");
        rig.end().await;
    }
}
