//! A bus, adapters, an edge that asks, and waiting for conditions.

use std::time::Duration;

use auth_adapter::{AuthAdapter, Config};
use prometheus_client::registry::Registry;
use shared::bus::{Bus, BusServer, RequestError};
use shared::drain::Drain;
use shared::health::Health;
use shared::login::LoginConfig;
use shared::part::Host;
use shared::subject;
use shared::wire::{Envelope as _, Login, VERSION, Verdict, VerifyReply, VerifyRequest};
use test_kit::metrics;

pub(crate) use test_kit::bus::TestBus;
pub(crate) use test_kit::business::{Business, Script};
pub(crate) use test_kit::frameworks::Frameworks;
pub(crate) use test_kit::wait::{eventually, soon};

/// How long a condition may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One adapter with a connection of its own.
pub(crate) struct Adapter {
    pub(crate) health: Health,
    pub(crate) drain: Drain,
    pub(crate) registry: Registry,
    bus_drain: Drain,
}

impl Adapter {
    pub(crate) async fn start(server: &BusServer, config: Config) -> Self {
        let (health, drain, bus_drain) = (Health::new(), Drain::new(), Drain::new());
        let mut registry = Registry::default();
        let bus = Bus::connect(server, auth_adapter::PART, &bus_drain).await.unwrap();
        let host = Host { bus, health: health.clone(), registry: &mut registry, drain: drain.clone() };
        AuthAdapter::start(config, LoginConfig::default(), host).await.unwrap();
        Self { health, drain, registry, bus_drain }
    }

    pub(crate) async fn ready(&self) {
        soon("the adapter is ready", self.health.wait_ready()).await;
    }

    /// Returns the value of a counter or gauge, found by the beginning of its line.
    pub(crate) fn metric(&self, line: &str) -> u64 {
        metrics::value(&metrics::text(&self.registry), line)
    }

    pub(crate) async fn leave(&self) {
        assert_eq!(self.drain.finish(PATIENCE).await, 0, "the adapter left tasks behind");
        assert_eq!(self.bus_drain.finish(PATIENCE).await, 0, "its connection left tasks behind");
    }
}

/// The asking side of an edge.
pub(crate) struct Edge {
    pub(crate) bus: Bus,
    drain: Drain,
}

impl Edge {
    pub(crate) async fn connect(server: &BusServer) -> Self {
        let drain = Drain::new();
        let bus = Bus::connect(server, "edge", &drain).await.unwrap();
        bus.connected(PATIENCE).await.unwrap();
        Self { bus, drain }
    }

    pub(crate) async fn ask(&self, token: &str) -> Verdict {
        self.ask_within(token, PATIENCE).await.unwrap()
    }

    /// Asks about a token of a device at this address.
    pub(crate) async fn ask_from(&self, from: &str, token: &str) -> Verdict {
        self.ask_bytes(question_from(Some(from), token, PATIENCE), PATIENCE).await.unwrap()
    }

    pub(crate) async fn ask_within(&self, token: &str, deadline: Duration) -> Result<Verdict, RequestError> {
        self.ask_bytes(question(token, deadline), deadline).await
    }

    /// Asks one adapter.
    pub(crate) async fn ask_at(&self, subject: String, token: &str) -> Result<Verdict, RequestError> {
        let reply = self.bus.request(subject, question(token, PATIENCE).into(), PATIENCE).await?;
        Ok(undated(VerifyReply::decode(&reply.payload).unwrap().verdict))
    }

    /// Asks about a good token, and returns the login with the moment at which the business system was asked.
    pub(crate) async fn login(&self, token: &str) -> Login {
        let reply =
            self.bus.request(subject::VERIFY, question(token, PATIENCE).into(), PATIENCE).await.unwrap();
        match VerifyReply::decode(&reply.payload).unwrap().verdict {
            Verdict::Known(login) => login,
            other @ (Verdict::Unknown | Verdict::Unavailable { .. }) => panic!("{token}: {other:?}"),
        }
    }

    /// Asks for an answer that is newer than a refresh.
    pub(crate) async fn ask_newer(&self, token: &str, newer_than: Option<u64>) -> Verdict {
        let request = VerifyRequest {
            v: VERSION,
            token: token.into(),
            patience_ms: u64::try_from(PATIENCE.as_millis()).ok(),
            from: None,
            newer_than_ms: newer_than,
        };
        self.ask_bytes(request.encode(), PATIENCE).await.unwrap()
    }

    pub(crate) async fn ask_bytes(
        &self,
        question: impl AsRef<[u8]>,
        deadline: Duration,
    ) -> Result<Verdict, RequestError> {
        let question = question.as_ref().to_vec().into();
        let reply = self.bus.request(subject::VERIFY, question, deadline).await?;
        Ok(undated(VerifyReply::decode(&reply.payload).unwrap().verdict))
    }

    pub(crate) async fn leave(&self) {
        assert_eq!(self.drain.finish(PATIENCE).await, 0, "the edge left tasks behind");
    }
}

/// Takes out of a verdict when the business system was asked, which differs from test to test.
fn undated(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Known(login) => {
            assert!(login.issued_at_ms.is_some(), "an adapter says when it asked: {login:?}");
            Verdict::Known(Login { issued_at_ms: None, ..login })
        }
        other @ (Verdict::Unknown | Verdict::Unavailable { .. }) => other,
    }
}

fn question(token: &str, patience: Duration) -> Vec<u8> {
    question_from(None, token, patience)
}

fn question_from(from: Option<&str>, token: &str, patience: Duration) -> Vec<u8> {
    let (patience_ms, from) = (u64::try_from(patience.as_millis()).ok(), from.map(str::to_owned));
    VerifyRequest { v: VERSION, token: token.into(), patience_ms, from, newer_than_ms: None }
        .encode()
        .to_vec()
}

/// A bus, a business system, an adapter and an edge, all ready.
pub(crate) struct Rig {
    pub(crate) bus: TestBus,
    pub(crate) adapter: Adapter,
    pub(crate) edge: Edge,
    pub(crate) business: Business,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts everything, with changes to the adapter's configuration.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let business = Business::start().await;
        // On a busy machine a late answer must not look like a slow business system.
        let mut config = Config { url: business.url(), deadline: PATIENCE, ..Config::default() };
        change(&mut config);
        let bus = TestBus::start().await;
        let adapter = Adapter::start(&bus.server, config).await;
        adapter.ready().await;
        let edge = Edge::connect(&bus.server).await;
        Self { bus, adapter, edge, business }
    }

    /// Asks about many tokens at once, and returns the verdicts in the order of the tokens.
    pub(crate) async fn ask_all(&self, tokens: &[String]) -> Vec<Verdict> {
        let asked = tokens.iter().map(|token| self.edge.ask(token));
        soon("all are answered", futures_util::future::join_all(asked)).await
    }

    /// Ends everything and checks that nothing is left.
    pub(crate) async fn end(self) {
        self.adapter.leave().await;
        self.edge.leave().await;
        self.bus.stop().await;
        self.business.stop().await;
    }
}

pub(crate) fn known(uid: &str) -> Verdict {
    Verdict::Known(Login::of(uid))
}

pub(crate) fn unavailable(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Unavailable { reason } => reason,
        Verdict::Known(_) | Verdict::Unknown => panic!("unavailable was expected: {verdict:?}"),
    }
}
