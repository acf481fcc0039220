//! Logging in, again, as somebody else, and for a limited time.

use super::*;

#[test]
fn a_token_is_checked_and_each_outcome_has_its_answer() {
    for (outcome, effects) in [
        (known("1001", None), vec![reply(YES)]),
        (Verified::Unknown, vec![error(2, "Auth Failed"), Effect::Close(CloseCode::AuthFailed)]),
        (
            Verified::Unavailable,
            vec![error(3, "Auth Unavailable"), Effect::Close(CloseCode::AuthUnavailable)],
        ),
        (Verified::TooManySessions, vec![Effect::Close(CloseCode::TooManySessions)]),
    ] {
        let mut talk = Talk::new();
        assert_eq!(talk.auth(), [verify("t")]);
        assert_eq!(talk.verified(outcome), effects);
    }
}

#[test]
fn a_refused_login_carries_i_too() {
    let mut talk = Talk::new();
    talk.says(r#"{"op":"auth","token":"t","i":7}"#);
    assert_eq!(
        talk.verified(Verified::Unknown)[0],
        Effect::Error(ErrorCode::AuthFailed, r#"{"code":2,"msg":"Auth Failed","i":7}"#.into())
    );
}

#[test]
fn the_same_user_keeps_its_subscriptions() {
    let mut talk = Talk::of("1");
    talk.watch("@user", "user:1");
    assert_eq!(talk.log_in("1", None), [reply(YES)]);
    assert_eq!(talk.subscribe("@user"), [reply(YES)], "it is still subscribed");
}

#[test]
fn another_user_begins_with_nothing_once_it_is_confirmed() {
    let mut talk = Talk::of("1");
    talk.watch("@user", "user:1");
    talk.watch("@broadcast", "broadcast");
    talk.subscribe("@everyone");
    assert_eq!(talk.auth(), [verify("t")], "nothing is dropped before");
    assert_eq!(talk.verified(known("2", None)), [Effect::Forget, reply(YES)]);
    talk.watch("@user", "user:2");
}

#[test]
fn a_second_login_that_fails_ends_the_session_like_a_first() {
    for (outcome, code) in
        [(Verified::Unknown, CloseCode::AuthFailed), (Verified::Unavailable, CloseCode::AuthUnavailable)]
    {
        let mut talk = Talk::of("1");
        talk.auth();
        assert_eq!(talk.verified(outcome).last(), Some(&Effect::Close(code)));
    }
}

#[test]
fn an_expired_login_holds_messages_back_until_it_is_renewed() {
    let mut talk = Talk::new();
    talk.log_in("1", Some(30 * SECOND));
    talk.watch("@user", "user:1");
    assert_eq!(talk.idle(29 * SECOND), []);
    assert_eq!(talk.idle(2 * SECOND), [error(9, "Auth Expired"), Effect::Pause]);
    assert_eq!(talk.subscribe("@user"), [error(9, "Auth Expired")]);
    talk.watch("1@video", "video:1");
    assert_eq!(talk.log_in("1", None), [reply(YES), Effect::Resume]);
    assert_eq!(talk.subscribe("@user"), [reply(YES)], "it is still subscribed");
    assert_eq!(talk.idle(3_600 * SECOND), []);
}

#[test]
fn an_expired_login_that_is_not_renewed_ends_the_session() {
    let mut talk = Talk::new();
    talk.log_in("1", Some(30 * SECOND));
    let effects = talk.idle(50 * SECOND);
    assert_eq!(effects, [error(9, "Auth Expired"), Effect::Pause, Effect::Close(CloseCode::AuthExpired)]);
}

#[test]
fn after_expiry_another_user_gets_nothing_of_the_first() {
    let mut talk = Talk::new();
    talk.log_in("1", Some(SECOND));
    talk.watch("@user", "user:1");
    talk.idle(2 * SECOND);
    assert_eq!(talk.log_in("2", None), [Effect::Forget, reply(YES), Effect::Resume]);
}

#[test]
fn a_login_renewed_in_time_never_expires() {
    let mut talk = Talk::new();
    for _ in 0..10 {
        assert_eq!(talk.log_in("1", Some(30 * SECOND)), [reply(YES)]);
        assert_eq!(talk.idle(29 * SECOND), []);
    }
}

#[test]
fn a_check_that_takes_longer_than_the_time_that_was_left_is_waited_for() {
    let mut talk = Talk::new();
    talk.log_in("1", Some(SECOND));
    talk.idle(10 * SECOND);
    talk.auth();
    assert_eq!(talk.idle(4 * SECOND), [], "the check may still be a yes");
    assert_eq!(talk.verified(known("1", None)), [reply(YES), Effect::Resume]);
}

#[test]
fn a_login_that_would_expire_after_the_end_of_time_does_not() {
    let mut talk = Talk::new();
    assert_eq!(talk.log_in("1", Some(Duration::MAX)), [reply(YES)]);
    assert_eq!(talk.idle(3_600 * SECOND), []);
}
