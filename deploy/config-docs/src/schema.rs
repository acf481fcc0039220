//! Reads from a JSON Schema the type of a key in words, its doc comment, and the keys below it.

use serde_json::Value;

/// Returns the doc comment of the key or table at a dotted path, with the line breaks of the source.
pub(super) fn description(schema: &Value, path: &str) -> String {
    let text = at(schema, path).and_then(|schema| schema.get("description")).and_then(Value::as_str);
    text.unwrap_or_default().trim().to_owned()
}

/// Returns the keys of a table, or of the tables of a list.
pub(super) fn names(schema: &Value, path: &str) -> Vec<String> {
    let table = at(schema, path).map(entry).and_then(|schema| schema.get("properties"));
    table.and_then(Value::as_object).map(|keys| keys.keys().cloned().collect()).unwrap_or_default()
}

/// Returns the type of a key in words.
pub(super) fn kind(schema: &Value, path: &str) -> String {
    at(schema, path).map(words).unwrap_or_default()
}

fn at<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(schema, |schema, name| entry(schema).get("properties")?.get(name))
}

/// Returns the schema of a list's entries, or `schema` itself if it is no list.
fn entry(schema: &Value) -> &Value {
    schema.get("items").unwrap_or(schema)
}

fn words(schema: &Value) -> String {
    let choices = choices(schema);
    if !choices.is_empty() {
        return choices.iter().map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(" or ");
    }
    if let Some(format @ ("time" | "size" | "secret" | "value")) =
        schema.get("format").and_then(Value::as_str)
    {
        return format.to_owned();
    }
    match main_type(schema) {
        "boolean" => "`true` or `false`".to_owned(),
        "integer" => "whole number".to_owned(),
        "number" => "number".to_owned(),
        "string" => "text".to_owned(),
        "array" => match words(entry(schema)) {
            entry if entry.is_empty() => "list".to_owned(),
            entry => format!("list of {entry}"),
        },
        "object" => match schema.get("additionalProperties").map(words) {
            Some(value) if !value.is_empty() => format!("table of {value}"),
            Some(_) | None => "table".to_owned(),
        },
        _ => String::new(),
    }
}

/// Returns the type; for an optional key, the type that is not null.
fn main_type(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::Array(types)) => {
            types.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or_default()
        }
        Some(one) => one.as_str().unwrap_or_default(),
        None => "",
    }
}

/// Returns the names of an enum, whether or not its variants have doc comments, or the key is optional.
fn choices(schema: &Value) -> Vec<&str> {
    if let Some(names) = schema.get("enum").and_then(Value::as_array) {
        return names.iter().filter_map(Value::as_str).collect();
    }
    let several =
        schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array).into_iter().flatten();
    several.flat_map(|one| one.get("const").and_then(Value::as_str).into_iter().chain(choices(one))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_are_described_in_words() {
        let schema = json!({ "properties": { "edge": { "description": " Sockets.\n", "properties": {
            "time": { "type": "string", "format": "time" },
            "rate": { "type": ["integer", "null"], "format": "uint32" },
            "names": { "type": "array", "items": { "type": "string" } },
            "headers": { "type": "object", "additionalProperties": { "type": "string", "format": "secret" } },
            "policy": { "oneOf": [{ "const": "a" }, { "enum": ["b", "c"] }] },
            "method": { "anyOf": [{ "oneOf": [{ "const": "GET" }] }, { "type": "null" }] },
            "ok": { "type": ["object", "null"], "additionalProperties": { "type": "array", "items": {
                "type": ["string", "integer", "boolean"], "format": "value"
            } } },
            "keys": { "type": "array", "items": { "type": "object", "properties": { "on": { "type": "boolean" } } } },
        } } } });
        for (path, words) in [
            ("edge.time", "time"),
            ("edge.rate", "whole number"),
            ("edge.names", "list of text"),
            ("edge.headers", "table of secret"),
            ("edge.method", "`GET`"),
            ("edge.ok", "table of list of value"),
            ("edge.policy", "`a` or `b` or `c`"),
            ("edge.keys", "list of table"),
            ("edge.keys.on", "`true` or `false`"),
            ("edge.nothing", ""),
        ] {
            assert_eq!(kind(&schema, path), words, "{path}");
        }
        assert_eq!(description(&schema, "edge"), "Sockets.");
        assert_eq!(names(&schema, "edge.keys"), ["on"]);
    }
}
