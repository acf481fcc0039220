//! Keys in the configuration and in a file of keys, and the checks on them.

use std::path::Path;

use serde::{Deserialize, Serialize};
use shared::config::Problems;

use super::pattern::Pattern;
use super::rate::{MAX_RATE, Rate};
use super::secret::SecretHash;
use super::table::{Key, Table};
use crate::scope::Scope;

/// The most keys, in the configuration and the file together.
const MAX_KEYS: usize = 10_000;
/// The most patterns of one key.
const MAX_PATTERNS: usize = 100;
/// The longest name of a key, in bytes.
const MAX_NAME: usize = 64;
/// The largest file of keys, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// `[[publisher_api.keys]]`: one key. Several keys may have the same name, so that a new one can replace an
/// old one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct KeyConfig {
    /// The name of the back end that uses the key: 1 to 64 letters, digits, `-`, `_`, `.`. Appears in logs
    /// and metrics.
    pub name: String,
    /// The hash of the secret, `sha256:…`, as `message-center key new` prints it.
    pub hash: String,
    /// The calls that the key permits: `publish`, `read`, `disconnect`, or `admin` for all.
    pub scopes: Vec<Scope>,
    /// The channels that the key may name; `*` stands for any run of characters.
    pub channels: Vec<String>,
    /// Messages per second that the key may publish. Left out: no limit. Keys of the same name share the
    /// rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Messages that the key may publish at once after a pause. Left out: as many as `rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

impl Default for KeyConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            hash: String::new(),
            scopes: vec![Scope::Publish],
            channels: vec!["*".to_owned()],
            rate: None,
            burst: None,
        }
    }
}

impl KeyConfig {
    /// Checks the name of a key.
    ///
    /// # Errors
    /// Fails with a text that says what a name must be.
    pub fn check_name(name: &str) -> Result<(), &'static str> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(good) {
            Ok(())
        } else {
            Err("must be 1 to 64 letters, digits, \"-\", \"_\" or \".\"")
        }
    }

    /// Returns the key, if it has no problems. `place`: the path by which problems name the key.
    fn compile(&self, place: &str, problems: &mut Problems) -> Option<Key> {
        let before = problems.len();
        if let Err(fault) = Self::check_name(&self.name) {
            problems.add(format!("{place}.name"), fault);
        }
        let hash =
            SecretHash::parse(&self.hash).map_err(|fault| problems.add(format!("{place}.hash"), fault));
        let scopes = format!("{place}.scopes");
        problems.check(!self.scopes.is_empty(), &scopes, || {
            "must name what the key permits, e.g. [\"publish\"]".into()
        });
        let channels = format!("{place}.channels");
        problems.check((1..=MAX_PATTERNS).contains(&self.channels.len()), &channels, || {
            "must have 1 to 100 patterns; \"*\" is every channel".into()
        });
        let mut patterns = Vec::new();
        for text in &self.channels {
            match Pattern::parse(text) {
                Ok(pattern) => patterns.push(pattern),
                Err(fault) => problems.add(channels.clone(), format!("{text:?} {fault}")),
            }
        }
        let rate = self.rate(place, problems);
        let hash = hash.ok().filter(|_| problems.len() == before)?;
        Some(Key::new(self.name.as_str().into(), hash, self.scopes.clone(), patterns, rate))
    }

    fn rate(&self, place: &str, problems: &mut Problems) -> Option<Rate> {
        let burst = format!("{place}.burst");
        problems.check(self.rate.is_some() || self.burst.is_none(), &burst, || {
            format!("means nothing without {place}.rate")
        });
        let per_second = self.rate?;
        problems.check((1..=MAX_RATE).contains(&per_second), &format!("{place}.rate"), || {
            format!("must be from 1 to {MAX_RATE} messages a second; leave it out for no limit")
        });
        let allowed = self.burst.unwrap_or(per_second);
        problems.check((1..=MAX_RATE).contains(&allowed), &burst, || {
            format!("must be from 1 to {MAX_RATE} messages")
        });
        Some(Rate { per_second, burst: allowed })
    }
}

