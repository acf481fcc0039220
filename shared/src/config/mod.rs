//! Configuration: defaults, then one TOML file, then the environment, then flags; all problems named at once.
//!
//! Each part has a section. A process reads the sections that it needs and ignores the others, so that one
//! file serves all parts. `MC_EDGE__LISTEN` in the environment is `listen` in `[edge]`. This is the only
//! module that reads the environment.

mod moved;
mod problems;
#[cfg(feature = "schema")]
mod schema;
mod values;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

pub use problems::{Problem, Problems};
pub use values::{ByteSize, LogConfig, LogFormat, Secret, Span};

/// Every section that a part of message center may have.
pub const SECTIONS: &[&str] =
    &["auth_adapter", "bus", "channels", "demo", "edge", "history", "log", "login", "publisher_api"];

const PREFIX: &str = "MC_";
const FILE_VARIABLE: &str = "MC_CONFIG";

/// The settings of one process: its own sections and shared ones.
pub trait Settings: Serialize + DeserializeOwned + Default {
    /// The name of the process in traces, unless `OTEL_SERVICE_NAME` gives another.
    const SERVICE: &'static str = "message-center";

    /// Adds the problems of values that contradict a bound or each other.
    fn validate(&self, problems: &mut Problems);

    /// Fills in defaults that depend on the program: a section with at least one given key has the defaults
    /// of its type for all other keys, not those of the program.
    fn complete(&mut self) {}

    /// Returns the keys whose new values would let in callers who are kept out now. Such values apply only at
    /// a start, since a half-written file looks the same.
    fn doors_opened(&self, _new: &Self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Returns the dotted keys, or prefixes of keys, that may change while the process runs. All others are
    /// read at the start.
    fn reloadable() -> &'static [&'static str] {
        &[]
    }
}

/// The sources of values, by increasing precedence: file, environment, flags.
#[derive(Debug, Default, Clone)]
pub struct Sources {
    /// The TOML file, if one was named.
    pub file: Option<PathBuf>,
    /// Variables as `(name, value)`.
    pub environment: Vec<(String, String)>,
    /// Values of flags: dotted key and value.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// Returns the sources of this process: its environment, and the file that `file` or else `MC_CONFIG`
    /// names.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        let environment = variables(PREFIX);
        let from_environment = environment.iter().find(|(name, _)| name == FILE_VARIABLE);
        let file = file.or_else(|| from_environment.map(|(_, path)| path.into()));
        Self { file, environment, flags }
    }
}

/// Returns the environment variables with this prefix, as `(name, value)`. Bytes of a value that are not
/// UTF-8 become U+FFFD; a name that is not UTF-8 has no prefix.
pub fn variables(prefix: &str) -> Vec<(String, String)> {
    let named = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let ours = named.filter(|(name, _)| name.starts_with(prefix));
    ours.map(|(name, value)| (name, value.to_string_lossy().into_owned())).collect()
}

/// Reads, merges and checks the configuration.
///
/// # Errors
/// Every problem, each with its key.
pub fn load<S: Settings>(sources: &Sources) -> Result<S, Problems> {
    let mut problems = Problems::default();
    let table = match &sources.file {
        Some(path) => match std::fs::read_to_string(path) {
            Ok(text) => parse(path, &text, &mut problems),
            Err(error) => {
                problems.add(path.display().to_string(), format!("can't be read: {error}"));
                Table::new()
            }
        },
        None => Table::new(),
    };
    merge(table, sources, problems)
}

/// Merges and checks the configuration with this text of the file.
///
/// # Errors
/// Every problem, each with its key.
pub fn load_text<S: Settings>(sources: &Sources, text: &str) -> Result<S, Problems> {
    let mut problems = Problems::default();
    let table = parse(sources.file.as_deref().unwrap_or(Path::new("")), text, &mut problems);
    merge(table, sources, problems)
}

