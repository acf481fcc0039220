//! Exposure to devices: Services, Ingresses with the presets, HTTPRoutes.

use serde_yaml_ng::Value;

use crate::helm::{find, list, matrix, with};

fn file<'a>(matrix: &'a [(String, Vec<Value>)], name: &str) -> &'a [Value] {
    &matrix.iter().find(|(file, _)| file == name).unwrap_or_else(|| panic!("no {name}")).1
}

#[test]
fn each_preset_keeps_an_idle_socket_open_for_longer_than_pings_take() {
    let Some(matrix) = matrix("presets") else { return };
    for (name, annotation, value) in [
        (
            "ingress-alb-values.yaml",
            "alb.ingress.kubernetes.io/load-balancer-attributes",
            "idle_timeout.timeout_seconds=4000",
        ),
        // The target stays as long as the pod drains its sessions: preStop 10 s and drain 60 s.
        (
            "ingress-alb-values.yaml",
            "alb.ingress.kubernetes.io/target-group-attributes",
            "deregistration_delay.timeout_seconds=70",
        ),
        ("ingress-alb-values.yaml", "alb.ingress.kubernetes.io/target-type", "ip"),
        ("ingress-haproxy-values.yaml", "haproxy.org/timeout-tunnel", "1h"),
        ("ingress-nginx-values.yaml", "nginx.ingress.kubernetes.io/proxy-read-timeout", "3600"),
        ("ingress-nginx-values.yaml", "nginx.ingress.kubernetes.io/proxy-send-timeout", "3600"),
        ("ingress-traefik-values.yaml", "traefik.ingress.kubernetes.io/router.entrypoints", "websecure"),
    ] {
        let ingress = find(file(&matrix, name), "Ingress", "-edge");
        assert_eq!(ingress["metadata"]["annotations"][annotation], value, "{name}");
        let rule = &list(&ingress["spec"]["rules"])[0];
        let backend = &list(&rule["http"]["paths"])[0]["backend"]["service"];
        assert_eq!(backend["name"], "shop-message-center-edge", "{name}");
        assert_eq!(backend["port"]["name"], "ws", "{name}");
    }
    // Own annotations stand beside those of the preset.
    let ingress = find(file(&matrix, "ingress-alb-values.yaml"), "Ingress", "-edge");
    assert_eq!(ingress["metadata"]["annotations"]["example.com/team"], "push");
}

#[test]
fn publishing_and_devices_have_hosts_of_their_own() {
    let Some(matrix) = matrix("hosts") else { return };
    for name in ["ingress-nginx-values.yaml", "gateway-publishing-values.yaml"] {
        let kind = if name.starts_with("gateway") { "HTTPRoute" } else { "Ingress" };
        let host = |suffix: &str| {
            let object = find(file(&matrix, name), kind, suffix);
            let route = list(&object["spec"]["hostnames"]).first().cloned();
            route.unwrap_or_else(|| list(&object["spec"]["rules"])[0]["host"].clone())
        };
        assert_eq!(host("-edge"), "ws.example.com");
        assert_eq!(host("-publisher-api"), "api.example.com");
    }
}

#[test]
fn a_timeout_stands_in_a_route_only_where_it_was_asked_for() {
    let Some(matrix) = matrix("timeouts") else { return };
    let timeout = |name: &str| {
        let route = find(file(&matrix, name), "HTTPRoute", "-edge");
        list(&route["spec"]["rules"])[0]["timeouts"]["request"].clone()
    };
    assert_eq!(timeout("gateway-values.yaml"), "0s");
    // GKE refuses a route with a timeout.
    assert_eq!(timeout("gateway-gke-values.yaml"), Value::Null);
    let policy = find(file(&matrix, "gateway-gke-values.yaml"), "GCPBackendPolicy", "-edge");
    assert_eq!(policy["spec"]["default"]["timeoutSec"], 86400);
    assert_eq!(policy["spec"]["targetRef"]["name"], "shop-message-center-edge");
}

#[test]
fn services_say_which_protocol_they_speak() {
    let Some(objects) = with("protocols", &[]) else { return };
    let protocol = |objects: &[Value], suffix: &str| {
        list(&find(objects, "Service", suffix)["spec"]["ports"])[0]["appProtocol"].clone()
    };
    assert_eq!(protocol(&objects, "-edge"), "kubernetes.io/ws");
    assert_eq!(protocol(&objects, "-publisher-api"), "http");
    let sets = ["edge.tls.existingSecret=a", "publisherApi.tls.existingSecret=b", "test.enabled=false"];
    let Some(objects) = with("protocols with TLS", &sets) else { return };
    assert_eq!(protocol(&objects, "-edge"), "kubernetes.io/wss");
    assert_eq!(protocol(&objects, "-publisher-api"), "https");
}

#[test]
fn a_load_balancer_of_its_own_keeps_the_addresses_of_clients() {
    let Some(matrix) = matrix("load balancer") else { return };
    let service = &find(file(&matrix, "loadbalancer-values.yaml"), "Service", "-edge")["spec"];
    assert_eq!(service["type"], "LoadBalancer");
    assert_eq!(service["externalTrafficPolicy"], "Local");
    assert_eq!(service["loadBalancerClass"], "service.k8s.aws/nlb");
    // The API server would refuse a ClusterIP Service with a traffic policy.
    let Some(objects) = with("ClusterIP", &["edge.service.externalTrafficPolicy=Local"]) else { return };
    assert!(find(&objects, "Service", "-edge")["spec"]["externalTrafficPolicy"].is_null());
}
