//! Keeps up with the list of those who may not log in, as the bus keeps it.
//!
//! What must always hold: before the first client is taken the whole list was read, up to what the leader of its stream
//! said after the subscription was proved; every order after that is either heard or found missing, by the gap before the
//! next one, at each new connection, and by a look at the stream every [`LOOK`]. What was found by reading closes the
//! sessions of those who are kept out, for the publisher's own order was missed too.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use shared::bus::async_nats::{Message, Subscriber};
use shared::bus::jetstream::ApiError;
use shared::bus::{self, Bus, RequestError};
use shared::denials::{Denials, KeptDenial, now_ms};
use shared::ids::Uid;
use shared::subject;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Core;
use crate::hub::Hub;
use crate::metrics::{Loss, Metrics};

/// How often the list is compared with what was read of it.
const LOOK: Duration = Duration::from_secs(60);
/// When to look after something was heard that should be known already.
const SOON: Duration = Duration::from_secs(1);
/// The pause after it could not be read, less up to a half.
const PAUSE: Duration = Duration::from_millis(500);
/// The first time that the list can't be read is no reason to worry; so many are.
const WORRYING: u32 = 4;

/// Reads the list.
#[derive(Debug)]
pub(crate) struct Reader {
    bus: Bus,
    list: Denials,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    /// Whether the whole list was read since the connection stands.
    read: watch::Sender<bool>,
    /// When the list that was read was made.
    life: Option<u64>,
    failures: u32,
}

impl Reader {
    /// Subscribes, and reads until the edge is gone. What is returned tells whether the list is known.
    pub(crate) async fn start(core: &Core, list: Denials) -> Result<watch::Receiver<bool>, RequestError> {
        let orders = core.bus.subscribe(subject::DENIED_ALL, None, bus::DEADLINE).await?;
        let (read, known) = watch::channel(false);
        let Core { bus, hub, metrics, drain, gone, .. } = core.clone();
        let reader = Self { bus, list, hub, metrics, read, life: None, failures: 0 };
        drain.spawn(reader.keep_up(orders, gone));
        Ok(known)
    }

    async fn keep_up(mut self, mut orders: Subscriber, gone: CancellationToken) {
        let mut state = self.bus.state();
        let work = async {
            let mut look = Instant::now();
            loop {
                tokio::select! {
                    // A new connection first: what it brings is worth nothing before it is proved.
                    biased;
                    changed = state.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        self.read.send_if_modified(|read| std::mem::replace(read, false));
                        look = Instant::now();
                    }
                    () = sleep_until(look) => look = self.look().await,
                    order = orders.next() => match order {
                        Some(message) => {
                            if let Some(time) = self.hear(&message) {
                                look = look.min(Instant::now() + time);
                            }
                        }
                        None => return tracing::error!("the bus client ended the subscription to the deny list"),
                    },
                }
            }
        };
        tokio::select! { () = work => {}, () = gone.cancelled() => {} }
    }

    /// Reads what is missing; says when to look again.
    async fn look(&mut self) -> Instant {
        let view = *self.bus.state().borrow();
        let outcome = self.read_rest().await;
        let now = Instant::now();
        match outcome {
            // Had the connection changed meanwhile, the proof would be about another one.
            Ok(()) if *self.bus.state().borrow() == view && view.connected => {
                self.failures = 0;
                self.hub.denied().sweep(now_ms());
                self.read.send_if_modified(|read| !std::mem::replace(read, true));
                now + LOOK
            }
            Ok(()) => now + PAUSE.mul_f64(0.5 + fastrand::f64() / 2.0),
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures == WORRYING && view.connected {
                    tracing::warn!(%error, "the list of those who may not log in can't be read; trying again");
                }
                now + PAUSE.mul_f64(0.5 + fastrand::f64() / 2.0)
            }
        }
    }

    async fn read_rest(&mut self) -> Result<(), ApiError> {
        self.bus.barrier(bus::DEADLINE).await?;
        let view = self.list.look().await?;
        let mut cursor = self.hub.denied().cursor();
        if self.life.replace(view.created) != Some(view.created) || view.last_seq < cursor {
            self.hub.denied().begin_again();
            cursor = 0;
        }
        let mut found = 0;
        while cursor < view.last_seq {
            let page = self.list.after(cursor).await?;
            let Some(last) = page.last() else { break };
            cursor = last.seq;
            found += page.len();
            for order in page {
                if let Some(uid) = self.take(&order) {
                    let words = self.hub.denied().denies(&uid, now_ms());
                    if let Some(words) = words {
                        self.hub.disconnect(&uid, &words);
                    }
                }
            }
        }
        self.hub.denied().read_up_to(view.last_seq);
        if found > 0 {
            tracing::debug!(found, "read the list of those who may not log in");
        }
        Ok(())
    }

    /// When to look at the list, if there is a reason to.
    fn hear(&self, message: &Message) -> Option<Duration> {
        let Some(order) = KeptDenial::of_copy(message.headers.as_ref(), &message.payload) else {
            self.metrics.lost(Loss::BadOrder, 1);
            return None;
        };
        let next = self.hub.denied().cursor() + 1;
        match order.seq.cmp(&next) {
            Ordering::Equal => {
                self.take(&order);
                None
            }
            Ordering::Greater => Some(Duration::ZERO),
            // It was read a moment ago, or the list went back.
            Ordering::Less => Some(SOON),
        }
    }

    /// Whom the order is about.
    fn take(&self, KeptDenial { seq, denial }: &KeptDenial) -> Option<Uid> {
        let read = denial.as_ref().and_then(|denial| Some((Uid::parse(&denial.uid).ok()?, denial)));
        let Some((uid, denial)) = read else {
            self.hub.denied().read_up_to(*seq);
            self.metrics.lost(Loss::BadOrder, 1);
            tracing::error!(seq, "an order about who may not log in can't be read");
            return None;
        };
        let words = denial.reason.as_deref().map(Into::into);
        let taken = self.hub.denied().read(&uid, *seq, denial.until_ms, words, now_ms());
        if taken.is_err() {
            self.metrics.lost(Loss::Denial, 1);
            tracing::error!(seq, "a ban finds no place: too many users are banned on this edge");
        }
        Some(uid)
    }
}
