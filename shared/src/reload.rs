//! Settings that may change while the process runs: a value that is looked at when it is needed.
//!
//! Parts read what can be changed from a [`Live`] at the moment of use, and everything else once, at their
//! start. What can't be used is never seen by a part: the old value stays. A [`Live`] outlives whoever
//! changes it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::config::{self, Problems, Settings, Sources};
use crate::drain::Drain;

/// How often files are looked at. They are mounted and renewed by others, who tell nobody.
pub const POLL: Duration = Duration::from_secs(2);

/// How long a file must be the same before it is believed when somebody asked for it to be read.
const MOMENT: Duration = Duration::from_millis(100);
/// How often that is tried.
const MOST_LOOKS: u32 = 20;

/// A value that may change. Cheap to clone.
#[derive(Debug)]
pub struct Live<T> {
    value: watch::Receiver<Arc<T>>,
    reloads: Reloads,
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), reloads: self.reloads.clone() }
    }
}

impl<T> From<T> for Live<T> {
    /// A value that stays.
    fn from(value: T) -> Self {
        Self { value: watch::channel(Arc::new(value)).1, reloads: Reloads::default() }
    }
}

impl<T> Live<T> {
    /// As it is now.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.value.borrow())
    }

    /// Waits until it was read again, changed or not, and gives it. `None`: that won't happen any more.
    pub async fn reread(&mut self) -> Option<Arc<T>> {
        self.value.changed().await.ok()?;
        Some(Arc::clone(&self.value.borrow_and_update()))
    }

    /// A part of it, kept up to date by a task on `drain`.
    pub fn project<U: Send + Sync + 'static>(
        &self,
        drain: &Drain,
        part: impl Fn(&T) -> U + Send + Sync + 'static,
    ) -> Live<U>
    where
        T: Send + Sync + 'static,
    {
        let whole = self.clone();
        let (sender, value) = watch::channel(Arc::new(part(&whole.get())));
        let state = (whole, Some(sender), part, drain.token());
        drain.supervise("configuration", state, |(whole, sender, part, leaving)| {
            Box::pin(async move {
                let follow = async {
                    while let Some(sender) = sender
                        && let Some(now) = whole.reread().await
                    {
                        sender.send_replace(Arc::new(part(&now)));
                    }
                    // Nobody changes it any more, which those who follow hear.
                    drop(sender.take());
                    std::future::pending::<()>().await;
                };
                tokio::select! { () = follow => {}, () = leaving.cancelled() => {} }
            })
        });
        Live { value, reloads: self.reloads.clone() }
    }

    /// Shows how often it was read again.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Times that the configuration was read again, by what became of it";
        registry.register("mc_config_reloads", help, self.reloads.0.clone());
    }
}

/// What became of a configuration that was read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Became {
    outcome: &'static str,
}

#[derive(Debug, Clone, Default)]
struct Reloads(Family<Became, Counter>);

impl Reloads {
    fn count(&self, outcome: &'static str) {
        self.0.get_or_create(&Became { outcome }).inc();
    }
}

/// Reads a process's configuration again, when asked to or when its file has changed.
#[derive(Debug)]
pub struct Reloader<S> {
    sources: Sources,
    value: watch::Sender<Arc<S>>,
    reloads: Reloads,
    /// The file as it was when it was last believed. `None`: there is no file, or it could not be read.
    text: Option<String>,
    /// Another text that the latest look found. Whoever writes the file may be in the middle of it.
    seen: Option<String>,
}

impl<S: Settings> Reloader<S> {
    /// Begins with settings that were loaded from these sources.
    pub fn new(sources: Sources, settings: S) -> (Self, Live<S>) {
        let (sender, value) = watch::channel(Arc::new(settings));
        let reloads = Reloads::default();
        let text = read(sources.file.as_ref());
        (Self { sources, value: sender, reloads: reloads.clone(), text, seen: None }, Live { value, reloads })
    }

    /// Reads everything again, as soon as the file is the same for a moment. What is not good is refused as a
    /// whole, with every fault in the log. Waits, so it belongs on a thread that may.
    pub fn reload(&mut self) {
        let mut text = read(self.sources.file.as_ref());
        for _ in 0..MOST_LOOKS {
            std::thread::sleep(MOMENT);
            let before = std::mem::replace(&mut text, read(self.sources.file.as_ref()));
            if before == text {
                return self.apply(text);
            }
        }
        tracing::error!("the configuration file is being written all the time, and the old one stays");
        self.reloads.count("refused");
    }

