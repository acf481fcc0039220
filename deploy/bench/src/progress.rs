//! One line on a terminal that shows the progress of a run. Without a terminal nothing is shown.

use std::io::{IsTerminal as _, Write as _};

/// The line of progress; each text replaces the last.
pub(crate) struct Line {
    shown: bool,
    terminal: bool,
}

impl Line {
    /// Makes a line on standard error, if that is a terminal.
    pub(crate) fn new() -> Self {
        Self { shown: false, terminal: std::io::stderr().is_terminal() }
    }

    /// Shows a text in place of the last.
    pub(crate) fn show(&mut self, text: &str) {
        if self.terminal {
            // Carriage return, the text, and an escape that clears the rest of the line.
            let _ = write!(std::io::stderr(), "\r{text}\x1b[K");
            self.shown = true;
        }
    }

    /// Clears the line.
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
