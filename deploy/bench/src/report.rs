//! The report of a run, for machines (JSON) and as the source of the table for people.
//!
//! The JSON is an interface. `version` is raised when a field changes its meaning or goes away; fields may be
//! added.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::args::{Fanout, Mode, Spawn, Store, Transport};
use crate::latency::Summary;

/// The version of the JSON.
pub(crate) const VERSION: u32 = 1;
/// The lag at the 99th percentile, in microseconds, above which the tool is too slow for its schedule.
const LATE_US: u64 = 5_000;
/// The share of all cores in use above which the measurement can't be trusted.
const BUSY: f64 = 0.9;

/// The whole report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) version: u32,
    /// Version of the program.
    pub(crate) program: &'static str,
    /// Seconds since 1970.
    pub(crate) started_at: u64,
    /// Processor cores of this machine.
    pub(crate) cores: usize,
    /// Whether the run was ended before its time.
    pub(crate) stopped_early: bool,
    pub(crate) settings: Settings,
    pub(crate) sessions: Sessions,
    pub(crate) publishing: Publishing,
    pub(crate) delivery: Delivery,
    pub(crate) server: Server,
    pub(crate) client: Client,
    /// Events that should not have happened; with any of these, the exit code is not 0.
    pub(crate) faults: Vec<String>,
    /// Reasons why the figures may mislead.
    pub(crate) warnings: Vec<String>,
}

/// The settings of the run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Settings {
    pub(crate) spawn: Option<Spawn>,
    /// Where the server of `--spawn` stores history.
    pub(crate) store: Option<Store>,
    /// Whether sessions asked for ids.
    pub(crate) recover: bool,
    pub(crate) url: String,
    pub(crate) publish: String,
    pub(crate) sessions: u64,
    pub(crate) users: u64,
    pub(crate) processes: u64,
    pub(crate) mode: Mode,
    pub(crate) via: Transport,
    pub(crate) fanout: Fanout,
    /// Messages per second of an open loop.
    pub(crate) rate: Option<u64>,
    /// Messages in flight of a closed loop.
    pub(crate) in_flight: Option<u16>,
    pub(crate) connections: u16,
    pub(crate) payload_bytes: u32,
    pub(crate) duration_ms: u64,
    /// Connections opened per second; 0: no limit.
    pub(crate) ramp: u64,
}

/// The sessions: how they were opened, and why they ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Sessions {
    pub(crate) open: u64,
    /// Sessions that could not be opened, by reason.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Sessions that the server or the network ended, by reason.
    pub(crate) gone: BTreeMap<String, u64>,
    pub(crate) connects_per_second: f64,
    /// Times from the TCP connect until the upgrade was answered.
    pub(crate) handshake: Summary,
    /// Times from sending the token until the answer.
    pub(crate) login: Summary,
}

/// The publishes and their answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Publishing {
    pub(crate) sent: u64,
    pub(crate) accepted: u64,
    /// Publishes that were refused, by code.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Publishes that were sent and never answered.
    pub(crate) unanswered: u64,
    /// Publishes that were due and never sent.
    pub(crate) not_sent: u64,
    /// Connections that broke or did not come up, by reason.
    pub(crate) broken: BTreeMap<String, u64>,
    /// Answers whose counts were not complete.
    pub(crate) incomplete: u64,
    /// Sessions that took a message (`s`), summed over all answers.
    pub(crate) counted: u64,
    /// Sessions that could not take a message (`f`), summed over all answers.
    pub(crate) failed: u64,
    pub(crate) per_second: f64,
    /// Times from the moment at which a message was due (closed loop: was sent) until its answer came.
    pub(crate) answer: Summary,
}

/// The deliveries to sessions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Delivery {
    pub(crate) received: u64,
    /// Messages that were accepted but missing in a session that was open throughout.
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    /// Messages that arrived after a later message of the same publishing connection.
    pub(crate) reordered: u64,
    /// Messages of other runs or publishers.
    pub(crate) foreign: u64,
    pub(crate) per_second: f64,
    /// Times from the moment at which a message was due (closed loop: was sent) until a session had it.
    pub(crate) latency: Summary,
}

