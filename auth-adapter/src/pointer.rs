//! JSON pointers (RFC 6901): where in a document a value stands. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A checked JSON pointer, such as `/sub` or `/realm_access/roles`. The empty pointer names no value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Pointer(String);

/// Why a text is no JSON pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// The first character is another one.
    #[error("is no JSON pointer: it must begin with \"/\", e.g. \"/sub\"")]
    Beginning,
    /// A tilde stands before neither 0 nor 1.
    #[error("is no JSON pointer: \"~\" is written \"~0\", and \"/\" within a name \"~1\"")]
    Escape,
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
        Ok(Self(text.to_owned()))
    }

    /// Returns the value that stands there.
    pub fn of<'v>(&self, document: &'v Value) -> Option<&'v Value> {
        if self.is_empty() { None } else { document.pointer(&self.0) }
    }

    /// Returns whether the pointer names no value.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
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
    use serde_json::json;

    #[test]
    fn a_pointer_finds_the_value_and_bad_ones_are_refused() {
        let document = json!({ "sub": 7, "realm_access": { "roles": ["vip"] }, "a/b": 1, "m~n": 2 });
        for (pointer, value) in [
            ("/sub", Some(json!(7))),
            ("/realm_access/roles", Some(json!(["vip"]))),
            ("/realm_access/roles/0", Some(json!("vip"))),
            ("/a~1b", Some(json!(1))),
            ("/m~0n", Some(json!(2))),
            ("/none", None),
            ("", None),
        ] {
            assert_eq!(Pointer::parse(pointer).unwrap().of(&document), value.as_ref(), "{pointer}");
        }
        assert_eq!(Pointer::parse("sub"), Err(PointerError::Beginning));
        for bad in ["/a~", "/a~2b", "/~~0"] {
            assert_eq!(Pointer::parse(bad), Err(PointerError::Escape), "{bad}");
        }
    }
}
