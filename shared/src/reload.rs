//! Settings that may change while the process runs.
//!
//! A part reads such settings from a [`Live`] at the moment of use, and all others once, at its start. A part
//! never sees a configuration that can't be used: the old value stays. A [`Live`] outlives its [`Reloader`].

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

/// The interval between two looks at files: nobody tells when a mounted file is renewed.
pub const POLL: Duration = Duration::from_secs(2);

/// How long a file must stay the same before a reload on request believes it.
const MOMENT: Duration = Duration::from_millis(100);
/// How often a reload on request looks at the file.
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
    /// Makes a value that never changes.
    fn from(value: T) -> Self {
        Self { value: watch::channel(Arc::new(value)).1, reloads: Reloads::default() }
    }
}

impl<T> Live<T> {
    /// Returns the present value.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.value.borrow())
    }

    /// Waits until the configuration was read again, changed or not, and returns the value. `None`: it won't
    /// be read again.
    pub async fn reread(&mut self) -> Option<Arc<T>> {
        self.value.changed().await.ok()?;
        Some(Arc::clone(&self.value.borrow_and_update()))
    }

    /// Returns a part of the value, which a task on `drain` keeps up to date.
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
                    // The value changes no more: tell the followers.
                    drop(sender.take());
                    std::future::pending::<()>().await;
                };
                tokio::select! { () = follow => {}, () = leaving.cancelled() => {} }
            })
        });
        Live { value, reloads: self.reloads.clone() }
    }

    /// Registers the counter of reloads.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Times that the configuration was read again, by what became of it";
        registry.register("mc_config_reloads", help, self.reloads.0.clone());
    }
}

/// The outcome of a reload.
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
    /// The text of the file that was believed last. `None`: there is no file, or it can't be read.
    text: Option<String>,
    /// Another text that the latest look found: it may be half written.
    seen: Option<String>,
}

impl<S: Settings> Reloader<S> {
    /// Starts with settings that were loaded from these sources.
    pub fn new(sources: Sources, settings: S) -> (Self, Live<S>) {
        let (sender, value) = watch::channel(Arc::new(settings));
        let reloads = Reloads::default();
        let text = read(sources.file.as_ref());
        (Self { sources, value: sender, reloads: reloads.clone(), text, seen: None }, Live { value, reloads })
    }

    /// Reads the configuration again, as soon as the file stays the same for a moment. A bad configuration is
    /// refused as a whole, with every problem in the log. Blocks, so call it on a thread that may.
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

    /// Applies the configuration with this text of the file.
    fn apply(&mut self, text: Option<String>) {
        (self.text, self.seen) = (text, None);
        let loaded = match &self.text {
            Some(text) => config::load_text::<S>(&self.sources, text),
            None => config::load::<S>(&self.sources),
        };
        let loaded = loaded.and_then(|settings| check_doors(&**self.value.borrow(), settings));
        match loaded {
            Ok(settings) => {
                let ignored = restart_needed(&**self.value.borrow(), &settings);
                if ignored.is_empty() {
                    tracing::info!("the configuration was read again");
                } else {
                    let keys = ignored.join(", ");
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

    /// Reads the configuration again if the file has changed, and is the same as at the look before.
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

/// Refuses a configuration that lets in callers who were kept out before: an emptied or cut-off file looks
/// like one.
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

/// Returns the changed keys that are read only at the start. Secrets are not compared.
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

/// Returns every value by its dotted key.
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
