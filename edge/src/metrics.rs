//! The metrics of this part. Labels come from small fixed sets, never from a client.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::code::{CloseCode, ErrorCode};

/// Why a session was asked to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MoveReason {
    /// This edge has more than the others.
    Uneven,
    /// The connection is as old as it may become.
    Age,
}

/// Why a connection became no session, in its handshake or before it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request is no WebSocket handshake, or not one for this path.
    NotAHandshake,
    /// The web page that connects is none of those allowed.
    Origin,
    /// This edge is not announced yet.
    Starting,
    /// This edge leaves.
    Leaving,
    /// The edge has as many sessions as allowed.
    Full,
    /// The edge has as many handshakes under way as allowed.
    Busy,
    /// So many connections come that there is no time to say so.
    Flood,
    /// The client sent no first byte in time.
    Silent,
    /// The slot went to another address, because all slots were taken and the client's own address had the
    /// most.
    Displaced,
    /// The handshake was not finished in time.
    Slow,
    /// The connection broke, or the client sent no HTTP.
    Broken,
    /// The system could not accept the connection.
    Accept,
    /// More connections a second than this edge takes.
    EdgeRate,
    /// More connections a second than one address may make.
    AddressRate,
    /// The address has as many handshakes under way as allowed.
    AddressHandshakes,
    /// The address has as many sessions as allowed.
    AddressSessions,
}

/// Something that was thrown away or could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Messages that waited for a session when it was closed.
    Closed,
    /// Messages that waited for the user who was logged in before.
    OtherUser,
    /// Messages that were held back for a subscription when its client ended it.
    Unsubscribed,
    /// Messages that waited for a subscription when its client subscribed anew with a position instead.
    Resubscribed,
    /// Messages that waited for a subscription when the user's new login lacked the group.
    NotMember,
    /// A message from the bus that can't be read.
    BadMessage,
    /// A question from a publisher that can't be read or answered.
    BadAsk,
    /// Anything from the bus, because too much waited for the feed.
    FeedFull,
    /// A subject of the feed that this version doesn't know.
    UnknownSubject,
    /// An answer to a publisher, because too many waited.
    AnswerQueue,
    /// An answer to a publisher that the bus did not take.
    Answer,
    /// A heartbeat that the bus did not take.
    Heartbeat,
    /// A heartbeat of another edge that can't be read.
    BadHeartbeat,
    /// An acknowledgement that can't be read.
    BadAck,
    /// A command from a publisher that can't be read, answered or carried out.
    BadCommand,
    /// A ban for which there was no slot.
    Ban,
}

/// The outcome of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoginOutcome {
    Known,
    Unknown,
    Unavailable,
    TooManySessions,
    Banned,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Coded {
    code: u16,
    reason: &'static str,
}

/// Messages offered to sessions, by outcome.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deliveries(Family<Outcome, Counter>);

impl Deliveries {
    /// Counts the offers of one message to sessions.
    pub(crate) fn count(&self, accepted: u64, failed: u64) {
        for (outcome, number) in [("accepted", accepted), ("failed", failed)] {
            if number > 0 {
                self.0.get_or_create(&Outcome { outcome }).inc_by(number);
            }
        }
    }
}

