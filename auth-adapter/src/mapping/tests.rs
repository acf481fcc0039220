//! The mapping as a whole: faults of the configuration, the manual's tables, and properties.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use shared::config::Secret;
use shared::ids::Uid;
use tokio::time::Instant;

use super::config::{Accepted, AnswerConfig, RequestConfig};
use super::*;
use crate::business::{Answer, Failure};

/// The time in the manual's tables.
const NOW: Duration = Duration::from_secs(1_800_000_000);

fn with(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config { url: "http://127.0.0.1/check".into(), ..Config::default() };
    change(&mut config);
    config
}

fn preset(preset: Preset) -> Mapping {
    Mapping::of_preset(preset).unwrap()
}

fn faults(change: impl FnOnce(&mut Config)) -> String {
    Mapping::of(&with(change)).map(drop).map_err(|problems| problems.to_string()).err().unwrap_or_default()
}

fn now() -> Moment {
    Moment { instant: Instant::now(), unix: NOW, asked_at_ms: 7 }
}

fn reply(body: &str) -> Reply<'_> {
    Reply { status: 200, retry_after: None, body: body.as_bytes(), token: "t0k3n" }
}

fn decided(mapping: &Mapping, body: &str) -> Decision {
    decide(mapping, reply(body), now())
}

fn user(mapping: &Mapping, body: &str) -> Option<String> {
    match decided(mapping, body).answer {
        Ok(Answer::Yes { uid, .. }) => Some(uid.to_string()),
        Ok(Answer::No) => None,
        Err(failure) => panic!("{body}: {failure}"),
    }
}

#[test]
fn every_fault_is_named_with_its_key() {
    let answer = |change: fn(&mut AnswerConfig)| faults(|config| change(&mut config.answer));
    let token = |text: &str| faults(|config| config.request.token = Some(text.into()));
    for (fault, key) in [
        (answer(|answer| answer.uid = Some(vec![])), "answer.uid: is empty"),
        (
            answer(|answer| answer.uid = Some(vec!["/a".into(), "uid".into()])),
            "answer.uid: \"uid\" is no JSON",
        ),
        (answer(|answer| answer.expires_in = Some("ttl".into())), "answer.expires_in: \"ttl\" is no JSON"),
        (answer(|answer| answer.expires_at = Some("/~".into())), "answer.expires_at: \"/~\" is no JSON"),
        (answer(|answer| answer.groups = Some("roles".into())), "answer.groups: \"roles\" is no JSON"),
        (
            answer(|answer| answer.ok = Some(BTreeMap::from([("/code".into(), vec![])]))),
            "answer.ok: \"/code\" has no",
        ),
        (
            answer(|answer| {
                let values = vec![Accepted::Text("599-500".into())];
                answer.unavailable = Some(BTreeMap::from([("/code".into(), values)]));
            }),
            "answer.unavailable: the range",
        ),
        (token("cookie:x"), "request.token: is no place"),
        (token("header:X-Token: x"), "request.token: the header has no {token}"),
        (token("header:X-Token: {token}{token}"), "request.token: the header has {token} twice"),
        (token("header:Connection: {token}"), "request.token: the header Connection is set by HTTP"),
        (faults(|config| config.request.method = Some(Method::Get)), "request.method: GET has no body"),
        (
            faults(|config| {
                config.preset = Preset::CommonResult;
                config.headers.insert("AUTHORIZATION".into(), Secret::new("Basic x"));
            }),
            "request.token: auth_adapter.headers sets authorization too",
        ),
        (
            faults(|config| {
                config.url += "?token=1";
                config.request.token = Some("query:token".into());
            }),
            "request.token: auth_adapter.url has the parameter \"token\" too",
        ),
    ] {
        assert!(fault.starts_with(&format!("auth_adapter.{key}")), "{key}: {fault}");
    }
    let several = faults(|config| {
        config.request.token = Some("x".into());
        config.answer.groups = Some("x".into());
        config.answer.uid = Some(vec![]);
    });
    assert_eq!(several.lines().count(), 3, "all at once: {several}");
}

