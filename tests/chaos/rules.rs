//! Each rule against loss is switched off once, under a condition that needs the rule, and a message is lost:
//! so the suite would notice.
//!
//! Every case runs twice, with all other rules out of the way, and shows that the rule alone saves the
//! message, and that without the rule the message is lost or comes twice. Only debug builds honour the test
//! switches.

use std::net::SocketAddr;
use std::time::Duration;

use harness::bus_proxy::{BusProxy, Frame};
use harness::business::Business;
use harness::device::Device;
use harness::fleet::Member;
use harness::program::Launch;
use harness::publisher::Publisher;
use harness::wait::{eventually, soon};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::case::say;
use crate::clock::pass;
use crate::stage::CaseBus;

/// The edge's sweep interval.
const SWEEP: Duration = Duration::from_secs(1);
/// Interval between messages that are published until one arrives.
const BEAT: Duration = Duration::from_millis(200);

/// One of each part; the edge and the publisher-api reach the bus through proxies.
struct Rig {
    bus: CaseBus,
    edge_proxy: BusProxy,
    publisher_proxy: BusProxy,
    edge: Member,
    publisher: Member,
    adapter: Member,
    business: Business,
}

impl Rig {
    async fn start(edge_faults: &[&str], publisher_faults: &[&str]) -> Self {
        let bus = CaseBus::embedded(None).await;
        let address: SocketAddr = bus.url().trim_start_matches("nats://").parse().expect("it is one address");
        let (edge_proxy, publisher_proxy) = (BusProxy::to(address).await, BusProxy::to(address).await);
        let business = Business::start().await;
        let part = |part: &str, bus: SocketAddr| {
            let launch = Launch::of(part).argument("--bus-url").argument(&format!("nats://{bus}"));
            launch
                .set("edge.listen", "127.0.0.1:0")
                .set("publisher_api.listen", "127.0.0.1:0")
                .set("edge.heartbeat", "200ms")
                .set("publisher_api.heartbeat", "200ms")
                .set("edge.sweep_interval", format!("{}s", SWEEP.as_secs()))
        };
        let adapter = part("auth-adapter", address).argument("--auth-url").argument(&business.url());
        let publisher = part("publisher-api", publisher_proxy.address())
            .set("publisher_api.faults", format!("{publisher_faults:?}"));
        let edge = part("edge", edge_proxy.address()).set("edge.faults", format!("{edge_faults:?}"));
        let rig = Self {
            adapter: Member::start(adapter, "auth_adapter", None).await,
            publisher: Member::start(publisher, "publisher_api", Some("publisher-api listens")).await,
            edge: Member::start(edge, "edge", Some("edge listens")).await,
            bus,
            edge_proxy,
            publisher_proxy,
            business,
        };
        for member in [&rig.adapter, &rig.publisher, &rig.edge] {
            member.ready().await;
        }
        rig
    }

    fn edge(&self) -> SocketAddr {
        self.edge.address.expect("edges listen")
    }

