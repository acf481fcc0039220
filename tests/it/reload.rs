//! Changes while the process runs: SIGHUP, changed files, certificates. They close no socket.

use std::net::SocketAddr;
use std::path::Path;

use harness::certificate::Authority;
use harness::device::{Device, PATH};
use harness::program::{Launch, Program};
use harness::publisher::Publisher;
use harness::raw;
use harness::wait::eventually;
use tempfile::TempDir;

/// All parts in one process, on free ports, with this configuration file.
fn launch(config: &Path) -> Launch {
    let keys = ["edge.listen", "edge.admin", "publisher_api.listen", "demo.listen"];
    let launch = Launch::of("run").argument("--config").argument(&config.display().to_string());
    keys.into_iter().fold(launch, |launch, key| launch.set(key, "127.0.0.1:0"))
}

async fn reloads(admin: SocketAddr, outcome: &str) -> f64 {
    raw::metric(admin, "mc_config_reloads_total", outcome).await
}

async fn admits(edge: SocketAddr, origin: &str) -> bool {
    Device::try_connect(edge, PATH, Some(origin)).await.is_ok()
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).expect("there is room for a file");
}

async fn addresses(program: &mut Program) -> (SocketAddr, SocketAddr, SocketAddr) {
    let edge = program.address("the edge listens").await;
    let publishing = program.address("publisher-api listens").await;
    (edge, publishing, program.address("the admin port listens").await)
}

#[tokio::test]
async fn sighup_reads_the_file_again_and_a_bad_one_changes_nothing() {
    let folder = TempDir::new().expect("there is room for a folder");
    let config = folder.path().join("message-center.toml");
    write(&config, "[edge]\norigins = [\"https://old.example\"]\n");
    let mut program = launch(&config).start();
    program.expect_errors();
    let (edge, publishing, admin) = addresses(&mut program).await;
    program.printed("curl ").await;
    let mut device = Device::online(edge, "user-1").await;
    assert!(admits(edge, "https://old.example").await && !admits(edge, "https://new.example").await);

    write(&config, "[edge]\norigins = [\"https://new.example\"]\nmax_subscriptions = 3\n");
    program.signal("HUP").await;
    eventually("the new origins hold", async || admits(edge, "https://new.example").await).await;
    assert!(!admits(edge, "https://old.example").await);
    let warning = program.logged("need a restart").await;
    assert_eq!(warning["keys"], "edge.max_subscriptions", "{warning}");

    let refused = reloads(admin, "refused").await;
    write(&config, "[edge]\norigins = 7\nmax_frame = \"1B\"\n");
    program.signal("HUP").await;
    eventually("the bad file is refused", async || reloads(admin, "refused").await > refused).await;
    let faults = program.logged("can't be used, and the old one stays").await["message"].to_string();
    assert!(faults.contains("edge.origins") && faults.contains("edge.max_frame"), "{faults}");
    assert!(admits(edge, "https://new.example").await);

    Publisher::of(publishing).publish_to(1, "user:1", "still here").await;
    device.expect_text("still here").await;
    device.close().await;
    program.end().await;
}

#[tokio::test]
async fn a_changed_file_is_found_without_a_signal() {
    let folder = TempDir::new().expect("there is room for a folder");
    let config = folder.path().join("message-center.toml");
    write(&config, "# nothing\n");
    let mut program = launch(&config).start();
    let (edge, _, admin) = addresses(&mut program).await;
    program.printed("curl ").await;
    assert!(admits(edge, "https://any.example").await);
    // A mounted volume changes like this: another file takes the name.
    let next = folder.path().join("next");
    write(&next, "[edge]\norigins = [\"https://one.example\"]\n");
    std::fs::rename(next, &config).expect("it can be renamed");
    eventually("the new origins hold", async || !admits(edge, "https://any.example").await).await;
    assert!(reloads(admin, "applied").await >= 1.0);
    program.end().await;
}

#[tokio::test]
async fn publishing_over_tls_goes_on_when_the_certificate_is_renewed() {
    let folder = TempDir::new().expect("there is room for a folder");
    let [first, second] = ["first", "second"].map(|name| Authority::new(folder.path(), name));
    let files = first.issue("publishing");
    let config = folder.path().join("message-center.toml");
    let text = format!("[publisher_api.tls]\ncert = {:?}\nkey = {:?}\n", files.cert, files.key);
    write(&config, &text);
    let mut program = launch(&config).start();
    let (edge, publishing, admin) = addresses(&mut program).await;
    program.printed("curl ").await;
    let mut device = Device::online(edge, "user-1").await;
    // This client holds one connection all along.
    let before = Publisher::over_tls(publishing, &first.file);
    before.publish_to(1, "user:1", "with the first").await;
    assert!(!Publisher::over_tls(publishing, &second.file).is_answered().await);
    assert!(!Publisher::of(publishing).is_answered().await, "plain text is not spoken here");
    let expiry = "mc_publisher_tls_certificate_expiry_timestamp_seconds";
    assert!(raw::metric(admin, expiry, "").await > 1e9);

    second.issue("publishing");
    program.signal("HUP").await;
    let after = Publisher::over_tls(publishing, &second.file);
    eventually("the new certificate is shown", async || {
        Publisher::over_tls(publishing, &second.file).is_answered().await
    })
    .await;
    after.publish_to(1, "user:1", "with the second").await;
    before.publish_to(1, "user:1", "on the old connection").await;
    for text in ["with the first", "with the second", "on the old connection"] {
        device.expect_text(text).await;
    }
    device.close().await;
    program.end().await;
}

/// Editors and scripts save like this: the file is empty for a moment, then half written.
#[tokio::test]
async fn a_file_that_is_cut_off_opens_no_door() {
    let folder = TempDir::new().expect("there is room for a folder");
    let config = folder.path().join("message-center.toml");
    let hash = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let whole = format!(
        "[edge]\norigins = [\"https://a.example\"]\n[[publisher_api.keys]]\nname = \"shop\"\nhash = \"{hash}\"\n"
    );
    write(&config, &whole);
    let mut program = launch(&config).start();
    program.expect_errors();
    let (edge, publishing, admin) = addresses(&mut program).await;
    let publisher = Publisher::of(publishing);
    let is_closed = async || {
        let foreign = admits(edge, "https://evil.example").await;
        !foreign && publisher.publish("user:1", "without a key").await.status == 401
    };
    assert!(is_closed().await);
    for cut in ["", "[edge]\n", "[edge]\norigins = []\n", &whole[..whole.find("[[").expect("it is there")]] {
        let refused = reloads(admin, "refused").await;
        write(&config, cut);
        program.signal("HUP").await;
        eventually("it is refused", async || {
            assert!(is_closed().await, "{cut:?}");
            reloads(admin, "refused").await > refused
        })
        .await;
        assert!(is_closed().await, "{cut:?}");
    }
    program.end().await;
}
