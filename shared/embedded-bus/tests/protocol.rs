//! The protocol over real sockets, byte by byte.

mod support;

use embedded_bus::{BindError, Config, Credentials, EmbeddedBus};
use support::{CONNECT, Raw, Server};

#[tokio::test]
async fn headers_reach_only_who_asked_for_them() {
    let server = Server::start().await;
    let (mut with, mut publisher) = (server.raw().await, server.raw().await);
    let mut without = Raw::open(server.address).await;
    without.send("CONNECT {\"verbose\":false}\r\nSUB a 1\r\n").await;
    without.sync("").await;
    with.send("SUB a 1\r\n").await;
    with.sync("").await;
    publisher.send("HPUB a r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n").await;
    with.expect("HMSG a 1 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n").await;
    without.expect("MSG a 1 r 2\r\nhi\r\n").await;
    without.send("HPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n").await;
    without.expect_end("message headers not supported").await;
    server.stop().await;
}

#[tokio::test]
async fn a_request_without_responders_is_answered_by_503_to_the_asker_alone() {
    let server = Server::start().await;
    let (mut asker, mut other) = (server.raw().await, server.raw().await);
    other.send("SUB inbox.* 9\r\n").await;
    other.sync("").await;
    asker.send("SUB inbox.* 0\r\nPUB nobody inbox.1 1\r\nx\r\n").await;
    asker.sync("HMSG inbox.1 0 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n").await;
    other.sync("").await;
    // A publisher without a subscription for the answer gets no 503.
    asker.send("PUB nobody elsewhere 1\r\nx\r\nPUB $JS.API.INFO inbox.2 0\r\n\r\n").await;
    asker.sync("HMSG inbox.2 0 44 44\r\nNATS/1.0 503\r\nNats-Subject: $JS.API.INFO\r\n\r\n\r\n").await;
    assert_eq!(server.stats.snapshot().no_responders, 2);
}

#[tokio::test]
async fn a_client_that_did_not_ask_for_it_gets_no_503() {
    let server = Server::start().await;
    let mut client = Raw::open(server.address).await;
    client.send("CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB r 1\r\nPUB nobody r 0\r\n\r\n").await;
    client.sync("").await;
}

#[tokio::test]
async fn no_echo_keeps_own_messages_away_and_leaves_a_request_without_responders() {
    let server = Server::start().await;
    let mut client = Raw::open(server.address).await;
    client
        .send("CONNECT {\"verbose\":false,\"echo\":false,\"headers\":true,\"no_responders\":true}\r\n")
        .await;
    client.send("SUB a 1\r\nSUB a q 2\r\nSUB r 3\r\nPUB a r 1\r\nx\r\n").await;
    client.sync("HMSG r 3 33 33\r\nNATS/1.0 503\r\nNats-Subject: a\r\n\r\n\r\n").await;
}

#[tokio::test]
async fn a_subscription_ends_after_as_many_messages_as_it_asked_for() {
    let server = Server::start().await;
    let mut client = server.raw().await;
    client.send("SUB a 1\r\nPUB a 1\r\n1\r\nUNSUB 1 3\r\n").await;
    client.send("PUB a 1\r\n2\r\nPUB a 1\r\n3\r\nPUB a 1\r\n4\r\n").await;
    client.sync("MSG a 1 1\r\n1\r\nMSG a 1 1\r\n2\r\nMSG a 1 1\r\n3\r\n").await;
    assert_eq!(server.stats.snapshot().subscriptions, 0);
    client.send("SUB a 1\r\nPUB a 1\r\n5\r\nUNSUB 1 1\r\nPUB a 1\r\n6\r\n").await;
    client.sync("MSG a 1 1\r\n5\r\n").await;
}

#[tokio::test]
async fn a_queue_group_gives_each_message_to_one_member() {
    let server = Server::start().await;
    let mut client = server.raw().await;
    client.send("SUB a.b q 1\r\nSUB a.* q 2\r\nSUB a.b other 3\r\nSUB a.b 4\r\n").await;
    client.send("PUB a.b 0\r\n\r\n".repeat(200)).await;
    client.send("PING\r\n").await;
    let mut counts = [0; 5];
    let seen = client.until("PONG\r\n").await;
    for sid in seen.lines().filter_map(|line| line.strip_prefix("MSG a.b ")) {
        counts[usize::from(sid.as_bytes()[0] - b'0')] += 1;
    }
    assert_eq!((counts[1] + counts[2], counts[3], counts[4]), (200, 200, 200), "{counts:?}");
    // Both members are chosen: fewer than 40 of 200 for one of them is beyond chance.
    assert!(counts[1].min(counts[2]) >= 40, "{counts:?}");
}

