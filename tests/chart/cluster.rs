//! A stand-in for an API server: stores and returns objects, as far as helm's install, upgrade, rollback and
//! uninstall need it.
//!
//! The stand-in refuses changes of selectors and volume claims, as a server does, and checks nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Json, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::helm::chart;

/// Group and version, plural, kind.
const KINDS: [(&str, &str, &str); 11] = [
    ("v1", "secrets", "Secret"),
    ("v1", "configmaps", "ConfigMap"),
    ("v1", "services", "Service"),
    ("v1", "pods", "Pod"),
    ("v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
    ("apps/v1", "deployments", "Deployment"),
    ("apps/v1", "statefulsets", "StatefulSet"),
    ("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy"),
    ("networking.k8s.io/v1", "ingresses", "Ingress"),
    ("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
];

/// The fields of a Deployment and a StatefulSet that the API server refuses to change.
const FIXED: [&str; 4] =
    ["/spec/selector", "/spec/serviceName", "/spec/volumeClaimTemplates", "/spec/clusterIP"];

/// Objects by path, e.g. `/apis/apps/v1/namespaces/push/deployments/shop-edge`.
type Objects = Arc<Mutex<BTreeMap<String, Value>>>;

/// The stand-in, which ends on drop.
pub(crate) struct Cluster {
    objects: Objects,
    folder: tempfile::TempDir,
    helm: PathBuf,
    _runtime: Runtime,
}

impl Cluster {
    /// An empty cluster for this helm.
    pub(crate) fn new(helm: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let objects = Objects::default();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let app = Router::new().fallback(answer).with_state(Arc::clone(&objects));
        runtime.spawn(async { axum::serve(listener, app).await });
        let folder = tempfile::tempdir().expect("a folder");
        let config = json!({ "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://{address}") } }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "c", "namespace": "push" } }],
            "users": [{ "name": "c", "user": {} }] });
        std::fs::write(folder.path().join("config"), config.to_string()).expect("a file");
        Self { objects, folder, helm: helm.to_owned(), _runtime: runtime }
    }

    /// `helm install` or `upgrade` of `shop`, with `--set`s; returns the output.
    ///
    /// # Panics
    /// helm fails.
    pub(crate) fn apply(&self, command: &str, sets: &[&str]) -> String {
        let mut arguments =
            vec!["--disable-openapi-validation", "--set", "authAdapter.url=https://a.example.com/b"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        let chart = chart();
        let chart = chart.to_string_lossy();
        self.succeed(&[&[command, "shop", &chart], arguments.as_slice()].concat())
    }

    /// Runs any helm command; returns the output.
    ///
    /// # Panics
    /// helm fails.
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {arguments:?}: {error}", self.helm.display());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs any helm command.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut helm = Command::new(&self.helm);
        helm.args(arguments).arg("--kubeconfig").arg(self.folder.path().join("config")).args(["-n", "push"]);
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            helm.env(name, self.folder.path());
        }
        helm.output().expect("helm can be started")
    }

    /// The object with this plural and name.
    ///
    /// # Panics
    /// There is no such object.
    pub(crate) fn get(&self, plural: &str, name: &str) -> Value {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let path = format!("/{plural}/{name}");
        let found = objects.iter().find(|(key, _)| key.ends_with(&path));
        found.unwrap_or_else(|| panic!("no {path} in {:?}", objects.keys())).1.clone()
    }

    /// Changes an object without helm.
    pub(crate) fn change(&self, plural: &str, name: &str, pointer: &str, value: Value) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let path = format!("/{plural}/{name}");
        let object = objects.iter_mut().find(|(key, _)| key.ends_with(&path)).expect("it is there").1;
        *object.pointer_mut(pointer).expect("it has the field") = value;
    }

    /// The paths of all objects except helm's own.
    pub(crate) fn paths(&self) -> Vec<String> {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.keys().filter(|path| !path.contains("sh.helm.release")).cloned().collect()
    }
}

async fn answer(
    State(objects): State<Objects>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path();
    if let Some(found) = discovery(path) {
        return Json(found).into_response();
    }
    let mut objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
    if !path.contains("/namespaces/") {
        return refuse(StatusCode::NOT_FOUND, "NotFound");
    }
    let body = match body.strip_prefix(b"k8s\0") {
        Some(body) => secret(body),
        None => serde_yaml_ng::from_slice(&body).unwrap_or_default(),
    };
    if method == Method::POST {
        let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
        if objects.contains_key(&path) {
            return refuse(StatusCode::CONFLICT, "AlreadyExists");
        }
        let body = finished(body);
        objects.insert(path, body.clone());
        return (StatusCode::CREATED, Json(body)).into_response();
    }
    let applied =
        headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply"));
    match (method, objects.get(path).cloned()) {
        (Method::GET, None) if KINDS.iter().any(|(_, plural, _)| path.ends_with(&format!("/{plural}"))) => {
            Json(listed(&objects, path, uri.query().unwrap_or_default())).into_response()
        }
        (Method::GET, Some(object)) => Json(object).into_response(),
        (Method::DELETE, Some(_)) => {
            objects.remove(path);
            Json(json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" })).into_response()
        }
        (Method::PUT | Method::PATCH, old) if old.is_some() || applied => {
            let old = old.unwrap_or_default();
            // helm 4 sends the whole object, helm 3 the differences.
            let mut new = old.clone();
            merge(&mut new, &body);
            let new = finished(new);
            let is_changed = |at: &&str| !old.is_null() && old.pointer(at) != new.pointer(at);
            if let Some(at) = FIXED.iter().find(|at| is_changed(at)) {
                return refuse(StatusCode::UNPROCESSABLE_ENTITY, &format!("{at} is immutable"));
            }
            objects.insert(path.to_owned(), new.clone());
            Json(new).into_response()
        }
        _ => refuse(StatusCode::NOT_FOUND, "NotFound"),
    }
}

fn refuse(status: StatusCode, reason: &str) -> Response {
    let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
        "message": reason, "code": status.as_u16() });
    (status, Json(body)).into_response()
}

