//! The hub: who receives, who is counted, and that nothing is left of sessions that left.

mod model;

use std::sync::atomic::AtomicBool;

use super::member::{LoginResult, Member};
use super::*;
use proptest::prelude::*;

fn hub(sessions: usize, policy: SessionPolicy) -> Arc<Hub> {
    Arc::new(Hub::new(SessionLimits { sessions, watermark: 0, per_user: 2, policy }))
}

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

fn enter(member: &mut Member, user: &str) -> LoginResult {
    member.log_in(&uid(user), 7)
}

fn deliver(hub: &Hub, name: &str) -> (u64, u64) {
    let counts = hub.deliver(name, || Frame::text("x"));
    (counts.sessions, counts.failed)
}

#[test]
fn a_message_goes_to_the_sessions_of_its_channel_and_is_encoded_only_for_them() {
    let hub = hub(0, SessionPolicy::EvictOldest);
    hub.deliver("a", || panic!("nobody is there"));
    let (mut one, mut two) = (hub.admit(1 << 10).unwrap(), hub.admit(1 << 10).unwrap());
    one.watch(&channel("a"));
    two.watch(&channel("a"));
    two.watch(&channel("b"));
    assert_eq!(["a", "b", "c"].map(|name| deliver(&hub, name)), [(2, 0), (1, 0), (0, 0)]);
    one.outbox().close(CloseCode::Leaving);
    assert_eq!(deliver(&hub, "a"), (1, 1), "a closing session is counted as failed");
    two.unwatch(&channel("a"));
    drop(one);
    assert_eq!(deliver(&hub, "a"), (0, 0));
}

#[test]
fn a_full_list_of_refreshes_is_not_answered_but_tells_who_is_online() {
    let (hub, now) = (hub(0, SessionPolicy::EvictOldest), Instant::now());
    let mut online = hub.admit(1 << 10).unwrap();
    assert_eq!(enter(&mut online, "online"), LoginResult::Admitted);
    let others: Vec<Uid> = (0..MAX_REFRESHES).map(|number| uid(&format!("u{number}"))).collect();
    assert_eq!(hub.refresh(&others, 1, now), Some(vec![0; MAX_REFRESHES]));
    assert_eq!(hub.refresh(&[uid("online")], 7, now), None);
    let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
    let call = online.outbox().poll_call(false, context);
    assert_eq!(call, std::task::Poll::Ready(crate::outbox::Call::Refresh(7)));
    assert_eq!(hub.refresh(&others[..1], 2, now), Some(vec![0]), "who is listed has a place");
}

#[test]
fn what_waits_for_sessions_is_added_up() {
    let hub = hub(0, SessionPolicy::EvictOldest);
    let mut members: Vec<_> = (0..3).map(|_| hub.admit(1 << 10).unwrap()).collect();
    members[0].watch(&channel("a"));
    members[1].watch(&channel("a"));
    members[1].watch(&channel("b"));
    deliver(&hub, "a");
    deliver(&hub, "b");
    let (frame, queue) = (Frame::text("x").cost(), 4 * size_of::<Frame>());
    // The frame for both sessions is there once.
    let bytes = 2 * frame + 2 * queue;
    let expected = Waiting { sessions: 2, frames: 3, bytes, largest: 2 * frame + queue };
    assert_eq!(hub.waiting(), expected);
    members[1].outbox().take(usize::MAX);
    drop(members);
    assert_eq!(hub.waiting(), Waiting::default());
}

/// Resident bytes of this process.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<usize>().unwrap() << 10
}

/// Fills the outboxes of 200 sessions: of 200 users, or of one channel. Returns what the metric says, and the
/// resident bytes.
fn stuff(shared: bool) -> (Waiting, usize) {
    let hub = hub(0, SessionPolicy::EvictOldest);
    let mut members: Vec<_> = (0..200).map(|_| hub.admit(256 << 10).unwrap()).collect();
    let name = |number: usize| if shared { "all".to_owned() } else { format!("user:{number}") };
    for (number, member) in members.iter_mut().enumerate() {
        member.watch(&channel(&name(number)));
    }
    let before = resident();
    for _ in 0..2_000 {
        for number in 0..if shared { 1 } else { members.len() } {
            assert_eq!(deliver(&hub, &name(number)).1, 0);
        }
    }
    let waiting = hub.waiting();
    assert_eq!((waiting.sessions, waiting.frames), (200, 400_000));
    (waiting, resident() - before)
}

