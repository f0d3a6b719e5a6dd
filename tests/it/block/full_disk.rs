//! Files that take no more data: too little space, or a device that is read-only in spite of what it says. What fails
//! before its first write leaves the files as they were, holes included, and needs no write for that.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use winject::internals::block::commit::{self, CommitOptions, UndoOptions, on};
use winject::internals::block::{
    FileIdentity, FileStorage, Fingerprint, Format, HostFiles, HostRun, Locking, PathPolicy, RealHost, Storage,
};
use winject::internals::error::Kind;
use winject::internals::error::Result;

use super::virtual_host::FailingHost;
use super::*;

/// The real host with image files that take no data: all writes to them fail, and reservations from a number on.
#[derive(Debug, Clone)]
struct FullHost {
    reservations: usize,
    reserved: Arc<AtomicUsize>,
}

impl FullHost {
    fn new(reservations: usize) -> Self {
        Self { reservations, reserved: Arc::default() }
    }
}

#[derive(Debug)]
struct FullFile(Arc<dyn Storage>, FullHost);

impl Storage for FullFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }
    fn write_at(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }
    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        if length > self.len()? { Err(io::ErrorKind::StorageFull.into()) } else { self.0.set_len(length) }
    }
    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        if self.1.reserved.fetch_add(1, Ordering::Relaxed) < self.1.reservations {
            return self.0.reserve(offset, length);
        }
        // A part of it was there.
        self.0.reserve(offset, (length / 2).max(1))?;
        Err(io::ErrorKind::StorageFull.into())
    }
    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.0.punch(offset, length)
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

impl HostFiles for FullHost {
    fn create(&self, path: &Path, mode: u32) -> io::Result<Arc<dyn Storage>> {
        RealHost.create(path, mode)
    }
    fn open(&self, path: &Path, locking: Locking) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(FullFile(RealHost.open(path, locking)?, self.clone())))
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
        RealHost.open_record(path, image_owner)
    }
    fn exists(&self, path: &Path) -> bool {
        RealHost.exists(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealHost.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path, replace: bool) -> io::Result<()> {
        RealHost.rename(from, to, replace)
    }
    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        RealHost.sync_folder_of(path)
    }
}

/// A file's path, its content, and its runs: length, and whether they hold data.
type FileState = (PathBuf, Vec<u8>, Vec<(u64, bool)>);

/// Content and holes of each file in a folder.
fn state(folder: &Path) -> Vec<FileState> {
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let state = |path: PathBuf| {
        let storage = FileStorage::open(&path, false).unwrap();
        storage.flush().unwrap();
        let (mut at, mut runs) = (0, Vec::new());
        while at < storage.len().unwrap() {
            let run = storage.run_at(at).unwrap();
            runs.push((run.length, run.is_data));
            at += run.length;
        }
        let content = std::fs::read(&path).unwrap();
        (path, content, runs)
    };
    paths.into_iter().map(state).collect()
}

/// Images with holes: raw, qcow2, and a qcow2 with a data file. Each in a folder of its own, its first file the image.
fn images() -> Vec<(tempfile::TempDir, PathBuf)> {
    let make = |arguments: &str, name: &str| {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        write_file(folder.path(), "source.raw", &mixed(SIZE, 77));
        qemu_img(folder.path(), &format!("convert -f raw {arguments} source.raw {name}"));
        std::fs::remove_file(folder.path().join("source.raw")).unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            // Holes and data alone: where space is only preallocated, what counts as a hole depends on the host's cache.
            let (file, copy) = (entry.unwrap().path(), folder.path().join("copy"));
            run(Command::new("cp").args(["--sparse=always", "--reflink=never"]).arg(&file).arg(&copy));
            std::fs::rename(copy, file).unwrap();
        }
        let image = folder.path().join(name);
        (folder, image)
    };
    vec![
        make("-O raw -S 4k", "image.raw"),
        make("-O qcow2", "image.qcow2"),
        make("-O qcow2 -o data_file=data.bin,data_file_raw=on", "image.qcow2"),
    ]
}

const SIZE: usize = 1 << 20;

/// A stage with changes, some of them in holes, some of them zeros.
fn changed(image: &Path) -> Stage {
    let mut stage = stage(image);
    let mut model = read_all(stage.image());
    scribble(&mut stage, &mut model, &mut Random::new(78), 12);
    for at in (0..SIZE as u64).step_by(96 << 10) {
        stage.write_at(ImageOffset(at + 8192), &[0x5a; 4096]).unwrap();
        stage.write_at(ImageOffset(at + 20_480), &[0; 20_480]).unwrap();
    }
    stage
}

fn options(image: &Path, keep_undo: bool) -> CommitOptions<'static> {
    let path_policy = PathPolicy::default().allow(image.with_file_name("data.bin"));
    CommitOptions { path_policy, keep_undo, ..CommitOptions::default() }
}

fn a_commit_without_space_leaves_files_and_holes_as_they_were() {
    if !has_qemu() {
        return;
    }
    for (folder, image) in images() {
        let before = state(folder.path());
        let mut failed = 0;
        for reservations in 0.. {
            let host = FullHost::new(reservations);
            let error = on::in_place(&host, &mut changed(&image), &image, &options(&image, true)).unwrap_err();
            let when = format!("{}, {reservations} reservations: {error}", image.display());
            assert_eq!(error.kind(), Kind::Io, "{when}");
            assert!(state(folder.path()) == before, "{when}");
            if host.reserved.load(Ordering::Relaxed) <= reservations {
                break; // All space was there, and the first write failed.
            }
            failed += 1;
        }
        assert!(failed > 0, "{}", image.display());
    }
}

