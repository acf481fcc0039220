//! A disk for tests that forgets unsynced changes, and fails on demand.
//!
//! At a power cut each unsynced write is kept, dropped or torn, and each unsynced name kept or dropped, by a
//! seeded choice for each. (Folders are always kept.) Killing the process keeps everything.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::files::{Files, OpenFile};

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
struct SimState {
    inodes: Vec<Inode>,
    durable_names: HashMap<PathBuf, usize>,
    names: BTreeMap<PathBuf, usize>,
    unsynced: Vec<Naming>,
    boots: u64,
    changes: u64,
    /// Every change from this one on fails, as after a power cut.
    cut_at: u64,
    /// This one change fails.
    fail_at: Option<(u64, ErrorKind)>,
    /// Free space as reported.
    free: u64,
    /// Bytes by which files may grow.
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

impl SimState {
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

    /// Resizes a file, within the free space.
    fn resize(&mut self, before: usize, after: usize) -> io::Result<()> {
        let Some(left) = &mut self.left else { return Ok(()) };
        let all = *left + before as u64;
        *left = all.checked_sub(after as u64).ok_or(ErrorKind::StorageFull)?;
        Ok(())
    }

    /// Frees a file that has lost its last name.
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

/// A handle on the disk.
#[derive(Clone, Debug)]
pub(super) struct Sim(Arc<Mutex<SimState>>);

impl Sim {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(SimState { cut_at: u64::MAX, free: u64::MAX, ..SimState::default() })))
    }

    fn state(&self) -> MutexGuard<'_, SimState> {
        self.0.lock().unwrap()
    }

    pub(super) fn cut_after(&self, changes: u64) {
        let mut state = self.state();
        state.cut_at = state.changes + changes;
    }

    pub(super) fn fail_after(&self, changes: u64, kind: ErrorKind) {
        let mut state = self.state();
        state.fail_at = Some((state.changes + changes, kind));
    }

    pub(super) fn set_free(&self, free: u64) {
        self.state().free = free;
    }

    /// Lets files grow by so many bytes from now on.
    pub(super) fn set_left(&self, left: u64) {
        self.state().left = Some(left);
    }

    /// Lets another program take all free space.
    pub(super) fn fill(&self) {
        self.set_left(0);
    }

    /// Returns the bytes of all files that have a name.
    pub(super) fn contents(&self) -> Vec<u8> {
        let state = self.state();
        state.names.values().flat_map(|inode| state.inodes[*inode].current.clone()).collect()
    }

    /// Ends the process, and not the machine.
    pub(super) fn kill(&self) {
        self.state().cut_at = u64::MAX;
    }

    /// Cuts the power and starts the machine again.
    pub(super) fn power(&self, random: &mut fastrand::Rng) {
        let mut state = self.state();
        state.cut_at = u64::MAX;
        state.boots += 1;
        for inode in &mut state.inodes {
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
        for naming in std::mem::take(&mut state.unsynced) {
            if random.bool() {
                name(&mut state.durable_names, &naming);
            }
        }
        state.names = state.durable_names.clone().into_iter().collect();
    }

    /// Changes one byte on the disk.
    pub(super) fn damage(&self, path: &Path, at: usize) {
        let mut state = self.state();
        let inode = state.inode(path).unwrap();
        state.inodes[inode].current[at] ^= 0x55;
    }

    pub(super) fn size(&self, path: &Path) -> usize {
        let state = self.state();
        state.inodes[state.inode(path).unwrap()].current.len()
    }
}

#[derive(Debug)]
struct SimFile(Sim, usize);

impl Files for Sim {
    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let mut state = self.state();
        state.change()?;
        // An existing name gets a new file, which is harsher than emptying the old one.
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.names.insert(path.to_owned(), inode);
        state.unsynced.push(Naming::Link(path.to_owned(), inode));
        Ok(Box::new(SimFile(self.clone(), inode)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let inode = self.state().inode(path)?;
        Ok(Box::new(SimFile(self.clone(), inode)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state();
        Ok(state.inodes[state.inode(path)?].current.clone())
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let state = self.state();
        Ok(state.inodes[state.inode(path)?].current.len() as u64)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let inode = state.inode(from)?;
        state.names.remove(from);
        let old = state.names.insert(to.to_owned(), inode);
        state.unsynced.push(Naming::Rename(from.to_owned(), to.to_owned(), inode));
        old.into_iter().for_each(|old| state.lose(old));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let inode = state.inode(path)?;
        state.names.remove(path);
        state.unsynced.push(Naming::Unlink(path.to_owned()));
        state.lose(inode);
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let inside = state.names.keys().filter_map(|path| path.strip_prefix(folder).ok());
        let mut names: Vec<String> =
            inside.filter_map(|rest| Some(rest.iter().next()?.to_string_lossy().into_owned())).collect();
        names.dedup();
        Ok(names)
    }

    fn create_folder(&self, _: &Path) -> io::Result<()> {
        self.state().change()
    }

    fn remove_folder(&self, _: &Path) -> io::Result<()> {
        self.state().change()
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let (synced, rest) = std::mem::take(&mut state.unsynced).into_iter().partition(|naming| {
            let (Naming::Link(path, _) | Naming::Rename(_, path, _) | Naming::Unlink(path)) = naming;
            path.parent() == Some(folder)
        });
        state.unsynced = rest;
        let synced: Vec<Naming> = synced;
        synced.iter().for_each(|naming| name(&mut state.durable_names, naming));
        Ok(())
    }

    fn hold(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let there = self.state().inode(path).is_ok();
        let mut file = if there { self.open(path)? } else { self.create(path)? };
        file.set_len(bytes)
    }

    fn free(&self, _: &Path) -> io::Result<u64> {
        let state = self.state();
        Ok(state.left.map_or(state.free, |left| left.min(state.free)))
    }

    fn boot_id(&self) -> String {
        self.state().boots.to_string()
    }
}

impl SimFile {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.0.state();
        let before = state.inodes[self.1].current.len();
        let after = match &change {
            Change::Write(at, bytes) => before.max(at + bytes.len()),
            Change::Length(len) => *len,
        };
        let failed = state.change().and_then(|()| state.resize(before, after));
        let inode = &mut state.inodes[self.1];
        if let (Err(_), Change::Write(at, bytes)) = (&failed, &change) {
            // A failed write may have written some bytes.
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

impl OpenFile for SimFile {
    fn write_at(&mut self, data: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write(usize::try_from(offset).unwrap(), data.to_vec()))
    }

    fn read_at(&self, data: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.0.state();
        let from = usize::try_from(offset).unwrap();
        let there = state.inodes[self.1].current.get(from..from + data.len());
        data.copy_from_slice(there.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.change(Change::Length(usize::try_from(len).unwrap()))
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.0.state();
        if let Err(error) = state.change() {
            // As in Linux, pages that could not be written count as clean, and exist only in memory.
            state.inodes[self.1].unsynced.clear();
            return Err(error);
        }
        let inode = &mut state.inodes[self.1];
        for change in std::mem::take(&mut inode.unsynced) {
            apply(&mut inode.durable, &change);
        }
        Ok(())
    }
}
