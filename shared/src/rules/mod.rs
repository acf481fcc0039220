//! Channel rules: which internal channel a client's name stands for, and who may use the channel.
//!
//! The rules are one list, the same for edges and publishers, matched in order; the first match wins. A
//! pattern is text with placeholders, as in `{id}@video`. The channel is text built from them, `video:{id}`,
//! and from `{uid}`, the logged-in user. No I/O but a warning in the log, no state.
//!
//! All rules that lead to a channel must agree whether the channel has history, needs a login, and is for the
//! members of a group: a list in which two rules meet in a channel and differ there is refused.

mod meet;
mod pattern;

use serde::{Deserialize, Serialize};

use crate::config::Problems;
use crate::ids::{Channel, Group, NameError, Uid, check_placeholder};
use crate::subject::fnv1a;
use meet::{LIMITS, Side, meet};
use pattern::Pattern;

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

/// Returns the rules that hold when none is configured: `@user` is the channel of the user, `@group/{g}` that
/// of a group of the user, and `@all` that of everyone who is logged in.
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

#[cfg(test)]
mod tests;
