//! Announces every second that this edge lives, so that publishers ask it, and decides when the edge may take
//! its first client.
//!
//! An edge takes clients only after a whole heartbeat interval in which the publishers could acknowledge the
//! edge, and after one of them did or the bus said that there is no publisher. So no client is ever at an
//! edge that is not asked. On a bus with one publisher, and never another, the acknowledgement of that
//! publisher is both necessary and enough. The last heartbeat, sent when the edge holds no session any more,
//! makes the publishers forget the edge at once.

use std::time::Duration;

use futures_util::StreamExt as _;
use shared::bus::async_nats::{Message, StatusCode, Subscriber};
use shared::bus::{self, RequestError};
use shared::rules::Rules;
use shared::subject;
use shared::wire::{EdgeState, Envelope as _, Heartbeat, HeartbeatAck, VERSION};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::metrics::Loss;
use crate::node::Node;

/// How long the last heartbeat may take to reach the bus.
const BYE_DEADLINE: Duration = Duration::from_secs(1);

/// Sends the heartbeats of this edge.
#[derive(Debug)]
pub(crate) struct Announcer {
    node: Node,
    /// The digest of this edge's channel rules.
    rules: String,
    every: Duration,
    /// The subject to which publishers send their acknowledgements.
    inbox: String,
    phase: watch::Sender<EdgeState>,
    introduction: Introduction,
}

impl Announcer {
    /// Sends heartbeats until the edge is gone, and then says bye. `active` tells whether messages surely
    /// arrive, `bans_known` whether the list of bans was read. Returns the state that this edge announces;
    /// the edge's drain sets [`EdgeState::Draining`].
    pub(crate) async fn start(
        node: &Node,
        rules: &Rules,
        every: Duration,
        active: watch::Receiver<bool>,
        bans_known: watch::Receiver<bool>,
    ) -> Result<watch::Sender<EdgeState>, RequestError> {
        let inbox = node.bus.new_inbox();
        // Subscribed before the first heartbeat on the same connection, so that its answers reach the
        // subscription.
        let answers = node.bus.subscribe(inbox.clone(), None, bus::DEADLINE).await?;
        let (phase, _) = watch::channel(EdgeState::Starting);
        let announcer = Self {
            node: node.clone(),
            rules: rules.digest().to_owned(),
            every,
            inbox,
            phase: phase.clone(),
            introduction: Introduction::new(every, node.bus.is_closed()),
        };
        let state = (announcer, answers, active, bans_known);
        node.drain.supervise("edge-heartbeats", state, |(announcer, answers, active, bans_known)| {
            Box::pin(announcer.speak(answers, active, bans_known))
        });
        Ok(phase)
    }

