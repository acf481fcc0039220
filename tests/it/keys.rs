//! Publishers that changed only their URL, and the whole life of a key: made, used, replaced, revoked.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use harness::cluster::{Cluster, Plan};
use harness::device::Device;
use harness::program::{Launch, binary};
use harness::publisher::{Published, Publisher};
use harness::tools;
use harness::wait::{soon, until};
use publisher_api::keys::{KeyConfig, NewKey};
use reqwest::Method;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

/// A text that needs escaping in every client.
const MESSAGE: &str = "{\"event\":\"@user\",\"data\":{\"msg\":\"Grüße, \u{1f30d} 'and' \\\"more\\\"\"}}";

fn make(name: &str) -> (KeyConfig, String) {
    let config = KeyConfig { name: name.into(), channels: vec!["user:*".into()], ..KeyConfig::default() };
    let key = NewKey::make(config.clone()).expect("it is a good key");
    let secret = key.secret().to_owned();
    (KeyConfig { hash: publisher_api::keys::SecretHash::of(&secret).to_string(), ..config }, secret)
}

/// One of each part; the publisher-api knows one key. Returns the plan and the secret of the key.
fn keyed() -> (Plan, String) {
    let (config, secret) = make("shop");
    (Cluster::plan().publisher(|publisher| publisher.keys = vec![config]), secret)
}

