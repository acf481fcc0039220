//! TLS on the client port: with a real client, a wrong one, a silent one, and a certificate that is renewed.

use std::path::Path;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use test_kit::site::{self, Site};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{PATIENCE, World, eventually, soon};

/// A world whose edge serves TLS with the certificate of this site.
pub(crate) async fn world(site: &Site, change: impl FnOnce(&mut edge::Config)) -> World {
    World::ready(|config| {
        (config.tls.cert, config.tls.key) = (site.file("cert"), site.file("key"));
        change(config);
    })
    .await
}

/// Opens a connection that trusts this certificate alone.
async fn connect(world: &World, trusted: &Path) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(world.edge.local_addr()).await.unwrap();
    connect_over(stream, trusted).await
}

/// The same over an open connection.
pub(crate) async fn connect_over(stream: TcpStream, trusted: &Path) -> std::io::Result<TlsStream<TcpStream>> {
    soon("a TLS handshake", site::over_tls(stream, trusted)).await
}

/// A device that is logged in as user 1 and listens to its channel.
async fn device(world: &World, trusted: &Path) -> WebSocketStream<TlsStream<TcpStream>> {
    let stream = connect(world, trusted).await.unwrap();
    let request = "wss://localhost/message-center";
    let shaken = soon("a handshake", Box::pin(tokio_tungstenite::client_async(request, stream))).await;
    let (mut socket, _) = shaken.unwrap();
    for op in [r#"{"op":"auth","token":"user-1"}"#, r#"{"op":"subscribe","channel":"@user"}"#] {
        socket.send(Message::text(op)).await.unwrap();
        expect(&mut socket, r#"{"result":true}"#).await;
    }
    socket
}

async fn expect(socket: &mut WebSocketStream<TlsStream<TcpStream>>, text: &str) {
    let message = soon("a message", socket.next()).await.unwrap().unwrap();
    assert!(message == Message::text(text), "{} bytes came, not {}", message.len(), text.len());
}

#[tokio::test]
async fn small_and_large_messages_reach_a_device_over_tls() {
    let site = Site::new();
    let world = world(&site, |_| {}).await;
    let mut device = device(&world, &site.file("cert")).await;
    let large = "x".repeat(250_000);
    for text in ["small", &large, "after it"] {
        let id = world.publish("user:1", text).await;
        assert_eq!(world.counts(id).await, (1, 0));
        expect(&mut device, text).await;
    }
    device.close(None).await.unwrap();
    eventually("the device has left", || world.edge.sessions() == 0).await;
    assert!(world.metric("mc_edge_tls_certificate_expiry_timestamp_seconds", "") > 0);
    world.end().await;
}

#[tokio::test]
async fn who_speaks_no_tls_gets_no_session_and_is_counted() {
    let site = Site::new();
    let world = world(&site, |_| {}).await;
    let mut plain = TcpStream::connect(world.edge.local_addr()).await.unwrap();
    plain.write_all(b"GET /message-center HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The connection may be reset.
    let _ = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP"));
    eventually("it is counted", || world.metric("mc_edge_refusals_total", "broken") == 1).await;
    assert_eq!(world.metric("mc_edge_tls_handshake_failures_total", ""), 1);
    world.end().await;
}

#[tokio::test]
async fn a_handshake_has_one_deadline_for_tls_and_http_together() {
    let site = Site::new();
    let world = world(&site, |config| config.handshake_timeout = Duration::from_millis(300)).await;
    let silent = TcpStream::connect(world.edge.local_addr()).await.unwrap();
    let shaken = connect(&world, &site.file("cert")).await.ok();
    eventually("both are ended", || world.metric("mc_edge_handshakes", "") == 0).await;
    eventually("both are counted", || world.metric("mc_edge_refusals_total", "slow") == 2).await;
    drop((silent, shaken));
    world.end().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_clients_and_the_others_stay() {
    let site = Site::new();
    let world = world(&site, |_| {}).await;
    let mut device = device(&world, &site.file("cert")).await;
    site.renew();
    let mut look = tokio::time::interval(Duration::from_millis(100));
    let renewed = async {
        while connect(&world, &site.file("cert")).await.is_err() {
            look.tick().await;
        }
    };
    soon("the new certificate is shown", renewed).await;
    assert_eq!(world.metric("mc_edge_tls_reloads_total", "applied"), 1);
    world.publish("user:1", "still here").await;
    expect(&mut device, "still here").await;
    device.close(None).await.unwrap();
    eventually("the device has left", || world.edge.sessions() == 0).await;
    world.end().await;
}
