//! The inputs of a conversion, none of which may be its output: an export can be any file, by any name.

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::block::name::ImageName;
use crate::block::{DiskSource, Extent, Image, Locking, Storage, is_zero};
use crate::error::Result;
use crate::host::is_nbd_name;
use crate::nbd::{IDENTITY, NbdOptions};
use crate::units::ImageOffset;

/// Longer than the steps in which Linux counts the times of files.
const STEP: Duration = Duration::from_millis(25);
/// Longer than the steps of file systems that keep whole seconds, or every other one.
const LONG_STEP: Duration = Duration::from_millis(2100);

/// Blocks that are searched for data.
const SEARCHED: u64 = 1 << 14;

/// What is read in addition to the disk that is copied.
#[derive(Clone, Copy, Default)]
pub(crate) struct Inputs<'a> {
    /// Other disks of the machine.
    pub(crate) disks: &'a [&'a dyn Image],
    /// Other files.
    pub(crate) files: &'a [PathBuf],
}

impl Inputs<'_> {
    /// The files of all inputs.
    pub(super) fn all_files(&self, source: &(impl DiskSource + ?Sized)) -> Vec<PathBuf> {
        let disks = self.disks.iter().flat_map(|disk| disk.files());
        source.files().into_iter().chain(disks).chain(self.files.iter().cloned()).collect()
    }

    /// Whether one of the other files begins as `head`, as far as both go.
    pub(super) fn any_file_begins_with(&self, head: &[u8], nbd: &NbdOptions) -> bool {
        self.files.iter().any(|path| file_begins_with(path, head, nbd))
    }
}

/// Whether a disk, or a file of it, begins as `head`, which is not all zeros, as far as both go.
///
/// # Errors
/// When the disk cannot be read. A file that cannot be read has been read already, as far as it can be.
pub(super) fn disk_begins_with(disk: &(impl DiskSource + ?Sized), head: &[u8], nbd: &NbdOptions) -> Result<bool> {
    if is_same_beginning(&read_head(disk)?, head) {
        return Ok(true);
    }
    let files = disk.files();
    Ok(match disk.opened_file() {
        // A server may serve one client at a time: what is open already is not opened again.
        Some(file) => begins_with(&**file, head) || files.iter().skip(1).any(|path| file_begins_with(path, head, nbd)),
        None => files.iter().any(|path| file_begins_with(path, head, nbd)),
    })
}

/// The first bytes of a disk.
pub(super) fn read_head(source: &(impl DiskSource + ?Sized)) -> Result<Vec<u8>> {
    let mut head = vec![0; source.len().min(IDENTITY) as usize];
    source.read_at(ImageOffset(0), &mut head)?;
    Ok(head)
}

/// Offset and bytes of the first block of a disk that is not all zeros, among the first [`SEARCHED`] blocks with data.
///
/// # Errors
/// When the disk cannot be read.
pub(super) fn first_data(disk: &(impl DiskSource + ?Sized)) -> Result<Option<(u64, Vec<u8>)>> {
    let (mut at, mut searched) = (0, 0);
    while at < disk.len() && searched < SEARCHED {
        let Extent { length, kind } = disk.extent_at(ImageOffset(at), disk.len() - at)?;
        if kind.is_zero() {
            at = at.saturating_add(length.max(1));
            continue;
        }
        searched += 1;
        let mut block = vec![0; IDENTITY.min(disk.len() - at).min(length.max(1)) as usize];
        disk.read_at(ImageOffset(at), &mut block)?;
        if !is_zero(&block) {
            return Ok(Some((at, block)));
        }
        at += block.len() as u64;
    }
    Ok(None)
}

fn file_begins_with(path: &Path, head: &[u8], nbd: &NbdOptions) -> bool {
    let is_read = is_nbd_name(path)
        || path.metadata().is_ok_and(|metadata| metadata.is_file() || metadata.file_type().is_block_device());
    is_read && ImageName::of(path).open(Locking::Ignore, nbd).is_ok_and(|file| begins_with(&*file, head))
}

fn begins_with(file: &dyn Storage, head: &[u8]) -> bool {
    let mut found = vec![0; head.len()];
    let read = file.read_at(0, &mut found);
    read.is_ok_and(|count| is_same_beginning(found.get(..count).unwrap_or_default(), head))
}

/// Whether two disks begin the same, as far as both go, and not with zeros alone.
fn is_same_beginning(one: &[u8], other: &[u8]) -> bool {
    let common = one.len().min(other.len());
    one.get(..common) == other.get(..common) && one.get(..common).is_some_and(|bytes| !is_zero(bytes))
}

/// When files were last written to.
pub(super) struct Times(Vec<(PathBuf, Option<Time>)>);

/// Length, and time in seconds and nanoseconds.
type Time = (u64, i64, i64);

impl Times {
    /// Those of files of this machine; exports have none.
    pub(super) fn of(files: &[PathBuf]) -> Self {
        let files = files.iter().filter(|file| !is_nbd_name(file));
        Self(files.map(|file| (file.clone(), time_of(file))).collect())
    }

    /// Waits until a write gives another time.
    pub(super) fn pass(&self) {
        let is_coarse = |(_, time): &(PathBuf, Option<Time>)| time.is_some_and(|(.., nanoseconds)| nanoseconds == 0);
        let wait = if self.0.iter().any(|file| is_coarse(file) && is_recent(&file.0)) { LONG_STEP } else { STEP };
        if !self.0.is_empty() {
            std::thread::sleep(wait);
        }
    }

    /// The first file that has another time now.
    pub(super) fn changed(&self) -> Option<&Path> {
        self.0.iter().find(|(file, time)| time_of(file) != *time).map(|(file, _)| file.as_path())
    }
}

/// Whether a file has a time of the last seconds, or one to come.
fn is_recent(path: &Path) -> bool {
    let age = path.metadata().and_then(|metadata| metadata.modified()).map(|modified| modified.elapsed());
    !age.is_ok_and(|age| age.is_ok_and(|age| age > LONG_STEP))
}

/// Opened each time: of a file on another host, that asks for its time anew.
fn time_of(path: &Path) -> Option<Time> {
    let metadata = File::open(path).ok()?.metadata().ok()?;
    metadata.is_file().then(|| (metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}
