//! Makes the report from the findings of all processes.

use super::{Ended, Findings, Run, merged};
use crate::args::Mode;
use crate::clock::{self, SECOND};
use crate::latency::{Latency, Recorded, Summary};
use crate::report::{self, Client, Delivery, Process, Publishing, Report, Sessions, Settings};
use crate::usage::{NamedProcess, Usage};

impl Run<'_> {
    pub(super) fn report(&self, found: &Findings, started_at: u64) -> Report {
        let received = found.finished.iter().map(|finished| finished.received).sum();
        let last = found.finished.iter().map(|finished| finished.last).max().unwrap_or(0).max(found.answered);
        Report {
            version: report::VERSION,
            program: env!("CARGO_PKG_VERSION"),
            started_at,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            stopped_early: found.ended == Ended::Interrupted,
            settings: self.settings(),
            sessions: sessions(found),
            publishing: publishing(found),
            delivery: delivery(found, received),
            server: self.server_report(found, received),
            client: Client {
                cpu_seconds_publishing: found.client,
                seconds_publishing: seconds(found.began, last),
                schedule_lag: found.pace.lag(),
            },
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn settings(&self) -> Settings {
        let args = self.args;
        Settings {
            spawn: args.spawn,
            store: args.spawn.map(|_| args.store),
            recover: args.recover,
            url: self.devices.to_string(),
            publish: self.publisher.to_string(),
            sessions: args.sessions,
            users: args.users(),
            processes: args.processes,
            mode: args.mode,
            via: args.via,
            fanout: args.fanout,
            rate: (args.mode == Mode::Open).then_some(args.rate),
            in_flight: (args.mode == Mode::Closed).then_some(args.in_flight),
            connections: args.connections(),
            payload_bytes: args.payload,
            duration_ms: u64::try_from(args.duration.as_millis()).unwrap_or(u64::MAX),
            ramp: args.ramp,
        }
    }

    fn server_report(&self, found: &Findings, received: u64) -> report::Server {
        let mut processes = Vec::new();
        let usages = found.before.iter().zip(&found.idle).zip(&found.after);
        for (NamedProcess { name, pid }, ((before, idle), after)) in self.server.iter().zip(usages) {
            // A process that has gone is reported with its last known usage.
            let (Some(before), Some(idle)) = (before, idle) else { continue };
            let after = after.unwrap_or(*idle);
            processes.push(process(name, *pid, *before, *idle, after));
        }
        let known = !processes.is_empty() && processes.len() == self.server.len();
        let there = found.after.iter().all(Option::is_some);
        let cpu: f64 = processes.iter().map(|process| process.cpu_seconds_publishing).sum();
        let bytes = |one: &Process| signed(one.resident_bytes_idle) - signed(one.resident_bytes_before);
        let grown: i64 = processes.iter().map(bytes).sum();
        let open = found.opened.iter().map(|opened| opened.open).sum::<u64>();
        report::Server {
            cpu_seconds_per_million_deliveries: (known && there && received > 0)
                .then(|| rounded(cpu * 1e6 / received as f64)),
            resident_bytes_per_idle_session: (known && open > 0).then(|| grown / signed(open)),
            processes,
        }
    }
}

fn process(name: &str, pid: u32, before: Usage, idle: Usage, after: Usage) -> Process {
    Process {
        name: name.to_owned(),
        pid,
        cpu_seconds_opening: rounded(idle.cpu_seconds - before.cpu_seconds),
        cpu_seconds_publishing: rounded(after.cpu_seconds - idle.cpu_seconds),
        resident_bytes_before: before.resident_bytes,
        resident_bytes_idle: idle.resident_bytes,
        resident_bytes_after: after.resident_bytes,
    }
}

fn sessions(found: &Findings) -> Sessions {
    let opened = &found.opened;
    let open = opened.iter().map(|opened| opened.open).sum();
    let began = opened.iter().map(|opened| opened.began).min().unwrap_or(0);
    let ended = opened.iter().map(|opened| opened.ended).max().unwrap_or(0);
    Sessions {
        open,
        refused: merged(opened.iter().map(|opened| &opened.refused)),
        gone: merged(found.finished.iter().map(|finished| &finished.gone)),
        connects_per_second: rate(open, began, ended),
        handshake: summary(opened.iter().map(|opened| &opened.handshake)),
        login: summary(opened.iter().map(|opened| &opened.login)),
    }
}

fn publishing(found: &Findings) -> Publishing {
    let outcome = &found.outcome;
    // Messages that Ctrl-C left unsent are no fault of the server.
    let not_sent = match found.ended {
        Ended::Interrupted => 0,
        Ended::Done | Ended::Late | Ended::Gone => found.pace.untaken(clock::now()).len() as u64,
    };
    Publishing {
        sent: found.sent,
        accepted: outcome.accepted,
        refused: outcome.refused.clone(),
        unanswered: outcome.unanswered,
        not_sent,
        broken: outcome.broken.clone(),
        incomplete: outcome.incomplete,
        counted: outcome.sessions,
        failed: outcome.failed,
        per_second: rate(outcome.accepted, found.began, found.answered),
        answer: outcome.answer.summary(),
    }
}

fn delivery(found: &Findings, received: u64) -> Delivery {
    let finished = &found.finished;
    let sum = |of: fn(&crate::control::Finished) -> u64| finished.iter().map(of).sum();
    let last = finished.iter().map(|finished| finished.last).max().unwrap_or(0);
    Delivery {
        received,
        lost: sum(|finished| finished.lost),
        duplicates: sum(|finished| finished.duplicates),
        reordered: sum(|finished| finished.reordered),
        foreign: sum(|finished| finished.foreign),
        per_second: rate(received, found.began, last),
        latency: summary(finished.iter().map(|finished| &finished.delivery)),
    }
}

fn summary<'a>(parts: impl Iterator<Item = &'a Recorded>) -> Summary {
    let mut all = Latency::new();
    parts.for_each(|part| all.merge(part));
    all.summary()
}

fn seconds(began: u64, ended: u64) -> f64 {
    rounded(ended.saturating_sub(began) as f64 / SECOND as f64)
}

fn rate(count: u64, began: u64, ended: u64) -> f64 {
    match ended.saturating_sub(began) {
        0 => 0.0,
        time => rounded(count as f64 * SECOND as f64 / time as f64),
    }
}

/// Rounds to three decimals, which is more than these figures are precise.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