/// The usage of the server's processes, where it is known.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Server {
    pub(crate) processes: Vec<Process>,
    /// Processor time of all processes while publishing, per million deliveries.
    pub(crate) cpu_seconds_per_million_deliveries: Option<f64>,
    /// Growth of all processes from before the first session until all sessions were idle, per session.
    pub(crate) resident_bytes_per_idle_session: Option<i64>,
}

/// One process of the server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) pid: u32,
    /// Processor time while sessions were opened.
    pub(crate) cpu_seconds_opening: f64,
    /// Processor time while messages were published.
    pub(crate) cpu_seconds_publishing: f64,
    /// Resident memory before the first session.
    pub(crate) resident_bytes_before: u64,
    /// Resident memory with all sessions open and idle.
    pub(crate) resident_bytes_idle: u64,
    /// Resident memory at the end.
    pub(crate) resident_bytes_after: u64,
}

/// The usage and the lateness of the tool itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Client {
    /// Processor time of the tool and its client processes while messages were published.
    pub(crate) cpu_seconds_publishing: Option<f64>,
    /// Seconds from the first publish until everything had arrived.
    pub(crate) seconds_publishing: f64,
    /// How late the tool itself sent the messages of an open loop.
    pub(crate) schedule_lag: Summary,
}

impl Report {
    /// Fills in the faults and the warnings.
    pub(crate) fn judge(&mut self, server_gone: bool) {
        let (sessions, publishing, delivery) = (&self.sessions, &self.publishing, &self.delivery);
        let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
        let mut faults = Vec::new();
        if server_gone {
            faults.push("the server went away, so the run was ended".to_owned());
        }
        for (count, what) in [
            (sum(&sessions.refused), "sessions could not be opened"),
            (sum(&sessions.gone), "sessions ended although nobody closed them"),
            (sum(&publishing.refused), "publishes were refused"),
            (publishing.unanswered, "publishes were not answered"),
            (publishing.not_sent, "publishes were due and never sent: the server does not take this rate"),
            (sum(&publishing.broken), "publishing connections broke or did not come up"),
            (publishing.failed, "deliveries were refused by a session's queue"),
            (delivery.lost, "messages were accepted and did not arrive"),
            (delivery.duplicates, "messages arrived more than once"),
            (delivery.reordered, "messages arrived out of order"),
        ] {
            if count > 0 {
                faults.push(format!("{count} {what}"));
            }
        }
        self.faults = faults;
        self.warnings = self.reasons_to_doubt();
    }

