//! The files that `docker build` gets of the repository: the sources of the program, and nothing of the
//! tests.

use std::fs;

use crate::built::repository;

/// Paths that `.dockerignore` lets in.
fn let_in() -> Vec<String> {
    let text = fs::read_to_string(repository().join(".dockerignore")).expect("the file is text");
    text.lines().filter_map(|line| line.strip_prefix('!')).map(str::to_owned).collect()
}

#[test]
fn each_member_of_the_workspace_has_its_manifest_in_the_build_and_the_tests_nothing_else() {
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).expect("the file is text");
    let members = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next());
    let members: Vec<_> = members.expect("it is a workspace").split('"').skip(1).step_by(2).collect();
    assert!(members.contains(&"deploy/standalone"), "{members:?}");
    let paths = let_in();
    for member in members {
        let manifest = format!("{member}/Cargo.toml");
        let is_in = |path: &String| manifest == *path || manifest.starts_with(&format!("{path}/"));
        assert!(paths.iter().any(is_in), "cargo would not find {manifest}: let it in by .dockerignore");
    }
    let tests = paths.iter().filter(|path| path.starts_with("tests"));
    let sources: Vec<_> = tests.filter(|path| !path.ends_with("/Cargo.toml")).collect();
    assert!(sources.is_empty(), "the build needs no tests: {sources:?}");
}
