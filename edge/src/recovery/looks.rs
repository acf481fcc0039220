//! Shares tail lookups: one look at a time at the end of a channel, for all who subscribe to the channel
//! meanwhile.
//!
//! A subscribing session needs a look that began after its op came. So all sessions that come during one look
//! share the next, however many they are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::history::Position;
use shared::ids::Channel;
use tokio::time::Instant;

/// A look that has ended.
#[derive(Debug, Clone, Copy)]
struct Look {
    began: Instant,
    /// The position of the channel's last message.
    tail: Position,
}

/// The last look at a channel. Locked during a look.
type LastLook = Arc<tokio::sync::Mutex<Option<Look>>>;

/// The channels that are being looked at; at most one for each subscribing session.
#[derive(Debug, Default)]
pub(crate) struct Looks(Mutex<HashMap<Channel, LastLook>>);

impl Looks {
    /// Returns the result of a look that began after this call: this caller's look, or another's.
    pub(crate) async fn share<E>(
        &self,
        channel: &Channel,
        look: impl Future<Output = Result<Position, E>>,
    ) -> Result<Position, E> {
        let now = Instant::now();
        let claim = Claim::of(self, channel);
        let mut last = claim.look.lock().await;
        if let Some(Look { began, tail }) = *last
            && began > now
        {
            return Ok(tail);
        }
        let began = Instant::now();
        let tail = look.await?;
        *last = Some(Look { began, tail });
        Ok(tail)
    }

    fn map(&self) -> MutexGuard<'_, HashMap<Channel, LastLook>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A caller that looks, or waits for a look. The channel is forgotten with the last of them.
struct Claim<'l> {
    looks: &'l Looks,
    channel: &'l Channel,
    look: LastLook,
}

impl<'l> Claim<'l> {
    fn of(looks: &'l Looks, channel: &'l Channel) -> Self {
        let look = Arc::clone(looks.map().entry(channel.clone()).or_default());
        Self { looks, channel, look }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut map = self.looks.map();
        // Two holders: the map and this claim. Under the map's lock no other claim can come.
        if Arc::strong_count(&self.look) == 2 {
            map.remove(self.channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use shared::history::Epoch;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_comes_during_a_look_shares_the_next_one_and_nobody_gets_an_older_one() {
        let (looks, channel, begun) = (Looks::default(), Channel::parse("all").unwrap(), AtomicU64::new(0));
        let look = |after: u64| {
            let (looks, channel, begun) = (&looks, &channel, &begun);
            async move {
                sleep(Duration::from_millis(after)).await;
                let before = begun.load(Ordering::Relaxed);
                let taken = async {
                    let number = begun.fetch_add(1, Ordering::Relaxed) + 1;
                    sleep(Duration::from_millis(10)).await;
                    Ok::<_, ()>(Position { epoch: Epoch(1), seq: number })
                };
                let number = looks.share(channel, taken).await.unwrap().seq;
                assert!(number > before, "it began after the call");
            }
        };
        // One look begins at 0 and lasts until 10; all other callers share the look that begins then.
        futures_util::future::join_all((0..1_000).map(|number| look(number % 10))).await;
        assert_eq!(begun.load(Ordering::Relaxed), 2);
        assert!(looks.map().is_empty(), "nothing is left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_fails_or_is_given_up_is_nobody_else_s() {
        let (looks, channel) = (Looks::default(), Channel::parse("all").unwrap());
        let never = looks.share(&channel, std::future::pending::<Result<Position, ()>>());
        assert!(tokio::time::timeout(Duration::from_secs(5), never).await.is_err());
        assert_eq!(looks.share(&channel, async { Err(()) }).await, Err(()));
        let tail = Position { epoch: Epoch(1), seq: 7 };
        assert_eq!(looks.share(&channel, async { Ok::<_, ()>(tail) }).await, Ok(tail));
        assert!(looks.map().is_empty());
    }
}
