//! All parts in this process start together and leave together; a failed start leaves nothing running.

use std::net::SocketAddr;
use std::time::Duration;

use shared::config::{Problems, Settings as _};
use shared::drain::Drain;
use standalone::{Settings, Standalone};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// Returns settings with free ports and short times.
fn settings() -> Settings {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut settings = Settings::default();
    settings.bus.store.sync = shared::bus::Sync::Memory;
    (settings.edge.listen, settings.edge.admin, settings.publisher_api.listen) = (any, any, any);
    settings.demo.listen = any;
    (settings.edge.heartbeat, settings.publisher_api.heartbeat) =
        (Duration::from_millis(50), Duration::from_millis(50));
    let mut problems = Problems::default();
    settings.validate(&mut problems);
    assert!(problems.is_empty(), "{problems}");
    settings
}

#[tokio::test]
async fn everything_starts_becomes_ready_and_leaves_nothing_running() {
    let standalone = Standalone::start(settings(), &Drain::new()).await.unwrap();
    timeout(PATIENCE, standalone.health.wait_ready()).await.unwrap();
    let demo = standalone.demo.unwrap().address;
    let addresses = [standalone.clients, standalone.publishing, standalone.admin, demo];
    for address in addresses {
        assert!(address.ip().is_loopback() && address.port() != 0, "{address}");
        timeout(PATIENCE, TcpStream::connect(address)).await.unwrap().unwrap();
    }
    let text = standalone::banner::text(&standalone);
    for address in addresses {
        assert!(text.contains(&address.to_string()), "{address} is not in\n{text}");
    }
    assert_eq!(timeout(PATIENCE, standalone.leave()).await.unwrap(), 0, "tasks did not end");
    for address in addresses {
        TcpListener::bind(address).await.unwrap_or_else(|error| panic!("{address} is still taken: {error}"));
    }
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_leaves_nothing_running() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // The port that is bound last is taken, so everything else has started by then and must be gone
    // afterwards.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut settings, freed) = (settings(), free.local_addr().unwrap());
    drop(free);
    settings.edge.listen = taken.local_addr().unwrap();
    settings.publisher_api.listen = freed;
    let error =
        timeout(PATIENCE, Standalone::start(settings, &Drain::new())).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("edge.listen") && error.contains("is taken"), "{error}");
    TcpListener::bind(freed).await.unwrap_or_else(|error| panic!("publisher-api still listens: {error}"));
}

#[tokio::test]
async fn with_a_business_system_there_is_no_demo() {
    let mut settings = settings();
    settings.auth_adapter.url = "http://127.0.0.1:9/websocket_auth".into();
    let standalone = Standalone::start(settings, &Drain::new()).await.unwrap();
    timeout(PATIENCE, standalone.health.wait_ready()).await.unwrap();
    assert!(standalone.demo.is_none());
    let text = standalone::banner::text(&standalone);
    assert!(text.contains("your business system checks the token") && !text.contains("user-1001"), "{text}");
    assert_eq!(standalone.leave().await, 0);
}

#[tokio::test]
async fn an_exposed_demo_makes_a_key_that_publishes_and_shows_it_where_it_is_copied_from() {
    let mut settings = settings();
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    (settings.edge.listen, settings.publisher_api.listen) = (everywhere, everywhere);
    settings.demo.exposed = true;
    let mut problems = Problems::default();
    settings.validate(&mut problems);
    assert!(problems.is_empty(), "{problems}");
    let standalone = Standalone::start(settings, &Drain::new()).await.unwrap();
    timeout(PATIENCE, standalone.health.wait_ready()).await.unwrap();
    let text = standalone::banner::text(&standalone);
    let secret = standalone.demo_key.as_ref().unwrap().secret().to_owned();
    let port = standalone.publishing.port();
    let shown = format!("http://demo:{secret}@127.0.0.1:{port}/v1/mesh/publish");
    assert_eq!(text.matches(&shown).count(), 2, "{text}");
    assert!(!text.contains("everything is on loopback") && text.contains("inside the container"), "{text}");
    for (key, status) in [(secret.as_str(), "200"), ("mck_of-somebody-else", "401")] {
        assert_eq!(publish(port, key).await, status, "{key}");
    }
    assert!(!format!("{standalone:?}").contains(&secret), "a secret is not to be logged");
    assert_eq!(timeout(PATIENCE, standalone.leave()).await.unwrap(), 0, "tasks did not end");
}

/// Publishes with this key, and returns the status.
async fn publish(port: u16, key: &str) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    let body = r#"{"c":"user:1001","d":"hello"}"#;
    let request = format!(
        "POST /v1/mesh/publish HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    let read = timeout(PATIENCE, socket.read_to_string(&mut answer)).await.expect("it answers in time");
    read.expect("the answer is text");
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}