fn a_failure_at_any_step_leaves_holes_as_they_were() {
    if !has_qemu() {
        return;
    }
    for (folder, image) in images() {
        let before = state(folder.path());
        let (mut failed, mut steps) = (0, 0);
        loop {
            let host = FailingHost::once(steps);
            let result = on::in_place(&host, &mut changed(&image), &image, &options(&image, true));
            let when = format!("{}, step {steps}: {result:?}", image.display());
            match result {
                Ok(done) => {
                    if host.left() < usize::MAX / 2 {
                        break;
                    }
                    // What failed came after the commit point.
                    if done.undo_record.is_some() {
                        let path_policy = options(&image, true).path_policy;
                        commit::undo(&image, &UndoOptions { path_policy, ..UndoOptions::default() }).unwrap();
                    } else {
                        break;
                    }
                }
                Err(error) if error.kind() == Kind::Pending => {
                    commit::recover(&image, &options(&image, true).path_policy).unwrap();
                    failed += 1;
                }
                Err(_) => failed += 1,
            }
            assert!(state(folder.path()) == before, "{when}");
            steps += 1;
        }
        assert!(failed > 10, "{}: {failed} of {steps}", image.display());
    }
}

fn an_undo_of_a_sparse_copy_without_space_does_not_begin() {
    if !has_qemu() {
        return;
    }
    let (folder, image) = images().swap_remove(0);
    let old = std::fs::read(&image).unwrap();
    commit::commit_in_place(&mut changed(&image), &image, &options(&image, true)).unwrap();
    let copies = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let copy = copies.path().join("image.raw");
    let record = commit::undo_path(&image);
    for (from, to) in [(&image, &copy), (&record, &commit::undo_path(&copy))] {
        run(Command::new("cp").args(["--sparse=always", "--reflink=never"]).arg(from).arg(to));
    }
    let before = state(copies.path());
    let copied = UndoOptions { is_copied: true, ..UndoOptions::default() };
    let mut refused = 0;
    for reservations in 0.. {
        let host = FullHost::new(reservations);
        let error = on::undo(&host, &copy, &copied).unwrap_err();
        if host.reserved.load(Ordering::Relaxed) <= reservations {
            assert_eq!(error.kind(), Kind::Pending, "the space was there, and a write failed: {error}");
            break;
        }
        assert_eq!(error.kind(), Kind::Io, "{error}");
        assert!(error.hint_text().unwrap().contains("free space"), "{error}");
        assert!(state(copies.path()) == before, "{reservations} reservations: {error}");
        refused += 1;
    }
    assert!(refused > 0);
    assert_eq!(commit::recover(&copy, &PathPolicy::default()).unwrap(), commit::Recovery::Undone);
    assert_equal(&std::fs::read(&copy).unwrap(), &old, "recovered");
    drop(folder);
}

/// The program on a file system that has room for less and less.
fn a_nearly_full_file_system_takes_an_injection_or_leaves_it() {
    let folder = crate::inject::folder();
    let mount = folder.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "none"]).arg(&mount).output().unwrap();
    if !mounted.status.success() {
        // Containers may forbid it.
        return crate::support::skip(&format!("cannot mount: {}", String::from_utf8_lossy(&mounted.stderr).trim()));
    }
    let _mounted = Mounted(mount.clone());
    for format in [Format::Raw, Format::Qcow2] {
        let pristine = crate::inject::writable_fixture(folder.path(), format);
        let image = mount.join(pristine.file_name().unwrap());
        crate::inject::copy(&pristine, &image);
        let (before, blocks) = (crate::inject::sha256(&image), image.metadata().unwrap().blocks());
        let room = 64 * 1024 - blocks / 2;
        let (mut failed, mut is_done) = (0, false);
        for free in (0..64).map(|n| n * 64) {
            let filler = std::fs::File::create(mount.join("filler")).unwrap();
            fill(&filler, (room - free - 16) * 1024);
            let drivers = crate::inject::fixture_drivers();
            let mut inject = crate::inject::winject();
            let output =
                inject.arg("inject").arg(&image).arg("--in-place").arg("--drivers").arg(drivers).output().unwrap();
            std::fs::remove_file(mount.join("filler")).unwrap();
            let when = format!("{format}, {free} KiB free: {}", crate::inject::stderr(&output));
            if output.status.success() {
                is_done = true;
                break;
            }
            assert_eq!(output.status.code(), Some(7), "{when}");
            assert_eq!(crate::inject::names(&mount), [image.file_name().unwrap().to_str().unwrap()], "{when}");
            assert_eq!(crate::inject::sha256(&image), before, "{when}");
            assert!(image.metadata().unwrap().blocks() <= blocks, "{when}");
            failed += 1;
        }
        assert!(failed > 0 && is_done, "{format}: {failed} failed");
        std::fs::remove_file(commit::undo_path(&image)).unwrap();
        std::fs::remove_file(&image).unwrap();
    }
}

/// Allocates this many bytes for a file, or as many as there is space for: a tmpfs counts for each processor, not to the
/// page.
fn fill(filler: &std::fs::File, mut bytes: u64) {
    while let Err(error) = rustix::fs::fallocate(filler, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        assert_eq!(error, rustix::io::Errno::NOSPC);
        bytes = bytes.checked_sub(16 << 10).unwrap();
    }
}

/// Unmounts at the end of a test, failed or not.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

tests![
    a_commit_without_space_leaves_files_and_holes_as_they_were,
    a_failure_at_any_step_leaves_holes_as_they_were,
    an_undo_of_a_sparse_copy_without_space_does_not_begin,
    a_nearly_full_file_system_takes_an_injection_or_leaves_it,
];
