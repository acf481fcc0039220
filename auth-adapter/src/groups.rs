//! The groups of a login, from an answer of the business system or from the claims of a JWT. Pure.

use std::sync::Arc;

use serde_json::Value;
use shared::ids::{Group, MAX_GROUPS};

/// Groups of an answer that could not be taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// Entries that are no group.
    pub(crate) unusable: usize,
    /// Groups beyond the bound.
    pub(crate) beyond: usize,
    /// Whether there was no list at all, but another value.
    pub(crate) no_list: bool,
}

/// Where the groups stand in an answer of the business system.
pub(crate) const IN_ANSWER: &str = "auth_adapter.answer.groups";
/// Where the groups stand in the claims of a JWT.
pub(crate) const IN_JWT: &str = "auth_adapter.jwt.groups";

impl LeftOut {
    /// Returns whether nothing was left out.
    pub(crate) fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Says what was left out of the value that a key of the configuration points at, without values.
    pub(crate) fn words(self, key: &str) -> String {
        let Self { unusable, beyond, no_list } = self;
        if no_list {
            return format!("the value at {key} is no list: the login has no groups");
        }
        format!("of the list at {key}, {unusable} entries are no group and {beyond} are beyond {MAX_GROUPS}")
    }
}

/// Reads the groups: each once, in their order, at most [`MAX_GROUPS`].
pub(crate) fn read(value: Option<&Value>) -> (Arc<[Group]>, LeftOut) {
    let mut left_out = LeftOut::default();
    let entries = match value {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(entries)) => entries,
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            left_out.no_list = true;
            &[]
        }
    };
    let mut groups: Vec<Group> = Vec::new();
    for entry in entries {
        match Group::from_json(entry) {
            Err(_) => left_out.unusable += 1,
            Ok(group) if groups.contains(&group) => {}
            Ok(_) if groups.len() == MAX_GROUPS => left_out.beyond += 1,
            Ok(group) => groups.push(group),
        }
    }
    (groups.into(), left_out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(value: &Value) -> (Vec<String>, LeftOut) {
        let (groups, left_out) = read(Some(value));
        (groups.iter().map(|group| group.as_str().to_owned()).collect(), left_out)
    }

    #[test]
    fn groups_are_texts_or_integers_each_once() {
        let (groups, left_out) = of(&json!(["vip", 7, "7", "vip", -1]));
        assert_eq!((groups, left_out), (vec!["vip".into(), "7".into(), "-1".into()], LeftOut::default()));
        assert_eq!(read(None), (Arc::from([]), LeftOut::default()));
        assert!(of(&json!(null)).1.is_nothing() && of(&json!([])).1.is_nothing());
    }

    #[test]
    fn what_is_no_group_is_left_out_and_counted() {
        let (groups, left_out) = of(&json!(["a", null, 1.5, true, "", "x\ny", ["b"], { "c": 1 }, "d"]));
        assert_eq!(groups, ["a", "d"]);
        assert_eq!(left_out, LeftOut { unusable: 7, ..LeftOut::default() });
        for no_list in [json!("vip"), json!(7), json!({ "vip": true }), json!(false)] {
            assert_eq!(of(&no_list), (vec![], LeftOut { no_list: true, ..LeftOut::default() }), "{no_list}");
        }
    }

    #[test]
    fn the_bound_holds() {
        let mut many: Vec<_> = (0..MAX_GROUPS + 5).map(Value::from).collect();
        many.push("0".into());
        let (groups, left_out) = of(&Value::Array(many));
        assert_eq!(groups.len(), MAX_GROUPS);
        assert_eq!(left_out, LeftOut { beyond: 5, ..LeftOut::default() });
    }
}
