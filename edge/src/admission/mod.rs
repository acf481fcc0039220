//! Decides who may begin a handshake, and when: the rate of this edge, and the limits of each address.
//!
//! The edge's rate paces before it refuses: a storm of reconnects is let in one connection after the other.
//! An address above its own limits is refused at once, since waiting connections hold slots that others need.
//! Trusted proxies and exempt addresses are limited by the rate of the edge only. The rate of an address is
//! checked before everything else, so that a connection refused for any other reason costs its address as
//! much as an admitted one. The rate of the edge is checked last, so that a client that sends nothing costs
//! the others none of it. All state is bounded.

mod proxies;
mod rate;
mod source;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderMap;
use tokio::time::Instant;

pub use proxies::ForwardedHeader;
pub(crate) use proxies::Networks;
pub(crate) use rate::Rate;
pub(crate) use source::AddressSlot;

use crate::metrics::{Metrics, Refusal};
use sockets::{Slot, Source};
use source::{AddressSlots, Rates, Turn};

/// How long a connection waits for its turn before it is refused.
const PATIENCE: Duration = Duration::from_secs(2);
/// Connections that are refused in the same second should not all come back in the same second.
const SPREAD_SECONDS: u64 = 5;

/// The limits of the gate; 0 is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GateLimits {
    pub(crate) per_second: u32,
    pub(crate) per_address: u32,
    /// Connections that one address may open at once.
    pub(crate) burst_per_address: u32,
    pub(crate) sessions_per_address: usize,
    pub(crate) trusted: Networks,
    pub(crate) exempt: Networks,
    pub(crate) header: ForwardedHeader,
    /// The time for a whole handshake; waiting takes at most a quarter of it.
    pub(crate) handshake: Duration,
}

/// The refusal of a connection that is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany {
    pub(crate) refusal: Refusal,
    /// Seconds after which the client should come back.
    pub(crate) retry_after: u64,
}

/// The address for which a connection counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Visitor {
    pub(crate) address: IpAddr,
    /// Whether the limits of an address apply.
    limited: bool,
}

/// The gate of one edge.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: GateLimits,
    patience: Duration,
    /// When all admitted connections have had their turn. Locked only to add one.
    busy_until: Mutex<Instant>,
    rates: Mutex<Rates>,
    slots: Arc<AddressSlots>,
    metrics: Arc<Metrics>,
}

impl Gate {
    pub(crate) fn new(limits: GateLimits, metrics: Arc<Metrics>) -> Self {
        let now = Instant::now();
        let rate = Rate::new(limits.per_address, limits.burst_per_address);
        Self {
            patience: PATIENCE.min(limits.handshake / 4),
            busy_until: Mutex::new(now),
            rates: Mutex::new(Rates::new(rate, now)),
            slots: Arc::new(AddressSlots::new(limits.sessions_per_address)),
            limits,
            metrics,
        }
    }

    /// Returns the visitor at this remote address. None: a trusted proxy, whose request will name the client.
    pub(crate) fn visitor_at(&self, address: IpAddr) -> Option<Visitor> {
        (!self.limits.trusted.contain(address)).then(|| self.visitor(address))
    }

    /// Returns the client that a trusted proxy names in its request.
    pub(crate) fn behind(&self, proxy: IpAddr, headers: &HeaderMap) -> Visitor {
        let GateLimits { trusted, header, .. } = &self.limits;
        self.visitor(proxies::real_address(proxy, trusted, *header, headers))
    }

    /// Returns whether a request names another client in the header that would be believed from a trusted
    /// proxy.
    pub(crate) fn is_forwarded(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(self.limits.header.name())
    }

    /// Counts a request that named another address and was not believed.
    pub(crate) fn count_ignored(&self) {
        self.metrics.forwarded_ignored.inc();
    }

    /// Assigns a slot to the client that a trusted proxy has named.
    ///
    /// # Errors
    /// The client's address has as many handshakes under way as allowed.
    pub(crate) fn attribute(&self, slot: &Slot, visitor: Visitor) -> Result<(), TooMany> {
        let moved = slot.belongs_to(visitor.source(), visitor.limited);
        moved.map_err(|_| TooMany::new(Refusal::AddressHandshakes, Duration::ZERO))
    }

