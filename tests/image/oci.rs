//! Reads images in the OCI layout (image-spec 1.1): `index.json` names an index, the index one manifest per
//! architecture, each manifest a configuration and layers. Every digest is checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A folder of images.
#[derive(Debug)]
pub(crate) struct Layout {
    folder: PathBuf,
    /// Manifest by architecture.
    manifests: BTreeMap<String, Value>,
}

/// A file or folder in a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The mode as `ls` prints it, e.g. `-rwxr-xr-x`.
    pub(crate) mode: String,
    /// `user/group`, as numbers.
    pub(crate) owner: String,
    /// Size in bytes.
    pub(crate) size: u64,
}

impl Layout {
    /// Reads the layout in a folder.
    pub(crate) fn open(folder: &Path) -> Self {
        let text = std::fs::read(folder.join("index.json")).expect("the layout has an index");
        let top: Value = serde_json::from_slice(&text).expect("the index is JSON");
        let mut layout = Self { folder: folder.to_owned(), manifests: BTreeMap::new() };
        let index = layout.json(&top["manifests"][0]);
        for entry in index["manifests"].as_array().expect("the index lists manifests") {
            assert_eq!(entry["platform"]["os"], "linux");
            let architecture = entry["platform"]["architecture"].as_str().expect("it is named");
            layout.manifests.insert(architecture.to_owned(), layout.json(entry));
        }
        layout
    }

    /// The architectures.
    pub(crate) fn architectures(&self) -> Vec<&str> {
        self.manifests.keys().map(String::as_str).collect()
    }

    /// The configuration of an image.
    pub(crate) fn config(&self, architecture: &str) -> Value {
        self.json(&self.manifests[architecture]["config"])
    }

    /// Bytes that a registry transfers for an image.
    pub(crate) fn transfer_size(&self, architecture: &str) -> u64 {
        self.layers(architecture).filter_map(|layer| layer["size"].as_u64()).sum()
    }

    /// The entries of the layers by path; folders end with a slash.
    pub(crate) fn entries(&self, architecture: &str) -> BTreeMap<String, Entry> {
        let listings = self.layers(architecture).map(|layer| tar(&["-tvzf"], &self.blob(layer), &[]));
        let text: String = listings.collect();
        text.lines().map(listed).collect()
    }

    /// Unpacks an image's root filesystem.
    pub(crate) fn unpack(&self, architecture: &str, root: &Path) {
        let root = root.to_str().expect("the path is text");
        for layer in self.layers(architecture) {
            tar(&["-xzf"], &self.blob(layer), &["-C", root]);
        }
    }

    fn layers(&self, architecture: &str) -> impl Iterator<Item = &Value> {
        self.manifests[architecture]["layers"].as_array().expect("an image has layers").iter()
    }

    fn json(&self, descriptor: &Value) -> Value {
        let text = std::fs::read(self.blob(descriptor)).expect("the blob can be read");
        serde_json::from_slice(&text).expect("the blob is JSON")
    }

    /// The file of a descriptor.
    fn blob(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().expect("a descriptor has a digest");
        let hex = digest.strip_prefix("sha256:").expect("the digest is one of SHA-256");
        let path = self.folder.join("blobs/sha256").join(hex);
        assert_eq!(sha256(&path), hex, "{} is not what its name says", path.display());
        path
    }
}

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> String {
    let sum = Command::new("sha256sum").arg(path).output().expect("sha256sum can be started").stdout;
    String::from_utf8_lossy(&sum).split(' ').next().unwrap_or_default().to_owned()
}

fn tar(what: &[&str], archive: &Path, after: &[&str]) -> String {
    let done = Command::new("tar").arg("--numeric-owner").args(what).arg(archive).args(after).output();
    let done = done.expect("tar can be started");
    assert!(done.status.success(), "tar: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("paths are text")
}

/// Parses a line such as `-rwxr-xr-x 0/0 762296 2026-11-23 14:34 usr/local/bin/message-center`.
fn listed(line: &str) -> (String, Entry) {
    let words: Vec<_> = line.split_whitespace().collect();
    let [mode, owner, size, _, _, path] = words[..] else { panic!("tar writes {line:?}") };
    let entry = Entry { mode: mode.to_owned(), owner: owner.to_owned(), size: size.parse().expect("a size") };
    (path.to_owned(), entry)
}
