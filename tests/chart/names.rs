//! Names and labels that an API server accepts for any release name, without duplicates; and fields that
//! never change.

use std::collections::BTreeSet;

use harness::tools;
use serde_yaml_ng::{Mapping, Value};

use crate::helm::{HELMS, NEEDED, find, list, matrix, pods, release};

/// Release names at their limits: 53 characters, two with a common beginning, a dot, the default.
const RELEASES: [&str; 4] = [
    "a123456789b123456789c123456789d123456789e123456789f12",
    "a123456789b123456789c123456789d123456789e123456789f13",
    "push.v2",
    "message-center",
];

fn is_label(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.is_empty()
        || (text.len() <= 63
            && ends(text.chars().next())
            && ends(text.chars().last())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)))
}

/// Whether the name is a DNS label that begins with a letter, as a Service needs.
fn is_service_name(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn labels(map: &Value) -> impl Iterator<Item = (&str, &str)> {
    let map = map.as_mapping().into_iter().flat_map(Mapping::iter);
    map.map(|(key, value)| (key.as_str().expect("a text"), value.as_str().expect("labels are texts")))
}

fn well_named(at: &str, objects: &[Value]) {
    let mut seen = BTreeSet::new();
    for object in objects {
        let (kind, name) = (object["kind"].as_str().expect("a kind"), object["metadata"]["name"].as_str());
        let name = name.unwrap_or_else(|| panic!("{at}: {kind} has a name that is no text"));
        assert!(seen.insert((kind, name)), "{at}: {kind} {name} twice");
        match kind {
            "Service" => assert!(is_service_name(name), "{at}: {kind} {name}"),
            // Leaves characters for the hash and the number in pod names.
            "Deployment" => assert!(name.len() <= 57 && is_service_name(name), "{at}: {kind} {name}"),
            // Leaves characters for the hash in the pods' label controller-revision-hash, too.
            "StatefulSet" => assert!(name.len() <= 52 && is_service_name(name), "{at}: {kind} {name}"),
            _ => assert!(name.len() <= 253, "{at}: {kind} {name}"),
        }
        for (key, value) in labels(&object["metadata"]["labels"])
            .chain(labels(&object["spec"]["template"]["metadata"]["labels"]))
        {
            assert!(is_label(value), "{at}: {kind} {name}: label {key}={value}");
        }
        for port in list(&object["spec"]["ports"]).iter().filter(|_| kind == "Service") {
            assert!(port["name"].as_str().is_some_and(|name| name.len() <= 15), "{at}: {name}: {port:?}");
        }
    }
}

#[test]
fn names_fit_and_differ_however_the_release_is_called() {
    let Some(helm) = tools::find(HELMS[1], "names") else { return };
    let mut services = BTreeSet::new();
    for name in RELEASES {
        let objects = release(&helm, name, &NEEDED);
        well_named(name, &objects);
        let service =
            find(&objects, "Service", "-edge")["metadata"]["name"].as_str().expect("a name").to_owned();
        assert!(services.insert(service.clone()), "{service} twice");
        // The longest name of a StatefulSet.
        let mut arguments = NEEDED.to_vec();
        arguments.extend(["--set", "bus.ephemeral=true"]);
        well_named(name, &release(&helm, name, &arguments));
    }
    for (file, objects) in matrix("names of each values file").unwrap_or_default() {
        well_named(&file, &objects);
    }
}

#[test]
fn a_release_that_begins_with_a_digit_is_told_what_to_do() {
    for variable in HELMS {
        let Some(helm) = tools::find(variable, "digits") else { return };
        let output = crate::helm::run(&helm, &["template", "2push"], &NEEDED);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("set fullnameOverride"), "{error}");
        let mut arguments = NEEDED.to_vec();
        arguments.extend(["--set", "fullnameOverride=push2"]);
        well_named("2push", &release(&helm, "2push", &arguments));
    }
}

#[test]
fn nothing_stands_twice_in_a_pod() {
    for (file, objects) in matrix("doubles").unwrap_or_default() {
        for pod in pods(&objects) {
            let once = |what: &str, entries: &[Value], key: &str| {
                let mut seen = BTreeSet::new();
                for entry in entries {
                    let name = entry[key].as_str().unwrap_or_else(|| panic!("{file}: {what} without {key}"));
                    assert!(seen.insert(name), "{file}: {what} {name} twice");
                }
            };
            let containers = list(&pod["spec"]["containers"]);
            once("container", containers, "name");
            once("volume", list(&pod["spec"]["volumes"]), "name");
            let volumes: Vec<_> =
                list(&pod["spec"]["volumes"]).iter().map(|volume| &volume["name"]).collect();
            for container in containers {
                once("variable", list(&container["env"]), "name");
                once("mount", list(&container["volumeMounts"]), "mountPath");
                once("port", list(&container["ports"]), "name");
                for mount in list(&container["volumeMounts"]) {
                    // The claim of a StatefulSet is a volume, too.
                    let name = &mount["name"];
                    assert!(volumes.contains(&name) || name == "data", "{file}: no volume {name:?}");
                }
                for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                    let port = &container[probe]["httpGet"]["port"];
                    let is_named = list(&container["ports"]).iter().any(|named| &named["name"] == port);
                    assert!(port.is_null() || is_named, "{file}: {probe} asks {port:?}");
                }
            }
        }
    }
}

