//! The channel that the tour of demo mode shows, taken from the configured rules. Pure.

use serde_json::json;
use shared::ids::{Channel, Uid};
use shared::rules::{RuleConfig, Rules, User};

/// The name by which devices subscribe to their own messages, as all pages of the manual have it.
const OWN: &str = "@user";
/// The user of the tour.
const UID: &str = "1001";
/// The most names that the text for standard output lists.
const MAX_LISTED: usize = 6;

/// A name that the user of the tour may give, and the channel behind the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    name: String,
    channel: Channel,
}

impl Example {
    /// Finds a name for a user who is in no group: `@user`, or else that of the first rule that lets the user
    /// in. None: the rules let such a user subscribe to nothing that can be copied into a shell.
    pub fn of(configs: &[RuleConfig], rules: &Rules) -> Option<Self> {
        let uid = Uid::parse(UID).ok()?;
        let user = User { uid: &uid, groups: &[] };
        let names = configs.iter().map(|rule| filled(&rule.name));
        std::iter::once(OWN.to_owned()).chain(names).find_map(|name| {
            let channel = rules.resolve(&name, Some(user)).ok()?.channel;
            (is_plain(&name) && is_plain(channel.as_str())).then_some(Self { name, channel })
        })
    }

    /// Returns the frame with which a device subscribes.
    pub fn subscribe(&self) -> String {
        format!(r#"{{"op":"subscribe","channel":{}}}"#, json!(self.name))
    }

    /// Returns the body of the publish.
    pub fn body(&self) -> String {
        let name = json!(self.name);
        let text = format!(r#"{{"event":{name},"data":{{"uid":{UID},"msg":"Hello,World!"}}}}"#);
        format!(r#"{{"c":{},"d":{}}}"#, json!(self.channel.as_str()), json!(text))
    }
}

/// Returns the names by which clients subscribe, as one line.
pub fn names(configs: &[RuleConfig]) -> String {
    let listed: Vec<_> = configs.iter().take(MAX_LISTED).map(|rule| rule.name.as_str()).collect();
    match configs.len().saturating_sub(MAX_LISTED) {
        _ if configs.is_empty() => "nothing: [[channels]] has no rule".to_owned(),
        0 => listed.join(", "),
        more => format!("{} and {more} more", listed.join(", ")),
    }
}

/// Puts a value in the place of each placeholder of a name.
fn filled(name: &str) -> String {
    let mut parts = name.split('{');
    let head = parts.next().unwrap_or_default().to_owned();
    parts.fold(head, |text, part| text + "1" + part.split_once('}').map_or("", |(_, literal)| literal))
}

/// Returns whether a text needs no quoting, in JSON, in a shell and in JavaScript.
fn is_plain(text: &str) -> bool {
    !text.contains(['\'', '"', '\\'])
}

#[cfg(test)]
mod tests {
    use shared::rules::default_rules;

    use super::*;

    fn rule(name: &str, channel: &str, member: Option<&str>) -> RuleConfig {
        let (name, channel, member) = (name.into(), channel.into(), member.map(str::to_owned));
        RuleConfig { name, channel, login: true, history: true, member }
    }

    fn example(configs: &[RuleConfig]) -> Option<(String, String)> {
        let example = Example::of(configs, &Rules::compile(configs).unwrap())?;
        Some((example.name, example.channel.to_string()))
    }

    #[test]
    fn the_tour_shows_the_own_channel_or_else_the_first_that_a_user_without_groups_may_name() {
        let group = rule("@group/{g}", "group:{g}", Some("g"));
        for (configs, expected) in [
            (default_rules(), Some(("@user", "user:1001"))),
            (
                vec![rule("@all", "all", None), rule("@user", "user:{uid}", None)],
                Some(("@user", "user:1001")),
            ),
            (vec![group.clone(), rule("{a}/{b}@chat", "chat:{a}:{b}", None)], Some(("1/1@chat", "chat:1:1"))),
            (vec![rule("@it's", "its", None), rule("@me", "user:{uid}", None)], Some(("@me", "user:1001"))),
            (vec![group], None),
            (vec![], None),
        ] {
            let expected = expected.map(|(name, channel)| (name.to_owned(), channel.to_owned()));
            assert_eq!(example(&configs), expected, "{configs:?}");
        }
    }

    #[test]
    fn what_is_shown_is_json_that_says_what_the_rule_says() {
        let configs = [rule("@all", "all", None)];
        let example = Example::of(&configs, &Rules::compile(&configs).unwrap()).unwrap();
        assert_eq!(example.subscribe(), r#"{"op":"subscribe","channel":"@all"}"#);
        let body: serde_json::Value = serde_json::from_str(&example.body()).unwrap();
        assert_eq!(body["c"], "all");
        let text: serde_json::Value = serde_json::from_str(body["d"].as_str().unwrap()).unwrap();
        assert_eq!(text["event"], "@all");
    }

    #[test]
    fn names_are_listed_up_to_a_bound() {
        assert_eq!(names(&default_rules()), "@user, @group/{g}, @all");
        assert!(names(&[]).contains("no rule"));
        let many: Vec<_> = (0..9).map(|number| rule(&format!("@{number}"), "x", None)).collect();
        assert_eq!(names(&many), "@0, @1, @2, @3, @4, @5 and 3 more");
    }
}
