//! Verdicts about whole tokens: the vectors of RFC 7515, 7519 and 8037, and every refusal of the header.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use test_kit::jwt::Signer;

use super::*;
use crate::jwt::algorithm::{PUBLIC, SECRET};
use crate::jwt::key::{self, Key};
use crate::jwt::keys::NamedKey;
use crate::pointer::Pointer;

/// A moment at which the token of RFC 7519, 3.1, was good.
const IN_2011: Duration = Duration::from_secs(1_300_819_000);
const NOW: Duration = Duration::from_secs(1_800_000_000);
/// The claims of RFC 7519, 3.1, as RFC 7515 signs them.
const CLAIMS: &str =
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

fn policy() -> Policy {
    Policy { algorithms: SECRET.into_iter().chain(PUBLIC).collect(), ..claims::tests::policy() }
}

fn jwk(jwk: Value) -> Key {
    Key::of_jwk(jwk.as_object().unwrap()).unwrap()
}

fn of_rfc(header: &str, signature: &str, key: Key) -> Result<Good, Refusal> {
    let policy = Policy { uid: Pointer::parse("/iss").unwrap(), ..policy() };
    verify(&format!("{header}.{CLAIMS}.{signature}"), &Keys::Configured(vec![key]), &policy, IN_2011)
}

fn secret_of_rfc() -> Key {
    let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    Key::Secret(URL_SAFE_NO_PAD.decode(secret).unwrap())
}

#[test]
fn the_vectors_of_rfc_7515_and_7519_are_good() {
    let hs256 = of_rfc(
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        secret_of_rfc(),
    );
    let good = hs256.unwrap();
    assert_eq!((good.login.uid.as_str(), good.login.expires_in_ms), ("joe", Some(410_000)));
    let rsa = jwk(json!({
        "kty": "RSA",
        "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
        "e": "AQAB",
    }));
    let rs256 = of_rfc(
        "eyJhbGciOiJSUzI1NiJ9",
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        rsa,
    );
    assert_eq!(rs256.unwrap().login.uid, "joe");
    let p256 = jwk(json!({
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }));
    let es256 = of_rfc(
        "eyJhbGciOiJFUzI1NiJ9",
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        p256,
    );
    assert_eq!(es256.unwrap().login.uid, "joe");
}

