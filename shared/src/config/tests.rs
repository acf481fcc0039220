//! Errors that an operator may write: all of them are named at once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Sample {
    edge: Edge,
    log: LogConfig,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Edge {
    listen: String,
    frames: u32,
    frame: ByteSize,
    #[serde(with = "humantime_serde")]
    pause: Duration,
    password: Secret,
    origins: Vec<String>,
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:6790".into(),
            frames: 20,
            frame: ByteSize(4096),
            pause: Duration::from_secs(25),
            password: Secret::default(),
            origins: Vec::new(),
        }
    }
}

impl Settings for Sample {
    fn validate(&self, problems: &mut Problems) {
        problems.check(self.edge.frames > 0, "edge.frames", || "must be at least 1".into());
    }
}

fn from(file: &str, environment: &[(&str, &str)]) -> Result<Sample, Problems> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mc.toml");
    std::fs::write(&path, file).unwrap();
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    load(&Sources { file: Some(path), environment, flags: Vec::new() })
}

#[test]
fn the_environment_stands_over_the_file_and_flags_over_both() {
    let file = "[edge]\nframes = 5\nframe = \"8KiB\"\npause = \"1m\"\n[auth_adapter]\nunknown_here = 1";
    let sample =
        from(file, &[("MC_EDGE__FRAMES", "7"), ("MC_EDGE__PASSWORD", "12345"), ("MC_TEST", "x")]).unwrap();
    assert_eq!((sample.edge.frames, sample.edge.frame.0), (7, 8192));
    assert_eq!(sample.edge.pause, Duration::from_secs(60));
    assert_eq!(sample.edge.password.expose(), "12345", "a password of digits is text");

    let flags =
        vec![("edge.listen".to_owned(), "[::1]:1".to_owned()), ("edge.origins".into(), "[\"a\"]".into())];
    let sample: Sample = load(&Sources { flags, ..Sources::default() }).unwrap();
    assert_eq!((sample.edge.listen.as_str(), sample.edge.origins.len()), ("[::1]:1", 1));
}

/// [`Sample`] ignores this section, so the settings here are those of its part.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct OfLogin {
    auth_adapter: Login,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Login {
    url: String,
}

impl Settings for OfLogin {
    fn validate(&self, _: &mut Problems) {}
}

#[test]
fn a_key_that_moved_is_refused_with_its_new_name() {
    let told = "auth_adapter.body: is now auth_adapter.request.token";
    let sources = Sources::default();
    let fault = load_text::<OfLogin>(&sources, "[auth_adapter]\nbody = \"form\"").unwrap_err().to_string();
    assert!(fault.starts_with(told), "{fault}");
    for variable in ["form", "\"json\""] {
        let environment = vec![("MC_AUTH_ADAPTER__BODY".to_owned(), variable.to_owned())];
        let fault = load::<OfLogin>(&Sources { environment, ..Sources::default() }).unwrap_err().to_string();
        assert!(fault.starts_with(told), "{fault}");
    }
    let flags = vec![("auth_adapter.body".to_owned(), "form".to_owned())];
    assert!(load::<OfLogin>(&Sources { flags, ..Sources::default() }).is_err());
}

#[test]
fn every_fault_is_named_at_once() {
    let file =
        "edgy = 1\n[edge]\nframes = \"many\"\nframe = \"4 parsecs\"\npause = 5\nlisen = \"x\"\norigins = [1]";
    let environment = [("MC_EDGE_LISTEN", "x"), ("MC_EGDE__LISTEN", "x")];
    let problems = from(file, &environment).unwrap_err().to_string();
    for key in [
        "edgy:",
        "edge.frames:",
        "edge.frame:",
        "edge.pause:",
        "edge.lisen:",
        "edge.origins",
        "MC_EDGE_LISTEN: did you mean MC_EDGE__LISTEN",
        "MC_EGDE__LISTEN:",
    ] {
        assert!(problems.contains(key), "{key} is not in\n{problems}");
    }
    assert!(from("[edge]\nframes = 0", &[]).unwrap_err().to_string().contains("edge.frames: must be"));
    assert!(from("[edge", &[]).unwrap_err().to_string().contains("is not TOML"));
}

#[test]
fn a_missing_file_is_a_sentence() {
    let sources = Sources { file: Some("/nonexistent/mc.toml".into()), ..Sources::default() };
    let problems = load::<Sample>(&sources).unwrap_err().to_string();
    assert!(problems.contains("can't be read"), "{problems}");
}

#[test]
fn what_is_printed_can_be_read_again_and_holds_no_secret() {
    let mut sample = Sample::default();
    assert_eq!(from(&print(&sample), &[]).unwrap(), sample);
    sample.edge.password = Secret::new("hunter2");
    assert!(print(&sample).contains("password = \"***\""));
    assert!(!format!("{sample:?}").contains("hunter2"));
}

