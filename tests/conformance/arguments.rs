//! The command line: the arguments that `cargo test` hands to a test program, as far as they apply here.

use anyhow::bail;

/// Flags of libtest that change nothing here, so that `cargo test -- --nocapture` works for all test
/// programs.
const IGNORED: &[&str] =
    &["--nocapture", "--no-capture", "--show-output", "--quiet", "-q", "--include-ignored"];

/// The selected cases.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    filters: Vec<String>,
    /// Print the names instead of running the cases.
    pub(crate) list: bool,
}

impl Arguments {
    /// Parses the arguments after the program's name.
    pub(crate) fn parse(given: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut arguments = Self::default();
        let mut given = given;
        while let Some(argument) = given.next() {
            match argument.as_str() {
                "--list" => arguments.list = true,
                "--test-threads" | "--format" | "--color" => drop(given.next()),
                flag if IGNORED.contains(&flag) || flag.starts_with("--test-threads=") => {}
                flag if flag.starts_with('-') => {
                    bail!("unknown flag {flag}: give parts of names like raw/ or async-nats/order, or --list")
                }
                _ => arguments.filters.push(argument),
            }
        }
        Ok(arguments)
    }

    /// Whether the case with this full name is selected; without filters, every case is.
    pub(crate) fn select(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }

    /// Whether any case whose full name begins with `beginning` may be selected. A filter that names another
    /// server or client before a `/` selects none.
    pub(crate) fn may_select(&self, beginning: &str) -> bool {
        self.filters.is_empty()
            || self.filters.iter().any(|filter| match filter.rfind('/') {
                Some(end) => beginning.contains(&filter[..=end]),
                None => true,
            })
    }

    /// Whether no case was filtered out.
    pub(crate) fn is_whole(&self) -> bool {
        self.filters.is_empty() && !self.list
    }
}