#[test]
fn the_vector_of_rfc_8037_is_good() {
    let key = jwk(json!({
        "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    }));
    let signed = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert!(key.verifies(Algorithm::EdDsa, signed, &URL_SAFE_NO_PAD.decode(signature).unwrap()));
}

/// A.4 of RFC 7515 is ES512, which is not known here; A.5 is not signed.
#[test]
fn the_vectors_of_rfc_7515_that_must_not_log_in_are_refused() {
    let es512 = of_rfc("eyJhbGciOiJFUzUxMiJ9", "AA", secret_of_rfc());
    assert_eq!(es512.unwrap_err().label(), "alg_not_allowed");
    assert_eq!(of_rfc("eyJhbGciOiJub25lIn0", "", secret_of_rfc()), Err(Refusal::AlgNone));
}

fn good_claims() -> Value {
    json!({ "sub": 1001, "exp": NOW.as_secs() + 60, "iat": NOW.as_secs() })
}

fn signers() -> Vec<(Signer, &'static [&'static str])> {
    vec![
        (Signer::Secret(vec![7; 64]), &["HS256", "HS384", "HS512"]),
        (Signer::rsa(), &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
        (Signer::p256(), &["ES256"]),
        (Signer::p384(), &["ES384"]),
        (Signer::ed25519(), &["EdDSA"]),
    ]
}

fn key_of(signer: &Signer) -> Key {
    match signer {
        Signer::Secret(secret) => Key::Secret(secret.clone()),
        Signer::Rsa(_) | Signer::P256(_) | Signer::P384(_) | Signer::Ed25519(_) => jwk(signer.jwk("a")),
    }
}

#[test]
fn every_algorithm_logs_in_with_its_key_and_with_no_other() {
    let all: Vec<_> = signers().iter().map(|(signer, _)| key_of(signer)).collect();
    for (signer, algorithms) in signers() {
        let (own, strangers) = (Keys::Configured(vec![key_of(&signer)]), Keys::Configured(all.clone()));
        for algorithm in algorithms {
            let token = signer.token_with(&json!({ "alg": algorithm }), &good_claims());
            let good = verify(&token, &own, &policy(), NOW).unwrap();
            assert_eq!(
                (good.login.uid.as_str(), good.login.expires_in_ms),
                ("1001", Some(90_000)),
                "{algorithm}"
            );
            // Secret and RSA key are the same each time.
            let outcome = verify(&token, &strangers, &policy(), NOW).map_err(|refusal| refusal.label());
            let same = matches!(signer, Signer::Secret(_) | Signer::Rsa(_));
            assert_eq!(outcome.err(), (!same).then_some("bad_signature"), "{algorithm}");
        }
    }
}

#[test]
fn keys_are_the_same_from_pem_and_from_a_jwk() {
    for (signer, _) in signers().into_iter().skip(1) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        std::fs::write(&file, signer.pem()).unwrap();
        assert_eq!(key::of_pem_files(&[file]).unwrap(), [key_of(&signer)], "{signer:?}");
    }
}

#[test]
fn files_that_hold_no_public_key_are_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    for (text, advice) in [
        ("", "openssl x509 -pubkey"),
        ("-----BEGIN PRIVATE KEY-----\naGk=\n-----END PRIVATE KEY-----\n", "openssl pkey -pubout"),
        ("-----BEGIN PUBLIC KEY-----\naGk=\n-----END PUBLIC KEY-----\n", "is no public key"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = format!("{:#}", key::of_pem_files(std::slice::from_ref(&file)).unwrap_err());
        assert!(error.contains(advice) && error.contains("key.pem"), "{error}");
    }
}

/// The public key as the secret of HMAC: the classic confusion of algorithms.
#[test]
fn a_public_key_is_no_secret() {
    let rsa = Signer::rsa();
    let forged = Signer::Secret(rsa.pem().into_bytes()).token(&good_claims());
    for policy in [policy(), Policy { algorithms: PUBLIC.to_vec(), ..policy() }] {
        let refused = verify(&forged, &Keys::Configured(vec![key_of(&rsa)]), &policy, NOW).unwrap_err();
        assert_eq!(refused.label(), "alg_not_allowed");
    }
}

#[test]
fn every_bad_header_and_form_is_refused() {
    let signer = Signer::Secret(vec![7; 32]);
    let keys = Keys::Configured(vec![key_of(&signer)]);
    let allowed = Policy { algorithms: vec![Algorithm::Hs256], ..policy() };
    let label = |token: &str| match verify(token, &keys, &allowed, NOW) {
        Ok(_) => "known",
        Err(refusal) => {
            let text = refusal.to_string();
            assert!(
                !text.contains("1001") && !token.split('.').any(|part| part.len() > 3 && text.contains(part))
            );
            refusal.label()
        }
    };
    let with = |header: Value| label(&signer.token_with(&header, &good_claims()));
    for (header, expected) in [
        (json!({ "alg": "HS256" }), "known"),
        (json!({ "alg": "HS256", "typ": "jwt", "kid": "any", "jku": "http://evil/" }), "known"),
        (json!({ "alg": "HS256", "x5u": "http://evil/", "x5c": ["AA"] }), "known"),
        (json!({ "alg": "HS256", "typ": "application/at+jwt", "jwk": { "kty": "oct", "k": "AA" } }), "known"),
        (json!({ "alg": "HS256", "typ": "dpop+jwt" }), "typ"),
        (json!({ "alg": "HS256", "typ": 7 }), "typ"),
        (json!({ "alg": "HS256", "crit": ["exp"], "exp": 1 }), "crit"),
        (json!({ "alg": "HS256", "crit": [] }), "crit"),
        (json!({ "alg": "HS256", "b64": false, "crit": ["b64"] }), "crit"),
        (json!({ "alg": "HS384" }), "alg_not_allowed"),
        (json!({ "alg": "RS256" }), "alg_not_allowed"),
        (json!({ "alg": "hs256" }), "alg_not_allowed"),
        (json!({ "alg": "" }), "alg_not_allowed"),
        (json!({ "alg": "none" }), "alg_none"),
        (json!({ "alg": "nOnE" }), "alg_none"),
        (json!({ "alg": 7 }), "malformed"),
        (json!({ "kid": "a" }), "malformed"),
        (json!({ "alg": "HS256", "kid": 7 }), "malformed"),
        (json!([]), "malformed"),
    ] {
        assert_eq!(with(header.clone()), expected, "{header}");
    }
    let texts = |header: &str, claims: &str| label(&signer.token_of("HS256", header, claims));
    let (header, claims) = (r#"{"alg":"HS256"}"#, good_claims().to_string());
    assert_eq!(texts(header, &claims), "known");
    let bomb = format!("{{\"sub\":{}1{}}}", "[".repeat(2_000), "]".repeat(2_000));
    for (header, claims) in [
        (r#"{"alg":"HS256","alg":"HS256"}"#, &*claims),
        (r#"{"alg":"HS256","kid":"a","\u006bid":"b"}"#, &claims),
        ("{", &claims),
        ("", &claims),
        (header, ""),
        (header, "[]"),
        (header, "<html>"),
        (header, r#"{"sub":1,"sub":2,"exp":1800000060}"#),
        (header, r#"{"sub":1,"exp":1800000060,"a":{"b":1,"b":2}}"#),
        (header, &bomb),
    ] {
        assert_eq!(texts(header, claims), "malformed", "{header} {claims}");
    }
    let good = signer.token(&good_claims());
    let (body, signature) = good.rsplit_once('.').unwrap();
    let no_jwt = [
        String::new(),
        "..".into(),
        "a.b".into(),
        body.into(),
        format!("{good}.x"),
        format!("{good}="),
        format!(" {good}"),
        format!("{body}.{signature}\n"),
        format!("{body}+.{signature}"),
        // One letter of base64url stands for no byte.
        format!("{body}.a"),
    ];
    for token in no_jwt {
        assert_eq!(label(&token), "malformed", "{token}");
    }
    for forged in [format!("{body}."), format!("{body}.AAAA"), format!("{body}.{}", &signature[..4])] {
        assert_eq!(label(&forged), "bad_signature", "{forged}");
    }
}

#[test]
fn a_key_set_is_asked_by_kid() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let named =
        |signer: &Signer, kid: &str| NamedKey { kid: Some(kid.into()), algorithm: None, key: key_of(signer) };
    let one = Keys::Named(vec![named(&old, "old")]);
    let both = Keys::Named(vec![named(&old, "old"), named(&new, "new")]);
    let label =
        |token: &str, keys| verify(token, keys, &policy(), NOW).map_or_else(|r| r.label(), |_| "known");
    assert_eq!(label(&new.named("new", &good_claims()), &one), "unknown_kid");
    assert_eq!(label(&new.named("new", &good_claims()), &both), "known");
    assert_eq!(label(&new.named("old", &good_claims()), &both), "bad_signature");
    assert_eq!(label(&old.token(&good_claims()), &one), "known");
    assert_eq!(label(&old.token(&good_claims()), &both), "key_ambiguous");
}

proptest! {
    #[test]
    fn no_token_makes_a_panic(token: String, parts in "[A-Za-z0-9_=-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}") {
        let keys = Keys::Configured(vec![secret_of_rfc()]);
        for token in [token, parts] {
            prop_assert!(verify(&token, &keys, &policy(), NOW).is_err());
            prop_assert!(check_header(&token, &keys, &policy()).is_err());
        }
    }

    /// Any changed bit of a token is a refusal.
    #[test]
    fn no_changed_token_logs_in(at in 0_usize..1_000, letter in "[A-Za-z0-9_.-]") {
        let signer = Signer::Secret(vec![7; 32]);
        let good = signer.token(&good_claims());
        let mut changed = good.clone();
        let at = at % good.len();
        changed.replace_range(at..=at, &letter);
        let keys = Keys::Configured(vec![key_of(&signer)]);
        prop_assert_eq!(verify(&changed, &keys, &policy(), NOW).is_ok(), changed == good);
    }

    #[test]
    fn what_logs_in_has_its_user_and_is_good_now(claims in any_claims()) {
        let signer = Signer::Secret(vec![7; 32]);
        let token = signer.token(&Value::Object(claims.clone()));
        if let Ok(good) = verify(&token, &Keys::Configured(vec![key_of(&signer)]), &policy(), NOW) {
            prop_assert!(shared::ids::Uid::from_json(&claims["sub"]).is_ok());
            let left = claims["exp"].as_f64().unwrap() + 30.0 - NOW.as_secs_f64();
            prop_assert!(left > 0.0);
            prop_assert!((good.login.expires_in_ms.unwrap() as f64 / 1_000.0 - left).abs() < 0.01);
            prop_assert!(claims.get("nbf").is_none_or(|nbf| nbf.as_f64().unwrap() <= NOW.as_secs_f64() + 30.0));
        }
    }
}

fn any_claims() -> impl Strategy<Value = Map<String, Value>> {
    let value = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-100_i64..100).prop_map(|off| json!(1_800_000_000 + off)),
        (-100.0..100.0_f64).prop_map(|off| json!(1_800_000_000.0 + off)),
        "[a-z0]{0,3}".prop_map(Value::from),
    ];
    prop::collection::hash_map("sub|exp|nbf|iat|jti|groups", value, 0..6)
        .prop_map(|claims| claims.into_iter().collect())
}
