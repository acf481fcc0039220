//! Every link of every Markdown page leads to a file of the repository, every `#anchor` to a heading, and
//! every page of the manual is linked.
//!
//! Links to other sites are not followed: a test does not depend on other servers.

mod page;
mod versions;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use page::Page;

/// Folders without pages of this repository.
const NOT_OURS: [&str; 3] = ["target", "node_modules", "message-center-data"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the crate is in the repository")
}

/// All Markdown files below a folder.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let entry = entry.expect("the folder can be read");
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type().expect("it is there").is_dir() {
            if !name.starts_with('.') && !NOT_OURS.contains(&name.as_ref()) {
                pages(&entry.path(), found);
            }
        } else if name.ends_with(".md") {
            found.push(entry.path());
        }
    }
}

/// The path without `.` and `..`; `None` if it leaves the repository.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if !plain.pop() {
                    return None;
                }
            }
            Component::Normal(name) => plain.push(name),
            Component::Prefix(_) | Component::RootDir => return None,
        }
    }
    Some(plain)
}

/// The error of a link of `page` (a path in the repository), if there is one.
fn fault(root: &Path, page: &Path, own: &Page, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() {
        page.to_owned()
    } else {
        match plain(&page.parent().unwrap_or(Path::new("")).join(path)) {
            Some(target) => target,
            None => return Some(format!("{link} leaves the repository")),
        }
    };
    let file = root.join(&target);
    if !file.exists() {
        return Some(format!("{link} leads to {}, which is not there", target.display()));
    }
    if anchor.is_empty() {
        return None;
    }
    let anchors = match path {
        "" => own.anchors.clone(),
        _ if path.ends_with(".md") => Page::read(&fs::read_to_string(file).expect("it is text")).anchors,
        _ => return Some(format!("{link} names an anchor of a file that is no Markdown")),
    };
    let known = anchors.iter().any(|known| known == anchor);
    (!known)
        .then(|| format!("{link} names no heading of {}; there are: {}", target.display(), anchors.join(" ")))
}

#[test]
fn every_link_of_the_manual_leads_somewhere() {
    let root = repository();
    let mut found = Vec::new();
    pages(&root, &mut found);
    assert!(found.len() > 15, "the manual was not found in {}", root.display());
    let mut faults = Vec::new();
    let mut links = 0;
    for path in &found {
        let name = path.strip_prefix(&root).expect("it was found there");
        let page = Page::read(&fs::read_to_string(path).expect("it is text"));
        links += page.links.len();
        let wrong = page.links.iter().filter_map(|link| fault(&root, name, &page, link));
        faults.extend(wrong.map(|fault| format!("{}: {fault}", name.display())));
    }
    assert!(links > 60, "only {links} links were found");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_page_of_the_manual_can_be_reached_from_the_readme() {
    let root = repository();
    let (mut reached, mut next) = (BTreeSet::new(), vec![PathBuf::from("README.md")]);
    while let Some(name) = next.pop() {
        if !name.to_string_lossy().ends_with(".md") || !reached.insert(name.clone()) {
            continue;
        }
        let Ok(text) = fs::read_to_string(root.join(&name)) else { continue };
        let folder = name.parent().unwrap_or(Path::new(""));
        let paths = Page::read(&text).links.into_iter().filter(|link| !link.contains("://"));
        next.extend(paths.filter_map(|link| plain(&folder.join(link.split('#').next().unwrap_or_default()))));
    }
    let mut manual = Vec::new();
    pages(&root.join("deploy/docs"), &mut manual);
    let names = manual.iter().map(|path| path.strip_prefix(&root).expect("it was found there"));
    let lost: Vec<_> = names.filter(|name| !reached.contains(*name)).collect();
    assert!(lost.is_empty(), "no page leads to {lost:?}; name it in deploy/docs/README.md");
}

#[test]
fn a_wrong_link_is_named() {
    let root = repository();
    let own = Page::read("# Running message center\n");
    let wrong = |link| fault(&root, Path::new("deploy/docs/running.md"), &own, link);
    for good in [
        "#running-message-center",
        "login.md",
        "../../README.md",
        "../docs",
        "config.md#edge",
        "https://a.example/#b",
    ] {
        assert_eq!(wrong(good), None, "{good}");
    }
    for bad in
        ["#there", "nowhere.md", "../../../outside.md", "running.md#nowhere", "../samples/Caddyfile#top"]
    {
        assert!(wrong(bad).is_some(), "{bad}");
    }
}
