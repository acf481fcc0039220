//! A disk for tests that forgets what was not synced, and fails when it is told to.
//!
//! At a power cut each unsynced write is kept, dropped or torn, each unsynced name kept or dropped, by a seeded choice of
//! their own. (Folders are always kept.) Killing the process keeps everything.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::files::{Files, OneFile};

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Naming {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf, usize),
    Unlink(PathBuf),
}

#[derive(Debug, Default)]
struct Disk {
    inodes: Vec<Inode>,
    durable_names: HashMap<PathBuf, usize>,
    names: BTreeMap<PathBuf, usize>,
    unsynced: Vec<Naming>,
    boots: u64,
    changes: u64,
    /// Every change from this one on fails: the power is gone.
    cut_at: u64,
    /// This one change fails.
    fail_at: Option<(u64, ErrorKind)>,
    /// What is said of the room that is left.
    free: u64,
    /// Bytes that files may grow by before there is no room.
    left: Option<u64>,
}

fn apply(data: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(at, bytes) => {
            data.resize(data.len().max(at + bytes.len()), 0);
            data[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        Change::Length(len) => data.resize(*len, 0),
    }
}

fn name(names: &mut HashMap<PathBuf, usize>, naming: &Naming) {
    match naming {
        Naming::Link(path, inode) => drop(names.insert(path.clone(), *inode)),
        Naming::Rename(from, to, inode) => {
            names.remove(from);
            names.insert(to.clone(), *inode);
        }
        Naming::Unlink(path) => drop(names.remove(path)),
    }
}

impl Disk {
    fn change(&mut self) -> io::Result<()> {
        self.changes += 1;
        if self.changes >= self.cut_at {
            return Err(io::Error::other("the power is gone"));
        }
        match self.fail_at {
            Some((at, kind)) if at == self.changes => Err(kind.into()),
            Some(_) | None => Ok(()),
        }
    }

    /// A file that was so long becomes so long.
    fn resize(&mut self, before: usize, after: usize) -> io::Result<()> {
        let Some(left) = &mut self.left else { return Ok(()) };
        let all = *left + before as u64;
        *left = all.checked_sub(after as u64).ok_or(ErrorKind::StorageFull)?;
        Ok(())
    }

    /// A file has lost a name.
    fn lose(&mut self, inode: usize) {
        if !self.names.values().any(|other| *other == inode) {
            let len = self.inodes[inode].current.len();
            self.resize(len, 0).expect("it only gets shorter");
        }
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }
}

/// The disk, and all who use it.
#[derive(Clone, Debug)]
pub(super) struct Sim(Arc<Mutex<Disk>>);

impl Sim {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Disk { cut_at: u64::MAX, free: u64::MAX, ..Disk::default() })))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    pub(super) fn cut_after(&self, changes: u64) {
        let mut disk = self.disk();
        disk.cut_at = disk.changes + changes;
    }

    pub(super) fn fail_after(&self, changes: u64, kind: ErrorKind) {
        let mut disk = self.disk();
        disk.fail_at = Some((disk.changes + changes, kind));
    }

    pub(super) fn set_free(&self, free: u64) {
        self.disk().free = free;
    }

    /// Files may grow by so many bytes from now on.
    pub(super) fn set_left(&self, left: u64) {
        self.disk().left = Some(left);
    }

    /// Another program takes all the room that is left.
    pub(super) fn fill(&self) {
        self.set_left(0);
    }

    /// What all files hold that have a name.
    pub(super) fn contents(&self) -> Vec<u8> {
        let disk = self.disk();
        disk.names.values().flat_map(|inode| disk.inodes[*inode].current.clone()).collect()
    }

    /// The process is gone, the machine is not.
    pub(super) fn kill(&self) {
        self.disk().cut_at = u64::MAX;
    }

    /// The machine is started again; what was not synced is there or not.
    pub(super) fn power(&self, random: &mut fastrand::Rng) {
        let mut disk = self.disk();
        disk.cut_at = u64::MAX;
        disk.boots += 1;
        for inode in &mut disk.inodes {
            let unsynced = std::mem::take(&mut inode.unsynced);
            for change in unsynced {
                match (random.u8(..3), change) {
                    (0, _) => {}
                    (1, Change::Write(at, bytes)) if !bytes.is_empty() => {
                        let (from, to) = (random.usize(..bytes.len()), bytes.len());
                        let kept =
                            if random.bool() { bytes[..from].to_vec() } else { bytes[from..to].to_vec() };
                        let at = if kept.len() == from && bytes.starts_with(&kept) { at } else { at + from };
                        apply(&mut inode.durable, &Change::Write(at, kept));
                    }
                    (_, change) => apply(&mut inode.durable, &change),
                }
            }
            inode.current = inode.durable.clone();
        }
        for naming in std::mem::take(&mut disk.unsynced) {
            if random.bool() {
                name(&mut disk.durable_names, &naming);
            }
        }
        disk.names = disk.durable_names.clone().into_iter().collect();
    }

    /// Changes one byte on the disk.
    pub(super) fn damage(&self, path: &Path, at: usize) {
        let mut disk = self.disk();
        let inode = disk.inode(path).unwrap();
        disk.inodes[inode].current[at] ^= 0x55;
    }

    pub(super) fn size(&self, path: &Path) -> usize {
        let disk = self.disk();
        disk.inodes[disk.inode(path).unwrap()].current.len()
    }
}

