//! The frame of a run: signals, output, exit codes.
//!
//! | exit code | meaning |
//! | --- | --- |
//! | 0 | all went well |
//! | 1 | messages were lost, refused, delivered twice or out of order, or the tool itself failed |
//! | 64 | the flags or the system's limits do not allow the run |
//! | 69 | the server can't be reached, or went away |
//! | 130 | the run was stopped before there was anything to report |

use std::io::Write as _;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::measure::{Measured, measure};
use crate::report::Report;
use crate::{table, worker};

const FAULTS: u8 = 1;
const USAGE: u8 = 64;
const UNAVAILABLE: u8 = 69;
const STOPPED: u8 = 130;

/// The reason why there is no report.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The flags or the system do not allow the run.
    Usage(String),
    /// The server can't be reached.
    Unavailable(String),
    /// The server refuses every session.
    Refused(String),
    /// Ctrl-C came before there was anything to report.
    Stopped,
    /// The tool itself can't go on.
    Tool(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Tool(error)
    }
}

/// Runs the tool, or one of its client processes.
pub fn run(args: Args) -> Pin<Box<dyn Future<Output = ExitCode> + Send>> {
    // Boxed, so that only this crate compiles the code that it starts.
    Box::pin(async move {
        if args.worker {
            return match tokio::task::spawn_blocking(worker::run).await {
                Ok(Ok(())) => ExitCode::SUCCESS,
                Ok(Err(error)) => failed(&format!("a client process: {error:#}"), FAULTS),
                Err(error) => failed(&format!("a client process: {error}"), FAULTS),
            };
        }
        let interrupted = CancellationToken::new();
        let measured = tokio::select! {
            measured = measure(&args, &interrupted) => measured,
            abandoned = second_signal(&interrupted) => match abandoned {
                Ok(()) => Err(Failure::Stopped),
                Err(error) => Err(Failure::Tool(error)),
            },
        };
        match measured {
            Ok(Measured { report, server_gone }) => {
                if let Err(error) = print(&report, args.json.as_deref()) {
                    return failed(&format!("the report can't be written: {error:#}"), FAULTS);
                }
                match (server_gone, report.faults.is_empty()) {
                    (true, _) => ExitCode::from(UNAVAILABLE),
                    (false, true) => ExitCode::SUCCESS,
                    (false, false) => ExitCode::from(FAULTS),
                }
            }
            Err(Failure::Usage(why)) => failed(&why, USAGE),
            Err(Failure::Unavailable(why)) => failed(&why, UNAVAILABLE),
            Err(Failure::Refused(why)) => failed(&why, FAULTS),
            Err(Failure::Stopped) => failed("stopped before there was anything to report", STOPPED),
            Err(Failure::Tool(error)) => failed(&format!("{error:#}"), FAULTS),
        }
    })
}

fn failed(why: &str, code: u8) -> ExitCode {
    eprintln!("bench: {why}");
    ExitCode::from(code)
}

/// Ends the run early, with a report, at the first signal. Returns at the second signal.
async fn second_signal(interrupted: &CancellationToken) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("signals can't be handled")?;
    let mut terminate = signal(SignalKind::terminate()).context("signals can't be handled")?;
    for _ in 0..2 {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        interrupted.cancel();
    }
    Ok(())
}

/// Writes the table, and the JSON if asked for. JSON on standard output moves the table to standard error.
fn print(report: &Report, json: Option<&Path>) -> anyhow::Result<()> {
    let table = table::text(report);
    let Some(file) = json else {
        return std::io::stdout().write_all(table.as_bytes()).context("standard output");
    };
    let mut text = serde_json::to_string_pretty(report).context("the report")?;
    text.push('\n');
    if file == Path::new("-") {
        eprint!("{table}");
        return std::io::stdout().write_all(text.as_bytes()).context("standard output");
    }
    std::io::stdout().write_all(table.as_bytes()).context("standard output")?;
    std::fs::write(file, text).with_context(|| file.display().to_string())
}
