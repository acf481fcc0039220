//! The modules of a crate, from `lib.rs` along their declarations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use anyhow::Context as _;
use proc_macro2::TokenStream;

use crate::ROOT;
use crate::imports::{Reader, Scope};

/// One module takes something from another.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Import {
    /// Relative to the folder of `lib.rs`.
    pub(crate) file: String,
    pub(crate) line: usize,
    /// The path of the importing module below `crate`; `crate` itself for the root.
    pub(crate) from: String,
    /// The path of the module that is imported from.
    pub(crate) to: String,
}

/// All modules of a crate but those of its tests.
#[derive(Debug, Default)]
pub(crate) struct Crate {
    /// The file of each module, by the module's path below `crate`.
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) imports: Vec<Import>,
}

/// A path as it is written, made absolute.
struct Use {
    from: Vec<String>,
    to: Vec<String>,
    file: String,
    line: usize,
}

impl Crate {
    /// Reads the crate; `read` returns a file's text by its path below the folder of `lib.rs`.
    pub(crate) fn read(read: &dyn Fn(&Path) -> Option<String>) -> anyhow::Result<Self> {
        let (mut modules, mut uses) = (Self::default(), Vec::new());
        let mut open: Vec<(Vec<String>, PathBuf)> = vec![(Vec::new(), "lib.rs".into())];
        while let Some((path, file)) = open.pop() {
            let name = file.to_string_lossy().into_owned();
            let text = read(&file).with_context(|| format!("{name} can't be read"))?;
            let tokens = TokenStream::from_str(&text).map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
            if !path.is_empty() {
                modules.files.insert(path.join("::"), name.clone());
            }
            let mut reader = Reader::default();
            reader.read(tokens, &mut Scope::new(path));
            for inner in reader.inline {
                modules.files.insert(inner.join("::"), name.clone());
            }
            for module in reader.declared {
                let file = file_of(&module, read)?;
                open.push((module, file));
            }
            let found = reader.paths.into_iter();
            uses.extend(found.map(|(from, to, line)| Use { from, to, file: name.clone(), line }));
        }
        modules.imports = uses.into_iter().map(|found| modules.import(found)).collect();
        modules.imports.sort_unstable();
        modules.imports.dedup();
        Ok(modules)
    }

    /// Cuts the path of an item down to that of its module.
    fn import(&self, Use { from, mut to, file, line }: Use) -> Import {
        while !to.is_empty() && !self.files.contains_key(&to.join("::")) {
            to.pop();
        }
        let named = |path: Vec<String>| if path.is_empty() { ROOT.to_owned() } else { path.join("::") };
        Import { from: named(from), to: named(to), file, line }
    }
}

fn file_of(module: &[String], read: &dyn Fn(&Path) -> Option<String>) -> anyhow::Result<PathBuf> {
    let path: PathBuf = module.iter().collect();
    let candidates = [path.join("mod.rs"), path.with_extension("rs")];
    let found = candidates.into_iter().find(|file| read(file).is_some());
    found.with_context(|| format!("module {} has no file", module.join("::")))
}
