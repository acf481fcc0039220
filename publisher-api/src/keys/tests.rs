//! The keys in use, as requests meet them: valid, revoked, read again.

use std::path::PathBuf;
use std::sync::Arc;

use axum::http::HeaderMap;
use prometheus_client::registry::Registry;

use super::caller::Caller;
use super::config::KeyConfig;
use super::secret::SecretHash;
use super::store::Keys;
use crate::error::Refusal;
use crate::scope::Scope;
use axum::http::{HeaderValue, header};
use shared::ids::Channel;

fn key(name: &str, secret: &str) -> KeyConfig {
    KeyConfig { name: name.into(), hash: SecretHash::of(secret).to_string(), ..KeyConfig::default() }
}

fn keys(listed: &[KeyConfig]) -> Arc<Keys> {
    Keys::load(listed.to_vec(), PathBuf::new(), true, &mut Registry::default()).unwrap()
}

fn bearer(secret: &str) -> HeaderMap {
    let value = HeaderValue::from_str(&format!("Bearer {secret}")).unwrap();
    HeaderMap::from_iter([(header::AUTHORIZATION, value)])
}

fn basic(name: &str, secret: &str) -> HeaderMap {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{secret}"));
    let value = HeaderValue::from_str(&format!("Basic {encoded}")).unwrap();
    HeaderMap::from_iter([(header::AUTHORIZATION, value)])
}

fn code<T>(result: Result<T, Refusal>) -> u16 {
    result.map_or_else(|refusal| refusal.code().row().number, |_| 0)
}

#[test]
fn without_keys_everybody_may_do_everything() {
    let keys = keys(&[]);
    for headers in [HeaderMap::new(), bearer("x"), basic("a", "b")] {
        let caller = Caller::of(&keys, &headers).unwrap();
        assert_eq!(caller.name(), "anonymous");
        assert_eq!(code(caller.require(Scope::Admin)), 0);
        assert!(caller.may(&Channel::parse("a").unwrap()));
        assert_eq!(code(caller.admit(1_000_000)), 0);
    }
}

#[test]
fn a_sender_is_known_by_its_secret_and_a_given_name_must_be_its_own() {
    let keys = keys(&[key("shop", "one"), key("shop", "two"), key("crm", "three")]);
    for (headers, name) in [
        (bearer("one"), Some("shop")),
        (bearer("two"), Some("shop")),
        (basic("shop", "two"), Some("shop")),
        (basic("crm", "three"), Some("crm")),
        (basic("shop", "three"), None),
        (basic("", "one"), None),
        (basic("one", ""), None),
        (bearer("four"), None),
        (HeaderMap::new(), None),
    ] {
        let caller = Caller::of(&keys, &headers);
        assert_eq!(caller.as_ref().ok().map(Caller::name), name, "{headers:?}");
        assert_eq!(code(caller), if name.is_some() { 0 } else { 105 });
    }
}

#[test]
fn a_key_permits_its_scopes_channels_and_rate_and_nothing_else() {
    let config = KeyConfig {
        scopes: vec![Scope::Publish, Scope::Read],
        channels: vec!["user:*".into(), "broadcast".into()],
        rate: Some(1),
        burst: Some(2),
        ..key("shop", "one")
    };
    let caller = Caller::of(&keys(&[config]), &bearer("one")).unwrap();
    assert_eq!(Scope::ALL.map(|scope| code(caller.require(scope))), [0, 0, 106, 106]);
    let (own, other) = (Channel::parse("user:1").unwrap(), Channel::parse("video:1").unwrap());
    assert_eq!(code(caller.admit_publish(&other)), 106);
    assert_eq!([0; 3].map(|_| code(caller.admit_publish(&own))), [0, 0, 107]);
}