    fn visitor(&self, address: IpAddr) -> Visitor {
        let limited = !self.limits.trusted.contain(address) && !self.limits.exempt.contain(address);
        Visitor { address: address.to_canonical(), limited }
    }

    /// Takes one more connection of a visitor.
    ///
    /// # Errors
    /// The address had too many.
    pub(crate) fn enter(&self, visitor: Visitor, now: Instant) -> Result<(), TooMany> {
        if visitor.limited && self.limits.per_address > 0 {
            let mut rates = lock(&self.rates);
            let turn = rates.take(visitor.address.into(), now);
            let known = i64::try_from(rates.len()).unwrap_or(i64::MAX);
            drop(rates);
            self.metrics.tracked_addresses.set(known);
            match turn {
                Turn::Granted => {}
                Turn::Untracked => drop(self.metrics.untracked_addresses.inc()),
                Turn::Refused(early) => return Err(TooMany::new(Refusal::AddressRate, early)),
            }
        }
        Ok(())
    }

    /// Returns how long a connection, which has entered and sent its first byte, has to wait for its turn.
    ///
    /// # Errors
    /// The wait would be too long.
    pub(crate) fn turn(&self, now: Instant) -> Result<Duration, TooMany> {
        if self.limits.per_second == 0 {
            return Ok(Duration::ZERO);
        }
        // A second's worth may come at once.
        let rate = Rate::new(self.limits.per_second, self.limits.per_second);
        let wait = rate
            .take(&mut lock(&self.busy_until), now, self.patience)
            .map_err(|early| TooMany::new(Refusal::EdgeRate, early))?;
        if !wait.is_zero() {
            self.metrics.paced.inc();
        }
        Ok(wait)
    }

    /// Takes a slot for the session of this visitor. None: the slots of this address are not counted.
    ///
    /// # Errors
    /// The address has as many sessions as allowed.
    pub(crate) fn session_slot(&self, visitor: Visitor) -> Result<Option<AddressSlot>, TooMany> {
        if !visitor.limited || self.limits.sessions_per_address == 0 {
            return Ok(None);
        }
        match self.slots.take(visitor.source()) {
            Some(slot) => Ok(Some(slot)),
            None => Err(TooMany::new(Refusal::AddressSessions, Duration::from_secs(30))),
        }
    }
}

impl Visitor {
    /// Returns the source that the visitor counts as.
    pub(crate) fn source(self) -> Source {
        self.address.into()
    }

    /// Returns whether the limits of an address apply.
    pub(crate) fn is_limited(self) -> bool {
        self.limited
    }
}

impl TooMany {
    /// Returns the refusal of a connection that comes too early by `early`.
    pub(crate) fn new(refusal: Refusal, early: Duration) -> Self {
        let whole = early.as_secs() + u64::from(early.subsec_nanos() > 0);
        Self { refusal, retry_after: whole.max(1) + fastrand::u64(0..SPREAD_SECONDS) }
    }

