//! Takes the edges' questions from the bus and answers them.
//!
//! The adapters share the questions in one queue group. Each question has a place among a bounded number;
//! beyond it the answer is "unavailable" at once, which an edge tells its client as "try again".

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use shared::bus::async_nats::{Message, Subject};
use shared::bus::{self, Bus};
use shared::drain::Drain;
use shared::health::Health;
use shared::subject;
use shared::wire::{Envelope as _, VERSION, Verdict, VerifyReply, VerifyRequest};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::PART;
use crate::business::{Answer, Failure};
use crate::config::Config;
use crate::memory::Memory;
use crate::metrics::Metrics;

/// A token longer than this can't have come through an edge, whose frames are smaller.
const MAX_TOKEN: usize = 64 << 10;
/// The pause after a failed attempt to subscribe or to prove it.
const PAUSE: Duration = Duration::from_millis(200);

struct Desk {
    memory: Memory,
    bus: Bus,
    metrics: Arc<Metrics>,
    places: Arc<Semaphore>,
}

pub(crate) fn start(
    config: Config,
    memory: Memory,
    bus: Bus,
    health: Health,
    metrics: Arc<Metrics>,
    drain: &Drain,
) {
    drain.spawn(keep_ready(bus.clone(), health, config.bus_grace, drain.clone()));
    let places = Arc::new(Semaphore::new(config.max_waiting));
    let desk = Arc::new(Desk { memory, bus, metrics, places });
    drain.spawn(serve(desk, drain.clone()));
}

/// Answers until the drain begins; then no new question is taken, and those taken are answered.
async fn serve(desk: Arc<Desk>, drain: Drain) {
    let mut questions = loop {
        let queue = Some(subject::VERIFY_QUEUE);
        tokio::select! {
            subscribed = desk.bus.subscribe(subject::VERIFY, queue, bus::DEADLINE) => match subscribed {
                Ok(questions) => break questions,
                Err(error) => tracing::warn!(%error, "can't take questions yet"),
            },
            () = drain.begun() => return,
        }
        tokio::time::sleep(PAUSE).await;
    };
    loop {
        let question = tokio::select! {
            question = questions.next() => question,
            () = drain.begun() => {
                // What the bus has already handed to this adapter is answered; nobody else will.
                let _ = questions.drain().await;
                questions.next().await
            }
        };
        let Some(question) = question else { return };
        take(&desk, question, &drain);
    }
}

fn take(desk: &Arc<Desk>, question: Message, drain: &Drain) {
    let Some(reply) = question.reply else { return desk.metrics.dropped("no_reply_subject") };
    let request = match VerifyRequest::decode(&question.payload) {
        Ok(request) => request,
        Err(error) => {
            tracing::warn!(%error, "dropped a question that can't be read");
            return desk.metrics.dropped("unreadable");
        }
    };
    let place = Arc::clone(&desk.places).try_acquire_owned();
    let desk = Arc::clone(desk);
    desk.metrics.waiting.inc();
    drain.spawn(async move {
        let verdict = match place {
            Ok(_) => judge(&desk.memory, &request.token).await,
            Err(_) => Verdict::Unavailable { reason: Failure::Busy.to_string() },
        };
        desk.answer(reply, verdict).await;
        desk.metrics.waiting.dec();
        drop(place);
    });
}

async fn judge(memory: &Memory, token: &str) -> Verdict {
    if token.is_empty() || token.len() > MAX_TOKEN {
        return Verdict::Unknown;
    }
    match memory.look_up(token).await {
        Ok(Answer::No) => Verdict::Unknown,
        Ok(Answer::Yes { uid, expires }) => {
            let left = expires.map(|at| at.saturating_duration_since(Instant::now()).as_millis());
            match left.map(|left| u64::try_from(left).unwrap_or(u64::MAX)) {
                // Remembered until the very end.
                Some(0) => Verdict::Unknown,
                expires_in_ms => Verdict::Known { uid: uid.to_string(), expires_in_ms },
            }
        }
        Err(failure) => Verdict::Unavailable { reason: failure.to_string() },
    }
}

impl Desk {
    async fn answer(&self, reply: Subject, verdict: Verdict) {
        self.metrics.verdict(match verdict {
            Verdict::Known { .. } => "known",
            Verdict::Unknown => "unknown",
            Verdict::Unavailable { .. } => "unavailable",
        });
        let reply_body = VerifyReply { v: VERSION, verdict }.encode();
        if let Err(error) = self.bus.publish(reply, None, None, reply_body).await {
            tracing::debug!(%error, "an answer could not be sent");
            self.metrics.dropped("answer_not_sent");
        }
    }
}

/// Ready while the questions of the edges reach this adapter. A business system that is away is no reason
/// against it: another adapter would fare no better.
async fn keep_ready(bus: Bus, health: Health, grace: Duration, drain: Drain) {
    let mut state = bus.state();
    loop {
        let view = *state.borrow_and_update();
        if view.connected {
            if bus.barrier(bus::DEADLINE).await.is_ok() {
                health.ready(PART);
            }
        } else if view.connects == 0 {
            health.unready(PART, "the bus can't be reached yet; trying");
        } else if timeout(grace, state.wait_for(|state| state.connected)).await.is_err() {
            health.unready(PART, "the bus is gone; trying to reach it again");
        } else {
            continue;
        }
        tokio::select! {
            changed = state.changed() => if changed.is_err() { break },
            () = drain.begun() => break,
        }
    }
    health.unready(PART, "leaving");
}
