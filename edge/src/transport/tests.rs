//! The socket, over a pipe within the process.

use std::time::Duration;

use proptest::prelude::*;
use shared::wire::Kind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::*;

const PATIENCE: Duration = Duration::from_secs(5);
const LIMITS: FrameLimits = FrameLimits { op: 4096, auth: 20 << 10 };

/// A transport, and the client's end of the pipe, which holds so many bytes.
fn pipe(bytes: usize) -> (Transport<DuplexStream>, DuplexStream) {
    let (stream, client) = duplex(bytes);
    (Transport::new(stream, b"", LIMITS), client)
}

/// A frame as a client sends it, with a mask.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [7, 11, 13, 17];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

async fn event(transport: &mut Transport<DuplexStream>) -> Event {
    timeout(PATIENCE, transport.next(true)).await.expect("something happens in time")
}

async fn receive(client: &mut DuplexStream, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    timeout(20 * PATIENCE, client.read_exact(&mut buffer))
        .await
        .expect("it comes in time")
        .expect("it comes");
    buffer
}

/// The largest message is 4,096 bytes here.
#[tokio::test]
async fn a_message_may_come_in_many_frames_but_not_in_any_number() {
    const MOST: usize = 64 + 4096 / 64;
    let (mut transport, mut client) = pipe(1 << 16);
    for most in [1, 2, MOST] {
        let mut message = masked(if most == 1 { 0x81 } else { 0x01 }, b"ping");
        message.extend(masked(0x00, b"").repeat(most.saturating_sub(2)));
        if most > 1 {
            message.extend(masked(0x80, b""));
        }
        client.write_all(&message).await.unwrap();
        assert_eq!(event(&mut transport).await, Event::Frame(Incoming::Ping), "{most}");
    }
    client.write_all(&[masked(0x01, b""), masked(0x00, b"").repeat(MOST)].concat()).await.unwrap();
    let violation = Event::Frame(Incoming::violation(CloseCode::TooManyOps));
    assert_eq!(event(&mut transport).await, violation);
    // Bytes that came with the upgrade count, too.
    let (stream, mut client) = duplex(1 << 16);
    let head = [masked(0x01, b""), masked(0x00, b"").repeat(MOST - 1)].concat();
    let mut transport = Transport::new(stream, &head, LIMITS);
    client.write_all(&masked(0x00, b"")).await.unwrap();
    assert_eq!(event(&mut transport).await, violation);
}

#[tokio::test]
async fn only_a_login_may_be_large_and_only_up_to_its_limit() {
    let auth = |bytes: usize| format!(r#"{{"op":"auth","token":"{}"}}"#, "x".repeat(bytes)).into_bytes();
    for (frame, is_op) in [
        (masked(0x81, &auth(20_000)), true),
        (masked(0x81, &auth(20 << 10)), false),
        (masked(0x81, &[b'x'; 4097]), false),
        (masked(0x82, &[b'x'; 4097]), false),
    ] {
        let (mut transport, mut client) = pipe(1 << 16);
        client.write_all(&frame).await.unwrap();
        let event = event(&mut transport).await;
        if is_op {
            assert!(matches!(event, Event::Frame(Incoming::Op(_))), "{event:?}");
        } else {
            assert_eq!(event, Event::Frame(Incoming::too_big()));
        }
    }
}

proptest! {
    /// The reader is made anew behind each large frame, and nothing of what follows is lost.
    #[test]
    fn frames_are_read_whole_however_their_bytes_arrive(
        tokens in prop::collection::vec(prop_oneof![1_usize..50, 900..1_200_usize, 4_000..20_000_usize], 1..6),
        cuts in prop::collection::vec(1_usize..9_000, 1..40),
        head in 0_usize..9_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let text = |bytes: &usize| format!(r#"{{"op":"auth","token":"{}"}}"#, "x".repeat(*bytes));
            let mut bytes: Vec<u8> =
                tokens.iter().flat_map(|token| masked(0x81, text(token).as_bytes())).collect();
            let rest = bytes.split_off(head.min(bytes.len()));
            let (stream, mut client) = duplex(1 << 17);
            let mut transport = Transport::new(stream, &bytes, LIMITS);
            let send = async {
                let mut rest = &rest[..];
                for cut in cuts.into_iter().chain([usize::MAX]) {
                    let (now, later) = rest.split_at(cut.min(rest.len()));
                    client.write_all(now).await.unwrap();
                    tokio::task::yield_now().await;
                    rest = later;
                }
            };
            let read = async {
                for token in &tokens {
                    let expected = Event::Frame(Incoming::text(&text(token)));
                    assert_eq!(event(&mut transport).await, expected);
                }
            };
            tokio::join!(send, read);
        });
    }
}

