//! The messages of a stream in the order of their sequences, 24 bytes each.
//!
//! Messages lie in blocks, so that one in the middle can be removed without moving all others. No block is
//! empty, and only the last one may be less than half used. Sequences grow within a block and from block to
//! block.

use std::collections::VecDeque;

/// Entries of a full block.
const BLOCK: usize = 1024;
/// The size of an entry whose message is gone.
const GONE: u32 = u32::MAX;

/// The facts about a message that are known without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) seq: u64,
    /// Time of storing, by the clock of the streams.
    pub(crate) time: u64,
    /// The slot of its subject.
    pub(crate) subject: u32,
    /// Bytes that it counts for.
    pub(crate) size: u32,
}

#[derive(Debug, Default)]
struct Block {
    /// Entries, including those of gone messages.
    metas: Vec<Meta>,
    /// All entries before this index are gone.
    start: usize,
    live: usize,
}

impl Block {
    fn first_seq(&self) -> u64 {
        self.metas.first().map_or(u64::MAX, |meta| meta.seq)
    }

    fn live(&self) -> impl DoubleEndedIterator<Item = Meta> {
        self.metas[self.start..].iter().copied().filter(|meta| meta.size != GONE)
    }

    fn compact(&mut self) {
        self.metas.drain(..self.start);
        self.metas.retain(|meta| meta.size != GONE);
        self.metas.shrink_to(BLOCK / 2);
        self.start = 0;
    }
}

/// The messages of one stream.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    blocks: VecDeque<Block>,
    live: usize,
}

impl Messages {
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Adds a message behind all others.
    pub(crate) fn push(&mut self, meta: Meta) {
        debug_assert!(self.last().is_none_or(|last| last.seq < meta.seq));
        match self.blocks.back_mut() {
            Some(block) if block.metas.len() < BLOCK => {
                block.metas.push(meta);
                block.live += 1;
            }
            Some(_) | None => self.blocks.push_back(Block { metas: vec![meta], start: 0, live: 1 }),
        }
        self.live += 1;
    }

    pub(crate) fn get(&self, seq: u64) -> Option<Meta> {
        let (block, index) = self.find(seq)?;
        Some(self.blocks[block].metas[index])
    }

    pub(crate) fn first(&self) -> Option<Meta> {
        self.blocks.front()?.live().next()
    }

    pub(crate) fn last(&self) -> Option<Meta> {
        self.blocks.back()?.live().next_back()
    }

    /// Returns the messages from a sequence on.
    pub(crate) fn from(&self, seq: u64) -> impl Iterator<Item = Meta> {
        let block = self.block_of(seq);
        let own = self.blocks.get(block).map_or(&[][..], |block| {
            let skipped = block.metas.partition_point(|meta| meta.seq < seq);
            &block.metas[skipped.max(block.start)..]
        });
        let others = self.blocks.iter().skip(block + 1).flat_map(|block| &block.metas[block.start..]);
        own.iter().chain(others).copied().filter(|meta| meta.size != GONE)
    }

    /// Counts the messages from a sequence on.
    pub(crate) fn count_from(&self, seq: u64) -> u64 {
        let block = self.block_of(seq);
        let Some(own) = self.blocks.get(block) else { return 0 };
        let here = own.live().filter(|meta| meta.seq >= seq).count();
        (here + self.blocks.range(block + 1..).map(|block| block.live).sum::<usize>()) as u64
    }

    /// Returns the first message that was stored at this time or later. Times never fall in the order of
    /// sequences.
    pub(crate) fn first_at(&self, time: u64) -> Option<u64> {
        let ends_before = |block: &Block| block.metas.last().is_some_and(|meta| meta.time < time);
        let block = self.blocks.partition_point(ends_before);
        let mut rest = self.blocks.range(block.min(self.blocks.len())..).flat_map(Block::live);
        rest.find(|meta| meta.time >= time).map(|meta| meta.seq)
    }

    /// Caps times: a message with a later time counts as stored at `time`.
    pub(crate) fn cap(&mut self, time: u64) {
        let all = self.blocks.iter_mut().rev().flat_map(|block| block.metas.iter_mut().rev());
        for meta in all.take_while(|meta| meta.time > time) {
            meta.time = time;
        }
    }