    async fn publish(&self, text: &str, counted: bool) -> Value {
        let publisher = Publisher::of(self.publisher.address.expect("publisher-apis listen"));
        let body = json!({ "to": { "users": [1] }, "raw": text, "receipt": counted }).to_string();
        let request =
            publisher.request(Method::POST, "/v1/publish").header("content-type", "application/json");
        let answer = publisher.send(request.body(body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body["results"][0]["id"].is_string(), "{answer:?}");
        answer.body
    }

    /// Drops the next live copy with this text on its way to the edge.
    fn lose_copy(&self, text: &'static str) {
        let mut lost = false;
        self.edge_proxy.swallow(move |frame| {
            let chosen = !lost && frame.line.contains(" mc.live.") && holds(frame, text);
            lost |= chosen;
            chosen
        });
    }

    async fn lost_one(proxy: &BusProxy) {
        eventually("the proxy loses it", async || proxy.swallowed() == 1).await;
    }

    /// The texts that the device receives before a message that is published now, and repeated until it
    /// arrives.
    async fn heard(&self, device: &mut Device) -> Vec<String> {
        let mut heard = Vec::new();
        let listening = async {
            loop {
                let frame = device.next_json().await;
                match frame["d"].as_str() {
                    Some("after") => return,
                    Some(text) => heard.push(text.to_owned()),
                    None => assert_eq!(frame["event"], "@position", "{frame}"),
                }
            }
        };
        let publishing = async {
            loop {
                self.publish("after", false).await;
                pass(BEAT).await;
            }
        };
        tokio::select! { () = listening => {}, () = publishing => {} }
        heard
    }

    async fn end(self, name: &str, heard: &[String]) {
        say(&format!("{name}: {heard:?}\n"));
        for mut member in [self.edge, self.publisher, self.adapter] {
            member.program.expect_errors();
            member.program.end().await;
        }
        self.edge_proxy.stop().await;
        self.publisher_proxy.stop().await;
        self.bus.stop().await;
        self.business.stop().await;
    }
}

fn holds(frame: Frame<'_>, text: &str) -> bool {
    frame.body.windows(text.len()).any(|window| window == text.as_bytes())
}

/// A live copy is lost on its way, and the next message reveals the gap.
async fn cut_route(faults: &[&str]) -> Vec<String> {
    let rig = Rig::start(faults, &[]).await;
    let (mut device, _) = Device::back(rig.edge(), "user-1", "").await;
    rig.lose_copy("second");
    for text in ["first", "second", "third"] {
        rig.publish(text, false).await;
    }
    Rig::lost_one(&rig.edge_proxy).await;
    let heard = rig.heard(&mut device).await;
    rig.end(&format!("a copy before another is lost, without {faults:?}"), &heard).await;
    heard
}

#[tokio::test]
async fn without_gap_fetch_a_cut_route_loses() {
    assert_eq!(cut_route(&["sweep", "ask-fetch"]).await, ["first", "second", "third"]);
    assert_eq!(cut_route(&["sweep", "ask-fetch", "gap-fetch"]).await, ["first", "third"]);
}

/// The last live copy is lost on its way, and no later message reveals the gap.
async fn silent_loss(faults: &[&str]) -> Vec<String> {
    let rig = Rig::start(faults, &[]).await;
    let (mut device, _) = Device::back(rig.edge(), "user-1", "").await;
    rig.lose_copy("last");
    rig.publish("last", false).await;
    Rig::lost_one(&rig.edge_proxy).await;
    pass(3 * SWEEP).await;
    let heard = rig.heard(&mut device).await;
    rig.end(&format!("the last copy is lost, without {faults:?}"), &heard).await;
    heard
}

#[tokio::test]
async fn without_the_sweep_a_last_copy_is_lost() {
    assert_eq!(silent_loss(&["gap-fetch", "ask-fetch"]).await, ["last"]);
    assert!(silent_loss(&["gap-fetch", "ask-fetch", "sweep"]).await.is_empty());
}

/// The last live copy is lost on its way, and its publisher-api asks how many sessions the message reached.
async fn counted_loss(faults: &[&str]) -> (Vec<String>, Value) {
    let rig = Rig::start(faults, &[]).await;
    let (mut device, _) = Device::back(rig.edge(), "user-1", "").await;
    rig.lose_copy("counted");
    let answer = rig.publish("counted", true).await;
    let heard = rig.heard(&mut device).await;
    rig.end(&format!("a counted copy is lost, without {faults:?}"), &heard).await;
    (heard, answer["results"][0]["sessions"].clone())
}

#[tokio::test]
async fn without_the_fetch_for_an_ask_a_counted_copy_is_lost() {
    let (heard, sessions) = counted_loss(&["gap-fetch", "sweep"]).await;
    assert_eq!((heard, sessions), (vec!["counted".to_owned()], json!(1)));
    let (heard, sessions) = counted_loss(&["gap-fetch", "sweep", "ask-fetch"]).await;
    assert_eq!(heard, Vec::<String>::new());
    assert_ne!(sessions, 1);
}

/// The subscription of an edge is late, and a device comes back meanwhile; all else works.
async fn late_subscription(faults: &[&str]) -> Vec<String> {
    let rig = Rig::start(faults, &[]).await;
    let (mut device, _) = Device::back(rig.edge(), "user-1", "").await;
    rig.publish("first", false).await;
    let id = device.expect_message("first").await;
    device.close().await;
    rig.edge_proxy.hold_subscriptions();
    rig.edge_proxy.sever();
    eventually("the edge subscribes anew", async || rig.edge_proxy.waiting() > 0).await;
    let early = come_back(&rig, &id).await;
    rig.publish("meanwhile", false).await;
    rig.edge_proxy.release();
    let mut device = match early {
        Some(device) => device,
        None => {
            let again = async {
                loop {
                    match come_back(&rig, &id).await {
                        Some(device) => return device,
                        None => pass(BEAT).await,
                    }
                }
            };
            soon("the device is subscribed", again).await
        }
    };
    let heard = rig.heard(&mut device).await;
    rig.end(&format!("a subscription is late, without {faults:?}"), &heard).await;
    heard
}

/// A device that comes back with this id; `None` if the edge cannot promise a whole history.
async fn come_back(rig: &Rig, id: &str) -> Option<Device> {
    let subscribed = async {
        let mut device = Device::connect(rig.edge()).await;
        device.send(&json!({ "op": "auth", "token": "user-1" }).to_string()).await;
        if device.next_json().await["result"] != true {
            return None;
        }
        device.send(&json!({ "op": "subscribe", "channel": "@user", "after": id }).to_string()).await;
        let answer = device.next_json().await;
        (answer["recovered"] == true).then_some(device)
    };
    timeout(Duration::from_secs(8), subscribed).await.ok().flatten()
}

#[tokio::test]
async fn without_the_barrier_a_late_subscription_loses() {
    let nets = ["gap-fetch", "sweep", "ask-fetch"];
    assert_eq!(late_subscription(&nets).await, ["meanwhile"]);
    let none = ["gap-fetch", "sweep", "ask-fetch", "barrier"];
    assert!(late_subscription(&none).await.is_empty());
}

/// The acknowledgement of a store is lost on its way to the publisher-api, which stores again.
async fn lost_answer(faults: &[&str]) -> Vec<String> {
    let rig = Rig::start(&[], faults).await;
    let (mut device, _) = Device::back(rig.edge(), "user-1", "").await;
    let mut lost = false;
    rig.publisher_proxy.swallow(move |frame| {
        let chosen =
            !lost && holds(frame, "\"stream\":") && holds(frame, "\"seq\":") && frame.body.len() < 200;
        lost |= chosen;
        chosen
    });
    rig.publish("once", false).await;
    Rig::lost_one(&rig.publisher_proxy).await;
    let heard = rig.heard(&mut device).await;
    rig.end(&format!("an answer to a store is lost, without {faults:?}"), &heard).await;
    heard
}

#[tokio::test]
async fn without_message_ids_a_lost_answer_doubles() {
    assert_eq!(lost_answer(&[]).await, ["once"]);
    assert_eq!(lost_answer(&["message-id"]).await, ["once", "once"]);
}
