//! NetworkPolicies: only needed flows, each allowed by exactly one rule.

use serde_yaml_ng::Value;

use crate::helm::{list, matrix, with};

/// The rules that allow a component's traffic in this direction at this port.
fn rules<'a>(objects: &'a [Value], component: &str, direction: &str, port: &Value) -> Vec<&'a Value> {
    let policies = objects.iter().filter(|object| {
        object["kind"] == "NetworkPolicy"
            && list(&object["spec"]["podSelector"]["matchExpressions"])
                .iter()
                .any(|expression| list(&expression["values"]).contains(&Value::from(component)))
    });
    let rules = policies.flat_map(|policy| list(&policy["spec"][direction]));
    rules.filter(|rule| list(&rule["ports"]).iter().any(|open| &open["port"] == port)).collect()
}

#[test]
fn each_needed_flow_has_exactly_one_rule() {
    let sets = ["test.enabled=false", "otlp.endpoint=http://otel:4318"];
    let Some(objects) = with("flows", &sets) else { return };
    let flows = [
        ("edge", "ingress", Value::from(6790)),
        ("publisher-api", "ingress", Value::from(6789)),
        ("bus", "ingress", Value::from(4222)),
        ("edge", "egress", Value::from(4222)),
        ("publisher-api", "egress", Value::from(4222)),
        ("auth-adapter", "egress", Value::from(4222)),
        ("auth-adapter", "egress", Value::from(443)),
        ("edge", "egress", Value::from(53)),
        ("edge", "egress", Value::from(4318)),
        ("edge", "ingress", Value::from("admin")),
        ("publisher-api", "ingress", Value::from("admin")),
        ("auth-adapter", "ingress", Value::from("admin")),
        ("bus", "ingress", Value::from("admin")),
    ];
    for (component, direction, port) in &flows {
        let rules = rules(&objects, component, direction, port);
        assert_eq!(rules.len(), 1, "{component} {direction} {port:?}: {rules:?}");
    }
    for (component, direction, port) in [
        ("edge", "egress", Value::from(443)),
        ("edge", "ingress", Value::from(6789)),
        ("bus", "egress", Value::from(443)),
        ("auth-adapter", "ingress", Value::from(6790)),
    ] {
        assert!(rules(&objects, component, direction, &port).is_empty(), "{component} {direction} {port:?}");
    }
}

#[test]
fn the_test_pod_reaches_both_ports_by_one_rule_more() {
    let Some(objects) = with("flows of the test", &["test.enabled=true"]) else { return };
    for (component, port) in [("edge", 6790), ("publisher-api", 6789)] {
        assert_eq!(rules(&objects, component, "ingress", &Value::from(port)).len(), 2, "{component}");
        assert_eq!(rules(&objects, "test", "egress", &Value::from(port)).len(), 1, "{component}");
    }
}

#[test]
fn everything_else_is_denied() {
    for (file, objects) in matrix("default deny").unwrap_or_default() {
        let denies = objects.iter().filter(|object| {
            object["kind"] == "NetworkPolicy"
                && object["spec"]["podSelector"]["matchExpressions"].is_null()
                && object["spec"]["ingress"].is_null()
                && object["spec"]["egress"].is_null()
                && list(&object["spec"]["policyTypes"]).len() == 2
        });
        assert_eq!(denies.count(), usize::from(!file.starts_with("open-network")), "{file}");
    }
}

#[test]
fn publishing_is_not_exposed_unless_asked() {
    for (file, objects) in matrix("exposure").unwrap_or_default() {
        let exposed = objects.iter().any(|object| {
            matches!(object["kind"].as_str(), Some("Ingress" | "HTTPRoute"))
                && object["metadata"]["name"].as_str().is_some_and(|name| name.ends_with("publisher-api"))
        });
        let asked = ["ingress-nginx-values.yaml", "gateway-publishing-values.yaml"];
        assert_eq!(exposed, asked.contains(&file.as_str()), "{file}");
    }
}
