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
//! | `business` | one call of the business system, and the meaning of its answers |
//! | `config`, `metrics` | `[auth_adapter]`; metrics |
//!
//! This part knows nothing of sockets or channels, and has no state that a restart may not lose.

mod announce;
mod breaker;
mod business;
mod caller;
mod circuit;
mod config;
mod memory;
mod metrics;
mod retry;
mod verify;

use futures_util::future::BoxFuture;
use std::sync::Arc;

use anyhow::Context as _;
use shared::drain::Drain;
use shared::part::{self, Apart, Host, Leave, ready};
use shared::reload::Live;

pub use config::{BodyFormat, BreakerConfig, BusinessTls, Config, Settings};

/// The name of this part in logs, readiness and bus connections.
pub const PART: &str = "auth-adapter";

/// A running auth-adapter, which leaves with the drain of its [`Host`].
#[derive(Debug)]
pub struct AuthAdapter {}

impl AuthAdapter {
    /// Starts answering. The part is ready once the edges' questions reach it.
    ///
    /// # Errors
    /// The URL or a header can't be used.
    pub fn start(config: Config, host: Host<'_>) -> BoxFuture<'_, anyhow::Result<Self>> {
        // Boxed, so that only this crate compiles the code that it starts.
        Box::pin(async move {
            let Host { bus, health, registry, drain } = host;
            bus.register(registry, PART);
            let metrics = Arc::new(metrics::Metrics::register(registry));
            let business = business::Business::new(&config).context("auth_adapter")?;
            let circuit = Arc::new(circuit::Circuit::new(config.breaker.policy(), Arc::clone(&metrics)));
            let caller = caller::Caller::new(
                &config,
                business,
                Arc::clone(&circuit),
                Arc::clone(&metrics),
                bus.awake().clone(),
            );
            let memory = memory::Memory::new(&config, caller, Arc::clone(&metrics))?;
            health.unready(PART, ready::STARTING);
            let breaker = Arc::downgrade(&circuit);
            drain.on_panic(move || breaker.upgrade()?.is_poisoned().then_some("the breaker"));
            let announcer = announce::Announcer::new(bus.clone(), circuit, Arc::clone(&metrics));
            verify::start(&config, memory, announcer, bus, health, metrics, &drain);
            Ok(Self {})
        })
    }
}

/// Runs this part as a process of its own until the drain begins.
///
/// # Errors
/// A port is taken, or the bus can't be used.
pub fn run(live: Live<Settings>, drain: Drain) -> BoxFuture<'static, anyhow::Result<()>> {
    // Boxed, so that only this crate compiles the code that it starts.
    Box::pin(async move {
        let settings = live.get();
        let config = settings.auth_adapter.clone();
        let apart = Apart { part: PART, admin: ("auth_adapter.admin", config.admin), bus: &settings.bus };
        let leave = Leave { grace: config.grace, early: "left before every token was checked" };
        part::run_apart(apart, &live, drain, leave, async |host| {
            AuthAdapter::start(config, host).await.map(drop)
        })
        .await?;
        tracing::info!("auth-adapter has left");
        Ok(())
    })
}
