//! A host in memory that records everything a commit does, and can fail at any step.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use winject::internals::block::{FileIdentity, Fingerprint, HostFiles, HostRun, Locking, RealHost, Storage};
use winject::internals::cancel::Cancel;
use winject::internals::error::{Error, Layer, Result};

/// Something that changes a file or a folder, or makes changes durable.
#[derive(Debug, Clone)]
pub enum Op {
    Create(PathBuf),
    /// Commits make no folders; `winject plan --bundle` does, which the evidence tool replays.
    #[allow(dead_code)]
    CreateFolder(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    SetLen(PathBuf, u64),
    Reserve(PathBuf, u64, u64),
    Punch(PathBuf, u64, u64),
    Flush(PathBuf),
    /// A flush that failed: the host has thrown away what it could not write, and shows it all the same until the power
    /// goes (as Linux does: the pages count as clean).
    LostFlush(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
    /// The names in this folder.
    SyncFolder(PathBuf),
}

/// The content of all files.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The folder that holds `path`; empty for a bare name.
pub fn folder_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(path).to_owned()
}

/// Applies an operation.
pub fn apply(files: &mut Files, op: &Op) {
    match op {
        Op::Create(path) => {
            files.insert(path.clone(), Vec::new());
        }
        Op::Write(path, offset, data) => {
            // A file whose creation was lost has lost its content too.
            let Some(file) = files.get_mut(path) else { return };
            let end = *offset as usize + data.len();
            if file.len() < end {
                file.resize(end, 0);
            }
            file[*offset as usize..end].copy_from_slice(data);
        }
        Op::SetLen(path, length) => {
            if let Some(file) = files.get_mut(path) {
                file.resize(*length as usize, 0);
            }
        }
        Op::Reserve(path, offset, length) => {
            if let Some(file) = files.get_mut(path) {
                let end = (offset + length) as usize;
                file.resize(file.len().max(end), 0);
            }
        }
        Op::Punch(path, offset, length) => {
            if let Some(file) = files.get_mut(path) {
                let end = ((offset + length) as usize).min(file.len());
                file[(*offset as usize).min(end)..end].fill(0);
            }
        }
        Op::Remove(path) => {
            files.remove(path);
        }
        Op::Rename(from, to) => {
            if let Some(file) = files.remove(from) {
                files.insert(to.clone(), file);
            }
        }
        Op::CreateFolder(_) | Op::Flush(_) | Op::LostFlush(_) | Op::SyncFolder(_) => {}
    }
}

/// When and how often operations fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Never,
    /// Only the operation of this number.
    Once(usize),
    /// All from this number on, as when the disk is full or gone.
    From(usize),
}

#[derive(Debug)]
struct State {
    files: Files,
    /// The present names of the files that are open.
    open: Vec<PathBuf>,
    log: Vec<Op>,
    count: usize,
    fault: Fault,
}

/// The real host, which fails from one of its operations on, as when the machine stops, or at one of them only.
#[derive(Debug, Clone)]
pub struct FailingHost(Arc<Mutex<Failing>>);

#[derive(Debug)]
struct Failing {
    left: usize,
    is_once: bool,
    removed: Files,
    cancel: Option<Cancel>,
}

impl FailingHost {
    /// `left` operations succeed.
    pub fn new(left: usize) -> Self {
        Self(Arc::new(Mutex::new(Failing { left, is_once: false, removed: Files::new(), cancel: None })))
    }

    /// `left` operations succeed, then one fails.
    pub fn once(left: usize) -> Self {
        Self(Arc::new(Mutex::new(Failing { left, is_once: true, removed: Files::new(), cancel: None })))
    }

    /// All operations succeed; at the one after `left` the job is asked to stop.
    pub fn cancelling(left: usize, cancel: &Cancel) -> Self {
        let cancel = Some(cancel.clone());
        Self(Arc::new(Mutex::new(Failing { left, is_once: true, removed: Files::new(), cancel })))
    }

    /// The files that were removed, as they were.
    pub fn removed(&self) -> Files {
        self.0.lock().unwrap().removed.clone()
    }

