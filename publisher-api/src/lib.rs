//! The API through which back ends publish, over HTTP and WebSocket.
//!
//! The floors of these modules, and which module may use which, are in ARCHITECTURE.md. From the top down:
//!
//! | module | holds |
//! | --- | --- |
//! | `openapi` | the document of `/openapi.json` |
//! | `routes` | the route table: one row a call |
//! | `fuzz` | entry points of fuzzing |
//! | `connmix` | the dialect of connmix: its requests and answers, over HTTP and WebSocket |
//! | `native` | the native dialect: publish to many, batches, history, who is online, disconnect |
//! | `app` | what handlers need |
//! | `publisher` | the one place where a checked message goes to the bus or the store, and gets its receipt |
//! | `guard` | origins and hosts that are let in |
//! | `control` | asks and commands all edges about users |
//! | `receipts` | asks the edges to how many sessions a message went |
//! | `config` | `[publisher_api]` |
//! | `idempotency` | calls that are repeated with the same key |
//! | `edges` | which edges live |
//! | [`keys`] | who calls, and what they may do |
//! | `http` | bodies, JSON and headers, for both dialects |
//! | `serve` | connections |
//! | [`error`] | every reason for a refusal, with its code and problem |
//! | `history` | readiness by the history |
//! | `shares` | slots that keys share |
//! | `scope` | what a key may permit |
//! | `metrics`, `spans` | what is counted; spans of traces |
//!
//! This part holds no client sockets and no state that a restart may not lose.

mod app;
mod config;
mod connmix;
mod control;
mod edges;
pub mod error;
mod fuzz;
mod guard;
mod history;
mod http;
mod idempotency;
pub mod keys;
mod metrics;
mod native;
mod openapi;
mod publisher;
mod receipts;
mod routes;
mod scope;
mod serve;
mod shares;
mod spans;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use shared::bans::Bans;
use shared::bus::{self, Bus};
use shared::drain::Drain;
use shared::health::{self, Health};
use shared::history::{History, HistoryConfig, Role};
use shared::part::ready::STARTING;
use shared::part::{self, Apart, Host, Leave};
use shared::reload::Live;
use shared::rules::Rules;
use shared::tasks::on_a_thread;
use shared::tls::Acceptor;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::{Config, Settings};
pub use edges::PART;
pub use fuzz::{check_bytes, check_key_bytes};

use app::App;
use control::Control;
use edges::Edges;
use edges::roster::Times;
use guard::Guard;
use http::Bodies;
use idempotency::Idempotency;
use keys::Keys;
use metrics::Metrics;
use publisher::{Deps, Limits, Publisher};
use receipts::{AskTimes, Asker};
use shares::Shares;

/// A running publisher-api. It leaves with the drain that it was started on.
#[derive(Debug)]
pub struct PublisherApi {
    address: SocketAddr,
}

impl PublisherApi {
    /// Binds the port and starts. Ready, as `health` tells, once the edges had time to be heard and history
    /// can be used.
    ///
    /// # Errors
    /// The port is taken, or the bus takes no subscription.
    pub fn start<'a>(
        config: impl Into<Live<Config>>,
        rules: &'a Rules,
        history: &'a HistoryConfig,
        host: Host<'a>,
    ) -> BoxFuture<'a, anyhow::Result<Self>> {
        Self::start_with(config.into(), rules, history, host)
    }

    /// Starts, boxed, so that only this crate compiles the code that it starts.
    fn start_with<'a>(
        live: Live<Config>,
        rules: &'a Rules,
        history: &'a HistoryConfig,
        host: Host<'a>,
    ) -> BoxFuture<'a, anyhow::Result<Self>> {
        Box::pin(async move {
            let Host { bus, health, registry, drain } = host;
            health.unready(PART, STARTING);
            let config = live.get();
            let tls = live.project(&drain, |config| config.tls.clone());
            let tls =
                Acceptor::new(PART, &tls, "mc_publisher", registry, &drain).context("publisher_api.tls")?;
            let keys =
                Keys::load(config.keys.clone(), config.keys_file.clone(), config.may_be_open(), registry)?;
            let listener = health::bind("publisher_api.listen", config.listen).await?;
            sockets::bound_send_buffers(&listener).context("the send buffers of the publishing port")?;
            let address = listener.local_addr().context("the address of the publishing port")?;
            bus.register(registry, PART);
            let metrics = Arc::new(Metrics::register(registry));
            let history = History::open(&bus, history, Role::Publisher, &drain);
            if rules.any_history() {
                health.unready(history::PART, STARTING);
                let (history, health) = (history.clone(), health.clone());
                let (state, grace) = ((history, health, drain.clone()), config.bus_grace);
                drain.supervise("publisher-history-readiness", state, move |(history, health, drain)| {
                    Box::pin(history::keep_ready(history, health, grace, drain))
                });
            }
            let services = publisher(&config, rules, &bus, history, &health, &metrics, &drain)
                .await
                .context("the bus takes no subscriptions")?;
            keys.watch(&drain);
            let state = (live.clone(), Arc::clone(&keys), drain.clone());
            drain
                .supervise("publisher-keys", state, |(live, keys, drain)| Box::pin(apply(live, keys, drain)));
            serve(live, listener, tls, services, metrics, keys, &drain);
            tracing::info!(%address, "publisher-api listens");
            Ok(Self { address })
        })
    }

    /// Where back ends publish.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// Takes the keys of each configuration that follows.
