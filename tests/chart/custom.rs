//! Custom resources against the schemas of their projects: Prometheus operator, KEDA, Gateway API.

use std::path::Path;
use std::process::Command;

use harness::tools;
use serde_yaml_ng::Value;

use crate::helm::matrix;

#[test]
fn every_custom_resource_is_one_that_its_project_knows() {
    let Some(node) = tools::find("MC_TEST_NODE", "custom resources") else { return };
    let Some(packages) = tools::find("MC_TEST_NODE_PATH", "custom resources") else { return };
    let Some(matrix) = matrix("custom resources") else { return };
    let is_custom = |object: &&Value| {
        let api = object["apiVersion"].as_str().unwrap_or_default();
        ["monitoring.coreos.com/", "keda.sh/", "gateway.networking.k8s.io/"]
            .iter()
            .any(|group| api.starts_with(group))
    };
    let objects: Vec<_> = matrix.iter().flat_map(|(_, objects)| objects.iter().filter(is_custom)).collect();
    let kinds: std::collections::BTreeSet<_> =
        objects.iter().filter_map(|object| object["kind"].as_str()).collect();
    for kind in ["HTTPRoute", "ScaledObject", "ServiceMonitor"] {
        assert!(kinds.contains(kind), "no {kind} among {kinds:?}");
    }
    // A wrong object shows that the check finds errors.
    let wrong = serde_json::json!({ "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
        "metadata": { "name": "wrong" }, "spec": { "scaleTargetRef": { "nme": "x" }, "triggers": [] } });
    let output = check(&node, &packages, &serde_json::json!([wrong]));
    assert!(output.contains("wrong: ") && output.ends_with("0 checked\n"), "{output}");
    let output = check(&node, &packages, &serde_json::to_value(&objects).expect("it is JSON"));
    assert_eq!(output, format!("{} checked\n", objects.len()));
}

fn check(node: &Path, packages: &Path, objects: &serde_json::Value) -> String {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), objects.to_string()).expect("it can be written");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("chart/custom.cjs");
    let output = Command::new(node).arg(script).arg(file.path()).env("MC_TEST_NODE_PATH", packages).output();
    let output = output.expect("it can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
