//! A cheap handle to the bus: async-nats with deadlines, proof of subscriptions, and requests that don't
//! leak.
//!
//! There is no trait: the embedded bus speaks the NATS protocol, so there are two servers and one client. A
//! publish while the connection is down is refused, not buffered: the caller can still react.

mod config;
mod inbox;
pub mod jetstream;
mod metrics;
mod store;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{Event, HeaderMap, Message, Subscriber};
use bytes::Bytes;
use embedded_bus::EmbeddedBus;
use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

pub use async_nats;
pub use config::{BusConfig, BusError, BusServer, BusTls, StoreConfig, Sync};

use crate::awake::Awake;
use crate::drain::Drain;
use crate::ids::NodeId;
use crate::subject;
use inbox::Inbox;
use metrics::ClientMetrics;

/// The deadline of a barrier, and of a publish into a full buffer.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// The interval of pings. After two unanswered pings the connection counts as gone.
const PING_INTERVAL: Duration = Duration::from_secs(3);
/// The most messages that wait in a subscription before async-nats drops the newest. The bound costs nothing
/// while idle, and a feed must outlast a burst of the whole bus.
const SUBSCRIPTION_CAPACITY: usize = 1 << 20;

/// The state of the connection to the bus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BusState {
    /// Whether the connection stands.
    pub connected: bool,
    /// The number of connections so far. A change means that messages may have been missed.
    pub connects: u64,
}

/// Why a request to the bus failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is no connection, now or within the deadline.
    #[error("the bus is not connected")]
    Disconnected,
    /// Nobody serves the subject.
    #[error("nobody serves this subject on the bus")]
    NoResponders,
    /// No answer came within the deadline.
    #[error("no answer over the bus within the deadline")]
    Timeout,
}

/// A handle to a connection to the bus. Cheap to clone; all clones share one connection and its order.
#[derive(Debug, Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: async_nats::Client,
    state: watch::Receiver<BusState>,
    inbox: Inbox,
    node: NodeId,
    metrics: ClientMetrics,
    closed: bool,
    awake: Awake,
}

