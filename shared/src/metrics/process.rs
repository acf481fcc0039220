//! The metrics of every process: memory, processor time, open files, and the tasks of the runtime.
//!
//! The names are those of all Prometheus clients. A value that the system does not tell is left out, never
//! zero: outside Linux there is no `/proc`.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use tokio::runtime::Handle;

/// Ticks per second in `/proc/*/stat`: fixed for programs, whatever unit the kernel uses.
const TICKS: f64 = 100.0;

/// The process, read again at each scrape.
#[derive(Debug)]
pub(super) struct Process {
    runtime: Handle,
}

impl Process {
    /// Returns the present process with the present runtime.
    pub(super) fn current() -> Self {
        Self { runtime: Handle::current() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let runtime = self.runtime.metrics();
        let counts = [
            ("mc_runtime_alive_tasks", "Tasks that have not ended", runtime.num_alive_tasks()),
            ("mc_runtime_queued_tasks", "Tasks that wait for a worker", runtime.global_queue_depth()),
            ("mc_runtime_workers", "Threads that run tasks", runtime.num_workers()),
        ];
        for (name, help, count) in counts {
            gauge(&mut encoder, name, help, count as f64)?;
        }
        let Some(stat) = read("/proc/self/stat").as_deref().and_then(Stat::parse) else { return Ok(()) };
        let cpu = ConstCounter::new(stat.cpu_seconds);
        cpu.encode(encoder.encode_descriptor(
            "process_cpu",
            "Processor time spent in user and system mode",
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?)?;
        gauge(&mut encoder, "process_threads", "Threads of the operating system", stat.threads)?;
        bytes(&mut encoder, "process_virtual_memory", "Address space in use", stat.virtual_bytes)?;
        if let Some(resident) = read("/proc/self/status").as_deref().and_then(resident_bytes) {
            bytes(&mut encoder, "process_resident_memory", "Memory in use", resident)?;
        }
        if let Some(boot) = read("/proc/stat").as_deref().and_then(boot_seconds) {
            let (name, help) = ("process_start_time", "When the process began, since the epoch");
            let began = ConstGauge::new(boot + stat.start_seconds);
            let descriptor =
                encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
            began.encode(descriptor)?;
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            // One descriptor is the directory that is being read.
            let open = files.count().saturating_sub(1);
            gauge(&mut encoder, "process_open_fds", "Open file descriptors", open as f64)?;
        }
        if let Some(most) = read("/proc/self/limits").as_deref().and_then(max_fds) {
            gauge(&mut encoder, "process_max_fds", "File descriptors that may be open", most)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> std::fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn bytes(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> std::fmt::Result {
    let descriptor = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
    ConstGauge::new(value).encode(descriptor)
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The needed fields of `/proc/self/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: f64,
    /// When the process started, in seconds since the start of the machine.
    start_seconds: f64,
    virtual_bytes: f64,
}

impl Stat {
    /// Parses the fields. The name of the program, in parentheses, may hold anything, so fields are counted
    /// from behind it.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
        // Field 3 of proc(5) is the first here.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS,
            threads: field(20)?,
            start_seconds: field(22)? / TICKS,
            virtual_bytes: field(23)?,
        })
    }
}

/// `VmRSS:     1234 kB`
fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

/// `btime 1700000000`
fn boot_seconds(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// `Max open files            1024                 524288               files`: the first number is what
/// holds.
fn max_fds(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_writes_is_read_whatever_the_program_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 9 0 12345 8192000 500 18446744073709551615";
        assert_eq!(
            Stat::parse(stat),
            Some(Stat { cpu_seconds: 3.0, threads: 9.0, start_seconds: 123.45, virtual_bytes: 8_192_000.0 })
        );
        assert_eq!(resident_bytes("VmPeak: 9 kB\nVmRSS:\t    12 kB\n"), Some(12_288.0));
        assert_eq!(boot_seconds("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
        assert_eq!(max_fds("Limit Soft Hard Units\nMax open files   1024   524288   files\n"), Some(1024.0));
    }

    #[test]
    fn what_the_system_does_not_tell_is_left_out() {
        for broken in ["", "7 (a", "7 (a) S 1 2", "7 (a) S x x x x x x x x x x x x x x x x x x x x x"] {
            assert_eq!(Stat::parse(broken), None, "{broken}");
        }
        assert_eq!(
            (resident_bytes("VmRSS: many"), boot_seconds(""), max_fds("Max open files unlimited")),
            (None, None, None)
        );
    }
}
