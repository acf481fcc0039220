//! Kills a process that writes, and looks whether everything that it had acknowledged is there; and takes a page of what
//! was not synced yet, as a power cut may.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cells::{Writer, tell};
use crate::measure;
use crate::shape::{Done, Shape};
use crate::traffic::{Group, Text};

/// As they form at 1,000 in flight.
const BATCH: usize = 80;

/// A hundred channels of which each keeps 50 messages, some of them large.
pub const GROUP: Group =
    Group { name: "kill", channels: 100, limit: 50, skewed: false, mixed: true, by_default: false };

/// Writes until it is killed, and tells each sequence up to which everything is acknowledged.
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

/// What was wrong after one kill.
#[derive(Debug, Default)]
pub struct Verdict {
    pub acknowledged: u64,
    /// Acknowledged and not there.
    pub lost: usize,
    /// Removed by what was acknowledged, and there.
    pub returned: usize,
    /// Why it could not be opened.
    pub failed: Option<String>,
    /// Seconds until it was open.
    pub opened: f64,
}

/// Lets a child write for a while and kills it, then looks.
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
        // The last line may be cut off.
        acknowledged = line?.parse().unwrap_or(acknowledged).max(acknowledged);
    }
    killer.join().map_err(|_| format!("process {id} could not be killed"))??;
    let text = Text::new();
    let mut writer = Writer::new(GROUP, &text);
    while writer.seq < acknowledged {
        writer.batch(BATCH);
    }
    let alive: HashSet<u64> = writer.alive.seqs().collect();
    // The batch that was not acknowledged may be there, whole or in part.
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
/// How far before its end a file loses a page, so that there is something behind it.
const BEFORE_THE_END: usize = 40_000;
/// A writer is killed before anything was synced by the clock.
const BEFORE_A_SYNC: Duration = Duration::from_millis(300);

/// Lets a relaxed writer begin, kills it, and empties a page that had not been synced. What the store says when it is
/// opened then; `None`: too little was in the newest file.
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
    // Behind it is room that was taken beforehand.
    let end = data.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    if end < 2 * BEFORE_THE_END {
        return Ok(false);
    }
    let at = (end - BEFORE_THE_END) / PAGE * PAGE;
    data[at..at + PAGE].fill(0);
    std::fs::write(newest, data)?;
    Ok(true)
}
