//! Finds out whether two rules can lead to the same channel. Pure.
//!
//! There are two cases, one for each setting that must not differ within a channel. A client of the later
//! rule subscribes to a channel that publishers look up at the earlier rule, whose pattern matches text of
//! any length. Or clients of both rules come to one channel. Both are answered by a search over both patterns
//! at once, shortest text first, which finds an example if there is one. The names that lead to a rule are
//! ignored: today an earlier rule may hide some names of a later rule, but rules change.

use std::collections::{HashSet, VecDeque};

use super::Pattern;
use crate::ids::{MAX_CHANNEL_BYTES, MAX_NAME_BYTES};

/// The character in a placeholder where neither pattern prescribes one.
const ANY: char = 'x';

/// The most bytes of names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Of a placeholder's value and of a uid.
    pub(super) placeholder: usize,
    /// Of a channel.
    pub(super) channel: usize,
}

/// The limits of clients.
pub(super) const LIMITS: Limits = Limits { placeholder: MAX_NAME_BYTES, channel: MAX_CHANNEL_BYTES };

/// Which texts a pattern stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Channels to which clients of the rule can come.
    Reached,
    /// Channels that publishers look up at the rule.
    LookedUp,
}

/// A piece of a pattern: a character, or a placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    Placeholder { uid: bool },
}

fn tokens(pattern: &Pattern) -> Vec<Token> {
    let mut tokens: Vec<Token> = pattern.head.chars().map(Token::Literal).collect();
    for (name, literal) in &pattern.tail {
        tokens.push(Token::Placeholder { uid: name == "uid" });
        tokens.extend(literal.chars().map(Token::Literal));
    }
    tokens
}

/// How far the search has come in one pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct State {
    token: usize,
    /// Bytes in the present placeholder; for a placeholder without a bound only whether there are any.
    filled: usize,
    /// Whether the placeholder holds only "0", which is no uid.
    zero: bool,
}

/// One pattern in the search.
struct Walker<'t> {
    tokens: &'t [Token],
    /// The most bytes of a placeholder.
    most: usize,
    side: Side,
}

impl Walker<'_> {
    fn token(&self, state: State) -> Option<Token> {
        self.tokens.get(state.token).copied()
    }

    /// Returns this state, and the state behind the placeholder if the placeholder may end here.
    fn states(&self, state: State) -> impl Iterator<Item = State> {
        let ends = match self.token(state) {
            Some(Token::Placeholder { .. }) => state.filled > 0 && !state.zero,
            Some(Token::Literal(_)) | None => false,
        };
        let behind = State { token: state.token + 1, ..State::default() };
        std::iter::once(state).chain(ends.then_some(behind))
    }

    fn is_over(&self, state: State) -> bool {
        self.states(state).any(|state| self.token(state).is_none())
    }

    /// Takes one character.
    fn step(&self, state: State, next: char) -> Option<State> {
        match self.token(state)? {
            Token::Literal(literal) => {
                (literal == next).then_some(State { token: state.token + 1, ..State::default() })
            }
            Token::Placeholder { uid } => {
                let filled = state.filled + next.len_utf8();
                match self.side {
                    Side::LookedUp => Some(State { filled: 1, ..state }),
                    Side::Reached if filled > self.most => None,
                    Side::Reached => {
                        let zero = uid && state.filled == 0 && next == '0';
                        Some(State { filled, zero, ..state })
                    }
                }
            }
        }
    }
}

