//! What the chart's `values.schema.json` says of the program's own keys, made from the types that read them.
//!
//! So a key that is new here can be given to `helm install` at once, and a misspelled one is refused before anything is
//! installed. Keys that the chart sets itself, and secrets, are no values.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::schema;

/// The file, relative to the repository.
pub(super) const PATH: &str = "deploy/helm/message-center/values.schema.json";

/// Where in the file a table of the configuration stands, and which of its keys are no values.
const PLACES: [(&str, &str, &[&str]); 6] = [
    (
        "/properties/edge/properties/config",
        "edge",
        &["listen", "admin", "drain_window", "max_sessions", "faults", "tls"],
    ),
    (
        "/properties/publisherApi/properties/config",
        "publisher_api",
        &["listen", "admin", "grace", "keys", "keys_file", "insecure", "faults", "tls"],
    ),
    (
        "/properties/authAdapter/properties/config",
        "auth_adapter",
        &["url", "admin", "grace", "headers", "tls"],
    ),
    (
        "/properties/bus/properties/config",
        "bus",
        &["url", "user", "password", "token", "listen", "admin", "insecure", "tls", "store"],
    ),
    ("/properties/history", "history", &[]),
    ("/properties/channels/items", "channels", &[]),
];

/// The file as it must be: `stands`, with the tables of the configuration as they are in the types.
///
/// # Errors
/// `stands` is no JSON or lacks a place, or a secret would become a value.
pub(super) fn file(stands: &str, settings: &Value) -> anyhow::Result<String> {
    let mut values: Value = serde_json::from_str(stands).context(PATH)?;
    for (pointer, section, without) in PLACES {
        let place = values.pointer_mut(pointer).with_context(|| format!("{PATH} has no {pointer}"))?;
        let mut made = table(settings, section, without)?;
        if let Some(required) = place.get("required") {
            made["required"] = required.clone();
        }
        *place = made;
    }
    Ok(serde_json::to_string_pretty(&values).context(PATH)? + "\n")
}

fn table(settings: &Value, path: &str, without: &[&str]) -> anyhow::Result<Value> {
    let mut properties = Map::new();
    for name in schema::names(settings, path).into_iter().filter(|name| !without.contains(&name.as_str())) {
        let below = format!("{path}.{name}");
        let is_table = !schema::names(settings, &below).is_empty();
        let value = if is_table { table(settings, &below, &[])? } else { value(settings, &below)? };
        properties.insert(name, value);
    }
    Ok(json!({ "type": "object", "additionalProperties": false, "properties": properties }))
}

fn value(settings: &Value, path: &str) -> anyhow::Result<Value> {
    of_kind(&schema::kind(settings, path)).with_context(|| path.to_owned())
}

fn of_kind(kind: &str) -> anyhow::Result<Value> {
    if let Some(entry) = kind.strip_prefix("list of ") {
        return Ok(json!({ "type": "array", "items": of_kind(entry)? }));
    }
    Ok(match kind {
        "text" | "time" => json!({ "type": "string" }),
        "size" => json!({ "type": ["string", "integer"] }),
        "whole number" => json!({ "type": "integer", "minimum": 0 }),
        "number" => json!({ "type": "number" }),
        "`true` or `false`" => json!({ "type": "boolean" }),
        "secret" => bail!("a secret can't be a value of the chart: leave it out in config-docs/src/chart.rs"),
        names if names.starts_with('`') => {
            let names: Vec<_> = names.split(" or ").map(|name| name.trim_matches('`')).collect();
            json!({ "type": "string", "enum": names })
        }
        other => bail!("{other:?} has no schema: add it in config-docs/src/chart.rs"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_schemas_and_secrets_have_none() {
        assert_eq!(
            of_kind("list of time").unwrap(),
            json!({ "type": "array", "items": { "type": "string" } })
        );
        assert_eq!(of_kind("`a` or `b-c`").unwrap(), json!({ "type": "string", "enum": ["a", "b-c"] }));
        assert_eq!(of_kind("`true` or `false`").unwrap(), json!({ "type": "boolean" }));
        assert!(of_kind("list of secret").is_err());
        assert!(of_kind("").is_err());
    }

    #[test]
    fn tables_keep_what_is_required_and_drop_what_the_chart_sets() {
        let settings = super::super::schema();
        let place = json!({ "type": "object", "required": ["name"] });
        let mut stands = json!({ "properties": { "channels": { "items": place }, "history": {} } });
        for part in ["edge", "publisherApi", "authAdapter", "bus"] {
            stands["properties"][part] = json!({ "properties": { "config": {} } });
        }
        let made: Value = serde_json::from_str(&file(&stands.to_string(), &settings).unwrap()).unwrap();
        assert_eq!(made["properties"]["channels"]["items"]["required"], json!(["name"]));
        let edge = &made["properties"]["edge"]["properties"]["config"]["properties"];
        assert_eq!(edge["outbox"], json!({ "type": ["string", "integer"] }));
        assert!(edge.get("listen").is_none() && edge.get("tls").is_none());
        assert!(file("{}", &settings).is_err());
    }
}
