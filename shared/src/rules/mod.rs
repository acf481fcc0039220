//! Channel rules: which internal channel a client's name stands for, and who may use the channel.
//!
//! The rules are one list, the same for edges and publishers, matched in order; the first match wins. A
//! pattern is text with placeholders, as in `{id}@video`. The channel is text built from them, `video:{id}`,
//! and from `{uid}`, the logged-in user. No I/O but a warning in the log, no state.
//!
//! All rules that lead to a channel must agree whether the channel has history, needs a login, and is for the
//! members of a group: a list in which two rules meet in a channel and differ there is refused.

mod meet;

use serde::{Deserialize, Serialize};

use crate::config::Problems;
use crate::ids::{Channel, Group, NameError, Uid, check_placeholder};
use crate::subject::fnv1a;
use meet::{LIMITS, Side, meet};

/// One rule as it stands in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RuleConfig {
    /// The name by which clients subscribe, e.g. `@user` or `{id}@video`. A placeholder matches 1 to 128
    /// bytes. A rule is refused if an earlier rule matches all its names.
    pub name: String,
    /// The channel, as publishers name it, e.g. `user:{uid}` or `video:{id}`.
    pub channel: String,
    /// Whether a client must have logged in. Must be true for `{uid}`. Rules that lead to the same channel
    /// must agree.
    #[serde(default = "yes")]
    pub login: bool,
    /// Whether messages are stored for recovery. Rules that lead to the same channel must agree.
    #[serde(default = "yes")]
    pub history: bool,
    /// The placeholder of `name` that stands for a group: only a user whose login brought this group may
    /// subscribe, e.g. `g` for the name `@group/{g}`. Needs `login`. Rules that lead to the same channel must
    /// agree whether they have it. Left out: every user may subscribe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
}

/// The name by which devices subscribe to their own messages.
const OWN: &str = "@user";

fn yes() -> bool {
    true
}

/// Returns the rules that hold when none is configured: `@user` is the channel of the user, `@group/{g}` that of
/// a group of the user, and `@all` that of everyone who is logged in.
pub fn default_rules() -> Vec<RuleConfig> {
    let rule = |name: &str, channel: &str, member: Option<&str>| RuleConfig {
        name: name.into(),
        channel: channel.into(),
        login: true,
        history: true,
        member: member.map(str::to_owned),
    };
    vec![
        rule("@user", "user:{uid}", None),
        rule("@group/{g}", "group:{g}", Some("g")),
        rule("@all", "all", None),
    ]
}

/// Why a client may not use a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No rule matches.
    UnknownChannel,
    /// The rule needs a login.
    NotAuth,
    /// The user is not in the group that the name names.
    NotMember,
    /// The rule matches, but the result is no valid channel.
    BadName(NameError),
}

/// The user who names a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User<'a> {
    /// The user's id.
    pub uid: &'a Uid,
    /// The groups that the login brought.
    pub groups: &'a [Group],
}

/// The channel that a client's name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The internal channel.
    pub channel: Channel,
    /// Whether the rule needs a login.
    pub login: bool,
    /// Whether the channel has history.
    pub history: bool,
}

/// The checked list of rules.
///
/// ```
/// use shared::ids::{Group, Uid};
/// use shared::rules::{Refusal, RuleConfig, Rules, User, default_rules};
///
/// let mut list = default_rules();
/// let (name, channel) = ("{id}@video".into(), "video:{id}".into());
/// list.push(RuleConfig { name, channel, login: false, history: true, member: None });
/// let (name, channel) = ("@team/{g}".into(), "team:{g}".into());
/// list.push(RuleConfig { name, channel, login: true, history: true, member: Some("g".into()) });
/// let rules = Rules::compile(&list)?;
///
/// assert_eq!(rules.resolve("7@video", None).unwrap().channel.as_str(), "video:7");
/// let (uid, groups) = (Uid::parse("ada").unwrap(), [Group::parse("red").unwrap()]);
/// let ada = User { uid: &uid, groups: &groups };
/// assert_eq!(rules.resolve("@user", Some(ada)).unwrap().channel.as_str(), "user:ada");
/// assert_eq!(rules.resolve("@user", None), Err(Refusal::NotAuth));
/// assert_eq!(rules.resolve("@team/red", Some(ada)).unwrap().channel.as_str(), "team:red");
/// assert_eq!(rules.resolve("@team/blue", Some(ada)), Err(Refusal::NotMember));
/// # Ok::<(), shared::config::Problems>(())
/// ```
#[derive(Debug, Clone)]
pub struct Rules {
    rules: Vec<Rule>,
    digest: String,
}