    fn reasons_to_doubt(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        let lag = &self.client.schedule_lag;
        if lag.p99_us > LATE_US {
            doubts.push(format!(
                "the tool could not keep its own schedule (p99 {} late): lower --rate, or give it more processor",
                crate::table::duration(lag.p99_us)
            ));
        }
        let server: f64 = self.server.processes.iter().map(|process| process.cpu_seconds_publishing).sum();
        if let Some(client) = self.client.cpu_seconds_publishing {
            let all = self.client.seconds_publishing * self.cores as f64;
            if client + server > BUSY * all && all > 0.0 {
                doubts.push(format!(
                    "the {} cores of this machine were busy with server ({server:.1} s) and tool ({client:.1} s): they \
                     compete, so latency says little about either",
                    self.cores
                ));
            }
        }
        if self.publishing.incomplete > 0 {
            doubts.push(format!(
                "{} answers did not count all sessions (Mc-Complete: false): an edge was too slow to say",
                self.publishing.incomplete
            ));
        }
        if self.settings.mode == Mode::Closed {
            doubts.push(
                "a closed loop waits for answers before it sends more, so a stall shows in few messages; use --mode open \
                 for latency"
                    .into(),
            );
        }
        if self.stopped_early {
            doubts.push("the run was ended before its time".into());
        }
        doubts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    fn summary(count: u64, p50_us: u64) -> Summary {
        let [p90_us, p99_us, p99_9_us, max_us] = [2, 4, 8, 1_600].map(|times| p50_us * times);
        Summary { count, mean_us: p50_us, p50_us, p90_us, p99_us, p99_9_us, max_us }
    }

    /// Returns the report of a run in which nothing went wrong.
    fn report() -> Report {
        Report {
            version: VERSION,
            program: "0.1.0",
            started_at: 1_800_000_000,
            cores: 2,
            stopped_early: false,
            settings: Settings {
                spawn: Some(Spawn::Standalone),
                store: Some(Store::Strict),
                recover: true,
                url: "ws://127.0.0.1:6790/message-center".into(),
                publish: "http://127.0.0.1:6789/".into(),
                sessions: 1_000,
                users: 500,
                processes: 4,
                mode: Mode::Open,
                via: Transport::Http,
                fanout: Fanout::User,
                rate: Some(1_000),
                in_flight: None,
                connections: 64,
                payload_bytes: 128,
                duration_ms: 30_000,
                ramp: 1_000,
            },
            sessions: Sessions {
                open: 1_000,
                refused: BTreeMap::new(),
                gone: BTreeMap::new(),
                connects_per_second: 998.5,
                handshake: summary(1_000, 400),
                login: summary(1_000, 900),
            },
            publishing: Publishing {
                sent: 30_000,
                accepted: 30_000,
                refused: BTreeMap::new(),
                unanswered: 0,
                not_sent: 0,
                broken: BTreeMap::new(),
                incomplete: 0,
                counted: 60_000,
                failed: 0,
                per_second: 999.9,
                answer: summary(30_000, 1_500),
            },
            delivery: Delivery {
                received: 60_000,
                lost: 0,
                duplicates: 0,
                reordered: 0,
                foreign: 0,
                per_second: 1_999.8,
                latency: summary(60_000, 700),
            },
            server: Server {
                processes: vec![Process {
                    name: "run".into(),
                    pid: 4_711,
                    cpu_seconds_opening: 0.5,
                    cpu_seconds_publishing: 3.25,
                    resident_bytes_before: 20 << 20,
                    resident_bytes_idle: 26 << 20,
                    resident_bytes_after: 30 << 20,
                }],
                cpu_seconds_per_million_deliveries: Some(54.167),
                resident_bytes_per_idle_session: Some(6_291),
            },
            client: Client {
                cpu_seconds_publishing: Some(4.5),
                seconds_publishing: 30.0,
                schedule_lag: summary(30_000, 60),
            },
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn the_json_of_a_report_is_an_interface() {
        let mut report = report();
        report.judge(false);
        insta::assert_json_snapshot!("report_json", report);
    }

    #[test]
    fn the_table_of_a_good_run() {
        let mut report = report();
        report.judge(false);
        insta::assert_snapshot!("good_run", table::text(&report));
    }

    #[test]
    fn the_table_of_a_bad_run_names_every_fault_and_doubt() {
        let mut report = report();
        report.sessions.refused.insert("connect: HTTP 503".into(), 7);
        report.sessions.gone.insert("closed with 4503".into(), 2);
        report.publishing.refused.insert("107".into(), 12);
        report.publishing.broken.insert("publish: unexpected end of file".into(), 3);
        (report.publishing.unanswered, report.publishing.not_sent, report.publishing.incomplete) =
            (3, 400, 5);
        (report.publishing.failed, report.delivery.lost) = (2, 8);
        (report.delivery.duplicates, report.delivery.reordered) = (1, 4);
        report.client.schedule_lag.p99_us = 6_000;
        report.client.cpu_seconds_publishing = Some(55.0);
        report.server.cpu_seconds_per_million_deliveries = None;
        report.stopped_early = true;
        report.judge(true);
        assert_eq!((report.faults.len(), report.warnings.len()), (11, 4), "{report:#?}");
        insta::assert_snapshot!("bad_run", table::text(&report));
    }

    #[test]
    fn a_closed_loop_is_said_to_hide_stalls() {
        let mut report = report();
        (report.settings.mode, report.settings.rate, report.settings.in_flight) =
            (Mode::Closed, None, Some(64));
        report.server.processes.clear();
        report.judge(false);
        assert!(report.faults.is_empty() && report.warnings.concat().contains("--mode open"), "{report:?}");
        let table = table::text(&report);
        assert!(table.contains("64 in flight") && table.contains("--pid"), "{table}");
    }
}
