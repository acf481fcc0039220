//! Order within a channel: of one source (a batch, a publishing socket) at most one message a channel is on
//! its way to the store, and the next goes when that message is settled. Channels do not wait for each other.
//!
//! Pure: no sockets, no clock. The owner of the lanes bounds how much waits, and promises to call
//! [`Lanes::settled`] for everything that the lanes told it to send.

use std::collections::{HashMap, VecDeque};

use shared::ids::Channel;

/// The lanes of one source.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    /// Channels of which a message is on its way, with the messages that wait behind it.
    lanes: HashMap<Channel, VecDeque<T>>,
    waiting: usize,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { lanes: HashMap::new(), waiting: 0 }
    }
}

impl<T> Lanes<T> {
    /// Takes a message. `Some`: the message goes now. `None`: it waits behind the messages of its channel.
    pub(crate) fn enter(&mut self, channel: &Channel, message: T) -> Option<T> {
        match self.lanes.get_mut(channel) {
            Some(lane) => {
                lane.push_back(message);
                self.waiting += 1;
                None
            }
            None => {
                self.lanes.insert(channel.clone(), VecDeque::new());
                Some(message)
            }
        }
    }

    /// Notes that the message of this channel on its way is stored or finally refused. Returns the message to
    /// send now.
    pub(crate) fn settled(&mut self, channel: &Channel) -> Option<T> {
        let next = self.lanes.get_mut(channel)?.pop_front();
        match next {
            Some(_) => self.waiting -= 1,
            None => drop(self.lanes.remove(channel)),
        }
        next
    }

    /// Notes that the message of this channel on its way is finally refused, and that the messages behind it
    /// shall not overtake it. Returns these messages, in order; the lane is free.
    pub(crate) fn give_up(&mut self, channel: &Channel) -> VecDeque<T> {
        let behind = self.lanes.remove(channel).unwrap_or_default();
        self.waiting -= behind.len();
        behind
    }

    /// How many messages wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether nothing waits and nothing is on its way.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.waiting == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn channel(number: usize) -> Channel {
        Channel::parse(&format!("c{number}")).unwrap()
    }

    /// The next step of a source.
    #[derive(Debug, Clone)]
    enum Step {
        Enter(usize),
        /// The nth in-flight message is stored.
        Settle(prop::sample::Index),
        /// The nth in-flight message is refused, and the messages behind it too.
        GiveUp(prop::sample::Index),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..4_usize).prop_map(Step::Enter),
            2 => any::<prop::sample::Index>().prop_map(Step::Settle),
            1 => any::<prop::sample::Index>().prop_map(Step::GiveUp),
        ];
        prop::collection::vec(step, 0..80)
    }

    /// A source, and what is on its way of it.
    #[derive(Default)]
    struct World {
        lanes: Lanes<usize>,
        under_way: Vec<(usize, usize)>,
        /// By channel: what was sent, in order.
        sent: HashMap<usize, Vec<usize>>,
        refused: Vec<usize>,
    }

    impl World {
        fn send(&mut self, channel: usize, message: usize) {
            assert!(self.under_way.iter().all(|(other, _)| *other != channel), "two of one channel");
            self.under_way.push((channel, message));
            self.sent.entry(channel).or_default().push(message);
        }

        fn settle(&mut self, at: usize) {
            let (name, _) = self.under_way.swap_remove(at);
            if let Some(next) = self.lanes.settled(&channel(name)) {
                self.send(name, next);
            }
        }
    }

    proptest! {
        #[test]
        fn each_channel_is_in_order_one_at_a_time_and_nothing_is_lost_or_doubled(steps in steps()) {
            let mut world = World::default();
            let mut entered: HashMap<usize, Vec<usize>> = HashMap::new();
            for (message, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Enter(name) => {
                        entered.entry(name).or_default().push(message);
                        let busy = world.under_way.iter().any(|(other, _)| *other == name);
                        let now = world.lanes.enter(&channel(name), message);
                        prop_assert_eq!(now.is_some(), !busy, "only its own channel holds a message up");
                        if let Some(now) = now {
                            world.send(name, now);
                        }
                    }
                    Step::Settle(index) if !world.under_way.is_empty() => {
                        world.settle(index.index(world.under_way.len()));
                    }
                    Step::GiveUp(index) if !world.under_way.is_empty() => {
                        let (name, _) = world.under_way.swap_remove(index.index(world.under_way.len()));
                        world.refused.extend(world.lanes.give_up(&channel(name)));
                    }
                    Step::Settle(_) | Step::GiveUp(_) => {}
                }
                let in_lanes = entered.values().map(Vec::len).sum::<usize>()
                    - world.sent.values().map(Vec::len).sum::<usize>()
                    - world.refused.len();
                prop_assert_eq!(world.lanes.waiting(), in_lanes);
            }
            while !world.under_way.is_empty() {
                world.settle(0);
            }
            prop_assert!(world.lanes.is_empty());
            for (name, entered) in entered {
                let expected: Vec<usize> =
                    entered.into_iter().filter(|message| !world.refused.contains(message)).collect();
                prop_assert_eq!(world.sent.remove(&name).unwrap_or_default(), expected);
            }
        }
    }
}
