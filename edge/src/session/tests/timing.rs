//! Timers: the effects of time alone.

use super::*;

#[test]
fn a_connection_that_does_nothing_useful_in_time_is_closed() {
    let mut talk = Talk::new();
    talk.idle(5 * SECOND);
    talk.says("ping");
    talk.subscribe("@user");
    talk.unsubscribe("1@video");
    assert_eq!(talk.idle(4 * SECOND), []);
    assert_eq!(talk.idle(2 * SECOND), [Effect::Close(CloseCode::NoLogin)]);
}

#[test]
fn a_login_or_a_subscription_is_useful() {
    let mut talk = Talk::of("1");
    assert_eq!(talk.idle(3_600 * SECOND), []);
    let mut talk = Talk::new();
    talk.watch("@broadcast", "broadcast");
    talk.unsubscribe("@broadcast");
    assert_eq!(talk.idle(3_600 * SECOND), []);
}

#[test]
fn an_op_under_way_at_the_deadline_is_waited_for_but_gives_no_more_time() {
    let mut talk = Talk::new();
    talk.idle(9 * SECOND);
    talk.subscribe("@broadcast");
    talk.subscribe("@broadcast");
    assert_eq!(talk.idle(4 * SECOND), []);
    let effects = talk.state.on_subscribed(Err(Unproved), talk.now);
    assert_eq!(effects, [error(10, "Unavailable"), Effect::Close(CloseCode::NoLogin)]);
}

#[test]
fn a_silent_session_is_closed_and_any_sign_of_life_counts() {
    let mut talk = Talk::of("1");
    assert_eq!(talk.after(59 * SECOND), [Effect::Ping]);
    talk.state.on_sign_of_life(talk.now);
    assert_eq!(talk.after(59 * SECOND), [Effect::Ping]);
    assert_eq!(talk.says("ping"), [reply("pong")]);
    assert_eq!(talk.after(60 * SECOND), [Effect::Close(CloseCode::Silent)]);
}

#[test]
fn time_in_which_the_process_did_not_run_counts_against_nobody() {
    let mut talk = Talk::new();
    talk.now += 60 * SECOND;
    talk.state.on_asleep(60 * SECOND);
    talk.says("ping");
    assert_eq!(talk.idle(9 * SECOND), []);
    assert_eq!(talk.idle(2 * SECOND), [Effect::Close(CloseCode::NoLogin)]);

    let mut talk = Talk::of("1");
    talk.now += 3_600 * SECOND;
    talk.state.on_asleep(3_600 * SECOND);
    assert_eq!(talk.after(Duration::ZERO), [Effect::Ping], "a client that was asked nothing owes no answer");
    assert_eq!(talk.after(60 * SECOND), [Effect::Close(CloseCode::Silent)]);
}

#[test]
fn a_login_that_ended_while_the_process_did_not_run_has_ended_and_can_be_renewed() {
    let mut talk = Talk::new();
    talk.log_in("1", Some(30 * SECOND));
    talk.now += 3_600 * SECOND;
    talk.state.on_asleep(3_600 * SECOND);
    assert_eq!(talk.after(Duration::ZERO), [error(9, "Auth Expired"), Effect::Pause, Effect::Ping]);
    assert_eq!(talk.idle(9 * SECOND), []);
    talk.now += 60 * SECOND;
    talk.state.on_asleep(60 * SECOND);
    assert_eq!(talk.log_in("1", None), [reply(YES), Effect::Resume]);
}

#[test]
fn pings_come_at_their_interval_give_or_take_a_tenth_and_not_in_step() {
    let mut seen = Vec::new();
    for seed in 0..50 {
        let start = Instant::now();
        let mut state = State::new(rules(), Arc::new(limits()), seed, start);
        state.on_frame(Incoming::text(r#"{"op":"auth","token":"t"}"#), start);
        state.on_verified(known("1", None), start);
        let mut before = start;
        for _ in 0..20 {
            let now = state.next_deadline();
            let gap = now.duration_since(before).as_secs_f64();
            assert!((22.5..=27.5).contains(&gap), "{gap}");
            assert_eq!(state.on_timer(now), [Effect::Ping]);
            state.on_sign_of_life(now);
            before = now;
        }
        seen.push(before.duration_since(start).as_millis());
    }
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() > 40, "{seen:?}");
}

#[test]
fn a_client_that_is_not_listened_to_does_not_count_as_silent() {
    let mut talk = Talk::of("1");
    talk.auth();
    while talk.state.wants_input() {
        assert_eq!(talk.says("ping"), []);
    }
    assert_eq!(talk.idle(600 * SECOND), []);
    let effects = talk.verified(known("1", None));
    assert_eq!(effects.len(), 1 + super::super::state::MAX_WAITING);
    assert_eq!(talk.after(59 * SECOND), [Effect::Ping], "its time begins anew");
    talk.state.on_write_blocked(true, talk.now);
    assert_eq!(talk.idle(600 * SECOND), [], "nor is one whose socket has enough to write");
    talk.state.on_write_blocked(false, talk.now);
    assert_eq!(talk.after(59 * SECOND), [Effect::Ping]);
    assert_eq!(talk.after(SECOND), [Effect::Close(CloseCode::Silent)]);
}

#[test]
fn a_client_that_takes_what_waits_before_a_ping_is_not_silent_until_it_takes_nothing() {
    let mut talk = Talk::of("1");
    for _ in 0..20 {
        assert!(!talk.after(50 * SECOND).contains(&Effect::Close(CloseCode::Silent)));
        talk.state.on_taken(talk.now);
    }
    let last = talk.now;
    talk.state.on_taken(last - 30 * SECOND);
    assert_eq!(talk.after(59 * SECOND), [Effect::Ping], "what was seen later counts");
    assert_eq!(talk.after(SECOND), [Effect::Close(CloseCode::Silent)]);
}
