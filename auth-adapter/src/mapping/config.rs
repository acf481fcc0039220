//! The keys of the mapping: `preset`, `[auth_adapter.request]` and `[auth_adapter.answer]`.
//!
//! A key that is left out has the value of the preset. The values are checked when they are compiled into a
//! [`Mapping`](super::Mapping).

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};

/// A ready mapping for a common kind of business system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// `POST {"token":"…"}`, answered with `{"uid":1001}`.
    #[default]
    Connmix,
    /// The token as a Bearer header, answered with `{"code":0,"data":{"id":1001},"msg":""}`.
    CommonResult,
    /// Token introspection: a form, answered with `{"active":true,"sub":"…","exp":…}` (RFC 7662).
    Rfc7662,
}

/// The method of a token check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// `GET`, which has no body.
    Get,
    /// `POST`.
    #[default]
    Post,
}

impl Method {
    /// Returns the name of the method.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// The question to the business system. Keys that are left out are those of `auth_adapter.preset`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct RequestConfig {
    /// The method of the call: `GET` has no body, so the token must stand in a header or in the query.
    pub method: Option<Method>,
    /// Place of the token: `json:token` (`{"token":"…"}`), `form:token` (`token=…`),
    /// `header:Authorization: Bearer {token}`, or `query:token` (`?token=…`; servers and proxies log URLs).
    pub token: Option<String>,
}

/// The meaning of the business system's answer. Keys that are left out are those of `auth_adapter.preset`.
/// A place in the answer is a JSON pointer (RFC 6901), e.g. `/data/uid`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct AnswerConfig {
    /// Places with the values that mean success, e.g. `{ "/code" = [0, 200] }`. All must hold, otherwise the
    /// token is refused. An empty table: status 200 is enough.
    pub ok: Option<BTreeMap<String, Vec<Accepted>>>,
    /// Places with the values that mean "no answer", e.g. `{ "/code" = ["500-599"] }`. One that holds is
    /// enough, and comes before `ok`.
    pub unavailable: Option<BTreeMap<String, Vec<Accepted>>>,
    /// Places of the user; the first that exists counts.
    pub uid: Option<Vec<String>>,
    /// Place of the seconds until the login expires. Empty: the answer does not say.
    pub expires_in: Option<String>,
    /// Place of the Unix time in seconds at which the login expires. Of `expires_in` and `expires_at` the
    /// earlier counts. Empty: the answer does not say.
    pub expires_at: Option<String>,
    /// Place of the user's groups, a list of texts or integers. Empty: logins have no groups.
    pub groups: Option<String>,
}

/// A value that a condition accepts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Accepted {
    /// `true` or `false`.
    Bool(bool),
    /// An integer; a JSON string of the same digits holds too.
    Number(i64),
    /// A text, or a range of integers such as `500-599`.
    Text(String),
}

impl<'de> Deserialize<'de> for Accepted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyAccepted)
    }
}

struct AnyAccepted;

impl Visitor<'_> for AnyAccepted {
    type Value = Accepted;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an integer, a text, a range such as \"500-599\", or true or false")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Accepted, E> {
        Ok(Accepted::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Accepted, E> {
        Ok(Accepted::Number(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Accepted, E> {
        i64::try_from(value).map(Accepted::Number).map_err(|_| E::custom("is above 2^63-1"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Accepted, E> {
        Ok(Accepted::Text(value.to_owned()))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Accepted {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "value".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "integer", "boolean"], "format": "value" })
    }
}
