//! Install, upgrade, rollback and uninstall, with both helms, against a stand-in for an API server: live
//! state is kept.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use harness::tools;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::helm::HELMS;

const EDGE: &str = "shop-message-center-edge";
const KEYS: &str = "shop-message-center-first-key";
const BUS: &str = "shop-message-center-bus-credentials";

/// One cluster per helm; none if this run has no tools.
fn clusters(test: &str) -> Vec<Cluster> {
    HELMS.iter().filter_map(|variable| tools::find(variable, test)).map(|helm| Cluster::new(&helm)).collect()
}

fn text(secret: &Value, key: &str) -> String {
    let bytes =
        BASE64_STANDARD.decode(secret["data"][key].as_str().expect("it has the key")).expect("it is base64");
    String::from_utf8(bytes).expect("it is text")
}

#[test]
fn switching_autoscaling_on_keeps_the_pods_that_live() {
    for cluster in clusters("live replicas") {
        let replicas = || cluster.get("deployments", EDGE)["spec"]["replicas"].clone();
        cluster.apply("install", &["edge.replicas=5"]);
        assert_eq!(replicas(), 5);
        cluster.apply("upgrade", &["edge.autoscaling.mode=hpa"]);
        assert_eq!(replicas(), 5, "the switch itself must not cut sessions off");
        // The autoscaler has scaled up; then comes a release.
        cluster.change("deployments", EDGE, "/spec/replicas", json!(9));
        cluster.apply("upgrade", &["edge.autoscaling.mode=hpa", "edge.maxSessions=60000"]);
        assert_eq!(replicas(), 9, "an upgrade must not undo what the autoscaler did");
        // A floor above the live number takes effect.
        cluster.apply("upgrade", &["edge.autoscaling.mode=hpa", "edge.autoscaling.minReplicas=12"]);
        assert_eq!(replicas(), 12);
    }
}

#[test]
fn secrets_that_the_chart_made_outlive_upgrade_and_rollback() {
    for cluster in clusters("generated secrets") {
        cluster.apply("install", &[]);
        let (keys, bus) = (cluster.get("secrets", KEYS), cluster.get("secrets", BUS));
        let key = text(&keys, "key");
        assert!(key.starts_with("mck_") && key.len() == 47, "{key}");
        assert_eq!(text(&bus, "password").len(), 43);
        cluster.apply("upgrade", &["edge.maxSessions=1000", "edge.autoscaling.sessionsPerPod=500"]);
        assert_eq!(cluster.get("secrets", KEYS)["data"], keys["data"]);
        assert_eq!(cluster.get("secrets", BUS)["data"], bus["data"]);
        // A key added by hand stays.
        let file = text(&keys, "keys.toml") + "# and another\n";
        cluster.change("secrets", KEYS, "/data/keys.toml", json!(BASE64_STANDARD.encode(&file)));
        cluster.apply("upgrade", &["edge.maxSessions=0"]);
        assert_eq!(text(&cluster.get("secrets", KEYS), "keys.toml"), file);
        cluster.succeed(&["rollback", "shop", "2"]);
        assert_eq!(text(&cluster.get("secrets", KEYS), "key"), key);
        assert_eq!(cluster.get("secrets", BUS)["data"], bus["data"]);
        let config = cluster.get("configmaps", EDGE);
        let config = config["data"]["config.toml"].as_str().expect("it has a configuration");
        assert!(config.contains("max_sessions = 1000"), "the rollback brought the settings back: {config}");
    }
}

#[test]
fn a_trial_without_a_volume_becomes_one_with_a_volume_and_back() {
    for cluster in clusters("ephemeral bus") {
        let sets =
            || cluster.paths().into_iter().filter(|path| path.contains("statefulsets")).collect::<Vec<_>>();
        cluster.apply("install", &["bus.ephemeral=true"]);
        assert!(sets().len() == 1 && sets()[0].ends_with("/shop-message-center-bus-trial"), "{:?}", sets());
        cluster.apply("upgrade", &[]);
        assert!(sets().len() == 1 && sets()[0].ends_with("/shop-message-center-bus"), "{:?}", sets());
        cluster.succeed(&["rollback", "shop", "1"]);
        assert!(sets()[0].ends_with("-bus-trial"), "{:?}", sets());
    }
}

#[test]
fn two_releases_have_different_secrets() {
    let keys: Vec<_> = clusters("random secrets")
        .iter()
        .map(|cluster| {
            cluster.apply("install", &[]);
            text(&cluster.get("secrets", KEYS), "key")
        })
        .collect();
    assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
}

#[test]
fn the_notes_warn_of_what_is_seldom_meant() {
    let cases: [(&[&str], &str); 7] = [
        (&["bus.ephemeral=true"], "all history is lost when the pod of the bus restarts"),
        (&["bus.sync=relaxed"], "a power cut may take messages"),
        (&["bus.mode=external,bus.external.url=nats://n:4222"], "Set bus.external.existingSecret"),
        (&["networkPolicy.enabled=false"], "every pod of the cluster reaches the bus"),
        (&["edge.replicas=1"], "edge has 1 pod: nobody stands in"),
        (&["edge.pdb.maxUnavailable=0"], "draining a node will wait for ever"),
        (&["edge.ingress.enabled=true,edge.ingress.host=a.b"], "Name the networks of your proxies"),
    ];
    for cluster in clusters("notes") {
        let notes = cluster.apply("install", &["test.enabled=true"]);
        assert!(!notes.contains("WARNING"), "{notes}");
        for part in [
            "ws://shop-message-center-edge.push:80/message-center",
            "/v1/publish",
            KEYS,
            "helm test shop -n push",
        ] {
            assert!(notes.contains(part), "{part}: {notes}");
        }
        for (sets, words) in cases {
            let notes = cluster.apply("upgrade", sets);
            assert_eq!(notes.matches("WARNING").count(), 1, "{sets:?}: {notes}");
            assert!(notes.contains(words), "{sets:?}: {notes}");
        }
    }
}

#[test]
fn the_selectors_do_not_change_with_the_values_and_uninstall_leaves_nothing() {
    for cluster in clusters("uninstall") {
        cluster.apply("install", &[]);
        // The stand-in refuses, as a server does, to change a selector or a claim.
        cluster.apply("upgrade", &["commonLabels.team=push", "image.tag=v9", "bus.maxBytes=9GiB"]);
        let refused = cluster.run(&[
            "upgrade",
            "shop",
            &crate::helm::chart().to_string_lossy(),
            "--disable-openapi-validation",
            "--set",
            "authAdapter.url=https://a.example.com/b,bus.persistence.size=20Gi",
        ]);
        assert!(!refused.status.success(), "the stand-in takes a claim that changes");
        cluster.succeed(&["uninstall", "shop"]);
        assert_eq!(cluster.paths(), Vec::<String>::new());
    }
}