#[derive(Debug, Clone)]
struct Rule {
    name: Pattern,
    channel: Pattern,
    login: bool,
    history: bool,
    member: Option<String>,
}

impl Rules {
    /// Checks the configured list and prepares it for matching.
    ///
    /// # Errors
    /// Every problem of every rule, by its key.
    pub fn compile(configs: &[RuleConfig]) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mut rules = Vec::with_capacity(configs.len());
        for (index, config) in configs.iter().enumerate() {
            match Rule::compile(config) {
                Ok(rule) => rules.push(rule),
                Err((field, fault)) => problems.add(format!("channels.{index}.{field}"), fault),
            }
        }
        if problems.is_empty() {
            refuse_unreachable(configs, &rules, &mut problems);
            refuse_differing(configs, &rules, &mut problems);
        }
        let canonical = serde_json::to_vec(configs).expect("rules are plain data");
        problems.into_result(Self { rules, digest: format!("{:016x}", fnv1a(&canonical)) })
    }

    /// Resolves the name that a client gives; `user` has logged in.
    ///
    /// # Errors
    /// No rule matches, a login or a group is needed, or the name makes no valid channel.
    pub fn resolve(&self, name: &str, user: Option<User<'_>>) -> Result<Resolved, Refusal> {
        let (rule, values) = self
            .rules
            .iter()
            .find_map(|rule| rule.name.matches(name).map(|values| (rule, values)))
            .ok_or(Refusal::UnknownChannel)?;
        if rule.login && user.is_none() {
            return Err(Refusal::NotAuth);
        }
        for (_, value) in &values {
            check_placeholder(value).map_err(Refusal::BadName)?;
        }
        rule.admit(&values, user)?;
        let channel = rule.channel.fill(|placeholder| match placeholder {
            "uid" => user.map(|user| user.uid.as_str()),
            other => value_of(&values, other),
        });
        let channel = Channel::parse(&channel).map_err(Refusal::BadName)?;
        Ok(Resolved { channel, login: rule.login, history: rule.history })
    }

    /// Returns whether an internal channel has history. A channel without a rule has none.
    pub fn has_history(&self, channel: &Channel) -> bool {
        self.rules
            .iter()
            .find(|rule| rule.channel.matches(channel.as_str()).is_some())
            .is_some_and(|r| r.history)
    }

    /// Returns whether any channel has history.
    pub fn any_history(&self) -> bool {
        self.rules.iter().any(|rule| rule.history)
    }

    /// Returns what devices miss with these rules, if a usual name has no rule.
    pub fn advice(&self) -> Option<&'static str> {
        let own = self.rules.iter().any(|rule| rule.name.matches(OWN).is_some());
        (!own).then_some(
            "no rule of [[channels]] takes the name \"@user\": devices that subscribe to their own messages get error 6; \
             if they shall, add { name = \"@user\", channel = \"user:{uid}\" } (a list of rules replaces the default rules)",
        )
    }

    /// Warns in the log if a usual name has no rule. Each process that reads rules calls this once, when it
    /// starts.
    pub fn warn_if_incomplete(&self) {
        if let Some(advice) = self.advice() {
            tracing::warn!("{advice}");
        }
    }

    /// Returns a short text that is equal exactly if the rules are equal (except for 1 in 2^64).
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// Adds a problem for each rule that is never taken, since an earlier rule matches all of its names.
fn refuse_unreachable(configs: &[RuleConfig], rules: &[Rule], problems: &mut Problems) {
    for (index, later) in rules.iter().enumerate() {
        // A pattern that matches a character which no pattern holds matches any text there.
        let any = later.name.fill(|_| Some("\u{10ffff}"));
        let Some(before) = rules[..index].iter().position(|earlier| earlier.name.matches(&any).is_some())
        else {
            continue;
        };
        let (name, earlier) = (&configs[index].name, &configs[before].name);
        let fault = if name == earlier {
            format!(
                "two rules have the name {name:?} (channels.{before} and channels.{index}), and the first would always \
                 be taken; give them different names, or leave one out"
            )
        } else {
            format!(
                "the rule {name:?} (channels.{index}) would never be taken, since {earlier:?} (channels.{before}) matches \
                 all of its names and comes first; put {name:?} before {earlier:?}, or leave one out"
            )
        };
        problems.add(format!("channels.{index}.name"), fault);
    }
}