impl Bus {
    /// Connects to `server`, trying for as long as it takes; [`Bus::state`] tells whether the connection
    /// stands. `part` names the connection on the server and in logs.
    ///
    /// # Errors
    /// The address or the credentials can't be used at all.
    pub fn connect<'a>(
        server: &'a BusServer,
        part: &'static str,
        drain: &'a Drain,
    ) -> BoxFuture<'a, Result<Self, BusError>> {
        // Boxed, so that only this crate compiles the client of the bus.
        Box::pin(async move {
            let (changes, state) = watch::channel(BusState::default());
            let metrics = ClientMetrics::default();
            let (counted, leaving) = (metrics.clone(), drain.token());
            let urls = server.urls.join(",");
            let options = server
                .options()
                .name(format!("message-center {part}"))
                .retry_on_initial_connect()
                .subscription_capacity(SUBSCRIPTION_CAPACITY)
                .connection_timeout(Duration::from_secs(5))
                .ping_interval(PING_INTERVAL)
                .reconnect_delay_callback(reconnect_delay)
                .event_callback(move |event| {
                    note(&changes, &counted, (part, leaving.is_cancelled()), &event);
                    std::future::ready(())
                });
            tracing::info!(part, bus = urls, "connecting to the bus");
            let client = options.connect(server.urls.as_slice()).await.map_err(BusError::Connect)?;
            let inbox = Inbox::open(&client, drain).await?;
            let (node, closed, awake) = (NodeId::random(), server.closed, Awake::start(drain));
            Ok(Self { inner: Arc::new(Inner { client, state, inbox, node, metrics, closed, awake }) })
        })
    }

    /// Registers the metrics of this connection for its part.
    pub fn register(&self, registry: &mut Registry, part: &'static str) {
        self.inner.metrics.register(registry, part);
    }

    /// Returns the state and its changes.
    pub fn state(&self) -> watch::Receiver<BusState> {
        self.inner.state.clone()
    }

    /// Returns whether this bus has exactly one of each part, for ever ([`BusServer::for_one_of_each`]).
    pub fn is_closed(&self) -> bool {
        self.inner.closed
    }

    /// Returns the clock by which others on this connection are judged when they do not answer.
    pub fn awake(&self) -> &Awake {
        &self.inner.awake
    }

    /// Returns whether the connection stands.
    pub fn is_connected(&self) -> bool {
        self.inner.state.borrow().connected
    }

    /// Waits until the connection stands.
    ///
    /// # Errors
    /// [`RequestError::Disconnected`] after `deadline`.
    pub async fn connected(&self, deadline: Duration) -> Result<(), RequestError> {
        let mut state = self.state();
        let waited = self.inner.awake.timeout(deadline, state.wait_for(|state| state.connected)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(RequestError::Disconnected),
        }
    }

    /// Hands a message to the connection, behind all earlier ones.
    ///
    /// # Errors
    /// [`RequestError::Disconnected`] if the connection is down, or its buffer stays full for [`DEADLINE`].
    pub async fn publish(
        &self,
        subject: impl Into<async_nats::Subject>,
        reply: Option<String>,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<(), RequestError> {
        let result = self.hand_over(subject.into(), reply, headers, payload).await;
        self.inner.metrics.published(&result);
        result
    }

    async fn hand_over(
        &self,
        subject: async_nats::Subject,
        reply: Option<String>,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<(), RequestError> {
        if !self.is_connected() {
            return Err(RequestError::Disconnected);
        }
        let client = &self.inner.client;
        let handed_over = self.inner.awake.timeout(DEADLINE, async {
            match (reply, headers) {
                (None, None) => client.publish(subject, payload).await,
                (Some(reply), None) => client.publish_with_reply(subject, reply, payload).await,
                (None, Some(headers)) => client.publish_with_headers(subject, headers, payload).await,
                (Some(reply), Some(headers)) => {
                    client.publish_with_reply_and_headers(subject, reply, headers, payload).await
                }
            }
        });
        match handed_over.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the bus client refused a message");
                Err(RequestError::Disconnected)
            }
            Err(_) => Err(RequestError::Disconnected),
        }
    }

    /// Subscribes. Waits while the bus is away. The client renews the subscription at each reconnect;
    /// [`Bus::barrier`] proves that the subscription is active.
    ///
    /// # Errors
    /// The bus is away for `deadline`, or the client refuses the subject.
    pub async fn subscribe(
        &self,
        subject: impl Into<async_nats::Subject>,
        queue: Option<&str>,
        deadline: Duration,
    ) -> Result<Subscriber, RequestError> {
        let (client, subject) = (&self.inner.client, subject.into());
        let subscribed = self.inner.awake.timeout(deadline, async {
            match queue {
                Some(queue) => client.queue_subscribe(subject, queue.to_owned()).await,
                None => client.subscribe(subject).await,
            }
        });
        match subscribed.await {
            Ok(Ok(subscriber)) => Ok(subscriber),
            Ok(Err(error)) => {
                tracing::error!(%error, "the bus client refused a subscription");
                Err(RequestError::Disconnected)
            }
            Err(_) => Err(RequestError::Disconnected),
        }
    }

    /// Proves by a round trip that all earlier subscriptions of this connection are active on the server, and
    /// that all earlier publishes have reached it.
    ///
    /// # Errors
    /// [`RequestError::Disconnected`] or [`RequestError::Timeout`].
    pub async fn barrier(&self, deadline: Duration) -> Result<(), RequestError> {
        match self.request(subject::barrier(&self.inner.node), Bytes::new(), deadline).await {
            Ok(_) | Err(RequestError::NoResponders) => Ok(()),
            Err(error @ (RequestError::Disconnected | RequestError::Timeout)) => Err(error),
        }
    }

    /// Sends a request and waits for one answer.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request(
        &self,
        subject: impl Into<async_nats::Subject>,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<Message, RequestError> {
        self.request_with_headers(subject, None, payload, deadline).await
    }

    /// Sends a request with headers and waits for one answer.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request_with_headers(
        &self,
        subject: impl Into<async_nats::Subject>,
        headers: Option<HeaderMap>,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<Message, RequestError> {
        let (reply, answer) = self.inner.inbox.expect();
        let asked = self.inner.awake.timeout(deadline, async {
            self.publish(subject, Some(reply), headers, payload).await?;
            match answer.receive().await? {
                none if none.status == Some(async_nats::StatusCode::NO_RESPONDERS) => {
                    Err(RequestError::NoResponders)
                }
                answer => Ok(answer),
            }
        });
        let answer = asked.await.unwrap_or(Err(RequestError::Timeout));
        self.inner.metrics.requested(&answer);
        answer
    }

    /// Makes a subject of this connection's own, for many answers to one request.
    pub fn new_inbox(&self) -> String {
        self.inner.client.new_inbox()
    }

    /// Returns the bytes received from the server, over all connections of this handle.
    pub fn received_bytes(&self) -> u64 {
        self.inner.client.statistics().in_bytes.load(Ordering::Relaxed)
    }

    /// Returns the largest payload that the server takes, in bytes; 0 before the first connection.
    pub fn max_payload(&self) -> usize {
        self.inner.client.try_server_info().map_or(0, |info| info.max_payload)
    }
}

