//! The images, built once for all tests of this program.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use harness::tools;
use serde_json::Value;

use crate::oci::Layout;

/// The architectures by their names in images, with the machine in the ELF header (`e_machine`, System V
/// ABI).
pub(crate) const ARCHITECTURES: [(&str, u16); 2] = [("amd64", 62), ("arm64", 183)];

/// The images, and the files beside them.
#[derive(Debug)]
pub(crate) struct Built {
    folder: PathBuf,
    /// The images.
    pub(crate) layout: Layout,
}

impl Built {
    /// A file beside the images.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the crate is in the repository")
}

/// Runs `deploy/image/build`.
pub(crate) fn build(arguments: &[&str]) -> Output {
    let mut command = Command::new(repository().join("deploy/image/build"));
    // Variables that cargo set for this test would make the script's cargo compile again, so only these
    // remain.
    const KEPT: [&str; 3] = ["CARGO_HOME", "CARGO_INCREMENTAL", "CARGO_TARGET_DIR"];
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("CARGO_")) {
        if !KEPT.iter().any(|kept| name == *kept) {
            command.env_remove(name);
        }
    }
    command.env("CARGO_PROFILE_DEV_DEBUG", "0").args(arguments).output().expect("the script can be started")
}

/// The images. `None`: this machine lacks a tool for the build, and a line on standard error says so.
///
/// # Panics
/// The build fails.
pub(crate) fn images(test: &str) -> Option<&'static Built> {
    static BUILT: OnceLock<Built> = OnceLock::new();
    tools::find_optional("MC_TEST_BUILDAH", test)?;
    Some(BUILT.get_or_init(|| {
        let folder = target_folder().join("image-test");
        let profile = if std::env::var_os("MC_TEST_LONG").is_some() { "dist" } else { "dev" };
        let out = folder.to_str().expect("the path is text");
        let done = build(&["--arch", "amd64,arm64", "--profile", profile, "--out", out]);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "deploy/image/build ended with {}:\n{said}", done.status);
        Built { layout: Layout::open(&folder.join("oci")), folder }
    }))
}

/// The target folder of cargo.
fn target_folder() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut metadata = Command::new(cargo);
    metadata.current_dir(repository()).args(["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    let metadata = metadata.output().expect("cargo can be started").stdout;
    let metadata: Value = serde_json::from_slice(&metadata).expect("cargo writes JSON");
    metadata["target_directory"].as_str().expect("it names the folder").into()
}
