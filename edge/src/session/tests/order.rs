//! One op after the other, whatever comes in between.

use proptest::prelude::*;

use super::super::state::{MAX_WAITING, MAX_WAITING_BYTES};
use super::*;

#[test]
fn what_comes_behind_an_op_under_way_waits_for_it() {
    let mut talk = Talk::new();
    assert_eq!(talk.auth(), [verify("t")]);
    assert_eq!(talk.subscribe("@user"), []);
    assert_eq!(talk.says("ping"), []);
    assert_eq!(talk.says(r#"{"op":"nonsense"}"#), []);
    assert_eq!(talk.verified(known("1", None)), [reply(YES), watch("user:1")]);
    assert_eq!(talk.subscribed(), [reply(YES), reply("pong"), error(5, "Unknown Op")]);
}

#[test]
fn a_bad_frame_is_answered_in_its_turn_and_nothing_after_it_is_read() {
    let mut talk = Talk::new();
    talk.auth();
    assert_eq!(talk.says("rubbish"), []);
    assert!(!talk.state.wants_input());
    let effects = talk.verified(known("1", None));
    assert_eq!(effects[0], reply(YES));
    assert!(replies(&effects)[1].starts_with(r#"{"code":4,"#));
    assert_eq!(effects[2..], [Effect::Close(CloseCode::BadRequest)]);
}

#[test]
fn as_many_frames_wait_as_may_and_then_the_socket_is_not_read() {
    let mut talk = Talk::new();
    talk.auth();
    for waiting in 0..MAX_WAITING {
        assert!(talk.state.wants_input(), "{waiting} wait");
        talk.says("ping");
    }
    assert!(!talk.state.wants_input());
    assert_eq!(talk.verified(known("1", None)).len(), 1 + MAX_WAITING, "none is lost");
    assert!(talk.state.wants_input());
}

#[test]
fn frames_that_wait_hold_a_bounded_memory() {
    let mut talk = Talk::new();
    talk.auth();
    let token = |kib: usize| format!(r#"{{"op":"auth","token":"{}"}}"#, "x".repeat(kib << 10));
    talk.says(&token(9));
    assert!(talk.state.wants_input(), "the largest frame fits beside this one");
    talk.says(&token(4));
    assert!(!talk.state.wants_input(), "the largest frame would not fit surely");
    talk.verified(known("1", None));
    assert!(talk.state.wants_input(), "only the last frame waits now");
    talk.says(&token(19));
    assert!(!talk.state.wants_input());
    assert!((20 << 10..=MAX_WAITING_BYTES).contains(&talk.state.heap_bytes()));
}

#[test]
fn after_the_close_nothing_comes_out() {
    let mut talk = Talk::of("1");
    talk.auth();
    talk.says("ping");
    talk.verified(Verified::Unknown);
    assert!(!talk.state.wants_input());
    assert_eq!(talk.says("ping"), []);
    assert_eq!(talk.verified(known("1", None)), []);
    assert_eq!(talk.after(3_600 * SECOND), []);
}

/// A step of a session.
#[derive(Debug, Clone)]
enum Step {
    Says(&'static str),
    Binary,
    Verified(u8),
    Subscribed(bool),
    SignOfLife,
    Passes(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let texts = prop::sample::select(vec![
        "ping",
        r#"{"op":"auth","token":"t"}"#,
        r#"{"op":"subscribe","channel":"@user"}"#,
        r#"{"op":"subscribe","channel":"@broadcast"}"#,
        r#"{"op":"subscribe","channel":"@everyone"}"#,
        r#"{"op":"subscribe","channel":"1@video"}"#,
        r#"{"op":"unsubscribe","channel":"@user"}"#,
        r#"{"op":"unsubscribe","channel":"@broadcast"}"#,
        r#"{"op":"unsubscribe","channel":"@everyone"}"#,
        r#"{"op":"nonsense"}"#,
        r#"{"op":"auth"}"#,
    ]);
    prop_oneof![
        20 => texts.prop_map(Step::Says),
        1 => Just(Step::Says("rubbish")),
        1 => Just(Step::Binary),
        8 => (0_u8..8).prop_map(Step::Verified),
        8 => any::<bool>().prop_map(Step::Subscribed),
        2 => Just(Step::SignOfLife),
        4 => (0_u64..20_000).prop_map(Step::Passes),
    ]
}

/// Keeps the books of a session from outside, as the session's task and client see it.
#[derive(Default)]
struct Books {
    /// Ops and pings that were sent and are not answered.
    unanswered: usize,
    checking: bool,
    subscribing: Option<Channel>,
    watched: Vec<Channel>,
    paused: bool,
    closed: bool,
}

impl Books {
    fn note(&mut self, effects: Vec<Effect>) -> Result<(), TestCaseError> {
        for effect in effects {
            prop_assert!(!self.closed, "{:?} after the close", effect);
            match effect {
                Effect::Error(ErrorCode::AuthExpired, _) if !self.paused => {
                    // The error comes by itself, right before the pause.
                }
                Effect::Reply(_) | Effect::Error(..) => {
                    prop_assert!(self.unanswered > 0, "an answer that nobody asked for");
                    prop_assert!(!self.checking && self.subscribing.is_none(), "an answer out of turn");
                    self.unanswered -= 1;
                }
                Effect::Verify { .. } => {
                    prop_assert!(!self.checking && self.subscribing.is_none(), "two ops at a time");
                    self.checking = true;
                }
                Effect::Watch { channel, .. } => {
                    prop_assert!(!self.checking && self.subscribing.is_none(), "two ops at a time");
                    prop_assert!(!self.watched.contains(&channel), "watched twice");
                    self.subscribing = Some(channel);
                }
                Effect::Unwatch { channel, rest } => {
                    prop_assert_eq!(rest, Rest::Give, "nothing brings it again");

                    let index = self.watched.iter().position(|watched| *watched == channel);
                    prop_assert!(index.is_some(), "never watched");
                    self.watched.swap_remove(index.unwrap_or_default());
                }
                Effect::Forget => self.watched.clear(),
                Effect::Pause => {
                    prop_assert!(!std::mem::replace(&mut self.paused, true), "paused twice");
                }
                Effect::Resume => {
                    prop_assert!(std::mem::take(&mut self.paused), "was not paused");
                }
                Effect::Follow { .. } | Effect::Unfollow { .. } | Effect::Closed(_) => {
                    prop_assert!(false, "nobody asked for ids or for the channel of a group");
                }
                Effect::Ping => {}
                Effect::Close(_) => self.closed = true,
            }
            prop_assert!(self.watched.len() <= 3);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn whatever_comes_answers_keep_their_order_and_bounds_hold(steps in prop::collection::vec(step(), 1..150)) {
        let mut talk = Talk::new();
        let mut books = Books::default();
        for step in steps {
            let effects = match step {
                Step::Says(_) | Step::Binary | Step::SignOfLife if !talk.state.wants_input() => continue,
                Step::Says(text) => {
                    books.unanswered += 1;
                    talk.says(text)
                }
                Step::Binary => {
                    books.unanswered += 1;
                    talk.state.on_frame(Incoming::binary(), talk.now)
                }
                Step::Verified(_) if !books.checking => continue,
                Step::Verified(outcome) => {
                    books.checking = false;
                    talk.verified(match outcome {
                        0 => Verified::Unknown,
                        1 => Verified::Unavailable,
                        2 => Verified::TooManySessions,
                        3 | 4 => known("1", None),
                        5 => known("2", None),
                        _ => known("1", Some(5 * SECOND)),
                    })
                }
                Step::Subscribed(proved) => {
                    let Some(channel) = books.subscribing.take() else { continue };
                    if proved {
                        books.watched.push(channel);
                    }
                    talk.state.on_subscribed(if proved { Ok(Granted::Plain) } else { Err(Unproved) }, talk.now)
                }
                Step::SignOfLife => talk.state.on_sign_of_life(talk.now),
                Step::Passes(millis) => talk.after(Duration::from_millis(millis)),
            };
            books.note(effects)?;
            if books.closed {
                prop_assert!(!talk.state.wants_input());
            } else {
                let idle = !books.checking && books.subscribing.is_none();
                prop_assert!(!idle || books.unanswered == 0, "an op without an answer");
                prop_assert!(books.unanswered <= MAX_WAITING + 1);
                let due = talk.state.next_deadline();
                if due <= talk.now {
                    books.note(talk.after(Duration::ZERO))?;
                    let due = talk.state.next_deadline();
                    prop_assert!(books.closed || due > talk.now, "the timer would ring for ever");
                }
            }
        }
    }
}
