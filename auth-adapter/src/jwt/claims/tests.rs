//! Claims one by one, around every bound.

use serde_json::json;

use super::*;

const NOW: Duration = Duration::from_secs(1_800_000_000);
const DAY: i64 = 86_400;

/// A policy that demands nothing but `exp`, and allows no algorithm.
pub(in crate::jwt) fn policy() -> Policy {
    Policy {
        algorithms: Vec::new(),
        issuer: String::new(),
        audience: String::new(),
        leeway: Duration::from_secs(30),
        require_exp: true,
        max_age: Duration::from_secs(30 * 86_400),
        uid: Pointer::parse("/sub").unwrap(),
        groups: Pointer::parse("/groups").unwrap(),
    }
}

fn outcome(policy: &Policy, claims: Value) -> Result<Good, &'static str> {
    judge(claims.as_object().unwrap().clone(), policy, NOW).map_err(|refusal| refusal.label())
}

/// A date so many seconds from now.
fn at(off: f64) -> Value {
    json!(1_800_000_000.0 + off)
}

fn label(policy: &Policy, claims: Value) -> &'static str {
    outcome(policy, claims).map_or_else(|label| label, |_| "known")
}

#[test]
fn a_login_ends_at_exp_and_leeway() {
    let left =
        |off| outcome(&policy(), json!({ "sub": 1, "exp": at(off) })).map(|good| good.login.expires_in_ms);
    assert_eq!(left(60.0), Ok(Some(90_000)));
    assert_eq!(left(0.5), Ok(Some(30_500)), "a fraction counts");
    assert_eq!(left(-29.5), Ok(Some(500)));
    assert_eq!([-29.9999, -30.0, -31.0].map(left), [const { Err("expired") }; 3]);
}

#[test]
fn dates_that_cannot_be_meant_are_malformed() {
    let far = 3_153_600_000.0;
    for bad in [
        json!(-1),
        json!(1e300),
        json!("1800000060"),
        json!(null),
        json!([]),
        json!(true),
        at(far + 1.0),
        json!(1_800_000_060_000_i64),
    ] {
        for name in ["exp", "nbf", "iat"] {
            let mut claims = json!({ "sub": 1, "exp": at(60.0), "iat": at(0.0) });
            claims[name] = bad.clone();
            assert_eq!(label(&policy(), claims), "malformed", "{name} {bad}");
        }
    }
    assert_eq!(label(&policy(), json!({ "sub": 1, "exp": at(far), "iat": at(0.0) })), "known");
}

#[test]
fn a_token_from_the_future_is_not_valid_yet() {
    for name in ["nbf", "iat"] {
        let of = |off| {
            let mut claims = json!({ "sub": 1, "exp": at(60.0) });
            claims[name] = at(off);
            label(&policy(), claims)
        };
        assert_eq!([of(-5.0), of(30.0), of(30.5)], ["known", "known", "not_yet_valid"], "{name}");
    }
}

#[test]
fn a_token_without_exp_is_refused_unless_allowed() {
    let lax = Policy { require_exp: false, ..policy() };
    assert_eq!(label(&policy(), json!({ "sub": 1, "iat": at(0.0) })), "no_exp");
    let good = outcome(&lax, json!({ "sub": 1, "iat": at(-1.5) })).unwrap();
    assert_eq!((good.login.expires_in_ms, good.login.issued_at_ms), (None, Some(1_799_999_998_500)));
}

#[test]
fn a_token_older_than_orders_are_kept_is_refused() {
    let lax = Policy { require_exp: false, ..policy() };
    let month = 30.0 * DAY as f64;
    for (iat, exp, expected) in [
        (Some(-month), Some(60.0), "known"),
        (Some(-month - 1.0), Some(60.0), "too_old"),
        (Some(0.0), Some(10.0 * month), "known"),
        (None, Some(month), "known"),
        (None, Some(month + 1.0), "too_old"),
        (None, None, "too_old"),
        (Some(0.0), None, "known"),
    ] {
        let mut claims = json!({ "sub": 1 });
        for (name, off) in [("iat", iat), ("exp", exp)] {
            if let Some(off) = off {
                claims[name] = at(off);
            }
        }
        assert_eq!(label(&lax, claims), expected, "{iat:?} {exp:?}");
    }
}

