//! Compares shapes of the message store: see the README.

mod cells;
mod fjall_store;
mod kill;
mod log_store;
mod measure;
mod redb_store;
mod shape;
mod traffic;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use shape::{Done, SHAPES, Shape};
use traffic::{GROUPS, Group};

const USAGE: &str = "Usage: store-shapes [OPTIONS] FOLDER

Measures shapes of the message store on the disk of FOLDER, which must not exist and is removed at the end.

  --shapes A,B    log, redb, redb-quick, redb-unsynced, fjall,
                  fjall-tight                                        [log,redb,fjall]
  --groups A,B    small-1, small-100k, small-100k-skewed, small-1M,
                  mixed-1, mixed-100k, mixed-1M                      [all but mixed-1M]
  --sync A,B      relaxed, strict                                    [relaxed,strict]
  --batch N,N     messages that are kept together                    [1000,80,1]
  --seconds N     how long a cell is measured                        [2.5]
  --only WHAT     cells, kill                                        [both]
  --kills N       how often each is killed                           [5]";

struct Options {
    folder: PathBuf,
    shapes: Vec<Shape>,
    groups: Vec<Group>,
    settings: Vec<bool>,
    batches: Vec<usize>,
    seconds: f64,
    cells: bool,
    kill: bool,
    kills: u32,
}

fn shape(name: &str) -> Done<Shape> {
    let found = SHAPES.iter().find(|(known, _)| *known == name);
    found.map(|(_, shape)| *shape).ok_or_else(|| format!("no shape {name:?}").into())
}

fn group(name: &str) -> Done<Group> {
    let found = GROUPS.iter().find(|group| group.name == name);
    found.copied().ok_or_else(|| format!("no group {name:?}").into())
}

fn strict(name: &str) -> Done<bool> {
    match name {
        "strict" => Ok(true),
        "relaxed" => Ok(false),
        other => Err(format!("no setting {other:?}").into()),
    }
}

fn each<T>(list: &str, read: impl Fn(&str) -> Done<T>) -> Done<Vec<T>> {
    list.split(',').map(read).collect()
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Done<Self> {
        let mut options = Self {
            folder: PathBuf::new(),
            shapes: vec![Shape::Log, Shape::Redb, Shape::Fjall],
            groups: GROUPS.into_iter().filter(|group| group.by_default).collect(),
            settings: vec![false, true],
            batches: vec![1000, 80, 1],
            seconds: 2.5,
            cells: true,
            kill: true,
            kills: 5,
        };
        while let Some(argument) = arguments.next() {
            if !argument.starts_with("--") {
                options.folder = argument.into();
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{argument} wants a value\n{USAGE}"))?;
            match argument.as_str() {
                "--shapes" => options.shapes = each(&value, shape)?,
                "--groups" => options.groups = each(&value, group)?,
                "--sync" => options.settings = each(&value, strict)?,
                "--batch" => options.batches = each(&value, |size| Ok(size.parse()?))?,
                "--seconds" => options.seconds = value.parse()?,
                "--only" => (options.cells, options.kill) = (value != "kill", value != "cells"),
                "--kills" => options.kills = value.parse()?,
                other => return Err(format!("no option {other}\n{USAGE}").into()),
            }
        }
        if options.folder.as_os_str().is_empty() { Err(USAGE.into()) } else { Ok(options) }
    }
}

/// Starts this program once more, for a step that needs a process of its own.
fn child(what: &str, shape: Shape, folder: &Path, rest: &[String]) -> Done<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("child").arg(what).arg(shape.name()).arg(folder).args(rest);
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
}

/// The lines of a child, until it ends or is ready to be killed.
fn lines_of(mut child: Child) -> Done<Vec<String>> {
    let mut lines = Vec::new();
    let output = child.stdout.take().ok_or("no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        if line == "ready" {
            child.kill()?;
        } else {
            lines.push(line);
        }
    }
    child.wait()?;
    Ok(lines)
}

fn as_child(arguments: &[String]) -> Done {
    let [what, name, folder, rest @ ..] = arguments else { return Err(USAGE.into()) };
    let (shape, folder) = (shape(name)?, Path::new(folder));
    match (what.as_str(), rest) {
        ("cells", [of, seconds, settings, batches]) => {
            let (settings, batches) = (each(settings, strict)?, each(batches, |size| Ok(size.parse()?))?);
            cells::run(shape, group(of)?, folder, seconds.parse()?, &settings, &batches)
        }
        ("start", []) => cells::start(shape, folder),
        ("compact", []) => cells::compact(shape, folder),
        ("write", [setting]) => kill::write(shape, folder, strict(setting)?),
        _ => Err(USAGE.into()),
    }
}

/// The rows of the tables.
#[derive(Default)]
struct Tables {
    cells: Vec<String>,
    ends: Vec<String>,
    compactions: Vec<String>,
    kills: Vec<String>,
    tears: Vec<String>,
}

fn row(line: &str) -> String {
    format!("| {} |", line.replace('|', " | "))
}

