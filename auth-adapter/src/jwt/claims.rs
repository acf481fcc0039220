//! The meaning of the claims of a token (RFC 7519), by the policy and the time. Pure.

use std::time::Duration;

use serde_json::{Map, Value};
use shared::ids::{Group, Uid};
use shared::login::token_id;
use shared::wire::Login;

use super::algorithm::Algorithm;
use super::config::JwtConfig;
use super::refusal::Refusal;
use crate::groups::{self, LeftOut};
use crate::pointer::Pointer;

/// The most seconds that a claim may lie in the future: a hundred years. Milliseconds lie further off.
const FOREVER: f64 = 3_153_600_000.0;

/// An id that nobody could name when the token is revoked.
const JTI: Refusal = Refusal::Malformed("its \"jti\" is no string");

/// The demands on a token besides its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    /// The algorithms that may sign.
    pub(super) algorithms: Vec<Algorithm>,
    /// The `iss` to demand; empty: any.
    pub(super) issuer: String,
    /// The `aud` to demand; empty: any.
    pub(super) audience: String,
    /// How far the clocks of issuer and adapter may differ.
    pub(super) leeway: Duration,
    /// Whether a token without `exp` is refused.
    pub(super) require_exp: bool,
    /// The most age of a token.
    pub(super) max_age: Duration,
    /// Where the user stands.
    pub(super) uid: Pointer,
    /// Where the groups stand.
    pub(super) groups: Pointer,
}

impl Policy {
    /// Returns the policy of a configuration.
    pub(super) fn of(config: &JwtConfig, max_age: Duration) -> Self {
        Self {
            algorithms: config.allowed(),
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            leeway: config.leeway,
            require_exp: config.require_exp,
            max_age,
            uid: config.uid.clone(),
            groups: config.groups.clone(),
        }
    }
}

/// A token that is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Good {
    /// The user, the groups and the end of the login.
    pub(crate) login: Login,
    /// Groups that were left out.
    pub(crate) left_out: LeftOut,
}

/// Reads the claims at `now`, a time since 1970.
///
/// # Errors
/// The claim that is not as the policy demands.
pub(super) fn judge(claims: Map<String, Value>, policy: &Policy, now: Duration) -> Result<Good, Refusal> {
    let (now, leeway) = (now.as_secs_f64(), policy.leeway.as_secs_f64());
    let exp = date(&claims, "exp", now)?;
    let (nbf, iat) = (date(&claims, "nbf", now)?, date(&claims, "iat", now)?);
    check_names(&claims, policy)?;
    if exp.is_some_and(|exp| exp + leeway <= now) {
        return Err(Refusal::Expired(policy.leeway));
    }
    if [nbf, iat].into_iter().flatten().any(|from| from - leeway > now) {
        return Err(Refusal::NotYetValid(policy.leeway));
    }
    if exp.is_none() && policy.require_exp {
        return Err(Refusal::NoExpiry);
    }
    check_age(exp, iat, policy, now)?;
    // A duration below a hundred years in milliseconds fits.
    let expires_in_ms = exp.map(|exp| ((exp + leeway - now) * 1_000.0) as u64);
    if expires_in_ms == Some(0) {
        return Err(Refusal::Expired(policy.leeway));
    }
    let token_id = claims.get("jti").map(|jti| jti.as_str().map(token_id).ok_or(JTI)).transpose()?;
    let claims = Value::Object(claims);
    let uid = policy.uid.of(&claims).and_then(|uid| Uid::from_json(uid).ok());
    let uid = uid.ok_or_else(|| Refusal::NoUid(policy.uid.clone()))?;
    let (groups, left_out) = groups::read(policy.groups.of(&claims));
    let groups = groups.iter().map(Group::to_string).collect();
    let issued_at_ms = iat.map(|iat| (iat * 1_000.0) as u64);
    Ok(Good {
        login: Login { uid: uid.to_string(), expires_in_ms, groups, issued_at_ms, token_id },
        left_out,
    })
}

/// Reads a date: seconds since 1970, perhaps with a fraction.
fn date(claims: &Map<String, Value>, name: &str, now: f64) -> Result<Option<f64>, Refusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=now + FOREVER).contains(seconds));
    seconds.map(Some).ok_or(Refusal::Malformed(
        "\"exp\", \"nbf\" or \"iat\" is no number of seconds since 1970, or is a hundred years off \
         (are these milliseconds?)",
    ))
}

fn check_names(claims: &Map<String, Value>, policy: &Policy) -> Result<(), Refusal> {
    let holds = |claim: &Value, wanted: &str| claim.as_str() == Some(wanted);
    if !policy.issuer.is_empty() && !claims.get("iss").is_some_and(|iss| holds(iss, &policy.issuer)) {
        return Err(Refusal::Issuer(policy.issuer.clone()));
    }
    let for_us = |aud: &Value| {
        let several = aud.as_array().map_or(std::slice::from_ref(aud), Vec::as_slice);
        several.iter().any(|aud| holds(aud, &policy.audience))
    };
    if !policy.audience.is_empty() && !claims.get("aud").is_some_and(for_us) {
        return Err(Refusal::Audience(policy.audience.clone()));
    }
    Ok(())
}

/// Refuses a token for which an order that revoked it may have been forgotten.
fn check_age(exp: Option<f64>, iat: Option<f64>, policy: &Policy, now: f64) -> Result<(), Refusal> {
    let most = policy.max_age.as_secs_f64();
    let young = match iat {
        Some(iat) => iat >= now - most,
        None => exp.is_some_and(|exp| exp <= now + most),
    };
    if young { Ok(()) } else { Err(Refusal::TooOld(policy.max_age)) }
}

#[cfg(test)]
pub(in crate::jwt) mod tests;
