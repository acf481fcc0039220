//! The schema of the values refuses every unknown key and every value of a wrong type, at any level.

use std::process::Output;

use harness::tools;
use serde_json::{Map, Value, json};

use crate::helm::{HELMS, NEEDED, chart, run};

fn schema() -> Value {
    let text = std::fs::read_to_string(chart().join("values.schema.json")).expect("it is there");
    serde_json::from_str(&text).expect("it is JSON")
}

/// The paths of all tables with listed keys, and of all leaves with their schemas.
fn walk<'a>(
    at: &[&'a str],
    schema: &'a Value,
    tables: &mut Vec<Vec<&'a str>>,
    leaves: &mut Vec<(Vec<&'a str>, &'a Value)>,
) {
    let Some(properties) = schema["properties"].as_object() else {
        leaves.push((at.to_vec(), schema));
        return;
    };
    assert_eq!(schema["additionalProperties"], false, "{at:?} takes any key");
    tables.push(at.to_vec());
    for (key, schema) in properties {
        walk(&[at, &[key.as_str()]].concat(), schema, tables, leaves);
    }
}

fn set(values: &mut Value, path: &[&str], value: Value) {
    let mut place = values;
    for key in path {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[*key];
    }
    *place = value;
}

fn refused(variable: &str, values: &Value) -> Option<String> {
    let helm = tools::find(variable, "schema of the values")?;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), values.to_string()).expect("it can be written");
    let path = file.path().to_string_lossy().into_owned();
    let Output { status, stderr, .. } =
        run(&helm, &["template", "shop"], &[&NEEDED[..], &["-f", &path]].concat());
    assert!(!status.success(), "{variable} takes {values}");
    Some(String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn a_key_that_is_not_listed_is_refused_at_every_level() {
    let schema = schema();
    let (mut tables, mut leaves) = (Vec::new(), Vec::new());
    walk(&[], &schema, &mut tables, &mut leaves);
    assert!(tables.len() >= 45, "only {} tables", tables.len());
    let mut values = json!({});
    for (number, path) in tables.iter().enumerate() {
        set(&mut values, &[path.as_slice(), &[format!("tpyo{number}x").as_str()]].concat(), json!(1));
    }
    for variable in HELMS {
        let Some(error) = refused(variable, &values) else { return };
        for (number, path) in tables.iter().enumerate() {
            assert!(
                error.contains(&format!("tpyo{number}x")),
                "{variable} takes any key in {path:?}: {error}"
            );
        }
    }
}

#[test]
fn a_value_of_a_wrong_kind_is_refused_everywhere() {
    let schema = schema();
    let (mut tables, mut leaves) = (Vec::new(), Vec::new());
    walk(&[], &schema, &mut tables, &mut leaves);
    // helm itself keeps a default table when a value of another type is given. `NEEDED` sets the url.
    leaves.retain(|(path, leaf)| leaf["type"] != "object" && path != &["authAdapter", "url"]);
    assert!(leaves.len() >= 150, "only {} leaves", leaves.len());
    let mut values = json!({});
    for (path, leaf) in &leaves {
        let takes_lists = leaf["type"] == "array";
        set(&mut values, path, if takes_lists { json!("x") } else { json!([["x"]]) });
    }
    for variable in HELMS {
        let Some(error) = refused(variable, &values) else { return };
        for (path, _) in &leaves {
            let (dotted, slashed) = (format!("{}:", path.join(".")), format!("'/{}'", path.join("/")));
            assert!(
                error.contains(&dotted) || error.contains(&slashed),
                "{variable} takes anything at {dotted} {error}"
            );
        }
    }
}

#[test]
fn entries_of_lists_are_closed_too() {
    let cases = [
        (json!({ "channels": [{ "name": "@a", "channel": "a", "histroy": true }] }), "histroy"),
        (json!({ "channels": [{ "name": "@a" }] }), "channel"),
        (json!({ "networkPolicy": { "clients": [{ "podSelectr": {} }] } }), "podSelectr"),
        (json!({ "networkPolicy": { "nats": [{ "ipBlock": { "cdir": "10.0.0.0/8" } }] } }), "cdir"),
        (json!({ "edge": { "httpRoute": { "parentRefs": [{ "nmae": "a" }] } } }), "nmae"),
        (json!({ "edge": { "extraEnv": [{ "name": "A", "valeu": "b" }] } }), "valeu"),
        (json!({ "edge": { "resources": { "limits": { "memory": "2 GB" } } } }), "memory"),
        (json!({ "commonLabels": { "app.kubernetes.io/name": "x" } }), "app.kubernetes.io/name"),
        (json!({ "commonLabels": { "team": "not a label" } }), "team"),
        (json!({ "edge": { "podAnnotations": { "checksum/config": "x" } } }), "checksum/config"),
    ];
    for variable in HELMS {
        for (values, word) in &cases {
            let Some(error) = refused(variable, values) else { return };
            assert!(error.contains(word), "{variable}, {word}: {error}");
        }
    }
}

/// The paths of all required keys.
fn required<'a>(at: &[&'a str], schema: &'a Value, paths: &mut Vec<Vec<&'a str>>) {
    let keys = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    paths.extend(keys.map(|key| [at, &[key]].concat()));
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        required(&[at, &[key.as_str()]].concat(), schema, paths);
    }
}

/// Helm takes `null` as "drop the default", which no template expects.
#[test]
fn null_in_place_of_a_default_is_refused() {
    let schema = schema();
    let mut paths = Vec::new();
    required(&[], &schema, &mut paths);
    let values: Value =
        serde_yaml_ng::from_str(&std::fs::read_to_string(chart().join("values.yaml")).expect("it is there"))
            .expect("it is YAML");
    let mut defaults = Vec::new();
    leaves_of(&[], &values, &schema, &mut defaults);
    for path in &defaults {
        assert!(paths.iter().any(|required| required == path), "{path:?} is not required by the schema");
    }
    assert!(paths.len() >= 200, "only {} keys", paths.len());
    // First all leaves at once, then all top-level tables.
    let is_table = |path: &Vec<&str>| defaults.iter().all(|leaf| leaf != path);
    for tables in [false, true] {
        let mut dropped = json!({});
        let chosen: Vec<_> = paths.iter().filter(|path| is_table(path) == tables).collect();
        // `NEEDED` sets the url.
        let top = |path: &&&Vec<&str>| !tables || (path.len() == 1 && path[0] != "authAdapter");
        for path in chosen.iter().filter(top) {
            set(&mut dropped, path, Value::Null);
        }
        for variable in HELMS {
            let Some(error) = refused(variable, &dropped) else { return };
            for path in chosen.iter().filter(top) {
                let key = path.last().expect("it has a key");
                assert!(error.contains(key), "{variable} takes null for {path:?}: {error}");
            }
        }
    }
}

/// The paths of the leaves of `values`, nulls excepted: every value but tables whose keys the schema lists.
fn leaves_of<'a>(at: &[&'a str], values: &'a Value, schema: &Value, paths: &mut Vec<Vec<&'a str>>) {
    for (key, value) in values.as_object().into_iter().flatten() {
        let path = [at, &[key.as_str()]].concat();
        let schema = &schema["properties"][key];
        match (value.is_null(), schema["properties"].is_object() && key != "config" && key != "history") {
            (true, _) => {}
            (false, true) => leaves_of(&path, value, schema, paths),
            (false, false) => paths.push(path),
        }
    }
}
