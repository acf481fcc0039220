//! The client processes, from the tool's side: started, given orders, heard, and ended.
//!
//! They are processes of their own group, so that Ctrl-C reaches the tool alone, which then ends them in order.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use shared::drain::Drain;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::control::{Event, Order, Progress};

/// Events that may wait to be heard, of all processes.
const EVENTS: usize = 1_024;
/// How long a client process may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// All client processes.
pub(crate) struct Crew {
    workers: Vec<Worker>,
    events: mpsc::Receiver<(usize, Option<Event>)>,
    progress: Arc<Mutex<Vec<Progress>>>,
    readers: Drain,
}

struct Worker {
    child: Child,
    input: ChildStdin,
    pid: u32,
}

impl Crew {
    /// Starts so many processes of this program.
    ///
    /// # Errors
    /// It can't be started.
    pub(crate) fn start(processes: u64) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the path of this program")?;
        let readers = Drain::new();
        let (sender, events) = mpsc::channel(EVENTS);
        let mut workers = Vec::new();
        let progress = Arc::new(Mutex::new(Vec::new()));
        for number in 0..usize::try_from(processes)? {
            let mut command = Command::new(&program);
            command.args(["bench", "--worker"]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command
                .process_group(0)
                .kill_on_drop(true)
                .spawn()
                .context("a client process can't be started")?;
            let pid = child.id().context("a client process ended at once")?;
            let input = child.stdin.take().context("the input of a client process")?;
            let output = child.stdout.take().context("the output of a client process")?;
            progress.lock().unwrap_or_else(PoisonError::into_inner).push(Progress::default());
            readers.spawn("reader", listen(number, output, sender.clone(), Arc::clone(&progress)));
            workers.push(Worker { child, input, pid });
        }
        Ok(Self { workers, events, progress, readers })
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.workers.iter().map(|worker| worker.pid).collect()
    }

    /// What all processes said last, together, whenever it is called.
    pub(crate) fn progress(&self) -> impl Fn() -> Progress + Send + Sync + use<> {
        let progress = Arc::clone(&self.progress);
        move || total(&progress)
    }

    /// Gives each process an order, and gathers one event of each.
    ///
    /// # Errors
    /// A process ended.
    pub(crate) async fn ask(&mut self, order: impl Fn(u64) -> Order) -> anyhow::Result<Vec<Event>> {
        for (number, worker) in (0..).zip(&mut self.workers) {
            let mut line = serde_json::to_vec(&order(number)).context("an order")?;
            line.push(b'\n');
            worker.input.write_all(&line).await.context("a client process does not listen")?;
            worker.input.flush().await.context("a client process does not listen")?;
        }
        let mut events = Vec::with_capacity(self.workers.len());
        while events.len() < self.workers.len() {
            match self.events.recv().await {
                Some((_, Some(event))) => events.push(event),
                Some((number, None)) => {
                    let status = timeout(GRACE, self.workers[number].child.wait()).await;
                    bail!("a client process ended: {status:?}");
                }
                None => bail!("the client processes ended"),
            }
        }
        Ok(events)
    }

    /// Ends all processes.
    pub(crate) async fn end(self) {
        let mut children = Vec::new();
        for worker in self.workers {
            // The end of its input is the end of a client process.
            drop(worker.input);
            children.push(worker.child);
        }
        drop(self.events);
        for mut child in children {
            if timeout(GRACE, child.wait()).await.is_err() {
                // It is killed when dropped.
                eprintln!("a client process did not end by itself");
            }
        }
        self.readers.finish(GRACE).await;
    }
}

fn total(progress: &Mutex<Vec<Progress>>) -> Progress {
    let all = progress.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().fold(Progress::default(), |sum, one| Progress {
        open: sum.open + one.open,
        received: sum.received + one.received,
        gone: sum.gone + one.gone,
    })
}

/// Hears one process until its output ends.
async fn listen(
    number: usize,
    output: ChildStdout,
    events: mpsc::Sender<(usize, Option<Event>)>,
    progress: Arc<Mutex<Vec<Progress>>>,
) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Event::Progress(now)) => {
                progress.lock().unwrap_or_else(PoisonError::into_inner)[number] = now;
            }
            Ok(event @ (Event::Opened(_) | Event::Closed | Event::Finished(_))) => {
                if events.send((number, Some(event))).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                eprintln!("a client process said what is not understood: {error}");
                break;
            }
        }
    }
    // Nobody may want to know any more.
    let _ = events.send((number, None)).await;
}