/// Measured in processes of their own: memory that one measurement freed would serve the next one.
#[test]
#[cfg(target_os = "linux")]
#[expect(
    clippy::disallowed_methods,
    reason = "the process of its own is told what to measure by its environment"
)]
fn the_metric_says_what_is_resident_within_a_fifth() {
    const SHARED: &str = "MC_TEST_STUFF_SHARED";
    if let Ok(shared) = std::env::var(SHARED) {
        let (waiting, resident) = stuff(shared == "true");
        let told = waiting.bytes;
        assert!(told.abs_diff(resident) * 5 < resident, "told {told}, resident {resident}, shared: {shared}");
        return;
    }
    let this = std::env::current_exe().unwrap();
    for shared in ["false", "true"] {
        let name = "hub::tests::the_metric_says_what_is_resident_within_a_fifth";
        let mut alone = std::process::Command::new(&this);
        let output = alone.args(["--exact", name, "--nocapture"]).env(SHARED, shared).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
}

#[test]
fn a_full_edge_admits_again_when_someone_left() {
    let hub = hub(2, SessionPolicy::EvictOldest);
    let (one, _two) = (hub.admit(1).unwrap(), hub.admit(1).unwrap());
    assert!(hub.admit(1).is_none());
    drop(one);
    assert!(hub.admit(1).is_some());
}

#[test]
fn it_is_crowded_from_the_watermark_until_a_tenth_has_left() {
    let limits =
        SessionLimits { sessions: 0, watermark: 20, per_user: 2, policy: SessionPolicy::EvictOldest };
    let hub = Arc::new(Hub::new(limits));
    let crowded = hub.crowded();
    let mut members: Vec<_> = (0..19).map(|_| hub.admit(1).unwrap()).collect();
    assert!(!*crowded.borrow());
    members.push(hub.admit(1).unwrap());
    assert!(*crowded.borrow());
    members.pop();
    assert!(*crowded.borrow(), "one more or less does not make it flap");
    members.pop();
    assert!(!*crowded.borrow());
    members.push(hub.admit(1).unwrap());
    assert!(!*crowded.borrow());
}

#[test]
fn one_session_too_many_closes_the_oldest_or_is_refused() {
    let closing = |member: &Member| !member.outbox().close(CloseCode::Leaving);
    let evicting = hub(0, SessionPolicy::EvictOldest);
    let mut members: Vec<_> = (0..3).map(|_| evicting.admit(100).unwrap()).collect();
    assert!(members.iter_mut().all(|member| enter(member, "1") == LoginResult::Admitted));
    assert_eq!(members.iter().map(closing).collect::<Vec<_>>(), [true, false, false]);

    let refusing = hub(0, SessionPolicy::RefuseNewest);
    let mut members: Vec<_> = (0..3).map(|_| refusing.admit(100).unwrap()).collect();
    let let_in: Vec<_> = members.iter_mut().map(|member| enter(member, "1")).collect();
    assert_eq!(let_in, [LoginResult::Admitted, LoginResult::Admitted, LoginResult::TooMany]);
    assert_eq!(enter(&mut members[1], "1"), LoginResult::Admitted, "the same login again is not one more");
    assert_eq!(enter(&mut members[1], "2"), LoginResult::Admitted);
    assert_eq!(enter(&mut members[2], "1"), LoginResult::Admitted, "who became another freed a slot");
}

#[test]
fn a_disconnect_closes_all_sessions_of_one_user_and_a_ban_keeps_the_next_ones_out() {
    let hub = hub(0, SessionPolicy::EvictOldest);
    let mut members: Vec<_> = (0..3).map(|_| hub.admit(1 << 10).unwrap()).collect();
    for (member, user) in members.iter_mut().zip(["1", "1", "2"]) {
        assert_eq!(enter(member, user), LoginResult::Admitted);
    }
    assert_eq!((hub.logins_of(&uid("1")), hub.logins_of(&uid("3"))), (vec![7, 7], vec![]));
    hub.bans().read(&uid("1"), 1, 60_000, Some("later".into()), 7).unwrap();
    assert_eq!(hub.disconnect(&uid("1"), &Some("bye".into())), 2);
    assert_eq!(hub.disconnect(&uid("1"), &None), 0, "they are ending already");
    assert_eq!(hub.logins_of(&uid("1")), [0; 0], "who is ending is not online");
    assert_eq!(members[0].outbox().close_reason(), Some("bye".into()));
    assert!(!members[2].outbox().is_closed());

    let mut again = hub.admit(1 << 10).unwrap();
    assert_eq!(enter(&mut again, "3"), LoginResult::Admitted);
    hub.bans().read(&uid("3"), 2, 60_000, Some("no".into()), 7).unwrap();
    assert_eq!(enter(&mut again, "3"), LoginResult::Banned, "a session that is open already is no way in");
    assert_eq!((again.outbox().is_closed(), again.outbox().close_reason()), (true, Some("no".into())));

    let mut late = hub.admit(1 << 10).unwrap();
    assert_eq!(enter(&mut late, "1"), LoginResult::Banned);
    assert_eq!((late.outbox().is_closed(), late.outbox().close_reason()), (true, Some("later".into())));
    drop(members);
    assert_eq!(hub.channels_and_users(), (0, 0), "a refused login leaves nothing");
    hub.bans().read(&uid("1"), 3, 0, None, 7).unwrap();
    assert_eq!(enter(&mut hub.admit(1 << 10).unwrap(), "1"), LoginResult::Admitted);
}

#[test]
fn a_ban_that_has_ended_closes_only_the_sessions_from_before_it() {
    let hub = hub(0, SessionPolicy::EvictOldest);
    let mut members: Vec<_> = (0..2).map(|_| hub.admit(1 << 10).unwrap()).collect();
    for (member, since) in members.iter_mut().zip([7, 8]) {
        assert_eq!(member.log_in(&uid("1"), since), LoginResult::Admitted);
    }
    assert_eq!(hub.disconnect_before(&uid("1"), 8, &Some("bye".into())), 1);
    assert_eq!((members[0].outbox().is_closed(), members[1].outbox().is_closed()), (true, false));
    assert!(hub.has(&uid("1")) && !hub.has(&uid("2")));
}

proptest! {
    #[test]
    fn exactly_the_subscribed_are_counted_and_nothing_is_left_of_those_who_left(
        steps in prop::collection::vec((0_usize..20, 0_u8..4, 0_usize..3), 0..200),
    ) {
        let hub = hub(0, SessionPolicy::EvictOldest);
        let mut members: Vec<Option<Member>> = (0..20).map(|_| None).collect();
        let mut watched = [[false; 3]; 20];
        for (who, what, name) in steps {
            let member = members[who].get_or_insert_with(|| hub.admit(1 << 20).unwrap());
            let named = channel(&format!("c{name}"));
            match what {
                0 => {
                    member.watch(&named);
                    watched[who][name] = true;
                }
                1 => {
                    member.unwatch(&named);
                    watched[who][name] = false;
                }
                2 => {
                    prop_assert_eq!(enter(member, &format!("u{name}")), LoginResult::Admitted);
                }
                _ => {
                    members[who] = None;
                    watched[who] = [false; 3];
                }
            }
            let expected = watched.iter().filter(|names| names[name]).count() as u64;
            let (sessions, failed) = deliver(&hub, named.as_str());
            prop_assert_eq!(sessions + failed, expected);
            prop_assert_eq!(hub.sessions(), members.iter().flatten().count());
            prop_assert_eq!(hub.handles().len(), hub.sessions());
        }
        drop(members);
        prop_assert_eq!((hub.sessions(), hub.channels_and_users()), (0, (0, 0)));
    }
}

#[test]
fn sessions_are_chosen_to_move_while_others_turn_to_ids_and_back() {
    let hub = hub(0, SessionPolicy::EvictOldest);
    let members: Vec<_> = (0..2_000).map(|_| hub.admit(1).unwrap()).collect();
    let (handles, done) = (hub.handles(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for handle in &handles {
                    handle.set_follows(!handle.follows());
                }
            }
        });
        let choice = Choice { most: 1, plain: true, older_than: None };
        let chosen = std::panic::catch_unwind(|| {
            (0..1_000).map(|_| hub.choose(&choice, Instant::now()).len()).sum::<usize>()
        });
        done.store(true, Ordering::Relaxed);
        assert_eq!(chosen.ok(), Some(1_000), "each time one, and no panic");
    });
    drop(members);
}