/// A file of keys.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct KeysFile {
    keys: Vec<KeyConfig>,
}

/// Reads the text of a file of keys.
///
/// # Errors
/// Fails if the file can't be read or is too large; the problem names the file.
pub(super) fn read_file(path: &Path) -> Result<String, Problems> {
    let fault = |fault: String| {
        let mut problems = Problems::default();
        problems.add(format!("publisher_api.keys_file: {}", path.display()), fault);
        problems
    };
    let length = std::fs::metadata(path).map_err(|error| fault(format!("can't be read: {error}")))?.len();
    if length > MAX_FILE {
        return Err(fault(format!("is larger than {MAX_FILE} bytes, which no list of keys is")));
    }
    std::fs::read_to_string(path).map_err(|error| fault(format!("can't be read: {error}")))
}

/// Returns how many good keys a file with this text holds.
///
/// # Errors
/// See [`Source::compile`].
pub(crate) fn count_in_file(text: &str) -> Result<usize, Problems> {
    let source = Source { listed: &[], file: Some((Path::new("keys.toml"), text)) };
    source.compile().map(|table| table.len())
}

/// The source of keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    /// `[[publisher_api.keys]]`
    pub(super) listed: &'a [KeyConfig],
    /// The file of keys and its text, where one is configured.
    pub(super) file: Option<(&'a Path, &'a str)>,
}

impl Source<'_> {
    /// Compiles all keys into a table.
    ///
    /// # Errors
    /// Fails with every problem of every key. A configured file without a key is a problem too: it would let
    /// every caller in.
    pub(super) fn compile(&self) -> Result<Table, Problems> {
        let mut problems = Problems::default();
        let mut keys: Vec<(String, Key)> = Vec::new();
        let mut add = |place: String, key: &KeyConfig, problems: &mut Problems| {
            keys.extend(key.compile(&place, problems).map(|key| (place, key)));
        };
        let mut count = self.listed.len();
        for (index, key) in self.listed.iter().enumerate() {
            add(format!("publisher_api.keys.{index}"), key, &mut problems);
        }
        if let Some((path, text)) = self.file {
            let place = path.display();
            match toml::from_str::<KeysFile>(text) {
                Ok(file) => {
                    count += file.keys.len();
                    problems.check(!file.keys.is_empty(), &place.to_string(), || {
                        "holds no keys; write [[keys]] entries, or leave publisher_api.keys_file out".into()
                    });
                    for (index, key) in file.keys.iter().enumerate() {
                        add(format!("{place}: keys.{index}"), key, &mut problems);
                    }
                }
                // The file could hold a secret in the wrong line, so the problem does not quote the line.
                Err(error) => {
                    problems.add(place.to_string(), format!("is no list of keys: {}", error.message()))
                }
            }
        }
        problems.check(count <= MAX_KEYS, "publisher_api.keys", || {
            format!("there may be {MAX_KEYS} keys at most")
        });
        check_together(&keys, &mut problems);
        problems.into_result(Table::new(keys.into_iter().map(|(_, key)| key)))
    }
}

/// Adds the problems of keys that do not go together, though each is good by itself.
fn check_together(keys: &[(String, Key)], problems: &mut Problems) {
    let mut hashes = std::collections::BTreeMap::new();
    let mut names = std::collections::BTreeMap::new();
    for (place, key) in keys {
        if let Some(other) = hashes.insert(key.hash.to_string(), place) {
            problems.add(
                format!("{place}.hash"),
                format!("is that of {other}, too; each key needs its own secret"),
            );
        }
        let (first, rate) = *names.entry(key.name()).or_insert((place, key.rate));
        problems.check(rate == key.rate, &format!("{place}.rate"), || {
            format!("must be that of {first}: keys of one name share their rate and burst")
        });
    }
}