    /// Returns status and text for a client that has not upgraded yet: 429 if its address has too many, 503
    /// if the edge has.
    pub(crate) fn response(self) -> (StatusCode, &'static str) {
        let (too_many, unavailable) = (StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE);
        match self.refusal {
            Refusal::AddressRate => (too_many, "Too many connections from your address: come back later.\n"),
            Refusal::AddressHandshakes => {
                (too_many, "Too many connections from your address at once: come back later.\n")
            }
            Refusal::AddressSessions => {
                (too_many, "Too many sessions from your address: close another first.\n")
            }
            Refusal::Full => (unavailable, "This edge has as many sessions as it may: come back later.\n"),
            Refusal::EdgeRate
            | Refusal::Busy
            | Refusal::NotAHandshake
            | Refusal::Origin
            | Refusal::Starting
            | Refusal::Leaving
            | Refusal::Flood
            | Refusal::Silent
            | Refusal::Displaced
            | Refusal::Slow
            | Refusal::Broken
            | Refusal::Accept => (unavailable, "Too many connections at once: come back later.\n"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;
    use prometheus_client::registry::Registry;

    fn gate(change: impl FnOnce(&mut GateLimits)) -> Gate {
        let mut limits = GateLimits {
            per_second: 0,
            per_address: 0,
            burst_per_address: 1,
            sessions_per_address: 0,
            trusted: Networks::parse(&["10.0.0.0/8".into()]).unwrap(),
            exempt: Networks::parse(&["127.0.0.0/8".into()]).unwrap(),
            header: ForwardedHeader::XForwardedFor,
            handshake: Duration::from_secs(10),
        };
        change(&mut limits);
        Gate::new(limits, Arc::new(Metrics::register(&mut Registry::default())))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Applies both rates, one after the other.
    fn enter(gate: &Gate, visitor: Visitor, now: Instant) -> Result<Duration, TooMany> {
        gate.enter(visitor, now).and_then(|()| gate.turn(now))
    }

    #[test]
    fn a_storm_is_paced_and_only_what_would_wait_too_long_is_refused() {
        let gate = gate(|limits| limits.per_second = 100);
        let (stranger, now) = (gate.visitor_at(ip("203.0.113.9")).unwrap(), Instant::now());
        let waits: Vec<_> = (0..400).map(|_| enter(&gate, stranger, now)).collect();
        assert!(waits[..100].iter().all(|wait| *wait == Ok(Duration::ZERO)), "a second's worth at once");
        assert_eq!(waits[200], Ok(Duration::from_millis(1_010)));
        assert_eq!(waits[299], Ok(PATIENCE));
        assert!(waits[300..].iter().all(|wait| wait.is_err_and(|it| it.refusal == Refusal::EdgeRate)));
        assert_eq!(gate.metrics.paced.get(), 200);
    }

    #[test]
    fn waiting_leaves_time_for_the_handshake() {
        let gate = gate(|limits| (limits.per_second, limits.handshake) = (10, Duration::from_secs(2)));
        let (stranger, now) = (gate.visitor_at(ip("203.0.113.9")).unwrap(), Instant::now());
        let longest = (0..100).filter_map(|_| enter(&gate, stranger, now).ok()).max();
        assert_eq!(longest, Some(Duration::from_millis(500)));
    }

    #[test]
    fn one_address_uses_up_neither_the_rate_of_others_nor_the_edge_s() {
        let gate =
            gate(|limits| (limits.per_second, limits.per_address, limits.burst_per_address) = (100, 1, 5));
        let now = Instant::now();
        let flooder = gate.visitor_at(ip("203.0.113.9")).unwrap();
        let outcomes: Vec<_> = (0..1_000).map(|_| enter(&gate, flooder, now)).collect();
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 5);
        let refused = outcomes[5].unwrap_err();
        assert_eq!(refused.refusal, Refusal::AddressRate);
        assert!((1..=1 + SPREAD_SECONDS).contains(&refused.retry_after), "{refused:?}");
        assert_eq!(enter(&gate, gate.visitor_at(ip("203.0.113.8")).unwrap(), now), Ok(Duration::ZERO));
        assert_eq!(gate.metrics.tracked_addresses.get(), 2);
    }

    #[test]
    fn proxies_and_exempt_addresses_are_not_limited_but_who_is_behind_them_is() {
        let gate = gate(|limits| (limits.per_address, limits.sessions_per_address) = (1, 1));
        let now = Instant::now();
        assert_eq!(gate.visitor_at(ip("10.0.0.1")), None, "it will tell");
        let mut headers = HeaderMap::new();
        let silent_proxy = gate.behind(ip("10.0.0.1"), &headers);
        let local = gate.visitor_at(ip("127.0.0.1")).unwrap();
        for visitor in [silent_proxy, local] {
            assert!((0..100).all(|_| gate.enter(visitor, now).is_ok()));
            assert!(gate.session_slot(visitor).unwrap().is_none());
        }
        headers.insert("x-forwarded-for", HeaderValue::from_static("203.0.113.9"));
        let client = gate.behind(ip("10.0.0.1"), &headers);
        assert_eq!(client.address, ip("203.0.113.9"));
        assert!(gate.enter(client, now).is_ok() && gate.enter(client, now).is_err());
        let slot = gate.session_slot(client).unwrap();
        assert_eq!(gate.session_slot(client).unwrap_err().refusal, Refusal::AddressSessions);
        drop(slot);
        assert!(gate.session_slot(client).is_ok());
    }
}
