//! The key set that an issuer publishes (JWKS, RFC 7517). Pure.

use serde_json::{Map, Value};

use super::super::algorithm::Algorithm;
use super::super::json;
use super::super::key::Key;
use super::super::keys::NamedKey;

/// The largest key set, in bytes.
pub(super) const MAX_BYTES: usize = 256 << 10;
/// The most keys of a set.
const MAX_KEYS: usize = 100;

/// Why the bytes are no key set that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SetFault {
    #[error("the answer is no JSON object with a list \"keys\"")]
    NotASet,
    #[error("the key set has more than {MAX_KEYS} keys")]
    TooManyKeys,
    #[error(
        "the key set has no public key that can check a signature (RSA from 2048 bits, P-256, P-384, Ed25519)"
    )]
    NoKey,
}

/// Reads the keys that check signatures. Others are left out: secrets (`oct`), keys for other uses, and kinds
/// that are not known.
pub(super) fn parse(body: &[u8]) -> Result<Vec<NamedKey>, SetFault> {
    let set = json::object(body).ok_or(SetFault::NotASet)?;
    let list = set.get("keys").and_then(Value::as_array).ok_or(SetFault::NotASet)?;
    if list.len() > MAX_KEYS {
        return Err(SetFault::TooManyKeys);
    }
    let keys: Vec<_> = list.iter().filter_map(Value::as_object).filter_map(named).collect();
    if keys.is_empty() { Err(SetFault::NoKey) } else { Ok(keys) }
}

fn named(jwk: &Map<String, Value>) -> Option<NamedKey> {
    let text = |name: &str| jwk.get(name).map(|value| value.as_str().unwrap_or_default());
    let for_signatures = text("use").is_none_or(|is| is == "sig");
    let verifies = jwk.get("key_ops").is_none_or(|operations| {
        operations.as_array().is_some_and(|list| list.iter().any(|operation| operation == "verify"))
    });
    let algorithm = text("alg").map(Algorithm::parse);
    if !for_signatures || !verifies || algorithm == Some(None) {
        return None;
    }
    let key = Key::of_jwk(jwk).ok()?;
    let algorithm = algorithm.flatten();
    let usable = algorithm.is_none_or(|algorithm| key.fits(algorithm));
    usable.then(|| NamedKey { kid: text("kid").map(str::to_owned), algorithm, key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn rsa(more: Value) -> Value {
        let mut jwk = json!({ "kty": "RSA", "n": "_".repeat(341) + "w", "e": "AQAB" });
        let more = more.as_object().unwrap().clone();
        jwk.as_object_mut().unwrap().extend(more);
        jwk
    }

    fn kids(keys: Value) -> Result<Vec<String>, SetFault> {
        let set = parse(json!({ "keys": keys }).to_string().as_bytes())?;
        Ok(set.into_iter().map(|key| key.kid.unwrap_or_default()).collect())
    }

    #[test]
    fn only_public_keys_for_signatures_are_taken() {
        let point = "A".repeat(43);
        let keys = json!([
            rsa(json!({ "kid": "rsa", "use": "sig", "alg": "RS256", "x5c": ["x"], "jku": "http://evil/" })),
            rsa(json!({ "kid": "enc", "use": "enc" })),
            rsa(json!({ "kid": "oaep", "alg": "RSA-OAEP" })),
            rsa(json!({ "kid": "as-secret", "alg": "HS256" })),
            rsa(json!({ "kid": "of-other-kind", "alg": "ES256" })),
            rsa(json!({ "kid": "signs", "key_ops": ["sign"] })),
            rsa(json!({ "kid": "verifies", "key_ops": ["verify"] })),
            rsa(json!({ "kid": "small", "n": "_".repeat(170) + "w" })),
            rsa(json!({ "kid": "private", "d": "c2VjcmV0" })),
            json!({ "kid": "oct", "kty": "oct", "k": "c2VjcmV0" }),
            json!({ "kid": "p256", "kty": "EC", "crv": "P-256", "x": point, "y": point }),
            json!({ "kid": "cut", "kty": "EC", "crv": "P-256", "x": point, "y": "AA" }),
            json!({ "kid": "p521", "kty": "EC", "crv": "P-521", "x": point, "y": point }),
            json!({ "kid": "ed", "kty": "OKP", "crv": "Ed25519", "x": point }),
            json!({ "kid": "x25519", "kty": "OKP", "crv": "X25519", "x": point }),
            rsa(json!({})),
            7,
        ]);
        assert_eq!(kids(keys), Ok(["rsa", "verifies", "p256", "ed", ""].map(str::to_owned).to_vec()));
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for no in ["", "<html>", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
            assert_eq!(parse(no.as_bytes()), Err(SetFault::NotASet), "{no}");
        }
        assert_eq!(kids(json!([])), Err(SetFault::NoKey));
        assert_eq!(kids(json!([{ "kty": "oct", "k": "c2VjcmV0" }])), Err(SetFault::NoKey));
        let most: Vec<_> = (0..100).map(|_| rsa(json!({}))).collect();
        assert_eq!(kids(most.clone().into()).unwrap().len(), 100);
        assert_eq!(kids([most, vec![rsa(json!({}))]].concat().into()), Err(SetFault::TooManyKeys));
    }

    proptest! {
        #[test]
        fn no_body_makes_a_panic(body: Vec<u8>, text in "\\{\"keys\":\\[[{}\\[\\]\",:a-z0-9]{0,40}\\]\\}") {
            let _ = parse(&body);
            let _ = parse(text.as_bytes());
        }
    }
}