/// Adds a problem for each rule that meets an earlier rule in a channel and differs in history, login or
/// member.
fn refuse_differing(configs: &[RuleConfig], rules: &[Rule], problems: &mut Problems) {
    for (index, later) in rules.iter().enumerate() {
        for (before, earlier) in rules[..index].iter().enumerate() {
            // Publishes are looked up at the earlier rule.
            let published = (&earlier.channel, Side::LookedUp);
            let reached = (&earlier.channel, Side::Reached);
            let differences = [
                ("history", later.history != earlier.history, published),
                ("login", later.login != earlier.login, reached),
                ("member", later.member.is_some() != earlier.member.is_some(), reached),
            ];
            for (key, differs, channel) in differences {
                if let Some(example) = differs.then(|| meet(&later.channel, channel, LIMITS)).flatten() {
                    let fault = format!(
                        "the rules {:?} (channels.{index}) and {:?} (channels.{before}) meet in channels like \
                         {example:?}, and only one of them has {key}; give both the same {key}, or channels that can't \
                         be the same",
                        configs[index].name, configs[before].name,
                    );
                    problems.add(format!("channels.{index}.{key}"), fault);
                }
            }
        }
    }
}

impl Rule {
    fn compile(config: &RuleConfig) -> Result<Self, (&'static str, String)> {
        let name = Pattern::parse(&config.name).map_err(|fault| ("name", fault))?;
        let channel = Pattern::parse(&config.channel).map_err(|fault| ("channel", fault))?;
        if name.has("uid") {
            return Err((
                "name",
                "{uid} is the logged-in user and can't be part of what a client names".into(),
            ));
        }
        if channel.has("uid") && !config.login {
            return Err(("login", "the channel uses {uid}, so login must be true".into()));
        }
        for placeholder in channel.placeholders() {
            if placeholder != "uid" && !name.has(placeholder) {
                return Err(("channel", format!("{{{placeholder}}} is not in the name {:?}", config.name)));
            }
        }
        if let Some(member) = &config.member {
            check_member(member, &name, config)?;
        }
        let sample = channel.fill(|_| Some("x"));
        Channel::parse(&sample)
            .map_err(|fault| ("channel", format!("it can't be a channel name: {fault}")))?;
        let (login, history, member) = (config.login, config.history, config.member.clone());
        Ok(Self { name, channel, login, history, member })
    }

    /// Decides whether the user has the group that the name names, if the rule is for members alone.
    fn admit(&self, values: &[(&str, &str)], user: Option<User<'_>>) -> Result<(), Refusal> {
        let Some(member) = &self.member else { return Ok(()) };
        let named = value_of(values, member);
        let mut groups = user.into_iter().flat_map(|user| user.groups);
        if groups.any(|group| Some(group.as_str()) == named) { Ok(()) } else { Err(Refusal::NotMember) }
    }
}

