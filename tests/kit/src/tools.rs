//! The tools that `tests/run` has installed, as named by environment variables.
//!
//! With `MC_TEST_TOOLS=1` a missing tool is an error. Without the variable, a test that needs a tool says on
//! standard error that it was left to `./tests/run`.

use std::path::PathBuf;

/// Whether this run promises all tools.
pub fn installed() -> bool {
    std::env::var_os("MC_TEST_TOOLS").is_some_and(|value| value == "1")
}

/// The path of the tool in `variable`. `None`: this run has no tools, and a line on standard error says so.
///
/// # Panics
/// The environment promises tools, but this tool is missing.
pub fn find(variable: &str, test: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    match path {
        Some(path) if path.exists() => Some(path),
        Some(path) => panic!("{variable} is {}, which does not exist", path.display()),
        None if installed() => {
            panic!("MC_TEST_TOOLS is 1 but {variable} is not set: start the tests with tests/run")
        }
        None => {
            leave(test);
            None
        }
    }
}

/// The path of a tool that not every machine can have; `tests/run` sets the variable of such a missing tool
/// to the empty string.
///
/// # Panics
/// See [`find`].
pub fn find_optional(variable: &str, test: &str) -> Option<PathBuf> {
    if std::env::var_os(variable).is_some_and(|value| value.is_empty()) {
        left_out(test, &format!("{variable} is empty: it can't be had here"));
        return None;
    }
    find(variable, test)
}

/// Says on standard error that a test was left out, and why.
pub fn left_out(test: &str, why: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "left out: {test}: {why}");
}

/// Says that a test was left to `./tests/run`. Writes to the process's standard error directly, since libtest
/// captures the output of tests that pass.
fn leave(test: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "left to ./tests/run, which installs what it needs: {test}");
}
