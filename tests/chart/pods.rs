//! Rules of an API server that no schema knows: security, selectors, names, times.

use serde_yaml_ng::Value;

use crate::helm::{find, list, matrix, pods, with};

#[test]
fn every_pod_is_restricted_and_has_no_token() {
    for (file, objects) in matrix("restricted pods").unwrap_or_default() {
        let pods = pods(&objects);
        assert!(pods.len() >= 3, "{file}: {} pods", pods.len());
        for pod in pods {
            let (spec, at) = (&pod["spec"], format!("{file}: {:?}", pod["metadata"]["labels"]));
            let security = &spec["securityContext"];
            assert_eq!(security["runAsNonRoot"], true, "{at}");
            assert_eq!(security["runAsUser"], 65532, "{at}");
            assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{at}");
            assert_eq!(spec["automountServiceAccountToken"], false, "{at}");
            assert!(spec["hostNetwork"].is_null() && spec["hostPID"].is_null(), "{at}");
            for container in list(&spec["containers"]) {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false, "{at}");
                assert_eq!(security["readOnlyRootFilesystem"], true, "{at}");
                assert_eq!(list(&security["capabilities"]["drop"]), [Value::from("ALL")], "{at}");
                assert!(container["resources"]["limits"]["cpu"].is_null(), "{at}: a CPU limit stalls");
                assert!(!container["resources"]["limits"]["memory"].is_null(), "{at}");
                for port in list(&container["ports"]) {
                    assert!(port["name"].as_str().is_some_and(|name| name.len() <= 15), "{at}: {port:?}");
                }
            }
        }
    }
}

#[test]
fn no_pod_is_killed_before_it_has_left() {
    for (file, objects) in matrix("graces").unwrap_or_default() {
        for pod in pods(&objects) {
            let grace = pod["spec"]["terminationGracePeriodSeconds"].as_u64();
            for container in list(&pod["spec"]["containers"]) {
                let Some(sleep) = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64() else {
                    continue;
                };
                assert!(grace.is_some_and(|grace| grace > sleep + 5), "{file}: {grace:?}, sleep {sleep}");
            }
        }
    }
}

#[test]
fn selectors_match_the_labels_of_pods_and_names_are_texts() {
    for (file, objects) in matrix("selectors").unwrap_or_default() {
        for object in &objects {
            let name = object["metadata"]["name"].as_str();
            assert!(name.is_some_and(|name| name.len() <= 253), "{file}: {name:?}");
            let labels = &object["spec"]["template"]["metadata"]["labels"];
            if let Some(selector) = object["spec"]["selector"]["matchLabels"].as_mapping()
                && labels.is_mapping()
            {
                for (key, value) in selector {
                    assert_eq!(&labels[key], value, "{file}: {name:?}");
                }
            }
            if object["kind"] == "PodDisruptionBudget" {
                let spec = &object["spec"];
                assert_ne!(spec["minAvailable"].is_null(), spec["maxUnavailable"].is_null(), "{file}");
            }
            assert!(
                !object["kind"].as_str().is_some_and(|kind| kind.contains("Role")),
                "{file}: no rights at the API are needed"
            );
        }
    }
}

#[test]
fn secrets_are_neither_in_config_maps_nor_in_values_of_variables() {
    for (file, objects) in matrix("secrets").unwrap_or_default() {
        for object in &objects {
            if object["kind"] == "ConfigMap" {
                let text = serde_yaml_ng::to_string(object).expect("it was YAML");
                // `request.token` says where tokens stand, not what they are.
                let text = ["json", "form", "header", "query"]
                    .iter()
                    .fold(text, |text, place| text.replace(&format!("token = \"{place}:"), ""));
                for word in ["mck_", "password =", "token =", "hash ="] {
                    assert!(!text.contains(word), "{file}: {word} in a ConfigMap");
                }
            }
        }
        for pod in pods(&objects) {
            for container in list(&pod["spec"]["containers"]) {
                for variable in list(&container["env"]) {
                    let name = variable["name"].as_str().expect("it has a name");
                    let secret =
                        ["PASSWORD", "TOKEN", "HEADERS", "USER"].iter().any(|word| name.contains(word));
                    let by_reference = !variable["valueFrom"]["secretKeyRef"].is_null();
                    assert_eq!(secret, by_reference, "{file}: {name}");
                }
            }
        }
    }
}

/// The chart's Secret also holds the plain key, which grants everything.
#[test]
fn publisher_api_mounts_hashes_of_keys_and_nothing_else_of_their_secret() {
    for sets in [&[][..], &["publisherApi.keys.existingSecret=k"]] {
        let Some(objects) = with("keys", sets) else { return };
        let mounts = objects.iter().filter(|object| object["kind"] == "Deployment").flat_map(|object| {
            list(&object["spec"]["template"]["spec"]["volumes"])
                .iter()
                .filter(|volume| volume["name"] == "keys")
                .map(|volume| (object["metadata"]["labels"]["app.kubernetes.io/component"].clone(), volume))
        });
        let mounts: Vec<_> = mounts.collect();
        assert_eq!(mounts.len(), 1, "{mounts:?}");
        assert_eq!(mounts[0].0, "publisher-api");
        let items = list(&mounts[0].1["secret"]["items"]);
        let keys: Vec<_> = items.iter().map(|item| item["key"].as_str().unwrap_or_default()).collect();
        assert_eq!(keys, ["keys.toml"], "{:?}", mounts[0]);
    }
}

/// A session on a channel without login may stay without a token, so only `test.enabled` adds such a rule.
#[test]
fn by_default_no_channel_is_there_for_strangers() {
    for (sets, rules) in [(&[][..], 0), (&["test.enabled=true"], 2)] {
        let Some(objects) = with("strangers", sets) else { return };
        let configs = objects.iter().filter(|object| object["kind"] == "ConfigMap");
        let texts =
            configs.flat_map(|object| object["data"].as_mapping().into_iter().flat_map(|data| data.values()));
        let open =
            texts.filter_map(|text| text.as_str()).filter(|text| text.contains("login = false")).count();
        assert_eq!(open, rules, "{sets:?}");
    }
}

#[test]
fn what_the_store_may_take_of_the_memory_goes_by_its_limit() {
    const GIB: u64 = 1 << 30;
    for (sets, expected) in [
        (&[][..], (2 * GIB).to_string()),
        (&["bus.resources.limits.memory=16Gi"], (8 * GIB).to_string()),
        (&["bus.maxMemory=3GiB"], "3GiB".to_owned()),
    ] {
        let Some(objects) = with("the memory of the store", sets) else { return };
        let config = find(&objects, "ConfigMap", "-bus")["data"]["config.toml"].as_str().expect("a text");
        let key = config.lines().find_map(|line| line.strip_prefix("max_memory = "));
        assert_eq!(key.map(|value| value.trim_matches('"')), Some(expected.as_str()), "{config}");
    }
    let sets = ["bus.resources.limits.memory=null"];
    let Some(objects) = with("the memory of the store", &sets) else { return };
    let config = find(&objects, "ConfigMap", "-bus")["data"]["config.toml"].as_str().expect("a text");
    assert!(!config.contains("max_memory"), "without a limit the program's own default holds: {config}");
}
