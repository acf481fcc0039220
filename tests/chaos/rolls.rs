//! Two adjacent versions side by side: every part is replaced by the other version, in every order, while
//! messages flow.
//!
//! `MC_TEST_PREVIOUS_BIN` is the program of the previous commit; `tests/run` builds it. Either all parts but
//! the bus start as the previous version and end as the version under test, or the other way round.

use std::path::PathBuf;

use harness::tools;

use crate::case::{Case, Over, is_long, run_from};
use crate::stage::{EDGES, PUBLISHERS, Programs};

/// A short drain, so that every order has its turn.
const SETTINGS: &[(&str, &str)] = &[("edge.drain_window", "1s")];

/// A kind of part; all parts of one kind are replaced before the next kind.
#[derive(Debug, Clone, Copy)]
enum Part {
    Edge,
    Publisher,
    Adapter,
}

use Part::{Adapter, Edge, Publisher};

#[tokio::test]
async fn rolled_edge_publisher_adapter() {
    roll("rolled_edge_publisher_adapter", [Edge, Publisher, Adapter]).await;
}

#[tokio::test]
async fn rolled_edge_adapter_publisher() {
    roll("rolled_edge_adapter_publisher", [Edge, Adapter, Publisher]).await;
}

#[tokio::test]
async fn rolled_publisher_edge_adapter() {
    roll("rolled_publisher_edge_adapter", [Publisher, Edge, Adapter]).await;
}

#[tokio::test]
async fn rolled_publisher_adapter_edge() {
    roll("rolled_publisher_adapter_edge", [Publisher, Adapter, Edge]).await;
}

#[tokio::test]
async fn rolled_adapter_edge_publisher() {
    roll("rolled_adapter_edge_publisher", [Adapter, Edge, Publisher]).await;
}

#[tokio::test]
async fn rolled_adapter_publisher_edge() {
    roll("rolled_adapter_publisher_edge", [Adapter, Publisher, Edge]).await;
}

#[tokio::test]
async fn rolled_back() {
    let Some(previous) = previous("rolled_back") else { return };
    run_from("rolled_back", Over::Bus, Programs::default(), SETTINGS, async |case| {
        case.reach(0.1).await;
        replace_all(case, &[Edge, Publisher, Adapter], Some(&previous)).await;
    })
    .await;
}

#[tokio::test]
async fn rolled_bus() {
    let Some(previous) = previous("rolled_bus") else { return };
    let programs = Programs { bus: Some(previous.clone()), ..Programs::default() };
    run_from("rolled_bus", Over::Bus, programs, SETTINGS, async |case| {
        case.reach(0.1).await;
        // Upgrades, downgrades, and upgrades again, each on the data of the step before.
        for program in [None, Some(previous), None] {
            case.stage.programs.bus = program;
            case.stage.replace_bus().await;
        }
    })
    .await;
}

fn previous(name: &str) -> Option<PathBuf> {
    tools::find_optional("MC_TEST_PREVIOUS_BIN", name)
}

/// Replaces everything but the bus in this order; the long version also goes back in the reverse order, and
/// forth again.
async fn roll(name: &str, order: [Part; 3]) {
    let Some(previous) = previous(name) else { return };
    let programs = Programs { bus: None, ..Programs::all(Some(previous.clone())) };
    run_from(name, Over::Bus, programs, SETTINGS, async |case| {
        case.reach(0.1).await;
        replace_all(case, &order, None).await;
        if is_long() {
            let mut back = order;
            back.reverse();
            replace_all(case, &back, Some(&previous)).await;
            replace_all(case, &order, None).await;
        }
    })
    .await;
}

async fn replace_all(case: &mut Case, order: &[Part; 3], by: Option<&PathBuf>) {
    for part in order {
        let program = by.cloned();
        match part {
            Edge => {
                case.stage.programs.edge = program;
                for edge in 0..EDGES {
                    case.stage.replace_edge(edge).await;
                }
            }
            Publisher => {
                case.stage.programs.publisher = program;
                for publisher in 0..PUBLISHERS {
                    case.stage.replace_publisher(publisher).await;
                }
            }
            Adapter => {
                case.stage.programs.adapter = program;
                case.stage.replace_adapter().await;
            }
        }
    }
}
