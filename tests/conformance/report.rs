//! Collects every outcome, prints it at once, and sums up.
//!
//! A failure on the embedded bus that `differences.rs` announces counts as passed, and is printed as a
//! difference; an announced failure that does not occur is a failure.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::differences::{self, DIFFERENCES};
use crate::server::Kind;

#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

/// The outcomes so far.
#[derive(Debug)]
pub(crate) struct Report {
    arguments: Arguments,
    /// By server, then client.
    tallies: BTreeMap<(&'static str, String), Tally>,
    /// Every `client/case`, over all servers.
    cases: BTreeSet<String>,
    failures: Vec<String>,
    left_out: Vec<String>,
}

impl Report {
    /// An empty report on the cases that `arguments` select.
    pub(crate) fn new(arguments: Arguments) -> Self {
        Self {
            arguments,
            tallies: BTreeMap::new(),
            cases: BTreeSet::new(),
            failures: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// Whether to run this case; with `--list` prints the case instead.
    pub(crate) fn wants(&self, kind: &Kind, client: &str, case: &str) -> bool {
        let name = format!("{}/{client}/{case}", kind.name());
        if !self.arguments.select(&name) {
            return false;
        }
        if self.arguments.list {
            println!("{name}: test");
        }
        !self.arguments.list
    }

    /// Whether any case of these clients over this server may be selected, so that the server is worth
    /// starting.
    pub(crate) fn wants_any_of(&self, kind: &Kind, clients: &[&str]) -> bool {
        self.is_whole()
            || clients.iter().any(|client| self.arguments.may_select(&format!("{}/{client}/", kind.name())))
    }

    /// Reports that something does not run.
    pub(crate) fn leave_out(&mut self, what: String) {
        println!("left out: {what}");
        self.left_out.push(what);
    }

    /// Whether every case was selected.
    pub(crate) fn is_whole(&self) -> bool {
        self.arguments.is_whole()
    }

    /// Records the outcome of a case.
    pub(crate) fn record(
        &mut self,
        kind: &Kind,
        client: &str,
        case: &str,
        outcome: anyhow::Result<()>,
        took: Duration,
    ) {
        let name = format!("{client}/{case}");
        let full = format!("{}/{name}", kind.name());
        let expected = if kind.is_embedded() { differences::of(&name) } else { None };
        let failure = match (outcome, expected) {
            (Ok(()), None) => {
                println!("{full} ... ok ({} ms)", took.as_millis());
                None
            }
            (Ok(()), Some(_)) => Some("passes, but is listed as a difference: remove it there".to_owned()),
            (Err(error), None) => Some(format!("{error:#}")),
            (Err(error), Some(difference)) if format!("{error:#}").contains(difference.failure) => {
                println!("{full} ... differs as documented");
                None
            }
            (Err(error), Some(difference)) => {
                Some(format!("is listed to fail with \"{}\", but failed with: {error:#}", difference.failure))
            }
        };
        let tally = self.tallies.entry((kind.name(), client.to_owned())).or_default();
        match failure {
            None => tally.passed += 1,
            Some(text) => {
                tally.failed += 1;
                println!("{full} ... FAILED: {text}");
                self.failures.push(format!("{full}: {text}"));
            }
        }
        self.cases.insert(name);
    }

    /// Fails if there are fewer cases than the suite promises.
    pub(crate) fn check_promise(&mut self, all: usize, third_party: usize) {
        let driven = self.cases.iter().filter(|case| is_third_party(case)).count();
        if self.cases.len() < all || driven < third_party {
            self.failures.push(format!(
                "the suite promises {all} cases, {third_party} of them with third-party clients, and has {} and {driven}",
                self.cases.len()
            ));
        }
    }

    /// Fails if an entry of the table of differences names no case.
    pub(crate) fn check_differences(&mut self) {
        let is_missing = |difference: &&differences::Difference| {
            let client = difference.case.split_once('/').map_or("", |(client, _)| client);
            let ran =
                self.cases.iter().any(|case| case.split_once('/').is_some_and(|(ran, _)| ran == client));
            // A client that was left out has no cases at all.
            !self.cases.contains(difference.case) && (ran || self.left_out.is_empty())
        };
        for difference in DIFFERENCES.iter().filter(is_missing) {
            self.failures.push(format!("differences.rs names {}, which is no case", difference.case));
        }
    }

    /// Prints the totals; returns whether nothing failed.
    pub(crate) fn finish(self, tools: bool) -> bool {
        if self.arguments.list {
            return true;
        }
        println!("\nconformance totals (passed/run)");
        for ((server, client), tally) in &self.tallies {
            println!("  {server:<13} {client:<11} {}/{}", tally.passed, tally.passed + tally.failed);
        }
        let driven = self.cases.iter().filter(|case| is_third_party(case)).count();
        println!("  {} different cases, {driven} of them with third-party clients", self.cases.len());
        println!("differences between the embedded bus and nats-server: {}", DIFFERENCES.len());
        for difference in DIFFERENCES {
            println!("  {}: {} (product uses it: false)", difference.case, difference.reason);
        }
        if !tools {
            println!(
                "left to tests/run: every case over the real nats-server, and the clients nats.py and nats.js over both servers"
            );
        }
        for what in &self.left_out {
            println!("left out: {what}");
        }
        for failure in &self.failures {
            println!("FAILED {failure}");
        }
        let passed: usize = self.tallies.values().map(|tally| tally.passed).sum();
        println!("conformance: {passed} passed, {} failed", self.failures.len());
        self.failures.is_empty()
    }
}

/// Whether a `client/case` drives a client by others.
fn is_third_party(case: &str) -> bool {
    !case.starts_with("raw/") && !case.starts_with("streams/")
}
