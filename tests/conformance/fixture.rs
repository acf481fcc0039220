//! The fixture of a case: the server that all cases of a kind share, and the means to start another.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::StreamExt;

use crate::report::Report;
use crate::server::{Kind, Server, Settings};

/// Deadline of a case. Far above what any case needs, because the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Cases that [`Fixture::run_at_once`] runs at once: mostly they wait for the server.
const AT_ONCE: usize = 8;

/// A running case.
pub(crate) type CaseFuture<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>>;

/// One promise of a NATS server, as seen by one client.
pub(crate) struct Case {
    /// A sentence in snake case.
    pub(crate) name: &'static str,
    /// The test function.
    pub(crate) run: for<'a> fn(&'a Fixture) -> CaseFuture<'a>,
}

/// Makes a list of cases from the functions of the same name.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        vec![$($crate::fixture::Case { name: stringify!($name), run: |fixture| Box::pin($name(fixture)) }),*]
    };
}
pub(crate) use cases;

/// A running server of one kind.
pub(crate) struct Fixture {
    kind: Kind,
    /// The shared server: no credentials, nats-server's default limits. Cases use subjects of their own.
    pub(crate) shared: Server,
}

impl Fixture {
    /// Starts the shared server.
    pub(crate) async fn start(kind: Kind, settings: Settings) -> anyhow::Result<Self> {
        let shared =
            Server::start(&kind, settings).await.with_context(|| format!("start {}", kind.name()))?;
        Ok(Self { kind, shared })
    }

    /// The kind of the shared server.
    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Starts another server, which stops when dropped.
    pub(crate) async fn server(&self, settings: Settings) -> anyhow::Result<Server> {
        Server::start(&self.kind, settings).await
    }

    /// Runs a case until [`DEADLINE`], and records the outcome.
    pub(crate) async fn run(&self, client: &str, case: &Case, report: &mut Report) {
        if !report.wants(&self.kind, client, case.name) {
            return;
        }
        let began = Instant::now();
        let outcome = within(DEADLINE, "the case to end", (case.run)(self)).await;
        report.record(&self.kind, client, case.name, outcome, began.elapsed());
    }

    /// Runs the cases, several at once, and records each as it ends. The cases must not share anything.
    pub(crate) async fn run_at_once(&self, client: &str, cases: &[Case], report: &mut Report) {
        let wanted = cases.iter().filter(|case| report.wants(&self.kind, client, case.name));
        let wanted: Vec<&Case> = wanted.collect();
        let mut running = futures_util::stream::iter(wanted)
            .map(|case| async {
                let began = Instant::now();
                let outcome = within(DEADLINE, "the case to end", (case.run)(self)).await;
                (case.name, outcome, began.elapsed())
            })
            .buffer_unordered(AT_ONCE);
        while let Some((name, outcome, took)) = running.next().await {
            report.record(&self.kind, client, name, outcome, took);
        }
    }

    /// Stops the shared server; the stop itself counts as a case.
    pub(crate) async fn stop(self, report: &mut Report) {
        let began = Instant::now();
        let wanted = report.wants(&self.kind, "raw", "stops_when_told_to");
        let outcome = self.shared.stop().await;
        if wanted {
            report.record(&self.kind, "raw", "stops_when_told_to", outcome, began.elapsed());
        }
    }
}

/// Waits for `future`, but no longer than `limit`; `what` goes into the error.
pub(crate) async fn within<T, E: Into<anyhow::Error>>(
    limit: Duration,
    what: &str,
    future: impl Future<Output = Result<T, E>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(limit, future).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(_) => anyhow::bail!("waited {limit:?} in vain for {what}"),
    }
}
