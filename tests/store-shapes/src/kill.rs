//! Kills a writing process, and checks that every acknowledged message is there; and zeroes a page that was
//! not synced, as a power cut may.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cells::{Writer, tell};
use crate::measure;
use crate::shape::{Done, Shape};
use crate::traffic::{Group, Text};

/// The batch size that forms at 1,000 messages in flight.
const BATCH: usize = 80;

/// A hundred channels with 50 messages each, some of them large.
pub const GROUP: Group =
    Group { name: "kill", channels: 100, limit: 50, skewed: false, mixed: true, by_default: false };

/// Writes until killed; prints each sequence up to which everything is acknowledged.
pub fn write(shape: Shape, folder: &Path, strict: bool) -> Done {
    let text = Text::new();
    let mut writer = Writer::new(GROUP, &text);
    let (mut store, _) = shape.open(folder, strict, &mut |_| {})?;
    let mut ticked = Instant::now();
    loop {
        store.batch(&writer.batch(BATCH))?;
        tell(&writer.seq.to_string())?;
        if ticked.elapsed() >= Duration::from_millis(200) {
            ticked = Instant::now();
            store.tick(measure::now())?;
        }
    }
}

/// Errors found after one kill.
#[derive(Debug, Default)]
pub struct Verdict {
    pub acknowledged: u64,
    /// Acknowledged messages that are missing.
    pub lost: usize,
    /// Messages that an acknowledged one removed, and that are back.
    pub returned: usize,
    /// Why the store did not open.
    pub failed: Option<String>,
    /// Seconds until the store was open.
    pub opened: f64,
}

/// Lets a child write for a while, kills it, and checks the store.
pub fn round(mut child: std::process::Child, shape: Shape, folder: &Path, strict: bool) -> Done<Verdict> {
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let mut acknowledged: u64 = lines.next().ok_or("the writer ended")??.parse()?;
    let ends = Instant::now() + Duration::from_millis(fastrand::u64(300..1500));
    let id = child.id();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(ends.saturating_duration_since(Instant::now()));
        child.kill().and_then(|()| child.wait())
    });
    for line in lines {
        // The last line may be cut short.
        acknowledged = line?.parse().unwrap_or(acknowledged).max(acknowledged);
    }
    killer.join().map_err(|_| format!("process {id} could not be killed"))??;
    let text = Text::new();
    let mut writer = Writer::new(GROUP, &text);
    while writer.seq < acknowledged {
        writer.batch(BATCH);
    }
    let alive: HashSet<u64> = writer.alive.seqs().collect();
    // The batch without an acknowledgement may be stored, whole or in part.
    let removed: HashSet<u64> =
        writer.batch(BATCH).messages.iter().filter_map(|message| message.removes).collect();
    let (mut found, begun) = (HashSet::new(), Instant::now());
    let opened = shape.open(folder, strict, &mut |message| {
        found.insert(message.seq);
    });
    let mut verdict = Verdict { acknowledged, opened: begun.elapsed().as_secs_f64(), ..Verdict::default() };
    match opened {
        Ok(_) => {
            verdict.lost = alive.iter().filter(|seq| !found.contains(seq) && !removed.contains(seq)).count();
            verdict.returned =
                found.iter().filter(|seq| **seq <= acknowledged && !alive.contains(seq)).count();
        }
        Err(error) => verdict.failed = Some(error.to_string()),
    }
    Ok(verdict)
}

const PAGE: usize = 4096;
/// Distance of the lost page from the end of its file, so that data follows the page.
const BEFORE_THE_END: usize = 40_000;
/// How long a writer runs before it is killed: less than the sync interval.
const BEFORE_A_SYNC: Duration = Duration::from_millis(300);

/// Lets a relaxed writer begin, kills it, and zeroes a page that was not synced. Returns the store's message
/// when it is opened again; `None`: the newest file is too short.
pub fn tear(
    mut child: std::process::Child,
    shape: Shape,
    folder: &Path,
) -> Done<Option<Result<u64, String>>> {
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    lines.next().ok_or("the writer ended")??;
    let killer = std::thread::spawn(move || {
        std::thread::sleep(BEFORE_A_SYNC);
        child.kill().and_then(|()| child.wait())
    });
    lines.for_each(drop);
    killer.join().map_err(|_| "the writer could not be killed")??;
    if !empty_a_page(folder, shape)? {
        return Ok(None);
    }
    let mut found = 0;
    let opened = shape.open(folder, false, &mut |_| found += 1);
    Ok(Some(opened.map(|_| found).map_err(|error| error.to_string())))
}

fn empty_a_page(folder: &Path, shape: Shape) -> Done<bool> {
    let (under, ending) = match shape {
        Shape::Log => ("streams/S", "log"),
        Shape::Redb | Shape::RedbQuick | Shape::RedbUnsynced => ("", "redb"),
        Shape::Fjall | Shape::FjallTight => ("", "jnl"),
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder.join(under))? {
        files.push(entry?.path());
    }
    files.retain(|path| path.extension().is_some_and(|found| found == ending));
    files.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    let newest = files.last().ok_or("no file")?;
    let mut data = std::fs::read(newest)?;
    // Preallocated space follows the data.
    let end = data.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    if end < 2 * BEFORE_THE_END {
        return Ok(false);
    }
    let at = (end - BEFORE_THE_END) / PAGE * PAGE;
    data[at..at + PAGE].fill(0);
    std::fs::write(newest, data)?;
    Ok(true)
}
