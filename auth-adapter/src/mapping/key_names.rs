//! The names of the keys in an answer, without their values: bounded, and without the token.

use serde_json::Value;
use shared::ids::Uid;

use crate::pointer::{self, Pointer};

/// The most names that are told.
const MAX_NAMES: usize = 20;
/// The most bytes of a name.
const MAX_NAME: usize = 64;
/// The deepest key that is told.
const MAX_DEPTH: usize = 4;
/// The text in place of a name that contains the token, and of a hidden value.
const MASK: &str = "***";

/// Returns the places of the values in an answer, as pointers.
pub(super) fn of(answer: &Value, token: &str) -> String {
    if !answer.is_object() {
        return format!("the answer is no object, but {}", kind(answer));
    }
    let mut names = Vec::new();
    collect(answer, String::new(), 0, token, &mut names);
    let more = if names.len() > MAX_NAMES { " and more" } else { "" };
    names.truncate(MAX_NAMES);
    if names.is_empty() {
        "the answer has no keys".into()
    } else {
        format!("keys there: {}{more}", names.join(" "))
    }
}

/// Collects one name more than may be told, so that the reader learns that there are more.
fn collect(value: &Value, way: String, depth: usize, token: &str, names: &mut Vec<String>) {
    match value {
        _ if names.len() > MAX_NAMES => {}
        Value::Object(keys) if depth < MAX_DEPTH && !(keys.is_empty() && depth > 0) => {
            for (key, value) in keys {
                collect(value, format!("{way}/{}", name(key, token)), depth + 1, token, names);
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            names.push(shorten(&way));
        }
    }
}

fn name(key: &str, token: &str) -> String {
    if contains(key, token) { MASK.to_owned() } else { pointer::escape(key).escape_debug().to_string() }
}

fn contains(text: &str, token: &str) -> bool {
    !token.is_empty() && text.contains(token)
}

fn shorten(name: &str) -> String {
    if name.len() <= MAX_NAME {
        name.to_owned()
    } else {
        format!("{}…", &name[..name.floor_char_boundary(MAX_NAME)])
    }
}

/// Returns the kind of a value in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Returns an answer as a person may see it: every value is masked, except a user at the first of the places
/// `shown` that exists. `None`: the body is no JSON.
pub(super) fn masked(body: &[u8], shown: &[Pointer], token: &str) -> Option<String> {
    let body = body.strip_prefix(super::decide::BYTE_ORDER_MARK).unwrap_or(body);
    let answer: Value = serde_json::from_slice(body).ok()?;
    let mut masked = mask(&answer, token);
    let user = shown.iter().find_map(|place| Some((place, place.of(&answer)?)));
    let open =
        user.filter(|(_, value)| Uid::from_json(value).is_ok_and(|uid| !contains(uid.as_str(), token)));
    if let Some((place, value)) = open
        && let Some(hidden) = masked.pointer_mut(place.as_str())
    {
        *hidden = value.clone();
    }
    Some(masked.to_string())
}

fn mask(value: &Value, token: &str) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::Bool(_) | Value::Number(_) | Value::String(_) => MASK.into(),
        Value::Array(entries) => entries.iter().map(|entry| mask(entry, token)).collect(),
        Value::Object(keys) => {
            let name = |key: &String| if contains(key, token) { MASK.to_owned() } else { key.clone() };
            keys.iter().map(|(key, value)| (name(key), mask(value, token))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_pointers_and_values_are_not_told() {
        let answer =
            json!({ "code": 0, "data": { "uid": 7, "a/b": [1, { "x": 2 }], "o": {} }, "msg": "secret" });
        assert_eq!(of(&answer, "t0k3n"), "keys there: /code /data/a~1b /data/o /data/uid /msg");
        assert_eq!(of(&json!({}), "t"), "the answer has no keys");
        assert_eq!(of(&json!([{ "uid": 1 }]), "t"), "the answer is no object, but a list");
        assert_eq!(of(&json!(null), "t"), "the answer is no object, but null");
        let deep = json!({ "a": { "b": { "c": { "d": { "e": 1 } } } } });
        assert_eq!(of(&deep, "t"), "keys there: /a/b/c/d");
        assert_eq!(of(&json!({ "a\nb": 1 }), "t"), "keys there: /a\\nb", "one line");
    }

    #[test]
    fn names_are_bounded_in_number_and_length() {
        let many: serde_json::Map<_, _> = (0..100).map(|n| (format!("k{n:03}"), json!(n))).collect();
        let told = of(&Value::Object(many), "t");
        assert!(told.ends_with("/k019 and more") && told.matches("/k").count() == MAX_NAMES, "{told}");
        let told = of(&json!({ ("ü".repeat(100)): 1 }), "t");
        assert!(told.ends_with('…') && told.len() < MAX_NAME + 30, "{told}");
    }

    #[test]
    fn a_name_with_the_token_is_masked() {
        let answer = json!({ "tokens": { "abc.def": { "uid": 1 } }, "x-abc.def-y": 2 });
        assert_eq!(of(&answer, "abc.def"), "keys there: /tokens/***/uid /***");
    }

    #[test]
    fn a_masked_answer_shows_the_user_alone() {
        let places = ["/data/uid", "/data"].map(|place| Pointer::parse(place).unwrap());
        let of = |body: &str, token: &str| masked(body.as_bytes(), &places, token);
        let body = r#"{"code":0,"data":{"uid":1001,"phone":"555"},"list":["a",null],"tok":true}"#;
        let shown = r#"{"code":"***","data":{"phone":"***","uid":1001},"list":["***",null],"tok":"***"}"#;
        assert_eq!(of(body, "t0k3n"), Some(shown.into()));
        let both = r#"{"data":{"uid":7,"id":"3101"}}"#;
        let places = ["/data/uid", "/data/id"].map(|place| Pointer::parse(place).unwrap());
        let shown = masked(both.as_bytes(), &places, "t0k3n");
        assert_eq!(shown, Some(r#"{"data":{"id":"***","uid":7}}"#.into()), "the user stands at the first");
        assert_eq!(of("<html>", "t"), None);
        assert_eq!(of(r#"{"data":{"uid":"t0k"}}"#, "t0k"), Some(r#"{"data":{"uid":"***"}}"#.into()));
        let quoted = of(r#"{"data":{"uid":"ab\"cd"}}"#, "ab\"cd");
        assert_eq!(quoted, Some(r#"{"data":{"uid":"***"}}"#.into()), "also where JSON writes it otherwise");
        assert_eq!(of(r#"{"a-t0k":1}"#, "t0k"), Some(r#"{"***":"***"}"#.into()));
    }

    proptest! {
        #[test]
        fn no_text_about_an_answer_holds_the_token(
            token in "[A-Za-z0-9]{12,20}",
            keys in prop::collection::vec(("[a-z]{0,4}", any::<bool>(), "[a-z]{0,70}"), 0..30),
        ) {
            let name = |(front, hit, back): &(String, bool, String)| {
                if *hit { format!("{front}{token}{back}") } else { format!("{front}{back}") }
            };
            let inner: serde_json::Map<_, _> = keys.iter().map(|key| (name(key), json!(token))).collect();
            let answer = json!({ "data": inner });
            prop_assert!(!of(&answer, &token).contains(&token));
            let masked = masked(answer.to_string().as_bytes(), &[], &token).unwrap();
            prop_assert!(!masked.contains(&token));
        }
    }
}