    /// Takes this text of the file for the configuration.
    fn apply(&mut self, text: Option<String>) {
        (self.text, self.seen) = (text, None);
        let loaded = match &self.text {
            Some(text) => config::load_text::<S>(&self.sources, text),
            None => config::load::<S>(&self.sources),
        };
        let loaded = loaded.and_then(|settings| check_doors(&**self.value.borrow(), settings));
        match loaded {
            Ok(settings) => {
                let kept = restart_needed(&**self.value.borrow(), &settings);
                if kept.is_empty() {
                    tracing::info!("the configuration was read again");
                } else {
                    let keys = kept.join(", ");
                    tracing::warn!(keys, "the configuration was read again; these keys need a restart");
                }
                self.value.send_replace(Arc::new(settings));
                self.reloads.count("applied");
            }
            Err(problems) => {
                tracing::error!("the changed configuration can't be used, and the old one stays: {problems}");
                self.reloads.count("refused");
            }
        }
    }

    /// Reads everything again if the file is another one than before, and the same as at the look before this
    /// one.
    pub fn reload_if_changed(&mut self) {
        let text = read(self.sources.file.as_ref());
        // Between two versions there may be no file for a moment.
        if text.is_none() || text == self.text {
            self.seen = None;
        } else if text == self.seen {
            self.apply(text);
        } else {
            self.seen = text;
        }
    }
}

/// Refuses what lets in whom nothing let in before: a file that somebody empties or cuts off looks like that.
fn check_doors<S: Settings>(old: &S, new: S) -> Result<S, Problems> {
    let mut problems = Problems::default();
    for key in old.doors_opened(&new) {
        problems.add(key, "is empty now, which would let in whom it kept out; restart if it should be so");
    }
    problems.into_result(new)
}

fn read(file: Option<&PathBuf>) -> Option<String> {
    std::fs::read_to_string(file?).ok()
}

/// The keys that differ and are read only at the start. Secrets are not compared.
fn restart_needed<S: Settings>(old: &S, new: &S) -> Vec<String> {
    let (old, new) = (flat(old), flat(new));
    let differ = |key: &&String| old.get(*key) != new.get(*key);
    let mut keys: Vec<_> = old.keys().filter(differ).chain(new.keys().filter(differ)).cloned().collect();
    keys.sort();
    keys.dedup();
    keys.retain(|key| !S::reloadable().iter().any(|prefix| is_below(key, prefix)));
    keys
}