#[test]
fn a_revoked_key_is_refused_where_it_was_let_in_before() {
    let keys = keys(&[key("shop", "one"), key("crm", "two")]);
    let caller = Caller::of(&keys, &bearer("one")).unwrap();
    assert_eq!(code(caller.current()), 0);
    keys.apply(vec![key("crm", "two")], PathBuf::new());
    assert_eq!(code(caller.current()), 105);
    assert_eq!(code(Caller::of(&keys, &bearer("one"))), 105);
    assert_eq!(code(Caller::of(&keys, &bearer("two"))), 0);
}

#[test]
fn whoever_came_before_the_first_key_needs_one_then() {
    let keys = keys(&[]);
    let caller = Caller::of(&keys, &HeaderMap::new()).unwrap();
    assert_eq!(code(caller.current()), 0);
    keys.apply(vec![key("crm", "two")], PathBuf::new());
    assert_eq!(code(caller.current()), 105);
}

#[test]
fn the_last_key_goes_only_with_a_restart() {
    let all = vec![key("shop", "one")];
    let closed = Keys::load(all.clone(), PathBuf::new(), false, &mut Registry::default()).unwrap();
    closed.apply(Vec::new(), PathBuf::new());
    assert_eq!(
        (code(Caller::of(&closed, &HeaderMap::new())), code(Caller::of(&closed, &bearer("one")))),
        (105, 0)
    );
    let open = keys(&all);
    open.apply(Vec::new(), PathBuf::new());
    assert_eq!(
        (code(Caller::of(&open, &HeaderMap::new())), code(Caller::of(&open, &bearer("one")))),
        (105, 0)
    );
    let open = keys(&[]);
    open.apply(Vec::new(), PathBuf::new());
    assert_eq!(code(Caller::of(&open, &HeaderMap::new())), 0, "it was open before");
}

#[test]
fn a_faulty_list_is_refused_and_a_reload_fills_no_bucket() {
    let limited = KeyConfig { rate: Some(1), burst: Some(1), ..key("shop", "one") };
    let keys = keys(std::slice::from_ref(&limited));
    let caller = Caller::of(&keys, &bearer("one")).unwrap();
    assert_eq!(code(caller.admit(1)), 0);
    keys.apply(vec![KeyConfig { hash: "rubbish".into(), ..limited.clone() }], PathBuf::new());
    assert_eq!(code(caller.current()), 0);
    keys.apply(vec![limited.clone(), KeyConfig { hash: key("shop", "new").hash, ..limited }], PathBuf::new());
    for secret in ["one", "new"] {
        let caller = Caller::of(&keys, &bearer(secret)).unwrap();
        assert_eq!(code(caller.admit(1)), 107, "{secret}");
    }
}

/// A content is believed that two looks find.
fn settle(keys: &Keys) {
    keys.look_again();
    keys.look_again();
}

#[test]
fn a_file_is_read_again_when_it_changes_and_not_trusted_when_it_is_broken_or_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.toml");
    let text = |secret: &str| format!("[[keys]]\nname = \"shop\"\nhash = \"{}\"\n", SecretHash::of(secret));
    std::fs::write(&path, text("one")).unwrap();
    let keys = Keys::load(Vec::new(), path.clone(), true, &mut Registry::default()).unwrap();
    let valid = |secret| Caller::of(&keys, &bearer(secret)).is_ok();
    assert!(valid("one") && !valid("two"));
    std::fs::write(&path, format!("{}{}", text("one"), text("two"))).unwrap();
    keys.look_again();
    assert!(valid("one") && !valid("two"), "somebody may still be writing it");
    settle(&keys);
    assert!(valid("one") && valid("two"), "both are valid while one takes the place of the other");
    for broken in ["", "[[keys]]\nname = \"shop\"\n", "rubbish"] {
        std::fs::write(&path, broken).unwrap();
        settle(&keys);
        assert!(valid("one") && valid("two") && Caller::of(&keys, &HeaderMap::new()).is_err(), "{broken:?}");
    }
    std::fs::remove_file(&path).unwrap();
    settle(&keys);
    assert!(valid("one") && Caller::of(&keys, &HeaderMap::new()).is_err());
    std::fs::write(&path, text("two")).unwrap();
    settle(&keys);
    assert!(!valid("one") && valid("two"));
}
