//! Writes the config reference, the sample file and the chart's schema from the types that read the
//! configuration.
//!
//! Keys, their order and their defaults come from the serialized settings. Everything else comes from the
//! schema of the same types, whose texts are the doc comments. So no page can name a key that does not exist,
//! or miss a key.

mod chart;
mod render;
mod schema;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use publisher_api::keys::KeyConfig;
use schemars::generate::SchemaSettings;
use serde_json::Value;
use shared::config::Settings as _;
use standalone::Settings;

/// The command that writes the files again.
const COMMAND: &str = "cargo run -p config-docs";
/// The folder of the repository, relative to this crate.
const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A file of the repository and the text that it must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Page {
    /// The path, relative to the repository.
    path: &'static str,
    /// The whole text.
    text: String,
}

/// One table of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Section {
    /// The dotted path, e.g. `publisher_api.tls`.
    path: String,
    /// Whether there may be several tables of this path, like `[[channels]]`.
    is_list: bool,
    description: String,
    keys: Vec<Key>,
}

/// One key of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    name: String,
    kind: String,
    /// The default as TOML. `None`: the key has no default, and nothing is set without it.
    default: Option<String>,
    reloadable: bool,
    description: String,
}

fn main() -> ExitCode {
    match write(Path::new(REPOSITORY)) {
        Ok(written) => {
            written.iter().for_each(|file| println!("{file}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the reference and the sample file as they must be.
fn pages() -> [Page; 2] {
    let schema = schema();
    let sample = sections(&Settings::default(), &schema);
    [
        Page { path: "deploy/message-center.toml", text: render::sample(&sample) },
        Page { path: "deploy/docs/config.md", text: render::reference(&all_sections(&schema)) },
    ]
}

/// Writes the pages and the chart's schema below `repository`, and returns their paths in it.
///
/// # Errors
/// A file can't be read or written, or a key has no place in the chart's schema.
fn write(repository: &Path) -> anyhow::Result<[&'static str; 3]> {
    let [sample, reference] = pages();
    let chart = repository.join(chart::PATH);
    let current =
        std::fs::read_to_string(&chart).with_context(|| format!("{} can't be read", chart.display()))?;
    let chart = Page { path: chart::PATH, text: chart::file(&current, &schema())? };
    let pages = [sample, reference, chart];
    for Page { path, text } in &pages {
        let path = repository.join(path);
        std::fs::write(&path, text).with_context(|| format!("{} can't be written", path.display()))?;
    }
    Ok(pages.map(|page| page.path))
}

fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Settings>().to_value()
}

/// Returns the sections of the defaults, with an entry in every list so that the keys of entries are
/// included.
fn all_sections(schema: &Value) -> Vec<Section> {
    let mut settings = Settings::default();
    settings.publisher_api.keys = vec![KeyConfig::default()];
    sections(&settings, schema)
}

/// Returns the tables of these settings, in their order, with the descriptions of the schema.
fn sections(settings: &Settings, schema: &Value) -> Vec<Section> {
    let printed = toml::to_string(settings).expect("settings are tables of plain values");
    let mut sections: Vec<Section> = Vec::new();
    for line in printed.lines() {
        if let Some(header) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let list = header.strip_prefix('[').and_then(|header| header.strip_suffix(']'));
            let path = list.unwrap_or(header).to_owned();
            let description = schema::description(schema, &path);
            sections.push(Section { path, is_list: list.is_some(), description, keys: Vec::new() });
        } else if let Some((name, default)) = line.split_once(" = ")
            && let Some(section) = sections.last_mut()
        {
            section.keys.push(key(schema, &section.path, name, Some(default.to_owned())));
        }
    }
    let paths: Vec<_> = sections.iter().map(|section| section.path.clone()).collect();
    for section in &mut sections {
        // Optional keys have no default, so the printed settings do not show them.
        for name in schema::names(schema, &section.path) {
            let below = format!("{}.{name}", section.path);
            let is_there = section.keys.iter().any(|key| key.name == name) || paths.contains(&below);
            // A list of tables is printed only if it has an entry.
            if !is_there && schema::names(schema, &below).is_empty() {
                section.keys.push(key(schema, &section.path, &name, None));
            }
        }
    }
    sections
}

fn key(schema: &Value, section: &str, name: &str, default: Option<String>) -> Key {
    let path = format!("{section}.{name}");
    let live = |prefix: &&str| path == **prefix || path.starts_with(&format!("{prefix}."));
    Key {
        name: name.to_owned(),
        kind: schema::kind(schema, &path),
        default,
        reloadable: Settings::reloadable().iter().any(live),
        description: schema::description(schema, &path),
    }
}

#[cfg(test)]
mod tests {
    use shared::config;

    use super::*;

    #[test]
    fn reference_and_sample_are_up_to_date() {
        let repository = Path::new(REPOSITORY);
        for Page { path, text } in pages() {
            let current = std::fs::read_to_string(repository.join(path)).unwrap_or_default();
            let differs = text.lines().zip(current.lines()).find(|(made, current)| made != current);
            assert!(
                text == current,
                "{path} is not up to date, write it with `{COMMAND}`; first: {differs:?}"
            );
        }
    }

    #[test]
    fn the_schema_of_the_chart_knows_the_keys_of_the_types() {
        let path = Path::new(REPOSITORY).join(chart::PATH);
        let current = std::fs::read_to_string(path).unwrap();
        let made = chart::file(&current, &schema()).unwrap();
        let differs = made.lines().zip(current.lines()).find(|(made, current)| made != current);
        assert!(
            made == current,
            "{} is not up to date, write it with `{COMMAND}`; first: {differs:?}",
            chart::PATH
        );
    }

    #[test]
    fn the_sample_is_the_defaults() {
        let [sample, _] = pages();
        let sample: toml::Table = sample.text.parse().unwrap();
        let printed: toml::Table = config::print(&Settings::default()).parse().unwrap();
        assert_eq!(sample, printed);
    }

    fn load(text: &str) -> Settings {
        let sources = config::Sources { file: Some("test.toml".into()), ..config::Sources::default() };
        config::load_text(&sources, text).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
    }

    /// The pages print the defaults of an empty file. A file that gives a single key its default must mean
    /// the same.
    #[test]
    fn keys_that_a_file_leaves_out_have_the_default_of_the_reference() {
        let schema = schema();
        let defaults = config::print(&Settings::default());
        for Section { path, keys, .. } in
            sections(&Settings::default(), &schema).iter().filter(|s| !s.is_list)
        {
            let with_default = keys.iter().filter_map(|key| Some((&key.name, key.default.as_ref()?)));
            for (name, default) in with_default {
                let text = format!("[{path}]\n{name} = {default}\n");
                assert_eq!(config::print(&load(&text)), defaults, "{text}");
            }
        }
    }

    /// Entries of a list have no default as a whole, only optional keys.
    #[test]
    fn keys_that_an_entry_of_a_list_leaves_out_have_the_default_of_the_reference() {
        let hash = format!("sha256:{}", "0".repeat(64));
        for (path, needed) in [
            ("channels", "name = \"{id}@video\"\nchannel = \"video:{id}\"\n".to_owned()),
            ("publisher_api.keys", format!("name = \"shop\"\nhash = \"{hash}\"\n")),
        ] {
            let schema = schema();
            let printed = config::print(&load(&format!("[[{path}]]\n{needed}")));
            let entry = printed.split(&format!("[[{path}]]\n")).nth(1).unwrap().split("\n[").next().unwrap();
            let entry: toml::Table = entry.parse().unwrap();
            let needed: toml::Table = needed.parse().unwrap();
            let sections = all_sections(&schema);
            let keys = &sections.iter().find(|section| section.path == path).unwrap().keys;
            let optional = keys.iter().filter(|key| !needed.contains_key(&key.name));
            for Key { name, default, .. } in optional {
                let default =
                    default.as_ref().map(|default| format!("v = {default}").parse::<toml::Table>().unwrap());
                assert_eq!(entry.get(name), default.as_ref().map(|table| &table["v"]), "{path}.{name}");
            }
        }
    }

    #[test]
    fn every_key_is_described_and_none_is_missing() {
        let schema = schema();
        let sections = all_sections(&schema);
        for name in config::SECTIONS {
            assert!(sections.iter().any(|section| section.path == *name), "[{name}]");
        }
        for Section { path, keys, description, .. } in &sections {
            assert!(!description.is_empty(), "[{path}] has no doc comment");
            for key in keys {
                assert!(!key.description.is_empty(), "{path}.{} has no doc comment", key.name);
                assert!(!key.kind.is_empty(), "{path}.{} has no type", key.name);
            }
            for name in schema::names(&schema, path) {
                let below = format!("{path}.{name}");
                let there = keys.iter().any(|key| key.name == name)
                    || sections.iter().any(|section| section.path == below);
                assert!(there, "{below} is in no file");
            }
        }
        let live: Vec<_> = sections
            .iter()
            .flat_map(|section| section.keys.iter().map(move |key| (&section.path, key)))
            .filter(|(_, key)| key.reloadable)
            .map(|(path, key)| format!("{path}.{}", key.name))
            .collect();
        for prefix in Settings::reloadable() {
            assert!(live.iter().any(|key| key.starts_with(prefix)), "{prefix} is no key: {live:?}");
        }
    }
}
