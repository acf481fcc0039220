//! The contents of the image, and its configuration.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use harness::tools;
use serde_json::{Value, json};

use crate::built::{ARCHITECTURES, build, images, repository};
use crate::{elf, oci};

const PROGRAM: &str = "usr/local/bin/message-center";
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";
const DATA: &str = "var/lib/message-center/";

#[test]
fn each_image_holds_a_static_program_for_its_architecture_and_no_shell() {
    let Some(built) = images("each_image_holds_a_static_program_for_its_architecture_and_no_shell") else {
        return;
    };
    assert_eq!(built.layout.architectures(), ARCHITECTURES.map(|(name, _)| name));
    for (architecture, machine) in ARCHITECTURES {
        let root = tempfile::tempdir().expect("a folder can be made");
        built.layout.unpack(architecture, root.path());
        let program = root.path().join(PROGRAM);
        assert_eq!(elf::read(&program), elf::Elf { machine, is_dynamic: false }, "{architecture}");
        let beside = built.file(&format!("message-center-{architecture}"));
        assert_eq!(oci::sha256(&program), oci::sha256(&beside), "{architecture}: it is another program");
        let entries = built.layout.entries(architecture);
        let files = entries.keys().filter(|path| !path.ends_with('/')).map(String::as_str);
        let files: BTreeSet<_> = files.collect();
        assert_eq!(
            files,
            BTreeSet::from([CERTIFICATES, PROGRAM]),
            "{architecture}: nothing else belongs in it"
        );
        assert_eq!(entries[PROGRAM].mode, "-rwxr-xr-x");
        assert!(entries[CERTIFICATES].size > 100_000, "{architecture}: the certificates are missing");
        for (path, entry) in &entries {
            let owner = if path == DATA { "65532/65532" } else { "0/0" };
            assert_eq!(entry.owner, owner, "{architecture}: {path}");
            assert!(!entry.mode.contains(['s', 't']) && &entry.mode[8..9] != "w", "{path}: {entry:?}");
        }
        let (pull, program) = (built.layout.transfer_size(architecture), entries[PROGRAM].size);
        println!("{architecture}: {pull} bytes to pull, the program has {program}");
    }
}

#[test]
fn each_image_says_how_it_is_run() {
    let Some(built) = images("each_image_says_how_it_is_run") else { return };
    for (architecture, _) in ARCHITECTURES {
        let config = built.layout.config(architecture);
        assert_eq!((&config["architecture"], &config["os"]), (&json!(architecture), &json!("linux")));
        let config = &config["config"];
        assert_eq!(config["User"], "65532:65532", "a number, so that Kubernetes sees that it is not root");
        assert_eq!(config["Entrypoint"], json!(["/usr/local/bin/message-center"]));
        assert_eq!(config["Cmd"], json!(null), "everything in one process is what it does by itself");
        assert_eq!(config["WorkingDir"], "/var/lib/message-center");
        assert_eq!(config["StopSignal"], "SIGTERM");
        assert_eq!(config["ExposedPorts"], json!({ "6789/tcp": {}, "6790/tcp": {} }));
        assert_eq!(config["Env"], json!(["PATH=/usr/local/bin"]), "settings are not for an image to make");
        for (label, value) in [
            ("title", "message-center"),
            ("licenses", "Apache-2.0"),
            ("version", env!("CARGO_PKG_VERSION")),
            ("documentation", "deploy/docs/image.md"),
        ] {
            assert_eq!(config["Labels"][format!("org.opencontainers.image.{label}")], value);
        }
        let revision = config["Labels"]["org.opencontainers.image.revision"].as_str().unwrap_or_default();
        assert!(revision == "unknown" || revision.len() == 40, "{revision:?} is no commit");
    }
}

