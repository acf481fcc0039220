//! An OpenTelemetry collector: receives spans over OTLP (HTTP or gRPC) for the test to look at.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use shared::drain::Drain;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::server::TcpIncoming;

use crate::wait::soon;

/// A running collector.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    protocol: &'static str,
    spans: watch::Sender<Vec<SeenSpan>>,
    drain: Drain,
}

/// A received span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenSpan {
    /// `service.name` of the exporting process.
    pub service: String,
    /// Name of the span.
    pub name: String,
    /// Trace id, in hexadecimal.
    pub trace: String,
    /// Span id, in hexadecimal.
    pub id: String,
    /// Id of the parent span, in hexadecimal; empty for a root span.
    pub parent: String,
    /// Attributes, as text.
    pub attributes: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
struct Keeper(watch::Sender<Vec<SeenSpan>>);

impl Keeper {
    fn keep(&self, request: &ExportTraceServiceRequest) {
        self.0.send_modify(|seen| {
            for resource in &request.resource_spans {
                let attributes = resource.resource.as_ref().map(|resource| texts(&resource.attributes));
                let service = attributes.and_then(|mut all| all.remove("service.name")).unwrap_or_default();
                let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
                seen.extend(spans.map(|span| seen_span(&service, span)));
            }
        });
    }
}

fn seen_span(service: &str, span: &Span) -> SeenSpan {
    SeenSpan {
        service: service.to_owned(),
        name: span.name.clone(),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        attributes: texts(&span.attributes),
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tonic::async_trait]
impl TraceService for Keeper {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.keep(request.get_ref());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn take(State(keeper): State<Keeper>, body: Bytes) -> impl IntoResponse {
    match ExportTraceServiceRequest::decode(body) {
        Ok(request) => {
            keeper.keep(&request);
            let answer = ExportTraceServiceResponse::default().encode_to_vec();
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/x-protobuf")], answer)
        }
        Err(error) => {
            let text = error.to_string().into_bytes();
            (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "text/plain")], text)
        }
    }
}

impl Collector {
    /// Starts a collector for OTLP over HTTP.
    ///
    /// # Panics
    /// Loopback has no free port.
    pub async fn http() -> Self {
        let (collector, listener) = Self::bind("http/protobuf").await;
        let router =
            Router::new().route("/v1/traces", post(take)).with_state(Keeper(collector.spans.clone()));
        let leaving = collector.drain.token();
        collector.drain.spawn("collector", async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(leaving.cancelled_owned());
            served.await.expect("the collector serves");
        });
        collector
    }

    /// Starts a collector for OTLP over gRPC.
    ///
    /// # Panics
    /// Loopback has no free port.
    pub async fn grpc() -> Self {
        let (collector, listener) = Self::bind("grpc").await;
        let service = TraceServiceServer::new(Keeper(collector.spans.clone()));
        let leaving = collector.drain.token();
        collector.drain.spawn("collector", async move {
            let server = tonic::transport::Server::builder().add_service(service);
            let incoming = TcpIncoming::from(listener);
            let served = server.serve_with_incoming_shutdown(incoming, leaving.cancelled_owned());
            served.await.expect("the collector serves");
        });
        collector
    }

    async fn bind(protocol: &'static str) -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let spans = watch::Sender::new(Vec::new());
        (Self { address, protocol, spans, drain: Drain::new() }, listener)
    }

    /// The environment variables that make a process export to this collector.
    pub fn variables(&self) -> [(&'static str, String); 2] {
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", self.address)),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", self.protocol.to_owned()),
        ]
    }

    /// The spans received so far.
    pub fn spans(&self) -> Vec<SeenSpan> {
        self.spans.borrow().clone()
    }

    /// Waits for a span of this name that meets `condition`.
    ///
    /// # Panics
    /// No such span arrives.
    pub async fn span(&self, name: &str, condition: impl Fn(&SeenSpan) -> bool) -> SeenSpan {
        let mut spans = self.spans.subscribe();
        let fits = |span: &&SeenSpan| span.name == name && condition(span);
        let came = async {
            let seen = spans.wait_for(|seen| seen.iter().any(|span| fits(&span))).await;
            seen.ok().and_then(|seen| seen.iter().find(fits).cloned())
        };
        let what = format!("a span {name:?}");
        soon(&what, came).await.expect("the collector stays")
    }

    /// Stops the collector.
    ///
    /// # Panics
    /// The collector does not end.
    pub async fn stop(self) {
        assert_eq!(self.drain.finish(Duration::from_secs(10)).await, 0, "the collector still runs");
    }
}
