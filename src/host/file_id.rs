//! Identity of a file, whatever name it is reached by.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::read::read;
use crate::error::{Error, ErrorCode, Layer};
use crate::escape::shell_argument;

/// Largest file of `/sys` that is read, in bytes: a page.
pub(super) const ATTRIBUTE_BYTES_MAX: u64 = 1 << 16;

/// Device and inode number: equal for all names of a file, different for any two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file at `path`, symbolic links followed; `None` if it does not exist.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|meta| Self::from(&meta))
    }

    /// The file that holds the data of `path`: of a loop device, and of its partitions, the file that it is attached to. A
    /// device is the same by each of its nodes. `None` if it does not exist.
    pub(crate) fn of_data(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        if !meta.file_type().is_block_device() {
            return Some(Self::from(&meta));
        }
        let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        let attached = attached_file(&Path::new("/sys/dev/block").join(format!("{major}:{minor}")));
        Some(attached.unwrap_or(Self { device: meta.rdev(), inode: NO_INODE }))
    }
}

/// Stands for the inode number of a block device, which differs from node to node.
const NO_INODE: u64 = u64::MAX;

/// The file that a loop device is attached to, by the folder of the device, or of a partition of it, in `/sys`.
fn attached_file(device: &Path) -> Option<FileId> {
    let backing_file = |folder: &Path| backing_file(&folder.join("loop"));
    backing_file(device).or_else(|| backing_file(&device.join("..")))
}

/// The file that a loop device is attached to, by its folder `loop` in `/sys`.
pub(super) fn backing_file(attributes: &Path) -> Option<FileId> {
    // The attribute exists only while a file is attached. The name of a file that was removed does not lead to it.
    let bytes = read(&attributes.join("backing_file"), ATTRIBUTE_BYTES_MAX).ok()?;
    FileId::of(Path::new(OsStr::from_bytes(bytes.strip_suffix(b"\n").unwrap_or(&bytes))))
}

/// Device and inode of the file that holds the data of `path`, see [`FileId::of_data`]: a key for many files.
pub(crate) fn file_key(path: &Path) -> Option<(u64, u64)> {
    FileId::of_data(path).map(|id| (id.device, id.inode))
}

/// Whether two paths lead to one file, be it as a file and as a loop device that is attached to it.
pub(crate) fn is_same_file(one: &Path, other: &Path) -> bool {
    one == other || FileId::of_data(one).is_some_and(|id| FileId::of_data(other) == Some(id))
}

/// The refusal to edit a file that has several names; `why` says what would be wrong under the others.
pub(crate) fn several_names(path: &Path, why: &str) -> Error {
    let file = shell_argument(path, "FILE");
    Error::refused(Layer::Host, format!("the file has several names (hard links); {why}"))
        .with_code(ErrorCode::HardLinks)
        .path(path.display().to_string())
        .hint(format!("edit a copy of the file, or remove the other names, which this shows: find / -samefile {file}"))
}

impl From<&std::fs::Metadata> for FileId {
    fn from(meta: &std::fs::Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_device_and_its_partitions_are_the_file_that_they_are_attached_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("disk.raw"), b"x").unwrap();
        std::fs::write(at("other.raw"), b"x").unwrap();
        std::fs::create_dir_all(at("sys/loop0/loop")).unwrap();
        std::fs::create_dir_all(at("sys/loop0/loop0p1")).unwrap();
        std::fs::create_dir_all(at("sys/sda/sda1")).unwrap();
        std::fs::write(at("sys/loop0/loop/backing_file"), format!("{}\n", at("disk.raw").display())).unwrap();
        // As `/sys/dev/block` has them.
        for (number, device) in [("7:0", "loop0"), ("259:0", "loop0/loop0p1"), ("8:0", "sda"), ("8:1", "sda/sda1")] {
            std::os::unix::fs::symlink(at("sys").join(device), at(number)).unwrap();
        }
        let found = |number: &str| attached_file(&at(number));
        assert_eq!(found("7:0"), FileId::of(&at("disk.raw")));
        assert_eq!(found("259:0"), FileId::of(&at("disk.raw")));
        assert_ne!(found("7:0"), FileId::of(&at("other.raw")));
        assert_eq!((found("8:0"), found("8:1"), found("9:9")), (None, None, None));
        std::fs::remove_file(at("disk.raw")).unwrap();
        assert_eq!(found("7:0"), None, "the name of a removed file");
    }
}
