//! JWTs: who is asked, when the key set is fetched, and what happens while it can't be.

use std::time::{Duration, SystemTime};

use auth_adapter::{Config, JwtCheck, JwtConfig, Mode};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use shared::config::Secret;
use shared::subject;
use shared::wire::{AuthHeartbeat, AuthState, Envelope as _, Verdict};
use test_kit::jwt::{Issuer, Signer};

use crate::support::{Adapter, Edge, PATIENCE, Rig, TestBus, eventually, soon, unavailable};

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn claims(sub: &str) -> Value {
    json!({ "sub": sub, "iat": now(), "exp": now() + 600 })
}

/// An adapter that checks JWTs, beside a business system.
async fn with(mode: Mode, jwt: JwtConfig) -> Rig {
    Rig::with(|config| (config.mode, config.jwt) = (mode, jwt)).await
}

fn fetched_from(issuer: &Issuer) -> JwtConfig {
    JwtConfig { jwks_url: issuer.url(), ..JwtConfig::default() }
}

/// An adapter with the key set of this issuer, which was fetched once.
async fn with_key_set(issuer: &Issuer, jwt: JwtConfig) -> Rig {
    let rig = with(Mode::Jwt, jwt).await;
    eventually("the key set is there", async || rig.adapter.metric("mc_auth_jwt_keys ") > 0).await;
    assert_eq!(issuer.fetches(), 1);
    rig
}

fn uid(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Known(login) => &login.uid,
        Verdict::Unknown => "unknown",
        Verdict::Unavailable { .. } => "unavailable",
    }
}

fn count(rig: &Rig, outcome: &str) -> u64 {
    rig.adapter.metric(&format!("mc_auth_jwt_checks_total{{outcome=\"{outcome}\"}}"))
}

fn fetches(rig: &Rig, outcome: &str) -> u64 {
    rig.adapter.metric(&format!("mc_auth_jwt_key_set_fetches_total{{outcome=\"{outcome}\"}}"))
}

#[tokio::test]
async fn a_token_says_whose_it_is_and_the_business_system_is_not_asked() {
    let signer = Signer::Secret(b"hunter2!".repeat(4));
    let jwt = JwtConfig { secret: Secret::new("hunter2!".repeat(4)), ..JwtConfig::default() };
    let rig = with(Mode::Jwt, jwt).await;
    let mut all = claims("1001");
    (all["jti"], all["groups"]) = (json!("id"), json!(["vip", 7, 1.5]));
    let login = rig.edge.login(&signer.token(&all)).await;
    assert_eq!((login.uid.as_str(), &login.groups[..]), ("1001", &["vip".to_owned(), "7".to_owned()][..]));
    assert_eq!(login.issued_at_ms, Some(all["iat"].as_u64().unwrap() * 1_000));
    assert_eq!(login.token_id, Some(shared::login::token_id("id")));
    let left = login.expires_in_ms.unwrap();
    assert!((600_000..=630_000).contains(&left), "until exp and the leeway: {left}");
    for no in ["user-1001", "", "a.b.c", &Signer::Secret(vec![7; 32]).token(&claims("1"))] {
        assert_eq!(rig.edge.ask(no).await, Verdict::Unknown, "{no}");
    }
    assert_eq!([count(&rig, "known"), count(&rig, "malformed"), count(&rig, "bad_signature")], [1, 3, 1]);
    assert_eq!(rig.adapter.metric("mc_auth_groups_left_out_total{reason=\"unusable\"}"), 1);
    assert!(rig.business.calls().is_empty());
    rig.end().await;
}

#[tokio::test]
async fn what_is_no_jwt_goes_to_the_url_and_a_bad_jwt_never_does() {
    let signer = Signer::Secret(vec![b'k'; 32]);
    let jwt = JwtConfig { secret: Secret::new("k".repeat(32)), ..JwtConfig::default() };
    let rig = with(Mode::JwtThenUrl, jwt).await;
    assert_eq!(uid(&rig.edge.ask("user-7").await), "7");
    assert_eq!(uid(&rig.edge.ask(&signer.token(&claims("8"))).await), "8");
    let good = signer.token(&claims("9"));
    let (body, _) = good.rsplit_once('.').unwrap();
    for bad in [format!("{body}."), format!("{body}.AAAA"), "a.b.c".into()] {
        assert_eq!(rig.edge.ask(&bad).await, Verdict::Unknown, "{bad}");
    }
    assert_eq!(rig.business.calls().len(), 1);
    rig.end().await;
}

