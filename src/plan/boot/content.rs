//! What the files of the boot volume hold after a plan.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::place::BOOT_MANAGER_BYTES_MAX;
use crate::clock::FileTime;
use crate::error::{Error, Layer, Result};
use crate::fat::FatVolume;
use crate::hive::Hive;
use crate::io::VolumeRead;
use crate::ntfs::{OpenOptions, Volume};
use crate::partition::{Content as FileSystem, Partition};
use crate::plan::apply::edit_hive;
use crate::plan::change::{Change, GuestHive};
use crate::plan::document::Plan;

/// A file of the boot volume after a plan.
#[derive(Clone, PartialEq, Eq)]
pub struct BootFile {
    /// Its path.
    pub path: String,
    /// Its content.
    pub bytes: Arc<Vec<u8>>,
    /// Whether it was there before.
    pub replaces: bool,
}

impl fmt::Debug for BootFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootFile({}, {} bytes)", self.path, self.bytes.len())
    }
}

/// The files of the boot volume that a plan writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFiles {
    /// Number of the partition.
    pub partition: u32,
    /// The files.
    pub files: Vec<BootFile>,
}

impl BootFiles {
    /// The content of a file, if the plan writes it. Names are compared without case.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Arc<Vec<u8>>> {
        self.files.iter().find(|file| file.path.eq_ignore_ascii_case(path)).map(|file| &file.bytes)
    }
}

/// The content of a file of a boot volume, which lies in `partition`; `None` if it is not there.
///
/// # Errors
/// When the volume cannot be read, is damaged there or holds another file system than FAT and NTFS; when the file is longer
/// than `limit`.
pub fn read_boot_volume<D: VolumeRead>(
    view: D,
    partition: &Partition,
    path: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>> {
    match partition.content {
        FileSystem::Fat => FatVolume::open(view)?.read(path, limit),
        FileSystem::Ntfs => {
            let volume = Volume::open_shared(view, &partition.replay, &OpenOptions::read_only())?;
            let Some(file) = volume.find(path)? else { return Ok(None) };
            volume.read(file, limit).map(Some)
        }
        other => Err(not_writable(other)),
    }
}

/// The error for a boot volume of another kind.
pub(super) fn not_writable(file_system: FileSystem) -> Error {
    Error::unsupported(Layer::Plan, format!("cannot edit the boot volume: it holds {file_system}, not FAT or NTFS"))
}

/// Reads a file of the boot volume: its path, and the most bytes that it may have. `None` if it does not exist.
type ReadFile<'a> = &'a dyn Fn(&str, u64) -> Result<Option<Vec<u8>>>;

/// What `plan` makes of the boot volume; `None` if it does not touch it. `read` reads a file of this volume as it is,
/// `store` is its boot configuration.
///
/// # Errors
/// When a file is not as it was when the plan was made, or an edit cannot be made.
pub fn boot_files(plan: &Plan, read: ReadFile<'_>, store: Option<Hive>, now: FileTime) -> Result<Option<BootFiles>> {
    let Some(place) = plan.boot.as_ref().filter(|_| plan.of_boot_volume().next().is_some()) else { return Ok(None) };
    let mut files = Vec::new();
    for step in plan.of_boot_volume() {
        let Change::CopyBootFile { path, from, size, sha256 } = &step.change else { continue };
        let bytes = read(from, BOOT_MANAGER_BYTES_MAX)?.filter(|bytes| {
            let hash: [u8; 32] = Sha256::digest(bytes).into();
            (bytes.len() as u64, hash) == (*size, *sha256)
        });
        let bytes = Arc::new(bytes.ok_or_else(|| gone(from))?);
        files.push(BootFile { path: path.clone(), bytes, replaces: false });
    }
    if plan.of_hive(GuestHive::Bcd).next().is_some() {
        let store = store.ok_or_else(|| gone(&place.store))?;
        let edited = edit_hive(plan, GuestHive::Bcd, store, now).map_err(|error| error.path(&place.store))?;
        edited.check().map_err(|error| error.path(&place.store))?;
        files.push(BootFile { path: place.store.clone(), bytes: Arc::new(edited.bytes), replaces: true });
    }
    Ok(Some(BootFiles { partition: place.partition, files }))
}

pub(super) fn gone(path: &str) -> Error {
    Error::refused(Layer::Plan, "the image is not the one that this plan was made for")
        .path(path)
        .hint("make the plan again")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Read as _;

    use super::*;
    use crate::ntfs::Replay;
    use crate::partition::{MemoryDisk, PartitionView, read};

    /// The files of the packed volume with an open log, in its two folders, and its partition.
    fn files(disk: &MemoryDisk, replay: Replay) -> (BTreeSet<String>, Partition) {
        let table = read(disk).unwrap().with_replay(replay);
        let partition = table.partition(0).unwrap().clone();
        let options = OpenOptions { replay, ..OpenOptions::read_only() };
        let volume = Volume::open(PartitionView::new(disk, &partition).unwrap(), &options).unwrap();
        let mut files = BTreeSet::new();
        for folder in ["/big", "/small"] {
            for entry in volume.entries(volume.find(folder).unwrap().unwrap()).unwrap() {
                files.insert(format!("{folder}/{}", entry.name));
            }
        }
        (files, partition)
    }

    #[test]
    fn a_boot_volume_is_replayed_only_where_its_partition_says_so() {
        let packed = std::fs::File::open("test-images/ntfs/unclean.img.gz").unwrap();
        let mut image = Vec::new();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut image).unwrap();
        let disk = MemoryDisk(image);
        let (replayed, with_replay) = files(&disk, Replay::WhereOpen);
        let (as_it_lies, without) = files(&disk, Replay::Never);
        // a file that only the log knows
        let new = replayed.difference(&as_it_lies).next().unwrap();
        let find = |partition: &Partition| {
            read_boot_volume(PartitionView::new(&disk, partition).unwrap(), partition, new, 1 << 20).unwrap()
        };
        assert!(find(&with_replay).is_some() && find(&without).is_none(), "{new}");
    }
}
