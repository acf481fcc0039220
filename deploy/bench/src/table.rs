//! The report as a table for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::args::{Fanout, Mode, Store, Transport};
use crate::latency::Summary;
use crate::report::{Process, Report};

/// Writes a duration of microseconds with three digits.
pub(crate) fn duration(us: u64) -> String {
    match us {
        0..=999 => format!("{us} us"),
        1_000..=9_999 => format!("{:.2} ms", us as f64 / 1e3),
        10_000..=99_999 => format!("{:.1} ms", us as f64 / 1e3),
        100_000..=999_999 => format!("{:.0} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Returns the whole table.
pub(crate) fn text(report: &Report) -> String {
    let mut out = String::new();
    headline(&mut out, report);
    latencies(&mut out, report);
    rates(&mut out, report);
    processes(&mut out, report);
    for (title, lines) in [("\nfaults", &report.faults), ("\nmind", &report.warnings)] {
        if !lines.is_empty() {
            let _ = writeln!(out, "{title}");
            lines.iter().for_each(|line| {
                let _ = writeln!(out, "  {line}");
            });
        }
    }
    if report.faults.is_empty() {
        let _ = writeln!(out, "\nNothing lost, nothing twice, everything in order.");
    }
    out
}

fn headline(out: &mut String, report: &Report) {
    let settings = &report.settings;
    let timing = match (settings.mode, settings.rate, settings.in_flight) {
        (Mode::Open, Some(rate), _) => format!("open loop at {rate}/s"),
        (Mode::Closed, _, Some(flight)) => format!("closed loop with {flight} in flight"),
        (Mode::Open | Mode::Closed, _, _) => "no loop".into(),
    };
    let via = match settings.via {
        Transport::Http => "HTTP",
        Transport::Ws => "WebSocket",
    };
    let fanout = match settings.fanout {
        Fanout::User => "to users in turn",
        Fanout::Broadcast => "to all sessions",
    };
    let history = match settings.store {
        None | Some(Store::None) => "",
        Some(Store::Memory) => ", history in memory",
        Some(Store::Strict) => ", history on disk (strict)",
        Some(Store::Relaxed) => ", history on disk (relaxed)",
        Some(Store::Nats) => ", history on NATS servers",
    };
    let ids = if settings.recover { ", with ids" } else { "" };
    let _ = writeln!(
        out,
        "{} sessions of {} users on {}{history}{ids}\n{timing} over {} {via} connections, {} bytes {fanout}, {:.1} s\n",
        report.sessions.open,
        settings.users,
        settings.url,
        settings.connections,
        settings.payload_bytes,
        settings.duration_ms as f64 / 1e3,
    );
}

fn latencies(out: &mut String, report: &Report) {
    let heads = ["p50", "p90", "p99", "p99.9", "max"];
    let _ = write!(out, "{:<22}{:>10}", "", "count");
    heads.iter().for_each(|head| {
        let _ = write!(out, "{head:>10}");
    });
    let _ = writeln!(out);
    for (name, summary) in [
        ("connect and upgrade", &report.sessions.handshake),
        ("log in", &report.sessions.login),
        ("publish to answer", &report.publishing.answer),
        ("publish to delivery", &report.delivery.latency),
        ("lag of this tool", &report.client.schedule_lag),
    ] {
        if summary.count > 0 {
            row(out, name, summary);
        }
    }
}

fn row(out: &mut String, name: &str, summary: &Summary) {
    let _ = write!(out, "{name:<22}{:>10}", summary.count);
    for us in [summary.p50_us, summary.p90_us, summary.p99_us, summary.p99_9_us, summary.max_us] {
        let _ = write!(out, "{:>10}", duration(us));
    }
    let _ = writeln!(out);
}

fn rates(out: &mut String, report: &Report) {
    let (sessions, publishing, delivery) = (&report.sessions, &report.publishing, &report.delivery);
    let _ = writeln!(out, "\nconnects     {:>10.0}/s", sessions.connects_per_second);
    let _ = writeln!(
        out,
        "publishes    {:>10.0}/s   {} sent, {} accepted, {} deliveries counted in answers",
        publishing.per_second, publishing.sent, publishing.accepted, publishing.counted
    );
    let _ = writeln!(
        out,
        "deliveries   {:>10.0}/s   {} received, {} lost, {} twice, {} out of order",
        delivery.per_second, delivery.received, delivery.lost, delivery.duplicates, delivery.reordered
    );
    for (what, counts) in [
        ("sessions not opened", &sessions.refused),
        ("sessions gone", &sessions.gone),
        ("publishes refused", &publishing.refused),
        ("connections broken", &publishing.broken),
    ] {
        by_reason(out, what, counts);
    }
}

fn by_reason(out: &mut String, what: &str, counts: &BTreeMap<String, u64>) {
    for (why, count) in counts {
        let _ = writeln!(out, "{what}: {count} x {why}");
    }
}

fn processes(out: &mut String, report: &Report) {
    let (server, client) = (&report.server, &report.client);
    if server.processes.is_empty() {
        let _ =
            writeln!(out, "\nserver: not measured; name its processes with --pid, or start it with --spawn");
    } else {
        let heads = ["open s", "publish s", "before", "idle", "after"];
        let _ = write!(out, "\n{:<22}{:>10}", "server", "pid");
        heads.iter().for_each(|head| {
            let _ = write!(out, "{head:>12}");
        });
        let _ = writeln!(out);
        server.processes.iter().for_each(|one| process(out, one));
    }
    if let Some(seconds) = server.cpu_seconds_per_million_deliveries {
        let _ = writeln!(out, "server processor time: {seconds:.2} s per million deliveries");
    }
    if let Some(bytes) = server.resident_bytes_per_idle_session {
        let _ = writeln!(out, "server memory: {bytes} bytes resident per idle session");
    }
    if let Some(seconds) = client.cpu_seconds_publishing {
        let _ = writeln!(
            out,
            "this tool: {seconds:.1} s of processor time in {:.1} s, on {} cores",
            client.seconds_publishing, report.cores
        );
    }
}

fn process(out: &mut String, process: &Process) {
    let _ = write!(out, "  {:<20}{:>10}", process.name, process.pid);
    for seconds in [process.cpu_seconds_opening, process.cpu_seconds_publishing] {
        let _ = write!(out, "{seconds:>12.2}");
    }
    for bytes in [process.resident_bytes_before, process.resident_bytes_idle, process.resident_bytes_after] {
        let _ = write!(out, "{:>12}", megabytes(bytes));
    }
    let _ = writeln!(out);
}