    pub(crate) fn remove(&mut self, seq: u64) -> Option<Meta> {
        let (at, index) = self.find(seq)?;
        let block = &mut self.blocks[at];
        let removed = block.metas[index];
        block.metas[index].size = GONE;
        block.live -= 1;
        self.live -= 1;
        if block.live == 0 {
            self.blocks.remove(at);
            return Some(removed);
        }
        while block.metas[block.start].size == GONE {
            block.start += 1;
        }
        if block.live * 2 < block.metas.len() {
            block.compact();
            self.join(at);
        }
        Some(removed)
    }

    /// Merges a block with the one behind it, and with the one before it, if the two fit into one.
    fn join(&mut self, at: usize) {
        for first in [at, at.wrapping_sub(1)] {
            let fits = match (self.blocks.get(first), self.blocks.get(first.wrapping_add(1))) {
                (Some(one), Some(next)) => one.live + next.live <= BLOCK / 2,
                _ => false,
            };
            if fits && let Some(next) = self.blocks.remove(first + 1) {
                let block = &mut self.blocks[first];
                block.compact();
                block.metas.extend(next.live());
                block.live = block.metas.len();
            }
        }
    }

    /// Returns the block that would hold this sequence; the first one if all sequences are higher.
    fn block_of(&self, seq: u64) -> usize {
        self.blocks.partition_point(|block| block.first_seq() <= seq).saturating_sub(1)
    }

    fn find(&self, seq: u64) -> Option<(usize, usize)> {
        let at = self.block_of(seq);
        let block = self.blocks.get(at)?;
        let index = block.metas.binary_search_by_key(&seq, |meta| meta.seq).ok()?;
        (block.metas[index].size != GONE).then_some((at, index))
    }

    /// Returns the bytes in use, about.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.blocks.iter().map(|block| block.metas.capacity() * size_of::<Meta>() + size_of::<Block>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_a_map_by_sequence(
            steps in proptest::collection::vec((1_u64..4, 0_usize..3, any::<prop::sample::Index>()), 1..4000),
            probes in proptest::collection::vec(0_u64..9000, 20),
        ) {
            let (mut messages, mut model, mut seq) = (Messages::default(), BTreeMap::new(), 0);
            for (step, removals, which) in steps {
                seq += step;
                let meta = Meta { seq, time: seq * 10, subject: 0, size: 1 };
                messages.push(meta);
                model.insert(seq, meta);
                for _ in 0..removals.min(model.len().saturating_sub(1)) {
                    let gone = *model.keys().nth(which.index(model.len())).unwrap();
                    prop_assert_eq!(messages.remove(gone), model.remove(&gone));
                    prop_assert_eq!(messages.remove(gone), None);
                }
                prop_assert_eq!(messages.len(), model.len());
            }
            prop_assert!(messages.from(0).eq(model.values().copied()));
            prop_assert_eq!(messages.first(), model.values().next().copied());
            prop_assert_eq!(messages.last(), model.values().next_back().copied());
            for probe in probes {
                prop_assert_eq!(messages.get(probe), model.get(&probe).copied());
                prop_assert_eq!(messages.count_from(probe), model.range(probe..).count() as u64);
                prop_assert!(messages.from(probe).eq(model.range(probe..).map(|(_, meta)| *meta)));
                prop_assert_eq!(messages.first_at(probe * 10), model.range(probe..).next().map(|(seq, _)| *seq));
            }
        }
    }

    #[test]
    fn sparse_messages_do_not_keep_the_room_of_dense_ones() {
        let mut messages = Messages::default();
        for seq in 1..=100_000 {
            messages.push(Meta { seq, time: seq, subject: 0, size: 1 });
            if seq > 1000 && (seq - 1000) % 100 != 0 {
                messages.remove(seq - 1000);
            }
        }
        assert!(
            messages.memory() < messages.len() * 24 * 4 + 64_000,
            "{} {}",
            messages.memory(),
            messages.len()
        );
    }
}
