//! How the last use of a log ended: the file `mark` in its folder.
//!
//! While a log is open its mark says `running`, with the kernel's boot id (new at each start of the machine)
//! and with what acknowledgements waited for. A clean end replaces the mark. So the next opening knows
//! whether the process ended well, was killed (the system still had everything that was written) or the
//! machine crashed (only synced bytes are certain). `short` stays until the stream has taken note that
//! messages may be missing.

use std::io;
use std::path::Path;

use super::files::{Files, replace};
use crate::config::SyncMode;

pub(super) const NAME: &str = "mark";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Clean { segment: u32, len: u64 },
    Running { boot: String, sync: SyncMode, short: bool },
}

impl Mark {
    /// Reads the mark in a folder. A missing or unreadable one counts as the worst case.
    pub(super) fn read(files: &dyn Files, folder: &Path) -> Self {
        let data = files.read(&folder.join(NAME)).unwrap_or_default();
        let worst = Self::Running { boot: String::new(), sync: SyncMode::Relaxed, short: false };
        std::str::from_utf8(&data).ok().and_then(Self::parse).unwrap_or(worst)
    }

    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match *words.as_slice() {
            ["clean", segment, len] => {
                Some(Self::Clean { segment: segment.parse().ok()?, len: len.parse().ok()? })
            }
            ["running", boot, sync, short] => {
                let sync = if sync == "strict" { SyncMode::Strict } else { SyncMode::Relaxed };
                let boot = boot.trim_start_matches("boot=").to_owned();
                Some(Self::Running { boot, sync, short: short == "short" })
            }
            _ => None,
        }
    }

    pub(super) fn write(&self, files: &dyn Files, folder: &Path) -> io::Result<()> {
        let text = match self {
            Self::Clean { segment, len } => format!("clean {segment} {len}\n"),
            Self::Running { boot, sync, short } => {
                let sync = if *sync == SyncMode::Strict { "strict" } else { "relaxed" };
                format!("running boot={boot} {sync} {}\n", if *short { "short" } else { "whole" })
            }
        };
        replace(files, folder, NAME, text.as_bytes())
    }

    /// Whether the machine may have crashed while the log was open.
    pub(super) fn machine_went_down(&self, boot_now: &str) -> bool {
        match self {
            Self::Clean { .. } => false,
            Self::Running { boot, .. } => boot.is_empty() || boot != boot_now,
        }
    }

    /// Whether acknowledged messages may be missing.
    pub(super) fn may_miss_some(&self, boot_now: &str) -> bool {
        match self {
            Self::Clean { .. } => false,
            Self::Running { sync, short, .. } => {
                *short || (*sync == SyncMode::Relaxed && self.machine_went_down(boot_now))
            }
        }
    }
}
