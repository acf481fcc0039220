//! Entry point of fuzzing: arbitrary bytes from one client, without a socket. The fuzz target and the test
//! over its corpus run it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::config::Config;
use crate::outbox::Outbox;
use crate::session::Session;
use crate::wire::parse::Parser;

const MAX_CONTROL_LINE: usize = 512;
const MAX_PAYLOAD: usize = 1024;

/// Reads `input` as the bytes of one client, cut into chunks in three ways, and carries out the operations.
/// Returns the number of operations and errors in it.
///
/// # Panics
/// Panics if the parser, the session or the routing breaks one of its promises.
pub fn check_bytes(input: &[u8]) -> usize {
    let whole = read(input, input.len());
    for chunk in [1, 2 + input.len() % 11] {
        assert_eq!(whole, read(input, chunk), "chunks of {chunk} bytes read otherwise");
    }
    carry_out(input);
    whole.len()
}

fn read(input: &[u8], chunk: usize) -> Vec<String> {
    let mut parser = Parser::new(MAX_CONTROL_LINE, MAX_PAYLOAD);
    let (mut seen, mut buffer) = (Vec::new(), Vec::new());
    for piece in input.chunks(chunk.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match parser.next(&buffer) {
                Ok(Some((operation, taken))) => {
                    seen.push(format!("{operation:?}"));
                    buffer.drain(..taken);
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(parser.next(b"PING\r\n"), Err(error), "an error is final");
                    seen.push(format!("{error:?}"));
                    return seen;
                }
            }
        }
        assert!(buffer.len() <= MAX_CONTROL_LINE + MAX_PAYLOAD + 64, "more is kept than one operation");
    }
    seen
}

fn carry_out(input: &[u8]) {
    let config = Config {
        max_control_line: MAX_CONTROL_LINE,
        max_payload: MAX_PAYLOAD,
        max_pending_bytes: 64 << 10,
        max_subscriptions: 20,
        ..Config::default()
    };
    let bus = Arc::new(Bus::new(config, 4222));
    let outbox = Outbox::new(1, bus.config.max_pending_bytes, bus.stats.clone(), CancellationToken::new());
    let mut session = Session::new(Arc::clone(&bus), 1, Arc::new(outbox));
    let mut parser = Parser::new(MAX_CONTROL_LINE, MAX_PAYLOAD);
    let mut rest = input;
    while let Ok(Some((operation, taken))) = parser.next(rest) {
        let ended = session.handle(operation).is_err();
        rest = &rest[taken..];
        let count = bus.router().count(1);
        assert!(count <= bus.config.max_subscriptions, "there are {count} subscriptions");
        assert_eq!(bus.stats.snapshot().subscriptions, count as u64, "the gauge is wrong");
        if ended {
            break;
        }
    }
    drop(session);
    let left = bus.router().count(1);
    assert_eq!(bus.router_mut().disconnect(1), left);
    let mut queues = Vec::new();
    bus.router().matching(b"a", &mut queues, &mut |_| panic!("a subscription outlived its connection"));
}