fn merge<S: Settings>(mut table: Table, sources: &Sources, mut problems: Problems) -> Result<S, Problems> {
    for section in table.keys().filter(|section| !SECTIONS.contains(&section.as_str())) {
        problems.add(section.clone(), format!("no such section; there are: {}", SECTIONS.join(", ")));
    }
    let mut texts = BTreeSet::new();
    for (name, value) in &sources.environment {
        match variable_path(name) {
            Ok(Some(_)) if value.contains(char::REPLACEMENT_CHARACTER) => {
                problems.add(name.clone(), "is not UTF-8; write it anew");
            }
            Ok(Some(path)) => overlay(&mut table, path, value, &mut texts),
            Ok(None) => {}
            Err(fault) => problems.add(name.clone(), fault),
        }
    }
    for (key, value) in &sources.flags {
        overlay(&mut table, key.split('.').map(str::to_owned).collect(), value, &mut texts);
    }
    let mut settings: S = extract(table, texts, &mut problems);
    settings.complete();
    settings.validate(&mut problems);
    problems.into_result(settings)
}

/// Prints the effective configuration as TOML, with `***` for secrets.
pub fn print<S: Settings>(settings: &S) -> String {
    toml::to_string_pretty(settings).expect("settings are tables of plain values")
}

fn parse(path: &Path, text: &str, problems: &mut Problems) -> Table {
    if text.trim().is_empty() {
        let fault = "is empty; if the defaults are meant, name no file, or write a comment into it";
        problems.add(path.display().to_string(), fault);
        return Table::new();
    }
    text.parse().unwrap_or_else(|error: toml::de::Error| {
        // Without the line itself, which may hold a secret.
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
        problems.add(path.display().to_string(), format!("is not TOML at line {line}: {}", error.message()));
        Table::new()
    })
}

/// Parses the name of a variable: `MC_EDGE__LISTEN` → `["edge", "listen"]`; `MC_CHANNELS` → `["channels"]`.
/// Other names without `__` are no configuration, unless they look like a mistyped key.
fn variable_path(name: &str) -> Result<Option<Vec<String>>, String> {
    let Some(rest) = name.strip_prefix(PREFIX) else { return Ok(None) };
    if is_service_link(rest) {
        return Ok(None);
    }
    let rest = rest.to_ascii_lowercase();
    if rest.contains("__") {
        let path: Vec<String> = rest.split("__").map(str::to_owned).collect();
        return if SECTIONS.contains(&path[0].as_str()) {
            Ok(Some(path))
        } else {
            Err(format!("no such section; there are: {}", SECTIONS.join(", ")))
        };
    }
    if SECTIONS.contains(&rest.as_str()) {
        return Ok(Some(vec![rest]));
    }
    for section in SECTIONS {
        if let Some(key) = rest.strip_prefix(section).and_then(|key| key.strip_prefix('_')) {
            let meant = format!("{PREFIX}{}__{}", section, key).to_ascii_uppercase();
            return Err(format!("did you mean {meant}? Two underscores divide section and key"));
        }
    }
    Ok(None)
}

/// Returns whether Kubernetes sets this variable to tell every container of a namespace about a Service: for
/// a Service `mc-edge`, `MC_EDGE_SERVICE_HOST`, `MC_EDGE_SERVICE_PORT_WS`, `MC_EDGE_PORT`,
/// `MC_EDGE_PORT_6790_TCP_ADDR` and others.
fn is_service_link(rest: &str) -> bool {
    let mut words: Vec<&str> = rest.split('_').collect();
    if matches!(words.last(), Some(&("PROTO" | "PORT" | "ADDR"))) && words.len() >= 4 {
        let protocol = words[words.len() - 2];
        if matches!(protocol, "TCP" | "UDP" | "SCTP") {
            words.pop();
        }
    }
    match words[..] {
        [.., "PORT", number, "TCP" | "UDP" | "SCTP"] => number.parse::<u16>().is_ok(),
        [.., "PORT"] | [.., "SERVICE", "HOST"] => true,
        _ => words.windows(2).any(|pair| pair == ["SERVICE", "PORT"]),
    }
}

