//! Checks JSON against the schemas of an OpenAPI document. Knows exactly the keywords that the document uses,
//! and panics at others, so that no keyword is overlooked.

use serde_json::Value;

/// Checks `value` against `schema`. The error says what does not fit.
pub(crate) fn check(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let Some(schema) = schema.as_object() else { return Err(format!("{schema} is no schema")) };
    let type_of = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    };
    for (keyword, wanted) in schema {
        let holds = match keyword.as_str() {
            "$ref" => {
                let pointer = wanted.as_str().unwrap().trim_start_matches('#');
                let target = document.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not there"));
                check(document, target, value)?;
                true
            }
            "type" => match wanted {
                Value::String(name) => type_of(name),
                Value::Array(names) => names.iter().any(|name| type_of(name.as_str().unwrap())),
                other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
                    panic!("{other} is no type")
                }
            },
            "enum" => wanted.as_array().unwrap().contains(value),
            "const" => wanted == value,
            "required" => {
                wanted.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "properties" => {
                for (name, schema) in wanted.as_object().unwrap() {
                    if let Some(inner) = value.get(name) {
                        check(document, schema, inner).map_err(|fault| format!("{name}: {fault}"))?;
                    }
                }
                true
            }
            "items" => {
                for inner in value.as_array().into_iter().flatten() {
                    check(document, wanted, inner)?;
                }
                true
            }
            "allOf" => {
                for schema in wanted.as_array().unwrap() {
                    check(document, schema, value)?;
                }
                true
            }
            "oneOf" => {
                let fits =
                    wanted.as_array().unwrap().iter().filter(|one| check(document, one, value).is_ok());
                fits.count() == 1
            }
            "minimum" => value.as_f64().is_none_or(|number| number >= wanted.as_f64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|list| list.len() as u64 <= wanted.as_u64().unwrap()),
            "minItems" => value.as_array().is_none_or(|list| list.len() as u64 >= wanted.as_u64().unwrap()),
            "additionalProperties" => {
                assert_eq!(wanted, false, "only false is understood");
                let known = schema["properties"].as_object().unwrap();
                value.as_object().is_none_or(|object| object.keys().all(|key| known.contains_key(key)))
            }
            "description" | "title" | "format" | "example" | "examples" | "default" => true,
            other => panic!("the keyword {other} is not understood"),
        };
        if !holds {
            return Err(format!("{value} does not fit {keyword}: {wanted}"));
        }
    }
    Ok(())
}