fn is_below(key: &str, prefix: &str) -> bool {
    key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Every value by its dotted key.
fn flat<S: Settings>(settings: &S) -> BTreeMap<String, String> {
    fn walk(value: &toml::Value, key: String, all: &mut BTreeMap<String, String>) {
        match value {
            toml::Value::Table(table) => {
                for (name, value) in table {
                    let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    walk(value, key, all);
                }
            }
            toml::Value::String(_)
            | toml::Value::Integer(_)
            | toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_) => {
                all.insert(key, value.to_string());
            }
        }
    }
    let mut all = BTreeMap::new();
    if let Ok(table) = toml::Value::try_from(settings) {
        walk(&table, String::new(), &mut all);
    }
    all
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::config::Problems;

    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Example {
        edge: Edge,
    }

    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Edge {
        origins: Vec<String>,
        origins_max: u32,
        path: String,
    }

    impl Settings for Example {
        fn validate(&self, problems: &mut Problems) {
            problems.check(self.edge.path != "bad", "edge.path", || "is bad".into());
        }

        fn reloadable() -> &'static [&'static str] {
            &["edge.origins"]
        }

        fn doors_opened(&self, new: &Self) -> Vec<&'static str> {
            let opens = !self.edge.origins.is_empty() && new.edge.origins.is_empty();
            opens.then_some("edge.origins").into_iter().collect()
        }
    }

    fn reloader(text: &str) -> (tempfile::NamedTempFile, Reloader<Example>, Live<Example>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
        let settings = config::load(&sources).unwrap();
        let (reloader, live) = Reloader::new(sources, settings);
        (file, reloader, live)
    }

    fn outcomes(live: &Live<Example>) -> (u64, u64) {
        let count = |outcome| live.reloads.0.get_or_create(&Became { outcome }).get();
        (count("applied"), count("refused"))
    }

    /// Two looks that find the same.
    fn settle(reloader: &mut Reloader<Example>) {
        reloader.reload_if_changed();
        reloader.reload_if_changed();
    }

    #[tokio::test]
    async fn a_changed_file_is_applied_and_a_bad_one_refused() {
        let (file, mut reloader, mut live) = reloader("[edge]\npath = \"/a\"\n");
        settle(&mut reloader);
        assert_eq!(outcomes(&live), (0, 0), "nothing has changed");
        std::fs::write(file.path(), "[edge]\norigins = [\"https://a\"]\n").unwrap();
        settle(&mut reloader);
        assert_eq!(live.reread().await.unwrap().edge.origins, ["https://a"]);
        for bad in ["[edge]\npath = \"bad\"\n", "[edge\n", "[edge]\nnope = 1\n", "", " \n"] {
            std::fs::write(file.path(), bad).unwrap();
            settle(&mut reloader);
            settle(&mut reloader);
            assert_eq!(live.get().edge.origins, ["https://a"], "{bad}");
        }
        assert_eq!(outcomes(&live), (1, 5), "a bad file is refused once, not at every look");
        file.close().unwrap();
        settle(&mut reloader);
        assert_eq!(outcomes(&live), (1, 5), "a file that is away for a moment is not a change");
    }

    #[tokio::test]
    async fn a_file_is_believed_that_two_looks_find_the_same() {
        let (file, mut reloader, live) = reloader("[edge]\npath = \"/a\"\n");
        for half in ["[edge]\npath = \"/b\"\n", "[edge]\n", "[edge]\npath = \"/c\"\n"] {
            std::fs::write(file.path(), half).unwrap();
            reloader.reload_if_changed();
            assert_eq!(live.get().edge.path, "/a", "somebody may still be writing it");
        }
        reloader.reload_if_changed();
        assert_eq!((live.get().edge.path.as_str(), outcomes(&live)), ("/c", (1, 0)));
        std::fs::write(file.path(), "[edge]\npath = \"/d\"\n").unwrap();
        reloader.reload_if_changed();
        std::fs::write(file.path(), "[edge]\npath = \"/c\"\n").unwrap();
        settle(&mut reloader);
        assert_eq!(outcomes(&live), (1, 0), "it is as it was");
    }

    #[tokio::test]
    async fn a_door_opens_only_with_a_restart() {
        let (file, mut reloader, live) = reloader("[edge]\norigins = [\"https://a\"]\n");
        for cut in ["# nothing\n", "[edge]\n", "[edge]\norigins = []\n"] {
            std::fs::write(file.path(), cut).unwrap();
            settle(&mut reloader);
            reloader.reload();
            assert_eq!(live.get().edge.origins, ["https://a"], "{cut}");
        }
        assert_eq!(outcomes(&live), (0, 6));
        std::fs::write(file.path(), "[edge]\norigins = [\"https://b\"]\n").unwrap();
        reloader.reload();
        assert_eq!(live.get().edge.origins, ["https://b"]);
    }

    #[tokio::test]
    async fn a_signal_is_passed_on_although_nothing_has_changed() {
        let (_file, mut reloader, live) = reloader("# nothing\n");
        let drain = Drain::new();
        let mut paths = live.project(&drain, |example| example.edge.path.clone());
        reloader.reload();
        assert_eq!(paths.reread().await.as_deref(), Some(&String::new()));
        drop(reloader);
        assert_eq!(paths.reread().await, None, "nobody will change it any more");
        assert_eq!(drain.finish(Duration::from_secs(5)).await, 0);
    }

    #[tokio::test]
    async fn a_value_that_nobody_changes_stays() {
        let mut fixed = Live::from(5);
        assert_eq!((*fixed.get(), fixed.reread().await), (5, None));
    }

    #[test]
    fn keys_that_need_a_restart_are_told_apart() {
        let old = Example::default();
        let mut new = Example::default();
        new.edge.origins = vec!["https://a".into()];
        assert!(restart_needed(&old, &new).is_empty());
        new.edge.path = "/b".into();
        new.edge.origins_max = 1;
        assert_eq!(restart_needed(&old, &new), ["edge.origins_max", "edge.path"]);
    }
}
