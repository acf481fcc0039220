//! `[auth_adapter] mode` and `[auth_adapter.jwt]`.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};
use shared::config::{Problems, Secret, Span};

use super::algorithm::{self, Algorithm};
use super::key;
use crate::pointer::Pointer;

/// The most files of public keys.
const MAX_FILES: usize = 16;

/// Where the user of a token is learnt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The business system at `url`.
    #[default]
    Url,
    /// The token itself: a JWT, checked with the keys of `[auth_adapter.jwt]`.
    Jwt,
    /// The token itself if it has the form of a JWT; the business system at `url` otherwise.
    JwtThenUrl,
}

impl Mode {
    /// Returns whether tokens may go to the business system.
    pub const fn asks_url(self) -> bool {
        matches!(self, Self::Url | Self::JwtThenUrl)
    }

    /// Returns whether JWTs are checked here.
    pub const fn checks_jwt(self) -> bool {
        matches!(self, Self::Jwt | Self::JwtThenUrl)
    }
}

/// How `secret` is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SecretEncoding {
    /// The bytes of the text are the secret.
    #[default]
    Text,
    /// The secret is written in base64 or base64url.
    Base64,
}

/// How JWTs are checked, in the modes `jwt` and `jwt-then-url`. See docs/jwt.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct JwtConfig {
    /// The secret of HS256, HS384 or HS512, at least as long as the hash: 32, 48 or 64 bytes. Exactly one of
    /// `secret`, `public_keys` and `jwks_url` must be set. Never printed.
    pub secret: Secret,
    /// How `secret` is written: `text`, or `base64` (also base64url).
    pub secret_encoding: SecretEncoding,
    /// PEM files of public keys (`BEGIN PUBLIC KEY`; RSA, P-256, P-384, Ed25519), any of which may have signed
    /// a token. Read again when they change.
    pub public_keys: Vec<PathBuf>,
    /// Where the issuer publishes its keys (JWKS, RFC 7517), e.g.
    /// `https://login.example.com/realms/shop/protocol/openid-connect/certs`.
    pub jwks_url: String,
    /// PEM file of the authorities that may sign the certificate of `jwks_url`. Empty: those that the
    /// operating system trusts.
    pub jwks_ca: PathBuf,
    /// The time between two fetches of the key set. A token that names an unknown key causes another one, at
    /// most once a minute.
    #[serde(with = "Span")]
    pub jwks_refresh: Duration,
    /// How long a fetch of the key set may take.
    #[serde(with = "Span")]
    pub jwks_deadline: Duration,
    /// The algorithms that may sign. Empty: all that fit the keys.
    pub algorithms: Vec<Algorithm>,
    /// The issuer (`iss`) to demand. Empty: any.
    pub issuer: String,
    /// The audience (`aud`) to demand. Empty: any, so tokens that were made for other programs log in too.
    pub audience: String,
    /// How far the issuer's clock may differ. A login ends so much after `exp`.
    #[serde(with = "Span")]
    pub leeway: Duration,
    /// Whether a token without `exp` is refused.
    pub require_exp: bool,
    /// Where the user stands in the claims: a JSON pointer (RFC 6901).
    pub uid: Pointer,
    /// Where the groups stand in the claims, a list of strings or integers: a JSON pointer. Empty: no groups.
    pub groups: Pointer,
}

impl Default for JwtConfig {
    fn default() -> Self {
        let pointer = |text| Pointer::parse(text).unwrap_or_default();
        Self {
            secret: Secret::default(),
            secret_encoding: SecretEncoding::Text,
            public_keys: Vec::new(),
            jwks_url: String::new(),
            jwks_ca: PathBuf::new(),
            jwks_refresh: Duration::from_secs(300),
            jwks_deadline: Duration::from_secs(3),
            algorithms: Vec::new(),
            issuer: String::new(),
            audience: String::new(),
            leeway: Duration::from_secs(30),
            require_exp: true,
            uid: pointer("/sub"),
            groups: pointer("/groups"),
        }
    }
}

impl JwtConfig {
    /// Returns the bytes of the secret. `None`: the text is not base64.
    pub(super) fn secret_bytes(&self) -> Option<Vec<u8>> {
        let text = self.secret.expose();
        match self.secret_encoding {
            SecretEncoding::Text => Some(text.as_bytes().to_vec()),
            SecretEncoding::Base64 => {
                let padding = DecodePaddingMode::Indifferent;
                let config = GeneralPurposeConfig::new().with_decode_padding_mode(padding);
                let decode = |alphabet| GeneralPurpose::new(alphabet, config).decode(text.trim()).ok();
                decode(&STANDARD).or_else(|| decode(&URL_SAFE))
            }
        }
    }

