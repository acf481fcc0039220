//! The client processes, seen from the tool: starts them, gives them instructions, gathers their events, ends
//! them.
//!
//! Each client process has a process group of its own, so that Ctrl-C reaches the tool alone. The tool then
//! ends the client processes in order.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use shared::drain::Drain;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::control::{Event, Instruction, Progress};

/// Events of all processes that may wait to be read.
const EVENTS: usize = 1_024;
/// How long a client process may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// All client processes.
pub(crate) struct Crew {
    workers: Vec<Worker>,
    events: mpsc::Receiver<WorkerEvent>,
    progress: Arc<Mutex<Vec<Progress>>>,
    readers: Drain,
}

/// An event and the number of its process. No event: the output of the process ended.
struct WorkerEvent {
    worker: usize,
    event: Option<Event>,
}

struct Worker {
    child: Child,
    input: ChildStdin,
    pid: u32,
}

impl Crew {
    /// Starts `processes` client processes of this program.
    ///
    /// # Errors
    /// Fails if the program can't be started.
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

    /// Returns a function that adds up the latest progress of all processes.
    pub(crate) fn progress(&self) -> impl Fn() -> Progress + Send + Sync + use<> {
        let progress = Arc::clone(&self.progress);
        move || total(&progress)
    }

    /// Gives each process an instruction, and gathers one event of each.
    ///
    /// # Errors
    /// Fails if a process ended.
    pub(crate) async fn ask(
        &mut self,
        instruction: impl Fn(u64) -> Instruction,
    ) -> anyhow::Result<Vec<Event>> {
        for (number, worker) in (0..).zip(&mut self.workers) {
            let mut line = serde_json::to_vec(&instruction(number)).context("an instruction")?;
            line.push(b'\n');
            worker.input.write_all(&line).await.context("a client process does not listen")?;
            worker.input.flush().await.context("a client process does not listen")?;
        }
        let mut events = Vec::with_capacity(self.workers.len());
        while events.len() < self.workers.len() {
            match self.events.recv().await {
                Some(WorkerEvent { event: Some(event), .. }) => events.push(event),
                Some(WorkerEvent { worker, event: None }) => {
                    let status = timeout(GRACE, self.workers[worker].child.wait()).await;
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
            // A client process ends when its standard input does.
            drop(worker.input);
            children.push(worker.child);
        }
        drop(self.events);
        for mut child in children {
            if timeout(GRACE, child.wait()).await.is_err() {
                // Dropping the child kills it.
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

/// Reads the events of one process until its output ends.
async fn listen(
    worker: usize,
    output: ChildStdout,
    events: mpsc::Sender<WorkerEvent>,
    progress: Arc<Mutex<Vec<Progress>>>,
) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Event::Progress(now)) => {
                progress.lock().unwrap_or_else(PoisonError::into_inner)[worker] = now;
            }
            Ok(event @ (Event::Opened(_) | Event::Closed | Event::Finished(_))) => {
                if events.send(WorkerEvent { worker, event: Some(event) }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                eprintln!("a client process said what is not understood: {error}");
                break;
            }
        }
    }
    // The receiver is gone if the crew ends already.
    let _ = events.send(WorkerEvent { worker, event: None }).await;
}
