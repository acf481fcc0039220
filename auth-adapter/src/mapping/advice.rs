//! Advice for operators: keys to set, so that an answer is understood.

use serde_json::Value;
use shared::ids::Uid;

use super::decide::means_yes;
use super::{Mapping, presets};

/// Places where business systems often put the user, the likeliest first.
const LIKELY_USERS: [&str; 16] = [
    "/uid",
    "/data/uid",
    "/data/user_id",
    "/data/userId",
    "/data/id",
    "/data/user/id",
    "/user_id",
    "/userId",
    "/user/id",
    "/user/uid",
    "/user/userId",
    "/result/uid",
    "/result/id",
    "/id",
    "/sub",
    "/username",
];

/// Says what to set for an answer without a user at the configured places.
pub(super) fn on_user(mapping: &Mapping, answer: &Value) -> String {
    let user = LIKELY_USERS
        .iter()
        .find(|place| answer.pointer(place).is_some_and(|value| Uid::from_json(value).is_ok()));
    let preset = preset(mapping, answer);
    match (user, preset) {
        (Some(place), Some(preset)) => {
            format!("set auth_adapter.answer.uid = [\"{place}\"], or auth_adapter.preset = \"{preset}\"")
        }
        (Some(place), None) => format!("set auth_adapter.answer.uid = [\"{place}\"]"),
        (None, Some(preset)) => format!("set auth_adapter.preset = \"{preset}\""),
        (None, None) => {
            "if this token is good, set auth_adapter.answer.uid to where the answer has the user".to_owned()
        }
    }
}

/// Returns the name of a preset that understands this answer.
fn preset(mapping: &Mapping, answer: &Value) -> Option<&'static str> {
    let others = presets::ALL.into_iter().filter(|preset| *preset != mapping.preset);
    others
        .filter(|preset| Mapping::of_preset(*preset).is_some_and(|other| means_yes(&other, answer)))
        .map(presets::name)
        .next()
}

/// Says what to look at for a status that is neither yes nor no.
pub(super) fn on_status(status: u16) -> &'static str {
    match status {
        301..=399 => "redirects are not followed: set auth_adapter.url to where the check is",
        401 | 403 => "add it to auth_adapter.refusals if it refuses tokens",
        404 => "check auth_adapter.url; if 404 refuses tokens, add it to auth_adapter.refusals",
        405 => "it wants another method: set auth_adapter.request.method",
        411..=415 => "it wants the token elsewhere: set auth_adapter.request.token",
        200..=299 => "only status 200 is a yes",
        _ => "look into the log of the business system",
    }
}
