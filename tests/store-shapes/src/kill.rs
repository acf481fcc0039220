//! Kills a process that writes, and looks whether everything that it had acknowledged is there.

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
