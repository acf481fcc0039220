//! Measures one shape with one group of messages, in a process of its own.

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::measure;
use crate::shape::{Done, Shape, Store};
use crate::traffic::{Alive, Batch, Group, Message, Text};

const TICK: Duration = Duration::from_millis(200);
/// Length of the duplicate window in nanoseconds: the product's minute would not pass during a measurement.
pub const WINDOW: u64 = 5_000_000_000;
const PREFILL: usize = 5_000;
/// Messages prepared at a time.
const READY: usize = 256;
const READS: usize = 2_000;

/// The ids in the duplicate window.
#[derive(Default)]
struct Window(VecDeque<(u64, u64)>);

impl Window {
    fn from(&mut self, seq: u64, now: u64) -> u64 {
        self.0.push_back((now, seq));
        while self.0.len() > 1 && self.0[0].0 + WINDOW <= now {
            self.0.pop_front();
        }
        self.0[0].1
    }
}

/// Makes batches, and knows the messages that must be stored.
pub struct Writer<'a> {
    group: Group,
    text: &'a Text,
    pub alive: Alive,
    window: Window,
    pub seq: u64,
}

impl<'a> Writer<'a> {
    pub fn new(group: Group, text: &'a Text) -> Self {
        Self { group, text, alive: Alive::new(group), window: Window::default(), seq: 0 }
    }

    pub fn batch(&mut self, size: usize) -> Batch<'a> {
        let now = measure::now();
        let window_from = self.window.from(self.seq + 1, now);
        let message = |_| -> Message<'a> {
            self.seq += 1;
            self.text.message(&self.group, self.seq, now, self.alive.add(self.seq))
        };
        Batch::new((0..size).map(message).collect(), window_from)
    }
}

/// The figures of one cell.
#[derive(Default)]
struct Counted {
    messages: u64,
    bytes: u64,
    /// Seconds spent in the store.
    busy: f64,
    /// The longest time in seconds until a batch was durable, with a tick before it included.
    worst: f64,
    /// The largest ratio of bytes on the disk to live bytes.
    worst_disk: f64,
    /// CPU seconds of this tool itself.
    own_cpu: f64,
    /// CPU seconds of ticks.
    tick_cpu: f64,
    tick_written: u64,
}

pub struct Bench<'a> {
    store: Box<dyn Store>,
    folder: &'a Path,
    writer: Writer<'a>,
    ticked: Instant,
    pub written: u64,
    pub bytes: u64,
}

/// Runs `act`; returns its result and the CPU time of this thread.
fn cpu_of<T>(act: impl FnOnce() -> T) -> (T, f64) {
    let before = measure::thread_cpu();
    let result = act();
    (result, measure::thread_cpu() - before)
}

impl Bench<'_> {
    /// Runs a tick if one is due; returns its duration.
    fn tick(&mut self, counted: &mut Counted) -> Done<f64> {
        if self.ticked.elapsed() < TICK {
            return Ok(0.0);
        }
        self.ticked = Instant::now();
        let (written, begun) = (measure::written(), Instant::now());
        let (result, cpu) = cpu_of(|| self.store.tick(measure::now()));
        result?;
        let took = begun.elapsed().as_secs_f64();
        counted.tick_cpu += cpu;
        let (factor, cpu) = cpu_of(|| {
            counted.tick_written += measure::written() - written;
            self.overhead()
        });
        counted.own_cpu += cpu;
        counted.worst_disk = counted.worst_disk.max(factor);
        Ok(took)
    }

    /// Bytes on the disk per live byte.
    fn overhead(&self) -> f64 {
        measure::disk(self.folder) as f64 / self.writer.alive.bytes as f64
    }

    fn run(&mut self, batch: usize, enough: impl Fn(&Counted, f64) -> bool) -> Done<Counted> {
        let mut counted = Counted::default();
        let begun = Instant::now();
        while !enough(&counted, begun.elapsed().as_secs_f64()) {
            let (batches, cpu) = cpu_of(|| -> Vec<Batch<'_>> {
                (0..READY.div_ceil(batch)).map(|_| self.writer.batch(batch)).collect()
            });
            counted.own_cpu += cpu;
            for batch in &batches {
                let ticked = self.tick(&mut counted)?;
                let begun = Instant::now();
                self.store.batch(batch)?;
                let took = ticked + begun.elapsed().as_secs_f64();
                counted.busy += took;
                counted.worst = counted.worst.max(took);
                counted.messages += batch.messages.len() as u64;
                counted.bytes += batch.messages.iter().map(|message| message.size() as u64).sum::<u64>();
            }
        }
        counted.worst_disk = counted.worst_disk.max(self.overhead());
        Ok(counted)
    }

    fn cell(&mut self, strict: bool, batch: usize, seconds: f64) -> Done<String> {
        let (cpu, thread, written) = (measure::cpu(), measure::thread_cpu(), measure::written());
        let counted = self.run(batch, |_, elapsed| elapsed >= seconds)?;
        let cpu = measure::cpu() - cpu;
        let others = cpu - (measure::thread_cpu() - thread);
        let written = measure::written() - written;
        self.written += written;
        self.bytes += counted.bytes;
        let million = counted.messages as f64 / 1e6;
        Ok(format!(
            "{}|{batch}|{:.0}|{:.2}|{:.2}|{:.1}|{:.2}|{:.2}|{:.2}|{:.2}",
            if strict { "strict" } else { "relaxed" },
            counted.messages as f64 / counted.busy,
            (cpu - counted.own_cpu) / million,
            (others + counted.tick_cpu) / million,
            counted.worst * 1e3,
            written as f64 / counted.bytes as f64,
            counted.tick_written as f64 / counted.bytes as f64,
            self.overhead(),
            counted.worst_disk,
        ))
    }

    /// Waits until the store has no background work left, half a minute at most.
    fn settle(&mut self) -> Done {
        let (begun, written) = (Instant::now(), measure::written());
        let (mut size, mut same, mut now) = (0, 0, measure::now());
        while same < 30 && begun.elapsed() < Duration::from_secs(30) {
            now += TICK.as_nanos() as u64;
            self.store.tick(now)?;
            if self.store.is_busy() {
                std::thread::sleep(Duration::from_millis(20));
            }
            let found = measure::disk(self.folder);
            same = if found == size && !self.store.is_busy() { same + 1 } else { 0 };
            size = found;
        }
        self.written += measure::written() - written;
        Ok(())
    }

    /// Microseconds to read a stored message.
    fn reads(&mut self) -> Done<f64> {
        let mut random = fastrand::Rng::with_seed(3);
        let begun = Instant::now();
        for _ in 0..READS {
            let seq = self.writer.alive.any(&mut random);
            self.store.read(seq)?.ok_or_else(|| format!("message {seq} is not there"))?;
        }
        Ok(begun.elapsed().as_secs_f64() * 1e6 / READS as f64)
    }
}