    /// Returns the algorithms that may sign: those of the configuration, or all that fit the kind of keys.
    pub(super) fn allowed(&self) -> Vec<Algorithm> {
        if !self.algorithms.is_empty() {
            return self.algorithms.clone();
        }
        if self.secret.is_empty() {
            return algorithm::PUBLIC.to_vec();
        }
        let bytes = self.secret_bytes().map_or(0, |secret| secret.len());
        let long_enough = |of: &Algorithm| of.shortest_secret().is_some_and(|least| least <= bytes);
        algorithm::SECRET.into_iter().filter(long_enough).collect()
    }

    /// Adds what is wrong with these values in this mode.
    pub(crate) fn validate(&self, mode: Mode, problems: &mut Problems) {
        if !mode.checks_jwt() {
            return problems.check(*self == Self::default(), "auth_adapter.jwt", || {
                "is of no use in this mode: set auth_adapter.mode to \"jwt\" or \"jwt-then-url\"".into()
            });
        }
        let given = [!self.secret.is_empty(), !self.public_keys.is_empty(), !self.jwks_url.is_empty()];
        let given = given.into_iter().filter(|given| *given).count();
        problems.check(given == 1, "auth_adapter.jwt", || {
            format!("needs exactly one of secret, public_keys and jwks_url, and has {given}")
        });
        self.validate_secret(problems);
        self.validate_public_keys(problems);
        self.validate_url(problems);
        self.validate_claims(problems);
    }

    fn validate_secret(&self, problems: &mut Problems) {
        if self.secret.is_empty() {
            return;
        }
        let Some(secret) = self.secret_bytes() else {
            return problems
                .add("auth_adapter.jwt.secret", "is not base64 (auth_adapter.jwt.secret_encoding)");
        };
        let of_secret: Vec<_> = self.algorithms.iter().filter_map(|of| of.shortest_secret()).collect();
        problems.check(of_secret.len() == self.algorithms.len(), "auth_adapter.jwt.algorithms", || {
            format!("with a secret only {} are possible", algorithm::list(&algorithm::SECRET))
        });
        let least = of_secret.into_iter().max().unwrap_or(32);
        problems.check(secret.len() >= least, "auth_adapter.jwt.secret", || {
            format!("has {} bytes and must have at least {least}, as many as the hash", secret.len())
        });
    }

    fn validate_public_keys(&self, problems: &mut Problems) {
        if self.secret.is_empty() {
            let public = self.algorithms.iter().all(|of| of.shortest_secret().is_none());
            problems.check(public, "auth_adapter.jwt.algorithms", || {
                "HS256, HS384 and HS512 need a secret: with public keys everybody could sign".into()
            });
        }
        let key = "auth_adapter.jwt.public_keys";
        problems.check(self.public_keys.len() <= MAX_FILES, key, || "must be at most 16 files".into());
        if let Err(error) = key::of_pem_files(&self.public_keys) {
            problems.add(key, format!("{error:#}"));
        }
    }

    fn validate_url(&self, problems: &mut Problems) {
        if !self.jwks_url.is_empty() {
            let url = reqwest::Url::parse(&self.jwks_url).ok();
            let good = url.is_some_and(|url| {
                matches!(url.scheme(), "http" | "https")
                    && url.has_host()
                    && url.username().is_empty()
                    && url.password().is_none()
            });
            problems.check(good, "auth_adapter.jwt.jwks_url", || {
                "must be an http or https URL without credentials, e.g. https://login.example.com/jwks.json".into()
            });
        }
        if !self.jwks_ca.as_os_str().is_empty() {
            let https = self.jwks_url.starts_with("https://");
            problems.check(https, "auth_adapter.jwt.jwks_ca", || {
                "is for a jwks_url that begins with https://".into()
            });
            if let Err(error) = std::fs::File::open(&self.jwks_ca) {
                let file = self.jwks_ca.display();
                problems.add("auth_adapter.jwt.jwks_ca", format!("{file} can't be read: {error}"));
            }
        }
        for (key, time, bounds, words) in [
            ("auth_adapter.jwt.jwks_refresh", self.jwks_refresh, 10..=86_400, "must be from 10s to 1d"),
            ("auth_adapter.jwt.jwks_deadline", self.jwks_deadline, 1..=60, "must be from 1s to 1m"),
        ] {
            problems.check(bounds.contains(&time.as_secs()), key, || words.into());
        }
    }

    fn validate_claims(&self, problems: &mut Problems) {
        problems.check(self.leeway <= Duration::from_secs(600), "auth_adapter.jwt.leeway", || {
            "must be at most 10m".into()
        });
        problems.check(!self.uid.is_empty(), "auth_adapter.jwt.uid", || {
            "must be a JSON pointer such as \"/sub\"".into()
        });
    }
}

#[cfg(test)]
mod tests;
