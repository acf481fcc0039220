//! `/openapi.json`: serves the description of the API, and adds the schemas that all native calls share.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, json};
use utoipa::OpenApi;

use super::{answer, target};
use crate::app::App;
use crate::http::Description;
use crate::metrics::Via;

/// Schemas that belong to no single call.
#[derive(OpenApi)]
#[openapi(components(schemas(target::To<'_>, target::UserId, target::GroupId, answer::ProblemAnswer)))]
struct Shared;

/// Describes the schemas that all native calls share.
pub(crate) fn describe_shared() -> Description {
    Description::of(&Shared::openapi())
}

/// Describes `GET /openapi.json` itself.
pub(crate) fn describe() -> Description {
    let answer = json!({ "application/json": { "schema": { "type": "object" } } });
    let operation = json!({
        "operationId": "describe", "summary": "This description.",
        "responses": { "200": { "description": "OpenAPI 3.1.", "content": answer } },
    });
    Description { operation, schemas: Map::new() }
}

/// Serves the description.
pub(crate) async fn serve(State(app): State<Arc<App>>) -> Response {
    app.metrics.answered(Via::Native, "ok");
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], app.openapi.clone()).into_response()
}
