//! What the kernel knows of a file that is going to be written: a device that is mounted or read-only, a loop device
//! that is attached to the file.

use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::file_id::{ATTRIBUTE_BYTES_MAX, FileId, backing_file};
use super::read::read;
use crate::error::{Error, ErrorCode, Layer, Result};
use crate::escape::shell_argument;

/// Block devices of the machine that are looked at.
const DEVICES_MAX: usize = 1 << 16;

/// Refuses to write to a block device that the kernel holds read-only, where only the first write would fail.
///
/// # Errors
/// [`Kind::Io`](crate::Kind::Io).
pub(super) fn refuse_read_only_device(meta: &Metadata, path: &Path) -> Result<()> {
    if !meta.file_type().is_block_device() {
        return Ok(());
    }
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let flag = read(format!("/sys/dev/block/{major}:{minor}/ro").as_ref(), ATTRIBUTE_BYTES_MAX);
    if !flag.is_ok_and(|flag| flag.trim_ascii() == b"1") {
        return Ok(());
    }
    let device = shell_argument(path, "DEVICE");
    Err(Error::io(Layer::Host, "cannot write to the device", io::ErrorKind::ReadOnlyFilesystem.into())
        .path(path.display().to_string())
        .hint(format!("make it writable: blockdev --setrw {device} (a loop device: attach it without --read-only)")))
}

/// The refusal of a device that could not be opened exclusively; `None` if `error` has another reason.
pub(super) fn device_in_use(error: &io::Error, path: &Path) -> Option<Error> {
    if error.raw_os_error() != Some(Errno::BUSY.raw_os_error()) {
        return None;
    }
    let device = shell_argument(path, "DEVICE");
    let error = Error::refused(Layer::Host, "cannot write to the device: it is mounted, or another program uses it")
        .with_code(ErrorCode::ImageInUse);
    Some(error.path(path.display().to_string()).hint(format!("unmount it; lsblk {device} shows where it is mounted")))
}

/// Refuses a file that a loop device is attached to: what uses the device would not see the changes, and would write
/// over them.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused).
pub(super) fn refuse_attached_file(meta: &Metadata, path: &Path) -> Result<()> {
    if !meta.is_file() {
        return Ok(());
    }
    let Some(device) = loop_device_of(FileId::from(meta), Path::new("/sys/block")) else { return Ok(()) };
    let shown = device.display();
    Err(Error::refused(Layer::Host, format!("the loop device {shown} is attached to the file"))
        .with_code(ErrorCode::ImageInUse)
        .path(path.display().to_string())
        .hint(format!(
            "unmount what is mounted from it, and detach it: losetup -d {}",
            shell_argument(&device, "DEVICE")
        )))
}

/// The loop device that is attached to a file, by the list of block devices in `list`.
fn loop_device_of(file: FileId, list: &Path) -> Option<PathBuf> {
    let devices = std::fs::read_dir(list).ok()?.take(DEVICES_MAX).flatten();
    let names = devices.map(|device| device.file_name()).filter(|name| name.as_bytes().starts_with(b"loop"));
    let mut attached = names.filter(|name| backing_file(&list.join(name).join("loop")) == Some(file));
    attached.next().map(|name| Path::new("/dev").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_device_is_found_by_the_file_that_it_is_attached_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["disk\n", "other"] {
            std::fs::write(at(name), b"x").unwrap();
        }
        std::fs::hard_link(at("disk\n"), at("second name")).unwrap();
        let list = at("block");
        for (device, file) in [("loop0", None), ("loop1", Some("other")), ("loop7", Some("disk\n")), ("sda", None)] {
            let folder = list.join(device).join("loop");
            std::fs::create_dir_all(&folder).unwrap();
            if let Some(file) = file {
                std::fs::write(folder.join("backing_file"), format!("{}\n", at(file).display())).unwrap();
            }
        }
        let found = |name: &str| loop_device_of(FileId::of(&at(name)).unwrap(), &list);
        assert_eq!(found("second name"), Some("/dev/loop7".into()));
        assert_eq!(found("other"), Some("/dev/loop1".into()));
        std::fs::write(at("third"), b"x").unwrap();
        assert_eq!(found("third"), None);
        assert_eq!(loop_device_of(FileId::of(&at("third")).unwrap(), &at("missing")), None);
    }
}