/// Adds the problems of the keys. Reads the file, if there is one.
pub(crate) fn validate(listed: &[KeyConfig], file: &Path, problems: &mut Problems) {
    let text = if file.as_os_str().is_empty() { Ok(None) } else { read_file(file).map(Some) };
    match text {
        Ok(text) => {
            let source = Source { listed, file: text.as_deref().map(|text| (file, text)) };
            if let Err(faults) = source.compile() {
                problems.extend(faults);
            }
        }
        Err(faults) => {
            problems.extend(faults);
            if let Err(faults) = (Source { listed, file: None }).compile() {
                problems.extend(faults);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, secret: &str) -> KeyConfig {
        KeyConfig { name: name.into(), hash: SecretHash::of(secret).to_string(), ..KeyConfig::default() }
    }

    fn faults(listed: &[KeyConfig], file: Option<&str>) -> String {
        let source = Source { listed, file: file.map(|text| (Path::new("keys.toml"), text)) };
        source.compile().map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    #[test]
    fn two_keys_may_share_a_name_but_not_a_secret() {
        assert_eq!(faults(&[key("shop", "old"), key("shop", "new")], None), "");
        let twice = faults(&[key("shop", "a"), key("crm", "a")], None);
        assert!(twice.contains("publisher_api.keys.1.hash: is that of publisher_api.keys.0"), "{twice}");
        let file = format!("[[keys]]\nname = \"x\"\nhash = \"{}\"\n", SecretHash::of("a"));
        assert!(faults(&[key("shop", "a")], Some(&file)).contains("keys.toml: keys.0.hash"));
    }

    #[test]
    fn keys_of_one_name_share_a_rate() {
        let limited = KeyConfig { rate: Some(5), ..key("shop", "new") };
        let differ = faults(&[key("shop", "old"), limited.clone()], None);
        assert!(
            differ.contains("publisher_api.keys.1.rate: must be that of publisher_api.keys.0"),
            "{differ}"
        );
        assert_eq!(faults(&[key("crm", "old"), limited], None), "");
    }

    #[test]
    fn every_fault_of_every_key_is_named() {
        let bad = KeyConfig {
            name: "a:b".into(),
            hash: "mck_plain".into(),
            scopes: Vec::new(),
            channels: vec!["user:*".into(), "two words".into(), String::new()],
            rate: Some(0),
            burst: Some(0),
        };
        let lonely = KeyConfig { burst: Some(1), channels: Vec::new(), ..key("x", "x") };
        let faults = faults(&[bad, lonely], Some("[[keys]]\nname = \"y\"\nscopes = [\"fly\"]"));
        for place in
            ["0.name", "0.hash", "0.scopes", "0.channels", "0.rate", "0.burst", "1.burst", "1.channels"]
        {
            assert!(faults.contains(&format!("publisher_api.keys.{place}: ")), "{place} in\n{faults}");
        }
        assert!(faults.contains("keys.toml: is no list of keys"), "{faults}");
        assert!(!faults.contains("mck_plain"), "{faults}");
    }

    #[test]
    fn a_file_must_hold_keys_and_nothing_else() {
        assert!(faults(&[], Some("")).contains("holds no keys"));
        for bad in ["keys = 5", "[[key]]\nname = \"x\"", "[[keys]]\nsecret = \"mck_hidden\"", "rubbish"] {
            let faults = faults(&[], Some(bad));
            assert!(faults.contains("keys.toml") && !faults.contains("mck_hidden"), "{faults}");
        }
        let good =
            format!("[[keys]]\nname = \"x\"\nhash = \"{}\"\nscopes = [\"admin\"]", SecretHash::of("a"));
        assert_eq!(faults(&[], Some(&good)), "");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let mut problems = Problems::default();
        validate(&[], Path::new("no/such/keys.toml"), &mut problems);
        assert!(problems.to_string().contains("no/such/keys.toml: can't be read"), "{problems}");
    }
}
