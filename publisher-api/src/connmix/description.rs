//! The description of `POST /v1/mesh/publish` in `/openapi.json`. Its errors are codes, so the problems are
//! not added.

use serde_json::{Map, Value, json};

use crate::http::Description;

/// Describes the publishing call.
pub(crate) fn describe() -> Description {
    let schemas = Map::from_iter([("ConnmixAnswer".to_owned(), answer_schema())]);
    Description { operation: operation(), schemas }
}

fn answer_schema() -> Value {
    let integer = json!({ "type": "integer", "minimum": 0 });
    json!({ "oneOf": [
        { "type": "object", "required": ["E", "r"], "properties": {
            "E": { "type": "null" },
            "r": { "type": "object", "required": ["s", "f"], "properties": { "s": integer, "f": integer } },
        } },
        { "type": "object", "required": ["E"], "properties": {
            "E": { "type": "object", "required": ["c", "m"], "properties": { "c": integer, "m": { "type": "string" } } },
        } },
    ] })
}

fn operation() -> Value {
    let answer = |description: &str| {
        json!({ "description": description, "content": { "application/json": {
            "schema": { "$ref": "#/components/schemas/ConnmixAnswer" } } } })
    };
    let text = json!({ "type": "string" });
    json!({
        "operationId": "meshPublish", "tags": ["connmix"], "summary": "Sends a message to a channel.",
        "requestBody": { "required": true, "content": { "application/json": {
            "schema": { "type": "object", "required": ["c", "d"], "properties": {
                "c": text, "d": text, "t": { "type": "string", "enum": ["text", "binary"] } } },
            "example": { "c": "user:1001", "d": "text" } } } },
        "responses": {
            "200": answer("Counts, or an error that a retry does not change."),
            "401": answer("No key, or a wrong one (105)."), "403": answer("Not permitted (106)."),
            "405": answer("Another method (101)."), "408": answer("The body came too slowly (101)."),
            "429": answer("Too many (107)."), "503": answer("The bus can't be reached (108)."),
        },
    })
}
