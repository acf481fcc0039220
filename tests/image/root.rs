//! Runs a program inside the root filesystem of an image, as a container would: another root, read-only
//! except for the data folder, and the image's user.
//!
//! Needs root, or a kernel that lets users make namespaces. Unlike in a container, /proc and /dev are
//! missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::program::Launch;
use harness::tools;
use tempfile::TempDir;

use crate::built::Built;

const PROGRAM: &str = "/usr/local/bin/message-center";
const EMULATOR: &str = "/usr/local/bin/emulator";
/// A shell script in a mount namespace of its own: root, data folder, then the program and its arguments.
const ENTER: &str = r#"
    set -eu
    root=$1 data=$2 as=$3
    shift 3
    mount --bind "$root" "$root"
    mount --bind "$data" "$root/var/lib/message-center"
    mount -o remount,bind,ro "$root"
    # shellcheck disable=SC2086
    exec unshare --root "$root" --wd /var/lib/message-center $as -- "$@"
"#;

/// An unpacked image with a folder for its data.
#[derive(Debug)]
pub(crate) struct Root {
    root: TempDir,
    data: TempDir,
    is_root: bool,
    emulated: bool,
}

impl Root {
    /// Unpacks an image. `None`: this machine cannot run it, and a line on standard error says so.
    pub(crate) fn unpack(built: &Built, architecture: &str, test: &str) -> Option<Self> {
        let native = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let emulator = if architecture == native {
            None
        } else {
            assert_eq!(architecture, "arm64", "there is an emulator for that one only");
            Some(tools::find_optional("MC_TEST_QEMU_ARM64", test)?)
        };
        let is_root = answers(&["id", "-u"], "0");
        if !is_root && !answers(&["unshare", "--user", "--mount", "echo", "yes"], "yes") {
            tools::left_out(test, "it needs root, or user namespaces, to run a program under another root");
            return None;
        }
        let (root, data) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        built.layout.unpack(architecture, root.path());
        if let Some(emulator) = &emulator {
            std::fs::copy(emulator, root.path().join(&EMULATOR[1..])).expect("the emulator can be copied");
        }
        for (folder, mode) in [(root.path(), "755"), (data.path(), "700")] {
            assert!(answers(&["chmod", mode, path(folder)], ""));
        }
        if is_root {
            assert!(answers(&["chown", "65532:65532", path(data.path())], ""));
        }
        Some(Self { root, data, is_root, emulated: emulator.is_some() })
    }

    /// `message-center` with this subcommand, inside the root.
    pub(crate) fn launch(&self, part: &str) -> Launch {
        let outer: &[&str] = if self.is_root {
            &[]
        } else {
            &["--user", "--map-user=65532", "--map-group=65532", "--keep-caps"]
        };
        let inner = if self.is_root { "--setgid=65532 --setuid=65532" } else { "" };
        let (root, data) = (path(self.root.path()), path(self.data.path()));
        let enter = ["--mount", "--propagation=private", "--", "sh", "-c", ENTER, "sh", root, data, inner];
        let mut arguments = [outer, &enter].concat();
        arguments.extend(self.emulated.then_some(EMULATOR));
        Launch::of(part).program(Path::new(PROGRAM)).under(&PathBuf::from("unshare"), &arguments)
    }

    /// The data folder, seen from outside.
    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

/// Whether a command succeeds and prints `text`.
fn answers(command: &[&str], text: &str) -> bool {
    let done = Command::new(command[0]).args(&command[1..]).output();
    done.is_ok_and(|done| done.status.success() && done.stdout.trim_ascii() == text.as_bytes())
}