    /// How many more would have succeeded.
    pub fn left(&self) -> usize {
        self.0.lock().unwrap().left
    }

    fn step(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        match state.left.checked_sub(1) {
            Some(left) => state.left = left,
            None => {
                if state.is_once {
                    state.left = usize::MAX;
                }
                if let Some(cancel) = &state.cancel {
                    let _ = cancel.request();
                    return Ok(());
                }
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct FailingFile(Arc<dyn Storage>, FailingHost);

impl HostFiles for FailingHost {
    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn Storage>> {
        self.step()?;
        Ok(Arc::new(FailingFile(RealHost.create(path, mode)?, self.clone())))
    }
    fn open(&self, path: &Path, locking: Locking) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(FailingFile(RealHost.open(path, locking)?, self.clone())))
    }
    fn lock(&self, path: &Path, locking: Locking) -> Result<Arc<dyn Storage>> {
        RealHost.lock(path, locking)
    }
    fn real_path(&self, path: &Path) -> PathBuf {
        RealHost.real_path(path)
    }
    fn open_journal(&self, path: &Path, image_owner: Option<u32>) -> Result<Arc<dyn Storage>> {
        RealHost.open_journal(path, image_owner)
    }
    fn open_record(&self, path: &Path, image_owner: Option<u32>) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(FailingFile(RealHost.open_record(path, image_owner)?, self.clone())))
    }
    fn exists(&self, path: &Path) -> bool {
        RealHost.exists(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        let content = std::fs::read(path)?;
        self.0.lock().unwrap().removed.insert(path.to_owned(), content);
        RealHost.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path, replace: bool) -> io::Result<()> {
        self.step().and_then(|()| RealHost.rename(from, to, replace))
    }
    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        self.step().and_then(|()| RealHost.sync_folder_of(path))
    }
}

impl Storage for FailingFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.1.step().and_then(|()| self.0.write_at(offset, data))
    }
    fn flush(&self) -> io::Result<()> {
        self.1.step().and_then(|()| self.0.flush())
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.1.step().and_then(|()| self.0.set_len(length))
    }
    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        self.1.step().and_then(|()| self.0.reserve(offset, length))
    }
    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.1.step().and_then(|()| self.0.punch(offset, length))
    }
    fn run_at(&self, offset: u64) -> io::Result<HostRun> {
        self.0.run_at(offset)
    }
    fn fingerprint(&self) -> Option<Fingerprint> {
        self.0.fingerprint()
    }
    fn identity(&self) -> Option<FileIdentity> {
        self.0.identity()
    }
}

/// The host. Clones are the same host.
#[derive(Debug, Clone)]
pub struct VirtualHost(Arc<Mutex<State>>);

impl VirtualHost {
    pub fn new(files: Files, fault: Fault) -> Self {
        Self(Arc::new(Mutex::new(State { files, open: Vec::new(), log: Vec::new(), count: 0, fault })))
    }

    /// A host on which all this has happened already.
    pub fn after(mut files: Files, log: &[Op]) -> Self {
        log.iter().for_each(|op| apply(&mut files, op));
        Self(Arc::new(Mutex::new(State { files, open: Vec::new(), log: log.to_vec(), count: 0, fault: Fault::Never })))
    }

    pub fn files(&self) -> Files {
        self.0.lock().unwrap().files.clone()
    }

    /// From now on operations fail as `fault` says; they are counted from here.
    pub fn set_fault(&self, fault: Fault) {
        let mut state = self.0.lock().unwrap();
        (state.fault, state.count) = (fault, 0);
    }

    pub fn log(&self) -> Vec<Op> {
        self.0.lock().unwrap().log.clone()
    }

    pub fn storage(&self, path: &Path) -> Arc<dyn Storage> {
        let mut state = self.0.lock().unwrap();
        state.open.push(path.to_owned());
        Arc::new(VirtualFile { host: self.clone(), number: state.open.len() - 1 })
    }

