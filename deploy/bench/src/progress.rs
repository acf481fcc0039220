//! One line on a terminal that says how far a run is; nothing where nobody looks.

use std::io::{IsTerminal as _, Write as _};

/// The line, which is written over again and again.
pub(crate) struct Line {
    shown: bool,
    terminal: bool,
}

impl Line {
    /// On standard error, if that is a terminal.
    pub(crate) fn new() -> Self {
        Self { shown: false, terminal: std::io::stderr().is_terminal() }
    }

    /// Shows a text in place of the last.
    pub(crate) fn show(&mut self, text: &str) {
        if self.terminal {
            // To the beginning, the text, and away with what the last one had beyond it.
            let _ = write!(std::io::stderr(), "\r{text}\x1b[K");
            self.shown = true;
        }
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.clear();
    }
}