#[test]
fn a_fault_never_shows_what_may_be_a_secret() {
    for file in [
        "[edge]\npassword = 48151623",
        "[edge]\npassword = [\"hunter2\"]",
        "[edge]\npassword = { x = \"hunter2\" }",
        "[edge]\npassword = \"hunter2",
        "[edge]\nframes = 1\npassword = hunter2",
        "edge = \"hunter2\"",
    ] {
        let problems = from(file, &[]).unwrap_err().to_string();
        assert!(!problems.contains("hunter2") && !problems.contains("48151623"), "{file:?}: {problems}");
    }
    let problems = from("[edge]\npassword = 48151623", &[]).unwrap_err().to_string();
    assert_eq!(problems, "edge.password: is of the wrong type: integer, expected a string");
    let problems = from("[edge]\nframes = 1\npassword = \"hunter2", &[]).unwrap_err().to_string();
    assert!(problems.contains("is not TOML at line 3: "), "{problems}");
}

#[test]
fn a_whole_section_may_stand_in_the_environment() {
    let sample = from("[edge]\nlisten = \"a\"", &[("MC_EDGE", "{ frames = 3 }")]).unwrap();
    assert_eq!((sample.edge.frames, sample.edge.listen), (3, Edge::default().listen));
    let problems = from("# nothing", &[("MC_EDGE", "x")]).unwrap_err().to_string();
    assert_eq!(problems, "edge: is of the wrong type: string, expected struct Edge");
}

#[test]
fn sizes_are_read_and_written_with_units() {
    for (text, bytes) in [("4096", 4096), ("4KiB", 4096), ("256 KiB", 262_144), ("1GiB", 1 << 30), ("0", 0)] {
        assert_eq!(text.parse::<ByteSize>().map(|size| size.0), Ok(bytes), "{text}");
    }
    assert_eq!(ByteSize(262_144).to_string(), "256KiB");
    for bad in ["", "KiB", "-1", "1KB", "99999999999GiB"] {
        assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
    }
}

/// Variables that Kubernetes sets for Services that happen to be called like our sections, in every pod of
/// their namespace.
#[test]
fn variables_of_service_links_are_nobodys_and_slips_are_still_told() {
    let links = [
        ("MC_EDGE_SERVICE_HOST", "10.96.0.7"),
        ("MC_EDGE_SERVICE_PORT", "6790"),
        ("MC_EDGE_SERVICE_PORT_WS", "6790"),
        ("MC_EDGE_PORT", "tcp://10.96.0.7:6790"),
        ("MC_EDGE_PORT_6790_TCP", "tcp://10.96.0.7:6790"),
        ("MC_EDGE_PORT_6790_TCP_PROTO", "tcp"),
        ("MC_EDGE_PORT_6790_TCP_PORT", "6790"),
        ("MC_EDGE_PORT_6790_TCP_ADDR", "10.96.0.7"),
        ("MC_EDGE_PORT_6790_UDP_ADDR", "10.96.0.7"),
        ("MC_PUBLISHER_API_PORT", "tcp://10.96.0.8:6789"),
        ("MC__EDGE_PORT", "tcp://10.96.0.9:1"),
        ("MC_X__EDGE_SERVICE_PORT_HTTP_ADMIN", "1"),
        ("MC_BUS_HEADLESS_SERVICE_HOST", "10.96.0.9"),
    ];
    assert_eq!(from("# nothing", &links).unwrap().edge.listen, "127.0.0.1:6790");
    for slip in
        ["MC_EDGE_LISTEN", "MC_EDGE_PORT_6790", "MC_EDGE_SERVICE", "MC_EDGE_PORT_X_TCP", "MC_EDGE_TCP_ADDR"]
    {
        let problems = from("# nothing", &[(slip, "x")]).unwrap_err().to_string();
        assert!(problems.contains("did you mean"), "{slip}: {problems}");
    }
}

#[test]
fn a_value_that_is_not_utf_8_is_told_where_it_is_ours() {
    assert!(from("# nothing", &[("MC_OTHER", "\u{fffd}")]).is_ok());
    let problems = from("# nothing", &[("MC_EDGE__LISTEN", "a\u{fffd}")]).unwrap_err().to_string();
    assert!(problems.contains("MC_EDGE__LISTEN: is not UTF-8"), "{problems}");
}

#[test]
fn an_empty_file_is_a_fault_and_a_comment_is_none() {
    for empty in ["", "\n", " \t\r\n"] {
        let problems = from(empty, &[]).unwrap_err().to_string();
        assert!(problems.contains("is empty"), "{empty:?}: {problems}");
    }
    assert!(from("# the defaults will do", &[]).is_ok());
}

#[test]
fn two_keys_that_would_listen_at_one_place_are_told() {
    let at = |address: &str| Some(address.parse().unwrap());
    for (one, other, meet) in [
        ("127.0.0.1:1", "127.0.0.1:1", true),
        ("0.0.0.0:1", "127.0.0.1:1", true),
        ("127.0.0.1:1", "[::]:1", true),
        ("127.0.0.1:1", "127.0.0.2:1", false),
        ("127.0.0.1:1", "127.0.0.1:2", false),
        ("127.0.0.1:0", "127.0.0.1:0", false),
    ] {
        let mut problems = Problems::default();
        problems.check_ports([("a", at(one)), ("none", None), ("b", at(other))]);
        assert_eq!(problems.to_string().contains("b: "), meet, "{one} {other}: {problems}");
    }
}