/// Takes all that is written, and gives it away only when flushed.
struct Holding {
    held: Vec<u8>,
    pipe: DuplexStream,
}

impl AsyncRead for Holding {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(context, buffer)
    }
}

impl Acknowledged for Holding {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

impl AsyncWrite for Holding {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let this = &mut *self;
            let bytes = std::task::ready!(Pin::new(&mut this.pipe).poll_write(context, &this.held))?;
            this.held.drain(..bytes);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_stream_itself_holds_back_still_waits_for_the_client() {
    let (pipe, mut client) = duplex(4);
    let mut transport = Transport::new(Holding { held: Vec::new(), pipe }, b"", LIMITS);
    transport.push(Frame::already_encoded(b"12345678".to_vec()));
    let began = Instant::now();
    assert!(timeout(PATIENCE, transport.next(true)).await.is_err(), "the client takes nothing");
    assert!(!transport.is_idle());
    assert!(transport.is_stalled(PATIENCE, began + PATIENCE));
    let (event, received) = tokio::join!(transport.next(true), receive(&mut client, 8));
    assert_eq!((event, &received[..]), (Event::Written, &b"12345678"[..]));
    assert!(transport.is_idle() && transport.next_look(PATIENCE).is_none());
}

#[tokio::test]
async fn what_came_behind_the_upgrade_is_not_lost() {
    let (stream, mut client) = duplex(1024);
    let whole = masked(0x81, b"ping");
    let mut transport = Transport::new(stream, &whole[..3], LIMITS);
    client.write_all(&whole[3..]).await.unwrap();
    assert_eq!(event(&mut transport).await, Event::Frame(Incoming::Ping));
}

#[tokio::test]
async fn each_kind_of_frame_is_told_apart() {
    let (mut transport, mut client) = pipe(1 << 16);
    for (frame, told) in [
        (masked(0x81, b"ping"), Event::Frame(Incoming::Ping)),
        (masked(0x82, b"ping"), Event::Frame(Incoming::binary())),
        (masked(0x89, b"here"), Event::SignOfLife),
        (masked(0x8a, b""), Event::SignOfLife),
        (masked(0x81, &[b'x'; 4097]), Event::Frame(Incoming::too_big())),
    ] {
        client.write_all(&frame).await.unwrap();
        assert_eq!(event(&mut transport).await, told);
        if !transport.is_idle() {
            assert_eq!(transport.next(false).await, Event::Written);
        }
    }
    assert_eq!(receive(&mut client, 6).await, b"\x8a\x04here", "the pong of the ping");
}

#[tokio::test]
async fn a_peer_that_breaks_the_rules_is_told_which() {
    for (bytes, code) in [
        (&b"\x81\x04ping"[..], CloseCode::ProtocolError),
        (&masked(0x81, b"\xc3\x28"), CloseCode::NotUtf8),
        (&masked(0x80, b"x"), CloseCode::ProtocolError),
    ] {
        let (mut transport, mut client) = pipe(1024);
        client.write_all(bytes).await.unwrap();
        assert_eq!(event(&mut transport).await, Event::Frame(Incoming::violation(code)));
        // The edge reads no further frame from the client, but enough to get to the client's close.
        client.write_all(&[0xff; 600]).await.unwrap();
        let closing = async {
            transport.close(Frame::close(code), PATIENCE).await;
            transport.shut_down().await;
        };
        let reading = async {
            let mut answer = Vec::new();
            let close = Frame::close(code).bytes().to_vec();
            client.read_exact(&mut [0; 2]).await.unwrap();
            client.shutdown().await.unwrap();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, close[2..]);
        };
        tokio::join!(closing, reading);
    }
}

#[tokio::test]
async fn a_polite_goodbye_is_answered_from_either_side() {
    let (mut transport, mut client) = pipe(1024);
    client.write_all(&masked(0x88, b"\x03\xe8bye")).await.unwrap();
    assert_eq!(event(&mut transport).await, Event::Gone);
    transport.flush(PATIENCE).await;
    assert_eq!(receive(&mut client, 7).await, b"\x88\x05\x03\xe8bye");

    let (mut transport, mut client) = pipe(1024);
    let began = Instant::now();
    let answering = async {
        let close = Frame::close(CloseCode::Leaving).bytes().to_vec();
        assert_eq!(receive(&mut client, close.len()).await, close);
        client.write_all(&masked(0x88, b"\x03\xf4")).await.unwrap();
    };
    tokio::join!(transport.close(Frame::close(CloseCode::Leaving), PATIENCE), answering);
    assert!(began.elapsed() < ANSWER_PATIENCE, "it does not wait longer than it must");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_a_close_or_read_it_is_left() {
    let (mut transport, client) = pipe(1024);
    let began = Instant::now();
    transport.close(Frame::close(CloseCode::Leaving), PATIENCE).await;
    assert!(began.elapsed().abs_diff(ANSWER_PATIENCE) < Duration::from_millis(10));

    let (mut transport, stuck) = pipe(2);
    let began = Instant::now();
    transport.close(Frame::close(CloseCode::Leaving), PATIENCE).await;
    assert!(began.elapsed().abs_diff(PATIENCE) < Duration::from_millis(10));
    drop((client, stuck));
}

#[tokio::test]
async fn whoever_goes_on_pinging_after_the_close_is_answered_nothing() {
    let (mut transport, mut client) = pipe(1 << 20);
    let close = Frame::close(CloseCode::BadRequest).bytes().to_vec();
    client.write_all(&masked(0x89, b"still here?").repeat(1_000)).await.unwrap();
    client.write_all(&masked(0x88, b"\x03\xe8")).await.unwrap();
    transport.close(Frame::close(CloseCode::BadRequest), PATIENCE).await;
    assert!(transport.queue.is_empty(), "{} frames wait", transport.queue.len());
    transport.shut_down().await;
    let mut said = Vec::new();
    client.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, close);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_seen_to_stall_and_one_that_takes_a_byte_is_not() {
    let (mut transport, mut client) = pipe(4);
    assert_eq!(transport.next_look(PATIENCE), None);
    transport.push(Frame::text("more than fits"));
    let began = Instant::now();
    assert!(timeout(PATIENCE, transport.next(true)).await.is_err(), "it can't be written");
    assert!(transport.is_stalled(PATIENCE, began + PATIENCE));
    receive(&mut client, 1).await;
    assert!(timeout(PATIENCE, transport.next(true)).await.is_err());
    assert!(!transport.is_stalled(PATIENCE + Duration::from_secs(1), Instant::now()));
    assert_eq!(transport.abandon(), 0, "a frame that is begun must be finished");
    transport.push(Frame::text("not begun"));
    assert_eq!(transport.abandon(), 1);
}

#[tokio::test]
async fn a_client_that_only_asks_gets_no_more_answers_than_it_may() {
    let (mut transport, mut client) = pipe(512);
    let ping = masked(0x89, b"");
    // The client reads no pongs, so that at some point there is no more space for answers.
    let asking = async { while client.write_all(&ping).await.is_ok() {} };
    let answering = async {
        let mut answers = 0;
        while transport.has_space() {
            answers += usize::from(event(&mut transport).await == Event::SignOfLife);
        }
        answers
    };
    let answers = tokio::select! { answers = answering => answers, () = asking => 0 };
    assert!(answers >= MAX_QUEUED && transport.queue.len() == MAX_QUEUED, "{answers}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_the_pipe_takes_at_a_time_the_bytes_come_out_in_order(
        lengths in prop::collection::vec(0_usize..3_000, 1..40),
        pipe_bytes in 1_usize..700,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut transport, mut client) = pipe(pipe_bytes);
            let mut expected = Vec::new();
            for (number, length) in lengths.iter().enumerate() {
                let frame = Frame::message(Kind::Binary, &vec![number as u8; *length]);
                expected.extend_from_slice(frame.bytes());
                transport.push(frame);
            }
            let writing = async {
                // A byte at a time takes long on a busy machine.
                transport.flush(20 * PATIENCE).await;
                assert!(transport.is_idle());
            };
            let (_, received) = tokio::join!(writing, receive(&mut client, expected.len()));
            assert_eq!(received, expected);
        });
    }

    #[test]
    fn whatever_comes_in_whatever_pieces_makes_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), piece in 1_usize..50) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut transport, mut client) = pipe(1 << 16);
            for piece in bytes.chunks(piece) {
                client.write_all(piece).await.unwrap();
            }
            drop(client);
            while event(&mut transport).await != Event::Gone && transport.intact {}
        });
    }
}
