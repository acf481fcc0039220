//! The presets, and the configuration that stands over them.

use std::collections::BTreeMap;

use super::config::{Accepted, AnswerConfig, Method, Preset, RequestConfig};

/// Every preset.
pub(super) const ALL: [Preset; 3] = [Preset::Connmix, Preset::CommonResult, Preset::Rfc7662];

/// A condition as it is configured: a place with the values that it accepts.
pub(super) type Conditions = BTreeMap<String, Vec<Accepted>>;

/// The values of all keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) method: Method,
    pub(super) token: String,
    pub(super) ok: Conditions,
    pub(super) unavailable: Conditions,
    pub(super) uid: Vec<String>,
    pub(super) expires_in: String,
    pub(super) expires_at: String,
    pub(super) groups: String,
}

impl Keys {
    /// Returns the keys of a preset.
    pub(super) fn of(preset: Preset) -> Self {
        match preset {
            Preset::Connmix => Self::connmix(),
            Preset::CommonResult => Self {
                token: "header:Authorization: Bearer {token}".into(),
                ok: condition("/code", [Accepted::Number(0), Accepted::Number(200)]),
                unavailable: condition("/code", [Accepted::Text("500-599".into())]),
                uid: ["/data/uid", "/data/user_id", "/data/userId", "/data/id"].map(Into::into).into(),
                expires_in: String::new(),
                groups: String::new(),
                ..Self::connmix()
            },
            Preset::Rfc7662 => Self {
                token: "form:token".into(),
                ok: condition("/active", [Accepted::Bool(true)]),
                uid: vec!["/sub".into()],
                expires_in: String::new(),
                expires_at: "/exp".into(),
                groups: String::new(),
                ..Self::connmix()
            },
        }
    }

    fn connmix() -> Self {
        Self {
            method: Method::Post,
            token: "json:token".into(),
            ok: Conditions::new(),
            unavailable: Conditions::new(),
            uid: vec!["/uid".into()],
            expires_in: "/expires_in".into(),
            expires_at: String::new(),
            groups: "/groups".into(),
        }
    }

    /// Returns these keys under the configured ones.
    pub(super) fn under(self, request: &RequestConfig, answer: &AnswerConfig) -> Self {
        Self {
            method: request.method.unwrap_or(self.method),
            token: request.token.clone().unwrap_or(self.token),
            ok: answer.ok.clone().unwrap_or(self.ok),
            unavailable: answer.unavailable.clone().unwrap_or(self.unavailable),
            uid: answer.uid.clone().unwrap_or(self.uid),
            expires_in: answer.expires_in.clone().unwrap_or(self.expires_in),
            expires_at: answer.expires_at.clone().unwrap_or(self.expires_at),
            groups: answer.groups.clone().unwrap_or(self.groups),
        }
    }
}

/// Returns the name of a preset in the configuration.
pub(super) const fn name(preset: Preset) -> &'static str {
    match preset {
        Preset::Connmix => "connmix",
        Preset::CommonResult => "common-result",
        Preset::Rfc7662 => "rfc7662",
    }
}

fn condition<const N: usize>(place: &str, values: [Accepted; N]) -> Conditions {
    BTreeMap::from([(place.to_owned(), values.into())])
}
