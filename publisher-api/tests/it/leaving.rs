//! Leaving in order.

use std::sync::atomic::Ordering;
use std::time::Duration;

use publisher_api::Settings;
use shared::drain::Drain;
use tokio::net::TcpStream;

use crate::support::caller::{Http, JSON, PUBLISH, Socket, mesh_publish, request};
use crate::support::edge::FakeEdge;
use crate::support::{Bed, PATIENCE, eventually, soon};

#[tokio::test]
async fn publishes_in_flight_are_answered_and_everyone_is_told_to_go() {
    let bed = Bed::start(|config| config.answer_deadline = Duration::from_millis(500)).await;
    let edge = FakeEdge::start(&bed.bus.server, "frozen", true).await;
    edge.state.answers.store(false, Ordering::SeqCst);
    let (mut idle, mut http) = (Http::connect(bed.address).await, Http::connect(bed.address).await);
    idle.send(&request("GET /", &[], "")).await;
    assert_eq!(idle.answer().await.status, 404, "the connection is kept for the next request");
    let (mut fresh, mut half) = (Http::connect(bed.address).await, Http::connect(bed.address).await);
    half.send(b"POST /v1/mesh/publish HTTP/1.1\r\nhost: loc").await;
    let mut socket = Socket::connect(bed.address).await;
    socket.send(&mesh_publish("a", "x", 1)).await;
    http.send(&request(PUBLISH, &[JSON], r#"{"c":"a","d":"x"}"#)).await;
    eventually("both are in flight", || bed.metric("mc_publisher_in_flight") == 2).await;

    bed.drain.begin();
    assert!(idle.is_closed().await, "idle connections are closed");
    assert!(fresh.is_closed().await, "so are those on which nothing came");
    assert!(half.is_closed().await, "and those with half a request");
    let answer = socket.json().await;
    assert_eq!((&answer["i"], &answer["r"]["complete"]), (&1.into(), &false.into()));
    assert_eq!(socket.close_code().await, 1012);
    assert_eq!(http.answer().await.counts(), (0, 0, false));
    assert!(http.is_closed().await);
    assert_eq!(bed.health.reasons(), "publisher-api: leaving\n");
    assert!(TcpStream::connect(bed.address).await.is_err(), "the port is closed");
    drop(socket);
    edge.crash().await;
    bed.finish().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_sentence_that_says_what_to_do() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = Settings::default();
    settings.publisher_api.admin = "127.0.0.1:0".parse().unwrap();
    settings.publisher_api.listen = taken.local_addr().unwrap();
    let error = publisher_api::run(settings.into(), Drain::new()).await.unwrap_err().to_string();
    assert!(error.starts_with("publisher_api.listen: port ") && error.contains("is taken"), "{error}");
}

#[tokio::test]
async fn a_process_of_its_own_runs_until_its_drain_begins() {
    let mut settings = Settings::default();
    settings.publisher_api.admin = "127.0.0.1:0".parse().unwrap();
    settings.publisher_api.listen = "127.0.0.1:0".parse().unwrap();
    let drain = Drain::new();
    let running = Box::pin(publisher_api::run(settings.into(), drain.clone()));
    let leave = async {
        eventually("its tasks run", || drain.tasks() > 3).await;
        drain.begin();
    };
    let (ran, ()) = soon("it leaves", async { tokio::join!(running, leave) }).await;
    ran.unwrap();
    assert_eq!(drain.finish(PATIENCE).await, 0);
}
