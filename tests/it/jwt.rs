//! Logins by JWT alone: configuration in, devices online, and nobody asks the business system.

use std::time::{Duration, SystemTime};

use harness::alone::Alone;
use harness::device::Device;
use harness::jwt::{Issuer, Signer};
use harness::raw;
use harness::wait::{eventually, soon};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::mapping::{Sets, login_test, logins};

fn claims(sub: &Value) -> Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970").as_secs();
    json!({ "sub": sub, "iat": now, "exp": now + 600 })
}

/// Starts everything in one process, with these settings and no URL.
async fn start(settings: &[(&str, &str)]) -> Alone {
    let plan = Alone::plan().in_memory().set("auth_adapter.mode", "jwt").set("auth_adapter.url", "");
    settings.iter().fold(plan, |plan, (key, value)| plan.set(key, value)).start().await
}

/// Logs a device in and publishes to its user.
async fn expect_service(alone: &Alone, token: &str, uid: &str) {
    let mut device = Device::online(alone.edge(), token).await;
    alone.publisher().publish(&format!("user:{uid}"), "hello").await;
    device.expect_text("hello").await;
    device.close().await;
}

async fn expect_refusal(alone: &Alone, token: &str) {
    let mut device = Device::connect(alone.edge()).await;
    device.send(&json!({ "op": "auth", "token": token }).to_string()).await;
    device.expect_error(2).await;
    device.expect_close(4401).await;
}

#[tokio::test]
async fn a_device_logs_in_with_a_secret_a_public_key_or_a_key_set() {
    let secret = "0123456789abcdef".repeat(2);
    let signer = Signer::Secret(secret.clone().into_bytes());
    let alone = start(&[("auth_adapter.jwt.secret", &secret)]).await;
    let token = signer.token(&claims(&json!(1001)));
    expect_service(&alone, &token, "1001").await;
    expect_refusal(&alone, "user-1001").await;
    expect_refusal(&alone, &Signer::Secret(vec![7; 32]).token(&claims(&json!(1001)))).await;
    let metrics = raw::get(alone.admin(), "/metrics").await.body;
    let output = alone.program.stderr() + &alone.program.stdout() + &metrics;
    let (_, signature) = token.rsplit_once('.').expect("it has three parts");
    assert!(!output.contains(&secret) && !output.contains(signature), "{output}");
    assert!(output.contains("the signature is not of the configured key"), "{output}");
    assert!(!output.contains("demo"), "no demo runs: {output}");
    let outcomes: Vec<_> = logins(&alone).await.iter().map(|reason| reason["outcome"].clone()).collect();
    assert_eq!(outcomes, ["bad_signature", "malformed"], "the newest first");
    alone.end().await;

    let folder = tempfile::tempdir().expect("there is room");
    for signer in [Signer::rsa(), Signer::p256()] {
        let file = folder.path().join("issuer.pem");
        std::fs::write(&file, signer.pem()).expect("there is room");
        let files = json!([file]).to_string();
        let alone = start(&[("auth_adapter.jwt.public_keys", &files)]).await;
        expect_service(&alone, &signer.token(&claims(&json!("1001"))), "1001").await;
        alone.end().await;
    }
}

/// The claims are those of an access token of Keycloak, and so is the key set.
#[tokio::test]
async fn a_device_logs_in_with_a_token_as_keycloak_makes_it_and_after_a_rotation() {
    let (old, new) = (Signer::rsa(), Signer::p256());
    let mut encryption = Signer::rsa().jwk("encryption");
    (encryption["use"], encryption["alg"]) = (json!("enc"), json!("RSA-OAEP"));
    let issuer = Issuer::start(&[old.jwk("old"), encryption.clone()]).await;
    let alone = start(&[
        ("auth_adapter.jwt.jwks_url", &issuer.url()),
        ("auth_adapter.jwt.issuer", "https://login.example.com/realms/shop"),
        ("auth_adapter.jwt.audience", "message-center"),
        ("auth_adapter.jwt.groups", "/realm_access/roles"),
    ])
    .await;
    let mut token = claims(&json!("f3b1ea54-8a1c-4b8a-9d0e-1f4cbd1f2a77"));
    for (name, value) in [
        ("iss", json!("https://login.example.com/realms/shop")),
        ("aud", json!(["message-center", "account"])),
        ("typ", json!("Bearer")),
        ("azp", json!("app")),
        ("jti", json!("3c2e6f0a-5d5b-4d0f-8b49-6f6a4bf0a9c2")),
        ("realm_access", json!({ "roles": ["offline_access", "vip", "default-roles-shop"] })),
        ("preferred_username", json!("ada")),
    ] {
        token[name] = value;
    }
    let uid = "f3b1ea54-8a1c-4b8a-9d0e-1f4cbd1f2a77";
    let fetched = async || issuer.fetches() == 1;
    eventually("the key set was fetched", fetched).await;
    eventually("it is in use", async || raw::metric(alone.admin(), "mc_auth_jwt_keys", "").await == 1.0)
        .await;
    expect_service(&alone, &old.named("old", &token), uid).await;
    issuer.publish(&[old.jwk("old"), new.jwk("new"), encryption]);
    expect_service(&alone, &new.named("new", &token), uid).await;
    assert_eq!(issuer.fetches(), 2);
    token["aud"] = json!("another-program");
    expect_refusal(&alone, &new.named("new", &token)).await;
    alone.end().await;
    issuer.stop().await;
}

