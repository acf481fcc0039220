//! Whose token is this? Asks the auth-adapters over the bus, with a bound and a deadline.
//!
//! The three answers are never mixed up: whatever fails on the way is "can't tell", never a no and never a yes.

use std::sync::Arc;
use std::time::Duration;

use shared::bus::{Bus, RequestError};
use shared::config::Secret;
use shared::ids::Uid;
use shared::subject;
use shared::trace;
use shared::wire::{Envelope as _, VERSION, Verdict, VerifyReply, VerifyRequest};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// What is known about a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It belongs to this user, for this long.
    Known { uid: Uid, expires_in: Option<Duration> },
    /// It belongs to nobody.
    Unknown,
    /// Nobody could tell.
    Unavailable,
}

/// Checks tokens. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Authn {
    bus: Bus,
    /// Checks at a time; more wait, within their deadline.
    places: Arc<Semaphore>,
    deadline: Duration,
}

impl Authn {
    pub(crate) fn new(bus: Bus, at_a_time: usize, deadline: Duration) -> Self {
        Self { bus, places: Arc::new(Semaphore::new(at_a_time)), deadline }
    }

    /// Asks about one token.
    pub(crate) async fn owner(&self, token: Secret) -> Owner {
        timeout(self.deadline, self.ask(token)).await.unwrap_or_else(|_| {
            tracing::debug!("a token check took too long");
            Owner::Unavailable
        })
    }

    async fn ask(&self, token: Secret) -> Owner {
        let Ok(_place) = self.places.acquire().await else { return Owner::Unavailable };
        let request = VerifyRequest { v: VERSION, token: token.expose().to_owned() };
        let headers = trace::bus_headers();
        let question = request.encode();
        match self.bus.request_with_headers(subject::VERIFY, headers, question, self.deadline).await {
            Ok(reply) => read(&reply.payload),
            Err(
                error @ (RequestError::NoResponders | RequestError::Disconnected | RequestError::Timeout),
            ) => {
                tracing::warn!(%error, "a token can't be checked");
                Owner::Unavailable
            }
        }
    }
}

fn read(reply: &[u8]) -> Owner {
    let verdict = match VerifyReply::decode(reply) {
        Ok(reply) => reply.verdict,
        Err(error) => {
            tracing::error!(%error, "an auth-adapter's answer can't be read");
            return Owner::Unavailable;
        }
    };
    match verdict {
        Verdict::Known { uid, expires_in_ms } => match Uid::parse(&uid) {
            Ok(uid) => Owner::Known { uid, expires_in: expires_in_ms.map(Duration::from_millis) },
            Err(error) => {
                tracing::error!(%error, "an auth-adapter answered with something that is no uid");
                Owner::Unavailable
            }
        },
        Verdict::Unknown => Owner::Unknown,
        Verdict::Unavailable { reason } => {
            tracing::warn!(reason, "a token can't be checked");
            Owner::Unavailable
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_answer_is_a_yes_or_a_no() {
        let known = |expires_in| Owner::Known { uid: Uid::parse("1001").unwrap(), expires_in };
        for (reply, owner) in [
            (r#"{"v":1,"verdict":"known","uid":"1001"}"#, known(None)),
            (
                r#"{"v":1,"verdict":"known","uid":"1001","expires_in_ms":1500}"#,
                known(Some(Duration::from_millis(1500))),
            ),
            (r#"{"v":1,"verdict":"unknown"}"#, Owner::Unknown),
            (r#"{"v":1,"verdict":"unavailable","reason":"slow"}"#, Owner::Unavailable),
            (r#"{"v":1,"verdict":"known","uid":"0"}"#, Owner::Unavailable),
            (r#"{"v":1,"verdict":"known","uid":""}"#, Owner::Unavailable),
            (r#"{"v":9,"verdict":"known","uid":"1001"}"#, Owner::Unavailable),
            (r#"{"v":1,"verdict":"perhaps"}"#, Owner::Unavailable),
            ("yes", Owner::Unavailable),
        ] {
            assert_eq!(read(reply.as_bytes()), owner, "{reply}");
        }
    }
}
