//! The bill of materials, against cargo's messages about the compiled crates and against Cargo.lock.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::built::{ARCHITECTURES, images, repository};
use crate::oci::sha256;

/// Name and version.
type Crate = (String, String);

#[test]
fn the_sbom_names_every_crate_that_was_compiled_with_its_version_and_checksum() {
    let test = "the_sbom_names_every_crate_that_was_compiled_with_its_version_and_checksum";
    let Some(built) = images(test) else { return };
    let locked = locked(&repository().join("Cargo.lock"));
    for (architecture, _) in ARCHITECTURES {
        let text = std::fs::read(built.file(&format!("message-center-{architecture}.cdx.json")))
            .expect("there is one");
        let document: Value = serde_json::from_slice(&text).expect("it is JSON");
        assert_eq!((&document["bomFormat"], &document["specVersion"]), (&"CycloneDX".into(), &"1.6".into()));
        let subject = &document["metadata"]["component"];
        let digest = sha256(&built.file(&format!("message-center-{architecture}")));
        assert_eq!(subject["hashes"][0]["content"], digest, "it is of another program");
        let components = document["components"].as_array().expect("it has components");
        let mut named = BTreeSet::from([("standalone".to_owned(), text_of(&subject["version"]))]);
        for component in components {
            let found = (text_of(&component["name"]), text_of(&component["version"]));
            let checksum = locked.get(&found).unwrap_or_else(|| panic!("{found:?} is not in Cargo.lock"));
            assert_eq!(component["hashes"][0]["content"].as_str(), checksum.as_deref(), "{found:?}");
            assert_eq!(component["purl"], format!("pkg:cargo/{}@{}", found.0, found.1));
            assert!(component["licenses"][0]["expression"].is_string(), "{found:?} has no licence");
            assert!(named.insert(found), "{component} is there twice");
        }
        let compiled = compiled(&built.file(&format!("compiled-{architecture}.json")));
        assert!(compiled.len() > 100, "cargo says what it compiled: {compiled:?}");
        let missing: Vec<_> = compiled.difference(&named).collect();
        assert!(missing.is_empty(), "{architecture}: compiled, but not named: {missing:?}");
        let known: BTreeSet<_> = components.iter().map(|component| text_of(&component["bom-ref"])).collect();
        for dependency in document["dependencies"].as_array().expect("it has dependencies") {
            for on in dependency["dependsOn"].as_array().expect("they are listed") {
                assert!(known.contains(on.as_str().expect("text")), "{dependency} leads nowhere");
            }
        }
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().expect("it is text").to_owned()
}

/// The crates that cargo compiled, by its messages: libraries, macros and build scripts, fresh ones included.
fn compiled(messages: &Path) -> BTreeSet<Crate> {
    let messages = std::fs::read_to_string(messages).expect("there are messages");
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let artifacts = messages.filter(|message| message["reason"] == "compiler-artifact");
    artifacts.map(|artifact| identified(artifact["package_id"].as_str().expect("it has an id"))).collect()
}

/// Parses `registry+https://…#serde@1.0.1`, `path+file:///…/edge#0.1.0` (named as its folder) or
/// `…/shared/x#name@0.1.0`.
fn identified(id: &str) -> Crate {
    let (place, version) = id.rsplit_once('#').expect("an id has a version");
    let (name, version) = version
        .split_once('@')
        .unwrap_or_else(|| (place.rsplit('/').next().expect("a path has a last part"), version));
    (name.to_owned(), version.to_owned())
}

/// The checksum of each crate in Cargo.lock; crates of the workspace have none.
fn locked(lock: &Path) -> BTreeMap<Crate, Option<String>> {
    let lock = std::fs::read_to_string(lock).expect("it can be read");
    let packages = lock.split("[[package]]\n").skip(1);
    let field = |package: &str, name: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""));
        line.map(|line| line.trim_end_matches('"').to_owned())
    };
    packages
        .map(|package| {
            let name = field(package, "name").expect("a package has a name");
            let version = field(package, "version").expect("a package has a version");
            ((name, version), field(package, "checksum"))
        })
        .collect()
}
