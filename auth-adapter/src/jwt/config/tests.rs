//! Faults of the configuration, each named with its key.

use super::*;

fn faults(mode: Mode, change: impl FnOnce(&mut JwtConfig)) -> String {
    let (mut config, mut problems) = (JwtConfig::default(), Problems::default());
    change(&mut config);
    config.validate(mode, &mut problems);
    assert!(!format!("{config:?}").contains("hunter2"));
    problems.to_string()
}

#[test]
fn exactly_one_kind_of_key_is_given() {
    let secret = || Secret::new("hunter2".repeat(8));
    assert_eq!(faults(Mode::Url, |_| {}), "");
    assert!(faults(Mode::Url, |jwt| jwt.secret = secret()).contains("auth_adapter.mode"));
    assert_eq!(faults(Mode::Jwt, |jwt| jwt.secret = secret()), "");
    assert_eq!(faults(Mode::JwtThenUrl, |jwt| jwt.jwks_url = "https://a/b".into()), "");
    assert!(faults(Mode::Jwt, |_| {}).contains("auth_adapter.jwt: needs exactly one"));
    let both = faults(Mode::Jwt, |jwt| {
        (jwt.secret, jwt.jwks_url) = (secret(), "https://a/b".into());
    });
    assert!(both.contains("and has 2") && !both.contains("hunter2"), "{both}");
}

#[test]
fn every_fault_is_named_and_no_secret() {
    for (change, fault) in [
        (
            (|jwt| jwt.secret = Secret::new("hunter2")) as fn(&mut JwtConfig),
            "auth_adapter.jwt.secret: has 7 bytes and must have at least 32",
        ),
        (
            |jwt| {
                jwt.secret = Secret::new("hunter2".repeat(6));
                jwt.algorithms = vec![Algorithm::Hs512];
            },
            "auth_adapter.jwt.secret: has 42 bytes and must have at least 64",
        ),
        (
            |jwt| {
                (jwt.secret, jwt.secret_encoding) = (Secret::new("hunter2!"), SecretEncoding::Base64);
            },
            "auth_adapter.jwt.secret: is not base64",
        ),
        (
            |jwt| {
                jwt.secret = Secret::new("hunter2".repeat(8));
                jwt.algorithms = vec![Algorithm::Rs256];
            },
            "auth_adapter.jwt.algorithms: with a secret",
        ),
        (
            |jwt| {
                (jwt.jwks_url, jwt.algorithms) = ("https://a/b".into(), vec![Algorithm::Hs256]);
            },
            "auth_adapter.jwt.algorithms: HS256",
        ),
        (|jwt| jwt.public_keys = vec!["/no/such".into()], "auth_adapter.jwt.public_keys: /no/such"),
        (|jwt| jwt.jwks_url = "ftp://a/b".into(), "auth_adapter.jwt.jwks_url: must be"),
        (|jwt| jwt.jwks_url = "https://name@a/b".into(), "auth_adapter.jwt.jwks_url: must be"),
        (|jwt| jwt.jwks_ca = "/no/such".into(), "auth_adapter.jwt.jwks_ca: /no/such"),
        (|jwt| jwt.jwks_refresh = Duration::ZERO, "auth_adapter.jwt.jwks_refresh: must be"),
        (|jwt| jwt.jwks_deadline = Duration::ZERO, "auth_adapter.jwt.jwks_deadline: must be"),
        (|jwt| jwt.leeway = Duration::from_secs(3_600), "auth_adapter.jwt.leeway: must be"),
        (|jwt| jwt.uid = Pointer::default(), "auth_adapter.jwt.uid: must be"),
    ] {
        let faults = faults(Mode::Jwt, change);
        assert!(faults.contains(fault), "{fault} is not in\n{faults}");
        assert!(!faults.contains("hunter2"), "{faults}");
    }
}

#[test]
fn a_secret_signs_only_what_it_is_long_enough_for() {
    let allowed = |bytes: usize| {
        let secret = Secret::new("x".repeat(bytes));
        algorithm::list(&JwtConfig { secret, ..JwtConfig::default() }.allowed())
    };
    assert_eq!([32, 48, 64].map(allowed), ["HS256", "HS256, HS384", "HS256, HS384, HS512"]);
    assert!(!algorithm::list(&JwtConfig::default().allowed()).contains("HS"));
}
