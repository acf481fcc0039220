//! The model of what a client may be sent.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use serde_json::Value;
use shared::history::Position;

use super::super::*;

/// The state of things when the session answered an op.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    pub(super) paused: bool,
    pub(super) tails: BTreeMap<&'static str, u64>,
    /// Names whose replay was under way in this step.
    pub(super) replaying: Vec<Arc<str>>,
    pub(super) user: Option<&'static str>,
    /// Whether the latest answer to a token check has the user in the group.
    pub(super) vip: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Op {
    Auth,
    WithIds(&'static str, bool),
    Plain(&'static str),
    Unsubscribe(&'static str),
}

/// The record of what happened, for the model.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) ops: Vec<Op>,
    /// The moments, by the number of the op.
    pub(super) moments: BTreeMap<usize, Moment>,
    /// Sequences that were sent, by channel.
    pub(super) sent: BTreeMap<&'static str, Vec<u64>>,
}

impl Script {
    pub(super) fn tail(&self, channel: &str) -> u64 {
        self.sent[channel].last().copied().unwrap_or(0)
    }
}

pub(super) fn channel_of(name: &str, user: &str) -> &'static str {
    match (name, user) {
        ("@user", "2") => "user:2",
        ("@user", _) => "user:1",
        ("@both" | "@again", _) => "both",
        ("@group/vip" | "@team/vip", _) => "group:vip",
        ("@club/vip", _) => "club:vip",
        _ => "broadcast",
    }
}

fn is_of_members(name: &str) -> bool {
    name.ends_with("/vip")
}

/// Returns the texts that a client reads.
pub(super) fn texts(mut bytes: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    while let [kind, short, rest @ ..] = bytes {
        let (length, rest) = match short {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            short => (usize::from(*short), rest),
        };
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        if kind & 0xf == 1 {
            texts.push(String::from_utf8(payload.to_vec()).unwrap());
        }
        bytes = rest;
    }
    texts
}

/// The client's view of one subscription: its channel, and the last message that it was sent.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) channel: &'static str,
    pub(super) ids: bool,
    pub(super) at: u64,
    /// Whether the client must be told that something is missing before it is sent anything.
    pub(super) lacks: bool,
}

/// Decides which text the client may be sent next.
pub(super) struct Reader<'s> {
    pub(super) script: &'s Script,
    pub(super) user: Option<&'static str>,
    pub(super) expired: bool,
    /// Whether the client was just told that a subscription has ended: the answer to its login comes next.
    pub(super) closing: bool,
    pub(super) views: BTreeMap<&'static str, View>,
    pub(super) messages: u64,
}

impl<'s> Reader<'s> {
    pub(super) fn of(script: &'s Script) -> Self {
        Self { script, user: None, expired: false, closing: false, views: BTreeMap::new(), messages: 0 }
    }

    pub(super) fn read(&mut self, text: &str) -> TestCaseResult {
        let Ok(frame) = serde_json::from_str::<Value>(text) else { return self.plain(text) };
        if frame["code"] == 9 && frame["i"].is_null() {
            self.expired = true;
            return Ok(());
        }
        if frame["event"] == "@closed" {
            let name = frame["channel"].as_str().unwrap();
            prop_assert!(is_of_members(name) && self.views.remove(name).is_some(), "{}", text);
            self.closing = true;
            return Ok(());
        }
        if let Some(op) = frame["i"].as_u64() {
            return self.answer(usize::try_from(op).unwrap(), &frame);
        }
        prop_assert!(!self.expired && !self.closing, "{} with a login that has ended", text);
        let name = frame["channel"].as_str().or_else(|| Some(frame["ids"].as_object()?.keys().next()?));
        let view = name.and_then(|name| self.views.get_mut(name));
        let Some(view) = view.filter(|view| view.ids) else {
            return Err(TestCaseError::fail(format!("{text}, which is not subscribed")));
        };
        if frame["event"] == "@reconnect" {
            let id: Position = frame["ids"][name.unwrap()].as_str().unwrap().parse().unwrap();
            // The position may lie before that of the client, who may have named any position, but before no
            // message that the client was sent.
            let last = self.script.sent[view.channel].iter().rfind(|seq| **seq <= view.at);
            prop_assert!(last.is_none_or(|last| *last <= id.seq), "{} after {}", text, view.at);
            return Ok(());
        }
        let id: Position = frame["id"].as_str().unwrap().parse().unwrap();
        if frame["event"] == "@reload" {
            // The reload was needless if only a position or a farewell was held back.
            view.lacks = false;
            prop_assert_eq!(id.seq, view.at);
            return Ok(());
        }
        prop_assert!(!view.lacks, "{} before it was told that something is missing", text);
        self.messages += 1;
        let next = self.script.sent[view.channel].iter().find(|seq| **seq > view.at);
        prop_assert_eq!(next, Some(&id.seq), "{} after {}", text, view.at);
        prop_assert_eq!(frame["d"].as_str().unwrap(), format!("{}#{}", view.channel, id.seq));
        view.at = id.seq;
        Ok(())
    }

