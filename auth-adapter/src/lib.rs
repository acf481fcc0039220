//! Checks tokens by asking the business system.
//!
//! | module | holds |
//! | --- | --- |
//! | `verify` | answers the token checks of the edges; readiness |
//! | `announce` | heartbeats, by which each token has one adapter |
//! | `memory` | one flight per token, and a short memory of yes and no |
//! | `caller` | one check: when it may call, and how often it is tried |
//! | `breaker`, `circuit` | stop calls to a failing business system, and find out when it is back |
//! | `retry` | pauses and budget of retries |
//! | `business` | one call of the business system |
//! | `mapping` | how the business system is asked, and what its answers mean |
//! | `jwt` | checks of tokens that say by themselves whose they are |
//! | `pointer`, `groups` | where in a document a value stands; the groups of a login |
//! | `reasons` | why logins were refused or got no answer: for the log and `/logins` |
//! | `usable` | tokens that are refused without asking |
//! | [`login_test`] | one check by hand |
//! | `config`, `metrics` | `[auth_adapter]`; metrics |
//!
//! This part knows nothing of sockets or channels, and has no state that a restart may not lose.

mod announce;
mod breaker;
mod business;
mod caller;
mod circuit;
mod config;
mod groups;
mod jwt;
pub mod login_test;
mod mapping;
mod memory;
mod metrics;
mod pointer;
mod reasons;
mod retry;
mod usable;
mod verify;

use std::sync::Arc;

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use shared::awake::Awake;
use shared::drain::Drain;
use shared::login::LoginConfig;
use shared::part::{self, Apart, Host, Leave, ready};
use shared::reload::Live;

use jwt::{Checker, Surroundings};

pub use config::{BreakerConfig, BusinessTls, Config, Settings};
pub use jwt::{Algorithm, JwtCheck, JwtChecked, JwtConfig, Mode, SecretEncoding};
pub use mapping::config::{Accepted, AnswerConfig, Method, Preset, RequestConfig};
pub use pointer::{Pointer, PointerError};

/// The name of this part in logs, readiness and bus connections.
pub const PART: &str = "auth-adapter";

/// A running auth-adapter, which leaves with the drain of its [`Host`].
#[derive(Debug)]
pub struct AuthAdapter {}

impl AuthAdapter {
    /// Starts answering. The part is ready once the edges' questions reach it.
    ///
    /// # Errors
    /// The URL, a header, or a key for JWTs can't be used.
    pub fn start(config: Config, login: LoginConfig, host: Host<'_>) -> BoxFuture<'_, anyhow::Result<Self>> {
        // Boxed, so that only this crate compiles the code that it starts.
        Box::pin(async move {
            let Host { bus, health, registry, drain } = host;
            bus.register(registry, PART);
            let metrics = Arc::new(metrics::Metrics::register(registry));
            let reasons = Arc::new(reasons::Reasons::default());
            let shown = Arc::clone(&reasons);
            health.pages().add(reasons::PATH, move || shown.page());
            let circuit = Arc::new(circuit::Circuit::new(config.breaker.policy(), Arc::clone(&metrics)));
            let by_url = if config.mode.asks_url() {
                Some(by_url(&config, bus.awake(), &circuit, &metrics, &reasons)?)
            } else {
                None
            };
            let jwt = if config.mode.checks_jwt() {
                let around = Surroundings {
                    registry,
                    health: health.clone(),
                    awake: bus.awake().clone(),
                    drain: &drain,
                    reasons: Arc::clone(&reasons),
                    adapter: Arc::clone(&metrics),
                };
                let max_token = config.max_token.as_usize();
                Some(Checker::start(&config.jwt, login.max_token_age, max_token, around)?)
            } else {
                None
            };
            health.unready(PART, ready::STARTING);
            let breaker = Arc::downgrade(&circuit);
            drain.on_panic(move || breaker.upgrade()?.is_poisoned().then_some("the breaker"));
            let ability = jwt.as_ref().and_then(Checker::ability);
            let announcer = announce::Announcer::new(bus.clone(), circuit, ability, Arc::clone(&metrics));
            let judges = verify::Judges { by_url, jwt, reasons };
            verify::start(&config, judges, announcer, bus, health, metrics, &drain);
            Ok(Self {})
        })
    }
}

/// Makes the checks at the business system.
fn by_url(
    config: &Config,
    awake: &Awake,
    circuit: &Arc<circuit::Circuit>,
    metrics: &Arc<metrics::Metrics>,
    reasons: &Arc<reasons::Reasons>,
) -> anyhow::Result<verify::ByUrl> {
    let business = business::Business::new(config).context("auth_adapter")?;
    let mapping = Arc::clone(business.mapping());
    if matches!(mapping.token(), mapping::TokenPlace::Query(_)) {
        tracing::warn!(
            "auth_adapter.request.token puts tokens into the URL, which servers and proxies log; \
             take a header if the business system reads one"
        );
    }
    let caller = caller::Caller::new(
        config,
        business,
        Arc::clone(circuit),
        Arc::clone(metrics),
        Arc::clone(reasons),
        awake.clone(),
    );
    let memory = memory::Memory::new(config, caller, Arc::clone(metrics))?;
    Ok(verify::ByUrl { mapping, memory })
}

/// Runs this part as a process of its own until the drain begins.
///
/// # Errors
/// A port is taken, or the bus can't be used.
pub fn run(live: Live<Settings>, drain: Drain) -> BoxFuture<'static, anyhow::Result<()>> {
    // Boxed, so that only this crate compiles the code that it starts.
    Box::pin(async move {
        let settings = live.get();
        let (config, login) = (settings.auth_adapter.clone(), settings.login);
        let apart = Apart { part: PART, admin: ("auth_adapter.admin", config.admin), bus: &settings.bus };
        let leave = Leave { grace: config.grace, early: "left before every token was checked" };
        part::run_apart(apart, &live, drain, leave, async |host| {
            AuthAdapter::start(config, login, host).await.map(drop)
        })
        .await?;
        tracing::info!("auth-adapter has left");
        Ok(())
    })
}
