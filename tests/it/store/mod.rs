//! The promises of the embedded bus about its data folder, on the real process: killed, traced, filled,
//! damaged.

mod damaged;
#[cfg(target_os = "linux")]
mod failing;
mod full;
mod killed;
mod space;
mod syscalls;
mod wire;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use harness::program::{Launch, Program};
use serde_json::{Value, json};

use self::wire::Wire;

/// `message-center bus` over a data folder, on free ports.
pub(crate) fn bus(folder: &Path, sync: &str) -> Launch {
    Launch::of("bus")
        .set("bus.listen", "127.0.0.1:0")
        .set("bus.admin", "127.0.0.1:0")
        .argument("--data")
        .argument(&folder.display().to_string())
        // The harness would keep streams in memory.
        .variable("MC_BUS__STORE__SYNC", sync)
}

pub(crate) async fn address(program: &mut Program) -> SocketAddr {
    program.address("the embedded bus listens").await
}

/// Makes the stream `S` on `s.>` with these further settings, unless the stream exists.
async fn make(wire: &mut Wire, settings: &Value) {
    let mut config = json!({ "name": "S", "subjects": ["s.>"], "allow_direct": true });
    config.as_object_mut().expect("an object").extend(settings.as_object().expect("an object").clone());
    let answer = wire.ask("STREAM.CREATE.S", &config.to_string()).await;
    assert!(answer["error"].is_null(), "{answer}");
}

/// The segment files of the stream `S`, oldest first.
fn segments(folder: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder.join("streams/S")).expect("the stream has a folder");
    let mut files: Vec<PathBuf> = all.map(|entry| entry.expect("it can be read").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    files.sort();
    files
}
