//! Rules and lists of them: what they resolve to, and which are refused.

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
        let configs = [rule("@first", "one", false), rule(first, "two", false), rule(second, "three", false)];
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
