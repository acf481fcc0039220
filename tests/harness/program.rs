//! `message-center` as a process: started on free ports, its log read line by line, killed on drop.
//!
//! The environment is empty except for the variables that the test sets. Logs are JSON; the harness takes the
//! addresses from them. A failing test prints the output of the process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::Value;
use shared::drain::Drain;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use crate::wait::{soon, until};

/// Most lines of output; more mean a broken program.
const MOST_LINES: usize = 200_000;

/// Command line and environment of a process to start.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    name: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    text_log: bool,
    program: Option<PathBuf>,
    under: Vec<std::ffi::OsString>,
}

impl Launch {
    /// A subcommand, such as `edge`; `run` starts all parts in one process.
    pub fn of(part: &str) -> Self {
        Self { name: part.to_owned(), arguments: vec![part.to_owned()], ..Self::default() }
    }

    /// The program without any argument.
    pub fn bare() -> Self {
        Self { name: "message-center".to_owned(), ..Self::default() }
    }

    /// Adds `--set key=value`.
    #[must_use]
    pub fn set(self, key: &str, value: impl std::fmt::Display) -> Self {
        self.argument("--set").argument(&format!("{key}={value}"))
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts the program through another program: its path and arguments, then `message-center` and its own
    /// arguments. The other program must exit as `message-center` does.
    #[must_use]
    pub fn under(mut self, program: &Path, arguments: &[&str]) -> Self {
        self.under = vec![program.into()];
        self.under.extend(arguments.iter().map(Into::into));
        // The other program finds its own helpers by PATH.
        if let Some(path) = std::env::var_os("PATH") {
            self.environment.push(("PATH".to_owned(), path.to_string_lossy().into_owned()));
        }
        self
    }

    /// Starts this binary instead of [`binary`], e.g. one under another root.
    #[must_use]
    pub fn program(mut self, program: &Path) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Leaves the log in its default format, for tests of the text that a person sees.
    #[must_use]
    pub fn with_text_log(mut self) -> Self {
        self.text_log = true;
        self
    }

    /// Starts the process.
    ///
    /// # Panics
    /// The program cannot be started.
    pub fn start(self) -> Program {
        let binary = self.program.as_deref().unwrap_or_else(|| binary());
        let mut command = match self.under.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        command.args(&self.arguments).env_clear().stdin(Stdio::null());
        if !self.text_log {
            command.env("MC_LOG__FORMAT", "json");
        }
        // Streams stay in memory unless the test names a folder.
        command.env("MC_BUS__STORE__SYNC", "memory");
        command.env("RUST_BACKTRACE", "1").envs(self.environment);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the program can be started");
        let (readers, stdout, stderr) = (Drain::new(), Output::default(), Output::default());
        readers.spawn("reader", stdout.clone().fill(child.stdout.take().expect("it is piped")));
        readers.spawn("reader", stderr.clone().fill(child.stderr.take().expect("it is piped")));
        Program { name: self.name, child, stdout, stderr, readers, errors_expected: false }
    }

    /// Starts the process and waits for its end; returns exit code, standard output and standard error.
    ///
    /// # Panics
    /// The process does not end, or a signal ended it.
    pub async fn run(self) -> Finished {
        let mut program = self.start();
        let code = program.exit().await.code().expect("no signal ended it");
        program.errors_expected = true;
        Finished { code, stdout: program.stdout.text(), stderr: program.stderr.text() }
    }
}

/// An ended process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A running process.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    stdout: Output,
    stderr: Output,
    readers: Drain,
    errors_expected: bool,
}

impl Program {
    /// The address in the log line with this message, e.g. `"the edge listens"`.
    ///
    /// # Panics
    /// No such line comes.
    pub async fn address(&mut self, message: &str) -> SocketAddr {
        self.field(message, "address").await.parse().expect("the field holds an address")
    }

    /// A field of the first log line with this message.
    ///
    /// # Panics
    /// No such line comes, or the line lacks the field.
    pub async fn field(&mut self, message: &str, field: &str) -> String {
        let line = self.logged(message).await;
        let value = line.get(field).unwrap_or_else(|| panic!("no field {field} in {line}"));
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }

    /// The first log line whose message contains this text.
    ///
    /// # Panics
    /// No such line comes, or the process ends first.
    pub async fn logged(&mut self, message: &str) -> Value {
        let stderr = self.stderr.clone();
        let (child, name) = (&mut self.child, &self.name);
        until(&format!("{name} logs {message:?}"), async || {
            let ended = child.try_wait().expect("it is our child");
            let line = stderr
                .entries()
                .into_iter()
                .find(|entry| entry["message"].as_str().is_some_and(|text| text.contains(message)));
            assert!(
                line.is_some() || ended.is_none(),
                "{name} ended ({ended:?}) before it logged {message:?}"
            );
            line
        })
        .await
    }

