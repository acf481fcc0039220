//! Subscribing, unsubscribing, and everything that is refused.

use super::*;

#[test]
fn a_subscription_is_confirmed_only_when_messages_surely_arrive() {
    let mut talk = Talk::of("1");
    assert_eq!(talk.subscribe("@user"), [watch("user:1")]);
    assert_eq!(talk.subscribed(), [reply(YES)]);
    assert_eq!(talk.subscribe("@user"), [reply(YES)], "a second time changes nothing");
    assert_eq!(talk.unsubscribe("@user"), [unwatch("user:1"), reply(YES)]);
    assert_eq!(talk.unsubscribe("@user"), [reply(YES)], "nor does a second unsubscribe");
}

#[test]
fn without_proof_nothing_is_subscribed() {
    let mut talk = Talk::of("1");
    talk.subscribe("@user");
    assert_eq!(talk.state.on_subscribed(Err(Unproved), talk.now), [error(10, "Unavailable")]);
    assert_eq!(talk.subscribe("@user"), [watch("user:1")], "it can be tried again");
}

#[test]
fn without_a_login_only_open_channels_can_be_used() {
    let mut talk = Talk::new();
    assert_eq!(talk.subscribe("@user"), [error(1, "Not Auth")]);
    assert_eq!(talk.unsubscribe("@user"), [error(1, "Not Auth")]);
    talk.watch("12@video", "video:12");
}

#[test]
fn two_names_of_one_channel_are_watched_once_and_until_the_last_is_gone() {
    let mut talk = Talk::new();
    talk.watch("@broadcast", "broadcast");
    assert_eq!(talk.subscribe("@everyone"), [reply(YES)]);
    assert_eq!(talk.unsubscribe("@broadcast"), [reply(YES)]);
    assert_eq!(talk.unsubscribe("@everyone"), [unwatch("broadcast"), reply(YES)]);
}

#[test]
fn one_subscription_too_many_is_refused_and_the_others_stay() {
    let mut talk = Talk::new();
    for id in 0..3 {
        talk.watch(&format!("{id}@video"), &format!("video:{id}"));
    }
    assert_eq!(talk.subscribe("3@video"), [error(8, "Too Many Subscriptions")]);
    assert_eq!(talk.subscribe("2@video"), [reply(YES)], "which is no more than there was");
    talk.unsubscribe("0@video");
    talk.watch("3@video", "video:3");
}

