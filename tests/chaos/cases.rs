//! One case per disturbance. No acknowledged message may be missing afterwards.

use std::time::Duration;

use harness::link::Link;

use crate::case::{Case, Over, run};
use crate::stage::{EDGES, PUBLISHERS, STREAM};

const BLINK: Duration = Duration::from_millis(800);
const OUTAGE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn edge_killed() {
    run("edge_killed", Over::Bus, async |case| {
        for (round, moment) in case.moments().into_iter().enumerate() {
            case.reach(moment).await;
            kill_edge(case, round % EDGES).await;
        }
    })
    .await;
}

#[tokio::test]
async fn edges_replaced() {
    run("edges_replaced", Over::Bus, async |case| {
        let moments: Vec<_> = case.moments().into_iter().step_by(2).collect();
        for moment in moments {
            case.reach(moment).await;
            for edge in 0..EDGES {
                case.stage.replace_edge(edge).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn edges_cut_off() {
    run("edges_cut_off", Over::Bus, cut_edges_off).await;
}

#[tokio::test]
async fn edges_cut_off_nats() {
    run("edges_cut_off_nats", Over::Nats(1), cut_edges_off).await;
}

#[tokio::test]
async fn publisher_killed() {
    run("publisher_killed", Over::Bus, async |case| {
        for (round, moment) in case.moments().into_iter().enumerate() {
            case.reach(moment).await;
            kill_publisher(case, round % PUBLISHERS).await;
        }
    })
    .await;
}

#[tokio::test]
async fn bus_killed() {
    run("bus_killed", Over::Bus, kill_bus).await;
}

#[tokio::test]
async fn nats_killed() {
    run("nats_killed", Over::Nats(1), kill_bus).await;
}

#[tokio::test]
async fn leader_killed() {
    run("leader_killed", Over::Nats(3), async |case| {
        for moment in case.moments() {
            case.reach(moment).await;
            kill_node(case, true).await;
        }
    })
    .await;
}

#[tokio::test]
async fn follower_killed() {
    run("follower_killed", Over::Nats(3), async |case| {
        for moment in case.moments() {
            case.reach(moment).await;
            kill_node(case, false).await;
        }
    })
    .await;
}

#[tokio::test]
async fn node_cut_off() {
    run("node_cut_off", Over::Nats(3), async |case| {
        for (round, moment) in case.moments().into_iter().enumerate() {
            case.reach(moment).await;
            let leader = case.stage.bus.nodes().leader(STREAM).await;
            // First the leader, then a follower.
            cut_off(case, (leader + round) % 3).await;
        }
    })
    .await;
}

#[tokio::test]
async fn route_broken() {
    run("route_broken", Over::Nats(3), async |case| {
        for moment in case.moments() {
            case.reach(moment).await;
            break_route(case).await;
        }
    })
    .await;
}

#[tokio::test]
async fn links_at_random() {
    run("links_at_random", Over::Bus, async |case| {
        for moment in case.moments() {
            case.reach(moment).await;
            for _ in 0..6 {
                disturb_links(case).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn everything() {
    run("everything", Over::Nats(3), async |case| {
        let mut kinds: Vec<usize> = (0..7).collect();
        for moment in case.moments() {
            case.reach(moment).await;
            case.random.shuffle(&mut kinds);
            for kind in kinds.clone().into_iter().take(4) {
                match kind {
                    0 => {
                        let edge = case.random.usize(..EDGES);
                        kill_edge(case, edge).await;
                    }
                    1 => {
                        let publisher = case.random.usize(..PUBLISHERS);
                        kill_publisher(case, publisher).await;
                    }
                    2 => {
                        let edge = case.random.usize(..EDGES);
                        case.stage.replace_edge(edge).await;
                    }
                    3 => kill_node(case, true).await,
                    4 => kill_node(case, false).await,
                    5 => break_route(case).await,
                    _ => disturb_links(case).await,
                }
            }
        }
    })
    .await;
}

async fn kill_edge(case: &mut Case, edge: usize) {
    case.stage.kill_edge(edge).await;
    case.pause(BLINK).await;
    case.stage.restart_edge(edge).await;
}

/// Cuts edges off from the bus for a while, so that they miss the messages stored meanwhile.
async fn cut_edges_off(case: &mut Case) {
    for (round, moment) in case.moments().into_iter().enumerate() {
        case.reach(moment).await;
        let edge = round % EDGES;
        case.stage.to_bus[edge].cut();
        case.pause(OUTAGE).await;
        case.stage.to_bus[edge].heal();
    }
}

async fn kill_publisher(case: &mut Case, publisher: usize) {
    case.stage.kill_publisher(publisher).await;
    case.pause(BLINK).await;
    case.stage.restart_publisher(publisher).await;
}

async fn kill_bus(case: &mut Case) {
    for moment in case.moments() {
        case.reach(moment).await;
        case.stage.bus.kill().await;
        case.pause(OUTAGE).await;
        case.stage.bus.restart().await;
    }
}

/// Kills the leader or a follower, and starts it again; the next disturbance waits until all replicas are
/// whole.
async fn kill_node(case: &mut Case, leads: bool) {
    let nodes = case.stage.bus.nodes();
    let leader = nodes.leader(STREAM).await;
    let node = if leads { leader } else { (leader + 1) % 3 };
    nodes.kill(node).await;
    case.pause(OUTAGE).await;
    case.stage.bus.nodes().restart(node).await;
    case.stage.bus.nodes().whole(STREAM).await;
}

async fn cut_off(case: &mut Case, node: usize) {
    let others = [(node + 1) % 3, (node + 2) % 3];
    for other in others {
        case.stage.bus.nodes().break_route(node, other);
    }
    case.pause(3 * OUTAGE).await;
    for other in others {
        case.stage.bus.nodes().heal_route(node, other);
    }
    case.stage.bus.nodes().whole(STREAM).await;
}

async fn break_route(case: &mut Case) {
    let nodes = case.stage.bus.nodes();
    let leader = nodes.leader(STREAM).await;
    let others = ((leader + 1) % 3, (leader + 2) % 3);
    // Between two followers, or between the leader and one of them: the leader keeps a majority with the
    // third node.
    let (one, other) = if case.random.bool() { others } else { (leader, others.0) };
    case.stage.bus.nodes().break_route(one, other);
    case.pause(2 * OUTAGE).await;
    case.stage.bus.nodes().heal_route(one, other);
    case.stage.bus.nodes().whole(STREAM).await;
}

/// Stalls or cuts the link of clients to an edge, or of callers to a publisher-api, for a while.
async fn disturb_links(case: &mut Case) {
    let (edges, cut, index) =
        (case.random.u8(..3) < 2, case.random.bool(), case.random.usize(..EDGES.min(PUBLISHERS)));
    if cut {
        link(case, edges, index).cut()
    } else {
        link(case, edges, index).stall()
    }
    case.pause(BLINK).await;
    link(case, edges, index).heal();
}

fn link(case: &Case, edges: bool, index: usize) -> &Link {
    let links = if edges { &case.stage.to_edges } else { &case.stage.to_publishers };
    &links[index]
}
