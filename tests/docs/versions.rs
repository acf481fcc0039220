//! The version stands in `Cargo.toml`; whatever names a version besides is compared with it.

use std::fs;

use super::repository;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const RUST_VERSION: &str = env!("CARGO_PKG_RUST_VERSION");

/// Returns the first line of a file that contains `marker`.
fn line(file: &str, marker: &str) -> String {
    let text = fs::read_to_string(repository().join(file)).expect("the file is text");
    let found = text.lines().find(|line| line.contains(marker));
    found.unwrap_or_else(|| panic!("{file} has no line with {marker:?}")).to_owned()
}

#[test]
fn the_version_stands_in_one_place() {
    for (file, marker, expected) in [
        ("deploy/helm/message-center/Chart.yaml", "version:", format!("version: {VERSION}")),
        ("deploy/helm/message-center/Chart.yaml", "appVersion:", format!("appVersion: \"{VERSION}\"")),
        ("deploy/image/Dockerfile", "ARG VERSION=", format!("ARG VERSION={VERSION}")),
    ] {
        assert_eq!(line(file, marker), expected, "{file}");
    }
    for (file, marker) in
        [("deploy/docs/image.md", "message-center:"), ("deploy/docs/image.md", "skopeo copy --all oci:")]
    {
        let line = line(file, marker);
        assert!(line.contains(&format!(":{VERSION}")), "{file} names another version: {line}");
    }
}

#[test]
fn the_version_of_rust_is_that_of_the_manifest() {
    assert_eq!(
        line("deploy/image/Dockerfile", "ARG RUST_VERSION="),
        format!("ARG RUST_VERSION={RUST_VERSION}")
    );
    for file in ["README.md", "deploy/docs/install.md"] {
        let line = line(file, "Rust 1.");
        assert!(line.contains(&format!("Rust {RUST_VERSION}")), "{file} names another Rust: {line}");
    }
}

#[test]
fn the_changelog_knows_the_version_and_keeps_its_form() {
    let text = fs::read_to_string(repository().join("CHANGELOG.md")).expect("the file is text");
    let versions: Vec<_> = text.lines().filter(|line| line.starts_with("## ")).collect();
    assert_eq!(versions[0], "## [Unreleased]");
    assert!(versions[1].starts_with(&format!("## [{VERSION}] - 20")), "{:?} is not {VERSION}", versions[1]);
    let groups = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
    for heading in text.lines().filter_map(|line| line.strip_prefix("### ")) {
        assert!(groups.contains(&heading), "{heading:?} is no kind of change: there are {groups:?}");
    }
}