#[test]
fn single_keys_stand_over_the_preset() {
    let mapping = Mapping::of(&with(|config| {
        config.preset = Preset::CommonResult;
        config.request = RequestConfig { method: Some(Method::Get), token: None };
        config.answer.uid = Some(vec!["/data/loginId".into()]);
        config.answer.ok = Some(BTreeMap::new());
    }))
    .unwrap();
    assert_eq!(mapping.method(), Method::Get);
    assert_eq!(mapping.token().words(), "header authorization: Bearer ***");
    assert_eq!(user(&mapping, r#"{"code":1,"data":{"loginId":"bob","id":7}}"#), Some("bob".into()));
    assert!(matches!(decided(&mapping, r#"{"code":"503"}"#).answer, Err(Failure::Declared(_))));
}

/// Holds the manual's tables to what the code does.
#[test]
fn answers_mean_what_the_manual_says() {
    let manual = include_str!("../../../deploy/docs/login.md");
    let (mut mapping, mut rows) = (preset(Preset::Connmix), BTreeMap::new());
    for line in manual.lines() {
        if let Some(heading) = line.strip_prefix('#') {
            let named = presets::ALL.into_iter().find(|preset| heading.contains(presets::name(*preset)));
            mapping = preset(named.unwrap_or_default());
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, status, body, means, device, _] = cells[..] else { continue };
        let Ok(status) = status.parse::<u16>() else { continue };
        let reply = Reply { status, ..reply(body.trim_matches('`')) };
        let moment = now();
        let hour = moment.instant + Duration::from_secs(3_600);
        let (meaning, to_device) = match decide(&mapping, reply, moment).answer {
            Ok(Answer::Yes { expires: None, .. }) => ("yes", "`{\"result\":true}`"),
            Ok(Answer::Yes { expires: Some(at), .. }) if at == hour => {
                ("yes, for an hour", "`{\"result\":true}`")
            }
            Ok(Answer::Yes { .. }) => ("yes, for another time", ""),
            Ok(Answer::No) => ("no", "error 2, close 4401"),
            Err(_) => ("no answer", "error 3, close 1013"),
        };
        assert_eq!((means, device), (meaning, to_device), "{line}");
        *rows.entry(presets::name(mapping.preset)).or_insert(0) += 1;
    }
    assert!(rows["connmix"] >= 20 && rows["common-result"] >= 8 && rows["rfc7662"] >= 6, "{rows:?}");
}

#[test]
fn a_user_is_an_integer_or_a_text_at_the_first_place_that_exists() {
    let mapping = preset(Preset::Connmix);
    assert_eq!(user(&mapping, r#"{"uid":18446744073709551615}"#), Some("18446744073709551615".into()));
    assert_eq!(user(&mapping, "\u{feff}{\"uid\":1001}"), Some("1001".into()), "a byte order mark is no JSON");
    assert_eq!(user(&mapping, r#"{"user":{"uid":2},"uid":1,"UID":3}"#), Some("1".into()));
    for no in
        [r#"{"uid":null}"#, r#"{"uid":1.5}"#, r#"{"uid":[1]}"#, r#"{"uid":true}"#, r#"{"uid":-1}"#, "[]", "1"]
    {
        assert_eq!(user(&mapping, no), None, "{no}");
    }
    let common = preset(Preset::CommonResult);
    assert_eq!(user(&common, r#"{"code":0,"data":{"id":7,"userId":8}}"#), Some("8".into()));
    assert_eq!(user(&common, r#"{"code":0,"data":{"uid":null,"id":7}}"#), None, "null exists");
    for twice in [r#"{"uid":1,"uid":2}"#, r#"{"uid":1,"groups":[],"groups":["vip"]}"#] {
        assert_eq!(decided(&mapping, twice).answer, Err(Failure::Ambiguous), "{twice}");
    }
    assert_eq!(user(&mapping, r#"{"name":"a","name":"b","uid":1}"#), Some("1".into()));
}

#[test]
fn the_earlier_expiry_counts_and_milliseconds_are_asked_about() {
    let mapping = Mapping::of(&with(|config| config.answer.expires_at = Some("/exp".into()))).unwrap();
    let left = |body: &str| {
        let moment = now();
        match decide(&mapping, reply(body), moment).answer {
            Ok(Answer::Yes { expires, .. }) => Ok(expires.map(|at| (at - moment.instant).as_secs_f64())),
            Ok(Answer::No) => Ok(Some(0.0)),
            Err(failure) => Err(failure),
        }
    };
    assert_eq!(left(r#"{"uid":1,"expires_in":null,"exp":null}"#), Ok(None));
    assert_eq!(left(r#"{"uid":1,"expires_in":1.5}"#), Ok(Some(1.5)));
    assert_eq!(left(r#"{"uid":1,"expires_in":60,"exp":1800000030}"#), Ok(Some(30.0)));
    assert_eq!(left(r#"{"uid":1,"expires_in":20,"exp":1800000030}"#), Ok(Some(20.0)));
    assert_eq!(left(r#"{"uid":1,"expires_in":20,"exp":1799999999}"#), Ok(Some(0.0)));
    assert_eq!(left(r#"{"uid":1,"expires_in":1e300}"#), Ok(Some(expiry::FOREVER)));
    assert_eq!(left(r#"{"uid":1,"exp":"soon"}"#), Err(Failure::BadExpiry("expires_at")));
    assert_eq!(left(r#"{"uid":1,"expires_in":"soon"}"#), Err(Failure::BadExpiry("expires_in")));
    let milliseconds = left(r#"{"uid":1,"exp":1800003600000}"#).unwrap_err();
    assert!(milliseconds.to_string().contains("are these milliseconds?"), "{milliseconds}");
}

#[test]
fn a_yes_brings_groups_and_the_moment_of_the_question() {
    let decision = decided(&preset(Preset::Connmix), r#"{"uid":1,"groups":["vip",7,null]}"#);
    let Ok(Answer::Yes { groups, asked_at_ms, .. }) = decision.answer else { panic!("{decision:?}") };
    let groups: Vec<_> = groups.iter().map(|group| group.as_str()).collect();
    assert_eq!((groups, asked_at_ms, decision.left_out.unusable), (vec!["vip", "7"], 7, 1));
}

#[test]
fn every_reason_says_what_was_looked_for_and_what_to_set() {
    let connmix = preset(Preset::Connmix);
    let common = preset(Preset::CommonResult);
    for (mapping, body, outcome, words) in [
        (
            &connmix,
            r#"{"code":0,"data":{"uid":7},"msg":""}"#,
            "no_uid",
            "looked for uid at /uid; keys there: /code /data/uid /msg; set auth_adapter.answer.uid = \
             [\"/data/uid\"], or auth_adapter.preset = \"common-result\"",
        ),
        (&connmix, r#"{"id":7}"#, "no_uid", "keys there: /id; set auth_adapter.answer.uid = [\"/id\"]"),
        (&connmix, r#"{"active":true,"sub":"a"}"#, "no_uid", "or auth_adapter.preset = \"rfc7662\""),
        (&connmix, r#"{"error":"x"}"#, "no_uid", "if this token is good, set auth_adapter.answer.uid"),
        (&connmix, "[]", "no_uid", "no object, but a list"),
        (&connmix, r#"{"uid":0}"#, "no", "the value at /uid is no user"),
        (&connmix, r#"{"uid":1,"expires_in":0}"#, "no", "compare the clocks"),
        (&connmix, "<html>", "not_json", "check auth_adapter.url"),
        (&connmix, "", "not_json", "it is empty"),
        (&common, r#"{"code":401}"#, "not_ok", "looked for 0 or 200 at /code; a number with another value"),
        (&common, r#"{"uid":7}"#, "not_ok", "nothing is there; keys there: /uid"),
        (&common, r#"{"code":503}"#, "unavailable", "at /code"),
        (&common, r#"{"code":0,"data":null}"#, "no_uid", "keys there: /code /data"),
    ] {
        let decision = decided(mapping, body);
        let reason = decision.reason.unwrap_or_default();
        assert_eq!(decision.outcome, outcome, "{body}");
        assert!(reason.contains(words), "{body}: {reason}");
        assert!(!reason.contains("t0k3n"), "{reason}");
    }
    for (status, outcome, words) in [
        (401, "no", "auth_adapter.refusals"),
        (404, "status", "check auth_adapter.url"),
        (405, "status", "auth_adapter.request.method"),
        (415, "status", "auth_adapter.request.token"),
        (302, "status", "redirects are not followed"),
    ] {
        let decision = decide(&connmix, Reply { status, ..reply("") }, now());
        let reason = decision.reason.unwrap_or_default();
        assert!(decision.outcome == outcome && reason.contains(words), "{status}: {reason}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("(uid|id|data|code|sub|[a-z]{0,3})", inner, 0..4)
                .prop_map(|keys| Value::Object(keys.into_iter().collect())),
        ]
    })
}

fn any_mapping() -> impl Strategy<Value = Mapping> {
    prop::sample::select(presets::ALL.to_vec()).prop_map(preset)
}

proptest! {
    #[test]
    fn only_an_integer_or_a_text_is_a_user(uid in any_json(), expires in any_json()) {
        let body = json!({ "uid": uid, "expires_in": expires }).to_string();
        match decided(&preset(Preset::Connmix), &body).answer {
            Ok(Answer::Yes { uid: user, expires: at, .. }) => {
                let text = uid.as_str().map(str::to_owned).or_else(|| uid.as_u64().map(|uid| uid.to_string()));
                prop_assert_eq!(Some(user.as_str()), text.as_deref());
                prop_assert!(expires.is_null() || expires.as_f64().is_some_and(|seconds| seconds > 0.0));
                prop_assert_eq!(at.is_none(), expires.is_null());
            }
            Ok(Answer::No) => prop_assert!(
                Uid::from_json(&uid).is_err() || expires.as_f64().is_some_and(|seconds| seconds < 1e-8)
            ),
            Err(failure) => {
                prop_assert_eq!(failure, Failure::BadExpiry("expires_in"));
                prop_assert!(!expires.is_null() && !expires.is_number());
            }
        }
    }

    #[test]
    fn only_a_valid_uid_where_configured_makes_a_yes(mapping in any_mapping(), answer in any_json()) {
        let body = answer.to_string();
        if let Ok(Answer::Yes { uid, .. }) = decided(&mapping, &body).answer {
            let found = mapping.uid.iter().find_map(|place| place.of(&answer)).unwrap();
            prop_assert_eq!(Uid::from_json(found).unwrap(), uid);
            prop_assert!(mapping.ok.iter().all(|condition| condition.holds(&answer)));
            prop_assert!(!mapping.unavailable.iter().any(|condition| condition.holds(&answer)));
        }
    }

    #[test]
    fn no_body_makes_a_panic_and_every_no_has_a_reason(mapping in any_mapping(), status: u16, body: Vec<u8>) {
        let reply = Reply { status, retry_after: None, body: &body, token: "t0k3n" };
        for reply in [reply, Reply { status: 200, ..reply }] {
            let decision = decide(&mapping, reply, now());
            let is_yes = matches!(decision.answer, Ok(Answer::Yes { .. }));
            prop_assert_eq!(decision.reason.is_none(), is_yes);
            prop_assert_eq!(decision.outcome == "yes", is_yes);
        }
    }

    #[test]
    fn no_reason_names_the_token_or_a_value(
        mapping in any_mapping(),
        token in "[A-Z0-9]{16,24}",
        key in "(uid|id|code|data|sub|active|[a-z]{0,6})",
        value in "[A-Z0-9]{16,24}",
    ) {
        let body = json!({ &key: &value, "data": { (format!("x{token}")): &token, &key: &value } }).to_string();
        let reply = Reply { status: 200, retry_after: None, body: body.as_bytes(), token: &token };
        let reason = decide(&mapping, reply, now()).reason.unwrap_or_default();
        prop_assert!(!reason.contains(&token) && !reason.contains(&value), "{}", reason);
    }
}