#[tokio::test]
async fn until_there_is_a_key_set_the_adapter_is_ready_but_unable_and_says_so() {
    let (signer, issuer) = (Signer::rsa(), Issuer::start(&[Signer::rsa().jwk("a")]).await);
    issuer.open(false);
    let bus = TestBus::start().await;
    let edge = Edge::connect(&bus.server).await;
    let mut heartbeats = edge.bus.subscribe(subject::VERIFY_HEARTBEAT, None, PATIENCE).await.unwrap();
    let config = Config {
        mode: Mode::Jwt,
        jwt: JwtConfig { jwks_deadline: PATIENCE, ..fetched_from(&issuer) },
        ..Config::default()
    };
    let adapter = Adapter::start(&bus.server, config).await;
    adapter.ready().await;
    assert!(adapter.health.notes().contains("no key set"), "{}", adapter.health.notes());
    assert_eq!(uid(&edge.ask(&signer.named("a", &claims("1"))).await), "unavailable");
    let mut state = async |wanted: AuthState| loop {
        let heartbeat = heartbeats.next().await.unwrap();
        if AuthHeartbeat::decode(&heartbeat.payload).unwrap().state == wanted {
            return;
        }
    };
    soon("it is unable", state(AuthState::Unable)).await;
    issuer.open(true);
    soon("it is able", state(AuthState::Able)).await;
    assert_eq!(adapter.health.notes(), "");
    assert_eq!(uid(&edge.ask(&signer.named("a", &claims("1"))).await), "1");
    adapter.leave().await;
    edge.leave().await;
    bus.stop().await;
    issuer.stop().await;
}

#[tokio::test]
async fn after_a_rotation_the_next_login_is_in_with_one_fetch() {
    let (old, new) = (Signer::p256(), Signer::ed25519());
    let issuer = Issuer::start(&[old.jwk("old")]).await;
    let rig = with_key_set(&issuer, fetched_from(&issuer)).await;
    issuer.publish(&[old.jwk("old"), new.jwk("new")]);
    assert_eq!(uid(&rig.edge.ask(&new.named("new", &claims("1"))).await), "1");
    assert_eq!(uid(&rig.edge.ask(&old.named("old", &claims("2"))).await), "2");
    assert_eq!(issuer.fetches(), 2);
    rig.end().await;
    issuer.stop().await;
}

#[tokio::test]
async fn made_up_keys_cause_one_fetch_and_a_rotation_meanwhile_refuses_nobody() {
    let (old, new) = (Signer::p256(), Signer::p256());
    let issuer = Issuer::start(&[old.jwk("old")]).await;
    let refresh = Duration::from_secs(4);
    let rig = with_key_set(&issuer, JwtConfig { jwks_refresh: refresh, ..fetched_from(&issuer) }).await;
    let began = tokio::time::Instant::now();
    let made_up: Vec<_> = (0..10_000).map(|n| old.named(&format!("made-up-{n}"), &claims("1"))).collect();
    let mut answered = 0;
    for (n, some) in made_up.chunks(500).enumerate() {
        if n == 3 {
            issuer.publish(&[old.jwk("old"), new.jwk("new")]);
        }
        answered += rig.ask_all(some).await.iter().filter(|v| !matches!(v, Verdict::Known(_))).count();
        // Whoever has a known key is served in their midst, and a new key is never refused.
        assert_eq!(uid(&rig.edge.ask(&old.named("old", &claims("2"))).await), "2");
        assert_ne!(rig.edge.ask(&new.named("new", &claims("3"))).await, Verdict::Unknown, "{n}");
    }
    assert_eq!(answered, 10_000);
    // One for the start, one for the first unknown key, and those of the period.
    let of_period = began.elapsed().as_secs() / (refresh.as_secs() - 1) + 1;
    assert!(issuer.fetches() as u64 <= 2 + of_period, "{} fetches", issuer.fetches());
    let served = async || uid(&rig.edge.ask(&new.named("new", &claims("3"))).await) == "3";
    eventually("the new key is in use", served).await;
    rig.end().await;
    issuer.stop().await;
}

#[tokio::test]
async fn the_last_good_set_stays_while_the_url_gives_none() {
    let signer = Signer::p256();
    let issuer = Issuer::start(&[signer.jwk("a")]).await;
    let jwt = JwtConfig {
        jwks_refresh: Duration::from_millis(100),
        jwks_deadline: Duration::from_secs(1),
        ..fetched_from(&issuer)
    };
    let rig = with(Mode::Jwt, jwt).await;
    eventually("the key set is there", async || rig.adapter.metric("mc_auth_jwt_keys ") > 0).await;
    let secret = json!({ "keys": [Signer::Secret(vec![7; 32]).jwk("a")] });
    let many: Vec<_> = (0..101).map(|_| signer.jwk("a")).collect();
    for (status, body, outcome) in [
        (200, b"<html>".to_vec(), "not_a_set"),
        (500, Vec::new(), "status"),
        (301, Vec::new(), "status"),
        (200, vec![b' '; 10 << 20], "too_large"),
        (200, json!({ "keys": many }).to_string().into_bytes(), "too_many_keys"),
        (200, secret.to_string().into_bytes(), "no_key"),
    ] {
        let before = fetches(&rig, outcome);
        issuer.say(status, body);
        eventually(outcome, async || fetches(&rig, outcome) > before).await;
        assert_eq!(uid(&rig.edge.ask(&signer.named("a", &claims("1"))).await), "1", "{outcome}");
        assert!(rig.adapter.health.notes().contains("the last good set stays"), "{outcome}");
        issuer.publish(&[signer.jwk("a")]);
        eventually("all is well again", async || rig.adapter.health.notes().is_empty()).await;
    }
    issuer.open(false);
    eventually("slow", async || fetches(&rig, "slow") > 0).await;
    assert_eq!(uid(&rig.edge.ask(&signer.named("a", &claims("1"))).await), "1");
    issuer.stop().await;
    eventually("unreachable", async || fetches(&rig, "unreachable") > 0).await;
    assert_eq!(uid(&rig.edge.ask(&signer.named("a", &claims("1"))).await), "1");
    let unknown = rig.edge.ask(&signer.named("b", &claims("1"))).await;
    assert_eq!(uid(&unknown), "unavailable", "no set was fetched for it");
    let fetched_at = rig.adapter.metric("mc_auth_jwt_key_set_fetched_timestamp_seconds");
    assert!((now() - 600..=now()).contains(&fetched_at), "{fetched_at}");
    rig.end().await;
}

