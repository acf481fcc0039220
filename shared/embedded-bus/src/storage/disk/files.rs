//! The few file operations of the store, so that tests can put a forgetful disk under it.
//!
//! Nothing is durable before [`OpenFile::sync`] (contents and length) and [`Files::sync_folder`] (names) have
//! returned.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Files and folders by name.
pub(super) trait Files: Send + Sync + fmt::Debug {
    /// Creates an empty file, or empties the file of that name.
    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// Opens an existing file.
    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Returns the bytes of a file.
    fn len(&self, path: &Path) -> io::Result<u64>;
    /// Renames a file. It replaces a file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Returns the names in a folder, in any order.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Creates a folder, unless it is there.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes a file take so many bytes of the disk, whatever its content, by making it longer or shorter.
    fn hold(&self, path: &Path, bytes: u64) -> io::Result<()>;
    /// Returns the bytes that may still be written.
    fn free(&self, path: &Path) -> io::Result<u64>;
    /// Returns an id that is new after each start of the machine; empty: unknown.
    fn boot_id(&self) -> String;
}

/// An open file.
pub(super) trait OpenFile: Send + fmt::Debug {
    /// Writes all of `data`.
    fn write_at(&mut self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Fills `data`.
    fn read_at(&self, data: &mut [u8], offset: u64) -> io::Result<()>;
    /// Cuts the file off, or extends it.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// Makes contents and length durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// The files of this machine.
#[derive(Debug)]
pub(super) struct SystemFiles;

impl Files for SystemFiles {
    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let mut data = Vec::with_capacity(usize::try_from(file.metadata()?.len()).unwrap_or(0));
        file.read_to_end(&mut data)?;
        Ok(data)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn hold(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        if file.metadata()?.len() > bytes {
            return file.set_len(bytes);
        }
        if bytes == 0 {
            return Ok(());
        }
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
        Ok(())
    }

    fn free(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn boot_id(&self) -> String {
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_or_else(|_| String::new(), |id| id.trim().to_owned())
    }
}

impl OpenFile for File {
    fn write_at(&mut self, data: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn read_at(&self, data: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(data, offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Whether an operation failed for want of space on the disk.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Replaces a small file, so that at any time either the old or the new one is there, complete.
pub(super) fn replace(files: &dyn Files, folder: &Path, name: &str, data: &[u8]) -> io::Result<()> {
    let (new, old) = (folder.join(format!("{name}.new")), folder.join(name));
    let mut file = files.create(&new)?;
    file.write_at(data, 0)?;
    file.sync()?;
    files.rename(&new, &old)?;
    files.sync_folder(folder)
}
