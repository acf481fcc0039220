//! The data folder: its lock and its format.
//!
//! One process at a time has the folder, by a lock that ends with the process, however that ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::Path;

use super::files::{Files as _, SystemFiles, replace};
use crate::storage::StoreError;

pub(super) const LOCK: &str = "lock";
const FORMAT: &str = "format";
const VERSION: &str = "message-center bus data, format 2\n";
/// The previous format. A folder of it is read, and written on in the new format.
const BEFORE: &str = "message-center bus data, format 1\n";

/// Takes the folder. It is made if it is missing, for this user alone, because it holds messages to people.
/// The folder is free again when the returned file is dropped.
pub(super) fn take(folder: &Path) -> Result<File, StoreError> {
    make(folder)?;
    let lock = lock(folder)?;
    check_format(folder)?;
    Ok(lock)
}

/// Makes the folder and those above it, and makes their names durable.
fn make(folder: &Path) -> Result<(), StoreError> {
    let mut make = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut make, 0o700);
    let missing: Vec<&Path> = folder.ancestors().take_while(|one| !one.exists()).collect();
    make.recursive(true).create(folder).map_err(|error| unusable(folder, error))?;
    // A power failure takes a folder whose name is not on the disk, whatever was synced in it.
    for parent in missing.iter().filter_map(|one| one.parent()) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        SystemFiles.sync_folder(parent).map_err(|error| unusable(parent, error))?;
    }
    Ok(())
}

/// Locks the folder, and leaves the id of this process in the file of the lock.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK);
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut lock = opened.map_err(|error| unusable(folder, error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let other = fs::read_to_string(&path).unwrap_or_default();
            return Err(StoreError::Damaged(format!(
                "another process (pid {}) has the data folder {}: stop it, or set another bus.store.path (--data)",
                if other.trim().is_empty() { "unknown" } else { other.trim() },
                folder.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(unusable(folder, error)),
    }
    // The id only serves the text for a process that finds the folder taken.
    let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
    Ok(lock)
}

/// Checks the format of the folder, and writes it into an empty folder or one of the format before.
fn check_format(folder: &Path) -> Result<(), StoreError> {
    let at = folder.display();
    match fs::read_to_string(folder.join(FORMAT)) {
        Ok(text) if text == VERSION => {}
        // Replaced before anything is written: a program of the old format must not take new files for
        // damage.
        Ok(text) if text == BEFORE => {
            replace(&SystemFiles, folder, FORMAT, VERSION.as_bytes())
                .map_err(|error| unusable(folder, error))?;
        }
        Ok(text) => {
            return Err(StoreError::Damaged(format!(
                "the data folder {at} has another format ({:?}, this program knows {:?}): use the version of this \
                 program that wrote it, or another folder",
                text.trim(),
                VERSION.trim()
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let others = SystemFiles.list(folder).map_err(|error| unusable(folder, error))?;
            if others.iter().any(|name| name != LOCK && name != "format.new" && name != "lost+found") {
                return Err(StoreError::Damaged(format!(
                    "{at} is not empty and no data folder of this program: set bus.store.path (--data) to an empty \
                     or a new folder"
                )));
            }
            replace(&SystemFiles, folder, FORMAT, VERSION.as_bytes())
                .map_err(|error| unusable(folder, error))?;
        }
        Err(error) => return Err(unusable(folder, error)),
    }
    Ok(())
}

fn unusable(folder: &Path, source: io::Error) -> StoreError {
    StoreError::Folder { folder: folder.to_owned(), source }
}
