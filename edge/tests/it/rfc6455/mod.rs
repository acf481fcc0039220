//! RFC 6455 as the edge follows it: raw frames in, and the expected reaction of the edge.
//!
//! The cases follow the numbering of the Autobahn test suite, sections 1 to 7, 9 and 10 (12 and 13 are about
//! compression, which the edge does not offer). That suite expects its server to echo. Here a text message is
//! an op that does not exist and carries the payload as `i`, which the edge's answer must give back; a binary
//! message is refused as a whole.

mod case;

mod closing;
mod control;
mod fragments;
mod framing;
mod sizes;
mod utf8;

use case::Case;
use test_kit::frames::Wire;

use crate::support::World;
use crate::support::client::Client;

/// Runs all cases, each on a connection of its own, and names every case that fails.
async fn hold(cases: Vec<Case>) {
    let world = World::ready(|config| {
        config.max_frame.0 = 16 << 20;
        config.ops_per_second = 1 << 20;
        config.max_handshakes = 1 << 10;
        config.login_timeout = std::time::Duration::from_secs(3_600);
    })
    .await;
    let (mut failures, count) = (Vec::new(), cases.len());
    for case in cases {
        let stream = Client::connect(&world.edge).await.socket.into_inner();
        let id = case.id.clone();
        if let Err(failure) = case.run(Wire::new(stream)).await {
            failures.push(format!("{id}: {failure}"));
        }
    }
    assert!(failures.is_empty(), "{} of {count} cases fail:\n{}", failures.len(), failures.join("\n"));
    world.end().await;
}
