//! JSON as callers send it.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::error::Refusal;

/// Reads a JSON object. (serde alone would take a list for a struct as well.) `example` is what a refusal
/// shows.
///
/// # Errors
/// Code 101: not JSON, JSON that is no object, or an object that is no `T`.
pub(crate) fn object<'a, T: Deserialize<'a>>(json: &'a [u8], example: &'static str) -> Result<T, Refusal> {
    let is_object = json.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if is_object {
        return serde_json::from_slice(json).map_err(Refusal::NotJson);
    }
    match serde_json::from_slice::<serde::de::IgnoredAny>(json) {
        Ok(_) => Err(Refusal::NotObject(example)),
        Err(error) => Err(Refusal::NotJson(error)),
    }
}

/// Reads a field that is present: `Some` even for null, which serde alone would take for an absent field.
pub(crate) fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}