    /// The first line of standard output that contains this text.
    ///
    /// # Panics
    /// No such line comes.
    pub async fn printed(&self, text: &str) -> String {
        until(&format!("{} prints {text:?}", self.name), async || {
            self.stdout.text().lines().find(|line| line.contains(text)).map(str::to_owned)
        })
        .await
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// The log lines so far at one of these levels, e.g. `"WARN"`.
    pub fn logged_at(&self, levels: &[&str]) -> Vec<Value> {
        let entries = self.stderr.entries().into_iter();
        entries.filter(|entry| entry["level"].as_str().is_some_and(|level| levels.contains(&level))).collect()
    }

    /// Accepts errors in the log; without this call they fail the test at the end.
    pub fn expect_errors(&mut self) {
        self.errors_expected = true;
    }

    /// Whether the process still runs.
    ///
    /// # Panics
    /// The system does not know the process.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Limits the size of the files that the process writes; `None` lifts the limit. Linux only.
    ///
    /// # Panics
    /// The system refuses.
    pub async fn limit_files(&self, bytes: Option<u64>) {
        let id = self.child.id().expect("it still runs");
        let limit = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
        // Sets the soft limit only, which can be raised again.
        let set =
            Command::new("prlimit").arg(format!("--pid={id}")).arg(format!("--fsize={limit}:")).status();
        assert!(set.await.is_ok_and(|status| status.success()), "prlimit --fsize={limit} {id}");
    }

    /// Sends a signal by name: `TERM`, `INT`, `KILL`, `STOP`, `CONT`.
    ///
    /// # Panics
    /// The process has ended.
    pub async fn signal(&self, name: &str) {
        let id = self.child.id().expect("it still runs");
        // `kill` is a shell builtin on every system.
        let killed = Command::new("sh").arg("-c").arg(format!("kill -{name} {id}")).status().await;
        assert!(killed.is_ok_and(|status| status.success()), "kill -{name} {id}");
        if name == "STOP" {
            // Other threads may run for a moment after the signal was sent.
            until("the process stands still", async || stands_still(id).await.then_some(())).await;
        }
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// The process does not end.
    pub async fn exit(&mut self) -> ExitStatus {
        let status = soon(&format!("{} ends", self.name), self.child.wait()).await.expect("it is our child");
        let left = self.readers.finish(crate::wait::DEADLINE).await;
        assert_eq!(left, 0, "the pipes of {} stay open: it left a child behind", self.name);
        status
    }

    /// Kills the process, as `kill -9` does.
    ///
    /// # Panics
    /// The process has already ended.
    pub async fn kill(&mut self) {
        self.signal("KILL").await;
        assert_eq!(self.exit().await.code(), None, "{} was killed", self.name);
        self.errors_expected = true;
    }

    /// Asks the process to leave, and expects exit code 0 and no errors in the log.
    ///
    /// # Panics
    /// The exit code differs, or the log has an unexpected error.
    pub async fn end(mut self) {
        self.signal("TERM").await;
        self.expect_success().await;
    }

    /// Expects the process to end with exit code 0 and no errors in the log.
    ///
    /// # Panics
    /// The exit code differs, or the log has an unexpected error.
    pub async fn expect_success(&mut self) {
        let status = self.exit().await;
        assert_eq!(status.code(), Some(0), "{} ended with {status}", self.name);
        if !self.errors_expected {
            let errors = self.logged_at(&["ERROR"]);
            assert!(errors.is_empty(), "{} logged errors: {errors:?}", self.name);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.readers.begin();
        if std::thread::panicking() {
            eprintln!("---- {}, standard output:\n{}", self.name, self.stdout.text());
            eprintln!("---- {}, standard error:\n{}", self.name, self.stderr.text());
        }
    }
}

/// Whether every thread of a process is stopped.
async fn stands_still(id: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{id}/task")) else {
        // Other systems have no /proc; ps knows the state of the process as a whole.
        let ps = Command::new("ps").args(["-o", "state=", "-p", &id.to_string()]).output().await;
        return ps.is_ok_and(|ps| ps.stdout.trim_ascii_start().starts_with(b"T"));
    };
    threads.filter_map(Result::ok).all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The thread's name is in parentheses and may hold any character; the state follows.
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    })
}

/// The lines of a pipe so far.
#[derive(Debug, Clone, Default)]
struct Output(Arc<Mutex<Vec<String>>>);

impl Output {
    async fn fill(self, pipe: impl AsyncRead + Unpin) {
        let mut lines = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(line);
            assert!(all.len() < MOST_LINES, "the program floods its output");
        }
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|line| format!("{line}\n")).collect()
    }

    /// The lines that are JSON.
    fn entries(&self) -> Vec<Value> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// The program under test: the path in `MC_BIN`, or a binary that cargo builds once for this run.
///
/// # Panics
/// The build fails.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("MC_BIN") {
        Some(path) => {
            let path = PathBuf::from(path);
            assert!(path.exists(), "MC_BIN is {}, which does not exist", path.display());
            path
        }
        None => build(),
    })
}

/// Builds with the selection of `cargo test --workspace`, so that no dependency is compiled a second time.
fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = std::process::Command::new(cargo)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .args(["build", "--workspace", "--bin", "message-center", "--tests", "--message-format=json"])
        .args((!cfg!(debug_assertions)).then_some("--release"))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be started");
    assert!(built.status.success(), "the program does not build");
    String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        // `--tests` also builds the unit tests of the program, which have the same name.
        .filter(|message| {
            message["target"]["name"] == "message-center" && message["profile"]["test"] == false
        })
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo says where it put the program")
}