#[tokio::test]
async fn operations_before_connect_are_verbose_and_pedantic() {
    let server = Server::start().await;
    let mut client = Raw::open(server.address).await;
    client.send("SUB a 1\r\nPUB a 1\r\nx\r\nPUB a.* 1\r\nx\r\nSUB a..b 2\r\n").await;
    client
        .sync("+OK\r\n+OK\r\nMSG a 1 1\r\nx\r\n-ERR 'Invalid Publish Subject'\r\n+OK\r\n-ERR 'Invalid Subject'\r\n")
        .await;
}

#[tokio::test]
async fn limits_are_told_in_the_words_of_nats_server() {
    let config = Config { max_payload: 100, max_subscriptions: 2, ..Config::default() };
    let server = Server::with(config).await;
    let mut client = server.raw().await;
    client.send("SUB a 1\r\nSUB b 2\r\nSUB c 3\r\nSUB a 1\r\n").await;
    client.sync("-ERR 'maximum subscriptions exceeded'\r\n").await;
    client.send("UNSUB 1\r\nSUB c 3\r\nSUB a.>.b 4\r\n").await;
    client.sync("-ERR 'Invalid Subject'\r\n").await;
    client.send("PUB a 101\r\n").await;
    client.expect_end("Maximum Payload Violation").await;
    let mut client = server.raw().await;
    client.send(format!("SUB {}", "a".repeat(5000))).await;
    client.expect_end("maximum control line exceeded").await;
    let mut client = Raw::open(server.address).await;
    client.send("CONNECT {\"headers\":false,\"no_responders\":true}\r\n").await;
    client.expect_end("no responders requires headers support").await;
    server.expect_healthy().await;
    assert_eq!(server.stats.snapshot().protocol_errors, 3);
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let server = Server::with(Config { max_connections: 1, ..Config::default() }).await;
    let mut first = server.raw().await;
    let stream = tokio::net::TcpStream::connect(server.address).await.expect("connected");
    Raw { stream, info: String::new() }.expect_end("maximum connections exceeded").await;
    first.sync("").await;
    drop(first);
    server.until(|stats| stats.connections == 0).await;
    server.expect_healthy().await;
    assert_eq!(server.stats.snapshot().connections_refused, 1);
}

#[tokio::test]
async fn credentials_are_asked_for_and_checked_each_time() {
    let credentials = Credentials::UserPassword { user: "alice".to_owned(), password: "secret".to_owned() };
    let server = Server::with(Config { credentials, ..Config::default() }).await;
    let mut client = Raw::open(server.address).await;
    assert!(client.info.contains("\"auth_required\":true"), "{}", client.info);
    client.send("CONNECT {\"user\":\"alice\",\"pass\":\"secret\",\"verbose\":false}\r\n").await;
    client.sync("").await;
    client.send("CONNECT {\"user\":\"alice\",\"pass\":\"wrong\"}\r\n").await;
    client.expect_end("Authorization Violation").await;
    for wrong in [CONNECT, "CONNECT {\"auth_token\":\"secret\"}\r\n", "CONNECT {\"user\":\"alice\"}\r\n"] {
        let mut client = Raw::open(server.address).await;
        client.send(wrong).await;
        client.expect_end("Authorization Violation").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_with_what_to_do() {
    let server = Server::start().await;
    let error =
        EmbeddedBus::bind(Config { listen: server.address, ..Config::default() }).await.expect_err("taken");
    assert!(matches!(error, BindError::PortTaken(address) if address == server.address));
    assert!(error.to_string().contains("set another port"), "{error}");
}

#[tokio::test]
async fn shutdown_says_goodbye_to_idle_connections_and_ends() {
    let server = Server::start().await;
    let mut client = server.raw().await;
    let rest = async {
        let rest = client.rest().await;
        assert!(String::from_utf8_lossy(&rest).contains("\"ldm\":true"));
    };
    tokio::join!(server.stop(), rest);
}
