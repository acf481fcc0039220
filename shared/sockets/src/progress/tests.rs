//! Answers of the kernel about real sockets.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Both ends of a connection at this address.
async fn pair(listen: &str, connect: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(listen).await.unwrap();
    let address = format!("{connect}:{}", listener.local_addr().unwrap().port());
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_kernel_tells_what_the_other_end_has_taken() {
    for (listen, connect) in [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "127.0.0.1"), ("[::1]:0", "[::1]")] {
        let Ok(probe) = TcpListener::bind(listen).await else { continue };
        drop(probe);
        let (mut client, mut server) = pair(listen, connect).await;
        let began = server.acknowledged().expect("the kernel tells");
        server.write_all(b"12345").await.unwrap();
        client.read_exact(&mut [0; 5]).await.unwrap();
        let acknowledged = async {
            while server.acknowledged() != Some(began + 5) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(20 * SECOND, acknowledged).await.expect("it is acknowledged");
        assert_eq!(server.unacknowledged(), Some(0));
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_the_other_end_does_not_take_waits() {
    let (_client, server) = pair("127.0.0.1:0", "127.0.0.1").await;
    while server.try_write(&[0; 65_536]).is_ok() {}
    let waiting = server.unacknowledged().expect("the kernel tells");
    assert!(waiting > 0);
}

#[test]
fn only_what_is_taken_is_progress() {
    let began = Instant::now();
    let mut progress = Progress::new(began);
    assert_eq!(progress.next_look(10 * SECOND), began + 5 * SECOND);
    progress.look(began + SECOND, Some(5));
    assert_eq!(progress.next_look(10 * SECOND), began + 2 * SECOND);
    assert_eq!(progress.since(), began, "the first look has nothing to compare with");
    progress.look(began + 2 * SECOND, Some(5));
    assert_eq!(progress.since(), began);
    progress.look(began + 3 * SECOND, Some(6));
    assert_eq!(progress.since(), began + 3 * SECOND);
    progress.look(began + 4 * SECOND, None);
    progress.look(began + 5 * SECOND, Some(9));
    assert_eq!(progress.since(), began + 3 * SECOND, "nobody could tell meanwhile");
    progress.wrote(began + 6 * SECOND);
    assert_eq!(progress.since(), began + 6 * SECOND);
    progress.look(began + 15 * SECOND + SECOND / 2, Some(9));
    assert_eq!(progress.next_look(10 * SECOND), began + 16 * SECOND, "never later than the end");
}
