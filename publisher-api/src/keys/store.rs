//! The table of keys in use, and how another replaces it.
//!
//! A new table is used whole or not at all: while the configuration or the file has problems, the keys before
//! stay valid. The file is looked at every few seconds by content, which is what a mounted Kubernetes Secret
//! needs.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::registry::Registry;
use shared::config::Problems;
use shared::drain::Drain;
use shared::tasks::on_a_thread;
use tokio::time::{MissedTickBehavior, interval};

use super::config::{KeyConfig, Source, read_file};
use super::metrics::KeyMetrics;
use super::table::Table;

/// How often the file of keys is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The keys.
#[derive(Debug)]
pub(crate) struct Keys {
    /// The lock is held only to clone or replace the table.
    table: RwLock<Arc<Table>>,
    /// The origin of the table. Locked while another table is made, so that two do not cross.
    origin: Mutex<Origin>,
    /// Another content of the file, which the latest look found. Its writer may be in the middle of writing.
    seen: Mutex<Option<Origin>>,
    /// Whether everybody may come once there are no keys. Follows from where the port is bound, which does
    /// not change.
    may_be_open: bool,
    pub(super) metrics: KeyMetrics,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    listed: Vec<KeyConfig>,
    file: PathBuf,
    /// The content that was last found, good or not, so that a problem is told once.
    found: Result<Option<String>, Problems>,
}

impl Origin {
    fn look(listed: Vec<KeyConfig>, file: PathBuf) -> Self {
        let found = if file.as_os_str().is_empty() { Ok(None) } else { read_file(&file).map(Some) };
        Self { listed, file, found }
    }

    fn compile(&self) -> Result<Table, Problems> {
        let text = self.found.as_ref().map_err(Problems::clone)?;
        let file = text.as_deref().map(|text| (self.file.as_path(), text));
        Source { listed: &self.listed, file }.compile()
    }
}

impl Keys {
    /// Reads the keys. `may_be_open`: whether everybody may come while there are no keys.
    ///
    /// # Errors
    /// The problems of the keys.
    pub(crate) fn load(
        listed: Vec<KeyConfig>,
        file: PathBuf,
        may_be_open: bool,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, Problems> {
        let origin = Origin::look(listed, file);
        let table = origin.compile()?;
        let metrics = KeyMetrics::register(registry);
        metrics.valid.set(i64::try_from(table.len()).unwrap_or(i64::MAX));
        let (table, origin) = (RwLock::new(Arc::new(table)), Mutex::new(origin));
        Ok(Arc::new(Self { table, origin, seen: Mutex::default(), may_be_open, metrics }))
    }

    /// Takes other keys from the configuration. A list with problems is refused, and the keys before stay
    /// valid.
    pub(crate) fn apply(&self, listed: Vec<KeyConfig>, file: PathBuf) {
        self.replace(Origin::look(listed, file));
    }

    /// Looks at the file of keys until the drain begins.
    pub(crate) fn watch(self: &Arc<Self>, drain: &Drain) {
        let state = (Arc::clone(self), drain.token());
        drain.supervise("publisher-keys-file", state, |(keys, leaving)| {
            Box::pin(async {
                let mut looks = interval(LOOK_EVERY);
                looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    tokio::select! {
                        _ = looks.tick() => {}
                        () = leaving.cancelled() => return,
                    }
                    // The file may be on a disk that hangs.
                    let keys = Arc::clone(keys);
                    on_a_thread(move || keys.look_again()).await;
                }
            })
        });
    }

    /// Looks at the file, and takes its keys once two looks found the same.
    pub(super) fn look_again(&self) {
        let (listed, file) = {
            let origin = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
            (origin.listed.clone(), origin.file.clone())
        };
        if file.as_os_str().is_empty() {
            return;
        }
        let found = Origin::look(listed, file);
        let before = self.seen.lock().unwrap_or_else(PoisonError::into_inner).replace(found.clone());
        if before.as_ref() == Some(&found) {
            self.replace(found);
        }
    }

    fn replace(&self, new: Origin) {
        let mut origin = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
        if *origin == new {
            return;
        }
        match new.compile().and_then(|table| self.check_closed(table)) {
            Ok(table) => {
                let table = Arc::new(table.inherit(&self.table()));
                let count = table.len();
                *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
                self.metrics.valid.set(i64::try_from(count).unwrap_or(i64::MAX));
                self.metrics.reloaded(true);
                tracing::info!(keys = count, "read the keys again");
                *origin = new;
            }
            Err(faults) => {
                self.metrics.reloaded(false);
                tracing::warn!(%faults, "the new keys can't be used; those before stay valid");
                // Keep what is in use, but remember what was seen.
                if new.listed == origin.listed && new.file == origin.file {
                    origin.found = new.found;
                }
            }
        }
    }

    /// Refuses a table without keys: the last key goes only with a restart. A file that was emptied or cut
    /// off looks like that, and everybody who reaches the port could publish.
    fn check_closed(&self, table: Table) -> Result<Table, Problems> {
        let mut problems = Problems::default();
        let was_open = self.may_be_open && self.table().is_empty();
        problems.check(was_open || !table.is_empty(), "publisher_api.keys", || {
            "without a key everybody who reaches the port could publish; restart if it should be so".into()
        });
        problems.into_result(table)
    }

    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }
}
