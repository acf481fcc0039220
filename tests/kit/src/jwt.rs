//! Makers of JWTs, and the page on which an issuer publishes its keys.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use ring::{hmac, rsa};
use serde_json::{Value, json};
use shared::drain::Drain;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::ports;
use crate::wait::DEADLINE;

/// The path of the key set.
const PATH: &str = "/jwks.json";
/// An RSA key of 2048 bits, made for tests alone: ring makes none.
const RSA: &[u8] = include_bytes!("throwaway.pk8");

/// A key that signs tokens. All but that of RSA are new each time.
pub enum Signer {
    /// A secret.
    Secret(Vec<u8>),
    /// An RSA key.
    Rsa(Box<RsaKeyPair>),
    /// A key of P-256.
    P256(EcdsaKeyPair),
    /// A key of P-384.
    P384(EcdsaKeyPair),
    /// A key of Ed25519.
    Ed25519(Ed25519KeyPair),
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.algorithm())
    }
}

impl Signer {
    /// Takes the RSA key.
    pub fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::from_pkcs8(RSA).expect("it is a key")))
    }

    /// Makes a key of P-256.
    pub fn p256() -> Self {
        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("there are random numbers");
        Self::P256(EcdsaKeyPair::from_pkcs8(kind, key.as_ref(), &random).expect("it was just made"))
    }

    /// Makes a key of P-384.
    pub fn p384() -> Self {
        let (kind, random) = (&ECDSA_P384_SHA384_FIXED_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("there are random numbers");
        Self::P384(EcdsaKeyPair::from_pkcs8(kind, key.as_ref(), &random).expect("it was just made"))
    }

    /// Makes a key of Ed25519.
    pub fn ed25519() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("there are random numbers");
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("it was just made"))
    }

    /// Returns the algorithm that is used unless a header names another one.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Secret(_) => "HS256",
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    /// Makes a token of these claims, with a header of the algorithm alone.
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": self.algorithm() }), claims)
    }

    /// Makes a token of these claims that names its key.
    pub fn named(&self, kid: &str, claims: &Value) -> String {
        self.token_with(&json!({ "alg": self.algorithm(), "typ": "JWT", "kid": kid }), claims)
    }

    /// Makes a token of any header and claims. The header's `alg` decides what is signed with, if the key can.
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        let algorithm = header["alg"].as_str().unwrap_or_default();
        self.token_of(algorithm, &header.to_string(), &claims.to_string())
    }

    /// Makes a token of the very texts of header and claims.
    pub fn token_of(&self, algorithm: &str, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(algorithm, signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    fn sign(&self, algorithm: &str, bytes: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Secret(secret) => {
                let kind = match algorithm {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(kind, secret), bytes).as_ref().to_vec()
            }
            Self::Rsa(key) => {
                let padding: &dyn RsaEncoding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(padding, &random, bytes, &mut signature).expect("the key signs");
                signature
            }
            Self::P256(key) | Self::P384(key) => {
                key.sign(&random, bytes).expect("the key signs").as_ref().to_vec()
            }
            Self::Ed25519(key) => key.sign(bytes).as_ref().to_vec(),
        }
    }

    fn public(&self) -> &[u8] {
        match self {
            Self::Secret(secret) => secret,
            Self::Rsa(key) => key.public_key().as_ref(),
            Self::P256(key) | Self::P384(key) => key.public_key().as_ref(),
            Self::Ed25519(key) => key.public_key().as_ref(),
        }
    }

    /// Returns the public key as a JWK of this name. Of a secret, the secret itself.
    pub fn jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = |curve: &str| {
            let (x, y) = self.public()[1..].split_at(self.public().len() / 2);
            json!({ "kty": "EC", "crv": curve, "x": text(x), "y": text(y) })
        };
        let mut jwk = match self {
            Self::Secret(secret) => json!({ "kty": "oct", "k": text(secret) }),
            Self::Rsa(key) => {
                let parts: rsa::PublicKeyComponents<Vec<u8>> = key.public().into();
                json!({ "kty": "RSA", "n": text(&parts.n), "e": text(&parts.e) })
            }
            Self::P256(_) => point("P-256"),
            Self::P384(_) => point("P-384"),
            Self::Ed25519(_) => json!({ "kty": "OKP", "crv": "Ed25519", "x": text(self.public()) }),
        };
        jwk["kid"] = kid.into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// Returns the public key as PEM.
    pub fn pem(&self) -> String {
        let head: &[u8] = match self {
            Self::Secret(_) => panic!("a secret has no public key"),
            Self::Rsa(_) => b"\x30\x82\x01\x22\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82\x01\x0f\x00",
            Self::P256(_) => b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00",
            Self::P384(_) => b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00",
            Self::Ed25519(_) => b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00",
        };
        let body = STANDARD.encode([head, self.public()].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    }
}

/// A page with a key set.
#[derive(Debug)]
pub struct Issuer {
    address: SocketAddr,
    page: Arc<Page>,
    drain: Drain,
}

#[derive(Debug)]
struct Page {
    state: Mutex<PageState>,
    /// False: fetches wait.
    gate: watch::Sender<bool>,
}

#[derive(Debug)]
struct PageState {
    status: u16,
    body: Vec<u8>,
    fetches: usize,
}

impl Issuer {
    /// Starts an issuer with these keys on a free port.
    pub async fn start(keys: &[Value]) -> Self {
        let [address] = ports::lasting();
        let listener = TcpListener::bind(address).await.expect("it was free a moment ago");
        let state = PageState { status: 200, body: Vec::new(), fetches: 0 };
        let page = Arc::new(Page { state: Mutex::new(state), gate: watch::Sender::new(true) });
        let drain = Drain::new();
        let router = axum::Router::new().fallback(fetched).with_state(Arc::clone(&page));
        let leaving = drain.clone();
        drain.spawn("issuer", async move {
            let serve =
                axum::serve(listener, router).with_graceful_shutdown(async move { leaving.begun().await });
            serve.await.expect("the issuer serves");
        });
        let issuer = Self { address, page, drain };
        issuer.publish(keys);
        issuer
    }

    /// The value for `auth_adapter.jwt.jwks_url`.
    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// Replaces the key set.
    pub fn publish(&self, keys: &[Value]) {
        self.say(200, json!({ "keys": keys }).to_string());
    }

    /// Answers with this status and body from now on.
    pub fn say(&self, status: u16, body: impl Into<Vec<u8>>) {
        let mut state = self.page.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.status, state.body) = (status, body.into());
    }

    /// Lets fetches wait (false), or go on (true).
    pub fn open(&self, open: bool) {
        self.page.gate.send_replace(open);
    }

    /// Returns how often the key set was fetched.
    pub fn fetches(&self) -> usize {
        self.page.state.lock().unwrap_or_else(PoisonError::into_inner).fetches
    }

    /// Ends the issuer.
    pub async fn stop(self) {
        self.open(true);
        self.drain.finish(DEADLINE).await;
    }
}

async fn fetched(State(page): State<Arc<Page>>) -> Response {
    page.state.lock().unwrap_or_else(PoisonError::into_inner).fetches += 1;
    let _ = page.gate.subscribe().wait_for(|open| *open).await;
    let state = page.state.lock().unwrap_or_else(PoisonError::into_inner);
    let status = StatusCode::from_u16(state.status).unwrap_or(StatusCode::OK);
    (status, [(header::CONTENT_TYPE, "application/json"), (header::LOCATION, PATH)], state.body.clone())
        .into_response()
}