#[test]
fn services_monitors_and_scalers_point_at_what_is_there() {
    for (file, objects) in matrix("pointers").unwrap_or_default() {
        let pods = pods(&objects);
        let selected = |selector: &Value| {
            let fits =
                |pod: &&&Value| labels(selector).all(|(key, value)| pod["metadata"]["labels"][key] == value);
            pods.iter().filter(fits).copied().collect::<Vec<_>>()
        };
        for object in &objects {
            let (kind, spec) = (object["kind"].as_str().unwrap_or_default(), &object["spec"]);
            let at = format!("{file}: {kind} {:?}", object["metadata"]["name"]);
            match kind {
                "Service" => {
                    let pods = selected(&spec["selector"]);
                    assert!(!pods.is_empty(), "{at} selects nothing");
                    for port in list(&spec["ports"]) {
                        let has = |pod: &&Value| {
                            list(&pod["spec"]["containers"][0]["ports"])
                                .iter()
                                .any(|named| named["name"] == port["targetPort"])
                        };
                        // The Service for metrics also selects the pod of `helm test`, which is never ready.
                        let test =
                            |pod: &&Value| pod["metadata"]["labels"]["app.kubernetes.io/component"] == "test";
                        assert!(pods.iter().all(|pod| has(pod) || test(pod)), "{at}: {port:?}");
                    }
                }
                "PodDisruptionBudget" => {
                    assert_eq!(selected(&spec["selector"]["matchLabels"]).len(), 1, "{at}");
                }
                "HorizontalPodAutoscaler" | "ScaledObject" => {
                    let name = &spec["scaleTargetRef"]["name"];
                    let target = objects
                        .iter()
                        .find(|target| target["kind"] == "Deployment" && &target["metadata"]["name"] == name);
                    let target = target.unwrap_or_else(|| panic!("{at}: no Deployment {name:?}"));
                    let (least, most) = if kind == "ScaledObject" {
                        ("minReplicaCount", "maxReplicaCount")
                    } else {
                        ("minReplicas", "maxReplicas")
                    };
                    assert!(
                        spec[least].as_u64() <= spec[most].as_u64() && spec[least].as_u64() >= Some(1),
                        "{at}"
                    );
                    let uses_cpu =
                        list(&spec["metrics"]).iter().any(|metric| metric["resource"]["name"] == "cpu");
                    let cpu =
                        &target["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"];
                    assert!(!uses_cpu || !cpu.is_null(), "{at}: a share of no request");
                }
                _ => {}
            }
        }
    }
}

/// The fields that an API server refuses to change equal those of the first version, for a release called
/// `shop`.
#[test]
fn what_may_never_change_is_as_in_the_first_version() {
    let Some(helm) = tools::find(HELMS[0], "immutable fields") else { return };
    let objects = release(&helm, "shop", &NEEDED);
    for component in ["edge", "publisher-api", "auth-adapter", "bus"] {
        let kind = if component == "bus" { "StatefulSet" } else { "Deployment" };
        let object = find(&objects, kind, component);
        assert_eq!(object["metadata"]["name"], format!("shop-message-center-{component}"));
        let selector: Vec<_> = labels(&object["spec"]["selector"]["matchLabels"]).collect();
        assert_eq!(
            selector,
            [
                ("app.kubernetes.io/name", "message-center"),
                ("app.kubernetes.io/instance", "shop"),
                ("app.kubernetes.io/component", component)
            ]
        );
    }
    let bus = &find(&objects, "StatefulSet", "bus")["spec"];
    assert_eq!(bus["serviceName"], "shop-message-center-bus");
    let claims = list(&bus["volumeClaimTemplates"]);
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0]["metadata"]["name"], "data");
    assert_eq!(claims[0]["spec"]["resources"]["requests"]["storage"], "12Gi");
    assert!(
        claims[0]["metadata"]["labels"]["helm.sh/chart"].is_null(),
        "a version in a claim would change with it"
    );
}
