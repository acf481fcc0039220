//! The tools that `tests/run` has installed, as named by environment variables.
//!
//! All or nothing: without `MC_TEST_TOOLS` the suite runs with Rust alone; with it, a missing tool is an
//! error.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// Programs outside this workspace.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) nats_server: PathBuf,
    pub(crate) python: PathBuf,
    /// Whether this Python is new enough for nats-core and nats-jetstream.
    pub(crate) has_newer_clients: bool,
    pub(crate) node: PathBuf,
    /// The folder `node_modules`.
    pub(crate) node_path: PathBuf,
}

impl Tools {
    /// The tools, or `None` if the environment promises none.
    pub(crate) fn from_environment() -> anyhow::Result<Option<Self>> {
        if std::env::var_os("MC_TEST_TOOLS").is_none_or(|value| value != "1") {
            return Ok(None);
        }
        let python = path("MC_TEST_PYTHON")?;
        Ok(Some(Self {
            nats_server: path("MC_TEST_NATS_SERVER")?,
            has_newer_clients: is_python_3_13(&python)?,
            python,
            node: path("MC_TEST_NODE")?,
            node_path: path("MC_TEST_NODE_PATH")?,
        }))
    }
}

fn is_python_3_13(python: &Path) -> anyhow::Result<bool> {
    let asked = Command::new(python).args(["-c", "import sys; print(sys.version_info >= (3, 13))"]).output();
    let answer = asked.with_context(|| format!("start {}", python.display()))?.stdout;
    Ok(answer.trim_ascii() == b"True")
}

fn path(variable: &str) -> anyhow::Result<PathBuf> {
    let value = std::env::var_os(variable).with_context(|| {
        format!("MC_TEST_TOOLS is 1 but {variable} is not set: start the tests with tests/run")
    })?;
    let path = PathBuf::from(value);
    ensure!(
        path.exists(),
        "{variable} is {}, which does not exist: start the tests with tests/run",
        path.display()
    );
    Ok(path)
}
