//! The verdict about one JWT: a pure function of token, keys, policy and time.

use std::time::Duration;

use super::algorithm::{self, Algorithm};
use super::claims::{self, Good, Policy};
use super::json;
use super::keys::Keys;
use super::refusal::Refusal;
use super::token::{Named, Unverified};

/// Checks everything that needs no cryptography and is not signed: form, header, and whether a key fits.
///
/// # Errors
/// The fault of the token.
pub(super) fn check_header(token: &str, keys: &Keys, policy: &Policy) -> Result<(), Refusal> {
    let token = Unverified::parse(token)?;
    keys.candidates(token.kid.as_deref(), allowed(token.algorithm, policy)?).map(drop)
}

/// Checks a token at `now`, a time since 1970.
///
/// # Errors
/// The fault of the token.
pub(super) fn verify(token: &str, keys: &Keys, policy: &Policy, now: Duration) -> Result<Good, Refusal> {
    let token = Unverified::parse(token)?;
    let algorithm = allowed(token.algorithm, policy)?;
    let candidates = keys.candidates(token.kid.as_deref(), algorithm)?;
    if !candidates.iter().any(|key| key.verifies(algorithm, token.signed, &token.signature)) {
        return Err(Refusal::BadSignature);
    }
    let claims = json::object(&token.claims).ok_or(Refusal::Malformed(
        "its claims are no JSON object, are nested too deep, or name a member twice",
    ))?;
    claims::judge(claims, policy, now)
}

fn allowed(algorithm: Named, policy: &Policy) -> Result<Algorithm, Refusal> {
    match algorithm {
        Named::Known(algorithm) if policy.algorithms.contains(&algorithm) => Ok(algorithm),
        Named::Known(_) | Named::Other => Err(Refusal::AlgNotAllowed(algorithm::list(&policy.algorithms))),
        Named::None => Err(Refusal::AlgNone),
    }
}

#[cfg(test)]
mod tests;