impl Tables {
    fn cells(&mut self, options: &Options, group: Group, shape: Shape) -> Done {
        let folder = options.folder.join(format!("{}-{}", group.name, shape.name()));
        let settings: Vec<&str> =
            options.settings.iter().map(|strict| if *strict { "strict" } else { "relaxed" }).collect();
        let batches: Vec<String> = options.batches.iter().map(ToString::to_string).collect();
        let rest =
            [group.name.to_owned(), options.seconds.to_string(), settings.join(","), batches.join(",")];
        let mut end = None;
        for line in lines_of(child("cells", shape, &folder, &rest)?)? {
            if let Some(cell) = line.strip_prefix("cell|") {
                self.cells.push(row(cell));
            }
            end = line.strip_prefix("end|").map(str::to_owned).or(end);
        }
        let mut end = end.ok_or_else(|| format!("{} failed with {}", shape.name(), group.name))?;
        // The first start follows a kill, the second a close.
        for _ in 0..2 {
            let lines = lines_of(child("start", shape, &folder, &[])?)?;
            let start = lines.first().and_then(|line| line.strip_prefix("start|")).unwrap_or("failed|||");
            end = format!("{end}|{start}");
        }
        self.ends.push(row(&end));
        for line in lines_of(child("compact", shape, &folder, &[])?)? {
            let line = line.replacen("compact", &format!("{}|{}", group.name, shape.name()), 1);
            self.compactions.push(row(&line));
        }
        Ok(std::fs::remove_dir_all(&folder)?)
    }

    fn kills(&mut self, options: &Options, shape: Shape, strict: bool) -> Done {
        let folder = options.folder.join("killed");
        let setting = if strict { "strict" } else { "relaxed" };
        let (mut acknowledged, mut lost, mut returned, mut failed, mut opened) = (0, 0, 0, 0, 0.0_f64);
        for _ in 0..options.kills {
            let writer = child("write", shape, &folder, &[setting.to_owned()])?;
            let verdict = kill::round(writer, shape, &folder, strict)?;
            eprintln!("  {} {setting}: {verdict:?}", shape.name());
            acknowledged += verdict.acknowledged;
            lost += verdict.lost;
            returned += verdict.returned;
            failed += u32::from(verdict.failed.is_some());
            opened = opened.max(verdict.opened);
            std::fs::remove_dir_all(&folder)?;
        }
        let kills = options.kills;
        self.kills.push(row(&format!(
            "{}|{setting}|{kills}|{acknowledged}|{lost}|{returned}|{failed}|{opened:.2}",
            shape.name()
        )));
        Ok(())
    }

    fn tears(&mut self, options: &Options, shape: Shape) -> Done {
        let folder = options.folder.join("torn");
        let (mut opened, mut refused, mut said) = (0, 0, String::new());
        for _ in 0..options.kills * 4 {
            let writer = child("write", shape, &folder, &["relaxed".to_owned()])?;
            match kill::tear(writer, shape, &folder)? {
                Some(Ok(_)) => opened += 1,
                Some(Err(why)) => (refused, said) = (refused + 1, why),
                None => {}
            }
            std::fs::remove_dir_all(&folder)?;
            if opened + refused >= options.kills {
                break;
            }
        }
        self.tears.push(row(&format!("{}|{opened}|{refused}|{said}", shape.name())));
        Ok(())
    }

    fn print(&self) {
        let table = |head: &str, rows: &[String]| {
            if !rows.is_empty() {
                let line = "| --- ".repeat(head.matches('|').count() - 1);
                println!("\n{head}\n{line}|\n{}", rows.join("\n"));
            }
        };
        table(
            "| group | shape | setting | batch | messages/s | CPU s per million | of it behind | worst batch, ms | \
             written per byte | of it in ticks | on disk per live byte | at most |",
            &self.cells,
        );
        table(
            "| group | shape | alive | MiB alive | written per byte | on disk per live byte | memory, MiB | read, µs | \
             killed: found | start, s | CPU s | MiB | closed: found | start, s | CPU s | MiB |",
            &self.ends,
        );
        table(
            "| compaction that has to be asked for | shape | s | CPU s | MiB written | MiB before | MiB after |",
            &self.compactions,
        );
        table(
            "| kill -9 | setting | times | acknowledged | lost | came back | could not be opened | slowest start, s |",
            &self.kills,
        );
        table("| a page is lost before its sync | opened | refused | what it said |", &self.tears);
    }
}

fn measure_all(options: &Options) -> Done {
    let (begun, mut tables) = (Instant::now(), Tables::default());
    std::fs::create_dir(&options.folder).map_err(|error| format!("{}: {error}", options.folder.display()))?;
    for group in options.groups.iter().filter(|_| options.cells) {
        for shape in &options.shapes {
            tables.cells(options, *group, *shape)?;
            eprintln!("{:.0} s: {} with {}", begun.elapsed().as_secs_f64(), shape.name(), group.name);
        }
    }
    for shape in options.shapes.iter().filter(|_| options.kill) {
        for strict in &options.settings {
            tables.kills(options, *shape, *strict)?;
        }
        tables.tears(options, *shape)?;
    }
    tables.print();
    println!("\n{:.0} s in all, {} s a cell.", begun.elapsed().as_secs_f64(), options.seconds);
    Ok(std::fs::remove_dir_all(&options.folder)?)
}

fn main() -> Done {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, rest)) if first == "child" => as_child(rest),
        Some((first, _)) if first == "--help" => {
            println!("{USAGE}");
            Ok(())
        }
        _ => measure_all(&Options::read(arguments.into_iter())?),
    }
}
