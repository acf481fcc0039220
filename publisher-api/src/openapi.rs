//! The document of `/openapi.json`, made from the route table, the handlers and their types.
//!
//! The types can't say which problems a call may answer, nor how keys are sent; both are added here.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::OpenApi;

use crate::error::Problem;
use crate::native;
use crate::routes::{ANYWHERE, Dialect, Row};

#[derive(OpenApi)]
#[openapi(
    info(title = "message center", description = "Sends messages to the devices of users, and lists who is online."),
    tags(
        (name = "publish", description = "Sending messages."),
        (name = "channels", description = "The history of channels."),
        (name = "users", description = "Sessions of users, disconnecting users, and renewing their logins."),
        (name = "connmix", description = "The calls of connmix, for publishers that used connmix before.")
    )
)]
struct Base;

/// Makes the document.
pub(crate) fn document(table: &[Row]) -> Value {
    let mut document = serde_json::to_value(Base::openapi()).expect("the description has only string keys");
    document["components"]["securitySchemes"] = json!({
        "bearer": { "type": "http", "scheme": "bearer", "description": "The secret of a key, as `message-center key new` printed it." },
        "basic": { "type": "http", "scheme": "basic", "description": "The name of a key as the user, and its secret as the password." },
    });
    document["security"] = json!([{ "bearer": [] }, { "basic": [] }]);
    let mut schemas = native::openapi::describe_shared().schemas;
    for row in table {
        let Some(describe) = row.describe else { continue };
        let mut description = describe();
        schemas.append(&mut description.schemas);
        if row.dialect == Dialect::Native {
            let problems = [&row.problems.concat(), ANYWHERE].concat();
            add_problems(&mut description.operation["responses"], &problems);
        }
        document["paths"][row.path][row.method.name().to_ascii_lowercase()] = description.operation;
    }
    document["components"]["schemas"] = Value::Object(schemas);
    document
}

/// Adds one response a status, with an example of each problem.
fn add_problems(responses: &mut Value, problems: &[Problem]) {
    let mut by_status: BTreeMap<u16, Vec<Problem>> = BTreeMap::new();
    for problem in problems {
        by_status.entry(problem.row().status.as_u16()).or_default().push(*problem);
    }
    for (status, problems) in by_status {
        let rows = || problems.iter().map(|problem| problem.row());
        let codes: Vec<&str> = rows().map(|row| row.name).collect();
        let examples: BTreeMap<&str, Value> = rows()
            .map(|row| {
                let kind = format!("urn:message-center:problem:{}", row.name);
                let (title, code) = (row.title, row.name);
                let problem = json!({ "type": kind, "title": title, "status": status, "detail": "what to do", "code": code });
                (row.name, json!({ "value": problem }))
            })
            .collect();
        let schema = json!({ "allOf": [
            { "$ref": "#/components/schemas/Problem" },
            { "properties": { "code": { "enum": codes }, "status": { "const": status } } },
        ] });
        responses[status.to_string()] = json!({
            "description": rows().map(|row| row.title).collect::<Vec<_>>().join(" "),
            "content": { "application/problem+json": { "schema": schema, "examples": examples } },
        });
        if matches!(status, 429 | 503) {
            responses[status.to_string()]["headers"] = json!({ "Retry-After": {
                "description": "Seconds after which the same request may succeed.", "schema": { "type": "integer" },
            } });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::table;

    /// A socket is no call that OpenAPI could describe.
    #[test]
    fn the_description_has_every_call_but_the_socket() {
        let table = table();
        let missing: Vec<&str> =
            table.iter().filter(|row| row.describe.is_none()).map(|row| row.path).collect();
        assert_eq!(missing, ["/ws/v1"]);
        let document = document(&table);
        for row in table.iter().filter(|row| row.describe.is_some()) {
            let call = &document["paths"][row.path][row.method.name().to_lowercase()];
            assert!(call["operationId"].is_string(), "{call}");
        }
    }

    /// Paths, methods and statuses are promised; this holds them.
    #[test]
    fn the_description_names_every_status_of_every_call() {
        let document = document(&table());
        assert_eq!(document["openapi"].as_str().map(|version| &version[..3]), Some("3.1"));
        let mut told = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, call) in item.as_object().unwrap() {
                let statuses: Vec<&str> =
                    call["responses"].as_object().unwrap().keys().map(String::as_str).collect();
                told.push(format!("{method} {path}: {}", statuses.join(" ")));
            }
        }
        insta::assert_snapshot!(told.join("\n"), @r"
        get /openapi.json: 200 401 403 405
        delete /v1/channels/{channel}/messages: 200 400 401 403 404 405 429 503
        get /v1/channels/{channel}/messages: 200 400 401 403 404 405 410 429 503
        post /v1/mesh/publish: 200 401 403 405 408 429 503
        post /v1/publish: 200 400 401 403 405 408 413 415 422 429 503
        post /v1/publish/batch: 200 400 401 403 405 408 413 415 422 429 503
        post /v1/users/sessions: 200 400 401 403 405 408 413 415 429 503
        post /v1/users/{uid}/disconnect: 200 400 401 403 405 408 413 415 429 503
        post /v1/users/{uid}/refresh: 200 400 401 403 405 429 503
        get /v1/users/{uid}/sessions: 200 400 401 403 405 429 503
        ");
    }
}