#[test]
fn each_refusal_says_what_is_wrong_and_leaves_the_connection_open() {
    let long = format!("{}@video", "x".repeat(129));
    for (op, code) in [
        (r#"{"op":"subscribe","channel":"@nobody"}"#, 6),
        (r#"{"op":"unsubscribe","channel":"@nobody"}"#, 6),
        (r#"{"op":"subscribe"}"#, 4),
        (r#"{"op":"subscribe","channel":7}"#, 4),
        (r#"{"op":"subscribe","channel":"a b@video"}"#, 4),
        (&format!(r#"{{"op":"subscribe","channel":"{long}"}}"#), 4),
        (r#"{"op":"subscribe","channel":"@broadcast","after":""}"#, 4),
        (r#"{"op":"subscribe","channel":"@user","after":null}"#, 4),
        (r#"{"op":"subscribe","channel":"@user","after":7}"#, 4),
        (r#"{"op":"subscribe","channel":"@user","after":"1"}"#, 4),
        (r#"{"op":"auth"}"#, 4),
        (r#"{"op":"auth","token":""}"#, 4),
        (r#"{"op":"auth","token":"t","i":{}}"#, 4),
        (r#"{"op":"publish"}"#, 5),
    ] {
        let mut talk = Talk::of("1");
        let effects = talk.says(op);
        let [answer] = replies(&effects)[..] else { panic!("{op}: {effects:?}") };
        assert_eq!(effects.len(), 1, "{op}: {effects:?}");
        assert!(answer.starts_with(&format!(r#"{{"code":{code},"#)), "{op}: {answer}");
        assert_eq!(talk.says("ping"), [reply("pong")], "{op}");
    }
}

#[test]
fn what_is_no_op_is_answered_and_ends_the_session() {
    for (frame, code, close) in [
        (Incoming::text("hello"), 4, CloseCode::BadRequest),
        (Incoming::text("{}"), 4, CloseCode::BadRequest),
        (Incoming::binary(), 4, CloseCode::BadRequest),
        (Incoming::too_big(), 4, CloseCode::TooBig),
    ] {
        let mut talk = Talk::of("1");
        let effects = talk.state.on_frame(frame, talk.now);
        assert!(replies(&effects)[0].starts_with(&format!(r#"{{"code":{code},"msg":"Bad Request: "#)));
        assert_eq!(effects[1..], [Effect::Close(close)]);
    }
    let mut talk = Talk::of("1");
    let broken = Incoming::violation(CloseCode::NotUtf8);
    assert_eq!(talk.state.on_frame(broken, talk.now), [Effect::Close(CloseCode::NotUtf8)]);
}

#[test]
fn ops_beyond_the_rate_are_refused_and_a_stubborn_client_is_closed() {
    let mut talk = Talk::with(|limits| limits.ops_per_second = 2);
    let mut answers = Vec::new();
    for _ in 0..22 {
        answers.extend(talk.says(r#"{"op":"nonsense","i":1}"#));
    }
    let codes: Vec<_> = replies(&answers).iter().map(|text| text.contains(r#""code":7"#)).collect();
    assert_eq!(codes[..2], [false; 2]);
    assert_eq!(codes[2..], [true; 20]);
    assert!(replies(&answers)[21].ends_with(r#","i":1}"#), "a refusal carries i too");
    assert_eq!(answers.last(), Some(&Effect::Close(CloseCode::TooManyOps)));
}

#[test]
fn pings_have_a_rate_of_their_own_which_harms_nobody_who_keeps_alive() {
    let mut talk = Talk::with(|limits| limits.ops_per_second = 2);
    while talk.says(r#"{"op":"nonsense"}"#) != [error(7, "Too Many Requests")] {}
    for _ in 0..1_000 {
        talk.now += SECOND / 3;
        assert_eq!(talk.says("ping"), [reply("pong")], "ops that are refused cost no ping");
        assert_eq!(talk.state.on_sign_of_life(talk.now), [], "neither does a ping of the library");
    }
    let mut answers = Vec::new();
    while !matches!(answers.last(), Some(Effect::Close(_))) {
        answers.extend(talk.says("ping"));
        assert!(answers.len() < 200, "a flood has an end");
    }
    let pongs = answers.iter().filter(|answer| **answer == reply("pong")).count();
    assert!((1..=10).contains(&pongs), "{pongs}");
    assert_eq!(answers.last(), Some(&Effect::Close(CloseCode::TooManyOps)));
}

#[test]
fn control_frames_without_a_pause_end_the_session() {
    let mut talk = Talk::with(|limits| limits.ops_per_second = 20);
    let mut effects = Vec::new();
    let frames = (0..1_000).position(|_| {
        effects = talk.state.on_sign_of_life(talk.now);
        !effects.is_empty()
    });
    assert!(frames.is_some_and(|frames| frames < 400), "{frames:?}");
    assert_eq!(effects, [Effect::Close(CloseCode::TooManyOps)]);
    assert_eq!(talk.state.on_sign_of_life(talk.now), [], "nothing follows the close");
}

const ID: &str = "00000000000000ab.42";

fn follow(name: &str, channel_name: &str, after: Option<&str>) -> Effect {
    let after = after.map(|id| id.parse().unwrap());
    Effect::Follow { channel: channel(channel_name), name: name.into(), after, instead_of_plain: false }
}

impl Talk {
    fn recover(&mut self, name: &str, after: &str) -> Vec<Effect> {
        self.says(&format!(r#"{{"op":"subscribe","channel":"{name}","after":"{after}","i":1}}"#))
    }

    fn followed(&mut self, recovered: bool) -> Vec<Effect> {
        let granted = Granted::Following { position: ID.parse().unwrap(), recovered };
        self.state.on_subscribed(Ok(granted), self.now)
    }
}

#[test]
fn who_names_a_position_learns_where_it_begins_and_whether_all_follows() {
    let mut talk = Talk::of("1");
    assert_eq!(talk.recover("@user", ""), [follow("@user", "user:1", None)]);
    let yes = format!(r#"{{"result":true,"id":"{ID}","recovered":true,"i":1}}"#);
    assert_eq!(talk.followed(true), [reply(&yes)]);
    let mut talk = Talk::of("1");
    assert_eq!(talk.recover("@user", ID), [follow("@user", "user:1", Some(ID))]);
    let no = format!(r#"{{"result":true,"id":"{ID}","recovered":false,"i":1}}"#);
    assert_eq!(talk.followed(false), [reply(&no)]);
    let unfollow = Effect::Unfollow { name: "@user".into(), rest: Rest::Give };
    assert_eq!(talk.unsubscribe("@user"), [unfollow, reply(YES)]);
}

#[test]
fn a_second_subscription_replaces_the_first_only_if_it_names_a_position() {
    let unfollow = |rest| Effect::Unfollow { name: "@user".into(), rest };
    let mut talk = Talk::of("1");
    talk.watch("@user", "user:1");
    let unwatch = Effect::Unwatch { channel: channel("user:1"), rest: Rest::Drop };
    assert_eq!(talk.recover("@user", ID), [unwatch, follow("@user", "user:1", Some(ID))]);
    talk.followed(true);
    assert_eq!(talk.subscribe("@user"), [reply(YES)]);
    assert_eq!(talk.recover("@user", ID), [unfollow(Rest::Drop), follow("@user", "user:1", Some(ID))]);
    talk.followed(true);
    assert_eq!(talk.recover("@user", ""), [follow("@user", "user:1", None)], "the first goes on meanwhile");
    assert_eq!(
        talk.state.on_subscribed(Err(Unproved), talk.now),
        [
            unfollow(Rest::Give),
            Effect::Error(ErrorCode::Unavailable, r#"{"code":10,"msg":"Unavailable","i":1}"#.into())
        ]
    );
    assert_eq!(talk.subscribe("@user"), [watch("user:1")], "nothing is subscribed");
}

#[test]
fn another_user_follows_nothing_of_the_first() {
    let mut talk = Talk::of("1");
    talk.recover("@user", "");
    talk.followed(true);
    talk.auth();
    let effects = talk.verified(known("2", None));
    assert_eq!(effects, [Effect::Forget, reply(YES)]);
}

#[test]
fn ids_from_now_on_end_the_plain_subscription_when_they_begin_unless_another_name_needs_it() {
    let with_ids = |name: &str, instead_of_plain| {
        let (channel, name) = (channel("both"), name.into());
        Effect::Follow { channel, name, after: None, instead_of_plain }
    };
    let mut talk = Talk::of("1");
    talk.watch("@both", "both");
    assert_eq!(talk.subscribe("@again"), [reply(YES)]);
    assert_eq!(talk.recover("@both", ""), [with_ids("@both", false)]);
    talk.followed(true);
    assert_eq!(talk.recover("@again", ""), [with_ids("@again", true)]);
    talk.followed(true);
    let unfollow = |name: &str| Effect::Unfollow { name: name.into(), rest: Rest::Give };
    assert_eq!(talk.unsubscribe("@again"), [unfollow("@again"), reply(YES)]);
    assert_eq!(talk.unsubscribe("@both"), [unfollow("@both"), reply(YES)]);
}

#[test]
fn an_id_that_was_never_given_out_is_refused_and_says_what_to_do() {
    for after in ["nonsense", "1", "00000000000000AB.42"] {
        let mut talk = Talk::of("1");
        let effects = talk.recover("@user", after);
        assert!(replies(&effects)[0].contains("name the last one"), "{effects:?}");
    }
}