#[test]
fn issuer_and_audience_must_be_those_demanded() {
    let of = |iss: Value, aud: Value| {
        let policy = Policy { issuer: "https://a/".into(), audience: "chat".into(), ..policy() };
        label(&policy, json!({ "sub": 1, "exp": at(60.0), "iss": iss, "aud": aud }))
    };
    for (iss, aud, expected) in [
        (json!("https://a/"), json!("chat"), "known"),
        (json!("https://a/"), json!(["account", "chat"]), "known"),
        (json!("https://a"), json!("chat"), "iss"),
        (json!(["https://a/"]), json!("chat"), "iss"),
        (json!(null), json!("chat"), "iss"),
        (json!("https://a/"), json!("chats"), "aud"),
        (json!("https://a/"), json!([["chat"]]), "aud"),
        (json!("https://a/"), json!([]), "aud"),
        (json!("https://a/"), json!({ "chat": 1 }), "aud"),
    ] {
        assert_eq!(of(iss.clone(), aud.clone()), expected, "{iss} {aud}");
    }
}

#[test]
fn the_user_stands_where_configured() {
    let uid = |pointer: &str, claims: Value| {
        let mut all = json!({ "exp": at(60.0) });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let policy = Policy { uid: Pointer::parse(pointer).unwrap(), ..policy() };
        outcome(&policy, all).map(|good| good.login.uid)
    };
    assert_eq!(uid("/sub", json!({ "sub": "f3b1-77" })), Ok("f3b1-77".into()));
    assert_eq!(uid("/user/id", json!({ "user": { "id": 1001 } })), Ok("1001".into()));
    for no in
        [json!({}), json!({ "sub": 0 }), json!({ "sub": "" }), json!({ "sub": 1.5 }), json!({ "sub": null })]
    {
        assert_eq!(uid("/sub", no.clone()), Err("no_uid"), "{no}");
    }
}

#[test]
fn groups_are_read_once_each_and_the_rest_is_left_out() {
    let groups = |pointer: &str, claims: Value| {
        let policy = Policy { groups: Pointer::parse(pointer).unwrap(), ..policy() };
        let mut all = json!({ "sub": 1, "exp": at(60.0) });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let good = outcome(&policy, all).unwrap();
        let LeftOut { unusable, beyond, no_list } = good.left_out;
        (good.login.groups.join(","), unusable + beyond + usize::from(no_list))
    };
    let roles = json!({ "realm_access": { "roles": ["vip", 7, "vip", "7"] } });
    assert_eq!(groups("/realm_access/roles", roles.clone()), ("vip,7".into(), 0), "as Keycloak writes them");
    assert_eq!(groups("", roles.clone()), (String::new(), 0));
    assert_eq!(groups("/groups", roles), (String::new(), 0));
    assert_eq!(groups("/groups", json!({ "groups": null })), (String::new(), 0));
    assert_eq!(groups("/groups", json!({ "groups": "vip" })), (String::new(), 1));
    assert_eq!(groups("/groups", json!({ "groups": ["a", "", 1.5, null, ["b"], "a\nb"] })), ("a".into(), 5));
    let many: Vec<_> = (0..70).collect();
    let (kept, left_out) = groups("/groups", json!({ "groups": many }));
    assert_eq!((kept.split(',').count(), left_out), (64, 6));
}

#[test]
fn the_id_of_a_token_is_passed_on_as_a_fingerprint() {
    assert_eq!(label(&policy(), json!({ "sub": 1, "exp": at(60.0), "iat": at(0.0), "jti": 7 })), "malformed");
    let good = outcome(&policy(), json!({ "sub": 1, "exp": at(60.0), "jti": "abc" })).unwrap();
    assert_eq!(good.login.token_id, Some(shared::login::token_id("abc")));
    assert_eq!(outcome(&policy(), json!({ "sub": 1, "exp": at(60.0) })).unwrap().login.token_id, None);
}
