//! The writer of log lines: a bounded queue, and a thread of its own that writes to standard error.
//!
//! The reader of standard error may stop, as a container's log driver may do. Then only that thread waits:
//! lines that find the queue full are dropped and counted.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use tokio::sync::oneshot;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// The most lines that wait to be written: some 2 MB.
const MAX_LINES: usize = 8_192;

/// Counters of lost lines.
#[derive(Debug, Clone)]
pub(super) struct LostLines {
    /// Lines that found the queue full.
    dropped: ErrorCounter,
    /// Lines that could not be written.
    failed: Arc<AtomicU64>,
}

impl LostLines {
    fn count(&self) -> u64 {
        self.dropped.dropped_lines() as u64 + self.failed.load(Ordering::Relaxed)
    }
}

impl Collector for LostLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let (name, help) = ("mc_log_lines_lost", "Lines of the log that nobody could read");
        let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(self.count()).encode(descriptor)
    }
}

/// Writes the waiting lines when it is dropped, for about a second at most.
#[derive(Debug)]
pub(super) struct LastLines(WorkerGuard);

impl LastLines {
    /// Writes the waiting lines, until a time-out. Uses a thread, since the reader may be gone.
    pub(super) async fn flush(self) {
        let (done, waiting) = oneshot::channel();
        let flush = move || {
            drop(self.0);
            let _ = done.send(());
        };
        if thread::Builder::new().name("last-lines".to_owned()).spawn(flush).is_ok() {
            let _ = waiting.await;
        }
    }
}

/// Makes a writer to standard error that never waits.
///
/// # Errors
/// Standard error is closed.
pub(super) fn to_stderr() -> io::Result<(NonBlocking, LostLines, LastLines)> {
    // With a descriptor of its own, a blocked write holds no lock that the last words need.
    Ok(to(File::from(io::stderr().as_fd().try_clone_to_owned()?), MAX_LINES))
}

fn to(writer: impl Write + Send + 'static, max_lines: usize) -> (NonBlocking, LostLines, LastLines) {
    let failed = Arc::<AtomicU64>::default();
    let writer = Counting { writer, failed: Arc::clone(&failed) };
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(max_lines);
    let (writer, guard) = builder.thread_name("log").finish(writer);
    let lost = LostLines { dropped: writer.error_counter(), failed };
    (writer, lost, LastLines(guard))
}

/// Counts the lines that can't be written, and treats them as written.
struct Counting<W> {
    writer: W,
    failed: Arc<AtomicU64>,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_all(line)?;
        Ok(line.len())
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        if self.writer.write_all(line).is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc;
    use std::time::Duration;

    /// Takes a line whenever the test lets it.
    struct Slow {
        turns: mpsc::Receiver<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.turns.recv().map_err(io::Error::other)?;
            self.taken.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Lets a line through; what was taken; and the writer with its counter and its end.
    type Rig = (mpsc::Sender<()>, Arc<Mutex<Vec<u8>>>, (NonBlocking, LostLines, LastLines));

    fn slow(max_lines: usize) -> Rig {
        let (turn, turns) = mpsc::channel();
        let taken = Arc::<Mutex<Vec<u8>>>::default();
        (turn, Arc::clone(&taken), to(Slow { turns, taken }, max_lines))
    }

    #[tokio::test]
    async fn lines_that_find_no_room_are_dropped_and_counted_and_the_others_are_written_at_the_end() {
        let (turn, taken, (mut writer, lost, last)) = slow(4);
        for line in 0..100 {
            writer.write_all(format!("{line}\n").as_bytes()).unwrap();
        }
        // Four wait, and the thread may hold one.
        assert!((95..=96).contains(&lost.count()), "{}", lost.count());
        for _ in 0..5 {
            turn.send(()).unwrap();
        }
        last.flush().await;
        assert!(String::from_utf8(taken.lock().unwrap().clone()).unwrap().starts_with("0\n1\n2\n3\n"));
        drop(turn);
    }

    #[tokio::test]
    async fn the_end_does_not_wait_for_a_reader_that_is_gone() {
        let (turn, taken, (mut writer, _lost, last)) = slow(4);
        writer.write_all(b"nobody reads this\n").unwrap();
        tokio::time::timeout(Duration::from_secs(20), last.flush()).await.unwrap();
        assert!(taken.lock().unwrap().is_empty());
        drop(turn);
    }

    #[tokio::test]
    async fn lines_that_can_not_be_written_are_counted() {
        let (turn, _taken, (mut writer, lost, last)) = slow(4);
        drop(turn);
        writer.write_all(b"one\n").unwrap();
        writer.write_all(b"two\n").unwrap();
        last.flush().await;
        assert_eq!(lost.count(), 2);
    }
}
