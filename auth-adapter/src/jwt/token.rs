//! The three parts of a signed JWT (RFC 7515, compact form), before anything in them is believed. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::json;
use super::refusal::Refusal;

/// A token whose signature was not checked yet.
#[derive(Debug)]
pub(super) struct Unverified<'t> {
    /// The algorithm that the header names.
    pub(super) algorithm: Named,
    /// The key that the header names.
    pub(super) kid: Option<String>,
    /// The bytes that are signed.
    pub(super) signed: &'t [u8],
    /// The bytes of the claims.
    pub(super) claims: Vec<u8>,
    /// The signature.
    pub(super) signature: Vec<u8>,
}

/// The algorithm that a header names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    Known(Algorithm),
    /// The token is not signed.
    None,
    /// An algorithm that nobody here knows.
    Other,
}

/// Returns whether a token has the form of a JWT: three parts of base64url between two dots.
pub(crate) fn has_form_of_jwt(token: &str) -> bool {
    let base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    token.bytes().filter(|byte| *byte == b'.').count() == 2
        && token.bytes().all(|byte| byte == b'.' || base64url(byte))
}

impl<'t> Unverified<'t> {
    /// Takes a token apart.
    pub(super) fn parse(token: &'t str) -> Result<Self, Refusal> {
        if !has_form_of_jwt(token) {
            return Err(Refusal::Malformed("it is not three parts of base64url between two dots"));
        }
        let not_three = Refusal::Malformed("it has not three parts");
        let (signed, signature) = token.rsplit_once('.').ok_or(not_three.clone())?;
        let (header, claims) = signed.split_once('.').ok_or(not_three)?;
        let header = json::object(&decode(header)?).ok_or(Refusal::Malformed(
            "its header is no JSON object, is nested too deep, or names a member twice",
        ))?;
        let algorithm = algorithm(&header)?;
        if header.contains_key("crit") {
            return Err(Refusal::Crit);
        }
        check_typ(&header)?;
        Ok(Self {
            algorithm,
            kid: kid(header)?,
            signed: signed.as_bytes(),
            claims: decode(claims)?,
            signature: decode(signature)?,
        })
    }
}

fn decode(part: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed("a part is not base64url"))
}

fn algorithm(header: &Map<String, Value>) -> Result<Named, Refusal> {
    let name = header.get("alg").and_then(Value::as_str);
    let name = name.ok_or(Refusal::Malformed("its header has no \"alg\""))?;
    if name.eq_ignore_ascii_case("none") {
        return Ok(Named::None);
    }
    Ok(Algorithm::parse(name).map_or(Named::Other, Named::Known))
}

/// Refuses tokens that were made for another use (RFC 8725, 3.11).
fn check_typ(header: &Map<String, Value>) -> Result<(), Refusal> {
    let Some(typ) = header.get("typ") else { return Ok(()) };
    let typ = typ.as_str().unwrap_or_default().to_ascii_lowercase();
    let typ = typ.strip_prefix("application/").unwrap_or(&typ);
    if matches!(typ, "jwt" | "at+jwt") { Ok(()) } else { Err(Refusal::Typ) }
}

fn kid(mut header: Map<String, Value>) -> Result<Option<String>, Refusal> {
    match header.remove("kid") {
        None => Ok(None),
        Some(Value::String(kid)) => Ok(Some(kid)),
        Some(_) => Err(Refusal::Malformed("its \"kid\" is no string")),
    }
}
