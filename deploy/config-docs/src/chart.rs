//! The program's own keys in the chart's `values.schema.json`, made from the types that read the
//! configuration.
//!
//! So `helm install` accepts a new key at once, and refuses a misspelled key before anything is installed.
//! Keys that the chart sets itself, and secrets, are no values.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::schema;

/// The path of the file, relative to the repository.
pub(super) const PATH: &str = "deploy/helm/message-center/values.schema.json";

/// A table of the configuration within the file.
struct Table {
    /// The JSON pointer of the table in the file.
    pointer: &'static str,
    /// The section of the configuration.
    section: &'static str,
    /// Keys of the section that are no values of the chart; dotted below a table.
    without: &'static [&'static str],
}

/// Texts of an earlier version that the schema lets pass, so that the chart's own check can name the new key.
const MOVED: [(&str, &str); 1] = [("auth_adapter", "body")];

const TABLES: [Table; 7] = [
    Table {
        pointer: "/properties/edge/properties/config",
        section: "edge",
        without: &["listen", "admin", "drain_window", "max_sessions", "faults", "tls"],
    },
    Table {
        pointer: "/properties/publisherApi/properties/config",
        section: "publisher_api",
        without: &["listen", "admin", "grace", "keys", "keys_file", "insecure", "faults", "tls"],
    },
    Table {
        pointer: "/properties/authAdapter/properties/config",
        section: "auth_adapter",
        without: &["url", "admin", "grace", "headers", "tls", "jwt.secret", "jwt.public_keys", "jwt.jwks_ca"],
    },
    Table {
        pointer: "/properties/bus/properties/config",
        section: "bus",
        without: &["url", "user", "password", "token", "listen", "admin", "insecure", "tls", "store"],
    },
    Table { pointer: "/properties/history", section: "history", without: &[] },
    Table { pointer: "/properties/login", section: "login", without: &[] },
    Table { pointer: "/properties/channels/items", section: "channels", without: &[] },
];

/// Returns the file as it must be: `current`, with the tables of the configuration made anew from the types.
///
/// # Errors
/// Fails if `current` is no JSON or lacks a table, or if a secret would become a value.
pub(super) fn file(current: &str, settings: &Value) -> anyhow::Result<String> {
    let mut values: Value = serde_json::from_str(current).context(PATH)?;
    for Table { pointer, section, without } in TABLES {
        let old = values.pointer_mut(pointer).with_context(|| format!("{PATH} has no {pointer}"))?;
        let mut new = table(settings, section, without)?;
        if let Some(required) = old.get("required") {
            new["required"] = required.clone();
        }
        *old = new;
    }
    Ok(serde_json::to_string_pretty(&values).context(PATH)? + "\n")
}

fn table(settings: &Value, path: &str, without: &[&str]) -> anyhow::Result<Value> {
    let mut properties = Map::new();
    for name in schema::names(settings, path).into_iter().filter(|name| !without.contains(&name.as_str())) {
        let below = format!("{path}.{name}");
        let is_table = !schema::names(settings, &below).is_empty();
        let nested: Vec<_> = without.iter().filter_map(|key| key.strip_prefix(&format!("{name}."))).collect();
        let value = if is_table { table(settings, &below, &nested)? } else { value(settings, &below)? };
        properties.insert(name, value);
    }
    for (_, old) in MOVED.iter().filter(|(section, _)| *section == path) {
        properties.insert((*old).to_owned(), json!({ "type": "string" }));
    }
    Ok(json!({ "type": "object", "additionalProperties": false, "properties": properties }))
}

fn value(settings: &Value, path: &str) -> anyhow::Result<Value> {
    of_kind(&schema::kind(settings, path)).with_context(|| path.to_owned())
}

fn of_kind(kind: &str) -> anyhow::Result<Value> {
    if let Some(entry) = kind.strip_prefix("table of ") {
        return Ok(json!({ "type": "object", "additionalProperties": of_kind(entry)? }));
    }
    if let Some(entry) = kind.strip_prefix("list of ") {
        return Ok(json!({ "type": "array", "items": of_kind(entry)? }));
    }
    Ok(match kind {
        "text" | "time" => json!({ "type": "string" }),
        "size" => json!({ "type": ["string", "integer"] }),
        "whole number" => json!({ "type": "integer", "minimum": 0 }),
        "value" => json!({ "type": ["string", "integer", "boolean"] }),
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
        let values = json!({ "type": "array", "items": { "type": ["string", "integer", "boolean"] } });
        let table = json!({ "type": "object", "additionalProperties": values });
        assert_eq!(of_kind("table of list of value").unwrap(), table);
        assert!(of_kind("list of secret").is_err() && of_kind("table of secret").is_err());
        assert!(of_kind("").is_err());
    }

    #[test]
    fn tables_preserve_required_keys_and_drop_keys_that_the_chart_sets() {
        let settings = super::super::schema();
        let items = json!({ "type": "object", "required": ["name"] });
        let mut current =
            json!({ "properties": { "channels": { "items": items }, "history": {}, "login": {} } });
        for part in ["edge", "publisherApi", "authAdapter", "bus"] {
            current["properties"][part] = json!({ "properties": { "config": {} } });
        }
        let made: Value = serde_json::from_str(&file(&current.to_string(), &settings).unwrap()).unwrap();
        assert_eq!(made["properties"]["channels"]["items"]["required"], json!(["name"]));
        let edge = &made["properties"]["edge"]["properties"]["config"]["properties"];
        assert_eq!(edge["outbox"], json!({ "type": ["string", "integer"] }));
        assert!(edge.get("listen").is_none() && edge.get("tls").is_none());
        assert!(file("{}", &settings).is_err());
    }
}
