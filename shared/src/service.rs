//! The `main` of a part: arguments, configuration, logs, signals, exit code.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::config::{self, LogConfig, Settings, Sources};
use crate::drain::Drain;
use crate::reload::{Live, POLL, Reloader};
use crate::tasks::on_a_thread;
use crate::telemetry;

/// Exit code for a configuration that can't be used (`EX_USAGE` of sysexits.h).
pub const BAD_CONFIG: u8 = 64;

/// The signal of a write beyond the largest file size, on Linux and macOS.
const SIGXFSZ: i32 = 25;
/// Signals within this time count as one: some programs signal a process and its group.
const SAME_WISH: Duration = Duration::from_millis(200);
/// How long blocked threads may take to end at the very end.
const LAST_THREADS: Duration = Duration::from_millis(500);
/// How long standard error may take for the last words.
const LAST_WORD: Duration = Duration::from_millis(500);
/// How long the last traces may take to be exported.
const LAST_TRACES: Duration = Duration::from_secs(3);

/// Flags that every part takes.
#[derive(Debug, Clone, Default, Args)]
pub struct CommonArgs {
    /// Configuration file (TOML); also MC_CONFIG
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set any key: --set edge.listen=0.0.0.0:6790 (repeatable; stands over file and environment)
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub set: Vec<(String, String)>,
    /// Check the configuration, name every fault, and exit (0: good, 64: not)
    #[arg(long)]
    pub check_config: bool,
    /// Print the configuration as it would be used, without secrets, and exit
    #[arg(long)]
    pub print_config: bool,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, e.g. edge.listen=0.0.0.0:6790")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

/// Runs a program's future to its end. Threads that are still blocked then, for instance by a disk that
/// hangs, are abandoned.
pub fn block_on(program: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("The system gives no threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(program);
    runtime.shutdown_timeout(LAST_THREADS);
    code
}

/// Writes last words to standard error, unless nobody reads them.
fn last_word(text: String) {
    let (done, waiting) = mpsc::sync_channel(1);
    let write = move || {
        eprintln!("{text}");
        let _ = done.send(());
    };
    if thread::Builder::new().name("last-word".to_owned()).spawn(write).is_ok() {
        let _ = waiting.recv_timeout(LAST_WORD);
    }
}

/// Reads the settings of a command that serves nothing.
///
/// # Errors
/// The exit code: the faults were written to standard error, or a flag asked for the configuration alone.
pub fn settings<S: Settings>(args: CommonArgs, flags: Vec<(String, String)>) -> Result<S, ExitCode> {
    read(args, flags).map(|(_, settings)| settings)
}

fn read<S: Settings>(args: CommonArgs, flags: Vec<(String, String)>) -> Result<(Sources, S), ExitCode> {
    let flags = flags.into_iter().chain(args.set).collect();
    let sources = Sources::of_process(args.config, flags);
    let settings: S = match config::load(&sources) {
        Ok(settings) => settings,
        Err(problems) => {
            eprintln!("The configuration can't be used:\n{problems}");
            return Err(ExitCode::from(BAD_CONFIG));
        }
    };
    if args.print_config {
        print!("{}", config::print(&settings));
        return Err(ExitCode::SUCCESS);
    }
    let variables = config::variables("OTEL_");
    if let Err(faults) = telemetry::check_environment(&variables) {
        eprintln!("The environment can't be used:\n{faults}");
        return Err(ExitCode::from(BAD_CONFIG));
    }
    if args.check_config {
        println!("The configuration is good.");
        return Err(ExitCode::SUCCESS);
    }
    Ok((sources, settings))
}

/// Runs a part: loads the settings `S` (flags of the part are in `flags`), starts logging, calls `run`, which
/// serves until the drain begins, and turns the outcome into an exit code. SIGTERM and SIGINT begin the
/// drain; a second signal exits at once. SIGHUP reads the configuration again.
pub async fn run<S, F, Fut>(
    args: CommonArgs,
    flags: Vec<(String, String)>,
    log: fn(&S) -> &LogConfig,
    run: F,
) -> ExitCode
where
    S: Settings + Send + Sync + 'static,
    F: FnOnce(Live<S>, Drain) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let (sources, settings) = match read::<S>(args, flags) {
        Ok(read) => read,
        Err(code) => return code,
    };
    let variables = config::variables("OTEL_");
    let telemetry = match telemetry::start(log(&settings), S::SERVICE, &variables) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("Logs and traces can't start: {}", one_line(&error));
            return ExitCode::FAILURE;
        }
    };
    let drain = Drain::new();
    let (reloader, settings) = Reloader::new(sources, settings);
    let handled = leave_on_signal(&drain).and_then(|()| reload_on_signal(reloader, &drain));
    if let Err(error) = handled.and_then(|()| outlive_large_files()) {
        eprintln!("Signals can't be handled: {error}");
        return ExitCode::FAILURE;
    }
    // Boxed, since this future holds everything that a part starts.
    let served = Box::pin(run(settings, drain.clone())).await;
    telemetry.finish(LAST_TRACES).await;
    match served.and_then(|()| drain.failure().map_or(Ok(()), |failure| Err(failure.into()))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            last_word(one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// Writes an error and its causes in one line. Most of our errors say their cause themselves, so that a log
/// line has it; a cause that the line ends with is not said again.
fn one_line(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .reduce(|mut line, cause| {
            if !line.ends_with(&cause) {
                line = format!("{line}: {cause}");
            }
            line
        })
        .unwrap_or_default()
}

/// Reads the configuration again on SIGHUP and when its file changes.
fn reload_on_signal<S: Settings + Send + Sync + 'static>(
    reloader: Reloader<S>,
    drain: &Drain,
) -> std::io::Result<()> {
    // Shared with the reading thread, so that a panic there loses nothing.
    let reloader = Arc::new(Mutex::new(reloader));
    let state = (signal(SignalKind::hangup())?, reloader, drain.clone());
    drain.supervise("reload", state, |(hangup, reloader, leaving)| {
        Box::pin(async {
            let mut look = interval(POLL);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let asked = tokio::select! {
                    _ = hangup.recv() => true,
                    _ = look.tick() => false,
                    () = leaving.begun() => return,
                };
                // The file may be on a disk that hangs.
                let reloader = Arc::clone(reloader);
                let read = on_a_thread(move || {
                    let mut reloader = reloader.lock().unwrap_or_else(PoisonError::into_inner);
                    if asked { reloader.reload() } else { reloader.reload_if_changed() }
                });
                tokio::select! { () = read => {}, () = leaving.begun() => return }
            }
        })
    });
    Ok(())
}