fn client(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// Runs a publisher to its end; returns its output.
async fn printed(command: &mut Command) -> String {
    let command = command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = soon("the publisher ends", command.output()).await.expect("it can be started");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("it prints text").trim_end().to_owned()
}

/// Expects a publisher that is told only a URL to reach a device with the key in the URL, and not without.
async fn expect_only_the_url_matters(publisher: impl Fn(&str) -> Command) {
    let (plan, secret) = keyed();
    let cluster = plan.start().await;
    let mut device: Device = cluster.online(0, "user-1001").await;
    let address = cluster.publisher_address(0);
    let url = format!("http://shop:{secret}@{address}/v1/mesh/publish");
    assert_eq!(printed(&mut publisher(&url)).await, r#"{"E":null,"r":{"s":1,"f":0}} 200"#);
    device.expect_text(MESSAGE).await;
    for userinfo in ["", "shop:wrong@", &format!("crm:{secret}@")] {
        let url = format!("http://{userinfo}{address}/v1/mesh/publish");
        let answer = printed(&mut publisher(&url)).await;
        assert!(answer.starts_with(r#"{"E":{"c":105,"m":""#) && answer.ends_with(" 401"), "{url}: {answer}");
    }
    device.expect_nothing().await;
    device.close().await;
    cluster.end().await;
}

#[tokio::test]
async fn curl_publishes_with_the_key_in_its_url() {
    let Some(curl) = tools::find("MC_TEST_CURL", "a publisher with curl") else { return };
    let body = serde_json::json!({ "c": "user:1001", "d": MESSAGE }).to_string();
    expect_only_the_url_matters(|url| {
        let mut command = Command::new(&curl);
        command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "30"]);
        command.args(["--write-out", " %{http_code}"]);
        command.args(["--header", "Content-Type: application/json", "--data-raw", &body, url]);
        command
    })
    .await;
}

#[tokio::test]
async fn a_python_publisher_changes_its_url_and_nothing_else() {
    let Some(python) = tools::find("MC_TEST_PYTHON", "a publisher in Python") else { return };
    expect_only_the_url_matters(|url| {
        let mut command = Command::new(&python);
        command.arg(client("publish.py")).args([url, "user:1001", MESSAGE]).env("NO_PROXY", "*");
        command.env("PYTHONIOENCODING", "utf-8");
        command
    })
    .await;
}

#[tokio::test]
async fn a_php_publisher_changes_its_url_and_nothing_else() {
    let Some(php) = tools::find("MC_TEST_PHP", "a publisher in PHP") else { return };
    for how in ["curl", "stream"] {
        expect_only_the_url_matters(|url| {
            let mut command = Command::new(&php);
            command.arg(client("publish.php")).args([how, url, "user:1001", MESSAGE]);
            command
        })
        .await;
    }
}

#[tokio::test]
async fn a_python_publisher_over_the_socket_works_until_its_key_is_revoked() {
    let Some(python) = tools::find("MC_TEST_PYTHON", "a publisher in Python over the socket") else { return };
    let keys = KeysFile::new();
    let (shop, crm) = (keys.make("shop").await, keys.make("crm").await);
    keys.write(&[&shop, &crm]);
    let path = keys.path();
    let cluster = Cluster::plan().publisher(|config| config.keys_file = path).start().await;
    let mut device = cluster.online(0, "user-1001").await;
    let address = cluster.publisher_address(0);
    let start = |url: &str| {
        Command::new(&python)
            .arg(client("publish_socket.py"))
            .args([url, "user:1001", MESSAGE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Python can be started")
    };
    let mut publisher = start(&format!("ws://shop:{}@{address}/ws/v1", shop.secret));
    let mut publish = publisher.stdin.take().expect("it is piped");
    let mut lines = BufReader::new(publisher.stdout.take().expect("it is piped")).lines();
    let mut line = async || soon("a line of the publisher", lines.next_line()).await.expect("it is text");
    publish.write_all(b"\n").await.expect("it listens");
    assert_eq!(line().await.as_deref(), Some(r#"{"E":null,"r":{"s":1,"f":0},"i":0}"#));
    device.expect_text(MESSAGE).await;

    keys.write(&[&crm]);
    eventually_answers(address, &shop, 401).await;
    publish.write_all(b"\n\n").await.expect("it listens");
    let answer = line().await.unwrap_or_default();
    assert!(answer.starts_with(r#"{"E":{"c":105,"#) && answer.ends_with(r#""i":1}"#), "{answer}");
    assert_eq!(line().await.as_deref(), Some("closed 4401"));
    device.expect_nothing().await;

    let mut stranger = start(&format!("ws://shop:{}@{address}/ws/v1", shop.secret));
    let mut lines = BufReader::new(stranger.stdout.take().expect("it is piped")).lines();
    let refused = soon("a line of the stranger", lines.next_line()).await.expect("it is text");
    assert_eq!(refused.as_deref(), Some("refused 401"));
    for mut child in [publisher, stranger] {
        assert!(soon("the publisher ends", child.wait()).await.expect("it is our child").success());
    }
    device.close().await;
    cluster.end().await;
}

/// A key as printed by `message-center key new`.
pub(crate) struct Made {
    name: &'static str,
    pub(crate) secret: String,
    entry: String,
}

/// The keys file of a publisher-api.
pub(crate) struct KeysFile(TempDir);

impl KeysFile {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().expect("there is room for a file"))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("keys.toml")
    }

    /// Makes a key that may publish, as an operator does.
    async fn make(&self, name: &'static str) -> Made {
        self.make_for(name, "publish").await
    }

    /// Makes a key with these scopes.
    pub(crate) async fn make_for(&self, name: &'static str, scopes: &str) -> Made {
        let made = Launch::of("key").argument("new").argument("--name").argument(name).argument("--for-file");
        let made = made.argument("--scope").argument(scopes).run().await;
        assert_eq!(made.code, 0, "{made:?}");
        let secret = made.stderr.lines().map(str::trim).find(|line| line.starts_with("mck_"));
        let secret = secret.unwrap_or_else(|| panic!("no secret in {made:?}")).to_owned();
        assert!(!made.stdout.contains(&secret), "the entry holds the secret: {made:?}");
        Made { name, secret, entry: made.stdout }
    }

    /// Replaces the file as careful tools do: by a rename.
    pub(crate) fn write(&self, keys: &[&Made]) {
        let mut file = tempfile::NamedTempFile::new_in(self.0.path()).expect("there is room for a file");
        for key in keys {
            file.write_all(key.entry.as_bytes()).expect("there is room for a file");
        }
        file.persist(self.path()).expect("it is the same disk");
    }
}

async fn publish(address: SocketAddr, key: &Made) -> Published {
    let publisher = Publisher::of(address);
    let request = publisher.request(Method::POST, "/v1/mesh/publish").basic_auth(key.name, Some(&key.secret));
    let request = request.header("content-type", "application/json").body(r#"{"c":"user:1","d":"x"}"#);
    publisher.send(request).await
}

/// Waits until a publish with this key gets this status.
async fn eventually_answers(address: SocketAddr, key: &Made, status: u16) {
    until(&format!("{} is answered {status}", key.name), async || {
        (publish(address, key).await.status == status).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_key_is_made_used_rotated_and_revoked_while_the_program_runs() {
    let keys = KeysFile::new();
    let (old, new) = (keys.make("shop").await, keys.make("shop").await);
    keys.write(&[&old]);
    let mut program = ["edge.listen", "edge.admin", "publisher_api.listen", "demo.listen"]
        .into_iter()
        .fold(Launch::of("run"), |launch, key| launch.set(key, "127.0.0.1:0"))
        .set("publisher_api.keys_file", keys.path().display())
        .set("log.filter", "debug")
        .start();
    let address = program.address("publisher-api listens").await;
    let publisher = Publisher::of(address);
    publisher.publish("user:1", "x").await.expect_error(401, 105);
    eventually_answers(address, &old, 200).await;
    publish(address, &new).await.expect_error(401, 105);

    keys.write(&[&old, &new]);
    eventually_answers(address, &new, 200).await;
    assert_eq!(publish(address, &old).await.status, 200);

    keys.write(&[&new]);
    eventually_answers(address, &old, 401).await;
    assert_eq!(publish(address, &new).await.status, 200);

    keys.write(&[]);
    program.logged("the new keys can't be used").await;
    assert_eq!(publish(address, &new).await.status, 200);
    publisher.publish("user:1", "x").await.expect_error(401, 105);
    let logged = format!("{}{}", program.stdout(), program.stderr());
    for key in [&old, &new] {
        assert!(!logged.contains(&key.secret), "a secret is in the log");
    }
    program.end().await;
}

#[tokio::test]
async fn keys_in_the_configuration_change_while_the_program_runs() {
    let keys = KeysFile::new();
    let (one, other) = (keys.make("shop").await, keys.make("crm").await);
    let config = keys.0.path().join("message-center.toml");
    let write = |key: &Made| {
        let entry = key.entry.replace("[[keys]]", "[[publisher_api.keys]]");
        let part = keys.0.path().join("part");
        std::fs::write(&part, entry).expect("there is room for a file");
        std::fs::rename(&part, &config).expect("it is the same folder");
    };
    write(&one);
    let mut program = ["edge.listen", "edge.admin", "publisher_api.listen", "demo.listen"]
        .into_iter()
        .fold(Launch::of("run"), |launch, key| launch.set(key, "127.0.0.1:0"))
        .argument("--config")
        .argument(config.to_str().expect("temporary files have plain names"))
        .start();
    let address = program.address("publisher-api listens").await;
    eventually_answers(address, &one, 200).await;
    write(&other);
    program.signal("HUP").await;
    eventually_answers(address, &other, 200).await;
    publish(address, &one).await.expect_error(401, 105);
    // No signal is needed: the publisher-api polls the file.
    write(&one);
    eventually_answers(address, &one, 200).await;
    publish(address, &other).await.expect_error(401, 105);
    program.end().await;
}

#[tokio::test]
async fn with_a_key_publishing_may_listen_off_loopback() {
    let keys = KeysFile::new();
    let key = keys.make("shop").await;
    keys.write(&[&key]);
    let open = || Launch::of("publisher-api").set("publisher_api.listen", "0.0.0.0:0");
    let refused = open().argument("--check-config").run().await;
    assert!(refused.code == 64 && refused.stderr.contains("message-center key new"), "{refused:?}");
    let with_file = open().set("publisher_api.keys_file", keys.path().display());
    assert_eq!(with_file.argument("--check-config").run().await.code, 0);

    let config = tempfile::NamedTempFile::new().expect("there is room for a file");
    let entry = key.entry.replace("[[keys]]", "[[publisher_api.keys]]");
    std::fs::write(config.path(), entry).expect("there is room for a file");
    let path = config.path().to_str().expect("temporary files have plain names");
    let printed = open().argument("--config").argument(path).argument("--print-config").run().await;
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(
        printed.stdout.contains("name = \"shop\"") && !printed.stdout.contains(&key.secret),
        "{printed:?}"
    );

    keys.write(&[]);
    let empty =
        open().set("publisher_api.keys_file", keys.path().display()).argument("--check-config").run().await;
    assert!(empty.code == 64 && empty.stderr.contains("holds no keys"), "{empty:?}");
}

#[tokio::test]
async fn a_secret_of_ones_own_is_hashed_from_standard_input() {
    let hash = async |secret: &str| {
        let mut child = Command::new(binary())
            .args(["key", "hash"])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program can be started");
        let mut input = child.stdin.take().expect("it is piped");
        input.write_all(secret.as_bytes()).await.expect("it reads");
        drop(input);
        soon("the program ends", child.wait_with_output()).await.expect("it is our child")
    };
    let secret = "a-key-from-the-gateway-before";
    let hashed = hash(&format!("{secret}\n")).await;
    let expected = format!("{}\n", publisher_api::keys::SecretHash::of(secret));
    assert!(hashed.status.success() && hashed.stdout == expected.as_bytes(), "{hashed:?}");
    let short = hash("hunter2\n").await;
    let complaint = String::from_utf8_lossy(&short.stderr);
    assert!(short.status.code() == Some(64) && short.stdout.is_empty(), "{short:?}");
    assert!(complaint.contains("key new") && !complaint.contains("hunter2"), "{complaint}");
}
