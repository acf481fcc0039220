//! Drives the clients for Python and JavaScript: one script each, which runs cases by name and prints a line
//! per case.
//!
//! The lines of a script: `ok NAME`, `not ok NAME: REASON`, `restart` to have its server stopped and started
//! again, and with `--list` one `GROUP NAME` per case. The group names the server that the case needs. A
//! requested case that the script does not report has failed.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::fixture::{Fixture, within};
use crate::report::Report;
use crate::server::{Access, PASSWORD, Server, Settings, TOKEN, USER};
use crate::tools::Tools;

/// Bound until a script's next line: the start of the interpreter, and a case with a deadline of its own of
/// 20 s.
const DEADLINE: Duration = Duration::from_secs(45);

/// The servers that a case may need: open to everyone, with a token, with a password, one that the case may
/// have restarted, and the shared one with streams.
const GROUPS: &[&str] = &["open", "token", "password", "restart", "streams"];

/// One client's script.
pub(crate) struct Script {
    client: &'static str,
    interpreter: PathBuf,
    file: PathBuf,
    node_path: PathBuf,
}

impl Script {
    /// The scripts for core NATS.
    pub(crate) fn all(tools: &Tools) -> Vec<Self> {
        Self::of(tools, "nats_py.py", ("nats-core", "nats_core.py"), "nats_js.mjs")
    }

    /// The scripts for streams.
    pub(crate) fn with_streams(tools: &Tools) -> Vec<Self> {
        Self::of(tools, "nats_py_streams.py", ("nats-jetstream", "nats_jetstream.py"), "nats_js_streams.mjs")
    }

    fn of(tools: &Tools, python: &str, (newer, file): (&'static str, &str), node: &str) -> Vec<Self> {
        let clients = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conformance/clients");
        let script = |client, interpreter: &PathBuf, file: &str| Self {
            client,
            interpreter: interpreter.clone(),
            file: clients.join(file),
            node_path: tools.node_path.clone(),
        };
        let newer = tools.has_newer_clients.then(|| script(newer, &tools.python, file));
        let older = [script("nats.py", &tools.python, python), script("nats.js", &tools.node, node)];
        older.into_iter().chain(newer).collect()
    }

    /// Runs all cases of the script and records them.
    pub(crate) async fn run(&self, fixture: &Fixture, report: &mut Report) {
        let groups = match self.list(fixture).await {
            Ok(cases) => cases,
            Err(error) => {
                let error = error.context(format!("list the cases of {}", self.file.display()));
                return report.record(
                    fixture.kind(),
                    self.client,
                    "lists_its_cases",
                    Err(error),
                    Duration::ZERO,
                );
            }
        };
        for group in GROUPS {
            let wanted = |case: &&(String, String)| {
                case.0 == *group && report.wants(fixture.kind(), self.client, &case.1)
            };
            let mut due: Vec<String> = groups.iter().filter(wanted).map(|case| case.1.clone()).collect();
            if due.is_empty() {
                continue;
            }
            let ended = self.run_group(fixture, group, &mut due, report).await;
            // A case that was not reported has failed, for the reason that ended the script.
            let reason =
                ended.err().map_or_else(|| "the script did not report it".to_owned(), |e| format!("{e:#}"));
            for case in due {
                let outcome = Err(anyhow::anyhow!("{reason}"));
                report.record(fixture.kind(), self.client, &case, outcome, Duration::ZERO);
            }
        }
    }

    /// The group and name of every case.
    async fn list(&self, fixture: &Fixture) -> anyhow::Result<Vec<(String, String)>> {
        let (mut child, mut lines) = self.spawn(fixture, &["--list"])?;
        let mut cases = Vec::new();
        while let Some(line) = within(DEADLINE, "the list", lines.next_line()).await? {
            let (group, name) = line.split_once(' ').with_context(|| format!("{line:?} is no case"))?;
            ensure!(GROUPS.contains(&group), "{group:?} is no group");
            cases.push((group.to_owned(), name.to_owned()));
        }
        let status = within(DEADLINE, "the script to end", child.wait()).await?;
        ensure!(status.success() && !cases.is_empty(), "{} cases, {status}", cases.len());
        Ok(cases)
    }

    /// Runs the cases `due` of one group, and removes the reported ones from `due`.
    async fn run_group(
        &self,
        fixture: &Fixture,
        group: &str,
        due: &mut Vec<String>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let access = match group {
            "token" => Access::Token,
            "password" => Access::Password,
            _ => Access::Open,
        };
        let mut own = match group {
            "streams" => None,
            _ => Some(fixture.server(Settings::with_access(access)).await?),
        };
        let mut arguments = vec![own.as_ref().unwrap_or(&fixture.shared).url()];
        arguments.extend(due.iter().cloned());
        let (mut child, mut lines) = self.spawn(fixture, &arguments)?;
        let mut began = Instant::now();
        while let Some(line) = within(DEADLINE, "a line of the script", lines.next_line()).await? {
            if line == "restart" {
                let server = own.take().context("a script may not restart the shared server")?;
                own = Some(Server::restart(server).await?);
                continue;
            }
            let (name, outcome) = parse(&line)?;
            let position =
                due.iter().position(|case| *case == name).context("it reported a case not asked for")?;
            due.remove(position);
            report.record(fixture.kind(), self.client, &name, outcome, began.elapsed());
            began = Instant::now();
        }
        let status = within(DEADLINE, "the script to end", child.wait()).await?;
        // A failed case also fails the script; the report has it already.
        if !status.success() && !due.is_empty() {
            bail!("the script ended with {status}");
        }
        match own {
            Some(server) => server.stop().await,
            None => Ok(()),
        }
    }

    fn spawn<S: AsRef<std::ffi::OsStr>>(
        &self,
        fixture: &Fixture,
        arguments: &[S],
    ) -> anyhow::Result<(Child, Lines<BufReader<ChildStdout>>)> {
        let mut child = Command::new(&self.interpreter)
            .arg(&self.file)
            .args(arguments)
            .env("MC_TEST_NODE_PATH", &self.node_path)
            .env("CONFORMANCE_REPLICAS", fixture.kind().replicas().to_string())
            .env("CONFORMANCE_TOKEN", TOKEN)
            .env("CONFORMANCE_USER", USER)
            .env("CONFORMANCE_PASSWORD", PASSWORD)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", self.interpreter.display()))?;
        let output = child.stdout.take().context("the script has no output")?;
        Ok((child, BufReader::new(output).lines()))
    }
}

/// One reported case.
fn parse(line: &str) -> anyhow::Result<(String, anyhow::Result<()>)> {
    if let Some(name) = line.strip_prefix("ok ") {
        return Ok((name.to_owned(), Ok(())));
    }
    let failure = line.strip_prefix("not ok ").with_context(|| format!("the script printed {line:?}"))?;
    let (name, reason) = failure.split_once(": ").with_context(|| format!("no reason in {line:?}"))?;
    Ok((name.to_owned(), Err(anyhow::anyhow!("{reason}"))))
}