/// Sets a value given as text: TOML where the text is TOML (`5`, `true`, `["a"]`), else a string. `texts`
/// remembers the text, for a key that expects a string after all (a password of digits).
fn overlay(table: &mut Table, path: Vec<String>, text: &str, texts: &mut BTreeSet<(String, String)>) {
    let value = format!("v = {text}")
        .parse::<Table>()
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| Value::String(text.to_owned()));
    texts.insert((path.join("."), text.to_owned()));
    let Some((key, parents)) = path.split_last() else { return };
    let mut place = table;
    for parent in parents {
        let next = place.entry(parent.clone()).or_insert_with(|| Value::Table(Table::new()));
        if !next.is_table() {
            *next = Value::Table(Table::new());
        }
        place = next.as_table_mut().expect("it was made a table");
    }
    place.insert(key.clone(), value);
}

/// Converts the table into settings. A value of the wrong type is noted and removed, and the rest read again,
/// so that one run names all problems.
fn extract<S: Settings>(
    mut table: Table,
    mut texts: BTreeSet<(String, String)>,
    problems: &mut Problems,
) -> S {
    loop {
        let mut unknown = Vec::new();
        let mut track = serde_path_to_error::Track::new();
        let deserializer = serde_path_to_error::Deserializer::new(Value::Table(table.clone()), &mut track);
        let result: Result<S, _> =
            serde_ignored::deserialize(deserializer, |path| unknown.push(path.to_string()));
        match result {
            Ok(settings) => {
                for key in unknown.into_iter().filter(|key| key.contains('.')) {
                    let fault = moved::instead_of(&key)
                        .unwrap_or("no such key; see --print-config for those there are");
                    problems.add(key, fault);
                }
                return settings;
            }
            Err(error) => {
                let key = track.path().to_string();
                let as_text = texts.iter().find(|(path, _)| *path == key).cloned();
                if let Some(entry) = as_text {
                    texts.remove(&entry);
                    set(&mut table, &key, Some(Value::String(entry.1)));
                } else {
                    problems.add(key.clone(), without_value(error.to_string().trim()));
                    if !set(&mut table, &key, None) {
                        return S::default();
                    }
                }
            }
        }
    }
}

/// Removes the value from an error about a wrong type: a misplaced secret must not be printed.
fn without_value(fault: &str) -> String {
    // The second line of the TOML reader repeats the key.
    let fault = fault.lines().next().unwrap_or_default();
    let parts = fault.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected "));
    let Some((given, expected)) = parts else { return fault.to_owned() };
    let kind = given.split(['`', '"']).next().unwrap_or_default().trim();
    format!("is of the wrong type: {kind}, expected {expected}")
}

/// Replaces (or with `None` removes) the value at a dotted path. A path into a list names the whole list.
/// Returns false if there is no such value.
fn set(table: &mut Table, key: &str, value: Option<Value>) -> bool {
    let mut path: Vec<&str> = key.split('.').collect();
    if let Some(list) = path.iter().position(|part| part.starts_with('[') || part.parse::<usize>().is_ok()) {
        path.truncate(list);
    }
    // serde_path_to_error writes an index as `name[0]`.
    if let Some(last) = path.iter().position(|part| part.contains('[')) {
        path.truncate(last + 1);
        path[last] = path[last].split('[').next().unwrap_or_default();
    }
    let Some((last, parents)) = path.split_last() else { return false };
    let mut place = table;
    for parent in parents {
        let Some(next) = place.get_mut(*parent).and_then(Value::as_table_mut) else { return false };
        place = next;
    }
    match value {
        Some(value) => place.insert((*last).to_owned(), value).is_some(),
        None => place.remove(*last).is_some(),
    }
}

#[cfg(test)]
mod tests;
