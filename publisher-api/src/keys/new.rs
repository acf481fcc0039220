//! A new key: its secret, to be shown once, and its entry for the configuration.

use std::fmt::Write as _;

use shared::config::{Problems, Secret};

use super::config::{KeyConfig, Source};
use super::secret::{SecretHash, generate};

/// Where the entry of a key goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The configuration: `[[publisher_api.keys]]`.
    Config,
    /// The file that `publisher_api.keys_file` names: `[[keys]]`.
    File,
}

/// A key that was just made.
#[derive(Debug)]
pub struct NewKey {
    secret: Secret,
    config: KeyConfig,
}

impl NewKey {
    /// Makes a secret for this key; a hash that `config` has is replaced.
    ///
    /// # Errors
    /// The key has an error, or the system has no randomness to give.
    pub fn make(config: KeyConfig) -> Result<Self, Problems> {
        let secret = generate().map_err(|error| {
            let mut problems = Problems::default();
            problems.add("secret", format!("the system gives no random bytes: {error}"));
            problems
        })?;
        let config = KeyConfig { hash: SecretHash::of(&secret).to_string(), ..config };
        Source { listed: std::slice::from_ref(&config), file: None }.compile()?;
        Ok(Self { secret: Secret::new(secret), config })
    }

    /// The secret. Whoever asks for it shows it to a person and forgets it.
    pub fn secret(&self) -> &str {
        self.secret.expose()
    }

    /// Its entry.
    pub fn config(&self) -> &KeyConfig {
        &self.config
    }

    /// Its entry as TOML, with a line end after each line.
    pub fn entry(&self, place: Place) -> String {
        let KeyConfig { name, hash, scopes, channels, rate, burst } = &self.config;
        let table = match place {
            Place::Config => "publisher_api.keys",
            Place::File => "keys",
        };
        let list = |items: Vec<String>| toml::Value::from(items).to_string();
        let mut entry = format!("[[{table}]]\nname = \"{name}\"\nhash = \"{hash}\"\n");
        let scopes = list(scopes.iter().map(ToString::to_string).collect());
        let channels = list(channels.clone());
        let _ = write!(entry, "scopes = {scopes}\nchannels = {channels}\n");
        for (key, number) in [("rate", rate), ("burst", burst)] {
            if let Some(number) = number {
                let _ = writeln!(entry, "{key} = {number}");
            }
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Scope;

    #[test]
    fn an_entry_is_what_the_configuration_reads() {
        let config = KeyConfig {
            name: "shop".into(),
            scopes: vec![Scope::Publish, Scope::Disconnect],
            channels: vec!["user:*".into(), "say-\"hi\"".into()],
            rate: Some(100),
            burst: Some(500),
            ..KeyConfig::default()
        };
        let key = NewKey::make(config.clone()).unwrap();
        let expected = KeyConfig { hash: SecretHash::of(key.secret()).to_string(), ..config };
        let read: toml::Table = key.entry(Place::Config).parse().unwrap();
        let read: Vec<KeyConfig> = read["publisher_api"]["keys"].clone().try_into().unwrap();
        assert_eq!(read, std::slice::from_ref(&expected));
        let read: toml::Table = key.entry(Place::File).parse().unwrap();
        let read: Vec<KeyConfig> = read["keys"].clone().try_into().unwrap();
        assert_eq!(read, [expected]);
        assert!(
            !format!("{key:?}").contains(key.secret()) && !key.entry(Place::Config).contains(key.secret())
        );
    }

    #[test]
    fn a_key_that_could_not_be_configured_is_not_made() {
        let nameless = NewKey::make(KeyConfig::default()).unwrap_err();
        assert!(nameless.to_string().contains("name"), "{nameless}");
    }
}
