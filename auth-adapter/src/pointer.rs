//! JSON pointers (RFC 6901): where in a document a value stands. Pure.
//!
//! Answers of the business system and claims of JWTs are read by the same pointers.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most bytes of a pointer.
const MAX_BYTES: usize = 256;

/// A checked JSON pointer, such as `/sub` or `/realm_access/roles`. The empty pointer names no value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Pointer(String);

/// Why a text is no JSON pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// The first character is no slash.
    #[error("is no JSON pointer: write the keys on the way with a slash before each, e.g. \"/data/uid\"")]
    Beginning,
    /// A tilde stands before neither 0 nor 1.
    #[error("is no JSON pointer: in a key, write ~0 for a tilde and ~1 for a slash")]
    Escape,
    /// The pointer is longer than 256 bytes.
    #[error("is longer than {MAX_BYTES} bytes, more than a JSON pointer may have here")]
    TooLong,
}

impl Pointer {
    /// Reads a pointer.
    ///
    /// # Errors
    /// The rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        if !text.is_empty() && !text.starts_with('/') {
            return Err(PointerError::Beginning);
        }
        if text.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
            return Err(PointerError::Escape);
        }
        if text.len() > MAX_BYTES {
            return Err(PointerError::TooLong);
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the value that stands there.
    pub fn of<'v>(&self, document: &'v Value) -> Option<&'v Value> {
        if self.is_empty() { None } else { document.pointer(&self.0) }
    }

    /// Returns the keys on the way, unescaped.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.0.split('/').skip(1).map(|key| key.replace("~1", "/").replace("~0", "~")).collect()
    }

    /// Returns the pointer as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the pointer names no value.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Escapes a key for a pointer.
pub(crate) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

impl TryFrom<String> for Pointer {
    type Error = PointerError;

    fn try_from(text: String) -> Result<Self, PointerError> {
        Self::parse(&text)
    }
}

impl From<Pointer> for String {
    fn from(pointer: Pointer) -> Self {
        pointer.0
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// The examples of RFC 6901, section 5, without the root itself.
    #[test]
    fn the_examples_of_the_rfc_lead_to_their_values() {
        let root = json!({ "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "i\\j": 5, " ": 7, "m~n": 8 });
        for (text, value) in [
            ("/foo", json!(["bar", "baz"])),
            ("/foo/0", json!("bar")),
            ("/", json!(0)),
            ("/a~1b", json!(1)),
            ("/c%d", json!(2)),
            ("/i\\j", json!(5)),
            ("/ ", json!(7)),
            ("/m~0n", json!(8)),
        ] {
            assert_eq!(Pointer::parse(text).unwrap().of(&root), Some(&value), "{text}");
        }
        for nowhere in ["/foo/2", "/foo/00", "/foo/-", "/foo/bar", "/a", "/foo/0/x"] {
            assert_eq!(Pointer::parse(nowhere).unwrap().of(&root), None, "{nowhere}");
        }
    }

    #[test]
    fn the_empty_pointer_names_nothing() {
        let nowhere = Pointer::parse("").unwrap();
        assert!(nowhere.is_empty() && nowhere.of(&json!({ "": 1 })).is_none());
    }

    #[test]
    fn what_is_no_pointer_is_refused_with_what_to_write() {
        for bad in ["uid", "data/uid", "#/uid", "$.data.uid"] {
            assert_eq!(Pointer::parse(bad), Err(PointerError::Beginning), "{bad}");
        }
        for bad in ["/a~", "/a~2b", "/~~0"] {
            assert_eq!(Pointer::parse(bad), Err(PointerError::Escape), "{bad}");
        }
        assert_eq!(Pointer::parse(&format!("/{}", "x".repeat(MAX_BYTES))), Err(PointerError::TooLong));
        assert!(PointerError::Beginning.to_string().contains("e.g. \"/data/uid\""));
    }

    proptest! {
        #[test]
        fn every_key_has_a_pointer(keys in prop::collection::vec("\\PC{0,8}", 1..4)) {
            let text: String = keys.iter().map(|key| format!("/{}", escape(key))).collect();
            let pointer = Pointer::parse(&text).unwrap();
            prop_assert_eq!(pointer.keys(), keys);
        }
    }
}