#[tokio::test]
async fn a_thousand_devices_log_in_and_the_business_system_hears_nothing() {
    let business = TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
    let url = format!("http://{}/websocket_auth", business.local_addr().expect("it is bound"));
    let secret = "0123456789abcdef".repeat(2);
    let signer = Signer::Secret(secret.clone().into_bytes());
    let alone = Alone::plan()
        .in_memory()
        .set("auth_adapter.mode", "jwt-then-url")
        .set("auth_adapter.url", url)
        .set("auth_adapter.jwt.secret", secret)
        .start()
        .await;
    let tokens: Vec<_> = (1..=1_000).map(|uid| signer.token(&claims(&json!(uid)))).collect();
    let mut devices = Vec::new();
    for some in tokens.chunks(50) {
        let logins = some.iter().map(|token| Device::login(alone.edge(), token));
        devices.extend(soon("they log in", futures_util::future::join_all(logins)).await);
    }
    assert_eq!(raw::metric(alone.admin(), "mc_auth_jwt_checks_total", "known").await, 1_000.0);
    expect_refusal(&alone, "a.b.c").await;
    // Connections that came wait in the backlog, so the first look finds them.
    assert!(timeout(Duration::ZERO, business.accept()).await.is_err(), "somebody asked");
    drop(devices);
    alone.end().await;
}

#[tokio::test]
async fn a_token_of_16_kib_logs_in_and_another_op_of_that_size_is_refused() {
    let secret = "0123456789abcdef".repeat(2);
    let signer = Signer::Secret(secret.clone().into_bytes());
    let alone = start(&[("auth_adapter.jwt.secret", &secret)]).await;
    let mut all = claims(&json!(1001));
    all["padding"] = "x".repeat(12_000).into();
    let token = signer.token(&all);
    assert!((16_000..16 << 10).contains(&token.len()), "{}", token.len());
    expect_service(&alone, &token, "1001").await;
    let mut device = Device::connect(alone.edge()).await;
    device.send(&json!({ "op": "subscribe", "channel": "x".repeat(16_000) }).to_string()).await;
    device.expect_error(4).await;
    device.expect_close(1009).await;
    alone.end().await;
}

#[tokio::test]
async fn login_test_checks_a_jwt_with_the_keys_of_the_configuration() {
    let secret = "0123456789abcdef".repeat(2);
    let settings = |key: &str, value: &str| -> Sets {
        [("auth_adapter.mode", "jwt"), (key, value)].map(|(key, value)| (key.into(), value.into())).into()
    };
    let configured = settings("auth_adapter.jwt.secret", &secret);
    let mut all = claims(&json!(1001));
    all["groups"] = json!(["vip", false]);
    let good = Signer::Secret(secret.clone().into_bytes()).token(&all);
    let yes = login_test(&configured, &good).await;
    assert!(yes.code == 0 && yes.stdout.contains("yes: user 1001, for 6"), "{yes:?}");
    assert!(yes.stdout.contains("groups: vip") && yes.stdout.contains("1 entries are no group"), "{yes:?}");
    let forged = Signer::Secret(vec![7; 32]).token(&all);
    let no = login_test(&configured, &forged).await;
    assert!(no.code == 1 && no.stdout.contains("no (bad_signature)"), "{no:?}");

    let issuer = Issuer::start(&[]).await;
    issuer.say(503, "away");
    let fetched = settings("auth_adapter.jwt.jwks_url", &issuer.url());
    let unknown = login_test(&fetched, &good).await;
    assert!(unknown.code == 2 && unknown.stdout.contains("no answer (fetch_failed)"), "{unknown:?}");
    let file = tempfile::NamedTempFile::new().expect("there is room");
    std::fs::write(file.path(), "no certificate").expect("there is room");
    let mut untrusting = settings("auth_adapter.jwt.jwks_url", "https://127.0.0.1:1/keys");
    untrusting.push(("auth_adapter.jwt.jwks_ca".into(), file.path().display().to_string()));
    let faulty = login_test(&untrusting, &good).await;
    assert!(faulty.code == 64 && faulty.stderr.contains("jwks_ca"), "{faulty:?}");
    for output in [yes, no, unknown, faulty].map(|run| run.stdout + &run.stderr) {
        assert!(![&secret, &good, &forged].iter().any(|hidden| output.contains(*hidden)), "{output}");
    }
}
