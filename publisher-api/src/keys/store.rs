//! The one table of keys that is in use, and how another takes its place.
//!
//! A new table is used whole or not at all: while the configuration or the file is faulty, the keys before
//! stay valid. The file is looked at every few seconds by content, which is what a mounted Kubernetes Secret
//! needs.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::http::HeaderMap;
use prometheus_client::registry::Registry;
use shared::config::Problems;
use shared::drain::Drain;
use shared::tasks::on_a_thread;
use tokio::time::{MissedTickBehavior, interval};

use super::caller::Caller;
use super::config::{KeyConfig, Source, read_file};
use super::credentials::Credentials;
use super::metrics::{KeyMetrics, Reason};
use super::secret::SecretHash;
use super::table::Table;
use crate::error::Refusal;

/// How often the file of keys is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The keys.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Held only to clone or replace it.
    table: RwLock<Arc<Table>>,
    /// What the table was made from; held while another is made, so that two do not cross.
    origin: Mutex<Origin>,
    /// Another content of the file, which the latest look found. Whoever writes it may be in the middle of
    /// it.
    seen: Mutex<Option<Origin>>,
    /// Whether everybody may come once there are no keys. Decided by where the port was bound, which stays.
    may_be_open: bool,
    pub(super) metrics: KeyMetrics,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    listed: Vec<KeyConfig>,
    file: PathBuf,
    /// What was last found there, good or not; so that a fault is told once.
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
    /// Reads the keys. `may_be_open`: whether everybody may come while there are none.
    ///
    /// # Errors
    /// Something is wrong with them.
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

    /// Takes other keys from the configuration; a faulty list is refused and what was before stays.
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

    fn look_again(&self) {
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

    /// The last key goes only with a restart: a file that somebody empties or cuts off looks like that, and
    /// everybody who reaches the port could publish.
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

    /// Who sent a request with these headers.
    ///
    /// # Errors
    /// Code 105: no key, one that can't be read, or one that is not valid.
    pub(crate) fn caller(self: &Arc<Self>, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let table = self.table();
        if table.is_empty() {
            return Ok(Caller::new(Arc::clone(self), None));
        }
        let credentials =
            Credentials::read(headers).inspect_err(|_| self.metrics.refused(None, Reason::Malformed))?;
        let Some(Credentials { name, secret }) = credentials else {
            self.metrics.refused(None, Reason::Missing);
            return Err(Refusal::NoKey);
        };
        let key = table.find(&SecretHash::of(secret.expose()));
        match key.filter(|key| name.as_deref().is_none_or(|name| name == key.name())) {
            Some(key) => Ok(Caller::new(Arc::clone(self), Some(Arc::clone(key)))),
            None => {
                self.metrics.refused(None, Reason::Invalid);
                Err(Refusal::WrongKey)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderValue, header};
    use shared::ids::Channel;

    use crate::keys::Scope;

    fn key(name: &str, secret: &str) -> KeyConfig {
        KeyConfig { name: name.into(), hash: SecretHash::of(secret).to_string(), ..KeyConfig::default() }
    }

    fn keys(listed: &[KeyConfig]) -> Arc<Keys> {
        Keys::load(listed.to_vec(), PathBuf::new(), true, &mut Registry::default()).unwrap()
    }

    fn bearer(secret: &str) -> HeaderMap {
        let value = HeaderValue::from_str(&format!("Bearer {secret}")).unwrap();
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    fn basic(name: &str, secret: &str) -> HeaderMap {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{secret}"));
        let value = HeaderValue::from_str(&format!("Basic {encoded}")).unwrap();
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    fn code<T>(result: Result<T, Refusal>) -> u16 {
        result.map_or_else(|refusal| refusal.code().row().number, |_| 0)
    }

    #[test]
    fn without_keys_everybody_may_do_everything() {
        let keys = keys(&[]);
        for headers in [HeaderMap::new(), bearer("x"), basic("a", "b")] {
            let caller = keys.caller(&headers).unwrap();
            assert_eq!(caller.name(), "anonymous");
            assert_eq!(code(caller.require(Scope::Admin)), 0);
            assert!(caller.may(&Channel::parse("a").unwrap()));
            assert_eq!(code(caller.admit(1_000_000)), 0);
        }
    }

    #[test]
    fn a_sender_is_known_by_its_secret_and_a_given_name_must_be_its_own() {
        let keys = keys(&[key("shop", "one"), key("shop", "two"), key("crm", "three")]);
        for (headers, name) in [
            (bearer("one"), Some("shop")),
            (bearer("two"), Some("shop")),
            (basic("shop", "two"), Some("shop")),
            (basic("crm", "three"), Some("crm")),
            (basic("shop", "three"), None),
            (basic("", "one"), None),
            (basic("one", ""), None),
            (bearer("four"), None),
            (HeaderMap::new(), None),
        ] {
            let caller = keys.caller(&headers);
            assert_eq!(caller.as_ref().ok().map(Caller::name), name, "{headers:?}");
            assert_eq!(code(caller), if name.is_some() { 0 } else { 105 });
        }
    }

    #[test]
    fn a_key_permits_its_scopes_channels_and_rate_and_nothing_else() {
        let config = KeyConfig {
            scopes: vec![Scope::Publish, Scope::Read],
            channels: vec!["user:*".into(), "broadcast".into()],
            rate: Some(1),
            burst: Some(2),
            ..key("shop", "one")
        };
        let caller = keys(&[config]).caller(&bearer("one")).unwrap();
        assert_eq!(Scope::ALL.map(|scope| code(caller.require(scope))), [0, 0, 106, 106]);
        let (own, other) = (Channel::parse("user:1").unwrap(), Channel::parse("video:1").unwrap());
        assert_eq!(code(caller.admit_publish(&other)), 106);
        assert_eq!([0; 3].map(|_| code(caller.admit_publish(&own))), [0, 0, 107]);
    }

    #[test]
    fn a_revoked_key_is_refused_where_it_was_let_in_before() {
        let keys = keys(&[key("shop", "one"), key("crm", "two")]);
        let caller = keys.caller(&bearer("one")).unwrap();
        assert_eq!(code(caller.current()), 0);
        keys.apply(vec![key("crm", "two")], PathBuf::new());
        assert_eq!(code(caller.current()), 105);
        assert_eq!(code(keys.caller(&bearer("one"))), 105);
        assert_eq!(code(keys.caller(&bearer("two"))), 0);
    }

    #[test]
    fn whoever_came_before_the_first_key_needs_one_then() {
        let keys = keys(&[]);
        let caller = keys.caller(&HeaderMap::new()).unwrap();
        assert_eq!(code(caller.current()), 0);
        keys.apply(vec![key("crm", "two")], PathBuf::new());
        assert_eq!(code(caller.current()), 105);
    }

    #[test]
    fn the_last_key_goes_only_with_a_restart() {
        let all = vec![key("shop", "one")];
        let closed = Keys::load(all.clone(), PathBuf::new(), false, &mut Registry::default()).unwrap();
        closed.apply(Vec::new(), PathBuf::new());
        assert_eq!((code(closed.caller(&HeaderMap::new())), code(closed.caller(&bearer("one")))), (105, 0));
        let open = keys(&all);
        open.apply(Vec::new(), PathBuf::new());
        assert_eq!((code(open.caller(&HeaderMap::new())), code(open.caller(&bearer("one")))), (105, 0));
        let open = keys(&[]);
        open.apply(Vec::new(), PathBuf::new());
        assert_eq!(code(open.caller(&HeaderMap::new())), 0, "it was open before");
    }

    #[test]
    fn a_faulty_list_is_refused_and_a_reload_fills_no_bucket() {
        let limited = KeyConfig { rate: Some(1), burst: Some(1), ..key("shop", "one") };
        let keys = keys(std::slice::from_ref(&limited));
        let caller = keys.caller(&bearer("one")).unwrap();
        assert_eq!(code(caller.admit(1)), 0);
        keys.apply(vec![KeyConfig { hash: "rubbish".into(), ..limited.clone() }], PathBuf::new());
        assert_eq!(code(caller.current()), 0);
        keys.apply(
            vec![limited.clone(), KeyConfig { hash: key("shop", "new").hash, ..limited }],
            PathBuf::new(),
        );
        for secret in ["one", "new"] {
            let caller = keys.caller(&bearer(secret)).unwrap();
            assert_eq!(code(caller.admit(1)), 107, "{secret}");
        }
    }

    /// A content is believed that two looks find.
    fn settle(keys: &Keys) {
        keys.look_again();
        keys.look_again();
    }

    #[test]
    fn a_file_is_read_again_when_it_changes_and_not_trusted_when_it_is_broken_or_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        let text =
            |secret: &str| format!("[[keys]]\nname = \"shop\"\nhash = \"{}\"\n", SecretHash::of(secret));
        std::fs::write(&path, text("one")).unwrap();
        let keys = Keys::load(Vec::new(), path.clone(), true, &mut Registry::default()).unwrap();
        let valid = |secret| keys.caller(&bearer(secret)).is_ok();
        assert!(valid("one") && !valid("two"));
        std::fs::write(&path, format!("{}{}", text("one"), text("two"))).unwrap();
        keys.look_again();
        assert!(valid("one") && !valid("two"), "somebody may still be writing it");
        settle(&keys);
        assert!(valid("one") && valid("two"), "both are valid while one takes the place of the other");
        for broken in ["", "[[keys]]\nname = \"shop\"\n", "rubbish"] {
            std::fs::write(&path, broken).unwrap();
            settle(&keys);
            assert!(valid("one") && valid("two") && keys.caller(&HeaderMap::new()).is_err(), "{broken:?}");
        }
        std::fs::remove_file(&path).unwrap();
        settle(&keys);
        assert!(valid("one") && keys.caller(&HeaderMap::new()).is_err());
        std::fs::write(&path, text("two")).unwrap();
        settle(&keys);
        assert!(!valid("one") && valid("two"));
    }
}
