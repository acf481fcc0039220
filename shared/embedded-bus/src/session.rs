//! One client's conversation: the effect of each operation.
//!
//! A session is synchronous, without a socket or a clock. Operations are carried out in the order of their
//! arrival, so each subscriber receives the messages of one connection in the order of publishing. Receivers
//! are woken when the batch is settled.

use std::sync::Arc;

use crate::bus::{Bus, Target};
use crate::delivery::Batch;
use crate::handshake::Connect;
use crate::headers;
use crate::outbox::Outbox;
use crate::routing::Subscriber;
use crate::stats::{add, subtract};
use crate::subject;
use crate::wire::{Operation, Publish, WireError, encode};

/// Why the server closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fatal {
    /// The client does not speak the protocol, or exceeds a limit.
    Wire(WireError),
    /// The JSON of CONNECT can't be read.
    Connect,
    /// CONNECT names a version of the protocol that does not exist.
    ClientProtocol,
    /// CONNECT asks for 503 answers but not for headers, and the status 503 is a header.
    NoRespondersWithoutHeaders,
    /// HPUB from a client whose CONNECT did not ask for headers.
    HeadersNotSupported,
    /// The client sent -ERR.
    ClientError,
    /// The credentials are wrong or missing.
    Authorization,
    /// The credentials did not come in time.
    AuthenticationTimeout,
    /// PINGs went unanswered.
    Stale,
}

impl Fatal {
    /// Returns the text of the -ERR that the client gets.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Wire(error) => error.text(),
            // nats-server closes without any text here.
            Self::Connect | Self::ClientError => "Parser Error",
            Self::ClientProtocol => "invalid client protocol",
            Self::NoRespondersWithoutHeaders => "no responders requires headers support",
            Self::HeadersNotSupported => "message headers not supported",
            Self::Authorization => "Authorization Violation",
            Self::AuthenticationTimeout => "Authentication Timeout",
            Self::Stale => "Stale Connection",
        }
    }
}

/// The state of one conversation.
#[derive(Debug)]
pub(crate) struct Session {
    bus: Arc<Bus>,
    id: u64,
    outbox: Arc<Outbox>,
    /// Whether the credentials were right, or none are needed.
    admitted: bool,
    verbose: bool,
    pedantic: bool,
    echo: bool,
    headers: bool,
    no_responders: bool,
    pings_out: u32,
    batch: Batch,
}

impl Session {
    pub(crate) fn new(bus: Arc<Bus>, id: u64, outbox: Arc<Outbox>) -> Self {
        let admitted = !bus.config.credentials.required();
        // Until CONNECT a client counts as verbose and pedantic.
        Self {
            batch: Batch::new(bus.stats.clone()),
            bus,
            id,
            outbox,
            admitted,
            verbose: true,
            pedantic: true,
            echo: true,
            headers: false,
            no_responders: false,
            pings_out: 0,
        }
    }

    /// Whether the client may do more than log in.
    pub(crate) fn is_admitted(&self) -> bool {
        self.admitted
    }

    /// Returns the deliveries that are not settled yet.
    pub(crate) fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// Refuses input of a client that has not logged in, unless it begins like CONNECT.
    pub(crate) fn screen(&self, input: &[u8]) -> Result<(), Fatal> {
        match input.first() {
            Some(first) if !self.admitted && !first.eq_ignore_ascii_case(&b'C') => Err(Fatal::Authorization),
            Some(_) | None => Ok(()),
        }
    }

    /// Carries out one operation.
    pub(crate) fn handle(&mut self, operation: Operation<'_>) -> Result<(), Fatal> {
        match operation {
            Operation::Connect(json) => return self.connect(json),
            Operation::Ping => self.answer(encode::PONG),
            Operation::Pong => self.pings_out = 0,
            Operation::Publish(message) => return self.publish(&message),
            Operation::Subscribe { subject, queue, sid } => self.subscribe(subject, queue, sid),
            Operation::Unsubscribe { sid, max } => {
                if self.bus.router_mut().unsubscribe(self.id, sid, max) {
                    subtract(&self.bus.stats.counters().subscriptions, 1);
                }
                self.acknowledge();
            }
            Operation::Ignored => {}
            Operation::ClientError => return Err(Fatal::ClientError),
        }
        Ok(())
    }

