//! The schema of the values takes no key that it does not list, and no value of a wrong kind, at any level.

use std::process::Output;

use harness::tools;
use serde_json::{Map, Value, json};

use crate::helm::{HELMS, NEEDED, chart, run};

fn schema() -> Value {
    let text = std::fs::read_to_string(chart().join("values.schema.json")).expect("it is there");
    serde_json::from_str(&text).expect("it is JSON")
}

/// The paths of all tables that list keys, and of all leaves with their schemas.
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
    // helm itself keeps a table where something else is given; the url is set beside.
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