/// Searches a channel to which clients of `one` can come and which `other` stands for as well.
pub(super) fn meet(one: &Pattern, (other, side): (&Pattern, Side), limits: Limits) -> Option<String> {
    let (one, other) = (tokens(one), tokens(other));
    let one = Walker { tokens: &one, most: limits.placeholder, side: Side::Reached };
    let other = Walker { tokens: &other, most: limits.placeholder, side };
    // By length: characters have one to four bytes.
    let mut waiting: VecDeque<Vec<(State, State, String)>> = VecDeque::new();
    waiting.resize_with(limits.channel + 1, Vec::new);
    waiting[0].push((State::default(), State::default(), String::new()));
    let mut seen = HashSet::new();
    for length in 0..=limits.channel {
        while let Some((at, beside, text)) = waiting[length].pop() {
            if !seen.insert((at, beside)) {
                continue;
            }
            if length > 0 && one.is_over(at) && other.is_over(beside) {
                return Some(text);
            }
            for (at, beside) in one.states(at).flat_map(|at| other.states(beside).map(move |b| (at, b))) {
                let next = match (one.token(at), other.token(beside)) {
                    (Some(Token::Literal(next)), Some(_)) | (Some(_), Some(Token::Literal(next))) => next,
                    (Some(Token::Placeholder { .. }), Some(Token::Placeholder { .. })) => ANY,
                    (None, _) | (_, None) => continue,
                };
                let longer = length + next.len_utf8();
                if longer <= limits.channel
                    && let (Some(at), Some(beside)) = (one.step(at, next), other.step(beside, next))
                {
                    waiting[longer].push((at, beside, format!("{text}{next}")));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Channel, Uid};
    use crate::rules::{RuleConfig, Rules, User};
    use proptest::prelude::*;

    const SMALL: Limits = Limits { placeholder: 2, channel: 5 };

    /// All texts of these characters up to a length.
    fn texts(characters: &[char], most: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut from = 0;
        for _ in 0..most {
            let to = all.len();
            for index in from..to {
                all.extend(characters.iter().map(|next| format!("{}{next}", all[index])).collect::<Vec<_>>());
            }
            from = to;
        }
        all
    }

    /// By trying every text in every placeholder.
    fn reaches(pattern: &Pattern, channel: &str, values: &[String]) -> bool {
        fn fits(tail: &[(String, String)], rest: &str, values: &[String]) -> bool {
            let Some(((name, literal), tail)) = tail.split_first() else { return rest.is_empty() };
            values.iter().any(|value| {
                (name != "uid" || Uid::parse(value).is_ok())
                    && rest
                        .strip_prefix(value.as_str())
                        .and_then(|rest| rest.strip_prefix(literal.as_str()))
                        .is_some_and(|rest| fits(tail, rest, values))
            })
        }
        channel.strip_prefix(pattern.head.as_str()).is_some_and(|rest| fits(&pattern.tail, rest, values))
    }

    fn any_pattern(placeholders: [&'static str; 2]) -> impl Strategy<Value = String> {
        let literal = "[a:0]{0,2}";
        let [one, two] = placeholders;
        prop_oneof![
            "[a:0]{1,4}".prop_map(|text| text),
            (literal, literal).prop_map(move |(head, end)| format!("{head}{{{one}}}{end}")),
            (literal, "[a:0]{1,2}", literal)
                .prop_map(move |(head, between, end)| format!("{head}{{{one}}}{between}{{{two}}}{end}")),
        ]
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn what_meets_is_shown_by_the_shortest_example() {
        let meets = |one: &str, other: &str| meet(&pattern(one), (&pattern(other), Side::Reached), LIMITS);
        assert_eq!(meets("user:{uid}", "user:{id}").as_deref(), Some("user:x"));
        assert_eq!(meets("user:{uid}", "user:1001").as_deref(), Some("user:1001"));
        assert_eq!(meets("user:{uid}", "user:0"), None, "0 is nobody");
        assert_eq!(meets("user:{uid}", "user:{a}0").as_deref(), Some("user:x0"));
        assert_eq!(meets("a:{x}:b", "{y}:b").as_deref(), Some("a:x:b"));
        assert_eq!(meets("é{x}", "{y}ü").as_deref(), Some("éü"));
        for (one, other) in
            [("user:{uid}", "video:{id}"), ("a:{x}", "a:"), ("a{x}", "b{y}"), ("{x}a", "{y}b")]
        {
            assert_eq!(meets(one, other), None, "{one} {other}");
        }
    }

    #[test]
    fn text_that_no_client_can_name_is_looked_up_all_the_same() {
        let long = format!("a:{}", "b".repeat(150));
        let (any, one) = (pattern("a:{x}"), pattern(&long));
        assert_eq!(meet(&one, (&any, Side::Reached), LIMITS), None, "a placeholder has 128 bytes at most");
        assert_eq!(meet(&one, (&any, Side::LookedUp), LIMITS), Some(long));
        let zero = pattern("user:0");
        assert!(meet(&zero, (&pattern("user:{uid}"), Side::LookedUp), LIMITS).is_some());
        let longest = pattern(&"a".repeat(199));
        assert!(meet(&longest, (&pattern("{x}aa{y}"), Side::LookedUp), LIMITS).is_some());
        assert_eq!(meet(&longest, (&pattern("{x}b"), Side::LookedUp), LIMITS), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

        /// Against all texts of a small alphabet, with small limits so that each of them matters.
        #[test]
        fn patterns_meet_exactly_if_some_channel_belongs_to_both(
            one in any_pattern(["uid", "p"]), other in any_pattern(["q", "uid"]), looked_up: bool,
        ) {
            let alphabet = ['a', ':', '0', ANY];
            let values: Vec<_> = texts(&alphabet, SMALL.placeholder).into_iter().skip(1).collect();
            let (one, other) = (pattern(&one), pattern(&other));
            let side = if looked_up { Side::LookedUp } else { Side::Reached };
            let belongs = |channel: &str| reaches(&one, channel, &values) && match side {
                Side::Reached => reaches(&other, channel, &values),
                Side::LookedUp => other.matches(channel).is_some(),
            };
            let found = meet(&one, (&other, side), SMALL);
            if let Some(example) = &found {
                prop_assert!(belongs(example), "{example}");
            }
            let wanted = texts(&alphabet, SMALL.channel).into_iter().skip(1).any(|channel| belongs(&channel));
            prop_assert_eq!(found.is_some(), wanted);
        }

        /// The purpose of the decision: in a list that is taken, no client waits for what is not kept, and
        /// none gets without a login what needs one by another name.
        #[test]
        fn a_list_that_is_taken_keeps_its_word_in_every_channel(
            rules in prop::collection::vec(("[a:0]{0,1}", any_pattern(["x", "y"]), any::<(bool, bool)>()), 1..4),
        ) {
            let configs: Vec<RuleConfig> = rules.into_iter().enumerate().map(|(index, (head, channel, (login, history)))| {
                let name = if channel.contains("{y}") { "{x}:{y}" } else if channel.contains("{x}") { "{x}" } else { "" };
                RuleConfig { name: format!("{head}{index}{name}"), channel, login, history, member: None }
            }).collect();
            if let Ok(rules) = Rules::compile(&configs) {
                let uid = Uid::parse("7").unwrap();
                let user = User { uid: &uid, groups: &[] };
                let mut found = std::collections::HashMap::new();
                for text in texts(&['a', ':', '0', '1', ANY], 4) {
                    for head in ["", "1", "2"] {
                        let Ok(resolved) = rules.resolve(&format!("{head}{text}"), Some(user)) else { continue };
                        prop_assert_eq!(rules.has_history(&resolved.channel), resolved.history, "{:?}", resolved);
                        let login = *found.entry(resolved.channel.clone()).or_insert(resolved.login);
                        prop_assert_eq!(login, resolved.login, "{:?}", resolved);
                    }
                }
            }
        }

        #[test]
        fn an_example_is_a_channel(one in any_pattern(["uid", "p"]), other in any_pattern(["q", "r"])) {
            if let Some(example) = meet(&pattern(&one), (&pattern(&other), Side::Reached), LIMITS) {
                prop_assert!(Channel::parse(&example).is_ok(), "{example}");
            }
        }
    }
}