/// Fills a store, and measures each setting with each batch size. Prints a line for each, and a last line.
pub fn run(
    shape: Shape,
    group: Group,
    folder: &Path,
    seconds: f64,
    settings: &[bool],
    batches: &[usize],
) -> Done {
    let text = Text::new();
    let writer = Writer::new(group, &text);
    let memory = measure::memory();
    let (store, _) = shape.open(folder, true, &mut |_| {})?;
    let mut bench = Bench { store, folder, writer, ticked: Instant::now(), written: 0, bytes: 0 };
    let begun = Instant::now();
    let prefill = group.prefill();
    bench.run(PREFILL, |counted, _| counted.messages >= prefill)?;
    eprintln!("  {} {}: filled in {:.1} s", shape.name(), group.name, begun.elapsed().as_secs_f64());
    for strict in settings {
        // Closes the previous store first.
        bench.store = Box::new(Closed);
        bench.store = shape.open(folder, *strict, &mut |_| {})?.0;
        for batch in batches {
            let line = bench.cell(*strict, *batch, seconds)?;
            tell(&format!("cell|{}|{}|{line}", group.name, shape.name()))?;
        }
    }
    bench.settle()?;
    let micros = bench.reads()?;
    let memory = measure::memory().saturating_sub(memory) as f64 / 1_048_576.0;
    tell(&format!(
        "end|{}|{}|{}|{:.0}|{:.2}|{:.2}|{memory:.0}|{micros:.1}",
        group.name,
        shape.name(),
        bench.writer.alive.count,
        bench.writer.alive.bytes as f64 / 1_048_576.0,
        bench.written as f64 / bench.bytes as f64,
        bench.overhead(),
    ))?;
    tell("ready")?;
    // Waits to be killed.
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Stands in for a store while another one opens.
struct Closed;

impl Store for Closed {
    fn batch(&mut self, _: &Batch<'_>) -> Done {
        Err("closed".into())
    }

    fn tick(&mut self, _: u64) -> Done {
        Err("closed".into())
    }

    fn read(&mut self, _: u64) -> Done<Option<usize>> {
        Err("closed".into())
    }
}

pub fn tell(line: &str) -> Done {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Opens an existing store, and reads everything that an index needs.
pub fn start(shape: Shape, folder: &Path) -> Done {
    let (memory, begun, cpu) = (measure::memory(), Instant::now(), measure::cpu());
    let (mut found, mut sum) = (0_u64, 0_u64);
    let (store, _) = shape.open(folder, true, &mut |message| {
        found += 1;
        let (subject, headers) = (message.subject.len() as u64, message.headers.len() as u64);
        sum =
            sum.wrapping_add(message.time ^ message.seq ^ (subject + headers + message.payload.len() as u64));
    })?;
    let took = begun.elapsed().as_secs_f64();
    std::hint::black_box(sum);
    let memory = measure::memory().saturating_sub(memory) as f64 / 1_048_576.0;
    tell(&format!("start|{found}|{took:.2}|{:.2}|{memory:.0}", measure::cpu() - cpu))?;
    drop(store);
    Ok(())
}

/// Makes the store give back space, if it does so only on request.
pub fn compact(shape: Shape, folder: &Path) -> Done {
    let (mut store, _) = shape.open(folder, true, &mut |_| {})?;
    let before = measure::disk(folder);
    let (begun, cpu, written) = (Instant::now(), measure::cpu(), measure::written());
    if store.compact()? {
        tell(&format!(
            "compact|{:.1}|{:.1}|{:.0}|{:.0}|{:.0}",
            begun.elapsed().as_secs_f64(),
            measure::cpu() - cpu,
            (measure::written() - written) as f64 / 1_048_576.0,
            before as f64 / 1_048_576.0,
            measure::disk(folder) as f64 / 1_048_576.0,
        ))?;
    }
    Ok(())
}