/// Starts the embedded bus on `drain` if the configuration says so, and returns the address of the bus.
///
/// # Errors
/// The port is taken, or the configuration can't be used.
pub fn provide<'a>(config: &'a BusConfig, drain: &'a Drain) -> BoxFuture<'a, Result<BusServer, BusError>> {
    // Boxed, so that only this crate compiles the server.
    Box::pin(async move {
        let Some(embedded) = config.embedded() else { return Ok(config.server()) };
        let credentials = embedded.credentials.clone();
        let server = EmbeddedBus::bind(embedded).await?;
        let (address, stats) = (server.local_addr(), server.stats());
        let leaving = drain.token();
        drain.on_kill("bus-streams", server.streams_panic());
        drain.spawn_vital("bus-server", async move {
            if let Err(error) = server.serve(leaving).await {
                tracing::error!(%error, "the embedded bus has ended");
            }
        });
        tracing::info!(%address, private = config.listen.is_empty(), "the embedded bus listens");
        Ok(BusServer::embedded(address, credentials, stats))
    })
}

/// Provides the bus of a part in a process of its own: warns if no other part can reach the bus.
///
/// # Errors
/// See [`provide`].
pub async fn provide_apart(
    config: &BusConfig,
    part: &'static str,
    drain: &Drain,
) -> Result<BusServer, BusError> {
    if config.url.is_empty() && config.listen.is_empty() {
        tracing::warn!(
            part,
            "the bus is embedded in this part and nobody else can reach it: set bus.url to the one that all parts share"
        );
    }
    provide(config, drain).await
}

/// Returns the pause before a reconnect: 10 ms, doubled each time up to 2 s, less a random quarter, so that a
/// fleet does not return in step.
fn reconnect_delay(attempts: usize) -> Duration {
    let doubled = 10_u64.saturating_mul(1 << attempts.min(8)).min(2_000);
    Duration::from_millis(doubled - fastrand::u64(0..=doubled / 4))
}

fn note(
    changes: &watch::Sender<BusState>,
    metrics: &ClientMetrics,
    (part, leaving): (&'static str, bool),
    event: &Event,
) {
    match event {
        Event::Connected => {
            tracing::info!(part, "the bus is connected");
            metrics.connects.inc();
            metrics.connected.set(1);
            changes.send_modify(|state| *state = BusState { connected: true, connects: state.connects + 1 });
        }
        Event::Disconnected => {
            metrics.connected.set(0);
            if changes.send_if_modified(|state| std::mem::take(&mut state.connected)) {
                metrics.disconnects.inc();
                if leaving {
                    // An embedded bus may end a moment before the last handle of its clients.
                    tracing::warn!(part, "the bus is gone while this part leaves");
                } else {
                    tracing::error!(part, "the bus is gone; trying to reach it again");
                }
            }
        }
        // This side closed the connection: the last handle is gone, because the part has left.
        Event::Closed => {
            metrics.connected.set(0);
            changes.send_if_modified(|state| std::mem::take(&mut state.connected));
            tracing::debug!(part, "the connection to the bus is closed");
        }
        Event::ServerError(error) => {
            metrics.errors.inc();
            tracing::error!(part, %error, "the bus reports an error");
        }
        Event::ClientError(error) => {
            metrics.errors.inc();
            tracing::warn!(part, %error, "the bus can't be reached yet; trying again");
        }
        Event::SlowConsumer(subscription) => {
            metrics.overruns.inc();
            tracing::error!(
                part,
                subscription,
                "messages from the bus came faster than they were handled and were dropped"
            );
        }
        Event::LameDuckMode | Event::Draining => tracing::info!(part, %event, "the bus is leaving"),
    }
}
