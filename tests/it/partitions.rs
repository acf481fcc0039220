//! History in several partitions, and the command that changes their number.

use harness::fleet::{Fleet, Over};
use harness::program::{Finished, Launch};
use harness::tools;

use crate::backup::Store;

const USERS: u32 = 40;

#[tokio::test]
async fn four_partitions_carry_every_channel_over_message_center_bus() {
    tour(Over::Bus).await;
}

#[tokio::test]
async fn four_partitions_carry_every_channel_over_the_real_nats_server() {
    let Some(binary) = tools::find("MC_TEST_NATS_SERVER", "four partitions over the real nats-server") else {
        return;
    };
    tour(Over::NatsServer(binary)).await;
}

async fn tour(over: Over) {
    let fleet = Fleet::plan(over).edges(2).publishers(2).set("history.partitions", 4).start().await;
    let url = format!("nats://{}", fleet.bus_address());
    let mut devices = Vec::new();
    for user in 1..=USERS {
        for edge in 0..2 {
            devices.push((user, fleet.online(edge, &format!("user-{user}")).await));
        }
    }
    let store = Store::at(&url, 4).await;
    for user in 1..=USERS {
        let publisher = fleet.publisher(user as usize % 2);
        store.put(&user.to_string(), &format!("first of {user}")).await;
        publisher.publish_to(2, &format!("user:{user}"), &format!("second of {user}")).await;
    }
    store.end().await;
    for (user, device) in &mut devices {
        device.expect_text(&format!("first of {user}")).await;
        device.expect_text(&format!("second of {user}")).await;
    }
    let status = operator(&["history", "status"], &url, 4).await;
    assert_eq!(status.code, 0, "{status:?}");
    let kept: Vec<u32> = (0..4).map(|partition| messages(&status.stdout, partition)).collect();
    assert!(kept.iter().all(|messages| *messages > 0), "every stream has a part of them: {status:?}");
    assert_eq!(kept.iter().sum::<u32>(), 2 * USERS, "{status:?}");

    let refused = operator(&["partitions", "2", "--yes"], &url, 4).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    for expected in ["edge ", "with 40 sessions", "a publisher-api", "Stop every edge"] {
        assert!(refused.stderr.contains(expected), "{expected}: {refused:?}");
    }
    for (_, mut device) in devices {
        device.expect_nothing().await;
        device.close().await;
    }
    fleet.end().await;
}

#[tokio::test]
async fn the_number_of_partitions_is_changed_with_every_part_stopped_and_a_part_that_differs_says_so() {
    let test = "the number of partitions is changed";
    let Some(binary) = tools::find("MC_TEST_NATS_SERVER", test) else { return };
    let mut fleet = Fleet::plan(Over::NatsServer(binary)).set("history.partitions", 4).start().await;
    let url = format!("nats://{}", fleet.bus_address());
    let store = Store::at(&url, 4).await;
    store.put("1", "kept").await;
    store.end().await;
    let (edge, publisher) = (fleet.edges.remove(0), fleet.publishers.remove(0));
    edge.program.end().await;
    publisher.program.end().await;

    let asked = operator(&["partitions", "2"], &url, 4).await;
    assert!(asked.code == 1 && asked.stderr.contains("delete 1 messages"), "{asked:?}");
    let same = operator(&["partitions", "4", "--yes"], &url, 4).await;
    assert!(same.code == 0 && same.stdout.contains("nothing was changed"), "{same:?}");
    let before = epochs(&same.stdout);
    let done = operator(&["partitions", "2", "--yes"], &url, 4).await;
    assert!(done.code == 0 && done.stdout.contains("Set history.partitions = 2"), "{done:?}");
    let after = epochs(&done.stdout);
    assert_eq!((before.len(), after.len()), (4, 2));
    assert!(after.iter().all(|epoch| !before.contains(epoch)), "{before:?} {after:?}");

    // The configuration still says 4.
    fleet.add_edge().await;
    fleet.add_publisher().await;
    fleet.expect_errors();
    for part in &fleet.edges {
        part.unready("history.partitions is 4, but the streams on the bus were made for 2").await;
    }
    let back = operator(&["partitions", "4", "--yes", "--force"], &url, 4).await;
    assert!(back.code == 0 && back.stdout.contains("Start the parts now"), "{back:?}");
    fleet.ready().await;
    fleet.publisher(0).publish_to(0, "user:1", "again").await;
    fleet.end().await;
}

#[tokio::test]
async fn a_new_generation_is_another_epoch_and_asks_before() {
    let Some(binary) = tools::find("MC_TEST_NATS_SERVER", "a new generation") else { return };
    let fleet = Fleet::plan(Over::NatsServer(binary)).start().await;
    let url = format!("nats://{}", fleet.bus_address());
    let store = Store::at(&url, 1).await;
    store.put("1", "one").await;
    store.end().await;
    let before = operator(&["history", "status"], &url, 1).await;
    let asked = operator(&["history", "new-generation"], &url, 1).await;
    assert!(asked.code == 1 && asked.stderr.contains("--yes"), "{asked:?}");
    let raised = operator(&["history", "new-generation", "--yes"], &url, 1).await;
    assert_eq!(raised.code, 0, "{raised:?}");
    assert_ne!(epochs(&before.stdout), epochs(&raised.stdout));
    assert_eq!(messages(&raised.stdout, 0), 1, "nothing is lost: {raised:?}");
    let erased = operator(&["history", "erase", "--channel", "user:1", "--yes"], &url, 1).await;
    assert!(erased.code == 0 && erased.stdout.contains("1 messages of user:1"), "{erased:?}");
    fleet.end().await;
}

/// Runs an operator's command.
async fn operator(arguments: &[&str], url: &str, partitions: u32) -> Finished {
    let (part, rest) = arguments.split_first().expect("there is a command");
    let launch = rest.iter().fold(Launch::of(part), |launch, argument| launch.argument(argument));
    launch.argument("--bus-url").argument(url).set("history.partitions", partitions).run().await
}

/// The cells of each stream's row.
fn rows(status: &str) -> Vec<Vec<&str>> {
    let rows = status.lines().filter(|line| line.starts_with("MC_LOG_"));
    rows.map(|line| line.split_whitespace().collect()).collect()
}

fn messages(status: &str, partition: u32) -> u32 {
    let name = format!("MC_LOG_{partition}");
    rows(status).iter().find(|row| row[0] == name).map_or(0, |row| row[1].parse().expect("it is a number"))
}

fn epochs(status: &str) -> Vec<String> {
    rows(status).iter().map(|row| row[7].to_owned()).collect()
}
