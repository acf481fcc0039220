//! Runs helm over the chart and the values files in its folder `ci`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use harness::tools;
use serde_yaml_ng::Value;

/// The variables that name the two helms.
pub(crate) const HELMS: [&str; 2] = ["MC_TEST_HELM3", "MC_TEST_HELM4"];
/// Values that the chart needs to render.
pub(crate) const NEEDED: [&str; 2] = ["--set", "authAdapter.url=https://shop.example.com/websocket_auth"];

/// The chart's folder.
pub(crate) fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/message-center")
}

/// The values files, sorted by name.
pub(crate) fn values_files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(chart().join("ci")).expect("the folder is there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    files.sort();
    assert!(files.len() >= 15, "only {} values files", files.len());
    files
}

/// Runs helm on the chart.
pub(crate) fn run(helm: &Path, command: &[&str], arguments: &[&str]) -> Output {
    let mut helm = Command::new(helm);
    helm.args(command).arg(chart()).args(arguments);
    helm.env("HELM_CACHE_HOME", std::env::temp_dir().join("mc-helm-cache"));
    helm.output().expect("helm can be started")
}

/// The objects that `helm template` renders with these arguments.
///
/// # Panics
/// helm fails.
pub(crate) fn render(helm: &Path, arguments: &[&str]) -> Vec<Value> {
    release(helm, "shop", arguments)
}

/// The objects of a release with another name.
///
/// # Panics
/// helm fails.
pub(crate) fn release(helm: &Path, name: &str, arguments: &[&str]) -> Vec<Value> {
    let output = run(helm, &["template", name], arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    documents(&output.stdout)
}

fn documents(yaml: &[u8]) -> Vec<Value> {
    use serde::Deserialize as _;
    let documents = serde_yaml_ng::Deserializer::from_slice(yaml);
    let values = documents.map(|document| Value::deserialize(document).expect("helm renders YAML"));
    values.filter(|value| !value.is_null()).collect()
}

/// The objects of each values file, rendered once. `None`: this run has no tools.
pub(crate) fn matrix(test: &str) -> Option<Vec<(String, Vec<Value>)>> {
    static RENDERED: OnceLock<Vec<(String, Vec<Value>)>> = OnceLock::new();
    let helm = tools::find(HELMS[0], test)?;
    let render = |file: PathBuf| {
        let name = file.file_name().expect("it has one").to_string_lossy().into_owned();
        (name, render(&helm, &["-f", &file.to_string_lossy()]))
    };
    Some(RENDERED.get_or_init(|| values_files().into_iter().map(render).collect()).clone())
}

/// Renders with the needed values and further `--set`s. `None`: this run has no tools.
pub(crate) fn with(test: &str, sets: &[&str]) -> Option<Vec<Value>> {
    let helm = tools::find(HELMS[0], test)?;
    let mut arguments = NEEDED.to_vec();
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    Some(render(&helm, &arguments))
}

/// The object of this kind whose name ends with `suffix`.
///
/// # Panics
/// There is no such object.
pub(crate) fn find<'a>(objects: &'a [Value], kind: &str, suffix: &str) -> &'a Value {
    let found = objects.iter().find(|object| {
        object["kind"] == kind
            && object["metadata"]["name"].as_str().is_some_and(|name| name.ends_with(suffix))
    });
    found.unwrap_or_else(|| panic!("no {kind} …{suffix}"))
}

/// Metadata and spec of every pod, in workloads and hooks.
pub(crate) fn pods(objects: &[Value]) -> Vec<&Value> {
    let pod = |object: &'_ Value| match object["kind"].as_str() {
        Some("Pod") => Some(true),
        Some("Deployment" | "StatefulSet") => Some(false),
        _ => None,
    };
    let pods = objects.iter().filter_map(|object| {
        pod(object).map(|itself| if itself { object } else { &object["spec"]["template"] })
    });
    pods.collect()
}

/// The elements of a list; none for any other value.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_sequence().map_or(&[], Vec::as_slice)
}