    /// Ends an interval, in which the client was `active` or silent. A silent client gets a PING.
    pub(crate) fn on_interval(&mut self, active: bool) -> Result<(), Fatal> {
        if active {
            self.pings_out = 0;
        } else if self.pings_out >= self.bus.config.max_pings_out {
            return Err(Fatal::Stale);
        } else {
            self.pings_out += 1;
            self.answer(encode::PING);
        }
        Ok(())
    }

    /// Sends bytes at once that answer no operation.
    pub(crate) fn tell(&mut self, bytes: &[u8]) {
        self.answer(bytes);
        self.batch.wake();
    }

    fn answer(&mut self, bytes: &[u8]) {
        let push = self.outbox.answer(bytes);
        self.batch.note(&self.outbox, push, 0);
    }

    fn complain(&mut self, text: &str) {
        self.answer(&encode::error(text));
    }

    fn acknowledge(&mut self) {
        if self.verbose {
            self.answer(encode::OK);
        }
    }

    fn connect(&mut self, json: &[u8]) -> Result<(), Fatal> {
        let connect = Connect::read(json).ok_or(Fatal::Connect)?;
        let presented = (connect.auth_token.as_deref(), connect.user.as_deref(), connect.pass.as_deref());
        if !self.bus.config.credentials.accept(presented.0, presented.1, presented.2) {
            return Err(Fatal::Authorization);
        }
        if connect.protocol.is_some_and(|protocol| !(0..=1).contains(&protocol)) {
            return Err(Fatal::ClientProtocol);
        }
        self.admitted = true;
        self.verbose = connect.verbose.unwrap_or(self.verbose);
        self.pedantic = connect.pedantic.unwrap_or(self.pedantic);
        self.echo = connect.echo.unwrap_or(self.echo);
        self.headers = connect.headers.unwrap_or(self.headers);
        self.no_responders = connect.no_responders.unwrap_or(self.no_responders);
        if self.no_responders && !self.headers {
            return Err(Fatal::NoRespondersWithoutHeaders);
        }
        self.outbox.set_headers(self.headers);
        self.acknowledge();
        Ok(())
    }

    fn subscribe(&mut self, pattern: &[u8], queue: Option<&[u8]>, sid: &[u8]) {
        if !subject::is_valid_pattern(pattern) {
            return self.complain("Invalid Subject");
        }
        let limit = self.bus.config.max_subscriptions;
        let mut router = self.bus.router_mut();
        if limit > 0 && router.count(self.id) >= limit && !router.has(self.id, sid) {
            drop(router);
            return self.complain("maximum subscriptions exceeded");
        }
        // A sid in use keeps its subscription and is acknowledged, as in nats-server.
        let target = Target::Connection(Arc::clone(&self.outbox));
        if router.subscribe(Subscriber { connection: self.id, target }, pattern, queue, sid) {
            add(&self.bus.stats.counters().subscriptions, 1);
        }
        drop(router);
        self.acknowledge();
    }

    fn publish(&mut self, message: &Publish<'_>) -> Result<(), Fatal> {
        if message.with_headers && !self.headers {
            return Err(Fatal::HeadersNotSupported);
        }
        self.batch.received();
        if self.pedantic && !subject::is_valid_literal(message.subject) {
            self.complain("Invalid Publish Subject");
        }
        self.acknowledge();
        if message.with_headers && headers::is_trace_only(message.headers) {
            return Ok(());
        }
        let echo_to = if self.echo { None } else { Some(self.id) };
        let reached = self.bus.deliver(message, echo_to, &mut self.batch);
        if !reached
            && self.no_responders
            && let Some(reply) = message.reply
        {
            self.bus.answer_no_responders(self.id, reply, message.subject, &mut self.batch);
        }
        Ok(())
    }
}
