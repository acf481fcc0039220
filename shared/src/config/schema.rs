//! Schemas of the values that are written as text of a kind of their own, for the config reference.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{ByteSize, Secret, Span};

macro_rules! written_as {
    ($type:ty, $name:literal) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $name })
            }
        }
    };
}

written_as!(Span, "time");
written_as!(ByteSize, "size");
written_as!(Secret, "secret");
