//! The system calls of the bus: a message is on the disk before its acknowledgement is on the socket.
//!
//! Needs strace and permission to trace. Where these are missing, `shared/embedded-bus` still shows the same
//! on a simulated disk that loses all unsynced bytes, at every point.

use std::path::{Path, PathBuf};

use harness::program::Launch;
use harness::tools;
use harness::wait::soon;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use super::wire::Wire;
use super::{address, bus, make};

const MESSAGES: usize = 60;

/// A finished call: first and last line, and text.
#[derive(Debug)]
struct Call {
    began: usize,
    ended: usize,
    name: String,
    text: String,
}

impl Call {
    fn file(&self) -> &str {
        self.text
            .split_once('(')
            .map_or("", |(_, rest)| rest.split([',', ')', ' ']).next().unwrap_or_default())
    }
}

/// Joins calls that strace split in two, because another thread's call came between.
fn calls(trace: &str) -> Vec<Call> {
    let mut open: Vec<(String, Call)> = Vec::new();
    let mut done = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((thread, text)) = line.split_once(' ') else { continue };
        let text = text.trim_start();
        if let Some(rest) = text.strip_prefix("<... ") {
            let position = open.iter().position(|(of, _)| of == thread);
            let Some(position) = position else { continue };
            let (_, mut call) = open.swap_remove(position);
            assert!(rest.starts_with(&call.name), "{line} does not continue {call:?}");
            call.ended = at;
            done.push(call);
        } else if let Some((name, _)) = text.split_once('(') {
            let call = Call { began: at, ended: at, name: name.to_owned(), text: text.to_owned() };
            if text.ends_with("<unfinished ...>") {
                open.push((thread.to_owned(), call))
            } else {
                done.push(call)
            }
        }
    }
    done
}

/// Whether strace may trace a process here.
async fn may_trace(strace: &Path) -> bool {
    let tried = Command::new(strace).args(["-f", "-qq", "-o", "/dev/null", "true"]).output().await;
    tried.is_ok_and(|tried| tried.status.success())
}

/// The trace of a bus that stores messages from several connections at once.
async fn trace(strace: &Path, sync: &str) -> Vec<Call> {
    let folder = TempDir::new().expect("there is room");
    let (data, file) = (folder.path().join("data"), folder.path().join("trace"));
    let watched = "trace=pwrite64,pwritev,write,writev,sendto,sendmsg,fsync,fdatasync";
    let launch: Launch = bus(&data, sync)
        .under(strace, &["-f", "-qq", "-s", "1000000", "-e", watched, "-o", &file.display().to_string()]);
    let mut program = launch.start();
    let at = address(&mut program).await;
    let mut wires = Vec::new();
    for _ in 0..4 {
        wires.push(Wire::connect(at).await);
    }
    make(&mut wires[0], &json!({ "republish": { "src": "s.>", "dest": "live.>" } })).await;
    for number in 0..MESSAGES {
        let wire = number % 4;
        let (id, text) = (format!("id{number}."), format!("message-{number}."));
        assert!(wires[wire].publish("s.a", &format!("ack{number}"), &id, &text).await);
        // A PING ends a batch: some messages are stored one by one, some together.
        if number % 7 == 0 {
            for wire in &mut wires {
                wire.send(b"PING\r\n").await;
            }
        }
    }
    // Each connection receives the acknowledgements of all.
    for _ in 0..MESSAGES {
        let came = soon("an acknowledgement", wires[0].next()).await.expect("the connection stands");
        assert!(came.payload.contains("\"seq\":"), "{came:?}");
    }
    // The lock file names the process to stop; strace ends with it.
    let id = std::fs::read_to_string(data.join("lock")).expect("the folder is locked");
    let asked = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", id.trim())).status().await;
    assert!(asked.is_ok_and(|asked| asked.success()));
    program.expect_success().await;
    calls(&std::fs::read_to_string(&file).expect("strace wrote it"))
}

/// For each message: the end of its write to a file, the end of that file's next sync, and the start of its
/// acknowledgement on the socket.
fn order(calls: &[Call]) -> Vec<(usize, Option<usize>, usize)> {
    let order = |number: usize| {
        let (text, ack) = (format!("message-{number}."), format!("_I.ack{number} "));
        let is_file = |call: &&Call| call.name.starts_with("pwrite") && call.text.contains(&text);
        let written = calls.iter().find(is_file).unwrap_or_else(|| panic!("no write of {text}"));
        let synced = calls
            .iter()
            .filter(|call| matches!(call.name.as_str(), "fsync" | "fdatasync"))
            .find(|call| call.began > written.ended && call.file() == written.file())
            .map(|call| call.ended);
        let is_ack = |call: &&Call| !call.name.starts_with("pwrite") && call.text.contains(&ack);
        let told = calls.iter().filter(is_ack).map(|call| call.began).min();
        (written.ended, synced, told.unwrap_or_else(|| panic!("no acknowledgement of {text}")))
    };
    (0..MESSAGES).map(order).collect()
}

async fn strace(test: &str) -> Option<PathBuf> {
    let strace = tools::find_optional("MC_TEST_STRACE", test)?;
    if !may_trace(&strace).await {
        tools::left_out(test, "this machine does not let strace follow a process");
        return None;
    }
    Some(strace)
}

#[tokio::test]
async fn in_strict_a_sync_lies_between_the_write_of_a_message_and_its_acknowledgement() {
    let Some(strace) = strace("the trace of the strict setting").await else { return };
    for (number, (written, synced, told)) in order(&trace(&strace, "strict").await).into_iter().enumerate() {
        let synced = synced.unwrap_or_else(|| panic!("message {number} was never synced"));
        assert!(written < synced && synced < told, "message {number}: {written}, {synced}, {told}");
    }
}

#[tokio::test]
async fn in_relaxed_a_message_is_written_before_its_acknowledgement_and_synced_later() {
    let Some(strace) = strace("the trace of the relaxed setting").await else { return };
    let order = order(&trace(&strace, "relaxed").await);
    for (number, (written, _, told)) in order.iter().enumerate() {
        assert!(written < told, "message {number}: {written}, {told}");
    }
    // So the test of strict mode would notice an acknowledgement before the sync.
    assert!(order.iter().any(|(_, synced, told)| synced.is_none_or(|synced| synced > *told)));
}

#[tokio::test]
async fn the_name_of_a_new_data_folder_is_synced_in_the_folder_above_it() {
    let Some(strace) = strace("the trace of a new data folder").await else { return };
    let folder = TempDir::new().expect("there is room");
    let above = folder.path().join("new");
    let (data, file) = (above.join("data"), folder.path().join("trace"));
    // -y: each descriptor with its path.
    let arguments = ["-f", "-qq", "-y", "-e", "trace=fsync", "-o", &file.display().to_string()];
    let mut program = bus(&data, "strict").under(&strace, &arguments).start();
    address(&mut program).await;
    let id = std::fs::read_to_string(data.join("lock")).expect("the folder is locked");
    let asked = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", id.trim())).status().await;
    assert!(asked.is_ok_and(|asked| asked.success()));
    program.expect_success().await;
    let trace = std::fs::read_to_string(&file).expect("strace wrote it");
    let real = std::fs::canonicalize(folder.path()).expect("it is there");
    for parent in [real.clone(), real.join("new")] {
        assert!(trace.contains(&format!("<{}>)", parent.display())), "{} in {trace}", parent.display());
    }
}
