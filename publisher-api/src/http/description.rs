//! The description of one call in `/openapi.json`: its operation, and the types that the operation names.

use serde_json::{Map, Value};
use utoipa::openapi::OpenApi;

/// Stands for the path in the attributes of handlers. The path is said by the route table alone.
pub(crate) const ROUTED: &str = "";

/// The description of one call, before the route table adds its path and its problems.
#[derive(Debug, Default)]
pub(crate) struct Description {
    /// The operation, without its place in the document.
    pub(crate) operation: Value,
    /// Schemas by name.
    pub(crate) schemas: Map<String, Value>,
}

impl Description {
    /// Takes operation and schemas out of a document that describes at most one call.
    ///
    /// # Panics
    /// Never: a description has only string keys.
    pub(crate) fn of(document: &OpenApi) -> Self {
        let mut document = serde_json::to_value(document).expect("a description has only string keys");
        let mut paths = object(document["paths"].take()).into_iter();
        let mut methods = paths.next().map(|(_, methods)| object(methods)).unwrap_or_default().into_iter();
        let operation = methods.next().map(|(_, operation)| operation).unwrap_or_default();
        Self { operation, schemas: object(document["components"]["schemas"].take()) }
    }
}

/// The entries of an object; none, if `value` is no object.
fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(entries) = value { entries } else { Map::new() }
}
