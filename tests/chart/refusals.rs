//! What the chart refuses, and the words with which it does.

use crate::helm::{HELMS, NEEDED, run, values_files};
use harness::tools;

/// `--set` with what the refusal says.
const REFUSALS: [(&[&str], &str); 22] = [
    (&["edeg.replicas=3"], "edeg"),
    (&["edge.replica=3"], "replica"),
    (&["edge.replicas=-1"], "minimum"),
    (&["bus.mode=nats"], "mode"),
    (&["image.digest=latest"], "digest"),
    (&["edge.config.outbux=1KiB"], "outbux"),
    (&["edge.config.listen=0.0.0.0:1"], "listen"),
    (&["bus.config.password=secret"], "password"),
    (&["bus.external.url=nats://user:secret@nats:4222", "bus.mode=external"], "url"),
    (&["edge.ingress.preset=envoy"], "preset"),
    (&["publisherApi.autoscaling.mode=keda"], "mode"),
    (&["history.partition=4"], "partition"),
    (&["authAdapter.url="], "authAdapter.url is empty: set it to where your business system checks tokens"),
    (&["bus.mode=external"], "bus.external.url is empty: set it"),
    (&["bus.external.url=nats://n:4222"], "set bus.mode to external, or leave the url out"),
    (
        &["bus.mode=external", "bus.external.url=nats://n:4222", "bus.ephemeral=true"],
        "leave it out with bus.mode external",
    ),
    (&["edge.terminationGracePeriodSeconds=60"], "with 5 s to spare need 75: raise it, or leave it out"),
    (&["edge.autoscaling.mode=hpa", "edge.autoscaling.maxReplicas=1"], "raise the one or lower the other"),
    (&["edge.autoscaling.mode=keda"], "set edge.autoscaling.keda.prometheusUrl"),
    (&["edge.ingress.enabled=true"], "set edge.ingress.host"),
    (&["edge.httpRoute.enabled=true"], "set edge.httpRoute.parentRefs"),
    (&["publisherApi.keys.existingSecret=k"], "set test.existingSecret, or test.enabled to false"),
];

#[test]
fn what_cannot_work_is_refused_with_what_to_do() {
    for variable in HELMS {
        let Some(helm) = tools::find(variable, "refusals of the chart") else { return };
        for (sets, words) in REFUSALS {
            let mut arguments = NEEDED.to_vec();
            sets.iter().for_each(|set| arguments.extend(["--set", set]));
            let output = run(&helm, &["template", "shop"], &arguments);
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{sets:?} is accepted by {variable}");
            assert!(error.contains(words), "{sets:?}: {error}");
        }
    }
}

#[test]
fn all_faults_are_named_at_once() {
    let Some(helm) = tools::find(HELMS[1], "all faults at once") else { return };
    let output = run(&helm, &["template", "shop"], &["--set", "bus.mode=external,edge.ingress.enabled=true"]);
    let error = String::from_utf8_lossy(&output.stderr);
    for key in ["authAdapter.url", "bus.external.url", "edge.ingress.host"] {
        assert!(error.contains(key), "{key}: {error}");
    }
}

#[test]
fn both_helms_find_nothing_to_complain_about() {
    for variable in HELMS {
        let Some(helm) = tools::find(variable, "helm lint") else { return };
        for file in values_files() {
            let output = run(&helm, &["lint", "--strict"], &["-f", &file.to_string_lossy()]);
            assert!(
                output.status.success(),
                "{}: {}",
                file.display(),
                String::from_utf8_lossy(&output.stdout)
            );
        }
    }
}

#[test]
fn the_schema_is_closed_wherever_it_lists_keys() {
    let text = std::fs::read_to_string(crate::helm::chart().join("values.schema.json")).expect("it is there");
    let schema: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    closed(&schema, "values");
}

fn closed(schema: &serde_json::Value, at: &str) {
    if let Some(properties) = schema["properties"].as_object() {
        assert!(!schema["additionalProperties"].is_null() || at.ends_with("resources"), "{at} takes any key");
        properties.iter().for_each(|(key, schema)| closed(schema, &format!("{at}.{key}")));
    }
}
