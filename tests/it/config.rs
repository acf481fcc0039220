//! Starting with a bad configuration: every error is named with its key and its remedy, and by the exit code.

use std::ffi::OsStr;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;

use harness::program::{Finished, Launch};
use tempfile::NamedTempFile;
use tokio::net::TcpListener;

/// The exit code for an unusable configuration.
const BAD_CONFIG: i32 = 64;
const PARTS: [&str; 5] = ["run", "edge", "publisher-api", "auth-adapter", "bus"];

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("there is room for a file");
    file.write_all(text.as_bytes()).expect("there is room for a file");
    file
}

fn path(file: &NamedTempFile) -> &str {
    file.path().to_str().expect("temporary files have plain names")
}

/// Starts a part on free ports, so that only the tested error can occur.
fn launch(part: &str) -> Launch {
    let ports =
        ["edge.listen", "edge.admin", "publisher_api.listen", "publisher_api.admin", "auth_adapter.admin"];
    let more = ["bus.admin", "demo.listen"];
    let launch =
        ports.iter().chain(&more).fold(Launch::of(part), |launch, key| launch.set(key, "127.0.0.1:0"));
    let launch = if part == "bus" { launch.set("bus.listen", "127.0.0.1:0") } else { launch };
    if part == "auth-adapter" {
        launch.argument("--auth-url").argument("http://127.0.0.1:1/auth")
    } else {
        launch
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = taken.local_addr().expect("it is bound");
    for (part, key) in [
        ("run", "edge.listen"),
        ("run", "edge.admin"),
        ("run", "publisher_api.listen"),
        ("run", "bus.listen"),
        ("edge", "edge.listen"),
        ("edge", "edge.admin"),
        ("publisher-api", "publisher_api.listen"),
        ("publisher-api", "publisher_api.admin"),
        ("publisher-api", "bus.listen"),
        ("auth-adapter", "auth_adapter.admin"),
        ("bus", "bus.listen"),
        ("bus", "bus.admin"),
    ] {
        let finished = launch(part).set(key, address).run().await;
        expect_port_taken(&finished, part, key, address);
    }
}

fn expect_port_taken(finished: &Finished, part: &str, key: &str, address: SocketAddr) {
    assert_eq!(finished.code, 1, "{part} {key}: {finished:?}");
    let port = address.port().to_string();
    let line = finished.stderr.lines().find(|line| line.contains(&port) && line.contains("taken"));
    let line = line.unwrap_or_else(|| panic!("{part} {key}: {finished:?}"));
    assert!(line.contains(key) || key == "bus.listen", "{part} {key}: {line}");
}

#[tokio::test]
async fn all_errors_of_a_configuration_are_named_at_once() {
    let file = file(
        "[edge]\nlisten = \"nowhere\"\nno_such_key = 1\n[publisher_api]\nlisten = \"0.0.0.0:6789\"\nheartbeat = \"soon\"\n\
         [auth_adapter]\nurl = \"ftp://x\"\n[bus]\nuser = \"only\"\n[log]\nfilter = \"===\"\n[smell]\nx = 1\n\
         [[channels]]\nname = \"{x\"\nchannel = \"a\"\n",
    );
    for argument in ["--check-config", "--print-config"] {
        let finished = Launch::of("run")
            .argument("--config")
            .argument(path(&file))
            .variable("MC_EDGE__HANDSHAKE_TIMEOUT", "eternity")
            .variable("MC_EDGE_LISTEN", "127.0.0.1:1")
            .argument(argument)
            .run()
            .await;
        assert_eq!(finished.code, BAD_CONFIG, "{finished:?}");
        for key in [
            "edge.listen",
            "edge.no_such_key",
            "edge.handshake_timeout",
            "MC_EDGE__LISTEN",
            "publisher_api.listen",
            "publisher_api.heartbeat",
            "auth_adapter.url",
            "bus.password",
            "log.filter",
            "smell",
            "channels.0.name",
        ] {
            assert!(finished.stderr.contains(key), "{key} is not named: {}", finished.stderr);
        }
    }
}

#[tokio::test]
async fn rules_that_meet_in_a_channel_and_differ_are_refused_with_both_names() {
    let file = file(
        "[[channels]]\nname = \"@user\"\nchannel = \"user:{uid}\"\nhistory = true\n\
         [[channels]]\nname = \"{id}@user\"\nchannel = \"user:{id}\"\nlogin = false\nhistory = false\n",
    );
    for part in ["run", "edge", "publisher-api"] {
        let launch = || launch(part).argument("--config").argument(path(&file));
        for launch in [launch(), launch().argument("--check-config")] {
            let finished = launch.run().await;
            assert_eq!(finished.code, BAD_CONFIG, "{part}: {finished:?}");
            for told in [
                "channels.1.history",
                "channels.1.login",
                "\"@user\"",
                "\"{id}@user\"",
                "\"user:x\"",
                "give both",
            ] {
                assert!(finished.stderr.contains(told), "{part}: {told} is not told: {}", finished.stderr);
            }
        }
    }
}

#[tokio::test]
async fn rules_of_one_name_are_refused() {
    let file = file(
        "[[channels]]\nname = \"@news\"\nchannel = \"news\"\nlogin = false\n\
         [[channels]]\nname = \"@news\"\nchannel = \"other\"\nlogin = false\n",
    );
    for part in ["run", "edge", "publisher-api"] {
        let launch = launch(part).argument("--config").argument(path(&file)).argument("--check-config");
        let finished = launch.run().await;
        assert_eq!(finished.code, BAD_CONFIG, "{part}: {finished:?}");
        for told in ["channels.1.name", "two rules have the name \"@news\"", "channels.0"] {
            assert!(finished.stderr.contains(told), "{part}: {told} is not told: {}", finished.stderr);
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_or_is_no_toml_is_named() {
    let missing = Launch::bare().argument("--config").argument("no/such/file.toml").run().await;
    assert_eq!(missing.code, BAD_CONFIG);
    assert!(missing.stderr.contains("no/such/file.toml"), "{missing:?}");
    let broken = file("[edge\nlisten = 5");
    let broken = Launch::bare().argument("--config").argument(path(&broken)).run().await;
    assert_eq!(broken.code, BAD_CONFIG);
    assert!(broken.stderr.contains("TOML"), "{broken:?}");
}

#[tokio::test]
async fn the_defaults_of_every_part_are_good_and_what_is_printed_can_be_read_again() {
    for part in PARTS {
        let checked = launch(part).argument("--check-config").run().await;
        assert_eq!(checked.code, 0, "{part}: {checked:?}");
        let printed = launch(part).argument("--print-config").run().await;
        assert_eq!(printed.code, 0, "{part}: {printed:?}");
        let file = file(&printed.stdout);
        let again = Launch::of(part)
            .argument("--config")
            .argument(path(&file))
            .argument("--print-config")
            .run()
            .await;
        assert_eq!((again.code, &again.stdout), (0, &printed.stdout), "{part}");
    }
}

#[tokio::test]
async fn the_environment_stands_over_the_file_and_flags_over_both() {
    let file = file("[edge]\npath = \"/from-file\"\nmax_sessions = 1\nmax_handshakes = 1\n");
    let printed = Launch::of("edge")
        .variable("MC_CONFIG", path(&file))
        .variable("MC_EDGE__MAX_SESSIONS", "2")
        .variable("MC_EDGE__MAX_HANDSHAKES", "2")
        .set("edge.max_handshakes", "3")
        .argument("--print-config")
        .run()
        .await;
    assert_eq!(printed.code, 0, "{printed:?}");
    for line in ["path = \"/from-file\"", "max_sessions = 2", "max_handshakes = 3"] {
        assert!(printed.stdout.contains(line), "{line}: {}", printed.stdout);
    }
}

#[tokio::test]
async fn secrets_are_not_printed() {
    let printed = launch("run")
        .variable("MC_BUS__USER", "edge")
        .variable("MC_BUS__PASSWORD", "12345678")
        .set("auth_adapter.url", "http://127.0.0.1:1/")
        .set("auth_adapter.headers.Authorization", "open-sesame")
        .argument("--print-config")
        .run()
        .await;
    assert_eq!(printed.code, 0, "{printed:?}");
    let all = format!("{}{}", printed.stdout, printed.stderr);
    assert!(!all.contains("12345678") && !all.contains("open-sesame"), "{all}");
    assert!(all.contains("***"), "{all}");
}

#[tokio::test]
async fn what_strangers_could_reach_is_refused_unless_it_is_asked_for() {
    for (part, key, words) in [
        ("publisher-api", "publisher_api.listen", "--insecure"),
        ("bus", "bus.listen", "--insecure"),
        ("run", "edge.listen", "--auth-url"),
        ("run", "publisher_api.listen", "--insecure"),
    ] {
        let finished = launch(part).set(key, "0.0.0.0:0").argument("--check-config").run().await;
        assert_eq!(finished.code, BAD_CONFIG, "{part} {key}: {finished:?}");
        assert!(
            finished.stderr.contains(key) && finished.stderr.contains(words),
            "{part} {key}: {finished:?}"
        );
    }
    let meant = launch("publisher-api").set("publisher_api.listen", "0.0.0.0:0").argument("--insecure");
    assert_eq!(meant.argument("--check-config").run().await.code, 0);
}

#[tokio::test]
async fn an_auth_adapter_without_a_url_and_an_unknown_argument_are_refused() {
    let finished = Launch::of("auth-adapter").argument("--check-config").run().await;
    assert_eq!(finished.code, BAD_CONFIG);
    assert!(finished.stderr.contains("auth_adapter.url"), "{finished:?}");
    let finished = Launch::bare().argument("--no-such-flag").run().await;
    assert_ne!(finished.code, 0);
    assert!(finished.stderr.contains("--no-such-flag"), "{finished:?}");
    let finished = Launch::bare().argument("--help").run().await;
    assert_eq!(finished.code, 0);
    for part in PARTS {
        assert!(finished.stdout.contains(part), "{part}: {}", finished.stdout);
    }
}

/// Variables that Kubernetes and others set are ignored.
#[tokio::test]
async fn foreign_variables_stop_no_part() {
    for part in PARTS {
        let checked = launch(part)
            .variable("MC_EDGE_PORT", "tcp://10.96.0.7:6790")
            .variable("MC_EDGE_PORT_6790_TCP_ADDR", "10.96.0.7")
            .variable("MC_BUS_SERVICE_HOST", "10.96.0.8")
            .argument("--check-config")
            .run()
            .await;
        assert_eq!(checked.code, 0, "{part}: {checked:?}");
        let mut checked = std::process::Command::new(harness::program::binary());
        checked
            .args([part, "--check-config", "--set", "auth_adapter.url=http://127.0.0.1:1/auth"])
            .env_clear();
        checked.env(OsStr::from_bytes(b"NAME_\xff"), "x").env("VALUE", OsStr::from_bytes(b"\xff"));
        checked.env("MC_SID", OsStr::from_bytes(b"\xff"));
        let checked = checked.output().expect("the program can be started");
        assert!(checked.status.success(), "{part}: {checked:?}");
    }
}

#[tokio::test]
async fn errors_between_keys_are_named_before_anything_starts() {
    for (sets, key) in [
        (
            &["bus.store.sync=strict", "history.max_bytes=9GiB", "bus.store.max_bytes=8GiB"][..],
            "history.max_bytes",
        ),
        (
            &[
                "edge.listen=127.0.0.1:7001",
                "publisher_api.listen=0.0.0.0:7001",
                "publisher_api.insecure=true",
            ],
            "publisher_api.listen",
        ),
        (&["edge.listen=127.0.0.1:7001", "edge.admin=127.0.0.1:7001"], "edge.admin"),
        (&["log.filter=verbose"], "log.filter"),
        (&["log.filter=info,edge=verbose"], "log.filter"),
        (&["log.filter=warning"], "log.filter"),
    ] {
        let launch = launch("run").argument("--check-config");
        let checked =
            sets.iter().fold(launch, |launch, set| launch.argument("--set").argument(set)).run().await;
        assert_eq!(checked.code, BAD_CONFIG, "{sets:?}: {checked:?}");
        assert!(checked.stderr.contains(key), "{sets:?}: {checked:?}");
    }
    for filter in
        ["debug", "WARN", "info,edge=debug", "edge", "publisher_api::keys,off", "info,hyper=off", ""]
    {
        let checked = launch("run").set("log.filter", filter).argument("--check-config").run().await;
        assert_eq!(checked.code, 0, "{filter:?}: {checked:?}");
    }
}
