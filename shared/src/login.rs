//! `[login]`: what adapters, edges and publisher-apis must agree on about logins and their revoking.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::config::{Problems, Span};

/// Logins and their revoking, the same for all parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct LoginConfig {
    /// The most age of a JWT by its `iat`. An older one is refused, and one without `iat` whose `exp` is
    /// further off than this. Orders that revoke tokens are kept for so long. Must be the same for all parts.
    #[serde(with = "Span")]
    pub max_token_age: Duration,
}

impl Default for LoginConfig {
    fn default() -> Self {
        Self { max_token_age: Duration::from_secs(30 * 86_400) }
    }
}

impl LoginConfig {
    /// Adds what is wrong with these values.
    pub fn validate(&self, problems: &mut Problems) {
        let bounds = Duration::from_secs(60)..=Duration::from_secs(10 * 365 * 86_400);
        problems.check(bounds.contains(&self.max_token_age), "login.max_token_age", || {
            "must be from 1m to 3650d".into()
        });
    }
}

/// Returns the fingerprint of the id of a JWT (`jti`), by which the token can be revoked: SHA-256 in
/// hexadecimal digits. Ids may be long and may be secret.
///
/// ```
/// let fingerprint = shared::login::token_id("id");
/// assert_eq!(fingerprint.len(), 64);
/// assert_ne!(fingerprint, shared::login::token_id("ID"));
/// ```
pub fn token_id(jti: &str) -> String {
    Sha256::digest(jti).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_of_an_id_is_its_sha_256() {
        let of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(token_id("abc"), of_abc);
    }

    #[test]
    fn a_token_may_be_as_old_as_a_minute_to_ten_years() {
        for (seconds, good) in [(59, false), (60, true), (315_360_000, true), (315_360_001, false)] {
            let mut problems = Problems::default();
            LoginConfig { max_token_age: Duration::from_secs(seconds) }.validate(&mut problems);
            assert_eq!(problems.to_string().is_empty(), good, "{seconds}");
        }
    }
}
