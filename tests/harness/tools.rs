//! What `tests/run` has installed, as it says in the environment.
//!
//! With `MC_TEST_TOOLS=1` whatever is missing is an error; without it a test that needs a tool says aloud that it was
//! left to `./tests/run`.

use std::path::PathBuf;

/// Whether this run has the tools.
pub fn installed() -> bool {
    std::env::var_os("MC_TEST_TOOLS").is_some_and(|value| value == "1")
}

/// The tool that this variable names. `None`: this run has no tools, which was printed.
///
/// # Panics
/// The environment promises tools, but this one is not there.
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

/// The same for what not every machine can have; `tests/run` then sets the variable to nothing.
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

/// Says that a test was left out, and why.
pub fn left_out(test: &str, why: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "left out: {test}: {why}");
}

/// Says that a test was left to `./tests/run`. Written past the test runner, which swallows the output of tests that
/// pass.
fn leave(test: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "left to ./tests/run, which installs what it needs: {test}");
}
