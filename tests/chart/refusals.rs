//! The values that the chart refuses, and the texts of the refusals.

use crate::helm::{HELMS, NEEDED, run, values_files};
use harness::tools;

/// `--set` values, and a part of the refusal.
const REFUSALS: &[(&[&str], &str)] = &[
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
    (&["authAdapter.config.body=form"], "authAdapter.config.body is now authAdapter.config.request.token"),
    (&["authAdapter.config.answer.uid=/data/uid"], "uid"),
    (&["authAdapter.config.preset=ruoyi"], "preset"),
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
    (
        &["test.enabled=true", "publisherApi.keys.existingSecret=k"],
        "set test.existingSecret, or test.enabled to false",
    ),
    (&["publisherApi.terminationGracePeriodSeconds=10"], "publisherApi.terminationGracePeriodSeconds is 10"),
    (
        &["authAdapter.terminationGracePeriodSeconds=11"],
        "with 5 s to spare need 12: raise it, or leave it out",
    ),
    (&["edge.autoscaling.minReplicas=0"], "minReplicas"),
    (
        &["publisherApi.autoscaling.mode=hpa", "publisherApi.autoscaling.minReplicas=11"],
        "publisherApi.autoscaling.maxReplicas is below",
    ),
    (
        &["edge.autoscaling.mode=hpa", "edge.autoscaling.sessionsPerPod=45001"],
        "but from 45000 sessions on a pod takes no new ones",
    ),
    (&["edge.autoscaling.mode=hpa", "edge.maxSessions=10000"], "lower it, or raise edge.maxSessions"),
    (
        &["authAdapter.autoscaling.mode=hpa", "authAdapter.resources.requests.cpu=null"],
        "set authAdapter.resources.requests.cpu",
    ),
    (&["edge.pdb.maxUnavailable=half"], "maxUnavailable"),
    (&["edge.ingress.enabled=true", "edge.ingress.host=Push.Example.com"], "host"),
    (
        &[
            "edge.ingress.enabled=true",
            "edge.ingress.host=a.b",
            "publisherApi.ingress.enabled=true",
            "publisherApi.ingress.host=a.b",
        ],
        "give publishing a host of its own",
    ),
    (&["publisherApi.ingress.enabled=true", "publisherApi.ingress.host=a.b"], "in networkPolicy.publishers"),
    (&["publisherApi.service.type=LoadBalancer"], "in networkPolicy.publishers"),
    (&["edge.service.loadBalancerClass=a"], "needs edge.service.type LoadBalancer"),
    (
        &[
            "edge.httpRoute.enabled=true",
            "edge.httpRoute.parentRefs[0].name=g",
            "publisherApi.httpRoute.enabled=true",
            "publisherApi.httpRoute.parentRefs[0].name=g",
        ],
        "share a host: give both hostnames",
    ),
    (&["edge.httpRoute.requestTimeout=never"], "requestTimeout"),
    (&["bus.maxBytes=6GiB"], "history.max_bytes (8GiB) has no room in bus.maxBytes (6GiB)"),
    (&["bus.maxBytes=12GiB"], "bus.maxBytes (12GiB) has no room in bus.persistence.size (12Gi)"),
    (
        &["bus.maxMemory=3500MiB"],
        "bus.maxMemory (3500MiB) leaves less than a quarter of bus.resources.limits.memory (4Gi)",
    ),
    (&["bus.maxMemory=much"], "maxMemory"),
    (
        &["bus.ephemeral=true", "history.max_bytes=3GiB"],
        "history.max_bytes (3GiB) is not below bus.maxMemory",
    ),
    (&["history.replicas=3"], "the embedded bus keeps one copy"),
    (&["bus.ephemeral=true", "history.max_bytes=4GiB"], "(4GiB) is not below bus.resources.limits.memory"),
    (&["bus.persistence.size=big"], "size"),
    (&["authAdapter.headers.names[0]=AUTHORIZATION"], "set authAdapter.headers.existingSecret"),
    (&["authAdapter.url=https://user:secret@shop"], "url"),
    (&["test.enabled=true", "edge.tls.existingSecret=t"], "set test.enabled to false"),
    (
        &["edge.extraEnv[0].name=MC_BUS__PASSWORD", "edge.extraEnv[0].value=secret"],
        "edge.extraEnv: MC_BUS__PASSWORD is there already",
    ),
    (&["bus.extraEnv[0].name=A", "bus.extraEnv[1].name=A"], "bus.extraEnv: A is there already"),
    (&["edge.extraVolumes[0].name=config"], "a volume \"config\" is there already: give it another name"),
    (&["edge.extraContainers[0].name=edge"], "a container \"edge\" is there already"),
    (&["fullnameOverride=Push"], "fullnameOverride"),
    (&["image.repository=a@sha256:b"], "repository"),
    (&["publisherApi.keys.secret=mck_a"], "secret"),
    (
        &[
            "edge.ingress.enabled=true",
            "edge.ingress.host=a.b",
            "edge.ingress.preset=nginx",
            "edge.tls.existingSecret=t",
            "test.enabled=false",
        ],
        "end TLS there (edge.ingress.tlsSecret), or leave the preset out",
    ),
    (&["edge.extraEnv[0].name=MC_EDGE__LISTEN"], "edge.extraEnv: MC_EDGE__LISTEN is there already"),
    (
        &["bus.mode=external", "bus.external.url=nats://a:4222\\,nats://b:5222"],
        "bus.external.url names port 5222, but the NetworkPolicy lets the parts out to bus.external.port (4222)",
    ),
    (
        &["bus.mode=external", "bus.external.url=nats://a", "bus.external.tls.clientCertificate=true"],
        "set bus.external.tls.existingSecret",
    ),
    (&["otlp.endpoint=http://c:4317"], "otlp.endpoint is on port 4317"),
    (&["otlp.endpoint=https://c"], "otlp.endpoint is on port 443"),
    (&["authAdapter.url=http://h:99999/x"], "a port above 65535"),
    (&["authAdapter.url=http://h:0/x"], "/authAdapter/url"),
    (&["authAdapter.url=http://h:99999999999999999999/x"], "/authAdapter/url"),
    (&["authAdapter.url=http://h:abc/x"], "/authAdapter/url"),
    (&["edge.extraEnv[0].name=MC_edge__listen"], "edge.extraEnv: MC_edge__listen is there already"),
    (&["edge.service.loadBalancerSourceRanges[0]=10.0.0.256/8"], "loadBalancerSourceRanges"),
    (&["edge.service.loadBalancerSourceRanges[0]=10.0.0.0/33"], "loadBalancerSourceRanges"),
    (
        &["test.enabled=true", "publisherApi.config.allowed_hosts[0]=api.example.com"],
        "add shop-message-center-publisher-api",
    ),
    (&["edge.service.loadBalancerSourceRanges[0]=foo"], "loadBalancerSourceRanges"),
    (&["edge.httpRoute.hostnames[0]=1.2.3.4"], "hostnames"),
    (&["edge.extraContainers[0].name=A_B"], "extraContainers"),
    (&["bus.maxBytes=foo"], "maxBytes"),
    (
        &["bus.ephemeral=true", "bus.resources.limits.memory=512Mi"],
        "history.max_bytes (1GiB) is not below bus.resources.limits.memory (512Mi)",
    ),
    (&["edge.resources.requests.memory=4Gi"], "edge.resources.requests.memory is above limits.memory"),
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
