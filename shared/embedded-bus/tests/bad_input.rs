//! Clients that break the protocol, by mistake or on purpose. They lose their connection, and nobody else
//! notices.

mod support;

use embedded_bus::Config;
use support::{CONNECT, Raw, Server};
use tokio::io::AsyncWriteExt as _;

/// Sends this on a fresh connection and returns what the bus says before it closes.
async fn fate(server: &Server, input: impl AsRef<[u8]>) -> String {
    let mut client = Raw::open(server.address).await;
    // The bus may close before it has read everything.
    let _ = client.stream.write_all(CONNECT.as_bytes()).await;
    let _ = client.stream.write_all(input.as_ref()).await;
    let _ = client.stream.shutdown().await;
    String::from_utf8_lossy(&client.rest().await).into_owned()
}

#[tokio::test]
async fn whatever_is_no_protocol_is_closed_and_leaves_the_bus_alive() {
    let server = Server::start().await;
    let unknown = [
        &b"\r\n"[..],
        b"\0\0\0\0",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PUB a 1\r\nxyz\r\n",
        b"PUB a 0\r\nPING\r\n",
        b"\xff\xfe\xfd",
    ];
    for input in unknown {
        let said = fate(&server, input).await;
        assert_eq!(said, "-ERR 'Unknown Protocol Operation'\r\n", "{:?}", String::from_utf8_lossy(input));
    }
    let sizes =
        ["-1", "99999999999999999999", "2147483648", "0x10", "1e3", "18446744073709551615", "+1", "1 1 1"];
    for size in sizes {
        assert_eq!(fate(&server, format!("PUB a {size}\r\n")).await, "-ERR 'Parser Error'\r\n", "{size}");
        assert_eq!(fate(&server, format!("HPUB a {size} 1 \r\n")).await, "-ERR 'Parser Error'\r\n", "{size}");
    }
    assert_eq!(fate(&server, "PUB a 999999999\r\n").await, "-ERR 'Maximum Payload Violation'\r\n");
    assert_eq!(fate(&server, "HPUB a 0 999999999\r\n").await, "-ERR 'Maximum Payload Violation'\r\n");
    assert_eq!(fate(&server, "CONNECT {\"verbose\":7}\r\n").await, "-ERR 'Parser Error'\r\n");
    server.expect_healthy().await;
    assert_eq!(server.stats.snapshot().protocol_errors, 7 + 16 + 3);
    server.stop().await;
}

#[tokio::test]
async fn a_line_without_end_is_not_collected() {
    let server = Server::start().await;
    for start in ["PUB ", "PING ", "CONNECT ", "INFO ", "SUB a"] {
        let said = fate(&server, format!("{start}{}", "a".repeat(10 << 20))).await;
        assert_eq!(said, "-ERR 'maximum control line exceeded'\r\n", "{start}");
    }
    server.expect_healthy().await;
    // Only a fraction of the input was read before the end.
    assert!(server.stats.snapshot().bytes_in < 5 << 20, "{:?}", server.stats.snapshot());
}

#[tokio::test]
async fn bytes_that_are_no_text_are_fine_where_the_protocol_allows_them() {
    let server = Server::start().await;
    let mut client = server.raw().await;
    client.send(b"SUB a\0b.\xff 1\r\nPUB a\0b.\xff 3\r\n\0\r\n\r\nSUB done 2\r\nPUB done 0\r\n\r\n").await;
    let mut seen = vec![0; b"MSG a\0b.\xff 1 3\r\n\0\r\n\r\n".len()];
    tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut seen).await.expect("the message");
    assert_eq!(seen, b"MSG a\0b.\xff 1 3\r\n\0\r\n\r\n");
    client.sync("MSG done 2 0\r\n\r\n").await;
}

#[tokio::test]
async fn operations_cut_anywhere_are_put_together() {
    let server = Server::start().await;
    let mut client = server.raw().await;
    client.stream.set_nodelay(true).expect("a socket");
    for byte in b"SUB a 1\r\nPUB a r 4\r\n\r\n\r\n\r\nHPUB a 12 13\r\nNATS/1.0\r\n\r\nx\r\n" {
        client.send([*byte]).await;
    }
    client.sync("MSG a 1 r 4\r\n\r\n\r\n\r\nHMSG a 1 12 13\r\nNATS/1.0\r\n\r\nx\r\n").await;
}

#[tokio::test]
async fn a_client_that_vanishes_in_the_middle_leaves_nothing() {
    let server = Server::start().await;
    for input in ["PUB a 1000000\r\nhalf", "SUB a", "CONNECT {", "HPUB a 12 20\r\nNATS/1.0\r\n"] {
        let mut client = server.raw().await;
        client.send(format!("SUB x.> 1\r\nSUB y q 2\r\n{input}")).await;
        server.until(|stats| stats.subscriptions == 2).await;
        drop(client);
        server.until(|stats| stats.subscriptions == 0 && stats.connections == 0).await;
    }
    server.expect_healthy().await;
}

#[tokio::test]
async fn random_bytes_from_many_clients_leave_the_bus_alive() {
    let server = Server::with(Config { max_payload: 1000, ..Config::default() }).await;
    let mut random = fastrand::Rng::with_seed(4222);
    let words = [
        "PUB ",
        "SUB ",
        "HPUB ",
        "UNSUB ",
        "a.b ",
        "> ",
        "12 ",
        "-7 ",
        "\r\n",
        "\n",
        "PING",
        "CONNECT {}",
        "\0",
    ];
    for _ in 0..300 {
        let mut input = Vec::new();
        for _ in 0..random.usize(1..40) {
            if random.u8(..4) == 0 {
                input.push(random.u8(..));
            } else {
                input.extend_from_slice(words[random.usize(..words.len())].as_bytes());
            }
        }
        let said = fate(&server, &input).await;
        assert!(!said.contains("panic"), "{said}");
    }
    server.expect_healthy().await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_only_asks_and_never_reads_is_cut_off() {
    let config = Config { max_payload: 1000, max_pending_bytes: 100_000, ..Config::default() };
    let server = Server::with(config).await;
    let mut client = server.raw().await;
    let pings = "PING\r\n".repeat(10_000);
    // The PONGs fill the buffers of the sockets first, then the outbox.
    while client.stream.write_all(pings.as_bytes()).await.is_ok() {
        if server.stats.snapshot().slow_consumers > 0 {
            break;
        }
    }
    server.until(|stats| stats.slow_consumers == 1 && stats.connections == 0).await;
    server.expect_healthy().await;
}
