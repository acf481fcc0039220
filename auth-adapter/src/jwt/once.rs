//! One check for an operator, apart from a running adapter: what was understood, and why.

use std::time::Duration;

use anyhow::Context as _;
use shared::wire::Login;

use super::claims::{Good, Policy};
use super::config::JwtConfig;
use super::jwks;
use super::key::{self, Key};
use super::keys::Keys;
use super::refusal::Refusal;
use super::verify;
use crate::groups::IN_JWT;

/// The keys and the policy of a configuration, as they are now.
#[derive(Debug)]
pub struct JwtCheck {
    keys: Keys,
    policy: Policy,
    max_token: usize,
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtChecked {
    /// The user, the groups and the end of the login. `None`: the token is refused.
    pub login: Option<Login>,
    /// The label that `mc_auth_jwt_checks_total` would count, e.g. `known` or `expired`.
    pub outcome: &'static str,
    /// The reason of a refusal in words, without values of the token.
    pub words: String,
    /// What was left out of the groups, in words.
    pub groups_left_out: Option<String>,
}

impl JwtCheck {
    /// Reads the keys, or fetches the key set once.
    ///
    /// # Errors
    /// A file can't be used, or the key set can't be fetched.
    pub async fn prepare(config: &JwtConfig, max_age: Duration, max_token: usize) -> anyhow::Result<Self> {
        let keys = if let Some(secret) = config.secret_bytes().filter(|secret| !secret.is_empty()) {
            Keys::Configured(vec![Key::Secret(secret)])
        } else if !config.public_keys.is_empty() {
            Keys::Configured(key::of_pem_files(&config.public_keys).context("auth_adapter.jwt.public_keys")?)
        } else {
            Keys::Named(jwks::fetch_once(config).await.context("auth_adapter.jwt.jwks_url")?)
        };
        Ok(Self { keys, policy: Policy::of(config, max_age), max_token })
    }

    /// Checks a token at this moment.
    pub fn check(&self, token: &str) -> JwtChecked {
        let verified = if token.len() > self.max_token {
            Err(Refusal::TooLong(self.max_token))
        } else {
            verify::verify(token, &self.keys, &self.policy, super::unix_time())
        };
        match verified {
            Ok(Good { login, left_out }) => JwtChecked {
                login: Some(login),
                outcome: "known",
                words: "the token is good".into(),
                groups_left_out: (!left_out.is_nothing()).then(|| left_out.words(IN_JWT)),
            },
            Err(refusal) => JwtChecked {
                login: None,
                outcome: refusal.label(),
                words: refusal.to_string(),
                groups_left_out: None,
            },
        }
    }
}