#[tokio::test]
async fn who_waits_for_a_fetch_is_answered_when_the_adapter_leaves() {
    let issuer = Issuer::start(&[Signer::rsa().jwk("old")]).await;
    let rig = with_key_set(&issuer, JwtConfig { jwks_deadline: 2 * PATIENCE, ..fetched_from(&issuer) }).await;
    issuer.open(false);
    let token = Signer::rsa().named("new", &claims("1"));
    let leave = async {
        eventually("a fetch for the token has begun", async || issuer.fetches() == 2).await;
        assert_eq!(rig.adapter.drain.finish(PATIENCE).await, 0, "the check goes on");
    };
    let (verdict, ()) = tokio::join!(rig.edge.ask(&token), leave);
    assert!(unavailable(&verdict).contains("could not be fetched"), "{verdict:?}");
    rig.end().await;
    issuer.stop().await;
}

#[tokio::test]
async fn public_keys_are_read_again_when_their_file_changes() {
    let (old, new) = (Signer::p256(), Signer::p384());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("issuer.pem");
    std::fs::write(&file, old.pem()).unwrap();
    let rig = with(Mode::Jwt, JwtConfig { public_keys: vec![file.clone()], ..JwtConfig::default() }).await;
    assert_eq!(uid(&rig.edge.ask(&old.token(&claims("1"))).await), "1");
    assert_eq!(uid(&rig.edge.ask(&new.token(&claims("2"))).await), "unknown");
    std::fs::write(&file, "half written").unwrap();
    let refused = "mc_auth_jwt_key_reloads_total{outcome=\"refused\"}";
    eventually("the bad file is noticed", async || rig.adapter.metric(refused) == 1).await;
    assert_eq!(uid(&rig.edge.ask(&old.token(&claims("1"))).await), "1", "the old keys stay");
    std::fs::write(&file, old.pem() + &new.pem()).unwrap();
    let both = async || rig.adapter.metric("mc_auth_jwt_keys ") == 2;
    eventually("both keys are in use", both).await;
    assert_eq!(uid(&rig.edge.ask(&new.token(&claims("2"))).await), "2");
    assert_eq!(uid(&rig.edge.ask(&old.token(&claims("1"))).await), "1");
    rig.end().await;
}

#[tokio::test]
async fn an_operator_can_check_a_token_without_an_adapter() {
    let signer = Signer::p256();
    let issuer = Issuer::start(&[signer.jwk("a")]).await;
    let max_age = Duration::from_secs(86_400);
    let check = JwtCheck::prepare(&fetched_from(&issuer), max_age, 1 << 10).await.unwrap();
    let good = check.check(&signer.named("a", &claims("1001")));
    assert_eq!((good.outcome, good.login.unwrap().uid.as_str()), ("known", "1001"));
    let mut old = claims("1001");
    old["exp"] = (now() - 60).into();
    for (token, outcome) in [
        (signer.named("b", &claims("1")), "unknown_kid"),
        (signer.named("a", &old), "expired"),
        ("x".repeat(2_000), "too_long"),
    ] {
        let refused = check.check(&token);
        assert_eq!((refused.outcome, refused.login), (outcome, None));
        assert!(!refused.words.is_empty() && !refused.words.contains("1001"), "{}", refused.words);
    }
    issuer.say(500, "");
    let error = JwtCheck::prepare(&fetched_from(&issuer), max_age, 1 << 10).await.unwrap_err();
    assert!(format!("{error:#}").contains("jwks_url: the answer has HTTP status 500"), "{error:#}");
    issuer.stop().await;
}

#[tokio::test]
async fn a_token_of_more_than_the_limit_is_refused() {
    let signer = Signer::Secret(vec![b'k'; 32]);
    let jwt = JwtConfig { secret: Secret::new("k".repeat(32)), ..JwtConfig::default() };
    let rig = with(Mode::Jwt, jwt).await;
    for (padding, verdict) in [(11_000, "1"), (16_000, "unknown")] {
        let mut claims = claims("1");
        claims["padding"] = "x".repeat(padding).into();
        let token = signer.token(&claims);
        assert_eq!(uid(&rig.edge.ask(&token).await), verdict, "{} bytes", token.len());
    }
    assert_eq!(count(&rig, "too_long"), 1);
    rig.end().await;
}