/// Checks the key `member` of a rule.
fn check_member(member: &str, name: &Pattern, config: &RuleConfig) -> Result<(), (&'static str, String)> {
    if !name.has(member) {
        let fault =
            format!("{member:?} is no placeholder of the name {:?}; name one that it has", config.name);
        return Err(("member", fault));
    }
    if !config.login {
        return Err(("login", "the rule has member, so login must be true".into()));
    }
    Ok(())
}

/// Returns what stands for a placeholder.
fn value_of<'t>(values: &[(&str, &'t str)], placeholder: &str) -> Option<&'t str> {
    values.iter().find(|(name, _)| *name == placeholder).map(|(_, value)| *value)
}

/// Text with placeholders, of which no two are adjacent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    /// Text before the first placeholder.
    head: String,
    /// Each placeholder with the text that follows.
    tail: Vec<(String, String)>,
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty".into());
        }
        let mut parts = text.split('{');
        let head = parts.next().unwrap_or_default().to_owned();
        let mut tail: Vec<(String, String)> = Vec::new();
        for part in parts {
            let (name, literal) =
                part.split_once('}').ok_or_else(|| format!("{text:?} has a {{ without its }}"))?;
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                return Err(format!("{{{name}}} is no placeholder: use a-z and _"));
            }
            if tail.iter().any(|(other, _)| other == name) {
                return Err(format!("{{{name}}} stands twice"));
            }
            if tail.last().is_some_and(|(_, literal)| literal.is_empty()) {
                return Err("two placeholders need text between them".into());
            }
            tail.push((name.to_owned(), literal.to_owned()));
        }
        if head.contains('}') || tail.iter().any(|(_, literal)| literal.contains('}')) {
            return Err(format!("{text:?} has a }} without its {{"));
        }
        Ok(Self { head, tail })
    }

    /// Returns the values of the placeholders if the whole text matches. A placeholder ends at the first
    /// occurrence of the text that follows; the last placeholder reaches to the end.
    fn matches<'p, 't>(&'p self, text: &'t str) -> Option<Vec<(&'p str, &'t str)>> {
        let mut rest = text.strip_prefix(self.head.as_str())?;
        let mut values = Vec::with_capacity(self.tail.len());
        for (index, (name, literal)) in self.tail.iter().enumerate() {
            let value = if index + 1 == self.tail.len() {
                let value = rest.strip_suffix(literal.as_str())?;
                rest = "";
                value
            } else {
                // A value has at least one character, so the search for the following text begins behind it.
                let first = rest.chars().next()?.len_utf8();
                let end = first + rest[first..].find(literal.as_str())?;
                let value = &rest[..end];
                rest = &rest[end + literal.len()..];
                value
            };
            if value.is_empty() {
                return None;
            }
            values.push((name.as_str(), value));
        }
        rest.is_empty().then_some(values)
    }

    fn fill<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> String {
        let mut text = self.head.clone();
        for (name, literal) in &self.tail {
            text.push_str(value(name).unwrap_or_default());
            text.push_str(literal);
        }
        text
    }

    fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(|(name, _)| name.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.placeholders().any(|placeholder| placeholder == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(name: &str, channel: &str, login: bool) -> RuleConfig {
        RuleConfig { name: name.into(), channel: channel.into(), login, history: false, member: None }
    }

    fn of_members(name: &str, channel: &str, member: &str) -> RuleConfig {
        RuleConfig { member: Some(member.into()), ..rule(name, channel, true) }
    }

    fn rules() -> Rules {
        let mut configs = default_rules();
        configs.extend([
            rule("{id}@video", "video:{id}", false),
            rule("@broadcast", "broadcast", false),
            rule("{team}/{room}@chat", "chat:{team}:{room}:of:{uid}", true),
            of_members("@seat/{seat}/{g}", "seat:{g}:{seat}", "g"),
        ]);
        Rules::compile(&configs).unwrap()
    }

    fn channel(name: &str, uid: Option<&str>) -> Result<String, Refusal> {
        channel_of(name, uid, &[])
    }

    fn channel_of(name: &str, uid: Option<&str>, groups: &[&str]) -> Result<String, Refusal> {
        let uid = uid.map(|uid| Uid::parse(uid).unwrap());
        let groups: Vec<_> = groups.iter().map(|group| Group::parse(group).unwrap()).collect();
        let user = uid.as_ref().map(|uid| User { uid, groups: &groups });
        rules().resolve(name, user).map(|resolved| resolved.channel.to_string())
    }

    #[test]
    fn names_stand_for_channels() {
        assert_eq!(channel("@user", Some("1001")), Ok("user:1001".into()));
        assert_eq!(channel("@user", None), Err(Refusal::NotAuth));
        assert_eq!(channel("12@video", None), Ok("video:12".into()));
        assert_eq!(channel("a@video@video", None), Ok("video:a@video".into()));
        assert_eq!(channel("@broadcast", None), Ok("broadcast".into()));
        assert_eq!(channel("@all", Some("7")), Ok("all".into()));
        assert_eq!(channel("@all", None), Err(Refusal::NotAuth));
        assert_eq!(channel("a/b@chat", Some("7")), Ok("chat:a:b:of:7".into()));
        assert_eq!(channel("a/b@chat", None), Err(Refusal::NotAuth));
        for unknown in ["", "user:1001", "@video", "@user ", "/b@chat", "a/@chat"] {
            assert_eq!(channel(unknown, Some("7")), Err(Refusal::UnknownChannel), "{unknown:?}");
        }
    }

    #[test]
    fn a_name_that_makes_no_channel_is_refused() {
        for bad in ["a b@video", "a\u{7}@video", &format!("{}@video", "x".repeat(129))] {
            assert!(matches!(channel(bad, None), Err(Refusal::BadName(_))), "{bad:?}");
        }
    }

    #[test]
    fn only_who_has_the_group_comes_to_its_channel() {
        for (name, groups, outcome) in [
            ("@group/vip", &["vip"][..], Ok("group:vip")),
            ("@group/vip", &["staff", "vip"], Ok("group:vip")),
            ("@group/vip", &[], Err(Refusal::NotMember)),
            ("@group/vip", &["VIP", "vi", "vipp"], Err(Refusal::NotMember)),
            ("@seat/7/vip", &["vip"], Ok("seat:vip:7")),
            ("@seat/vip/7", &["vip"], Err(Refusal::NotMember)),
            ("@user", &[], Ok("user:1")),
        ] {
            assert_eq!(channel_of(name, Some("1"), groups), outcome.map(str::to_owned), "{name} {groups:?}");
        }
        assert_eq!(channel_of("@group/vip", None, &["vip"]), Err(Refusal::NotAuth));
        assert!(matches!(channel_of("@group/a\nb", Some("1"), &["vip"]), Err(Refusal::BadName(_))));
    }

    #[test]
    fn every_user_has_the_channel_of_its_own_messages() {
        assert_eq!(channel("@user", Some("john doe")).unwrap(), "user:john doe");
    }

    #[test]
    fn history_is_looked_up_by_the_channel() {
        let rules = rules();
        let history = |name: &str| rules.has_history(&Channel::parse(name).unwrap());
        assert!(history("user:1001") && history("group:vip") && history("all"));
        assert!(!history("video:1"));
        assert!(!history("something:else"));
    }

    #[test]
    fn every_faulty_rule_is_named() {
        let faulty = [
            rule("", "a", true),
            rule("{id", "a", true),
            rule("id}", "a", true),
            rule("{ID}", "a", true),
            rule("{a}{b}", "a", true),
            rule("{a}-{a}", "a", true),
            rule("{uid}", "a", true),
            rule("@me", "user:{uid}", false),
            rule("@me", "user:{id}", true),
            rule("@me", "user 1", true),
            of_members("@group/{g}", "group:{g}", "group"),
            of_members("@group/{g}", "group:{g}", "uid"),
            of_members("@group", "group", ""),
            RuleConfig { login: false, ..of_members("@group/{g}", "group:{g}", "g") },
        ];
        let problems = Rules::compile(&faulty).unwrap_err();
        assert_eq!(problems.len(), faulty.len(), "{problems}");
        let told = problems.to_string();
        for (rule, fault) in [
            (10, "member: \"group\" is no placeholder of the name \"@group/{g}\"; name one that it has"),
            (13, "login: the rule has member, so login must be true"),
        ] {
            assert!(told.contains(&format!("channels.{rule}.{fault}")), "{told}");
        }
    }

    #[test]
    fn rules_that_meet_in_a_channel_must_agree() {
        let rule = |name: &str, channel: &str, login, history| RuleConfig {
            name: name.into(),
            channel: channel.into(),
            login,
            history,
            member: None,
        };
        let faults = |later: RuleConfig| {
            let mut configs = vec![rule("@user", "user:{uid}", true, true)];
            configs.push(rule("@news", "news", false, true));
            configs.push(later);
            Rules::compile(&configs).err().map(|faults| faults.to_string()).unwrap_or_default()
        };
        let fault = faults(rule("{id}@user", "user:{id}", true, false));
        for told in
            ["channels.2.history", "\"{id}@user\"", "\"@user\"", "\"user:x\"", "give both the same history"]
        {
            assert!(fault.contains(told), "{told} is not in {fault}");
        }
        assert!(!fault.contains("login"), "{fault}");
        let fault = faults(rule("{id}@user", "user:{id}", false, true));
        assert!(fault.contains("channels.2.login") && !fault.contains("same history"), "{fault}");
        assert!(faults(rule("@latest", "news", true, false)).contains("channels.2.history"));
        assert!(faults(rule("@latest", "news", true, false)).contains("channels.2.login"));
        for good in [
            rule("{id}@user", "user:{id}", true, true),
            rule("@latest", "news", false, true),
            rule("{id}@video", "video:{id}", false, false),
            // No user has this id, and a published message is looked up at the earlier rule, which has the
            // same history.
            rule("@nobody", "user:0", false, true),
        ] {
            assert_eq!(faults(good), "");
        }
        assert!(faults(rule("@nobody", "user:0", false, false)).contains("channels.2.history"));
        let of_group = |name: &str, channel: &str| RuleConfig {
            member: Some("g".into()),
            ..rule(name, channel, true, true)
        };
        let fault = faults(of_group("@group/{g}", "user:{g}"));
        assert!(fault.contains("channels.2.member") && fault.contains("both the same member"), "{fault}");
        assert_eq!(faults(of_group("@group/{g}", "group:{g}")), "");
    }

    #[test]
    fn rules_for_members_of_other_placeholders_agree() {
        let list = [of_members("@a/{a}", "x:{a}", "a"), of_members("@b/{b}/{c}", "x:{c}", "b")];
        assert!(Rules::compile(&list).is_ok());
    }

    #[test]
    fn a_rule_that_no_name_comes_to_is_refused() {
        let fault = |first: &str, second: &str| {
            // Placeholders of the names alone, so that nothing else is wrong.
            let configs =
                [rule("@first", "one", false), rule(first, "two", false), rule(second, "three", false)];
            Rules::compile(&configs).err().map(|faults| faults.to_string()).unwrap_or_default()
        };
        for name in ["@news", "{id}@video", "{team}/{room}@chat"] {
            let fault = fault(name, name);
            for told in ["channels.2.name", &format!("two rules have the name {name:?}"), "channels.1"] {
                assert!(fault.contains(told), "{told} is not in {fault}");
            }
        }
        for (wide, narrow) in [
            ("{id}@video", "{name}@video"),
            ("{id}@video", "news@video"),
            ("{id}@video", "{team}/{room}@video"),
            ("{id}", "@news"),
        ] {
            let fault = fault(wide, narrow);
            for told in ["channels.2.name", &format!("put {narrow:?} before {wide:?}"), "channels.1"] {
                assert!(fault.contains(told), "{told} is not in {fault}");
            }
        }
        for (first, second) in [
            ("news@video", "{id}@video"),
            ("{team}/{room}@video", "{id}@video"),
            ("{id}@video", "@video"),
            ("{id}@video", "{id}@videos"),
            ("a{id}@video", "{id}@video"),
            // Either has names that the other does not match.
            ("a{id}", "{id}b"),
        ] {
            assert_eq!(fault(first, second), "", "{first} {second}");
        }
    }

    #[test]
    fn a_list_that_drops_the_own_messages_is_told_so() {
        for (name, is_missed) in [("@all", true), ("@users", true), ("@user", false), ("@{x}", false)] {
            let advice = Rules::compile(&[rule(name, "x", true)]).unwrap().advice();
            assert_eq!(advice.is_some(), is_missed, "{name}");
        }
        assert!(Rules::compile(&[]).unwrap().advice().is_some_and(|text| text.contains("user:{uid}")));
        assert_eq!(Rules::compile(&default_rules()).unwrap().advice(), None);
    }

    #[test]
    fn the_digest_changes_with_the_rules() {
        let other = Rules::compile(&default_rules()).unwrap();
        assert_ne!(rules().digest(), other.digest());
        assert_eq!(rules().digest(), rules().digest());
    }

    /// Parts of two versions compare their digests: a key that a list does not use must not change it.
    #[test]
    fn a_list_without_a_later_key_keeps_its_digest() {
        let mut configs = vec![RuleConfig { history: true, ..rule("@user", "user:{uid}", true) }];
        assert_eq!(Rules::compile(&configs).unwrap().digest(), "1d1e4f8097f1e59c");
        configs[0] = of_members("@group/{g}", "group:{g}", "g");
        let without = [RuleConfig { member: None, ..configs[0].clone() }];
        assert_ne!(Rules::compile(&configs).unwrap().digest(), Rules::compile(&without).unwrap().digest());
    }

    proptest! {
        #[test]
        fn what_a_pattern_fills_it_matches(a in "[a-z0-9]{1,8}", b in "\\PC{1,8}") {
            let pattern = Pattern::parse("x:{a}/{b}@y").unwrap();
            let text = pattern.fill(|name| Some(if name == "a" { &a } else { &b }));
            prop_assert_eq!(pattern.matches(&text), Some(vec![("a", a.as_str()), ("b", b.as_str())]));
        }

        /// Each rule that is taken is one that some name comes to, whatever the placeholders stand for.
        #[test]
        fn a_name_that_an_earlier_rule_matches_whole_is_never_anothers(
            names in prop::collection::vec("(a|b|\\{x\\})(a|b)(\\{y\\})?", 2), value in "[ab]{1,4}", other in "[ab]{1,4}",
        ) {
            let patterns: Vec<_> = names.iter().map(|name| Pattern::parse(name).unwrap()).collect();
            let covers = patterns[0].matches(&patterns[1].fill(|_| Some("\u{10ffff}"))).is_some();
            let name = patterns[1].fill(|of| Some(if of == "x" { &value } else { &other }));
            prop_assert!(!covers || patterns[0].matches(&name).is_some(), "{} {}", names[0], name);
        }

        #[test]
        fn no_name_makes_a_panic(name in "\\PC{0,40}") {
            let _ = rules().resolve(&name, None);
        }
    }
}