    fn run(&self, op: Op) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let number = state.count;
        state.count += 1;
        let fails = match state.fault {
            Fault::Never => false,
            Fault::Once(at) => number == at,
            Fault::From(at) => number >= at,
        };
        if fails {
            // A write that fails may have stored a part.
            if let Op::Write(path, offset, data) = &op {
                let part = Op::Write(path.clone(), *offset, data[..data.len() / 2 / 512 * 512].to_vec());
                apply(&mut state.files, &part);
                state.log.push(part);
            }
            if let Op::Flush(path) = &op {
                state.log.push(Op::LostFlush(path.clone()));
            }
            return Err(io::ErrorKind::StorageFull.into());
        }
        apply(&mut state.files, &op);
        state.log.push(op);
        Ok(())
    }
}

impl HostFiles for VirtualHost {
    fn create(&self, path: &Path, _mode: u32) -> io::Result<Arc<dyn Storage>> {
        if self.exists(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.run(Op::Create(path.to_owned()))?;
        Ok(self.storage(path))
    }

    fn open(&self, path: &Path, _locking: Locking) -> Result<Arc<dyn Storage>> {
        if !self.exists(path) {
            return Err(Error::io(Layer::Host, "cannot be opened", io::ErrorKind::NotFound.into()));
        }
        Ok(self.storage(path))
    }

    fn lock(&self, path: &Path, locking: Locking) -> Result<Arc<dyn Storage>> {
        self.open(path, locking)
    }

    fn real_path(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    fn open_journal(&self, path: &Path, _image_owner: Option<u32>) -> Result<Arc<dyn Storage>> {
        self.open(path, Locking::Ignore)
    }

    fn open_record(&self, path: &Path, _image_owner: Option<u32>) -> Result<Arc<dyn Storage>> {
        self.open(path, Locking::Ignore)
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.lock().unwrap().files.contains_key(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.run(Op::Remove(path.to_owned()))
    }

    fn rename(&self, from: &Path, to: &Path, replace: bool) -> io::Result<()> {
        if !replace && self.exists(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.run(Op::Rename(from.to_owned(), to.to_owned()))?;
        // An open file goes with its name; one that was replaced has none any more.
        for name in &mut self.0.lock().unwrap().open {
            if name == to {
                name.clear();
            } else if name == from {
                *name = to.to_owned();
            }
        }
        Ok(())
    }

    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        self.run(Op::SyncFolder(folder_of(path)))
    }
}

#[derive(Debug)]
struct VirtualFile {
    host: VirtualHost,
    /// Its place among the open files.
    number: usize,
}

impl VirtualFile {
    fn path(&self) -> PathBuf {
        self.host.0.lock().unwrap().open[self.number].clone()
    }

    fn with<T>(&self, f: impl FnOnce(&Vec<u8>) -> T) -> io::Result<T> {
        let state = self.host.0.lock().unwrap();
        state.files.get(&state.open[self.number]).map(f).ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Storage for VirtualFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.with(|file| {
            let source = &file[(offset as usize).min(file.len())..];
            let count = source.len().min(buf.len());
            buf[..count].copy_from_slice(&source[..count]);
            count
        })
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.host.run(Op::Write(self.path(), offset, data.to_vec()))
    }

    fn flush(&self) -> io::Result<()> {
        self.host.run(Op::Flush(self.path()))
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|file| file.len() as u64)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.host.run(Op::SetLen(self.path(), length))
    }

    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        self.host.run(Op::Reserve(self.path(), offset, length))
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.host.run(Op::Punch(self.path(), offset, length))
    }

    /// Blocks of zeros count as holes.
    fn run_at(&self, offset: u64) -> io::Result<HostRun> {
        self.with(|file| {
            let is_hole = |at: usize| file[at..(at + 4096 - at % 4096).min(file.len())].iter().all(|b| *b == 0);
            let start = offset as usize;
            if start >= file.len() {
                return HostRun { length: 0, is_data: false };
            }
            let first = is_hole(start);
            let mut end = (start + 4096 - start % 4096).min(file.len());
            while end < file.len() && is_hole(end) == first {
                end = (end + 4096).min(file.len());
            }
            HostRun { length: (end - start) as u64, is_data: !first }
        })
    }
}
