//! Runs one set of cases over all servers: the embedded bus, the real nats-server, and, for streams, a
//! cluster of three.
//!
//! A program without libtest, because one process drives scripts that run many cases each, and because it
//! must report what it leaves out. Every case must pass on nats-server, or the case is wrong; it must pass on
//! the embedded bus, or `differences.rs` says why not, which `report.rs` prints. Every omission is reported.

use std::process::ExitCode;
use std::sync::Arc;

mod arguments;
mod cases;
mod differences;
mod fixture;
mod raw;
mod report;
mod scripts;
mod server;
mod stream;
mod tools;

use arguments::Arguments;
use report::Report;
use server::Kind;
use tools::Tools;

/// The number of cases that the suite promises; fewer means that some got lost.
const PROMISED: usize = 440;
/// The number of those that drive clients by others.
const PROMISED_THIRD_PARTY: usize = 150;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("conformance: cannot run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the suite; returns whether every case passed.
fn run() -> anyhow::Result<bool> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let tools = Tools::from_environment()?.map(Arc::new);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut report = Report::new(arguments);
    if tools.as_ref().is_some_and(|tools| !tools.has_newer_clients) {
        report.leave_out(
            "nats-core and nats-jetstream, which need Python 3.13 (MC_TEST_PYTHON is older)".to_owned(),
        );
    }
    runtime.block_on(async {
        for kind in Kind::available(tools.as_deref()) {
            run_over(kind, tools.as_deref(), &mut report).await?;
        }
        for kind in Kind::with_streams(tools.as_deref()) {
            run_streams_over(kind, tools.as_deref(), &mut report).await?;
        }
        anyhow::Ok(())
    })?;
    if tools.is_some() && report.is_whole() {
        report.check_promise(PROMISED, PROMISED_THIRD_PARTY);
        report.check_differences();
    }
    Ok(report.finish(tools.is_some()))
}

async fn run_over(kind: Kind, tools: Option<&Tools>, report: &mut Report) -> anyhow::Result<()> {
    let fixture = fixture::Fixture::start(kind, server::Settings::default()).await?;
    for (client, cases) in [("raw", cases::raw::all()), ("async-nats", cases::rust::all())] {
        for case in cases {
            fixture.run(client, &case, report).await;
        }
    }
    if let Some(tools) = tools {
        for script in scripts::Script::all(tools) {
            script.run(&fixture, report).await;
        }
    }
    fixture.stop(report).await;
    Ok(())
}

async fn run_streams_over(kind: Kind, tools: Option<&Tools>, report: &mut Report) -> anyhow::Result<()> {
    if !report.wants_any_of(&kind, &["streams", "async-nats", "nats.py", "nats.js", "nats-jetstream"]) {
        return Ok(());
    }
    let fixture = fixture::Fixture::start(kind, server::Settings::with_streams()?).await?;
    if !stream::are_there(&fixture).await? {
        report.leave_out(format!("every case of streams over {}: it has none", fixture.kind().name()));
        return Ok(());
    }
    fixture.run_at_once("streams", &cases::streams::all(), report).await;
    fixture.run_at_once("async-nats", &cases::rust::streams(), report).await;
    if let Some(tools) = tools {
        for script in scripts::Script::with_streams(tools) {
            script.run(&fixture, report).await;
        }
    }
    fixture.shared.stop().await
}
