//! After a scale-up, sessions move to the new edges: evenly, not all at once, and without loss for recovering
//! devices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::device::{Device, Received};
use harness::fleet::{Fleet, Over};
use harness::raw;
use harness::wait::eventually;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Devices, one per user.
const DEVICES: usize = 4_000;
/// Groups of users; each round publishes to the next group.
const GROUPS: usize = 10;
/// Share of the sessions that may move in a second, in thousandths.
const PER_MILLE: usize = 100;
/// Deadline for even numbers; about 10 s on an idle machine.
const BOUND: Duration = Duration::from_secs(300);

/// A load balancer that hands connections to the edges in turn.
#[derive(Clone)]
struct Balancer {
    address: SocketAddr,
    behind: Arc<Mutex<Vec<SocketAddr>>>,
    /// When each connection was accepted.
    came: Arc<Mutex<Vec<Instant>>>,
}

impl Balancer {
    async fn start(tasks: &mut JoinSet<()>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let balancer = Self { address, behind: Arc::default(), came: Arc::default() };
        tasks.spawn(balancer.clone().serve(listener));
        balancer
    }

    async fn serve(self, listener: TcpListener) {
        let mut links = JoinSet::new();
        for turn in 0.. {
            let (mut client, _) = listener.accept().await.expect("there is room for a connection");
            self.came.lock().await.push(Instant::now());
            let behind = self.behind.lock().await;
            let edge = behind[turn % behind.len()];
            drop(behind);
            links.spawn(async move {
                let Ok(mut server) = TcpStream::connect(edge).await else { return };
                // Either side may end the connection.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
            while links.try_join_next().is_some() {}
        }
    }
}

/// A recovering device that opens its new connection first when asked to move.
struct Client {
    balancer: SocketAddr,
    token: String,
    /// Id of the last received message.
    id: String,
    moves: Arc<AtomicUsize>,
    received: Arc<AtomicUsize>,
}

impl Client {
    async fn join(&mut self) -> Device {
        let mut device = Device::login(self.balancer, &self.token).await;
        device.send(&json!({ "op": "subscribe", "channel": "@user", "after": self.id }).to_string()).await;
        let Received::Text(answer) = device.next().await else { panic!("no answer to subscribe") };
        let answer: Value = serde_json::from_str(&answer).expect("it is JSON");
        assert_eq!((&answer["result"], &answer["recovered"]), (&json!(true), &json!(true)), "{answer}");
        if self.id.is_empty() {
            self.id = answer["id"].as_str().expect("it has an id").to_owned();
        }
        device
    }

    async fn live(mut self, mut device: Device) {
        for next in 0_usize.. {
            loop {
                match device.next().await {
                    Received::Text(text) => {
                        let frame: Value = serde_json::from_str(&text).expect("it is JSON");
                        if frame["event"] == "@reconnect" {
                            device = self.join().await;
                            self.moves.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        if frame["event"] == "@position" {
                            continue;
                        }
                        assert_eq!(
                            frame["d"],
                            next.to_string(),
                            "lost, doubled or out of order: {frame} after {}",
                            self.id
                        );
                        self.id = frame["id"].as_str().expect("it has an id").to_owned();
                        break;
                    }
                    other @ (Received::Binary(_) | Received::Close(..) | Received::Gone) => {
                        panic!("{}: not a message: {other:?}", self.token)
                    }
                }
            }
            self.received.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Brings all devices online, twenty at a time; each then runs in a task of its own.
async fn bring_online(
    balancer: SocketAddr,
    (moves, received): (&Arc<AtomicUsize>, &Arc<AtomicUsize>),
    tasks: &mut JoinSet<()>,
) {
    let mut joining = JoinSet::new();
    for group in 0..20 {
        let (moves, received) = (Arc::clone(moves), Arc::clone(received));
        joining.spawn(async move {
            let mut clients = Vec::new();
            for user in (group..DEVICES).step_by(20) {
                let (moves, received) = (Arc::clone(&moves), Arc::clone(&received));
                let mut client = Client {
                    balancer,
                    token: format!("user-{}", user + 1),
                    id: String::new(),
                    moves,
                    received,
                };
                let device = client.join().await;
                clients.push((client, device));
            }
            clients
        });
    }
    for (client, device) in joining.join_all().await.into_iter().flatten() {
        tasks.spawn(client.live(device));
    }
}

async fn sessions(fleet: &Fleet) -> Vec<usize> {
    let mut sessions = Vec::new();
    for edge in &fleet.edges {
        sessions.push(raw::metric(edge.admin, "mc_edge_sessions", "").await as usize);
    }
    sessions
}

#[tokio::test]
async fn a_connection_that_is_old_enough_is_asked_to_move_and_who_recovers_misses_nothing() {
    let fleet = Fleet::plan(Over::Bus)
        .set("edge.balance.max_connection_age", "2s")
        .set("edge.balance.per_mille_per_second", 1_000)
        .start()
        .await;
    let publisher = fleet.publisher(0);
    let mut plain = fleet.online(0, "user-1").await;
    let (mut device, _) = Device::back(fleet.edge(0), "user-1", "").await;
    publisher.publish_to(2, "user:1", "one").await;
    let first = device.expect_messages(["one"]).await;
    // The reconnect event names a time, and the new connection is open before the old one ends.
    let told = device.next_json().await;
    assert_eq!((&told["event"], &told["ids"]["@user"]), (&json!("@reconnect"), &json!(first)), "{told}");
    let mut next = Device::recovered(fleet.edge(0), "user-1", &first).await;
    publisher.publish("user:1", "two").await;
    next.expect_messages(["two"]).await;
    for old in [&mut device, &mut plain] {
        loop {
            match old.next().await {
                Received::Text(_) => {}
                Received::Close(code, _) => break assert_eq!(code, 1012),
                other @ (Received::Binary(_) | Received::Gone) => panic!("not a close: {other:?}"),
            }
        }
    }
    let moved = raw::metric(fleet.edges[0].admin, "mc_edge_sessions_moved_total", "reason=\"age\"").await;
    assert!(moved >= 2.0, "{moved}");
    drop((device, plain, next));
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_move_to_new_edges_evenly_and_slowly_and_who_recovers_misses_nothing() {
    let mut fleet = Fleet::plan(Over::Bus)
        .edges(2)
        .set("edge.balance.after", "1s")
        .set("edge.balance.per_mille_per_second", PER_MILLE)
        // Thousands of logins come at once here; their duration is not under test.
        .set("edge.handshake_timeout", "60s")
        .set("edge.login_timeout", "60s")
        .set("edge.auth_deadline", "60s")
        .set("edge.subscribe_deadline", "60s")
        .set("auth_adapter.deadline", "60s")
        .start()
        .await;
    let mut tasks = JoinSet::new();
    let balancer = Balancer::start(&mut tasks).await;
    balancer.behind.lock().await.extend([fleet.edge(0), fleet.edge(1)]);
    let (moves, received) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    bring_online(balancer.address, (&moves, &received), &mut tasks).await;
    assert_eq!(sessions(&fleet).await, [DEVICES / 2, DEVICES / 2]);

    fleet.add_edge().await;
    fleet.add_edge().await;
    fleet.ready().await;
    balancer.behind.lock().await.extend([fleet.edge(2), fleet.edge(3)]);
    balancer.came.lock().await.clear();
    let (began, publisher) = (Instant::now(), fleet.publisher(0));
    let mut rounds = 0;
    // Each round publishes the next message to a tenth of the users.
    let publish = async |round: usize| {
        let users: Vec<_> = (1..=DEVICES).filter(|user| user % GROUPS == round % GROUPS).collect();
        let call = json!({ "to": { "users": users }, "raw": (round / GROUPS).to_string(), "receipt": false });
        let request = publisher.request(reqwest::Method::POST, "/v1/publish").json(&call);
        let answer = publisher.send(request).await;
        assert_eq!(answer.status, 200, "{:?}", answer.headers);
    };
    let spread = loop {
        publish(rounds).await;
        rounds += 1;
        let now = sessions(&fleet).await;
        let (even, all) = (DEVICES as f64 / 4.0, now.iter().sum::<usize>());
        if all == DEVICES && now.iter().all(|one| (*one as f64 - even).abs() <= even * 0.15) {
            break now;
        }
        assert!(began.elapsed() < BOUND, "after {BOUND:?} the sessions are {now:?}");
        while let Some(ended) = tasks.try_join_next() {
            ended.expect("no client loses anything");
        }
    };
    let took = began.elapsed();
    for _ in 0..GROUPS {
        publish(rounds).await;
        rounds += 1;
    }
    eventually("everybody received everything once and in order", async || {
        while let Some(ended) = tasks.try_join_next() {
            ended.expect("no client loses anything");
        }
        received.load(Ordering::Relaxed) == rounds * (DEVICES / GROUPS)
    })
    .await;
    let came = balancer.came.lock().await;
    let second = Duration::from_secs(1);
    let busiest =
        came.iter().map(|from| came.iter().filter(|at| (*from..*from + second).contains(*at)).count());
    let busiest = busiest.max().unwrap_or_default();
    let moved = moves.load(Ordering::Relaxed);
    println!(
        "sessions {spread:?} after {took:.1?}; {moved} moves, {busiest} in the busiest second \
         ({:.1} % of the sessions), {} messages to each",
        busiest as f64 * 100.0 / DEVICES as f64,
        rounds / GROUPS
    );
    // Unit tests of the plan hold the pace itself; here connections may come late, and then together.
    assert!(busiest <= 2 * DEVICES * PER_MILLE / 1_000, "{busiest} connections came within a second");
    assert!(moved >= DEVICES / 4, "who moved was told beforehand");
    drop(came);
    tasks.shutdown().await;
    fleet.end().await;
}