    /// Checks that a client that has read everything has every message of its subscriptions.
    pub(super) fn has_all(&self, settled: bool) -> TestCaseResult {
        for (name, view) in self.views.iter().filter(|_| settled) {
            prop_assert!(view.at >= self.script.tail(view.channel), "{} does not have all", name);
            prop_assert!(!view.lacks, "{} was never told that something is missing", name);
        }
        Ok(())
    }

    pub(super) fn plain(&mut self, text: &str) -> TestCaseResult {
        prop_assert!(!self.expired && !self.closing, "{} with a login that has ended", text);
        let (channel, seq) = text.split_once('#').unwrap();
        let seq: u64 = seq.parse().unwrap();
        self.messages += 1;
        let mut seen = false;
        for view in self.views.values_mut().filter(|view| !view.ids && view.channel == channel) {
            let next = self.script.sent[view.channel].iter().find(|seq| **seq > view.at);
            prop_assert_eq!(next, Some(&seq), "{} after {}", text, view.at);
            view.at = seq;
            seen = true;
        }
        prop_assert!(seen, "{}, which is not subscribed", text);
        Ok(())
    }

    pub(super) fn answer(&mut self, op: usize, frame: &Value) -> TestCaseResult {
        let (op, moment) = (&self.script.ops[op], &self.script.moments[&op]);
        let granted = frame["result"] == true;
        match *op {
            Op::Auth if granted => {
                self.expired = false;
                // A first login leaves the subscriptions that needed no login.
                if self.user.is_some() && self.user != moment.user {
                    self.views.clear();
                }
                prop_assert!(!std::mem::take(&mut self.closing) || !moment.vip, "a member was told to go");
                let lacking = self.views.keys().find(|name| is_of_members(name) && !moment.vip);
                prop_assert!(lacking.is_none(), "{:?} goes on without the group", lacking);
                self.user = moment.user;
            }
            Op::WithIds(name, from_now_on) if granted => {
                let at = frame["id"].as_str().unwrap().parse::<Position>().unwrap().seq;
                let before = self.views.remove(name);
                let mut lacks = false;
                if let Some(before) = before.filter(|_| from_now_on) {
                    self.is_whole(name, &before, at, moment)?;
                    lacks = before.lacks || self.misses(name, &before, at, moment);
                }
                let channel = channel_of(name, moment.user.unwrap_or("1"));
                self.views.insert(name, View { channel, ids: true, at, lacks });
            }
            Op::WithIds(name, from_now_on) if frame["code"] == 10 => {
                let before = self.views.remove(name);
                if let Some(before) = before.filter(|_| from_now_on) {
                    self.is_whole(name, &before, moment.tails[before.channel], moment)?;
                }
            }
            Op::Plain(name) if granted && !self.views.contains_key(name) => {
                let channel = channel_of(name, moment.user.unwrap_or("1"));
                let other = self.views.values().find(|view| !view.ids && view.channel == channel);
                let at = other.map_or(moment.tails[channel], |other| other.at);
                self.views.insert(name, View { channel, ids: false, at, lacks: false });
            }
            Op::Unsubscribe(name) if granted => {
                if let Some(before) = self.views.remove(name) {
                    self.is_whole(name, &before, moment.tails[before.channel], moment)?;
                }
            }
            Op::Auth | Op::WithIds(..) | Op::Plain(_) | Op::Unsubscribe(_) => {}
        }
        Ok(())
    }

    /// Returns whether messages that were held back for a subscription were lost with it, if no replay of it
    /// was under way.
    fn misses(&self, name: &str, ended: &View, up_to: u64, moment: &Moment) -> bool {
        let replaying = moment.replaying.iter().any(|replaying| **replaying == *name);
        let goes_on =
            self.views.values().any(|view| !ended.ids && !view.ids && view.channel == ended.channel);
        let last = self.script.sent[ended.channel].iter().rfind(|seq| **seq <= up_to).copied().unwrap_or(0);
        moment.paused && !replaying && !goes_on && ended.at < last
    }

    /// Checks that a subscription that ended with nothing held back was given all its messages; unless
    /// another subscription of the same channel still will be, or its replay was under way.
    pub(super) fn is_whole(&self, name: &str, ended: &View, up_to: u64, moment: &Moment) -> TestCaseResult {
        let goes_on = |view: &View| !ended.ids && !view.ids && view.channel == ended.channel;
        if moment.paused
            || moment.replaying.iter().any(|replaying| **replaying == *name)
            || self.views.values().any(goes_on)
        {
            return Ok(());
        }
        let last = self.script.sent[ended.channel].iter().rfind(|seq| **seq <= up_to).copied().unwrap_or(0);
        prop_assert!(ended.at >= last, "{} ended at {} without {}", name, ended.at, last);
        Ok(())
    }
}
