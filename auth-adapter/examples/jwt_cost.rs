//! Measures how long checking a JWT takes, beside the look into a memory of verdicts that would spare it:
//! `cargo run --release -p auth-adapter --example jwt_cost`.

#![expect(clippy::unwrap_used, reason = "a tool that can not go on fails")]

use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use auth_adapter::{JwtCheck, JwtConfig};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use shared::config::Secret;
use shared::login::LoginConfig;
use test_kit::jwt::Signer;

const ROUNDS: u32 = 2_000;

/// Runs this often and tells the mean.
fn tell(what: &str, mut run: impl FnMut()) {
    run();
    let began = Instant::now();
    (0..ROUNDS).for_each(|_| run());
    let mean = began.elapsed() / ROUNDS;
    println!("{what:<24} {:>9.2} us", mean.as_secs_f64() * 1e6);
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "sub": "f3b1ea54-8a1c-4b8a-9d0e-1f4cbd1f2a77", "iat": now, "exp": now + 600,
        "groups": ["vip", "beta"], "padding": "x".repeat(400),
    });
    let folder = tempfile::tempdir().unwrap();
    let secret = "k".repeat(32);
    let signers = [
        Signer::Secret(secret.clone().into_bytes()),
        Signer::rsa(),
        Signer::p256(),
        Signer::p384(),
        Signer::ed25519(),
    ];
    for signer in signers {
        let mut config = JwtConfig::default();
        if let Signer::Secret(_) = &signer {
            config.secret = Secret::new(secret.clone());
        } else {
            let file = folder.path().join(signer.algorithm());
            std::fs::write(&file, signer.pem()).unwrap();
            config.public_keys = vec![file];
        }
        let max_age = LoginConfig::default().max_token_age;
        let check = JwtCheck::prepare(&config, max_age, 16 << 10).await.unwrap();
        let token = signer.token(&claims);
        assert!(check.check(&token).login.is_some());
        tell(signer.algorithm(), || drop(black_box(check.check(black_box(&token)))));
        if signer.algorithm() == "HS256" {
            memory(&token).await;
        }
    }
}

/// A fingerprint of the token under a secret, and a look into a cache, as `memory` does for the URL.
async fn memory(token: &str) {
    let cache =
        moka::future::Cache::builder().max_capacity(65_536).time_to_live(Duration::from_secs(600)).build();
    let fingerprint = |token: &str| -> [u8; 32] {
        Sha256::new().chain_update([7; 32]).chain_update(token).finalize().into()
    };
    cache.insert(fingerprint(token), "f3b1ea54".to_owned()).await;
    let began = Instant::now();
    for _ in 0..ROUNDS {
        assert!(black_box(cache.get(&fingerprint(black_box(token))).await).is_some());
    }
    println!("{:<24} {:>9.2} us", "a look into a memory", (began.elapsed() / ROUNDS).as_secs_f64() * 1e6);
}
