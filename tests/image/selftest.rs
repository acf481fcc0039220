//! The image at work, inside its own root filesystem: it starts as its user with a read-only root, is ready,
//! and passes its own self-test.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;

use harness::program::Program;

use crate::built::images;
use crate::compose;
use crate::root::Root;

/// Starts the demo as the compose file does, on free ports.
async fn start(root: &Root) -> (Program, [SocketAddr; 3]) {
    let mut launch = root.launch("run");
    for (name, value) in compose::environment() {
        launch = launch.variable(&name, &compose::on_a_free_port(&value));
    }
    // Streams go to the disk; the harness would keep them in memory.
    let launch = launch.variable("MC_BUS__STORE__SYNC", "strict").set("demo.listen", "127.0.0.1:0");
    let mut program = launch.set("edge.admin", "127.0.0.1:0").start();
    let edge = program.address("the edge listens").await;
    let publishing = program.address("publisher-api listens").await;
    let admin = program.address("the admin port listens").await;
    (program, [edge, publishing, admin])
}

/// The secret in the printed lines.
async fn printed_key(program: &Program) -> String {
    let line = program.printed("curl --request POST").await;
    let (_, rest) = line.split_once("http://demo:").expect("the key of the demo is printed");
    rest.split_once('@').expect("the host follows").0.to_owned()
}

async fn passes_its_self_test(architecture: &str, test: &str) {
    let Some(built) = images(test) else { return };
    let Some(root) = Root::unpack(built, architecture, test) else { return };
    let (program, [edge, publishing, admin]) = start(&root).await;
    let key = printed_key(&program).await;
    let probe = root.launch("probe").argument("http://127.0.0.1:1/livez");
    let probe = probe.argument(&format!("http://127.0.0.1:{}/readyz", admin.port())).run().await;
    assert_eq!((probe.code, probe.stderr.as_str()), (0, ""), "one of the two is ready");
    let probe = root.launch("probe").argument("http://127.0.0.1:1/livez").run().await;
    assert_eq!(probe.code, 1);
    assert!(probe.stderr.contains("http://127.0.0.1:1/livez"), "{}", probe.stderr);

    let arguments = |key: &str| {
        let edge = format!("ws://127.0.0.1:{}/message-center", edge.port());
        let publisher = format!("http://127.0.0.1:{}", publishing.port());
        let login = ["--token", "user-1001", "--user", "1001"].map(str::to_owned);
        [
            ["--edge", &edge, "--publisher", &publisher, "--key", key].map(str::to_owned).to_vec(),
            login.to_vec(),
        ]
        .concat()
    };
    let selftest = async |key: &str| {
        let launch =
            arguments(key).iter().fold(root.launch("selftest"), |launch, word| launch.argument(word));
        launch.run().await
    };
    let done = selftest(&key).await;
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    assert!(
        done.stdout.contains("recovered what was missed") && done.stdout.contains("has passed"),
        "{}",
        done.stdout
    );
    let stranger = selftest("mck_somebody-elses-key-that-is-long-enough").await;
    assert_eq!(stranger.code, 1, "a stranger publishes: {}", stranger.stdout);
    assert!(stranger.stderr.contains("401"), "{}", stranger.stderr);

    let kept = root.data().join("message-center-data");
    let owner = std::fs::metadata(&kept).expect("messages are kept in the volume").uid();
    let expected = std::fs::metadata(root.data()).expect("it is there").uid();
    assert_eq!(owner, expected, "the data belongs to the user of the image");
    program.end().await;
}

#[tokio::test]
async fn the_image_for_amd64_passes_its_self_test_from_inside_its_own_root() {
    passes_its_self_test("amd64", "the_image_for_amd64_passes_its_self_test_from_inside_its_own_root").await;
}

#[tokio::test]
async fn the_image_for_arm64_passes_its_self_test_from_inside_its_own_root() {
    passes_its_self_test("arm64", "the_image_for_arm64_passes_its_self_test_from_inside_its_own_root").await;
}

#[tokio::test]
async fn without_a_volume_the_image_says_that_it_cannot_keep_messages() {
    let test = "without_a_volume_the_image_says_that_it_cannot_keep_messages";
    let Some(built) = images(test) else { return };
    let Some(root) = Root::unpack(built, "amd64", test) else { return };
    let launch = root.launch("run").variable("MC_BUS__STORE__SYNC", "strict");
    let launch = launch.set("bus.store.path", "/usr/data").set("edge.admin", "127.0.0.1:0");
    let done = launch.set("demo.listen", "127.0.0.1:0").run().await;
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stderr.contains("/usr/data"), "{}", done.stderr);
}
