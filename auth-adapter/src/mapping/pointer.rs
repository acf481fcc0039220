//! JSON pointers (RFC 6901), checked when the configuration is read.

use serde_json::Value;

/// The most bytes of a pointer.
const MAX_POINTER: usize = 256;

/// A place in a JSON text below its root, e.g. `/data/uid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pointer {
    text: String,
    /// The keys on the way, unescaped.
    keys: Vec<String>,
}

impl Pointer {
    /// Reads a pointer.
    ///
    /// # Errors
    /// The rule that the text breaks, and what to write.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Some(keys) = text.strip_prefix('/').filter(|_| text.len() <= MAX_POINTER) else {
            return Err(format!(
                "{text:?} is no JSON pointer: write the keys on the way with a slash before each, \
                 e.g. \"/data/uid\", in at most {MAX_POINTER} bytes"
            ));
        };
        if text.replace("~0", "").replace("~1", "").contains('~') {
            return Err(format!(
                "{text:?} is no JSON pointer: in a key, write ~0 for a tilde and ~1 for a slash"
            ));
        }
        let keys = keys.split('/').map(|key| key.replace("~1", "/").replace("~0", "~")).collect();
        Ok(Self { text: text.to_owned(), keys })
    }

    /// Returns the value at this place.
    pub(crate) fn find<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        root.pointer(&self.text)
    }

    /// Returns the keys on the way.
    pub(crate) fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Returns the pointer as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

/// Escapes a key for a pointer.
pub(crate) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

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
            assert_eq!(Pointer::parse(text).unwrap().find(&root), Some(&value), "{text}");
        }
        for nowhere in ["/foo/2", "/foo/00", "/foo/-", "/foo/bar", "/a", "/foo/0/x"] {
            assert_eq!(Pointer::parse(nowhere).unwrap().find(&root), None, "{nowhere}");
        }
    }

    #[test]
    fn what_is_no_pointer_is_refused_with_what_to_write() {
        for bad in ["", "uid", "data/uid", "#/uid", "$.data.uid"] {
            assert!(Pointer::parse(bad).unwrap_err().contains("e.g. \"/data/uid\""), "{bad}");
        }
        for bad in ["/a~", "/a~2b", "/~~0"] {
            assert!(Pointer::parse(bad).unwrap_err().contains("~0 for a tilde"), "{bad}");
        }
        assert!(Pointer::parse(&format!("/{}", "x".repeat(MAX_POINTER))).is_err());
    }

    proptest! {
        #[test]
        fn every_key_has_a_pointer(keys in prop::collection::vec("\\PC{0,8}", 1..4)) {
            let text: String = keys.iter().map(|key| format!("/{}", escape(key))).collect();
            let pointer = Pointer::parse(&text).unwrap();
            prop_assert_eq!(pointer.keys(), keys.as_slice());
        }
    }
}