/// Turns a write beyond the file size limit of the process (`ulimit -f`) into an error, which is logged and
/// tried again. The default action of the signal would end the process.
fn outlive_large_files() -> std::io::Result<()> {
    // The handler stays installed when the stream is dropped.
    signal(SignalKind::from_raw(SIGXFSZ)).map(drop)
}

fn leave_on_signal(drain: &Drain) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let leaving = drain.clone();
    // The task outlives the drain, to receive a second signal.
    drain.spawn_beyond("signals", async move {
        let mut asked: Option<Instant> = None;
        loop {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            match asked {
                None => {
                    asked = Some(Instant::now());
                    tracing::info!("asked to leave; a second signal leaves at once");
                    leaving.begin();
                }
                Some(first) if first.elapsed() < SAME_WISH => {}
                Some(_) => {
                    last_word("Second signal: leaving at once.".to_owned());
                    std::process::exit(1);
                }
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the folder can't be opened: {0}")]
    struct Folder(#[from] std::io::Error);

    #[test]
    fn a_cause_that_an_error_says_itself_is_said_once() {
        let folder = Folder(std::io::Error::other("the disk is gone"));
        let error = anyhow::Error::new(folder).context("the bus");
        assert_eq!(one_line(&error), "the bus: the folder can't be opened: the disk is gone");
        let error = anyhow::anyhow!("refused").context("port 1").context("edge");
        assert_eq!(one_line(&error), "edge: port 1: refused");
    }
}