/// The discovery documents of the API.
fn discovery(path: &str) -> Option<Value> {
    match path {
        "/version" => return Some(json!({ "major": "1", "minor": "36", "gitVersion": "v1.36.0" })),
        "/api" => return Some(json!({ "kind": "APIVersions", "versions": ["v1"] })),
        "/apis" => {
            let versions: std::collections::BTreeSet<_> =
                KINDS.iter().map(|kind| kind.0).filter(|version| version.contains('/')).collect();
            let groups = versions.iter().map(|version| {
                let (group, number) = version.split_once('/').expect("it has both");
                let version = json!({ "groupVersion": version, "version": number });
                json!({ "name": group, "versions": [version.clone()], "preferredVersion": version })
            });
            let groups: Vec<_> = groups.collect();
            return Some(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }));
        }
        _ => {}
    }
    let version = path.strip_prefix("/apis/").or_else(|| path.strip_prefix("/api/"))?;
    let kinds = KINDS.iter().filter(|kind| kind.0 == version);
    let verbs = json!(["create", "delete", "get", "list", "patch", "update"]);
    let resources: Vec<_> = kinds
        .map(|(_, plural, kind)| json!({ "name": plural, "namespaced": true, "kind": kind, "verbs": verbs }))
        .collect();
    (!resources.is_empty()).then(|| {
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources })
    })
}

/// The objects below a path that match `labelSelector`.
fn listed(objects: &BTreeMap<String, Value>, path: &str, query: &str) -> Value {
    let query = query.replace("%3D", "=").replace("%2C", ",");
    let selector = query.split('&').find_map(|pair| pair.strip_prefix("labelSelector=")).unwrap_or_default();
    let fits = |object: &Value| {
        selector.split(',').filter_map(|pair| pair.split_once('=')).all(|(key, value)| {
            object["metadata"]["labels"][key].as_str() == Some(value.trim_start_matches('='))
        })
    };
    let below = |key: &str| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    let items: Vec<_> =
        objects.iter().filter(|(key, object)| below(key) && fits(object)).map(|(_, object)| object).collect();
    let kind =
        KINDS.iter().find(|(_, plural, _)| path.ends_with(&format!("/{plural}"))).map_or("", |kind| kind.2);
    json!({ "kind": format!("{kind}List"), "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": items })
}

/// Adds the fields that a server adds.
fn finished(mut object: Value) -> Value {
    object["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    object["metadata"]["resourceVersion"] = json!("1");
    if let Some(texts) = object.as_object_mut().and_then(|object| object.remove("stringData"))
        && let Some(texts) = texts.as_object()
    {
        for (key, text) in texts {
            object["data"][key] = json!(BASE64_STANDARD.encode(text.as_str().unwrap_or_default()));
        }
    }
    object
}

/// A strategic merge patch: list entries of the same name are merged.
fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
                if value.is_null() {
                    object.remove(key);
                } else {
                    merge(object.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (Value::Array(entries), Value::Array(patch))
            if patch.iter().any(|entry| entry["name"].is_string()) =>
        {
            for entry in patch {
                match entries.iter_mut().find(|old| old["name"] == entry["name"]) {
                    Some(old) => merge(old, entry),
                    None => entries.push(entry.clone()),
                }
            }
        }
        (object, patch) => *object = patch.clone(),
    }
}

/// The envelope of the typed client around a message (`runtime.Unknown`).
#[derive(Clone, PartialEq, prost::Message)]
struct Wrapped {
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
}

/// The fields of a Secret that helm writes for its releases (`core/v1/generated.proto`).
#[derive(Clone, PartialEq, prost::Message)]
struct ReleaseSecret {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ReleaseMeta>,
    #[prost(btree_map = "string, bytes", tag = "2")]
    data: BTreeMap<String, Vec<u8>>,
    #[prost(string, tag = "3")]
    kind: String,
}

/// The fields of its metadata (`meta/v1/generated.proto`).
#[derive(Clone, PartialEq, prost::Message)]
struct ReleaseMeta {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(btree_map = "string, string", tag = "11")]
    labels: BTreeMap<String, String>,
}

/// The JSON form of a release's Secret, which arrives as protobuf.
fn secret(body: &[u8]) -> Value {
    let wrapped = Wrapped::decode(body).expect("it is protobuf");
    let secret = ReleaseSecret::decode(wrapped.raw.as_slice()).expect("it is a Secret");
    let meta = secret.metadata.unwrap_or_default();
    let data: BTreeMap<_, _> =
        secret.data.iter().map(|(key, value)| (key, BASE64_STANDARD.encode(value))).collect();
    json!({ "apiVersion": "v1", "kind": "Secret", "type": secret.kind, "data": data,
        "metadata": { "name": meta.name, "namespace": "push", "labels": meta.labels } })
}