#[test]
fn docker_gets_the_health_check_with_the_archive() {
    let Some(built) = images("docker_gets_the_health_check_with_the_archive") else { return };
    for (architecture, _) in ARCHITECTURES {
        let archive = built.file(&format!("message-center-{architecture}.tar"));
        let listed = archived(&archive, "manifest.json");
        let tags = listed[0]["RepoTags"].to_string();
        assert!(tags.contains(concat!("message-center:", env!("CARGO_PKG_VERSION"))), "{tags}");
        let config = archived(&archive, listed[0]["Config"].as_str().expect("it names the configuration"));
        let check = config["config"]["Healthcheck"]["Test"].clone();
        let check: Vec<String> = serde_json::from_value(check).expect("there is a health check");
        // Exec form, without a shell: CMD, then the words.
        assert_eq!(check[..3], ["CMD", "message-center", "probe"]);
        let ports = ["6795", "6796", "6797", "6798"].map(|port| format!("http://127.0.0.1:{port}/livez"));
        assert_eq!(check[3..], ports, "the admin ports of the parts");
    }
}

/// A JSON file in an archive.
fn archived(archive: &Path, name: &str) -> Value {
    let file = Command::new("tar").arg("-xOf").arg(archive).arg(name).output();
    serde_json::from_slice(&file.expect("tar can be started").stdout).expect("it is JSON")
}

#[test]
fn the_same_program_makes_the_same_image() {
    let Some(built) = images("the_same_program_makes_the_same_image") else { return };
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (program, out) = (built.file("message-center-arm64"), folder.path().join("out"));
    let again = || {
        let [program, out] = [&program, &out].map(|path| path.to_str().expect("the path is text"));
        let done = build(&["--arch", "arm64", "--program", program, "--out", out]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        std::fs::read_to_string(folder.path().join("out/oci/index.json")).expect("the layout has an index")
    };
    assert_eq!(again(), again());
}

#[test]
fn a_program_for_another_architecture_makes_no_image() {
    let Some(built) = images("a_program_for_another_architecture_makes_no_image") else { return };
    let folder = tempfile::tempdir().expect("a folder can be made");
    let program = built.file("message-center-amd64");
    let (program, out) = (program.to_str().expect("text"), folder.path().to_str().expect("text"));
    let done = build(&["--arch", "arm64", "--program", program, "--out", out]);
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(
        said.contains("the program is not one for arm64: its ELF machine is 0x003e, not 0x00b7"),
        "{said}"
    );
    assert!(!folder.path().join("oci").exists(), "there is an image all the same");
}

#[test]
fn arguments_that_make_no_sense_are_answered_with_what_to_write() {
    for (arguments, answer) in [
        (&["--arch", "riscv64"][..], "there is one for amd64 and for arm64"),
        (&["--arch"], "--arch needs a value"),
        (&["--arch", ""], "--arch needs amd64, arm64, or both"),
        (&["--push"], "unknown argument '--push'; --help lists"),
        (&["--program", "/no/such/file"], "there is no file /no/such/file"),
        (&["--program", "/bin/sh"], "--program is for one --arch"),
    ] {
        let done = build(arguments);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(64), "{arguments:?}: {said}");
        assert!(said.contains(answer), "{arguments:?}: {said}");
    }
}

#[test]
fn hadolint_finds_no_fault_with_the_recipe() {
    let Some(hadolint) = tools::find("MC_TEST_HADOLINT", "hadolint_finds_no_fault_with_the_recipe") else {
        return;
    };
    let recipe = repository().join("deploy/image/Dockerfile");
    let done = Command::new(hadolint).arg(&recipe).output().expect("hadolint can be started");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}

/// The script packs the last stage of the Dockerfile, so the tests see what `docker build` makes. The script
/// does the work of the earlier stages in its own way, so this test compares the two.
#[test]
fn the_script_compiles_as_the_recipe_does() {
    let read =
        |name: &str| std::fs::read_to_string(repository().join("deploy/image").join(name)).expect(name);
    let (recipe, script) = (read("Dockerfile"), read("build"));
    assert_eq!(recipe.matches("\nFROM scratch\n").count(), 1, "the script looks for this line");
    for both in [
        "--locked",
        "--package standalone --features otlp-grpc --bin message-center",
        "=rust-lld",
        "requirements.txt",
        "_STRIP=debuginfo",
    ] {
        assert!(recipe.contains(both) && script.contains(both), "{both}");
    }
    let minor = include_str!("../../Cargo.toml").split("rust-version = \"").nth(1).expect("it is named");
    let minor = minor.split('"').next().expect("it ends");
    assert!(recipe.contains(&format!("ARG RUST_VERSION={minor}\n")), "the workspace needs Rust {minor}");
}
