use std::path::Path;

use super::*;

const FLOORS: &[Floor<'_>] =
    &[("low", &["low", "top::pure"]), ("middle", &["hub", "hub::map"]), ("high", &["top", "crate"])];

/// Returns what is wrong with files, given as path and text.
fn found(floors: &[Floor<'_>], files: &[(&str, &str)]) -> Vec<String> {
    let read = |path: &Path| {
        files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| (*text).to_owned())
    };
    Plan::new(floors).violations(&Crate::read(&read).unwrap())
}

/// Returns what is wrong if these modules have these texts, and all the others are empty.
fn with(changed: &[(&str, &str)]) -> Vec<String> {
    let mut files = vec![
        ("lib.rs", "mod low; mod hub; mod top; pub use hub::Hub; pub const PART: &str = \"x\";"),
        ("low.rs", ""),
        ("hub/mod.rs", "mod map;"),
        ("hub/map.rs", ""),
        ("top/mod.rs", "mod pure;"),
        ("top/pure.rs", ""),
    ];
    for (name, text) in changed {
        let file = files.iter_mut().find(|(known, _)| known == name).unwrap();
        file.1 = text;
    }
    found(FLOORS, &files)
}

#[test]
fn imports_from_below_and_of_other_crates_break_nothing() {
    assert_eq!(
        with(&[
            (
                "top/mod.rs",
                "mod pure; use crate::hub::{Hub, map::Map as M}; use std::{top, io}; use ::hub::x;"
            ),
            (
                "hub/mod.rs",
                "mod map; use map::Map; use crate::low::*;\nfn f() -> impl Fn() + use<> { low::x() }"
            ),
            (
                "low.rs",
                "//! See [`crate::top`].\n/// And [`top`](crate::top).\nconst TEXT: &str = \"crate::top::x\";"
            ),
        ]),
        [""; 0]
    );
}

#[test]
fn an_import_from_above_is_found_with_its_file_and_line() {
    assert_eq!(
        with(&[("low.rs", "use std::io;\n\nuse crate::hub::Hub;")]),
        ["low.rs:3: low (low) imports hub of hub (middle) above it"]
    );
    assert_eq!(
        with(&[("low.rs", "use crate::PART;")]),
        ["low.rs:1: low (low) imports crate of crate (high) above it"],
        "an item of lib.rs"
    );
}

#[test]
fn every_form_of_a_path_is_read() {
    for text in [
        "use crate::hub::Hub;",
        "pub(crate) use crate::{low::x, hub::{self as h}};",
        "use super::{low::{a, b}, hub::{c, d}};",
        "use super::hub;",
        "use crate::hub as other;",
        "fn f() { crate::hub::go(); }",
        "fn f() { select! { x = a => match x { A => super::hub::go::<u8>(), } } }",
        "impl super::hub::Hub { fn f(&self) -> Vec<Option<crate::hub::Hub>> { vec![] } }",
        "mod inner { use super::super::hub::Hub; }",
        "mod inner { mod deep { fn f() { super::super::super::hub::go() } } }",
        "#[derive(crate::hub::Make)] struct X;",
        "macro_rules! m { () => { $crate::hub::go() } }",
    ] {
        let found = with(&[("low.rs", text)]);
        assert!(
            found.len() == 1 && found[0].starts_with("low.rs:1: low (low) imports hub"),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn a_submodule_that_is_listed_stands_on_its_own_floor() {
    assert_eq!(
        with(&[("top/pure.rs", "use super::Session;"), ("low.rs", "use crate::top::pure::State;")]),
        ["top/pure.rs:1: top::pure (low) imports top of top (high) above it"]
    );
}

#[test]
fn what_belongs_to_tests_is_not_read() {
    let tests = "#[cfg(test)]\nmod tests { use crate::top::x; }\n#[cfg(test)] use crate::top;\n\
                 #[cfg(test)] fn f(x: u8) { crate::top::x() }\n#[cfg(test)] mod absent;";
    assert_eq!(with(&[("low.rs", tests)]), [""; 0]);
    let after = format!("{tests}\nuse crate::top::x;");
    assert_eq!(with(&[("low.rs", &after)]), ["low.rs:6: low (low) imports top of top (high) above it"]);
}

#[test]
fn a_module_on_no_floor_or_on_two_and_one_that_is_none_are_found() {
    let files = [("lib.rs", "mod low; mod new;"), ("low.rs", "mod sub { fn f() {} }"), ("new.rs", "")];
    assert_eq!(
        found(&[("a", &["low", "gone"]), ("b", &["low", "crate"])], &files),
        ["low is on two floors", "gone is on a floor, but no module", "new.rs: module new is on no floor"]
    );
}

#[test]
fn a_circle_within_a_floor_is_found_and_imports_without_one_are_not() {
    let floors: &[Floor<'_>] = &[("one", &["a", "b", "c", "crate"])];
    let lib = ("lib.rs", "mod a; mod b; mod c;");
    let (a, b) = (("a.rs", "use crate::b::x;"), ("b.rs", "use super::c::x;"));
    assert_eq!(found(floors, &[lib, a, b, ("c.rs", "")]), [""; 0]);
    assert_eq!(
        found(floors, &[lib, a, b, ("c.rs", "use crate::b::y;")]),
        ["a circle of imports: b -> c -> b"]
    );
}

#[test]
fn files_are_read_from_the_folder_of_a_crate() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("a")).unwrap();
    std::fs::write(folder.path().join("lib.rs"), "mod a; mod b;").unwrap();
    std::fs::write(folder.path().join("a/mod.rs"), "\nuse crate::b::x;").unwrap();
    std::fs::write(folder.path().join("b.rs"), "").unwrap();
    let found = violations(folder.path(), &[("low", &["a"]), ("high", &["b", "crate"])]).unwrap();
    assert_eq!(found, ["a/mod.rs:2: a (low) imports b of b (high) above it"]);
    std::fs::remove_file(folder.path().join("b.rs")).unwrap();
    assert!(violations(folder.path(), &[]).unwrap_err().root_cause().to_string().contains("module b"));
}