/// The counters of one edge.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Sessions begun.
    pub(crate) opened: Counter,
    /// Open sessions.
    pub(crate) sessions: Gauge,
    /// Handshakes under way.
    pub(crate) handshakes: Gauge,
    /// Connections that waited for their turn.
    pub(crate) paced: Counter,
    /// Other edges that are known.
    pub(crate) other_edges: Gauge,
    moved: Family<Reason, Counter>,
    /// Addresses whose rate is tracked.
    pub(crate) tracked_addresses: Gauge,
    /// Connections whose address was not limited to its rate, because too many addresses were tracked.
    pub(crate) untracked_addresses: Counter,
    /// Requests that named another address, from a remote address that is not trusted.
    pub(crate) forwarded_ignored: Counter,
    messages: Counter,
    /// Questions of publishers that were answered.
    pub(crate) asks: Counter,
    /// Questions and commands of publishers about users that were answered.
    pub(crate) commands: Counter,
    /// Sessions that were told to renew their logins.
    pub(crate) refreshes: Counter,
    /// Subscriptions that ended since the user's new login lacked the group.
    pub(crate) ended_memberships: Counter,
    closed: Family<Coded, Counter>,
    errors: Family<Coded, Counter>,
    refused: Family<Reason, Counter>,
    logins: Family<Outcome, Counter>,
    login_duration: Histogram,
    /// Bytes of messages that came over the bus.
    message_bytes: Counter,
    pub(crate) deliveries: Deliveries,
    lost: Family<Reason, Counter>,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            opened: Counter::default(),
            sessions: Gauge::<i64, AtomicI64>::default(),
            handshakes: Gauge::<i64, AtomicI64>::default(),
            paced: Counter::default(),
            other_edges: Gauge::default(),
            moved: Family::default(),
            tracked_addresses: Gauge::default(),
            untracked_addresses: Counter::default(),
            forwarded_ignored: Counter::default(),
            messages: Counter::default(),
            asks: Counter::default(),
            commands: Counter::default(),
            refreshes: Counter::default(),
            ended_memberships: Counter::default(),
            closed: Family::default(),
            errors: Family::default(),
            refused: Family::default(),
            logins: Family::default(),
            login_duration: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            message_bytes: Counter::default(),
            deliveries: Deliveries::default(),
            lost: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("mc_edge");
        registry.register("sessions_opened", "Sessions begun", metrics.opened.clone());
        registry.register("sessions", "Open sessions", metrics.sessions.clone());
        registry.register("sessions_closed", "Sessions ended, by close code", metrics.closed.clone());
        registry.register("errors", "Errors that clients were told, by error code", metrics.errors.clone());
        registry.register("handshakes", "Handshakes under way", metrics.handshakes.clone());
        registry.register("refusals", "Connections that became no session", metrics.refused.clone());
        registry.register(
            "connections_paced",
            "Connections that waited for their turn",
            metrics.paced.clone(),
        );
        registry.register("other_edges", "Other edges whose heartbeats come", metrics.other_edges.clone());
        registry.register("sessions_moved", "Sessions asked to move to another edge", metrics.moved.clone());
        let text = "Addresses whose connection rate is tracked";
        registry.register("tracked_addresses", text, metrics.tracked_addresses.clone());
        let text = "Connections not held to the rate of their address, because too many others were";
        registry.register("untracked_addresses", text, metrics.untracked_addresses.clone());
        let text = "Requests that named another address, from a remote address that is no trusted proxy";
        registry.register("forwarded_ignored", text, metrics.forwarded_ignored.clone());
        registry.register("logins", "Token checks, by outcome", metrics.logins.clone());
        let help = "From the wish to log in to its outcome";
        registry.register_with_unit("login_duration", help, Unit::Seconds, metrics.login_duration.clone());
        let help = "Payloads of messages from the bus";
        registry.register_with_unit("message", help, Unit::Bytes, metrics.message_bytes.clone());
        registry.register("messages", "Messages from the bus", metrics.messages.clone());
        registry.register("deliveries", "Messages offered to sessions", metrics.deliveries.0.clone());
        registry.register("asks", "Questions of publishers answered", metrics.asks.clone());
        registry.register("orders", "Questions and orders about users answered", metrics.commands.clone());
        registry.register("refreshes", "Sessions told to renew their logins", metrics.refreshes.clone());
        let text = "Subscriptions that ended because the new login lacked the group";
        registry.register("memberships_ended", text, metrics.ended_memberships.clone());
        registry.register("losses", "What was thrown away, by reason", metrics.lost.clone());
        metrics
    }

    /// Counts the end of a session; without a code, the client ended it.
    pub(crate) fn closed(&self, code: Option<CloseCode>) {
        let (code, reason) = code.map_or((0, "by_client"), |code| (code.number(), code.label()));
        self.closed.get_or_create(&Coded { code, reason }).inc();
    }

    /// Counts an error that a client was told.
    pub(crate) fn error(&self, code: ErrorCode) {
        self.errors.get_or_create(&Coded { code: code.number(), reason: code.label() }).inc();
    }

    /// Counts sessions that were asked to move.
    pub(crate) fn moved(&self, why: MoveReason, number: usize) {
        let reason = match why {
            MoveReason::Uneven => "uneven",
            MoveReason::Age => "age",
        };
        if number > 0 {
            self.moved.get_or_create(&Reason { reason }).inc_by(number as u64);
        }
    }

    /// Counts a connection that became no session.
    pub(crate) fn refused(&self, refusal: Refusal) {
        let reason = match refusal {
            Refusal::NotAHandshake => "not_a_handshake",
            Refusal::Origin => "origin",
            Refusal::Starting => "starting",
            Refusal::Leaving => "leaving",
            Refusal::Full => "full",
            Refusal::Busy => "busy",
            Refusal::Flood => "flood",
            Refusal::Silent => "silent",
            Refusal::Displaced => "displaced",
            Refusal::Slow => "slow",
            Refusal::Broken => "broken",
            Refusal::Accept => "accept",
            Refusal::EdgeRate => "edge_rate",
            Refusal::AddressRate => "address_rate",
            Refusal::AddressHandshakes => "address_handshakes",
            Refusal::AddressSessions => "address_sessions",
        };
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    /// Counts a message that came over the bus.
    pub(crate) fn received(&self, bytes: usize) {
        self.messages.inc();
        self.message_bytes.inc_by(bytes as u64);
    }

    /// Records how long a token check took, the wait for a slot included.
    pub(crate) fn login_took(&self, time: Duration) {
        self.login_duration.observe(time.as_secs_f64());
    }

    /// Counts the outcome of a login.
    pub(crate) fn login(&self, outcome: LoginOutcome) {
        let outcome = match outcome {
            LoginOutcome::Known => "known",
            LoginOutcome::Unknown => "unknown",
            LoginOutcome::Unavailable => "unavailable",
            LoginOutcome::TooManySessions => "too_many_sessions",
            LoginOutcome::Banned => "denied",
        };
        self.logins.get_or_create(&Outcome { outcome }).inc();
    }

    /// Counts the offers of one message to sessions.
    pub(crate) fn delivered(&self, accepted: u64, failed: u64) {
        self.deliveries.count(accepted, failed);
    }

    /// Counts what was thrown away.
    pub(crate) fn lost(&self, loss: Loss, number: usize) {
        let reason = match loss {
            Loss::Closed => "closed",
            Loss::OtherUser => "other_user",
            Loss::Unsubscribed => "unsubscribed",
            Loss::Resubscribed => "resubscribed",
            Loss::NotMember => "not_member",
            Loss::BadMessage => "bad_message",
            Loss::BadAsk => "bad_ask",
            Loss::FeedFull => "feed_full",
            Loss::UnknownSubject => "unknown_subject",
            Loss::AnswerQueue => "answer_queue",
            Loss::Answer => "answer",
            Loss::Heartbeat => "heartbeat",
            Loss::BadHeartbeat => "bad_heartbeat",
            Loss::BadAck => "bad_ack",
            Loss::BadCommand => "bad_order",
            Loss::Ban => "denial",
        };
        if number > 0 {
            self.lost.get_or_create(&Reason { reason }).inc_by(number as u64);
        }
    }
}