#[derive(Debug)]
struct Opened(Sim, usize);

impl Files for Sim {
    fn create(&self, path: &Path) -> io::Result<Box<dyn OneFile>> {
        let mut disk = self.disk();
        disk.change()?;
        // A name that is there gets another file here: harsher than to empty the old one.
        disk.inodes.push(Inode::default());
        let inode = disk.inodes.len() - 1;
        disk.names.insert(path.to_owned(), inode);
        disk.unsynced.push(Naming::Link(path.to_owned(), inode));
        Ok(Box::new(Opened(self.clone(), inode)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OneFile>> {
        let inode = self.disk().inode(path)?;
        Ok(Box::new(Opened(self.clone(), inode)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let disk = self.disk();
        Ok(disk.inodes[disk.inode(path)?].current.clone())
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let disk = self.disk();
        Ok(disk.inodes[disk.inode(path)?].current.len() as u64)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.change()?;
        let inode = disk.inode(from)?;
        disk.names.remove(from);
        let old = disk.names.insert(to.to_owned(), inode);
        disk.unsynced.push(Naming::Rename(from.to_owned(), to.to_owned(), inode));
        old.into_iter().for_each(|old| disk.lose(old));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.change()?;
        let inode = disk.inode(path)?;
        disk.names.remove(path);
        disk.unsynced.push(Naming::Unlink(path.to_owned()));
        disk.lose(inode);
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk();
        let inside = disk.names.keys().filter_map(|path| path.strip_prefix(folder).ok());
        let mut names: Vec<String> =
            inside.filter_map(|rest| Some(rest.iter().next()?.to_string_lossy().into_owned())).collect();
        names.dedup();
        Ok(names)
    }

    fn create_folder(&self, _: &Path) -> io::Result<()> {
        self.disk().change()
    }

    fn remove_folder(&self, _: &Path) -> io::Result<()> {
        self.disk().change()
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.change()?;
        let (synced, rest) = std::mem::take(&mut disk.unsynced).into_iter().partition(|naming| {
            let (Naming::Link(path, _) | Naming::Rename(_, path, _) | Naming::Unlink(path)) = naming;
            path.parent() == Some(folder)
        });
        disk.unsynced = rest;
        let synced: Vec<Naming> = synced;
        synced.iter().for_each(|naming| name(&mut disk.durable_names, naming));
        Ok(())
    }

    fn hold(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let there = self.disk().inode(path).is_ok();
        let mut file = if there { self.open(path)? } else { self.create(path)? };
        file.set_len(bytes)
    }

    fn free(&self, _: &Path) -> io::Result<u64> {
        let disk = self.disk();
        Ok(disk.left.map_or(disk.free, |left| left.min(disk.free)))
    }

    fn boot_id(&self) -> String {
        self.disk().boots.to_string()
    }
}

impl Opened {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut disk = self.0.disk();
        let before = disk.inodes[self.1].current.len();
        let after = match &change {
            Change::Write(at, bytes) => before.max(at + bytes.len()),
            Change::Length(len) => *len,
        };
        let failed = disk.change().and_then(|()| disk.resize(before, after));
        let inode = &mut disk.inodes[self.1];
        if let (Err(_), Change::Write(at, bytes)) = (&failed, &change) {
            // A write that fails may have written some.
            let some = Change::Write(*at, bytes[..bytes.len() / 2].to_vec());
            apply(&mut inode.current, &some);
            inode.unsynced.push(some);
        }
        failed?;
        apply(&mut inode.current, &change);
        inode.unsynced.push(change);
        Ok(())
    }
}

impl OneFile for Opened {
    fn write_at(&mut self, data: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write(usize::try_from(offset).unwrap(), data.to_vec()))
    }

    fn read_at(&self, data: &mut [u8], offset: u64) -> io::Result<()> {
        let disk = self.0.disk();
        let from = usize::try_from(offset).unwrap();
        let there = disk.inodes[self.1].current.get(from..from + data.len());
        data.copy_from_slice(there.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.change(Change::Length(usize::try_from(len).unwrap()))
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.0.disk();
        if let Err(error) = disk.change() {
            // As Linux does: what it could not write counts as written, and is only in memory.
            disk.inodes[self.1].unsynced.clear();
            return Err(error);
        }
        let inode = &mut disk.inodes[self.1];
        for change in std::mem::take(&mut inode.unsynced) {
            apply(&mut inode.durable, &change);
        }
        Ok(())
    }
}
