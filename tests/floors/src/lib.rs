//! Holds the modules of a crate to floors: a module imports from its own floor and from the floors below.
//!
//! A test of the crate lists the floors, lowest first, and expects no [`violations`]:
//!
//! ```no_run
//! let floors = [("words", &["code", "metrics"][..]), ("work", &["session", "session::state"]), ("wiring", &["crate"])];
//! assert_eq!(floors::violations("src", &floors).unwrap(), Vec::<String>::new());
//! ```
//!
//! A listed module speaks for its submodules too, unless they are listed themselves. `crate` is the file
//! `lib.rs` alone. Modules of one floor may import each other as long as no circle comes of it. Code under
//! `#[cfg(test)]` is not read.

mod imports;
mod modules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use modules::Crate;

/// One floor: its name, and its modules by their paths below `crate`.
pub type Floor<'a> = (&'a str, &'a [&'a str]);

/// The name that stands for `lib.rs`.
const ROOT: &str = "crate";

/// Returns a sentence for everything below `src` that breaks the floors, which are listed lowest first: an
/// import from a floor above, a circle within a floor, a module on no floor, a listed module that is none.
///
/// # Errors
/// A file can't be read, or is not Rust.
pub fn violations(src: impl AsRef<Path>, floors: &[Floor<'_>]) -> anyhow::Result<Vec<String>> {
    let src = src.as_ref();
    let read = |file: &Path| std::fs::read_to_string(src.join(file)).ok();
    let modules = Crate::read(&read).with_context(|| format!("the modules of {}", src.display()))?;
    Ok(Plan::new(floors).violations(&modules))
}

/// Where each listed module stands.
struct Plan<'a> {
    floors: &'a [Floor<'a>],
    /// The floor of each listed module, from 0 at the bottom.
    heights: BTreeMap<&'a str, usize>,
    doubled: Vec<&'a str>,
}

impl<'a> Plan<'a> {
    fn new(floors: &'a [Floor<'a>]) -> Self {
        let (mut heights, mut doubled) = (BTreeMap::new(), Vec::new());
        for (height, (_, modules)) in floors.iter().enumerate() {
            for module in *modules {
                if heights.insert(*module, height).is_some() {
                    doubled.push(*module);
                }
            }
        }
        Self { floors, heights, doubled }
    }

    fn violations(&self, modules: &Crate) -> Vec<String> {
        let mut found = Vec::new();
        found.extend(self.doubled.iter().map(|module| format!("{module} is on two floors")));
        for listed in self.heights.keys() {
            if *listed != ROOT && !modules.files.contains_key(*listed) {
                found.push(format!("{listed} is on a floor, but no module"));
            }
        }
        for (module, file) in &modules.files {
            if self.listed(module).is_none() {
                found.push(format!("{file}: module {module} is on no floor"));
            }
        }
        let mut taken: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for import in &modules.imports {
            let Some((from, to)) = self.listed(&import.from).zip(self.listed(&import.to)) else { continue };
            if from == to {
                continue;
            }
            taken.entry(from).or_default().insert(to);
            let (low, high) = (self.heights[from], self.heights[to]);
            if high > low {
                let (low, high) = (self.floors[low].0, self.floors[high].0);
                let (file, line, path) = (&import.file, import.line, &import.to);
                found.push(format!("{file}:{line}: {from} ({low}) imports {path} of {to} ({high}) above it"));
            }
        }
        found.extend(circle(&taken).map(|circle| format!("a circle of imports: {}", circle.join(" -> "))));
        found
    }

    /// Returns the listed module that speaks for a path.
    fn listed(&self, path: &str) -> Option<&'a str> {
        let mut prefix = path;
        loop {
            if let Some((listed, _)) = self.heights.get_key_value(prefix) {
                return Some(listed);
            }
            prefix = prefix.rsplit_once("::")?.0;
        }
    }
}

/// Returns the modules of one circle, the first again at its end. Modules that are in no circle are taken
/// away until nothing is left.
fn circle<'a>(taken: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Option<Vec<&'a str>> {
    let mut left = taken.clone();
    loop {
        let before = left.len();
        let known: BTreeSet<_> = left.keys().copied().collect();
        left.values_mut().for_each(|to| to.retain(|to| known.contains(to)));
        left.retain(|_, to| !to.is_empty());
        if left.len() == before {
            break;
        }
    }
    // Each module that is left imports one that is left: the way along them comes back.
    let mut way = vec![*left.keys().next()?];
    loop {
        let next = *left[way[way.len() - 1]].first()?;
        if let Some(start) = way.iter().position(|module| *module == next) {
            way.push(next);
            return Some(way.split_off(start));
        }
        way.push(next);
    }
}

#[cfg(test)]
mod tests;