    async fn speak(
        &mut self,
        answers: &mut Subscriber,
        active: &mut watch::Receiver<bool>,
        bans_known: &mut watch::Receiver<bool>,
    ) {
        let (mut bus, mut phase) = (self.node.bus.state(), self.phase.subscribe());
        let gone = self.node.gone.clone();
        let mut beat = interval(self.every);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beat.tick() => self.say().await,
                // Publishers learn of a new state, and of an edge that is back, at once.
                Ok(()) = phase.changed() => self.say().await,
                Ok(()) = bus.changed() => {
                    if !bus.borrow_and_update().connected {
                        self.introduction.begin_again();
                    }
                    self.say().await;
                    // The edge may be known an interval from now: no need to wait for the beat after that.
                    beat.reset();
                }
                Some(answer) = answers.next() => self.on_answer(&answer),
                Ok(()) = active.changed() => {}
                Ok(()) = bans_known.changed() => {}
                () = gone.cancelled() => return self.say_bye().await,
            }
            let knows = *active.borrow() && *bans_known.borrow();
            self.serve_when_known(knows);
        }
    }

    async fn say(&mut self) {
        let state = *self.phase.borrow();
        match self.publish(state).await {
            Ok(()) => self.introduction.on_spoken(Instant::now()),
            Err(error) => {
                self.node.metrics.lost(Loss::Heartbeat, 1);
                tracing::debug!(%error, "a heartbeat could not be sent");
            }
        }
    }

    async fn say_bye(&self) {
        self.phase.send_replace(EdgeState::Bye);
        let said = async {
            self.publish(EdgeState::Bye).await?;
            self.node.bus.barrier(BYE_DEADLINE).await
        };
        match tokio::time::timeout(BYE_DEADLINE, said).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => self.node.metrics.lost(Loss::Heartbeat, 1),
        }
    }

    async fn publish(&self, state: EdgeState) -> Result<(), RequestError> {
        let heartbeat = Heartbeat {
            v: VERSION,
            edge: self.node.id.clone(),
            state,
            sessions: self.node.hub.sessions() as u64,
            rules: self.rules.clone(),
        };
        let payload = heartbeat.encode();
        // A subject apart from the one that publishers answer, so that the bus can say that there is no
        // publisher.
        self.node.bus.publish(subject::PEERS, None, None, payload.clone()).await?;
        self.node.bus.publish(subject::HEARTBEAT, Some(self.inbox.clone()), None, payload).await
    }

    fn on_answer(&mut self, answer: &Message) {
        let nobody_publishes = answer.status == Some(StatusCode::NO_RESPONDERS);
        if nobody_publishes {
            self.introduction.on_nobody();
        } else if HeartbeatAck::decode(&answer.payload).is_ok() {
            self.introduction.on_answer();
        } else {
            self.node.metrics.lost(Loss::BadAck, 1);
        }
    }

    fn serve_when_known(&self, knows: bool) {
        if knows && self.introduction.is_made(Instant::now()) {
            let starts = |phase: &mut EdgeState| {
                let starts = *phase == EdgeState::Starting;
                if starts {
                    *phase = EdgeState::Serving;
                }
                starts
            };
            self.phase.send_if_modified(starts);
        }
    }
}

/// Tracks whether the publishers know of this edge: pure.
#[derive(Debug)]
struct Introduction {
    interval: Duration,
    /// Whether there is one publisher, and never another.
    one: bool,
    /// When the first heartbeat was sent on this connection.
    spoken: Option<Instant>,
    answered: bool,
}

impl Introduction {
    fn new(interval: Duration, one: bool) -> Self {
        Self { interval, one, spoken: None, answered: false }
    }

    fn on_spoken(&mut self, now: Instant) {
        self.spoken.get_or_insert(now);
    }

    fn on_answer(&mut self) {
        self.answered = self.spoken.is_some();
    }

    /// Notes that the bus found no publisher. A publisher that starts will be subscribed in a moment.
    fn on_nobody(&mut self) {
        if !self.one {
            self.on_answer();
        }
    }

    fn begin_again(&mut self) {
        *self = Self::new(self.interval, self.one);
    }

    fn is_made(&self, now: Instant) -> bool {
        let others = if self.one { Duration::ZERO } else { self.interval };
        self.answered && self.spoken.is_some_and(|first| now >= first + others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_known_after_an_answer_and_a_whole_interval() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut introduction = Introduction::new(second, false);
        introduction.on_answer();
        introduction.on_spoken(now);
        assert!(!introduction.is_made(now + second), "an answer to nothing counts for nothing");
        introduction.on_spoken(now + second);
        introduction.on_answer();
        assert!(!introduction.is_made(now + second / 2), "other publishers had no time yet");
        assert!(introduction.is_made(now + second), "counted from the first heartbeat");
        introduction.begin_again();
        introduction.on_spoken(now + second);
        assert!(!introduction.is_made(now + second * 9), "on a new connection nobody has answered yet");
        introduction.on_nobody();
        assert!(introduction.is_made(now + second * 9), "without publishers nobody asks");
    }

    #[test]
    fn the_only_publisher_that_there_can_be_makes_the_introduction_at_once_and_nobody_else_does() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut introduction = Introduction::new(second, true);
        introduction.on_spoken(now);
        introduction.on_nobody();
        assert!(!introduction.is_made(now + second * 9), "it only did not listen yet");
        introduction.on_answer();
        assert!(introduction.is_made(now));
        introduction.begin_again();
        introduction.on_spoken(now + second);
        assert!(!introduction.is_made(now + second * 9));
    }
}