async fn apply(live: &mut Live<Config>, keys: &Arc<Keys>, drain: &Drain) {
    let follow = async {
        while let Some(config) = live.reread().await {
            // The file of keys may be on a disk that hangs.
            let keys = Arc::clone(keys);
            on_a_thread(move || keys.apply(config.keys.clone(), config.keys_file.clone())).await;
        }
        // The keys change no more.
        std::future::pending::<()>().await;
    };
    tokio::select! { () = follow => {}, () = drain.begun() => {} }
}

async fn publisher(
    config: &Config,
    rules: &Rules,
    bus: &Bus,
    history: History,
    health: &Health,
    metrics: &Arc<Metrics>,
    drain: &Drain,
) -> Result<Services, bus::RequestError> {
    // Heartbeats are heard until the last receipt is out, which is later than the drain begins.
    let asked = CancellationToken::new();
    let times = Times {
        heartbeat: config.heartbeat,
        silent_after: config.silent_after,
        named_for: config.named_for,
        one_edge: bus.is_closed(),
    };
    let digest = rules.digest().to_owned();
    let edges = Edges::start(bus, times, digest, Arc::clone(metrics), drain, asked.clone()).await?;
    let ask = AskTimes { window: config.ask_window, deadline: config.answer_deadline };
    let (open, done) = (config.max_in_flight + config.max_in_flight_bulk, asked.drop_guard());
    let asker = Asker::start(bus, Arc::clone(&edges), ask, open, Arc::clone(metrics), drain, done).await?;
    // After both subscriptions, so that one proof covers them.
    let (state, grace) = ((Arc::clone(&edges), health.clone(), drain.clone()), config.bus_grace);
    drain.supervise("publisher-readiness", state, move |(edges, health, drain)| {
        Box::pin(edges.keep_ready(health, grace, drain))
    });
    let limits = Limits {
        in_flight: config.max_in_flight,
        bulk: config.max_in_flight_bulk,
        bus_wait: config.bus_wait,
        store_wait: config.store_wait,
        // Before this part gives its callers up.
        store_wait_leaving: config.grace.mul_f64(0.8),
        // Waiting for the window, sending the ask, waiting for answers; and a machine that is busy.
        receipt: config.ask_window + config.answer_deadline * 2 + Duration::from_millis(500),
    };
    let questions = control::Limits {
        at_a_time: config.max_questions,
        bus_wait: config.bus_wait,
        deadline: config.answer_deadline,
    };
    let bans = Bans::new(bus, history.config().replicas);
    let control = Control::new(bus.clone(), Arc::clone(&edges), questions, bans, Arc::clone(metrics));
    let keyed = Idempotency::new(
        bus.clone(),
        history.config(),
        config.max_idempotency_keys.0,
        // The claim, the store steps of all messages, and a last try.
        config.store_wait * 2,
        Arc::clone(metrics),
    );
    let (bus, rules, faults, drain) = (bus.clone(), rules.clone(), config.faults.clone(), drain.clone());
    let deps = Deps { bus, history, rules, edges, asker, faults, drain };
    Ok(Services { publisher: Publisher::new(deps, limits, Arc::clone(metrics)), control, keyed })
}

/// Services that handlers use.
struct Services {
    publisher: Publisher,
    control: Control,
    keyed: Idempotency,
}

fn serve(
    live: Live<Config>,
    listener: TcpListener,
    tls: Option<Acceptor>,
    Services { publisher, control, keyed }: Services,
    metrics: Arc<Metrics>,
    keys: Arc<Keys>,
    drain: &Drain,
) {
    let config = live.get();
    let guard = Guard::new(live, config.listen.ip().is_loopback());
    let bounds = serve::Bounds {
        connections: config.max_connections,
        per_address: config.max_connections_per_address,
        first_byte_timeout: config.first_byte_timeout,
        head_timeout: config.head_timeout,
        write_timeout: config.write_timeout,
    };
    let sockets = Shares::new(config.max_sockets);
    let bodies = Bodies::new(config.body_timeout, config.request_bytes(), drain.clone());
    let app = App {
        publisher,
        control,
        keyed,
        config,
        guard,
        keys,
        bodies,
        metrics: Arc::clone(&metrics),
        sockets,
        openapi: openapi::document(&routes::table()).to_string().into(),
        drain: drain.clone(),
    };
    serve::start(listener, tls, routes::router(Arc::new(app)), bounds, metrics, drain);
}

/// Runs this part as a process of its own until the drain begins.
///
/// # Errors
/// A port is taken, or the bus can't be used.
pub fn run(live: Live<Settings>, drain: Drain) -> BoxFuture<'static, anyhow::Result<()>> {
    // Boxed, so that only this crate compiles the code that it starts.
    Box::pin(async move {
        let settings = live.get();
        let config = &settings.publisher_api;
        let rules = Rules::compile(&settings.channels).context("channels")?;
        rules.warn_if_incomplete();
        let apart = Apart { part: PART, admin: ("publisher_api.admin", config.admin), bus: &settings.bus };
        let leave = Leave { grace: config.grace, early: "left before everything was finished" };
        part::run_apart(apart, &live, drain, leave, async |host| {
            let config = live.project(&host.drain, |settings| settings.publisher_api.clone());
            PublisherApi::start(config, &rules, &settings.history, host).await.map(drop)
        })
        .await?;
        tracing::info!("publisher-api has left");
        Ok(())
    })
}
