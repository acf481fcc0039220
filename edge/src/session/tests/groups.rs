//! Channels for the members of a group, and refreshes.

use super::*;

/// Returns a session of user 1, who is in these groups.
fn member_of(groups: &[&str], expires_in: Option<Duration>) -> Talk {
    let mut talk = Talk::new();
    talk.auth();
    assert_eq!(talk.verified(of_groups("1", groups, expires_in)), [reply(YES)]);
    talk
}

fn closed(name: &str) -> Effect {
    Effect::Closed(format!(r#"{{"event":"@closed","channel":"{name}","reason":"not_member"}}"#))
}

fn forbid(channel_name: &str) -> Effect {
    Effect::Unwatch { channel: channel(channel_name), rest: Rest::Forbid }
}

fn check(newer_than: Option<u64>) -> Effect {
    Effect::Verify { token: Secret::new("t"), newer_than }
}

fn newer(newer_than: u64, groups: &[&str]) -> Verified {
    let groups = groups.iter().map(|group| Group::parse(group).unwrap()).collect();
    let (uid, newer_than) = (Uid::parse("1").unwrap(), Some(newer_than));
    Verified::Known { uid, groups, expires_in: None, newer_than }
}

#[test]
fn only_a_member_subscribes() {
    let mut talk = Talk::new();
    assert_eq!(talk.subscribe("@group/vip"), [error(1, "Not Auth")]);
    talk.log_in("1", None);
    assert_eq!(talk.subscribe("@group/vip"), [error(11, "Not Allowed")]);
    assert_eq!(talk.unsubscribe("@group/vip"), [error(11, "Not Allowed")]);
    let mut talk = member_of(&["vip", "staff"], None);
    talk.watch("@group/vip", "group:vip");
    talk.watch("@club/staff", "club:staff");
    assert_eq!(talk.subscribe("@group/other"), [error(11, "Not Allowed")]);
}

#[test]
fn a_login_that_lacks_the_group_ends_its_subscriptions_before_it_is_answered_and_no_others() {
    let mut talk = member_of(&["vip", "staff"], None);
    talk.watch("@group/vip", "group:vip");
    talk.watch("@group/staff", "group:staff");
    talk.watch("@user", "user:1");
    talk.auth();
    let effects = talk.verified(of_groups("1", &["staff"], None));
    assert_eq!(effects, [forbid("group:vip"), closed("@group/vip"), reply(YES)]);
    assert_eq!(talk.subscribe("@group/vip"), [error(11, "Not Allowed")]);
    assert_eq!(talk.subscribe("@group/staff"), [reply(YES)], "it is still subscribed");
    talk.auth();
    assert_eq!(talk.verified(of_groups("1", &["vip"], None)).last(), Some(&reply(YES)));
    talk.watch("@group/vip", "group:vip");
}

#[test]
fn every_name_of_a_channel_is_told_and_the_channel_ends_with_the_last() {
    let mut talk = member_of(&["vip"], None);
    talk.watch("@group/vip", "group:vip");
    assert_eq!(talk.subscribe("@team/vip"), [reply(YES)]);
    talk.auth();
    let effects = talk.verified(of_groups("1", &[], None));
    assert_eq!(effects, [closed("@group/vip"), forbid("group:vip"), closed("@team/vip"), reply(YES)]);
}

#[test]
fn what_was_held_back_for_a_lost_group_goes_before_the_rest_is_let_go() {
    let mut talk = member_of(&["vip"], Some(SECOND));
    talk.watch("@club/vip", "club:vip");
    talk.idle(2 * SECOND);
    assert_eq!(talk.subscribe("@group/vip"), [error(9, "Auth Expired")]);
    assert_eq!(talk.subscribe("@group/other"), [error(9, "Auth Expired")]);
    talk.auth();
    let effects = talk.verified(of_groups("1", &[], None));
    assert_eq!(effects, [forbid("club:vip"), closed("@club/vip"), reply(YES), Effect::Resume]);
}

#[test]
fn another_user_is_told_nothing_of_the_groups_of_the_first() {
    let mut talk = member_of(&["vip"], None);
    talk.watch("@group/vip", "group:vip");
    talk.auth();
    assert_eq!(talk.verified(of_groups("2", &[], None)), [Effect::Forget, reply(YES)]);
}

#[test]
fn a_refresh_ends_a_login_like_its_expiry_and_the_next_check_is_newer() {
    let mut talk = Talk::of("1");
    talk.watch("@user", "user:1");
    assert_eq!(talk.state.on_refresh(7, talk.now), [error(9, "Auth Expired"), Effect::Pause]);
    assert_eq!(talk.state.on_refresh(8, talk.now), [], "the login has ended already");
    assert_eq!(talk.auth(), [check(Some(8))]);
    assert_eq!(talk.verified(newer(8, &[])), [reply(YES), Effect::Resume]);
    assert_eq!(talk.state.on_refresh(8, talk.now), [], "the login is newer");
    assert_eq!(talk.state.on_refresh(9, talk.now), [error(9, "Auth Expired"), Effect::Pause]);
    let effects = talk.idle(11 * SECOND);
    assert_eq!(effects, [Effect::Close(CloseCode::AuthExpired)], "it has the time of an expired login");
    assert_eq!(talk.state.on_refresh(10, talk.now), []);
}

#[test]
fn a_refresh_while_a_token_is_checked_waits_for_the_answer() {
    let mut talk = Talk::of("1");
    talk.auth();
    assert_eq!(talk.state.on_refresh(7, talk.now), [error(9, "Auth Expired"), Effect::Pause]);
    assert_eq!(talk.verified(newer(7, &[])), [reply(YES), Effect::Resume]);
    let mut talk = Talk::new();
    assert_eq!(talk.state.on_refresh(7, talk.now), [], "nobody is logged in");
}

#[test]
fn a_refresh_of_the_user_before_says_nothing_about_the_next() {
    let mut talk = Talk::of("1");
    talk.state.on_refresh(7, talk.now);
    assert_eq!(talk.auth(), [check(Some(7))]);
    talk.verified(of_groups("2", &[], None));
    assert_eq!(talk.state.on_refresh(5, talk.now), [error(9, "Auth Expired"), Effect::Pause]);
}
